"""Methods against what they must give: closed forms, plain autograd, sums that are known."""

import logging
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from elsewhere.analyzer.attribution.copies import PlainNetwork
from elsewhere.analyzer.attribution.frames import Frame, upsample
from elsewhere.analyzer.attribution.methods import methods, read_options
from elsewhere.analyzer.attribution.rules import shared_out
from elsewhere.analyzer.attribution.targets import LinearTarget
from elsewhere.errors import InputError, LayerError, UnknownNameError
from elsewhere.models import Layer, load_model

QUICK = {"integrated-gradients": {"n_steps": 4, "tolerance": 1e9}, "deep-lift": {"tolerance": 1e9}}
QUICK |= {"gradient-shap": {"n_samples": 3}, "occlusion": {"window": 4, "stride": 4}}
QUICK |= {"feature-ablation": {"cell": 4}}


def layer_for(method, name):
    return name if methods.get(method).needs_layer else None


def summed(maps):
    return maps.detach().sum(1).numpy()


# --- a linear network ------------------------------------------------------------------------


def by_cells(part, corner, cell):
    """Return each pixel's sum over its cell, cells counted from `corner`."""
    rows, columns = ((np.arange(24) - start) // cell for start in corner)
    found = np.zeros_like(part)
    for row in np.unique(rows):
        for column in np.unique(columns):
            area = np.ix_(rows == row, columns == column)
            found[area] = part[area].sum()
    return found


def by_windows(part, corner, window, stride, reach):
    """Return the mean over the windows that cover a pixel of the sum within them."""
    starts = [list(range(start - reach, start + 8 + reach, stride)) for start in corner]
    last = [start + 8 + reach for start in corner]
    total, seen = np.zeros_like(part), np.zeros_like(part)
    for y in starts[0]:
        for x in starts[1]:
            # the last windows end where the region does
            if y - stride + window >= last[0] or x - stride + window >= last[1]:
                continue
            area = np.s_[max(y, 0) : max(min(y + window, last[0]), 0),
                         max(x, 0) : max(min(x + window, last[1]), 0)]  # fmt: skip
            total[area] += part[area].sum()
            seen[area] += 1
    return total / np.maximum(seen, 1)


@pytest.mark.parametrize("baseline", ["empty", "black", "blurred"])
def test_every_method_is_exact_on_a_linear_network(
    every_method, baseline, linear, make_explainer, make_batch, gradient
):
    made = make_batch(linear, baseline=baseline)
    batch = made.batch
    options = {"gradient-shap": {"n_samples": 3}, "feature-ablation": {"cell": 3}}
    options |= {"occlusion": {"window": 3, "stride": 2}, "lrp": {"epsilon": 1e-12}}
    explainer = make_explainer(
        linear, every_method, layer=layer_for(every_method, "conv"), **options.get(every_method, {})
    )
    maps = summed(explainer.maps(batch))
    weights = gradient(linear, batch.images)
    parts = summed(weights * (batch.images - batch.baselines))
    if every_method == "grad-cam":
        head = linear.module.head.weight[2].reshape(4, 24, 24)
        activations = linear.module.conv(batch.images)
        expected = (head.mean((1, 2))[:, None, None] * activations).sum(1).detach().numpy()
    elif every_method == "saliency":
        expected = summed(weights.abs())
    elif every_method == "guided-backprop":
        expected = summed(weights)
    elif every_method in ("input-x-gradient", "lrp"):
        expected = summed(weights * batch.images)
    elif every_method == "feature-ablation":
        expected = np.stack(
            [by_cells(part, corner, 3) for part, corner in zip(parts, batch.corners, strict=True)]
        )
    elif every_method == "occlusion":
        if baseline != "empty":
            pytest.skip("windows over the whole canvas: see the test below")
        expected = np.stack(
            [
                by_windows(part, corner, 3, 2, 4)
                for part, corner in zip(parts, batch.corners, strict=True)
            ]
        )
    else:
        expected = parts
    assert np.abs(maps).max() > 0.01
    np.testing.assert_allclose(maps, expected, atol=3e-4 * np.abs(expected).max())


def test_occlusion_over_the_whole_canvas_covers_every_pixel(linear, make_explainer, make_batch):
    """With windows side by side each pixel's value is its window's sum, wherever the object is."""
    made = make_batch(linear, baseline="blurred")
    maps = make_explainer(linear, "occlusion", window=4, stride=4).maps(made.batch)
    weights = linear.module.head.weight[2].reshape(1, 4, 24, 24)
    weights = functional.conv_transpose2d(weights, linear.module.conv.weight, padding=1)
    parts = summed(weights * (made.batch.images - made.batch.baselines)).astype(np.float64)
    for found, part, corner in zip(summed(maps), parts, made.batch.corners, strict=True):
        expected = by_cells(part, corner, 4)
        np.testing.assert_allclose(found, expected, atol=3e-4 * np.abs(expected).max())


# --- a network that bends --------------------------------------------------------------------


def test_gradients_are_those_of_autograd(awkward, make_explainer, make_batch, gradient):
    batch = make_batch(awkward).batch
    expected = gradient(awkward, batch.images)
    found = make_explainer(awkward, "saliency", abs=False).maps(batch)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    found = make_explainer(awkward, "input-x-gradient").maps(batch)
    torch.testing.assert_close(found, expected * batch.images, rtol=1e-4, atol=1e-6)


def test_guided_backprop_cuts_at_every_relu(awkward, make_explainer, make_batch):
    class Guided(torch.autograd.Function):
        @staticmethod
        def forward(context, values):
            context.save_for_backward(values)
            return values.clamp(min=0)

        @staticmethod
        def backward(context, upstream):
            (values,) = context.saved_tensors
            return upstream.clamp(min=0) * (values > 0)

    net, batch = awkward.module, make_batch(awkward).batch
    images = batch.images.clone().requires_grad_(True)
    values = net.pool(Guided.apply(net.first(images)))
    after = Guided.apply(net.second(values) + values)
    after = Guided.apply(net.second(after) + after)
    expected = torch.autograd.grad(net.head(after.mean((2, 3)))[:, 2].sum(), images)[0]
    found = make_explainer(awkward, "guided-backprop").maps(batch)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_relevance_without_biases_is_input_times_gradient(
    residual, make_explainer, make_batch, gradient
):
    """Ancona et al. (2018), proposition 1: the epsilon rule on ReLU networks without biases."""
    batch = make_batch(residual).batch
    expected = gradient(residual, batch.images) * batch.images
    found = make_explainer(residual, "lrp", epsilon=1e-10).maps(batch)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("method", ["integrated-gradients", "deep-lift"])
@pytest.mark.parametrize("baseline", ["empty", "black", "blurred"])
def test_maps_sum_to_the_change_of_the_score(method, baseline, awkward, make_explainer, make_batch):
    batch = make_batch(awkward, baseline=baseline).batch
    options = {"n_steps": 150} if method == "integrated-gradients" else {}
    explainer = make_explainer(awkward, method, **options)
    found = explainer.explain(batch)
    with torch.no_grad():
        change = awkward.module(batch.images)[:, 2] - awkward.module(batch.baselines)[:, 2]
    limit = 2e-2 if method == "integrated-gradients" else 1e-3
    np.testing.assert_allclose(summed(found.maps).sum((1, 2)), change, atol=limit)
    error, share = explainer.completeness(found)
    np.testing.assert_allclose(error, summed(found.maps).sum((1, 2)) - change.numpy(), atol=1e-4)
    assert (share < limit).all()


def test_rescaling_goes_through_layers_that_follow_each_other_directly(
    disturb, make_explainer, make_batch
):
    """ReLU, then pooling, again and again: hooks on a shared tensor would miss each other."""
    arguments = {"channels": "4-6-8", "canvas": 24, "hidden": 12}
    network = load_model("small-cnn", model_args=arguments)
    disturb(network.module)
    batch = make_batch(network).batch
    explainer = make_explainer(network, "deep-lift")
    found = explainer.explain(batch)
    error, _ = explainer.completeness(found)
    np.testing.assert_allclose(error, 0, atol=1e-5 * float(found.maps.abs().sum((1, 2, 3)).max()))


def test_steps_are_raised_where_a_map_does_not_sum(awkward, make_explainer, make_batch):
    batch = make_batch(awkward, baseline="black").batch
    given = {"method": "riemann_left", "tolerance": 0.01}
    explainer = make_explainer(awkward, "integrated-gradients", n_steps=2, **given)
    found = explainer.explain(batch)
    assert (explainer.completeness(found)[1] <= 0.01).all()
    assert found.steps.max() > 2
    for row, count in enumerate(found.steps.tolist()):
        once = make_explainer(awkward, "integrated-gradients", n_steps=count, **given)
        expected = once.maps(batch)[row]
        torch.testing.assert_close(found.maps[row], expected, rtol=1e-4, atol=1e-6)
        if count > 2:  # half as many did not suffice
            fewer = make_explainer(
                awkward, "integrated-gradients", n_steps=count // 2, most_steps=2, **given
            )
            assert fewer.completeness(fewer.explain(batch))[1][row] > 0.01


def test_what_still_does_not_sum_at_the_bound_is_returned(awkward, make_explainer, make_batch):
    batch = make_batch(awkward, baseline="black").batch
    explainer = make_explainer(
        awkward, "integrated-gradients", n_steps=2, most_steps=3, method="riemann_left",
        tolerance=1e-5,
    )  # fmt: skip
    found = explainer.explain(batch)
    assert set(found.steps.tolist()) == {3}
    assert (explainer.completeness(found)[1] > 1e-5).any()


# --- the copy --------------------------------------------------------------------------------


def test_the_copy_does_what_the_network_does(awkward, residual, make_batch, hooks_of):
    for network in (awkward, residual):
        images = make_batch(network).batch.images
        before = {key: value.clone() for key, value in network.module.state_dict().items()}
        copy = PlainNetwork(network)
        with torch.no_grad():
            assert torch.equal(copy(images), network.module(images))
            assert torch.equal(copy(images), network.module(images)), "the second pass differs"
        assert hooks_of(network.module) == 0
        after = network.module.state_dict()
        assert all(torch.equal(before[key], after[key]) for key in before)
        assert network.module.relu.inplace, "the network itself was changed"
        assert not any(getattr(part, "inplace", False) for part in copy.modules())


@given(
    st.integers(5, 14), st.integers(5, 14), st.integers(1, 4), st.integers(1, 4),
    st.integers(0, 2), st.integers(1, 2), st.booleans(), st.integers(0, 2**31),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_a_maximums_change_is_shared_out(height, width, kernel, stride, pad, dilation, ceil, seed):
    """Whether windows overlap or not: multipliers times differences sum to the output's change."""
    pool = nn.MaxPool2d(kernel, stride, min(pad, kernel // 2), dilation, ceil_mode=ceil)
    if dilation * (kernel - 1) + 1 > min(height, width):
        return
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(2, 3, height, width, generator=generator, dtype=torch.float64)
    found = pool(values)
    weights = torch.randn(found[:1].shape, generator=generator, dtype=torch.float64)
    slopes = shared_out(pool, values, found, torch.cat([weights, weights * 0]), eps=1e-12)[:1]
    expected = (weights * (found[:1] - found[1:])).sum()
    torch.testing.assert_close((slopes * (values[:1] - values[1:])).sum(), expected)


def test_hooks_are_gone_also_after_an_error(
    every_method, awkward, make_explainer, make_batch, hooks_of, monkeypatch
):
    layer = layer_for(every_method, "second:1")
    explainer = make_explainer(awkward, every_method, layer=layer, **QUICK.get(every_method, {}))
    batch = make_batch(awkward).batch
    count = hooks_of(explainer.network)
    explainer.maps(batch)
    assert hooks_of(awkward.module) == 0
    assert hooks_of(explainer.network) == count
    head = explainer.network.network.head
    monkeypatch.setattr(head, "forward", lambda values: (_ for _ in ()).throw(ZeroDivisionError))
    explainer._followed.clear()  # what was followed before goes on without the modules
    replaces = methods.get(every_method).rules is not None
    with pytest.raises(InputError if replaces else ZeroDivisionError):
        explainer.maps(batch)
    assert hooks_of(awkward.module) == 0
    assert hooks_of(explainer.network) == count


def test_inference_tensors_are_refused_and_frozen_ones_are_not(
    linear, wrap, make_explainer, make_batch
):
    with torch.inference_mode():
        tainted = wrap(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.LazyLinear(5)))
        tainted.module(torch.zeros(1, 3, 24, 24))
    with pytest.raises(InputError, match="inference_mode"):
        make_explainer(tainted, "saliency")
    for parameter in linear.module.parameters():
        parameter.requires_grad_(False)
    try:
        maps = make_explainer(linear, "saliency").maps(make_batch(linear).batch)
        assert float(maps.abs().max()) > 0
        assert not any(parameter.requires_grad for parameter in linear.module.parameters())
    finally:
        for parameter in linear.module.parameters():
            parameter.requires_grad_(True)


# --- batches, memory, random numbers ---------------------------------------------------------


def test_maps_do_not_depend_on_the_batch(every_method, residual, make_explainer, make_batch):
    places = [(4 + k, 4 + k) for k in range(10)]
    batch = make_batch(residual, places).batch
    layer = layer_for(every_method, "second")
    explainer = make_explainer(residual, every_method, layer=layer, **QUICK.get(every_method, {}))
    whole = explainer.maps(batch)
    assert torch.equal(explainer.maps(batch), whole), "the same images in the same passes"
    # In another place of a pass, or in a pass of other size, an image's last bits may differ.
    near = {"rtol": 1e-3, "atol": 1e-4 * float(whole.abs().max())}
    parts = [explainer.maps(batch.take(slice(*cut))) for cut in ((0, 1), (1, 4), (4, 10))]
    torch.testing.assert_close(torch.cat(parts), whole, **near)
    explainer.rows = 3
    torch.testing.assert_close(explainer.maps(batch), whole, **near)


def test_random_methods_depend_on_the_seed_alone(residual, make_explainer, make_batch):
    batch = make_batch(residual).batch
    explainer = make_explainer(residual, "gradient-shap", n_samples=3, stdevs=0.5)
    np.random.seed(5)  # noqa: NPY002
    states = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first = explainer.maps(batch)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])  # noqa: NPY002
    torch.rand(7), np.random.rand(3)  # noqa: NPY002
    assert torch.equal(explainer.maps(batch), first)
    explainer.seed = 1
    assert not torch.equal(explainer.maps(batch), first)


@pytest.mark.parametrize("method", ["integrated-gradients", "occlusion", "gradient-shap"])
def test_batches_halve_until_they_fit(method, residual, make_explainer, make_batch, caplog):
    places = [(4 + k, 4 + k) for k in range(8)]
    batch = make_batch(residual, places).batch
    options = {"gradient-shap": {"n_samples": 2}}.get(method, {})
    explainer = make_explainer(residual, method, **options)
    expected = explainer.explain(batch)
    sizes = []

    def cramped(_, given):
        if len(given[0]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        sizes.append(len(given[0]))

    explainer.network.register_forward_pre_hook(cramped)
    with caplog.at_level(logging.WARNING):
        found = explainer.explain(batch)
    assert explainer.rows == 2
    assert max(sizes) == 2
    assert "going on with 2 images at a time" in caplog.text
    largest = float(expected.maps.abs().max())
    torch.testing.assert_close(found.maps, expected.maps, rtol=1e-3, atol=1e-4 * largest)
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-5)


def test_what_never_fits_is_refused(residual, make_explainer, make_batch):
    explainer = make_explainer(residual, "saliency")

    def full(*_):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate")

    explainer.network.register_forward_pre_hook(full)
    with pytest.raises(InputError, match="does not fit the memory for a single image"):
        explainer.maps(make_batch(residual).batch)


def test_memory_bounds_the_rows(residual):
    from elsewhere.analyzer.attribution.explain import Explainer
    from elsewhere.analyzer.attribution.targets import ClassTarget

    rows = [
        Explainer(
            residual,
            canvas_size=24,
            object_size=8,
            method="saliency",
            target=ClassTarget("logit", "0"),
            max_memory=limit,
        ).rows
        for limit in (1, 2**18, 2**30)
    ]
    assert rows[0] == 1
    assert 1 <= rows[1] < 8
    assert rows[2] == 8


# --- targets ---------------------------------------------------------------------------------


def test_probability_is_the_softmax(awkward, make_explainer, make_batch, gradient):
    batch = make_batch(awkward).batch

    def score(images):
        return torch.softmax(awkward.module(images), 1)[:, 2]

    found = make_explainer(awkward, "saliency", "probability:2", abs=False).maps(batch)
    torch.testing.assert_close(
        found, gradient(awkward, batch.images, score=score), rtol=1e-3, atol=1e-7
    )


@pytest.mark.parametrize("layer", ["first", "relu:0", "relu:1", "second:1", "pool", "head"])
def test_similarity_is_the_cosine_with_the_reference(
    layer, awkward, make_explainer, make_batch, gradient
):
    from dataclasses import replace

    from elsewhere.recording import Recorder

    batch = make_batch(awkward).batch
    explainer = make_explainer(awkward, "saliency", f"similarity:{layer}", abs=False)
    reference = explainer.parts(batch.images[:1])
    with Recorder(awkward.module, [layer]) as recorder:
        awkward.module(batch.images[:1])
        expected = recorder[layer].flatten(1).clone()
    torch.testing.assert_close(reference, expected, rtol=1e-3, atol=1e-4)
    batch = replace(batch, references=reference.expand(3, -1), classes=[0, 0, 0])
    scores = explainer.scores(batch)
    np.testing.assert_allclose(scores[0], 1.0, atol=1e-5)
    assert (scores[1:] < 1 - 2e-5).all()
    maps = explainer.maps(batch)
    size = maps.abs().sum((1, 2, 3))
    assert float(size[0]) < 1e-3 * float(size[1]), "at the reference the cosine is at its maximum"

    def score(images):
        name, _, call = layer.partition(":")
        seen = []
        part = awkward.module.get_submodule(name)
        handle = part.register_forward_hook(lambda _, __, output: seen.append(output.clone()))
        awkward.module(images)
        handle.remove()
        values = seen[int(call or 0)].flatten(1)
        return (values @ reference[0]) / values.norm(dim=1) / reference[0].norm()

    plain = gradient(awkward, batch.images, score=score)
    torch.testing.assert_close(
        maps[1:], plain[1:], rtol=1e-3, atol=1e-4 * float(plain[1:].abs().max())
    )


def test_a_readout_is_attributed_like_a_head(awkward, make_explainer, make_batch):
    """The readout of the layer before the head, with the head's own weights."""
    batch = make_batch(awkward).batch
    head = awkward.module.head
    pooled = "relu:1"  # the last module with a name before functions take over
    expected = make_explainer(awkward, "integrated-gradients").maps(batch)
    units = 6 * 12 * 12
    rng = np.random.default_rng(0)
    coef, intercept = rng.normal(size=(3, units)), rng.normal(size=3)
    target = LinearTarget(pooled, coef, intercept, ("a", "b", "c"), "b")
    explainer = make_explainer(awkward, "saliency", target, abs=False)
    columns = explainer.look(batch.images).columns
    from elsewhere.recording import Recorder

    with Recorder(awkward.module, [pooled]) as recorder:
        awkward.module(batch.images)
        values = recorder[pooled].flatten(1).double().numpy()
    np.testing.assert_allclose(columns.numpy(), values @ coef.T + intercept, rtol=1e-4, atol=1e-3)
    assert expected.shape == explainer.maps(batch).shape
    assert head.weight.grad is None


def test_a_readout_of_two_classes_has_two_sides():
    target = LinearTarget("fc", np.array([1.0, 2.0]), 0.5, ("no", "yes"))
    np.testing.assert_array_equal(target.coef, [[-1, -2], [1, 2]])
    np.testing.assert_array_equal(target.intercept, [-0.5, 0.5])


def test_a_network_without_a_head_has_similarity(wrap, disturb, make_explainer, make_batch):
    network = wrap(disturb(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True))))
    with pytest.raises(InputError, match="similarity:LAYER"):
        make_explainer(network, "saliency").look(make_batch(network).batch.images)
    explainer = make_explainer(network, "saliency", "similarity:0")
    assert explainer.parts(make_batch(network).batch.images).shape == (3, 4 * 22 * 22)


