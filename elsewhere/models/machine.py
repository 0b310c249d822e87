"""What decides the last bits of a result beside the network: the machine, threads, the code."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

import elsewhere
from elsewhere.errors import InputError


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Return what a computation's last bits depend on: device, threads, instructions, torch."""
    return {
        "device": device.type,
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "torch": str(torch.__version__),
    }


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
