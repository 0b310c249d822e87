"""Each phase is measured against its own chance, and from where it was trained."""

import linecache
import sys

import numpy as np
import pytest
import torch

import elsewhere
from elsewhere.analyzer import compare, describe_methods
from elsewhere.analyzer.factors import FactorSink, formed
from elsewhere.analyzer.track_join import join_checkpoints
from elsewhere.analyzer.track_summary import summarise_track
from elsewhere.analyzer.trajectories import TrackSettings, measure_checkpoint, track
from elsewhere.measures import measures
from elsewhere.recording import Sweep
from elsewhere.stimuli import Canvas, Grid, load_objects
from elsewhere.training import Curriculum, Exemplars, Network, Phase, list_checkpoints, train
from elsewhere.training.checkpoints import load_checkpoint
from elsewhere.training.resolution import resolve
from tests.counting import counting

CANVAS = Canvas(16, 7)


def make_phase(name, categories, environment, **options):
    return Phase(
        name, "glyphs", categories=categories, exemplars=Exemplars(3, 2), environment=environment,
        steps=2, batch=4, checkpoints=(0,), **options,
    )  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("track")
    phases = (
        make_phase("many", 8, "one:5,6"),
        make_phase("two", 2, "places:2", new_head=True),
        make_phase("all", 4, "full", new_head=True),
    )
    network = Network("small-cnn", arguments={"channels": "4-8", "hidden": 8})
    train(Curriculum("t", network, CANVAS, phases), folder, device="cpu")
    return folder


@pytest.fixture(scope="module")
def tracked(run):
    return track(run, settings=TrackSettings(grid="2x2", layers=("fc4",), per_category=2))


def test_chance_is_that_of_the_phase(tracked):
    assert tracked["n_classes"].values.tolist() == [8, 8, 2, 2, 4, 4]
    for phase, n in (("many", 8), ("two", 2), ("all", 4)):
        threshold = 1 / n + 0.1 * (1 - 1 / n)
        for shift, onset in ((0.01, True), (-0.01, False)):
            found = tracked.copy(deep=True)
            found["accuracy_off"][:] = 0.0
            rows = np.flatnonzero(found["phase"] == phase)
            found["accuracy_off"][rows[1]] = threshold + shift
            steps = summarise_track(found, phase)["onset_step"].values
            assert np.isfinite(steps).all() == onset, (phase, shift)


def test_the_methods_text_says_what_was_shown_and_tested(tracked):
    text = describe_methods(tracked)
    n, k = tracked.sizes["object"], len(set(tracked["category"].values.tolist()))
    objects = f"There were {n} objects of {k} categories of the set '{tracked.attrs['object_set']}'"
    for word in (
        objects, "on a canvas of 16 x 16 px of constant background", "y: 2 from", "pixel / 255",
        "The layer was ", "many (", "invariance-index", "jackknife", "## Notes on the numbers",
    ):  # fmt: skip
        assert word in text, word


def test_older_results_know_the_last_phase_only(tracked):
    older = tracked.drop_vars("n_classes").copy(deep=True)
    older["accuracy_off"][:] = 0.9
    assert np.isfinite(summarise_track(older, "all")["onset_step"]).all()
    assert np.isnan(summarise_track(older, "many")["onset_step"]).all()


def test_a_dead_layer_is_not_what_training_lost(tracked):
    dead = tracked.copy(deep=True)
    assert not any("dead" in note for note in summarise_track(dead, "all").attrs["notes"])
    dead["cosine_zero_share"][-1, 0] = 0.9
    (note,) = [n for n in summarise_track(dead, "all").attrs["notes"] if "dead" in n]
    assert note.endswith(f": {dead['layer'].values[0]}")


@pytest.mark.parametrize("which", [0, 1])
def test_a_checkpoint_that_answers_to_fewer_objects_is_tracked(run, which):
    """NaN without the others: a network that collapsed answers to some objects only."""
    cards = [card for card in list_checkpoints(run) if card.phase == "all"]
    settings = TrackSettings(grid="2x2", layers=("fc4",))
    objects = load_objects("novel", size=7)
    found = [measure_checkpoint(card, objects, settings=settings) for card in cards]
    whole = join_checkpoints(found, cards, {})
    found[which] = found[which].isel(left_out=slice(3, None))
    joined = join_checkpoints(found, cards, {})
    without = joined["cosine_G_away_without"].isel(layer=0).transpose("checkpoint", "left_out")
    assert sorted(joined["left_out"].values) == sorted(whole["left_out"].values)
    gone = ~joined["left_out"].isin(found[which]["left_out"])
    assert int(gone.sum()) == 3
    assert without[which].isnull().values.tolist() == gone.values.tolist()
    assert bool(without[1 - which].notnull().all())
    pair = [each.drop_vars("cosine_each", errors="ignore") for each in (whole, joined)]
    bounds = compare(pair, ["a", "b"])["cosine_G_away_difference_interval"]
    assert bool(bounds.isel(checkpoint=1 - which).notnull().all())
    assert bool(bounds.isel(checkpoint=which).notnull().all())


