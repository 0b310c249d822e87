"""Methods that replace derivatives: every operation has its rule, or the method is refused."""

import warnings

import numpy as np
import pytest
import torch
from captum.attr import LRP, DeepLift
from captum.attr._utils.lrp_rules import EpsilonRule
from torch import nn
from torch.nn import functional

from elsewhere.analyzer.attribution import AttributionSettings, attribute, maps_of
from elsewhere.errors import InputError
from elsewhere.models import load_model
from elsewhere.stimuli import Canvas


class Applied(nn.Module):
    """A convolution, any function, a mean and a matrix that is no module's."""

    def __init__(self, function):
        super().__init__()
        self.conv, self.function = nn.Conv2d(3, 6, 3, padding=1), function
        self.square, self.head = (nn.Parameter(torch.randn(n, 6)) for n in (6, 5))

    def forward(self, values):
        values = self.function(self.conv(values), self.square)
        return functional.linear(values.mean((2, 3)), self.head)


class Inside(nn.Conv2d):
    """A convolution that rectifies by itself, in place."""

    def forward(self, values):
        return functional.relu(super().forward(values), inplace=True)


def into(values, square):
    found = torch.zeros_like(values)
    found[:, :3] = values[:, :3].relu()
    found[:, 3:] += values[:, 3:].relu_()
    return found


WITH_RULES = {
    "a clamp": lambda v, w: v.clamp(min=0),
    "relu in place": lambda v, w: v.relu_() * 2,
    "a product of matrices": lambda v, w: (w @ v.relu().flatten(2)).unflatten(2, (24, 24)),
    "einsum": lambda v, w: torch.einsum("nchw,dc->ndhw", v.relu(), w).relu(),
    "a function that convolves": lambda v, w: functional.conv2d(v.relu(), w[:, :, None, None]),
    "scale and shift": lambda v, w: functional.relu((2 * v - 0.5) / 3) - 1,
    "sums and differences": lambda v, w: v.relu() - functional.avg_pool2d(v.relu(), 3, 1, 1),
    "parts": lambda v, w: torch.cat([v[:, :3].relu(), 1 + v[:, 3:].relu()], 1),
    "parts that are written": into,
    "circular padding": lambda v, w: functional.pad(v.relu(), (2, 1, 1, 2), mode="circular"),
    "relu6": lambda v, w: functional.relu6(v * 4) * 3,
    "a maximum over channels": lambda v, w: v.amax(1, keepdim=True).expand(-1, 6, -1, -1).relu(),
    "interpolation": lambda v, w: functional.interpolate(v.relu(), scale_factor=2, mode="bilinear"),
}  # fmt: skip


class Guided(torch.autograd.Function):
    @staticmethod
    def forward(context, values, low, high):
        context.save_for_backward((values > low) & (values < high))
        return values.clamp(low, high)

    @staticmethod
    def backward(context, upstream):
        return upstream.clamp(min=0) * context.saved_tensors[0], None, None


@pytest.fixture
def applied(wrap, disturb):
    def make(function, seed=3):
        torch.manual_seed(seed)
        return wrap(disturb(Applied(function), seed))

    return make


@pytest.mark.parametrize("name", WITH_RULES)
def test_relevance_sums_to_the_score_less_what_constants_keep(
    name, applied, make_explainer, make_batch
):
    """By a pass in plain torch: what a constant keeps is its value times the slope behind it."""
    network = applied(WITH_RULES[name])
    batch = make_batch(network, baseline="black").batch
    explainer = make_explainer(network, "lrp")
    found = explainer.explain(batch)
    error, share = explainer.completeness(found)
    sums = found.maps.double().sum((1, 2, 3)).numpy()
    np.testing.assert_allclose(sums + found.kept, found.scores, atol=1e-4)
    np.testing.assert_allclose(error, 0, atol=1e-4)
    assert (share < 1e-2).all()
    assert np.abs(found.kept).max() > 1e-6, "biases keep some"
    assert explainer.counts["epsilon: convolution"] >= 1


@pytest.mark.parametrize("name", WITH_RULES)
@pytest.mark.parametrize("baseline", ["black", "blurred"])
def test_rescaled_differences_sum_to_the_change(
    name, baseline, applied, make_explainer, make_batch
):
    network = applied(WITH_RULES[name])
    batch = make_batch(network, baseline=baseline).batch
    found = make_explainer(network, "deep-lift").maps(batch)
    with torch.no_grad():
        change = network.module(batch.images)[:, 2] - network.module(batch.baselines)[:, 2]
    np.testing.assert_allclose(found.sum((1, 2, 3)), change, atol=1e-4 * float(found.abs().sum()))


