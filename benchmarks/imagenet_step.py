"""What a step of all weights costs over a plain loop of torch, at 224 px.

Run ``python -m benchmarks.imagenet_step`` (with the extra ``imagenet``; ``--network resnet18``
needs none). Training is that of the scale ``imagenet`` with all weights: drawing, pasting, metrics
and updates of the package, from one update to the next, against forward, backward and update of the
same network on batches that lie ready. Both take turns on one thread, and processor time is
compared, which other work on the machine changes less than time. The goal is 1.15 at most; tests
and checkpoints come beside the steps and are not in it. Then the same for a head alone.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn import functional

from elsewhere.models import load_model
from elsewhere.models.machine import using_threads
from elsewhere.training import Curriculum, load_curriculum, train

Times = list[float]


class _EnoughError(Exception):
    """All steps that are wanted are done."""


@contextmanager
def updates(count: int) -> Iterator[Times]:
    """Give the list of processor times at which Adam has updated weights, s; so many end it."""
    times: Times = []
    step: Callable[..., Any] = torch.optim.Adam.step

    def timed(*given: Any, **options: Any) -> Any:
        made = step(*given, **options)
        times.append(time.process_time())
        if len(times) == count:
            raise _EnoughError
        return made

    torch.optim.Adam.step = timed  # type: ignore[method-assign]
    try:
        with contextlib.suppress(_EnoughError):
            yield times
    finally:
        torch.optim.Adam.step = step  # type: ignore[method-assign]


def between(times: Times) -> Times:
    """Return what lies between updates, without the first two, in which memory is made."""
    return [after - before for before, after in itertools.pairwise(times[2:])]


def make(network: str, steps: int, batch: int, *, head: bool) -> Curriculum:
    """Return the training whose steps are timed, from random weights."""
    name = "imagenet/random-own" if head else "imagenet/random-all"
    curriculum = load_curriculum(name)
    phase = dataclasses.replace(
        curriculum.phases[0], objects="glyphs", steps=steps, batch=batch, criterion=None
    )
    own = curriculum.network
    if network != own.name:
        own = dataclasses.replace(own, name=network, arguments={}, input=None)
    return dataclasses.replace(curriculum, network=own, phases=(phase,))


def package(curriculum: Curriculum) -> Times:
    """Return seconds of steps of the package."""
    with tempfile.TemporaryDirectory() as folder, updates(curriculum.phases[0].n_steps(0)) as times:
        train(curriculum, folder, device="cpu", threads=1)
    return between(times)


def plain(curriculum: Curriculum) -> Times:
    """Return seconds of steps of a plain loop that trains all weights."""
    phase, size = curriculum.phases[0], curriculum.canvas.size
    network = load_model(curriculum.network.name).module.train()
    network.to(memory_format=torch.channels_last)
    optimiser = torch.optim.Adam(network.parameters(), 1e-6, fused=True)
    images = torch.rand((phase.batch, 3, size, size)).to(memory_format=torch.channels_last)
    labels = torch.arange(phase.batch) % 10
    with using_threads(1), updates(phase.n_steps(0)) as times:
        for _ in range(phase.n_steps(0)):
            loss = functional.cross_entropy(network(images), labels)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
    return between(times)


def main() -> None:
    """Print both times and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", default="efficientnet-lite0")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--turns", type=int, default=1)
    given = parser.parse_args()
    curriculum = make(given.network, given.steps, given.batch, head=False)
    ours: Times = []
    theirs: Times = []
    for _ in range(given.turns):
        ours += package(curriculum)
        theirs += plain(curriculum)
    here, there = statistics.median(ours), statistics.median(theirs)
    print(f"all weights: {here:.3f} s a step, plain loop {there:.3f}, ratio {here / there:.2f}")
    steps = max(given.steps, -(-100 // given.batch))  # a table needs each exemplar once
    alone = statistics.median(package(make(given.network, steps, given.batch, head=True)))
    print(f"a head alone: {alone:.4f} s a step, {alone / there:.3f} of a plain step of all weights")


if __name__ == "__main__":
    main()
