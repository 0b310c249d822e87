"""Where tokens stand: a rule says it, a probe proves it, and what needs a map has one."""

import h5py
import numpy as np
import pytest
import torch
from torch import nn

import elsewhere
from elsewhere.analyzer import measure
from elsewhere.analyzer.attribution.explain import Explainer
from elsewhere.analyzer.attribution.targets import parse_target
from elsewhere.analyzer.equivariance import aligned_similarity
from elsewhere.errors import InputError, LayerError, UnknownNameError
from elsewhere.measures.blocks import maps_from
from elsewhere.models import list_layers, load_model
from elsewhere.models.selection import take_tokens
from elsewhere.models.tokens import square, token_rules
from elsewhere.recording import Sweep, record
from elsewhere.stimuli import Canvas, Grid
from elsewhere.storage import Keep, open_recording
from elsewhere.tokens import Tokens

N, SIDE = 16, 4


class Patches(nn.Module):
    """Patches of 6 px as tokens, in an order of their own, behind `before` tokens of its own."""

    def __init__(self, order=None, before=0, reads=None):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 6, stride=6)
        self.extra = nn.Parameter(torch.randn(1, before, 8))
        self.order = torch.arange(N) if order is None else torch.as_tensor(order)
        self.mix, self.norm, self.reads = nn.Linear(8, 8), nn.LayerNorm(8), reads
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = self.stem(x).flatten(2).mT[:, self.order]
        x = torch.cat([self.extra.expand(len(x), -1, -1), x], 1)
        x = self.norm(self.mix(x) + x.mean(1, keepdim=True) / 9)
        return self.head(x.mean(1) if self.reads is None else x[:, self.reads])


ROWS = np.arange(N).reshape(SIDE, SIDE)
BLOCKS = ROWS.reshape(2, 2, 2, 2).transpose(0, 2, 1, 3).ravel()  # block after block, as Hiera's


def found(model, canvas=24):
    return {layer.name: layer for layer in list_layers(model, canvas)}


@pytest.fixture(scope="module")
def vit():
    return load_model("vit-slim", model_args={"layers": 2, "width": 32, "num_classes": 5})


def sweep_of(model, make_objects, layers, grid="at:8,8;8,16;16,8;16,16;8,24;16,24", **how):
    canvas = Canvas(model.canvas_size, 16, background=(90, 120, 30))
    objects = make_objects(4, size=16)
    return Sweep(model, objects, canvas=canvas, grid=Grid.parse(grid, canvas), layers=layers, **how)


# --- the order of the grid


@pytest.mark.parametrize(
    ("order", "rows"), [(ROWS.ravel(), True), (ROWS.T.ravel(), False)], ids=["rows", "columns"]
)
def test_the_order_is_proved_by_a_probe(order, rows, wrap):
    torch.manual_seed(0)
    layers = found(wrap(Patches(order)))
    for name in ("mix", "norm"):
        tokens = layers[name].tokens
        assert (tokens.count, tokens.first, tokens.height, tokens.width) == (N, 0, SIDE, SIDE)
        assert tokens.by_rows is rows
        assert (layers[name].stride, layers[name].offset) == (6, 2.5)
        assert layers[name].layout == ("token", "feature")
        assert layers[name].is_map


@pytest.mark.parametrize(
    "order", [BLOCKS, ROWS.ravel()[::-1].copy(), np.random.default_rng(1).permutation(N)]
)
def test_an_order_that_no_rule_has_is_none(order, wrap, make_sweep, tmp_path):
    torch.manual_seed(0)
    model = wrap(Patches(order))
    layers = found(model)
    assert layers["mix"].tokens is None
    assert layers["mix"].stride is None
    sweep = make_sweep(model, layers="mix,norm,logits")
    said = [note for note in sweep.notes if "no probe proves" in note]
    assert said == [
        "mix, norm: no probe proves that its tokens are a grid on the canvas; taken as a vector"
    ]
    with pytest.raises(LayerError, match="'mix' gives 16 tokens, and no probe proves"):
        take_tokens(sweep.layers, "grid")


