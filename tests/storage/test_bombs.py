"""Small files that claim much: what they would take up is seen before anything is unpacked."""

import shutil
import zlib

import h5py
import hdf5plugin
import numpy as np
import pytest
import xarray

import elsewhere
from elsewhere.errors import StorageError
from elsewhere.storage import checking, load_result, open_recording, save_result, verify
from elsewhere.storage.merge import seal_recording
from elsewhere.storage.seal import append_seal, read_seal

BOMB = 2**24
"""Bytes of zeros to which a chunk of a few hundred unpacks."""
LAYER = "layers/fc3/activation"


def packed_zeros(folder, count=BOMB):
    """Return zeros as a frame of Zstandard, made by the filter itself."""
    with h5py.File(folder / "zeros.h5", "w") as file:
        array = file.create_dataset("a", (count,), "u1", chunks=(count,), **hdf5plugin.Zstd(1))
        array[:1] = 0
        return array.id.read_direct_chunk((0,))[1]


def summed(folder, data):
    """Return bytes with the checksum of HDF5 behind them."""
    with h5py.File(folder / "summed.h5", "w") as file:
        size = (len(data),)
        array = file.create_dataset("a", size, "u1", chunks=size, fletcher32=True)
        array[:] = np.frombuffer(data, "u1")
        return array.id.read_direct_chunk((0,))[1]


@pytest.fixture
def recording(recorded, tmp_path):
    path = tmp_path / "run.h5"
    shutil.copy(recorded[0], path)
    return path


@pytest.fixture
def result(tmp_path):
    values = {"G": (("layer", "unit"), np.ones((2, 40_000))), "n": ("layer", [1, 2])}
    made = xarray.Dataset(values, {"layer": ["a", "b"]}, {"kind": "made"})
    path = save_result(made, tmp_path / "r.nc")
    with open(path, "rb+") as file:
        file.truncate(read_seal(path).size)
    return path


def refused(path, open_it, says):
    with pytest.raises(StorageError) as caught:
        open_it(path)
    assert "\n" not in str(caught.value)
    assert says in str(caught.value)
    assert not verify(path).ok


def whole(path):
    with open_recording(path) as recording:
        return recording["fc3"].values


@pytest.mark.parametrize("count", [BOMB, 40])
def test_a_chunk_of_activations_that_unpacks_to_something_else(recording, tmp_path, count):
    with h5py.File(recording, "r+") as file:
        frame = summed(tmp_path, packed_zeros(tmp_path, count))
        file[LAYER].id.write_direct_chunk((0,) * file[LAYER].ndim, frame, 0)
    seal_recording(recording)
    refused(recording, whole, f"unpacks to {count} bytes")
    with elsewhere.open(recording) as opened:
        _, y, x = opened["fc3"].shape[:3]
        assert np.isfinite(opened["fc3"][-1, y - 1, x - 1].values).all()  # other chunks are read


def test_small_arrays_of_a_recording(recording, tmp_path):
    with h5py.File(recording, "r+") as file:
        array = file["layers/fc3/empty"]
        frame = summed(tmp_path, packed_zeros(tmp_path))
        array.id.write_direct_chunk((0,) * array.ndim, frame, 0)
    append_seal(recording, [])
    refused(recording, open_recording, f"unpacks to {BOMB} bytes")


def test_a_missing_chunk_is_no_zeros(recording):
    with h5py.File(recording, "r+") as file:
        made = file[LAYER].id.get_create_plist()
        shape, kind = file[LAYER].shape, file[LAYER].dtype
        attributes = dict(file[LAYER].attrs)
        del file[LAYER]
        space = h5py.h5s.create_simple(shape)
        h5py.h5d.create(file["layers/fc3"].id, b"activation", h5py.h5t.py_create(kind), space, made)
        file[LAYER].attrs.update({k: v for k, v in attributes.items() if k == "_Netcdf4Dimid"})
    seal_recording(recording)
    with pytest.raises(StorageError, match="is missing"):
        whole(recording)
    assert not verify(recording).ok


def test_a_chunk_of_a_result(result):
    packer = zlib.compressobj(9)
    data = packer.compress(bytes(BOMB)) + packer.flush()
    with h5py.File(result, "r+") as file:
        file["G"].id.write_direct_chunk((0, 0), data, 0)
    append_seal(result, [])
    refused(result, load_result, "unpacks to")


