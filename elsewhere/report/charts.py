"""The explorer's charts: Bokeh's models, which the page's script fills with what is chosen."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from elsewhere.errors import InputError

try:
    from bokeh.embed import json_item
    from bokeh.models import (
        ColorBar,
        ColumnDataSource,
        FixedTicker,
        LinearColorMapper,
        Plot,
        Span,
        Whisker,
    )
    from bokeh.palettes import RdBu11, Viridis256, interp_palette
    from bokeh.plotting import figure
    from bokeh.resources import Resources
except ImportError as error:
    raise InputError(
        f"a report needs Bokeh, which is not there ({error}): pip install 'elsewhere[report]'"
    ) from error

UNDEFINED_COLOR = "#9a9a9a"


def charts() -> dict[str, Any]:
    """Return the charts as Bokeh embeds them, by the id of the element that each stands in."""
    drawn = {
        "maps": _maps("", Viridis256),
        "frames": _maps("frame-", interp_palette(RdBu11, 255)),
        "by-layer": _lines("layer"),
        "by-checkpoint": _lines("checkpoint"),
    }
    return {name: json_item(plot, name) for name, plot in drawn.items()}


def bokeh_script() -> str:
    """Return BokehJS, the part that draws, as text."""
    return "\n".join(Resources(mode="inline", components=["bokeh"], log_level="warn").js_raw)


def script_digest(script: str) -> str:
    """Return what a Content-Security-Policy calls a script."""
    digest = hashlib.sha256(script.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _maps(prefix: str, palette: Sequence[str]) -> Plot:
    """Return one plot of maps side by side, so that a change is one drawing.

    Names of what is in it begin with `prefix`. Around each map stands the canvas, which is larger
    than what was measured: an object's box is inside it. The boxes have a dark line below a bright
    one: one of the two is seen on any colour.
    """
    plot = figure(
        name=f"{prefix}maps",
        toolbar_location=None,
        tools="",
        sizing_mode="stretch_width",
        hold_render=True,
        height=300,
        x_range=(0, 1),
        y_range=(1, 0),
        min_border=0,
        outline_line_color=None,
        background_fill_color=None,
        border_fill_color=None,
        output_backend="canvas",
    )
    plot.axis.visible = False
    plot.grid.visible = False
    mapper = LinearColorMapper(
        palette=palette, low=-1.0, high=1.0, nan_color=UNDEFINED_COLOR, name=f"{prefix}colors"
    )
    canvases = ColumnDataSource({n: [] for n in "xywh"}, name=f"{prefix}canvases")
    plot.rect(
        x="x", y="y", width="w", height="h", source=canvases, line_color=UNDEFINED_COLOR,
        fill_color=UNDEFINED_COLOR, fill_alpha=0.12,
    )  # fmt: skip
    plot.image(
        image="image",
        x="x",
        y="y",
        dw="dw",
        dh="dh",
        color_mapper=mapper,
        source=ColumnDataSource(
            {
                "image": [np.zeros((1, 1), dtype=np.float32)],
                **{name: [0.0] for name in ("x", "y", "dw", "dh")},
            },
            name=f"{prefix}images",
        ),
    )
    for name, color, dash in (("here", "#ffffff", "solid"), ("reference", "#ff9e3d", "dashed")):
        source = ColumnDataSource({n: [] for n in "xywh"}, name=f"{prefix}{name}")
        for line, width, dashes in (("#000000", 4, "solid"), (color, 2, dash)):
            plot.rect(
                x="x", y="y", width="w", height="h", source=source, fill_color=None,
                line_color=line, line_width=width, line_dash=dashes,
            )  # fmt: skip
    plot.text(
        x="x",
        y="y",
        text="text",
        text_font_size="13px",
        text_baseline="bottom",
        name=f"{prefix}names",
        source=ColumnDataSource({"x": [], "y": [], "text": []}, name=f"{prefix}titles"),
    )
    bar = ColorBar(color_mapper=mapper, height=10, padding=6, name=f"{prefix}bar", location=(0, 0))
    bar.background_fill_color = None
    plot.add_layout(bar, "below")
    return plot


def _lines(over: str) -> Plot:
    """Return a plot of the chosen place, of the mean away and of the baseline over a dimension."""
    plot = figure(
        name=f"by-{over}",
        toolbar_location=None,
        tools="",
        sizing_mode="stretch_width",
        hold_render=True,
        height=240,
        x_range=(-0.5, 0.5),
        y_range=(0, 1),
        background_fill_color=None,
        border_fill_color=None,
        outline_line_color=None,
    )
    plot.xaxis.ticker = FixedTicker(ticks=[])
    plot.xaxis.name, plot.yaxis.name = f"{over}-x", f"{over}-y"
    plot.xgrid.visible = False
    styles: dict[str, dict[str, Any]] = {
        "baseline": {"line_color": "#8a8a8a", "line_dash": "dashed"},
        "away": {"line_color": "#d55e00", "line_dash": "dotted"},
        "value": {"line_color": "#0072b2"},
    }
    others = ColumnDataSource({"xs": [], "ys": []}, name=f"{over}-others")
    plot.multi_line(
        xs="xs", ys="ys", source=others, line_width=1, line_color="#8a8a8a",
        legend_label="other seeds here",
    )  # fmt: skip
    marks = {"baseline": "square", "away": "triangle", "value": "circle"}
    labels = {"baseline": "baseline here", "away": "mean away", "value": "here"}
    for name, style in styles.items():
        source = ColumnDataSource(
            {key: [] for key in ("x", "y", "low", "high")}, name=f"{over}-{name}"
        )
        plot.line(x="x", y="y", source=source, line_width=2, legend_label=labels[name], **style)
        plot.scatter(
            x="x", y="y", source=source, size=7, marker=marks[name], color=style["line_color"],
            legend_label=labels[name],
        )  # fmt: skip
        if name != "baseline":
            plot.add_layout(
                Whisker(
                    base="x",
                    lower="low",
                    upper="high",
                    source=source,
                    line_color=style["line_color"],
                    upper_head=None,
                    lower_head=None,
                )
            )
    plot.add_layout(
        Span(location=0, dimension="height", line_color="#8a8a8a", name=f"{over}-now", line_width=1)
    )
    plot.legend.orientation = "horizontal"
    plot.legend.background_fill_color = None
    plot.legend.border_line_color = None
    # Of a fixed width: a legend that has another one has the chart painted again.
    plot.legend.styles = {"width": "calc(100% - 20px)", "justify-content": "end"}
    plot.add_layout(plot.legend[0], "above")
    return plot
