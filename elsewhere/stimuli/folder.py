"""The object set ``folder:PATH``: pictures of one's own."""

from __future__ import annotations

import os
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from elsewhere.errors import ObjectSetError, reason_of
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

ALIKE, MOSTLY = 12, 0.9
"""The edge of a picture has one colour where more than so much of it differs by no more levels."""

NEARLY = 0.99
"""Of a picture with less ground than the rest the whole rectangle is the object."""

_log = get_logger(__name__)


def build_folder(request: ObjectRequest) -> ObjectSet:
    """Return the pictures in a folder: its sub-folders, or else its files, are the categories.

    A picture keeps its frame and its proportions; its longest side becomes the box's. Its alpha
    says what is object, or else the background colour says what is not, or else all of it is.
    Folders and files are taken in the order of their names, in which 2 comes before 10; the seed
    draws nothing.

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
    pictures: list[tuple[str, Path, _CutOut]] = []
    broken: list[str] = []
    present: dict[str, int] = {}
    names = choose_categories(tuple(files), request.categories, str(root))
    for name in names:
        found, present[name] = 0, len(files[name])
        for path in files[name]:
            if found == request.per_category:
                break
            try:
                cutout = _cut_out(path, request)
            except Exception as error:  # any byte string can come: PIL raises a dozen types
                if not request.skip_broken:
                    raise ObjectSetError(
                        f"cannot read the picture {path}: {reason_of(error)}; replace it, or go on "
                        "without it (--skip-broken)"
                    ) from error
                _log.warning("left out %s: %s", path, error)
                broken.append(path.relative_to(root).as_posix())
                present[name] -= 1
                continue
            pictures.append((name, path, cutout))
            found += 1
        if found or not request.skip_broken:
            check_exemplars(found, request.per_category, name, str(root))
    if not pictures:
        raise ObjectSetError(f"no picture in {root} can be read; {len(broken)} are broken")
    source = {"folder": plain_text(str(root)), "ground": _ground(request)}
    if request.per_category == 1:
        source |= _used(present, source["folder"])
    source |= _whole([(path, cutout) for _, path, cutout in pictures], root, request)
    if broken:
        source |= {"broken": str(len(broken)), "broken files": plain_text(", ".join(broken))}
    return ObjectSet(
        name="folder",
        images=np.stack([cutout.image for _, _, cutout in pictures]),
        masks=np.stack([cutout.mask for _, _, cutout in pictures]),
        ids=tuple(plain_text(path.relative_to(root).as_posix()) for _, path, _ in pictures),
        categories=tuple(plain_text(name) for name, _, _ in pictures),
        source=source,
    )


def _pictures(root: Path) -> dict[str, list[Path]]:
    if not os.path.isdir(root):
        what = "a file" if os.path.exists(root) else "missing"
        raise ObjectSetError(f"cannot take objects from {root}: expected a folder; it is {what}")
    entries = sorted(root.iterdir(), key=_in_order)
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
    chosen = [path for path in paths if _is_named_picture(path) and path.is_file()]
    return sorted(chosen, key=_in_order)


def _in_order(path: Path) -> tuple[list[tuple[str, int]], str]:
    """Return a key that sorts names as people count: 1, 2, 10."""
    texts = re.split("([0-9]+)", path.name)
    pairs = zip(texts[::2], [*texts[1::2], "-1"], strict=True)
    return [(text, int(number)) for text, number in pairs], str(path)


def _is_named_picture(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def _is_odd(path: Path) -> bool:
    """Return whether a name leads to nothing that can be opened as a file or a folder."""
    return not path.is_file() and not path.is_dir()


@dataclass(frozen=True)
class _CutOut:
    """A picture of an object: its colours, what belongs to it, and whether all of it does.

    `rim` is the colour of the picture's edge where that is one.
    """

    image: ByteArray
    mask: ByteArray
    whole: bool
    rim: Color | None


def _cut_out(path: Path, request: ObjectRequest) -> _CutOut:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # ours is smaller
        with Image.open(path, formats=FORMATS) as opened:
            if opened.width * opened.height > LARGEST:
                raise ValueError(
                    f"it has {opened.width} x {opened.height} px, and at most {LARGEST} px are read"
                )
            pixels = read_pixels(opened)
    color, alpha = pixels[..., :3], pixels[..., 3]
    keyed = request.background_color is not None and alpha.min() == 255
    if keyed:
        ground = request.background_color
        away = np.abs(color.astype(np.int16) - np.array(ground, np.int16)).max(-1)
        alpha = np.where(away <= request.background_tolerance, 0, 255).astype(np.uint8)
    edge = np.concatenate([color[0], color[-1], color[:, 0], color[:, -1]]).astype(np.int16)
    middle = np.median(edge, 0).astype(np.int16)
    one = np.mean(np.abs(edge - middle).max(1) <= ALIKE) > MOSTLY
    rim = (int(middle[0]), int(middle[1]), int(middle[2])) if one else None
    border = np.concatenate([alpha[0], alpha[-1], alpha[:, 0], alpha[:, -1]])
    whole = np.mean(alpha >= 128) > NEARLY
    if keyed:  # of a ground that is not one colour, single pixels have it
        whole |= np.mean(alpha > 0) > MOSTLY and np.mean(border > 0) > MOSTLY
    return _CutOut(*_fit(color, alpha, request.size), bool(whole), rim)


def _ground(request: ObjectRequest) -> str:
    """Return in words what tells objects from their surroundings."""
    if request.background_color is None:
        return "transparency"
    color = f"the colour (R, G, B) = {tuple(request.background_color)}"
    within = request.background_tolerance
    return (
        f"transparency, and by {color}{f', within {within} levels,' if within else ''} where "
        "an image has none"
    )


def _used(present: Mapping[str, int], folder: str) -> dict[str, str]:
    """Say that more exemplars are there than the one of each category that is used."""
    least, most = min(present.values()), max(present.values())
    if most == 1:
        return {}
    count = str(most) if least == most else f"{least} to {most}"
    used = f"1 of {count} images of each folder"
    _log.warning("%s of %s is used; --per-category N (per_category) takes more", used, folder)
    return {"used": used}


def _whole(
    cutouts: Sequence[tuple[Path, _CutOut]], root: Path, request: ObjectRequest
) -> dict[str, str]:
    """Say of which pictures the whole rectangle is the object, surroundings included."""
    whole = [path for path, cutout in cutouts if cutout.whole]
    if not whole:
        return {}
    rims = Counter(cutout.rim for _, cutout in cutouts if cutout.whole and cutout.rim)
    common = ",".join(map(str, rims.most_common(1)[0][0])) if rims else ""
    if request.background_color is None:
        without = (
            f"have no transparent pixel, or less than {1 - NEARLY:.0%}, and no colour is said to "
            "be the background"
        )
        remedy = f"give --background-color {common or 'R,G,B'} with --background-tolerance, "
    else:
        given = ",".join(map(str, request.background_color))
        without = (
            "have neither a transparent pixel nor one within "
            f"{request.background_tolerance} levels of the background colour {given}, or hardly any"
        )
        remedy = "raise --background-tolerance, "
    edge = f" (the edges of {rims.total()} have one colour, as of {common})" if common else ""
    name = plain_text(whole[0].relative_to(root).as_posix())
    return {
        "whole": f"{len(whole)} of {len(cutouts)} pictures, such as {name}, {without}: their whole "
        f"rectangle is taken for the object{edge}; {remedy}or save them with transparency; "
        "`elsewhere objects ... --out` draws the outlines"
    }


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
