"""Which dimensions of a layer are space: followed through operations, checked by a moving probe."""

import numpy as np
import pytest
import torch
from torch import nn

from elsewhere.analyzer.attribution.explain import Explainer
from elsewhere.analyzer.attribution.targets import parse_target
from elsewhere.analyzer.equivariance import aligned_similarity
from elsewhere.errors import InputError, LayerError
from elsewhere.models import list_layers, load_model
from elsewhere.recording import record
from elsewhere.storage import Keep, StoredLayer, open_recording
from tests.roles import similarity

LAST, FIRST = ("height", "width", "channel"), ("channel", "height", "width")


class Last(nn.Module):
    """Convolutions, then the same in channels-last order and back, as ConvNeXt's insides."""

    def __init__(self, channels=12):
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 4, stride=4)
        self.norm, self.mix, self.act = nn.LayerNorm(channels), nn.Linear(channels, channels), None
        self.act = nn.GELU()
        self.back = nn.Conv2d(channels, channels, 3, padding=1)
        self.head = nn.Linear(channels, 5)

    def forward(self, x):
        x = self.act(self.mix(self.norm(self.stem(x).permute(0, 2, 3, 1))))
        return self.head(self.back(x.permute(0, 3, 1, 2)).mean((2, 3)))


class Opaque(nn.Module):
    """Maps whose operations cannot be followed: written through views and products."""

    def __init__(self, order, channels=6):
        super().__init__()
        self.order, self.weight = order, nn.Parameter(torch.randn(channels, 48) / 5)
        self.body, self.head = nn.Identity(), nn.Linear(channels, 4)

    def forward(self, x):
        n, side = x.shape[0], x.shape[2] // 4
        cells = (
            x.reshape(n, 3, side, 4, side, 4).permute(0, 2, 4, 1, 3, 5).reshape(n, side, side, -1)
        )
        maps = torch.einsum("nhwk,ck->nhwc", cells, self.weight).tanh()
        out = self.body(maps.permute(0, *(1 + "hwc".index(axis) for axis in self.order)))
        dims = [1 + self.order.index(axis) for axis in "hw"]
        return self.head(out.mean(dims))


class Windows(nn.Module):
    """Windows by cells by channels: no axis is height, none is width."""

    def __init__(self):
        super().__init__()
        self.stem, self.body, self.head = (
            nn.Conv2d(3, 8, 2, stride=2),
            nn.Identity(),
            nn.Linear(8, 3),
        )

    def forward(self, x):
        x = self.stem(x)
        n, c, h, w = x.shape
        x = x.reshape(n, c, h // 4, 4, w // 4, 4).permute(0, 2, 4, 3, 5, 1)
        return self.head(self.body(x.reshape(n, -1, 16, c)).mean((1, 2)))


@pytest.fixture
def last(wrap, disturb):
    torch.manual_seed(0)
    return wrap(disturb(Last()))


def found(model, canvas=24):
    return {layer.name: layer for layer in list_layers(model, canvas)}


def test_a_permuted_map_keeps_its_geometry(last):
    layers = found(last)
    for name in ("norm", "mix", "act"):
        assert layers[name].layout == LAST
        assert (layers[name].stride, layers[name].offset, layers[name].receptive_field) == (
            4,
            1.5,
            4,
        )
    assert layers["back"].layout == FIRST
    assert layers["back"].receptive_field == 12
    assert layers["logits"].layout == ("unit",)


@pytest.mark.parametrize("order", ["hwc", "chw", "hcw", "cwh"])
def test_maps_that_cannot_be_followed_are_probed(order, wrap):
    torch.manual_seed(1)
    layer = found(wrap(Opaque(order)))["body"]
    names = {"h": "height", "w": "width", "c": "channel"}
    assert layer.layout == tuple(names[axis] for axis in order)
    assert (layer.stride, layer.offset, layer.receptive_field) == (4, 1.5, None)


def test_shape_alone_does_not_decide(wrap):
    torch.manual_seed(2)
    assert found(wrap(Opaque("hwc", channels=6)))["body"].shape == (6, 6, 6)
    assert found(wrap(Opaque("chw", channels=6)))["body"].layout == FIRST


@pytest.mark.parametrize(
    ("name", "canvas", "layer", "layout", "stride"),
    [
        ("swin_t", 64, "features.1.1", LAST, 4),
        ("swin_t", 64, "features.3.0.attn", LAST, None),
        ("convnext_tiny", 64, "features.1.0.block.3", LAST, 4),
        ("convnext_tiny", 64, "features.1.0.block.6", FIRST, 4),
        ("efficientnet_b0", 64, "features.6.1.block.1", FIRST, None),
        ("resnet18", 64, "avgpool", FIRST, None),
    ],
)
def test_networks_of_torchvision(name, canvas, layer, layout, stride):
    every = {found.name: found for found in list_layers(load_model(name), canvas, containers=True)}
    assert (every[layer].layout, every[layer].stride) == (layout, stride)


def test_modes_and_hooks_are_as_they_were(wrap):
    network = Opaque("hwc").train()
    model = wrap(network)
    network.head.train()
    list_layers(model, 24)
    assert network.head.training
    assert not network.body.training
    assert not any(part._forward_hooks for part in network.modules())


@pytest.mark.parametrize("engine", ["dense", "auto"])
def test_means_are_over_space_live_and_from_files(
    engine, last, make_sweep, plain_forwards, tmp_path
):
    sweep = make_sweep(last, layers="act,back", engine=engine)
    plain = plain_forwards(sweep)
    path = tmp_path / "s.h5"
    record(sweep, path, keep={"*": Keep("mean")})
    record(sweep, tmp_path / "full.h5")
    with open_recording(path) as kept, open_recording(tmp_path / "full.h5") as full:
        assert kept["act"].dims[-1] == "channel"
        assert full["act"].dims[-3:] == LAST
        assert full.layer("act").layout == LAST
        for name, over in (("act", (2, 3)), ("back", (3, 4))):
            exact = plain[name][0].astype(np.float64).mean(axis=over)
            flat = kept[name].values.reshape(exact.shape)
            np.testing.assert_allclose(flat, exact, atol=1e-5)
        alike = similarity(kept, metric="evoked")
    grid, _, empty = plain["act"]
    means = grid.mean(axis=(2, 3), dtype=np.float64) - empty.mean(axis=(0, 1))
    unit = means / np.linalg.norm(means, axis=2, keepdims=True)
    reference = sweep.design.reference_index
    cosines = np.einsum("opu,ou->op", unit, unit[:, reference])
    away = np.delete(cosines, reference, axis=1).mean()
    index = list(alike["layer"].values).index("act")
    assert float(alike["similarity_away"][index]) == pytest.approx(away, abs=1e-5)


class Between(nn.Module):
    """Has its channels between height and width."""

    def __init__(self):
        super().__init__()
        self.stem, self.body, self.head = nn.Conv2d(3, 6, 4, stride=4), nn.GELU(), nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.body(self.stem(x).permute(0, 2, 1, 3)).mean((1, 3)))


