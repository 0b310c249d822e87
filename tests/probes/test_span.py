"""The span loses nothing: coordinates, weights and predictions are those of raw features."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from elsewhere.probes.logistic import Logistic
from elsewhere.probes.span import STRETCH, find_span, moments, raw_weights
from tests.measures.test_vectors import PATTERNS
from tests.measures.test_vectors import rows_of as hard_rows


def rows_of(n, units, seed=0, rank=None):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n, units)) * rng.uniform(0.1, 5, units) + rng.normal(size=units)
    if rank is not None:
        rows = rng.normal(size=(n, rank)) @ rng.normal(size=(rank, units))
    return rows.astype(np.float32)


@settings(max_examples=15, deadline=None)
@given(n=st.integers(2, 30), units=st.integers(1, 60), seed=st.integers(0, 99))
def test_coordinates_keep_all_products_of_standardised_samples(n, units, seed):
    rows = rows_of(n, units, seed)
    span = find_span(lambda: [rows], n)
    z = StandardScaler().fit_transform(rows.astype(np.float64))
    np.testing.assert_allclose(span.coordinates @ span.coordinates.T, z @ z.T, atol=1e-6 * units)
    assert span.rank <= min(n - 1, units)
    basis = z.T @ span.back
    np.testing.assert_allclose(basis.T @ basis, np.eye(span.rank), atol=1e-6)
    np.testing.assert_allclose(z @ basis, span.coordinates, atol=1e-5)


def test_slices_of_units_give_the_same_span():
    rows = rows_of(12, 3 * STRETCH + 17)
    whole = find_span(lambda: [rows], 12)
    cut = find_span(lambda: [rows[:, :5000], rows[:, 5000:]], 12)
    np.testing.assert_allclose(
        np.abs(whole.coordinates), np.abs(cut.coordinates), rtol=1e-6, atol=1e-5
    )


def test_nearly_equal_samples_lose_no_digits():
    """Singular values of 1e-5 of the largest survive; squared, they would drown in rounding."""
    rng = np.random.default_rng(1)
    left = np.linalg.qr(rng.normal(size=(8, 8)))[0]
    left -= left.mean(axis=0)
    lengths = np.array([1, 0.5, 1e-1, 1e-3, 1e-5, 2e-5, 0, 0])
    right = np.linalg.qr(rng.normal(size=(400, 8)))[0]
    exact = (left * lengths) @ right.T
    pieces = [exact[:, :200], exact[:, 200:]]
    # standardising would spread the small ones; the triangles are what is tested here
    from elsewhere.probes import span as module

    found = []
    for method in ("gram", "triangles"):
        z = [piece - piece.mean(axis=0) for piece in pieces]
        if method == "gram":
            values = np.linalg.eigvalsh(sum(p @ p.T for p in z))[::-1]
            found.append(np.sqrt(np.maximum(values, 0)))
        else:
            original = module.standardised
            module.standardised = lambda rows: iter([rows])
            try:
                _, kept = module._by_triangles(lambda z=z: z, 8)
            finally:
                module.standardised = original
            found.append(np.sort(kept)[::-1])
    truth = np.linalg.svd(exact - exact.mean(axis=0), compute_uv=False)
    n = int((truth > 1e-9).sum())
    by_triangles = np.abs(found[1][:n] / truth[:n] - 1).max()
    assert by_triangles < 1e-9
    assert by_triangles < np.abs(found[0][:n] / truth[:n] - 1).max()


def test_ill_conditioned_samples_take_the_triangles(monkeypatch):
    from elsewhere.probes import span as module

    rng = np.random.default_rng(0)
    base = rng.normal(size=(6, 90))
    twins = np.concatenate([base, base + 3e-6 * rng.normal(size=base.shape)]).astype(np.float32)
    called = []
    original = module._by_triangles
    monkeypatch.setattr(module, "_by_triangles", lambda *a: called.append(1) or original(*a))
    span = find_span(lambda: [twins], 12)
    assert called
    z = StandardScaler().fit_transform(twins.astype(np.float64))
    truth = np.linalg.svd(z, compute_uv=False)[: span.rank]
    np.testing.assert_allclose(
        np.linalg.norm(span.coordinates, axis=0), truth, rtol=1e-6, atol=1e-9
    )


def test_constant_and_rounded_units_have_no_weight():
    rows = rows_of(10, 40)
    rows[:, 3] = 7.0
    rows[:, 4] = np.float32(1.0) + np.float32(1e-7) * (np.arange(10) % 2)
    span = find_span(lambda: [rows], 10)
    into = np.empty((span.rank, 40), np.float32)
    raw_weights(rows, span.back, moments(rows), into)
    assert (into[:, 3:5] == 0).all()
    assert (np.abs(into[:, [0, 1, 2, 5]]) > 0).any(axis=0).all()
    dead = np.full((5, 9), 2.0, np.float32)
    assert find_span(lambda: [dead], 5).rank == 0


@pytest.mark.parametrize("n_classes", [2, 3, 5])
@pytest.mark.parametrize("strength", [1e-3, 1.0, 100.0])
def test_logistic_regression_in_the_span_is_that_on_raw_features(n_classes, strength):
    n, units = 8 * n_classes, 700
    y = np.arange(n) % n_classes
    rows = rows_of(n, units, seed=n_classes) + rows_of(n_classes, units, seed=9)[y] * 0.3
    rows = rows.astype(np.float32)
    others = rows_of(60, units, seed=4)
    span = find_span(lambda: [rows], n)
    model = Logistic(strength).fit(span.coordinates, y)
    into = np.empty((n_classes, units), np.float32)
    at_mean = raw_weights(rows, span.back @ model.coef_.T, moments(rows), into)
    scores = others.astype(np.float64) @ into.T.astype(np.float64) + model.intercept_ - at_mean
    scaler = StandardScaler().fit(rows.astype(np.float64))
    reference = LogisticRegression(C=strength, solver="newton-cg", tol=1e-9, max_iter=999)
    reference.fit(scaler.transform(rows), y)
    truth = reference.predict_proba(scaler.transform(others))
    raised = np.exp(scores - scores.max(axis=1, keepdims=True))
    np.testing.assert_allclose(raised / raised.sum(axis=1, keepdims=True), truth, atol=1e-3)
    assert (scores.argmax(axis=1) == truth.argmax(axis=1)).all()


@PATTERNS
def test_products_of_rows_that_make_sums_hard(pattern):
    """Products in the span, and scores of raw weights, against extended precision."""
    units = 30_000
    rows = np.concatenate([hard_rows(pattern, units, seed) for seed in range(4)])
    rows *= np.linspace(0.5, 2.0, 12, dtype=np.float32)[:, None]
    span = find_span(lambda: [rows], 12)
    exact = rows.astype(np.longdouble)
    mean, z = exact.mean(axis=0), exact - exact.mean(axis=0)
    spread = np.sqrt((z**2).mean(axis=0))
    constant = spread <= 1e-6 * abs(mean)
    z /= np.where(constant, 1, spread)
    z[:, constant] = 0
    products = np.array([[(a * b).sum() for b in z] for a in z]).astype(float)
    scale = 1e-6 * np.sqrt(np.outer(np.diag(products), np.diag(products)))
    assert (abs(span.coordinates @ span.coordinates.T - products) <= scale).all()
    combination = np.linspace(-1, 1, 24).reshape(12, 2)
    weights = np.empty((2, units), np.float32)
    at_mean = raw_weights(rows, combination, moments(rows), weights)
    scores = exact @ weights.astype(np.longdouble).T - at_mean
    size = abs(z) @ (abs(z).T @ abs(combination))
    assert (abs(scores - products @ combination) <= 1e-6 * size).all()
