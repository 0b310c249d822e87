"""The sinks that write recordings: portion by portion, and whole."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elsewhere.errors import ElsewhereError, NumericsError
from elsewhere.logs import get_logger
from elsewhere.measures.landing import Landing, Rows
from elsewhere.measures.vectors import on_host, to_numpy
from elsewhere.protocols import Array, Block, Design, Layer, Need, Sink
from elsewhere.storage.backlog import Backlog
from elsewhere.storage.compression import encode
from elsewhere.storage.files import check_output
from elsewhere.storage.parts import Parts
from elsewhere.storage.portions import Portion, Portions
from elsewhere.storage.schema import STORED, Header, StoredLayer, write_skeleton

logger = get_logger(__name__)

FLOAT16_LIMIT = float(np.finfo(np.float16).max)
FLOAT16_NORMAL = float(np.finfo(np.float16).smallest_normal)
MOST_SMALL = 0.01
"""Share of a layer's nonzero values, in a portion, that may be too small for float16."""

MOST_THREADS = 8
"""Threads that compress beside a device, at most."""

WAITING_PORTIONS = 2
"""Full portions that may wait to be written while a device goes on, by their largest size."""


@dataclass
class _OpenPortion:
    """A portion whose images are still coming in."""

    portion: Portion
    arrays: dict[str, NDArray[Any]]
    missing: int
    small: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    """Per layer, how many values are too small for float16, and how many are not zero."""


