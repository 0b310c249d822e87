"""Looking into files that may be damaged; run as a program, because HDF5 may crash or hang on them.

::

    python -P elsewhere/storage/checking.py probe FILE      # is there a recording, of which version
    python -P elsewhere/storage/checking.py result FILE     # the same of a result, all of it read
    python -P elsewhere/storage/checking.py verify FILE     # every chunk of every layer

It prints JSON, one value a line, and imports nothing of this package.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
import sys
from collections.abc import Iterator
from typing import Any

import h5py
import hdf5plugin  # noqa: F401  (registers the filter)
import numpy as np

DEEPEST = 32
"""Groups within groups, at most."""

MOST_FOLD = 2**16
"""Times that an array may be larger than what is stored: Zstandard shrinks zeros 30,000 times."""

FREE_BYTES = 2**20
"""Bytes that an array may have whatever is stored of it."""

_NO_VARIABLE = b"This is a netCDF dimension but not a netCDF variable"


def check_structure(file: Any, *, whole: bool) -> None:
    """Refuse a file that leads out of itself, runs in circles, or claims more than it holds.

    No link is followed but those that HDF5 calls hard, which cannot leave the file.

    Parameters
    ----------
    file
        The open ``h5py.File``.
    whole
        Whether arrays must be all there; else those called ``activation`` may be large or missing.

    Raises
    ------
    ValueError
        The message says what, and where.
    """
    seen, claimed = set(), 0
    waiting = [("", h5py.h5g.open(file.id, b"/"))]
    while waiting:
        path, group = waiting.pop()
        address = h5py.h5o.get_info(group).addr
        if address in seen or path.count("/") > DEEPEST:
            raise ValueError(f"group {path!r} is linked twice, or lies too deep")
        seen.add(address)
        for key in list(group):
            name = f"{path}/{key.decode('utf-8', 'backslashreplace')}"
            if group.links.get_info(key).type != h5py.h5l.TYPE_HARD:
                raise ValueError(f"{name!r} is a link that could lead out of the file")
            item = h5py.h5o.open(group, key)
            if isinstance(item, h5py.h5g.GroupID):
                waiting.append((name, item))
            elif isinstance(item, h5py.h5d.DatasetID):
                claimed += _check_array(name, item, whole or key != b"activation")
    if claimed > (memory := os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")):
        raise ValueError(f"its arrays claim {claimed} bytes, and the memory has {memory}")


def _check_array(name: str, dataset: Any, whole: bool) -> int:
    """Return the bytes that an array takes up once it is read, 0 where it is not read whole."""
    made = dataset.get_create_plist()
    layout = made.get_layout()
    if layout == h5py.h5d.VIRTUAL or made.get_external_count():
        raise ValueError(f"the values of {name!r} lie in another file")
    space = dataset.get_space()
    claimed = space.get_simple_extent_npoints() * dataset.get_type().get_size()
    if not whole or claimed == 0 or _is_bare_dimension(dataset):
        return 0
    stored = dataset.get_storage_size()
    if claimed > MOST_FOLD * stored + FREE_BYTES:
        raise ValueError(f"{name!r} claims to have {claimed} bytes, and holds {stored}")
    if layout == h5py.h5d.CHUNKED:
        sizes = zip(space.get_simple_extent_dims(), made.get_chunk(), strict=True)
        expected = math.prod(-(-size // step) for size, step in sizes)
        if dataset.get_num_chunks() != expected:
            raise ValueError(f"{name!r} lacks {expected - dataset.get_num_chunks()} of its chunks")
    return int(claimed)


def _is_bare_dimension(dataset: Any) -> bool:
    """Return whether a dataset is a dimension of netCDF that has no values."""
    if not h5py.h5a.exists(dataset, b"NAME"):
        return False
    name = h5py.Dataset(dataset).attrs["NAME"]
    return isinstance(name, bytes | np.bytes_) and bytes(name).startswith(_NO_VARIABLE)


def say(**fields: Any) -> None:
    """Print fields as a line of JSON."""
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


def probe(path: str) -> None:
    """Print the stamps of a file, after reading all that opening it reads."""
    with h5py.File(path, "r") as file:
        check_structure(file, whole=False)
        for name in file:
            item = file[name]
            if isinstance(item, h5py.Dataset) and item.ndim == 1:
                item[...]
        for name in file.get("layers", ()):
            dict(file["layers"][name].attrs)
        say_stamps(file)


def say_stamps(file: Any) -> None:
    """Print what a file says that it is."""
    attributes = dict(file.attrs)
    stamps = {key: attributes.get(key) for key in ("elsewhere_encoding", "encoding_version")}
    say(**{key: None if value is None else str(value) for key, value in stamps.items()})


def result(path: str) -> None:
    """Print the stamps of a result, after reading all of it."""
    with h5py.File(path, "r") as file:
        check_structure(file, whole=True)
        waiting = [file]
        while waiting:
            for item in waiting.pop().values():
                dict(item.attrs)
                if isinstance(item, h5py.Group):
                    waiting.append(item)
                elif isinstance(item, h5py.Dataset) and item.shape is not None:
                    item[...]
        say_stamps(file)


def verify(path: str) -> None:
    """Print what is wrong with a file, of a recording layer by layer; of others, read all."""
    with h5py.File(path, "r") as file:
        say_stamps(file)
        if str(file.attrs.get("elsewhere_encoding")) != "recording":
            result(path)
            say(end=True)
            return
        check_structure(file, whole=False)
        names = json.loads(file.attrs["layers"])
        say(layers=names, version=str(file.attrs["encoding_version"]))
        say(left_out=chunks_sha256(file, names))
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


def chunks_sha256(file: Any, names: list[str]) -> str:
    """Return the SHA-256 of where the chunks of activations lie, as a seal must leave them out."""
    ranges: list[list[int]] = []

    def note(chunk: Any) -> None:
        ranges.append([chunk.byte_offset, chunk.size])

    for name in names:
        file["layers"][name]["activation"].id.chunk_iter(note)
    merged: list[list[int]] = []
    for offset, size in sorted(ranges):
        if merged and sum(merged[-1]) == offset:
            merged[-1][1] += size
        else:
            merged.append([offset, size])
    return ranges_sha256(merged)


def ranges_sha256(ranges: Any) -> str:
    """Return the SHA-256 of ranges, pairs of offset and length."""
    return hashlib.sha256(json.dumps([list(pair) for pair in ranges]).encode()).hexdigest()


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
    {"probe": probe, "result": result, "verify": verify}[sys.argv[1]](sys.argv[2])
