"""What one seed of a reproduction gives on other processors, beside what other seeds give.

    python -m benchmarks.seeds --out DIR [--scale quick] [--seed 100] [--others 3]
        [--ways threads avx2 lowest] [--runs full vanilla acquired interference translated]
        [--spread docs/data/claims-laptop-200.json]

One seed is trained and measured as `elsewhere reproduce` does it, each time in a process of its
own: on this processor as it is with one thread, with two threads, as on one without AVX-512, and as
on the oldest that the libraries can be told of (tests/lowest.py). `reproduce` itself takes one
thread always. The spread is over `--others` more seeds, or over those of a file of claims. What is
done in DIR already is not done again.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from elsewhere.reproduction import tasks
from elsewhere.reproduction.claims import Row, make_rows, summarise
from elsewhere.reproduction.conditions import Run, make_runs
from elsewhere.reproduction.run import find_scale, make_tasks
from elsewhere.reproduction.scale import Scale
from elsewhere.reproduction.workers import perform_all
from elsewhere.training import list_checkpoints

WAYS = {
    "as is": "as it is, 1 thread",
    "threads": "2 threads",
    "avx2": "AVX2 only",
    "lowest": "the oldest",
}


def main() -> None:
    """Train what is missing, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--scale", default="quick")
    parser.add_argument("--seed", type=int, default=100)
    parser.add_argument("--others", type=int, default=3)
    parser.add_argument("--ways", nargs="*", choices=[*WAYS][1:], default=[*WAYS][1:])
    parser.add_argument("--spread", type=Path)
    parser.add_argument("--runs", nargs="*", help="only these, with those that they start from")
    parser.add_argument("--max-steps", type=int, help="only to see that it runs")
    parser.add_argument("--train", choices=[*WAYS], help=argparse.SUPPRESS)
    options = parser.parse_args()
    scale, ways = find_scale(options.scale), ["as is", *options.ways]
    if options.max_steps:
        scale = scale.smoke(options.max_steps)
    runs = tuple(run for run in make_runs(scale) if run.name in (options.runs or [run.name]))
    if options.train:
        train(scale, runs, options.seed, options.train, options.out)
        return
    others = [options.seed + 1 + number for number in range(options.others)]
    for way, seed in [(way, options.seed) for way in ways] + [("as is", seed) for seed in others]:
        print(f"seed {seed}, {WAYS[way]}", file=sys.stderr, flush=True)
        given = ["--scale", options.scale, "--seed", str(seed), "--out", str(options.out)]
        given += ["--max-steps", str(options.max_steps)] if options.max_steps else []
        given += ["--runs", *options.runs] if options.runs else []
        command = [sys.executable, "-m", "benchmarks.seeds", *given, "--train", way]
        subprocess.run(command, check=True, env=os.environ | environment(way))
    print_weights(runs, options.seed, ways, others, options.out)
    known = {
        (way, seed): rows_of(scale, runs, seed, way, options.out)
        for way, seed in [(way, options.seed) for way in ways] + [("as is", o) for o in others]
    }
    print_statistics(known, ways, options.seed, options.spread)


def environment(way: str) -> dict[str, str]:
    """Return what makes the libraries of a new process believe in another processor."""
    if way == "threads":
        return {"OMP_WAIT_POLICY": "passive"}  # as busy cores need it; it changes no digit
    if way == "as is":
        return {}
    lowest = runpy.run_path(str(Path(__file__).parents[1] / "tests/lowest.py"))
    found: dict[str, str] = lowest["pretend"](avx2=way == "avx2")
    return found


def train(scale: Scale, runs: tuple[Run, ...], seed: int, way: str, out: Path) -> None:
    """Train and measure all runs of a seed in this process."""
    if way == "threads":
        tasks.using_threads = _two_threads  # in place of the one that `reproduce` takes
    out.mkdir(parents=True, exist_ok=True)
    perform_all(make_tasks(scale, runs, (seed,), folder(out, way)), workers=1)


@contextlib.contextmanager
def _two_threads(_: int) -> Iterator[None]:
    torch.set_num_threads(2)
    yield


def folder(out: Path, way: str) -> Path:
    """Return where the seeds of a way lie."""
    return out / way.replace(" ", "-")


