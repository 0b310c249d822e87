"""Reading recordings: lazily by name, or as a source that streams in bounded memory."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, cast

import h5py
import hdf5plugin  # noqa: F401  (registers the filter)
import numpy as np
import xarray
from numpy.typing import NDArray

from elsewhere.errors import CanvasError, InputError, StorageError, UnknownNameError
from elsewhere.measures.blocks import DenseBlock
from elsewhere.protocols import Design, LayerLike, Need, Progress, Sink, Stage, stages_of
from elsewhere.storage.parts import parts_folder
from elsewhere.storage.results import from_attribute
from elsewhere.storage.schema import ENCODING, VERSION, StoredLayer
from elsewhere.storage.units import Units
from elsewhere.types import format_bytes

DEFAULT_MEMORY = 2 * 2**30
BLOCK_BYTES = 2**24
"""What is read at a time, about, as float32."""


def open_recording(path: str | Path, *, chunks: Any = None) -> Recording:
    """Open a recording; nothing is read but its description.

    Parameters
    ----------
    path
        The HDF5 file.
    chunks
        Passed to xarray: ``"auto"`` gives dask-backed arrays.

    Raises
    ------
    StorageError
        The file is missing, unfinished, not HDF5, not a recording, or of a version that this
        release does not read.
    """
    return Recording(Path(path), chunks=chunks)


class Recording:
    """A finished recording: a mapping of layer names to lazy arrays, and a source for sinks.

    Parameters
    ----------
    path
        The HDF5 file.
    chunks
        Passed to xarray: ``"auto"`` gives dask-backed arrays.

    Attributes
    ----------
    design : Design
        Objects, axes and reference.
    layers : tuple of StoredLayer
        The stored layers, in the network's order.
    attributes : dict
        The file's attributes.
    """

    def __init__(self, path: Path, *, chunks: Any = None) -> None:
        self.path, self._chunks = path, chunks
        self._tree: xarray.DataTree | None = None
        self._file = _open(path)
        try:
            self.attributes = {
                key: from_attribute(value) for key, value in self._file.attrs.items()
            }
            self.design = self._read_design()
            groups = self._file["layers"]
            self.layers = tuple(
                StoredLayer.from_attributes(name, dict(groups[name].attrs))
                for name in self.attributes["layers"]
            )
        except (KeyError, ValueError, TypeError, OSError) as error:
            self._file.close()
            raise StorageError(f"{path} is damaged: {error}") from error

    def _read_design(self) -> Design:
        file = self._file
        names = tuple(_json_list(self.attributes["axes"]))
        return Design(
            objects=tuple(file["object"].asstr()[...]),
            categories=tuple(file["category"].asstr()[...]),
            axes=tuple((name, tuple(int(v) for v in file[name][...])) for name in names),
            reference=tuple(int(self.attributes[f"reference_{name}"]) for name in names),
        )

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
    def tree(self) -> xarray.DataTree:
        """The whole file as a lazy ``xarray.DataTree``."""
        if self._tree is None:
            self._tree = xarray.open_datatree(self.path, engine="h5netcdf", chunks=self._chunks)
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
        group = cast(xarray.DataTree, self.tree[f"layers/{layer.name}"])
        return group.to_dataset(inherit=True)["activation"]

    def stored_bytes(self, name: str) -> int:
        """Return the bytes that a layer takes up in the file."""
        dataset = self._file[f"layers/{self.layer(name).name}/activation"]
        return int(dataset.id.get_storage_size())

    def dtype(self, name: str) -> np.dtype[Any]:
        """Return the type in which a layer is stored."""
        dtype: np.dtype[Any] = self._file[f"layers/{self.layer(name).name}/activation"].dtype
        return dtype

    @property
    def objects(self) -> xarray.Dataset:
        """The objects' pixels: ``image`` and ``mask``."""
        return self.tree.to_dataset()[["image", "mask"]]

    # --- a source ---------------------------------------------------------------------------

    @property
    def provenance(self) -> dict[str, Any]:
        """Attributes that results carry on."""
        keys = ("model", "weights", "weights_sha256", "canvas", "object_size", "background")
        kept = {key: self.attributes[key] for key in keys if key in self.attributes}
        return {**kept, "recording": self.path.name, "identity": self.attributes["identity"]}

    def refer_to(self, reference: tuple[int, ...]) -> Recording:
        """Return this recording with another reference, which must be on its grid.

        Raises
        ------
        CanvasError
            The location is not on the grid; the message names the nearest one.
        """
        other = Recording(self.path, chunks=self._chunks)
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

    def _units(self, layer: StoredLayer) -> Units:
        """Return the blocks in which a layer is read: whole chunks, about 16 MiB of them."""
        dataset = self._file[f"layers/{layer.name}/activation"]
        step, cells = dataset.chunks[0], dataset.chunks[len(self.design.axes)]
        n, one = len(self.design.objects), math.prod(layer.stored_shape) * 4
        rows = BLOCK_BYTES // max(one, 1)
        if n * cells > rows:
            return Units(self.design, max(step, rows // (step * cells) * step), cells)
        several = min(self.design.shape[-1], rows // n) // cells * cells
        return Units(self.design, n, max(cells, several))

    def _block_bytes(self, layer: StoredLayer) -> int:
        units = self._units(layer)
        rows = min(units.n_objects, len(self.design.objects)) * units.n_cells
        return rows * math.prod(layer.stored_shape) * 4

    def _blocks(self, layer: StoredLayer, stage: Stage) -> Iterator[DenseBlock]:
        group = self._file[f"layers/{layer.name}"]
        kept = layer.keep.kind
        none = np.array([-1])
        if stage == "empty":
            yield DenseBlock(stage, layer.name, none, none, group["empty"][...][None], kept)
            return
        if stage == "reference":
            n, step = len(self.design.objects), self._units(layer).n_objects
            for first in range(0, n, step):
                objects = np.arange(first, min(first + step, n))
                values = self._at_reference(group, slice(first, first + step))
                places = np.full(len(objects), -1)
                yield DenseBlock(stage, layer.name, objects, places, values, kept)
            return
        for unit in self._units(layer):
            values = np.moveaxis(group["activation"][unit.slices], 0, len(self.design.axes))
            objects, places = unit.rows(self.design)
            values = values.reshape(len(objects), *layer.stored_shape).astype(np.float32)
            yield DenseBlock(stage, layer.name, objects, places, values, kept)

    def _at_reference(self, group: Any, objects: slice) -> NDArray[np.float32]:
        index = self.design.reference_index
        if index is None:
            values: NDArray[np.float32] = group["reference"][objects]
            return values
        cell = tuple(int(i) for i in np.unravel_index(index, self.design.shape))
        values = group["activation"][(objects, *cell)]
        return values.astype(np.float32)


def n_parts(
    layer: LayerLike,
    bytes_each: int,
    design: Design,
    sinks: Sequence[Sink],
    max_memory: int,
    working: int,
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

    Raises
    ------
    InputError
        Not even one object at a time fits.
    """
    n = len(design.objects)
    needed = 0.0
    # Sinks cut a layer by objects, unless they all say that they can cut it finer.
    finest = min((getattr(sink, "most_parts", 0) for sink in sinks), default=0)
    for parts in range(1, max(n, finest) + 1):
        if not finest and parts > 1 and math.ceil(n / parts) == math.ceil(n / (parts - 1)):
            continue
        needed = sum(sink.held(layer, design, parts) for sink in sinks) * bytes_each + working
        if needed <= max_memory:
            return parts
    raise InputError(
        f"layer {layer.name!r} needs at least {format_bytes(needed)} of memory, more than "
        f"--max-memory {format_bytes(max_memory)}; raise it, or leave the layer out"
    )


def needs_of(layer: LayerLike, sinks: Sequence[Sink]) -> list[Need]:
    """Return everything that `sinks` need of `layer`."""
    return [need for sink in sinks for need in sink.needs(layer)]


def _open(path: Path) -> Any:
    if path.is_dir():
        raise StorageError(f"{path} is a folder; expected a recording such as run.h5")
    if not path.is_file():
        if parts_folder(path).is_dir():
            raise StorageError(
                f"{path} is not finished: only its parts are there; run the command that "
                "records it again to go on"
            )
        raise StorageError(f"{path} does not exist; expected a recording such as run.h5")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise StorageError(
            f"{path} is not a readable HDF5 file (truncated, or of another kind): "
            f"{str(error).splitlines()[0]}"
        ) from error
    stamp, version = file.attrs.get("elsewhere_encoding"), file.attrs.get("encoding_version")
    if stamp != ENCODING:
        file.close()
        held = f"a {stamp}" if stamp else "not written by elsewhere"
        raise StorageError(f"{path} is {held}; expected a recording")
    if version != VERSION:
        file.close()
        raise StorageError(
            f"{path} has format version {version}; this release reads {VERSION}: update elsewhere"
        )
    return file


def _json_list(value: Any) -> list[str]:
    if isinstance(value, list):
        return value
    raise ValueError(f"expected a list of axes, got {value!r}")
