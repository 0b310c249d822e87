"""The rows of :mod:`benchmarks.gpu`: each kind of work, against bare passes of the same network."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pstats
import pty
import re
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch.nn import functional

from benchmarks.device import bare_passes, median_seconds, synchronise
from benchmarks.gpu_bench import Bench, Found
from elsewhere import similarity
from elsewhere.analyzer.attribution import AttributionSettings, attribute
from elsewhere.analyzer.trajectories import TrackSettings, track
from elsewhere.models import load_model
from elsewhere.recording import Sweep
from elsewhere.recording import record as record_sweep
from elsewhere.stimuli import load_objects
from elsewhere.training import Curriculum, Exemplars, Network, Phase, Report, train

STEPS, MAPS = 50, 36
COMMAND = "from elsewhere.cli import main; main()"


def dense(bench: Bench) -> Iterator[Found]:
    """Dense sweep of all ReLU layers, against the bare forward."""
    rates = bench.forward("vgg16")
    grid, taken, sweep = bench.swept("vgg16", "dense", bench.scale.grids, 10, 40)
    n_images = 10 * sweep.design.n_positions
    best = max(rates.values())
    yield Found(
        "dense", f"dense sweep, all ReLU layers, 10 objects, {grid} / bare forward",
        taken * best / n_images, "at most 1.3", taken * best / n_images <= 1.3,
        {"bare images/s": {n: round(rate) for n, rate in rates.items()},
         "sweep images/s": n_images / taken, "rows": sweep.rows, "seconds": taken},
    )  # fmt: skip
    few = bench.sweep("vgg16", "dense", "3x3", 10)
    bench.watch("dense", lambda: similarity(few), 90)


def incremental(bench: Bench) -> Iterator[Found]:
    """Incremental sweep, against the dense one."""
    grid, dense_taken, sweep = bench.swept("vgg16", "dense", bench.scale.grids, 10, 40)
    _, taken, sweep = bench.swept("vgg16", "incremental", (grid, grid), 10, 40)
    ratio = dense_taken / taken
    yield Found(
        "incremental", f"dense sweep / incremental, all ReLU layers, 10 objects, {grid}",
        ratio, "at least 4", ratio >= 4,
        {"locations/s": 10 * sweep.design.n_positions / taken, "seconds": taken},
    )  # fmt: skip
    some = bench.sweep("vgg16", "incremental", "7x7", 2)
    bench.watch("incremental", lambda: similarity(some), 2 * 49)


def auto(bench: Bench) -> Iterator[Found]:
    """The engine that is chosen, against the better one."""
    engines = ("dense", "incremental", "auto")
    for place, name in enumerate(bench.scale.others):
        share = bench.left / (len(bench.scale.others) - place) / len(engines)
        grid, taken = bench.scale.grids[1:], {}
        for engine in engines:
            found, taken[engine], sweep = bench.swept(name, engine, grid, 10, share)
            grid = (found, found)
        choice = sweep.choice
        ratio = taken["auto"] / min(taken["dense"], taken["incremental"])
        n_images = 10 * sweep.design.n_positions
        yield Found(
            "auto", f"{name}: auto / better of dense and incremental, 10 objects, {found}",
            ratio, "at most 1.1", ratio <= 1.1,
            {f"{key} images/s": n_images / value for key, value in taken.items()}
            | {"bare images/s": max(bench.forward(name).values()), "took": choice.name},
        )  # fmt: skip


def record_command(bench: Bench, grid: str, out: Path) -> list[str]:
    """Return the arguments of a command that records VGG16 with weights of a file."""
    from safetensors.torch import save_file  # noqa: PLC0415

    weights = bench.folder / "weights.safetensors"
    name, arguments = bench.scale.vgg16
    if not weights.is_file():
        state = bench.model("vgg16").module.state_dict()
        save_file({key: value.cpu().contiguous() for key, value in state.items()}, weights)
    return [
        "record", name, "--weights", str(weights), "--input", "unit",
        "--objects", "glyphs", "--categories", "20", "--grid", grid, "--out", str(out),
        "--device", str(bench.device), "--overwrite",
        *(word for key, value in arguments.items() for word in ("--model-arg", f"{key}={value}")),
        "--precision", bench.precision,
    ]  # fmt: skip


def record(bench: Bench) -> Iterator[Found]:
    """The whole command, against the bare forward of its images."""
    grid = bench.scale.grids[0]
    sweep = bench.sweep("vgg16", "dense", grid, 20)
    n_images = 20 * sweep.design.n_positions
    best = max(bench.forward("vgg16").values())
    out = bench.folder / "run.h5"
    command = [sys.executable, "-c", COMMAND, *record_command(bench, grid, out)]
    runs = []
    while not runs or (len(runs) < bench.scale.runs and bench.left > 1.5 * runs[-1][0]):
        runs.append(timed_command(command, bench.left + 30))
    taken, first = sorted(runs)[len(runs) // 2]
    ratio = taken * best / n_images
    yield Found(
        "record", f"elsewhere record, 20 objects, {grid}, default layers / bare forward",
        ratio, "at most 2", ratio <= 2,
        {"seconds": taken, "before the first image": first, "images": n_images,
         "MB": out.stat().st_size / 1e6, "runs": len(runs)},
    )  # fmt: skip
    yield Found(
        "record", "seconds before the first image", first, "at most 5", first <= 5,
    )  # fmt: skip


def start(bench: Bench) -> Iterator[Found]:
    """What is done before the first image, counted; and the command, profiled, with few images."""
    out, profile = bench.folder / "few.h5", bench.folder / "start.prof"
    command = record_command(bench, bench.scale.grids[-1], out)
    counted = json.loads(
        subprocess.run(
            [sys.executable, "-m", "benchmarks.start", *command],
            text=True, check=True, stdout=subprocess.PIPE, timeout=bench.left + 30,
        ).stdout
    )  # fmt: skip
    twice = counted.pop("twice")
    yield Found(
        "start", "what is done twice before the first image, of what was counted",
        len(twice), "0", not twice, counted | twice,
    )  # fmt: skip
    code = f"import sys; sys.argv[1:] = {command!r}; {COMMAND}"
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", "import torch, torchvision"], check=True, timeout=bench.left + 30
    )
    imports = time.perf_counter() - began
    subprocess.run(
        [sys.executable, "-m", "cProfile", "-o", str(profile), "/dev/stdin"],
        input=code, text=True, check=True, capture_output=True, timeout=bench.left + 30,
    )  # fmt: skip
    if not out.is_file():  # the profiler takes any end of a command for a good one
        raise RuntimeError(f"`elsewhere record` left no {out.name}")
    found = pstats.Stats(str(profile))
    seconds = {
        f"{Path(file).stem}.{function}": times[3]
        for (file, _, function), times in found.stats.items()  # type: ignore[attr-defined]
        if "/elsewhere/" in file and times[3] > 0.05
    }
    longest = dict(sorted(seconds.items(), key=lambda item: -item[1])[:25])
    yield Found(
        "start", "imports of torch and torchvision, and functions by their seconds, profiled",
        None, "-", None, {"imports": imports} | longest,
    )  # fmt: skip


def writing(bench: Bench) -> Iterator[Found]:
    """A recording of a loaded network, against a sweep that keeps nothing, and bare passes."""
    best = max(bench.forward("vgg16").values())
    size, grid = bench.scale.canvas.object_size, bench.scale.grids[1 if bench.left > 60 else -1]
    for engine in ("dense", "incremental"):
        sweep = Sweep(
            bench.model("vgg16"),
            load_objects("glyphs", size=size, categories=20),
            canvas=bench.scale.canvas,
            grid=grid,
            engine=engine,  # type: ignore[arg-type]
            precision=bench.precision,
        )
        n_images, taken = 20 * sweep.design.n_positions, dict[str, float]()
        acts: dict[str, Callable[[], object]] = {
            "measured": lambda sweep=sweep: similarity(sweep),  # type: ignore[misc]
            "recorded": lambda sweep=sweep: record_sweep(  # type: ignore[misc]
                sweep, bench.folder / "written.h5", overwrite=True
            ),
        }
        for what, act in acts.items():
            for _ in range(2):  # the first warms up
                synchronise(bench.device)
                began = time.perf_counter()
                act()
                synchronise(bench.device)
                taken[what] = time.perf_counter() - began
        yield Found(
            "writing", f"{engine}: recording / measuring, 20 objects, {grid}, default layers",
            taken["recorded"] / taken["measured"], "-", None,
            {f"{what} s": value for what, value in taken.items()}
            | {"bare forward s": n_images / best},
        )  # fmt: skip


def timed_command(command: Sequence[str], seconds: float) -> tuple[float, float]:
    """Return how long a command takes, and until its progress shows the first images."""
    reading, writing = pty.openpty()
    began, seen, text = time.perf_counter(), [], []
    process = subprocess.Popen(command, stderr=writing, stdout=subprocess.DEVNULL)
    os.close(writing)

    def read() -> None:
        with contextlib.suppress(OSError):  # the other end is closed
            while data := os.read(reading, 2**16):
                text.append(data.decode(errors="replace"))
                if not seen and re.search(r"[1-9]\d*/\d", text[-1]):
                    seen.append(time.perf_counter() - began)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        code = process.wait(seconds)
    except BaseException:
        process.kill()
        process.wait()
        raise
    finally:
        taken = time.perf_counter() - began
        reader.join()
        os.close(reading)
    if code != 0:
        said = "".join(text).strip().splitlines() or ["it said nothing"]
        raise RuntimeError(f"exit {code}: {said[-1][:300]}")
    return taken, seen[0] if seen else taken


def training(bench: Bench) -> Iterator[Found]:
    """Steps of training, against a plain loop, channels-last."""
    scale, device = bench.scale, bench.device
    name, arguments = scale.vgg16
    plain = plain_steps(bench)
    phase = Phase(
        "learn", "glyphs", categories=10, exemplars=Exemplars(train=20, held_out=4),
        environment="full", steps=400 if device.type == "cuda" else 150, batch=scale.batch,
        learning_rate=1e-5, checkpoints=0, precision="bfloat16",
    )  # fmt: skip
    curriculum = Curriculum(
        "gpu", Network(name, arguments=arguments | {"num_classes": 10}),
        scale.canvas, (phase,),
    )  # fmt: skip
    blocks: list[float] = []
    latest: list[tuple[int, float]] = []

    def note(report: Report) -> None:
        synchronise(device)
        now = time.perf_counter()
        if latest and report.step > latest[0][0]:
            step, before = latest.pop()
            if step:  # not the first block, which warms up
                blocks.append((now - before) / (report.step - step))
            if bench.left < 2 * (now - before):
                raise _Enough
        latest[:] = [(report.step, now)]

    with contextlib.suppress(_Enough):
        train(curriculum, bench.folder / "trained", device=str(device), progress=note)
    step = statistics.median(blocks)
    yield Found(
        "training", f"step of VGG16, batch {scale.batch}, bfloat16 / plain loop",
        step / plain, "at most 1.15", step / plain <= 1.15,
        {"plain images/s": scale.batch / plain, "images/s": scale.batch / step,
         "blocks": len(blocks)},
    )  # fmt: skip
    if bench.profile and bench.left > 0:
        short = dataclasses.replace(
            curriculum, phases=(dataclasses.replace(phase, steps=STEPS, categories=5),)
        )
        runs = (bench.folder / f"profiled-{number}" for number in range(2))
        bench.watch(
            "training", lambda: train(short, next(runs), device=str(device)), STEPS * scale.batch
        )


class _Enough(Exception):
    """The budget is spent, and enough was measured."""


def plain_steps(bench: Bench) -> float:
    """Return the seconds of a step of a plain loop: bfloat16, channels-last, fused Adam."""
    scale, device = bench.scale, bench.device
    name, arguments = scale.vgg16
    network = load_model(name, model_args=arguments | {"num_classes": 10}).module
    network = network.to(device).to(memory_format=torch.channels_last).train()
    optimiser = torch.optim.Adam(network.parameters(), 1e-5, fused=True)
    shape = (scale.batch, 3, scale.canvas.size, scale.canvas.size)
    images = torch.rand(shape, device=device).to(memory_format=torch.channels_last)
    labels = torch.randint(10, (scale.batch,), device=device)

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16):
            logits = network(images)
        functional.cross_entropy(logits.float(), labels).backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    return median_seconds(step, device, each=10, most=5, seconds=6)


def attribution(bench: Bench) -> Iterator[Found]:
    """Integrated gradients, against their passes in full batches."""
    scale, device, model = bench.scale, bench.device, bench.model("vgg16")
    rates = bare_passes(model, scale.canvas.size, scale.batches[:2], backward=True)
    best = max(rates.values())
    settings = AttributionSettings(
        target="logit:0", options={"n_steps": scale.n_steps, "tolerance": 1e3}
    )
    objects = load_objects("glyphs", size=scale.canvas.object_size, categories=1)
    few, every = (
        Sweep(model, objects, canvas=scale.canvas, grid=grid, engine="dense")
        for grid in ("2x2", "6x6")
    )
    attribute(few, settings)
    times = []
    while not times or (len(times) < scale.runs and bench.left > 1.5 * times[-1]):
        synchronise(device)
        began = time.perf_counter()
        attribute(every, settings)
        synchronise(device)
        times.append(time.perf_counter() - began)
    taken, n_passes = statistics.median(times), MAPS * scale.n_steps
    ratio = taken * best / n_passes
    yield Found(
        "attribution", f"integrated gradients, {scale.n_steps} steps, {MAPS} maps / bare passes",
        ratio, "at most 1.3", ratio <= 1.3,
        {"bare passes/s": {n: round(rate) for n, rate in rates.items()},
         "passes/s": n_passes / taken, "seconds": taken, "runs": len(times)},
    )  # fmt: skip
    bench.watch("attribution", lambda: attribute(few, settings), 4 * scale.n_steps)


def tracking(bench: Bench) -> Iterator[Found]:
    """A checkpoint's accuracy and similarity at 7x7, in seconds."""
    scale, device = bench.scale, bench.device
    name, arguments = scale.vgg16
    phase = Phase(
        "learn", "glyphs", categories=10, exemplars=Exemplars(train=20, held_out=10),
        environment="one", steps=1, batch=8, checkpoints=(1,), learning_rate=1e-6,
    )  # fmt: skip
    curriculum = Curriculum(
        "tracked", Network(name, arguments=arguments | {"num_classes": 10}, gain=6.0),
        scale.canvas, (phase,),
    )  # fmt: skip
    run = bench.folder / "tracked"
    train(curriculum, run, device=str(device))
    times = []
    while not times or (len(times) < scale.runs and bench.left > 1.5 * times[-1]):
        for kept in run.glob("track*"):  # what was measured of the checkpoint is not used again
            shutil.rmtree(kept)
        synchronise(device)
        began = time.perf_counter()
        track(run, device=str(device))
        synchronise(device)
        times.append(time.perf_counter() - began)
    taken = statistics.median(times[1:] or times)
    n_images = 49 * 10 * (1 + 20 + 10)
    best = max(bench.forward("vgg16").values())
    yield Found(
        "tracking", "track of one checkpoint of VGG16 at 7x7 / bare forward of its images",
        taken * best / n_images, "a few seconds", taken <= 6,
        {"seconds": taken, "first": times[0], "images": n_images, "runs": len(times)},
    )  # fmt: skip

    def again() -> None:
        for kept in run.glob("track*"):
            shutil.rmtree(kept)
        track(run, device=str(device), settings=TrackSettings(grid="3x3", per_category=4))

    bench.watch("tracking", again, 9 * 10 * 7)


ROWS: dict[str, tuple[Callable[[Bench], Iterator[Found]], float]] = {
    "dense": (dense, 60),
    "incremental": (incremental, 50),
    "training": (training, 40),
    "attribution": (attribution, 40),
    "tracking": (tracking, 45),
    "auto": (auto, 60),
    "record": (record, 60),
    "start": (start, 30),
    "writing": (writing, 40),
}
"""Each row, and the seconds that it may take."""
