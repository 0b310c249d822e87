import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from elsewhere.measures.blocks import DenseBlock
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
    total = rows.zeros(1)
    total.accumulate(rows, np.array([1.0, 0.5, 0.0, 2.0]))
    weighted = np.array([1.0, 0.5, 0.0, 2.0]) @ exact
    assert total.norms()[0] == pytest.approx(np.linalg.norm(weighted), rel=1e-5)
    total.clear()
    assert total.norms()[0] == 0


@KINDS
@pytest.mark.parametrize(("offset", "tolerance"), [(0.0, 1e-6), (10.0, 1e-5)])
def test_sparse_rows_are_centred_without_a_bias(kind, offset, tolerance):
    """Equal small differences add up one-sidedly, large means drown what is left of them."""
    rng = np.random.default_rng(0)
    raw = np.maximum(rng.standard_normal((4, 200_000)), 0) * (rng.random((4, 200_000)) < 0.05)
    raw[1:] = 0.7 * raw[:1] + 0.3 * raw[1:]
    raw = (raw + offset).astype(np.float32)
    rows = DenseVectors(as_kind(raw, kind)).centred()
    norms = rows.norms()
    np.testing.assert_allclose(
        rows.dots(rows) / np.outer(norms, norms), np.corrcoef(raw.astype(float)), atol=tolerance
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
    total = rows.zeros(1, exact=True)
    total.accumulate(rows, np.array([1.0, 2.0, 3.0]))
    np.testing.assert_allclose(np.asarray(total.values)[0], [1, 2, 3] @ values)
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
