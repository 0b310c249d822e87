"""Smooth solids as signed distances, and their shaded pictures.

A solid is a union of parts whose seams are rounded. Pictures are made by sphere tracing (Hart,
"Sphere tracing: a geometric method for the antialiased ray tracing of implicit surfaces", The
Visual Computer 12, 1996) along parallel rays, and shaded with Lambert's cosine law.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from elsewhere.stimuli.arrays import ByteArray, FloatArray

Points: TypeAlias = NDArray[np.float32]
Triple: TypeAlias = tuple[float, float, float]

_REACH = 1.6  # no solid reaches farther from the origin
_STEPS = 48
_TOUCH = 0.004
_CAUTION = 0.85  # bent and stretched parts overstate distances a little
_RAYS = 200_000  # traced at once


@dataclass(frozen=True)
class Volume:
    """One volume of a solid; x points right, y up and z to the viewer.

    It is an ``ellipsoid`` (size: radii), a ``block`` (size: half sides, rounded), a ``horn`` (size:
    length, radius at the foot, radius at the tip; it stands on `at` and grows along its own y) or a
    ``ring`` (size: radius, thickness, unused; its axis is its own y).
    """

    kind: Literal["ellipsoid", "block", "horn", "ring"]
    at: Triple
    size: Triple
    turn: Triple = (0, 0, 0)  # rotations about x, y and z, in this order, degrees
    bend: float = 0.0  # how far a horn's tip leans towards its own x, for a length of 1


@dataclass(frozen=True)
class Solid:
    """Parts, and the width over which their seams are rounded."""

    parts: tuple[Volume, ...]
    blend: float = 0.1

    def distance(self, points: Points) -> Points:
        """Return the signed distance of points (n, 3), negative inside: (n,)."""
        result = part_distance(self.parts[0], points)
        for part in self.parts[1:]:
            result = _smooth_minimum(result, part_distance(part, points), self.blend)
        return result

    def normals(self, points: Points) -> Points:
        """Return unit normals at points (n, 3) of the surface: (n, 3)."""
        corners = np.array([[1, -1, -1], [-1, -1, 1], [-1, 1, -1], [1, 1, 1]], np.float32)
        slope = sum(c * self.distance(points + 0.004 * c)[:, None] for c in corners)
        length = np.linalg.norm(slope, axis=1, keepdims=True)
        return np.asarray(slope / np.maximum(length, 1e-9), np.float32)

    def interior(self, spacing: float = 0.06) -> Points:
        """Return a lattice of points inside the solid: (n, 3)."""
        axis = np.linspace(-_REACH, _REACH, 2 * round(_REACH / spacing) + 1, dtype=np.float32)
        lattice = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
        return lattice[self.distance(lattice) < 0]


@dataclass(frozen=True)
class View:
    """From where a solid is seen: turned about y, then x, then z, degrees."""

    yaw: float
    pitch: float
    roll: float
    zoom: float = 1.0  # size relative to the canonical view
    light: tuple[float, float] = (40, 45)  # degrees to the left of and above the viewer

    @property
    def rotation(self) -> FloatArray:
        """The rotation from the solid's space to the viewer's: (3, 3)."""
        return rotation("z", self.roll) @ rotation("x", self.pitch) @ rotation("y", self.yaw)

    @property
    def light_direction(self) -> FloatArray:
        """The unit vector towards the light, in the viewer's space: (3,)."""
        left, above = np.deg2rad(self.light)
        return np.array(
            [-np.sin(left) * np.cos(above), np.sin(above), np.cos(left) * np.cos(above)]
        )


def rotation(axis: Literal["x", "y", "z"], degrees: float) -> FloatArray:
    """Return the right-handed rotation about `axis`: (3, 3)."""
    cosine, sine = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    first, second = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
    matrix = np.eye(3)
    matrix[first, first] = matrix[second, second] = cosine
    matrix[first, second], matrix[second, first] = -sine, sine
    return matrix


def part_distance(part: Volume, points: Points) -> Points:
    """Return the signed distance (for ellipsoids and bent horns: nearly) of points (n, 3)."""
    own = np.asarray(points - np.array(part.at, np.float32), np.float32)
    if any(part.turn):
        turned = rotation("z", part.turn[2]) @ rotation("y", part.turn[1])
        turned = turned @ rotation("x", part.turn[0])
        own = own @ turned.astype(np.float32)
    return _DISTANCES[part.kind](own, part)