class PortionWriter(Sink):
    """Takes what a sweep over portions yields and writes each portion as soon as it is complete.

    A portion is compressed in memory, by as many threads as compute, and handed to `write`, with
    its number, as the bytes of its HDF5 file, before the next one is begun, so that whatever
    happens, no more than one portion is computed again. What a GPU computes is brought to the host,
    compressed and written while it goes on: a few portions are, there.
    """

    def __init__(
        self, header: Header, portions: Portions, write: Callable[[int, bytes], None] | None = None
    ) -> None:
        self.header, self.portions = header, portions
        self._layers = {layer.name: layer for layer in header.layers}
        self._write = write
        self._open: dict[int, _OpenPortion] = {}
        self._spare: dict[tuple[int, ...], list[dict[str, NDArray[Any]]]] = {}
        self._threads = int(header.numerics.get("threads", 1))
        self._landing = Landing()
        self._backlog: Backlog | None = None  # where a device computes
        self._first_time = True
        self.done: frozenset[int] = frozenset()

    # --- a sink -----------------------------------------------------------------------------

    def needs(self, layer: Layer) -> tuple[Need, ...]:
        """Return what is kept of `layer`."""
        stored = self._layers.get(layer.name)
        return () if stored is None else (stored.need,)

    def held(self, layer: Layer, design: Design, parts: int = 1) -> float:
        """Return 0: what the writer holds does not grow with the design."""
        return 0.0

    def begin(self, design: Design, layers: Sequence[Layer], part: int = 0, parts: int = 1) -> None:
        """Note whether these blocks come for the first time."""
        self._first_time = part == 0

    def add(self, block: Block) -> None:
        """Take a block into the portions it belongs to, and write those that are complete."""
        if not self._first_time:
            return
        values = self._layers[block.layer].reduce(block)
        if self._backlog is None and not on_host(values):
            self._threads = min(MOST_THREADS, os.cpu_count() or 1)
            self._backlog = Backlog(WAITING_PORTIONS * self.header.portion_bytes)
        self._landing.bring(Rows.of(block), values, self._receive)

    def end(self) -> None:
        """Wait for what is still on its way from a device, or to the disk."""
        self._landing.drain()
        if self._backlog is not None:
            self._backlog.drain()

    def close(self) -> None:
        """Let go of what a sweep that failed left on its way."""
        self._landing.drop()
        if self._backlog is not None:
            self._backlog.close()
            self._backlog = None

    def _receive(self, rows: Rows, values: Array) -> None:
        found = to_numpy(values)
        self._check(found, rows)
        self._take(self._layers[rows.layer], rows, found)

    def _take(self, layer: StoredLayer, block: Rows, values: NDArray[Any]) -> None:
        numbers = self.portions.locate(block.objects, block.positions)
        chosen = self.portions.chosen
        for number in np.unique(numbers):
            if number not in self.done and (chosen is None or number in chosen):
                self._fill(int(number), layer, block, values, numbers == number)

    # --- portions ------------------------------------------------------------------------------

    def _check(self, values: NDArray[Any], block: Rows) -> None:
        """Refuse NaN, infinity, and what is too large for float16."""
        flat = values.reshape(-1)
        with np.errstate(over="ignore", invalid="ignore"):
            square = flat @ flat  # NaN and infinity remain, and it is as fast as memory
        if not np.isfinite(square) and not np.isfinite(flat).all():
            row = int(np.argmin(np.isfinite(values.reshape(len(values), -1)).all(axis=1)))
            raise NumericsError(
                f"layer {block.layer!r} gives NaN or infinity for "
                f"{self.header.design.shown(block.objects[row], block.positions[row])}; "
                "nothing was recorded under this name: check the weights and the input"
            )
        if self.header.dtype == "float16" and block.stage == "grid" and values.size:
            extreme = max(float(values.max()), -float(values.min()))
            if extreme > FLOAT16_LIMIT:
                raise NumericsError(
                    f"layer {block.layer!r} reaches {extreme:.4g}, more than float16 can hold "
                    f"({FLOAT16_LIMIT:.0f}); record with --dtype float32"
                )

    def _fill(
        self,
        number: int,
        layer: StoredLayer,
        block: Rows,
        values: NDArray[Any],
        chosen: NDArray[np.bool_],
    ) -> None:
        open_portion = self._open.get(number)
        if open_portion is None:
            portion = self.portions.portion(number)
            arrays = self._memory(portion.shape)
            missing = math.prod(portion.shape) * len(arrays)
            open_portion = self._open[number] = _OpenPortion(portion, arrays, missing)
        portion = open_portion.portion
        place = np.unravel_index(block.positions[chosen], self.header.design.shape)
        index = (block.objects[chosen], *place)
        inner = tuple(i - start for i, start in zip(index, portion.start, strict=True))
        taken = values if chosen.all() else values[chosen]
        if self.header.dtype == "float16":
            sizes = np.abs(taken)
            present, normal = np.count_nonzero(sizes), np.count_nonzero(sizes >= FLOAT16_NORMAL)
            held = open_portion.small.setdefault(layer.name, np.zeros(2, np.int64))
            held += (present - normal, present)
        open_portion.arrays[layer.name][inner] = taken
        open_portion.missing -= int(chosen.sum())
        if open_portion.missing == 0:
            self._finish_portion(self._open.pop(number))

    def _finish_portion(self, item: _OpenPortion) -> None:
        for layer, (small, present) in item.small.items():
            if small > MOST_SMALL * present:
                raise NumericsError(
                    f"layer {layer!r} has {small / present:.1%} of its nonzero values below "
                    f"{FLOAT16_NORMAL:.2g}, where float16 loses digits (at most {MOST_SMALL:.0%} "
                    "are let through); record with --dtype float32"
                )
        if self._backlog is None:
            self._store(item)
        else:
            held = sum(values.nbytes for values in item.arrays.values())
            self._backlog.add(partial(self._store, item), held)

    def _store(self, item: _OpenPortion) -> None:
        """Compress and write a portion."""
        portion = item.portion
        if self._write is not None:
            shapes = ((name, layer.stored_shape) for name, layer in self._layers.items())
            chunks = {name: self.portions.chunk(shape, STORED.itemsize) for name, shape in shapes}
            data = encode(
                item.arrays, chunks, self.header.dtype, start=portion.start, threads=self._threads
            )
            self._write(portion.number, data)
        # Fresh memory would cost as much as copying.
        self._spare = {portion.shape: [*self._spare.get(portion.shape, [])[:1], item.arrays]}

    def _memory(self, shape: tuple[int, ...]) -> dict[str, NDArray[Any]]:
        """Return arrays for a portion of that shape, by layer."""
        if spare := self._spare.get(shape):
            return spare.pop()
        return {
            name: np.empty((*shape, *stored.stored_shape), dtype=self.header.dtype)
            for name, stored in self._layers.items()
        }


