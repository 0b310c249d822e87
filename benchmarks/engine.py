"""The incremental engine against dense sweeps, as ratios, and where its time goes.

    python -m benchmarks.engine [--threads 1] [--images 64] [--only vgg16-8,resnet50]
        [--objects 1] [--pairs 15]

prints the tables of docs/engine.md. Both engines do the same work in one run: the similarity of all
ReLU layers and the logits, from the network in memory to the result. Dense times are extrapolated
from at least 64 images. On a machine that others use, look at the ratio of processor times; with
several threads at that of wall times. The last table compares activations in memory, batch by
batch, in interleaved pairs.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torchvision.models.feature_extraction import create_feature_extractor

from benchmarks.ratios import Ratio, compare
from elsewhere.analyzer import SimilaritySink, similarity
from elsewhere.models import Model, list_layers, load_model, select_layers
from elsewhere.protocols import Need
from elsewhere.recording import Recorder, Sweep
from elsewhere.recording.engines.windows import WindowEngine
from elsewhere.recording.incremental import Incremental, reads
from elsewhere.recording.incremental import engine as engine_module
from elsewhere.stimuli import Canvas, Grid, load_objects
from elsewhere.types import BATCH_ROWS


@dataclass(frozen=True)
class Row:
    """A row of the table: a sweep, and the ratio that is wanted."""

    model: str
    goal: float
    stride: int = 8
    canvas: int = 224
    n_rows: int | None = None
    n_objects: int = 1


ROWS = {
    "vgg16-8": Row("vgg16", 8.0),
    "vgg16-7": Row("vgg16", 7.0, stride=7),
    "vgg16-1": Row("vgg16", 6.0, stride=1, n_rows=4),
    "vgg16-400": Row("vgg16", 20.0, canvas=400),
    "resnet50": Row("resnet50", 2.5),
    "googlenet": Row("googlenet", 2.5),
    "alexnet": Row("alexnet", 2.0),
    "densenet121": Row("densenet121", 1.7),
}


@dataclass
class Timed:
    """Wall and processor seconds."""

    wall: float = 0.0
    processor: float = 0.0

    @contextlib.contextmanager
    def add(self) -> Iterator[None]:
        """Add the time that the ``with`` block takes."""
        wall, processor = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            self.wall += time.perf_counter() - wall
            self.processor += time.process_time() - processor


def disturb(module: nn.Module) -> nn.Module:
    """Draw weights that keep the signal, and biases other than zero."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.Conv2d | nn.Linear):
                deviation = math.sqrt(2 / part.weight[0].numel())
                part.weight.normal_(0, deviation, generator=generator)
                if part.bias is not None:
                    part.bias.normal_(0, 0.2, generator=generator)
            elif isinstance(part, nn.BatchNorm2d):
                part.weight.uniform_(0.5, 1.0, generator=generator)
                part.running_mean.normal_(0, 0.2, generator=generator)
                part.running_var.uniform_(0.5, 1.5, generator=generator)
    return module


def make_sweep(model: Model, row: Row, grid: Grid, canvas: Canvas, engine: str) -> Sweep:
    """Return the sweep of one object, over all ReLU layers and the logits."""
    every = list_layers(model, canvas.size, containers=True)
    names = [layer.name for layer in every if layer.kind in ("ReLU", "BasicConv2d")]
    names.append(select_layers(every, "logits", model)[0].name)
    return Sweep(
        model,
        load_objects("glyphs", size=canvas.object_size, categories=row.n_objects),
        canvas=canvas,
        grid=grid,
        layers=names,
        engine=engine,  # type: ignore[arg-type]
    )


def compiled(sweep: Sweep) -> Incremental:
    """Return the network of a sweep, compiled for windows."""
    if not isinstance(sweep.choice, WindowEngine):
        raise RuntimeError("there is no engine")
    return sweep.choice.compiled


