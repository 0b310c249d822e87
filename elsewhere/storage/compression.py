"""Chunks compressed by several threads, as HDF5 compresses them one after the other.

HDF5 runs its filters under one lock, on one thread. Here the functions behind its filters, which
the same two libraries export, are called without it, and whole chunks are handed to HDF5. Before
they are trusted they compress a small array as HDF5 does, byte for byte; where a library does not
export them, or a byte differs, HDF5 compresses by itself, as if one thread were asked for.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import math
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
from numpy.typing import NDArray

from elsewhere.logs import get_logger
from elsewhere.storage.schema import LEVEL, STORED, filter_of

logger = get_logger(__name__)

_names = itertools.count()


def encode(
    arrays: Mapping[str, NDArray[Any]],
    chunks: Mapping[str, tuple[int, ...]],
    dtype: str,
    *,
    start: tuple[int, ...],
    threads: int = 1,
) -> bytes:
    """Return a portion as the bytes of an HDF5 file, compressed.

    Parameters
    ----------
    arrays
        By layer: what is stored, shape (object, one or more axes, ...).
    chunks
        By layer: the shape of a chunk.
    dtype
        The precision that is kept, which decides the filter.
    start
        First object and first index along each axis.
    threads
        How many chunks are compressed at a time. The bytes of a chunk do not depend on it.
    """
    with _file() as file, contextlib.ExitStack() as stack:
        file.attrs["start"] = np.array(start)
        direct = threads > 1 and is_proven(dtype)
        pool = stack.enter_context(ThreadPoolExecutor(threads)) if direct else None
        for layer, values in arrays.items():
            dataset = file.create_dataset(
                layer,
                shape=values.shape,
                dtype=STORED,
                chunks=chunks[layer],
                maxshape=(None,) * values.ndim,
                **filter_of(dtype),
            )
            if pool is None:
                dataset[...] = values.astype(STORED, copy=False)
                continue
            compress = partial(_compress, values, chunks[layer], shuffled=dtype != "float32")
            origins = list(_origins(values.shape, chunks[layer]))
            for origin, data in zip(origins, pool.map(compress, origins), strict=True):
                dataset.id.write_direct_chunk(origin, data)
        file.flush()
        image: bytes = file.id.get_file_image()
    return image


def _file() -> h5py.File:
    """Return an HDF5 file in memory."""
    name = f"unit-{next(_names)}"
    return h5py.File(name, "w", driver="core", backing_store=False, block_size=2**22)


def _origins(shape: tuple[int, ...], chunk: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Return where the chunks begin, in the order of the file."""
    steps = (range(0, size, step) for size, step in zip(shape, chunk, strict=True))
    return itertools.product(*steps)


def _compress(
    values: NDArray[Any], chunk: tuple[int, ...], origin: tuple[int, ...], *, shuffled: bool
) -> bytes:
    """Return a chunk as it stands in the file: beyond the edges of the values are zeros."""
    part = values[tuple(slice(i, i + n) for i, n in zip(origin, chunk, strict=True))]
    raw = np.ascontiguousarray(part, dtype=STORED)
    if part.shape != chunk:
        raw = np.zeros(chunk, STORED)
        raw[tuple(map(slice, part.shape))] = part
    if shuffled:
        raw = np.ascontiguousarray(raw.reshape(-1).view(np.uint8).reshape(-1, STORED.itemsize).T)
    zstd, fletcher = _functions()
    bound = zstd.ZSTD_compressBound(raw.nbytes)
    room = np.empty(bound + 4, np.uint8)
    size = zstd.ZSTD_compress(room.ctypes.data, bound, raw.ctypes.data, raw.nbytes, LEVEL)
    if zstd.ZSTD_isError(size):
        raise MemoryError(f"no memory to compress {raw.nbytes} bytes")
    sum_of = fletcher.H5_checksum_fletcher32(room.ctypes.data, size)
    room[size : size + 4] = np.frombuffer(np.array([sum_of], "<u4").tobytes(), np.uint8)
    return room[: size + 4].tobytes()


@cache
def _functions() -> tuple[ctypes.CDLL, ctypes.CDLL]:
    """Return the libraries that export the compressor and the checksum.

    Raises
    ------
    OSError, AttributeError
        They are not there, or do not export them.
    """
    (plugin,) = Path(hdf5plugin.PLUGIN_PATH).glob("*h5zstd.*")
    zstd = ctypes.CDLL(str(plugin))
    fletcher = ctypes.CDLL(h5py.h5z.__file__)  # looked up in what it is linked to, HDF5
    size, pointer = ctypes.c_size_t, ctypes.c_void_p
    for name, types, result in (
        ("ZSTD_compressBound", (size,), size),
        ("ZSTD_compress", (pointer, size, pointer, size, ctypes.c_int), size),
        ("ZSTD_isError", (size,), ctypes.c_uint),
    ):
        function = getattr(zstd, name)
        function.argtypes, function.restype = types, result
    fletcher.H5_checksum_fletcher32.argtypes = (pointer, size)
    fletcher.H5_checksum_fletcher32.restype = ctypes.c_uint32
    return zstd, fletcher


@cache
def is_proven(dtype: str) -> bool:
    """Return whether chunks of this precision are compressed here as HDF5 does it."""
    chunk, shape = (2, 3, 1001), (3, 4, 2001)  # odd sizes, and chunks beyond the edges
    drawn = np.random.default_rng(0).standard_normal(math.prod(shape))
    values = np.maximum(drawn, 0).astype(dtype).astype(STORED).reshape(shape)
    try:
        _functions()
        with _file() as file:
            dataset = file.create_dataset(
                "values", data=values, chunks=chunk, maxshape=(None,) * 3, **filter_of(dtype)
            )
            shuffled = dtype != "float32"
            for origin in _origins(shape, chunk):
                mask, expected = dataset.id.read_direct_chunk(origin)
                if mask or _compress(values, chunk, origin, shuffled=shuffled) != expected:
                    raise ValueError("the bytes differ")
    except (OSError, AttributeError, ValueError) as error:
        logger.info("chunks are compressed by HDF5, on one thread: %s", error)
        return False
    return True
