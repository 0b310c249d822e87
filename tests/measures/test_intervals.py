import numpy as np
import pytest
from scipy import stats

from elsewhere.analyzer import measure
from elsewhere.measures.accuracy import normalized_accuracy
from elsewhere.measures.intervals import (
    Bounded,
    Sampled,
    Spread,
    correlation_of,
    jackknife_t,
    share_interval,
)
from elsewhere.measures.similarity import contrast, n_cross_pairs, summarise_similarity


def left_out_means(values):
    return (values.sum(axis=0) - values) / (len(values) - 1)


def test_of_a_mean_it_is_students_t_interval():
    values = np.random.default_rng(0).normal(size=12)
    expected = stats.t.interval(0.95, 11, loc=values.mean(), scale=stats.sem(values))
    np.testing.assert_allclose(jackknife_t(values.mean(), left_out_means(values)), expected)
    wide = jackknife_t(values.mean(), left_out_means(values), level=0.99)
    np.testing.assert_allclose(
        wide, stats.t.interval(0.99, 11, loc=values.mean(), scale=stats.sem(values))
    )


@pytest.mark.parametrize("n", [4, 10])
def test_it_covers_a_mean_95_times_in_100(n):
    samples = np.random.default_rng(n).normal(3.0, 2.0, size=(n, 4_000))
    low, high = np.moveaxis(jackknife_t(samples.mean(0), left_out_means(samples)), -1, 0)
    assert np.mean((low <= 3.0) & (high >= 3.0)) == pytest.approx(0.95, abs=0.012)


def test_it_covers_a_ratio_of_means():
    """G is a ratio: the jackknife's point, for which no t interval of a mean would do."""
    rng = np.random.default_rng(5)
    n, trials = 15, 2_000
    top = rng.normal(2.0, 0.5, size=(n, trials))
    low = rng.normal(4.0, 0.5, size=(n, trials))
    ratios = top.mean(0) / low.mean(0)
    interval = jackknife_t(ratios, left_out_means(top) / left_out_means(low))
    covered = (interval[..., 0] <= 0.5) & (interval[..., 1] >= 0.5)
    assert np.mean(covered) == pytest.approx(0.95, abs=0.02)


def test_where_it_is_undefined_it_is_nan_without_a_warning(recwarn):
    assert np.isnan(jackknife_t(np.array(1.0), np.empty(0))).all()
    assert np.isnan(jackknife_t(np.array([1.0, 2.0]), np.ones((1, 2)))).all()
    assert jackknife_t(np.ones((2, 3)), np.ones((1, 2, 3))).shape == (2, 3, 2)
    found = jackknife_t(np.array([1.0, 2.0]), np.array([[1.0, np.nan], [1.0, 2.0]]))
    assert np.isnan(found).tolist() == [[False, False], [True, True]]
    assert not recwarn.list


def test_contrast_and_pairs():
    assert contrast(np.array([0.9]), np.array([0.9995])) == pytest.approx(np.nan, nan_ok=True)
    assert contrast(np.array([0.25]), np.array([0.5]))[0] == pytest.approx(-0.5)
    assert n_cross_pairs(np.array([0, 0, 1, 2, 2, 2])) == 2 * (2 * 1 + 2 * 3 + 1 * 3)
    assert n_cross_pairs(np.array([0, 0])) == 0


def test_the_reference_is_left_out_of_means_unless_asked_for():
    own = np.array([[1.0, 0.5, 0.3], [1.0, 0.7, 0.1]])
    sums = np.full((2, 3), 0.2)
    arguments = {"own": own, "rows": sums, "columns": sums, "same": sums}
    arguments |= {"codes": np.array([0, 1]), "reference_index": 0}
    without = summarise_similarity(**arguments)
    assert float(without["_away"][1]) == pytest.approx(0.4)
    among = summarise_similarity(**arguments, include_reference=True)
    assert float(among["_away"][1]) == pytest.approx(0.6)
    for found in (
        without,
        among,
    ):  # of two objects, D = 0.2: G = (0.6 - 0.2) / 0.8, (0.2 - 0.2) / 0.8
        np.testing.assert_allclose(found["_G"][1], [np.nan, 0.5, 0.0], atol=1e-12)
        assert float(found["_G_away"][1]) == pytest.approx(0.25)
    assert np.isnan(without["_baseline_interval"][1]).all()  # leaving one out leaves no pair
    assert np.isfinite(without["_interval"][1]).all()


