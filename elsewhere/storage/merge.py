"""Merging the parts of a recording into one file, by copying compressed chunks.

Run as a program, in a process of its own, because HDF5 does not survive a full disk::

    python -P elsewhere/storage/merge.py PARTS TARGET PARENT

It imports nothing of this package but its neighbour, so that it starts fast and wherever the
package lies.
"""

from __future__ import annotations

import importlib.util
import itertools
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import hdf5plugin  # noqa: F401  (registers the filter)

if TYPE_CHECKING or __name__ != "__main__":
    from elsewhere.storage import seal
else:
    _spec = importlib.util.spec_from_file_location("seal", Path(__file__).with_name("seal.py"))
    seal = sys.modules["seal"] = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(seal)

HEADER = "header.h5"


def unit_name(number: int) -> str:
    """Return the file name of a unit's part."""
    return f"unit-{number:07d}.h5"


def merge_parts(parts: Path, target: Path, parent: int) -> None:
    """Write the file that the parts make up to `target`, and check that no chunk is missing.

    It ends with the process that asked for it, whose number is `parent`.
    """
    shutil.copyfile(parts / HEADER, target)
    header = _checked(parts / HEADER)
    with open(target, "rb+") as handle:
        handle.truncate(header.size)
    with h5py.File(target, "r+") as file:
        layers = file["layers"]
        for path in sorted(parts.glob("unit-*.h5")):
            if os.getppid() != parent:
                raise ValueError("the process that asked for it is gone")
            if _checked(path).mark != header.mark:
                raise ValueError(f"part {path.name} belongs to another recording")
            with h5py.File(path, "r") as part:
                start = tuple(int(n) for n in part.attrs["start"])
                for name in part:
                    _copy_chunks(part[name], layers[name]["activation"], start)
        for name in layers:
            _check_complete(name, layers[name]["activation"])
    seal_recording(target)


def seal_recording(path: Path) -> None:
    """Seal a recording whose activations are all there, and synchronise it."""
    ranges: list[tuple[int, int]] = []

    def note(chunk: Any) -> None:
        ranges.append((chunk.byte_offset, chunk.size))

    with h5py.File(path, "r") as file:
        for name in file["layers"]:
            file["layers"][name]["activation"].id.chunk_iter(note)
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
    expected = 1
    for size, step in zip(dataset.shape, dataset.chunks, strict=True):
        expected *= -(-size // step)
    if dataset.id.get_num_chunks() != expected:
        found = dataset.id.get_num_chunks()
        raise ValueError(f"layer {name}: {found} of {expected} chunks; a part is missing")


if __name__ == "__main__":
    merge_parts(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
