"""Sweeps with axes that change objects: one engine for each variant of the objects."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from elsewhere.models import Layer
from elsewhere.protocols import Block, Design, Need, Sink, Stage
from elsewhere.recording.engines.base import Cut, SweepEngine
from elsewhere.recording.subject import Subject
from elsewhere.sources import Group, Takers
from elsewhere.storage.portions import Portions


class VariedEngine(SweepEngine):
    """Goes through the locations once for each variant of the objects, by an engine that takes
    each.

    Portions and tiles never go across variants: their numbers are those of the first variant's
    sweep, then those of the second's, and so on.
    """

    def __init__(self, subject: Subject, engine: SweepEngine) -> None:
        self._subject, self._engine = subject, engine
        self._variants = [engine.variant(number) for number in range(len(subject.variants))]
        self._reference = subject.variants.index(subject.at_reference)
        self._moving = subject.variants[0].design
        self._n_sweeps = subject.design.n_positions // self._moving.n_positions
        self.name = engine.name  # type: ignore[misc]  # it is the engine's work
        self.reason = engine.reason
        for asked in ("finish", "n_images", "sink_room", "memory_for", "held_bytes", "peak_bytes"):
            setattr(self, asked, getattr(engine, asked))  # what does not depend on the variant

    @property
    def numerics(self) -> dict[str, Any]:
        """Those of the engine."""
        return self._engine.numerics

    def at(self, subject: Subject) -> SweepEngine | None:
        """Return the engine for another reference, if that is among the variants."""
        if subject.values != self._subject.values:
            return None
        engine = self._engine.at(subject)
        return None if engine is None else VariedEngine(subject, engine)

    def variant(self, number: int) -> SweepEngine:
        """Return the engine of a variant."""
        return self._variants[number]

    def run(self, stage: Stage, group: Group, takers: Takers, cut: Cut) -> Iterator[int]:
        """Go through a stage; the grid's, variant by variant."""
        if stage != "grid":
            engine = self._variants[self._reference]
            yield from engine.run(
                stage, group, takers, replace(cut, portions=self._portions(cut.portions))
            )
            return
        for number in range(self._n_sweeps):
            portions = self._portions(cut.portions, number)
            if len(portions):
                first = number * portions.n_all
                skip = {each - first for each in cut.skip}
                shifted = _shifted(takers, number * self._moving.n_positions)
                inner = replace(cut, portions=portions, skip=skip)
                yield from self._variants[number].run(stage, group, shifted, inner)

    def rehearse(self, group: Group, takers: Takers, cut: Cut) -> float:
        """Run a few images of the first variant."""
        return self._variants[0].rehearse(
            group, takers, replace(cut, portions=self._portions(cut.portions))
        )

    def tile(
        self, layers: Sequence[Layer], sinks: Sequence[Sink], portions: Portions, max_memory: int
    ) -> tuple[int, ...] | None:
        """Return objects, rows and columns that are computed together."""
        return self._engine.tile(layers, sinks, self._portions(portions), max_memory)

    def tasks(self, portions: Portions, tile: Sequence[int] | None) -> Iterable[Sequence[int]]:
        """Return the numbers of the portions, those that are computed together in one sequence."""
        inner = self._portions(portions)
        for number in range(self._n_sweeps):
            for each in self._engine.tasks(inner, tile):
                yield [number * inner.n_all + one for one in each]

    def multiply_adds(
        self, group: Group, takers: Takers, max_memory: int, stages: Sequence[Stage]
    ) -> int:
        """Return the multiply-adds of stages of one sweep over a group."""
        return sum(
            self._engine.multiply_adds(group, takers, max_memory, [stage])
            * (self._n_sweeps if stage == "grid" else 1)
            for stage in stages
        )

    def _portions(self, portions: Portions, number: int | None = None) -> Portions:
        """Return the portions of a variant's sweep, or of a whole one."""
        inner = Portions(self._moving, portions.n_objects, portions.n_cells)
        if number is None or portions.chosen is None:
            return inner
        numbers = (each - number * inner.n_all for each in portions.chosen)
        return inner.choose(each for each in numbers if 0 <= each < inner.n_all)


def _shifted(takers: Takers, first: int) -> Takers:
    """Return the same takers, for blocks whose positions count from `first` on."""
    return Takers(takers.layers, [_Shifted(sink, first) for sink in takers.sinks])


@dataclass(frozen=True)
class _Shifted(Sink):
    """A sink that takes the blocks of one variant; to begin and to end is nothing."""

    sink: Sink
    first: int

    def needs(self, layer: Layer) -> tuple[Need, ...]:
        return self.sink.needs(layer)

    def held(self, layer: Layer, design: Design, parts: int = 1) -> float:
        return self.sink.held(layer, design, parts)

    def add(self, block: Block) -> None:
        shifted: Any = replace(cast(Any, block), positions=block.positions + self.first)
        self.sink.add(shifted)
