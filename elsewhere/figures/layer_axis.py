"""The axis of layers: where each stands, which ones a line joins, and several networks on one.

Layers are matched by name, a form that was kept (``fc6 (mean)``) being part of it. A network whose
layers another one has as well shares their places, in the order of both; one of another
architecture stands beside it. No point is ever above another layer's name.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.text import Annotation
from matplotlib.ticker import FixedLocator
from numpy.typing import NDArray

from elsewhere.figures.page import SIZES, make_room, room_along
from elsewhere.figures.results import layer_groups, require
from elsewhere.figures.style import GREY, PALE, entitle
from elsewhere.figures.text import labels_in, text_style, text_width
from elsewhere.forms import beside_main, layer_forms, layer_labels, network_name, weights_name

_PASSING = re.compile(r"relu|bn|drop|avgpool")
_ALL_LABELS = 25  # more layers than this, and names are thinned
_SLANTED = 0.9  # inches that a slanted name takes at most, or it would reach far to the left
_LONGEST = 3.0  # inches of a name
_GROUPS = "groups of layers"
BAND_FROM = 13
"""From this many layers on, intervals are bands instead of bars."""


@dataclass(frozen=True)
class Layers:
    """The layers of one result along an axis.

    Parameters
    ----------
    at
        Where each stands, float64 (layer,).
    order
        Indices of layers as a line takes them, -1 where it breaks: between forms that are no
        measure of the same, and around layers beside the main branch.
    rank
        How many networks were drawn on these axes before.
    """

    at: NDArray[np.float64]
    order: NDArray[np.intp]
    rank: int = 0

    def __len__(self) -> int:
        return len(self.at)

    def path(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return values along the line, NaN where it breaks."""
        return np.where(self.order < 0, np.nan, values[self.order])


class _Axis(Artist):
    """What axes remember of the layers along them; draws nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.set_in_layout(False)
        self.blocks: list[list[str]] = []
        self.networks: list[str] = []
        self.titles: list[str] = []
        self.forms: set[str] = set()
        self.beside = False

    @property
    def slots(self) -> list[str | None]:
        """Names along the axis; None between architectures."""
        found: list[str | None] = []
        for block in self.blocks:
            found += [None, *block] if found else block
        return found

    def starts(self) -> list[int]:
        """Return where each block begins."""
        lengths = [len(block) + 1 for block in self.blocks]
        return [sum(lengths[:place]) for place in range(len(lengths))]

    def draw(self, renderer: Any) -> None:
        """Draw nothing."""


def axis_of(ax: Axes) -> _Axis | None:
    """Return what axes remember of their layers, None where there is nothing."""
    return next((artist for artist in ax.artists if isinstance(artist, _Axis)), None)


def along_layers(ax: Axes, result: xr.Dataset, *, groups: bool = True) -> Layers:
    """Lay a result's layers along the x axis, beside those that stand there; write their names.

    Parameters
    ----------
    ax
        The axes; what was drawn there moves with its layers.
    result
        With the coordinate ``layer``.
    groups
        Whether groups of layers are shaded, and named above the axes.
    """
    names = layer_labels(require(result, [], ["layer"]))
    axis = axis_of(ax)
    if axis is None:
        axis = _Axis()
        ax.add_artist(axis)
    before = [axis.starts(), [list(block) for block in axis.blocks]]
    place = _place(axis, names)
    _move(ax, before[0], before[1], axis)
    start, block = axis.starts()[place], axis.blocks[place]
    at = np.array([start + block.index(name) for name in names], dtype=np.float64)
    axis.forms.update(layer_forms(result))
    axis.beside |= bool(beside_main(result))
    axis.networks.append(_network(result, axis.networks))
    _write_names(ax, axis)
    for artist in [a for a in (*ax.patches, *ax.texts, *ax.lines) if a.get_gid() == _GROUPS]:
        artist.remove()
    for first, names_there in zip(axis.starts(), axis.blocks, strict=True):
        if first:
            ax.axvline(first - 1, color=PALE, linewidth=0.8, label="_between", gid=_GROUPS)
        if groups:
            _draw_groups(ax, names_there, first, len(axis.slots))
    return Layers(at, _order(result), len(axis.networks) - 1)


def _order(result: xr.Dataset) -> NDArray[np.intp]:
    """Return the layers in the order of the line through them, -1 where it breaks."""
    forms, beside = layer_forms(result), beside_main(result)
    found: list[int] = []
    for index in [index for index in range(len(forms)) if index not in beside]:
        if found and forms[found[-1]] != forms[index]:
            found.append(-1)
        found.append(index)
    for index in beside:
        found += [-1, index]
    return np.array(found, dtype=np.intp)


def _place(axis: _Axis, names: list[str]) -> int:
    """Add a network's layers to a block that shares them, or to one of their own; return which."""
    for place, block in enumerate(axis.blocks):
        shared = [name for name in block if name in names]
        if shared == [name for name in names if name in block] and 2 * len(shared) >= min(
            len(block), len(names)
        ):
            axis.blocks[place] = _merged(block, names)
            return place
    axis.blocks.append(names)
    return len(axis.blocks) - 1


def _merged(first: list[str], second: list[str]) -> list[str]:
    """Return the names of both, in the order of both.

    Examples
    --------
    >>> _merged(["conv1", "fc6", "logits"], ["conv1", "conv2", "logits"])
    ['conv1', 'fc6', 'conv2', 'logits']
    """
    found: list[str] = []
    rest = list(second)
    for name in first:
        if name in rest:
            end = rest.index(name)
            found, rest = [*found, *rest[:end]], rest[end + 1 :]
        found.append(name)
    return found + rest


