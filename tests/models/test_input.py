"""Inputs by name, what is assumed where none is stated, and scales that cannot be right."""

import copy
import subprocess
import sys

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from elsewhere.errors import InputError, UnknownNameError
from elsewhere.models import InputTransform, load_model
from elsewhere.models.transform import CONVENTIONS
from elsewhere.recording import Sweep, record
from elsewhere.stimuli import Canvas, load_objects

NETWORKS = """
import torch
from torch import nn

def plain():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 18**2, 5))
    network.canvas_size = 20
    return network

def configured():
    network = plain()
    network.pretrained_cfg = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.2, 0.2), "tag": "x"}
    return network

def wrapped():
    return nn.Sequential(configured(), nn.Identity())
"""


@pytest.fixture
def factories(tmp_path, monkeypatch):
    (tmp_path / "input_nets.py").write_text(NETWORKS)
    monkeypatch.chdir(tmp_path)
    return "input_nets"


@pytest.mark.parametrize("name", CONVENTIONS)
def test_each_convention_is_what_its_source_computes(name):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (2, 5, 4, 3), np.uint8)
    red_first = pixels.astype(np.float64).transpose(0, 3, 1, 2)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    column = {"imagenet": (mean, std), "caffe": ((103.939, 116.779, 123.68), (1, 1, 1))}
    parts = {key: [np.reshape(v, (3, 1, 1)) for v in each] for key, each in column.items()}
    expected = {
        "imagenet": (red_first / 255 - parts["imagenet"][0]) / parts["imagenet"][1],
        "caffe-bgr": red_first[:, ::-1] - parts["caffe"][0],
        "inception": red_first / 127.5 - 1,
        "unit": red_first / 255,
    }[name]
    given = CONVENTIONS[name].apply(torch.from_numpy(pixels))
    assert given.is_contiguous()
    np.testing.assert_allclose(given.numpy(), expected, rtol=1e-5, atol=2e-5)


def test_bgr_weights_give_what_the_same_weights_for_rgb_give(factories):
    rgb = load_model(f"{factories}:plain", transform="unit")
    bgr = load_model(f"{factories}:plain", transform="caffe-bgr")
    other = CONVENTIONS["caffe-bgr"]
    with torch.no_grad():  # the same function of pixels, for another input
        weight, bias = (copy.deepcopy(each) for each in rgb.module[0].parameters())
        bgr.module[0].weight.copy_(weight.flip(1) / 255)
        shift = (weight.sum((2, 3)) * torch.tensor(other.mean)).sum(1)
        bgr.module[0].bias.copy_(bias + shift)
    pixels = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (3, 20, 20, 3), np.uint8))
    with torch.no_grad():
        one, two = (each.module(each.transform.apply(pixels)) for each in (rgb, bgr))
    torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)


def test_the_order_of_channels_is_part_of_what_is_stored(factories, tmp_path):
    facts = {}
    for name in ("unit", "caffe-bgr"):
        model = load_model(f"{factories}:plain", transform=name)
        objects = load_objects("glyphs", size=8, categories=2)
        sweep = Sweep(model, objects, canvas=Canvas(20, 8), grid="2x2")
        with h5py.File(record(sweep, tmp_path / f"{name}.h5")) as file:
            facts[name] = dict(file.attrs)
    assert "channels" not in facts["unit"]
    assert facts["caffe-bgr"]["channels"] == "bgr"
    assert '"channels": "bgr"' in facts["caffe-bgr"]["identity_fields"]
    assert InputTransform.of({"mean": (0, 0, 0), "std": (1, 1, 1), "gain": 1}) == InputTransform()
    assert InputTransform.of(CONVENTIONS["caffe-bgr"].facts) == CONVENTIONS["caffe-bgr"]


def test_what_a_factory_does_not_state_is_said(factories):
    (note,) = load_model(f"{factories}:plain").notes
    assert "does not state its input: unit" in note
    assert "--input" in note
    own = load_model(f"{factories}:configured")
    assert own.transform == InputTransform((0.5, 0.4, 0.3), (0.2, 0.2, 0.2))
    assert "pretrained_cfg" in own.notes[0]
    for name in ("configured", "wrapped"):
        named = load_model(f"{factories}:{name}", transform="timm")
        assert (named.transform, named.notes) == (own.transform, ())
    assert load_model(f"{factories}:plain", transform="unit").notes == ()
    (said,) = load_model(f"{factories}:configured", transform="imagenet").notes
    assert "says mean 0.5, 0.4, 0.3" in said
    with pytest.raises(InputError, match="no pretrained_cfg"):
        load_model(f"{factories}:plain", transform="timm")
    with pytest.raises(UnknownNameError, match="caffe-bgr"):
        load_model(f"{factories}:plain", transform="caffe")


class Learnt(nn.Module):
    """A convolution and a batch normalisation that have learnt pixels of a convention."""

    def __init__(self, transform):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
        noise = torch.from_numpy(np.random.default_rng(2).integers(0, 256, (8, 9, 9, 3), np.uint8))
        self.body[1].momentum = 1.0
        with torch.no_grad():
            self.body.train()(transform.apply(noise))

    def forward(self, values):
        return self.head(self.body(values))


