import os
import signal
import subprocess
import sys
import time

import h5py
import hdf5plugin  # noqa: F401
import numpy as np
import pytest
import torch
import xarray
from torch import nn

from elsewhere.analyzer import METRICS, SimilaritySink
from elsewhere.errors import (
    ElsewhereError,
    ExistsError,
    InputError,
    NumericsError,
    StorageError,
    UnknownNameError,
)
from elsewhere.measures.sketch import sketch
from elsewhere.recording import check_room, make_header, parse_keeps, plan, record
from elsewhere.storage import Keep, RecordingWriter, open_recording
from elsewhere.storage.parts import Parts
from tests.roles import by_role, similarity


def contents(path):
    """Return every dataset of a file, and its attributes but for what tells runs apart."""
    found = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, item: (
                found.update({name: item[...]}) if isinstance(item, h5py.Dataset) else None
            )
        )
        attributes = {k: v for k, v in file.attrs.items() if k not in ("created", "command")}
    return found, attributes


def assert_same_contents(first, second):
    (a, attributes), (b, others) = contents(first), contents(second)
    assert a.keys() == b.keys()
    for name in a:
        assert np.array_equal(a[name], b[name]), name  # bit for bit
    assert attributes.keys() == others.keys()
    assert all(np.all(attributes[key] == others[key]) for key in attributes)


def parts_of(path):
    """Return the numbers of the portions that are there of an unfinished recording."""
    folder = path.with_name(path.name + ".parts")
    return sorted(int(part.stem.removeprefix("unit-")) for part in folder.glob("unit-*.h5"))


def interrupt_after(count):
    def progress(done, total):
        if done >= count:
            raise KeyboardInterrupt

    return progress


# --- values ---------------------------------------------------------------------------------


def test_recorded_values_are_those_of_plain_forwards(recorded, plain_forwards):
    path, sweep = recorded
    expected = plain_forwards(sweep)
    with open_recording(path) as recording:
        assert list(recording) == [layer.name for layer in sweep.layers]
        for layer in sweep.layers:
            grid, _, empty = expected[layer.name]
            values = recording[layer.name].values
            tolerance = 1e-5 * np.abs(grid).max()
            assert values.dtype == np.float32
            assert values.shape == (8, 3, 4, *layer.shape)
            np.testing.assert_allclose(
                values.reshape(grid.shape), grid, rtol=0, atol=tolerance, err_msg=layer.name
            )
            stored = recording.tree[f"layers/{layer.name}"]["empty"].values
            np.testing.assert_allclose(stored, empty, rtol=0, atol=tolerance)
        assert recording.design == sweep.design
        np.testing.assert_array_equal(recording.objects["image"], sweep.objects.images)
        np.testing.assert_array_equal(recording.objects["mask"], sweep.objects.masks)


@pytest.mark.parametrize("metric", METRICS)
def test_similarity_recorded_and_live_agree(recorded, metric):
    path, sweep = recorded
    live = similarity(sweep, metric=metric)
    with open_recording(path) as recording:
        stored = similarity(recording, metric=metric)
    assert list(live.data_vars) == list(stored.data_vars)
    for name, values in live.data_vars.items():
        tolerance = 1e-5
        if name.startswith("G") or name.endswith("interval"):  # divided by 1 - D, or by its square
            tolerance /= float(1 - live["baseline_cross"].max())
        xarray.testing.assert_allclose(stored[name], values, rtol=0, atol=tolerance)
    assert np.isfinite(live["G_away"]).all()


