"""The object set ``glyphs``: characters of many scripts, white, drawn with matplotlib's fonts."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.ft2font import FT2Font
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import distance_transform_edt, gaussian_filter

from elsewhere.errors import ObjectSetError
from elsewhere.stimuli.alphabet import CHARACTERS, FACES, NAMES, UNLIKE, character_name
from elsewhere.stimuli.arrays import ByteArray, FloatArray
from elsewhere.stimuli.objects import (
    ObjectRequest,
    ObjectSet,
    choose_categories,
    exemplar_generator,
)

FILL = 0.9
"""The longest side of an undistorted glyph, as a share of the box."""
DISTINCT = 0.82
"""No two categories are as similar as this."""
IDENTICAL = 0.93
"""A character as similar as this to a category is taken to be that category."""

_MARGIN = 6  # px around an outline, so that its distances go on beyond the ink
_MATCH_SIZE = 48  # px at which shapes are compared


@dataclass(frozen=True)
class Outline:
    """A character's shape as signed distances, from which any size and weight can be drawn, px."""

    distance: NDArray[np.float32]  # (height, width), positive inside
    edge: NDArray[np.float32]  # points (k, 2) of the outline as x, y from the middle
    longest: int  # the longer side of the ink's box
    half_stroke: float  # half the width of a typical stroke: twice the mean distance inside


def build_glyphs(request: ObjectRequest) -> ObjectSet:
    """Return glyphs; a single character such as ``"A"`` also names its category.

    Exemplar 0 is the canonical face, undistorted. The others take one of up to four faces, a
    rotation of up to 12 degrees, a shear of up to 0.15, a scale of 0.85 to 1.05 and another
    weight; they depend on the seed, the category and their number only.

    Raises
    ------
    ObjectSetError
        More categories than there are, or the fonts are missing.
    """
    wanted = request.categories
    if isinstance(wanted, tuple):
        wanted = tuple(visual_identity(name) if len(name) == 1 else name for name in wanted)
    names = choose_categories(tuple(NAMES), wanted, "glyphs")
    masks = np.empty((len(names) * request.per_category, request.size, request.size), np.uint8)
    for i, name in enumerate(names):
        outlines: dict[str, Outline] = {}
        for j in range(request.per_category):
            face, linear, weight = _distortion(name, j, request.seed)
            if face not in outlines:
                outlines[face] = outline(NAMES[name], face, resolution_of(request.size))
            masks[i * request.per_category + j] = draw(
                outlines[face], size=request.size, linear=linear, weight=weight
            )
    return ObjectSet(
        name="glyphs",
        images=np.full((*masks.shape, 3), 255, np.uint8),
        masks=masks,
        ids=tuple(f"{name}-{j}" for name in names for j in range(request.per_category)),
        categories=tuple(name for name in names for _ in range(request.per_category)),
        source={
            "fonts": "; ".join(f"{face}: {font_version(face)}" for face in FACES),
            "matplotlib": matplotlib.__version__,
            "seed": str(request.seed),
        },
    )


def visual_identity(character: str) -> str:
    """Return the name of the category that looks like `character`, or else its own name.

    Examples
    --------
    >>> visual_identity("\\N{GREEK CAPITAL LETTER ALPHA}"), visual_identity("c")
    ('latin_a_capital', 'latin_c_capital')
    """
    name = character_name(character)
    if name in NAMES or ord(character) not in covered(FACES[0]):
        return name
    similarity = shape_similarity(_canonical((character,)), _canonical(CHARACTERS))[0]
    return list(NAMES)[similarity.argmax()] if similarity.max() >= IDENTICAL else name


def shape_similarity(first: ByteArray, second: ByteArray) -> FloatArray:
    """Return how alike shapes are, (n, m), -1..1: the largest correlation of the blurred masks.

    Masks, uint8 (n, s, s) and (m, s, s), are blurred by s/32 px and moved against each other by up
    to s/24 px either way.
    """
    side = first.shape[-1]
    reach = round(side / 24)
    blurred = [
        gaussian_filter(masks.astype(np.float32), (0, side / 32, side / 32))
        for masks in (first, second)
    ]
    best = np.full((len(first), len(second)), -1.0)
    fixed = _standardised(blurred[0])
    for down in range(-reach, reach + 1):
        for right in range(-reach, reach + 1):
            moved = np.roll(blurred[1], (down, right), (1, 2))
            best = np.maximum(best, fixed @ _standardised(moved).T)
    return best


@functools.cache
def covered(face: str) -> frozenset[int]:
    """Return the code points that `face` has."""
    return frozenset(FT2Font(str(_font_file(face))).get_charmap())


def faces_of(character: str) -> tuple[str, ...]:
    """Return the faces that draw `character` as the canonical face does, that one first."""
    others = (
        face
        for face in FACES[1:]
        if ord(character) in covered(face) and character not in UNLIKE.get(face, "")
    )
    return FACES[0], *others