def test_the_reference_was_trained_at(run, tracked):
    """Also where it lies off the grid; the nearest one where there are several."""
    cards = {card.phase: card for card in list_checkpoints(run)}
    settings = TrackSettings(grid="2x2", layers=("fc4",), per_category=2)
    found = track(run, settings=settings, phases=["many"])
    assert (found.attrs["reference_y"], found.attrs["reference_x"]) == (5, 6)
    found = track(run, settings=settings, phases=["two"])
    assert (found.attrs["reference_y"], found.attrs["reference_x"]) in cards["two"].trained
    found = track(run, settings=settings, phases=["all"])
    grid = Grid.parse("2x2", CANVAS)
    assert (found.attrs["reference_y"], found.attrs["reference_x"]) == grid.default_reference


def test_similarity_is_to_the_trained_location(run):
    """Whole canvases in plain torch: cosines of the logits with those at (5, 6), off the grid."""
    settings = TrackSettings(grid="2x2", layers=("logits",), per_category=2, objects="novel")
    found = track(run, settings=settings, phases=["many"])
    model = load_checkpoint(list_checkpoints(run)[1])
    objects = load_objects("novel", size=7)

    def codes(place):
        image = CANVAS.paste(objects.patches((0, 0, 0)), [place] * len(objects), (0, 0, 0))
        with torch.inference_mode():
            values = model.module(model.transform.apply(torch.from_numpy(image))).double()
        return torch.nn.functional.normalize(values, dim=1)

    locations = Grid.parse("2x2", CANVAS).locations.tolist()
    right = [float((codes((5, 6)) * codes(place)).sum(1).mean()) for place in locations]
    mine = found["cosine"].isel(checkpoint=1, layer=0).values.ravel()
    np.testing.assert_allclose(mine, right, atol=1e-5)


OWN = """
from elsewhere.measures import Measure, Reading, measures, scalar

class Largest:
    value = 0.0

    def add(self, stretch):
        self.value = max(self.value, float(abs(stretch.values).max()))

def read(table):
    tally = Largest()
    return Reading(tally, lambda: {"largest": scalar(tally.value)})

measures.add("largest", Measure(read, "max |a|", reading=read, headline="largest"), summary="size")
"""


