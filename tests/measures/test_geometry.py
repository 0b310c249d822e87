"""CKA and RSA against independent forms, rsatoolbox and scipy, and by their properties."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial.distance import pdist

from elsewhere.errors import UnknownNameError
from elsewhere.measures import linear_cka, rsa
from elsewhere.measures.grams import left_out
from tests.measures.test_vectors import PATTERNS, rows_of


def hsic_unbiased(k, m):
    """Song et al. (2012), equation 5, by traces and vectors of ones."""
    n = len(k)
    k, m = k - np.diag(np.diag(k)), m - np.diag(np.diag(m))
    one = np.ones(n)
    total = np.trace(k @ m)
    total += (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2))
    total -= 2 / (n - 2) * (one @ k @ m @ one)
    return total / (n * (n - 3))


def hsic_biased(k, m):
    n = len(k)
    h = np.eye(n) - 1 / n
    return np.trace(k @ h @ m @ h) / (n - 1) ** 2


def cka(x, y, hsic):
    k, m = x @ x.T, y @ y.T
    return hsic(k, m) / np.sqrt(hsic(k, k) * hsic(m, m))


def features(seed=0, n=25, n_locations=3, n_units=40):
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=(n, 1, n_units))
    return shared + rng.normal(size=(n, n_locations, n_units)) + 3.0


@pytest.mark.parametrize(("biased", "hsic"), [(False, hsic_unbiased), (True, hsic_biased)])
def test_cka_is_the_formula(biased, hsic):
    values = features()
    found = linear_cka(values, biased=biased)
    for p in range(3):
        for q in range(3):
            assert found[p, q] == pytest.approx(cka(values[:, p], values[:, q], hsic), abs=1e-10)


def test_the_biased_cka_is_that_of_cross_covariances():
    # Kornblith et al. (2019), equation 3: |Y'X|² / (|X'X| |Y'Y|), centred.
    values = features()
    x, y = (values[:, p] - values[:, p].mean(axis=0) for p in (0, 1))
    wanted = np.linalg.norm(y.T @ x) ** 2
    wanted /= np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y)
    assert linear_cka(values, biased=True)[0, 1] == pytest.approx(wanted)


def test_independent_features_of_few_objects_fool_the_biased_one_only():
    rng = np.random.default_rng(0)
    found = [
        [linear_cka(values, biased=biased)[0, 1] for biased in (True, False)]
        for values in rng.normal(size=(40, 20, 2, 4096))
    ]
    biased, unbiased = np.mean(found, axis=0)
    assert biased > 0.97
    assert abs(unbiased) < 0.1


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.01, 100))
def test_rotation_scaling_and_translation_change_nothing(seed, scale):
    values = features(seed, n=21, n_units=10)
    rng = np.random.default_rng(seed)
    rotation, _ = np.linalg.qr(rng.normal(size=(10, 10)))
    moved = values.copy()
    moved[:, 1] = scale * values[:, 1] @ rotation + rng.normal(size=10)
    np.testing.assert_allclose(linear_cka(values), linear_cka(moved), atol=1e-8)
    np.testing.assert_allclose(
        rsa(values, dissimilarity="euclidean"),
        rsa(moved, dissimilarity="euclidean"),
        atol=2e-3,  # ranks of nearly equal distances
    )


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_identity_gives_one_and_order_does_not_matter(seed):
    values = features(seed, n=20)
    for matrix in (linear_cka(values), linear_cka(values, biased=True), rsa(values)):
        np.testing.assert_allclose(np.diag(matrix), 1)
        np.testing.assert_allclose(matrix, matrix.T)


@pytest.mark.parametrize("dissimilarity", ["correlation", "cosine", "euclidean"])
@pytest.mark.parametrize("comparison", ["spearman", "pearson", "cosine"])
def test_rsa_is_what_scipy_gives(dissimilarity, comparison):
    values = features(n=9)
    found = rsa(values, dissimilarity=dissimilarity, comparison=comparison)
    first, second = (pdist(values[:, p], dissimilarity) for p in (0, 1))
    wanted = {
        "spearman": lambda: stats.spearmanr(first, second).statistic,
        "pearson": lambda: stats.pearsonr(first, second).statistic,
        "cosine": lambda: first @ second / np.linalg.norm(first) / np.linalg.norm(second),
    }[comparison]()
    assert found[0, 1] == pytest.approx(wanted, abs=1e-9)


def test_rsa_is_what_rsatoolbox_gives():
    data = pytest.importorskip("rsatoolbox.data")
    rdm = pytest.importorskip("rsatoolbox.rdm")
    values = features(n=9)
    found = [rdm.calc_rdm(data.Dataset(values[:, p]), method="correlation") for p in (0, 1)]
    for comparison, method in (("spearman", "spearman"), ("pearson", "corr"), ("cosine", "cosine")):
        wanted = float(np.squeeze(rdm.compare(*found, method=method)))
        assert rsa(values, comparison=comparison)[0, 1] == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize(("dtype", "within"), [("float32", 1e-5), ("float16", 1e-3)])
def test_low_precision_gives_the_same(dtype, within):
    rng = np.random.default_rng(1)
    exact = np.maximum(rng.normal(size=(20, 2, 60_000)) + rng.normal(size=(20, 1, 60_000)), 0) + 1
    short = exact.astype(dtype)
    assert np.abs(linear_cka(exact) - linear_cka(short)).max() < within
    kinds = {"comparison": "pearson"}
    assert np.abs(rsa(exact, **kinds) - rsa(short, **kinds)).max() < within


def test_few_objects_warn_and_fewer_are_undefined():
    with pytest.warns(UserWarning, match="CKA of 12 objects is noisy"):
        linear_cka(features(n=12))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        linear_cka(features(n=12), biased=True)
    with pytest.warns(UserWarning, match="noisy"):
        assert np.isnan(linear_cka(features(n=3))).all()
    assert np.isnan(rsa(features(n=2))).all()


def test_constant_features_are_undefined_at_their_location_only():
    values = features(n=20)
    values[:, 1] = 4.0
    for matrix in (linear_cka(values), linear_cka(values, biased=True), rsa(values)):
        assert np.isnan(matrix[1]).all()
        assert np.isfinite(matrix[0, 2])


def test_unknown_names_are_refused():
    with pytest.raises(UnknownNameError, match="nearest: correlation"):
        rsa(features(n=4), dissimilarity="correlations")
    with pytest.raises(UnknownNameError, match="known: spearman, pearson, cosine"):
        rsa(features(n=4), comparison="kendall")


def test_leaving_out_is_measuring_without():
    values = features(n=6)
    grams = np.stack([values[:, p] @ values[:, p].T for p in range(3)])
    found = left_out(grams, lambda rest: rest.sum(axis=(1, 2)))
    for number in range(6):
        rest = np.delete(values, number, axis=0)
        wanted = [(rest[:, p] @ rest[:, p].T).sum() for p in range(3)]
        np.testing.assert_allclose(found[number], wanted)


def exact_cka(activations, biased):
    """Return CKA between all pairs of locations, with products in extended precision."""
    kernels = []
    n = len(activations)
    for location in range(activations.shape[1]):
        rows = activations[:, location].astype(np.longdouble)
        rows -= rows.mean(axis=0)
        kernel = np.array([[(a * b).sum() for b in rows] for a in rows])
        if not biased:  # Song et al. (2012)
            np.fill_diagonal(kernel, 0)
        kernels.append(kernel)
    found = np.empty((len(kernels), len(kernels)))
    for p, k in enumerate(kernels):
        for q, other in enumerate(kernels):
            both = [(k, other), (k, k), (other, other)]
            if biased:
                hsic = [(a * b).sum() for a, b in both]
            else:
                hsic = [
                    (a * b).sum()
                    + a.sum() * b.sum() / ((n - 1) * (n - 2))
                    - 2 / (n - 2) * (a.sum(0) * b.sum(0)).sum()
                    for a, b in both
                ]
            found[p, q] = hsic[0] / np.sqrt(hsic[1] * hsic[2])
    return found


@PATTERNS
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.filterwarnings("ignore:.*objects")
def test_cka_is_right_for_rows_that_make_sums_hard(pattern, biased):
    units = 30_000
    rows = np.stack([rows_of(pattern, units, seed) for seed in range(6)])
    rows *= np.linspace(0.5, 2.0, 6, dtype=np.float32)[:, None, None]  # no two objects are equal
    given = linear_cka(rows, biased=biased)
    assert np.isfinite(given).all()
    np.testing.assert_allclose(given, exact_cka(rows, biased), rtol=0, atol=1e-6)
