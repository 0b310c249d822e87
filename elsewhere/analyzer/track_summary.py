"""What a track says of each phase: when it brought invariance, and what it left of it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray
from numpy.typing import NDArray

from elsewhere.analyzer.invariance import EXEMPLARS, UNDEFINED
from elsewhere.errors import InputError
from elsewhere.forms import layer_labels
from elsewhere.measures.similarity import DEAD_SHARE
from elsewhere.measures.trajectories import (
    RETAINED_GATE,
    halfway_step,
    loss_since,
    onset_step,
    retained_share,
)
from elsewhere.measures.variables import described
from elsewhere.training import Card
from elsewhere.types import stem_of

ONSET = 0.1
"""Invariance has set in when N, off the trained location, stays above this."""


def _count_classes(chosen: xarray.Dataset) -> float:
    """Return the number of classes of a phase; NaN where an older result tells the last phase's."""
    if "n_classes" in chosen.coords:
        return int(chosen["n_classes"][0])
    last = chosen.attrs.get("last_phase") == chosen["phase"].values[0]
    return int(chosen.attrs["n_classes"]) if last else float("nan")


GAINED = f"no more than {ONSET} of N"


def _find_reached(
    facts: Mapping[str, Any], phase: str, steps: NDArray[np.int64]
) -> tuple[int | None, str]:
    """Return the first tracked checkpoint that reached the criterion, or None and why not."""

    def held(name: str) -> dict[str, Any] | None:
        found = facts.get(name)
        return json.loads(found) if isinstance(found, str) else found

    met, criteria = (held("criterion_step") or {}).get(phase), held("criteria")
    if met is None:
        if criteria is None:
            return None, "the phase has no criterion, or did not reach it"
        if phase not in criteria:
            return None, "the phase has no criterion"
        return None, f"the phase did not reach its criterion, {criteria[phase]:g}"
    later = np.flatnonzero(steps >= met)
    if not len(later):
        return None, f"no checkpoint since the criterion was met, at step {met}, is tracked"
    if later[0] == len(steps) - 1:
        return None, f"nothing is tracked after the checkpoint that reached it, of step {steps[-1]}"
    return int(later[0]), ""


def _why_unknown(chosen: xarray.Dataset, kind: str) -> str:
    """Return why a phase has no accuracy off its trained locations."""
    if "accuracy" not in chosen:
        return "no exemplars were tested"
    if not np.isfinite(chosen["accuracy"].sel(exemplars=kind)).any():
        return "there are no such exemplars"
    if np.isfinite(chosen["accuracy_on"]).any():
        return "no location of the grid is off the trained ones"
    return "where the phase trained is not known"