def test_results_with_chunks_that_do_not_become_smaller(tmp_path):
    draw = np.random.default_rng(0)
    values = {"G": ("unit", draw.integers(0, 2**63, 200_000)), "one": ("unit", np.ones(200_000))}
    made = xarray.Dataset(values, attrs={"kind": "made"})
    assert load_result(save_result(made, tmp_path / "r.nc")).equals(made)


def unknown_filter(file, _):
    made = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    made.set_chunk((10,))
    made.set_filter(32900, h5py.h5z.FLAG_OPTIONAL, (1,))
    space = h5py.h5s.create_simple((10,))
    made = h5py.h5d.create(file.id, b"odd", h5py.h5t.NATIVE_FLOAT, space, made)
    h5py.Dataset(made).id.write_direct_chunk((0,), bytes(40), 0)


def packed_twice(file, _):
    made = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    made.set_chunk((10,))
    made.set_deflate(1)
    made.set_deflate(1)
    space = h5py.h5s.create_simple((10,))
    h5py.h5d.create(file.id, b"odd", h5py.h5t.NATIVE_FLOAT, space, made)


def chunk_beyond_the_array(file, _):
    file.create_dataset("odd", (4,), "f8", chunks=(2**20,), maxshape=(None,), compression="gzip")


def one_text_many_times(file, name):
    """Every name leads to the same long text, which is in the file once."""
    del file[name]
    size = 100
    names = file.create_dataset(name, (size,), h5py.string_dtype(), chunks=(size,), compression=1)
    names[0] = "x" * 2**20
    file.flush()
    first = zlib.decompress(names.id.read_direct_chunk((0,))[1])[:16]
    names.id.write_direct_chunk((0,), zlib.compress(first * size), 0)


def lists_of_lists(file, _):
    odd = file.create_dataset("odd", (3,), h5py.vlen_dtype("f8"))
    odd[0] = np.ones(3)


def many_groups(file, _):
    for number in range(60):
        file.create_group(f"g{number}")


def many_attributes(file, name):
    made = h5py.h5a.create(
        file[name].id, b"k0", h5py.h5t.STD_I8LE, h5py.h5s.create(h5py.h5s.SCALAR)
    )
    for number in range(1, checking.MOST_ATTRIBUTES + 1):
        h5py.h5a.create(file[name].id, b"k%d" % number, made.get_type(), made.get_space())


def many_texts(file, _):
    file.attrs["odd"] = np.array(["text"] * 65, dtype=object)


@pytest.mark.parametrize(
    ("way", "says"),
    [
        (unknown_filter, "packed by filter 32900"),
        (packed_twice, "packed twice"),
        (chunk_beyond_the_array, "and a chunk of it"),
        (one_text_many_times, "longer than the file"),
        (lists_of_lists, "values of any size"),
        (many_groups, "groups and arrays"),
        (many_texts, "holds 65 texts"),
        (many_attributes, "attributes; at most 1024"),
    ],
)
@pytest.mark.parametrize("kind", ["recording", "result"])
def test_what_no_file_of_ours_has(recording, result, monkeypatch, way, says, kind):
    path, name = (recording, "object") if kind == "recording" else (result, "layer")
    with h5py.File(path, "r+") as file:
        monkeypatch.setattr(checking, "MOST_ITEMS", 60)
        way(file, name)
    append_seal(path, [])
    with pytest.raises(StorageError, match=says):
        (open_recording if kind == "recording" else load_result)(path)
    assert way is many_groups or not verify(path).ok  # its process has the real limit


@pytest.mark.parametrize("name", [LAYER, "layers/fc3/empty", "image", "mask"])
def test_arrays_of_another_shape_than_the_description_says(recording, name):
    with h5py.File(recording, "r+") as file:
        array = file[name]
        values, options = array[()], {"chunks": array.chunks and (1,) * array.ndim}
        del file[name]
        file.create_dataset(name, data=np.concatenate([values] * 2, axis=-1), **options)
    seal_recording(recording)
    with pytest.raises(StorageError, match="(image|activation|empty) has the shape"):
        open_recording(recording)