def print_weights(
    runs: tuple[Run, ...], seed: int, ways: list[str], others: list[int], out: Path
) -> None:
    """Print how far the weights are from those of this processor: as a run goes on, and at the end.

    The length of the difference over that of the weights, and the largest difference of one.
    """
    compared = [(way, seed) for way in ways[1:]] + [("as is", other) for other in others]
    titles = [WAYS[way] if number == seed else f"seed {number}" for way, number in compared]
    print(f"\n| run | phase | step | {' | '.join(titles)} |")
    print(f"| --- | --- | ---: |{' ---: |' * len(titles)}")
    for run in runs:
        known = weights(out, "as is", seed, run)
        found = [weights(out, way, number, run) for way, number in compared]
        for phase, step in known:
            if step == "end":
                continue
            ends = known[phase, step] == known.get((phase, "end"))
            if not ends and run is not runs[0]:
                continue  # along the way in the first run only
            last = (phase, "end") if ends else (phase, step)
            cells = [
                "{:.1e} ({:.1e})".format(*apart(known[phase, step], other[last]))
                if last in other
                else ""
                for other in found
            ]
            print(f"| {run.name} | {phase} | {step} | {' | '.join(cells)} |")


def weights(out: Path, way: str, seed: int, run: Run) -> dict[tuple[str, int | str], Path]:
    """Return the files of a run's weights by phase and step; the last of a phase is its end."""
    cards = list_checkpoints(folder(out, way) / "seeds" / str(seed) / run.name)
    found: dict[tuple[str, int | str], Path] = {
        (card.phase, card.step): card.path for card in cards
    }
    return found | {(card.phase, "end"): card.path for card in cards if card.final}


def apart(a: Path, b: Path) -> tuple[float, float]:
    """Return the relative and the largest difference of the weights of two files."""
    states = [load_file(path) for path in (a, b)]
    ours, theirs = (
        torch.cat([state[name].double().flatten() for name in states[0]]) for state in states
    )
    less = ours - theirs
    return float(less.norm() / ours.norm()), float(less.abs().max())


def print_statistics(
    known: dict[tuple[str, int], list[Row]], ways: list[str], seed: int, spread: Path | None
) -> None:
    """Print every statistic of the claims for each way, beside its spread between seeds."""
    rows = [known[way, seed] for way in ways]
    columns = [[number(row) for row in each] for each in rows]
    if spread is None:
        seeds = [
            [number(row) for row in each] for (way, _), each in known.items() if way == "as is"
        ]
        deviations = (
            np.std(seeds, axis=0, ddof=1) if len(seeds) > 1 else np.full(len(rows[0]), np.nan)
        )
    else:
        deviations = np.array([_spread(row, json.loads(spread.read_text())) for row in rows[0]])
    titles = [*(WAYS[way] for way in ways), "largest difference", "between seeds"]
    print(f"\n| claim | statistic | pair | exemplars | {' | '.join(titles)} |")
    print(f"| --- | --- | --- | --- |{' ---: |' * len(titles)}")
    ratios = []
    for place, row in enumerate(rows[0]):
        values = [column[place] for column in columns]
        if not any(map(math.isfinite, values)):
            continue
        most, deviation = max(abs(value - values[0]) for value in values), deviations[place]
        ratios.append(most / deviation if deviation else math.nan)
        cells = " | ".join(_say(value) for value in [*values, most, deviation])
        print(f"| {row.claim} | {row.part} | {row.pair} | {row.exemplars} | {cells} |")
    finite = np.array([ratio for ratio in ratios if math.isfinite(ratio)])
    if len(finite):
        print(
            f"\nlargest difference over the standard deviation between seeds, {len(finite)} "
            f"statistics: median {np.median(finite):.2f}, at most {finite.max():.2f}, "
            f"{(finite > 1).sum()} above 1"
        )
    print(f"\n| claim | {' | '.join(WAYS[way] for way in ways)} |\n| --- |{' --- |' * len(ways)}")
    for claim in summarise(rows[0]):
        print(f"| {claim} | {' | '.join(summarise(each)[claim] for each in rows)} |")


def rows_of(scale: Scale, runs: tuple[Run, ...], seed: int, way: str, out: Path) -> list[Row]:
    """Return the rows of the claims of one seed, as `reproduce` makes them."""
    found = {}
    for task in make_tasks(scale, runs, (seed,), folder(out, way)):
        values = json.loads(task.path.read_text())["values"]
        found[task.run.name] = {k: math.nan if v is None else v for k, v in values.items()}
    return make_rows(scale, {seed: found})


def number(row: Row) -> float:
    """Return the value of the only seed, NaN where it is not measurable or was not run."""
    return row.values[0] if row.values else math.nan


def _spread(row: Row, table: dict) -> float:
    """Return the standard deviation over the seeds of a file of claims."""
    for each in table["claims"]:
        same = (row.claim, row.part, row.pair, row.exemplars)
        if same == tuple(each[key] for key in ("claim", "statistic", "pair", "exemplars")):
            values = [value for value in each["values"] if value is not None]
            return float(np.std(values, ddof=1)) if len(values) > 2 else math.nan
    return math.nan


def _say(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "-"


if __name__ == "__main__":
    main()
