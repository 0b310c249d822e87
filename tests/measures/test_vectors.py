import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from elsewhere.measures.blocks import DenseBlock, spatial_mean
from elsewhere.measures.sketch import sketch
from elsewhere.measures.vectors import HELD, DenseVectors, dot_products, means, squared_norms

KINDS = pytest.mark.parametrize("kind", ["numpy", "torch"])


def as_kind(array, kind):
    array = np.asarray(array, np.float32)
    return torch.from_numpy(array.copy()) if kind == "torch" else array.copy()


@KINDS
@pytest.mark.parametrize("units", [1, 5, HELD - 1, HELD, 3 * HELD + 7])
def test_products_agree_with_double_precision(kind, units):
    rng = np.random.default_rng(units)
    a, b = rng.normal(size=(3, units)), rng.normal(size=(4, units))
    a, b = a.astype(np.float32), b.astype(np.float32)
    scale = np.sqrt(units)
    exact = a.astype(float) @ b.astype(float).T
    np.testing.assert_allclose(
        dot_products(as_kind(a, kind), as_kind(b, kind)), exact, atol=1e-5 * scale
    )
    np.testing.assert_allclose(
        squared_norms(as_kind(a, kind)), (a.astype(float) ** 2).sum(1), rtol=1e-6
    )
    np.testing.assert_allclose(means(as_kind(a, kind)), a.astype(float).mean(1), atol=1e-6)


class OneByOne(np.ndarray):
    """An array whose single-precision sums are taken one number after the other.

    No BLAS and no processor adds in a worse order, so that what is right for it is right for all.
    """

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **options):
        plain = [np.asarray(each) if isinstance(each, np.ndarray) else each for each in inputs]
        single = all(np.asarray(each).dtype == np.float32 for each in plain)
        wide = options.get("dtype") in (np.float64, float)
        if ufunc is np.matmul and single:
            a, b = np.atleast_2d(plain[0]), plain[1]
            found = self.add_up(a[:, k, None] * b[k] for k in range(len(b)))
            found = found.reshape(*plain[0].shape[:-1], -1)
        elif ufunc is np.add and method == "reduce" and single and not wide:
            axes = np.atleast_1d(options.get("axis", 0))
            found = self.add_up(
                np.moveaxis(plain[0], axes, range(len(axes))).reshape(
                    -1, *np.delete(plain[0].shape, axes)
                )
            )
        else:
            if out is not None:
                options["out"] = tuple(np.asarray(each) for each in out)
            found = getattr(ufunc, method)(*plain, **options)
        return found.view(OneByOne) if isinstance(found, np.ndarray) else found

    def __array_function__(self, function, types, args, kwargs):
        plain = [np.asarray(each) if isinstance(each, OneByOne) else each for each in args]
        if function is np.einsum and kwargs.get("dtype") is not np.float64:
            assert all(each.dtype == np.float64 for each in plain[1:]), "a sum in single precision"
        return function(*plain, **kwargs)

    @staticmethod
    def add_up(terms):
        total = np.float32(0)
        for term in terms:
            total = (total + term).astype(np.float32)
        return total


