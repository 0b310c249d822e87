"""Mutated and truncated files give correct data or one clear error: no crash, no hang, no silence.

Each batch runs in a child process with a time limit, because it may crash.
"""

import json
import subprocess
import sys

import pytest

SCRIPT = '''
import collections, faulthandler, itertools, json, shutil, sys
from pathlib import Path
import numpy as np
from elsewhere.errors import ElsewhereError
from elsewhere.measures.blocks import DenseBlock
from elsewhere.protocols import Design
from elsewhere.storage import Header, RecordingWriter, StoredLayer, open_recording, verify

faulthandler.enable()
folder, what, seed, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
rng = np.random.default_rng(seed)
names = tuple(f"object {i}" for i in range(6))
design = Design(names, names, (("y", (5, 9, 12)), ("x", (5, 7, 9, 20))), (5, 5))
image = np.random.default_rng(0).integers(0, 256, (6, 9, 9, 3), dtype=np.uint8)
layers = (StoredLayer("conv", "features.0", "Conv2d", (4, 6, 6), stride=2, offset=0.5),
          StoredLayer("fc", "classifier.0", "Linear", (50,)))
header = Header(design, layers, "float32", image, image[..., 0], {"state": "0" * 64},
                {"model": "made", "numerics": {"threads": 1}, "versions": {"python": "3"}})

class Stopped(Exception):
    pass

def write(path, n_units=None):
    none = np.array([-1])
    with RecordingWriter(path, header) as writer:
        for layer in layers:
            empty = np.ones((1, *layer.shape), "float32")
            writer.add(DenseBlock("empty", layer.name, none, none, empty))
        for unit in itertools.islice(writer.units, n_units):
            objects, positions = unit.rows(design)
            for layer in layers:
                draw = np.random.default_rng([unit.number, layer.shape[0]])
                values = draw.normal(size=(len(objects), *layer.shape)).astype("float32")
                writer.add(DenseBlock("grid", layer.name, objects, positions, values))
        if n_units is None:
            writer.finish()

def content(path, partial=False):
    """Everything that a reader can get, or the error."""
    with open_recording(path, allow_partial=partial) as recording:
        found = {"attributes": recording.attributes, "design": recording.design,
                 "layers": recording.layers, "share": recording.share}
        for name in recording:
            array = recording[name]
            found[name] = (array.dims, array.values.tobytes(),
                           [c.values.tolist() for c in array.coords.values()])
            for stage in ("empty", "grid"):
                for block in recording._blocks(recording.layer(name), stage):
                    found[name, stage, int(block.positions[0])] = block.full().tobytes()
        if not partial:
            found["image"] = recording.objects["image"].values.tobytes()
    return found

def check_values(path):
    """Compare what is there with what was written, place by place."""
    with open_recording(path, allow_partial=True) as recording:
        (y, x), n = (np.array(values) for _, values in recording.design.axes), len(names)
        for layer in layers:
            array = recording[layer.name].values
            for i, j, o in itertools.product(range(len(y)), range(len(x)), range(n)):
                place = design.axes[0][1].index(y[i]) * 4 + design.axes[1][1].index(x[j])
                number = int(header.units.locate(np.array([o]), np.array([place]))[0])
                draw = np.random.default_rng([number, layer.shape[0]])
                objects, positions = header.units.unit(number).rows(design)
                values = draw.normal(size=(len(objects), *layer.shape)).astype("float32")
                row = np.flatnonzero((objects == o) & (positions == place))
                assert np.array_equal(array[o, i, j], values[row[0]])

def mutate(data):
    data, n = bytearray(data), len(data)
    kind = rng.choice(["bit", "bit", "bit", "byte", "zeros", "noise", "cut", "cut at the end",
                       "insert", "remove", "swap", "double", "append", "many"])
    at = int(rng.integers(0, n))
    length = int(rng.integers(1, 600))
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
    return str(kind), bytes(data)

path = folder / "run.h5"
counts = collections.Counter()
def judge(kind, changed, truth, partial):
    try:
        found = content(path, partial)
    except ElsewhereError as error:
        assert "\\n" not in str(error), error
        counts["refused"] += 1
    else:
        if partial and found["share"] < truth["share"]:  # a part less, and it is said
            check_values(path)
        else:
            assert found == truth, f"silence: {kind}"
        counts["correct, not changed" if not changed else "correct"] += 1

if what == "file":
    write(path)
    original, truth = path.read_bytes(), content(path)
    for number in range(count):
        kind, data = mutate(original)
        path.write_bytes(data)
        judge(kind, data != original, truth, False)
        counts[f"kind {kind}"] += 1
else:
    write(path, 3)
    parts = folder / "run.h5.parts"
    check_values(path)
    files = sorted(p for p in parts.iterdir() if p.name not in ("lock", "claim"))
    originals, truth = {p: p.read_bytes() for p in files}, content(path, True)
    for number in range(count):
        chosen = files[int(rng.integers(0, len(files)))]
        kind, data = mutate(originals[chosen])
        chosen.write_bytes(data)
        judge(f"{chosen.name} {kind}", data != originals[chosen], truth, True)
        if number % 10 == 0:
            try:
                assert bool(verify(path).damages) == (data != originals[chosen]) or (
                    chosen.name == "manifest.json")
            except ElsewhereError:
                pass
        chosen.write_bytes(originals[chosen])
print(json.dumps(counts))
'''


def run(folder, what, seed, count):
    program = [sys.executable, "-c", SCRIPT, str(folder), what, str(seed), str(count)]
    return subprocess.run(program, capture_output=True, text=True, timeout=600, check=False)


@pytest.mark.parametrize("seed", range(3))
def test_mutated_recordings(tmp_path, seed):
    out = run(tmp_path, "file", seed, 400)
    assert out.returncode == 0, out.stderr[-2000:]
    counts = json.loads(out.stdout.splitlines()[-1])
    assert sum(counts.get(k, 0) for k in ("refused", "correct", "correct, not changed")) == 400
    assert len([key for key in counts if key.startswith("kind")]) == 12
    # every byte is covered: what is read as correct was not changed
    assert counts.get("correct", 0) == 0, counts


def test_mutated_parts(tmp_path):
    out = run(tmp_path, "parts", 0, 150)
    assert out.returncode == 0, out.stderr[-2000:]
    counts = json.loads(out.stdout.splitlines()[-1])
    assert counts["refused"] > 100