def told(model):
    objects = load_objects("glyphs", size=8, categories=2)
    sweep = Sweep(model, objects, canvas=Canvas(20, 8), grid="2x2", engine="dense")
    return [note for note in sweep.notes if "SCALE" in note]


@pytest.mark.parametrize(
    ("learnt", "given", "said"),
    [
        ("imagenet", "imagenet", ""),
        ("imagenet", "unit", ""),
        ("caffe-bgr", "caffe-bgr", ""),
        ("imagenet", "caffe-bgr", "standard deviations away"),
        ("caffe-bgr", "unit", "varies over a picture"),
        ("unit", InputTransform(mean=(123.7, 116.8, 103.9)), "outside 0..1"),
        ("unit", InputTransform(std=(58.4, 57.1, 57.4)), "varies over a picture"),
    ],
)
def test_a_scale_that_is_far_off_is_said(learnt, given, said, monkeypatch):
    module = Learnt(CONVENTIONS[learnt]).eval()
    transform = CONVENTIONS[given] if isinstance(given, str) else given
    model = load_model("small-cnn", model_args={"canvas": 20}).running()
    object.__setattr__(model, "module", module)
    object.__setattr__(model, "transform", transform)
    object.__setattr__(model, "aliases", {})
    notes = told(model)
    assert bool(notes) == bool(said)
    assert all(said in note for note in notes)


def test_biases_that_drown_the_picture_are_said():
    """Without normalisation: a network that wants 0..255 is given 0..1."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU())
    with torch.no_grad():
        module[0].weight /= 255
        module[0].bias.fill_(1.0)
    model = load_model("small-cnn", model_args={"canvas": 20}).running()
    object.__setattr__(model, "module", module)
    object.__setattr__(model, "aliases", {})
    (note,) = told(model)
    assert "look alike" in note
    object.__setattr__(model, "transform", CONVENTIONS["caffe-bgr"])
    assert told(model) == []


def converted(convolution, source, wanted):
    """Make weights for one input do with another what they did: by hand, from the two formulas."""
    one, two = CONVENTIONS[source], CONVENTIONS[wanted]
    scale = [b / two.gain * one.gain / a for a, b in zip(one.std, two.std, strict=True)]
    shift = [
        (m - own) / std * one.gain for m, own, std in zip(two.mean, one.mean, one.std, strict=True)
    ]
    with torch.no_grad():
        weight = convolution.weight.clone()
        convolution.bias += (weight.sum((2, 3)) * torch.tensor(shift)).sum(1)
        weight = weight * torch.tensor(scale).view(1, 3, 1, 1)
        convolution.weight.copy_(weight.flip(1) if two.channels == "bgr" else weight)


@pytest.mark.parametrize("made", CONVENTIONS)
def test_weights_say_whether_their_input_is_another_by_their_biases(made):
    """Weights for 0..255 that are given less; nothing of those whose ranges are alike."""
    torch.manual_seed(1)
    module = nn.Sequential(nn.Conv2d(3, 8, 5, 2), nn.ReLU(), nn.Flatten(), nn.Linear(512, 4))
    converted(module[0], "unit", made)
    for given, transform in CONVENTIONS.items():
        notes = told(load_model(module, transform=transform))
        expected = made == "caffe-bgr" and given != "caffe-bgr"
        assert ["biases, which drown it" in note for note in notes] == [True] * expected


class Activated(nn.BatchNorm2d):
    """A normalisation with an activation in it, as timm's are."""

    def __init__(self, channels):
        super().__init__(channels)
        self.act = nn.ReLU()

    def forward(self, values):
        return self.act(super().forward(values))


def test_a_normalisation_that_has_parts_is_heard():
    module = Learnt(CONVENTIONS["imagenet"]).eval()
    inner = Activated(8)
    inner.load_state_dict(module.body[1].state_dict())
    module.body[1] = inner.eval()
    (note,) = told(load_model(module, transform="caffe-bgr"))
    assert "'body.1' lies" in note
    assert told(load_model(module, transform="imagenet")) == []


def test_python_hears_of_what_is_assumed(factories, caplog):
    model = load_model(f"{factories}:plain")
    (record,) = caplog.records
    assert "ASSUMED" in record.getMessage()
    assert record.noted
    assert any("ASSUMED" in note for note in model.notes)
    caplog.clear()
    load_model(f"{factories}:plain", transform="unit")
    assert not caplog.records


@pytest.mark.long
def test_commands_say_what_is_assumed_once(factories, tmp_path):
    asked = f"similarity {factories}:plain --objects glyphs --categories 2 --per-category 1"
    asked += " --object-size 8 --grid 2x2 --out s.nc"
    said = subprocess.run(
        [sys.executable, "-m", "elsewhere", *asked.split()],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 0, said.stderr
    assert said.stderr.count("ASSUMED") == 1


def test_weights_with_a_card_beside_them_are_said_to_be_a_checkpoint(tmp_path):
    small = {"channels": "4-8", "canvas": 16}
    save_file(
        load_model("small-cnn", model_args=small).module.state_dict(), tmp_path / "w.safetensors"
    )
    (tmp_path / "w.json").write_text("{}")
    model = load_model("small-cnn", model_args=small, weights=str(tmp_path / "w.safetensors"))
    assert any("name w.safetensors as the MODEL" in note for note in model.notes)
