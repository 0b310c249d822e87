"""Every kind of file, mutated: what is read is right, or there is one clear error.

Recordings and their parts have a fuzz of their own, in test_fuzz.py. Each kind runs in a child
process with a time limit, because it may crash. A tenth runs always, all of it with `long`.
"""

import json
import subprocess
import sys

import pytest

SCRIPT = '''
import collections, faulthandler, json, logging, sys
from pathlib import Path
import numpy as np
import torch
import xarray
from elsewhere.errors import ElsewhereError
from elsewhere.probes.linear import FittedProbe, load_readout, save_readout
from elsewhere.reproduction.scale import QUICK
from elsewhere.reproduction.conditions import make_runs
from elsewhere.reproduction.tasks import Task, read_values, write_values
from elsewhere.stimuli import Canvas
from elsewhere.storage import load_result, save_result, verify
from elsewhere.training import (Curriculum, Exemplars, Network, Phase, list_checkpoints,
                                load_checkpoint, read_card, read_metrics, train)
from elsewhere.training.checkpoints import read_weights
from elsewhere.training.state import read_state

faulthandler.enable()
logging.disable(logging.WARNING)
torch.set_num_threads(1)
seed, count = int(sys.argv[3]), int(sys.argv[4])

def mutate(data):
    data, n = bytearray(data), len(data)
    kind = rng.choice(["bit", "bit", "bit", "byte", "zeros", "noise", "cut", "cut at the end",
                       "insert", "remove", "swap", "double", "append", "many", "text"])
    at = int(rng.integers(0, n))
    length = int(rng.integers(1, min(600, n)))
    if kind == "bit":
        data[at] ^= 1 << int(rng.integers(0, 8))
    elif kind == "byte":
        data[at] = int(rng.integers(0, 256))
    elif kind == "zeros":
        data[at : at + length] = bytes(len(data[at : at + length]))
    elif kind == "noise":
        data[at : at + length] = rng.bytes(len(data[at : at + length]))
    elif kind == "cut":
        del data[at:]
    elif kind == "cut at the end":
        del data[n - length :]
    elif kind == "insert":
        data[at:at] = rng.bytes(length)
    elif kind == "remove":
        del data[at : at + length]
    elif kind == "swap":
        to = int(rng.integers(0, n))
        a, b = bytes(data[at : at + length]), bytes(data[to : to + length])
        size = min(len(a), len(b))
        data[at : at + size], data[to : to + size] = b[:size], a[:size]
    elif kind == "double":
        data[at:at] = data[at : at + length]
    elif kind == "append":
        data += rng.bytes(length)
    elif kind == "many":
        for place in rng.integers(0, n, 20):
            data[place] ^= 1 << int(rng.integers(0, 8))
    elif kind == "text":  # as an editor would: a digit for another, a word for another
        digits = [i for i in range(n) if 48 <= data[i] < 58]
        if digits:
            data[digits[int(rng.integers(0, len(digits)))]] = 48 + int(rng.integers(0, 10))
    return str(kind), bytes(data)

def plain(value):
    """A value by which what was read is compared."""
    if isinstance(value, torch.Tensor):
        return (str(value.dtype), tuple(value.shape), value.numpy().tobytes())
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    if isinstance(value, np.ndarray):
        return (str(value.dtype), value.shape, value.tolist())
    return value

def of_result(result):
    return {str(name): (v.dims, plain(v.values), {k: plain(w) for k, w in v.attrs.items()})
            for name, v in result.variables.items()} | {"attrs": plain(dict(result.attrs))}

def trained(run):
    network = Network("small-cnn", arguments={"channels": "4-8", "hidden": 12}, gain=4.0)
    phase = Phase("learn", "glyphs", categories=3, exemplars=Exemplars(4, 2), steps=60, batch=4,
                  checkpoints=2, environment="one")
    curriculum = Curriculum("tiny", network, Canvas(16, 7), (phase,))
    return curriculum, train(curriculum, run, device="cpu")

TOML = """# a curriculum
name = "made"
seed = 3
[network]
name = "small-cnn"
arguments = {channels = "4-8", hidden = 12}
gain = 4.0
[canvas]
size = 16
object_size = 7
[[phase]]
name = "first"
objects = "glyphs"
categories = 3
exemplars = {train = 4, held_out = 2}
steps = 60
batch = 4
checkpoints = [10, 20]
[[phase]]
name = "second"
objects = "glyphs"
same_categories_as = "first"
environment = "fixed:cell"
epochs = 2.5
criterion = {accuracy = 0.9, window = 20}
rates = {"fc*" = 2.0}
"""

def prepare(kind, folder):
    """Return the file, and what reads it; None as truth where any reading is right."""
    if kind in ("result", "readout"):
        draw = np.random.default_rng(0)
        if kind == "readout":
            probe = FittedProbe("fc", ("a", "b", "c"), draw.normal(size=(3, 50)).astype("f4"),
                                draw.normal(size=3), (50,), 0.5, "logistic", ((5, 5),),
                                {"model": "small-cnn", "weights_sha256": "0" * 64})
            path = save_readout(probe, folder / "probe.nc")
            return path, lambda: plain(vars(load_readout(path)))
        result = xarray.Dataset(
            {"G": (("layer", "y", "x"), draw.normal(size=(3, 4, 5))), "scalar": 0.25,
             "half": ("layer", np.array([0.5, 1, 0], "f2")), "n": ("layer", [1, 2, 3])},
            {"layer": ["a", "b", "c"], "y": [1, 2, 3, 4], "x": [9, 8, 7, 6, 5],
             "object": ["one", "two"]},
            {"kind": "similarity", "notes": ["a"], "chance": 0.1})
        path = save_result(result, folder / "r.nc")
        return path, lambda: of_result(load_result(path))
    if kind == "curriculum":
        path = folder / "made.toml"
        path.write_text(TOML)
        return path, lambda: Curriculum.load(path).to_dict()
    if kind == "reproduction":
        task = Task(QUICK, make_runs(QUICK)[0], 0, folder)
        write_values(task, {"a": 0.1 + 0.2, "b": 1e-300, "c": 3.0, "word": "yes"})
        return task.path, lambda: read_values(task)
    curriculum, run = trained(folder / "run")
    card = list_checkpoints(run)[-1]
    if kind == "state":
        path = run / "state.pt"
        state = read_state(path)
        state.network = torch.load(path, weights_only=True) and read_weights(card)
        from elsewhere.training.state import write_state
        write_state(path, state)
        return path, lambda: plain(vars(read_state(path)))
    if kind == "metrics":
        return run / "metrics.jsonl", lambda: read_metrics(run)
    if kind == "run":
        path = run / "curriculum.json"
        return path, lambda: (Curriculum.load_run(run).to_dict(), train(curriculum, run))
    if kind == "card":
        path = card.path.with_suffix(".json")
        return path, lambda: (read_card(path), plain(load_checkpoint(path).module.state_dict()))
    assert kind == "weights"
    return card.path, lambda: plain(load_checkpoint(card.path).module.state_dict())

def fuzz(kind, folder):
    path, read = prepare(kind, folder)
    original, truth = path.read_bytes(), read()
    assert kind == "curriculum" or verify(path).ok
    counts = collections.Counter()
    for number in range(count):
        what, data = mutate(original)
        path.write_bytes(data)
        changed = data != original
        try:
            found = read()
        except ElsewhereError as error:
            assert "\\n" not in str(error), error
            counts["refused"] += 1
        else:
            assert kind == "curriculum" or found == truth, f"silence: {kind} {number} {what}"
            counts["right, though changed" if changed else "not changed"] += 1
            changed = False
        if number % 10 == 0 and kind != "curriculum":
            try:
                ok = verify(path).ok
            except ElsewhereError:
                ok = False
            assert ok <= (not changed), (kind, number, what)
        counts[f"kind {what}"] += 1
    return counts

found = {}
for kind in sys.argv[2].split(","):
    rng = np.random.default_rng(seed)
    folder = Path(sys.argv[1], kind)
    folder.mkdir()
    found[kind] = fuzz(kind, folder)
print(json.dumps(found))
'''
KINDS = ("result", "readout", "state", "metrics", "run", "card", "weights", "curriculum",
         "reproduction")  # fmt: skip


def fuzz(folder, kinds, seed, count):
    program = [sys.executable, "-c", SCRIPT, str(folder), ",".join(kinds), str(seed), str(count)]
    out = subprocess.run(program, capture_output=True, text=True, timeout=1800, check=False)
    assert out.returncode == 0, out.stderr[-2000:]
    found = json.loads(out.stdout.splitlines()[-1])
    assert list(found) == list(kinds)
    for kind, counts in found.items():
        judged = ("refused", "right, though changed", "not changed")
        assert sum(counts.get(name, 0) for name in judged) == count, kind
        assert counts["refused"] > count / 3, (kind, counts)
    return found


def test_mutated_files(tmp_path):
    found = fuzz(tmp_path, KINDS, 0, 100)
    for kind in ("result", "readout", "weights"):  # all bytes are covered
        assert found[kind].get("right, though changed", 0) <= 2, found[kind]


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_many_mutated_files(tmp_path, kind):
    fuzz(tmp_path, [kind], 1, 1000)
