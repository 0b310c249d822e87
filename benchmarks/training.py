"""What training costs beside the network's own arithmetic.

Run ``python benchmarks/training.py``. A whole phase (placing, metrics, probes, checkpoints, the
state of the run) is timed against bare forward, backward and update of the same network on images
that lie ready, on one thread, in interleaved pairs of equal steps; the median ratio is the result.
The goal is 1.10 at most.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from torch.nn import functional

from elsewhere.models import load_model
from elsewhere.stimuli import Canvas
from elsewhere.training import Curriculum, Exemplars, Network, Phase, train

BLOCK = 50


def make_curriculum(steps: int, hidden: int) -> Curriculum:
    """Return the pretraining of the laptop scale."""
    phase = Phase(
        "pretrain",
        "glyphs",
        categories=100,
        exemplars=Exemplars(train=20, held_out=4),
        environment="full",
        steps=steps,
        learning_rate=3e-3,
        schedule="one-cycle",
    )
    network = Network("small-cnn", arguments={"hidden": hidden, "dropout": 0.25}, gain=6.0)
    return Curriculum("benchmark", network, Canvas(48, 11), (phase,))


class Bare:
    """Forward, backward and update, and nothing else."""

    def __init__(self, curriculum: Curriculum) -> None:
        arguments = dict(curriculum.network.arguments) | {"num_classes": 100}
        self.network = load_model("small-cnn", model_args=arguments).module.train()
        self.network.to(memory_format=torch.channels_last)
        self.optimiser = torch.optim.Adam(self.network.parameters(), 1e-4, fused=True)
        images = torch.rand(32, 3, 48, 48) * (torch.rand(32, 1, 48, 48) < 0.03)
        self.images = (images * 6).contiguous(memory_format=torch.channels_last)
        self.labels = torch.randint(100, (32,))

    def seconds(self, steps: int) -> float:
        """Return how long `steps` steps take."""
        began = time.perf_counter()
        for _ in range(steps):
            loss = functional.cross_entropy(self.network(self.images), self.labels)
            loss.backward()
            self.optimiser.step()
            self.optimiser.zero_grad(set_to_none=True)
        return time.perf_counter() - began


def measure(steps: int, hidden: int) -> list[float]:
    """Return, for every block of steps, the time of training over that of the bare steps."""
    curriculum = make_curriculum(steps, hidden)
    bare = Bare(curriculum)
    bare.seconds(BLOCK)
    ratios: list[float] = []
    began = 0.0

    def pair(report: object) -> None:
        # called at the end of each block's tests, so that nothing of training is left out
        nonlocal began
        step = report.step  # type: ignore[attr-defined]
        if step % BLOCK == 0:
            whole = time.perf_counter() - began
            if step > 0:
                ratios.append(whole / bare.seconds(BLOCK))
            began = time.perf_counter()

    with tempfile.TemporaryDirectory() as folder:
        train(curriculum, Path(folder) / "run", device="cpu", progress=pair)
    return ratios


def main() -> None:
    """Print the median ratio and its spread."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--hidden", type=int, default=256)
    options = parser.parse_args()
    torch.set_num_threads(1)
    ratios = measure(options.steps, options.hidden)
    low, middle, high = statistics.quantiles(ratios, n=4)
    mean = statistics.fmean(ratios)
    print(
        f"training / bare steps: median {middle:.3f} (quartiles {low:.3f} to {high:.3f}), "
        f"mean {mean:.3f}, {len(ratios)} blocks of {BLOCK} steps"
    )


if __name__ == "__main__":
    main()
