"""Networks on the command line: weights of all kinds, own factories, seeds, inputs."""

import pickle
import sys

import pytest
import torch
from safetensors.torch import save_file

from elsewhere.models import load_model
from elsewhere.storage import open_recording


@pytest.fixture(scope="module")
def state():
    return load_model("small-cnn", seed=5).module.state_dict()


@pytest.fixture
def save(here, state):
    """Return a function that writes the state, changed, to a file."""

    def write(name, change=None):
        changed = {key: value.clone() for key, value in state.items()}
        if change is not None:
            change(changed)
        writer = save_file if name.endswith(".safetensors") else torch.save
        writer(changed, here / name)

    return write


def header(run, path):
    return run("inspect", path, "--json").json["attributes"]


# --- weights that are refused ----------------------------------------------------------------


def test_weights_that_do_not_fit(save, refuse, small):
    def reshape(state):
        state["classifier.6.weight"] = torch.zeros(5, 256)
        state["extra.bias"] = torch.zeros(1)

    save("other.pth", reshape)
    common = ("record", *small, "--out", "a.h5", "--weights")
    refuse(*common, "other.pth", says=("other.pth", "classifier.6.weight", "extra.bias"))
    refuse(*common, "other.pth", "--partial-weights", says="classifier.6.weight")
    refuse(*common, "missing.pth", says=("missing.pth", "no weights file"))


@pytest.mark.parametrize("name", ["net.pth", "net.safetensors"])
def test_truncated_weights(name, save, refuse, here, small):
    save(name)
    data = (here / name).read_bytes()
    for count in (len(data) // 2, 5, 0):
        (here / name).write_bytes(data[:count])
        refuse("record", *small, "--weights", name, "--out", "a.h5", says=(name, "damaged"))


class _Opens:
    def __reduce__(self):
        return open, ("was-run", "w")


def test_weights_that_hold_code_are_never_run(refuse, here, small):
    torch.save({"features.0.weight": _Opens()}, here / "evil.pth")
    (here / "plain.pth").write_bytes(pickle.dumps(_Opens()))
    for name in ("evil.pth", "plain.pth"):
        refuse("record", *small, "--weights", name, "--out", "a.h5", says=name)
        refuse("layers", "small-cnn", "--weights", name, says=name)
    assert not (here / "was-run").exists()


def test_a_trunk_needs_the_flag(save, refuse, run, small):
    def behead(state):
        for key in [key for key in state if key.startswith("classifier")]:
            del state[key]

    save("trunk.pth", behead)
    common = ("record", *small, "--layers", "pool4", "--weights", "trunk.pth", "--out", "a.h5")
    refuse(*common, says=("missing", "classifier.0.weight", "partial"))
    outcome = run(*common, "--partial-weights")
    for key in ("classifier.0.weight", "classifier.6.bias"):
        assert key in outcome.err
    assert "features.0.weight" not in outcome.err
    found = header(run, "a.h5")
    assert found["random_keys"][0] == "classifier.0.weight"
    assert len(found["random_keys"]) == 6


def test_nan_is_named_by_layer_and_nothing_stays(save, refuse, small):
    def overflow(state):
        state["classifier.3.weight"][7] = 3e38
        state["classifier.3.weight"][7, ::2] = -3e38

    def spoil(state):
        state["classifier.3.bias"][7] = float("nan")

    save("large.pth", overflow)
    save("nan.pth", spoil)
    for command, out in (("record", "a.h5"), ("similarity", "a.nc")):
        options = (*small, "--layers", "*", "--out", out)
        refuse(command, *options, "--weights", "large.pth", says=("'fc6'", "NaN"), late=True)
        refuse(command, *options, "--weights", "nan.pth", says=("classifier.3.bias", "not finite"))


def test_float16_overflow(refuse, small):
    options = (*small, "--gain", "1e6", "--dtype", "float16")
    refuse("record", *options, "--out", "a.h5", says=("float16", "--dtype float32"), late=True)


# --- weights that are taken ------------------------------------------------------------------


def test_the_same_state_from_both_formats(save, run, small):
    save("net.pth")
    save("net.safetensors")
    common = ("record", *small, "--layers", "fc6", "--weights")
    run(*common, "net.pth", "--out", "a.h5")
    run(*common, "net.safetensors", "--out", "b.h5")
    first, second = header(run, "a.h5"), header(run, "b.h5")
    assert first["weights"] == "net.pth"
    assert first["weights_sha256"] == second["weights_sha256"]
    with open_recording("a.h5") as one, open_recording("b.h5") as two:
        assert (one["fc6"].values == two["fc6"].values).all()


def test_the_seed_draws_the_weights(run, small, made):
    run("record", *small, "--seed", 1, "--layers", "logits", "--device", "cpu", "--out", "a.h5")
    plain, other = header(run, made[0]), header(run, "a.h5")
    assert (plain["seed"], other["seed"]) == (0, 1)
    assert plain["weights_sha256"] != other["weights_sha256"]
    assert load_model("small-cnn", seed=0).weights_sha256 == plain["weights_sha256"]
    assert load_model("small-cnn", seed=1).weights_sha256 == other["weights_sha256"]
    assert other["numerics"]["device"] == "cpu"


def test_the_input_is_recorded(run, small):
    run("record", *small, "--layers", "logits", "--gain", "2.5", "--input-mean", "0.4,0.5,0.6",
        "--input-std", "0.25", "--background", "mean", "--out", "a.h5")  # fmt: skip
    found = header(run, "a.h5")
    assert found["gain"] == 2.5
    assert found["mean"] == [0.4, 0.5, 0.6]
    assert found["std"] == [0.25] * 3
    assert found["background"] == [102, 128, 153]
    run("record", *small, "--layers", "logits", "--background", "#0a141e", "--out", "b.h5")
    assert header(run, "b.h5")["background"] == [10, 20, 30]


# --- a network of one's own ------------------------------------------------------------------

FACTORY = """
from torch import nn

def build(width=4):
    return nn.Sequential(nn.Conv2d(3, width, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(2),
                         nn.Flatten(), nn.Linear(4 * width, 5))

def fail():
    raise RuntimeError("no such luck")

number = 3
"""


@pytest.fixture
def factory(here, monkeypatch):
    """A module `nets_of_mine.small` in the current directory."""
    package = here / "nets_of_mine"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "small.py").write_text(FACTORY)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield "nets_of_mine.small"
    for name in ("nets_of_mine", "nets_of_mine.small"):
        sys.modules.pop(name, None)


