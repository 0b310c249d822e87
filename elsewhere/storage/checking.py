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
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

import h5py
import hdf5plugin  # noqa: F401  (registers the filter)
import numpy as np

DEEPEST = 32
"""Groups within groups, at most."""

MOST_ITEMS = 2**15
"""Groups and arrays of a file, at most: of every layer there are eight."""

GZIP, SHUFFLE, FLETCHER32, ZSTANDARD = 1, 2, 3, 32015
FILTERS = (GZIP, SHUFFLE, FLETCHER32, ZSTANDARD)
"""Filters of HDF5 that our files have; for any other, HDF5 would look for a program to load."""

MOST_ATTRIBUTES = 2**10
"""Attributes of a group or array, at most: HDF5 takes time that grows with their square."""

MOST_TEXTS = 64
"""Texts that one attribute may have: all of them may be the same place of the file."""

PIECE_BYTES = 2**27
"""Bytes of texts that are read at a time, at most, or one text."""

MOST_FOLD = 2**16
"""Times that an array may be larger than what is stored: Zstandard shrinks zeros 30,000 times."""

CHECKSUM_BYTES = 4
"""What a checksum adds to a chunk, where it is packed with it."""

GZIP_FOLD = 1032
"""Times that gzip shrinks anything, at most."""

FREE_BYTES = 2**20
"""Bytes that an array may have whatever is stored of it."""

_NO_VARIABLE = b"This is a netCDF dimension but not a netCDF variable"


def check_structure(file: Any, *, whole: bool) -> None:
    """Refuse a file that leads out of itself, runs in circles, or claims more than it holds.

    No link is followed but those that HDF5 calls hard, which cannot leave the file. Arrays must be
    all there; unless `whole`, those called ``activation`` may be large or missing. The
    ``ValueError`` says what, and where.
    """
    seen, claimed, count = set(), 0, 0
    _check_attributes("/", file.id)
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
            if (count := count + 1) > MOST_ITEMS:
                raise ValueError(f"it has more than {MOST_ITEMS} groups and arrays")
            item = h5py.h5o.open(group, key)
            _check_attributes(name, item)
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
    filters = _filters(made)
    if unknown := set(filters) - set(FILTERS):
        raise ValueError(f"{name!r} is packed by filter {min(unknown)}, which our files never are")
    if len(set(filters)) < len(filters) or {GZIP, ZSTANDARD} <= set(filters):
        raise ValueError(f"{name!r} is packed twice")
    space, kind = dataset.get_space(), dataset.get_type()
    claimed = space.get_simple_extent_npoints() * kind.get_size()
    if layout == h5py.h5d.CHUNKED:
        chunk = math.prod(made.get_chunk()) * kind.get_size()
        if chunk > claimed + FREE_BYTES:
            raise ValueError(f"{name!r} has {claimed} bytes, and a chunk of it {chunk}")
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
        Chunks(h5py.Dataset(dataset)).check()
    if _varies(kind):
        claimed += _check_texts(name, h5py.Dataset(dataset))
    return int(claimed)


def _filters(made: Any) -> list[int]:
    return [made.get_filter(index)[0] for index in range(made.get_nfilters())]


def _varies(kind: Any) -> bool:
    """Return whether values of a type have no size of their own."""
    if isinstance(kind, h5py.h5t.TypeCompoundID):
        return any(_varies(kind.get_member_type(i)) for i in range(kind.get_nmembers()))
    if isinstance(kind, h5py.h5t.TypeArrayID):
        return _varies(kind.get_super())
    if isinstance(kind, h5py.h5t.TypeStringID):
        return bool(kind.is_variable_str())
    return isinstance(kind, h5py.h5t.TypeVlenID)


def _check_attributes(name: str, item: Any) -> None:
    """Refuse very many attributes, and one of many values of any size, which is read at once."""
    if (number := h5py.h5a.get_num_attrs(item)) > MOST_ATTRIBUTES:
        raise ValueError(f"{name!r} has {number} attributes; at most {MOST_ATTRIBUTES} are read")
    for index in range(number):
        attribute = h5py.h5a.open(item, index=index)
        count = attribute.get_space().get_simple_extent_npoints()
        if count > MOST_TEXTS and _varies(attribute.get_type()):
            raise ValueError(f"an attribute of {name!r} holds {count} texts")