def render(solid: Solid, views: list[View], size: int) -> tuple[ByteArray, ByteArray]:
    """Return pictures of a solid, each centred and wholly inside its box, of `size` px.

    They are grey levels and coverage, uint8 (n, size, size) each. The first view's longest side is
    0.9 of the box at zoom 1, and the others keep its scale. What would not fit is made smaller.
    """
    finer = 3 if size <= 32 else 2
    side = size * finer
    inside = solid.interior()
    grid = (np.arange(side, dtype=np.float32) + 0.5) / side - 0.5
    columns, rows = np.meshgrid(grid, -grid)
    images, masks = [], []
    chunk = max(1, _RAYS // side**2)
    scale = None
    frames = []
    for view in views:
        seen = inside @ view.rotation.T[:, :2].astype(np.float32)
        low, high = seen.min(0) - 0.04, seen.max(0) + 0.04
        span = float((high - low).max())
        scale = span / 0.9 if scale is None else scale
        frames.append((max(scale / view.zoom, span / 0.98), (low + high) / 2))
    for start in range(0, len(views), chunk):
        part = views[start : start + chunk]
        origins = np.empty((len(part), side, side, 3), np.float32)
        origins[..., 2] = _REACH
        for k, (width, middle) in enumerate(frames[start : start + chunk]):
            origins[k, ..., 0] = columns * width + middle[0]
            origins[k, ..., 1] = rows * width + middle[1]
        grey, hit = _trace(solid, part, origins.reshape(len(part), -1, 3))
        # average the light of what was hit only, so that the ground does not darken the rim
        cells = (len(part), size, finer, size, finer)
        count = hit.reshape(cells).sum((2, 4))
        total = (grey * hit).reshape(cells).sum((2, 4))
        images.append(np.floor(total / np.maximum(count, 1) + 0.5).astype(np.uint8))
        masks.append(np.floor(255 * count / finer**2 + 0.5).astype(np.uint8))
    return np.concatenate(images), np.concatenate(masks)


def _trace(
    solid: Solid, views: list[View], origins: Points
) -> tuple[FloatArray, NDArray[np.bool_]]:
    count, rays = origins.shape[:2]
    turns = np.stack([view.rotation for view in views]).astype(np.float32)
    starts = np.einsum("vrk,vkj->vrj", origins, turns).reshape(-1, 3)
    ahead = np.repeat(-turns[:, 2], rays, axis=0)
    depth = np.zeros(len(starts), np.float32)
    hit = np.zeros(len(starts), bool)
    active = np.arange(len(starts))
    for _ in range(_STEPS):
        gap = solid.distance(starts[active] + depth[active, None] * ahead[active])
        touched = gap < _TOUCH
        hit[active[touched]] = True
        depth[active] += _CAUTION * gap
        active = active[~touched & (depth[active] < 2 * _REACH)]
        if not len(active):
            break
    surface = starts[hit] + depth[hit, None] * ahead[hit]
    owner = np.repeat(np.arange(count), rays)[hit]
    lights = np.stack([v.light_direction @ v.rotation for v in views]).astype(np.float32)
    grey = np.zeros(len(starts))
    grey[hit] = _shade(solid.normals(surface), lights[owner], -ahead[hit])
    return grey, hit


def _shade(normals: Points, lights: Points, viewer: Points) -> FloatArray:
    facing = (normals * lights).sum(1)
    halfway = lights + viewer
    halfway = halfway / np.linalg.norm(halfway, axis=1, keepdims=True)
    gloss = np.clip((normals * halfway).sum(1), 0, 1) ** 30
    towards = np.clip((normals * viewer).sum(1), 0, 1)
    level = 65 + 25 * towards + 140 * np.clip(facing, 0, 1) + 30 * gloss
    return np.asarray(level, np.float64)


def _ellipsoid(points: Points, part: Volume) -> Points:
    radii = np.array(part.size, np.float32)
    scaled = np.linalg.norm(points / radii, axis=1)
    steep = np.linalg.norm(points / radii**2, axis=1)
    return np.asarray(scaled * (scaled - 1) / np.maximum(steep, 1e-6), np.float32)


def _block(points: Points, part: Volume) -> Points:
    radius = 0.4 * min(part.size)
    over = np.abs(points) - (np.array(part.size, np.float32) - radius)
    outside = np.linalg.norm(np.maximum(over, 0), axis=1)
    return np.asarray(outside + np.minimum(over.max(1), 0) - radius, np.float32)


def _horn(points: Points, part: Volume) -> Points:
    length, foot, tip = part.size
    along = np.clip(points[:, 1] / length, 0, 1)
    lean, slope = part.bend * length * along**2, 2 * part.bend * along
    # across a leaning horn, a step along x counts as its cosine
    aside = np.hypot((points[:, 0] - lean) / np.hypot(1, slope), points[:, 2])
    away = np.hypot(aside, points[:, 1] - along * length)
    return np.asarray(away - (foot + (tip - foot) * along), np.float32)


def _ring(points: Points, part: Volume) -> Points:
    around = np.hypot(points[:, 0], points[:, 2]) - part.size[0]
    return np.asarray(np.hypot(around, points[:, 1]) - part.size[1], np.float32)


_DISTANCES: dict[str, Callable[[Points, Volume], Points]] = {
    "ellipsoid": _ellipsoid,
    "block": _block,
    "horn": _horn,
    "ring": _ring,
}


def _smooth_minimum(first: Points, second: Points, width: float) -> Points:
    closeness = np.maximum(width - np.abs(first - second), 0) / width
    return np.asarray(np.minimum(first, second) - closeness**2 * (width / 4), np.float32)
