"""The one registry of measures, and what each of its entries says.

A measure is one module of this package: its formula as a function of arrays, its tally, what it
needs of a source and of the memory, what makes it undefined, its literature, and at the end its
entry. Whoever takes measures asks the entry and knows none by name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from elsewhere.measures.sinks import LayerSink
from elsewhere.measures.tables import Against, Reading, Table
from elsewhere.protocols import Design, Sink, Source
from elsewhere.registry import Registry

Literature = Mapping[str, tuple[str, Mapping[str, str]]]
"""Key to kind of entry and fields, as BibTeX has them."""


def entry(kind: str, **fields: str) -> tuple[str, dict[str, str]]:
    """Return an entry of the literature: its kind, and its fields as BibTeX has them."""
    return kind, fields


MakeSinks = Callable[[Sequence[str]], tuple[LayerSink, *tuple[Sink, ...]]]
"""Makes the sinks for some layers; the first has what all found."""


def _few_sums(table: Table) -> float:
    return 8.0 * table.n_objects * table.n_positions


def _nothing(*_: Any) -> Any:
    return ()


@dataclass(frozen=True)
class Measure:
    """A measure.

    Parameters
    ----------
    function
        A pure function of arrays.
    formula
        In one line, as a methods section has it.
    sources
        Keys of the literature.
    literature
        Those of its sources that no other measure has.
    reading
        What takes it from the units of any layer, a stretch of them at a time.
    sinks
        What takes it from blocks: from a source, and the objects' size if one was given, what
        makes the sinks.
    against
        With which locations it can compare: ``all`` others, or the ``reference``; one that compares
        no pairs of locations has no reference.
    at_reference
        What takes it from blocks where it is compared with the reference only, if that is less than
        what takes it else.
    comes_with
        Of a measure that has neither: the one that brings it, or ``accuracy``.
    parts
        The measures that come along.
    headline
        The variable that holds one number per layer.
    range
        Between which numbers that lies.
    direction, chance
        What higher or lower numbers mean, and what chance gives.
    question, can, cannot
        What it answers, and what it can and cannot tell, in sentences.
    least
        The smallest number of objects, each of a category of its own, that gives a value.
    matrices
        How many matrices over pairs of locations it gives.
    metric
        What is removed before vectors are brought to length one, if they are.
    lengths
        Whether it needs the vectors' lengths before their products; where there is a `metric`.
    empty, maps, vectors, sketches
        Whether it needs the empty canvas's activation, whole feature maps with a place on the
        canvas, layers of single units; and whether it can be had from sketches.
    kind
        The class of the modules whose layers it is of, where it is of no others.
    pictures
        Whether the objects' pictures come with its result, to be drawn.
    memory
        Bytes of its own sums, and of its result while it is made.
    undefined
        Why it has no value, if it is for a reason of its own.
    remarks
        What has to be said of it whatever the layer.
    check
        Refuses designs of which it cannot be asked.
    differences
        Numbers that are one share less another, by the names of these.
    interval
        What its intervals are, in words; ``units`` is what is left out in turn.
    no_interval
        Numbers per layer that never have one.
    words
        What variables are in words; by default made from their names.
    """

    function: Callable[..., Any]
    formula: str
    sources: tuple[str, ...] = ()
    literature: Literature = field(default_factory=dict)
    reading: Callable[[Table], Reading] | None = None
    sinks: Callable[[Source, int | None], MakeSinks] | None = None
    against: tuple[Against, ...] = ("all",)
    at_reference: Callable[[Source, int | None], MakeSinks] | None = None
    comes_with: str = ""
    parts: tuple[str, ...] = ()
    headline: str = ""
    range: str = ""
    direction: str = ""
    chance: str = ""
    question: str = ""
    can: str = ""
    cannot: str = ""
    least: int = 0
    matrices: int = 0
    metric: str = ""
    lengths: Callable[[Table], bool] = lambda table: True
    empty: bool = False
    maps: bool = False
    vectors: bool = False
    sketches: bool = True
    kind: str = ""
    pictures: bool = False
    memory: Callable[[Table], float] = _few_sums
    undefined: Callable[[Table], str] = lambda table: ""
    remarks: Callable[[Table], Sequence[str]] = _nothing
    check: Callable[[Design], None] = _nothing
    differences: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    interval: str = "95 % jackknife-t interval over {units}"
    no_interval: tuple[str, ...] = ()
    words: Mapping[str, str] = field(default_factory=dict)

    def takers(self, against: Against) -> Callable[[Source, int | None], MakeSinks] | None:
        """Return what makes the sinks that take it from blocks, if any."""
        return self.at_reference or self.sinks if against == "reference" else self.sinks

    @property
    def taken(self) -> str:
        """From ``units``, from ``maps``, from layers of a kind, or with what it comes with."""
        return self.comes_with or self.kind or ("maps" if self.maps else "units")

    def lengths_in(self, table: Table) -> str:
        """Return the metric whose lengths are needed before products, or nothing."""
        return self.metric if self.metric and self.lengths(table) else ""

    def undefined_because(self, table: Table) -> str:
        """Return why it has no value for a layer, in a few words."""
        if table.n_positions < 2:
            return "there is one location, so nothing moves"
        own = self.undefined(table)
        if not own and table.n_objects < 2:
            return "there is one object"
        return (
            own or "its activations are the same for all objects at all locations: nothing varies"
        )


measures: Registry[Measure] = Registry("measure")

DEFAULT_MEASURES = ("cosine", "cka", "rsa", "normalized-variance", "partition", "position")


def measures_named(names: str | list[str] | tuple[str, ...] | None) -> list[str]:
    """Return the names of measures that `names` (a list, or a text with commas) mean.

    One of a module of your own is ``package.module:name``: the module, which registers it, is
    imported first. The current directory is importable.

    Raises
    ------
    UnknownNameError
        No such measure; the message has the nearest ones.
    InputError
        Its module cannot be imported.

    Examples
    --------
    >>> measures_named("cka, rsa")
    ['cka', 'rsa']
    """
    if names is None:
        return list(DEFAULT_MEASURES)
    texts = [names] if isinstance(names, str) else list(names)
    wanted = [part.strip() for text in texts for part in text.split(",") if part.strip()]
    return list(dict.fromkeys(map(measures.named, wanted)))
