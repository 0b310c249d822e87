"""The pass on tiles gives what the pass on whole canvases gives, gradients included."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from elsewhere.models import InputTransform, load_model
from elsewhere.stimuli import Canvas, load_objects
from elsewhere.training.pasting import Paster
from elsewhere.training.windows import WindowedForward, best_depth, find_blocks, make_forward

CPU = torch.device("cpu")
NETWORKS = {
    "small-cnn": {"channels": "3-4-5", "hidden": 6},
    "vgg11-slim": {"width": 0.05, "hidden": 6},
    "vgg16-slim": {"width": 0.05, "hidden": 6},
}


def make_network(name, canvas, **arguments):
    arguments = {**NETWORKS[name], "num_classes": 4, "dropout": 0.0, "canvas": canvas} | arguments
    network = load_model(name, model_args=arguments).module
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 1:  # biases make the empty canvas visible
                parameter.normal_(0, 0.3, generator=generator)
    return network


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(list(NETWORKS)),
    size=st.sampled_from([32, 48, 64]),
    side=st.integers(3, 14),
    background=st.sampled_from([0, 80, (10, 200, 90)]),
    seed=st.integers(0, 99),
    data=st.data(),
)
def test_tiles_equal_the_whole(name, size, side, background, seed, data):
    network = make_network(name, size)
    blocks = find_blocks(network)
    canvas = Canvas(size, side, background)
    depth = data.draw(st.integers(1, min(3, len(blocks))))
    paster = Paster(canvas, InputTransform(gain=3.0), rows=9, device=CPU)
    patches = paster.load(load_objects("glyphs", size=side, categories=9, seed=seed))
    low, high = canvas.valid[0], canvas.valid[-1]
    generator = torch.Generator().manual_seed(seed)
    places = torch.randint(low, high + 1, (9, 2), generator=generator)
    places[:4] = torch.tensor([[low, low], [low, high], [high, low], [high, high]])
    whole = network(paster.paste(patches, places))
    expected = torch.autograd.grad(whole.pow(2).sum(), network.parameters())
    for grey in (False, True) if isinstance(background, int) else (False,):
        tiled = WindowedForward(network, canvas, paster.transform, grey=grey, depth=depth)
        if tiled.window > size >> depth:
            return
        logits = tiled(patches, places)
        assert torch.allclose(
            logits, whole, rtol=1e-4, atol=1e-4 * float(whole.detach().abs().max())
        )
        gradients = torch.autograd.grad(logits.pow(2).sum(), network.parameters())
        for mine, theirs in zip(gradients, expected, strict=True):
            assert (mine - theirs).abs().max() <= 1e-3 * theirs.abs().max() + 1e-5


def test_only_networks_that_begin_like_vgg_are_tiled():
    assert len(find_blocks(make_network("small-cnn", 48))) == 3
    assert find_blocks(make_network("small-cnn", 48, batch_norm=True)) == ()
    assert find_blocks(load_model("alexnet").module) == ()
    assert find_blocks(load_model("resnet18").module) == ()
    blocks = find_blocks(make_network("small-cnn", 48))
    assert best_depth(blocks, Canvas(48, 11)) == 2
    assert best_depth(blocks, Canvas(48, 44)) == 0  # the object fills the canvas
    assert best_depth(blocks, Canvas(47, 11)) == 0  # the last row and column are dropped


@pytest.mark.parametrize(("size", "tiled"), [(48, True), (47, False)])
def test_the_choice_keeps_the_answer(size, tiled):
    network = make_network("small-cnn", 48)
    canvas = Canvas(size, 11)
    paster = Paster(canvas, InputTransform(), rows=5, device=CPU)
    patches = paster.load(load_objects("glyphs", size=11, categories=3))
    forward = make_forward(network, paster, patches)
    assert isinstance(forward, WindowedForward) == tiled
    places = torch.tensor([[5, 5], [20, 30], [40, 6]])
    expected = network(paster.paste(patches, places))[:3]
    assert torch.allclose(forward(patches, places), expected, atol=1e-5)