def test_a_g_wholly_below_zero_is_explained():
    """Elsewhere the code of an object is that of all others at the reference, less its own."""
    rng = np.random.default_rng(0)
    here = rng.normal(size=(6, 50))
    there = here.sum(axis=0) - 3 * here
    values = {"early": np.stack([here, there], axis=1), "late": np.stack([here, here], axis=1)}
    for against in ("reference", "all"):
        found = measure(values, [[5, 5], [5, 9]], names="cosine", against=against)
        said = [note for note in found.attrs["notes"] if "wholly below 0" in note]
        assert len(said) == 1
        assert said[0].startswith("G lies wholly below 0 in early: ")
        assert float(found["cosine_G_away"].sel(layer="early")) < -0.2


# --- what is left out ------------------------------------------------------------------------


def sample(rng, n_categories, per, n_units=60):
    """Objects of categories at three places: noise of the category, of the exemplar, and own."""
    kinds = rng.normal(size=(n_categories, 1, 1, n_units))
    exemplars = 0.3 * rng.normal(size=(n_categories, per, 1, n_units))
    places = rng.normal(size=(1, 1, 3, n_units))
    strength = rng.gamma(2.0, 0.4, size=(n_categories, 1, 1, 1))  # some survive the move better
    noise = strength * rng.normal(size=(n_categories, per, 3, n_units))
    values = kinds + exemplars + 0.4 * places + noise
    return values.reshape(n_categories * per, 3, n_units), np.repeat(np.arange(n_categories), per)


def G_away(values, names):
    places = [[5, x] for x in (5, 9, 13)]
    found = measure(values, places, names="cosine", categories=[str(name) for name in names])
    return float(found["cosine_G_away"][0]), found["cosine_G_away_interval"].values[0], found


def test_categories_are_left_out_where_they_were_sampled():
    rng = np.random.default_rng(0)
    truth = np.mean([G_away(*sample(rng, 10, 4))[0] for _ in range(300)])
    hits = []
    for _ in range(200):
        _, (low, high), found = G_away(*sample(rng, 10, 4))
        hits.append(low <= truth <= high)
    assert found.attrs["sampled"] == "category"
    assert 0.90 < np.mean(hits) < 0.99, np.mean(hits)


@pytest.mark.parametrize(
    "name",
    [
        "cosine",
        "centred",
        "cka-biased",
        "rsa",
        "partition",
        "discrimination",
        "consistency",
        "sensitivity-euclidean",
    ],
)
def test_copies_of_exemplars_change_no_interval(name):
    rng = np.random.default_rng(1)
    values, names = sample(rng, 8, 2)
    layers = {"fc1": values, "fc2": values + rng.normal(size=values.shape)}
    places = [[5, x] for x in (5, 9, 13)]
    one, six = (
        measure(
            {layer: np.repeat(each, times, axis=0) for layer, each in layers.items()},
            places,
            names=name,
            categories=[str(code) for code in np.repeat(names, times)],
        )
        for times in (1, 6)
    )
    intervals = [key for key in one.data_vars if str(key).endswith("_interval")]
    assert any("_step_" in str(key) for key in intervals)
    for key in intervals:
        wide = [float(np.diff(found[key].values[1], axis=-1).ravel()[-1]) for found in (one, six)]
        # RSA and distances see pairs of copies, whose difference is nothing, so they move a little
        assert wide[1] > 0.6 * wide[0], key


def test_means_without_each_unit():
    values = np.arange(12.0).reshape(6, 2)
    sampled = Sampled.of(["b", "a", "b", "c", "a", "a"])
    assert sampled.unit == "category"
    names = np.array(["b", "a", "b", "c", "a", "a"])
    wanted = [values[names != name].mean(axis=0) for name in ("a", "b", "c")]
    np.testing.assert_allclose(sampled.means_without(values), wanted)


def test_the_interval_of_G_is_the_jackknife_of_the_whole_computation():
    values, names = sample(np.random.default_rng(2), 6, 2)
    value, interval, found = G_away(values, names)
    without = [G_away(values[names != left], names[names != left])[0] for left in range(6)]
    np.testing.assert_allclose(interval, jackknife_t(np.asarray(value), np.array(without)))
    over = found["cosine_over_place_away"]
    left = [
        float(G_away(values[names != k], names[names != k])[2]["cosine_over_place_away"][0])
        for k in range(6)
    ]
    np.testing.assert_allclose(
        found["cosine_over_place_away_interval"].values[0],
        jackknife_t(np.asarray(float(over[0])), np.array(left)),
        atol=1e-9,
    )


