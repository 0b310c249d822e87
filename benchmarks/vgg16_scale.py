"""One seed of the scale vgg16, in as many sittings as it takes: it goes on where it stood.

    python -m benchmarks.vgg16_scale --out DIR [--data-dir DATA] [--device cuda] [--seconds 840]
        [--scale vgg16] [--seed 100] [--max-steps N]

Runs `elsewhere reproduce` as a command of its own and ends it after `--seconds`: what is trained
and measured by then is kept (a training goes on from its latest state, a run that was measured is
not measured again), and what is left is said. The same command again goes on. Prints the seconds of
each run, and the claims once all is done. Its status is 0 when nothing is left, else 1.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from elsewhere.reproduction import load_scale, make_runs
from elsewhere.reproduction.run import Options, make_tasks
from elsewhere.reproduction.tasks import read_values


def main() -> int:
    """Run what there is time for; return 1 where something is left."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seconds", type=float, default=840.0)
    parser.add_argument("--scale", default="vgg16")
    parser.add_argument("--seed", type=int, default=100)
    parser.add_argument("--max-steps", type=int, help="only to see that it runs")
    options = parser.parse_args()
    command = [
        *(sys.executable, "-m", "elsewhere.cli", "reproduce", "--scale", options.scale),
        *("--out", str(options.out), "--first-seed", str(options.seed)),
        *("--device", options.device),
    ]
    if options.data_dir is not None:
        command += ["--data-dir", str(options.data_dir)]
    if options.max_steps is not None:
        command += ["--max-steps", str(options.max_steps)]
    scale = load_scale(options.scale)
    if options.seed in scale.tuned_on:
        command.append("--development")
    began = time.perf_counter()
    child = subprocess.Popen(command, start_new_session=True)
    try:
        child.wait(options.seconds)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGINT)
        try:
            child.wait(20)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
    print(f"{time.perf_counter() - began:.0f} s in this sitting, exit status {child.returncode}")
    return tell(options)


def tell(options: argparse.Namespace) -> int:
    """Say what is done and what is left."""
    chosen, runs = Options(max_steps=options.max_steps).apply(load_scale(options.scale))
    assert runs == make_runs(chosen)
    tasks = make_tasks(
        chosen, runs, (options.seed,), options.out, device=options.device,
        data_dir=options.data_dir,
    )  # fmt: skip
    left = []
    for task in tasks:
        values = read_values(task)
        if values is None:
            kept = sorted((task.folder / task.run.name / "checkpoints").glob("*.safetensors"))
            left.append(f"{task.run.name} ({kept[-1].stem if kept else 'not begun'})")
            continue
        spent = [values["seconds_training"], values["seconds_measuring"]]
        print(f"{task.run.name:22} trained {spent[0]:6.1f} s, measured {spent[1]:6.1f} s")
    path = options.out / "claims.json"
    if left or not path.is_file():
        print(f"left: {', '.join(left) or 'claims and figures'}; run the same command again")
        return 1
    for row in json.loads(path.read_text())["claims"]:
        if row.get("decides", True):
            value = "-" if row["value"] is None else f"{row['value']:.2f}"
            print(f"{row['claim']} {row['statistic']} {row['pair']}: {value} {row['verdict']}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
