"""Every architecture of torchvision, and the smallest of every family of timm, by one routine.

    python -m benchmarks.zoo --source torchvision|timm [--out FILE.csv] [--names A,B]
                             [--limit 1500] [--canvas 128] [--threads 2]

Of each network, its layers are listed. Some, spread over its depth, are recorded by the engine that
`auto` takes, and compared with what plain hooks see of the same canvases. Aligned cosines and
Grad-CAM are asked for. Weights are random, drawn so that they keep the signal. Canvases have 128 px
where the network takes these, else its own side. Each network runs in a process of its own with a
limit in seconds, small ones first; the table is written row by row, and networks that stand in it
are not run again.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import importlib
import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from elsewhere.analyzer import measure
from elsewhere.analyzer.attribution.batches import Batch
from elsewhere.analyzer.attribution.explain import Explainer
from elsewhere.analyzer.attribution.targets import parse_target
from elsewhere.errors import ElsewhereError
from elsewhere.models import Layer, Model, list_layers, load_model, output_tensors
from elsewhere.models.names import torchvision_names
from elsewhere.recording import Sweep, record
from elsewhere.stimuli import Canvas, Grid, load_objects
from elsewhere.storage import open_recording

COLUMNS = (
    *("network", "parameters", "canvas", "layers", "maps", "tokens", "unknown", "recorded"),
    *("engine", "difference", "float32", "aligned", "grad_cam", "seconds", "failure"),
)
EQUAL = 1e-5
"""The largest difference that passes. Of larger ones the table also holds, as `float32`, by how
much plain hooks in float32 differ from the same in float64."""
FORK = multiprocessing.get_context("fork")
MOST_LAYERS = 12
"""Layers that are recorded of a network."""
SHARE = 50 / 224
"""Side of an object, of the canvas."""
MOVE = 32
"""By how many px an object moves: a whole number of cells of most layers."""


def redraw(network: nn.Module, canvas: int) -> None:
    """Draw weights that keep the signal: Kaiming's, biases, and statistics as they are measured.

    What is made to be zero at first (scales of branches, heads) would leave nothing to compare.
    """
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for part in network.modules():
            if isinstance(part, nn.Conv1d | nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(part.weight, nonlinearity="linear", generator=generator)
        for value in network.parameters():
            if value.ndim < 2 and not value.abs().max() > 1e-3:
                value.uniform_(0.1, 0.3, generator=generator)
            elif not value.any():
                value.normal_(0, 0.02, generator=generator)
    norms = [
        part for part in network.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)
    ]
    for part in norms:
        part.reset_running_stats()
        part.momentum = None
        part.train()
    if norms:
        with torch.no_grad():
            network(torch.randn(4, 3, canvas, canvas, generator=generator))
    network.eval()


def load(source: str, name: str, canvas: int) -> tuple[Model, int]:
    """Return a network with random weights, and the side of the canvas that it takes, px."""
    torch.manual_seed(0)
    model = load_model(name if source == "torchvision" else f"timm:{name}", seed=0)
    for side in (canvas, model.canvas_size):
        try:
            with torch.no_grad():
                model.module(torch.zeros(1, 3, side, side))
        except Exception:  # any network, any complaint about a canvas that is not its own
            if side == model.canvas_size:
                raise
            continue
        break
    redraw(model.module, side)
    return model, side


def sweep_of(model: Model, side: int, layers: Sequence[Layer]) -> Sweep:
    """Return a sweep of three objects at three places, of some of the layers."""
    size = max(8, round(SHARE * side))
    canvas = Canvas(side, size, background=(124, 116, 104))
    left = size // 2 + 8
    grid = Grid([side // 2], [left, left + MOVE, left + 2 * MOVE])
    if left + 2 * MOVE + size > side:
        grid = Grid([side // 2], [left, left + MOVE])
    objects = load_objects("novel", size=size, categories=3)
    names = [layer.name for layer in layers]
    return Sweep(model, objects, canvas=canvas, grid=grid, layers=names)


def spread(layers: Sequence[Layer]) -> list[Layer]:
    """Return some layers, spread evenly from the first to the last; the classes' among them."""
    places = np.unique(np.linspace(0, len(layers) - 1, MOST_LAYERS).round().astype(int))
    return [layers[place] for place in places]


def pasted(sweep: Sweep) -> Iterator[NDArray[np.float64]]:
    """Yield the canvases of a sweep, object by object, place by place, without the package."""
    size, side = sweep.canvas.size, sweep.canvas.object_size
    for image, mask in zip(sweep.objects.images, sweep.objects.masks, strict=True):
        share = mask[..., None] / 255.0
        for x in sweep.grid.x:
            canvas = np.empty((size, size, 3))
            canvas[:] = sweep.color
            patch = np.floor(image * share + np.array(sweep.color) * (1 - share) + 0.5)
            top, left = sweep.grid.y[0] - side // 2, x - side // 2
            canvas[top : top + side, left : left + side] = patch
            yield canvas


