"""Run pytest as if the processor had the oldest instruction set that the libraries can be told of.

    python tests/lowest.py [--show] [what pytest takes]

Sums, matrix products and convolutions then add in another order, and in fewer lanes, than those of
the processor at hand: what passes here and there does not depend on it. Without an environment that
says otherwise this is SSE on x86-64, and whatever is plainest elsewhere.
"""

from __future__ import annotations

import os
import platform
import sys


def pretend() -> dict[str, str]:
    """Return what has to be in the environment before NumPy and torch are loaded."""
    from numpy._core._multiarray_umath import __cpu_dispatch__ as dispatched

    found = {
        "ATEN_CPU_CAPABILITY": "default",  # torch's own loops
        "NPY_DISABLE_CPU_FEATURES": " ".join(dispatched),  # NumPy's own loops
    }
    if platform.machine().lower() in ("x86_64", "amd64"):
        found |= {
            "ONEDNN_MAX_CPU_ISA": "SSE41",  # torch's convolutions
            "MKL_CBWR": "COMPATIBLE",  # torch's matrix products
            "OPENBLAS_CORETYPE": "Prescott",  # NumPy's and SciPy's matrix products
        }
    return found


def show() -> None:
    """Print what the libraries take themselves to run on."""
    import threadpoolctl
    import torch
    from numpy._core._multiarray_umath import __cpu_dispatch__
    from numpy._core._multiarray_umath import __cpu_features__ as features

    blas = [p.get("architecture") for p in threadpoolctl.threadpool_info() if "architecture" in p]
    numpy = [name for name in __cpu_dispatch__ if features.get(name)] or ["its baseline"]
    capability = torch.backends.cpu.get_cpu_capability()
    print(f"torch {capability}; NumPy {', '.join(numpy)}; its BLAS {', '.join(blas)}")  # noqa: T201


if __name__ == "__main__":
    if "--show" in sys.argv and "ATEN_CPU_CAPABILITY" in os.environ:
        show()
    elif "--show" in sys.argv:
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | pretend())
    else:
        command = [sys.executable, "-m", "pytest", *sys.argv[1:]]
        os.execve(sys.executable, command, os.environ | pretend())