@pytest.mark.parametrize("metric", METRICS)
def test_a_reference_off_the_grid_is_recorded_in_addition(
    make_sweep, plain_forwards, tmp_path, metric
):
    sweep = make_sweep(n=3, grid="2x2", reference=(11, 9), layers="pool2,logits")
    path = record(sweep, tmp_path / "run.h5")
    expected = plain_forwards(sweep)["logits"][1]
    with open_recording(path) as recording:
        assert recording.design.reference == (11, 9)
        assert recording.design.reference_index is None
        found = recording.tree["layers/logits"]["reference"]
        assert found.dims == ("object", "unit")
        np.testing.assert_allclose(found.values, expected, atol=1e-5 * np.abs(expected).max())
        stored, live = similarity(recording, metric=metric), similarity(sweep, metric=metric)
    xarray.testing.assert_allclose(stored, live, rtol=0, atol=1e-3)
    xarray.testing.assert_allclose(stored["similarity"], live["similarity"], rtol=0, atol=1e-5)
    assert (stored["similarity_mean"] < 0.9999).all()  # at no place compared with itself


def test_other_sinks_share_the_sweep(make_sweep, tmp_path):
    sweep, sink = make_sweep(), SimilaritySink(metric="centred")
    layers = sweep.layers[-1:]
    path = record(sweep, tmp_path / "run.h5", layers=layers, also=[sink])
    with open_recording(path) as recording:
        assert list(recording) == ["logits"]
        stored = similarity(recording, metric="centred")
    found = by_role(sink.result([layer.name for layer in sweep.layers]), sink.metric)
    assert list(found["layer"].values) == [layer.name for layer in sweep.layers]
    np.testing.assert_allclose(
        stored["similarity"].sel(layer="logits").values,
        found["similarity"].sel(layer="logits").values,
        atol=1e-5,
    )


# --- what is kept ---------------------------------------------------------------------------


def test_means_over_space(make_sweep, plain_forwards, tmp_path):
    sweep = make_sweep(n=3, grid="2x3", layers="conv*,fc3")
    path = record(sweep, tmp_path / "run.h5", keep={"*": Keep("mean")})
    expected = plain_forwards(sweep)
    with open_recording(path) as recording:
        for name in ("conv1_1", "conv2_1"):
            array = recording[name]
            assert array.dims == ("object", "y", "x", "channel")
            wanted = expected[name][0].mean(axis=(-2, -1)).reshape(array.shape)
            np.testing.assert_allclose(array.values, wanted, atol=1e-5)
        wanted = expected["fc3"][0].reshape(recording["fc3"].shape)
        np.testing.assert_allclose(recording["fc3"].values, wanted, atol=1e-5 * wanted.max())
        assert str(recording.layer("conv1_1").keep) == "mean"
        assert recording.layer("conv1_1").shape == (4, 24, 24)


def test_sketches_preserve_similarity_on_average(make_sweep, plain_forwards, tmp_path):
    sweep = make_sweep(n=3, grid="2x2", layers="conv1_1")
    values = plain_forwards(sweep)["conv1_1"][0].reshape(12, -1)
    exact = similarity(sweep)["similarity"].values
    for size in (64, 512):
        found = []
        for seed in range(25):
            path = (
                record(
                    sweep,
                    tmp_path / f"{size}-{seed}.h5",
                    keep={"conv1_1": Keep("sketch", size)},
                    seed=seed,
                )
                if seed < 2
                else None
            )
            short = sketch(values, size, seed=seed).astype(float)
            if path is not None:
                with open_recording(path) as recording:
                    assert recording["conv1_1"].dims == ("object", "y", "x", "sketch")
                    stored = recording["conv1_1"].values.reshape(12, size)
                    np.testing.assert_allclose(stored, short, atol=1e-3)
                    similar = similarity(recording)["similarity"].values
                    assert np.abs(similar - exact).max() < 6 / np.sqrt(size)
                    with pytest.raises(InputError, match=r"conv1_1.*pearson.*--keep conv1_1=full"):
                        similarity(recording, metric="pearson")
            short /= np.linalg.norm(short, axis=1, keepdims=True)
            found.append(short[0] @ short[5])
        unit = values / np.linalg.norm(values, axis=1, keepdims=True)
        truth = float(unit[0] @ unit[5])
        bound = np.sqrt((1 + truth**2) / size)
        assert abs(np.mean(found) - truth) < 4 * bound / np.sqrt(25)
        assert np.std(found) < 1.5 * bound