def _move(ax: Axes, starts: Any, blocks: Any, axis: _Axis) -> None:
    """Move what was drawn of earlier networks to where its layers stand now."""
    old = [float(s + k) for s, block in zip(starts, blocks, strict=True) for k in range(len(block))]
    new = [
        float(start + now.index(name))
        for start, now, then in zip(axis.starts(), axis.blocks, blocks, strict=False)
        for name in then
    ]
    if not old or old == new:
        return

    def moved(x: Any) -> NDArray[np.float64]:
        at = np.asarray(x, dtype=np.float64)
        near = np.where(np.isfinite(at), np.round(at), at)
        return np.asarray(np.interp(near, old, new) + (at - near))

    for line in ax.lines:
        if line.get_transform().contains_branch_seperately(ax.transData)[0]:
            line.set_xdata(moved(line.get_xdata()))
    for collection in ax.collections:
        for path in collection.get_paths():
            path.vertices[:, 0] = moved(path.vertices[:, 0])  # type: ignore[index]
    for text in ax.texts:
        if isinstance(text, Annotation) and text.xycoords == "data":
            text.xy = (float(moved(text.xy[0])), text.xy[1])


def _network(result: xr.Dataset, others: Sequence[str]) -> str:
    """Return what a network is called beside others."""
    model, weights = network_name(result.attrs), weights_name(result.attrs)
    name = f"{model} ({weights})" if model and weights else model or "network"
    same = sum(other.split(" #")[0] == name for other in others)
    return f"{name} #{same + 1}" if same else name


def entitle_layers(ax: Axes, text: str) -> None:
    """Write a title above axes: of several networks, what is true of all of them."""
    axis = axis_of(ax)
    if axis is None:
        entitle(ax, text)
        return
    axis.titles.append(text)
    first, *others = [title.split(" · ") for title in axis.titles]
    shared = [part for part in first if all(part in other for other in others)]
    entitle(ax, " · ".join(shared or [f"{len(axis.titles)} networks"]))


def _draw_groups(ax: Axes, names: Sequence[str], start: int, count: int) -> None:
    """Shade every other group of layers and write the groups above the axes."""
    groups = layer_groups(names)
    if len(groups) < 2 or len(groups) > 0.75 * len(names):
        return
    pitch = room_along(ax) / count
    for rank, (group, first, last) in enumerate(groups):
        left, right = start + first - 0.5, start + last + 0.5
        if rank % 2 == 0:
            ax.axvspan(left, right, color="#f3f3f3", linewidth=0, zorder=-1, gid=_GROUPS)
        if group and text_width(group, SIZES.small) + 0.04 <= (last - first + 1) * pitch:
            ax.annotate(
                group,
                ((left + right) / 2, 1),
                xycoords=("data", "axes fraction"),
                xytext=(0, 3),
                textcoords="offset points",
                ha="center",
                fontsize=SIZES.small,
                color=GREY,
                gid=_GROUPS,
                **text_style(group),
            )


def _write_names(ax: Axes, axis: _Axis) -> None:
    """Write the layers' names, some of them where there are many."""
    slots = axis.slots
    name_slots(ax, slots)
    if len(axis.blocks) > 1:
        ax.set_xlabel("layer (architectures side by side)", fontsize=SIZES.label)


def name_slots(ax: Axes, slots: Sequence[str | None]) -> None:
    """Write names along the x axis, at 0, 1, ...; none where there is None."""
    count, room = len(slots), room_along(ax)
    pitch = room / (count + 0.2)
    places = [place for place, name in enumerate(slots) if name is not None]
    names = [str(name) for name in slots if name is not None]
    most = max(min(_ALL_LABELS, int(room / (1.25 * SIZES.small / 72))), 1)
    # Of very many layers those that only pass on what comes before them go without a name first.
    named = [i for i, name in enumerate(names) if len(names) <= most or not _PASSING.match(name)]
    named = named or list(range(len(names)))
    step = -(-len(named) // most)
    # Counted from the end: the last layer, the one most asked about, always has its name.
    shown: list[int] = []
    for idx in named[::-1][::step]:
        if not shown or (places[shown[0]] - places[idx]) * pitch > 0.95 * SIZES.small / 72:
            shown.insert(0, idx)
    wanted = [names[idx] for idx in shown]
    upright = count > 16 or pitch < 2.1 * SIZES.tick / 72
    size = SIZES.small if upright else SIZES.tick
    labels = labels_in(wanted, pitch - 0.08, size, most=3)
    steep = count > 6 or any("…" in label for label in labels)
    if upright or steep:
        longest = _LONGEST if SIZES.height is None else 0.4 * SIZES.height
        labels = labels_in(wanted, longest, size, most=1)
        upright |= max(text_width(label, size) for label in labels) > _SLANTED
        if upright:  # lines side by side, as many as have room
            labels = labels_in(wanted, longest, size, most=max(int(pitch * 72 / size / 1.3), 1))
        widest = max(text_width(label, size) for label in labels)
        more = widest * (1.0 if upright else 0.65) - 0.4  # so much has its place in any case
        make_room(ax.get_figure(root=True), "names", more)
    ax.set_xticks(
        [places[idx] for idx in shown],
        labels=labels,
        rotation=90 if upright else 40 if steep else 0,
        ha="center" if upright or not steep else "right",
        rotation_mode="default" if upright else "anchor",
        fontsize=size,
        **text_style(*labels),
    )
    ax.xaxis.set_minor_locator(FixedLocator(places))
    ax.set_xlim(-0.6, count - 0.4)
    ax.set_xlabel("layer", fontsize=SIZES.label)
