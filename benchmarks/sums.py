"""What it costs that sums over units are taken in double precision, in processor time.

    python -m benchmarks.sums [--pairs 8] [--objects 10] [--units 4096]

The same code with its sums, and with single-precision ones of 8,192 units at a time in their place,
in turns in one process: cosines between all pairs of 484 locations, and the similarity to one
reference, from a recording. The least of all runs is compared, since other work on the machine
only adds. Goal: 1.1 (docs/decisions/0017-sums.md).
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from benchmarks.measures import make_recording
from elsewhere.analyzer import measure, similarity
from elsewhere.measures import cosines, stretches, vectors
from elsewhere.storage import open_recording

STRETCH = 8_192


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--objects", type=int, default=10)
    parser.add_argument("--units", type=int, default=4096)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        path = make_recording(Path(folder), options.objects, 22, options.units)
        with open_recording(path) as recording:
            works = {
                "cosines between all pairs": lambda: measure(
                    recording, names="cosine", max_memory="4GiB"
                ),
                "similarity to a reference": lambda: similarity(recording, max_memory="4GiB"),
            }
            for name, work in works.items():
                least = dict.fromkeys(("double", "single"), float("inf"))
                work()  # pays for imports
                for _ in range(options.pairs):
                    for kind in least:
                        with single() if kind == "single" else contextlib.nullcontext():
                            begin = time.process_time()
                            work()
                            least[kind] = min(least[kind], time.process_time() - begin)
                ratio = least["double"] / least["single"]
                print(f"{name:28s} {ratio:.2f}   ({least['double']:.2f} / {least['single']:.2f} s)")


@contextlib.contextmanager
def single() -> Iterator[None]:
    """Take sums in single precision, as they were before the decision."""
    with contextlib.ExitStack() as stack:
        for module in (vectors, cosines):
            stack.enter_context(mock.patch.object(module, "dot_products", _dot_products))
        for module in (vectors, stretches):
            stack.enter_context(mock.patch.object(module, "squared_norms", _squared_norms))
        stack.enter_context(mock.patch.object(stretches.Stretch, "_scaled", staticmethod(_scaled)))
        yield


def _dot_products(a: Any, b: Any) -> Any:
    total = np.zeros((len(a), len(b)))
    for start in range(0, a.shape[1], STRETCH):
        chosen = slice(start, start + STRETCH)
        total += vectors.to_numpy(a[:, chosen] @ b[:, chosen].T)
    return total


def _squared_norms(a: Any) -> Any:
    total = np.zeros(len(a))
    for start in range(0, a.shape[1], STRETCH):
        part = vectors.to_numpy(a[:, start : start + STRETCH])
        total += (part * part).sum(-1)
    return total


def _scaled(origin: Any, rows: Any, offsets: Any, inverse: Any) -> Any:
    if origin is not None:
        rows = rows - origin
    if offsets.any():
        rows = rows - offsets[:, None].astype(rows.dtype)
    return rows * inverse[:, None].astype(rows.dtype)


if __name__ == "__main__":
    main()
