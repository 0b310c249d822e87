"""Fitting in the span: strength by cross-validation, then the probe and its control tasks."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import joblib
import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

from elsewhere.errors import InputError
from elsewhere.probes.kinds import find_kind, linear_weights
from elsewhere.probes.span import Span

TIE = 1e-9
"""Strengths whose cross-validated accuracies differ by less are tied."""


@dataclass(frozen=True)
class FitTask:
    """One fit: samples in their span, and what they are called.

    `coordinates` are (sample, rank), `labels` int (1 + shuffle, sample): the classes, then those of
    the control tasks; `folds` int (sample,), or None where there is nothing to cross-validate.
    `kind` is a name or a scikit-learn classifier; of `strengths`, strongest first, one is chosen.
    """

    coordinates: NDArray[np.float64]
    labels: NDArray[np.int64]
    folds: NDArray[np.int64] | None
    kind: Any
    n_classes: int
    strengths: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Fit:
    """What a fit left.

    `strength` is the one that was chosen, `scores` the cross-validated accuracy of each, both NaN
    where there are none. A linear probe has `weights` (1 + shuffle, class, rank) and `offsets` (1 +
    shuffle, class), another one `classifiers`.
    """

    strength: float
    scores: NDArray[np.float64]
    weights: NDArray[np.float64] | None = None
    offsets: NDArray[np.float64] | None = None
    classifiers: list[Any] = field(default_factory=list)

    def rows(self, span: Span) -> NDArray[np.float64]:
        """Return what is read out as combinations of the training samples, (sample, row)."""
        if self.weights is None:
            return span.back
        flat = self.weights.reshape(-1, span.rank)
        return np.asarray(span.back @ flat.T)

    @property
    def intercepts(self) -> NDArray[np.float64] | float:
        """What is added to each row's product, (row,)."""
        return 0.0 if self.offsets is None else self.offsets.ravel()

    def choose(self, scores: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the choices, int (1 + shuffle, sample), from products with the rows."""
        if self.weights is None:
            return np.stack([np.asarray(c.predict(scores), np.int64) for c in self.classifiers])
        shape = (len(scores), *self.weights.shape[:2])
        return np.asarray(scores.reshape(shape).argmax(axis=-1).T)


def strengths_of(kind: Any, strengths: Sequence[float] | None) -> tuple[float, ...]:
    """Return the strengths that are tried, from the strongest regularisation to the weakest.

    InputError refuses a kind that has none, and a value that is not above 0.
    """
    name, found = find_kind(kind)
    if strengths is None:
        return found.strengths
    values = sorted({float(value) for value in strengths}, reverse=found.parameter == "alpha")
    if not found.strengths:
        raise InputError(f"the probe {name} has no strength to choose; leave strengths out")
    if not values or not all(np.isfinite(value) and value > 0 for value in values):
        raise InputError(f"strengths are {values}; expected numbers above 0")
    return tuple(values)


def fit(task: FitTask) -> Fit:
    """Choose the strength by cross-validation and fit the probe and its control tasks.

    The strength is that of the largest mean accuracy over folds; of tied ones the strongest. The
    control tasks take the same one, so that they are given the same capacity.
    """
    _, kind = find_kind(task.kind)
    strengths = strengths_of(task.kind, task.strengths)
    x, labels = task.coordinates, task.labels
    scores = np.full(len(strengths), np.nan)
    chosen = kind.default
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        if len(strengths) == 1:
            chosen = strengths[0]
        elif strengths and task.folds is not None:
            scores = _cross_validate(task, kind, strengths)
            chosen = strengths[int(np.argmax(scores >= scores.max() - TIE))]
        classifiers = []
        for row in labels:
            classifier = clone(kind.make(chosen))
            classifiers.append(classifier.fit(x, row))
    found = [linear_weights(classifier, task.n_classes) for classifier in classifiers]
    linear = [each for each in found if each is not None]
    if len(linear) < len(found):
        return Fit(chosen, scores, classifiers=classifiers)
    weights, offsets = (np.stack(part) for part in zip(*linear, strict=True))
    return Fit(chosen, scores, weights, offsets)


def _cross_validate(task: FitTask, kind: Any, strengths: tuple[float, ...]) -> NDArray[np.float64]:
    """Return the mean accuracy over folds for each strength."""
    folds = np.zeros(0, np.int64) if task.folds is None else task.folds
    x, y = task.coordinates, task.labels[0]
    found = []
    for fold in np.unique(folds):
        inside, outside = folds != fold, folds == fold
        classifier: Any = None
        row = []
        for strength in strengths:
            if classifier is None or not kind.quick:
                classifier = clone(kind.make(strength)).set_params(**kind.quick)
            else:
                classifier.set_params(**{kind.parameter: strength})
            classifier.fit(x[inside], y[inside])
            row.append(float((classifier.predict(x[outside]) == y[outside]).mean()))
        found.append(row)
    return np.asarray(np.mean(found, axis=0))


def fit_all(tasks: Sequence[FitTask], *, jobs: int = 1) -> list[Fit]:
    """Fit all tasks, in `jobs` processes of one thread each; the result does not depend on it."""
    if jobs == 1 or len(tasks) < 2:
        return [_fit_on_one_thread(task) for task in tasks]
    parallel = joblib.Parallel(
        n_jobs=min(jobs, len(tasks)), backend="loky", inner_max_num_threads=1
    )
    return list(parallel(joblib.delayed(_fit_on_one_thread)(task) for task in tasks))


def _fit_on_one_thread(task: FitTask) -> Fit:
    with threadpool_limits(1):
        return fit(task)
