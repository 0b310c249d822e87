"""The figures that can be drawn from results, by name, and one of them drawn."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import cast

import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from elsewhere.errors import InputError, UnknownNameError
from elsewhere.figures.accuracy import plot_accuracy_maps
from elsewhere.figures.attribution import plot_attribution_frame, plot_attribution_grid
from elsewhere.figures.attribution_equivariance import plot_attribution_equivariance
from elsewhere.figures.attribution_timeline import plot_attribution_timeline
from elsewhere.figures.changes import plot_layerwise_change
from elsewhere.figures.claims import plot_claims
from elsewhere.figures.comparison import plot_comparison
from elsewhere.figures.curves import plot_displacement, plot_layerwise
from elsewhere.figures.distances import plot_accuracy_displacement
from elsewhere.figures.facets import as_layers, plot_facets
from elsewhere.figures.layer_steps import plot_steps
from elsewhere.figures.maps import plot_similarity_maps
from elsewhere.figures.measured import (
    plot_equivariance,
    plot_identification,
    plot_measures,
    plot_partition,
    plot_phase,
)
from elsewhere.figures.probes import plot_probe_layerwise, plot_probe_maps, plot_probe_matrix
from elsewhere.figures.results import require, select_layers
from elsewhere.figures.sanity import plot_sanity
from elsewhere.figures.slices import facets_of, plot_along, slice_at, whole_range
from elsewhere.figures.style import figure_of
from elsewhere.figures.training import plot_acquisition, plot_interference
from elsewhere.figures.windows import plot_windows
from elsewhere.forms import network_name, weights_name
from elsewhere.registry import Registry

figure_kinds: Registry[Callable[[xr.Dataset], Figure | Axes]] = Registry("kind of figure")
_BY_NAME: dict[str, Callable[..., Figure | Axes]] = {
    "maps": plot_similarity_maps,
    "layerwise": plot_layerwise,
    "displacement": plot_displacement,
    "change": plot_layerwise_change,
    "accuracy-maps": plot_accuracy_maps,
    "accuracy-displacement": plot_accuracy_displacement,
    "acquisition": plot_acquisition,
    "interference": plot_interference,
    "claims": plot_claims,
    "comparison": plot_comparison,
    "measures": plot_measures,
    "steps": plot_steps,
    "equivariance": plot_equivariance,
    "partition": plot_partition,
    "identification": plot_identification,
    "phase": plot_phase,
    "probe-maps": plot_probe_maps,
    "probe-matrix": plot_probe_matrix,
    "probe-layerwise": plot_probe_layerwise,
    "attribution-grid": plot_attribution_grid,
    "attribution-frame": plot_attribution_frame,
    "attribution-equivariance": plot_attribution_equivariance,
    "attribution-timeline": plot_attribution_timeline,
    "sanity": plot_sanity,
    "windows": plot_windows,
}
for _name, _plot in _BY_NAME.items():
    figure_kinds.add(_name, _plot, summary=str(_plot.__doc__).partition("\n")[0])

OVERLAID = frozenset({"layerwise", "equivariance", "partition", "identification", "phase"})
"""Figures that several networks can share, on the same axes."""

SUMMARIES = frozenset(
    OVERLAID
    | {"measures", "steps", "probe-layerwise", "acquisition", "interference", "change"}
    | {"comparison"}
)
"""Figures of numbers that take all values of all axes together."""

FACETED = (
    *("maps", "layerwise", "displacement", "accuracy-maps", "accuracy-displacement"),
    *("probe-maps", "probe-layerwise"),
)
"""Figures that can have a panel for each value of an axis."""
DRAWN_OF: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "accuracy": ("accuracy-maps", "accuracy-displacement"),
        "attribution": ("attribution-grid", "attribution-frame", "attribution-equivariance"),
        "attribution sanity": ("sanity",),
        "attribution timeline": ("attribution-timeline",),
        "claims": ("claims",),
        "comparison": ("comparison",),
        "measures": (
            *("measures", "steps", "equivariance", "partition", "identification", "phase"),
            "windows",
        ),
        "probe": ("probe-maps", "probe-layerwise"),
        "probe-each": ("probe-matrix", "probe-layerwise"),
        "similarity": ("layerwise", "maps", "displacement", "change"),
        "track": ("acquisition", "interference"),
    }
)
"""What is drawn of each kind of result; the first, unless another is asked for."""


@dataclass(frozen=True)
class Wanted:
    """What is drawn of results: as for :func:`elsewhere.figures.draw`."""

    at: Mapping[str, float] | None = None
    along: str | None = None
    facet: str | None = None
    layers: Sequence[str] | None = None
    quantities: Sequence[str] | None = None
    labels: Sequence[str] | None = None


def default_kind(result: object) -> str:
    """Return the figure that is drawn of a result, unless another is asked for."""
    made = require(result, [], []).attrs.get("kind")
    if made is None:
        raise InputError(
            "the result has no attribute 'kind', so no figure is chosen by itself; "
            f"name one: {', '.join(figure_kinds)}"
        )
    if made == "aligned":  # of earlier versions
        return "equivariance"
    if made not in DRAWN_OF:
        hint = f"or name a figure: {', '.join(figure_kinds)}"
        raise UnknownNameError("kind of result", str(made), DRAWN_OF, hint=hint)
    return DRAWN_OF[made][0]


def draw_one(results: Sequence[xr.Dataset], kind: str | None, wanted: Wanted) -> Figure:
    """Draw one figure of a result, or of several where it can be."""
    at, along, facet = wanted.at, wanted.along, wanted.facet
    layers, quantities = wanted.layers, wanted.quantities
    result, *others = (require(each, [], []) for each in results)
    axis = along if facet is None else facet
    if others and axis is not None:
        raise InputError(f"values of {axis} are drawn of one result; got {1 + len(others)}")
    if along is not None:
        if quantities is not None:
            raise InputError(f"along {along}, all is drawn; leave the quantities out")
        result = _narrowed(result, f"along {along}", layers)
        if kind is not None:
            raise InputError(f"along {along}, a result is drawn in one way; leave the kind out")
        if facet is None:
            return figure_of(plot_along(result, along, at=at))
        each = facets_of(result, facet, at, keep=[along])
        return plot_facets(partial(plot_along, axis=along), each)
    kind = default_kind(result) if kind is None else kind
    plot = _chosen(figure_kinds.get(kind), kind, quantities)
    if layers is not None and "layers" in inspect.signature(plot).parameters:
        for one in (result, *others):
            _check_layered(one, kind)
        plot = partial(plot, layers=list(layers))
    else:
        result, *others = (_narrowed(each, kind, layers) for each in (result, *others))
    narrowed = bool(at) or facet is not None
    if narrowed and kind in SUMMARIES and kind not in FACETED:
        raise InputError(
            f"the figure {kind!r} is of numbers that take all values of the axes together; leave "
            f"--at and --facet out, or draw one of {', '.join(FACETED)}"
        )
    if facet is not None:
        return _draw_facets(plot, kind, facets_of(result, facet, at))
    every = [
        whole_range(each) if kind in SUMMARIES and not at else slice_at(each, at)
        for each in (result, *others)
    ]
    try:
        drawn = _draw_several(plot, kind, every, wanted.labels)
    except InputError as error:
        own = DRAWN_OF.get(str(result.attrs.get("kind")), ())
        if not own or kind in own:
            raise
        raise InputError(f"{error}; {own[0]!r} can be drawn of this result") from error
    return figure_of(drawn) if isinstance(drawn, Axes) else drawn


def _draw_several(
    plot: Callable[..., Figure | Axes],
    kind: str,
    results: Sequence[xr.Dataset],
    labels: Sequence[str] | None,
) -> Figure | Axes:
    """Draw one result, or several in the way in which a figure can."""
    parameters, result = inspect.signature(plot).parameters, results[0]
    if "after" in parameters:
        if len(results) != 2:
            raise InputError(
                f"the figure {kind!r} draws two results, before and after; got {len(results)}"
            )
        return plot(*results, labels=tuple(labels_of(results, labels)))
    if "results" in parameters and (labels is not None or len(results) > 1):
        return plot(dict(zip(labels_of(results, labels), results, strict=True)))
    if labels is not None:
        taken = [name for name in figure_kinds if _takes_names(figure_kinds.get(name))]
        raise InputError(
            f"the figure {kind!r} takes no labels; leave them out, or draw one of "
            f"{', '.join(taken)}"
        )
    if len(results) == 1:
        return plot(result)
    if any(each.kind is inspect.Parameter.VAR_POSITIONAL for each in parameters.values()):
        return plot(*results)
    if kind not in OVERLAID:
        raise InputError(f"the figure {kind!r} draws one result; got {len(results)}")
    ax = cast(Axes, plot(result))
    for other in results[1:]:
        plot(other, ax=ax)
    return ax


def _takes_names(plot: Callable[..., Figure | Axes]) -> bool:
    return bool({"after", "results"} & set(inspect.signature(plot).parameters))


def labels_of(results: Sequence[xr.Dataset], given: Sequence[str] | None) -> list[str]:
    """Return what results are called beside each other: by what tells them apart."""
    if given is not None:
        if len(set(given)) != len(results):
            raise InputError(
                f"there are {len(results)} results and the labels {', '.join(given)}; expected one "
                "for each, all different"
            )
        return list(given)
    said = [
        *([str(each.attrs.get(name, "")) for each in results] for name in ("run", "condition")),
        [network_name(each.attrs) for each in results],
        [weights_name(each.attrs) for each in results],
        [str(each.attrs.get("phase", "")) for each in results],
    ]
    apart = (names for names in said if all(names) and len(set(names)) == len(results))
    return next(apart, [str(number) for number in range(1, len(results) + 1)])


_ONE_OF = MappingProxyType(
    {
        "accuracy-maps": "exemplars",
        "attribution-equivariance": "metric",
        "attribution-grid": "metric",
        "probe-layerwise": "quantity",
        "probe-maps": "exemplars",
        "probe-matrix": "exemplars",
    }
)
"""What a quantity is called by functions that call it otherwise."""


def _chosen(
    plot: Callable[..., Figure | Axes], kind: str, quantities: Sequence[str] | None
) -> Callable[..., Figure | Axes]:
    """Return a figure's function, bound to the quantities that are asked for."""
    if quantities is None:
        return plot
    wanted = [quantities] if isinstance(quantities, str) else list(quantities)
    name = quantity_of(kind, plot)
    if name is None:
        taken = [each for each in figure_kinds if quantity_of(each, figure_kinds.get(each))]
        raise InputError(
            f"of the figure {kind!r} no quantities can be chosen; leave them out, or draw one of "
            f"{', '.join(taken)}"
        )
    if name != "quantities":
        if len(wanted) != 1:
            raise InputError(f"the figure {kind!r} draws one quantity; got {', '.join(wanted)}")
        return partial(plot, **{name: wanted[0]})
    return partial(plot, **{name: wanted})


