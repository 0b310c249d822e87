"""The scripts that ask a GPU: what they do in several sittings, at the size of a CPU."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch

from benchmarks import vgg16_c6, vgg16_scale
from elsewhere.models import load_model
from elsewhere.reproduction import load_scale

TINY = Path(__file__).parent / "reproduction" / "tiny"


@pytest.fixture
def sitting(tmp_path, monkeypatch):
    """Return a function that runs a script, as its command does, and returns its status."""

    def run(script, *words):
        given = ["script", "--out", str(tmp_path), "--device", "cpu", "--scale", str(TINY)]
        monkeypatch.setattr(sys, "argv", [*given, "--max-steps", "2", *map(str, words)])
        return script.main()

    return run


@pytest.fixture
def tuned(monkeypatch):
    """Let the numbers of the tiny scale have been chosen with seed 0."""
    plain = dataclasses.replace(load_scale(TINY), tuned_on=(0,))
    monkeypatch.setattr(vgg16_c6, "load_scale", lambda name: plain)


def test_recipes_of_c6_take_several_sittings_and_all_tries_are_listed(
    sitting, tuned, tmp_path, monkeypatch, capsys
):
    path = tmp_path / "c6-0.jsonl"
    one, other, third = list(vgg16_c6.RECIPES)[:3]
    assert sitting(vgg16_c6, "--seconds", 0) == 1
    assert "out of time in training; the same command goes on" in capsys.readouterr().out
    assert not path.exists()
    assert sitting(vgg16_c6, "--only", one) == 0
    begun, ended = map(json.loads, path.read_text().splitlines())
    assert begun.keys() == {"recipe", "keys", "begun"}
    assert (ended["recipe"], ended["keys"]) == (one, {})
    assert len(ended["one"]) == 2  # each of the two steps was looked at
    assert all(0 <= share <= 1 for _, *shares in ended["one"] for share in shares)

    with path.open("a") as file:  # killed within the next one
        file.write(json.dumps({"recipe": other, "keys": {}, "begun": "yesterday"}) + '\n{"rec')
    plain = vgg16_c6.attempt

    def attempt(system, further, keys, options):
        if keys == vgg16_c6.RECIPES[third]:
            raise RuntimeError("out of memory\nat step 1")
        assert keys == vgg16_c6.RECIPES[other]  # the first is not tried again
        return plain(system, further, keys, options)

    monkeypatch.setattr(vgg16_c6, "attempt", attempt)
    capsys.readouterr()
    assert sitting(vgg16_c6, "--only", one, other, third) == 0
    told = capsys.readouterr().out.splitlines()
    assert any(line.split("  ")[0] == other and "begun yesterday and stopped" in line
               for line in told)  # fmt: skip
    assert told[-1].endswith("RuntimeError: out of memory")
    tries = vgg16_c6.Tries(path)
    assert [each["recipe"] for each in tries.ended] == [one, other, other, third]
    assert tries.longest >= ended["seconds"]


def test_a_seed_that_is_for_reporting_is_refused(sitting):
    with pytest.raises(SystemExit, match="seed 0 is for reporting"):
        sitting(vgg16_c6)


def test_a_sitting_of_the_scale_that_ends_at_once_says_what_is_left(sitting, capsys):
    assert sitting(vgg16_scale, "--seconds", 0) == 1
    told = capsys.readouterr().out.splitlines()
    assert told[-1].startswith("left: ")
    assert "vanilla (not begun)" in told[-1]
    assert told[-1].endswith("run the same command again")


@pytest.mark.long
def test_the_scale_is_done_in_several_sittings(sitting, capsys):
    statuses = [sitting(vgg16_scale, "--seconds", 15)]
    while statuses[-1] == 1 and len(statuses) < 40:
        statuses.append(sitting(vgg16_scale, "--seconds", 60))
    assert statuses[-1] == 0
    told = capsys.readouterr().out
    assert "C1 " in told
    assert "C6 " in told


@pytest.mark.parametrize("engine", ["dense", "incremental"])
def test_nothing_is_done_twice_before_the_first_image(tmp_path, engine):
    """The command of the row `start`, at a small size, in a process of its own."""
    weights, size = tmp_path / "net.safetensors", {"canvas": 48, "width": 0.125, "hidden": 8}
    state = load_model("vgg16-slim", model_args=size).module.state_dict()
    safetensors.torch.save_file({k: v.contiguous() for k, v in state.items()}, weights)
    words = [
        *("record", "vgg16-slim", "--weights", weights, "--input", "unit", "--objects", "glyphs"),
        *("--categories", "4", "--grid", "3x3", "--out", tmp_path / "run.h5", "--device", "cpu"),
        *("--engine", engine, *(f"--model-arg={name}={value}" for name, value in size.items())),
    ]
    command = [sys.executable, "-m", "benchmarks.start", *map(str, words)]
    done = subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE)
    found = json.loads(done.stdout)
    assert not found["twice"]
    assert found["file digests"] == found["headers"] == 1
    assert found.get("traces", 0) == (engine == "incremental")
    held = sum(value.numel() * value.element_size() for value in state.values())
    assert held <= found["bytes hashed"] <= 1.1 * held + 2**18  # once, beside small things
    assert not (tmp_path / "run.h5").exists()


@pytest.mark.long
def test_every_row_of_the_table_runs_without_a_card(tmp_path):
    words = ["--device", "cpu", "--tiny", "--seconds", "600", "--profile", "--out", str(tmp_path)]
    subprocess.run([sys.executable, "-m", "benchmarks.gpu", *words], check=True)
    rows = json.loads((tmp_path / "gpu.json").read_text())["rows"]
    assert not [row["work"] for row in rows if row["work"].startswith("failed")]
    (twice,) = [row for row in rows if row["work"].startswith("what is done twice")]
    assert twice["ratio"] == 0  # a count
    assert all(row["ratio"] is None or row["ratio"] > 0 for row in rows if row is not twice)
