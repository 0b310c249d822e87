"""Accuracy against networks whose every answer is known, and the tidy table."""

import copy
import dataclasses

import numpy as np
import pandas
import pytest
import torch
import xarray
from scipy import stats
from torch import nn

from elsewhere.analyzer import accuracy as source_accuracy
from elsewhere.analyzer import describe_methods
from elsewhere.analyzer import network_accuracy as accuracy
from elsewhere.analyzer.arrays import array_source
from elsewhere.errors import CanvasError, ExistsError, InputError, NumericsError, UnknownNameError
from elsewhere.measures.accuracy import invariance_index, normalized_accuracy
from elsewhere.measures.answers import AnswerSink
from elsewhere.models import OUTPUT, load_model
from elsewhere.recording import Sweep
from elsewhere.recording.sharing import SharedSweep
from elsewhere.stimuli import Canvas, Grid, load_objects
from elsewhere.storage import ArraySource, load_result, save_result, save_table
from elsewhere.training import trial_table

CANVAS = Canvas(16, 7)
GRID = Grid.parse("4x4", CANVAS)  # 3, 6, 9, 12
N_CLASSES, N_EACH = 5, 4
OBJECTS = load_objects("glyphs", size=7, categories=N_CLASSES, per_category=N_EACH)
LABELS = OBJECTS.category_index
HELD_OUT = OBJECTS.exemplar_index >= 2
MODEL = load_model("small-cnn", model_args={"channels": "4", "canvas": 16, "num_classes": 5})


class Oracle(nn.Module):
    """Recognises a patch pixel by pixel; right where `rule(object, y, x)` says so."""

    def __init__(self, rule, objects=OBJECTS):
        super().__init__()
        patches = torch.from_numpy(objects.patches((0, 0, 0))).float() / 255
        self.known = patches.permute(0, 3, 1, 2)
        self.labels, self.rule = objects.category_index, rule
        self.rows = []

    def forward(self, images):
        self.rows.append(len(images))
        windows = nn.functional.unfold(images, 7).transpose(1, 2)
        logits = torch.zeros(len(images), N_CLASSES)
        for row, found in enumerate(windows):
            flat = self.known.flatten(1)
            if not images[row].any():
                continue
            distance = torch.cdist(flat, found)
            number, place = divmod(int(distance.argmin()), len(found))
            y, x = place // 10 + 3, place % 10 + 3
            right = self.rule(number, y, x)
            logits[row, (self.labels[number] + (not right)) % N_CLASSES] = 2.0
        return logits


def measure(rule, **options):
    model = dataclasses.replace(MODEL, module=Oracle(rule))
    defaults = {"trained": [(9, 3)], "held_out": HELD_OUT}
    return accuracy(model, OBJECTS, CANVAS, GRID, **defaults | options)


def near(number, y, x):
    return max(abs(y - 9), abs(x - 3)) < 7


def test_every_trial_is_what_the_network_says():
    result = measure(lambda number, y, x: (number + y + x) % 3 > 0)
    for number in range(len(OBJECTS)):
        for y in GRID.y:
            for x in GRID.x:
                trial = result.isel(object=number).sel(y=y, x=x)
                right = (number + y + x) % 3 > 0
                assert bool(trial.correct) == right
                assert float(trial.margin) == (2 if right else -2)
                assert (int(trial.choice) == LABELS[number]) == right
    same = result["correct"].values[~HELD_OUT]
    assert np.allclose(result["accuracy"].sel(exemplars="same"), same.mean(0))


def test_a_network_that_is_right_near_by():
    result = measure(near)
    chance = 1 / N_CLASSES
    off = np.mean([near(0, y, x) for y in GRID.y for x in GRID.x if (y, x) != (9, 3)])
    assert np.allclose(result["accuracy_at"], [[1, off, 0]] * 2)
    assert np.allclose(result["II_far"], (0 - chance) / (1 - chance))
    assert np.allclose(result["II"], invariance_index(off, 1, N_CLASSES))
    assert np.allclose(result["on_minus_far"], 1)
    curve = result["accuracy_by_displacement"].sel(exemplars="same")
    assert curve["displacement"].values.tolist() == [0, 3, 6, 9]
    assert curve.values.tolist() == [1, 1, 1, 0]
    assert np.allclose(result["N"].sel(y=9, x=3), 1)