def test_keeps_are_read_and_checked(make_sweep):
    sweep = make_sweep(layers="conv*,logits")
    header = make_header(sweep, keep=parse_keeps(["*=mean", "conv1_1=sketch:32"]))
    kept = {layer.name: str(layer.keep) for layer in header.layers}
    assert kept == {"conv1_1": "sketch:32", "conv2_1": "mean", "logits": "mean"}
    assert make_header(sweep, keep=parse_keeps(["features.0=mean"])).layers[0].keep.kind == "mean"
    with pytest.raises(UnknownNameError, match=r"conv1_2.*nearest: conv1_1.*in --keep"):
        make_header(sweep, keep={"conv1_2": Keep()})
    with pytest.raises(InputError, match=r"'logits' has 7 units, fewer than the 8"):
        make_header(sweep, keep={"logits": Keep("sketch", 8)})
    for text in ("conv1_1", "=mean", "a=half", "a=sketch", "a=sketch:0", "a=mean:3", "a=sketch:²"):
        with pytest.raises(InputError, match="expected"):
            parse_keeps([text])


def test_half_precision(make_sweep, recorded, tmp_path):
    sweep = make_sweep(n=4, per=2)
    path = record(sweep, tmp_path / "half.h5", dtype="float16")
    with open_recording(path) as half, open_recording(recorded[0]) as single:
        for name in single:
            assert half[name].dtype == np.float16
            exact = single[name].values
            np.testing.assert_allclose(half[name].values, exact, rtol=2**-11, atol=2**-24)
        found, exact = similarity(half), similarity(single)
    np.testing.assert_allclose(found["similarity"], exact["similarity"], atol=1e-3)
    np.testing.assert_allclose(found["G_away"], exact["G_away"], atol=1e-3)


READ = """
import sys, xarray
tree = xarray.open_datatree(sys.argv[1])
values = tree["layers/relu1_1/activation"]
print(tree.encoding.get("source") or "", values.dtype, values.dims[-1], float(values.sum()))
"""


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_readers_of_netcdf_do_not_end_with_it(dtype, make_sweep, tmp_path):
    pytest.importorskip("netCDF4")
    path = record(make_sweep(layers="relu1_1,fc3"), tmp_path / "run.h5", dtype=dtype)
    child = subprocess.run(
        [sys.executable, "-c", READ, str(path)], capture_output=True, text=True, check=False
    )
    if child.returncode > 0:  # a reader without the filter says so
        assert "filter" in child.stderr.lower()
        return
    assert child.returncode == 0, child.returncode
    with open_recording(path) as recording:
        total = float(recording["relu1_1"].values.astype(np.float64).sum())
    assert "float32 width" in child.stdout
    assert float(child.stdout.split()[-1]) == pytest.approx(total, rel=1e-5)


def test_half_precision_stands_in_files_as_what_any_reader_knows(make_sweep, tmp_path):
    path = record(make_sweep(layers="relu1_1"), tmp_path / "run.h5", dtype="float16")
    with h5py.File(path) as file, open_recording(path) as recording:
        stored = file["layers/relu1_1/activation"]
        assert stored.dtype == np.float32
        assert stored.shuffle
        assert recording.dtype("relu1_1") == np.float16
        np.testing.assert_array_equal(stored[...], recording["relu1_1"].values)
        types = []
        file.visititems(lambda _, item: types.append(getattr(item, "dtype", None)))
        assert np.float16 not in [kind for kind in types if kind is not None]


@pytest.mark.parametrize("scale", [1e-4, 1e-6, 1e-9])
@pytest.mark.parametrize("engine", ["dense", "auto"])
def test_what_is_too_small_for_half_precision_is_refused(
    scale, engine, make_sweep, wrap, disturb, tmp_path
):
    network = disturb(nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.ReLU(), nn.AvgPool2d(2)))
    network[0].weight.data *= scale
    sweep = make_sweep(wrap(network), layers="1,2", engine=engine)
    with pytest.raises(NumericsError, match=r"layer '1' has .*% of .* float16 .*--dtype float32"):
        record(sweep, tmp_path / "run.h5", dtype="float16")
    assert list(tmp_path.iterdir()) == []
    record(sweep, tmp_path / "run.h5")


