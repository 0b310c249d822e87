"""What training costs beside the network's own arithmetic.

Run ``python benchmarks/training.py``. A whole phase (drawing, placing, metrics, probes,
checkpoints, the state of the run) is timed against forward, backward and update of the same
network on one batch that lies ready, on one thread, in interleaved blocks of equal steps. Two
ratios are printed: to the same forward pass (the first blocks on tiles; the goal is 1.10 at
most), and to the plain one on whole canvases.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from torch.nn import functional

from elsewhere.models import InputTransform, load_model
from elsewhere.models.forward import Paster
from elsewhere.stimuli import Canvas, load_objects
from elsewhere.training import Curriculum, Exemplars, Network, Phase, Report, train
from elsewhere.training.windows import make_forward

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

    def __init__(self, curriculum: Curriculum, *, tiled: bool) -> None:
        arguments = dict(curriculum.network.arguments) | {"num_classes": 100}
        self.network = load_model("small-cnn", model_args=arguments).module.train()
        self.network.to(memory_format=torch.channels_last)
        self.optimiser = torch.optim.Adam(self.network.parameters(), 1e-4, fused=True)
        self.labels = torch.randint(100, (32,))
        canvas, cpu = curriculum.canvas, torch.device("cpu")
        paster = Paster(canvas, InputTransform(gain=6.0), rows=32, device=cpu)
        patches = paster.load(load_objects("glyphs", size=11, categories=32))
        low, high = canvas.valid[0], canvas.valid[-1]
        places = torch.randint(low, high + 1, (32, 2))
        if tiled:
            forward = make_forward(self.network, paster, patches, training=True).forward
            self.forward = lambda: forward(patches, places)
        else:
            images = paster.paste(patches, places)
            self.forward = lambda: self.network(images)

    def seconds(self, steps: int) -> float:
        """Return how long `steps` steps take."""
        began = time.perf_counter()
        for _ in range(steps):
            functional.cross_entropy(self.forward(), self.labels).backward()
            self.optimiser.step()
            self.optimiser.zero_grad(set_to_none=True)
        return time.perf_counter() - began


def measure(steps: int, hidden: int) -> tuple[list[float], list[float]]:
    """Return, for every block of steps, training's time over that of either kind of bare steps."""
    curriculum = make_curriculum(steps, hidden)
    same, plain = (Bare(curriculum, tiled=tiled) for tiled in (True, False))
    for bare in (same, plain):
        bare.seconds(BLOCK)
    ratios: tuple[list[float], list[float]] = ([], [])
    began = 0.0

    def compare(report: Report) -> None:
        # called after each block's tests and checkpoints, so that nothing of training is left out
        nonlocal began
        if report.step % BLOCK == 0:
            whole = time.perf_counter() - began
            if report.step > 0:
                ratios[0].append(whole / same.seconds(BLOCK))
                ratios[1].append(whole / plain.seconds(BLOCK))
            began = time.perf_counter()

    with tempfile.TemporaryDirectory() as folder:
        train(curriculum, Path(folder) / "run", device="cpu", progress=compare)
    return ratios


def main() -> None:
    """Print the median ratio and its spread."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--hidden", type=int, default=256)
    options = parser.parse_args()
    torch.set_num_threads(1)
    pair = measure(options.steps, options.hidden)
    for name, ratios in zip(("same forward pass", "plain forward pass"), pair, strict=True):
        low, middle, high = statistics.quantiles(ratios, n=4)
        print(
            f"training / {name}: median {middle:.3f} (quartiles {low:.3f} to {high:.3f}), "
            f"mean {statistics.fmean(ratios):.3f}, {len(ratios)} blocks of {BLOCK} steps"
        )


if __name__ == "__main__":
    main()
