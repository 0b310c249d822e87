"""Sketches of what a network gives for a fixed image, by which it is known again.

What a network is called, its code and its weights do not determine it: constants of a module,
closures and unsaved buffers do, too. Its activations tell.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

TOLERANCE = 1e-5
"""By how much batches, devices and engines may differ, as a share of a layer's largest value."""

SIZE = 16
"""Signed sums in a sketch."""

Sketch: TypeAlias = list[float]
"""Of one activation: number of units, largest absolute value, norm, then :data:`SIZE` sums."""

Behaviour: TypeAlias = dict[str, list[Sketch]]
"""By layer: the sketches of a fixed image's activation, of the empty canvas's, and of an object's
on the canvas."""


def sketch(values: NDArray[Any]) -> Sketch:
    """Return the sketch of an activation of any shape.

    Every unit has a sign, and every sixteenth belongs to the same sum; both depend on nothing but
    the number of units (sums with random signs: Charikar, Chen & Farach-Colton 2002).

    Examples
    --------
    >>> sketch(np.array([3.0, -4.0]))[:3]
    [2.0, 4.0, 5.0]
    """
    flat = np.asarray(values, np.float64).ravel()
    # of all of NumPy's generators this one's numbers are promised to stay as they are
    bits = np.random.RandomState(len(flat) % 2**32).bytes(len(flat) // 8 + 1)
    signs = np.unpackbits(np.frombuffer(bits, np.uint8))[: len(flat)].astype(np.float64) * 2 - 1
    padded = np.zeros(-(-max(len(flat), 1) // SIZE) * SIZE)
    with np.errstate(over="ignore", invalid="ignore"):
        padded[: len(flat)] = flat * signs
        sums = padded.reshape(-1, SIZE).sum(axis=0)
        largest = float(np.abs(flat).max(initial=0.0))
        return [float(len(flat)), largest, float(np.linalg.norm(flat)), *sums.tolist()]


def alike(one: Sequence[float], other: Sequence[float]) -> bool:
    """Return whether two sketches may be of the same activation, up to rounding.

    Each unit may differ by :data:`TOLERANCE` of the largest; a sum of n such differences, whose
    signs are random, grows with the root of n. Values that are not finite are equal to such values
    only.

    Examples
    --------
    >>> values = np.linspace(-1, 1, 1000)
    >>> [alike(sketch(values), sketch(values * gain)) for gain in (1.000001, 1.01)]
    [True, False]
    """
    a, b = np.asarray(one, np.float64), np.asarray(other, np.float64)
    if a.shape != b.shape or a[0] != b[0]:
        return False
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return bool((np.isfinite(a) == np.isfinite(b)).all())
    n, unit = a[0], TOLERANCE * max(a[1], b[1])
    allowed = unit * np.array([2.0, 4 * math.sqrt(n), *[4 * math.sqrt(n / SIZE + 1)] * SIZE])
    return bool((np.abs(a - b)[1:] <= allowed + 1e-30).all())


def differing(one: Mapping[str, Any], other: Mapping[str, Any], *, last: int = 2) -> list[str]:
    """Return the names of layers that two networks have in common and that behave differently.

    Of each, the first `last` sketches are compared, where there are so many: one where the canvases
    have other colours, three where the objects are the same as well.
    """
    return [
        name
        for name in one
        if name in other
        and not all(alike(a, b) for a, b in zip(one[name][:last], other[name][:last], strict=False))
    ]