def test_a_few_small_values_are_let_through(make_sweep, wrap, tmp_path):
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 24 * 24, 300))
    network[1].weight.data[0] *= 1e-9
    network[1].bias.data[0] = 0
    record(make_sweep(wrap(network), layers="1"), tmp_path / "run.h5", dtype="float16")
    network[1].weight.data[1:10] *= 1e-9
    network[1].bias.data[1:10] = 0
    with pytest.raises(NumericsError, match=r"layer 'logits' has 3\.\d% of"):
        record(make_sweep(wrap(network), layers="1"), tmp_path / "more.h5", dtype="float16")


@pytest.mark.parametrize("sign", [1, -1])
def test_what_half_precision_cannot_hold_is_refused_by_layer(make_sweep, wrap, tmp_path, sign):
    network = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Conv2d(2, 2, 1), nn.Flatten())
    with torch.no_grad():
        for part in network[:2]:
            part.weight.fill_(1.0)
        network[1].weight.fill_(sign * 1e4)
    sweep = make_sweep(wrap(network), layers="*")
    with pytest.raises(NumericsError, match=r"layer '1' reaches .* float16 .*--dtype float32"):
        record(sweep, tmp_path / "run.h5", dtype="float16")
    assert not list(tmp_path.iterdir())
    record(sweep, tmp_path / "run.h5")  # the remedy works


# --- activations that are no numbers --------------------------------------------------------


class Sick(nn.Module):
    """Gives NaN or infinity wherever a pixel is brighter than `above`."""

    def __init__(self, value, above=None):
        super().__init__()
        self.healthy, self.part = nn.Conv2d(3, 2, 3), self.Part()
        self.part.value, self.part.above = value, above

    class Part(nn.Module):
        def forward(self, values):
            sick = torch.full((), self.value)
            if self.above is None:
                return torch.where(torch.ones_like(values) > 0, sick, values)
            return torch.where(values > self.above, sick, values)

    def forward(self, values):
        return self.part(self.healthy(values)[:, :1].clamp(0, 0.01) + values[:, :1, 2:, 2:])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("kept", ["full", "mean", "sketch:16"])
def test_nan_and_infinity_are_refused_by_layer(make_sweep, wrap, hooks_of, tmp_path, value, kept):
    torch.manual_seed(0)
    model = wrap(Sick(value, above=4.0))
    sweep = make_sweep(model, layers="healthy,part")
    with pytest.raises(
        NumericsError, match=r"layer 'part' gives NaN or infinity for object 'o\d-0' at y=\d+, x="
    ) as caught:
        record(sweep, tmp_path / "run.h5", keep={"*": Keep.parse(kept)})
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())
    assert hooks_of(model.module) == 0
    for metric in METRICS:
        with pytest.raises(NumericsError, match="layer 'part' gives NaN or infinity"):
            similarity(sweep, metric=metric)


def test_nan_of_the_empty_canvas_and_at_a_reference_off_the_grid(make_sweep, wrap, tmp_path):
    class OnlyEmpty(nn.Module):
        def forward(self, values):
            spread = values.amax((2, 3), keepdim=True) - values.amin((2, 3), keepdim=True)
            return values / spread * spread

    sweep = make_sweep(wrap(nn.Sequential(OnlyEmpty())), layers="*")
    with pytest.raises(NumericsError, match="layer '0' gives NaN or infinity for the empty canvas"):
        record(sweep, tmp_path / "run.h5")
    with pytest.raises(NumericsError, match=r"empty canvas.*evoked"):
        similarity(sweep, metric="evoked")
    similarity(sweep)  # needs no empty canvas

    class OnlyThere(nn.Module):  # the object at (9, 9) covers the pixel (5, 5) as well
        def forward(self, values):
            there = values[:, :, 12, 12] != values[:, :, 0, 0]
            return torch.where(there[:, :, None, None], torch.nan, values)

    sweep = make_sweep(
        wrap(nn.Sequential(OnlyThere())), n=2, grid="2x2", reference=(12, 12), layers="*"
    )
    with pytest.raises(NumericsError, match=r"object 'o\d-0' at y=12, x=12"):
        record(sweep, tmp_path / "run.h5")