def test_channels_between_height_and_width(wrap, make_sweep, plain_forwards, tmp_path):
    torch.manual_seed(0)
    sweep = make_sweep(wrap(Between()), layers="body")
    plain = plain_forwards(sweep)["body"][0].astype(np.float64)
    record(sweep, tmp_path / "s.h5", keep={"*": Keep("mean")})
    with open_recording(tmp_path / "s.h5") as kept:
        assert kept["body"].sizes["channel"] == 6
        flat = kept["body"].values.reshape(*plain.shape[:2], 6)
        np.testing.assert_allclose(flat, plain.mean(axis=(2, 4)), atol=1e-5)


class Tokens(nn.Module):
    """Tokens by features, features by tokens, or rows by columns without any."""

    def __init__(self, order):
        super().__init__()
        self.order, self.stem, self.body = order, nn.Conv2d(3, 5, 4, stride=4), nn.Identity()
        self.mix = nn.Conv1d(5, 5, 1) if order == "convolved" else nn.Identity()

    def forward(self, x):
        x = self.stem(x).tanh()
        if self.order == "rows":
            return self.body(x.mean(1)).mean((1, 2))[:, None]
        x = self.body(self.mix(x.flatten(2)) if self.order != "tf" else x.flatten(2).mT)
        return x.mean(1 if self.order == "tf" else 2)


@pytest.mark.parametrize("order", ["tf", "ft", "convolved"])
def test_means_over_tokens_in_either_order(order, wrap, make_sweep, plain_forwards, tmp_path):
    torch.manual_seed(0)
    sweep = make_sweep(wrap(Tokens(order)), layers="body")
    plain = plain_forwards(sweep)["body"][0].astype(np.float64)
    record(sweep, tmp_path / "s.h5", keep={"*": Keep("mean")})
    with open_recording(tmp_path / "s.h5") as kept:
        assert kept["body"].sizes["feature"] == 5
        exact = plain.mean(axis=2 if order == "tf" else 3)
        np.testing.assert_allclose(kept["body"].values.reshape(exact.shape), exact, atol=1e-5)


def test_rows_by_columns_are_no_tokens(wrap, make_sweep, tmp_path):
    torch.manual_seed(0)
    sweep = make_sweep(wrap(Tokens("rows")), layers="body")
    assert not sweep.layers[0].layout
    with pytest.raises(LayerError, match="not known which of these"):
        record(sweep, tmp_path / "s.h5", keep={"*": Keep("mean")})


