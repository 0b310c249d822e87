"""Intervals of differences of probes, attributions and tracks, against calculations by hand."""

import numpy as np
import pytest
from scipy import stats

from elsewhere.analyzer import compare, network_accuracy, similarity
from elsewhere.analyzer.attribution import AttributionSettings, attribute
from elsewhere.analyzer.attribution.summaries import summarise
from elsewhere.analyzer.trajectories import TrackSettings, track
from elsewhere.probes import probe
from elsewhere.recording import Sweep
from elsewhere.stimuli import Canvas
from elsewhere.storage import ArraySource
from elsewhere.training import Curriculum, Exemplars, Network, Phase, list_checkpoints, train
from elsewhere.training.checkpoints import load_checkpoint

# --- probes ---------------------------------------------------------------------------------

N, PER = 6, 4


def readable(seed, layers=("one", "two"), changed=0.6):
    """Return probes of a network whose codes change with the place, the same objects for all."""
    rng = np.random.default_rng(seed)
    codes = 3 * rng.normal(size=(N, 1, 1, 20)).repeat(PER, axis=0)
    arrays = {}
    for layer in layers:
        values = codes + 0.5 * rng.normal(size=(N * PER, 1, 1, 20))
        turned = np.stack([values[:, 0, 0, rng.permutation(20)] for _ in range(12)], axis=1)
        mixed = (1 - changed) * values + changed * turned.reshape(N * PER, 3, 4, 20)
        mixed[:, 0, 0] = values[:, 0, 0]
        arrays[layer] = (mixed + rng.normal(size=mixed.shape)).astype(np.float32)
    names = [f"c{number}" for number in range(N) for _ in range(PER)]
    source = ArraySource(arrays, y=(5, 13, 21), x=(6, 14, 22, 30), categories=names)
    source.provenance.update(object_size=8, canvas=36)
    found = probe(source, train_at=(5, 6), controls=("shuffled",), n_shuffles=1, split="same")
    return found.assign_attrs(object_digest="same")


@pytest.fixture(scope="module")
def probes():
    return readable(1), readable(2)


def by_class(result):
    """Return accuracies (layer, class, where) from the choices, by the book."""
    far = (np.abs(result["y"] - 5) >= 8) | (np.abs(result["x"] - 6) >= 8)
    on = (result["y"] == 5) & (result["x"] == 6)
    right = result["correct"].astype(float)
    places = [right.where(mask).mean(("y", "x")) for mask in (on, ~on, far)]
    found = np.stack([each.groupby("category").mean().values for each in places], axis=-1)
    return found  # layer, category, where


def test_differences_of_probes_are_paired_over_classes(probes):
    found = compare(list(probes), ["a", "b"]).sel(other="b", exemplars="same")
    one, other = (by_class(each) for each in probes)
    np.testing.assert_allclose(
        probes[0]["accuracy_at_class"].sel(exemplars="same"), one, atol=1e-12
    )
    apart = other - one
    np.testing.assert_allclose(found["accuracy_at_difference"], apart.mean(axis=1), atol=1e-12)
    # of means of answers on and far: Student's t over classes
    lost = (other[..., 0] - other[..., 2]) - (one[..., 0] - one[..., 2])
    expected = stats.t.interval(0.95, N - 1, lost.mean(axis=1), stats.sem(lost, axis=1))
    bounds = found["on_minus_far_difference_interval"].values
    np.testing.assert_allclose(bounds, np.stack(expected, axis=-1), atol=1e-9)
    # of shares: arms of both intervals, and how the two go together over classes
    for layer in range(2):
        means = [each[layer, :, 2] for each in (one, other)]
        ends = [r["accuracy_at_interval"].values[layer, 0, 2] for r in probes]
        low = [m.mean() - e[0] for m, e in zip(means, ends, strict=True)]
        high = [e[1] - m.mean() for m, e in zip(means, ends, strict=True)]
        r = np.corrcoef(*means)[0, 1]
        down = np.sqrt(low[1] ** 2 + high[0] ** 2 - 2 * r * low[1] * high[0])
        up = np.sqrt(high[1] ** 2 + low[0] ** 2 - 2 * r * high[1] * low[0])
        middle = means[1].mean() - means[0].mean()
        for key in ("accuracy_at", "above_chance_at"):
            bounds = found[f"{key}_difference_interval"].values[layer, 2]
            np.testing.assert_allclose(bounds, [middle - down, middle + up], atol=1e-9)


