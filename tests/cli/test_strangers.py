"""A file that came from somebody else runs no program: what it names is built if the user does."""

import json

import h5py
import pytest

from elsewhere.storage.merge import seal_recording
from elsewhere.storage.seal import seal_table

MODULE = """
from pathlib import Path
from subprocess import run
from torch import nn

Path("imported").touch()

class Net(nn.Sequential):
    def __init__(self, width=4):
        super().__init__(nn.Conv2d(3, width, 3, stride=2), nn.ReLU(), nn.Flatten(),
                         nn.Linear(width * 7 * 7, 3))
        self.canvas_size = 16

def build(width=4):
    Path("called").touch()
    return Net(width)

class Other:
    def __init__(self, **arguments):
        Path("called").touch()
"""

TOML = """
[network]
name = "strange:build"
[canvas]
size = 16
object_size = 7
[[phase]]
name = "learn"
objects = "glyphs"
categories = 3
exemplars = {train = 2, held_out = 1}
environment = "one"
steps = 2
batch = 4
checkpoints = 2
new_head = true
"""
TRUST = ("--trust-factory", "strange:build")
SAYS = ("strange:build", "--trust-factory strange:build")


@pytest.fixture
def strange(here, monkeypatch):
    """A module that leaves traces when it is imported, and when a part of it is called."""
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    (here / "strange.py").write_text(MODULE)
    (here / "strange.toml").write_text(TOML)
    yield here
    import sys

    sys.modules.pop("strange", None)


def no_trace(folder):
    return not (folder / "imported").exists() and not (folder / "called").exists()


def forget(folder):
    import sys

    sys.modules.pop("strange", None)
    for name in ("imported", "called"):
        (folder / name).unlink(missing_ok=True)


def test_a_curriculum_and_the_checkpoints_of_its_run(strange, run, refuse):
    refuse("train", "strange.toml", "--out", "run", says=("strange.toml", *SAYS), late=True)
    assert no_trace(strange)
    run("train", "strange.toml", "--out", "run", *TRUST)
    checkpoint = next((strange / "run" / "checkpoints").glob("learn-000002.safetensors"))
    forget(strange)
    sweep = ("--objects", "novel", "--categories", "3", "--grid", "2x2")
    commands = {
        "accuracy": ("accuracy", checkpoint, "--grid", "2x2", "--out", "a.nc"),
        "layers": ("layers", checkpoint),
        "plan": ("plan", checkpoint, *sweep),
        "record": ("record", checkpoint, *sweep, "--out", "r.h5"),
        "similarity": ("similarity", checkpoint, *sweep, "--out", "s.nc"),
        "probe": ("probe", checkpoint, *sweep, "--out", "p.nc"),
        "measure": ("measure", checkpoint, *sweep, "--names", "cosine", "--out", "m.nc"),
        "attribute": ("attribute", checkpoint, "--grid", "2x2", "--method", "saliency",
                      "--out", "at.nc"),
        "sanity": ("sanity", checkpoint, "--grid", "2x2", "--method", "saliency", "--target",
                   "logit:predicted", "--out", "sa.nc"),
        "track": ("track", "run", "--grid", "2x2", "--out", "t.nc"),
        "timeline": ("attribute", "--checkpoints", "run", "--grid", "2x2", "--method", "saliency",
                     "--out", "tl.nc"),
    }  # fmt: skip
    for name, command in commands.items():
        if name in ("track", "timeline"):  # these make their folder before they begin
            (strange / "run" / ("track" if name == "track" else "attribution")).mkdir()
        refuse(*command, says=(".json", *SAYS), late=True)
        assert no_trace(strange), name
    for name in ("layers", "accuracy", "track"):  # and with the user's word they go
        run(*commands[name], *TRUST)
        assert (strange / "called").exists()
        forget(strange)


def test_the_start_of_a_curriculum_may_name_another_factory_in_its_card(strange, run, refuse):
    run("train", "strange.toml", "--out", "run", *TRUST)
    card = next((strange / "run" / "checkpoints").glob("learn-000002.json"))
    table = json.loads(card.read_text()) | {"model": "strange:Other"}
    del table["seal"]
    card.write_text(json.dumps(seal_table(table)))
    forget(strange)
    weights = f'name = "small-cnn"\nweights = "{card.with_suffix(".safetensors")}"'
    (strange / "next.toml").write_text(TOML.replace('name = "strange:build"', weights))
    refuse("train", "next.toml", "--out", "next", says="strange:Other", late=True)
    refuse("train", "next.toml", "--out", "next", *TRUST, says="strange:Other", late=True)
    assert no_trace(strange)


def test_the_untrained_control_of_a_recording(strange, run):
    sweep = ("--objects", "novel", "--categories", "3", "--per-category", "2", "--grid", "2x2")
    run("record", "strange:build", *sweep, "--layers", "3", "--out", "r.h5")
    forget(strange)
    told = run("probe", "r.h5", "--train-at", "left", "--out", "p.nc")
    assert no_trace(strange)
    (line,) = [line for line in told.err.splitlines() if "strange:build" in line]
    assert "r.h5" in line
    assert "--trust-factory strange:build" in line
    trusted = run("probe", "r.h5", "--out", "q.nc", *TRUST)
    assert (strange / "called").exists()
    assert "strange:build" not in trusted.err


def test_a_recording_that_names_a_program(strange, run, made):
    """As a stranger makes it: sealed, and with arguments for the program."""
    path = strange / "run.h5"
    path.write_bytes(made[0].read_bytes())
    with h5py.File(path, "r+") as file:
        file.attrs["model"] = "os:system"
        file.attrs["model_arguments"] = json.dumps({"command": "touch called"})
    seal_recording(path)
    for trust in ((), ("--trust-factory", "os:system"), ("--trust-factory", "strange:run")):
        told = run("probe", "run.h5", "--overwrite", "--out", "p.nc", *trust)
        assert "os:system" in told.err
        assert no_trace(strange)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("os:system", "standard library"),
        ("subprocess:run", "standard library"),
        ("this:s", "standard library"),  # it would print a poem
        ("strange:run", "a function of subprocess, of Python's standard library"),
        ("strange:Path", "expected a function that returns a network"),
        ("strange:Other", "expected a function that returns a network"),
    ],
)
def test_what_is_named_must_build_networks(strange, refuse, name, says):
    (strange / "imported").touch()  # the user named the module
    refuse("layers", name, "--model-arg", "command=touch called", says=says)
    assert not (strange / "called").exists()
