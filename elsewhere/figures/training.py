"""Acquired, then lost: accuracy and generalisation over the checkpoints of a training."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray
from scipy.special import stdtrit

from elsewhere.errors import InputError, UnknownNameError
from elsewhere.figures.accuracy import CHANCE_LINE, Exemplars, chance_of, choose_exemplars
from elsewhere.figures.lines import (
    depth_shades,
    draw_legend,
    finite_values,
    fit_limits,
    left_out_handle,
    legend_handle,
    mean_handle,
    spread,
)
from elsewhere.figures.page import SIZES, new_figure, room_along
from elsewhere.figures.results import (
    describe,
    layer_names,
    require,
    select_layers,
    some,
    variable_of,
)
from elsewhere.figures.steps import PhaseSteps, draw_steps, phase_runs, stretches
from elsewhere.figures.style import GREY, INK, PALE, Mark, entitle, styled, tidy
from elsewhere.figures.text import clean_text, shorten
from elsewhere.forms import layer_forms, layer_labels

Tracked: TypeAlias = Literal["on", "off", "far", "G"]

_WHERE = MappingProxyType(
    {
        "on": ("on the trained\nlocation", Mark("#0072B2", "o", "-")),
        "off": ("off it", Mark("#D55E00", "s", "-")),
        "far": ("far from it", Mark("#E69F00", "^", "-")),
    }
)
_DEFAULT: tuple[Tracked, ...] = ("on", "off", "G")
_DASHES = (0, (3, 1.5))  # of the control
_CRITERION: dict[str, Any] = {"color": INK, "linewidth": 0.8, "linestyle": (0, (4, 2, 1, 2))}
_MARKS = "osD^vPX*"  # of as many layers as are drawn by default
_FEW_SEEDS = 3  # up to this many, each seed has a line of its own


@styled
def plot_acquisition(
    track: xr.Dataset,
    *,
    phase: str | Sequence[str] | None = None,
    layers: Sequence[str] | None = None,
    exemplars: Exemplars | None = None,
    quantities: Sequence[Tracked] | None = None,
) -> Figure:
    """Draw how accuracy (above) and generalisation G by layer (below) come with training.

    Steps are logarithmic, step 0 has its own place at the left of each phase. With several seeds a
    line is their mean, the band its 95 % Student t interval; thin lines are single seeds, where
    they are up to three or lack checkpoints that others have.

    Parameters
    ----------
    track
        A track result: ``accuracy_on`` and so on over ([seed,] checkpoint, exemplars), 0..1;
        ``cosine_G_away`` over ([seed,] checkpoint, layer); the coordinate ``step`` over checkpoint,
        counted within its ``phase``. Chance is drawn where ``chance`` or ``n_classes`` is known.
        The attributes speak of the last phase. The mean is drawn where all seeds have a value.
    phase
        Names of the phases to draw; all by default.
    layers
        Names of the layers; by default up to eight, spread over the depth, as the legend says.
    exemplars
        ``same`` as in training, or ``held-out``; by default those held out, if there are any.
    quantities
        Accuracy ``on`` the trained location, ``off`` it, ``far`` from it, above; ``G`` below. By
        default ``on``, ``off`` and ``G``.

    Returns
    -------
    A figure that pyplot does not know of.

    Raises
    ------
    InputError
        The track lacks what is drawn.
    UnknownNameError
        A phase, layer, place or kind of exemplars that is not known.
    """
    return _draw(track, None, "acquisition", phase, layers, exemplars, quantities).figure


@styled
def plot_interference(
    track: xr.Dataset,
    control: xr.Dataset | None = None,
    *,
    phase: str | Sequence[str] | None = None,
    layers: Sequence[str] | None = None,
    exemplars: Exemplars | None = None,
    quantities: Sequence[Tracked] | None = None,
    subject: str = "interference",
) -> Figure:
    """Draw how further training takes accuracy (above) and generalisation G (below) away.

    As :func:`plot_acquisition`, with a vertical line at the first checkpoint that reaches the
    criterion, from which a loss is counted, and a control dashed beside it.

    Parameters
    ----------
    track
        A track result; its coordinate or attribute ``criterion_step``, if there, counts steps
        within the last phase drawn: a number, one for each seed, or one for each phase's name.
    control
        A track of the same steps with the objects shown everywhere; its last phase is drawn
        along the last phase of `track`.
    phase, layers, exemplars, quantities
        As for :func:`plot_acquisition`.
    subject
        What is shown, for the title.

    Returns
    -------
    A figure that pyplot does not know of.

    Raises
    ------
    InputError
        The track or the control lacks what is drawn.
    UnknownNameError
        A phase, layer, place or kind of exemplars that is not known.
    """
    drawn = _draw(track, control, subject, phase, layers, exemplars, quantities)
    if _mark_criterion(drawn.panels, track, drawn.laid):
        drawn.handles[0].append(Line2D([], [], label="criterion\nreached", **_CRITERION))
        draw_legend(drawn.panels[0], drawn.handles[0])
    return drawn.figure


class _Drawn:
    """One or two axes, one above the other, over the same steps, and what their legends say."""

    def __init__(self, count: int) -> None:
        height = (4.7, 2.9)[count == 1] * (0.45 + 0.55 * SIZES.width / 7)
        self.figure = new_figure(SIZES.width, height)
        grid = self.figure.subplots(count, 1, sharex=True, squeeze=False)
        self.panels: list[Axes] = grid[:, 0].tolist()
        self.laid: list[PhaseSteps] = []
        self.handles: list[list[Line2D]] = [[] for _ in range(count)]


def _draw(
    track: xr.Dataset,
    control: xr.Dataset | None,
    what: str,
    phase: str | Sequence[str] | None,
    layers: Sequence[str] | None,
    exemplars: Exemplars | None,
    quantities: Sequence[Tracked] | None,
) -> _Drawn:
    if quantities is None:  # tracks of earlier versions lack the first
        held = require(track, [], []).data_vars
        quantities = _DEFAULT if "accuracy_on" in held else _DEFAULT[1:]
    wanted = list(some({**_WHERE, "G": None}, quantities))
    places, with_layers = [name for name in wanted if name != "G"], "G" in wanted
    if layers is not None and not with_layers:
        raise InputError(
            f"layers are those of G, which is not drawn ({', '.join(wanted)}); leave the layers "
            "out, or add G to the quantities"
        )
    variables = [f"accuracy_{name}" for name in places]
    track = _checked(track, variables, with_layers=with_layers)
    tracks = [track]
    if control is not None:
        tracks.append(_checked(control, variables, with_layers=with_layers))
    which = None
    if variables:
        known = [n for n in variables if any(np.isfinite(one[n]).any() for one in tracks)]
        which = choose_exemplars(tracks, [*variables, *known][-1], exemplars)

    drawn = _Drawn(bool(places) + with_layers)
    beside: tuple[xr.Dataset, PhaseSteps] | None = None
    if control is not None:
        members = phase_runs(tracks[1])[-1][1]
        steps = np.asarray(tracks[1]["step"].values[members], dtype=np.float64)
        drawn.laid = stretches(track, phase, also=steps)
        last = drawn.laid[-1]
        beside = (tracks[1], PhaseSteps(last.name, members, last.start, last.first, last.last))
    else:
        drawn.laid = stretches(track, phase)
    upper, lower = drawn.panels[0], drawn.panels[-1]
    for ax in drawn.panels:
        tidy(ax)

    if places:
        _draw_chance(upper, track, drawn.laid)
        fit_limits(upper, np.array([0.0, 1.0]))
        upper.set_ylabel("accuracy", fontsize=SIZES.label)
    for name in places:
        mark, variable = _WHERE[name][1], f"accuracy_{name}"
        for stretch in drawn.laid:
            values = _by_seed(track[variable].sel(exemplars=which))
            _draw_run(upper, track, stretch, values, mark, variable)
        if beside is not None:
            values = _by_seed(beside[0][variable].sel(exemplars=which))
            _draw_run(upper, *beside, values, mark, variable, control=True)
        drawn.handles[0].append(legend_handle(mark, _WHERE[name][0]))
    if with_layers:
        _draw_layers(drawn, track, beside, layers)
    _describe_lines(drawn, tracks)
    draw_steps(upper, lower, drawn.laid, room_along(lower))
    if upper is not lower:
        upper.tick_params(labelbottom=False)
    entitle(upper, describe(track, f"{what}, {which} exemplars" if which else what))
    for ax, handles in zip(drawn.panels, drawn.handles, strict=True):
        draw_legend(ax, handles)
    return drawn


def _draw_layers(
    drawn: _Drawn,
    track: xr.Dataset,
    beside: tuple[xr.Dataset, PhaseSteps] | None,
    layers: Sequence[str] | None,
) -> None:
    """Draw G of each layer against the steps, early layers dark, late ones light."""
    chosen = select_layers(track, layers)
    if layers is None:
        chosen = [chosen[idx] for idx in spread(len(chosen), len(_MARKS))]
    names, labels = layer_names(track), layer_labels(track)
    ax, handles = drawn.panels[-1], drawn.handles[-1]
    seen, shades = [np.array([0.0, 1.0])], depth_shades(len(chosen))
    for rank, idx in enumerate(chosen):
        name = names[idx]
        mark = Mark(shades[rank], _MARKS[rank % len(_MARKS)], "-")
        for stretch in drawn.laid:
            values = _by_seed(track[variable_of(track, "G", "_away")].isel(layer=idx))
            seen.append(_draw_run(ax, track, stretch, values, mark, f"G:{name}"))
        if beside is not None:
            if name not in layer_names(beside[0]):
                raise UnknownNameError("layer of the control", name, layer_names(beside[0]))
            values = _by_seed(beside[0][variable_of(beside[0], "G", "_away")].sel(layer=name))
            seen.append(_draw_run(ax, *beside, values, mark, f"G:{name}", control=True))
        handles.append(legend_handle(mark, clean_text(labels[idx])))
    if layers is None:
        handles += left_out_handle(len(chosen), len(names))
    handles += mean_handle(layer_forms(track))
    fit_limits(ax, np.concatenate(seen))
    ax.set_ylabel("invariance (G)", fontsize=SIZES.label)


def _checked(track: object, accuracies: Sequence[str], *, with_layers: bool) -> xr.Dataset:
    """Return `track` with a number for each checkpoint and seed, checked to hold what is drawn."""
    found = require(track, [], [])
    for dim in ("checkpoint", "seed"):
        if dim in found.dims and dim not in found.coords:
            found = found.assign_coords({dim: np.arange(found.sizes[dim])})
    for name, dims in (
        *((name, ["checkpoint", "exemplars"]) for name in accuracies),
        *[(variable_of(found, "G", "_away"), ["checkpoint", "layer"])] * with_layers,
    ):
        seeded = name in found.data_vars and "seed" in found[name].dims
        require(found, [name], ["seed", *dims] if seeded else dims)
    if "step" not in found.coords or found["step"].dims != ("checkpoint",):
        raise InputError(
            "the track has no coordinate 'step' over (checkpoint,); expected the step of each "
            "checkpoint, counted within its phase"
        )
    if "phase" in found.coords and found["phase"].dims != ("checkpoint",):
        raise InputError(
            f"the coordinate 'phase' runs over ({', '.join(map(str, found['phase'].dims))}); "
            "expected (checkpoint)"
        )
    return found


def _by_seed(values: xr.DataArray) -> NDArray[np.float64]:
    """Return `values` as (seed, checkpoint), one seed where none is named."""
    if "seed" not in values.dims:
        values = values.expand_dims("seed")
    return finite_values(values.transpose("seed", "checkpoint").values)


def over_seeds(
    values: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the mean over seeds and the ends of its 95 % Student t interval.

    Parameters
    ----------
    values
        (seed, n); a seed without any value is left out.

    Returns
    -------
    mean, low, high
        (n,), NaN where a seed lacks a value: a mean over changing seeds would jump; the ends
        also where there is only one seed.

    Examples
    --------
    >>> mean, low, high = over_seeds(np.array([[1.0], [2.0], [3.0], [4.0]]))
    >>> mean.round(3), low.round(3), high.round(3)
    (array([2.5]), array([0.446]), array([4.554]))
    """
    present = values[np.isfinite(values).any(axis=1)]
    count = len(present)
    if count == 0:
        nothing = np.full(values.shape[1], np.nan)
        return nothing, nothing, nothing
    mean = present.mean(axis=0)
    if count == 1:
        return mean, np.full(len(mean), np.nan), np.full(len(mean), np.nan)
    half = stdtrit(count - 1, 0.975) * present.std(axis=0, ddof=1) / np.sqrt(count)
    return mean, mean - half, mean + half


