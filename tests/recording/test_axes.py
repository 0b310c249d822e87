"""Sweeps in which objects change as well as move, against pictures pasted and passed one by one."""

import itertools

import h5py
import hdf5plugin  # noqa: F401  (the filter of what is read)
import numpy as np
import pytest
import torch
import xarray

from elsewhere.analyzer import accuracy, measure, similarity, similarity_biscione_bowers
from elsewhere.axes import Axes, Axis
from elsewhere.commands.sources import recorded_reference
from elsewhere.errors import CanvasError, InputError, ObjectSetError, UnknownNameError
from elsewhere.models import load_model
from elsewhere.probes import probe
from elsewhere.recording import Sweep, record
from elsewhere.stimuli import Canvas, load_objects
from elsewhere.stimuli.transformations import parse_axis, vary
from elsewhere.storage import open_recording, verify
from elsewhere.training import trial_table

AXES = (parse_axis("scale=0.5,1,1.5"), parse_axis("rotation=0,30"))


@pytest.fixture(scope="module")
def model():
    return load_model("small-cnn", seed=1)


def make_sweep(model, *, axes=AXES, engine="dense", n=2, **more):
    objects = load_objects("novel", size=12, categories=2, per_category=n)
    more = {"grid": "3x4", "layers": "pool2,logits"} | more
    return Sweep(model, objects, canvas=Canvas(48, 12), axes=axes, engine=engine, **more)


def shown_by_hand(sweep, positions):
    """Return the network's inputs for each object at each position (scale, rotation, y, x)."""
    axes, images = sweep.design.axes.changing, []
    for *values, y, x in positions:
        (variant,) = vary(sweep.objects, axes.names, [values])  # in a box of its own
        side = variant.size
        canvas = np.zeros((len(variant), 48, 48, 3), np.uint8)
        top, left = int(y) - side // 2, int(x) - side // 2
        canvas[:, top : top + side, left : left + side] = variant.patches((0, 0, 0))
        images.append(canvas)
    return np.stack(images, axis=1)


@pytest.fixture(scope="module", params=["dense", "incremental"])
def recorded(request, model, tmp_path_factory):
    path = tmp_path_factory.mktemp("axes") / "run.h5"
    sweep = make_sweep(model, engine=request.param)
    assert sweep.choice.name == request.param
    record(sweep, path)
    return sweep, path


def test_every_value_is_that_of_the_network_shown_that_picture(recorded, model):
    sweep, path = recorded
    places = sweep.design.positions
    assert sweep.design.names == ("scale", "rotation", "y", "x")
    assert sweep.design.shape == (3, 2, 3, 4)
    inputs = shown_by_hand(sweep, places)
    with open_recording(path) as recording, torch.inference_mode():
        assert recording.design == sweep.design
        assert [axis.unit for axis in recording.design.axes] == ["1", "degree", "px", "px"]
        values = recording["logits"].transpose("object", "scale", "rotation", "y", "x", ...)
        found = values.values.reshape(len(sweep.objects), len(places), -1)
        right = np.stack(
            [model.module.eval()(model.transform.apply(torch.from_numpy(i))) for i in inputs]
        )
    np.testing.assert_allclose(found, right, atol=1e-5 * np.abs(right).max())


def test_similarity_is_that_with_the_reference_of_neutral_values(recorded):
    sweep, path = recorded
    live = similarity(sweep, layers=["logits"])
    with open_recording(path) as recording:
        found = similarity(recording, layers=["logits"])
        codes = recording["logits"].values
    assert (found.attrs["reference_scale"], found.attrs["reference_rotation"]) == (1, 0)
    codes = codes.reshape(len(codes), -1, codes.shape[-1]).astype(np.float64)
    at = codes[:, sweep.design.reference_index]
    cosine = (codes * at[:, None]).sum(-1)
    cosine /= np.linalg.norm(codes, axis=-1) * np.linalg.norm(at, axis=-1)[:, None]
    for result in (live, found):
        values = result["cosine_each"].sel(layer="logits").values
        np.testing.assert_allclose(values.reshape(len(codes), -1), cosine, atol=2e-6)


def test_a_recording_goes_on_where_it_was_stopped(recorded, tmp_path):
    sweep, whole = recorded

    def stop(done, total):
        if done > 120:
            raise KeyboardInterrupt

    path = tmp_path / "again.h5"
    with pytest.raises(KeyboardInterrupt):
        record(sweep, path, progress=stop)
    workers = 2 if sweep.choice.name == "incremental" else 1
    shared = record(sweep, path, workers=workers)
    with open_recording(whole) as one, open_recording(shared) as other:
        for layer in one:
            np.testing.assert_array_equal(one[layer].values, other[layer].values)


