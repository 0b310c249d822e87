"""Accuracies of probes that are meant for new classes: balanced over categories."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def balanced_weights(categories: ArrayLike) -> NDArray[np.float64]:
    """Return the weight (object,) of each object in a mean over categories of means over exemplars.

    Guessing by any rule that ignores the object then scores 1 over the number of categories,
    however unequal these are; with as many exemplars of each it is the plain mean.

    Examples
    --------
    >>> balanced_weights([0, 0, 1])
    array([0.25, 0.25, 0.5 ])
    """
    _, codes, counts = np.unique(np.asarray(categories), return_inverse=True, return_counts=True)
    return np.asarray(1.0 / (max(len(counts), 1) * counts[codes]), np.float64)
