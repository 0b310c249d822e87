"""Occlusion by the incremental engine against whole passes, as ratios.

    python -m benchmarks.occlusion [--threads 1] [--model vgg16] [--objects glyphs] [--locations 3]

One object along the middle row of a 224 px canvas, occlusion with its default options, a class's
logit. Whole passes are timed on a coarser lattice, where both ways are compared as well, and
extrapolated by the number of windows that change anything, with which both fill their batches. On
a machine that others use, look at processor times.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from benchmarks.engine import Timed, disturb
from elsewhere.analyzer.attribution.batches import Batch
from elsewhere.analyzer.attribution.covering import Coverer, Windows, cover_images
from elsewhere.analyzer.attribution.explain import Explainer
from elsewhere.analyzer.attribution.frames import Scenes
from elsewhere.analyzer.attribution.targets import ClassTarget
from elsewhere.models import Model, load_model
from elsewhere.stimuli import Canvas, load_objects

COARSE = {"window": 25, "stride": 25}
"""A lattice of 16 windows, for whole passes."""


def make_explainer(model: Model, canvas: Canvas, batch: Batch, engine: Any, **options: int) -> Any:
    """Return occlusion of a logit by an engine."""
    explainer = Explainer(
        model,
        canvas_size=canvas.size,
        object_size=canvas.object_size,
        method="occlusion",
        target=ClassTarget("logit", "0"),
        options=options,
    )
    explainer.choose(engine, batch)
    return explainer


def clock(run: Callable[[], Any]) -> tuple[Any, Timed]:
    """Return what `run` returns, and the time it takes."""
    timed = Timed()
    with timed.add():
        found = run()
    return found, timed


def n_changing(explainer: Any, batch: Batch) -> float:
    """Return how many windows of an image change anything, on average."""
    lattice = explainer.method.lattice(explainer.options)
    scenes = cover_images(batch, explainer.object_size)
    return float(np.mean([np.prod(Windows.of(scene, lattice).shape) for scene in scenes]))


def measure(name: str, objects: str, locations: int) -> dict[str, object]:
    """Return a row of the table."""
    model = load_model(name)
    disturb(model.module)
    canvas = Canvas(224, 50)
    scenes = Scenes(model, load_objects(objects, size=50, categories=1), canvas)
    xs = np.linspace(canvas.valid[0], canvas.valid[-1], locations).astype(int)
    corners = scenes.corners([(112, int(x)) for x in xs])
    images = scenes.images(0, corners)
    batch = Batch(
        images, scenes.baseline("empty", images), corners, [0] * locations, plain=True
    )  # fmt: skip

    compiling = Timed()
    compiled = Coverer.compile

    def timed(*arguments: Any) -> Any:
        with compiling.add():
            return compiled(*arguments)

    coarse = make_explainer(model, canvas, batch, "dense", **COARSE)
    expected, dense = clock(lambda: coarse.maps(batch))
    same = make_explainer(model, canvas, batch, "incremental", **COARSE)
    difference = np.abs((same.maps(batch) - expected).numpy()).max()
    del same  # a copy of the network
    explainer, choosing = clock(lambda: make_explainer(model, canvas, batch, "auto"))
    Coverer.compile = timed  # type: ignore[method-assign, assignment]
    try:
        _, windows = clock(lambda: explainer.maps(batch))
    finally:
        Coverer.compile = compiled  # type: ignore[method-assign]
    many, few = n_changing(explainer, batch), n_changing(coarse, batch)
    whole = dense.processor * (many + 1) / (few + 1)
    return {
        "model": name,
        "objects": objects,
        "engine": str(explainer.choice),
        "windows that change anything": many,
        "whole passes s": whole,
        "windows s": windows.processor,
        "of which compiling s": compiling.processor,
        "choosing, once s": choosing.processor,
        "ratio": whole / windows.processor,
        "difference / maximum": difference / float(expected.abs().max()),
    }


def main() -> None:
    """Print the row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--model", default="vgg16")
    parser.add_argument("--objects", default="glyphs")
    parser.add_argument("--locations", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for key, value in measure(options.model, options.objects, options.locations).items():
        print(f"{key:>28}  {value:.3g}" if isinstance(value, float) else f"{key:>28}  {value}")


if __name__ == "__main__":
    main()
