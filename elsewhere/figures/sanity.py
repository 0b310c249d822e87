"""Sanity tests of attribution: how alike maps stay while layers are randomised from the top."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from elsewhere.figures.layer_axis import along_layers
from elsewhere.figures.lines import (
    draw_legend,
    draw_series,
    finite_values,
    fit_limits,
    legend_handle,
)
from elsewhere.figures.page import SIZES, new_figure
from elsewhere.figures.results import describe, require, some
from elsewhere.figures.style import GREY, Mark, entitle_figure, styled, tidy
from elsewhere.figures.text import shorten, text_style

LIKENESSES = MappingProxyType(
    {
        "spearman": (Mark("#0072B2", "o", "-"), "rank correlation of\nabsolute values"),
        "pearson": (Mark("#D55E00", "s", (0, (4, 1.5))), "Pearson correlation"),
        "cosine": (Mark("#595959", "^", (0, (1, 1.2))), "cosine"),
    }
)


@styled
def plot_sanity(
    result: xr.Dataset, *others: xr.Dataset, quantities: Sequence[str] | None = None
) -> Figure:
    """Draw how alike maps stay while layers are randomised, a panel for each method.

    Above a panel: whether the method counts as unchanged. The dashed line is the threshold, the
    dotted ones are the two stages at which it is asked for. Grey numbers at the foot are empty
    maps: of the network as it is, which are left out, and then of the randomised ones, which
    count as like no other.

    Parameters
    ----------
    result, others
        Results of sanity tests, one for each method: ``likeness (stage, metric)`` and its
        interval.
    quantities
        ``spearman``, ``pearson``, ``cosine``; all by default.

    Returns
    -------
    A figure that pyplot does not know of.

    Raises
    ------
    InputError
        A result lacks what is drawn.
    """
    results, drawn = (result, *others), some(LIKENESSES, quantities)
    for each in results:
        require(each, ["likeness"], ["stage", "metric"])
    figure = new_figure(SIZES.width, 0.55 + 2.3 * len(results))
    panels = figure.subplots(len(results), 1, squeeze=False)[:, 0]
    empty = False
    for ax, each in zip(panels, results, strict=True):
        empty |= _draw(ax, each, list(drawn))
    panels[-1].set_xlabel("layer randomised last, with all behind it", fontsize=SIZES.label)
    handles = [legend_handle(mark, label) for mark, label in drawn.values()]
    handles.append(Line2D([], [], color=GREY, linestyle="--", label="threshold"))
    handles.append(Line2D([], [], color=GREY, linestyle=":", label="judged here"))
    if empty:
        handles.append(
            Line2D([], [], color=GREY, marker="$2$", linestyle="none", label="empty maps")
        )
    draw_legend(panels[0], handles)
    entitle_figure(figure, describe(result, "maps while layers are randomised"))
    return figure


def _draw(ax: Axes, result: xr.Dataset, metrics: Sequence[str]) -> bool:
    """Draw a method's panel; return whether some of its maps are empty."""
    tidy(ax)
    stages = [str(stage) for stage in result["stage"].values]
    layers = along_layers(ax, result.rename(stage="layer"), groups=False)
    seen = [np.zeros(1)]
    for metric in metrics:
        mark, _ = LIKENESSES[metric]
        values = finite_values(result["likeness"].sel(metric=metric).values)
        low, high = (_bound(result, metric, bound) for bound in ("low", "high"))
        draw_series(ax, layers, values, (low, high), mark, metric)
        seen += [values, low, high]
    ax.set_xlabel("")
    fit_limits(ax, np.concatenate(seen))
    ax.axhline(result.attrs.get("threshold", 0.5), color=GREY, linestyle="--", linewidth=0.8)
    judged = result.attrs.get("judged_at")
    for stage in dict.fromkeys([judged, stages[-1]]):
        if stage in stages:
            ax.axvline(stages.index(stage), color=GREY, linestyle=":", linewidth=0.8, zorder=1)
    counts = [int(result.attrs.get("n_vanishing", 0))]
    if "n_empty" in result:
        counts += [int(count) for count in result["n_empty"].values[1:]]
    for stage, count in enumerate(counts):
        if count:
            ax.annotate(
                str(count),
                (stage, 0),
                xycoords=("data", "axes fraction"),
                xytext=(3, 3),
                textcoords="offset points",
                fontsize=SIZES.small,
                color=GREY,
            )
    ax.set_ylabel("likeness of maps", fontsize=SIZES.label)
    told = (str(result.attrs.get(key, "")) for key in ("method", "target"))
    name = " · ".join(shorten(text, 40) for text in told if text)
    ax.set_title(name, loc="left", fontsize=SIZES.label, **text_style(name))
    verdict = "unchanged: fails" if result.attrs.get("unchanged") else "changes: passes"
    ax.set_title(verdict, loc="right", fontsize=SIZES.label, color=GREY)
    return any(counts)


def _bound(result: xr.Dataset, metric: str, bound: str) -> NDArray[np.float64]:
    if "likeness_interval" not in result:
        return np.full(result.sizes["stage"], np.nan)
    return finite_values(result["likeness_interval"].sel(metric=metric, bound=bound).values)
