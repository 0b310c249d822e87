"""Networks in memory, and factories in files of Python."""

import sys

import numpy as np
import pytest
import torch
from torch import nn

import elsewhere
from elsewhere.errors import ElsewhereError, InputError
from elsewhere.models import load_model
from elsewhere.models.names import check_named
from elsewhere.recording import Sweep
from elsewhere.stimuli import Canvas, load_objects
from elsewhere.storage import open_recording

FILE = """
import torch
from torch import nn
from besides import WIDTH

class Net(nn.Module):
    def __init__(self, classes=3):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, WIDTH, 3), nn.ReLU(), nn.Flatten())
        self.head = nn.Linear(WIDTH * 18 * 18, classes)
        self.canvas_size = 20
    def forward(self, values):
        return self.head(self.body(values))

SIZE = 3
"""


class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))

    def forward(self, values):
        return self.head(self.body(values))


@pytest.fixture
def network():
    torch.manual_seed(0)
    return Own().train()


@pytest.fixture
def shown():
    return load_objects("glyphs", size=8, categories=3)


SCENE = {"canvas": Canvas(20, 8, 30), "grid": "2x2"}


@pytest.mark.parametrize("wrap", [lambda n: n, nn.DataParallel, torch.compile])
def test_a_network_in_memory_is_swept_as_plain_torch_runs_it(network, shown, tmp_path, wrap):
    state = {name: value.clone() for name, value in network.state_dict().items()}
    path = elsewhere.record(
        wrap(network), tmp_path / "r.h5", objects=shown, layers="head.2", engine="dense", **SCENE
    )
    with open_recording(path) as recording:
        facts, layer = recording.attributes, recording.layers[0].name
        (block, *_) = recording.blocks(recording.layers[0], "grid")
        place = recording.design.positions[block.positions[0]]
        values, number = block.values[0], block.objects[0]
    assert (facts["model"], facts["weights"], layer) == ("Own", "in memory", "logits")
    assert any("the network Own does not state its input" in note for note in facts["notes"])
    color = SCENE["canvas"].background_color()
    pixels = SCENE["canvas"].paste(shown.patches(color)[[number]], [tuple(place)], color)
    batch = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255
    assert network.training  # found and left in training mode
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    with torch.no_grad():
        expected = network.eval()(batch)[0].numpy()
    np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-6)


def test_every_entry_takes_a_network(network, shown):
    names = [layer.name for layer in elsewhere.list_layers(network, 20)]
    assert names == ["body.0", "body.1", "body.2", "head.0", "head.1", "logits"]
    assert Sweep(network, shown, layers="logits", **SCENE).model.module is network
    model = load_model(network, transform="imagenet")
    assert model.notes == ()
    assert Sweep(model, shown, **SCENE).provenance["mean"] == [0.485, 0.456, 0.406]
    assert elsewhere.list_layers(nn.Conv2d(3, 2, 1), 8)[0].name == "0"
    assert not any(part._forward_hooks for part in network.modules())


def test_a_network_that_learns_is_another_recording(network, shown, tmp_path):
    for _ in range(2):
        elsewhere.record(network, tmp_path / "r.h5", objects=shown, **SCENE)
    with torch.no_grad():
        network.head[2].bias += 1
    with pytest.raises(ElsewhereError, match="state"):
        elsewhere.record(network, tmp_path / "r.h5", objects=shown, **SCENE)


def test_what_makes_no_sense_of_a_network_is_refused(network, shown, tmp_path):
    for asked in ({"model_args": {"a": 1}}, {"weights": "imagenet"}):
        with pytest.raises(InputError, match="in memory"):
            load_model(network, **asked)
    with pytest.raises(InputError, match="objects="):
        elsewhere.record(network, tmp_path / "r.h5")
    sweep = Sweep(network, shown, **SCENE)
    with pytest.raises(InputError, match="has its own objects, grid"):
        elsewhere.record(sweep, tmp_path / "r.h5", objects=shown, grid="2x2")
    with pytest.raises(InputError, match="expected a torch.nn.Module"):
        load_model(network.state_dict())