def _draw_run(
    ax: Axes,
    track: xr.Dataset,
    stretch: PhaseSteps,
    values: NDArray[np.float64],
    mark: Mark,
    label: str,
    *,
    control: bool = False,
) -> NDArray[np.float64]:
    """Draw one quantity over one phase, and return the values that are drawn."""
    steps = np.asarray(track["step"].values[stretch.checkpoints], dtype=np.float64)
    at, values = stretch.at(steps), values[:, stretch.checkpoints]
    mean, low, high = over_seeds(values)
    shown, known = [mean], np.isfinite(mean)
    if len(values) > 1:
        ax.fill_between(
            at[known],
            low[known],
            high[known],
            color=mark.color,
            alpha=0.08 if control else 0.15,
            linewidth=0,
            zorder=2,
        )
    if _single_lines(values):
        for single in values:
            there = np.isfinite(single)
            ax.plot(
                at[there],
                single[there],
                color=mark.color,
                linewidth=0.4,
                alpha=0.7,
                label="_seed",
                zorder=2.5,
            )
        shown += list(values)
    ax.plot(
        at[known],
        mean[known],
        color=mark.color,
        linestyle=_DASHES if control else mark.dashes,
        linewidth=0.9 if control else 1.2,
        marker=mark.marker,
        markersize=3.2,
        markerfacecolor="white" if control else mark.color,
        markeredgecolor=mark.color if control else "white",
        markeredgewidth=0.7 if control else 0.4,
        label=f"control:{label}" if control else label,
        zorder=2.9 if control else 3,
    )
    return np.concatenate(shown)


