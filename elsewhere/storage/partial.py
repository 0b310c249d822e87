"""Opening recordings, also those that are not finished, as far as they are there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import hdf5plugin  # noqa: F401  (registers the filter)
import numpy as np
from numpy.typing import NDArray

from elsewhere.axes import Axes
from elsewhere.errors import StorageError
from elsewhere.protocols import Design, Layer
from elsewhere.storage.activations import Activations, damage_told
from elsewhere.storage.admission import open_checked
from elsewhere.storage.merge import HEADER, portion_files, portion_mark, portion_name
from elsewhere.storage.opening import Description, describe_identified
from elsewhere.storage.parts import mark_of, part_is_whole, parts_folder, portions_of, read_manifest
from elsewhere.storage.portions import Portion, Portions
from elsewhere.storage.recording import Recording
from elsewhere.storage.seal import SealError, read_seal


def open_recording(
    path: str | Path, *, chunks: Any = None, allow_partial: bool = False
) -> Recording:
    """Open a recording; nothing is read but its description, which is checked.

    Parameters
    ----------
    path
        The HDF5 file.
    chunks
        ``"auto"`` gives dask-backed arrays of about 64 MiB a chunk, ``{}`` of one stored chunk; or
        as xarray's ``chunk`` takes them.
    allow_partial
        Whether an unfinished recording is opened as far as it is there: its largest full grid of
        locations at which every object was recorded.

    Raises
    ------
    StorageError
        The file is missing, unfinished, damaged, not HDF5, not a recording, or of a version that
        this release does not read.
    """
    path = Path(path)
    if allow_partial and not path.exists() and parts_folder(path).is_dir():
        return PartialRecording(path, chunks=chunks)
    return Recording(path, chunks=chunks)


class PartialRecording(Recording):
    """An unfinished recording, as far as it is there; opened as :func:`open_recording` does.

    Its ``design`` is the largest grid of the recorded axes at which every object was recorded, and
    ``share`` is that of all images that are there. Damaged parts raise ``StorageError``.
    """

    def _open(self) -> tuple[Any, Description]:
        folder = parts_folder(self.path)
        manifest = read_manifest(folder)
        if manifest is None or not part_is_whole(folder / HEADER, mark_of(manifest)):
            raise StorageError(
                f"{self.path} is not finished, and nothing of it can be read yet: no part is "
                "complete; run the command that records it"
            )
        mark = mark_of(manifest)
        file = open_checked(folder / HEADER, whole=False)
        with damage_told(self.path, "the header"):
            description = describe_identified(file)
        self._whole = description.design
        portions, _ = portions_of(manifest, self.path)
        if (portions.design.axes, len(portions.design.objects)) != (
            self._whole.axes,
            len(self._whole.objects),
        ):
            file.close()
            raise StorageError(f"{self.path} is not finished, and its manifest is of another one")
        self._parts = _PartFiles(folder, mark, replace(portions, design=self._whole))
        numbers = self._parts.numbers()
        images = np.zeros((len(self._whole.objects), *self._whole.shape), dtype=bool)
        for number in numbers:
            images[self._parts.portions.portion(number).slices] = True
        self.share = float(images.mean())
        self._there: NDArray[np.bool_] = np.asarray(images.all(axis=0))
        self._kept = largest_grid(self._there)
        if not all(len(kept) for kept in self._kept):
            file.close()
            raise StorageError(
                f"{self.path} is not finished: {self.share:.1%} of it is there, but no location at "
                "which every object was recorded; run the command that records it"
            )
        axes = tuple(
            replace(axis, values=tuple(axis.values[i] for i in kept))
            for axis, kept in zip(self._whole.axes, self._kept, strict=True)
        )
        found = replace(self._whole, axes=Axes(axes))
        return file, replace(description, design=found, content=mark)

    @property
    def _tree_path(self) -> Path:
        return parts_folder(self.path) / HEADER

    def activations(self, name: str) -> Activations:
        """Return a layer's activations, put together from the parts."""
        return self._pieces(self.layer(name), self._kept)

    def _pieces(self, layer: Layer, kept: Sequence[NDArray[np.int64]]) -> _PartActivations:
        dataset = self._file[f"layers/{layer.name}/activation"]
        dtype = np.dtype(self.attributes["dtype"])
        return _PartActivations(self._parts, layer, dtype, dataset.chunks, kept)

    def stored_bytes(self, name: str) -> int:
        """Return the bytes that a layer takes up in the parts."""
        return sum(self._parts.stored_bytes(number, name) for number in self._parts.numbers())

    def _at_reference(
        self, layer: Layer, source: Activations, objects: slice
    ) -> NDArray[np.float32]:
        index = replace(self._whole, reference=self.design.reference).reference_index
        if self.design.reference_index is not None or index is None:
            return super()._at_reference(layer, source, objects)
        cell = np.unravel_index(index, self._whole.shape)
        if not self._there[cell]:
            raise StorageError(
                f"the reference {self.design.reference} of {self.path} is not recorded yet "
                f"({self.share:.1%} is there); choose one that is (--reference), or go on recording"
            )
        kept = tuple(np.array([i]) for i in cell)
        only = self._pieces(layer, kept)
        every = (slice(None),) * len(layer.stored_shape)
        return only.read((objects, *(0,) * len(cell), *every)).astype(np.float32)


