"""Looking into files that may be damaged; run as a program, because HDF5 may crash or hang on them.

::

    python -P elsewhere/storage/checking.py probe FILE      # is there a recording, of which version
    python -P elsewhere/storage/checking.py verify FILE     # every chunk of every layer

It prints JSON, one value a line, and imports nothing of this package.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import sys
from collections.abc import Iterator
from typing import Any

import h5py
import hdf5plugin  # noqa: F401  (registers the filter)
import numpy as np


def say(**fields: Any) -> None:
    """Print fields as a line of JSON."""
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


def probe(path: str) -> None:
    """Print the stamps of a file, after reading all that opening it reads."""
    with h5py.File(path, "r") as file:
        for name in file:
            item = file[name]
            if isinstance(item, h5py.Dataset) and item.ndim == 1:
                item[...]
        for name in file.get("layers", ()):
            dict(file["layers"][name].attrs)
        attributes = dict(file.attrs)
        stamps = {key: attributes.get(key) for key in ("elsewhere_encoding", "encoding_version")}
        say(**{key: None if value is None else str(value) for key, value in stamps.items()})


def verify(path: str) -> None:
    """Print what is wrong with a recording: objects and cells of damaged chunks, layer by layer."""
    with h5py.File(path, "r") as file:
        names = json.loads(file.attrs["layers"])
        say(layers=names, version=str(file.attrs["encoding_version"]))
        for what in check_identity(file):
            say(damage=what)
        for name in names:
            say(begin=name)
            group = file["layers"][name]
            for small in ("empty", "reference"):
                if small in group:
                    fault = _read(group[small], (...,))
                    if fault is not None:
                        say(layer=name, damage=f"dataset {small}: {fault}")
            check_layer(name, group["activation"])
    say(end=True)


def check_identity(file: Any) -> Iterator[str]:
    """Yield in which ways a file's identity does not fit its content."""
    if "identity_fields" not in file.attrs:  # before version 0.2
        return
    text = file.attrs["identity_fields"]
    fields = json.loads(text)
    if hashlib.sha256(text.encode()).hexdigest() != file.attrs["identity"]:
        yield "the identity is not that of its fields"
    try:
        pixels = file["image"][...].tobytes() + file["mask"][...].tobytes()
        names = [file[key].asstr()[...].tolist() for key in ("object", "category")]
        axes = [[key, file[key][...].tolist()] for key in json.loads(file.attrs["axes"])]
    except (OSError, RuntimeError, ValueError) as error:
        yield f"objects or axes cannot be read: {_line(error)}"
        return
    found = {
        "pixels": hashlib.sha256(pixels).hexdigest(),
        "objects": hashlib.sha256(json.dumps(names).encode()).hexdigest(),
        "axes": axes,
        "dtype": file.attrs["dtype"],
    }
    for key, value in found.items():
        if fields[key] != value:
            yield f"{key} differ from the identity"


def check_layer(name: str, dataset: Any) -> None:
    """Print the blocks of a layer that are missing, unreadable or not finite."""
    there = set()
    dataset.id.chunk_iter(lambda chunk: there.add(tuple(chunk.chunk_offset)))
    steps = (range(0, size, step) for size, step in zip(dataset.shape, dataset.chunks, strict=True))
    count = 0
    for origin in itertools.product(*steps):
        count += 1
        stops = [
            min(start + step, size)
            for start, step, size in zip(origin, dataset.chunks, dataset.shape, strict=True)
        ]
        fault: str | None = "missing"
        if tuple(origin) in there:
            block = tuple(slice(a, b) for a, b in zip(origin, stops, strict=True))
            fault = _read(dataset, block)
        if fault is not None:
            say(layer=name, start=[int(i) for i in origin], stop=stops, damage=fault)
    say(checked=name, chunks=count, bytes=math.prod(dataset.shape) * dataset.dtype.itemsize)


def _read(dataset: Any, block: tuple[Any, ...]) -> str | None:
    try:
        values = dataset[block]
    except (OSError, RuntimeError, ValueError) as error:
        return f"unreadable ({_line(error)})"
    return None if np.isfinite(values).all() else "not finite"


def _line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


if __name__ == "__main__":
    {"probe": probe, "verify": verify}[sys.argv[1]](sys.argv[2])