# --- shares: accuracies and what is made of them ---------------------------------------------

N_SETS = 600
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(41)


def logistic(values):
    return 1 / (1 + np.exp(-values))


def offset_for(accuracy, spread, classes):
    """Return what to add to logits so that the mean over classes and exemplars is `accuracy`."""
    low, high = -30.0, 30.0
    for _ in range(60):
        middle = (low + high) / 2
        each = logistic(middle + classes[:, None] + spread * NODES) @ WEIGHTS / WEIGHTS.sum()
        low, high = (middle, high) if each.mean() < accuracy else (low, middle)
    return low


def answers(rng, accuracy, labels, *, classes, spread, places):
    """Return shares of places at which exemplars are recognised, (exemplar, data set).

    An exemplar that is hard at one place is hard at all of them.
    """
    hard = spread * rng.normal(size=(len(labels), N_SETS, 1))
    at = logistic(offset_for(accuracy, spread, classes) + classes[labels][:, None, None] + hard)
    return (rng.random((len(labels), N_SETS, places)) < at).mean(axis=-1)


def covered(interval, truth):
    return np.mean((interval[..., 0] <= truth + 1e-9) & (interval[..., 1] >= truth - 1e-9))


SIZES = {
    "3x3": [3] * 3,
    "3x24": [24] * 3,
    "8x6": [6] * 8,
    "24x3": [3] * 24,
    "12, 12, 4, 4": [12, 12, 4, 4],
}


@pytest.mark.parametrize("sizes", SIZES.values(), ids=list(SIZES))
@pytest.mark.parametrize("accuracy", [0.3, 0.85, 0.98])
def test_accuracy_covers_new_exemplars_of_the_same_classes(accuracy, sizes):
    """Of 600 data sets 95 % are 570, give or take 5; one place, and places of one exemplar."""
    rng = np.random.default_rng(len(sizes))
    labels, classes = np.repeat(np.arange(len(sizes)), sizes), np.linspace(-1.5, 1.5, len(sizes))
    for spread, places in ((0.5, 1), (2.0, 12)):
        values = answers(rng, accuracy, labels, classes=classes, spread=spread, places=places)
        interval = share_interval(Spread.of(values, labels))
        assert covered(interval, accuracy) >= 0.92, (spread, places)
        assert np.ptp(interval, axis=-1).min() > 0  # never a point, neither where all are right


@pytest.mark.parametrize("n", [3, 8, 24])
def test_probes_cover_new_categories(n):
    rng = np.random.default_rng(n)
    for accuracy in (0.3, 0.85, 0.95):
        categories = rng.normal(size=(n, N_SETS, 1, 1)) * 1.5
        hard = rng.normal(size=(n, N_SETS, 3, 1))
        offset = offset_for(accuracy, np.hypot(1.5, 1.0), np.zeros(1))
        at = logistic(offset + categories + hard)
        values = (rng.random((n, N_SETS, 3, 6)) < at).mean(axis=(2, 3))
        assert covered(share_interval(Spread.of(values)), accuracy) >= 0.92, accuracy


@pytest.mark.parametrize(("near", "far"), [(0.98, 0.98), (0.97, 0.5), (0.95, 0.25)])
def test_the_index_and_the_difference_cover(near, far):
    """An exemplar that is hard here is hard there; chance is .2."""
    rng = np.random.default_rng(0)
    labels, classes = np.repeat(np.arange(5), 5), np.linspace(-0.5, 0.5, 5)
    hard = 1.5 * rng.normal(size=(25, N_SETS, 1))
    parts = []
    for accuracy, places in ((near, 2), (far, 12)):
        at = logistic(offset_for(accuracy, 1.5, classes) + classes[labels][:, None, None] + hard)
        parts.append((rng.random((25, N_SETS, places)) < at).mean(axis=-1))
    here, there = (Spread.of(values, labels) for values in parts)
    correlation = correlation_of(here, there, Spread.of(parts[0] - parts[1], labels))
    bounded = [Bounded(each.mean, share_interval(each)) for each in (here, there)]
    assert covered(bounded[0].less(bounded[1], correlation), near - far) >= 0.92
    shares = [
        Bounded(*(normalized_accuracy(v, 5) for v in (each.value, each.interval)))
        for each in bounded
    ]
    index = shares[1].over(shares[0], correlation)
    assert covered(index, (far - 0.2) / (near - 0.2)) >= 0.92
    assert np.ptp(index, axis=-1).min() > 0