# --- bad input -------------------------------------------------------------------------------

REFUSED = {
    "no layer": ("grad-cam", {}, InputError, "needs a layer and none was given.*conv"),
    "a layer that is no map": ("grad-cam", {"layer": "head"}, InputError, "a Linear that gives 5"),
    "an unknown layer": ("grad-cam", {"layer": "conv9"}, UnknownNameError, "conv9"),
    "a layer for pixels": ("saliency", {"layer": "conv"}, InputError, "takes no layer"),
    "an unknown option": ("occlusion", {"windows": 3}, UnknownNameError, "known: window, stride"),
    "an option of a method without": ("guided-backprop", {"abs": 1}, UnknownNameError, "none"),
    "an option out of range": ("integrated-gradients", {"n_steps": 1}, InputError, "from 2"),
    "an option of another type": ("saliency", {"abs": "maybe"}, InputError, "true or false"),
    "an unknown rule": ("integrated-gradients", {"method": "simpson"}, InputError, "one of gauss"),
    "an unknown method": ("gradients", {}, UnknownNameError, "integrated-gradients"),
    "relevance of a similarity": (
        "lrp", {"target": "similarity:conv"}, InputError, "no rule for the target similarity:conv",
    ),
    "rescaling of a probability": (
        "deep-lift", {"target": "probability:1"}, InputError, "take a logit",
    ),
    "no target": ("saliency", {"target": "logits"}, InputError, "similarity:LAYER"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused_in_one_line(case, linear, make_explainer):
    method, arguments, error, says = REFUSED[case]
    with pytest.raises(error, match=says) as caught:
        make_explainer(linear, method, **arguments)
    assert "\n" not in str(caught.value)


def test_a_stride_above_the_window_is_refused(linear, make_explainer, make_batch):
    explainer = make_explainer(linear, "occlusion", window=2, stride=3)
    with pytest.raises(InputError, match="leaves pixels out"):
        explainer.maps(make_batch(linear).batch)


def test_a_layer_behind_the_target_is_refused(awkward, make_explainer, make_batch):
    from dataclasses import replace

    explainer = make_explainer(awkward, "grad-cam", "similarity:first", layer="second:1")
    batch = make_batch(awkward).batch
    reference = explainer.parts(batch.images[:1]).expand(3, -1)
    with pytest.raises(LayerError, match="does not depend on the layer 'second:1'"):
        explainer.maps(replace(batch, references=reference, classes=[0, 0, 0]))


def test_what_has_no_rule_is_named(wrap, disturb, make_explainer):
    bent = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU(), nn.Flatten(), nn.Linear(4 * 22 * 22, 3))
    with pytest.raises(InputError, match="no rule for '1', a GELU"):
        make_explainer(wrap(disturb(bent)), "lrp")


def test_rescaling_past_what_it_has_no_rule_for_shows_in_the_sum(
    wrap, disturb, make_explainer, make_batch
):
    class Square(nn.Module):
        def forward(self, values):
            return values * values

    bent = nn.Sequential(nn.Conv2d(3, 4, 3), Square(), nn.Flatten(), nn.Linear(4 * 22 * 22, 3))
    network = wrap(disturb(bent))
    with pytest.raises(InputError, match="take integrated-gradients"):
        make_explainer(network, "deep-lift").explain(make_batch(network, baseline="black").batch)


def test_options_come_with_defaults_from_the_object():
    assert read_options("occlusion", (), object_size=50) == {"window": 10, "stride": 5}
    assert read_options("feature-ablation", (), object_size=4) == {"cell": 1}
    with pytest.raises(InputError, match="name=value"):
        read_options("occlusion", ["window"], object_size=50)


# --- frames ----------------------------------------------------------------------------------


def test_up_sampling_is_captums_where_cells_tile_the_canvas():
    maps = torch.randn(2, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    layer = Layer("conv", "conv", "Conv2d", (1, 6, 6), stride=4, offset=1.5)
    expected = functional.interpolate(maps, (24, 24), mode="bilinear", align_corners=False)
    torch.testing.assert_close(upsample(maps, layer, 24), expected)


def test_up_sampling_puts_cells_where_their_fields_are():
    """Stride 3, first centre at pixel 4: what a tiling would put elsewhere."""
    maps = torch.zeros(1, 1, 5, 5)
    maps[0, 0, 2, 3] = 1.0
    layer = Layer("conv", "conv", "Conv2d", (1, 5, 5), stride=3, offset=4.0)
    found = upsample(maps, layer, 24)[0, 0]
    assert math.isclose(float(found[10, 13]), 1.0)
    assert float(found[11, 13]) == pytest.approx(2 / 3)


def test_frames_are_empty_off_the_canvas():
    maps = np.arange(36, dtype=np.float32).reshape(1, 6, 6)
    cut = Frame(2, 1).cut(maps, [(0, 4)])[0]
    assert np.isnan(cut[0]).all()
    assert np.isnan(cut[:, -1]).all()
    np.testing.assert_array_equal(cut[1:, :3], maps[0, :3, 3:])


# --- real networks ---------------------------------------------------------------------------

REAL = ["resnet18", "alexnet", "vgg16-slim", pytest.param("vgg16", marks=pytest.mark.long)]
CHEAP = QUICK | {
    "occlusion": {"window": 16, "stride": 16},
    "feature-ablation": {"cell": 16},
    "gradient-shap": {"n_samples": 2},
    "deep-lift": {},
}
CAM = {"resnet18": "layer4", "alexnet": "conv5"}


@pytest.fixture(scope="module", params=REAL)
def real(request, disturb):
    loaded = load_model(request.param)
    disturb(loaded.module)
    return loaded


def test_every_method_runs_on_real_networks(every_method, real, make_explainer, make_objects):
    from elsewhere.analyzer.attribution.batches import Batch
    from elsewhere.analyzer.attribution.frames import Scenes
    from elsewhere.stimuli import Canvas

    canvas = Canvas(64, 16)
    layer = CAM.get(real.name, "conv5_3")
    explainer = make_explainer(
        real, every_method, "logit:7", canvas=canvas, layer=layer_for(every_method, layer),
        **CHEAP.get(every_method, {}),
    )  # fmt: skip
    scenes = Scenes(real, make_objects(1, size=16), canvas)
    corners = scenes.corners([(20, 30)])
    images = scenes.images(0, corners)
    batch = Batch(images, scenes.empty, corners, [7], None, [(0, 0)], plain=True)
    found = explainer.explain(batch)
    assert found.maps.shape in ((1, 3, 64, 64), (1, 1, 64, 64))
    with torch.no_grad():
        expected = float(real.module(images)[0, 7])
    np.testing.assert_allclose(found.scores, expected, rtol=1e-3, atol=1e-5)
    assert float(found.maps.abs().max()) > 0
