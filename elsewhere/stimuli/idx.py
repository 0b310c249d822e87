"""The object sets that come as idx files: mnist, fashion-mnist, kmnist and emnist."""

from __future__ import annotations

import gzip
import hashlib
import io
import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_fill_holes

from elsewhere.errors import ObjectSetError
from elsewhere.stimuli.arrays import ByteArray
from elsewhere.stimuli.objects import ObjectRequest, ObjectSet
from elsewhere.stimuli.rasters import as_color, resize_cutouts
from elsewhere.stimuli.sampling import draw_exemplars, exemplar_ids, sample_strokes

DEBIAN_FOLDER = Path("/usr/share/datasets")
"""Where Debian's data packages put their files; looked at when no folder is given."""


LARGEST = 2**30
"""Bytes of an unpacked file, at most."""


@dataclass(frozen=True)
class Collection:
    """Where the files of a data set are, and what is in them."""

    name: str  # of the object set
    folders: tuple[str, ...]  # sub-folders of the data folder that are the set's own
    stems: dict[str, str]  # for each split, the beginning of the files' names
    categories: tuple[str, ...]  # the names of the labels 0, 1, ...
    remedy: str  # where the files come from
    transposed: bool = False  # whether pictures are stored column by column


_STEMS = {"train": "train", "test": "t10k"}
_EMNIST_LETTERS = (*(f"{c}_capital" for c in "abcdefghijklmnopqrstuvwxyz"), *"abdefghnqrt")

MNIST = Collection(
    "mnist",
    ("MNIST/raw", "MNIST", "mnist/raw", "mnist"),
    _STEMS,
    tuple("0123456789"),
    "get the four files of MNIST (torchvision.datasets.MNIST downloads them)",
)
FASHION_MNIST = Collection(
    "fashion-mnist",
    ("FashionMNIST/raw", "FashionMNIST", "fashion-mnist", "fashion_mnist", "fashion"),
    _STEMS,
    (
        *("t_shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag"),
        "ankle_boot",
    ),
    "get the four files of Fashion-MNIST (Debian: the package dataset-fashion-mnist; or "
    "torchvision.datasets.FashionMNIST downloads them)",
)
KMNIST = Collection(
    "kmnist",
    ("KMNIST/raw", "KMNIST", "kmnist/raw", "kmnist"),
    _STEMS,
    ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
    "get the four files of Kuzushiji-MNIST (torchvision.datasets.KMNIST downloads them)",
)
EMNIST = Collection(
    "emnist",
    ("EMNIST/raw", "EMNIST", "emnist/raw", "emnist", "gzip"),
    {"train": "emnist-balanced-train", "test": "emnist-balanced-test"},
    (*"0123456789", *_EMNIST_LETTERS),
    "get the balanced files of EMNIST (torchvision.datasets.EMNIST downloads them)",
    transposed=True,
)


def build_mnist(request: ObjectRequest) -> ObjectSet:
    """Return MNIST's digits, white; alpha is the ink."""
    return _build_strokes(MNIST, request)


def build_kmnist(request: ObjectRequest) -> ObjectSet:
    """Return Kuzushiji-MNIST's kana, white; alpha is the ink."""
    return _build_strokes(KMNIST, request)


def build_emnist(request: ObjectRequest) -> ObjectSet:
    """Return EMNIST's letters and digits (the balanced split), white and upright."""
    return _build_strokes(EMNIST, request)


def build_fashion_mnist(request: ObjectRequest) -> ObjectSet:
    """Return Fashion-MNIST's clothes in grey; alpha covers what is not black, holes filled."""
    pictures, labels, source = read_collection(FASHION_MNIST, request)
    rows, categories = draw_exemplars("fashion-mnist", labels, FASHION_MNIST.categories, request)
    solid = np.stack([binary_fill_holes(picture > 0) for picture in pictures[rows]])
    masks = solid.astype(np.uint8) * np.uint8(255)
    grey, masks = resize_cutouts(pictures[rows], masks, request.size)
    ids = exemplar_ids(rows, categories, request)
    return ObjectSet("fashion-mnist", as_color(grey), masks, ids, categories, source)


def read_collection(
    collection: Collection, request: ObjectRequest
) -> tuple[ByteArray, NDArray[np.int64], dict[str, str]]:
    """Return the pictures uint8 (n, h, w), the labels (n,) and where they came from.

    Raises
    ------
    ObjectSetError
        A file is missing or damaged, or the two do not belong together.
    """
    stem, files = collection.stems[request.split], Files()
    names = (f"{stem}-images-idx3-ubyte", f"{stem}-labels-idx1-ubyte")
    images, labels = _find_files(collection, names, request.data_dir, files)
    pictures = _read(images, 3, files)
    if collection.transposed:
        pictures = np.ascontiguousarray(pictures.transpose(0, 2, 1))
    targets = _read(labels, 1, files).astype(np.int64)
    if len(pictures) != len(targets) or targets.max(initial=0) >= len(collection.categories):
        raise ObjectSetError(
            f"{images} has {len(pictures)} pictures, {labels} has {len(targets)} labels up to "
            f"{targets.max(initial=0)}; expected as many labels, below "
            f"{len(collection.categories)}; {collection.remedy}"
        )
    source = {"images": images.name, "labels": labels.name, "seed": str(request.seed)}
    return pictures, targets, source


def _build_strokes(collection: Collection, request: ObjectRequest) -> ObjectSet:
    pictures, labels, source = read_collection(collection, request)
    return sample_strokes(collection.name, pictures, labels, collection.categories, request, source)