def test_lightning_prefixes_are_taken_off_and_said(network, tmp_path):
    state = network.state_dict()
    for prefix in ("model.", "net.", "module.model.", "_orig_mod.model."):
        held = {f"{prefix}{name}": value for name, value in state.items()}
        held["criterion.weight"] = torch.ones(5)
        saved = {"epoch": 1, "state_dict": held, "hyper_parameters": {"lr": 0.1},
                 "pytorch-lightning_version": "2.4.0", "optimizer_states": []}  # fmt: skip
        torch.save(saved, tmp_path / "last.ckpt")
        other = Own()
        model = load_model(other, weights=str(tmp_path / "last.ckpt"))
        assert torch.equal(other.head[2].weight, network.head[2].weight)
        assert model.weights == "last.ckpt"
        assert f"the prefix {prefix!r} of its names was taken off" in model.notes[0]
        assert "1 other key " in model.notes[0]


# --- files of Python


@pytest.fixture
def file(tmp_path, monkeypatch):
    folder = tmp_path / "far" / "away"
    folder.mkdir(parents=True)
    (folder / "own_nets.py").write_text(FILE)
    (folder / "besides.py").write_text("WIDTH = 2\n")
    monkeypatch.chdir(tmp_path)
    yield "far/away/own_nets.py"
    for name in [n for n in sys.modules if n.startswith(("own_nets", "besides"))]:
        del sys.modules[name]


def test_a_factory_in_a_file_is_built(file, tmp_path, monkeypatch):
    model = load_model(f"{file}:Net", model_args={"classes": 4}, transform="unit")
    assert model.name == f"{file}:Net"
    assert model.module.head.out_features == 4
    assert model.notes == ()
    assert type(model.module) is sys.modules["own_nets"].Net
    path = [entry for entry in sys.path if "away" in entry]
    assert path == []
    # another file of that name, in the same process
    (tmp_path / "own_nets.py").write_text(FILE.replace("classes=3", "classes=6"))
    (tmp_path / "besides.py").write_text("WIDTH = 2\n")
    other = load_model("./own_nets.py:Net", transform="unit")
    assert other.module.head.out_features == 6
    # and one that is called like a module of Python's own
    (tmp_path / "random.py").write_text(FILE)
    assert load_model("random.py:Net", transform="unit").module.head.out_features == 3


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("far/none.py:Net", "no file far/none.py"),
        ("far/away:Net", "expected path/to/file.py"),
        ("far/away/own_nets.py:Nett", "nearest: Net"),
        ("far/away/own_nets.py:SIZE", "expected a function that returns a network"),
        ("far/away/broken.py:Net", "importing far/away/broken.py failed: ZeroDivisionError"),
        ("far/away/lacking.py:Net", "No module named 'nowhere_at_all'"),
        ("far/away/shell.py:system", "expected a function that returns a network"),
        ("far/away/own_nets.py", "path/to/file.py:factory"),
    ],
)
def test_a_file_that_is_no_factory_is_refused(file, tmp_path, name, said):
    for stem, text in {"broken": "1 / 0", "lacking": "import nowhere_at_all",
                       "shell": "from os import system"}.items():  # fmt: skip
        (tmp_path / f"far/away/{stem}.py").write_text(text)
    with pytest.raises(ElsewhereError, match=said):
        load_model(name)
    assert not {"broken", "lacking"} & set(sys.modules)


def test_a_file_is_built_only_where_the_user_names_it(file):
    with pytest.raises(InputError, match=f"--trust-factory {file}:Net"):
        check_named(f"{file}:Net", "run.h5", [])
    check_named(f"{file}:Net", "run.h5", [f"{file}:Net"])


def test_a_scripted_part_of_a_network_is_named():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), torch.jit.script(nn.ReLU()))
    with pytest.raises(InputError, match="a network whose part 1 is TorchScript"):
        load_model(network)
    with pytest.raises(InputError, match="returned a network of TorchScript"):
        load_model(torch.jit.script(nn.Sequential(nn.Conv2d(3, 4, 3))))