def test_far_begins_at_one_object_size():
    model = dataclasses.replace(MODEL, module=Oracle(lambda number, y, x: x != 10))
    grid = Grid((9,), (3, 9, 10))
    result = accuracy(model, OBJECTS, CANVAS, grid, trained=[(9, 3)])
    assert result["accuracy_at"].sel(exemplars="same").values.tolist() == [1, 0.5, 0]


def test_same_and_held_out_exemplars_are_apart():
    result = measure(lambda number, y, x: not HELD_OUT[number] or near(number, y, x))
    assert np.allclose(result["II_far"], [1, -0.25])
    assert np.allclose(result["accuracy_at"].sel(where="far"), [1, 0])
    only = measure(near, held_out=None)
    assert np.isnan(only["II_far"].sel(exemplars="held-out"))
    assert np.isnan(only["accuracy"].sel(exemplars="held-out")).all()


def test_the_methods_text_of_accuracy():
    """Its objects are counted, held-out ones apart."""
    found = measure(lambda number, y, x: number % 2 == 0)
    text, n = describe_methods(found), found.sizes["object"]
    held_out = int(found["held_out"].sum())
    for word in (
        f"There were {n} objects of ", " of the set '", f"Of the {n} exemplars {n - held_out} had",
        "between exemplars of a class", "Trained locations (y, x): (",
    ):  # fmt: skip
        assert word in text, word
    assert "jackknife" not in text


def test_the_gate():
    result = measure(lambda number, y, x: number % 2 == 0)
    assert np.isnan(result["II_far"]).all()
    assert np.isnan(result["II_far_interval"]).all()
    assert "same: N on the trained location is 0.37, below 0.9" in result["II_far"].attrs["reason"]
    assert np.isnan(result["II"]).all()
    assert np.allclose(result["on_minus_far"], 0)
    without = measure(near, trained=())
    assert np.isnan(without["II_far"]).all()
    assert "nothing was tested" in without["II_far"].attrs["reason"]
    model = dataclasses.replace(MODEL, module=Oracle(lambda number, y, x: True))
    beside = accuracy(model, OBJECTS, CANVAS, Grid((9,), (3, 6)), trained=[(9, 3)])
    assert np.isnan(beside["II_far"]).all()
    assert np.isclose(beside["II"].sel(exemplars="same"), 1)
    assert "same: for some class no location" in beside["II_far"].attrs["reason"]
    assert beside["II"].attrs["reason"] == "held-out: there are no such exemplars"
    assert np.isfinite(without["accuracy"]).all()


def test_intervals_are_over_exemplars_within_classes():
    def rule(number, y, x):
        return near(number, y, x) or number % 4 == 0  # one exemplar of each class

    everyone = np.zeros(len(OBJECTS), bool)
    result = measure(rule, held_out=everyone).sel(exemplars="same")
    low, high = result["II_far_interval"].values
    value = float(result["II_far"])
    assert value == pytest.approx(normalized_accuracy(0.25, N_CLASSES).item())
    assert low < value < high
    # one of four right in each of five classes: the variance within them is 3/16 / 3 / 4 / 5
    low, high = result["accuracy_at_interval"].sel(where="far").values
    assert high - low == pytest.approx(2 * stats.t.ppf(0.975, 15) * np.sqrt(0.0125), rel=0.15)
    right = measure(lambda number, y, x: True, held_out=everyone).sel(exemplars="same")
    for where in ("on", "far"):  # Wilson's of 20 of 20
        low, high = right["accuracy_at_interval"].sel(where=where).values
        assert high == 1
        assert low == pytest.approx(20 / (20 + stats.norm.ppf(0.975) ** 2))
    low, high = right["II_far_interval"].values
    assert low < 0.85
    assert high > 1.1
    # classes are not sampled: that they differ makes no interval as wide as if they were
    whole = measure(
        lambda number, y, x: LABELS[number] < 3 or near(number, y, x), held_out=everyone
    ).sel(exemplars="same")
    assert 0.02 < np.ptp(whole["accuracy_at_interval"].sel(where="far").values) < 0.2
    assert not any("no intervals" in note for note in whole.attrs["notes"])


