"""Linear maps from the code of objects elsewhere to their code at the reference, by ridge."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from elsewhere.measures.unit_chunks import Floats

Indices = NDArray[np.int64]
INNER_FOLDS = 3
STRENGTHS = np.logspace(-6, 3, 10)
"""Ridge penalties that are tried, as shares of the mean eigenvalue of the training rows."""


class MoveMaps:
    """Ridge maps from the code at every location to that at the reference, for one fold.

    The solution lies in the span of the training rows, so that products between rows suffice.
    """

    def __init__(
        self,
        grams: Floats,
        home: int,
        train: Indices,
        test: Indices,
        codes: Indices,
        rng: np.random.Generator,
    ) -> None:
        inner = [
            (train[~np.isin(train, held)], held)
            for held in folds(np.unique(codes[train]), INNER_FOLDS, codes, rng)
        ]
        self._grams, self._train, self._test = grams, train, test
        answers = [_centred(grams[home], fit, held) for fit, held in inner]
        _, here, _ = _centred(grams[home], train, test)
        self._candidates = here.T  # (train, test)
        squares = np.diagonal(around(grams[home], train)[np.ix_(test, test)])
        inverse = np.where(squares > 0, 1.0 / np.sqrt(np.maximum(squares, 1e-300)), 0.0)
        self._inverse = inverse
        self.strengths = np.empty(len(grams))
        self._weights = np.empty((len(grams), len(test), len(train)))
        for location, gram in enumerate(grams):
            errors = np.zeros(len(STRENGTHS))
            for (fit, held), (kernel_here, cross_here, own_here) in zip(
                inner, answers, strict=True
            ):
                kernel, cross, _ = _centred(gram, fit, held)
                for number, weights in enumerate(_ridge(kernel, cross, STRENGTHS)):
                    errors[number] += (
                        np.einsum("ti,ij,tj->", weights, kernel_here, weights)
                        - 2 * (weights * cross_here).sum()
                        + own_here.sum()
                    )
            # of equal ones the strongest
            best = len(errors) - 1 - int(np.argmin(errors[::-1].round(12)))
            kernel, cross, _ = _centred(gram, train, test)
            (self._weights[location],) = _ridge(kernel, cross, STRENGTHS[best : best + 1])
            self.strengths[location] = STRENGTHS[best]

    def scores(self, order: Indices | None = None) -> Floats:
        """Return cosines of mapped codes with candidates, up to the mapped codes' lengths.

        `order` says which training object's code here each one's code there was fitted to; its own
        by default. The shape is (location, test, test).
        """
        chosen = np.arange(len(self._train)) if order is None else order
        products = self._weights @ self._candidates[chosen]
        products *= self._inverse
        largest = np.abs(products).max(axis=-1, keepdims=True)
        return np.where(largest > 0, products / np.where(largest > 0, largest, 1.0), 0.0)


def around(gram: Floats, train: Indices) -> Floats:
    """Return products of all rows less the mean of the training rows."""
    to_mean = gram[:, train].mean(axis=1)
    less: Floats = gram - to_mean[:, None] - to_mean[None] + to_mean[train].mean()
    return less


def _centred(gram: Floats, train: Indices, test: Indices) -> tuple[Floats, Floats, Floats]:
    """Return products less the training mean: train by train, test by train, test with itself."""
    less = around(gram, train)
    return less[np.ix_(train, train)], less[np.ix_(test, train)], np.diagonal(less)[test]


def _ridge(kernel: Floats, cross: Floats, strengths: Floats) -> Iterator[Floats]:
    """Yield, per penalty, the test rows' weights on the training rows, (test, train)."""
    values, vectors = linalg.eigh(kernel, check_finite=False)
    values = np.maximum(values, 0.0)
    unit = float(values.mean())
    rotated = cross @ vectors
    for strength in strengths:
        if unit == 0:
            yield np.zeros_like(cross)
        else:
            yield (rotated / (values + strength * unit)) @ vectors.T


def folds(names: Indices, n_folds: int, codes: Indices, rng: np.random.Generator) -> list[Indices]:
    """Return the objects of each fold: the categories `names`, shuffled and dealt out."""
    order = rng.permutation(names)
    return [np.flatnonzero(np.isin(codes, part)) for part in np.array_split(order, n_folds)]
