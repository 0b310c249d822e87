import numpy as np
import pytest
from scipy import stats

from elsewhere.analyzer import measure
from elsewhere.measures.intervals import Sampled, jackknife_t
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
    arguments = {"own": own, "rows": sums, "columns": sums, "same": np.full(3, 0.4)}
    arguments |= {"codes": np.array([0, 1]), "reference_index": 0}
    without = summarise_similarity(**arguments)
    assert float(without.similarity_away.value) == pytest.approx(0.4)
    among = summarise_similarity(**arguments, include_reference=True)
    assert float(among.similarity_away.value) == pytest.approx(0.6)
    assert np.isnan(without.baseline_cross.interval).all()  # leaving one out leaves no pair
    assert np.isfinite(without.similarity.interval).all()


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
    "name", ["cosine", "cka-biased", "rsa", "partition", "discrimination", "sensitivity-euclidean"]
)
def test_copies_of_exemplars_change_no_interval(name):
    values, names = sample(np.random.default_rng(1), 8, 2)
    copies = np.repeat(values, 6, axis=0), np.repeat(names, 6)
    places = [[5, x] for x in (5, 9, 13)]
    one, six = (
        measure(each, places, names=name, categories=[str(code) for code in codes])
        for each, codes in ((values, names), copies)
    )
    intervals = [key for key in one.data_vars if str(key).endswith("_interval")]
    assert intervals
    for key in intervals:
        wide = [float(np.diff(found[key].values[0], axis=-1).ravel()[-1]) for found in (one, six)]
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
