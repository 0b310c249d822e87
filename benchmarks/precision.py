"""What lower precisions cost in accuracy, layer by layer, and what they save.

    python -m benchmarks.precision [--device cuda] [--model vgg16] [--canvas 224] [--grid 3x3]
        [--precision bfloat16 ...]

For every layer: the largest difference of its values from float32, as a share of its largest value,
of whole canvases in each precision; in the end the seconds of a pass over those of float32.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import torch

from benchmarks.device import median_seconds
from elsewhere.measures.vectors import to_numpy
from elsewhere.models import find_device, load_model
from elsewhere.models.forward import computing
from elsewhere.protocols import Block, Design, Layer, Need, Sink
from elsewhere.recording import Sweep
from elsewhere.stimuli import Canvas, load_objects


class Values(Sink):
    """Keeps whole activations of some layers."""

    def __init__(self) -> None:
        self.found: dict[str, list[np.ndarray[Any, Any]]] = {}

    def needs(self, layer: Layer) -> tuple[Need, ...]:
        """Return all of them."""
        return (Need("full", frozenset({"grid"})),)

    def held(self, layer: Layer, design: Design, parts: int = 1) -> float:
        """Return 0: few images are shown."""
        return 0.0

    def add(self, block: Block) -> None:
        """Keep a copy."""
        self.found.setdefault(block.layer, []).append(np.array(to_numpy(block.full())))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--model", default="vgg16")
    parser.add_argument("--canvas", type=int, default=224)
    parser.add_argument("--grid", default="3x2")
    parser.add_argument("--objects", type=int, default=3)
    parser.add_argument("--precision", nargs="+", default=["bfloat16"])
    options = parser.parse_args()
    device = find_device(options.device)
    model = load_model(options.model).to(device)
    side = max(1, round(options.canvas * 50 / 224))
    canvas = Canvas(options.canvas, side)
    objects = load_objects("glyphs", size=side, categories=options.objects)
    values, seconds = {}, {}
    rows = 64 if device.type == "cuda" else 8
    images = torch.rand(rows, 3, options.canvas, options.canvas, device=device)
    for precision in ("float32", *options.precision):
        sink = Values()
        Sweep(
            model, objects, canvas=canvas, grid=options.grid, layers="*", engine="dense",
            precision=precision,  # type: ignore[arg-type]
        ).stream([sink])  # fmt: skip
        values[precision] = {name: np.concatenate(found) for name, found in sink.found.items()}
        with torch.inference_mode(), computing(device, precision):  # type: ignore[arg-type]
            seconds[precision] = median_seconds(
                lambda: model.module(images), device, each=1, most=5, seconds=5
            )
    print(f"{options.model}, {options.canvas} px, {device}, torch {torch.__version__}")
    print("| layer | " + " | ".join(options.precision) + " |")
    print("| --- |" + " ---: |" * len(options.precision))
    for name, plain in values["float32"].items():
        largest = float(np.abs(plain).max())
        shares = [np.abs(values[p][name] - plain).max() / largest for p in options.precision]
        print(f"| {name} | " + " | ".join(f"{share:.1e}" for share in shares) + " |")
    ratios = [seconds[precision] / seconds["float32"] for precision in options.precision]
    print("| seconds of a pass | " + " | ".join(f"{ratio:.2f}" for ratio in ratios) + " |")


if __name__ == "__main__":
    main()
