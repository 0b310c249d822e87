"""Reading recordings: lazily by name, or as a source that streams in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray
from numpy.typing import NDArray
from xarray.core import indexing

from elsewhere.errors import (
    CanvasError,
    InputError,
    StorageError,
    UnknownNameError,
)
from elsewhere.measures.behaviour import Behaviour
from elsewhere.measures.blocks import DenseBlock
from elsewhere.protocols import Layer, Stage
from elsewhere.sources import BlockSource
from elsewhere.storage.activations import (
    Activations,
    FileActivations,
    LazyActivations,
    damage_told,
    dask_chunks,
)
from elsewhere.storage.documents import UNSEALED
from elsewhere.storage.opening import (
    Description,
    check_content,
    open_file,
    replaced,
)
from elsewhere.storage.portions import Portions
from elsewhere.storage.results import from_attribute
from elsewhere.storage.schema import StoredLayer

BLOCK_BYTES = 2**24
"""What is read at a time, about, as float32."""


class Recording(BlockSource):
    """A finished recording: a mapping of layer names to lazy arrays, and a source for sinks.

    Parameters
    ----------
    path
        The HDF5 file.
    chunks
        Of dask-backed arrays: ``"auto"``, or as xarray's ``chunk`` takes them.

    Attributes
    ----------
    design : Design
        Objects, axes and reference.
    layers : tuple of StoredLayer
        The stored layers, in the network's order.
    attributes : dict
        The file's attributes.
    share : float
        What share of the images is there: 1 unless the recording is unfinished.
    """

    share: float = 1.0
    layers: tuple[StoredLayer, ...]

    def __init__(self, path: Path, *, chunks: Any = None) -> None:
        self.path, self._chunks = Path(path).absolute(), chunks
        self._tree: xarray.DataTree | None = None
        self._file, description = self._open()
        self._content = description.content
        self._sealed = description.sealed
        self.attributes, self.layers = description.attributes, description.layers
        self.design = description.design

    def _open(self) -> tuple[Any, Description]:
        return open_file(self.path)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by absolute path and identity: another process opens the same file."""
        identity = self.attributes["identity"]
        return _reopen, (type(self), self.path, self._chunks, identity, self.design.reference)

    def close(self) -> None:
        """Close the file."""
        if self._tree is not None:
            self._tree.close()
            self._tree = None
        self._file.close()

    # --- arrays by name ---------------------------------------------------------------------

    @property
    def _tree_path(self) -> Path:
        return self.path

    @property
    def tree(self) -> xarray.DataTree:
        """The whole file as a lazy ``xarray.DataTree``."""
        if self._tree is None:
            with damage_told(self.path, "the tree"):
                tree = xarray.open_datatree(self._tree_path, engine="h5netcdf", chunks=self._chunks)
            if self._content and self.share == 1:
                check_content(self.path, self._content)  # it was opened by name, after the file
            self._tree = tree
        return self._tree

    def __iter__(self) -> Iterator[str]:
        return (layer.name for layer in self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    def __contains__(self, name: object) -> bool:
        return any(name in (layer.name, layer.module) for layer in self.layers)

    def layer(self, name: str) -> StoredLayer:
        """Return the description of a layer, by its name or its module's name.

        Raises
        ------
        UnknownNameError
            The recording does not hold it.
        """
        for layer in self.layers:
            if name in (layer.name, layer.module):
                return layer
        raise UnknownNameError("layer", name, list(self), f"{self.path.name} holds only these")

    def __getitem__(self, name: str) -> xarray.DataArray:
        """Return a layer's activations, dimensions (object, y, x, ...); only slices are read."""
        layer = self.layer(name)
        source = self.activations(layer.name)
        design = self.design
        variable = xarray.Variable(
            ("object", *design.names, *layer.dimensions),
            indexing.LazilyIndexedArray(LazyActivations(source)),
        )
        objects = np.array(design.objects, dtype=object)
        array = xarray.DataArray(
            variable,
            coords={"object": ("object", objects), **design.axes.coordinates()},
            name="activation",
        )
        if self._chunks is None:
            return array
        chunks = self._chunks
        if chunks in ("auto", {}):
            sizes = dask_chunks(source) if chunks == "auto" else source.chunks
            chunks = dict(zip(array.dims, sizes, strict=True))
        try:
            return array.chunk(chunks)
        except ImportError as error:
            raise InputError(
                f"chunks={self._chunks!r} needs dask, which is not there: pip install "
                "'elsewhere[dask]', or leave chunks out"
            ) from error

    def activations(self, name: str) -> Activations:
        """Return a layer's activations as an array on the disk."""
        with damage_told(self.path, f"layer {name!r}"):
            dtype = np.dtype(self.attributes["dtype"])
            return FileActivations(self.path, name, self._file, self._content, dtype)

    def stored_bytes(self, name: str) -> int:
        """Return the bytes that a layer takes up in the file."""
        dataset = self._file[f"layers/{self.layer(name).name}/activation"]
        return int(dataset.id.get_storage_size())

    def dtype(self, name: str) -> np.dtype[Any]:
        """Return the type in which a layer is stored."""
        return self.activations(self.layer(name).name).dtype

    @property
    def behaviour(self) -> Behaviour:
        """What the recorded network did with a fixed image, by layer; none of older files."""
        found: Behaviour = {}
        for layer in self.layers:
            attributes = self._file[f"layers/{layer.name}"].attrs
            if "behaviour" in attributes:
                found[layer.name] = from_attribute(attributes["behaviour"])
        return found

    @property
    def objects(self) -> xarray.Dataset:
        """The objects' pixels: ``image`` and ``mask``."""
        return self.tree.to_dataset()[["image", "mask"]]

    def pictures(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Return the objects' images and masks."""
        objects = self.objects
        return objects["image"].values, objects["mask"].values

    # --- a source ---------------------------------------------------------------------------

    @property
    def provenance(self) -> dict[str, Any]:
        """Attributes that results carry on."""
        keys = (
            *("model", "weights", "weights_sha256", "canvas", "object_size", "background"),
            *("behaviour", "precision", "model_arguments", "mean", "std", "gain", "channels"),
            *(
                "batch_norm",
                "noise",
                "origin",
                "object_set",
                "object_source",
                "object_digest",
                "numerics",
            ),
            "weights_seed",
        )
        kept = {key: self.attributes[key] for key in keys if key in self.attributes}
        kept |= {"recording": self.path.name, "identity": self.attributes["identity"]}
        if command := self.attributes.get("command"):
            kept["recorded_by"] = command
        if kept.get("weights") == "none" and "weights_seed" not in kept:  # of older files
            kept["weights_seed"] = self.attributes.get("seed", 0)
        notes = list(self.attributes.get("notes", []))
        if not self._sealed:
            notes.append(f"{self.path.name} {UNSEALED}")
        notes += [
            f"layer {layer.name!r} holds means over its last two dimensions, as an older release "
            "took every map, and these may not be space: record it again"
            for layer in self.layers
            if layer.mean_is_doubtful
        ]
        if self.share == 1:
            return {**kept, "notes": notes}
        notes.append(f"{self.path.name} is not finished: {self.share:.1%} of its images are there")
        return {**kept, "share": self.share, "notes": notes}

    @property
    def origin(self) -> dict[str, Any]:
        """The file's attributes, and its path."""
        return {**self.attributes, **self.provenance, "path": self.path, "device": "cpu"}

    def at(self, reference: tuple[int, ...]) -> Recording:
        """Return this recording, opened once more, with another reference on its grid.

        Raises
        ------
        CanvasError
            The location is not on the grid; the message names the nearest one.
        StorageError
            The file was replaced since it was opened.
        """
        other = type(self)(self.path, chunks=self._chunks)
        if other._content != self._content:
            other.close()
            raise replaced(self.path)
        design = self.design.at(reference)
        if design.reference == other.design.reference:
            return other
        if design.reference_index is None:
            other.close()
            places = self.design.positions
            nearest = places[
                np.abs(places - np.array(design.reference)).sum(axis=1).argmin()
            ].tolist()
            raise CanvasError(
                f"reference {reference} is not on the recorded grid; nearest: {tuple(nearest)}"
            )
        other.design = design
        return other

    def working_bytes(self, layer: Layer) -> int:
        """Return the bytes that going through a layer takes, without what sinks hold."""
        portions = self._portions(layer, self.activations(layer.name))
        rows = min(portions.n_objects, len(self.design.objects)) * portions.n_cells
        return 2 * rows * layer.bytes

    def _portions(self, layer: Layer, source: Activations) -> Portions:
        """Return the blocks in which a layer is read: whole chunks, about 16 MiB of them."""
        step, cells = source.chunks[0], source.chunks[len(self.design.shape)]
        n, one = len(self.design.objects), layer.bytes
        rows = BLOCK_BYTES // max(one, 1)
        if n * cells > rows:
            return Portions(self.design, max(step, rows // (step * cells) * step), cells)
        several = min(self.design.shape[-1], rows // n) // cells * cells
        return Portions(self.design, n, max(cells, several))

    def blocks(self, layer: Layer, stage: Stage) -> Iterator[DenseBlock]:
        """Yield the blocks of a layer in a stage."""
        source = self.activations(layer.name)
        portions = self._portions(layer, source)
        none = np.array([-1])
        like: dict[str, Any] = {
            "kept": layer.keep.kind,
            "layout": layer.layout,
            "tokens": layer.tokens,
        }
        if stage == "empty":
            values = self._small(layer, "empty", slice(None))
            yield DenseBlock(stage, layer.name, none, none, values[None], **like)
            return
        half = source.dtype == np.float16
        if stage == "reference":
            n, step = len(self.design.objects), portions.n_objects
            for first in range(0, n, step):
                objects = np.arange(first, min(first + step, n))
                values = self._at_reference(layer, source, slice(first, min(first + step, n)))
                places = np.full(len(objects), -1)
                yield DenseBlock(stage, layer.name, objects, places, values, half=half, **like)
            return
        every = (slice(None),) * len(layer.stored_shape)
        for portion in portions:
            values = np.moveaxis(source.read((*portion.slices, *every)), 0, len(self.design.shape))
            objects, places = portion.rows(self.design)
            values = values.reshape(len(objects), *layer.stored_shape)
            values = values.astype(np.float32, copy=False)
            yield DenseBlock(stage, layer.name, objects, places, values, half=half, **like)

    def _small(self, layer: Layer, name: str, key: Any) -> NDArray[np.float32]:
        with damage_told(self.path, f"layer {layer.name!r}"):
            values: NDArray[np.float32] = self._file[f"layers/{layer.name}/{name}"][key]
        return values

    def _at_reference(
        self, layer: Layer, source: Activations, objects: slice
    ) -> NDArray[np.float32]:
        index = self.design.reference_index
        if index is None:
            return self._small(layer, "reference", objects)
        cell = tuple(int(i) for i in np.unravel_index(index, self.design.shape))
        every = (slice(None),) * len(layer.stored_shape)
        return source.read((objects, *cell, *every)).astype(np.float32)


def _reopen(
    kind: type[Recording], path: Path, chunks: Any, identity: str, reference: tuple[int, ...]
) -> Recording:
    """Return a recording that was pickled; StorageError if it is gone, or another one by now."""
    found = kind(path, chunks=chunks)
    if found.attributes["identity"] != identity:
        found.close()
        raise StorageError(f"{path} is another recording than the one that was pickled; open it")
    found.design = replace(found.design, reference=reference)
    return found
