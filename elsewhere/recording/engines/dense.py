"""The dense engine: whole canvases, in batches."""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from elsewhere.errors import ElsewhereError, InputError, LayerError, reason_of
from elsewhere.measures.blocks import DenseBlock
from elsewhere.models import Conduct, Layer, output_tensors
from elsewhere.models.forward import widened
from elsewhere.models.taps import Taps
from elsewhere.protocols import Design, Stage
from elsewhere.recording.engines.base import Cut, SweepEngine, memory_on, wait_for, why_alone
from elsewhere.recording.images import ImageBatch, Images, batches_of
from elsewhere.recording.subject import Subject, watch_again
from elsewhere.sources import Group, Takers
from elsewhere.storage.portions import Portions

N_BATCHES = 2
"""Batches that are timed in a rehearsal; one more goes before them."""


class _Enough(Exception):
    """Raised inside the last hook that is needed: the rest of the pass would be wasted."""


class DenseEngine(SweepEngine):
    """Runs whole canvases in batches of one size, the last ones padded."""

    name = "dense"

    def __init__(self, subject: Subject, conduct: Conduct, *, asked: bool = True) -> None:
        self._subject, self._conduct = subject, conduct
        self.rows = 1 if conduct.alone else subject.rows
        if conduct.alone:
            self.reason = f"one image a pass: {why_alone(conduct)}"

    @property
    def _pass_bytes(self) -> int:
        return self.rows * self._subject.image_bytes

    def sink_room(self, max_memory: int) -> int:
        """Return the bytes that sinks may hold beside a pass."""
        room = memory_on(self._subject.model.device, max_memory)
        return max(room - self._pass_bytes, room // 4)

    def memory_for(self, held: float) -> float:
        """Return the --max-memory of which sinks may hold so many bytes beside a pass."""
        return min(held + self._pass_bytes, 4 * held)

    @property
    def numerics(self) -> dict[str, Any]:
        """The size of a batch."""
        return {"batch_rows": self.rows}

    def at(self, subject: Subject) -> DenseEngine:
        """Return the engine for another reference: nothing was compiled for this one."""
        return DenseEngine(subject, self._conduct)

    def variant(self, number: int) -> DenseEngine:
        """Return the engine for a variant."""
        return DenseEngine(self._subject.variants[number], self._conduct)

    def n_images(self, stage: Stage, design: Design, portions: Portions) -> int:
        """Return how many images a stage runs, padding included."""
        if stage == "grid":
            sizes = [math.prod(portion.shape) for portion in portions]
        else:
            sizes = [super().n_images(stage, design, portions)]
        return sum(math.ceil(size / self.rows) * self.rows for size in sizes)

    def rehearse(self, group: Group, takers: Takers, cut: Cut) -> float:
        """Run a few batches of each stage; return the seconds that one image of the grid takes."""
        durations: list[float] = []
        for stage in takers.stages:
            few = N_BATCHES + 1 if stage == "grid" else 1
            durations = []
            begin = time.perf_counter()
            for _ in self.run(stage, group, takers, cut, most=few):
                wait_for(self._subject.model.device)
                durations.append(time.perf_counter() - begin)
                begin = time.perf_counter()
        return float(np.median(durations[1:] or durations)) / self.rows

    def finish(self) -> None:
        """Refuse a network that has come to do something else while it was swept."""
        watch_again(self._subject, self._conduct)

    def run(
        self, stage: Stage, group: Group, takers: Takers, cut: Cut, most: int | None = None
    ) -> Iterator[int]:
        """Go through a stage in batches, at `most` so many; yield the number of images of each."""
        subject, conduct, rows = self._subject, self._conduct, self.rows
        images = Images(subject.model, subject.objects, subject.canvas, rows)
        by_module: dict[str, list[Layer]] = {}
        for layer in group.layers:
            by_module.setdefault(layer.module, []).append(layer)
        pending: set[str] = set()
        current: ImageBatch
        complaints: list[Exception] = []

        def receive(module: str, call: int, _: object, output: object) -> None:
            tensors = output_tensors(output)
            for layer in by_module[module]:
                if layer.call != call:
                    continue
                tensor = tensors.get(layer.output)
                if tensor is None or tuple(tensor.shape) != (rows, *layer.given_shape):
                    came = "nothing" if tensor is None else f"shape {tuple(tensor.shape)}"
                    raise LayerError(
                        f"layer {layer.name!r} gives {came} for {rows} images; expected "
                        f"{(rows, *layer.given_shape)}, one row per image: record another layer"
                    )
                where = current.stage, layer.name, current.objects, current.positions
                values = layer.take(widened(tensor[: len(current.objects)]))
                try:
                    takers.give(
                        DenseBlock(*where, values, layout=layer.layout, tokens=layer.tokens)
                    )
                except Exception as error:  # a sink's own
                    complaints.append(error)
                    raise
                pending.discard(layer.name)
            if not pending:
                raise _Enough

        module = subject.model.module
        with Taps(module, by_module, receive):
            batches = batches_of(stage, subject.design, cut.portions, cut.skip, rows=rows)
            for current in itertools.islice(batches, most):
                pending.update(layer.name for layer in group.layers)
                try:
                    with contextlib.suppress(_Enough), conduct.a_pass(module):
                        module(images.build(current))
                except Exception as error:  # any network, any complaint
                    if error in complaints or isinstance(error, ElsewhereError):
                        raise
                    raise InputError(
                        f"{subject.model.name} fails in a pass that begins with "
                        f"{subject.design.shown(current.objects[0], current.positions[0])} "
                        f"({reason_of(error)}), though it took a fixed image and the empty canvas; "
                        "leave that object or place out, or have the network take all images"
                    ) from error
                if pending:
                    raise LayerError(
                        f"layer {min(pending)!r} did not run in a forward pass although it ran in "
                        "the first one; the network must do the same for every input"
                    )
                yield len(current.objects)