def test_the_index_of_probes_is_jackknifed_over_classes(probes):
    found = compare(list(probes)).sel(exemplars="same").isel(other=0)
    values, left = [], []
    for result in probes:
        at = by_class(result)

        def index(at):
            return (at[:, :, 2].mean(1) - 1 / N) / (at[:, :, 0].mean(1) - 1 / N)

        values.append(index(at))
        left.append([index(np.delete(at, gone, axis=1)) for gone in range(N)])
    np.testing.assert_allclose(found["II_far_difference"], values[1] - values[0], atol=1e-12)
    without = np.array(left[1]) - np.array(left[0])
    error = np.sqrt((N - 1) / N * ((without - without.mean(axis=0)) ** 2).sum(axis=0))
    half = stats.t.ppf(0.975, N - 1) * error
    bounds = found["II_far_difference_interval"].values
    middle = values[1] - values[0]
    np.testing.assert_allclose(bounds, np.stack([middle - half, middle + half], -1), atol=1e-9)


def test_probes_joined_by_depth_have_intervals_between_layers(probes):
    more = readable(3, layers=("one", "between", "two"))
    found = compare([more, probes[0]])
    ends = found["accuracy_at_difference_interval"].sel(exemplars="same").isel(other=0)
    assert np.isfinite(ends).all()
    far = [by_class(each)[..., 2] for each in (more, probes[0])]
    middle = far[1].mean(axis=0).mean() - far[0][1].mean()
    value = found["accuracy_at_difference"].sel(exemplars="same").values[0, 1, 2]
    assert value == pytest.approx(middle)
    assert ends.values[1, 2, 0] < middle < ends.values[1, 2, 1]


def test_what_probes_do_not_keep_by_class_is_said(probes):
    notes = [n for n in compare(list(probes)).attrs["notes"] if "have no interval" in n]
    assert len(notes) == 1
    named = notes[0].split(" and ")[0].split(", ")
    assert "accuracy_by_displacement" in named
    assert not {"accuracy_at", "II_far", "on_minus_far"} & {*named}


# --- attribution ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def maps(make_sweep):
    settings = AttributionSettings(method="input-x-gradient", target="logit:1")
    both = [attribute(make_sweep(n=5, grid="2x2"), settings)]
    both.append(attribute(make_sweep(n=5, grid="2x2", layers=None), AttributionSettings(
        method="input-x-gradient", target="logit:2")))  # fmt: skip
    same = {"target": "a class", "object_digest": "same"}
    return [each.assign_attrs(same) for each in both]


def test_differences_of_attributions_are_jackknifed_over_objects(maps):
    found, n = compare(maps), maps[0].sizes["object"]
    for key in ("equivariance_away", "equivariance_over_cross_away", "equivariance_cross_away",
                "mass_inside_away", "entropy_away"):  # fmt: skip
        left = []
        for gone in range(n):
            rest = [number for number in range(n) if number != gone]
            one, other = (summarise(each.isel(object=rest))[key].values for each in maps)
            left.append(other - one)
        left = np.array(left)
        apart = maps[1][key].values - maps[0][key].values
        error = np.sqrt((n - 1) / n * ((left - left.mean(axis=0)) ** 2).sum(axis=0))
        half = stats.t.ppf(0.975, n - 1) * error
        np.testing.assert_allclose(found[f"{key}_difference"][0], apart, atol=1e-9)
        np.testing.assert_allclose(
            found[f"{key}_difference_interval"][0],
            np.stack([apart - half, apart + half], axis=-1),
            atol=1e-9,
            err_msg=key,
        )


def test_a_map_that_one_network_lacks_counts_in_the_other(maps):
    """An object without a value in one result is left out of that one's mean only."""
    holes = maps[1].copy(deep=True)
    holes["mass_inside"][2] = np.nan
    values = holes["mass_inside"].where(
        (holes["y"] != holes.attrs["reference_y"]) | (holes["x"] != holes.attrs["reference_x"])
    )
    each = values.mean(("y", "x")).values
    first = maps[0]["mass_inside"].where(values[0].notnull() | True)
    holes["mass_inside_away"] = np.nanmean(each)
    found = compare([maps[0], holes])["mass_inside_away_difference_interval"].values[0]
    away = (maps[0]["y"] != maps[0].attrs["reference_y"]) | (
        maps[0]["x"] != maps[0].attrs["reference_x"]
    )
    one = first.where(away).mean(("y", "x")).values
    n = len(one)
    left = np.array([np.nanmean(np.delete(each, k)) - np.delete(one, k).mean() for k in range(n)])
    error = np.sqrt((n - 1) / n * ((left - left.mean()) ** 2).sum())
    half = stats.t.ppf(0.975, n - 1) * error
    middle = np.nanmean(each) - one.mean()
    np.testing.assert_allclose(found, [middle - half, middle + half], atol=1e-9)