@functools.lru_cache(maxsize=512)  # 25 MB at 50 px; a set is drawn again in each phase
def outline(character: str, face: str, resolution: int) -> Outline:
    """Return the shape of `character` in `face`, its longest side about `resolution` px.

    A face is one of matplotlib's, or the absolute path of a font.
    """
    left, top, right, bottom = _font(face, 256).getbbox(character, anchor="ls")
    points = max(1, round(256 * resolution / max(right - left, bottom - top)))
    font = _font(face, points)
    left, top, right, bottom = font.getbbox(character, anchor="ls")
    image = Image.new("L", (int(right - left) + 8, int(bottom - top) + 8))
    ImageDraw.Draw(image).text((4 - left, 4 - top), character, font=font, fill=255, anchor="ls")
    ink = image.getbbox()
    if ink is None:
        raise ObjectSetError(
            f"the font {face} draws nothing for {character!r}; choose another character or font"
        )
    coverage = np.pad(np.asarray(image.crop(ink), np.float32) / 255, _MARGIN)
    solid = coverage >= 0.5
    distance = np.where(
        solid, distance_transform_edt(solid) - 0.5, 0.5 - distance_transform_edt(~solid)
    )
    # where a pixel is partly covered, its coverage is more precise than whole-pixel distances
    partly = (coverage > 0) & (coverage < 1) & (np.abs(distance) < 1)
    distance = np.where(partly, coverage - 0.5, distance).astype(np.float32)
    rows, columns = np.nonzero((coverage > 0) & (distance < 1.5))
    middle = (np.array(coverage.shape[::-1]) - 1) / 2
    edge = (np.stack([columns, rows], 1) - middle).astype(np.float32)
    sides = ink[2] - ink[0], ink[3] - ink[1]
    return Outline(distance, edge, max(sides), 2 * float(distance[distance > 0].mean()))


def draw(
    shape: Outline, *, size: int, linear: ArrayLike = ((1, 0), (0, 1)), weight: float = 0
) -> ByteArray:
    """Draw a shape, centred and wholly inside a box of `size` px: coverage, uint8 (size, size).

    `linear` is a 2 x 2 map of x, y; the identity makes the longest side 0.9 of the box. What would
    not fit is made smaller. The outline moves outwards by `weight`, a share of the box.
    """
    finer = 4 if size <= 32 else 2
    side = size * finer
    matrix = np.asarray(linear, np.float64) * (FILL * side / shape.longest)
    grown = weight * side
    reached = shape.edge @ matrix.T
    low, high = reached.min(0), reached.max(0)
    # a pixel of the outline is itself as wide as the map makes it
    span = float((high - low).max()) + np.abs(matrix).sum(1).max() + 2 * max(grown, 0.0)
    shrink = min(1.0, 0.98 * side / span)
    matrix, grown, middle = matrix * shrink, grown * shrink, (low + high) * shrink / 2
    zoom = float(np.sqrt(abs(np.linalg.det(matrix))))
    half_stroke = shape.half_stroke * zoom
    # thin strokes stay thick enough to be seen
    grown = max(grown, -0.3 * half_stroke, 0.4 * finer - half_stroke)
    inverse = np.linalg.inv(matrix)
    height, width = shape.distance.shape
    origin = np.array([width, height]) / 2 - inverse @ (side / 2 - middle)
    sampled = Image.fromarray(shape.distance).transform(
        (side, side),
        Image.Transform.AFFINE,
        (inverse[0, 0], inverse[0, 1], origin[0], inverse[1, 0], inverse[1, 1], origin[1]),
        resample=Image.Resampling.BILINEAR,
        fillcolor=-1e6,
    )
    coverage = np.clip(np.asarray(sampled) * zoom + (grown + 0.5), 0, 1)
    coverage = coverage.reshape(size, finer, size, finer).mean((1, 3))
    return np.asarray(np.floor(255 * coverage + 0.5), np.uint8)


def _distortion(name: str, exemplar: int, seed: int) -> tuple[str, FloatArray, float]:
    if exemplar == 0:
        return FACES[0], np.eye(2), 0.0
    rng = exemplar_generator(seed, "glyphs", name, str(exemplar))
    faces = faces_of(NAMES[name])
    return (faces[rng.integers(len(faces))], *distort(rng))


def distort(rng: np.random.Generator) -> tuple[FloatArray, float]:
    """Return a drawn turn, shear and scale, as a map of x, y, and a change of weight."""
    turn = np.deg2rad(rng.uniform(-12, 12))
    shear, scale = rng.uniform(-0.15, 0.15), rng.uniform(0.85, 1.05)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return scale * rotation @ np.array([[1, shear], [0, 1]]), rng.uniform(-0.012, 0.028)


@functools.cache
def _canonical(characters: tuple[str, ...]) -> ByteArray:
    shapes = (outline(c, FACES[0], resolution_of(_MATCH_SIZE)) for c in characters)
    return np.stack([draw(shape, size=_MATCH_SIZE) for shape in shapes])


def resolution_of(size: int) -> int:
    """Return the longest side of outlines, px, from which objects of `size` px are drawn."""
    return int(np.clip(2.25 * size, 48, 320))


def _standardised(images: FloatArray) -> FloatArray:
    rows = images.reshape(len(images), -1).astype(np.float64)
    rows = rows - rows.mean(1, keepdims=True)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def _font_file(face: str) -> Path:
    if os.path.isabs(face):
        return Path(face)
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{face}.ttf"
    if not path.is_file():
        raise ObjectSetError(
            f"glyphs need the font {face}.ttf that matplotlib ships; not found in {path.parent}; "
            "install matplotlib with its fonts"
        )
    return path


@functools.cache
def _font(face: str, points: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(_font_file(face)), points, layout_engine=ImageFont.Layout.BASIC)


@functools.cache
def font_version(face: str) -> str:
    """Return what a font says of its version."""
    version = FT2Font(str(_font_file(face))).get_sfnt().get((1, 0, 0, 5), b"unknown")
    return str(version.decode("latin-1"))
