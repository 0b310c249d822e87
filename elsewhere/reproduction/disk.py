"""What the checkpoints of a reproduction take up."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from elsewhere.models import Model
from elsewhere.reproduction.conditions import Run
from elsewhere.training import replace_head
from elsewhere.training.initial_network import start_model
from elsewhere.training.resolution import log_spaced


def blank_model(run: Run) -> Model:
    """Return a network as a run trains, with weights of no meaning and ten classes."""
    curriculum = dataclasses.replace(run, network=dataclasses.replace(run.network, weights="none"))
    return replace_head(start_model(curriculum.curriculum(0)), 10, seed=0)


def count_checkpoints(run: Run) -> int:
    """Return how many checkpoints a run keeps, at most."""
    kept = 0
    for phase in run.phases:
        steps = phase.n_steps(0)
        given = phase.checkpoints
        kept += len(log_spaced(steps, given)) if isinstance(given, int) else len(given)
        kept += phase.criterion is not None
    return kept


def disk_bytes(runs: Sequence[Run]) -> int:
    """Return the bytes of the checkpoints and states of all runs, at most."""
    sizes: dict[tuple[str, str, int], int] = {}
    total = 0
    for run in runs:
        system = (run.network.name, str(run.network.arguments), run.canvas.size)
        if system not in sizes:
            state = blank_model(run).module.state_dict().values()
            sizes[system] = sum(value.numel() * value.element_size() for value in state)
        total += (count_checkpoints(run) + 2) * sizes[system]
    return total