# --- unfinished -----------------------------------------------------------------------------


def test_an_interrupted_recording_is_unfinished_and_goes_on(make_sweep, tmp_path, model, hooks_of):
    sweep = make_sweep(grid="12x12", layers="pool*,logits")
    whole = record(sweep, tmp_path / "whole.h5")
    path = tmp_path / "run.h5"
    with pytest.raises(KeyboardInterrupt):
        record(sweep, path, progress=interrupt_after(300))
    assert hooks_of(model.module) == 0
    assert not path.exists()
    with pytest.raises(StorageError, match=r"run.h5 is not finished.*again to go on"):
        open_recording(path)
    done = parts_of(path)
    assert len(done) >= 3
    images = []
    record(sweep, path, progress=lambda n, total: images.append(total))
    sizes = [int(np.prod(portion.shape)) for portion in make_header(sweep).portions]
    assert sum(sizes) == 5 * 144
    assert images[0] == 1 + 5 * 144 - sum(sizes[number] for number in done)
    assert_same_contents(path, whole)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["run.h5", "whole.h5"]


SCRIPT = """
import sys, time
import numpy as np, torch
from pathlib import Path
from elsewhere.models import load_model
from elsewhere.recording import Sweep, record
from elsewhere.stimuli import Canvas, Grid, ObjectSet

def make():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (5, 12, 12, 3), dtype=np.uint8)
    masks = np.full((5, 12, 12), 255, dtype=np.uint8)
    ids = tuple("abcde")
    canvas = Canvas(24, 12)
    model = load_model("small-cnn", model_args={"channels": "4-6", "canvas": 24, "hidden": 12})
    return Sweep(model, ObjectSet("set", images, masks, ids, ids, {}), canvas=canvas,
                 grid=Grid.parse("all", canvas), layers="pool1,logits")

if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[2]))
    parts = Path(sys.argv[1] + ".parts")

    def wait(done, total):  # to be killed, three portions done
        while len(list(parts.glob("unit-*.h5"))) >= 3:
            time.sleep(0.05)

    record(make(), sys.argv[1], progress=wait)
"""


def test_a_killed_recording_goes_on(tmp_path):
    path = tmp_path / "run.h5"
    child = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(path), str(torch.get_num_threads())]
    )
    try:
        deadline = time.monotonic() + 600
        while len(parts_of(path)) < 3:
            assert child.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    assert not path.exists()
    with pytest.raises(StorageError, match="not finished"):
        open_recording(path)
    scope = {"__name__": "script"}
    exec(SCRIPT, scope)
    sweep, images = scope["make"](), []
    record(sweep, path, progress=lambda done, total: images.append(total))
    assert images[0] <= 1 + 5 * 13 * 13 - 2 * 40 - 5  # three portions were not computed again
    whole = record(sweep, tmp_path / "whole.h5")
    assert_same_contents(path, whole)