def plain(sweep: Sweep, dtype: torch.dtype) -> dict[str, NDArray[np.float64]]:
    """Return what hooks of plain torch see of a sweep's canvases, (image, ...) of each layer."""
    transform, module = sweep.model.transform, sweep.model.module.to(dtype)
    modules = dict(module.named_modules())
    calls: dict[str, int] = {}
    seen: dict[str, list[NDArray[np.float64]]] = {layer.name: [] for layer in sweep.layers}

    def hook(name: str) -> Any:
        def keep(_: nn.Module, __: Any, output: object) -> None:
            call = calls[name] = calls.get(name, -1) + 1
            for layer in sweep.layers:
                if (layer.module, layer.call) == (name, call):
                    tensor = output_tensors(output)[layer.output]
                    seen[layer.name].append(tensor[0].detach().double().clone().numpy())

        return keep

    names = {layer.module for layer in sweep.layers}
    handles = [modules[name].register_forward_hook(hook(name)) for name in names]
    for canvas in pasted(sweep):
        values = (canvas / 255.0 - transform.mean) / transform.std * transform.gain
        if transform.channels == "bgr":
            values = values[..., ::-1]
        calls.clear()
        with torch.no_grad():
            given = values.transpose(2, 0, 1)[None].astype(np.float32)
            module(torch.from_numpy(given.copy()).to(dtype))
    for handle in handles:
        handle.remove()
    return {name: np.array(values) for name, values in seen.items()}


def difference(
    found: Mapping[str, NDArray[np.float64]], right: Mapping[str, NDArray[np.float64]]
) -> float:
    """Return by how much values differ at most, as a share of a layer's largest."""
    shares = [
        np.abs(values - right[name]).max() / max(np.abs(values).max(), 1e-30)
        for name, values in found.items()
    ]
    return float(max(shares))


def ask_aligned(source: Any) -> str:
    """Return how many layers have an aligned cosine, or why none has, in a line."""
    try:
        result = measure(source, names=["aligned"])
    except ElsewhereError as error:
        return f"refused: {error}"
    finite = int(np.isfinite(result["aligned_away"].values).sum())
    return f"{finite} of {result.sizes['layer']} layers"


def ask_grad_cam(model: Model, side: int, layers: Sequence[Layer]) -> str:
    """Return the last layer with a Grad-CAM, or why the last with a map has none, in a line."""
    maps = [layer for layer in layers if layer.is_map and layer.stride is not None]
    maps = [layer for layer in maps if layer.beside is not True]
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(1, 3, side, side, generator=generator)
    with torch.no_grad():  # a class that the images speak for: a silent one has no gradient
        answer = next(iter(output_tensors(model.module(images)).values()))
    target = parse_target(f"logit:{int(answer[0].argmax())}")
    said = "refused: no layer is a map with a place on the canvas"
    for layer in maps[::-1][:8]:
        try:
            explainer = Explainer(
                model,
                canvas_size=side,
                object_size=round(SHARE * side),
                method="grad-cam",
                target=target,
                layer=layer.name,
                options={"relu_attributions": False},
            )
            found = explainer.maps(Batch(images, images, [(0, 0)], [0]))
        except ElsewhereError as error:
            said = f"refused: {error}"
            continue
        if bool(found.any()):
            return layer.name
        said = f"empty at {layer.name}"
    return said


def examine(source: str, name: str, canvas: int) -> dict[str, Any]:
    """Return a network's row."""
    row: dict[str, Any] = {"network": name}
    begin = time.perf_counter()
    stage = "building"
    try:
        model, side = load(source, name, canvas)
        row |= {
            "parameters": sum(value.numel() for value in model.module.parameters()),
            "canvas": side,
        }
        stage = "listing layers"
        layers = [layer for layer in list_layers(model, side) if layer.kind != "Identity"]
        row |= {
            "layers": len(layers),
            "maps": sum(len(layer.shape) == 3 and layer.is_map for layer in layers),
            "tokens": sum(layer.has_grid for layer in layers),
            "unknown": sum(len(layer.shape) > 1 and not layer.is_map for layer in layers),
        }
        stage = "recording"
        sweep = sweep_of(model, side, spread(layers))
        row |= {"recorded": len(sweep.layers), "engine": sweep.choice.name}
        with tempfile.TemporaryDirectory() as folder:
            path = record(sweep, Path(folder) / "run.h5")
            with open_recording(path) as recording:
                stage = "comparing"
                hooks = plain(sweep, torch.float32)
                kept = {
                    name: recording[name].values[:, 0].reshape(values.shape).astype(float)
                    for name, values in hooks.items()
                }
                off = difference(kept, hooks)
                row["difference"] = f"{off:.1e}"
                stage = "aligned"
                row["aligned"] = ask_aligned(recording)
        stage = "grad-cam"
        row["grad_cam"] = ask_grad_cam(model, side, layers)
        if off > EQUAL:
            with contextlib.suppress(Exception):  # some networks hold float32 fast
                row["float32"] = f"{difference(hooks, plain(sweep, torch.float64)):.1e}"
    except Exception as error:  # whatever it is, it is the row's
        said = " ".join(str(error).split())
        row["failure"] = f"{stage}: {type(error).__name__}: {said}"[:400]
    row["seconds"] = round(time.perf_counter() - begin, 1)
    return row


