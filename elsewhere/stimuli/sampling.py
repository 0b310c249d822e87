"""Drawing exemplars from data sets that have many of each category."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from elsewhere.stimuli.arrays import ByteArray
from elsewhere.stimuli.objects import (
    ObjectRequest,
    ObjectSet,
    check_exemplars,
    choose_categories,
    exemplar_generator,
)
from elsewhere.stimuli.rasters import resize


def draw_exemplars(
    name: str, labels: NDArray[np.integer], names: Sequence[str], request: ObjectRequest
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Return which rows to take, category by category, and the category of each.

    A category's rows are shuffled by the seed and the first ones taken, so that asking for more
    only appends. `labels` are the index into `names` of every row.

    Raises
    ------
    ObjectSetError
        There are not so many.
    """
    rows: list[int] = []
    categories: list[str] = []
    for category in choose_categories(names, request.categories, name):
        present = np.flatnonzero(labels == list(names).index(category))
        check_exemplars(len(present), request.per_category, category, name)
        rng = exemplar_generator(request.seed, name, request.split, category)
        rows += rng.permutation(present)[: request.per_category].tolist()
        categories += [category] * request.per_category
    return np.array(rows, np.int64), tuple(categories)


def sample_strokes(
    name: str,
    ink: ByteArray,
    labels: NDArray[np.integer],
    names: Sequence[str],
    request: ObjectRequest,
    source: dict[str, str],
) -> ObjectSet:
    """Return a set of white strokes: `ink` uint8 (n, h, w) is their alpha."""
    rows, categories = draw_exemplars(name, labels, names, request)
    masks = resize(ink[rows], request.size)
    return ObjectSet(
        name=name,
        images=np.full((*masks.shape, 3), 255, np.uint8),
        masks=masks,
        ids=exemplar_ids(rows, categories, request),
        categories=categories,
        source=source,
    )


def exemplar_ids(
    rows: NDArray[np.integer], categories: Sequence[str], request: ObjectRequest
) -> tuple[str, ...]:
    """Return ids that name the category, the split and the row in the data set's file."""
    return tuple(
        f"{category}-{request.split}-{row}" for category, row in zip(categories, rows, strict=True)
    )
