"""Reading recordings: lazily by name, or as a source that streams in bounded memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import xarray
from numpy.typing import NDArray
from xarray.core import indexing

from elsewhere.errors import (
    CanvasError,
    InputError,
    MemoryLimitError,
    StorageError,
    UnknownNameError,
)
from elsewhere.measures.behaviour import Behaviour
from elsewhere.measures.blocks import DenseBlock
from elsewhere.protocols import Design, Layer, Need, Progress, Sink, Stage, stages_of
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
from elsewhere.storage.results import from_attribute
from elsewhere.storage.schema import StoredLayer
from elsewhere.storage.units import Units
from elsewhere.types import format_bytes

DEFAULT_MEMORY = 2 * 2**30
BLOCK_BYTES = 2**24
"""What is read at a time, about, as float32."""


class Recording:
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

    def __enter__(self) -> Recording:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        if self._tree is not None:
            self._tree.close()
            self._tree = None
        self._file.close()

    def __repr__(self) -> str:
        sizes = " x ".join(map(str, (len(self.design.objects), *self.design.shape)))
        return f"<Recording {self.path.name}: {sizes}, layers {', '.join(self)}>"

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
        axes = {name: (name, np.array(values), {"units": "px"}) for name, values in design.axes}
        objects = np.array(design.objects, dtype=object)
        array = xarray.DataArray(
            variable, coords={"object": ("object", objects), **axes}, name="activation"
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

    # --- a source ---------------------------------------------------------------------------

    @property
    def provenance(self) -> dict[str, Any]:
        """Attributes that results carry on."""
        keys = (
            *("model", "weights", "weights_sha256", "canvas", "object_size", "background"),
            "behaviour",
        )
        kept = {key: self.attributes[key] for key in keys if key in self.attributes}
        kept |= {"recording": self.path.name, "identity": self.attributes["identity"]}
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

    def refer_to(self, reference: tuple[int, ...]) -> Recording:
        """Return :meth:`at` that reference."""
        return self.at(reference)

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
        if reference == other.design.reference:
            return other
        design = replace(self.design, reference=reference)
        if design.reference_index is None:
            other.close()
            places = self.design.positions
            nearest = places[np.abs(places - np.array(reference)).sum(axis=1).argmin()].tolist()
            raise CanvasError(
                f"reference {reference} is not on the recorded grid; nearest: {tuple(nearest)}"
            )
        other.design = design
        return other

    def stream(
        self,
        sinks: Sequence[Sink],
        *,
        max_memory: int = DEFAULT_MEMORY,
        progress: Progress | None = None,
    ) -> None:
        """Go through the stages, one layer after the other, and give `sinks` their blocks.

        Parameters
        ----------
        sinks
            What takes the blocks.
        max_memory
            Bytes that may be held at a time, blocks and what the sinks hold together.
        progress
            Called with the number of (object, position, layer) done, and of all.

        Raises
        ------
        InputError
            The memory does not suffice for a single layer.
        """
        wanted = []
        for layer in self.layers:
            takers = [(sink, sink.needs(layer)) for sink in sinks]
            takers = [(sink, needs) for sink, needs in takers if needs]
            if takers:
                wanted.append((layer, takers))
        total = len(wanted) * len(self.design.objects) * self.design.n_positions
        done = 0
        for layer, takers in wanted:
            one = math.prod(layer.stored_shape) * 4
            names = [sink for sink, _ in takers]
            parts = n_parts(
                layer, one, self.design, names, max_memory, 2 * self._block_bytes(layer)
            )
            for part in range(parts):
                for sink, _ in takers:
                    sink.begin(self.design, [layer], part, parts)
                for stage in stages_of([need for _, needs in takers for need in needs]):
                    for block in self._blocks(layer, stage):
                        for sink, needs in takers:
                            if any(stage in need.stages for need in needs):
                                sink.add(block)
                        if stage == "grid" and part == parts - 1:
                            done += len(block.objects)
                            if progress is not None:
                                progress(done, total)
                for sink, _ in takers:
                    sink.end()

    def working_bytes(self, name: str) -> int:
        """Return the bytes that streaming a layer takes, without what sinks hold."""
        return 2 * self._block_bytes(self.layer(name))

    def _units(self, layer: StoredLayer, source: Activations) -> Units:
        """Return the blocks in which a layer is read: whole chunks, about 16 MiB of them."""
        step, cells = source.chunks[0], source.chunks[len(self.design.axes)]
        n, one = len(self.design.objects), math.prod(layer.stored_shape) * 4
        rows = BLOCK_BYTES // max(one, 1)
        if n * cells > rows:
            return Units(self.design, max(step, rows // (step * cells) * step), cells)
        several = min(self.design.shape[-1], rows // n) // cells * cells
        return Units(self.design, n, max(cells, several))

    def _block_bytes(self, layer: StoredLayer) -> int:
        units = self._units(layer, self.activations(layer.name))
        rows = min(units.n_objects, len(self.design.objects)) * units.n_cells
        return rows * math.prod(layer.stored_shape) * 4

    def _blocks(self, layer: StoredLayer, stage: Stage) -> Iterator[DenseBlock]:
        source, kept = self.activations(layer.name), layer.keep.kind
        units = self._units(layer, source)
        none = np.array([-1])
        if stage == "empty":
            values = self._small(layer, "empty", slice(None))
            yield DenseBlock(stage, layer.name, none, none, values[None], kept, layer.layout)
            return
        half = source.dtype == np.float16
        if stage == "reference":
            n, step = len(self.design.objects), units.n_objects
            for first in range(0, n, step):
                objects = np.arange(first, min(first + step, n))
                values = self._at_reference(layer, source, slice(first, min(first + step, n)))
                places = np.full(len(objects), -1)
                yield DenseBlock(
                    stage, layer.name, objects, places, values, kept, layer.layout, half
                )
            return
        every = (slice(None),) * len(layer.stored_shape)
        for unit in units:
            values = np.moveaxis(source.read((*unit.slices, *every)), 0, len(self.design.axes))
            objects, places = unit.rows(self.design)
            values = values.reshape(len(objects), *layer.stored_shape)
            values = values.astype(np.float32, copy=False)
            yield DenseBlock(stage, layer.name, objects, places, values, kept, layer.layout, half)

    def _small(self, layer: StoredLayer, name: str, key: Any) -> NDArray[np.float32]:
        with damage_told(self.path, f"layer {layer.name!r}"):
            values: NDArray[np.float32] = self._file[f"layers/{layer.name}/{name}"][key]
        return values

    def _at_reference(
        self, layer: StoredLayer, source: Activations, objects: slice
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
    """Return a recording that was pickled.

    Raises
    ------
    StorageError
        The file is gone, or another recording by now.
    """
    found = kind(path, chunks=chunks)
    if found.attributes["identity"] != identity:
        found.close()
        raise StorageError(f"{path} is another recording than the one that was pickled; open it")
    found.design = replace(found.design, reference=reference)
    return found


def n_parts(
    layer: Layer,
    bytes_each: int,
    design: Design,
    sinks: Sequence[Sink],
    max_memory: int,
    working: int,
    whole: Callable[[float], float] = float,
) -> int:
    """Return in how many sweeps a layer has to be taken so that what sinks hold fits the memory.

    Parameters
    ----------
    layer
        The layer.
    bytes_each
        Bytes of one activation of it.
    design, sinks
        What is swept, and what takes the blocks.
    max_memory
        Bytes that may be held.
    working
        Bytes that the source itself holds.
    whole
        From bytes that may be held to the --max-memory of which they are a part.

    Raises
    ------
    MemoryLimitError
        Not even one object at a time fits.
    """
    n = len(design.objects)
    needed = 0.0
    # Sinks cut a layer by objects, unless they all say into how many parts they can cut it.
    by_objects = not all(hasattr(sink, "most_parts") for sink in sinks)
    most = min((getattr(sink, "most_parts", n) for sink in sinks), default=n)
    for parts in range(1, most + 1):
        if by_objects and parts > 1 and math.ceil(n / parts) == math.ceil(n / (parts - 1)):
            continue
        needed = sum(sink.held(layer, design, parts) for sink in sinks) * bytes_each + working
        if needed <= max_memory:
            return parts
    raise MemoryLimitError(
        f"layer {layer.name!r} needs at least {format_bytes(whole(needed))} of memory, more than "
        f"--max-memory {format_bytes(whole(max_memory))}; raise it, or leave the layer out"
    )


def needs_of(layer: Layer, sinks: Sequence[Sink]) -> list[Need]:
    """Return everything that `sinks` need of `layer`."""
    return [need for sink in sinks for need in sink.needs(layer)]
