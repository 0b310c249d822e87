import itertools
import json
import os
import shutil
import subprocess
import sys

import h5py
import hdf5plugin
import numpy as np
import pytest
import xarray
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from elsewhere.axes import Axes
from elsewhere.errors import CanvasError, InputError, StorageError, UnknownNameError
from elsewhere.measures.blocks import DenseBlock
from elsewhere.protocols import Design, Layer, Need
from elsewhere.recording import record
from elsewhere.storage import (
    ArraySource,
    Header,
    Keep,
    Portions,
    RecordingWriter,
    StoredLayer,
    open_recording,
)
from elsewhere.storage.merge import merge_parts
from elsewhere.storage.recording import BLOCK_BYTES
from elsewhere.storage.seal import append_seal


def make_header(shapes, *, n=5, ny=2, nx=3, dtype="float32", keep=None, reference=None):
    names = tuple(f"o{i}" for i in range(n))
    axes = Axes.of(y=range(10, 10 + ny), x=range(20, 20 + 2 * nx, 2))
    design = Design(names, names, axes, reference or (10, 20))
    layers = tuple(
        StoredLayer.of(Layer(name, "", "", shape), keep=keep or Keep(), seed=0)
        for name, shape in shapes.items()
    )
    image = np.zeros((n, 4, 4, 3), np.uint8)
    return Header(design, layers, dtype, image, image[..., 0], {"model": "made"}, {"command": ""})


def draw(header, seed=0):
    rng = np.random.default_rng(seed)
    shape = (len(header.design.objects), header.design.n_positions)
    return {
        layer.name: rng.normal(size=(*shape, *layer.shape)).astype(np.float32)
        for layer in header.layers
    }


def write(path, header, arrays, order=None, overwrite=False):
    """Write arrays by hand, in blocks of (object, position) rows in any order."""
    with RecordingWriter(path, header, overwrite=overwrite) as writer:
        none = np.array([-1])
        for layer in header.layers:
            empty = np.zeros((1, *layer.shape), np.float32)
            writer.add(DenseBlock("empty", layer.name, none, none, empty))
        pairs = list(
            itertools.product(range(len(header.design.objects)), range(header.design.n_positions))
        )
        for name, rows in order or [
            (layer.name, pairs[i : i + 7])
            for i in range(0, len(pairs), 7)
            for layer in header.layers
        ]:
            objects, positions = np.array(rows, dtype=np.int64).reshape(-1, 2).T
            values = arrays[name][objects, positions]
            writer.add(DenseBlock("grid", name, objects, positions, values))
        writer.finish()
    return path


# --- readers --------------------------------------------------------------------------------


def test_plain_h5py_reads_it(recorded):
    path, sweep = recorded
    with h5py.File(path) as file:
        assert file.attrs["elsewhere_encoding"] == "recording"
        assert json.loads(file.attrs["axes"]) == ["y", "x"]
        assert list(file["object"].asstr()[...]) == list(sweep.objects.ids)
        assert list(file["category"].asstr()[...]) == list(sweep.objects.categories)
        assert file["y"][...].tolist() == list(sweep.grid.y)
        assert file["x"].attrs["units"] in ("px", b"px")
        for layer in sweep.layers:
            group = file[f"layers/{layer.name}"]
            dataset = group["activation"]
            assert dataset.shape == (8, 3, 4, *layer.shape)
            assert dataset.dtype == np.float32
            assert [d[0].name.rpartition("/")[2] for d in dataset.dims][:3] == ["object", "y", "x"]
            assert group.attrs["module"] == layer.module
            assert tuple(group.attrs["layer_shape"]) == layer.shape
            assert group["empty"].shape == layer.shape
            assert np.prod(dataset.chunks) * 4 <= 2**20
        for value in file.attrs.values():
            assert isinstance(value, str | bytes | np.generic | np.ndarray)


def test_a_process_with_hdf5plugin_only_reads_it(recorded):
    """No elsewhere, no xarray: the one documented import for plain h5py."""
    program = (
        "import sys, h5py, hdf5plugin; file = h5py.File(sys.argv[1]);"
        "print(float(file['layers/logits/activation'][...].sum()))"
    )
    path, _ = recorded
    out = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True
    )
    with open_recording(path) as recording:
        assert float(out.stdout) == pytest.approx(float(recording["logits"].sum()), rel=1e-5)


