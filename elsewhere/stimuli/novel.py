"""The object set ``novel``: shaded solids that nobody has seen before, alike in pairs.

In the spirit of the novel objects of Leek, Roberts, Oliver, Cristino and Pegna ("Early
differential sensitivity of evoked-potentials to local and global shape during the perception of
three-dimensional objects", Neuropsychologia 89, 2016): a body with volumes attached to it. The two
of a pair share the body and all volumes but one, which has another shape or place.
"""

from __future__ import annotations

import numpy as np

from elsewhere.stimuli.objects import (
    ObjectRequest,
    ObjectSet,
    choose_categories,
    exemplar_generator,
)
from elsewhere.stimuli.solids import Solid, View, Volume, render

PAIRS: tuple[tuple[tuple[Volume, ...], Volume, Volume], ...] = (
    (
        (
            Volume("ellipsoid", (0, 0, 0), (0.55, 0.38, 0.4)),
            Volume("horn", (0.3, 0.2, 0.1), (0.55, 0.16, 0.07), (0, 0, -25), bend=0.5),
            Volume("ellipsoid", (0.5, -0.25, 0.15), (0.24, 0.2, 0.2)),
        ),
        Volume("horn", (-0.35, 0.2, 0), (0.5, 0.2, 0.06), (0, 0, 30)),
        Volume("ring", (-0.5, 0.35, 0.05), (0.22, 0.085, 0), (75, 0, 20)),
    ),
    (
        (
            Volume("horn", (0, -0.65, 0), (1.2, 0.2, 0.3)),
            Volume("block", (0.4, 0.45, 0.05), (0.28, 0.13, 0.16), (0, 0, 20)),
            Volume("ring", (0, -0.25, 0), (0.36, 0.09, 0), (10, 0, 8)),
        ),
        Volume("ellipsoid", (-0.38, 0.25, 0.1), (0.26, 0.2, 0.2), (0, 0, 30)),
        Volume("horn", (-0.15, 0.15, 0.1), (0.55, 0.12, 0.05), (0, 0, 70), bend=-0.6),
    ),
    (
        (
            Volume("block", (0, 0, 0), (0.5, 0.5, 0.3)),
            Volume("horn", (0.35, -0.35, 0), (0.55, 0.14, 0.17), (0, 0, -125)),
            Volume("ellipsoid", (0.05, 0.1, 0.32), (0.22, 0.22, 0.2)),
        ),
        Volume("horn", (-0.2, 0.4, 0), (0.5, 0.2, 0.04), (0, 0, 15)),
        Volume("horn", (0.3, 0.35, 0), (0.5, 0.1, 0.2), (0, 0, -30)),
    ),
    (
        (
            Volume("ring", (0, 0, 0), (0.5, 0.2, 0), (80, 0, 0)),
            Volume("horn", (0.4, 0.35, 0), (0.5, 0.14, 0.06), (0, 0, -60), bend=0.6),
            Volume("block", (-0.55, -0.2, 0), (0.2, 0.28, 0.2), (0, 0, 25)),
        ),
        Volume("ellipsoid", (-0.2, 0.65, 0), (0.3, 0.17, 0.2), (0, 0, 25)),
        Volume("horn", (0.05, -0.5, 0), (0.5, 0.18, 0.1), (0, 0, 180)),
    ),
    (
        (
            Volume("ellipsoid", (0, -0.2, 0), (0.34, 0.55, 0.34)),
            Volume("horn", (0, 0.25, 0), (0.55, 0.13, 0.1), (0, 0, 10), bend=-0.7),
            Volume("horn", (0.2, -0.3, 0.1), (0.45, 0.13, 0.05), (0, 0, -75)),
        ),
        Volume("block", (-0.45, -0.4, 0.05), (0.25, 0.12, 0.2), (0, 0, -20)),
        Volume("block", (-0.42, 0.05, 0.05), (0.12, 0.3, 0.16), (0, 0, 25)),
    ),
    (
        (
            Volume("horn", (-0.65, -0.25, 0), (1.3, 0.26, 0.16), (0, 0, -80), bend=-0.45),
            Volume("ellipsoid", (-0.6, 0.15, 0.05), (0.18, 0.34, 0.2), (0, 0, 15)),
            Volume("horn", (0.0, -0.1, 0.1), (0.5, 0.12, 0.12), (0, 0, 5)),
        ),
        Volume("ring", (0.62, 0.3, 0.05), (0.22, 0.08, 0), (70, 0, -15)),
        Volume("block", (0.6, 0.35, 0.05), (0.16, 0.3, 0.16), (0, 0, -15)),
    ),
    (
        (
            Volume("ellipsoid", (0, 0, 0), (0.42, 0.42, 0.42)),
            Volume("horn", (0.25, 0.25, 0.1), (0.6, 0.1, 0.17), (0, 0, -50)),
            Volume("horn", (-0.25, 0.25, 0.1), (0.55, 0.17, 0.05), (0, 0, 35), bend=0.5),
        ),
        Volume("horn", (0.05, -0.3, 0), (0.55, 0.13, 0.2), (0, 0, 170)),
        Volume("ring", (0, -0.2, 0), (0.5, 0.1, 0), (15, 0, -12)),
    ),
    (
        (
            Volume("block", (0, 0.05, 0), (0.3, 0.62, 0.26), (0, 0, -8)),
            Volume("ring", (0.38, -0.3, 0), (0.26, 0.09, 0), (80, 0, 10)),
            Volume("ellipsoid", (-0.35, -0.45, 0.05), (0.32, 0.18, 0.24), (0, 0, -15)),
        ),
        Volume("horn", (0.15, 0.5, 0.05), (0.5, 0.14, 0.05), (0, 0, -65), bend=-0.5),
        Volume("ellipsoid", (-0.38, 0.4, 0.05), (0.28, 0.18, 0.2), (0, 0, -35)),
    ),
    (
        (
            Volume("horn", (-0.5, 0.55, 0), (1.2, 0.12, 0.36), (0, 0, -140)),
            Volume("horn", (-0.15, 0.2, 0.1), (0.6, 0.12, 0.09), (0, 0, -40), bend=0.5),
            Volume("block", (0.55, -0.1, 0), (0.14, 0.24, 0.2), (0, 0, -35)),
        ),
        Volume("ellipsoid", (-0.3, -0.15, 0.05), (0.24, 0.24, 0.22)),
        Volume("horn", (-0.1, -0.2, 0.05), (0.6, 0.1, 0.1), (0, 0, 120)),
    ),
    (
        (
            Volume("ellipsoid", (0, 0.3, 0), (0.5, 0.3, 0.36), (0, 0, 12)),
            Volume("ellipsoid", (0.05, -0.3, 0), (0.3, 0.42, 0.3)),
            Volume("horn", (-0.3, 0.4, 0), (0.5, 0.14, 0.06), (0, 0, 75), bend=-0.6),
        ),
        Volume("block", (0.45, -0.45, 0), (0.28, 0.12, 0.16), (0, 0, -25)),
        Volume("horn", (0.35, 0.4, 0), (0.5, 0.12, 0.12), (0, 0, -20), bend=-0.3),
    ),
    (
        (
            Volume("horn", (-0.45, -0.6, 0), (1.1, 0.2, 0.16), (0, 0, 8), bend=0.35),
            Volume("horn", (0.5, -0.6, 0), (1.0, 0.2, 0.16), (0, 0, -6), bend=-0.35),
            Volume("block", (0.02, -0.35, 0), (0.5, 0.15, 0.2), (0, 0, 4)),
        ),
        Volume("ellipsoid", (0.0, 0.1, 0.05), (0.22, 0.32, 0.22)),
        Volume("horn", (0.4, 0.2, 0.05), (0.5, 0.16, 0.05), (0, 0, -60)),
    ),
    (
        (
            Volume("block", (0.05, -0.1, 0), (0.62, 0.26, 0.3), (0, 0, 15)),
            Volume("ellipsoid", (-0.4, 0.25, 0), (0.2, 0.36, 0.22), (0, 0, 10)),
            Volume("horn", (0.45, -0.2, 0.1), (0.5, 0.17, 0.1), (0, 0, 195), bend=0.3),
        ),
        Volume("ring", (0.4, 0.3, 0), (0.26, 0.1, 0), (70, 0, 15)),
        Volume("horn", (0.15, 0.05, 0), (0.65, 0.12, 0.19), (0, 0, -20)),
    ),
)
"""Shared parts, and the part that the first and the second of a pair have of their own."""