def grids(row: Row, canvas: Canvas, images: int) -> tuple[Grid, Grid, Grid]:
    """Return the whole grid, some of it for the dense sweep, and the corners and the middle."""
    xs = tuple(canvas.valid[:: row.stride])
    ys = xs
    if row.n_rows is not None:
        middle = len(ys) // 2
        ys = ys[middle : middle + row.n_rows]
    some_x = tuple(xs[place] for place in sorted({*np.linspace(0, len(xs) - 1, 8).astype(int)}))
    count = min(len(ys), math.ceil(images / len(some_x)))
    some_y = tuple(ys[place] for place in np.linspace(0, len(ys) - 1, count).astype(int))
    while len(some_x) * len(some_y) < images:
        step = max(1, len(xs) // math.ceil(images / len(some_y)))
        some_x = xs[::step]
    few = tuple(sorted({xs[0], xs[len(xs) // 2], xs[-1]}))
    return Grid(ys, xs), Grid(some_y, some_x), Grid(tuple(sorted({ys[0], ys[-1]})), few)


class _Largest:
    """Keeps whole activations, to compare two sweeps."""

    def __init__(self) -> None:
        self.found: dict[tuple[str, int], torch.Tensor] = {}

    def needs(self, layer: object) -> tuple[object, ...]:
        return (Need("full"),)

    def held(self, layer: object, design: object, parts: int = 1) -> float:
        return 0.0

    def begin(self, *_: object) -> None:
        pass

    def add(self, block: object) -> None:
        for place, values in zip(block.positions, block.full(), strict=True):  # type: ignore
            self.found[block.layer, int(place)] = values.clone()  # type: ignore[attr-defined]

    def end(self) -> None:
        pass


def difference(model: Model, row: Row, canvas: Canvas, grid: Grid) -> float:
    """Return the largest difference between the engines over a layer's largest activation."""
    sinks = {}
    for engine in ("dense", "incremental"):
        sinks[engine] = _Largest()
        make_sweep(model, row, grid, canvas, engine).stream([sinks[engine]])  # type: ignore
    worst: Counter[str] = Counter()
    scale: Counter[str] = Counter()
    for (layer, place), values in sinks["dense"].found.items():
        other = sinks["incremental"].found[layer, place]
        worst[layer] = max(worst[layer], float((values - other).abs().max()))  # type: ignore
        scale[layer] = max(scale[layer], float(values.abs().max()))  # type: ignore
    return max(worst[layer] / scale[layer] for layer in worst)


@dataclass(frozen=True)
class Measured:
    """A row of the table.

    Parameters
    ----------
    row
        What was measured.
    n_images
        Objects times locations of the whole grid.
    dense, windows
        Seconds of the two engines, for all locations.
    allowed
        Dense multiply-adds over the engine's.
    difference
        The largest, over a layer's largest activation.
    spent
        Seconds by kind of work; ``work`` are multiply-adds in convolutions.
    """

    row: Row
    n_images: int
    dense: Timed
    windows: Timed
    allowed: float
    difference: float
    spent: Counter[str]

    @property
    def title(self) -> str:
        """What was measured, in a few words."""
        rows = "" if self.row.n_rows is None else f", {self.row.n_rows} rows"
        return f"{self.row.model}, {self.row.canvas} px, stride {self.row.stride}{rows}"

    @property
    def line(self) -> str:
        """The row in Markdown."""
        wall = self.dense.wall / self.windows.wall
        processor = self.dense.processor / self.windows.processor
        return (
            f"| {self.title} ({self.n_images}) | {self.dense.wall:.0f} | {self.windows.wall:.1f}"
            f" | **{wall:.1f}** | {processor:.1f} | {self.row.goal:g} | {self.allowed:.1f}"
            f" | {self.difference:.0e} |"
        )

    def shares(self, fastest: float) -> str:
        """Return where the time went, in Markdown; `fastest` in billions of multiply-adds/s."""
        rate = self.spent["work"] / max(self.spent["convolutions"], 1e-9) / 1e9
        parts = [
            f"{self.spent[key] / self.windows.wall:.0%}"
            for key in ("convolutions", "gathering", "expansion", "linear layers", "measuring")
        ]
        return f"| {self.title} | {' | '.join(parts)} | {rate / fastest:.0%} |"


SHARES = """
| share of the time | convolutions | gathering | expansion | linear layers | measuring | rate of \
convolutions over that of a matrix product |
| --- | ---: | ---: | ---: | ---: | ---: | ---: |"""


def measure(row: Row, images: int) -> Measured:
    """Return a row of the table."""
    model = load_model(row.model)
    disturb(model.module)
    canvas = Canvas(row.canvas, 50)
    whole, some, few = grids(row, canvas, math.ceil(images / row.n_objects))
    n, n_some = (row.n_objects * len(grid.y) * len(grid.x) for grid in (whole, some))
    wrong = difference(model, row, canvas, few)
    similarity(make_sweep(model, row, few, canvas, "dense"))  # imports what it needs
    dense, windows = Timed(), Timed()
    sweep = make_sweep(model, row, whole, canvas, "incremental")
    spent: Counter[str] = Counter()
    with windows.add(), watching(spent):
        similarity(sweep, max_memory=2**33)
    narrow = make_sweep(model, row, some, canvas, "dense")
    with dense.add():
        similarity(narrow, max_memory=2**33)
    first = math.ceil(row.n_objects / BATCH_ROWS)  # objects at the reference
    batches = math.ceil(n / BATCH_ROWS) + first, math.ceil(n_some / BATCH_ROWS) + first
    factor = batches[0] / batches[1]
    engine = compiled(sweep)
    ys, xs = np.arange(len(whole.y)), np.arange(len(whole.x))
    tiles = engine.tiles(sweep.layers, ys, xs, max_bytes=2**30)
    work = engine.multiply_adds(tiles, sweep.layers)
    allowed = n * engine.dense_multiply_adds(sweep.layers) / work
    dense.wall *= factor
    dense.processor *= factor
    return Measured(row, n, dense, windows, allowed, wrong, spent)


@contextlib.contextmanager
def watching(spent: Counter[str]) -> Iterator[None]:
    """Add up seconds of gathering, convolutions, expansion and linear layers, while it runs."""
    saved = (
        reads.Gatherer.gather,
        functional.conv2d,
        engine_module.spread,
        functional.linear,
        SimilaritySink.add,
    )

    def timed(key: str, call: Callable[..., object]) -> Callable[..., object]:
        def wrapped(*args: object, **kwargs: object) -> object:
            begin = time.perf_counter()
            result = call(*args, **kwargs)
            spent[key] += time.perf_counter() - begin  # type: ignore[assignment]
            if key == "convolutions":
                weight: torch.Tensor = args[1]  # type: ignore[assignment]
                cells = result.shape[0] * result.shape[2] * result.shape[3]  # type: ignore
                spent["work"] += cells * weight.numel()
            return result

        return wrapped

    reads.Gatherer.gather = timed("gathering", saved[0])  # type: ignore[method-assign, assignment]
    functional.conv2d = timed("convolutions", saved[1])  # type: ignore[assignment]
    engine_module.spread = timed("expansion", saved[2])  # type: ignore[assignment]
    functional.linear = timed("linear layers", saved[3])  # type: ignore[assignment]
    SimilaritySink.add = timed("measuring", saved[4])  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        reads.Gatherer.gather = saved[0]  # type: ignore[method-assign]
        functional.conv2d, functional.linear = saved[1], saved[3]
        engine_module.spread = saved[2]
        SimilaritySink.add = saved[4]  # type: ignore[method-assign]


def peak() -> float:
    """Return multiply-adds per second of a large matrix product, in billions."""
    a = torch.rand(2048, 2048)
    seconds = []
    for _ in range(5):
        begin = time.perf_counter()
        a @ a
        seconds.append(time.perf_counter() - begin)
    return 2048**3 / min(seconds) / 1e9


def in_memory(n_pairs: int) -> Iterator[tuple[str, Ratio]]:
    """Yield each tool's time for VGG16's ReLU activations in memory, over that of ours, dense."""
    model = load_model("vgg16")
    disturb(model.module)
    names = [n for n, part in model.module.named_modules() if isinstance(part, nn.ReLU)]
    batch = torch.rand(8, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    recorder = Recorder(model.module, names, channels_last=True)
    plain = Recorder(model.module, names)
    extractor = create_feature_extractor(model.module, names)

    def ours() -> object:
        with recorder:
            return model.module(batch)

    def as_it_comes() -> object:
        with plain:
            return model.module(batch)

    def bare() -> object:
        with torch.inference_mode():
            return model.module(batch)

    def extracted() -> object:
        with torch.inference_mode():
            return extractor(batch)

    found: dict[str, Callable[[], object]] = {
        "bare forward pass": bare,
        "ours, in the order in which images come": as_it_comes,
        "torchvision's feature extraction": extracted,
        **run_torchlens(model.module, batch),
        **run_nnsight(model.module, names, batch),
    }
    for name, run in found.items():
        yield name, compare(ours, run, n_pairs=n_pairs)
    windows = Windows(model, names)
    yield (
        f"elsewhere, incremental, {windows.n_images} locations",
        windows.scaled(compare(ours, windows.run, n_pairs=3), len(batch)),
    )


class Windows:
    """The same layers' windows, an object at every location, with the engine.

    Parameters
    ----------
    model
        The network.
    names
        Of its layers.
    """

    def __init__(self, model: Model, names: list[str]) -> None:
        canvas = Canvas(224, 50)
        whole, _, _ = grids(Row("vgg16", 8.0), canvas, 64)
        objects = load_objects("glyphs", size=50, categories=1)
        self._make = lambda: Sweep(
            model, objects, canvas=canvas, grid=whole, layers=names, engine="incremental"
        )
        self.n_images = len(whole.y) * len(whole.x)
        self._shape = len(whole.y), len(whole.x)

    def run(self) -> None:
        """Compile the network and compute all windows."""
        sweep = self._make()
        engine = compiled(sweep)
        ys, xs = (np.arange(n) for n in self._shape)
        with torch.inference_mode():
            for tile in engine.tiles(sweep.layers, ys, xs, max_bytes=2**30):
                for _ in engine.run(tile, sweep.layers, lambda name, value: None):
                    pass

    def scaled(self, ratio: Ratio, n_dense: int) -> Ratio:
        """Return a ratio to `n_dense` images as one per image."""
        share = n_dense / self.n_images
        return dataclasses.replace(
            ratio,
            median=ratio.median * share,
            low=ratio.low * share,
            high=ratio.high * share,
        )


def run_torchlens(module: nn.Module, batch: torch.Tensor) -> dict[str, Callable[[], object]]:
    """Return a pass by torchlens, where it is installed."""
    try:
        import torchlens  # noqa: PLC0415
    except ImportError:
        print("torchlens is not installed: pip install 'elsewhere[bench]'")
        return {}

    def run() -> object:
        with torch.no_grad():
            return torchlens.trace(module, batch)

    return {f"torchlens {torchlens.__version__}": run}


def run_nnsight(
    module: nn.Module, names: list[str], batch: torch.Tensor
) -> dict[str, Callable[[], object]]:
    """Return a pass by nnsight, where it is installed."""
    try:
        import nnsight  # noqa: PLC0415
    except ImportError:
        print("nnsight is not installed: pip install 'elsewhere[bench]'")
        return {}
    traced = nnsight.NNsight(module)

    def run() -> object:
        saved = []
        with torch.no_grad(), traced.trace(batch):
            for name in names:
                saved.append(traced.get(name).output.save())
        return saved

    return {f"nnsight {nnsight.__version__}": run}


HEADER = """
| work (images) | dense s | windows s | ratio | by processor | goal | allowed | difference |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"""


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--objects", type=int, default=1)
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--only", default=",".join([*ROWS, "memory"]))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    fastest = peak()
    print(f"{options.threads} thread(s); a matrix product gives {fastest:.0f} GMAC/s", flush=True)
    shares = []
    wanted = [name for name in options.only.split(",") if name != "memory"]
    for place, name in enumerate(wanted):
        if place == 0:
            print(HEADER)
        row = dataclasses.replace(ROWS[name], n_objects=options.objects)
        found = measure(row, options.images)
        print(found.line, flush=True)
        shares.append(found.shares(fastest))
    if shares:
        print(SHARES)
        print("\n".join(shares), flush=True)
    if "memory" in options.only.split(","):
        print("\n| all ReLU layers in memory | time over ours (dense, channels last) |")
        print("| --- | ---: |")
        for tool, ratio in in_memory(options.pairs):
            print(f"| {tool} | {ratio} |", flush=True)


if __name__ == "__main__":
    main()
