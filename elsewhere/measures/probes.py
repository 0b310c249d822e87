"""Accuracies of probes that are meant for new classes: balanced over categories, resampled."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from elsewhere.errors import InputError


def balanced_weights(categories: ArrayLike) -> NDArray[np.float64]:
    """Return the weight of each object in a mean over categories of means over exemplars.

    Guessing by any rule that ignores the object then scores 1 over the number of categories,
    however unequal these are; with as many exemplars of each it is the plain mean.

    Parameters
    ----------
    categories
        int (object,).

    Returns
    -------
    float64 (object,)
        They sum to 1; none for no objects.

    Examples
    --------
    >>> balanced_weights([0, 0, 1])
    array([0.25, 0.25, 0.5 ])
    """
    _, codes, counts = np.unique(np.asarray(categories), return_inverse=True, return_counts=True)
    return np.asarray(1.0 / (max(len(counts), 1) * counts[codes]), np.float64)


def resample_categories(
    categories: ArrayLike, n_resamples: int, *, seed: int
) -> NDArray[np.float64]:
    """Return balanced weights of bootstrap samples: categories are drawn anew, then exemplars.

    A two-stage bootstrap (Davison & Hinkley 1997, section 3.8): as many categories as there are
    are drawn with replacement; for each draw, as many exemplars as it has, with replacement.

    Parameters
    ----------
    categories
        int (object,).
    n_resamples
        How many samples.
    seed
        Of the draws.

    Returns
    -------
    float64 (n_resamples, object)
        Each row sums to 1: its product with values is the balanced mean in that sample.

    Examples
    --------
    >>> weights = resample_categories([0, 0, 1, 1, 1], 500, seed=0)
    >>> weights.shape, np.allclose(weights.sum(axis=1), 1)
    ((500, 5), True)
    """
    if n_resamples < 1:
        raise InputError(f"n_resamples is {n_resamples}; expected at least 1")
    _, codes, counts = np.unique(np.asarray(categories), return_inverse=True, return_counts=True)
    rng = np.random.default_rng(seed)
    n_categories = len(counts)
    drawn = rng.multinomial(n_categories, np.full(n_categories, 1 / n_categories), n_resamples)
    weights = np.zeros((n_resamples, len(codes)))
    for code, count in enumerate(counts.tolist()):
        # c independent draws of `count` exemplars each are one draw of c times as many
        times = rng.multinomial(drawn[:, code] * count, np.full(count, 1 / count))
        weights[:, codes == code] = times / (n_categories * count)
    return weights


def plain_resamples(n_objects: int, n_resamples: int, *, seed: int) -> NDArray[np.float64]:
    """Return the weights of bootstrap samples over objects of one kind, (n_resamples, object).

    Examples
    --------
    >>> np.allclose(plain_resamples(4, 10, seed=0).sum(axis=1), 1)
    True
    """
    rng = np.random.default_rng(seed)
    shares = np.full(n_objects, 1 / n_objects)
    return np.asarray(rng.multinomial(n_objects, shares, n_resamples) / n_objects, np.float64)