@pytest.mark.parametrize("each", [1, 2])
def test_there_is_no_interval_below_three_exemplars_of_each_class(each):
    rows = [5, *(row for row in range(len(OBJECTS)) if row % N_EACH < each)]  # one has one more
    few = accuracy(
        dataclasses.replace(MODEL, module=Oracle(near)),
        OBJECTS.subset(sorted(set(rows))),
        CANVAS,
        GRID,
        trained=[(9, 3)],
    )
    for name in ("accuracy_at", "N_at", "II_far", "II", "on_minus_far", "on_minus_off"):
        assert np.isnan(few[f"{name}_interval"]).all()
    assert np.isfinite(few["II_far"].sel(exemplars="same"))
    (note,) = [note for note in few.attrs["notes"] if "no intervals" in note]
    assert f"was tested with {each} of them" in note
    assert note.startswith("exemplars that are same")


def test_trained_locations_off_the_grid_and_by_category():
    result = measure(lambda number, y, x: (y, x) == (7, 4), trained=[(7, 4), (9, 3)])
    assert np.allclose(result["trained_correct"], [[1, 0]] * len(OBJECTS))
    assert np.allclose(result["accuracy_at"].sel(where="on"), 0.5)
    places = {name: [(3, 3 + 3 * (i % 2))] for i, name in enumerate(OBJECTS.category_names)}

    def own(number, y, x):
        return (y, x) == places[OBJECTS.categories[number]][0]

    result = measure(own, trained=places)
    assert np.allclose(result["accuracy_at"], [[1, 0, 0]] * 2)
    assert result["is_trained"].values.sum(1).tolist() == [1] * len(OBJECTS)


def unequal(counts):
    """Return objects of which the first classes have more exemplars than the others."""
    rows = [place for place in range(len(OBJECTS)) if place % N_EACH < counts[LABELS[place]]]
    return OBJECTS.subset(rows)


class Answer(nn.Module):
    """Answers by a rule of the image alone."""

    def __init__(self, rule):
        super().__init__()
        self.rule = rule

    def forward(self, images):
        return nn.functional.one_hot(self.rule(images), N_CLASSES).float()


def always(answer):
    return Answer(lambda images: torch.full((len(images),), answer))


def test_an_answer_that_never_changes_is_at_chance_however_unequal_the_classes():
    objects = unequal([4, 1, 1, 1, 1])
    model = dataclasses.replace(MODEL, module=always(0))
    result = accuracy(model, objects, CANVAS, GRID, trained=[(9, 3)])
    same = result.sel(exemplars="same")
    assert float(result["correct"].mean()) == 0.5  # of all trials
    assert np.allclose(same["accuracy"], 1 / N_CLASSES)
    assert np.allclose(same["N_at"], 0)
    assert np.allclose(same["accuracy_by_displacement"], 1 / N_CLASSES)
    for name in ("II", "II_far"):
        assert np.isnan(float(same[name]))
        assert "one answer only" in result[name].attrs["reason"]


def test_accuracy_is_the_mean_of_the_classes():
    counts = [4, 3, 2, 1, 1]
    objects = unequal(counts)
    known = {0: 1.0, 1: 2 / 3, 2: 0.5, 3: 1.0, 4: 0.0}
    right = {0: 4, 1: 2, 2: 1, 3: 1, 4: 0}

    def rule(number, y, x):
        return number % N_EACH < right[LABELS[number]]

    model = dataclasses.replace(MODEL, module=Oracle(rule))
    result = accuracy(model, objects, CANVAS, GRID, trained=[(9, 3)]).sel(exemplars="same")
    expected = np.mean(list(known.values()))
    assert np.allclose(result["accuracy"], expected)
    assert np.allclose(result["accuracy_at"], expected)
    low, high = result["accuracy_at_interval"].sel(where="on").values
    assert np.isnan(low) or low <= expected <= high


