"""The axis of training steps: phases side by side, each logarithmic with a place for step 0."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator
from numpy.typing import NDArray

from elsewhere.errors import InputError, UnknownNameError
from elsewhere.figures.page import SIZES
from elsewhere.figures.style import GREY, PALE
from elsewhere.figures.text import labels_in, shorten, text_style, text_width

_GAP = 0.3  # from step 0 to the first later one, in decades
_BETWEEN = 0.36  # from a phase's last step to the next one's step 0
_DECADES = 3  # so many number a phase by themselves
_FEW = 8  # up to so many checkpoints of a phase are numbered themselves


@dataclass(frozen=True)
class PhaseSteps:
    """One phase on the axis, in decades: where its step 0 stands, and its steps."""

    name: str
    checkpoints: NDArray[np.intp]
    start: float
    first: float
    last: float
    steps: tuple[float, ...] = ()

    def at(self, steps: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return where `steps` of the phase stand on the axis."""
        later = np.log10(np.maximum(steps, self.first) / self.first)
        return np.asarray(self.start + np.where(steps > 0, _GAP + later, 0.0))

    @property
    def end(self) -> float:
        """Where the last step stands."""
        return float(self.at(np.array([self.last]))[0])


def phase_runs(track: xr.Dataset) -> list[tuple[str, NDArray[np.intp]]]:
    """Return the phases of `track` in order, each with the indices of its checkpoints."""
    names = (
        [str(name) for name in track["phase"].values]
        if "phase" in track.coords
        else [""] * track.sizes["checkpoint"]
    )
    if not names:
        raise InputError("the track holds no checkpoint; expected at least one")
    runs = [
        (name, np.array(list(members), dtype=np.intp))
        for name, members in groupby(range(len(names)), key=names.__getitem__)
    ]
    steps = np.asarray(track["step"].values, dtype=np.float64)
    for name, members in runs:
        inside = steps[members]
        if not np.isfinite(inside).all() or (inside < 0).any() or (np.diff(inside) <= 0).any():
            raise InputError(
                f"the steps of phase {name!r} are {shorten(_listed(inside), 60)}; expected them "
                "from 0 on, rising, counted within the phase"
            )
    return runs


def stretches(
    track: xr.Dataset, phase: str | Sequence[str] | None, *, also: NDArray[np.float64] | None = None
) -> list[PhaseSteps]:
    """Lay out the phases of `track` side by side, the last with room for the steps `also`.

    Raises
    ------
    InputError
        No checkpoint or phase to draw, or steps that do not rise within a phase.
    UnknownNameError
        A phase that the track does not hold.
    """
    runs = phase_runs(track)
    if phase is not None:
        wanted = [phase] if isinstance(phase, str) else list(phase)
        if not wanted:
            raise InputError("no phase to draw: the list is empty; leave it out for all")
        known = [name for name, _ in runs]
        for name in wanted:
            if name not in known:
                raise UnknownNameError("phase", str(name), known)
        runs = [run for run in runs if run[0] in wanted]
    steps = np.asarray(track["step"].values, dtype=np.float64)
    laid, start = [], 0.0
    for rank, (name, members) in enumerate(runs):
        inside = steps[members]
        if also is not None and rank == len(runs) - 1:
            inside = np.concatenate([inside, also])
        later = inside[inside > 0]
        first, last = (float(later.min()), float(later.max())) if later.size else (1.0, 1.0)
        own = tuple(float(step) for step in np.unique(later))
        laid.append(PhaseSteps(name, members, start, first, last, own))
        start = laid[-1].end + _BETWEEN
    return laid


def draw_steps(upper: Axes, lower: Axes, laid: Sequence[PhaseSteps], width: float) -> None:
    """Number the steps beneath `lower`, `width` inches wide; name the phases above `upper`."""
    left, right = laid[0].start - 0.12, laid[-1].end + 0.12
    per_inch = (right - left) / width
    minor: list[float] = []
    shown: dict[float, str] = {stretch.start: "0" for stretch in laid}
    wanted: list[tuple[PhaseSteps, float]] = []
    for stretch in laid:
        low, high = math.log10(stretch.first), math.log10(stretch.last)
        powers = range(math.floor(low), math.floor(high) + 1)
        wanted += [(stretch, step) for step in _numbered(stretch)]
        for power in powers:
            within: NDArray[np.float64] = np.arange(1.0, 10.0) * 10.0**power
            within = within[(within >= stretch.first) & (within <= stretch.last)]
            minor += stretch.at(within).tolist()
    for stretch, step in wanted:  # those that matter most first, as long as there is room
        place, text = float(stretch.at(np.array([step]))[0]), _number(step)
        if all(
            abs(place - other) >= per_inch * _apart(text, there) for other, there in shown.items()
        ):
            shown[place] = text
    shown = dict(sorted(shown.items()))
    lower.set_xticks(list(shown), labels=list(shown.values()))
    lower.xaxis.set_minor_locator(FixedLocator(minor))
    lower.set_xlim(left, right)
    lower.set_xlabel("step of the phase (log scale; 0 stands apart)", fontsize=SIZES.label)
    for ax in (upper, lower):
        for before, after in pairwise(laid):
            middle = (before.end + after.start) / 2
            ax.axvline(middle, color=PALE, linewidth=0.8, label="_phase", zorder=1)
    for stretch in laid:
        room = (stretch.end - stretch.start + _BETWEEN) / per_inch - 0.06
        if stretch.name and room > 0.25:
            label = labels_in([stretch.name], room, SIZES.small, most=3)[0]
            upper.annotate(
                label,
                ((stretch.start + stretch.end) / 2, 1),
                xycoords=("data", "axes fraction"),
                xytext=(0, 3),
                textcoords="offset points",
                ha="center",
                fontsize=SIZES.small,
                color=GREY,
                **text_style(label),
            )


def _numbered(stretch: PhaseSteps) -> list[float]:
    """Return the steps of a phase to number: the checkpoints' own where they are few, else decades.

    Examples
    --------
    >>> few, many = (10, 20, 40), tuple(range(1, 31))
    >>> [_numbered(PhaseSteps("", np.arange(3), 0, s[0], s[-1], s)) for s in (few, many)]
    [[40, 10, 20], [1.0, 10.0, 30, 5.0, 2.0, 20.0]]
    """
    first, last = stretch.first, stretch.last
    if len(stretch.steps) <= _FEW:
        return [last, first, *stretch.steps[1:-1]][: len(stretch.steps)]
    powers = range(math.floor(math.log10(first)), math.floor(math.log10(last)) + 1)
    decades, fives, twos = (
        [step for power in powers if first <= (step := lead * 10.0**power) <= last]
        for lead in (1, 5, 2)
    )
    return decades if len(decades) >= _DECADES else [*decades, last, *fives, *twos]


def _apart(first: str, second: str) -> float:
    """Return how far the middles of two numbers have to be apart, inches."""
    return 0.07 + (text_width(first, SIZES.tick) + text_width(second, SIZES.tick)) / 2


def _listed(steps: NDArray[np.float64]) -> str:
    return ", ".join(f"{step:g}" for step in steps)


def _number(step: float) -> str:
    """Return a step in few characters.

    Examples
    --------
    >>> [_number(step) for step in (1, 150, 1000, 6500, 100_000)]
    ['1', '150', '1k', '6.5k', '100k']
    """
    if step < 1000:
        return f"{step:g}"
    thousands = step / 1000
    return f"{thousands:.3g}k" if thousands < 1000 else f"{thousands / 1000:.3g}M"
