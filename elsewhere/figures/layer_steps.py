"""Steps between neighbouring layers: where along the network a number arises, or falls."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from elsewhere.errors import InputError
from elsewhere.figures.layer_axis import along_layers
from elsewhere.figures.lines import finite_values, interval_of
from elsewhere.figures.page import SIZES, new_figure
from elsewhere.figures.results import describe, layer_names, require, some, variable_of
from elsewhere.figures.style import GREY, MARKS, entitle_figure, legend_below, styled, tidy
from elsewhere.figures.text import text_style


@styled
def plot_steps(result: xr.Dataset, *, quantities: Sequence[str] | None = None) -> Figure:
    """Draw each layer's number less that of the layer before, a panel for each number.

    A thick line is the 95 % interval of a step by itself, a thin one the band that holds for all
    steps together. Those whose band lies on one side of 0 are filled: they may be named after
    having looked at all of them. Steps go along the main branch; layers beside it have none.

    Parameters
    ----------
    result
        A similarity result (``cosine_G_step`` over layer, with ``_interval`` and ``_band``), or
        measures whose ``headlines`` have steps.
    quantities
        Names of measures; all by default.

    Returns
    -------
    A figure.

    Raises
    ------
    InputError
        The result has no steps, or a single layer.
    """
    headlines = result.attrs.get("headlines") or {"G": variable_of(result, "G", "_away")}
    steps = {name: f"{key.removesuffix('_away')}_step" for name, key in headlines.items()}
    known = {name: key for name, key in steps.items() if key in result.data_vars}
    known = some(known or steps, quantities)
    require(result, known.values(), ["layer"])
    names = layer_names(result)
    if len(names) < 2:
        raise InputError("the result holds one layer, so there is no step; measure two or more")
    figure = new_figure(SIZES.width, 0.9 + 1.4 * len(known))
    panels = figure.subplots(len(known), 1, squeeze=False, sharex=True)[:, 0].tolist()
    mark = MARKS["G"]
    for ax, (name, key) in zip(panels, known.items(), strict=True):
        tidy(ax)
        layers = along_layers(ax, result, groups=False)
        at, order = layers.at, layers.order
        # where no line goes from layer to layer there is no step: other forms, layers beside
        joined = np.isin(np.arange(len(at)), order[1:][order[:-1] >= 0])
        values, low, high, first, last = (
            np.where(joined, numbers, np.nan)
            for numbers in (
                finite_values(result[key].values),
                *interval_of(result, key, kind="band"),
                *interval_of(result, key),
            )
        )
        ax.axhline(0, color=GREY, linewidth=0.6, zorder=1)
        ax.vlines(at, low, high, color=mark.color, linewidth=0.8, label="_simultaneous")
        ax.vlines(at, first, last, color=mark.color, linewidth=2.4, label="_pointwise")
        sure = (low > 0) | (high < 0)
        for chosen, face, label in ((sure, mark.color, "sure"), (~sure, "white", "open")):
            ax.plot(
                at[chosen], values[chosen], linestyle="none", marker="o", markersize=4.5,
                color=mark.color, markerfacecolor=face, zorder=3, label=label,
            )  # fmt: skip
        ax.set_title(name, loc="left", fontsize=SIZES.label, **text_style(name))
        ax.set_xlabel("")
        ax.tick_params(labelbottom=ax is panels[-1])
    handles = [
        Line2D([], [], color=mark.color, linewidth=2.4, label="95 % pointwise"),
        Line2D([], [], color=mark.color, linewidth=0.8, label="95 % simultaneous over layers"),
        Line2D([], [], color=mark.color, linestyle="none", marker="o", label="band excludes 0"),
    ]
    legend_below(figure, handles)
    entitle_figure(figure, describe(result, "step from the layer before"))
    return figure
