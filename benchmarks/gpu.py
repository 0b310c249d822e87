"""What the product takes on a GPU beside bare passes of the same network, as ratios of one run.

    python -m benchmarks.gpu [--device cuda] [--only ROW] [--profile] [--out DIR]
    python -m benchmarks.gpu --device cpu --tiny        # every line of it, on small networks

Every row has a budget of seconds: it takes the largest grid that it expects to finish in it, and is
stopped where it takes twice as long. A row that fails prints the last line of its error, and the
next one follows. Times are medians after a first run that is not counted, the device synchronised
before and after.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
import torchvision

from benchmarks.gpu_bench import Bench, Found
from benchmarks.gpu_rows import ROWS

PATIENCE = 12
"""How many times its budget a row may take without a card: processes start as slowly for a small
network."""


@contextlib.contextmanager
def stopped_after(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in what takes longer."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"stopped after {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def run_rows(bench: Bench, names: Sequence[str], seconds: float) -> Iterator[tuple[str, Found]]:
    """Yield the rows as they are found, or what failed, within so many seconds."""
    end = time.perf_counter() + seconds
    for name in names:
        row, budget = ROWS[name]
        began = time.perf_counter()
        budget = min(budget * (1 if bench.device.type == "cuda" else PATIENCE), end - began)
        bench.end = began + budget
        try:
            if budget < 5:
                raise TimeoutError("no time was left for it")
            with stopped_after(min(2 * budget, end - began)):
                for found in row(bench):
                    yield name, found
        except Exception as error:  # whatever it is, the next row follows
            trace = traceback.format_exc()
            said = f"{type(error).__name__}: {error}".splitlines()[-1][:300]
            yield name, Found(name, "failed: " + said, None, "-", None, {})
            bench.profiles.append(f"## {name} failed\n\n```\n{trace[-3000:]}\n```\n")
        if bench.device.type == "cuda":
            torch.cuda.empty_cache()
        print(f"  ({name}: {time.perf_counter() - began:.0f} s)", file=sys.stderr, flush=True)


def describe(device: torch.device) -> str:
    """Return the device and the versions, in a line."""
    card = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    return f"{card}, torch {torch.__version__}, torchvision {torchvision.__version__}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--tiny", action="store_true", help="small networks at 48 px")
    parser.add_argument("--only", action="append", choices=ROWS, help="repeatable")
    parser.add_argument("--seconds", type=float, help="for all rows together; 400 on a card")
    parser.add_argument("--profile", action="store_true", help="top operators, synchronisations")
    parser.add_argument("--precision", default="float32", help="of sweeps")
    parser.add_argument("--out", type=Path, help="folder for gpu.json and gpu.md")
    options = parser.parse_args()
    bench = Bench(options)
    head = f"{describe(bench.device)}; sweeps in {bench.precision}"
    lines = [head, "", "| row | work / against | ratio | goal | | |", "| - | - | -: | - | - | - |"]
    print("\n".join(lines), flush=True)
    every = []
    seconds = options.seconds or (400 if bench.device.type == "cuda" else 400 * PATIENCE)
    for name, found in run_rows(bench, options.only or list(ROWS), seconds):
        print(found, flush=True)
        every.append({"name": name} | dataclasses.asdict(found))
        lines.append(str(found))
        if options.out is not None:  # after each row: whoever stops this keeps what there is
            options.out.mkdir(parents=True, exist_ok=True)
            text = "\n".join([*lines, "", *bench.profiles])
            (options.out / "gpu.md").write_text(text + "\n")
            (options.out / "gpu.json").write_text(json.dumps({"on": head, "rows": every}, indent=1))
    if bench.profiles:
        print("\n" + "\n".join(bench.profiles))
        if options.out is not None:
            (options.out / "gpu.md").write_text("\n".join([*lines, "", *bench.profiles]) + "\n")


if __name__ == "__main__":
    main()