@pytest.mark.parametrize(
    ("function", "low", "high"),
    [
        (lambda v, w: v.clamp(min=0), 0, np.inf),
        (lambda v, w: functional.relu6(v), 0, 6),
        (lambda v, w: nn.ReLU6(inplace=True)(v), 0, 6),
        (lambda v, w: v.clamp(0, 0.5), 0, 0.5),
        (lambda v, w: functional.hardtanh(v, 0, 2), 0, 2),
        (lambda v, w: functional.relu_(v), 0, np.inf),
    ],
)
def test_every_rectifier_is_guided(function, low, high, applied, make_explainer, make_batch):
    network = applied(function)
    module, batch = network.module, make_batch(network).batch
    images = batch.images.clone().requires_grad_(True)
    values = Guided.apply(module.conv(images), low, high).mean((2, 3)) @ module.head.T
    expected = torch.autograd.grad(values[:, 2].sum(), images)[0]
    explainer = make_explainer(network, "guided-backprop")
    torch.testing.assert_close(explainer.maps(batch), expected, rtol=1e-4, atol=1e-6)
    assert sum(n for name, n in explainer.counts.items() if name.startswith("guided")) == 1


def test_modules_that_rectify_inside_themselves(wrap, disturb, make_explainer, make_batch):
    """With two layers the cut is on what comes back from above, and is not the plain gradient."""
    parts = [nn.Conv2d, nn.Conv2d]
    torch.manual_seed(0)
    layers = [kind(3 if i == 0 else 6, 6, 3) for i, kind in enumerate(parts)]
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4))
    plain = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), head)
    inner = [Inside(layer.in_channels, 6, 3) for layer in layers]
    network = nn.Sequential(*inner, head)
    disturb(plain)
    for one, other in zip(inner, layers, strict=True):
        one.load_state_dict(other.state_dict())
    batch = make_batch(wrap(plain)).batch
    for method in ("guided-backprop", "lrp", "deep-lift"):
        expected = make_explainer(wrap(plain), method).maps(batch)
        found = make_explainer(wrap(network), method).maps(batch)
        torch.testing.assert_close(found, expected)
    slopes = make_explainer(wrap(network), "saliency", abs=False).maps(batch)
    assert (
        float((make_explainer(wrap(network), "guided-backprop").maps(batch) - slopes).abs().max())
        > 0
    )


class Own(torch.autograd.Function):
    """A rectifier with a derivative of its own making."""

    generate_vmap_rule = True

    @staticmethod
    def forward(values):
        return values.clamp(min=0)

    @staticmethod
    def setup_context(context, inputs, output):
        pass

    @staticmethod
    def backward(context, upstream):
        return upstream


WITHOUT = {
    "a gate": (lambda v, w: v * v.sigmoid(), "mul|sigmoid"),
    "a square": (lambda v, w: v * v, "mul, of several things"),
    "a mask": (lambda v, w: v * (v > 0), "the operation gt"),
    "a step": (lambda v, w: v * torch.heaviside(v, torch.zeros(())), "heaviside"),
    "a choice": (lambda v, w: torch.where(v > 0, v, 0.0), "the operation gt"),
    "a norm": (lambda v, w: v / v.norm(dim=1, keepdim=True), "linalg_vector_norm"),
    "softmax": (lambda v, w: v.softmax(1), "_softmax"),
    "a layer's norm": (lambda v, w: functional.layer_norm(v, v.shape[1:]), "native_layer_norm"),
    "a batch's norm": (lambda v, w: functional.instance_norm(v), "other images of a batch"),
    "a place": (lambda v, w: v.relu() * (v.argmax(1, keepdim=True) + 1), "argmax"),
    "something detached": (lambda v, w: v + v.detach(), "gradient is not that|operation detach"),
    "its own derivative": (lambda v, w: Own.apply(v), "gradient is not that|cannot follow"),
    "a decision": (lambda v, w: v if v.sum() > 0 else -v, "cannot follow"),
}
CURVED = {
    "gelu": lambda v, w: functional.gelu(v),
    "silu": lambda v, w: functional.silu(v),
    "hardswish": lambda v, w: functional.hardswish(v),
    "elu": lambda v, w: functional.elu(v),
    "a clamp that is not at 0": lambda v, w: v.clamp(min=0.2),
    "a power": lambda v, w: v.pow(2),
    "a threshold": lambda v, w: functional.threshold(v, 0, 0),
}


@pytest.mark.parametrize("method", ["lrp", "deep-lift", "guided-backprop"])
@pytest.mark.parametrize("name", WITHOUT)
def test_what_has_no_rule_is_refused_by_name(name, method, applied, make_explainer):
    function, says = WITHOUT[name]
    with pytest.raises(
        InputError, match=f"{method}.*({says}).*take integrated-gradients"
    ) as caught:
        make_explainer(applied(function), method)
    assert "\n" not in str(caught.value)