def test_the_class_token_is_the_one_that_the_head_is_given(wrap):
    torch.manual_seed(0)
    tokens = found(wrap(Patches(before=3, reads=1)))["norm"].tokens
    assert (tokens.first, tokens.class_token, tokens.registers) == (3, 1, (0, 2))
    tokens = found(wrap(Patches(before=3)))["norm"].tokens  # a mean over all of them
    assert (tokens.first, tokens.class_token, tokens.registers) == (3, None, (0, 1, 2))


def test_a_rule_that_is_wrong_is_refuted(wrap, monkeypatch):
    torch.manual_seed(0)
    model = wrap(Patches(before=2, reads=0))

    def late(part, count):  # the grid two tokens too early
        return Tokens(count, 0, SIDE, SIDE) if count == N + 2 else None

    monkeypatch.setattr(token_rules, "_entries", {})
    token_rules.add("late", late, summary="wrong")
    assert found(model)["norm"].tokens is None
    token_rules.add("right", lambda part, count: square(count, 2), summary="right")
    assert found(model)["norm"].tokens.first == 2


@pytest.mark.parametrize("registers", [0, 4])
def test_timm_with_registers(registers):
    pytest.importorskip("timm", reason="timm is not installed")
    arguments = {"img_size": 64, "depth": 1, "reg_tokens": registers, "num_classes": 5}
    model = load_model("timm:vit_tiny_patch16_224", model_args=arguments)
    layers = {layer.name: layer for layer in list_layers(model, 64, containers=True)}
    tokens = layers["norm"].tokens
    assert (tokens.count, tokens.first, tokens.height) == (17 + registers, 1 + registers, 4)
    assert (tokens.class_token, tokens.registers) == (0, tuple(range(1, 1 + registers)))
    assert layers["patch_embed"].tokens.first == 0
    assert layers["norm"].stride == layers["patch_embed"].stride == 16


def test_torchvision():
    model = load_model("vit_b_16", model_args={"image_size": 64, "num_classes": 3})
    layer = found(model, 64)["encoder.ln"]
    assert (layer.shape, layer.stride, layer.tokens.first) == ((17, 768), 16, 1)
    assert layer.tokens.class_token == 0


# --- values


def test_without_mixing_and_place_a_move_by_patches_is_exactly_equivariant(make_objects):
    model = load_model("vit-slim", model_args={"layers": 2, "width": 32})
    with torch.no_grad():
        model.module.encoder.pos_embedding.zero_()
        for block in model.module.encoder.layers:
            block.self_attention.out_proj.weight.zero_()
            block.self_attention.out_proj.bias.zero_()
    layers = "conv_proj,encoder.layers.encoder_layer_1.mlp.0,encoder.ln"
    sweep = sweep_of(model, make_objects, layers)
    result = aligned_similarity(sweep)
    assert result["cells"].max() >= 9
    np.testing.assert_allclose(result["aligned_away"], 1.0, atol=1e-6)
    assert (result["map_stride"] == 8).all()
    one = load_model("vit-slim", model_args={"layers": 2, "width": 32})
    mixed = aligned_similarity(sweep_of(one, make_objects, layers))
    assert (mixed["aligned_away"].values[1:] < 0.9999).all()  # it is not, with both


