"""What a reproduction would cost: time and disk, from a few timed steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from elsewhere.models import find_device
from elsewhere.models.forward import arrange, computing, trains_channels_last
from elsewhere.models.machine import using_threads
from elsewhere.recording.workers import Workers, devices_of
from elsewhere.reproduction.conditions import Run
from elsewhere.reproduction.disk import blank_model, count_checkpoints, disk_bytes
from elsewhere.reproduction.layers import check_layers
from elsewhere.reproduction.run import Options, find_scale, seed_numbers
from elsewhere.reproduction.scale import Scale
from elsewhere.reproduction.workers import choose_workers
from elsewhere.stimuli import Grid
from elsewhere.training.batches import PRESENTATIONS
from elsewhere.training.probe import LEAST

_STEPS = 4
_TEST_ROWS = 16
_SLOW_SECONDS = 0.5  # of a step with few rows: then all rows are not timed
_FEW_ROWS = 4
_EARLY = 0.4
_START_SECONDS = 4.0  # a process imports torch


@dataclass(frozen=True)
class ReproductionPlan:
    """What a reproduction would cost."""

    scale: str
    seeds: int
    runs: int
    steps: int  # of training, of all seeds together, at most
    workers: int
    step_seconds: float  # of one step of training, as timed
    image_seconds: float  # of one image tested, as timed
    seconds: float  # in all, about
    disk_bytes: int  # of the checkpoints, at most


def plan(
    scale: str | Path | Scale,
    *,
    seeds: int = 1,
    workers: Workers | None = None,
    device: str = "auto",
    confounds: bool = False,
    imagenet_weights: str | None = None,
    state_key: str | None = None,
    max_steps: int | None = None,
    trust: Collection[str] = (),
) -> ReproductionPlan:
    """Return what :func:`reproduce` would cost with the same arguments; a few steps are timed.

    Raises
    ------
    UnknownNameError
        No such scale.
    InputError
        Arguments that cannot be used.
    """
    find_device(device)  # refused before networks are built
    options = Options(confounds, imagenet_weights, max_steps, state_key)
    chosen, runs = options.apply(find_scale(scale, trust))
    count = len(seed_numbers(seeds, 0))
    return plan_runs(chosen, runs, count, workers=workers, device=device)


def plan_runs(
    chosen: Scale,
    runs: Sequence[Run],
    count: int,
    *,
    workers: Workers | None = None,
    device: str = "auto",
) -> ReproductionPlan:
    """Return what `count` seeds of these runs would cost.

    Raises
    ------
    InputError
        The layers that the claims are about, or the head, cannot be found.
    """
    place = find_device(device)
    check_layers(chosen, runs[0])
    spread = choose_workers(workers, str(place), len(runs) * count)
    processes = len(devices_of(spread))
    n_devices = 1 if isinstance(spread, int) else len(set(spread))
    steps = sum(run.n_steps for run in runs)
    timed: dict[tuple[str, int], _Times] = {}
    with using_threads(1):
        for run in runs:
            system = (run.network.name, run.canvas.size)
            if system not in timed:
                timed[system] = _time(run, _batch(chosen), place)
    costs = [_cost(run, chosen, timed[run.network.name, run.canvas.size]) for run in runs]
    work, first = sum(costs), timed[chosen.network.name, chosen.canvas.size]
    # the tasks of one seed cannot be cut: the longest one, and about half a task after it
    # a GPU computes for all its processes in turn
    share = processes if place.type == "cpu" else n_devices
    seconds = max(max(costs) + work / (2 * len(runs)), count * work / share) + _START_SECONDS
    return ReproductionPlan(
        scale=chosen.name,
        seeds=count,
        runs=len(runs) * count,
        steps=steps * count,
        workers=processes,
        step_seconds=first.step,
        image_seconds=first.image,
        seconds=seconds,
        disk_bytes=disk_bytes(runs) * count,
    )


@dataclass(frozen=True)
class _Times:
    """Seconds of a step and of a tested image."""

    step: float
    image: float


def _cost(run: Run, scale: Scale, times: _Times) -> float:
    steps, shown = 0.0, 0.0
    for phase in run.phases:  # most phases with a criterion meet it in less than half their steps
        early = phase.criterion is not None and phase.criterion.stop
        if scale.question == "imagenet" and "all" not in phase.trainable:
            # the frozen layers run for exemplars, for the test beside, and for statistics
            shown += 10 * phase.exemplars.train + 2 * LEAST
            shown += 3 * PRESENTATIONS if run.network.random else 0  # a pass of batches is slower
            continue
        share = phase.batch / _batch(scale)  # of a step that is timed
        steps += phase.n_steps(0) * (_EARLY if early else 1) * share
    return steps * times.step + (shown + _images(run, scale)) * times.image


def _batch(scale: Scale) -> int:
    """Return how many rows a step has that is timed."""
    return (*scale.pretraining, *scale.learning)[0].batch


def _time(run: Run, batch: int, device: torch.device) -> _Times:
    network: nn.Module = blank_model(run).to(device).module
    precision = run.phases[0].precision or run.network.precision
    last = trains_channels_last(network, device, precision)
    layout = torch.channels_last if last else torch.contiguous_format
    arrange(network, layout)
    optimiser = torch.optim.Adam(network.parameters(), 1e-6, fused=True)
    generator = torch.Generator().manual_seed(0)
    side = run.canvas.size
    images = torch.rand((batch, 3, side, side), generator=generator).to(device)
    images = images.to(memory_format=layout)
    labels = torch.zeros(batch, dtype=torch.int64, device=device)

    def step(rows: int) -> None:
        with computing(device, precision):
            logits = network(images[:rows])
        loss = functional.cross_entropy(logits.float(), labels[:rows])
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    def test() -> None:
        with torch.inference_mode():
            network(images[:_TEST_ROWS])

    few = min(_FEW_ROWS, batch)
    seconds = _seconds(lambda: step(few), device, repeats=1)
    if seconds < _SLOW_SECONDS:
        seconds = _seconds(lambda: step(batch), device)
    else:
        seconds *= batch / few
    rows = min(_TEST_ROWS, batch)
    return _Times(seconds, _seconds(test, device, repeats=2) / rows)


def _seconds(act: Callable[[], None], device: torch.device, *, repeats: int = _STEPS) -> float:
    """Return the median time of a call, after one that is not counted.

    On a CPU it is the processor's time, of one thread: other work on the machine does not count.
    """
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    times = []
    for _ in range(repeats + 1):
        began = clock()
        act()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(clock() - began)
    return sorted(times[1:])[repeats // 2]


def _images(run: Run, scale: Scale) -> int:
    """Return about how many images are tested after a run."""
    places = len(Grid.parse(scale.grid, run.canvas)) + 1
    unseen = 24 * places
    if run.kind == "pretraining":
        return scale.track_checkpoints * unseen
    tested = 2 * 10 * scale.per_category * places
    if run.kind == "learning":
        return len(run.phases) * tested + (4 * len(scale.unseen) * unseen if run.compare else 0)
    places = len(Grid.parse(scale.old_grid, run.canvas)) + 1
    old = 3 * 2 * scale.old_categories * scale.old_exemplars * places
    return count_checkpoints(run) * (tested + unseen) + old