def masked(v):
    return v[..., None] * torch.tensor([1.0, 0.0])


RECTIFIED = {
    "stacked behind": lambda v, w: torch.stack([v, torch.zeros_like(v)], 1).amax(1),
    "joined": lambda v, w: torch.cat([v[:, None], v.new_zeros(v[:, None].shape)], 1).max(1).values,
    "padded": lambda v, w: functional.pad(v[..., None], (0, 1)).amax(-1),
    "written": lambda v, w: v.new_zeros(*v.shape, 2).select_scatter(v, -1, 0).amax(-1),
    "masked": lambda v, w: masked(v).amax(-1),
    "pooled": lambda v, w: functional.max_pool2d(masked(v).flatten(0, 2), (1, 2)).view(v.shape),
    "times 0": lambda v, w: torch.stack([v, 0 * v], -1).amax(-1),
}
POOLED = {
    "padding that never wins": lambda v: functional.pad(v, (1, 1), value=-torch.inf),
    "zeros beside what is rectified": lambda v: functional.pad(v, (1, 1, 1, 1)),
    "joined along another axis": lambda v: torch.cat([v, 2 * v - 1], 1)[:, 3:9],
    "scaled": lambda v: v * torch.tensor([2.0, 1, 0, -1, 1, 3])[:, None, None],
}  # fmt: skip


@pytest.mark.parametrize("name", RECTIFIED)
def test_a_maximum_with_a_constant_is_a_rectifier(name, applied, make_explainer, make_batch):
    """Guided backpropagation took it for a pooling; the others' rules hold for both."""
    network, plain = applied(RECTIFIED[name]), applied(lambda v, w: v.relu())
    with pytest.raises(InputError, match="max.*, (which has a constant|of several functions)"):
        make_explainer(network, "guided-backprop")
    for method in ("lrp", "deep-lift"):
        batch = make_batch(network, baseline="black").batch
        expected, found = (make_explainer(n, method).maps(batch) for n in (plain, network))
        limit = 1e-2 if name in ("masked", "pooled", "times 0") and method == "lrp" else 1e-4
        assert float((found - expected).abs().max() / expected.abs().max()) < limit, method


@pytest.mark.parametrize("name", POOLED)
def test_a_maximum_of_features_is_a_pooling(name, applied, make_explainer, make_batch):
    def pooled(v):
        return functional.max_pool2d(POOLED[name](v), 3, 2)

    network = applied(lambda v, w: pooled(v.relu()))
    module, batch = network.module, make_batch(network).batch
    images = batch.images.clone().requires_grad_(True)
    rectified = Guided.apply(module.conv(images), 0, np.inf)
    values = pooled(rectified).mean((2, 3)) @ module.head.T
    expected = torch.autograd.grad(values[:, 2].sum(), images)[0]
    found = make_explainer(network, "guided-backprop").maps(batch)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("n", [2, 3])
def test_halves_that_are_no_images_have_no_rule(n, applied, make_explainer):
    """Along the first axis are functions of the images, not images and baselines."""
    network = applied(lambda v, w: torch.stack([v, *[0 * v] * (n - 1)]).amax(0))
    with pytest.raises(InputError, match="amax, whose first axis is not that of the images"):
        make_explainer(network, "deep-lift")
    swapped = applied(lambda v, w: v.transpose(0, 1).tanh().transpose(0, 1))
    with pytest.raises(InputError, match="tanh, whose first axis"):
        make_explainer(swapped, "deep-lift")


@pytest.mark.parametrize("name", CURVED)
def test_curves_are_rescaled_and_have_no_other_rule(name, applied, make_explainer, make_batch):
    network = applied(CURVED[name])
    for method in ("lrp", "guided-backprop"):
        with pytest.raises(
            InputError, match=f"{method} has no rule for an? Applied: the operation"
        ):
            make_explainer(network, method)
    batch = make_batch(network, baseline="black").batch
    explainer = make_explainer(network, "deep-lift")
    error, _ = explainer.completeness(explainer.explain(batch))
    np.testing.assert_allclose(error, 0, atol=1e-4)


