"""Variants by name, and networks whose invariance is built in: what each paper claims of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from elsewhere.errors import InputError, UnknownNameError
from elsewhere.models import list_layers, load_model
from elsewhere.models.hermite import hermite_basis, hermite_functions
from elsewhere.models.names import split_variants, variant_registry
from elsewhere.models.scattering import Scattering
from elsewhere.models.variants import blurred, build_variant, largest_phase


def network(name: str, **arguments: object) -> nn.Module:
    return load_model(name, model_args=arguments, seed=3).module


def pictures(side: int = 48, count: int = 2) -> torch.Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(5))


@pytest.fixture(autouse=True)
def _no_gradients() -> object:
    with torch.no_grad():
        yield


@pytest.mark.parametrize("shift", [(1, 0), (5, -7)])
@pytest.mark.parametrize("how", ["stride1", "aps"])
def test_a_circular_network_that_pools_globally_does_not_see_a_roll(how, shift) -> None:
    net, values = network(f"small-cnn-{how}-circular-gap"), pictures()
    outputs, moved = net(values), net(values.roll(shift, (2, 3)))
    torch.testing.assert_close(moved, outputs, atol=1e-5 * outputs.std().item(), rtol=1e-5)
    assert (net(pictures(count=2).flip(1)) - outputs).abs().max() > 0.01 * outputs.std()


# the networks of each family that sample maps, on small canvases
FAMILIES = {
    "alexnet-slim": 64,
    "googlenet-slim": 32,
    "resnet18-slim": 32,
    "densenet-slim": 64,
    "vgg11-slim": 64,
    "resnet18": 64,
}


@pytest.mark.parametrize(
    "name", [*FAMILIES, pytest.param("resnet50", marks=pytest.mark.long),
             pytest.param("alexnet", marks=pytest.mark.long)]
)  # fmt: skip
def test_a_choice_of_phases_makes_every_family_exact_under_a_roll(name) -> None:
    side = FAMILIES.get(name, 64)
    gap = "" if name == "densenet-slim" else "-gap"  # which pools within its own code
    given = {} if name in ("resnet18", "resnet50", "alexnet") else {"canvas": side}
    net, values = network(f"{name}-aps-circular{gap}", **given), pictures(side)
    outputs = net(values)
    for shift in ((1, 0), (5, -7)):
        moved = net(values.roll(shift, (2, 3)))
        torch.testing.assert_close(moved, outputs, atol=1e-4 * outputs.std().item(), rtol=1e-5)
    plain = network(f"{name}-circular{gap}", **given)
    plain.load_state_dict(net.state_dict())
    changed = plain(values.roll((5, -7), (2, 3))) - plain(values)
    assert changed.abs().max() > 1e-2 * outputs.std()


def test_both_branches_of_a_residual_block_are_sampled_at_the_phase_of_the_main_one() -> None:
    block = network("resnet18-slim-aps").get_submodule("layer2.0")
    maps = pictures(32)[:, :1].expand(-1, 16, -1, -1) + torch.arange(16)[:, None, None] / 9
    inner = functional.relu(block.bn1(functional.conv2d(maps, block.conv1.weight, padding=1)))
    grids = {(y, x): inner[0, :, y::2, x::2].norm() for y in (0, 1) for x in (0, 1)}
    y, x = max(grids, key=grids.get)
    kept = inner[:1, :, y::2, x::2], maps[:1, :, y::2, x::2]
    main = block.bn2(functional.conv2d(kept[0], block.conv2.weight, padding=1))
    side = block.downsample[1](functional.conv2d(kept[1], block.downsample[0].weight))
    torch.testing.assert_close(block(maps[:1]), functional.relu(main + side))


@pytest.mark.parametrize("canvas", [48, 64])
def test_convnext_slim_keeps_every_row_and_column_of_its_maps(canvas: int) -> None:
    net, sides = network("convnext-slim", canvas=canvas), []
    for stage in net.features:
        stage.register_forward_hook(lambda _m, _i, output: sides.append(output.shape[-1]))
    net(torch.rand(1, 3, canvas, canvas))
    assert sides == [canvas // factor for factor in (2, 2, 4, 4, 8, 8, 16, 16)]
    with pytest.raises(InputError, match="cells at the edge"):
        network("convnext-slim", canvas=canvas, patch=4 if canvas == 48 else 3)


def test_swin_slim_drops_no_pixel_at_the_edge() -> None:
    with pytest.raises(InputError, match="canvas=30 is no multiple of the patches of 4 px"):
        network("swin-slim", canvas=30)


def test_slim_networks_have_the_layers_of_their_family() -> None:
    from torchvision import models

    slim = {name for name, _ in network("alexnet-slim").named_modules()}
    assert slim == {name for name, _ in models.AlexNet().named_modules()}
    assert [each.name for each in list_layers(load_model("alexnet-slim"))][:3] == [
        "conv1", "relu1", "pool1",
    ]  # fmt: skip
    slim = {name for name, _ in network("googlenet-slim").named_modules()}
    whole = models.GoogLeNet(aux_logits=False, init_weights=False)
    assert slim == {name for name, _ in whole.named_modules()}
    net = network("googlenet-slim", width=0.0625)
    assert net.get_submodule("inception3a.branch1.conv").out_channels == 4
    for name in ("alexnet-slim", "googlenet-slim"):
        outputs = network(name)(pictures(64))
        assert outputs.shape == (2, 1000)
        assert (outputs[0] - outputs[1]).norm() > 0.01 * outputs.norm()


def test_strides_without_a_choice_see_a_roll_unless_it_is_a_multiple_of_all_strides() -> None:
    net, values = network("small-cnn-circular-gap"), pictures()
    outputs = net(values)
    assert (net(values.roll((5, -7), (2, 3))) - outputs).abs().max() > 0.01 * outputs.std()
    torch.testing.assert_close(net(values.roll((16, -32), (2, 3))), outputs, atol=1e-5, rtol=1e-5)


def test_adaptive_sampling_sees_a_pasted_object_move() -> None:
    net = network("small-cnn-aps-gap")
    canvas = torch.zeros(2, 3, 48, 48)
    canvas[0, :, 3:15, 3:15] = pictures(12, 1)[0]
    canvas[1, :, 30:42, 36:48] = pictures(12, 1)[0]
    one, other = net(canvas)
    assert (one - other).abs().max() > 1e-3 * one.abs().max()


def _shift_changes(name: str) -> float:
    """How far the outputs move, over their length, when a picture moves by 1 px."""
    net, values = network(name), pictures(64, 4)
    outputs, moved = net(values), net(values.roll((1, 1), (2, 3)))
    return float(((moved - outputs).norm(dim=1) / outputs.norm(dim=1)).mean())


@pytest.mark.parametrize(
    "name",
    [
        "vgg11-slim",
        "small-cnn",
        "alexnet-slim",
        "resnet18-slim",
        "googlenet-slim",
        pytest.param("alexnet", marks=pytest.mark.long),
        pytest.param("resnet50", marks=pytest.mark.long),
    ],
)
def test_a_blur_before_sampling_lowers_what_a_shift_changes_on_the_same_weights(name) -> None:
    plain, blurry = network(name), network(f"{name}-blurpool")
    assert plain.state_dict().keys() == blurry.state_dict().keys()
    for key, value in plain.state_dict().items():
        assert torch.equal(value, blurry.state_dict()[key])
    if name != "alexnet":  # whose first stride, of 4, stays
        assert _shift_changes(f"{name}-blurpool") < _shift_changes(name)


def test_a_residual_network_is_blurred_in_both_branches() -> None:
    plain, blurry = network("resnet18-slim"), network("resnet18-slim-blurpool")
    assert plain.state_dict().keys() == blurry.state_dict().keys()
    values = pictures(64)
    assert plain(values).shape == blurry(values).shape
    block = blurry.get_submodule("layer2.0")
    maps = blurry.get_submodule("layer1")(pictures(64)[:, :1].expand(-1, 16, -1, -1))
    inner = functional.relu(block.bn1(functional.conv2d(maps, block.conv1.weight, padding=1)))
    main = block.bn2(functional.conv2d(_blur(inner), block.conv2.weight, padding=1))
    side = block.downsample[1](functional.conv2d(_blur(maps), block.downsample[0].weight))
    torch.testing.assert_close(block(maps), functional.relu(main + side))


def _blur(maps: torch.Tensor) -> torch.Tensor:
    line = torch.tensor([1.0, 2.0, 1.0]) / 4
    kernel = torch.outer(line, line).expand(maps.shape[1], 1, 3, 3)
    padded = functional.pad(maps, (1, 1, 1, 1), mode="reflect")
    return functional.conv2d(padded, kernel, stride=2, groups=maps.shape[1])


def test_the_blur_is_the_binomial_filter() -> None:
    maps = pictures(12)
    torch.testing.assert_close(blurred(maps, 2, "constant"), _blur(maps))


def test_the_largest_phase_is_kept_image_by_image() -> None:
    maps = torch.zeros(2, 1, 5, 4)
    maps[0, 0, 1::2, 0::2] = 2.0
    maps[1, 0, 0::2, 1::2] = 3.0
    assert largest_phase(maps, 2).tolist() == [[[[2.0, 2.0], [2.0, 2.0]]], [[[3.0] * 2] * 2]]


@pytest.mark.parametrize(
    ("variant", "mode", "pads"),
    [("circular", "circular", 1), ("reflect", "reflect", 1), ("full", "constant", 2)],
)
def test_padding_is_what_its_name_says(variant, mode, pads) -> None:
    plain, other = network("small-cnn"), network(f"small-cnn-{variant}")
    first = plain.get_submodule("features.0")
    padded = functional.pad(pictures(), [pads] * 4, mode=mode)
    expected = functional.conv2d(padded, first.weight, first.bias)
    torch.testing.assert_close(other.get_submodule("features.0")(pictures()), expected)


def test_valid_convolutions_see_pixels_only() -> None:
    net = network("small-cnn-valid")
    first = net.get_submodule("features.0")
    assert first(pictures()).shape[-2:] == (46, 46)


def test_names_of_layers_stay() -> None:
    plain = [layer.name for layer in list_layers(load_model("vgg11-slim"))]
    for variant in ("circular", "blurpool", "aps", "gap", "hermite", "reflect"):
        assert [each.name for each in list_layers(load_model(f"vgg11-slim-{variant}"))] == plain


def test_a_network_that_pools_globally_by_itself_stays() -> None:
    plain, other = network("resnet18-slim"), network("resnet18-slim-gap")
    assert torch.equal(plain(pictures(64)), other(pictures(64)))


def test_global_pooling_takes_the_mean_of_the_last_map() -> None:
    net = network("small-cnn-gap")
    maps = net.get_submodule("features")(pictures())
    expected = net.get_submodule("classifier")(maps.mean(dim=(2, 3)))
    torch.testing.assert_close(net(pictures()), expected)


def test_a_window_that_was_not_trained_is_the_whole_canvas_and_another_is_cut_out() -> None:
    plain, looking = network("small-cnn"), network("small-cnn-stn")
    looking.load_state_dict(plain.state_dict(), strict=False)
    values = pictures()
    torch.testing.assert_close(looking(values), plain(values), atol=1e-4, rtol=1e-4)
    last = looking.get_submodule("window.locate.8")
    last.bias.copy_(torch.tensor([0.5, -0.5, 0.5]))  # the lower left quarter
    shown = looking.get_submodule("window")(values)
    expected = functional.interpolate(
        values[:, :, 24:, :24], size=(48, 48), mode="bilinear", align_corners=False
    )
    torch.testing.assert_close(shown[..., 2:-2, 2:-2], expected[..., 2:-2, 2:-2])


def test_the_basis_is_orthonormal_and_confines_the_filters() -> None:
    basis = hermite_basis(7, order=3)
    products = np.einsum("aij,bij->ab", basis, basis)
    np.testing.assert_allclose(products, np.eye(len(basis)), atol=1e-12)
    part = network("small-cnn-hermite").get_submodule("features.0")
    filters = part.filters.flatten(1).reshape(-1, 25).double().numpy()
    inside = hermite_basis(5).reshape(-1, 25)
    np.testing.assert_allclose(filters @ inside.T @ inside, filters, atol=1e-6)


@pytest.mark.parametrize("order", [0, 2, 5])
@pytest.mark.parametrize("shift", [0.05, 0.5])
def test_filters_of_hermite_functions_change_under_a_shift_as_their_bound_says(
    order, shift
) -> None:
    x = np.linspace(-15, 15, 60001)
    shares = np.random.default_rng(order).normal(size=order + 1)
    shares /= np.linalg.norm(shares)
    change = shares @ hermite_functions(order, x + shift) - shares @ hermite_functions(order, x)
    moved = np.sqrt(np.sum(change**2) * (x[1] - x[0]))
    assert 0 < moved <= shift * np.sqrt(2 * order + 1)
    products = hermite_functions(order, x) @ hermite_functions(order, x).T * (x[1] - x[0])
    np.testing.assert_allclose(products, np.eye(order + 1), atol=1e-8)


# kymatio 0.3.0 (SciPy 1.14): Scattering2D(J, (32, 32), L) of numpy's default_rng(0).random, as
# float32: mean, standard deviation, the first and the last three coefficients
_KYMATIO = {
    (2, 4): (0.04606821, 0.09999211, (0.45946145, 0.5513362, 0.6035104),
             (0.00915678, 0.01219251, 0.00610918)),
    (3, 8): (0.009509565, 0.03632951, (0.5217759, 0.5749198, 0.5423928),
             (0.00297436, 0.0041323, 0.00439937)),
}  # fmt: skip


@pytest.mark.parametrize(("scales", "turns"), _KYMATIO)
def test_scattering_equals_kymatio(scales, turns) -> None:
    values = np.random.default_rng(0).random((1, 1, 32, 32)).astype(np.float32)
    net = Scattering(J=scales, L=turns, canvas=32)
    found = net.scatter(torch.from_numpy(values).expand(1, 3, 32, 32))
    paths = found.unflatten(1, (3, -1))
    assert torch.equal(paths[:, 0], paths[:, 2])
    factor = np.pi / 3.1415  # kymatio's pi, once in each filter
    orders = np.repeat([1, 2, 3], [1, scales * turns, len(paths[0, 0]) - 1 - scales * turns])
    own = paths[0, 0].numpy() * factor ** orders[:, None, None]
    mean, deviation, first, last = _KYMATIO[scales, turns]
    np.testing.assert_allclose(own.mean(), mean, rtol=2e-6)
    np.testing.assert_allclose(own.std(), deviation, rtol=2e-6)
    np.testing.assert_allclose(own.ravel()[:3], first, atol=1e-6)
    np.testing.assert_allclose(own.ravel()[-3:], last, atol=1e-6)


def test_what_a_small_shift_changes_of_a_scattering_falls_with_its_scales() -> None:
    canvas = torch.zeros(1, 3, 64, 64)
    canvas[..., 20:40, 20:40] = pictures(20, 1)
    changes = []
    for scales in (1, 2, 3, 4):
        net = Scattering(J=scales, L=4, canvas=64)
        before, after = net.scatter(canvas), net.scatter(canvas.roll((1, 1), (2, 3)))
        changes.append(float((after - before).norm() / before.norm()))
    assert changes == sorted(changes, reverse=True)
    assert changes[3] < changes[0] / 3


def test_variants_are_applied_in_one_order_whatever_the_name_s() -> None:
    assert split_variants("small-cnn-gap-circular") == ("small-cnn", ("circular", "gap"))
    one, other = network("small-cnn-gap-circular"), network("small-cnn-circular-gap")
    assert torch.equal(one(pictures()), other(pictures()))
    assert split_variants("vgg16_bn") == ("vgg16_bn", ())


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("small-cnn-foo", UnknownNameError, "variant of small-cnn 'foo'"),
        ("small-cnn-gap-gap", InputError, "twice"),
        ("densenet-slim-gap", InputError, "variants of densenet-slim: stride1, blurpool, aps"),
        ("mobilenet_v2-aps", InputError, "3 by 3 cells leaves cells out .stride 2."),
        ("alexnet-slim-aps-hermite", InputError, "another variant has changed"),
        ("vgg11-slim-valid", InputError, "cannot process a canvas of 64 px"),
        ("vit-slim-blurpool", InputError, "neither a pooling nor a residual block"),
        ("small-cnn-circular-gap-valid", InputError, "variants of the padding, circular and valid"),
        ("small-cnn-aps-blurpool", InputError, "two variants of the stride, aps and blurpool"),
        ("small-cnn-aps-valid", InputError, "what samples its maps pads them, too"),
        ("vit-slim-circular", InputError, "it pads no map; variants of vit-slim: stn$"),
        ("scattering-stride1", InputError, "neither a convolution nor a pooling with a stride"),
    ],
)
def test_a_variant_that_does_not_exist_for_a_network_is_refused(name, error, words) -> None:
    with pytest.raises(error, match=words):
        load_model(name)


class _PadsWithin(nn.Module):
    """Pads one map by a module, and another by what it calls."""

    def __init__(self, call) -> None:
        super().__init__()
        self.conv, self.call = nn.Conv2d(3, 4, 3, padding=1), call

    def forward(self, values):
        return self.call(self.conv(values))


@pytest.mark.parametrize(
    "call",
    [
        lambda maps: functional.avg_pool2d(maps, 3, 1, 1),
        lambda maps: functional.max_pool2d(maps, 3, stride=1, padding=1),
        lambda maps: functional.conv2d(maps, torch.ones(1, 4, 3, 3), padding="same"),
        lambda maps: functional.pad(maps, (0, 1, 0, 1)),
        nn.ZeroPad2d(1),
    ],
)
def test_padding_within_a_network_s_code_is_no_padding_of_the_variant(call) -> None:
    for variant in ("circular", "reflect", "valid"):
        with pytest.raises(InputError, match=f"{variant} does not exist for it, for its own code"):
            build_variant("mine", [variant], lambda: _PadsWithin(call), 16)
    build_variant("mine", ["circular", "stn"], lambda: _PadsWithin(functional.relu), 16)


class _AsksValues(nn.Module):
    """Remembers where it was run; with `asks` it cannot be run on shapes alone."""

    def __init__(self, *, asks: bool, seen: list[str]) -> None:
        super().__init__()
        self.conv, self.asks = nn.Conv2d(3, 4, 3, padding=1), asks
        object.__setattr__(self, "remember", seen.append)

    def forward(self, values):
        self.remember(values.device.type)
        found = self.conv(values)
        return found * found.mean().item() if self.asks else found


@pytest.mark.parametrize(("asks", "places"), [(False, ["meta"]), (True, ["meta", "cpu"])])
def test_a_canvas_is_tried_on_shapes_alone_where_these_run(asks, places) -> None:
    seen: list[str] = []
    network = build_variant("mine", ["circular"], lambda: _AsksValues(asks=asks, seen=seen), 16)
    assert seen == places
    assert network.conv.weight.device.type == "cpu"
    assert bool(network.conv.weight.any())


def test_every_variant_exists_for_some_network() -> None:
    for variant in variant_registry:
        net = network(f"small-cnn-{variant}")
        assert net(pictures()).isfinite().all()


@pytest.mark.parametrize("arguments", [{"J": 0}, {"L": 0}, {"canvas": 60}, {"canvas": 8}])
def test_a_scattering_that_cannot_be_is_refused(arguments) -> None:
    with pytest.raises(InputError, match="must be"):
        load_model("scattering", model_args=arguments)