def test_xarray_reads_it_with_names_and_coordinates(recorded):
    path, sweep = recorded
    with xarray.open_datatree(path, engine="h5netcdf") as tree:
        array = tree["layers/conv1_1/activation"]
        assert array.dims == ("object", "y", "x", "channel", "height", "width")
        assert tree["layers/logits/activation"].dims == ("object", "y", "x", "unit")
        assert tree["y"].values.tolist() == list(sweep.grid.y)
        assert tree["layers/logits"].to_dataset()["x"].values.tolist() == list(sweep.grid.x)
        assert array.sel(y=sweep.grid.y[1], x=sweep.grid.x[0]).shape == (8, *array.shape[3:])
        assert tree["image"].dims == ("object", "pixel_y", "pixel_x", "rgb")
    with xarray.open_datatree(path, engine="h5netcdf", chunks={}) as tree:
        assert tree["layers/conv1_1/activation"].chunks is not None


def test_netcdf_c_reads_it_where_it_has_the_filter(recorded):
    pytest.importorskip("netCDF4")
    path, _ = recorded
    program = (
        "import sys, netCDF4; file = netCDF4.Dataset(sys.argv[1]);"
        "layer = file['layers/logits/activation']; print(layer.dimensions, float(layer[:].sum()))"
    )
    environment = os.environ | {"HDF5_PLUGIN_PATH": hdf5plugin.PLUGIN_PATH}
    out = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, env=environment
    )
    if out.returncode != 0 and "filter" in out.stderr.lower():
        pytest.skip("this netCDF-C has no Zstandard filter: " + out.stderr.splitlines()[-1])
    assert out.returncode == 0, out.stderr
    with open_recording(path) as recording:
        total = float(recording["logits"].sum())
    assert out.stdout.startswith("('object', 'y', 'x', 'unit')")
    assert float(out.stdout.rpartition(" ")[2]) == pytest.approx(total, rel=1e-5)


# --- opening --------------------------------------------------------------------------------


def test_by_name_it_is_lazy(recorded, tmp_path):
    """What a slice reads of a large layer, counted by the kernel, is a small part of it."""
    header = make_header({"fc": (40_000,)}, n=8, ny=4, nx=8)
    path = write(tmp_path / "run.h5", header, draw(header))
    size = path.stat().st_size
    assert size > 30e6
    program = """
import sys, psutil
from elsewhere.storage import open_recording
open_recording(sys.argv[2])["logits"].values  # modules are read from the disk, too
recording = open_recording(sys.argv[1])
def count():
    return psutil.Process().io_counters().read_chars
start = count()
array = recording["fc"]
first = count()
part = array.isel(object=3, y=2, x=slice(0, 2)).values
second = count()
all_there = array.isel(y=0, x=0).values
third = count()
print(first - start, second - first, third - second, part.shape, all_there.shape)
"""
    command = [sys.executable, "-c", program, str(path), str(recorded[0])]
    out = subprocess.run(command, capture_output=True, text=True, check=True)
    named, part, column = (int(text) for text in out.stdout.split()[:3])
    assert named < 0.02 * size
    assert part < 0.08 * size
    assert column < 0.3 * size


def test_by_name_and_module_name(recorded):
    path, _ = recorded
    with open_recording(path) as recording:
        assert "conv1_1" in recording
        assert "features.0" in recording
        assert "nothing" not in recording
        assert recording["features.0"].identical(recording["conv1_1"])
        assert len(recording) == len(list(recording)) == 14
        with pytest.raises(UnknownNameError, match=r"conv1_2.*nearest: conv1_1.*run.h5 holds"):
            recording["conv1_2"]
        assert "8 x 3 x 4" in repr(recording)
        assert recording.attributes["background"] == [200, 40, 90]
        assert recording.attributes["numerics"]["batch_rows"] == 8
        assert recording.attributes["random_keys"] == []
        assert not any(isinstance(value, bytes) for value in recording.attributes.values())


def test_another_reference_must_be_on_the_grid(recorded):
    path, sweep = recorded
    places = list(itertools.product(sweep.grid.y, sweep.grid.x))
    with open_recording(path) as recording:
        other = recording.at(places[-1])
        assert other.design.reference == places[-1]
        assert recording.design.reference == sweep.reference
        again = other.at(places[-1])
        assert again.design.reference == places[-1]
        back = other.at(sweep.reference)
        assert back.design.reference == sweep.reference
        for opened in (other, again, back):
            opened.close()
        with pytest.raises(CanvasError, match=r"not on the recorded grid; nearest: \(4, 4\)"):
            recording.at((5, 4))


