"""Networks and names that are not as most are: types, channels, sides, compilers, attention."""

import json
import logging
import os

import numpy as np
import pytest
import torch
from PIL import Image

from elsewhere.models import load_model
from elsewhere.stimuli import load_objects
from elsewhere.storage import load_result, open_recording

NETWORKS = """
import torch
from torch import nn


def plain(channels=3, units=4):
    network = nn.Sequential(
        nn.Conv2d(channels, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(4, units),
    )
    network.canvas_size = 24
    return network


def gray():
    return plain(1)


def double():
    return plain().double()


def half():
    return plain().bfloat16()


def oblong():
    network = nn.Sequential(nn.Conv2d(3, 2, 3, padding=1), nn.Flatten(), nn.Linear(2 * 24 * 36, 4))
    network.canvas_size = 24
    return network


def stated():
    network = nn.Sequential(nn.Conv2d(3, 2, 3, padding=1), nn.Flatten(), nn.Linear(2 * 10 * 37, 4))
    network.canvas_size, network.img_size = 24, (3, 10, 37)
    return network


class Wrapped(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network, self.canvas_size = network, 24

    def forward(self, x):
        return self.network(x)


class Gray(Wrapped):
    def forward(self, x):
        return self.network(x.mean(1, keepdim=True))


def remedied():
    return Gray(gray())


def uncompiled():
    return Wrapped(nn.Sequential(plain()))


def compiled():
    return Wrapped(nn.Sequential(torch.compile(plain())))


def in_place():
    network = uncompiled()
    network.network.compile()
    return network


def method():
    network = uncompiled()
    network.network.forward = torch.compile(network.network.forward)
    return network


class Attending(nn.Module):
    def __init__(self):
        super().__init__()
        self.patch, self.canvas_size = nn.Conv2d(3, 8, 6, 6), 24
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        tokens = self.patch(x).flatten(2).transpose(1, 2)
        return self.head(self.attention(tokens, tokens, tokens, need_weights=False)[0].mean(1))


class Mixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.relu, self.head = nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Linear(6, 3)
        self.canvas_size = 24

    def forward(self, x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.head(self.relu(self.conv(x)).mean((2, 3)))


class strict(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.canvas_size = nn.Conv2d(3, 4, 3), 24

    def forward(self, x):
        assert x.shape[-1] == 36, "wrong image size"
        return self.conv(x)


class Low(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.canvas_size = plain().bfloat16(), 24

    def forward(self, x):
        return self.inner(x.bfloat16())
"""
SHOWN = ("--objects", "glyphs", "--categories", "3", "--object-size", "8", "--canvas", "24",
         "--grid", "2x2")  # fmt: skip


@pytest.fixture
def nets(here, monkeypatch):
    (here / "unusualnets.py").write_text(NETWORKS)
    monkeypatch.syspath_prepend(str(here))
    return here


@pytest.mark.parametrize("command", ["record", "similarity", "measure", "probe", "attribute"])
@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("gray", ("images of 1 channel,", "have 3", "x.mean(1, keepdim=True)")),
        ("double", ("weights are float64", "network.float()")),
        ("half", ("weights are bfloat16", "network.float()")),
        ("oblong", ("36 x 24 px", "canvas is square", "pads, crops or resizes")),
        ("stated", ("10 x 37 px", "canvas is square")),
        ("strict", ("wrong image size", "try another --canvas, such as 36")),
    ],
)
def test_what_a_network_expects_is_named(nets, refuse, command, name, says):
    more = ("--names", "cosine") if command == "measure" else ()
    refuse(command, f"unusualnets:{name}", *SHOWN, *more, "--out", "a.out", says=says)


def test_the_remedy_for_one_channel_works(nets, run):
    run("record", "unusualnets:remedied", *SHOWN, "--layers", "*", "--out", "a.h5")


def test_compiled_parts_are_looked_into(nets, run, refuse):
    names = [f"network.0.{n}" for n in range(4)] + ["logits"]
    options = ("--layers", "network.0.1", "--device", "cpu", "--out")
    values = []
    for name in ("uncompiled", "compiled", "in_place"):
        listed = run("layers", f"unusualnets:{name}").out
        assert all(each in listed for each in names if each != "network.0.3"), name
        run("record", f"unusualnets:{name}", *SHOWN, *options, f"{name}.h5")
        with open_recording(f"{name}.h5") as recording:
            values.append(recording["network.0.1"].values)
    assert np.array_equal(values[0], values[1])
    assert np.array_equal(values[0], values[2])
    refuse("layers", "unusualnets:method", says=("forward method of network", "torch.compile"))


def test_a_state_of_compiled_parts_fits(nets, run):
    import unusualnets

    torch.manual_seed(7)
    network = unusualnets.compiled()
    state = network.state_dict()
    assert all("_orig_mod" in key for key in state)
    torch.save(state, "state.pth")
    model = load_model("unusualnets:compiled", weights="state.pth")
    ours = list(model.module.state_dict().values())
    assert all(map(torch.equal, ours, state.values()))


@pytest.mark.parametrize("layer", ["attention", "attention[0]"])
def test_attention_without_weights_is_planned_as_it_is_recorded(nets, run, layer):
    options = ("unusualnets:Attending", *SHOWN, "--layers", "attention")
    planned = run("plan", *options).out
    assert "1 layer" in planned or "attention" in planned
    run("record", *options, "--device", "cpu", "--out", "a.h5")
    with open_recording("a.h5") as recording:
        (name,) = list(recording)
        assert recording[name].values.shape[-2:] == (16, 8)


