"""What a reproduction would cost: time and disk, from a few timed steps."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from elsewhere.models import Model, find_device
from elsewhere.reproduction.conditions import Run
from elsewhere.reproduction.run import Options, find_scale, seed_numbers
from elsewhere.reproduction.scale import Scale
from elsewhere.reproduction.tasks import one_thread
from elsewhere.reproduction.workers import count_workers
from elsewhere.stimuli import Grid
from elsewhere.training import replace_head
from elsewhere.training.loop import start_model
from elsewhere.training.resolution import log_spaced

_STEPS = 4
_TEST_ROWS = 16
_START_SECONDS = 4.0  # a process imports torch


@dataclass(frozen=True)
class ReproductionPlan:
    """What a reproduction would cost.

    Parameters
    ----------
    scale
        Its name.
    seeds, runs, steps
        How many, and steps of training of all seeds together, at most.
    workers
        Processes.
    step_seconds, image_seconds
        Of one step of training, and of one image tested, as timed.
    seconds
        In all, about.
    disk_bytes
        Of the checkpoints, at most.
    """

    scale: str
    seeds: int
    runs: int
    steps: int
    workers: int
    step_seconds: float
    image_seconds: float
    seconds: float
    disk_bytes: int


def plan(
    scale: str | Scale,
    *,
    seeds: int = 1,
    workers: int | None = None,
    device: str = "auto",
    confounds: bool = False,
    imagenet_weights: str | None = None,
    max_steps: int | None = None,
) -> ReproductionPlan:
    """Return what :func:`reproduce` would cost with the same arguments; a few steps are timed.

    Raises
    ------
    UnknownNameError
        No such scale.
    InputError
        Arguments that cannot be used.
    """
    chosen, runs = Options(confounds, imagenet_weights, max_steps).apply(find_scale(scale))
    count = len(seed_numbers(seeds, 0))
    place = find_device(device)
    processes = count_workers(workers, place.type, len(runs) * count)
    steps = sum(run.n_steps for run in runs)
    batch = chosen.pretraining[0].batch
    with one_thread():
        model = start_model(runs[0].curriculum(0))
        model = replace_head(model, 10, seed=0)
        per_step, per_image = _time(model, chosen.canvas.size, batch, place)
    size = sum(value.numel() * value.element_size() for value in model.module.state_dict().values())
    n_images = sum(_images(run, chosen) for run in runs)
    work = steps * per_step + n_images * per_image
    # a branch of one seed cannot be cut further: the pretraining and then what follows
    chain = max(run.n_steps for run in runs) * per_step + work / (2 * len(runs))
    seconds = max(chain, count * work / processes) + _START_SECONDS
    kept = sum(_checkpoints(run) for run in runs) + 2 * len(runs)
    return ReproductionPlan(
        scale=chosen.name,
        seeds=count,
        runs=len(runs) * count,
        steps=steps * count,
        workers=processes,
        step_seconds=per_step,
        image_seconds=per_image,
        seconds=seconds,
        disk_bytes=kept * size * count,
    )


def _time(model: Model, size: int, batch: int, device: torch.device) -> tuple[float, float]:
    """Return the seconds of a step and of a tested image."""
    network: nn.Module = model.to(device).module
    layout = torch.channels_last if device.type == "cpu" else torch.contiguous_format
    network.to(memory_format=layout)
    images = torch.zeros((batch, 3, size, size), device=device).to(memory_format=layout)
    labels = torch.zeros(batch, dtype=torch.int64, device=device)
    optimiser = torch.optim.Adam(network.parameters(), 1e-6, fused=True)

    def step() -> None:
        functional.cross_entropy(network(images), labels).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    def test() -> None:
        with torch.inference_mode():
            network(images[:_TEST_ROWS])

    return _seconds(step, device), _seconds(test, device) / min(_TEST_ROWS, batch)


def _seconds(act: object, device: torch.device) -> float:
    """Return the median time of a call, after one that is not counted."""
    times = []
    for _ in range(_STEPS + 1):
        began = time.perf_counter()
        act()  # type: ignore[operator]
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - began)
    return sorted(times[1:])[_STEPS // 2]


def _images(run: Run, scale: Scale) -> int:
    """Return about how many images are tested after a run."""
    places = len(Grid.parse(scale.grid, run.canvas)) + 1
    unseen = 24 * places
    if run.kind == "pretraining":
        return scale.track_checkpoints * unseen
    tested = 2 * 10 * scale.per_category * places
    if run.kind == "learning":
        return len(run.phases) * tested + (4 * len(scale.unseen) * unseen if run.compare else 0)
    old = 3 * 2 * scale.old_categories * scale.old_exemplars * places
    return _checkpoints(run) * (tested + unseen) + old


def _checkpoints(run: Run) -> int:
    """Return how many checkpoints a run keeps, at most."""
    kept = 0
    for phase in run.phases:
        steps = phase.n_steps(0)
        given = phase.checkpoints
        kept += len(log_spaced(steps, given)) if isinstance(given, int) else len(given)
        kept += phase.criterion is not None
    return kept
