"""Reads recordings with h5py alone, as docs/file-format.md says, and checks that page."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
import textwrap
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401  (registers the filter, as the page says)
import numpy as np
import pytest
import xarray
from typer.testing import CliRunner

import elsewhere
from elsewhere.cli import app
from elsewhere.errors import StorageError
from elsewhere.recording import record, request_model, request_sweep

PAGE = (Path(__file__).parents[2] / "docs" / "file-format.md").read_text(encoding="utf-8")
SHUFFLE, ZSTD, FLETCHER32 = 2, 32015, 3
NO_VARIABLE = b"This is a netCDF dimension but not a netCDF variable"


def table_under(heading):
    """Return {name: type} of the attributes in the first table under a heading of the page."""
    text = re.split(r"\n#+ ", PAGE.split(f"# {heading}\n")[1])[0]
    rows = re.findall(r"^\| (`[^|]*`) \| ([^|]*) \|", text, flags=re.MULTILINE)
    return {name: kind.strip() for names, kind in rows for name in re.findall("`(.*?)`", names)}


def decode(value, kind):
    """Return an attribute as the page says that it is encoded."""
    if kind.startswith("JSON"):
        decoded = json.loads(value)
        assert isinstance(decoded, list if "list" in kind else dict)
        return decoded
    if kind == "text":
        assert isinstance(value, str)
        return value
    assert value.dtype == kind.split(",")[0]
    if "per dimension" in kind:
        return value.tolist()
    assert value.shape == (1,)
    return value[0].item()


class Reader:
    """A reader written from the page."""

    def __init__(self, path):
        self.file = h5py.File(path)
        kinds = table_under("Attributes of the file")
        assert self.file.attrs["elsewhere_encoding"] == "recording"
        assert self.file.attrs["encoding_version"] == "0.3"
        self.axes = json.loads(self.file.attrs["axes"])
        per_axis = kinds.pop("reference_<axis>")
        kinds |= {f"reference_{name}": per_axis for name in self.axes}
        self.kinds = kinds
        self.attributes = {key: decode(self.file.attrs[key], kind) for key, kind in kinds.items()}
        self.objects = self.file["object"].asstr()[...].tolist()
        self.categories = self.file["category"].asstr()[...].tolist()
        self.coordinates = [self.file[name][...].tolist() for name in self.axes]
        self.reference = [self.attributes[f"reference_{name}"] for name in self.axes]
        self.names = self.attributes["layers"]

    def layer(self, name):
        """Return a layer's group and its attributes."""
        group = self.file["layers"][name]
        kinds = table_under("Attributes of a layer")
        assert set(group.attrs) <= set(kinds)
        return group, {key: decode(group.attrs[key], kinds[key]) for key in group.attrs}

    def at_reference(self, name):
        """Return what is kept of every object at the reference."""
        group, _ = self.layer(name)
        if "reference" in group:
            return group["reference"][...]
        cell = tuple(c.index(r) for c, r in zip(self.coordinates, self.reference, strict=True))
        return group["activation"][(slice(None), *cell)]

    def identity_fields(self):
        """Return the fields of the identity, those that the rest of the file says taken from it."""
        layers = []
        for name in self.names:
            _, about = self.layer(name)
            layers.append(
                [name, about["module"], about["layer_shape"], about["kept"], about["seed"]]
            )
        pixels = self.file["image"][...].tobytes() + self.file["mask"][...].tobytes()
        attributes = self.attributes
        return attributes["identity_fields"] | {
            "state": attributes["weights_sha256"],
            "input": {key: attributes[key] for key in ("mean", "std", "gain")},
            "canvas": {
                "size": attributes["canvas"],
                "object_size": attributes["object_size"],
                "background": attributes["background"],
            },
            "n_objects": len(self.objects),
            "objects": sha256(json.dumps([self.objects, self.categories]).encode()),
            "axes": [list(pair) for pair in zip(self.axes, self.coordinates, strict=True)],
            "reference": self.reference,
            "layers": layers,
            "dtype": attributes["dtype"],
            "encoding_version": attributes["encoding_version"],
            "pixels": sha256(pixels),
        }


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def read_seal(path):
    """Return the seal of a file and the bytes before it, as the page says."""
    data = path.read_bytes()
    length, digest, magic = data[-48:-40], data[-40:-8], data[-8:]
    assert magic == b"ELSESEAL"
    size = len(data) - 48 - int.from_bytes(length, "little")
    body = data[size:-48]
    assert hashlib.sha256(body).digest() == digest
    return json.loads(body), data[:size]