def test_at_the_edges_it_is_wilsons():
    for n in (3, 9, 40):
        reference = stats.binomtest(n, n).proportion_ci(method="wilson")
        np.testing.assert_allclose(share_interval(Spread.of(np.ones(n))), [reference[0], 1])
        np.testing.assert_allclose(
            share_interval(Spread.of(np.zeros(n))), [0, 1 - reference[0]], atol=1e-12
        )
    labels = np.repeat([0, 1], [12, 3])  # counts as 2**2 / (1 / 12 + 1 / 3) = 9.6 exemplars
    low, _ = share_interval(Spread.of(np.ones(15), labels))
    assert low == pytest.approx(9.6 / (9.6 + stats.norm.ppf(0.975) ** 2))


def test_there_is_no_spread_below_three():
    assert np.isnan(share_interval(Spread.of([1.0, 0.5]))).all()
    assert np.isnan(share_interval(Spread.of(np.ones(8), [0, 0, 0, 1, 1, 1, 2, 2]))).all()
    assert np.isnan(share_interval(Spread.of(np.empty((0, 2))))).all()
    assert np.isfinite(share_interval(Spread.of([1.0, 0.5, 0.0]))).all()
    there = Spread.of([[1.0, np.nan], [0.5, np.nan], [0.0, np.nan]])  # nothing lies far away
    assert np.isnan(share_interval(there)).tolist() == [[False, False], [True, True]]


def test_far_from_the_edges_it_is_students():
    values = np.random.default_rng(0).uniform(0.4, 0.6, size=200)
    expected = stats.t.interval(0.95, 199, loc=values.mean(), scale=stats.sem(values))
    np.testing.assert_allclose(share_interval(Spread.of(values)), expected, atol=2e-3)


def test_a_ratio_ends_where_the_difference_is_at_its_bound():
    """Fieller's way: the bound R of a / b is where the interval of a - R b ends at 0."""
    one = Bounded(np.array(0.4), np.array([0.2, 0.7]))
    two = Bounded(np.array(0.9), np.array([0.6, 1.0]))
    low, high = one.over(two, 0.3)
    for bound, side in ((low, 0), (high, 1)):
        scaled = Bounded(bound * two.value, bound * two.interval)
        assert one.less(scaled, 0.3)[side] == pytest.approx(0, abs=1e-12)
    below = Bounded(np.array(0.02), np.array([-0.1, 0.1])).over(two)
    assert below[0] < 0 < below[1]


def test_shares_that_are_1_throughout_have_no_interval_of_a_point():
    """Eight objects that are told everywhere: Wilson's interval of 8 of 8, wider through maps."""
    rng = np.random.default_rng(0)
    values = np.repeat(rng.normal(size=(8, 1, 60)), 3, axis=1)
    found = measure(values, [[5, x] for x in (5, 9, 13)], names="discrimination,identification")
    low = 8 / (8 + stats.norm.ppf(0.975) ** 2)
    for name in ("discrimination_away", "identification_raw_away", "identification_centred_away"):
        assert float(found[name][0]) == 1
        np.testing.assert_allclose(found[f"{name}_interval"].values[0], [low, 1], err_msg=name)
    low, high = found["identification_hidden_interval"].values[0]
    assert low < float(found["identification_hidden"][0]) < high


def test_measure_says_what_has_no_interval():
    values = np.random.default_rng(0).normal(size=(6, 3, 20))
    places = [[5, x] for x in (5, 9, 13)]
    six = measure(values, places, names="cosine", categories=list("abcdef"))
    assert not any("no interval" in note for note in six.attrs["notes"])
    two = measure(values, places, names="cosine", categories=list("aaabbb"))
    (note,) = [note for note in two.attrs["notes"] if "no interval" in note]
    assert "cosine_G_away" in note
    assert "cosine_away" not in note.split("; ")[0].split(": ")[1].split(", ")
    assert "categories are left out in turn" in note
