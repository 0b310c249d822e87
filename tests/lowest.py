"""Run pytest as if the processor had the oldest instruction set that the libraries can be told of.

    python tests/lowest.py [--avx2] [--show] [what pytest takes]

Sums, matrix products and convolutions then add in another order, and in fewer lanes, than those of
the processor at hand: what passes here and there does not depend on it. This is SSE on x86-64, and
whatever is plainest elsewhere; with ``--avx2`` what x86-64 without AVX-512 has.
"""

from __future__ import annotations

import os
import platform
import sys


def pretend(*, avx2: bool = False) -> dict[str, str]:
    """Return what has to be in the environment before NumPy and torch are loaded."""
    from numpy._core._multiarray_umath import __cpu_dispatch__ as dispatched

    newer = [name for name in dispatched if not avx2 or "512" in name or name == "X86_V4"]
    found = {
        "ATEN_CPU_CAPABILITY": "avx2" if avx2 else "default",  # torch's own loops
        "NPY_DISABLE_CPU_FEATURES": " ".join(newer),  # NumPy's own loops
    }
    if platform.machine().lower() in ("x86_64", "amd64"):
        found |= {
            "ONEDNN_MAX_CPU_ISA": "AVX2" if avx2 else "SSE41",  # torch's convolutions
            "MKL_CBWR": "AVX2" if avx2 else "COMPATIBLE",  # torch's matrix products
            "OPENBLAS_CORETYPE": "Haswell" if avx2 else "Prescott",  # NumPy's and SciPy's
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
    given = [word for word in sys.argv[1:] if word not in ("--avx2", "--show")]
    if "--show" in sys.argv and "ATEN_CPU_CAPABILITY" in os.environ:
        show()
    else:
        command = [*sys.argv] if "--show" in sys.argv else ["-m", "pytest", *given]
        environment = os.environ | pretend(avx2="--avx2" in sys.argv)
        os.execve(sys.executable, [sys.executable, *command], environment)