@pytest.mark.parametrize("damage", ["cut", "text", "empty", "foreign", "result", "version"])
def test_files_that_are_no_recordings_are_named(recorded, tmp_path, damage):
    path = tmp_path / "bad.h5"
    shutil.copy(recorded[0], path)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif damage == "text":
        path.write_text("not HDF5")
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "foreign":
        path.unlink()
        h5py.File(path, "w").close()
    elif damage == "result":
        with h5py.File(path, "a") as file:
            file.attrs["elsewhere_encoding"] = "result"
    elif damage == "version":
        with h5py.File(path, "a") as file:
            file.attrs["encoding_version"] = "9.0"
    with pytest.raises(StorageError, match=r"bad\.h5") as caught:
        open_recording(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("item", "attribute"),
    [
        ("layers", None),
        ("object", None),
        ("y", None),
        ("layers/logits", None),
        ("/", "layers"),
        ("/", "axes"),
        ("/", "reference_y"),
        ("layers/logits", "kept"),
    ],
)
def test_missing_pieces_are_damage(recorded, tmp_path, item, attribute):
    path = tmp_path / "bad.h5"
    shutil.copy(recorded[0], path)
    with h5py.File(path, "a") as file:
        if attribute is None:
            del file[item]
        else:
            del file[item].attrs[attribute]
    with pytest.raises(StorageError, match=r"bad\.h5 is truncated, or was written again"):
        open_recording(path)
    append_seal(path, ())
    with pytest.raises(StorageError, match=r"bad\.h5 is damaged"):
        open_recording(path)


def test_what_is_not_there_is_told(tmp_path):
    with pytest.raises(StorageError, match=r"run\.h5 does not exist; expected a recording"):
        open_recording(tmp_path / "run.h5")


# --- writing --------------------------------------------------------------------------------


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_the_order_and_size_of_blocks_do_not_matter(tmp_path_factory, data):
    n = data.draw(st.integers(1, 9))
    nx = data.draw(st.integers(1, 6))
    dtype = data.draw(st.sampled_from(["float32", "float16"]))
    header = make_header({"map": (2, 3, 4), "fc": (5,)}, n=n, nx=nx, dtype=dtype)
    arrays = draw(header, seed=n)
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    order = []
    for layer in header.layers:
        pairs = rng.permutation(list(itertools.product(range(n), range(2 * nx))))
        cuts = np.sort(rng.integers(0, len(pairs) + 1, 4))
        order += [(layer.name, rows) for rows in np.split(pairs, cuts) if len(rows)]
    rng.shuffle(order)
    path = write(tmp_path_factory.mktemp("order") / "run.h5", header, arrays, order)
    with open_recording(path) as recording:
        for name, array in arrays.items():
            stored = recording[name].values
            expected = array.reshape(stored.shape).astype(dtype)
            np.testing.assert_array_equal(stored, expected)


def test_layers_larger_than_a_chunk(tmp_path):
    shapes = {"map": (7, 300, 300), "fc": (300_001,), "tokens": (3, 400_000)}
    header = make_header(shapes, n=2, ny=1, nx=2)
    arrays = draw(header)
    path = write(tmp_path / "run.h5", header, arrays)
    with open_recording(path) as recording, h5py.File(path) as file:
        for name, array in arrays.items():
            np.testing.assert_array_equal(recording[name].values.reshape(array.shape), array)
            chunks = file[f"layers/{name}/activation"].chunks
            plane = np.prod(shapes[name][1:]) * 4
            assert np.prod(chunks) * 4 <= max(2**20, plane)
        assert recording["tokens"].dims == ("object", "y", "x", "token", "feature")


def test_a_missing_part_is_refused(tmp_path):
    header = make_header({"fc": (5,)}, n=5, nx=30)
    parts = tmp_path / "kept"

    def keep_parts(source, target):
        shutil.copytree(source, parts)

    arrays = draw(header)
    writer = RecordingWriter(tmp_path / "run.h5", header)
    with writer:
        none = np.array([-1])
        writer.add(DenseBlock("empty", "fc", none, none, np.zeros((1, 5), np.float32)))
        for o, p in itertools.product(range(5), range(60)):
            block = DenseBlock("grid", "fc", np.array([o]), np.array([p]), arrays["fc"][o, p][None])
            writer.add(block)
        keep_parts(tmp_path / "run.h5.parts", None)
    units = sorted(parts.glob("unit-*.h5"))
    assert len(units) >= 4
    merge_parts(parts, tmp_path / "whole.h5", os.getppid())
    units[2].unlink()
    with pytest.raises(ValueError, match=r"layer fc: \d+ of \d+ chunks; a part is missing"):
        merge_parts(parts, tmp_path / "holes.h5", os.getppid())