def test_classes_that_are_not_tested_do_not_open_the_gate():
    """Of five classes two are tested: always to name one of them is right half of the time."""
    objects = OBJECTS.subset(np.flatnonzero(LABELS < 2))
    names = OBJECTS.category_names

    def by_row(images):  # two answers, one of them right by luck at each place
        return (images[:, :, :9].sum((1, 2, 3)) > 0).long()

    for network in (always(1), Answer(by_row)):
        model = dataclasses.replace(MODEL, module=network)
        result = accuracy(
            model, objects, CANVAS, GRID, trained=[(9, 3), (3, 3)], classes=names
        ).sel(exemplars="same")
        assert np.isnan(result["II_far"])
        assert np.isnan(result["II"])
    one = OBJECTS.subset(np.flatnonzero(LABELS == 1))
    model = dataclasses.replace(MODEL, module=always(1))
    result = accuracy(model, one, CANVAS, GRID, trained=[(9, 3)], classes=names)
    assert float(result["accuracy_at"].sel(exemplars="same", where="far")) == 1.0
    assert np.isnan(result["II_far"].sel(exemplars="same"))
    assert "one class was tested" in result["II_far"].attrs["reason"]


def test_batches_have_one_size_and_modes_come_back():
    oracle = Oracle(near)
    oracle.train()
    model = dataclasses.replace(MODEL, module=oracle)
    seen = []
    found = accuracy(
        model, OBJECTS, CANVAS, GRID, progress=lambda done, total: seen.append((done, total))
    )
    assert found.attrs["numerics"]["batch_rows"] == 64
    assert oracle.rows == []  # and what the network kept of its passes is gone
    assert seen[-1] == (320, 320)
    assert oracle.training


def test_what_does_not_fit_is_refused():
    def run(objects=OBJECTS, canvas=CANVAS, grid=GRID, **options):
        return accuracy(MODEL, objects, canvas, grid, **options)

    with pytest.raises(InputError, match="7 px"):
        run(canvas=Canvas(16, 5))
    with pytest.raises(CanvasError, match="off the canvas"):
        run(trained=[(0, 0)])
    with pytest.raises(CanvasError, match="off the canvas"):
        run(grid=Grid((3,), (3, 15)))
    with pytest.raises(UnknownNameError, match="class of the head"):
        run(classes=["a", "b", "c", "d", "e"])
    with pytest.raises(InputError, match="5 values per image for 6 classes"):
        run(classes=[*OBJECTS.category_names, "more"])
    with pytest.raises(InputError, match="held_out"):
        run(held_out=[True])
    with pytest.raises(InputError, match="no locations for the category"):
        run(trained={"x": [(9, 3)]})
    bad = load_model("small-cnn", model_args={"channels": "4", "canvas": 16, "num_classes": 5})
    nn.init.constant_(bad.module.classifier[6].bias, torch.nan)
    with pytest.raises(NumericsError, match="not finite"):
        accuracy(bad, OBJECTS, CANVAS, GRID)


def test_result_and_table_can_be_written(tmp_path):
    result = measure(near, trained=[(7, 4)], attributes={"seed": 3, "phase": "learn"})
    xarray.testing.assert_equal(load_result(save_result(result, tmp_path / "acc.nc")), result)
    table = trial_table(result)
    assert len(table) == len(OBJECTS) * 17
    assert table["correct"].mean() == pytest.approx(
        np.concatenate(
            [result["correct"].values.ravel(), result["trained_correct"].values.ravel()]
        ).mean()
    )
    row = table[(table["object"] == OBJECTS.ids[5]) & (table["y"] == 7) & (table["x"] == 4)]
    assert row[["seed", "phase", "category", "exemplar", "choice"]].values.tolist() == [
        [3, "learn", OBJECTS.categories[5], 1, OBJECTS.categories[5]]
    ]
    path = save_table(table, tmp_path / "trials.csv")
    pandas.testing.assert_frame_equal(
        pandas.read_csv(path), table, check_dtype=False, check_exact=False
    )
    with pytest.raises(ExistsError):
        save_table(table, path)
    with pytest.raises(InputError, match=r"\.csv, \.parquet or \.xlsx"):
        save_table(table, tmp_path / "trials.ods")
    with pytest.raises(InputError, match="no trials"):
        trial_table(xarray.Dataset(attrs={"kind": "similarity"}))