def _find_files(
    collection: Collection, names: tuple[str, ...], data_dir: Path | None, files: Files
) -> tuple[Path, ...]:
    """Return the files of a set: from its own folder, or from one that holds nothing else.

    MNIST, Fashion-MNIST and KMNIST call their files alike. A folder that does not name the set may
    hold those of another, so there the files' content decides.
    """
    base = DEBIAN_FOLDER if data_dir is None else data_dir
    own = [base / sub for sub in collection.folders]
    named = base.resolve()
    shared = [base, base / "raw"]
    if {named.name, named.parent.name} & {sub.partition("/")[0] for sub in collection.folders}:
        own, shared = [*own, *shared], []
    unknown: list[tuple[Path, ...]] = []
    for folder in (*own, *shared):
        spelled = [next(_spellings(folder, name), None) for name in names]
        found = tuple(path for path in spelled if path is not None)
        if len(found) < len(names):
            continue
        owners = {_owner(path, files) for path in found} - {""}
        if owners - {collection.name}:
            if folder in shared:
                continue
            raise ObjectSetError(
                f"{found[0]} holds {' and '.join(sorted(owners))} by its checksum, in a folder of "
                f"{collection.name}; {collection.remedy}"
            )
        if folder in own or owners or collection.stems != _STEMS:
            return found
        unknown.append(found)
    if unknown:
        for path, dimensions in zip(unknown[0], (3, 1), strict=True):
            _read(path, dimensions, files)  # what is damaged has no known checksum either
        raise ObjectSetError(
            f"cannot tell whether {names[0]} in {unknown[0][0].parent} is {collection.name}: "
            "MNIST, Fashion-MNIST and KMNIST call their files alike, and its checksum is none that "
            f"is known; expected them in a folder called {collection.folders[1]}; move them there"
        )
    if data_dir is None:
        raise ObjectSetError(
            f"{collection.name!r} needs a data folder (--data-dir) that holds {names[0]} and "
            f"{names[1]}, plain or .gz; none was given; {collection.remedy}"
        )
    raise ObjectSetError(
        f"no {collection.name} in {data_dir}: looked there and in {', '.join(collection.folders)} "
        f"for {names[0]} and {names[1]}, plain or .gz; {collection.remedy}"
    )


_PLAIN = dict.fromkeys(
    (
        "8181f5470baa50b63fa0f6fddb340f0a",
        "15d484375f8d13e6eb1aabb0c3f46965",
        "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "9018921c3c673c538a1fc5bad174d6f9",
    ),
    "fashion-mnist",
)
"""MD5 of files that are not compressed, to their set."""


_PUBLISHED = {
    "mnist": (
        "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "d53e105ee54ea40749a09fcbcd1e9432",
        "9fb629c4189551a2d022fa330f9573f3",
        "ec29112dd5afa0611ce80d1b7f02629c",
    ),
    "fashion-mnist": (
        "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "25c81989df183df01b3e8a0aad5dffbe",
        "bef4ecab320f06d8554ea6380940ec79",
        "bb300cfdad3c16e7a12a480ee83cd310",
    ),
    "kmnist": (
        "bdb82020997e1d708af4cf47b453dcf7",
        "e144d726b3acfaa3e44228e80efcd344",
        "5c965bf0a639b31b8f53240b1b52f4d7",
        "7320c461ea6c1c855c0b718fb2a4b134",
    ),
}
"""MD5 of the published files, compressed, as torchvision lists them."""


def _known() -> dict[str, str]:
    """Return the MD5 of published files, to their set."""
    return _PLAIN | {digest: name for name, files in _PUBLISHED.items() for digest in files}


class Files:
    """Files that are read, and unpacked, once each."""

    def __init__(self) -> None:
        self._data: dict[Path, bytes] = {}
        self._plain: dict[Path, bytes] = {}

    def data(self, path: Path) -> bytes:
        """Return a file's bytes."""
        if path not in self._data:
            self._data[path] = path.read_bytes()
        return self._data[path]

    def plain(self, path: Path) -> bytes:
        """Return a file's bytes, unpacked."""
        if path not in self._plain:
            data = self.data(path)
            self._plain[path] = _unzip(data) if path.suffix == ".gz" else data
        return self._plain[path]


def _owner(path: Path, files: Files) -> str:
    """Return the set that a file belongs to by its content; nothing where it is not known."""
    try:
        parts = {files.data(path), files.plain(path)}
    except (OSError, EOFError, zlib.error):  # reading it says so
        return ""
    digests = [hashlib.md5(part, usedforsecurity=False).hexdigest() for part in parts]
    return next((_known()[digest] for digest in digests if digest in _known()), "")


def _unzip(data: bytes) -> bytes:
    with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
        plain = file.read(LARGEST + 1)
    if len(plain) > LARGEST:
        raise OSError(f"it unpacks to more than {LARGEST} bytes")
    return plain


def _spellings(folder: Path, name: str) -> Iterator[Path]:
    dotted = name.replace("-idx", ".idx")
    for spelling in (name, f"{name}.gz", dotted, f"{dotted}.gz"):
        if (folder / spelling).is_file():
            yield folder / spelling


def _read(path: Path, dimensions: int, files: Files) -> ByteArray:
    try:
        data = files.plain(path)
    except (OSError, EOFError, zlib.error) as error:
        raise ObjectSetError(
            f"cannot read {path}: {error}; the file is damaged; get it again"
        ) from error
    header = 4 * (dimensions + 1)
    shape = struct.unpack(f">{dimensions}I", data[4:header]) if len(data) >= header else ()
    if data[:4] != bytes([0, 0, 8, dimensions]) or len(data) != header + math.prod(shape):
        raise ObjectSetError(
            f"{path} is damaged: expected an idx file of {dimensions} dimensions of bytes and "
            f"{header + math.prod(shape)} bytes in all; got {len(data)} bytes that begin with "
            f"{data[:4].hex() or 'nothing'}; get the file again"
        )
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)