def test_windows_are_computed_for_every_variant(model):
    """The work of a sweep over three scales is three times that over one, and a reference."""
    counts = []
    for axes in ((parse_axis("scale=1"),), (parse_axis("scale=0.9,1,1.1"),)):
        sweep = make_sweep(model, axes=axes, engine="incremental")
        seen = []
        similarity(
            sweep, layers=["logits"], progress=lambda done, total, seen=seen: seen.append(done)
        )
        counts.append(seen[-1])
    n = len(make_sweep(model).objects)
    assert counts[1] - counts[0] == 2 * 12 * n


def test_a_reference_off_the_axes_is_computed_in_addition(model):
    axes = (parse_axis("scale=0.5,2"),)
    sweep = make_sweep(model, axes=axes, grid="2x2")
    assert sweep.design.reference[0] == 1.0
    assert sweep.design.reference_index is None
    found = similarity(sweep, layers=["logits"])
    y, x = sweep.reference
    pictures = shown_by_hand(sweep, [(1.0, y, x), *sweep.design.positions.tolist()])
    with torch.inference_mode():
        codes = np.stack(
            [model.module.eval()(model.transform.apply(torch.from_numpy(i))) for i in pictures]
        ).astype(np.float64)
    codes /= np.linalg.norm(codes, axis=-1, keepdims=True)
    right = (codes[:, 1:] * codes[:, :1]).sum(-1)
    values = found["cosine_each"].sel(layer="logits").values.reshape(len(codes), -1)
    np.testing.assert_allclose(values, right, atol=2e-6)


def test_another_reference_is_what_a_fresh_sweep_gives(model):
    for engine in ("dense", "incremental"):
        sweep = make_sweep(model, engine=engine)
        similarity(sweep, layers=["logits"])  # compiled, where it is
        moved = sweep.at((0.5, 30.0, 35, 20))
        fresh = make_sweep(model, engine=engine, reference=(0.5, 30.0, 35, 20))
        one, other = (similarity(each, layers=["logits"]) for each in (moved, fresh))
        xarray.testing.assert_allclose(one["cosine_each"], other["cosine_each"], atol=1e-6)
        assert moved.at((24, 13)).design.reference == (0.5, 30.0, 24, 13)


def test_measures_and_probes_take_them_live_and_from_files(recorded):
    sweep, path = recorded
    names = "cosine,cka,partition,position,normalized-variance"
    with open_recording(path) as recording:
        found, read = measure(recording, names=names), probe(recording, train_at="left")
    live, live_read = measure(sweep, names=names), probe(sweep, train_at="left")
    assert found["cka"].dims[1:5] == tuple(f"reference_{n}" for n in sweep.design.names)
    assert found["displacement"].values.max() == max(np.ptp(sweep.grid.y), np.ptp(sweep.grid.x))
    assert list(found["axis"].values) == ["y", "x"]  # where the window is, is decoded
    for name in ("cosine", "object_share", "position_r2"):
        xarray.testing.assert_allclose(found[name], live[name], atol=1e-4)
    assert read["accuracy"].dims == ("layer", "exemplars", "scale", "rotation", "y", "x")
    for name in ("accuracy", "pixels_accuracy", "untrained_accuracy"):
        xarray.testing.assert_allclose(read[name], live_read[name])
    here = read["accuracy"].sel(exemplars="same", scale=1, rotation=0, y=24, x=13)
    np.testing.assert_allclose(here, read["accuracy_at"].sel(exemplars="same", where="on"))
    off = read["accuracy"].sel(exemplars="same").values.reshape(len(read["layer"]), -1)
    at = sweep.design.reference_index
    np.testing.assert_allclose(
        np.delete(off, at, axis=1).mean(1), read["accuracy_at"].sel(exemplars="same", where="off")
    )


def test_the_authors_protocol_takes_objects_as_they_are(recorded, model):
    sweep, path = recorded
    plain = similarity_biscione_bowers(
        make_sweep(model, axes=(), grid=sweep.grid), layers=["logits"]
    )
    with open_recording(path) as recording:
        found = similarity_biscione_bowers(recording, layers=["logits"])
        with recording.at((24, 20)) as moved:
            assert moved.design.reference == (1, 0, 24, 20)
        place = recorded_reference(recording, "35,20")
        assert place == (35, 20)
    np.testing.assert_allclose(
        found["cosine"].squeeze().values, plain["cosine"].squeeze().values, atol=1e-5
    )
    with pytest.raises(InputError, match="not among the values of scale"):
        similarity_biscione_bowers(
            make_sweep(model, axes=(parse_axis("scale=0.5,2"),), grid="2x2"), layers=["logits"]
        )


def test_it_is_verified_like_others(recorded, tmp_path):
    _, path = recorded
    assert not verify(path).damages
    copy = tmp_path / "copy.h5"
    copy.write_bytes(path.read_bytes())
    with h5py.File(copy, "r+") as file:
        file["scale"][0] = 0.75
    assert verify(copy).damages


