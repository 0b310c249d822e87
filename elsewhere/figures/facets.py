"""Small multiples: a panel for each value of an axis that changes objects."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import xarray as xr
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from elsewhere.figures.lines import draw_legend
from elsewhere.figures.page import SIZES, new_figure
from elsewhere.figures.style import entitle_figure, styled
from elsewhere.figures.text import text_style


@styled
def plot_facets(plot: Callable[..., Axes], results: Mapping[str, xr.Dataset]) -> Figure:
    """Draw curves of several results one below the other, on the same scales, with one legend.

    Parameters
    ----------
    plot
        Draws a result on axes, ``plot(result, ax=ax)``, with a title and a legend.
    results
        By the name of the panel.

    Returns
    -------
    A figure that pyplot does not know of.
    """
    count = len(results)
    figure = new_figure(SIZES.width, 0.8 + count * float(np.clip(8.6 / count, 1.1, 2.1)))
    panels = figure.subplots(count, 1, squeeze=False, sharex=True, sharey=True)[:, 0].tolist()
    handles: dict[str, Artist] = {}
    ends: list[tuple[float, float]] = []
    title = ylabel = ""
    for ax, (name, result) in zip(panels, results.items(), strict=True):
        plot(result, ax=ax)
        title, ylabel = title or ax.get_title(loc="left"), ax.get_ylabel()
        ends.append(ax.get_ylim())
        if (legend := ax.get_legend()) is not None:
            texts = (text.get_text() for text in legend.get_texts())
            handles = {**dict(zip(texts, legend.legend_handles, strict=True)), **handles}
            legend.remove()
        for text in ax.texts if ax is not panels[0] else ():  # above the first panel only
            if text.xycoords == ("data", "axes fraction"):
                text.remove()
        ax.set_title(
            name, loc="left", fontsize=SIZES.label, pad=14 if ax.texts else 4, **text_style(name)
        )
        ax.set_ylabel("")
        if ax is not panels[-1]:
            ax.set_xlabel("")
            ax.tick_params(labelbottom=False)
    panels[0].set_ylim(min(low for low, _ in ends), max(high for _, high in ends))
    figure.supylabel(ylabel, fontsize=SIZES.label, **text_style(ylabel))
    entitle_figure(figure, title.replace("\n", " · "))
    for name, handle in handles.items():
        handle.set_label(name)
    draw_legend(panels[-1] if SIZES.narrow else panels[0], list(handles.values()))
    return figure


def as_layers(results: Mapping[str, xr.Dataset]) -> xr.Dataset:
    """Return several results of the same layers as one, with a layer for each layer and result."""
    found, names = [], list(results)
    for name, each in results.items():
        layered = each[[key for key in each.data_vars if "layer" in each[key].dims]]
        labels = [f"{layer}, {name}" for layer in each["layer"].values]
        if "shown_size" in each.attrs:
            sizes = [each.attrs["shown_size"]] * len(labels)
            layered = layered.assign_coords(shown_size=("layer", sizes))
        found.append(layered.assign_coords(layer=labels))
    joined = xr.concat(found, "layer", data_vars="minimal", coords="minimal", compat="override",
                       join="override", combine_attrs="override")  # fmt: skip
    order = np.arange(joined.sizes["layer"]).reshape(len(names), -1).T.ravel()
    return joined.isel(layer=order)
