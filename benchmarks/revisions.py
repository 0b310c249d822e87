"""What measures cost beside what they cost at another revision, in processor time.

    python -m benchmarks.revisions REVISION [--pairs 3] [--objects 20] [--units 4096]

Both read the same recording of 484 locations, on one thread, in processes of their own, in turns:
cosines between all pairs of locations, and the similarity to one reference. Processor time depends
less on what else runs than time does; the least of all runs is compared. Goal since sums are taken
in double precision (docs/decisions/0017-sums.md): 1.1 of cd29903.
"""

from __future__ import annotations

import argparse
import io
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

HERE = Path(__file__).parents[1]
RECORD = """
import sys
from pathlib import Path
from benchmarks.measures import make_recording
print(make_recording(Path(sys.argv[1]), int(sys.argv[2]), 22, int(sys.argv[3])))
"""
MEASURE = """
import sys, time
import torch
from elsewhere.analyzer import measure, similarity
from elsewhere.storage import open_recording
torch.set_num_threads(1)
seconds = []
with open_recording(sys.argv[1]) as recording:
    for work in (lambda: measure(recording, names="cosine", max_memory="4GiB"),
                 lambda: similarity(recording, max_memory="4GiB")):
        least = []
        for _ in range(3):  # the first one pays for imports
            begin = time.process_time()
            work()
            least.append(time.process_time() - begin)
        seconds.append(min(least))
print(*seconds)
"""
WORKS = ("cosines between all pairs", "similarity to a reference")


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("revision")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--objects", type=int, default=20)
    parser.add_argument("--units", type=int, default=4096)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        old = Path(name) / "old"
        command = ["git", "archive", options.revision, "elsewhere", "benchmarks"]
        archive = subprocess.run(command, cwd=HERE, check=True, capture_output=True).stdout
        with tarfile.open(fileobj=io.BytesIO(archive)) as files:
            files.extractall(old, filter="data")
        sizes = [str(options.objects), str(options.units)]
        path = python(old, RECORD, name, *sizes).strip()
        found: dict[Path, list[list[float]]] = {old: [], HERE: []}
        for pair in range(options.pairs):
            for code in (old, HERE) if pair % 2 == 0 else (HERE, old):
                found[code].append([float(each) for each in python(code, MEASURE, path).split()])
    print(f"{options.objects} objects x 484 locations, {options.units} units")
    for number, work in enumerate(WORKS):
        before, now = (min(run[number] for run in found[code]) for code in (old, HERE))
        print(f"{work:28s} {now / before:.2f}   ({now:.2f} / {before:.2f} s of processor time)")


def python(code: Path, program: str, *arguments: str) -> str:
    """Run a program with the package of a folder, on one thread, and return what it prints."""
    environment = os.environ | {"PYTHONPATH": str(code), "OMP_NUM_THREADS": "1"}
    environment["OPENBLAS_NUM_THREADS"] = "1"
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, env=environment, cwd=code, check=True, stdout=subprocess.PIPE)
    return done.stdout.decode()


if __name__ == "__main__":
    main()