def test_a_damaged_part_is_recorded_again(make_sweep, tmp_path, caplog):
    sweep, path = make_sweep(grid="12x12", layers="logits"), tmp_path / "run.h5"
    with pytest.raises(KeyboardInterrupt):
        record(sweep, path, progress=interrupt_after(600))
    part = sorted((tmp_path / "run.h5.parts").glob("unit-*.h5"))[1]
    assert len(parts_of(path)) >= 3
    damaged = bytearray(part.read_bytes())
    damaged[len(damaged) // 2] ^= 4
    part.write_bytes(damaged)
    images = []
    with caplog.at_level("WARNING"):
        record(sweep, path, progress=lambda done, total: images.append(total))
    assert f"{part} is damaged: its part is recorded again" in caplog.text
    assert_same_contents(path, record(sweep, tmp_path / "whole.h5"))


def test_a_part_that_is_damaged_while_it_is_merged_is_told(make_sweep, tmp_path, monkeypatch):
    sweep, path = make_sweep(grid="12x12", layers="logits"), tmp_path / "run.h5"
    finish = Parts.finish

    def damage_then_finish(self):
        part = self.folder / "unit-0000001.h5"
        part.write_bytes(part.read_bytes()[:100])
        finish(self)

    monkeypatch.setattr(Parts, "finish", damage_then_finish)
    with pytest.raises(StorageError, match=r"could not be merged .*unit-0000001.h5 is damaged"):
        record(sweep, path)
    assert not path.exists()
    monkeypatch.setattr(Parts, "finish", finish)
    record(sweep, path)
    assert_same_contents(path, record(sweep, tmp_path / "whole.h5"))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"dtype": "float16"}, "dtype"),
        ({"keep": {"logits": Keep("mean")}}, "layers"),
        ({"seed": 3, "keep": {"logits": Keep("sketch", 4)}}, "layers"),
    ],
)
def test_parts_of_another_recording_are_refused(make_sweep, tmp_path, change, field):
    sweep, path = make_sweep(grid="12x12", layers="logits"), tmp_path / "run.h5"
    with pytest.raises(KeyboardInterrupt):
        record(sweep, path, progress=interrupt_after(300))
    with pytest.raises(ExistsError, match=r"holds parts of another recording") as caught:
        record(sweep, path, **change)
    assert all(name in str(caught.value) for name in field.split(", "))
    assert "--overwrite" in str(caught.value)
    record(sweep, path, overwrite=True, **change)
    assert_same_contents(path, record(sweep, tmp_path / "whole.h5", **change))


def test_parts_of_other_objects_grids_and_models_are_refused(make_sweep, tmp_path):
    path = tmp_path / "run.h5"
    with pytest.raises(KeyboardInterrupt):
        record(make_sweep(grid="12x12", layers="logits"), path, progress=interrupt_after(300))
    for options, field in (
        ({"seed": 1}, "pixels"),
        ({"grid": "12x11"}, "axes"),
        ({"reference": (12, 12)}, "reference"),
    ):
        options = {"grid": "12x12", "layers": "logits"} | options
        with pytest.raises(ExistsError, match=field):
            record(make_sweep(**options), path)


