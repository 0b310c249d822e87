"""All measures by name, from a recording, a live sweep or arrays: :func:`measure`."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import xarray
from numpy.typing import ArrayLike

from elsewhere.analyzer.arrays import array_source
from elsewhere.analyzer.measure_sink import MeasureSink
from elsewhere.errors import InputError, LayerError, UnknownNameError
from elsewhere.measures.aligned import has_place
from elsewhere.measures.bands import band_notes, banded, with_bands, without_intervals
from elsewhere.measures.catalogue import MakeSinks, Measure, measures, measures_named
from elsewhere.measures.displacement import Displacements, displacement_map
from elsewhere.measures.intervals import Sampled
from elsewhere.measures.responses import find_responses
from elsewhere.measures.similarity import n_cross_pairs
from elsewhere.measures.similarity_sink import join_layers
from elsewhere.measures.tables import SHARE_LEFT_OUT, Variables
from elsewhere.measures.unit_chunks import Floats
from elsewhere.notes import notes_of
from elsewhere.protocols import Layer, Progress, Source
from elsewhere.types import parse_bytes


def measure(
    activations: Source | Mapping[str, ArrayLike] | ArrayLike,
    locations: ArrayLike | None = None,
    *,
    names: str | Sequence[str] | None = None,
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
        ``*_away``, the mean over all ordered pairs of different locations. ``notes`` says in one
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
    chosen = check_measures(source, wanted, layers)
    return _measure(source, wanted, chosen, object_size, seed, parse_bytes(max_memory), progress)


def check_measures(
    source: Source, names: Sequence[str], layers: Sequence[str] | None = None
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

    Raises
    ------
    UnknownNameError
        No such layer.
    InputError
        A measure that comes with another command.
    LayerError
        A measure that needs whole maps, or single units, of layers that have none.
    """
    for name in names:
        found = measures.get(name)
        found.check(source.design)
        if found.comes_with == "accuracy":
            raise InputError(
                f"{name!r} needs what a trained head chose; it comes with `elsewhere accuracy`"
            )
        if not (found.reading or found.sinks or found.comes_with):
            raise InputError(
                f"{name!r} is registered, but nothing takes it: give its Measure a `reading` or "
                "`sinks`, or take it by a sink of your own (source.stream([sink]))"
            )
    known = {layer.name: layer for layer in source.layers}
    for name in layers or ():
        if name not in known:
            raise UnknownNameError("layer", name, known)
    chosen = list(known) if layers is None else [name for name in known if name in layers]
    _check_layers(names, [known[name] for name in chosen])
    return chosen


def _check_layers(wanted: Sequence[str], layers: Sequence[Layer]) -> None:
    none = f"none of {', '.join(layer.name for layer in layers)} is one"
    for name in wanted:
        if measures.get(name).maps:
            maps = [layer for layer in layers if has_place(layer)]
            if not maps:
                raise LayerError(
                    f"{name!r} needs a feature map with a place on the canvas, and {none}; name "
                    "convolution, ReLU or pooling layers"
                )
            for layer in maps:
                if layer.keep.kind != "full":
                    raise LayerError(
                        f"{name!r} needs whole maps, but layer {layer.name!r} was kept as "
                        f"{layer.keep}; record it with --keep {layer.name}=full, or leave it out "
                        "by --layers"
                    )
        if measures.get(name).vectors and not any(len(layer.shape) == 1 for layer in layers):
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
    chosen: Sequence[str],
    object_size: int | None,
    seed: int,
    max_memory: int,
    progress: Progress | None,
) -> xarray.Dataset:
    taken = _taken(wanted)
    units = [name for name, one in taken.items() if one.reading is not None]
    makers: dict[str, MakeSinks] = {
        name: one.sinks(source, object_size)
        for name, one in taken.items()
        if one.reading is None and one.sinks is not None
    }
    responses = find_responses(source, chosen, max_memory=max_memory)
    common: dict[str, Any] = {"max_memory": max_memory, "progress": progress}
    variables: dict[str, Variables] = {}
    made_by: dict[str, str] = {}
    found: dict[str, list[xarray.Dataset]] = {name: [] for name in makers}
    notes = list(responses.notes)
    for heard, group in responses.groups(source, chosen):
        if units:
            sink = MeasureSink(units, layers=group, seed=seed)
            heard.stream([sink], **common)
            variables |= sink.variables
            made_by |= sink.made_by
            notes += sink.notes
        for name, make in makers.items():
            sinks = make(group)
            heard.stream(sinks, **common)
            found[name].append(sinks[0].result(group))
            notes += sinks[0].notes
    parts: list[xarray.Dataset] = []
    if units:
        for name, those in variables.items():
            for key in (key for key in those if key.endswith("_zero_share")):
                share = responses.share_with(name, float(those[key][1]))
                those[key] = ((), np.asarray(share))
        variables = {name: {} for name in responses.deaf} | variables
        names = [name for name in chosen if name in variables]
        parts.append(_to_dataset(variables, source, names, made_by))
    for name, each in found.items():
        if each:
            parts.append(with_bands(join_layers(each, source.design, chosen)))
            made_by |= dict.fromkeys(map(str, parts[-1].data_vars), name)
    if responses.deaf:
        deaf = [part["layer"].isin(responses.deaf) for part in parts]
        parts = [part.where(~those) for part, those in zip(parts, deaf, strict=True)]
    return _finish(parts, source, wanted, chosen, notes, made_by)


