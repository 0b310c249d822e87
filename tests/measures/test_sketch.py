import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from elsewhere.errors import InputError
from elsewhere.measures.sketch import cosine_error, sketch
from tests.counting import counting


def cosine(u, v):
    return float(u @ v / np.linalg.norm(u) / np.linalg.norm(v))


@pytest.mark.parametrize("size", [100, 400, 1_600])
def test_dot_products_are_unbiased_with_the_stated_error(size):
    rng = np.random.default_rng(3)
    a = np.abs(rng.normal(size=5_000))  # of one sign, as after a ReLU: signs have to be drawn
    b = 0.6 * a + 0.8 * np.abs(rng.normal(size=5_000))
    rows = np.stack([a, b]).astype(np.float32)
    errors, cosines = [], []
    for seed in range(300):
        short = sketch(rows, size, seed=seed).astype(float)
        errors.append((short[0] @ short[1] - a @ b) / np.linalg.norm(a) / np.linalg.norm(b))
        cosines.append(cosine(*short) - cosine(a, b))
    bound = np.sqrt((1 + cosine(a, b) ** 2) / size)
    assert abs(np.mean(errors)) < 4 * bound / np.sqrt(300)
    assert 0.8 * bound < np.std(errors) < 1.1 * bound  # of its own order, and not above it
    assert abs(np.mean(cosines)) < 4 * bound / np.sqrt(300)
    assert np.std(cosines) < cosine_error(size)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 200), st.data())
def test_it_is_linear_and_keeps_every_unit_once(units, data):
    size = data.draw(st.integers(1, units))
    seed = data.draw(st.integers(0, 2**32))
    single = sketch(np.eye(units, dtype=np.float32), size, seed=seed)
    assert (np.abs(single).sum(axis=1) == 1).all()  # one bucket each, with a sign
    counts = np.abs(single).sum(axis=0)
    assert counts.max() - counts.min() <= 1  # balanced
    rows = np.random.default_rng(seed).normal(size=(2, units)).astype(np.float32)
    np.testing.assert_allclose(sketch(rows, size, seed=seed), rows @ single, atol=1e-5)


def test_torch_and_numpy_give_the_same_and_the_seed_decides():
    rows = np.random.default_rng(0).normal(size=(3, 101)).astype(np.float32)
    a = sketch(rows, 10, seed=4)
    b = sketch(torch.from_numpy(rows), 10, seed=4)
    assert isinstance(b, torch.Tensor)
    np.testing.assert_allclose(a, b.numpy(), atol=1e-5)
    np.testing.assert_array_equal(a, sketch(rows, 10, seed=4))
    assert not np.allclose(a, sketch(rows, 10, seed=5))


def test_global_generators_are_left_alone():
    before = np.random.get_state()[1].copy(), torch.random.get_rng_state()  # noqa: NPY002
    sketch(np.ones((1, 57), np.float32), 10, seed=4)
    assert (before[0] == np.random.get_state()[1]).all()  # noqa: NPY002
    assert torch.equal(before[1], torch.random.get_rng_state())


@pytest.mark.parametrize("size", [0, 4, -1])
def test_a_size_that_does_not_fit_is_refused(size):
    with pytest.raises(InputError, match="layer of 3 units"):
        sketch(np.ones((1, 3), np.float32), size, seed=0)


def test_a_device_is_given_signs_and_buckets_once(on_device):
    values = torch.randn(5, 1003, generator=torch.Generator().manual_seed(0))
    expected = sketch(values.numpy(), 100, seed=1)
    found = sketch(values, 100, seed=1)
    with counting() as counted:
        again = sketch(values, 100, seed=1)
    assert counted.n_waits == counted.n_uploads == 0
    np.testing.assert_array_equal(found.numpy(), expected)
    np.testing.assert_array_equal(again.numpy(), expected)