class RecordingWriter(PortionWriter):
    """Writes what a sweep yields to an HDF5 file.

    >>> with RecordingWriter(path, header) as writer:   # doctest: +SKIP
    ...     sweep.stream([writer], max_memory=2**31, portions=writer.portions, skip=writer.done)
    ...     writer.finish()

    Portions are written whole and renamed; they are merged at the end. No file stands under the
    asked name before :meth:`finish` returns. Portions of an interrupted recording of the same
    identity and with the same numerics are used again.

    Parameters
    ----------
    path
        The recording to write.
    header
        What is recorded.
    overwrite
        Whether an existing file is replaced, once the new one is finished.

    Raises
    ------
    ExistsError
        The file, or parts of another recording of that name, exist.
    """

    def __init__(self, path: Path, header: Header, *, overwrite: bool = False) -> None:
        check_output(path, overwrite=overwrite)
        super().__init__(header, header.portions)
        self.path = path
        fields, numerics = header.identity_fields(), header.numerics
        self.parts = Parts(
            path, fields, numerics=numerics, behaviour=header.behaviour, overwrite=overwrite
        )
        self._empty: dict[str, NDArray[Any]] = {}
        self._reference: dict[str, NDArray[Any]] = {}
        self._has_header = False

    def __enter__(self) -> RecordingWriter:
        self.parts.__enter__()
        try:
            check_output(self.path, overwrite=self.parts.overwrite)
            self.done = frozenset(self.parts.done())
            self._has_header = self.parts.has_header
        except BaseException:
            self.parts.__exit__()
            raise
        if self.done:
            logger.info("going on with %s: %d portions are there", self.path, len(self.done))
        self._write = self.parts.write_portion
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
        vain = isinstance(exception[1], NumericsError)  # these parts can never be completed
        if vain or (isinstance(exception[1], ElsewhereError) and self.parts.is_bare()):
            self.parts.discard()
        self.parts.__exit__(*exception)

    def needs(self, layer: Layer) -> tuple[Need, ...]:
        """Return what is kept of `layer`, on the empty canvas and at the reference, too."""
        stored = self._layers.get(layer.name)
        if stored is None:
            return ()
        stages = {"grid", "empty"}
        if self.header.design.reference_index is None:
            stages.add("reference")
        need = stored.need
        return (Need(need.kind, frozenset(stages), need.size, need.seed),)  # type: ignore[arg-type]

    def _take(self, layer: StoredLayer, block: Rows, values: NDArray[Any]) -> None:
        if block.stage == "empty":
            self._empty[layer.name] = np.array(values[0], dtype=np.float32)
        elif block.stage == "reference":
            shape = (len(self.header.design.objects), *layer.stored_shape)
            held = self._reference.setdefault(layer.name, np.zeros(shape, dtype=np.float32))
            held[block.objects] = values
        else:
            self.write_header()
            super()._take(layer, block, values)

    def write_header(self) -> None:
        """Write everything but the activations, once the stages before the grid are through."""
        if not self._has_header:
            header = write_skeleton(self.header, empty=self._empty, reference=self._reference)
            self.parts.write_header(header)
            self._has_header = True

    def finish(self) -> None:
        """Merge the portions and put the recording under its name.

        Raises
        ------
        StorageError
            Writing failed, or portions are missing.
        """
        self.write_header()
        self.parts.finish()
