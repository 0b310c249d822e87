"""Merging the parts of a recording into one file, by copying compressed chunks.

Run as a program, in a process of its own, because HDF5 does not survive a full disk::

    python -P elsewhere/storage/merge.py PARTS TARGET PARENT

It imports nothing of this package but its neighbours, so that it starts fast and wherever the
package lies.
"""

from __future__ import annotations

import importlib.util
import itertools
import math
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import hdf5plugin  # noqa: F401  (registers the filter)

if TYPE_CHECKING or __name__ != "__main__":
    from elsewhere.storage import checking, seal
else:

    def _neighbour(name: str) -> Any:
        path = Path(__file__).with_name(f"{name}.py")
        spec = importlib.util.spec_from_file_location(name, path)
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    checking, seal = _neighbour("checking"), _neighbour("seal")

HEADER = "header.h5"


def portion_name(number: int) -> str:
    """Return the file name of a portion's part, which says ``unit`` since the first format."""
    return f"unit-{number:07d}.h5"


def portion_mark(mark: str, number: int) -> str:
    """Return what the part of a portion is marked with: a copy of another portion's is no part."""
    return f"{mark}:{number}"


def portion_files(parts: Path) -> list[tuple[int, Path]]:
    """Return the numbers and files of the portions in a folder of parts, in order.

    What only resembles one (``unit-0000000 (1).h5``, a link) is left alone.
    """
    found = []
    for path in parts.glob("unit-*.h5"):
        digits = path.stem.removeprefix("unit-")
        number = int(digits) if digits.isascii() and digits.isdecimal() else -1
        if number >= 0 and path.name == portion_name(number) and not path.is_symlink():
            found.append((number, path))
    return sorted(found)


def merge_parts(parts: Path, target: Path, parent: int) -> None:
    """Write the file that the parts make up to `target`, and check that no chunk is missing.

    It ends with the process that asked for it, whose number is `parent`.
    """
    shutil.copyfile(parts / HEADER, target)
    header = _checked(parts / HEADER)
    with open(target, "rb+") as handle:
        handle.truncate(header.size)
    with h5py.File(target, "r") as file:
        checking.check_structure(file, whole=False)
    with h5py.File(target, "r+") as file:
        layers = file["layers"]
        for number, path in portion_files(parts):
            if os.getppid() != parent:
                raise ValueError("the process that asked for it is gone")
            if _checked(path).mark != portion_mark(header.mark, number):
                raise ValueError(f"part {path.name} belongs to another recording")
            with h5py.File(path, "r") as part:
                checking.check_structure(part, whole=True)
                start = tuple(int(n) for n in part.attrs["start"])
                for name in part:
                    _copy_chunks(part[name], layers[name]["activation"], start)
        for name in layers:
            _check_complete(name, layers[name]["activation"])
    seal_recording(target)


def seal_recording(path: Path) -> None:
    """Seal a recording whose activations are all there, and synchronise it."""
    with h5py.File(path, "r") as file:
        ranges = checking.chunk_ranges(file, file["layers"])
    seal.append_seal(path, ranges)


def _checked(path: Path) -> seal.Seal:
    """Return the seal of a part after checking it."""
    try:
        found = seal.read_seal(path)
        if found is None:
            raise seal.SealError("its seal is missing")
        seal.check_seal(path, found)
    except seal.SealError as error:
        raise ValueError(f"part {path.name} is damaged: {error}") from error
    return found


def _copy_chunks(source: Any, destination: Any, start: tuple[int, ...]) -> None:
    offsets = start + (0,) * (len(source.shape) - len(start))
    steps = (range(0, size, step) for size, step in zip(source.shape, source.chunks, strict=True))
    for origin in itertools.product(*steps):
        mask, data = source.id.read_direct_chunk(origin)
        place = tuple(a + b for a, b in zip(origin, offsets, strict=True))
        destination.id.write_direct_chunk(place, data, mask)


def _check_complete(name: str, dataset: Any) -> None:
    sizes = zip(dataset.shape, dataset.chunks, strict=True)
    expected = math.prod(-(-size // step) for size, step in sizes)
    if (found := dataset.id.get_num_chunks()) != expected:
        raise ValueError(f"layer {name}: {found} of {expected} chunks; a part is missing")


if __name__ == "__main__":
    merge_parts(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