def _check_texts(name: str, dataset: Any) -> int:
    """Return how long the texts of an array are together: each stands in the file once."""
    if not isinstance(dataset.id.get_type(), h5py.h5t.TypeStringID):
        raise ValueError(f"{name!r} holds values of any size that are no texts")
    limit, total = os.fstat(_descriptor(dataset)).st_size, 0
    step, last = max(1, PIECE_BYTES // limit), (*dataset.shape, 1)[dataset.ndim - 1]
    for place in np.ndindex(*dataset.shape[:-1]):
        for start in range(0, last if dataset.ndim else 1, step):
            piece = (*place, slice(start, start + step)) if dataset.ndim else ()
            total += sum(map(len, np.atleast_1d(dataset[piece])))
            if total > limit:
                raise ValueError(f"the texts of {name!r} are longer than the file")
    return total


def _descriptor(dataset: Any) -> int:
    """Return the file descriptor by which HDF5 reads the file of an array."""
    return int(h5py.h5i.get_file_id(dataset.id).get_vfd_handle())


class Chunks:
    """The packed pieces of a dataset: HDF5 unpacks each to whatever size it says of itself."""

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset
        filters = _filters(dataset.id.get_create_plist())
        self._packed = [(i, f) for i, f in enumerate(filters) if f in (GZIP, ZSTANDARD)]
        self._found: dict[tuple[int, ...], tuple[int, int, int]] | None = None

    def check(self, key: tuple[Any, ...] = ()) -> None:
        """Refuse what `key` selects where a chunk is missing, or is no chunk once it is unpacked.

        `key` has a slice, an index or sorted indices per dimension; the others are read whole. The
        ``ValueError`` says which chunk.
        """
        dataset = self._dataset
        if not self._packed or not dataset.size:
            return
        if self._found is None:
            found = self._found = {}

            def note(chunk: Any) -> None:
                where = chunk.byte_offset, chunk.size, chunk.filter_mask
                found[tuple(chunk.chunk_offset)] = where

            dataset.id.chunk_iter(note)
        size = math.prod(dataset.chunks) * dataset.dtype.itemsize
        key = (*key, *(slice(None),) * (dataset.ndim - len(key)))
        picked = (
            np.unique(np.arange(n)[index] // step) * step
            for n, index, step in zip(dataset.shape, key, dataset.chunks, strict=True)
        )
        descriptor = _descriptor(dataset)
        for start in itertools.product(*(places.tolist() for places in picked)):
            if start not in self._found:
                raise ValueError(f"the chunk at {list(start)} is missing")
            offset, stored, left_out = self._found[start]
            for place, packer in self._packed:
                if left_out >> place & 1:  # such as gzip of what does not become smaller
                    continue
                measure = _unpacked_by_gzip if packer == GZIP else _unpacked_by_zstandard
                unpacked = measure(descriptor, offset, stored, size)
                if not size <= unpacked <= size + CHECKSUM_BYTES:
                    raise ValueError(
                        f"the chunk at {list(start)} unpacks to {unpacked} bytes; expected {size}"
                    )


def _unpacked_by_zstandard(descriptor: int, offset: int, stored: int, size: int) -> int:
    """Return to how many bytes a frame says that it unpacks, which is what HDF5 makes room for.

    The frame's header is that of RFC 8878, section 3.1.1.1.
    """
    head = os.pread(descriptor, 18, offset).ljust(18, b"\0")
    if head[:4] != b"\x28\xb5\x2f\xfd":
        return -1
    flags = head[4]
    start = 5 + (not flags & 32) + (0, 1, 2, 4)[flags & 3]
    length = (flags >> 5 & 1, 2, 4, 8)[flags >> 6]
    return int.from_bytes(head[start : start + length], "little") + 256 * (length == 2)


def _unpacked_by_gzip(descriptor: int, offset: int, stored: int, size: int) -> int:
    """Return how long a chunk is once it is unpacked, or so far as it was, beyond its size."""
    if GZIP_FOLD * stored < FREE_BYTES:
        return size
    try:
        most = size + CHECKSUM_BYTES + 1
        unpacked = zlib.decompressobj().decompress(os.pread(descriptor, stored, offset), most)
    except zlib.error:
        return -1
    return len(unpacked)


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
    merged: list[list[int]] = []
    for offset, size in sorted(chunk_ranges(file, names)):
        if merged and sum(merged[-1]) == offset:
            merged[-1][1] += size
        else:
            merged.append([offset, size])
    return ranges_sha256(merged)


def chunk_ranges(file: Any, names: Iterable[str]) -> list[tuple[int, int]]:
    """Return offset and length of the chunks of layers' activations."""
    ranges: list[tuple[int, int]] = []
    for name in names:
        file["layers"][name]["activation"].id.chunk_iter(
            lambda chunk: ranges.append((chunk.byte_offset, chunk.size))
        )
    return ranges


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
        axes = [_axis_fields(key, file[key]) for key in json.loads(file.attrs["axes"])]
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        yield f"objects or axes cannot be read: {one_line(error)}"
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


def _axis_fields(name: str, variable: Any) -> list[Any]:
    """Return an axis as an identity names it: with its unit where it changes objects."""
    unit = [str(variable.attrs["units"])] if "changes" in variable.attrs else []
    return [name, variable[...].tolist(), *unit]


def check_layer(name: str, dataset: Any) -> None:
    """Print the blocks of a layer that are missing, unreadable or not finite."""
    chunks = Chunks(dataset)
    steps = (range(0, size, step) for size, step in zip(dataset.shape, dataset.chunks, strict=True))
    count = 0
    for origin in itertools.product(*steps):
        count += 1
        stops = [
            min(start + step, size)
            for start, step, size in zip(origin, dataset.chunks, dataset.shape, strict=True)
        ]
        block = tuple(slice(a, b) for a, b in zip(origin, stops, strict=True))
        try:
            chunks.check(block)
            fault = _read(dataset, block)
        except ValueError as error:
            fault = "missing" if str(error).endswith("is missing") else one_line(error)
        if fault is not None:
            say(layer=name, start=[int(i) for i in origin], stop=stops, damage=fault)
    say(checked=name, chunks=count, bytes=math.prod(dataset.shape) * dataset.dtype.itemsize)


def _read(dataset: Any, block: tuple[Any, ...]) -> str | None:
    try:
        values = dataset[block]
    except (OSError, RuntimeError, ValueError) as error:
        return f"unreadable ({one_line(error)})"
    return None if np.isfinite(values).all() else "not finite"


def one_line(error: BaseException) -> str:
    """Return the first line of an error's message, or its class."""
    return (str(error).splitlines() or [type(error).__name__])[0]


if __name__ == "__main__":
    {"probe": probe, "result": result, "verify": verify}[sys.argv[1]](sys.argv[2])
