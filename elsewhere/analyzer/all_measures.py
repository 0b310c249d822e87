"""All measures by name, from a recording, a live sweep or arrays: :func:`measure`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast, get_args

import xarray
from numpy.typing import ArrayLike

from elsewhere.analyzer.arrays import array_source
from elsewhere.analyzer.layerwise import choose_layers, measure_layers
from elsewhere.analyzer.measure_sink import MeasureSink
from elsewhere.errors import InputError, LayerError, UnknownNameError
from elsewhere.forms import mean_note, with_forms
from elsewhere.measures.bands import band_notes, without_intervals, without_steps
from elsewhere.measures.catalogue import MakeSinks, Measure, measures, measures_named
from elsewhere.measures.intervals import Sampled
from elsewhere.measures.maps import has_place, without_place
from elsewhere.measures.similarity import below_zero, n_cross_pairs
from elsewhere.measures.tables import Against
from elsewhere.measures.variables import described
from elsewhere.models.machine import versions_of
from elsewhere.notes import notes_of, same_of_layers
from elsewhere.protocols import Design, Layer, Progress, Source
from elsewhere.sources import numerics_of
from elsewhere.types import parse_bytes


def measure(
    activations: Source | Mapping[str, ArrayLike] | ArrayLike,
    locations: ArrayLike | None = None,
    *,
    names: str | Sequence[str] | None = None,
    against: Against = "all",
    layers: Sequence[str] | None = None,
    objects: Sequence[str] | None = None,
    categories: Sequence[str] | None = None,
    reference: tuple[int, int] | None = None,
    empty: Mapping[str, ArrayLike] | ArrayLike | None = None,
    object_size: int | None = None,
    seed: int = 0,
    max_memory: int | str = "2GiB",
    progress: Progress | None = None,
) -> xarray.Dataset:
    """Return measures of how codes of objects change, or do not, when the objects move.

    Parameters
    ----------
    activations
        A recording (:func:`elsewhere.open`), a live sweep, or arrays: one, or one per layer, of
        shape (object, location, ...), or ``xarray.DataArray`` with the dimensions ``object, y, x``
        and those of the layer.
    locations
        With plain arrays: int (location, 2), y and x of each in px, which must make a full grid in
        any order.
    names
        Names of measures, a list or a text with commas; ``list(elsewhere.measures.measures)``.
        One of your own is ``package.module:name``.
        By default ``cosine, cka, rsa, normalized-variance, partition, position``.
    against
        With what codes at a location are compared: with those at ``all`` others, or at the
        ``reference``, which only measures that compare pairs of locations can be asked.
    layers
        Names of layers; all by default.
    objects, categories
        With plain arrays: one id, one category each; by default every object is its own category.
    reference
        With plain arrays: the location y, x to compare with; by default leftmost, middle row.
    empty
        With plain arrays: the empty canvas's activation, or one per layer, for ``evoked``.
    object_size
        px, for ``aligned``; by default what the source says.
    seed
        Of choices among locations where there are too many.
    max_memory
        Bytes that may be held; layers that do not fit are gone through in several sweeps.
    progress
        Called with what is done and with all there is to do.

    Returns
    -------
    xarray.Dataset
        ``kind = measures``. Pairwise measures are matrices over locations (``reference_y,
        reference_x, y, x``), with ``*_displaced`` against ``displacement`` (px, Chebyshev) and
        ``*_away``, the mean over all ordered pairs of different locations. Against the reference
        they are maps over ``y, x``, with means over all locations but that; cosines have the
        variables of :func:`elsewhere.similarity`. ``notes`` says in one
        line each why something is NaN, or what has to be known to read it; ``headlines`` which
        variable stands for each measure.

    Raises
    ------
    UnknownNameError
        No such measure or layer.
    InputError
        Shapes and locations do not fit together.
    LayerError
        A measure that needs whole maps or units of a layer that was not kept in full.
    NumericsError
        NaN or infinity.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> places = [[y, x] for y in (10, 20) for x in (10, 20, 30)]
    >>> result = measure(rng.normal(size=(5, 6, 40)), places, names="cosine,partition")
    >>> result["cosine"].dims
    ('layer', 'reference_y', 'reference_x', 'y', 'x')
    >>> bool(abs(result["object_share"][0] - result["object_share_null"][0]) < 0.1)
    True
    """
    wanted = measures_named(names if names is None or isinstance(names, str) else list(names))
    source: Source
    if isinstance(activations, Source):
        given = (locations, objects, categories, reference, empty)
        if any(value is not None for value in given):
            raise InputError(
                "a recording or sweep knows its locations, objects and reference; leave locations, "
                "objects, categories, reference and empty out"
            )
        source = activations
    else:
        source = array_source(
            cast(Any, activations),
            locations,
            objects=objects,
            categories=categories,
            reference=reference,
            empty=empty,
        )
    chosen = check_measures(source, wanted, layers, against=against)
    memory = parse_bytes(max_memory)
    return _measure(source, wanted, against, chosen, object_size, seed, memory, progress)


def check_measures(
    source: Source,
    names: Sequence[str],
    layers: Sequence[str] | None = None,
    *,
    against: Against = "all",
) -> list[str]:
    """Refuse, before any work, what a source cannot give; return the layers to measure.

    Parameters
    ----------
    source
        A recording, a live sweep, or arrays.
    names
        Names of measures.
    layers
        Names of layers; all by default.
    against
        As for :func:`measure`.

    Raises
    ------
    UnknownNameError
        No such layer, or nothing to compare with.
    InputError
        A measure that comes with another command, or that cannot be asked against the reference.
    LayerError
        A measure that needs whole maps, or single units, of layers that have none.
    """
    if against not in (known := get_args(Against)):
        raise UnknownNameError("comparison", against, known)
    for name in names:
        found = measures.get(name)
        found.check(source.design)
        if against not in found.against and found.comes_with != "accuracy":
            able = [each for each in measures if against in measures.get(each).against]
            raise InputError(
                f"{name!r} compares no pairs of locations, so there is none of it against the "
                f"{against}; leave it or --against out (these can be asked: {', '.join(able)})"
            )
        if against == "reference" and found.reading and not found.at_reference:
            _check_reference(name, source.design)
        if found.comes_with == "accuracy":
            raise InputError(
                f"{name!r} needs what a trained head chose; it comes with `elsewhere accuracy`"
            )
        if not (found.reading or found.sinks or found.comes_with):
            raise InputError(
                f"{name!r} is registered, but nothing takes it: give its Measure a `reading` or "
                "`sinks`, or take it by a sink of your own (source.stream([sink]))"
            )
    chosen = choose_layers(source, layers)
    _check_layers(names, [layer for layer in source.layers if layer.name in chosen])
    return chosen


def _check_reference(name: str, design: Design) -> None:
    if design.reference_index is None:
        raise InputError(
            f"{name!r} against the reference needs it among the locations, and {design.reference} "
            "is none of them; take a --reference on the grid, or leave --against out"
        )


def _check_layers(wanted: Sequence[str], layers: Sequence[Layer]) -> None:
    for name in wanted:
        if measures.get(name).maps:
            maps = [layer for layer in layers if has_place(layer)]
            if not maps:
                why = without_place(layers)
                raise LayerError(f"{name!r} needs a feature map with a place on the canvas: {why}")
            for layer in maps:
                if layer.keep.kind != "full":
                    raise LayerError(
                        f"{name!r} needs whole maps, but layer {layer.name!r} was kept as "
                        f"{layer.keep}; record it with --keep {layer.name}=full, or leave it out "
                        "by --layers"
                    )
        kind = measures.get(name).kind
        if kind and all(layer.kind != kind for layer in layers):
            raise LayerError(
                f"{name!r} needs a layer of the class {kind}, such as window.place of a network "
                f"with -stn, and none of {', '.join(layer.name for layer in layers)} is one; name "
                "it by --layers, and record it before"
            )
        if measures.get(name).vectors and not any(len(layer.shape) == 1 for layer in layers):
            none = f"none of {', '.join(layer.name for layer in layers)} is one"
            raise LayerError(f"{name!r} needs a layer of single units, such as logits; {none}")


def _taken(wanted: Sequence[str]) -> dict[str, Measure]:
    """Return the measures that are taken: those that bring others for these."""
    found = [measures.get(name) for name in wanted]
    names = list(wanted)
    for place, one in enumerate(found):
        if one.comes_with and not any(wanted[place] in other.parts for other in found):
            names.insert(0, one.comes_with)
    return {name: measures.get(name) for name in names if not measures.get(name).comes_with}


def _measure(
    source: Source,
    wanted: Sequence[str],
    against: Against,
    chosen: Sequence[str],
    object_size: int | None,
    seed: int,
    max_memory: int,
    progress: Progress | None,
) -> xarray.Dataset:
    taken = _taken(wanted)
    takers = {name: one.takers(against) for name, one in taken.items()}
    makers: dict[str, MakeSinks] = {}
    if units := [name for name, take in takers.items() if take is None]:
        makers[units[0]] = lambda group: (
            MeasureSink(units, layers=group, seed=seed, against=against),
        )
    makers |= {name: take(source, object_size) for name, take in takers.items() if take is not None}
    result, made_by = measure_layers(
        source,
        makers,
        chosen,
        max_memory=max_memory,
        progress=progress,
        differences={key: pair for one in taken.values() for key, pair in one.differences.items()},
        keep=against == "reference",
    )
    return _finish(result, made_by, source, wanted, against)


def _not_asked(result: xarray.Dataset, source: Source, wanted: Sequence[str]) -> list[str]:
    """Return of which layers a measure that others have is not taken, and why."""
    layers = [each for each in source.layers if each.name in result["layer"].values]
    none: list[str] = []
    for name in wanted:
        if measures.get(name).maps:
            lacking = [each.name for each in layers if not has_place(each)]
            why = "it is no feature map with a place on the canvas"
        elif measures.get(name).vectors:
            lacking = [each.name for each in layers if len(each.shape) != 1]
            why = "it does not consist of single units, as logits do"
        elif kind := measures.get(name).kind:
            lacking = [each.name for each in layers if each.kind != kind]
            why = f"it is no {kind}"
        else:
            continue
        none += [f"{name}: layer {each}: NaN, for {why}" for each in lacking]
    return none


def _pictures(source: Source) -> dict[str, Any]:
    """Return the objects as variables of a result, where the source has them."""
    found = source.pictures()
    if found is None:
        return {}
    box = ("object", "box_y", "box_x")
    return {"patch": ((*box, "rgb"), found[0]), "mask": (box, found[1])}


def _finish(
    result: xarray.Dataset,
    made_by: Mapping[str, str],
    source: Source,
    wanted: Sequence[str],
    against: Against,
) -> xarray.Dataset:
    """Stamp what was found with what was measured, of what."""
    order, notes = result["layer"].values.tolist(), result.attrs["notes"]
    result = with_forms(result, source.layers)
    if any(measures.get(name).pictures for name in wanted):
        result = result.assign(_pictures(source))
    codes = source.design.category_codes
    sampled = Sampled.of(codes).unit
    design = source.design
    result.attrs = {
        "kind": "measures",
        "against": against,
        "names": list(wanted),
        "headlines": {
            name: measures.get(name).headline
            for name in wanted
            if measures.get(name).headline in result.data_vars
        },
        "formulas": {
            name: f"{measures.summary(name)}; {measures.get(name).formula}" for name in wanted
        },
        "n_objects": len(design.objects),
        "n_categories": len(set(design.categories)),
        "n_cross_pairs": n_cross_pairs(codes),
        "n_locations": design.n_positions,
        "sampled": sampled,
        **{f"reference_{n}": v for n, v in zip(design.names, design.reference, strict=True)},
        "measured_with": versions_of("elsewhere", "numpy"),
        **numerics_of(source),
        **source.provenance,
        "notes": notes_of(
            source,
            mean_note(result),
            below_zero(result),
            same_of_layers([*notes, *_not_asked(result, source, wanted)]),
            band_notes(len(Sampled.of(codes)), len(order)),
            without_intervals(
                result,
                sampled,
                len(Sampled.of(codes)),
                [key for name in wanted for key in measures.get(name).no_interval],
            ),
            without_steps(result),
        ),
    }
    makers = {name: measures.get(each) for name, each in made_by.items()}
    return described(result, makers)
