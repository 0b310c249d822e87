"""What a command does before its first image, counted: the process prints it as JSON and ends.

    python -m benchmarks.start record vgg16 --weights FILE ... --out run.h5

All but the seconds says the same on any machine: modules that were imported, files that were read,
bytes that were hashed, traces of the network, its passes and images, headers of the recording. What
is done twice stands under ``twice``: of files those of 64 KiB or more that belong to neither Python
nor this package, such as weights and pictures.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

BEGUN = time.perf_counter()
LARGE = 2**16
PACKAGE = [str(Path(__file__).parent.parent / name) for name in ("elsewhere", "benchmarks")]
OPENED: Counter[str] = Counter()
COUNTED: Counter[str] = Counter()


def listen(event: str, arguments: tuple[Any, ...]) -> None:
    """Count what is opened to be read; files of the system's own tell of processes, not of work."""
    if event != "open" or not isinstance(arguments[0], str | bytes | os.PathLike):
        return
    name, mode = os.fsdecode(arguments[0]), arguments[1]  # no mode: whether it is there is asked
    if isinstance(mode, str) and "r" in mode and not name.startswith(("/proc/", "/sys/", "/dev/")):
        OPENED[os.path.realpath(name)] += 1


class Hash:
    """A SHA-256 that counts what it is given."""

    def __init__(self, data: bytes = b"", **options: Any) -> None:
        self.hash = _sha256(data, **options)
        COUNTED["bytes hashed"] += memoryview(data).nbytes

    def update(self, data: Any) -> None:
        """Hash and count."""
        COUNTED["bytes hashed"] += memoryview(data).nbytes
        self.hash.update(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.hash, name)


_sha256 = hashlib.sha256


def counted(module: str, name: str, what: str) -> None:
    """Let the calls of a function be counted, by whatever name it was imported."""
    function = getattr(importlib.import_module(module), name)

    def call(*given: Any, **more: Any) -> Any:
        COUNTED[what] += 1
        return function(*given, **more)

    for held in list(sys.modules.values()):
        if getattr(held, "__dict__", {}).get(name) is function:
            setattr(held, name, call)


def tell() -> None:
    """Print what was counted, and end the process."""
    seconds = time.perf_counter() - BEGUN
    held = {name: n for name, n in OPENED.items() if Path(name).is_file()}
    own_code = tuple(map(os.path.realpath, (sys.prefix, sys.base_prefix, *PACKAGE)))
    twice = {
        name: n
        for name, n in held.items()
        if n > 1 and Path(name).stat().st_size >= LARGE and not name.startswith(own_code)
    }
    own = {what: COUNTED[what] for what in ("headers", "traces", "file digests")}
    found = {
        "modules": len(sys.modules),
        "files read": len(held),
        **COUNTED,
        "seconds": seconds,
        "twice": twice | {what: n for what, n in own.items() if n > 1},
    }
    print(json.dumps(found), flush=True)
    os._exit(0)


def main() -> None:
    """Run the command up to its first image."""
    sys.addaudithook(listen)
    hashlib.sha256 = Hash  # type: ignore[assignment, misc]
    from torch import nn  # noqa: PLC0415

    from elsewhere.cli import main as run  # noqa: PLC0415
    from elsewhere.models import Model  # noqa: PLC0415
    from elsewhere.recording import Sweep  # noqa: PLC0415

    counted("elsewhere.recording.record", "make_header", "headers")
    counted("elsewhere.recording.incremental.trace", "trace", "traces")
    counted("elsewhere.models.caches", "file_sha256", "file digests")
    call, made = nn.Module.__call__, Model.__post_init__
    networks: set[int] = set()

    def build(model: Model) -> None:
        networks.add(id(model.module))
        made(model)

    def count(module: nn.Module, *given: Any, **more: Any) -> Any:
        if id(module) in networks:
            COUNTED["passes"] += 1
            COUNTED["images"] += len(given[0])
        return call(module, *given, **more)

    Model.__post_init__ = build  # type: ignore[method-assign]
    nn.Module.__call__ = count  # type: ignore[method-assign]
    Sweep._feed = lambda *_: tell()  # type: ignore[assignment, method-assign]
    run()


if __name__ == "__main__":
    main()