def test_aligned_maps_do_not_depend_on_the_layout(make_sweep, wrap):
    torch.manual_seed(3)
    results = []
    for order in ("hwc", "chw"):
        network = Opaque(order)
        with torch.no_grad():
            network.weight.copy_(torch.linspace(-1, 1, 6 * 48).sin().reshape(6, 48))
        sweep = make_sweep(wrap(network), layers="body", grid="at:8,8;8,12;8,16;12,8;12,12;12,16")
        results.append(aligned_similarity(sweep))
    assert results[0]["cells"].max() > 4
    for name in ("aligned", "aligned_G", "cells"):
        np.testing.assert_allclose(results[0][name], results[1][name], atol=1e-6)
    # the stem does not overlap, and displacements are whole strides: equivariant
    np.testing.assert_allclose(results[0]["aligned_away"], 1.0, atol=1e-6)


def test_what_needs_a_layout_is_refused_where_there_is_none(wrap, make_sweep, tmp_path):
    torch.manual_seed(4)
    model = wrap(Windows())
    assert found(model)["body"].layout == ()
    sweep = make_sweep(model, layers="body")
    with pytest.raises(LayerError, match="'body' gives 9 x 16 x 8, and it is not known"):
        record(sweep, tmp_path / "s.h5", keep={"body": Keep("mean")})
    assert not (tmp_path / "s.h5").exists()
    with pytest.raises(LayerError, match="no layer is a feature map with a place"):
        aligned_similarity(sweep)
    with pytest.raises(InputError, match="not known which of these are height and width"):
        explain(model, "body")
    record(sweep, tmp_path / "s.h5")
    with open_recording(tmp_path / "s.h5") as recording:
        assert recording["body"].dims[-3:] == ("dimension_0", "dimension_1", "dimension_2")
        assert np.isfinite(similarity(recording)["similarity_away"].values).all()


def explain(model, layer):
    target = parse_target("logit:0")
    Explainer(model, canvas_size=24, object_size=8, method="grad-cam", target=target, layer=layer)


def old(shape, kept="full", **more):
    fields = {"module": "m", "type": "Block", "kept": kept, "seed": 0, "layer_shape": shape, **more}
    return StoredLayer.from_attributes("m", fields)


def test_old_recordings_say_what_they_said():
    assert old((16, 16, 96)).dimensions == LAST  # written as channel, height, width
    assert old((96, 16, 16)).dimensions == FIRST
    assert old((16, 16, 16)).layout == ()
    assert old((16, 16, 16), stride=4).dimensions == FIRST
    mean = old((16, 16, 96), kept="mean")
    assert mean.stored_shape == (16,)
    assert mean.mean_is_doubtful
    assert not old((96, 16, 16), kept="mean").mean_is_doubtful


class Mixer(nn.Module):
    """A layer of MLP-Mixer: tokens are mixed by linear layers that are given channels by tokens."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 12, 6, stride=6), nn.LayerNorm(12)
        self.tokens = nn.Sequential(nn.Linear(16, 20), nn.GELU(), nn.Linear(20, 16))
        self.after, self.channels = nn.LayerNorm(12), nn.Linear(12, 12)
        self.again, self.tokens2 = nn.LayerNorm(12), nn.Sequential(nn.Linear(16, 20), nn.GELU())
        self.mix, self.back = nn.Linear(16, 16), nn.Linear(20, 16)
        self.head = nn.Linear(12, 5)

    def forward(self, x):
        x = self.stem(x).flatten(2).transpose(1, 2)
        x = x + self.tokens(self.norm(x).transpose(1, 2)).transpose(1, 2)
        x = x + self.channels(self.after(x))
        x = x + 30 * self.mix(x.transpose(1, 2)).transpose(1, 2)  # now nothing moves any more
        again = self.back(self.tokens2(self.again(x).transpose(1, 2))).transpose(1, 2)
        return self.head((x + again).mean(1))


def test_mixed_tokens_are_no_space(wrap, make_sweep, tmp_path):
    torch.manual_seed(0)
    model = wrap(Mixer())
    found = {layer.name: layer.layout for layer in list_layers(model, containers=True)}
    tokens = ("token", "feature")
    assert found["norm"] == found["after"] == found["channels"] == tokens
    assert all(found[name] == () for name in found if name.startswith(("tokens", "mix", "back")))
    passes = []
    model.module.register_forward_hook(lambda *_: passes.append(1))
    assert [layer.layout for layer in list_layers(model, containers=True)] == [*found.values()]
    assert list_layers(model)[0].layout == found["stem"]
    again, passes[:] = len(passes), []
    with torch.no_grad():
        model.module.head.weight.add_(1)  # another network, that is asked anew
    list_layers(model)
    assert len(passes) > again >= 2
    sweep = make_sweep(model, layers="tokens.0")
    with pytest.raises(LayerError, match="no mean over space"):
        record(sweep, tmp_path / "a.h5", keep={"*": Keep("mean")})