# --- which networks, each in a process of its own


def smallest_of(source: str, kept: Path) -> list[str]:
    """Return the network with the fewest parameters of each family, small ones first.

    A family is a module of timm; of torchvision each network is its own. Networks are built on the
    meta device, without memory. What was found of a family is `kept` in a file at once, and not
    looked for again.
    """
    found: dict[str, list[Any]] = json.loads(kept.read_text()) if kept.is_file() else {}
    if source == "timm":
        timm: Any = importlib.import_module("timm")
        families = {name: timm.list_models(module=name) for name in timm.list_modules()}
        build = timm.create_model
    else:
        families = {name: [name] for name in torchvision_names()}
        build = importlib.import_module("torchvision.models").get_model
    for family, names in families.items():
        if family in found:
            continue
        counts = [count for name in names if (count := count_of(build, name))]
        found[family] = min(counts, default=[0, ""])
        print(f"{family}: {found[family]}", file=sys.stderr, flush=True)
        kept.write_text(json.dumps(found, indent=0) + "\n")
    return [name for _, name in sorted(found.values()) if name]


def count_of(build: Callable[[str], nn.Module], name: str) -> list[Any] | None:
    """Return a network's parameters and its name; None where it cannot be built."""
    with contextlib.suppress(Exception), torch.device("meta"):
        return [sum(value.numel() for value in build(name).parameters()), name]
    return None


def run_apart(asked: argparse.Namespace, name: str) -> dict[str, Any]:
    """Return the row of a network from a process of its own; one that takes too long is ended.

    The process is forked, so that nothing is imported anew. Neither torch nor anything else runs
    threads in this one.
    """
    begin = time.perf_counter()
    receive, send = FORK.Pipe(duplex=False)
    child = FORK.Process(target=_answer, args=(send, asked, name))
    child.start()
    send.close()
    in_time = receive.poll(asked.limit)
    with contextlib.suppress(EOFError):
        if in_time:
            row: dict[str, Any] = receive.recv()
            child.join()
            return row
    if not in_time:
        child.kill()
    child.join()
    why = f"the process ended with {child.exitcode}"
    why = why if in_time else f"not done within {asked.limit:g} s"
    return {"network": name, "failure": why, "seconds": round(time.perf_counter() - begin, 1)}


def _answer(send: Any, asked: argparse.Namespace, name: str) -> None:
    torch.set_num_threads(asked.threads)
    send.send(examine(asked.source, name, asked.canvas))


def summary(rows: Sequence[dict[str, str]]) -> str:
    """Return how many networks went through, in a line."""
    done = [row for row in rows if not row["failure"]]
    equal = sum(float(row["difference"]) <= EQUAL for row in done)
    aligned = sum(not row["aligned"].startswith(("refused", "0 of")) for row in done)
    cam = sum(not row["grad_cam"].startswith(("refused", "empty")) for row in done)
    share = len(done) / max(len(rows), 1)
    return (
        f"{len(done)} of {len(rows)} networks ({share:.1%}); of these {equal} equal plain hooks "
        f"within 1e-5, {aligned} have aligned cosines and {cam} a Grad-CAM"
    )


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", choices=("torchvision", "timm"), required=True)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--names")
    parser.add_argument("--limit", type=float, default=1500)
    parser.add_argument("--canvas", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    out = asked.out or Path(f"docs/data/zoo-{asked.source}.csv")
    kept = out.with_suffix(".names.json")  # which docs/make_zoo.py counts
    names = asked.names.split(",") if asked.names else smallest_of(asked.source, kept)
    for needed in ("torchvision", "scipy.stats", "scipy.fftpack", "dask.array", asked.source):
        importlib.import_module(needed)  # before processes are forked, which then have it
    rows: list[dict[str, str]] = []
    if out.is_file():
        with out.open(newline="") as file:
            rows = list(csv.DictReader(file))
    there = {row["network"] for row in rows}
    for name in names:
        if name in there:
            continue
        row = run_apart(asked, name)
        rows.append({column: str(row.get(column, "")) for column in COLUMNS})
        print(json.dumps(row), flush=True)
        with tempfile.NamedTemporaryFile(
            "w", newline="", dir=out.parent, suffix=".part", delete=False
        ) as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(sorted(rows, key=lambda each: each["network"]))
        Path(file.name).replace(out)
    print(summary(rows))


if __name__ == "__main__":
    main()