@pytest.mark.parametrize("name", ["Mixed", "Low"])
def test_networks_of_low_precision(nets, run, name):
    network = f"unusualnets:{name}"
    layers = ("--layers", "relu" if name == "Mixed" else "inner.1")
    run("record", network, *SHOWN, "--layers", "*", "--device", "cpu", "--out", "a.h5")
    model = load_model(network)
    kept = []
    part = model.module.relu if name == "Mixed" else model.module.inner[1]
    part.register_forward_hook(lambda _, given, output: kept.append(output.float().numpy()))
    with open_recording("a.h5") as recording, torch.inference_mode():
        values = recording[layers[1]].values
        model.module(torch.zeros(1, 3, 24, 24))
        assert values.dtype == np.float32
        assert values.shape[-3:] == kept[0].shape[1:]
        # each number is one that bfloat16 has
        assert np.array_equal(values, torch.tensor(values).bfloat16().float().numpy())
    run("similarity", "a.h5", *layers, "--out", "recorded.nc")
    run("similarity", network, *SHOWN, *layers, "--out", "live.nc")
    recorded, live = load_result("recorded.nc"), load_result("live.nc")
    np.testing.assert_allclose(recorded["cosine_G_away"], live["cosine_G_away"], atol=1e-6)
    run("measure", network, *SHOWN, *layers, "--names", "cosine", "--out", "m.nc")
    run("probe", network, *SHOWN, *layers, "--out", "p.nc")


@pytest.fixture
def odd(here):
    """A folder and a picture in it whose names are not UTF-8."""
    name = os.fsencode(here) + b"/caf\xe9"
    try:
        os.mkdir(name)
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    for number, file in enumerate((b"a\xe9.png", b"b.png", b"c.png")):
        pixels = np.random.default_rng(number).integers(0, 255, (12, 12, 3), dtype=np.uint8)
        with open(name + b"/" + file, "wb") as opened:
            Image.fromarray(pixels).save(opened, "PNG")
    return os.fsdecode(name)


TINY = ("small-cnn", "--model-arg", "channels=4-8", "--model-arg", "canvas=24")


def test_names_that_are_not_utf8(odd, run, refuse):
    shown = ("--objects", f"folder:{odd}", "--object-size", "8", "--canvas", "24", "--grid", "2x2")
    run("plan", *TINY, *shown)
    run("record", *TINY, *shown, "--layers", "fc3", "--out", f"{odd}/x.h5")
    run("inspect", f"{odd}/x.h5")
    assert r"caf\udce9" in json.dumps(run("inspect", f"{odd}/x.h5", "--json").json)
    run("verify", f"{odd}/x.h5")
    with open_recording(f"{odd}/x.h5") as recording:
        ids = [str(each) for each in recording["fc3"]["object"].values]
        assert ids == [r"a\udce9.png", "b.png", "c.png"]
    for source in ((f"{odd}/x.h5",), (*TINY, *shown)):
        run("similarity", *source, "--layers", "fc3", "--out", f"{odd}/s.nc", "--overwrite")
    run("measure", f"{odd}/x.h5", "--names", "cosine", "--out", f"{odd}/m.nc")
    run("table", f"{odd}/s.nc", "--out", f"{odd}/s.csv")
    run("figure", f"{odd}/s.nc", "--out", f"{odd}/s.png")
    run("methods", f"{odd}/s.nc", "--out", f"{odd}/methods.md")
    missing = ("--objects", f"folder:{odd}/none", *shown[2:])
    refuse("record", *TINY, *missing, "--out", "y.h5", says=(r"caf\udce9/none", "missing"))
    digits = ("--objects", "mnist", *shown[2:], "--data-dir", odd, "--out", "y.h5")
    refuse("record", *TINY, *digits, says=(r"caf\udce9", "no mnist"))


def test_categories_that_are_not_utf8_are_chosen_by_the_name_that_is_shown(odd):
    folder = os.fsencode(odd)
    for name, picture in ((b"x", b"b.png"), (b"y\xe9", b"c.png")):
        os.mkdir(folder + b"/" + name)
        os.rename(folder + b"/" + picture, folder + b"/" + name + b"/1.png")
    shown = load_objects(f"folder:{odd}", size=8).category_names
    assert list(shown) == ["x", r"y\udce9"]
    chosen = load_objects(f"folder:{odd}", size=8, categories=shown[1:])
    assert chosen.categories == (r"y\udce9",)


def test_warnings_name_files_in_text_that_any_log_can_hold(odd, tmp_path):
    os.mkdir(os.fsencode(odd) + b"/y\xe9")
    for name in (b"1.png", b"2.png"):
        with open(os.fsencode(odd) + b"/y\xe9/" + name, "wb") as opened:
            opened.write((os.fsencode(odd) + b"/b.png") if name == b"1.png" else b"")
    os.rename(os.fsencode(odd) + b"/b.png", os.fsencode(odd) + b"/y\xe9/3.png")
    log = logging.FileHandler(tmp_path / "log", encoding="utf-8", errors="strict")
    logging.getLogger("elsewhere").addHandler(log)
    try:
        load_objects(f"folder:{odd}", size=8, skip_broken=True)
    finally:
        logging.getLogger("elsewhere").removeHandler(log)
        log.close()
    lines = (tmp_path / "log").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 3, lines
    assert all(r"caf\udce9" in line for line in lines)