# --- tracks ---------------------------------------------------------------------------------

CANVAS = Canvas(16, 7)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folders = []
    for rate in (1e-3, 3e-2):
        folder = tmp_path_factory.mktemp("run")
        phases = tuple(
            Phase(
                name, "glyphs", categories=k, exemplars=Exemplars(3, 3), environment="one:8,8",
                steps=6, batch=8, checkpoints=(), learning_rate=rate, new_head=True,
            )
            for name, k in (("many", 5), ("less", 4))
        )  # fmt: skip
        network = Network("small-cnn", arguments={"channels": "4-8", "hidden": 8})
        train(Curriculum("t", network, CANVAS, phases), folder, device="cpu")
        folders.append(folder)
    return folders


@pytest.fixture(scope="module")
def tracks(runs):
    settings = TrackSettings(grid="3x3", layers=("pool2", "fc4"), per_category=3, probes=True)
    return [track(each, settings=settings, device="cpu") for each in runs]


def test_differences_of_tracks_are_those_of_each_checkpoint(runs, tracks):
    found = compare(tracks, ["slow", "fast"])
    cards = [list_checkpoints(each) for each in runs]
    for number, pair in enumerate(zip(*cards, strict=True)):
        one = found.isel(checkpoint=number, other=0)
        alike, answers, read = [], [], []
        for card in pair:
            model = load_checkpoint(card)
            tested, held_out = card.test_objects(per_category=3)
            answers.append(
                network_accuracy(
                    model, tested, CANVAS, "3x3", trained=[(8, 8)], held_out=held_out,
                    classes=card.categories,
                )
            )  # fmt: skip
            last = cards[0][-1].test_objects(per_category=1)[0].select(None, 1)
            sweep = Sweep(model, last, canvas=CANVAS, grid="3x3", layers=("pool2", "fc4"))
            alike.append(similarity(sweep.at((8, 8))))
            shown = Sweep(model, tested, canvas=CANVAS, grid="3x3", layers=("pool2", "fc4"))
            at = sweep.at((8, 8)).design.reference
            read.append(probe(shown.at((8, 8)) if at is None else shown, train_at=at,
                              held_out=held_out, controls=(), seed=card.seed))  # fmt: skip
        trials = compare(answers)
        for place, where in enumerate(("on", "off", "far")):
            for end in ("", "_interval"):
                np.testing.assert_allclose(
                    one[f"accuracy_{where}_difference{end}"].values,
                    trials[f"accuracy_at_difference{end}"].values[0][:, place],
                    atol=1e-6, err_msg=where,
                )  # fmt: skip
        layers = compare(alike)
        for key in ("cosine_away", "cosine_G_away"):
            np.testing.assert_allclose(
                one[f"{key}_difference_interval"].values,
                layers[f"{key}_difference_interval"].values[0],
                atol=1e-6, err_msg=key,
            )  # fmt: skip
        probed = compare(read)
        for key in ("accuracy_at", "II_far"):
            np.testing.assert_allclose(
                one[f"probe_{key}_difference_interval"].values,
                probed[f"{key}_difference_interval"].values[0],
                atol=1e-6, err_msg=key,
            )  # fmt: skip
    assert np.isfinite(found["accuracy_off_difference_interval"]).all()
    assert np.isfinite(found["probe_accuracy_at_difference_interval"].sel(where="off")).any()


def test_a_track_less_itself_is_zero_and_surely_so(tracks):
    found = compare([tracks[0], tracks[0]], ["a", "b"])
    for key in ("accuracy_off", "cosine_G_away"):
        known = tracks[0][key].notnull().values
        np.testing.assert_array_equal(found[f"{key}_difference_interval"].values[0][known], 0.0)


def test_tracks_of_other_exemplars_have_no_interval_of_accuracy(tracks):
    other = tracks[1].assign_attrs(tested_digests=["another"] * tracks[1].sizes["checkpoint"])
    found = compare([tracks[0], other])
    assert found["accuracy_off_difference_interval"].isnull().all()
    assert found["cosine_G_away_difference_interval"].notnull().any()
    assert sum("other exemplars were tested" in note for note in found.attrs["notes"]) == 1
