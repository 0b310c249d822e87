"""The figures that can be drawn from a result, by name."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
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
from elsewhere.figures.page import page
from elsewhere.figures.probes import plot_probe_layerwise, plot_probe_maps, plot_probe_matrix
from elsewhere.figures.results import select_layers
from elsewhere.figures.sanity import plot_sanity
from elsewhere.figures.slices import facets_of, plot_along, slice_at, whole_range
from elsewhere.figures.style import figure_of
from elsewhere.figures.training import plot_acquisition, plot_interference
from elsewhere.registry import Registry

figure_kinds: Registry[Callable[[xr.Dataset], Figure | Axes]] = Registry("kind of figure")
_BY_NAME: dict[str, Callable[..., Figure | Axes]] = {
    "maps": plot_similarity_maps,
    "layerwise": plot_layerwise,
    "displacement": plot_displacement,
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
}
for _name, _plot in _BY_NAME.items():
    figure_kinds.add(_name, _plot, summary=str(_plot.__doc__).partition("\n")[0])

SUMMARIES = frozenset(
    {"layerwise", "measures", "steps", "equivariance", "partition", "identification", "phase"}
    | {"probe-layerwise", "acquisition", "interference", "comparison"}
)
"""Figures of numbers that take all values of all axes together."""

FACETED = (
    *("maps", "layerwise", "displacement", "accuracy-maps", "accuracy-displacement"),
    *("probe-maps", "probe-layerwise"),
)
"""Figures that can have a panel for each value of an axis."""
DEFAULT_KINDS = MappingProxyType(
    {
        "accuracy": "accuracy-maps",
        "attribution": "attribution-grid",
        "attribution sanity": "sanity",
        "attribution timeline": "attribution-timeline",
        "claims": "claims",
        "comparison": "comparison",
        "measures": "measures",
        "probe": "probe-maps",
        "probe-each": "probe-matrix",
        "similarity": "layerwise",
        "track": "acquisition",
    }
)
"""The figure that is drawn of each kind of result, unless another is asked for."""


def draw(
    result: xr.Dataset,
    kind: str | None = None,
    *others: xr.Dataset,
    at: Mapping[str, float] | None = None,
    along: str | None = None,
    facet: str | None = None,
    layers: Sequence[str] | None = None,
    quantities: Sequence[str] | None = None,
    width: float | str | None = None,
    height: float | str | None = None,
    font_size: float | None = None,
    title: bool = True,
) -> Figure:
    """Draw `result` as the figure `kind`, by default the one made for its kind of result.

    Parameters
    ----------
    result
        A finished result; its attribute ``kind`` says what it is (``similarity``,
        ``accuracy``, ``track``, ``claims``).
    kind
        A name in `figure_kinds`.
    others
        More results, for figures that have a panel for each (``sanity``).
    at
        Values of axes that change objects; by default those nearest to the reference.
    along
        Such an axis, against whose values is drawn what was measured; `kind` is then left out.
    facet
        Such an axis, each value of which has a panel, on the same scales.
    layers
        Names of the layers to draw; by default what the figure chooses.
    quantities
        What to draw of what the figure can: see its function, such as :func:`plot_layerwise`.
    width, height, font_size, title
        The page, as for :func:`page`.

    Returns
    -------
    A figure that pyplot does not know of.

    Raises
    ------
    InputError
        Not a dataset, one that does not say what it is, or one that lacks what is drawn; several,
        for a figure of one; or a page on which it would be cut off.
    UnknownNameError
        A kind of figure or of result, a layer or quantity that is not known.
    """
    with page(width=width, height=height, font_size=font_size, title=title):
        drawn = _draw(result, kind, others, at, along, facet, layers, quantities)
    if width is not None or height is not None:
        _check_fit(drawn)
    return drawn


def _draw(
    result: xr.Dataset,
    kind: str | None,
    others: Sequence[xr.Dataset],
    at: Mapping[str, float] | None,
    along: str | None,
    facet: str | None,
    layers: Sequence[str] | None,
    quantities: Sequence[str] | None,
) -> Figure:
    if not isinstance(result, xr.Dataset):
        raise InputError(
            f"expected a result as an xarray.Dataset, got {type(result).__name__}; "
            "open the file with xarray.open_dataset"
        )
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
    if kind is None:
        made = result.attrs.get("kind")
        if made is None:
            raise InputError(
                "the result has no attribute 'kind', so no figure is chosen by itself; "
                f"name one: {', '.join(figure_kinds)}"
            )
        if made == "aligned":  # of earlier versions
            kind = "equivariance"
        elif made not in DEFAULT_KINDS:
            raise UnknownNameError(
                "kind of result",
                str(made),
                DEFAULT_KINDS,
                hint=f"or name a figure: {', '.join(figure_kinds)}",
            )
        kind = DEFAULT_KINDS[made] if kind is None else kind
    plot = _chosen(figure_kinds.get(kind), kind, quantities)
    if layers is not None and "layers" in inspect.signature(plot).parameters:
        _check_layered(result, kind)
        plot = partial(plot, layers=list(layers))
    else:
        result = _narrowed(result, kind, layers)
    narrowed = bool(at) or facet is not None
    if narrowed and kind in SUMMARIES and kind not in FACETED:
        raise InputError(
            f"the figure {kind!r} is of numbers that take all values of the axes together; leave "
            f"--at and --facet out, or draw one of {', '.join(FACETED)}"
        )
    if facet is not None:
        return _draw_facets(plot, kind, facets_of(result, facet, at))
    if kind in SUMMARIES and not at:
        result = whole_range(result)
    else:
        result, others = slice_at(result, at), tuple(slice_at(each, at) for each in others)
    several = inspect.Parameter.VAR_POSITIONAL
    if others and not any(p.kind is several for p in inspect.signature(plot).parameters.values()):
        raise InputError(f"the figure {kind!r} draws one result; got {1 + len(others)}")
    try:
        drawn = plot(result, *others)
    except InputError as error:
        own = DEFAULT_KINDS.get(str(result.attrs.get("kind")))
        if own in (None, kind):
            raise
        raise InputError(f"{error}; {own!r} can be drawn of this result") from error
    return figure_of(drawn) if isinstance(drawn, Axes) else drawn


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


def _check_fit(figure: Figure) -> None:
    """Refuse a page on which something would be cut off."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        try:
            figure.draw_without_rendering()
            box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
            over = max(-box.x0, -box.y0, box.x1 - width, box.y1 - height) if box else 0.0
        except UserWarning:  # axes have no room left
            over = 1.0
    if over > 0.03:
        width, height = (float(inches) * 25.4 for inches in figure.get_size_inches())
        raise InputError(
            f"the figure does not fit {width:.0f} x {height:.0f} mm: something would be cut off; "
            "give it more room, draw fewer layers, or take smaller text"
        )


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