def test_unfinished_units_are_no_recording(tmp_path):
    header = make_header({"fc": (5,)})
    arrays = draw(header)
    with pytest.raises(StorageError, match=r"could not be merged .*a part is missing"):
        write(tmp_path / "run.h5", header, arrays, [("fc", [(0, 0), (1, 3)])])
    assert not (tmp_path / "run.h5").exists()
    write(tmp_path / "run.h5", header, arrays)
    with open_recording(tmp_path / "run.h5") as recording:
        np.testing.assert_array_equal(
            recording["fc"].values.reshape(arrays["fc"].shape), arrays["fc"]
        )


def test_merging_does_not_need_the_package_on_the_path(tmp_path, monkeypatch):
    """Notebooks extend sys.path, which a child process does not see."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "h5py.py").write_text("raise RuntimeError('the wrong h5py')")
    header = make_header({"fc": (5,)})
    path = write(tmp_path / "run.h5", header, draw(header))
    with open_recording(path) as recording:
        assert list(recording) == ["fc"]


# --- streaming ------------------------------------------------------------------------------


class Collecting:
    def __init__(self, held=0.0):
        self.blocks, self.largest, self._held = {}, 0, held
        self.parts = set()

    def needs(self, layer):
        return (Need("full"),)

    def held(self, layer, design, parts=1):
        return self._held / parts

    def begin(self, design, layers, part=0, parts=1):
        self.parts.add((layers[0].name, part, parts))

    def add(self, block):
        self.largest = max(self.largest, block.values.nbytes)
        for o, p, values in zip(block.objects, block.positions, block.values, strict=True):
            key = (block.layer, int(o), int(p))
            assert key not in self.blocks or self._held
            self.blocks[key] = values.copy()

    def end(self):
        pass


@pytest.mark.parametrize(
    ("shape", "n", "nx"), [((3,), 5, 30), ((60_000,), 90, 2), ((2, 150, 150), 12, 3)]
)
def test_streams_every_image_once_in_blocks_of_bounded_size(tmp_path, shape, n, nx):
    header = make_header({"layer": shape}, n=n, ny=1, nx=nx)
    arrays = draw(header)
    path = write(tmp_path / "run.h5", header, arrays)
    seen = []
    with open_recording(path) as recording:
        sink = Collecting()
        recording.stream([sink], progress=lambda done, total: seen.append((done, total)))
    assert len(sink.blocks) == n * nx
    assert sink.largest <= BLOCK_BYTES + 4 * np.prod(shape)
    assert seen[-1] == (n * nx, n * nx)
    for (_, o, p), values in sink.blocks.items():
        np.testing.assert_array_equal(values, arrays["layer"][o, p])


def test_memory_that_does_not_suffice_is_refused_and_parts_are_made(tmp_path):
    header = make_header({"fc": (50_000,)}, n=4, ny=1, nx=2)
    path = write(tmp_path / "run.h5", header, draw(header))
    with open_recording(path) as recording:
        block = 4 * 2 * 200_000
        sink = Collecting(held=40.0)
        recording.stream([sink], max_memory=2 * block + 20 * 200_000)
        assert sink.parts == {("fc", 0, 2), ("fc", 1, 2)}
        with pytest.raises(InputError, match=r"'fc' needs at least .* more than --max-memory"):
            recording.stream([sink], max_memory=2 * block + 100_000)


# --- arrays of other tools ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"activations": {}}, "no activations"),
        ({"x": [1, 2]}, r"activations start with .* expected \(object, 1, 2\)"),
        ({"categories": ["a"]}, "2 objects and 1 categories for 2 activations"),
        ({"reference": (9, 9)}, "not among the locations"),
        ({"y": [], "x": [], "activations": {"fc": np.ones((2, 0, 0, 4))}}, "no locations"),
        (
            {"empty": {"fc": np.ones(3)}},
            r"empty canvas's activation of layer 'fc' has shape \(3,\)",
        ),
    ],
)
def test_arrays_that_do_not_fit_are_refused(arguments, message):
    good = {"activations": {"fc": np.ones((2, 1, 3, 4))}, "y": [5], "x": [5, 7, 9]}
    ArraySource(**good)
    with pytest.raises(InputError, match=message):
        ArraySource(**(good | arguments))


# --- a full disk ----------------------------------------------------------------------------

FULL = """
import sys
import numpy as np
from pathlib import Path
from elsewhere.errors import ElsewhereError
from elsewhere.measures.blocks import DenseBlock
from elsewhere.axes import Axes
from elsewhere.protocols import Design
from elsewhere.storage import Header, RecordingWriter, StoredLayer
names = tuple("abcdefghij")
design = Design(names, names, Axes.of(y=range(9), x=range(9)), (4, 0))
image = np.zeros((10, 4, 4, 3), np.uint8)
layer = StoredLayer("conv", "conv", "", (4, 10, 10))
header = Header(design, (layer,), "float32", image, image[..., 0], {}, {})
none = np.array([-1])
try:
    with RecordingWriter(Path(sys.argv[1]), header) as writer:
        writer.add(DenseBlock("empty", "conv", none, none, np.zeros((1, 4, 10, 10), "float32")))
        for portion in writer.portions:
            rng = np.random.default_rng(portion.number)
            objects, positions = portion.rows(design)
            values = rng.normal(size=(len(objects), 4, 10, 10)).astype("float32")
            if portion.number not in writer.done:
                writer.add(DenseBlock("grid", "conv", objects, positions, values))
        writer.finish()