def summarise_track(result: xarray.Dataset, phase: str) -> xarray.Dataset:
    """Return when a phase brought invariance and what it left of it.

    Parameters
    ----------
    result
        From :func:`elsewhere.analyzer.trajectories.track`.
    phase
        The phase's name.

    Returns
    -------
    xarray.Dataset
        Per ``exemplars``: ``onset_step`` and ``halfway_step`` of the accuracy off the trained
        location, and ``accuracy_loss`` since the first checkpoint that reached the criterion; per
        ``layer``: ``G_loss`` since then, ``retained_share`` of G and its interval over what was
        sampled, NaN where the lower bound of G before is no larger than 0.1: a share of noise.
        NaN is also what the run does not define: losses of a phase without a criterion, that did
        not reach it, or ended there; steps where no accuracy off the trained locations was
        measured, or it rose by no more than 0.1 of N. A line in ``notes`` says why.

    Raises
    ------
    InputError
        No such phase.
    """
    doubts: list[str] = []
    chosen = result.isel(checkpoint=np.flatnonzero(result["phase"].values == phase))
    chosen.attrs["last_phase"] = str(result["phase"].values[-1])
    if not chosen.sizes["checkpoint"]:
        known = ", ".join(dict.fromkeys(result["phase"].values.tolist()))
        raise InputError(f"the result has no phase {phase!r}; it has {known}")
    steps = chosen["step"].values
    reached, why = _find_reached(chosen.attrs, phase, steps)
    lacking: dict[tuple[str, str], list[str]] = {}
    if why:
        lacking["loss after the criterion, of accuracy or of G", why] = []
    chance = 1 / _count_classes(chosen)
    kinds = chosen["exemplars"].values.tolist()
    variables: dict[str, Any] = {"onset_step": [], "halfway_step": [], "accuracy_loss": []}
    for kind in kinds:
        off = chosen["accuracy_off"].sel(exemplars=kind).values
        known_steps, known = steps[np.isfinite(off)], off[np.isfinite(off)]
        threshold = chance + ONSET * (1 - chance)
        onset = onset_step(known_steps, known, threshold=threshold)
        gain = ONSET * (1 - chance) if np.isfinite(chance) else 0.0
        halfway = halfway_step(known_steps, known, least=gain)
        variables["onset_step"].append(onset)
        variables["halfway_step"].append(halfway)
        variables["accuracy_loss"].append(np.nan if reached is None else loss_since(off, reached))
        if not len(known):
            key = "onset, half-way step or loss", _why_unknown(chosen, kind)
            lacking.setdefault(key, []).append(kind)
            continue
        if np.isnan(onset):
            reason = f"at the end, accuracy elsewhere is not above {threshold:.3f}, N = {ONSET}"
            if np.isnan(chance):
                reason = "the result is of an older version and does not say what chance was"
            lacking.setdefault(("onset", reason), []).append(kind)
        elif onset == known_steps[0] > 0:
            doubts.append(
                f"{phase}: accuracy elsewhere ({kind}) was above {threshold:.3f}, N = {ONSET}, at "
                f"the first checkpoint tracked, so that the onset is at step {onset:.0f} or before"
            )
        if np.isnan(halfway):
            few = len(known) < 2
            reason = "one checkpoint is tracked" if few else f"accuracy elsewhere gained {GAINED}"
            lacking.setdefault(("half-way step", reason), []).append(kind)
    said = [
        f"no {what}{f' ({those[0]})' if len(those) == 1 < len(kinds) else ''}: {why}"
        for (what, why), those in lacking.items()
    ]
    doubts += [f"{phase}: {'; '.join(said)}"] if said else []
    named: dict[str, Any] = {name: ("exemplars", values) for name, values in variables.items()}
    stem = stem_of(result.attrs)
    layers, after = chosen["layer"].values, chosen.isel(checkpoint=-1)
    before = chosen.isel(checkpoint=0 if reached is None else reached)
    if (share := f"{stem}_zero_share") in chosen:
        silent = (before[share] > DEAD_SHARE) | (after[share] > DEAD_SHARE)
        if names := np.array(layer_labels(silent))[silent.values].tolist():
            doubts.append(
                f"{phase}: more than {DEAD_SHARE:.0%} zero vectors before or at the end (dead: a "
                f"low retained share of G is not 'not invariant'): {', '.join(names)}"
            )
    lost = np.full(len(layers), np.nan)
    shares = [(np.nan, np.full(2, np.nan))] * len(layers)
    if reached is not None:
        lost = (before[f"{stem}_G_away"] - after[f"{stem}_G_away"]).values
        shares = [
            retained_share(
                float(before[f"{stem}_G_away"].sel(layer=layer)),
                float(after[f"{stem}_G_away"].sel(layer=layer)),
                before_without=before[f"{stem}_G_away_without"].sel(layer=layer),
                after_without=after[f"{stem}_G_away_without"].sel(layer=layer),
            )
            for layer in layers
        ]
        undefined = [
            f"{name} ({float(before[f'{stem}_G_away'].sel(layer=name)):.3f})"
            for name, (share, _) in zip(layers, shares, strict=True)
            if np.isnan(share)
        ]
        if undefined:
            doubts.append(
                f"{phase}: no retained share (nan) where the lower bound of G before, at the first "
                f"checkpoint that reached the criterion, is not above {RETAINED_GATE}, for it "
                f"would be a ratio of noise: {', '.join(undefined)}"
            )
    named["G_loss"] = ("layer", lost)
    named["retained_share"] = ("layer", np.array([share for share, _ in shares]))
    named["retained_share_interval"] = (
        ("layer", "bound"),
        np.stack([interval for _, interval in shares]),
    )
    summary = xarray.Dataset(
        named,
        coords={
            "exemplars": kinds,
            "layer": chosen["layer"].values,
            "bound": ["low", "high"],
        },
        attrs={
            "kind": "track summary",
            "phase": phase,
            **({} if reached is None else {"criterion_step": int(steps[reached])}),
            "last_step": int(steps[-1]),
            "notes": doubts,
        },
    )
    return described(summary)


def join_seeds(tracks: Sequence[xarray.Dataset]) -> xarray.Dataset:
    """Return tracks of one phase as one over ``seed``; where a seed lacks a step, it has NaN."""
    by_step = [
        track[["accuracy_on", "accuracy_off", "accuracy_far", "cosine_G_away"]]
        .drop_vars("phase")
        .swap_dims(checkpoint="step")
        .assign_coords(step=track["step"].values)
        for track in tracks
    ]
    joined = xarray.concat(by_step, dim="seed", join="outer", combine_attrs="drop")
    steps = joined["step"].values
    joined = joined.rename_dims(step="checkpoint").reset_index("step")
    name = str(tracks[0]["phase"].values[0])
    joined = joined.assign_coords(
        phase=("checkpoint", [name] * len(steps)),
        seed=[int(track.attrs["seed"]) for track in tracks],
    )
    own = ("trained", "reference_y", "reference_x", "seed", "criterion_step", "notes")
    joined.attrs = {key: value for key, value in tracks[0].attrs.items() if key not in own}
    return joined


def notes_of_undefined(found: Sequence[xarray.Dataset], cards: Sequence[Card]) -> list[str]:
    """Return in one line where II_far is undefined, and why."""
    kinds: dict[str, set[str]] = {}
    where: dict[str, list[Card]] = {}
    for result, card in zip(found, cards, strict=True):
        reasons = result["II_far"].attrs.get("reason", "") if "II_far" in result else ""
        for part in filter(None, reasons.split("; ")):
            kind, _, why = part.partition(": ")
            why = re.sub(r" is -?[0-9.]+, below ", " is below ", why)
            kinds.setdefault(why, set()).add(kind)
            if card not in where.setdefault(why, []):
                where[why].append(card)
    said = [
        (why if len(kinds[why]) == len(EXEMPLARS) else f"{min(kinds[why])}: {why}")
        + f" (at {len(those)} of {len(cards)} checkpoints, first {those[0].phase} {those[0].step})"
        for why, those in where.items()
    ]
    return [f"II_far{UNDEFINED}{'; '.join(said)}"] if said else []