def _single_lines(values: NDArray[np.float64]) -> bool:
    """Return whether each seed of (seed, checkpoint) has a line: few, or checkpoints differ."""
    present = np.isfinite(values[np.isfinite(values).any(axis=1)])
    return len(present) > 1 and (
        len(present) <= _FEW_SEEDS or bool((present.any(axis=0) & ~present.all(axis=0)).any())
    )


def _draw_chance(ax: Axes, track: xr.Dataset, laid: Sequence[PhaseSteps]) -> None:
    """Dot the accuracy of guessing over each phase, where it is known."""
    last = phase_runs(track)[-1][1][-1]
    for stretch in laid:
        if "chance" in track.coords and track["chance"].dims == ("checkpoint",):
            chance = float(track["chance"].values[stretch.checkpoints[-1]])
        elif "n_classes" in track.coords and track["n_classes"].dims == ("checkpoint",):
            chance = 1 / float(track["n_classes"].values[stretch.checkpoints[-1]])
        elif last in stretch.checkpoints and {"chance", "n_classes"} & set(track.attrs):
            chance = chance_of(track)  # the attributes speak of the last phase
        else:
            continue
        ax.plot([stretch.start, stretch.end], [chance] * 2, label="chance", zorder=1, **CHANCE_LINE)


def _describe_lines(drawn: _Drawn, tracks: Sequence[xr.Dataset]) -> None:
    """Say what bands, thin lines, dashes and dots are."""
    counts = sorted({int(track.sizes.get("seed", 1)) for track in tracks})
    if counts[-1] > 1:
        seeds = " and ".join(map(str, counts))
        drawn.handles[0].append(
            Line2D([], [], label=f"95 % t interval,\n{seeds} seeds", linewidth=6, color=PALE)
        )
    if any(line.get_label() == "_seed" for ax in drawn.panels for line in ax.lines):
        drawn.handles[0].append(Line2D([], [], label="each seed", color=GREY, linewidth=0.4))
    if len(tracks) > 1:
        drawn.handles[0].append(legend_handle(Mark(GREY, "o", _DASHES), "control", hollow=True))
    if any(line.get_label() == "chance" for line in drawn.panels[0].lines):
        drawn.handles[0].append(Line2D([], [], label="chance", **CHANCE_LINE))


def _mark_criterion(panels: Sequence[Axes], track: xr.Dataset, laid: Sequence[PhaseSteps]) -> bool:
    """Rule the first checkpoints that reach the criterion; return whether there are any."""
    given: Any = track.attrs.get("criterion_step")
    if "criterion_step" in track.variables:
        given = track["criterion_step"].values
    if given is None:
        return False
    try:
        given = json.loads(given) if isinstance(given, str) else given
        by_phase = given if isinstance(given, Mapping) else {laid[-1].name: given}
        found = {
            str(name): np.unique(np.atleast_1d(np.asarray(steps, dtype=np.float64)))
            for name, steps in by_phase.items()
            if steps is not None
        }
    except (TypeError, ValueError) as error:
        raise InputError(
            f"criterion_step is {shorten(given, 60)}; expected a step of the last phase, one for "
            "each seed, or one for each phase"
        ) from error
    marked = False
    for stretch in laid:
        for step in found.get(stretch.name, np.empty(0)):
            if not (math.isfinite(step) and 0 <= step <= stretch.last):
                continue
            at = float(stretch.at(np.array([step]))[0])
            for ax in panels:
                ax.axvline(at, label="criterion", zorder=1.5, **_CRITERION)
            marked = True
    return marked
