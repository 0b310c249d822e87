import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from elsewhere.errors import InputError
from elsewhere.models import IMAGENET, InputTransform, find_device


def draw(rows, height, width, seed=0):
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.integers(0, 256, (rows, height, width, 3), dtype=np.uint8))


numbers = st.floats(-3, 3, allow_nan=False).map(lambda value: round(value, 3))


@settings(max_examples=25, deadline=None)
@given(
    mean=st.tuples(numbers, numbers, numbers),
    std=st.tuples(*[st.floats(0.05, 4)] * 3),
    gain=st.floats(0.1, 300),
    shape=st.tuples(*[st.integers(1, 9)] * 3),
)
def test_formula_and_rows_do_not_depend_on_the_batch(mean, std, gain, shape):
    transform = InputTransform(mean=mean, std=std, gain=gain)
    pixels = draw(*shape)
    before = pixels.clone()
    values = transform.apply(pixels)
    assert values.dtype == torch.float32
    assert values.is_contiguous()
    expected = (pixels.numpy().astype(float) / 255 - mean) / std * gain
    scale = gain / min(std) * 4
    np.testing.assert_allclose(
        values.numpy(), expected.transpose(0, 3, 1, 2), rtol=1e-6, atol=1e-6 * scale
    )
    for row in range(len(pixels)):
        assert torch.equal(transform.apply(pixels[row : row + 1])[0], values[row])
    assert torch.equal(pixels, before)


def test_equals_torchvision_bit_for_bit():
    from torchvision.transforms.functional import normalize

    pixels = draw(2, 5, 7)
    scaled = pixels.permute(0, 3, 1, 2).to(torch.float32).div(255)
    expected = normalize(scaled, IMAGENET.mean, IMAGENET.std)
    assert torch.equal(IMAGENET.apply(pixels), expected)
    assert torch.equal(InputTransform().apply(pixels), scaled)


@pytest.mark.parametrize(
    "pixels",
    [
        torch.zeros(1, 2, 2, 3),
        torch.zeros(2, 2, 3, dtype=torch.uint8),
        torch.zeros(1, 3, 2, 2, dtype=torch.uint8),
    ],
)
def test_apply_refuses(pixels):
    with pytest.raises(InputError, match="uint8 of shape"):
        InputTransform().apply(pixels)


@pytest.mark.parametrize(
    "arguments",
    [
        {"std": (1, 0, 1)},
        {"std": (1, 1)},
        {"mean": (0, 0, float("nan"))},
        {"mean": 3},
        {"mean": "abc"},
        {"gain": 0},
        {"gain": float("inf")},
    ],
)
def test_transform_refuses(arguments):
    with pytest.raises(InputError):
        InputTransform(**arguments)


def test_lists_and_integers_make_equal_transforms():
    assert InputTransform(mean=[0, 0, 0], std=[1, 1, 1], gain=1) == InputTransform()
    assert hash(InputTransform(mean=[0, 0, 0])) == hash(InputTransform())


def test_find_device(monkeypatch):
    assert find_device("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert find_device() == torch.device("cuda")
    assert find_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(InputError, match="2 CUDA device"):
        find_device("cuda:2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert find_device("auto") == torch.device("cpu")
    for name in ("cuda", "gpu", "meta", "cpu:3", ""):
        with pytest.raises(InputError):
            find_device(name)
