"""What a probe of pool5 costs over scikit-learn on raw features, and `each` of 49 locations.

    python -m benchmarks.probes [--pairs 3] [--each 49]

10 categories x 20 exemplars of 25,088 units after a ReLU, strength chosen by 5-fold
cross-validation over 9 values. Goal: a twentieth of the time of LogisticRegressionCV on raw
features; at the same strength the same predictions, probabilities within 1e-3.
"""

from __future__ import annotations

import argparse
import time
import warnings

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from threadpoolctl import threadpool_limits

from benchmarks.ratios import compare
from elsewhere.probes import fit_probe, probe
from elsewhere.probes.kinds import probe_kinds
from elsewhere.probes.selection import FitTask, fit
from elsewhere.probes.span import find_span
from elsewhere.probes.splits import deal_folds
from elsewhere.storage import ArraySource

CATEGORIES, EXEMPLARS, UNITS = 10, 20, 25_088


def features(n_positions: int, seed: int = 0) -> NDArray[np.float32]:
    """Return made-up pool5 features: categories, exemplars and places, after a ReLU."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(40, UNITS)).astype(np.float32)
    codes = np.repeat(rng.normal(size=(CATEGORIES, 40)), EXEMPLARS, axis=0)
    exemplars = codes + 0.8 * rng.normal(size=(CATEGORIES * EXEMPLARS, 40))
    found = np.empty((CATEGORIES * EXEMPLARS, n_positions, UNITS), np.float32)
    for position in range(n_positions):
        turned = exemplars * rng.uniform(0.3, 1.7, 40)
        noise = 3 * rng.standard_normal((len(exemplars), UNITS), dtype=np.float32)
        np.maximum(turned.astype(np.float32) @ mixing + noise, 0, out=found[:, position])
    return found


def single(n_pairs: int) -> None:
    """Print the ratio for one location, and how far the probabilities are apart."""
    values = features(2)
    labels = np.repeat(np.arange(CATEGORIES), EXEMPLARS)
    source = ArraySource(
        {"pool5": values[:, None]}, y=[0], x=[0, 1], categories=[f"c{k:02}" for k in labels]
    )
    strengths = sorted(probe_kinds.get("logistic").strengths)
    folds = deal_folds(labels, 5, seed=0)
    if folds is None:
        raise SystemExit("too few exemplars")
    splits = [(np.flatnonzero(folds != f), np.flatnonzero(folds == f)) for f in range(5)]

    def standardise(rows: NDArray[np.float32]) -> NDArray[np.float64]:
        mean = values[:, 0].mean(axis=0, dtype=np.float64)
        spread = values[:, 0].std(axis=0, dtype=np.float64)
        return (rows - mean) / np.where(spread > 0, spread, 1.0)

    def raw() -> LogisticRegressionCV:
        model = LogisticRegressionCV(
            Cs=strengths, cv=splits, scoring="accuracy", max_iter=1000, use_legacy_attributes=False
        )
        return model.fit(standardise(values[:, 0]), labels)

    ratio = compare(raw, lambda: fit_probe(source, "pool5", train_at=(0, 0)), n_pairs=n_pairs)
    low, high = 1 / ratio.high, 1 / ratio.low
    print(
        f"one location: {ratio.seconds[0]:.2f} s on raw features, {ratio.seconds[1]:.2f} s in the "
        f"span: {1 / ratio.median:.0f} times faster [{low:.0f}, {high:.0f}]   goal 20"
    )
    found = fit_probe(source, "pool5", train_at=(0, 0))
    print(f"strength {found.strength:g}; scikit-learn's own search: {float(raw().C_):g}")
    reference = LogisticRegression(C=found.strength, tol=1e-8, max_iter=5_000)
    reference.fit(standardise(values[:, 0]), labels)
    for place in range(2):
        truth = reference.predict_proba(standardise(values[:, place]))
        ours = found.probabilities(values[:, place])
        same = (truth.argmax(axis=1) == ours.argmax(axis=1)).mean()
        apart = np.abs(truth - ours).max()
        print(f"at place {place}: probabilities within {apart:.1e}, {same:.1%} predictions equal")


def each(n_positions: int) -> None:
    """Print the time of every location in turn, the fits' share, and that of the naive loop."""
    values = features(n_positions)
    labels = np.repeat(np.arange(CATEGORIES), EXEMPLARS)
    shaped = values.reshape(len(labels), 1, n_positions, UNITS)
    source = ArraySource(
        {"pool5": shaped}, y=[0], x=range(n_positions), categories=[f"c{k:02}" for k in labels]
    )
    begin = time.perf_counter()
    probe(source, train_at="each", split="same", controls=(), max_memory="4GiB")
    whole = time.perf_counter() - begin

    begin = time.perf_counter()
    spans = [find_span(lambda: [values[:, 0]], len(labels)) for _ in range(2)]
    span = (time.perf_counter() - begin) / len(spans)
    begin = time.perf_counter()
    folds = deal_folds(labels, 5, seed=0)
    fit(FitTask(spans[0].coordinates, labels[None], folds, "logistic", CATEGORIES))
    one = time.perf_counter() - begin
    print(
        f"each of {n_positions}: {whole:.1f} s, of which fits {one * n_positions / whole:.0%} and "
        f"spans {span * n_positions / whole:.0%}"
    )
    begin = time.perf_counter()
    mean, spread = values[:, 0].mean(axis=0), values[:, 0].std(axis=0)
    spread[spread == 0] = 1
    model = LogisticRegressionCV(
        Cs=sorted(probe_kinds.get("logistic").strengths), cv=5, scoring="accuracy", max_iter=1000,
        use_legacy_attributes=False,
    ).fit((values[:, 0] - mean) / spread, labels)  # fmt: skip
    for position in range(n_positions):
        model.predict((values[:, position] - mean) / spread)
    naive = (time.perf_counter() - begin) * n_positions
    print(f"the naive loop, from one of its locations: {naive:.0f} s, {naive / whole:.0f} times")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--each", type=int, default=49)
    options = parser.parse_args()
    for category in (ConvergenceWarning, FutureWarning):
        warnings.simplefilter("ignore", category)
    print(f"{CATEGORIES} x {EXEMPLARS} objects, {UNITS} units, one thread")
    with threadpool_limits(1):
        single(options.pairs)
        each(options.each)


if __name__ == "__main__":
    main()