def largest_grid(there: NDArray[np.bool_]) -> tuple[NDArray[np.int64], ...]:
    """Return the indices along each axis of the largest full grid of places that are there.

    `there` (y, x) says whether everything was recorded at a place. With more axes, the last one is
    treated as x and the others together as y, of which only whole first axes are kept.

    Examples
    --------
    >>> rows, columns = largest_grid(np.array([[1, 1, 1], [1, 1, 0], [0, 0, 0]], bool))
    >>> rows.tolist(), columns.tolist()
    ([0, 1], [0, 1])
    """
    flat = there.reshape(there.shape[0], -1)
    best: tuple[int, NDArray[np.int64], NDArray[np.int64]] = (
        0, np.zeros(0, np.int64), np.zeros(0, np.int64),
    )  # fmt: skip
    for row in flat:
        rows = np.flatnonzero((flat | ~row).all(axis=1)) if row.any() else np.zeros(0, np.int64)
        columns = np.flatnonzero(flat[rows].all(axis=0)) if len(rows) else rows
        if len(rows) * len(columns) > best[0]:
            best = (len(rows) * len(columns), rows, columns)
    if there.ndim == 2:
        return best[1], best[2]
    whole = np.flatnonzero(flat.all(axis=1))
    return whole, *(np.arange(size) for size in there.shape[1:])


class _PartFiles:
    """The parts of a recording, each checked before it is read for the first time."""

    def __init__(self, folder: Path, mark: str, portions: Portions) -> None:
        self.folder, self.mark, self.portions = folder, mark, portions
        self._checked: set[int] = set()

    def numbers(self) -> list[int]:
        """Return the numbers of the portions that bear this recording's mark."""
        found = []
        for number, path in portion_files(self.folder):
            try:
                seal = read_seal(path)
            except (SealError, OSError):
                continue
            whole = seal is not None and seal.mark == portion_mark(self.mark, number)
            if whole and number < self.portions.n_all:
                found.append(number)
        return found

    def stored_bytes(self, number: int, layer: str) -> int:
        with open_checked(self.folder / portion_name(number), whole=True) as file:
            return int(file[layer].id.get_storage_size())

    def read(self, number: int, layer: str, key: tuple[Any, ...]) -> NDArray[Any]:
        """Return what `key` selects of a layer in a portion."""
        path = self.folder / portion_name(number)
        try:
            if number not in self._checked and not part_is_whole(
                path, portion_mark(self.mark, number)
            ):
                raise StorageError(
                    f"part {path} is damaged; run the command that records it: the part is "
                    "recorded again"
                )
            self._checked.add(number)
            with damage_told(path, f"layer {layer!r}"), open_checked(path, whole=True) as file:
                values: NDArray[Any] = file[layer][key]
        except FileNotFoundError as error:
            raise StorageError(
                f"part {path} is gone: the recording was finished or begun anew meanwhile; open it "
                "again"
            ) from error
        return values


class _PartActivations:
    """A layer's activations at some of the places, from parts."""

    def __init__(
        self,
        parts: _PartFiles,
        layer: Layer,
        dtype: np.dtype[Any],
        chunks: tuple[int, ...],
        kept: Sequence[NDArray[np.int64]],
    ) -> None:
        self._parts, self._name = parts, layer.name
        design: Design = parts.portions.design
        self._kept = (np.arange(len(design.objects)), *kept)
        self.shape = (*map(len, self._kept), *layer.stored_shape)
        self.dtype = dtype
        self.chunks = tuple(min(a, b) for a, b in zip(chunks, self.shape, strict=True))

    def read(self, key: tuple[Any, ...]) -> NDArray[Any]:
        """Return what `key` selects."""
        n = len(self._kept)
        key = (*key, *(slice(None),) * (len(self.shape) - len(key)))
        picked = [
            np.atleast_1d(kept[index]) for kept, index in zip(self._kept, key[:n], strict=True)
        ]
        rest = key[n:]
        sample = np.empty(self.shape[n:], dtype=bool)[rest]
        values = np.empty((*map(len, picked), *sample.shape), dtype=self.dtype)
        for portion in self._portions_of(picked):
            inside = [
                np.flatnonzero((index >= part.start) & (index < part.stop))
                for index, part in zip(picked, portion.slices, strict=True)
            ]
            local = [
                index[where] - part.start
                for index, where, part in zip(picked, inside, portion.slices, strict=True)
            ]
            around = tuple(slice(int(i.min()), int(i.max()) + 1) for i in local)
            block = self._parts.read(portion.number, self._name, (*around, *rest))
            own = [index - part.start for index, part in zip(local, around, strict=True)]
            values[np.ix_(*inside)] = block[np.ix_(*own)]
        is_index = [not isinstance(index, slice) and np.ndim(index) == 0 for index in key[:n]]
        return values[tuple(0 if one else slice(None) for one in is_index)]

    def _portions_of(self, picked: Sequence[NDArray[np.int64]]) -> list[Portion]:
        objects, *cells = np.meshgrid(*picked, indexing="ij")
        places = np.ravel_multi_index(tuple(cells), self._parts.portions.design.shape)
        numbers = np.unique(self._parts.portions.locate(objects.ravel(), places.ravel()))
        return [self._parts.portions.portion(int(number)) for number in numbers]