def test_overwriting_replaces_only_after_success(make_sweep, tmp_path):
    path = tmp_path / "run.h5"
    record(make_sweep(layers="logits"), path)
    before = path.read_bytes()
    with pytest.raises(ExistsError, match="exists already"):
        record(make_sweep(layers="fc3"), path)
    assert not (tmp_path / "run.h5.parts").exists()
    with pytest.raises(KeyboardInterrupt):
        record(
            make_sweep(layers="fc3", grid="12x12"),
            path,
            overwrite=True,
            progress=interrupt_after(300),
        )
    assert path.read_bytes() == before
    record(make_sweep(layers="fc3", grid="12x12"), path, overwrite=True)
    with open_recording(path) as recording:
        assert list(recording) == ["fc3"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.h5"]


def test_a_file_that_appears_meanwhile_is_not_replaced(make_sweep, tmp_path):
    sweep, path = make_sweep(layers="logits"), tmp_path / "run.h5"
    with pytest.raises(ExistsError, match="exists already"):
        record(sweep, path, progress=lambda *_: path.write_text("mine"))
    assert path.read_text() == "mine"
    path.unlink()
    images = []
    record(sweep, path, progress=lambda done, total: images.append(total))
    assert images == [1]  # only the empty canvas: nothing was lost


def test_two_writers_at_once_are_refused(make_sweep, tmp_path):
    sweep, path = make_sweep(layers="logits"), tmp_path / "run.h5"
    with (
        RecordingWriter(path, make_header(sweep)),
        pytest.raises(StorageError, match=r"run.h5 is being recorded by another process"),
    ):
        record(sweep, path)
    record(sweep, path)  # once it is over


def test_a_failure_of_the_writers_thread_is_told(make_sweep, tmp_path, monkeypatch):
    def full(self, number, data):
        raise StorageError(f"no space left for unit {number}")

    monkeypatch.setattr("elsewhere.storage.parts.Parts.write_portion", full)
    with pytest.raises(StorageError, match="no space left for unit"):
        record(make_sweep(grid="12x12"), tmp_path / "run.h5")
    assert not (tmp_path / "run.h5").exists()


def test_places_that_cannot_be_written(make_sweep, tmp_path):
    sweep = make_sweep(layers="logits")
    for path in (tmp_path, tmp_path / "no" / "run.h5"):
        with pytest.raises(StorageError):
            record(sweep, path)
    assert not list(tmp_path.iterdir())


# --- plan -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{}, {"n": 1, "grid": "1x1"}, {"n": 9, "per": 3}, {"reference": (11, 11)}]
)
def test_a_plan_is_exact_in_bytes_and_images(make_sweep, tmp_path, options, recwarn):
    sweep = make_sweep(**options)
    sinks = [SimilaritySink(metric="centred", layers=["conv1_1"])]
    cost = plan(sweep, also=sinks)
    assert not [w for w in recwarn.list if issubclass(w.category, RuntimeWarning)]
    n = len(sweep.objects) * sweep.design.n_positions
    assert cost.raw_bytes == 4 * n * sum(int(np.prod(layer.shape)) for layer in sweep.layers)
    assert cost.n_positions == sweep.design.n_positions
    assert cost.n_objects == len(sweep.objects)
    assert cost.seconds >= 0
    assert cost.memory_bytes > 0
    rows = []
    handle = sweep.model.module.features[0].register_forward_hook(
        lambda _, inputs, __: rows.append(len(inputs[0]))
    )
    path = record(sweep, tmp_path / "run.h5", also=[SimilaritySink(metric="centred")])
    handle.remove()
    assert cost.n_images == sum(rows)
    with open_recording(path) as recording:
        stored = sum(recording.stored_bytes(name) for name in recording)
    if n > 50:
        assert 0.4 < cost.stored_bytes / stored < 2.5


def test_a_plan_that_does_not_fit_the_disk_is_refused(make_sweep, tmp_path, monkeypatch):
    cost = plan(make_sweep(layers="logits"))
    check_room(cost, tmp_path / "run.h5")
    module = sys.modules["elsewhere.recording.planning"]
    monkeypatch.setattr(module, "free_bytes", lambda _: 10)
    with pytest.raises(StorageError, match=r"run.h5 would need about .* 10 B are free"):
        check_room(cost, tmp_path / "run.h5")
    (tmp_path / "run.h5").touch()
    with pytest.raises(ExistsError):
        check_room(cost, tmp_path / "run.h5")


def test_arguments_that_json_does_not_know_are_recorded_as_text(make_sweep, model, tmp_path):
    import dataclasses

    odd = dataclasses.replace(model, arguments={"norm_layer": nn.BatchNorm2d, "pair": (1, 2)})
    path = record(make_sweep(odd, layers="logits"), tmp_path / "run.h5")
    with open_recording(path) as recording:
        assert "BatchNorm2d" in recording.attributes["model_arguments"]["norm_layer"]


def test_a_name_with_a_slash_is_refused(make_sweep, wrap, tmp_path):
    network = nn.Sequential()
    network.add_module("a/b", nn.Conv2d(3, 2, 3))
    with pytest.raises(ElsewhereError, match=r"'a/b' cannot be stored"):
        record(make_sweep(wrap(network), layers="*"), tmp_path / "run.h5")
    assert not list(tmp_path.iterdir())