def rows_of(pattern, units, seed=0):
    """Return three rows that make sums hard in one way or another, float32."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((3, units), dtype=np.float32)
    if pattern == "constant":
        rows[:] = np.array([[0.1], [0.7], [-1.3]], np.float32)
    elif pattern == "sparse":
        rows = np.maximum(rows, 0) * (rng.random((3, units), dtype=np.float32) < 0.05)
        rows[1:] = np.float32(0.7) * rows[:1] + np.float32(0.3) * rows[1:]
    elif pattern == "offset":
        rows += np.array([[10], [1000], [-30]], np.float32)
    elif pattern == "one large":
        rows[:] = np.float32(2e-4)
        rows[:, 0] = 1
    elif pattern == "huge and tiny":
        rows *= np.float32(1e-3)
        rows[:, 0] = [3e4, -7e4, 3e4]
    elif pattern == "alternating":
        rows[:] = np.where(np.arange(units) % 2, np.float32(1), np.float32(-1))
        rows += np.array([[1000], [-30], [2e4]], np.float32)
    return rows


PATTERNS = pytest.mark.parametrize(
    "pattern",
    ["random", "constant", "sparse", "offset", "one large", "huge and tiny", "alternating"],
)


def compare_with_double(rows, given):
    """Compare sums, norms, products and cosines, before and after centring, with plain NumPy."""
    exact = rows.astype(np.float64)
    lengths = np.linalg.norm(exact, axis=1)
    within = 1e-6 * np.outer(lengths, lengths)
    assert (abs(dot_products(given, given) - exact @ exact.T) <= within).all()
    np.testing.assert_allclose(squared_norms(given), lengths**2, rtol=1e-6)
    mean = exact.mean(axis=1)
    assert (abs(means(given) - mean) <= 1e-6 * abs(exact).mean(axis=1)).all()
    apart = exact - mean[:, None]
    alive = np.linalg.norm(apart, axis=1) > 1e-5 * lengths
    centred = DenseVectors(given).centred()
    norms = centred.norms()
    assert (norms[~alive] <= 1e-6 * lengths[~alive]).all()
    found = centred.dots(centred)[np.ix_(alive, alive)] / np.outer(norms[alive], norms[alive])
    if alive.any():
        right = np.atleast_2d(np.corrcoef(apart[alive]))
        np.testing.assert_allclose(found, right, rtol=0, atol=1e-6)
    middle = exact.mean(axis=0)
    less = DenseVectors(given).minus(DenseVectors(middle[None]))
    rest = exact - middle
    kept = np.linalg.norm(rest, axis=1)
    assert (abs(less.dots(less) - rest @ rest.T) <= 1e-6 * np.outer(kept, kept)).all()


@PATTERNS
def test_sums_are_right_however_a_processor_adds(pattern):
    rows = rows_of(pattern, 20_000)
    worst = rows.view(OneByOne)
    compare_with_double(rows, worst)
    maps = rows[:, :19_600].reshape(3, 4, 70, 70)
    np.testing.assert_allclose(
        spatial_mean(maps.view(OneByOne)), maps.mean((2, 3), dtype=float), rtol=1e-6, atol=1e-6
    )
    short = sketch(worst, 50, seed=1)
    np.testing.assert_allclose(
        short, sketch(rows.astype(np.float64), 50, seed=1), rtol=0, atol=1e-6 * abs(rows).sum()
    )


def test_the_worst_order_is_bad_enough():
    """What the tests above would catch: single precision, one number after the other."""
    rows = rows_of("constant", 20_000)
    worst, exact = rows.view(OneByOne), rows.astype(np.float64)
    errors = np.asarray(worst @ worst.T) / (exact @ exact.T) - 1
    assert abs(errors).max() > 1e-5
    assert abs(np.asarray(worst.sum(axis=1)) / exact.sum(axis=1) - 1).max() > 1e-5


@KINDS
@PATTERNS
@pytest.mark.parametrize("units", [10, 1_000_000])
def test_sums_agree_with_double_precision(kind, pattern, units):
    rows = rows_of(pattern, units)
    compare_with_double(rows, as_kind(rows, kind))


@KINDS
@pytest.mark.parametrize("precision", ["float64", "float16", "bfloat16"])
@pytest.mark.parametrize("pattern", ["random", "constant", "sparse", "offset", "alternating"])
def test_sums_of_another_precision_are_as_exact(kind, precision, pattern):
    """What half precision holds is not rounded again: by a mean or a sum."""
    given = torch.from_numpy(rows_of(pattern, 50_000)).to(getattr(torch, precision))
    rows = given.double().numpy()
    if kind == "numpy":
        given = (given.float() if precision == "bfloat16" else given).numpy()
    compare_with_double(rows, given)


@pytest.mark.long
@KINDS
@PATTERNS
def test_sums_of_ten_million_agree_with_double_precision(kind, pattern):
    rows = rows_of(pattern, 10_000_000)
    compare_with_double(rows, as_kind(rows, kind))


@KINDS
def test_millions_of_units_lose_no_digits(kind):
    """A plain single-precision sum of as many equal numbers is off by more than 1e-5."""
    values = as_kind(np.full((1, 4_000_000), 0.1), kind)
    vectors = DenseVectors(values)
    exact = 4e6 * float(np.float32(0.1)) ** 2
    assert vectors.dots(vectors)[0, 0] == pytest.approx(exact, rel=1e-6)
    assert vectors.norms()[0] == pytest.approx(np.sqrt(exact), rel=1e-6)


@KINDS
@pytest.mark.parametrize("offset", [0.0, 1.0, 30.0, 1000.0])
def test_centred_rows_are_as_if_centred_in_double_precision(kind, offset):
    rng = np.random.default_rng(1)
    raw = (rng.normal(size=(4, 30_000)) + offset).astype(np.float32)
    exact = raw.astype(float) - raw.astype(float).mean(1, keepdims=True)
    rows = DenseVectors(as_kind(raw, kind)).centred()
    np.testing.assert_allclose(rows.norms(), np.sqrt((exact**2).sum(1)), rtol=2e-6)
    np.testing.assert_allclose(rows.dots(rows), exact @ exact.T, atol=0.1)
    held = rows.zeros(3)
    held.assign(1, rows.take([2]))
    np.testing.assert_allclose(held.dots(rows)[1], exact[2] @ exact.T, atol=0.1)
    assert (held.dots(rows)[0] == 0).all()


@KINDS
@pytest.mark.parametrize("offset", [0.0, 10.0, 1000.0])
def test_sparse_rows_are_centred_without_a_bias(kind, offset):
    """Equal small differences add up one-sidedly, large means drown what is left of them."""
    rng = np.random.default_rng(0)
    raw = np.maximum(rng.standard_normal((4, 200_000)), 0) * (rng.random((4, 200_000)) < 0.05)
    raw[1:] = 0.7 * raw[:1] + 0.3 * raw[1:]
    raw = (raw + offset).astype(np.float32)
    rows = DenseVectors(as_kind(raw, kind)).centred()
    norms = rows.norms()
    np.testing.assert_allclose(
        rows.dots(rows) / np.outer(norms, norms), np.corrcoef(raw.astype(float)), atol=1e-6
    )


@KINDS
@pytest.mark.parametrize("value", [0.1, 1.0, 7.3, 1e-3, -250.1])
def test_a_constant_row_has_no_length_once_centred(kind, value):
    rows = DenseVectors(as_kind(np.full((1, 10_007), value), kind))
    assert rows.centred().norms()[0] <= 1e-6 * rows.norms()[0]


@KINDS
def test_operations_on_rows(kind):
    values = np.arange(12.0).reshape(3, 4)
    rows = DenseVectors(as_kind(values, kind))
    assert len(rows) == 3
    np.testing.assert_array_equal(rows.minus(rows.take([1])).norms()[1], 0)
    np.testing.assert_allclose(rows.take([2, 0]).norms(), np.linalg.norm(values[[2, 0]], axis=1))
    held = rows.zeros(3)
    held.assign(1, rows.take([1, 2]))
    np.testing.assert_array_equal(np.asarray(held.values), [values[0] * 0, values[1], values[2]])


@settings(max_examples=30, deadline=None)
@given(
    arrays.arrays(
        np.float32,
        st.tuples(st.integers(1, 4), st.integers(1, 50)),
        elements=st.floats(-100, 100, width=32),
    )
)
def test_numpy_and_torch_agree(values):
    a, b = DenseVectors(values), DenseVectors(torch.from_numpy(values))
    np.testing.assert_allclose(a.norms(), b.norms(), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(a.dots(a), b.dots(b), rtol=1e-5, atol=1e-2)
    np.testing.assert_allclose(a.centred().norms(), b.centred().norms(), rtol=1e-4, atol=1e-3)


@KINDS
def test_reductions_of_a_block(kind):
    rng = np.random.default_rng(0)
    maps = rng.normal(size=(2, 3, 4, 5)).astype(np.float32)
    tokens = rng.normal(size=(2, 6, 7)).astype(np.float32)
    flat = rng.normal(size=(2, 8)).astype(np.float32)
    index = np.arange(2)

    def block(array):
        return DenseBlock("grid", "layer", index, index, as_kind(array, kind))

    np.testing.assert_allclose(np.asarray(block(maps).mean()), maps.mean((2, 3)), atol=1e-6)
    np.testing.assert_allclose(np.asarray(block(tokens).mean()), tokens.mean(1), atol=1e-6)
    np.testing.assert_array_equal(np.asarray(block(flat).mean()), flat)
    np.testing.assert_array_equal(np.asarray(block(maps).full()), maps)
    assert block(maps).sketch(9, 1).shape == (2, 9)
    np.testing.assert_allclose(
        block(maps).vectors().norms(), np.linalg.norm(maps.reshape(2, -1), axis=1), rtol=1e-6
    )


@pytest.mark.parametrize(
    ("kept", "wanted"), [("mean", "full"), ("sketch", "full"), ("sketch", "mean")]
)
def test_what_was_not_kept_is_refused_by_name(kept, wanted):
    index = np.arange(2)
    block = DenseBlock("grid", "fc6", index, index, np.ones((2, 3), np.float32), kept)
    with pytest.raises(ValueError, match=r"'fc6' was kept as .*--keep fc6=full"):
        getattr(block, wanted)()


def test_pearson_of_a_sketch_is_refused():
    index = np.arange(2)
    block = DenseBlock("grid", "fc6", index, index, np.ones((2, 3), np.float32), "sketch")
    with pytest.raises(ValueError, match=r"pearson.*sketch"):
        block.vectors().centred()
