"""Chunks that several threads compress are those of HDF5, byte for byte."""

import io

import h5py
import numpy as np
import pytest

from elsewhere.storage import compression
from elsewhere.storage.compression import encode
from elsewhere.storage.schema import filter_of

CHUNKS = {"maps": (2, 1, 2, 3, 5, 5), "few": (2, 1, 2, 11)}


def arrays(dtype):
    rng = np.random.default_rng(0)
    shapes = {"maps": (3, 1, 5, 4, 5, 5), "few": (3, 1, 5, 11)}  # not whole chunks
    return {
        name: np.maximum(rng.standard_normal(shape), 0).astype(dtype)
        for name, shape in shapes.items()
    }


def chunks_of(data, name):
    with h5py.File(io.BytesIO(data)) as file:
        dataset, found = file[name], {}
        for number in range(dataset.id.get_num_chunks()):
            info = dataset.id.get_chunk_info(number)
            found[info.chunk_offset] = dataset.id.read_direct_chunk(info.chunk_offset)
        return found, dataset[...]


def by_hdf5(values, chunk, dtype):
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        maxshape = (None,) * values.ndim
        how = {"chunks": chunk, "maxshape": maxshape, **filter_of(dtype)}
        file.create_dataset("values", data=values.astype(np.float32), **how)
    return chunks_of(buffer.getvalue(), "values")[0]


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_chunks_are_those_of_hdf5(dtype, threads):
    values = arrays(dtype)
    data = encode(values, CHUNKS, dtype, start=(0, 1, 2), threads=threads)
    for name, each in values.items():
        chunks, read = chunks_of(data, name)
        assert chunks == by_hdf5(each, CHUNKS[name], dtype)
        np.testing.assert_array_equal(read, each)


@pytest.fixture
def anew():
    compression.is_proven.cache_clear()
    yield
    compression.is_proven.cache_clear()


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_threads_are_proven_here(anew, dtype):
    assert compression.is_proven(dtype)


@pytest.mark.parametrize("fault", ["missing", "other bytes"])
def test_without_proof_hdf5_compresses(anew, monkeypatch, fault):
    if fault == "missing":

        def nothing():
            raise AttributeError("ZSTD_compress")

        monkeypatch.setattr(compression, "_functions", nothing)
    else:
        monkeypatch.setattr(compression, "LEVEL", 19)
    assert not compression.is_proven("float32")
    values = arrays("float32")
    data = encode(values, CHUNKS, "float32", start=(0, 0, 0), threads=3)
    assert chunks_of(data, "maps")[0] == by_hdf5(values["maps"], CHUNKS["maps"], "float32")