def test_accuracy_asks_every_variant(recorded, model):
    sweep, path = recorded
    names = [*dict.fromkeys(sweep.design.categories), *map(str, range(8))]
    inputs = shown_by_hand(sweep, sweep.design.positions)
    with torch.inference_mode():
        scores = np.stack(
            [model.module.eval()(model.transform.apply(torch.from_numpy(i))) for i in inputs]
        )
    with open_recording(path) as recording:
        found = accuracy(recording, classes=names, trained=[(24, 13)])
    assert found["correct"].dims == ("object", *sweep.design.names)
    choice = scores.argmax(-1)
    np.testing.assert_array_equal(found["choice"].values.reshape(choice.shape), choice)
    labels = np.array([names.index(c) for c in sweep.design.categories])
    right = choice == labels[:, None]
    at, n = sweep.design.reference_index, len(names)
    same = found.sel(exemplars="same")
    assert float(same["accuracy_at"].sel(where="on")) == pytest.approx(right[:, at].mean())
    assert float(same["accuracy_at"].sel(where="off")) == pytest.approx(
        np.delete(right, at, axis=1).mean()
    )
    assert found["displacement"].values.min() == 0
    assert float(same["accuracy_by_displacement"].sel(displacement=0)) == right[:, at].mean()
    rows = trial_table(found)
    assert len(rows) == choice.size
    assert n == 10
    few = rows[(rows["scale"] == 0.5) & (rows["rotation"] == 30) & (rows["y"] == 35)]
    assert len(few) == len(sweep.objects) * 4


def test_what_does_not_fit_is_one_line(model):
    with pytest.raises(UnknownNameError, match="unknown axis 'sclae'; nearest: scale"):
        parse_axis("sclae=1,2")
    for text, message in (
        ("y=1,2", "come from --grid"),
        ("scale", "cannot read 'scale' as an axis"),
        ("scale=2:1:3", "must ascend strictly"),
        ("scale=1,1", "must ascend strictly"),
        ("scale=0.5:2:0", "has no values"),
    ):
        with pytest.raises(InputError, match=message):
            parse_axis(text)
    with pytest.raises(InputError, match="the axis scale is given twice"):
        make_sweep(model, axes=(parse_axis("scale=1"), parse_axis("scale=2")))
    with pytest.raises(CanvasError, match="objects need 60 px, and the canvas has 48 px"):
        make_sweep(model, axes=(parse_axis("scale=1,5"),))
    with pytest.raises(InputError, match="scale is 0"):
        make_sweep(model, axes=(parse_axis("scale=0,1"),))


def test_a_variant_that_cannot_be_seen_is_named(model):
    objects = load_objects("novel", size=12, categories=1)
    images = objects.images.copy()
    images[:, ::2] = 40
    images[:, 1::2] = 20
    striped = type(objects)("s", images, np.full_like(objects.masks, 255), ("a",), ("A",))
    canvas = Canvas(48, 12, background=30)
    with pytest.raises(ObjectSetError, match=r"'a' cannot be seen at contrast=0 on the background"):
        Sweep(model, striped, canvas=canvas, axes=(parse_axis("contrast=0,1"),), grid="2x2")


def test_a_recording_of_other_variants_is_another_recording(model, tmp_path):
    path = tmp_path / "run.h5"
    record(make_sweep(model, axes=(parse_axis("blur=0,1"),), grid="1x2"), path)
    again = record(make_sweep(model, axes=(parse_axis("blur=0,1"),), grid="1x2"), path)
    assert again == path
    with pytest.raises(OSError, match="axes"):
        record(make_sweep(model, axes=(parse_axis("blur=0,2"),), grid="1x2"), path)


def test_positions_count_axes_in_order():
    axes = Axes((Axis("scale", (0.5, 1.0), "1", moves=False), *Axes.of(y=(5, 9), x=(5, 7, 9))))
    rows = list(itertools.product((0.5, 1.0), (5, 9), (5, 7, 9)))
    np.testing.assert_array_equal(axes.positions, np.array(rows))
    assert [axes.index(row) for row in rows] == list(range(12))
    np.testing.assert_array_equal(
        axes.distance((0.5, 5, 5)), [max(abs(y - 5), abs(x - 5)) for _, y, x in rows]
    )


@pytest.mark.parametrize("engine", ["dense", "incremental"])
def test_a_part_of_a_sweep_over_scale_is_that_part(engine):
    sweep = Sweep(
        load_model("small-cnn"),
        load_objects("novel", size=12, categories=3),
        canvas=Canvas(48, 12),
        grid="3x3",
        axes=[parse_axis("scale=0.5,1")],
        layers="fc6",
        engine=engine,
    )
    whole = similarity(sweep)["cosine_each"]
    part = sweep.select(objects=[0, 2], positions=[0, 1, 9, 10])
    assert [type(value) for value in part.design.axes.moving.values[1]] == [int, int]
    found = similarity(part)["cosine_each"]
    right = whole.isel(object=[0, 2], y=[0], x=[0, 1])
    np.testing.assert_allclose(found.transpose(*right.dims), right, atol=1e-6)