def test_relevance_by_its_definition(wrap, disturb, make_explainer, make_batch):
    """Bach et al. (2015), eq. 58, by NumPy, with an epsilon that matters and with biases."""
    torch.manual_seed(2)
    net = nn.Sequential(nn.Flatten(), nn.Linear(1728, 7), nn.ReLU(), nn.Linear(7, 4))
    network = wrap(disturb(net, 2))
    batch = make_batch(network).batch
    epsilon = 0.3
    explainer = make_explainer(network, "lrp", epsilon=epsilon)
    found = explainer.explain(batch)
    first, second = (
        (net[i].weight.detach().double().numpy(), net[i].bias.detach().double().numpy())
        for i in (1, 3)
    )
    for row, image in enumerate(batch.images.double().numpy()):
        x = image.ravel()
        z1 = first[0] @ x + first[1]
        hidden = np.maximum(z1, 0)
        z2 = second[0] @ hidden + second[1]
        sign = np.where(z2 < 0, -1, 1)
        relevance = np.where(np.arange(4) == 2, z2, 0.0)
        relevance = hidden * (second[0].T @ (relevance / (z2 + epsilon * sign)))
        sign = np.where(z1 < 0, -1, 1)
        relevance = x * (first[0].T @ (relevance / (z1 + epsilon * sign)))
        np.testing.assert_allclose(
            found.maps[row].numpy().ravel(), relevance, atol=1e-4 * np.abs(relevance).max()
        )


def test_rules_are_captums_where_captum_has_them(wrap, disturb, make_explainer, make_batch):
    """A plain sequence of modules without overlapping windows."""
    network = load_model("small-cnn", model_args={"channels": "4-6", "canvas": 24, "hidden": 12})
    disturb(network.module)
    batch = make_batch(network).batch
    for part in network.module.modules():
        if getattr(part, "inplace", False):
            part.inplace = False
    one, against = batch.images[:1].clone().requires_grad_(True), batch.baselines[:1]
    found = make_explainer(network, "lrp", epsilon=1e-6).maps(batch)[:1]
    for part in network.module.modules():
        if isinstance(part, nn.Conv2d | nn.Linear | nn.MaxPool2d | nn.Flatten):
            part.rule = EpsilonRule(1e-6)
    expected = LRP(network.module).attribute(one, target=2)
    torch.testing.assert_close(found, expected.detach(), rtol=1e-2, atol=1e-4)
    parts = nn.Conv2d(3, 4, 3), nn.Sigmoid(), nn.Conv2d(4, 4, 3, stride=2), nn.ReLU(), nn.Flatten()
    network = wrap(disturb(nn.Sequential(*parts, nn.Linear(4 * 100, 5)), 2))
    found = make_explainer(network, "deep-lift").maps(batch)[:1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = DeepLift(network.module).attribute(one, against, target=2)
    torch.testing.assert_close(found, expected.detach(), rtol=1e-3, atol=1e-5)


def test_grad_cam_of_each_call_of_a_reused_layer(awkward, make_explainer, make_batch):
    batch = make_batch(awkward).batch
    net, images = awkward.module, batch.images
    values, kept = net.pool(net.first(images).relu()), []
    kept.append(net.second(values))
    after = (kept[0] + values).relu()
    kept.append(net.second(after))
    score = net.head((kept[1] + after).relu().mean((2, 3)))[:, 2].sum()
    for call, activation in enumerate(kept):
        slopes = torch.autograd.grad(score, activation, retain_graph=True)[0]
        expected = (slopes.mean((2, 3), keepdim=True) * activation).sum(1, keepdim=True).detach()
        found = make_explainer(awkward, "grad-cam", layer=f"second:{call}").maps(batch)
        middle = found[:, :, ::2, ::2]  # where the cells' fields are centred
        assert torch.allclose(middle, expected, rtol=1e-3, atol=1e-5) or torch.allclose(
            found[:, :, 1::2, 1::2], expected, rtol=1e-3, atol=1e-5
        )
        assert float(expected.abs().max()) > 0.01


@pytest.mark.parametrize(
    ("name", "says"), [("efficientnet_b0", "silu"), ("convnext_tiny", "gelu|norm")]
)
def test_real_networks_without_rectifiers_are_refused(name, says, make_explainer):
    network = load_model(name)
    with pytest.raises(InputError, match=f"guided-backprop has no rule for .*({says})"):
        make_explainer(network, "guided-backprop", canvas=Canvas(64, 16))


def test_results_say_which_rules_were_applied(residual, make_sweep):
    found = attribute(
        make_sweep(residual, n=2, grid="1x2"),
        AttributionSettings("lrp", "logit:1", dtype="float32"),
    )
    assert found.attrs["rules"] == {
        "epsilon: convolution": 2, "passed on: relu": 2, "epsilon: add": 1, "epsilon: mean": 1,
        "to the maximum: max_pool2d_with_indices": 1, "epsilon: mm": 1,
    }  # fmt: skip
    assert np.abs(found["completeness_share"]).max() < 1e-2
    np.testing.assert_allclose(found["kept_relevance"], 0, atol=1e-3)
    whole = maps_of(found).sum(("height", "width"))
    assert np.isfinite(whole).all()