def test_a_trial_says_where_it_was_and_of_what():
    held_out = np.arange(len(OBJECTS)) % 2 == 1
    result = measure(near, trained=[(7, 4)], held_out=held_out, attributes={"phase": "learn"})
    table = trial_table(result)
    apart = np.maximum(abs(table["y"] - 7), abs(table["x"] - 4))
    size = CANVAS.object_size
    assert table["distance_px"].tolist() == apart.tolist()
    np.testing.assert_allclose(table["distance_sizes"], apart / size)
    places = {True: "trained location", False: "off the trained location"}
    for distance, out, said in zip(apart, table["held_out"], table["split"], strict=True):
        place = "far from the trained location" if distance >= size else places[distance == 0]
        assert said == f"{place}, {'held-out' if out else 'trained'} exemplars"
    assert set(table["network"]) == {"small-cnn (none)"}
    assert set(table["condition"]) == {"learn"}
    assert set(table["chance"]) == {result.attrs["chance"]}
    nowhere = trial_table(measure(near, trained=[]))
    assert nowhere["distance_px"].isna().all()
    assert nowhere["split"].str.startswith("no trained location, ").all()


def test_a_workbook(tmp_path):
    table = trial_table(measure(near)).assign(object="=1+1\x07")
    try:
        import openpyxl  # noqa: F401
    except ImportError:
        with pytest.raises(InputError, match="Excel needs openpyxl; pip install openpyxl, or"):
            save_table(table, tmp_path / "trials.xlsx")
        return
    found = pandas.read_excel(save_table(table, tmp_path / "trials.xlsx"))
    assert set(found["object"]) == {"'=1+1?"}
    assert found["margin"].tolist() == pytest.approx(table["margin"].tolist())


def test_parquet(tmp_path, monkeypatch):
    table = trial_table(measure(near))
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        with pytest.raises(InputError, match="needs pyarrow; pip install"):
            save_table(table, tmp_path / "trials.parquet")
        return
    path = save_table(table, tmp_path / "trials.parquet")
    pandas.testing.assert_frame_equal(pandas.read_parquet(path), table)


class Tiring(nn.Sequential):
    """Counts its passes; from one on it gives something else, if it does."""

    def __init__(self, last):
        super().__init__(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(48, N_CLASSES))
        self.last, self.calls = last, [0]

    def forward(self, images):
        self.calls[0] += 1
        return super().forward(images) * (1 if self.calls[0] < self.last else -1)


def test_networks_that_count_their_passes_are_refused_once_it_matters():
    def run(last):
        torch.manual_seed(0)
        model = dataclasses.replace(MODEL, module=Tiring(last))
        grid = Grid.parse("all", CANVAS)
        return accuracy(model, OBJECTS, CANVAS, grid, engine="dense"), model.module

    found, network = run(10_000)
    images = torch.zeros(20, 3, 16, 16)
    images[:, :, 3:10, 6:13] = torch.from_numpy(OBJECTS.patches((0, 0, 0))).movedim(3, 1) / 255
    right = network(images).argmax(1).numpy()
    assert found["choice"].sel(y=6, x=9).values.tolist() == right.tolist()
    assert "keeps a state that its passes change (calls)" in found.attrs["notes"][0]
    with pytest.raises(InputError, match="has changed while it ran: its output comes out"):
        run(14)


@pytest.mark.parametrize("engine", ["dense", "incremental"])
def test_portions_that_are_done_one_by_one_make_up_the_sweep(engine):
    """What processes do that share a sweep, in this one."""
    sweep = Sweep(MODEL, OBJECTS, canvas=CANVAS, grid=GRID, layers=OUTPUT, engine=engine)
    sweep = sweep.at((7, 4))
    whole, shared = (AnswerSink(OUTPUT, LABELS, ("reference", "grid")) for _ in range(2))
    sweep.stream([whole])
    seen = []
    SharedSweep(sweep).stream([shared], progress=lambda *counts: seen.append(counts))
    for stage, n in (("reference", 1), ("grid", len(GRID))):
        for one, other in zip(whole.answers(stage, n), shared.answers(stage, n), strict=True):
            np.testing.assert_array_equal(one, other)
    assert seen[-1] == (len(OBJECTS) * (len(GRID) + 1),) * 2  # the reference as well
    assert len(seen) == len({done for done, _ in seen})