def test_a_measure_of_a_users_module_in_every_process(run, tmp_path, monkeypatch):
    (tmp_path / "own_measures.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    known = dict(measures._entries)
    settings = TrackSettings(
        grid="1x2", layers=("fc4",), per_category=2, metric="evoked",
        measures=("own_measures:largest",),
    )  # fmt: skip
    for _ in range(2):  # as in a process that knows nothing of it
        monkeypatch.setattr(measures, "_entries", dict(known))
        monkeypatch.delitem(sys.modules, "own_measures", raising=False)
        card = list_checkpoints(run)[-1]
        objects, _ = card.test_objects(per_category=1)
        found = measure_checkpoint(card, objects, settings=settings, device="cpu")
        shown = Sweep(
            load_checkpoint(card), objects, canvas=CANVAS, grid=Grid.parse("1x2", CANVAS),
            layers=("fc4",),
        )  # fmt: skip
        right = elsewhere.measure(shown, names="largest")["largest"].item()
        assert found["largest"].item() == right > 0
    tracked = track(run, settings=settings, phases=["all"])
    assert tracked["largest"].values[-1].item() > 0
    text = describe_methods(tracked)
    assert "- largest: size; max |a|" in text
    assert "- evoked: " in text
    assert "- cosine: " not in text
    files = set((run / "track").iterdir())
    (tmp_path / "own_measures.py").write_text(OWN.replace("abs(", "-abs("))
    linecache.checkcache()
    track(run, settings=settings, phases=["all"])
    assert len(set((run / "track").iterdir()) - files) == 2  # other code, other files


def test_nothing_is_reported_that_the_run_does_not_define(tracked, run):
    """The lines say what a phase lacks: a criterion, meeting it, steps after it, places."""

    def said(phase, **facts):
        result = tracked.copy(deep=True)
        result.attrs |= facts
        result["accuracy_off"][:] = np.where(result["step"] > 0, 0.9, 0.1)[:, None]
        found = summarise_track(result, phase)
        reasons = " | ".join(note for note in found.attrs["notes"] if ": no loss" in note)
        reasons = reasons.partition(";")[0]
        lost = [float(v) for name in ("accuracy_loss", "G_loss") for v in found[name].values]
        assert np.isnan(lost).all() == bool(reasons), (phase, facts)
        assert ("criterion_step" in found.attrs) == (not reasons)
        assert np.isfinite(found["onset_step"]).all()
        return reasons, found

    assert tracked.attrs["criteria"] == {}
    first, last = (int(n) for n in tracked["step"].values[tracked["phase"].values == "many"])
    assert said("many")[0].endswith(": the phase has no criterion")
    assert said("many", criteria={"many": 0.9})[0].endswith("not reach its criterion, 0.9")
    met = {"criteria": {"many": 0.9}, "criterion_step": {"many": last}}
    assert f"of step {last}" in said("many", **met)[0]
    gone = {"criteria": {"many": 0.9}, "criterion_step": {"many": last + 1}}
    assert "is tracked" in said("many", **gone)[0]
    met["criterion_step"]["many"] = first
    reasons, found = said("many", **met)
    assert not reasons
    np.testing.assert_allclose(found["accuracy_loss"], 0.1 - 0.9)
    away = tracked["cosine_G_away"].values[tracked["phase"].values == "many"]
    np.testing.assert_allclose(found["G_loss"], away[0] - away[-1])
    # an older result does not know which phases have one
    del tracked.attrs["criteria"]
    assert "has no criterion, or did not" in said("many")[0]
    # 'all' shows its objects everywhere
    notes = " ".join(summarise_track(tracked, "all").attrs["notes"])
    assert (
        "; no onset, half-way step or loss: no location of the grid is off the trained ones"
        in notes
    )


def recognised_everywhere(card):
    """Return what is shown, and whether each is recognised, (object, y, x), in plain torch."""
    model, low, high = load_checkpoint(card), card.canvas.valid[0], card.canvas.valid[-1] + 1
    objects, held_out = card.test_objects(per_category=2)
    right = np.zeros((len(objects), high - low, high - low))
    labels = np.array([card.categories.index(name) for name in objects.categories])
    for y in range(high - low):
        places = [(y + low, x) for x in range(low, high) for _ in labels]
        patches = np.tile(objects.patches((0, 0, 0)), (high - low, 1, 1, 1))
        image = card.canvas.paste(patches, places, (0, 0, 0))
        with torch.inference_mode():
            chosen = model.module(model.transform.apply(torch.from_numpy(image))).argmax(1)
        right[:, y] = (chosen.numpy().reshape(high - low, -1) == labels).T
    return objects, held_out, right


@pytest.mark.parametrize(
    "names",
    [
        ("all", "cell"),
        pytest.param(("point", "shared", "pinned", "wide"), marks=pytest.mark.long),
    ],
)
def test_on_off_and_far_are_those_of_the_environment(names, tmp_path):
    """Many trained locations, or others for each class: every one counts, in plain torch."""
    phases = [
        make_phase("all", 4, "full", new_head=True),
        make_phase("point", 4, "fixed:point", new_head=True),
        make_phase("cell", 2, "fixed:cell", new_head=True),
        make_phase("shared", 4, "fixed:shared", new_head=True),
        make_phase("pinned", 2, "pinned", new_head=True),
        make_phase("wide", 4, "full", new_head=True, axes=("scale=1,1.6",)),
    ]
    chosen = tuple(phase for phase in phases if phase.name in names)
    network = Network("small-cnn", arguments={"channels": "4-8", "hidden": 8})
    curriculum = Curriculum("t", network, Canvas(20, 7), chosen)
    train(curriculum, tmp_path, device="cpu")
    grid = "at:" + ";".join(f"{y},{x}" for y in (3, 10, 16) for x in (3, 9, 16))
    found = track(tmp_path, settings=TrackSettings(grid=grid, per_category=2), device="cpu")
    placements = [each.placement for each in resolve(curriculum)]
    for number, card in enumerate(list_checkpoints(tmp_path)):
        if not card.final:
            continue
        placement = placements[card.phase_index]
        objects, held_out, right = recognised_everywhere(card)
        low, side = card.canvas.valid[0], right.shape[1]
        on_grid = np.zeros((side, side), bool)
        on_grid[np.ix_(np.array([3, 10, 16]) - low, np.array([3, 9, 16]) - low)] = True
        lattice = np.stack(np.meshgrid(*[np.arange(side) + low] * 2, indexing="ij"), axis=-1)
        each = {where: [[], []] for where in ("on", "off", "far")}
        for row, category in enumerate(objects.categories):
            places = placement.locations(card.categories.index(category))
            apart = np.abs(lattice[:, :, None] - places).max(axis=-1).min(axis=-1)
            masks = {
                "on": (apart == 0) & (on_grid | (len(places) <= 64)),
                "off": on_grid & (apart > 0),
                "far": on_grid & (apart >= 7),
            }
            for where, mask in masks.items():
                share = right[row][mask].mean() if mask.any() else np.nan
                each[where][int(held_out[row])].append(share)
        for where, kinds in each.items():
            got = found[f"accuracy_{where}"].values[number]
            np.testing.assert_allclose(got, np.mean(kinds, axis=1), err_msg=f"{card.phase} {where}")
        assert np.isfinite(found["accuracy_on"].values[number]).all()
    known = found["accuracy_off"].sel(exemplars="same").groupby("phase").count()
    assert known.to_series().to_dict() == {name: 2 * (name != "all") for name in names}
    notes = " ".join(found.attrs["notes"])
    assert "all" not in names or "size or more from the trained ones" in notes
    assert "nothing was tested" not in notes
    assert notes.count("is undefined (nan)") == 1  # one line for all


def test_a_checkpoint_is_measured_with_as_many_waits_whatever_the_grid(run, late):
    """And however many exemplars are shown: where a GPU measures, they cross together."""
    card = list_checkpoints(run)[-1]
    found = []
    for grid, each in (("1x2", 1), ("3x3", 2)):
        settings = TrackSettings(grid=grid, layers=("pool1", "fc4"), per_category=each)
        objects = load_objects("glyphs", size=7, categories=2 * each)
        with counting() as counted:
            measure_checkpoint(card, objects, settings=settings, device="cpu")
        found.append({line: n for line, n in counted.lines.items()
                      if " models/" not in line and " training/" not in line})  # fmt: skip
    assert found[0] == found[1]
    measured = {line: n for line, n in found[0].items() if " recording/" not in line}
    assert sum(measured.values()) <= 12, found[0]


def test_any_reference_is_had_from_the_first_and_the_last_checkpoint(run):
    """Cosines with another reference are those that the network has, within the stated error."""
    settings = TrackSettings(
        grid="2x2", layers=("pool2", "fc4"), per_category=0, any_reference=True
    )
    found = track(run, settings=settings, phases=["all"])
    assert found["code_factor_checkpoint"].values.tolist() == [0, 1]
    assert found["code_factor"].dims == (
        "code_factor_checkpoint", "layer", "object", "y", "x", "rank",
    )  # fmt: skip
    card = list_checkpoints(run)[-1]
    objects = card.test_objects(per_category=1)[0].select(None, 1)
    sweep = Sweep(load_checkpoint(card), objects, canvas=CANVAS, grid="2x2", layers=settings.layers)
    places = [(int(y), int(x)) for y in found["y"] for x in found["x"]]
    for number, place in enumerate(places):
        wanted = elsewhere.analyzer.similarity(sweep.at(place))
        for layer, name in enumerate(map(str, found["layer"].values)):
            at = {"code_factor_checkpoint": 1, "layer": layer}
            rows = found["code_factor"].isel(at).values.astype(float)
            near = formed(rows.reshape(len(rows), 4, -1), sweep.design.category_codes, number)
            error = float(found["code_factor_error"].isel(at)) + 1e-6
            there = wanted["cosine_each"].sel(layer=name).values.reshape(-1, 4)
            known = np.isfinite(there).all(axis=1)
            assert np.abs(near["cosine_each"][known] - there[known]).max() <= error
    assert "code_factor" not in track(run, settings=TrackSettings(grid="2x2"), phases=["all"])


def test_what_a_factor_would_take_too_much_memory_for_is_said(run):
    card = list_checkpoints(run)[-1]
    objects = card.test_objects(per_category=1)[0]
    sweep = Sweep(
        load_checkpoint(card), objects, canvas=CANVAS, grid="2x2", layers=("pool2", "fc4")
    )
    sink = FactorSink(sweep.design, max_memory=6 * 4 * len(objects) * 4 * 8)
    sweep.stream([sink])
    assert list(sink.variables) == ["fc4"]
    assert sink.notes == ["pool2 has no reference of choice: its codes are too many, or sketches"]
