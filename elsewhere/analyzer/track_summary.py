"""What a track says of each phase: when it brought invariance, and what it left of it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import xarray

from elsewhere.errors import InputError
from elsewhere.measures.similarity import DEAD_SHARE
from elsewhere.measures.trajectories import (
    RETAINED_GATE,
    halfway_step,
    loss_since,
    onset_step,
    retained_share,
)
from elsewhere.types import stem_of

ONSET = 0.1
"""Invariance has set in when N, off the trained location, stays above this."""


def _count_classes(chosen: xarray.Dataset) -> float:
    """Return the number of classes of a phase; NaN where an older result tells the last phase's."""
    if "n_classes" in chosen.coords:
        return int(chosen["n_classes"][0])
    last = chosen.attrs.get("last_phase") == chosen["phase"].values[0]
    return int(chosen.attrs["n_classes"]) if last else float("nan")


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
        location, and ``accuracy_loss`` since the first checkpoint that reached the criterion (the
        first one of the phase, if none did); per ``layer``: ``G_loss``, ``retained_share`` of G
        and its interval over what was sampled; both are NaN, with a line in ``notes``, where the
        lower bound of G before is no larger than 0.1: a share of noise. Likewise the half-way step
        of a gain of no more than 0.1 of N.

    Raises
    ------
    InputError
        No such phase.
    """
    chosen = result.isel(checkpoint=np.flatnonzero(result["phase"].values == phase))
    chosen.attrs["last_phase"] = str(result["phase"].values[-1])
    if not chosen.sizes["checkpoint"]:
        known = ", ".join(dict.fromkeys(result["phase"].values.tolist()))
        raise InputError(f"the result has no phase {phase!r}; it has {known}")
    steps = chosen["step"].values
    criterion = result.attrs.get("criterion_step", {})
    criterion = json.loads(criterion) if isinstance(criterion, str) else criterion
    reached = int(np.argmax(steps >= criterion.get(phase, 0)))
    chance = 1 / _count_classes(chosen)
    kinds = chosen["exemplars"].values.tolist()
    variables: dict[str, Any] = {"onset_step": [], "halfway_step": [], "accuracy_loss": []}
    for kind in kinds:
        off = chosen["accuracy_off"].sel(exemplars=kind).values
        known_steps, known = steps[np.isfinite(off)], off[np.isfinite(off)]
        threshold = chance + ONSET * (1 - chance)
        variables["onset_step"].append(onset_step(known_steps, known, threshold=threshold))
        gain = ONSET * (1 - chance) if np.isfinite(chance) else 0.0
        variables["halfway_step"].append(halfway_step(known_steps, known, least=gain))
        variables["accuracy_loss"].append(loss_since(off, reached))
    named: dict[str, Any] = {name: ("exemplars", values) for name, values in variables.items()}
    before, after = chosen.isel(checkpoint=reached), chosen.isel(checkpoint=-1)
    stem = stem_of(result.attrs)
    shares = [
        retained_share(
            float(before[f"{stem}_G_away"].sel(layer=layer)),
            float(after[f"{stem}_G_away"].sel(layer=layer)),
            before_without=before[f"{stem}_G_away_without"].sel(layer=layer),
            after_without=after[f"{stem}_G_away_without"].sel(layer=layer),
        )
        for layer in chosen["layer"].values
    ]
    undefined = [
        f"{name} ({float(before[f'{stem}_G_away'].sel(layer=name)):.3f})"
        for name, (share, _) in zip(chosen["layer"].values, shares, strict=True)
        if np.isnan(share)
    ]
    doubts = []
    if undefined:
        doubts.append(
            f"{phase}: no retained share (nan) where the lower bound of G before, at the first "
            f"checkpoint that reached the criterion, is not above {RETAINED_GATE}, for it would be "
            f"a ratio of noise: {', '.join(undefined)}"
        )
    if (share := f"{stem}_zero_share") in chosen:
        silent = (before[share] > DEAD_SHARE) | (after[share] > DEAD_SHARE)
        if names := [str(name) for name in silent["layer"].values[silent.values]]:
            doubts.append(
                f"{phase}: more than {DEAD_SHARE:.0%} zero vectors before or at the end (dead: a "
                f"low retained share of G is not 'not invariant'): {', '.join(names)}"
            )
    named["G_loss"] = ("layer", (before[f"{stem}_G_away"] - after[f"{stem}_G_away"]).values)
    named["retained_share"] = ("layer", np.array([share for share, _ in shares]))
    named["retained_share_interval"] = (
        ("layer", "bound"),
        np.stack([interval for _, interval in shares]),
    )
    return xarray.Dataset(
        named,
        coords={
            "exemplars": kinds,
            "layer": chosen["layer"].values,
            "bound": ["low", "high"],
        },
        attrs={
            "kind": "track summary",
            "phase": phase,
            "criterion_step": int(steps[reached]),
            "last_step": int(steps[-1]),
            "notes": doubts,
        },
    )