def test_a_factory_in_the_current_directory(run, factory):
    rows = run("layers", f"{factory}:build", "--canvas", 32, "--json").json
    assert [row["shape"] for row in rows][:2] == [[4, 15, 15], [4, 15, 15]]
    common = (f"{factory}:build", "--canvas", 32, "--objects", "novel", "--categories", 2,
              "--grid", "1x3")  # fmt: skip
    run("record", *common, "--model-arg", "width=6", "--layers", "0,4", "--out", "a.h5")
    found = run("inspect", "a.h5", "--json").json
    assert [(row["layer"], row["shape"]) for row in found["layers"]] == [
        ("0", [6, 15, 15]),
        ("logits", [5]),
    ]
    assert found["attributes"]["model"] == f"{factory}:build"
    assert found["attributes"]["model_arguments"] == {"width": 6}


def test_a_factory_that_does_not_work(refuse, factory):
    refuse("layers", f"{factory}:bild", says=("bild", "nearest: build"))
    refuse("layers", f"{factory}:fail", says=("RuntimeError", "no such luck"))
    refuse("layers", f"{factory}:number", says="expected a function")
    refuse("layers", f"{factory}:build", "--model-arg", "depth=2", says=("depth", "width"))
    refuse("layers", "nets_of_mine.large:build", says="nets_of_mine.large")


def test_a_head_of_a_network_without_weights_is_not_said_to_be_missing(run):
    shown = run("layers", "resnet18-slim", "--model-arg", "readout=flatten", "--canvas", "64")
    assert "left random" not in shown.out + shown.err


def test_blue_first_with_any_mean(run, small):
    stated = ("--input-mean", "0.1,0.2,0.3", "--gain", "0.5", "--channels", "bgr")
    run("record", *small, *stated, "--out", "bgr.h5")
    facts = header(run, "bgr.h5")
    assert facts["channels"] == "bgr"
    assert facts["mean"] == [0.1, 0.2, 0.3]
    assert facts["gain"] == 0.5


def test_an_order_of_channels_beside_a_named_input_is_refused(refuse, small):
    refuse("record", *small, "--channels", "gbr", "--out", "a.h5", says="rgb")
    given = ("--input", "caffe-bgr", "--channels", "rgb")
    refuse("record", *small, *given, "--out", "a.h5", says="--channels")


def test_a_head_on_the_last_map_says_for_which_canvas_it_was_built(refuse):
    flat = ("resnet18-slim", "--model-arg", "readout=flatten", "--objects", "novel")
    refuse("similarity", *flat, "--canvas", "32", "--out", "a.nc", says="--model-arg canvas=32")
