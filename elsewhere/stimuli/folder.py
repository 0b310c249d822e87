"""The object set ``folder:PATH``: pictures of one's own."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from elsewhere.errors import ObjectSetError
from elsewhere.logs import get_logger
from elsewhere.stimuli.arrays import ByteArray
from elsewhere.stimuli.depths import read_pixels
from elsewhere.stimuli.objects import (
    ObjectRequest,
    ObjectSet,
    check_exemplars,
    choose_categories,
)
from elsewhere.types import Color, plain_text

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
"""What a picture may be, whatever it is called: PostScript is a program, which Pillow would run."""

LARGEST = 2**26
"""Pixels of a picture, at most: 8192 x 8192."""

_log = get_logger(__name__)


def build_folder(request: ObjectRequest) -> ObjectSet:
    """Return the pictures in a folder: its sub-folders, or else its files, are the categories.

    A picture keeps its frame and its proportions; its longest side becomes the box's. Its alpha
    says what is object, or else the background colour says what is not, or else all of it is.
    Exemplars are taken in the order of the files' names; the seed draws nothing.

    Raises
    ------
    ObjectSetError
        The folder is missing or has no pictures, a picture cannot be read, or there are fewer
        categories or exemplars than asked for.
    """
    if not request.argument:
        raise ObjectSetError("'folder' needs a path; write folder:PATH")
    root = Path(request.argument)
    files = _pictures(root)
    _tell_left_out(root, files)
    pictures: list[tuple[str, Path, tuple[ByteArray, ByteArray]]] = []
    broken: list[str] = []
    names = choose_categories(tuple(files), request.categories, str(root))
    for name in names:
        found = 0
        for path in files[name]:
            if found == request.per_category:
                break
            try:
                cutout = _cut_out(path, request.size, request.background_color)
            except Exception as error:  # any byte string can come: PIL raises a dozen types
                if not request.skip_broken:
                    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                    raise ObjectSetError(
                        f"cannot read the picture {path}: {reason}; replace it, or go on without "
                        "it (--skip-broken)"
                    ) from error
                _log.warning("left out %s: %s", path, error)
                broken.append(path.relative_to(root).as_posix())
                continue
            pictures.append((name, path, cutout))
            found += 1
        if found or not request.skip_broken:
            check_exemplars(found, request.per_category, name, str(root))
    if not pictures:
        raise ObjectSetError(f"no picture in {root} can be read; {len(broken)} are broken")
    source = {"folder": plain_text(str(root))}
    if broken:
        source |= {"broken": str(len(broken)), "broken files": plain_text(", ".join(broken))}
    return ObjectSet(
        name="folder",
        images=np.stack([image for _, _, (image, _) in pictures]),
        masks=np.stack([mask for _, _, (_, mask) in pictures]),
        ids=tuple(plain_text(path.relative_to(root).as_posix()) for _, path, _ in pictures),
        categories=tuple(plain_text(name) for name, _, _ in pictures),
        source=source,
    )


def _pictures(root: Path) -> dict[str, list[Path]]:
    if not os.path.isdir(root):
        what = "a file" if os.path.exists(root) else "missing"
        raise ObjectSetError(f"cannot take objects from {root}: expected a folder; it is {what}")
    entries = sorted(root.iterdir())
    grouped = {
        folder.name: list(_of_pictures(folder.iterdir()))
        for folder in entries
        if folder.is_dir() and not folder.name.startswith(".")
    }
    grouped = {name: paths for name, paths in grouped.items() if paths}
    if not grouped:
        singles = list(_of_pictures(entries))
        stems, names = [path.stem for path in singles], {path.name for path in singles}
        grouped = {
            path.stem if stems.count(path.stem) == 1 and path.stem not in names else path.name: [
                path
            ]
            for path in singles
        }
    if not grouped:
        raise ObjectSetError(
            f"no pictures in {root} or its sub-folders; expected files ending in "
            f"{', '.join(SUFFIXES)}"
        )
    named = {plain_text(name): paths for name, paths in grouped.items()}
    return named if len(named) == len(grouped) else grouped


def _tell_left_out(root: Path, files: dict[str, list[Path]]) -> None:
    """Say which pictures are neither in a category's own folder nor single files."""
    odd = sorted(path for path in root.rglob("*") if _is_named_picture(path) and _is_odd(path))
    if odd:
        _log.warning(
            "%d names of pictures in %s are pipes, sockets, devices or links that lead nowhere, "
            "and were left out, such as %s",
            len(odd),
            plain_text(str(root)),
            plain_text(str(odd[0].relative_to(root))),
        )
    taken = {path for paths in files.values() for path in paths}
    rest = [path for path in _of_pictures(root.rglob("*")) if path not in taken]
    rest = [path for path in rest if not any(p.startswith(".") for p in path.parent.parts)]
    if rest:
        _log.warning(
            "%d pictures in %s are in no category's own folder and were left out, such as %s",
            len(rest),
            root,
            rest[0].relative_to(root),
        )


def _of_pictures(paths: Iterable[Path]) -> list[Path]:
    return sorted(path for path in paths if _is_named_picture(path) and path.is_file())


def _is_named_picture(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def _is_odd(path: Path) -> bool:
    """Return whether a name leads to nothing that can be opened as a file or a folder."""
    return not path.is_file() and not path.is_dir()


def _cut_out(path: Path, size: int, ground: Color | None) -> tuple[ByteArray, ByteArray]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # ours is smaller
        with Image.open(path, formats=FORMATS) as opened:
            if opened.width * opened.height > LARGEST:
                raise ValueError(
                    f"it has {opened.width} x {opened.height} px, and at most {LARGEST} px are read"
                )
            pixels = read_pixels(opened)
    color, alpha = pixels[..., :3], pixels[..., 3]
    if ground is not None and alpha.min() == 255:
        alpha = np.where((color == ground).all(-1), 0, 255).astype(np.uint8)
    return _fit(color, alpha, size)


def _fit(color: ByteArray, alpha: ByteArray, size: int) -> tuple[ByteArray, ByteArray]:
    height, width = alpha.shape
    scale = size / max(height, width)
    new = max(1, round(width * scale)), max(1, round(height * scale))
    # PIL weights colours by alpha when it resizes RGBA
    whole = Image.fromarray(np.dstack([color, alpha]))
    small = whole.resize(new, Image.Resampling.BICUBIC)
    box = np.zeros((size, size, 4), np.uint8)
    top, left = (size - new[1]) // 2, (size - new[0]) // 2
    box[top : top + new[1], left : left + new[0]] = np.asarray(small)
    return box[..., :3], box[..., 3]
