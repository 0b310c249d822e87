"""What decides the last bits of a result beside the network: the machine, threads, the code."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import os
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

import elsewhere
from elsewhere.errors import InputError
from elsewhere.types import Precision

_CHOOSING = (
    "MKL_CBWR",
    "MKL_ENABLE_INSTRUCTIONS",
    "ONEDNN_MAX_CPU_ISA",
    "DNNL_MAX_CPU_ISA",
    "OPENBLAS_CORETYPE",
)
"""Variables of the environment by which libraries choose their instructions."""


def versions_of(*packages: str) -> dict[str, str]:
    """Return the versions of packages; a checkout of this one need not be installed."""
    own = {"elsewhere": elsewhere.__version__}
    return {name: own.get(name) or importlib.metadata.version(name) for name in packages}


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Return what a computation's last bits depend on: device, threads, processor, libraries.

    ``cpu_capability`` is the instruction set of torch's own loops, ``processor`` the kind of
    processor (its maker's family and model), by which libraries choose as well, and ``blas`` what
    multiplies matrices, with what the environment tells it and oneDNN to choose. Of a CUDA device
    also the kind of ``card``, its compute ``capability``, and the versions of ``cuda`` and
    ``cudnn``, which choose how convolutions are summed.
    """
    return {
        "device": device.type,
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "processor": _processor(),
        "blas": _blas(),
        "torch": str(torch.__version__),
        **(_card(device) if device.type == "cuda" else {}),
    }


def describe_precision(device: torch.device, precision: Precision) -> dict[str, Any]:
    """Return what numbers are rounded to; of a CUDA device also whether TF32 is let in."""
    tf32 = {"tf32": precision == "tf32"} if device.type == "cuda" else {}
    return {"precision": precision, **tf32}


def _card(device: torch.device) -> dict[str, Any]:
    """Return what tells one kind of card, and what runs on it, from another."""
    return {
        "card": torch.cuda.get_device_name(device),
        "capability": "{}.{}".format(*torch.cuda.get_device_capability(device)),
        "cuda": str(torch.version.cuda or torch.version.hip),
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
    }


@functools.cache
def _processor() -> str:
    """Return the kind of the processor, such as ``GenuineIntel 6/106``."""
    known: dict[str, str] = {}
    with contextlib.suppress(OSError):  # not Linux
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            name, _, value = line.partition(":")
            known.setdefault(name.strip(), value.strip())
    for maker, parts in (
        ("vendor_id", ("cpu family", "model")),
        ("CPU implementer", ("CPU architecture", "CPU part")),
    ):
        if maker in known:
            return f"{known[maker]} {'/'.join(known.get(part, '?') for part in parts)}"
    return platform.processor() or platform.machine()


def _blas() -> str:
    """Return torch's library for matrices, and what of the environment decides what it does."""
    found = re.search(r"Math Kernel Library Version ([\d.]+)", torch.__config__.show())
    named = re.search(r"BLAS_INFO=(\w+)", torch.__config__.show())
    library = f"mkl {found[1]}" if found else named[1] if named else "unknown"
    told = [f"{name}={os.environ[name]}" for name in _CHOOSING if name in os.environ]
    return " ".join([library, *told])


@contextmanager
def using_threads(threads: int) -> Iterator[None]:
    """Let torch use so many threads of the CPU for a while.

    Raises
    ------
    InputError
        Fewer than one.
    """
    if threads < 1:
        raise InputError(f"threads must be at least 1; got {threads}")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@functools.cache
def code_version() -> str:
    """Return this package's version and the SHA-256 of its source, for keys of what is kept.

    What was computed by other code is computed again, also between two releases.
    """
    folder, digest = Path(elsewhere.__file__).parent, hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes() + b"\0")
    return f"{elsewhere.__version__} {digest.hexdigest()[:16]}"