def quantity_of(kind: str, plot: Callable[..., Figure | Axes]) -> str | None:
    """Return what a figure's function calls its quantities, None where it has none."""
    name = _ONE_OF.get(kind, "quantities")
    return name if name in inspect.signature(plot).parameters else None


def _narrowed(result: xr.Dataset, kind: str, layers: Sequence[str] | None) -> xr.Dataset:
    """Return a result of some of its layers, in the order given."""
    if layers is None:
        return result
    _check_layered(result, kind)
    return result.isel(layer=select_layers(result, layers))


def _check_layered(result: xr.Dataset, kind: str) -> None:
    if "layer" not in result.dims:
        raise InputError(f"the figure {kind!r} is of no layers; leave them out")


def _draw_facets(
    plot: Callable[..., Figure | Axes], kind: str, results: Mapping[str, xr.Dataset]
) -> Figure:
    """Draw a panel for each result; of maps, a row of panels for each layer."""
    if kind == "accuracy-maps":
        return plot_accuracy_maps(results)
    if kind in ("maps", "probe-maps"):
        return cast(Figure, plot(as_layers(results), columns=min(len(results), 8)))
    if kind not in FACETED:
        raise InputError(
            f"the figure {kind!r} has no panels for values of an axis; expected one of "
            f"{', '.join(FACETED)}"
        )
    return plot_facets(cast(Callable[..., Axes], plot), results)
