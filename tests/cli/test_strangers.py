"""A file that came from somebody else runs no program: what it names is built if the user does."""

import json
import re

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
    (line,) = [line for line in told.err.splitlines() if "--trust-factory strange:build" in line]
    assert "r.h5" in line
    trusted = run("probe", "r.h5", "--out", "q.nc", *TRUST)
    assert (strange / "called").exists()
    assert "--trust-factory" not in trusted.err


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


# --- links within runs, numbers that make no sense, seals of whole folders ------------------------


def test_links_within_a_run_are_not_followed(strange, run, refuse):
    run("train", "strange.toml", "--out", "run", *TRUST)
    outside = strange / "outside"
    outside.mkdir()
    (outside / "file").write_text("precious")
    folder = strange / "run"
    for name in ("track", "attribution", "tensorboard"):
        (folder / name).symlink_to(outside)
    refuse("track", "run", "--grid", "2x2", *TRUST, "--out", "t.nc", says="is a link", late=True)
    refuse("attribute", "--checkpoints", "run", "--grid", "2x2", "--method", "saliency", *TRUST,
           "--out", "a.nc", says="is a link", late=True)  # fmt: skip
    for name in ("metrics.jsonl", "state.pt", "curriculum.json", "checkpoints"):
        other = strange / f"of-{name}"
        run("train", "strange.toml", "--out", other, *TRUST)
        if name == "checkpoints":
            (other / name).rename(strange / "elsewhere")
            (other / name).symlink_to(outside)
        else:
            (other / name).unlink()
            (other / name).symlink_to(outside / "file")
        if name != "state.pt":
            (other / "state.pt").unlink()  # it would begin anew, and write
        refuse("train", "strange.toml", "--out", other, *TRUST, says="is a link", late=True)
        assert not run_verify_ok(other)
    assert [path.name for path in outside.iterdir()] == ["file"]
    assert (outside / "file").read_text() == "precious"


def run_verify_ok(folder):
    from elsewhere.storage import verify

    return verify(folder).ok


@pytest.mark.parametrize("key", ["phase", "sha256", "step"])
def test_names_in_cards_are_checked_before_they_become_paths(strange, run, refuse, key):
    run("train", "strange.toml", "--out", "run", *TRUST)
    for card in (strange / "run" / "checkpoints").glob("*.json"):
        table = json.loads(card.read_text()) | {key: "../../../outside"}
        del table["seal"]
        card.write_text(json.dumps(seal_table(table)))
    (strange / "run" / "track").mkdir()
    (strange / "run" / "attribution").mkdir()
    refuse("track", "run", "--grid", "2x2", *TRUST, "--out", "t.nc", says=key, late=True)
    refuse("attribute", "--checkpoints", "run", "--grid", "2x2", "--method", "saliency", *TRUST,
           "--out", "a.nc", says=key, late=True)  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("batch = 4", "batch = 1000000000"),
        ("steps = 2", "steps = 10000000000000"),
        ("steps = 2", "epochs = 1e300"),
        ("checkpoints = 2", "checkpoints = 1000000000"),
        ("train = 2", "train = 1000000000"),
        ("size = 16", "size = 68719476736"),
        ("steps = 2", "steps = 2\nrates = " + "{a=" * 3000 + "1" + "}" * 3000),
        ("steps = 2", "steps = " + "[" * 100_000),
    ],
)
def test_curricula_of_absurd_numbers_and_depths(strange, refuse, old, new):
    (strange / "strange.toml").write_text(TOML.replace(old, new, 1))
    refuse("train", "strange.toml", "--out", "run", *TRUST, says="strange.toml", late=True)


def test_cards_that_are_something_else(strange, run, refuse):
    run("train", "strange.toml", "--out", "run", *TRUST)
    card = next((strange / "run" / "checkpoints").glob("learn-000002.json"))
    whole = json.loads(card.read_text())
    del whole["seal"]
    deep = "[" * 100_000 + "]" * 100_000
    nested = json.dumps(whole)[:-1] + ', "arguments2": ' + "[" * 400 + "]" * 400 + "}"
    for text in (deep, nested, "null", "3", json.dumps(whole), '{"elsewhere_encoding": 5}', "\xff",
                 json.dumps(seal_table(whole | {"gain": "much"})),
                 json.dumps(seal_table(whole | {"canvas": [1, 2]})),
                 json.dumps(seal_table(whole | {"arguments": {"width": 2**40}})),
                 json.dumps(seal_table(whole | {"trained": [[8, 8]] * 5000})),
                 json.dumps(whole | {"seal": "0" * 64})):  # fmt: skip
        card.write_text(text, encoding="latin-1")
        refuse("layers", card, *TRUST, says=card.stem, late=True)


def test_verify_takes_runs_and_everything_in_them(strange, run, refuse):
    run("train", "strange.toml", "--out", "run", *TRUST)
    run("track", "run", "--grid", "2x2", *TRUST, "--out", "t.nc")
    told = run("verify", "run")
    assert "a run of" in told.out
    assert "all as they were written" in told.out
    files = [path for path in (strange / "run").rglob("*.*") if path.is_file()]
    assert {path.suffix for path in files} == {".json", ".safetensors", ".pt", ".jsonl", ".nc"}
    # one of each kind: the names of checkpoints and their results differ by a step and a digest
    numbers = re.compile("[0-9a-f]{16}|[0-9]{6,}")
    kinds = {(path.parent, numbers.sub("", path.name)): path for path in files}
    for path in kinds.values():
        data = path.read_bytes()
        broken = bytearray(data)
        broken[len(data) // 2] ^= 4
        path.write_bytes(broken)
        found = refuse("verify", "run", says="is damaged: ", late=True)
        assert path.stem in found
        refuse("verify", path, says="damaged", late=True)
        path.write_bytes(data)
    run("verify", "run")