@pytest.mark.parametrize("part", ["grid", "class", "all"])
def test_a_part_of_the_tokens_is_recorded(part, vit, make_objects, plain_forwards, tmp_path):
    whole = sweep_of(vit, make_objects, "encoder.ln,logits", grid="at:8,8;8,16")
    plain, _, empty = plain_forwards(whole)["encoder.ln"]
    sweep = sweep_of(vit, make_objects, "encoder.ln,logits", grid="at:8,8;8,16", tokens=part)
    record(sweep, tmp_path / "s.h5", keep={"encoder.ln": Keep("full")})
    expected = {
        "all": (plain, empty, ("token", "feature"), "full"),
        "class": (plain[:, :, 0], empty[0], ("unit",), "class"),
        "grid": (
            plain[:, :, 1:].reshape(*plain.shape[:2], 8, 8, -1),
            empty[1:].reshape(8, 8, -1),
            ("height", "width", "channel"),
            "grid",
        ),
    }
    values, nothing, dims, form = expected[part]
    with open_recording(tmp_path / "s.h5") as kept:
        layer = kept.layer("encoder.ln")
        assert (layer.layout, layer.form, layer.tokens.part) == (dims, form, part)
        assert kept["encoder.ln"].dims[3:] == dims
        np.testing.assert_allclose(kept["encoder.ln"].values[:, 0], values, atol=1e-5)
        told = kept.attributes["identity_fields"].get("tokens", {})
        assert (part == "all") is (not told)
        result = measure(kept, names=["cosine"], layers=["encoder.ln"])
    with h5py.File(tmp_path / "s.h5") as file:
        np.testing.assert_allclose(file["layers/encoder.ln/empty"][...], nothing, atol=1e-5)
    assert result["kept"].values.tolist() == [form]


def test_what_is_taken_is_part_of_a_recording_s_identity(vit, make_objects, tmp_path):
    from elsewhere.recording import make_header

    sweeps = [
        sweep_of(vit, make_objects, "encoder.ln", grid="at:8,8;8,16", tokens=part)
        for part in ("all", "grid", "class")
    ]
    assert len({make_header(sweep).identity for sweep in sweeps}) == 3


def test_means_are_over_the_grid(vit, make_objects, plain_forwards, tmp_path):
    sweep = sweep_of(vit, make_objects, "encoder.ln", grid="at:8,8;8,16")
    plain = plain_forwards(sweep)["encoder.ln"][0].astype(np.float64)
    record(sweep, tmp_path / "s.h5", keep={"*": Keep("mean")})
    with open_recording(tmp_path / "s.h5") as kept:
        means = kept["encoder.ln"].values[:, 0]
        np.testing.assert_allclose(means, plain[:, :, 1:].mean(2), atol=1e-6)
        assert np.abs(means - plain.mean(2)).max() > 1e-3  # which the class token changes


def test_a_recording_s_aligned_is_the_live_one(vit, make_objects, tmp_path):
    sweep = sweep_of(vit, make_objects, "encoder.layers.encoder_layer_0.mlp.3")
    live = aligned_similarity(sweep)
    record(sweep, tmp_path / "s.h5")
    grid = sweep_of(vit, make_objects, "encoder.layers.encoder_layer_0.mlp.3", tokens="grid")
    with open_recording(tmp_path / "s.h5") as kept:
        for other in (aligned_similarity(kept), aligned_similarity(grid)):
            np.testing.assert_allclose(other["aligned_away"], live["aligned_away"], atol=1e-6)


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("vit-slim", "encoder.layers.encoder_layer_1.ln_2"),
        ("swin-slim", "features.3.1.norm2"),
        ("convnext-slim", "features.1.0.block.3"),
    ],
)
def test_what_needs_a_map_has_one(name, layer, make_objects):
    model = load_model(name, model_args={"num_classes": 5})
    sweep = sweep_of(model, make_objects, layer)
    (one,) = sweep.layers
    assert one.is_map
    assert one.stride == {"vit": 8, "swin": 8, "convnext": 2}[name.split("-")[0]]
    result = measure(sweep, names=["aligned", "phase"], layers=[layer])
    assert np.isfinite(result["aligned_away"]).all()
    assert float(result["aligned_away"][0]) > float(result["aligned_baseline_away"][0])


# --- Grad-CAM


def explainer(model, layer, size=64):
    target = parse_target("logit:0")
    return Explainer(
        model, canvas_size=size, object_size=16, method="grad-cam", target=target, layer=layer
    )