def _to_dataset(
    found: Mapping[str, Variables],
    source: Source,
    names: Sequence[str],
    made_by: dict[str, str],
) -> xarray.Dataset:
    """Return the variables of all layers, NaN where a layer has none.

    `made_by` has the measure of each variable; that of each band is added.
    """
    design = source.design
    axes, shape = design.names, design.shape
    spelled = {"position": axes, "reference": tuple(f"reference_{name}" for name in axes)}
    variables: dict[str, Any] = {}
    for key in dict.fromkeys(key for name in names for key in found[name]):
        dims, like = next(found[n][key] for n in names if key in found[n])
        those = [found[name][key][1] if key in found[name] else None for name in names]
        if key.endswith("_without"):  # of layers that respond to fewer objects there are fewer
            like = max((each for each in those if each is not None), key=len)
        stacked = np.stack([_padded(each, like) for each in those])
        full: list[str] = ["layer"]
        sizes: list[int] = [len(names)]
        for dim, size in zip(dims, like.shape, strict=True):
            full += spelled.get(dim, (dim,))
            sizes += shape if dim in spelled else (size,)
        variables[key] = (tuple(full), stacked.reshape(sizes))
    left_out = {key: variables.pop(key) for key in list(variables) if key.endswith("_without")}
    for key, (dims, values) in left_out.items():
        name, share = key.removesuffix("_without"), dims[1] == SHARE_LEFT_OUT
        bands = banded(name, variables[name][1], values.T, share=share)
        variables |= bands
        made_by |= dict.fromkeys(bands, made_by[name])
    for maker in dict.fromkeys(made_by.values()):
        for name, pair in measures.get(maker).differences.items():
            more, less = ((variables[key][1], left_out[f"{key}_without"][1].T) for key in pair)
            bands = banded(name, *more, less=less)
            variables |= bands
            made_by |= dict.fromkeys(bands, maker)
    coordinates: dict[str, Any] = {"layer": list(names), "bound": ["low", "high"]}
    places = design.locations
    coordinates |= design.axes.coordinates() | design.axes.coordinates("reference_")
    apart = Displacements.between(places).values
    coordinates["displacement"] = ("displacement", apart, {"units": "px"})
    coordinates["axis"] = list(design.axes.moving.names)
    if places.shape[1] == 2:
        dy, dx, _ = displacement_map(np.zeros((len(places), len(places))), places)
        coordinates["displacement_y"] = ("displacement_y", dy, {"units": "px"})
        coordinates["displacement_x"] = ("displacement_x", dx, {"units": "px"})
    used = {dim for dims, _ in variables.values() for dim in dims}
    coordinates = {key: value for key, value in coordinates.items() if key in used}
    return xarray.Dataset(variables, coords=coordinates)


def _padded(values: Floats | None, like: Floats) -> Floats:
    """Return values of the shape of `like`, NaN where there are none."""
    if values is not None and values.shape == like.shape:
        return values
    found = np.full(like.shape, np.nan)
    if values is not None:
        found[: len(values)] = values
    return found


def _finish(
    parts: Sequence[xarray.Dataset],
    source: Source,
    wanted: Sequence[str],
    chosen: Sequence[str],
    notes: Sequence[str],
    made_by: Mapping[str, str],
) -> xarray.Dataset:
    """Put the parts together and stamp them with what was measured, of what."""
    held = {str(name) for part in parts for name in part["layer"].values}
    order = [name for name in chosen if name in held]
    result = xarray.merge(
        [part.reindex(layer=order) for part in parts], compat="override", join="outer"
    )
    kept = {layer.name: str(layer.keep) for layer in source.layers}
    result = result.assign_coords(kept=("layer", [kept[name] for name in order]))
    codes = source.design.category_codes
    sampled = Sampled.of(codes).unit
    units = {"object": "objects", "category": "categories"}[sampled]
    for name in map(str, result.data_vars):
        words = _words(name, measures.get(made_by[name]), units)
        result[name].attrs.setdefault("long_name", words)
    design = source.design
    result.attrs = {
        "kind": "measures",
        "against": "all",
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
        "measured_with": {
            package: importlib.metadata.version(package) for package in ("elsewhere", "numpy")
        },
        **source.provenance,
        "notes": notes_of(
            source,
            notes,
            band_notes(len(Sampled.of(codes)), len(order)),
            without_intervals(
                result, sampled, [key for name in wanted for key in measures.get(name).no_interval]
            ),
        ),
    }
    return result


def _words(name: str, made_by: Measure, units: str) -> str:
    """Return a variable's name in words; `units` are what intervals leave out in turn."""
    if name in made_by.words:
        return made_by.words[name]
    endings = {
        "_displaced": ", against displacement",
        "_away": ", mean over all moves",
        "_step": ", less that of the layer before",
        "_band": f", 95 % band over {units} that holds for all layers together",
        "_interval": f", {made_by.interval.format(units=units)}",
        "_null": ", of shuffled rows or pairs",
        "_map": ", map over displacements",
    }
    said = name
    for ending, text in endings.items():
        said = said.replace(ending, text)
    return said.replace("_", " ").replace(" ,", ",")