SOLIDS: dict[str, Solid] = {
    f"{number:02d}{member}": Solid((*shared, own[member == "b"]))
    for member in "ab"
    for number, (shared, *own) in enumerate(PAIRS, start=1)
}
"""Category names to solids: one of each pair first, then their partners."""

_CANONICAL = View(yaw=25, pitch=18, roll=0)


def build_novel(request: ObjectRequest) -> ObjectSet:
    """Return novel objects; categories ``01a`` and ``01b`` are a pair.

    Exemplar 0 is the canonical view. The others differ by up to 12 degrees in the plane, 15 and 10
    degrees in depth, a scale of 0.85 to 1.05 and the light's direction; they depend on the seed,
    the category and their number only.

    Raises
    ------
    ObjectSetError
        More categories than there are.
    """
    names = choose_categories(tuple(SOLIDS), request.categories, "novel")
    drawn = [
        render(
            SOLIDS[name],
            [_view(name, j, request.seed) for j in range(request.per_category)],
            request.size,
        )
        for name in names
    ]
    grey = np.concatenate([images for images, _ in drawn])
    return ObjectSet(
        name="novel",
        images=np.repeat(grey[..., None], 3, axis=3),
        masks=np.concatenate([masks for _, masks in drawn]),
        ids=tuple(f"{name}-{j}" for name in names for j in range(request.per_category)),
        categories=tuple(name for name in names for _ in range(request.per_category)),
        source={"made": "procedurally", "seed": str(request.seed)},
    )


def _view(name: str, exemplar: int, seed: int) -> View:
    if exemplar == 0:
        return _CANONICAL
    rng = exemplar_generator(seed, "novel", name, str(exemplar))
    return View(
        yaw=_CANONICAL.yaw + rng.uniform(-15, 15),
        pitch=_CANONICAL.pitch + rng.uniform(-10, 10),
        roll=rng.uniform(-12, 12),
        zoom=rng.uniform(0.85, 1.05),
        light=(_CANONICAL.light[0] + rng.uniform(-25, 25), 45 + rng.uniform(-15, 15)),
    )