def dimensions(dataset):
    """Return the names of a dataset's dimensions, from its dimension scales."""
    return tuple(dimension[0].name.rsplit("/", 1)[-1] for dimension in dataset.dims)


def run(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result


STIMULI = {"objects": "novel", "categories": "4", "grid": "2x5"}
ON_GRID = {**STIMULI, "background": "30,60,90"}
OFF_GRID = {**STIMULI, "reference": "20,20"}


def options(request):
    return [f"--{key}={value}" for key, value in request.items()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Recordings made on the command line, and a result."""
    folder = tmp_path_factory.mktemp("format")
    keeps = ["--keep=pool2=sketch:64", "--keep=pool3=mean", "--keep=fc5=mean", "--seed=3"]
    layers = "--layers=conv1_1,pool2,pool3,fc5,logits"
    run("record", "small-cnn", *options(ON_GRID), layers, *keeps, "--out", folder / "on.h5")
    half = [layers, *keeps, "--dtype=float16", "--gain=0.5"]
    run("record", "small-cnn", *options(OFF_GRID), *half, "--out", folder / "off.h5")
    run("similarity", folder / "on.h5", "--out", folder / "sim.nc")
    return folder


@pytest.fixture(scope="module", params=["on.h5", "off.h5"])
def reader(request, folder):
    reader = Reader(folder / request.param)
    reader.off_grid = request.param == "off.h5"
    yield reader
    reader.file.close()


def test_the_attributes_are_those_of_the_page(reader):
    drawn = {"weights_seed"}  # of weights drawn at random
    assert set(reader.file.attrs) == {*reader.kinds, "_NCProperties"} | drawn
    assert reader.axes == ["y", "x"]
    assert reader.coordinates == [[5, 42], [5, 14, 24, 33, 42]]
    assert reader.reference == ([20, 20] if reader.off_grid else [42, 5])
    assert set(reader.file["layers"]) == set(reader.names)
    for name in reader.names:
        _, about = reader.layer(name)
        spatial = {"stride", "offset", "receptive_field"}
        assert {"module", "type", "kept", "seed", "layer_shape", "layout"} <= set(about)
        assert (spatial <= set(about)) == (len(about["layer_shape"]) == 3)


def test_the_identity_can_be_computed_from_the_file(reader):
    text = json.dumps(reader.identity_fields(), sort_keys=True)
    assert text == reader.file.attrs["identity_fields"]
    assert sha256(text.encode()) == reader.attributes["identity"]
    named = set(re.findall("`([a-z_]+)`", PAGE.split("## Identity")[1].split("\n## ")[0]))
    assert set(reader.attributes["identity_fields"]) <= named


def test_the_seal_is_as_the_page_says(folder):
    seal, data = read_seal(folder / "on.h5")
    assert seal["size"] == len(data)
    assert seal["mark"] == ""
    left_out = set()
    with h5py.File(folder / "on.h5") as file:
        for name in file["layers"]:
            file[f"layers/{name}/activation"].id.chunk_iter(
                lambda chunk: left_out.update(
                    range(chunk.byte_offset, chunk.byte_offset + chunk.size)
                )
            )
    assert left_out == {i for start, size in seal["left_out"] for i in range(start, start + size)}
    kept = np.ones(len(data), bool)
    kept[sorted(left_out)] = False
    covered = np.frombuffer(data, np.uint8)[kept].tobytes()
    assert sha256(covered) == seal["sha256"]


def test_the_container_is_as_the_page_says(reader):
    def check(name, dataset):
        if not isinstance(dataset, h5py.Dataset):
            return
        last = name.rsplit("/", 1)[-1]
        if dataset.attrs.get("NAME", b"").startswith(NO_VARIABLE):
            placeholders.add(last)
            return
        plist = dataset.id.get_create_plist()
        filters = [plist.get_filter(place)[0] for place in range(plist.get_nfilters())]
        levels = [plist.get_filter(place)[2] for place in range(plist.get_nfilters())]
        if last in ("activation", "empty", "reference", "image", "mask"):
            if last == "activation" and reader.attributes["dtype"] == "float16":
                assert filters.pop(0) == SHUFFLE
                levels.pop(0)
            assert (filters, levels) == ([ZSTD, FLETCHER32], [(1,), ()])
            n_chunks = itertools.starmap(
                lambda size, step: -(-size // step),
                zip(dataset.shape, dataset.chunks, strict=True),
            )
            assert dataset.id.get_num_chunks() == math.prod(n_chunks)
        else:
            assert last in ("object", "category", "y", "x")
            assert filters == []
            assert dataset.chunks is None
        if last in ("y", "x"):
            assert dataset.dtype == np.int64
            assert dataset.attrs["units"] == "px"
        if last in ("object", "category"):
            kind = h5py.check_string_dtype(dataset.dtype)
            assert (kind.encoding, kind.length) == ("utf-8", None)

    placeholders = set()
    reader.file.visititems(check)
    within = {"unit", "sketch", "channel", "height", "width"}
    assert placeholders == {"pixel_y", "pixel_x", "rgb", *within}
    assert dimensions(reader.file["image"]) == ("object", "pixel_y", "pixel_x", "rgb")
    assert dimensions(reader.file["mask"]) == ("object", "pixel_y", "pixel_x")
    assert dimensions(reader.file["category"]) == ("object",)
    assert reader.file["image"].dtype == reader.file["mask"].dtype == np.uint8


STORED = {
    "conv1_1": (("channel", "height", "width"), (8, 48, 48)),
    "pool2": (("sketch",), (64,)),
    "pool3": (("channel",), (32,)),
    "fc5": (("unit",), (256,)),
    "logits": (("unit",), (10,)),
}


@pytest.mark.parametrize("name", list(STORED))
def test_what_is_kept_has_the_dimensions_of_the_page(reader, name):
    names, shape = STORED[name]
    group, _ = reader.layer(name)
    activation, empty = group["activation"], group["empty"]
    assert dimensions(activation) == ("object", "y", "x", *names)
    assert activation.shape == (4, 2, 5, *shape)
    assert activation.dtype == np.float32
    values = activation[...]
    np.testing.assert_array_equal(values, values.astype(reader.attributes["dtype"]))
    assert (dimensions(empty), empty.shape, empty.dtype) == (names, shape, np.float32)
    assert ("reference" in group) == reader.off_grid
    if reader.off_grid:
        assert dimensions(group["reference"]) == ("object", *names)
        assert group["reference"].dtype == np.float32
    assert activation.chunks[1] == 1
    assert activation.chunks[3:] == shape
    assert math.prod(activation.chunks) * activation.dtype.itemsize <= 2**20


def documented_sketch():
    """Return the function that the page defines."""
    block = next(b for b in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "def " in b)
    namespace = {}
    exec(textwrap.dedent("  " + block.lstrip()), namespace)
    return namespace["sketch"]


def test_the_values_are_those_of_plain_forward_passes(reader, plain_forwards):
    shown = OFF_GRID if reader.off_grid else ON_GRID
    gain = {"gain": 0.5} if reader.off_grid else {}
    model = request_model("small-cnn", seed=3, **gain)
    sweep = request_sweep(model, reader.names, seed=3, **shown)
    sketch = documented_sketch()
    for name, (grid, reference, empty) in plain_forwards(sweep).items():
        group, about = reader.layer(name)

        def keep(values, n_leading, about=about):
            if about["kept"] == "mean":
                return values.mean(axis=(-1, -2)) if values.ndim == n_leading + 3 else values
            if about["kept"] == "full":
                return values
            kind, size = about["kept"].split(":")
            assert kind == "sketch"
            leading = values.shape[:n_leading]
            rows = values.reshape(math.prod(leading), -1)
            sketches = [sketch(row, int(size), about["seed"]) for row in rows]
            return np.array(sketches).reshape(*leading, int(size))

        error = 1e-3 if reader.attributes["dtype"] == "float16" else 1e-5
        expected = keep(grid, 2)
        shape = (4, 2, 5, *expected.shape[2:])
        scale = np.abs(expected).max()
        stored = group["activation"][...]
        np.testing.assert_allclose(stored, expected.reshape(shape), rtol=0, atol=error * scale)
        np.testing.assert_allclose(
            reader.at_reference(name), keep(reference, 1), rtol=0, atol=error * scale
        )
        np.testing.assert_allclose(group["empty"][...], keep(empty, 0), rtol=0, atol=1e-5 * scale)
        assert scale > 0


def test_an_activation_larger_than_a_chunk_is_cut_along_its_first_dimension(tmp_path):
    path = tmp_path / "large.h5"
    stimuli = ["--objects=novel", "--categories=2", "--grid=1x2", "--layers=conv1_1"]
    run("record", "small-cnn", "--model-arg=channels=160-4", *stimuli, "--out", path)
    with h5py.File(path) as file:
        activation = file["layers/conv1_1/activation"]
        assert activation.shape == (2, 1, 2, 160, 48, 48)
        assert activation.chunks[:3] == (1, 1, 1)
        assert 1 < activation.chunks[3] < 160
        assert activation.chunks[4:] == (48, 48)
        assert math.prod(activation.chunks) * 4 <= 2**20


def test_the_files_are_read_by_xarray_as_the_page_says(folder):
    with xarray.open_datatree(folder / "on.h5", engine="h5netcdf") as tree:
        array = tree["layers/logits/activation"].sel(object=tree["object"][0], y=tree["y"][0])
        assert array.dims == ("x", "unit")
        with h5py.File(folder / "on.h5") as file:
            np.testing.assert_array_equal(array, file["layers/logits/activation"][0, 0])


class Interrupted(Exception):
    pass


def test_the_parts_of_an_unfinished_recording(tmp_path):
    path, parts = tmp_path / "run.h5", tmp_path / "run.h5.parts"
    model = request_model("small-cnn")
    sweep = request_sweep(model, "fc6,logits", objects="novel", grid="3x5", engine="dense")

    def interrupt(done, total):
        if done > total / 2:
            raise Interrupted

    with pytest.raises(Interrupted):
        record(sweep, path, progress=interrupt)
    names = sorted(entry.name for entry in parts.iterdir())
    units = [name for name in names if name.startswith("unit-")]
    assert names == ["claim", "header.h5", "lock", "manifest.json", *units]
    assert units[0] == "unit-0000000.h5"
    mark = sha256(
        json.dumps(json.loads((parts / "manifest.json").read_text()), sort_keys=True).encode()
    )
    for name in ("header.h5", *units):
        seal, data = read_seal(parts / name)
        number = f":{int(name[5:12])}" if name.startswith("unit") else ""
        assert (seal["mark"], seal["left_out"]) == (mark + number, [])
        assert seal["sha256"] == sha256(data)
    with h5py.File(parts / "header.h5") as header:
        activation = header["layers/fc6/activation"]
        assert activation.id.get_num_chunks() == 0
        chunks = activation.chunks
        shape = activation.shape
    covered = set()
    for name in units:
        with h5py.File(parts / name) as unit:
            assert set(unit) == {"fc6", "logits"}
            assert unit["fc6"].chunks == chunks
            start = unit.attrs["start"]
            assert start.shape == (3,)
            block = unit["fc6"].shape[:3]
            ranges = [range(a, a + n) for a, n in zip(start, block, strict=True)]
            covered |= set(itertools.product(*ranges))
    assert 0 < len(covered) < math.prod(shape[:3])
    manifest = json.loads((parts / "manifest.json").read_text())
    with pytest.raises(StorageError, match="not finished"):
        elsewhere.open(path)

    record(sweep, path)
    assert not parts.exists()
    reader = Reader(path)
    assert manifest["identity"] == reader.identity_fields()
    assert manifest["numerics"] == reader.attributes["numerics"] | {"unit": [24, 2]}
    assert reader.attributes["command"] == ""
    reader.file.close()


def test_the_stamps_of_a_result(folder):
    with h5py.File(folder / "sim.nc") as file, h5py.File(folder / "on.h5") as recording:
        assert file.attrs["elsewhere_encoding"] == "result"
        assert file.attrs["encoding_version"] == "0.5"
        assert file.attrs["kind"] == "similarity"
        assert file.attrs["identity"] == recording.attrs["identity"]
        assert json.loads(file.attrs["background"]) == [30, 60, 90]
        assert file["cosine_each"].compression == "gzip"
        assert dimensions(file["cosine_each"]) == ("layer", "object", "y", "x")


@pytest.mark.parametrize(
    ("name", "value"), [("elsewhere_encoding", "result"), ("encoding_version", "0.9")]
)
def test_another_kind_or_version_is_refused(folder, tmp_path, name, value):
    path = tmp_path / "other.h5"
    path.write_bytes((folder / "on.h5").read_bytes())
    with h5py.File(path, "r+") as file:
        file.attrs[name] = value
    with pytest.raises(StorageError, match=re.escape(value)):
        elsewhere.open(path)