@pytest.mark.long
def test_two_processes_give_what_one_gives():
    given = {"trained": [(7, 4), (9, 3)], "held_out": HELD_OUT, "classes": OBJECTS.category_names}
    one, two = (
        accuracy(MODEL, OBJECTS, CANVAS, GRID, workers=workers, **given) for workers in (1, 2)
    )
    xarray.testing.assert_identical(one, two)


def test_networks_in_double_precision_are_run_in_single():
    double = dataclasses.replace(MODEL, module=copy.deepcopy(MODEL.module).double())
    found = accuracy(double, OBJECTS, CANVAS, GRID)
    np.testing.assert_array_equal(found["choice"], accuracy(MODEL, OBJECTS, CANVAS, GRID)["choice"])
    assert "in double precision, was run in single precision" in found.attrs["notes"][0]
    assert next(double.module.parameters()).dtype == torch.float64


def test_scores_of_arrays():
    scores = np.zeros((4, 2, 3, 2), np.float32)
    truth = np.array([0, 1, 0, 1])
    scores[np.arange(4), ..., truth] = 1
    scores[:, 0, 2] *= -1  # wrong at one place
    arrays = ArraySource({"logits": scores}, y=(5, 9), x=(5, 7, 9), categories=list("abab"))
    found = source_accuracy(arrays, trained=[(9, 5)], object_size=2).sel(exemplars="same")
    assert found["correct"].values[:, 0, 2].tolist() == [False] * 4
    assert found["correct"].values.sum() == 4 * 5
    assert float(found["accuracy_at"].sel(where="on")) == 1
    assert float(found["accuracy_at"].sel(where="far")) == pytest.approx(4 / 5)
    with pytest.raises(InputError, match="does not say the objects' size; give object_size"):
        source_accuracy(arrays)
    with pytest.raises(UnknownNameError, match="record them with --layers logits"):
        source_accuracy(ArraySource({"fc": scores}, y=(5, 9), x=(5, 7, 9)), object_size=2)


def test_labels_of_the_scores_decide_which_class_is_which():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(4, 2, 3, 3))
    truth = np.array([0, 1, 0, 2])
    array = xarray.DataArray(
        scores,
        dims=("object", "y", "x", "unit"),
        coords={
            "object": list("wxyz"), "category": ("object", list("abac")), "y": [5, 9],
            "x": [5, 7, 9], "unit": list("abc"),
        },
    )  # fmt: skip
    right = scores.argmax(axis=-1) == truth[:, None, None]

    def correct(array, **options):
        source = array_source({"logits": array}, None)
        found = source_accuracy(source, object_size=2, **options)
        assert not any("classes are called" in note for note in found.notes)
        return found["correct"].sel(object=list("wxyz")).values

    for other in (array, array[::-1], array[..., [2, 0, 1]], array.transpose("unit", "x", ...)):
        np.testing.assert_array_equal(correct(other), right)
        np.testing.assert_array_equal(correct(other, classes=list("abc")), right)
    with pytest.raises(InputError, match="called a, b, c, and the classes a, b, d"):
        correct(array, classes=list("abd"))
    found = source_accuracy(array_source({"logits": array.drop_vars("unit")}, None), object_size=2)
    assert "what the classes are called is not known" in found.notes[0]


def test_equal_scores_are_said():
    scores = np.zeros((4, 1, 5, 3), np.float32) + np.float32(1e4)
    scores[0, 0, 0, 1] += np.float32(1e4) * np.float32(1e-7)  # rounding
    scores[1:, ..., 0] += 1
    source = ArraySource({"logits": scores}, y=[5], x=[1, 3, 5, 7, 9], categories=list("abca"))
    found = source_accuracy(source, classes=list("abc"), object_size=2)
    assert any(note.startswith("in 0.25 of the answers the true class") for note in found.notes)


def test_why_an_index_is_undefined_stands_in_one_line():
    every = [(y, x) for y in GRID.y for x in GRID.x]
    result = measure(near, trained=every, held_out=np.arange(len(OBJECTS)) % 2 == 1)
    said = [note for note in result.attrs["notes"] if "index is undefined (nan)" in note]
    assert len(said) == 1
    assert np.isnan(result["II_far"]).all()
    for part in ("II_far", "II"):
        assert result[part].attrs["reason"].count("; held-out: ") == 1
        assert part in said[0]