except ElsewhereError as error:
    print(error)
    sys.exit(1)
"""


def test_a_full_disk_is_one_line_no_crash_and_goes_on(tmp_path, mounted):
    def run(path):
        return subprocess.run(
            [sys.executable, "-c", FULL, str(path)], capture_output=True, text=True
        )

    whole = tmp_path / "whole.h5"
    assert run(whole).returncode == 0
    size = whole.stat().st_size
    assert size > 1_000_000
    page = 4096
    folder = mounted(size // 2 // page * page)
    path = folder / "run.h5"
    first = run(path)
    assert first.returncode == 1, first
    assert first.stderr == ""
    assert first.stdout.count("\n") == 1
    assert "no space left for" in first.stdout
    assert not path.exists()
    kept = len(list(folder.glob("run.h5.parts/unit-*.h5")))
    assert kept > 0
    mounted(int(1.5 * size) // page * page)  # the parts fit, not the merged file beside them
    second = run(path)
    assert second.returncode == 1, second
    assert "no space left to merge" in second.stdout
    assert second.stdout.count("\n") == 1
    assert second.stderr == ""
    assert not path.exists()
    assert not list((folder / "run.h5.parts").glob("merged*"))
    mounted(4 * size // page * page)
    third = run(path)
    assert third.returncode == 0, third
    with open_recording(path) as found, open_recording(whole) as expected:
        np.testing.assert_array_equal(found["conv"].values, expected["conv"].values)


def test_a_disk_that_fills_up_while_merging(tmp_path, monkeypatch, mounted):
    """The room is there when it is looked for, and gone when it is needed."""
    header = make_header({"fc": (40_000,)}, n=4, ny=1, nx=4)
    arrays = draw(header)
    folder = mounted(4_400_000 // 4096 * 4096)  # the parts take up 2.4 MB
    monkeypatch.setattr("elsewhere.storage.parts.free_bytes", lambda _: 10**12)
    path = folder / "run.h5"
    with pytest.raises(StorageError, match="could not be merged") as caught:
        write(path, header, arrays)
    assert "\n" not in str(caught.value)
    assert not path.exists()
    assert not list((folder / "run.h5.parts").glob("merged*"))
    mounted(20_000_000)
    with RecordingWriter(path, header) as writer:
        writer.finish()
    with open_recording(path) as recording:
        np.testing.assert_array_equal(
            recording["fc"].values.reshape(arrays["fc"].shape), arrays["fc"]
        )


def test_portions_of_a_recording_fit_its_chunks(recorded):
    path, _ = recorded
    with open_recording(path) as recording:
        for layer in recording.layers:
            portions = recording._portions(layer, recording.activations(layer.name))
            assert isinstance(portions, Portions)
            assert sum(int(np.prod(portion.shape)) for portion in portions) == 8 * 12


def test_values_are_on_disk_bit_for_bit_again(make_sweep, tmp_path):
    sweep = make_sweep(layers="logits")
    first, second = (record(sweep, tmp_path / name) for name in ("a.h5", "b.h5"))
    with open_recording(first) as a, open_recording(second) as b:
        assert a["logits"].identical(b["logits"])
        assert a.attributes["identity"] == b.attributes["identity"]
