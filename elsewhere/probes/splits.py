"""Who trains and who is tested: exemplars held out, folds, and labels of the control task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from elsewhere.errors import InputError, UnknownNameError
from elsewhere.protocols import Design

Split: TypeAlias = Literal["same", "held-out", "both"]
SPLITS = ("same", "held-out")
ASKED = ("same", "held-out", "both")
ONE_CATEGORY = "it responds to objects of one category only"
"""Why a layer has no probe."""


@dataclass(frozen=True)
class ExemplarSplit:
    """How the objects of a design are divided.

    `names` are the categories in the order of the classes, `labels` int (object,) the class of
    each, `held_out` bool (object,) those that are not trained on; `reason` says why there are none
    although that was not asked for.
    """

    names: tuple[str, ...]
    labels: NDArray[np.int64]
    held_out: NDArray[np.bool_]
    reason: str = ""

    @property
    def train(self) -> NDArray[np.int64]:
        """Indices of the objects that are trained on."""
        return np.flatnonzero(~self.held_out)

    def known(self, heard: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return the objects that are heard, of categories of which one that trains is heard.

        Examples
        --------
        >>> some = ExemplarSplit(("a", "b"), np.array([0, 0, 1]), np.array([False, True, False]))
        >>> some.known(np.array([False, True, True])).tolist()
        [False, False, True]
        """
        trained = np.unique(self.labels[heard & ~self.held_out])
        return np.asarray(heard & np.isin(self.labels, trained))

    def heard(self, silent: NDArray[np.bool_]) -> tuple[NDArray[np.int64], str]:
        """Return the objects that a layer's probe takes, and what has to be said about that.

        `silent` bool (object,) are those that change nothing in the layer.
        """
        members = np.flatnonzero(self.known(~silent))
        n_left = len(np.unique(self.labels[members]))
        if n_left < 2:
            return members, ONE_CATEGORY
        if n_left == len(self.names):
            return members, ""
        return members, (
            f"it responds to objects of {n_left} of {len(self.names)} categories, so that chance "
            f"is 1/{n_left}"
        )

    def among(self, members: NDArray[np.int64]) -> ExemplarSplit:
        """Return some of the objects, their categories numbered anew."""
        codes, labels = np.unique(self.labels[members], return_inverse=True)
        names = tuple(self.names[code] for code in codes.tolist())
        return ExemplarSplit(names, labels.astype(np.int64), self.held_out[members], self.reason)

    @property
    def shuffles_mean(self) -> bool:
        """Whether shuffled labels are another task: a category has two exemplars to train on."""
        return bool(np.bincount(self.labels[self.train]).max() > 1)


def divide(
    design: Design,
    split: Split | None,
    *,
    held_out: float | ArrayLike = 0.25,
    seed: int = 0,
) -> ExemplarSplit:
    """Divide the objects of a design by exemplar.

    ``same`` trains on all exemplars; ``held-out`` and ``both`` hold some out, at every location; by
    default some are held out if every category has two or more. `held_out` is the share of each
    category's exemplars, at least one, drawn by `seed`; or bool (object,), which ones.

    Raises
    ------
    InputError
        A single category, one that would have nothing to train on, or nothing to hold out.
    """
    if split is not None and split not in ASKED:
        raise UnknownNameError("split", str(split), ASKED)
    names = tuple(dict.fromkeys(design.categories))
    labels = design.category_codes
    if len(names) < 2:
        raise InputError(
            f"all {len(labels)} objects are of the one category {names[0]!r}; a probe needs two or "
            "more: record more categories"
        )
    if not np.isscalar(held_out):
        mask = np.asarray(held_out)
        if mask.dtype != bool or mask.shape != labels.shape:
            raise InputError(
                f"held_out must be bool of shape {labels.shape}, one for each object, or a share; "
                f"got {mask.dtype} {mask.shape}"
            )
        for code, name in enumerate(names):
            if mask[labels == code].all():
                raise InputError(
                    f"category {name!r} is missing at training: all its exemplars are held out; "
                    "train on at least one of each"
                )
        return ExemplarSplit(names, labels, mask)
    share = float(held_out)  # type: ignore[arg-type]
    if not 0 < share < 1:
        raise InputError(f"the share of exemplars to hold out is {share:g}; expected between 0, 1")
    nobody = np.zeros(len(labels), bool)
    if split == "same":
        return ExemplarSplit(names, labels, nobody)
    counts = np.bincount(labels)
    if counts.min() < 2:
        lone = names[int(counts.argmin())]
        reason = (
            f"category {lone!r} has one exemplar, so that none can be held out; record two or more "
            "of each (--per-category)"
        )
        if split is not None:
            raise InputError(f"split {split!r}: {reason}, or take split 'same'")
        return ExemplarSplit(names, labels, nobody, reason)
    rng = np.random.default_rng([seed, 1])
    mask = nobody.copy()
    for code, count in enumerate(counts.tolist()):
        n_out = min(max(round(share * count), 1), count - 1)
        mask[rng.permutation(np.flatnonzero(labels == code))[:n_out]] = True
    return ExemplarSplit(names, labels, mask)


def deal_folds(labels: NDArray[np.int64], n_folds: int, *, seed: int) -> NDArray[np.int64] | None:
    """Return the fold of each exemplar, stratified by class, or None where that cannot be.

    There are at most `n_folds`, and no more than the smallest class has exemplars.

    Examples
    --------
    >>> folds = deal_folds(np.repeat([0, 1], 4), 4, seed=0)
    >>> sorted(folds[:4].tolist()), deal_folds(np.array([0, 1]), 5, seed=0)
    ([0, 1, 2, 3], None)
    """
    counts = np.bincount(labels)
    n_folds = min(n_folds, int(counts[counts > 0].min()))
    if n_folds < 2:
        return None
    rng = np.random.default_rng([seed, 2])
    folds = np.empty(len(labels), np.int64)
    start = 0
    for code in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == code))
        folds[members] = (start + np.arange(len(members))) % n_folds
        start += len(members)  # what is left over goes to the next folds
    return folds


def shuffle_labels(exemplars: ExemplarSplit, n_shuffles: int, *, seed: int) -> NDArray[np.int64]:
    """Return the labels of the control task, shape (shuffle, object).

    Each exemplar has one label drawn at random, the same at all locations: labels are permuted
    among the trained exemplars, and among the held-out ones.

    References
    ----------
    Hewitt & Liang (2019), Designing and interpreting probes with control tasks, EMNLP.
    """
    rng = np.random.default_rng([seed, 3])
    shuffled = np.tile(exemplars.labels, (n_shuffles, 1))
    for row in shuffled:
        for mask in (exemplars.held_out, ~exemplars.held_out):
            row[mask] = rng.permutation(row[mask])
    return shuffled


def balance(labels: NDArray[np.int64], exemplars: ExemplarSplit) -> NDArray[np.float64]:
    """Return what each object counts in a plain mean over the trained exemplars, or the others.

    The plain mean is then the mean over the classes of a row of `labels` (task, object) of means
    over exemplars, as accuracy is.
    """
    weights = np.ones(labels.shape)
    for row, task in zip(weights, labels, strict=True):
        for side in (exemplars.held_out, ~exemplars.held_out):
            _, codes, counts = np.unique(task[side], return_inverse=True, return_counts=True)
            row[side] = 1.0 / (max(len(counts), 1) * counts[codes]) * side.sum()
    return weights
