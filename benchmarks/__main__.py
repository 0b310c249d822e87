"""Runs all benchmarks one after the other: ``python -m benchmarks``."""

from __future__ import annotations

import subprocess
import sys

for name in (
    "compression",
    "recording",
    "training",
    "measures",
    "probes",
    "engine",
    "occlusion",
    "coverage",
):
    print(f"--- {name}", flush=True)
    subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=True)