def test_grad_cam_of_tokens_is_that_of_their_grid(vit):
    from elsewhere.analyzer.attribution.batches import Batch

    name = "encoder.layers.encoder_layer_1.ln_1"
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    one = explainer(vit, name)
    maps = one.maps(Batch(images, images, [(0, 0)] * 2, [0, 0]))
    assert maps.shape == (2, 1, 64, 64)
    kept = []
    module = vit.module.get_submodule(name)
    handle = module.register_forward_hook(lambda _, __, output: kept.append(output))
    slope = torch.autograd.grad(vit.module(images)[:, 0].sum(), kept[0])[0]
    handle.remove()
    grid, slopes = (each[:, 1:].reshape(2, 8, 8, -1) for each in (kept[0], slope))
    cam = (slopes.mean((1, 2), keepdim=True) * grid).sum(3).detach()
    assert float(cam.abs().max()) > 0
    larger = torch.nn.functional.interpolate(cam[:, None], (64, 64), mode="bilinear")
    torch.testing.assert_close(maps, larger, rtol=1e-4, atol=1e-6)


def test_grad_cam_where_only_the_class_token_is_read(vit):
    from elsewhere.analyzer.attribution.batches import Batch

    images = torch.rand(1, 3, 64, 64)
    with pytest.raises(LayerError, match="no place of 'encoder.ln'"):
        explainer(vit, "encoder.ln").maps(Batch(images, images, [(0, 0)], [0]))


# --- what cannot be


def test_bad_choices(vit, make_objects, model):
    layers = found(vit, 64)
    with pytest.raises(UnknownNameError, match="part of the tokens"):
        take_tokens([layers["encoder.ln"]], "head")
    with pytest.raises(LayerError, match="65 tokens without registers; take --tokens all"):
        take_tokens([layers["encoder.ln"]], "registers")
    with pytest.raises(LayerError, match="none of the layers gives tokens"):
        take_tokens(list(found(model).values()), "grid")
    assert take_tokens([layers["encoder.ln"], layers["logits"]], "class")[1] == layers["logits"]


@pytest.mark.parametrize(
    "change",
    [{"first": 60}, {"part": "cls"}, {"class_token": 99}, {"axis": 3}, {"height": -1}, {"odd": 1}],
)
def test_tokens_of_a_file_that_cannot_be(change):
    facts = Tokens(65, 1, 8, 8, class_token=0).facts
    assert Tokens.from_facts(facts) == Tokens(65, 1, 8, 8, class_token=0)
    with pytest.raises((ValueError, TypeError)):
        Tokens.from_facts(facts | change)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("rows", [True, False])
def test_parts_of_arrays_are_those_of_tensors(axis, rows):
    tokens = Tokens(8, 2, 2, 3, by_rows=rows, class_token=0, axis=axis)
    values = np.arange(80.0).reshape(2, *((8, 5) if axis == 0 else (5, 8)))
    plain = values if axis == 0 else values.swapaxes(1, 2)
    grid = plain[:, 2:].reshape(2, 2, 3, 5) if rows else plain[:, 2:].reshape(2, 3, 2, 5)
    expected = {
        "all": values,
        "class": plain[:, 0],
        "registers": plain[:, [1]],
        "grid": grid if rows else grid.transpose(0, 2, 1, 3),
    }
    for part, array in expected.items():
        chosen = tokens.of(part)
        for given in (values, torch.from_numpy(values)):
            np.testing.assert_array_equal(np.asarray(chosen.take(given)), array)
        assert chosen.shape(5) == array.shape[1:]


def test_a_grid_s_map_has_channels_first(vit):
    layer = found(vit, 64)["encoder.ln"]
    values = np.random.default_rng(0).normal(size=(2, *layer.shape))
    maps = maps_from(values, layer)
    assert maps.shape == (2, 32, 8, 8)
    assert maps[1, 4, 2, 3] == values[1, 1 + 2 * 8 + 3, 4]


def test_input_error_is_one_line(vit, make_objects):
    with pytest.raises(InputError, match="needs a layer and none was given"):
        explainer(vit, None)


def test_the_functions_of_python_take_a_part(vit):
    shown = {"objects": "novel", "categories": 2, "grid": "at:16,16;16,24", "object_size": 16}
    result = elsewhere.similarity(vit, layers="encoder.ln", tokens="class", **shown)
    assert result["kept"].values.tolist() == ["class"]
