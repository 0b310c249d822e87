"""The activations of one stored layer, read lazily, errors turned into one line."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from xarray.backends.common import BackendArray
from xarray.core import indexing

from elsewhere.errors import StorageError
from elsewhere.storage.admission import READING, open_checked
from elsewhere.storage.checking import Chunks, one_line
from elsewhere.storage.opening import check_content

DASK_BYTES = 2**26
"""Bytes of a dask chunk, about, where the choice is ours."""


class Activations(Protocol):
    """An array on the disk: dimensions object, the axes, then those of what is stored.

    `chunks` is the shape of what is stored and compressed as one.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunks: tuple[int, ...]

    def read(self, key: tuple[Any, ...]) -> NDArray[Any]:
        """Return what `key` selects: per dimension a slice, an index or sorted indices."""


class FileActivations:
    """Activations of a layer in a finished recording, in the precision `dtype` of the values.

    Without an open `file`, as after unpickling, it is opened when it is read, and known again by
    its `content`.
    """

    def __init__(
        self, path: Path, layer: str, file: Any, content: str, dtype: np.dtype[Any]
    ) -> None:
        self._path, self._layer, self._file, self._content = path, layer, file, content
        self._packed: Chunks | None = None
        dataset = self._dataset()
        self.shape: tuple[int, ...] = dataset.shape
        self.dtype = dtype
        self.chunks: tuple[int, ...] = dataset.chunks

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None, "_packed": None}

    def _dataset(self) -> Any:
        if self._file is None:
            file = open_checked(self._path, whole=False)
            check_content(self._path, self._content)  # it may be another one by now
            self._file = file
        if not self._file:
            raise StorageError(
                f"{self._path} was closed; open it again to read layer {self._layer}"
            )
        return self._file["layers"][self._layer]["activation"]

    def read(self, key: tuple[Any, ...]) -> NDArray[Any]:
        """Return what `key` selects."""
        with damage_told(self._path, f"layer {self._layer!r}"):
            dataset = self._dataset()
            if self._packed is None:
                self._packed = Chunks(dataset)
            self._packed.check(key)
            values = np.asarray(dataset[key])
        return values.astype(self.dtype, copy=False)


@contextlib.contextmanager
def damage_told(path: Path, what: str) -> Iterator[None]:
    """Turn what HDF5 raises while reading into one line."""
    try:
        yield
    except StorageError:
        raise
    except READING as error:
        if isinstance(error, MemoryError) and str(error).startswith("Unable to allocate"):
            raise  # what is asked for does not fit: the file is as it should be
        raise StorageError(
            f"{what} of {path} is damaged ({one_line(error)}); `elsewhere verify {path}` says "
            "where, record it again"
        ) from error


class LazyActivations(BackendArray):
    """Activations as xarray indexes them: nothing is read but what is asked for."""

    def __init__(self, source: Activations) -> None:
        self._source = source
        self.shape, self.dtype = source.shape, source.dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        """Return what `key` selects, as xarray asks for it."""
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER_1VECTOR, self._source.read
        )


def dask_chunks(source: Activations) -> tuple[int, ...]:
    """Return chunks for dask of about 64 MiB: whole stored chunks, grown from the last axis on."""
    sizes = list(source.chunks)
    for place in (*range(2, -1, -1), *range(3, len(sizes))):
        room = DASK_BYTES // (math.prod(sizes) * source.dtype.itemsize)
        whole = -(-source.shape[place] // source.chunks[place])
        sizes[place] = min(source.shape[place], source.chunks[place] * max(1, min(room, whole)))
    return tuple(sizes)
