"""Every kind of file, mutated: what is read is right, or there is one clear error.

No crash, no hang, no silence. Each run is a child process with a time limit, because it may crash.
A tenth runs always, all of it with `long`.
"""

import json
import subprocess
import sys

import pytest

SCRIPT = '''
import collections, faulthandler, itertools, json, logging, sys
from pathlib import Path
import numpy as np
import torch
import xarray
from elsewhere.axes import Axes
from elsewhere.errors import ElsewhereError
from elsewhere.measures.blocks import DenseBlock
from elsewhere.probes.readout_weights import FittedProbe, load_readout, save_readout
from elsewhere.reproduction import load_scale
from elsewhere.reproduction.conditions import make_runs
from elsewhere.reproduction.tasks import Task, read_values, write_values
from elsewhere.stimuli import Canvas
from elsewhere.protocols import Design
from elsewhere.storage import (Header, RecordingWriter, StoredLayer, load_result, open_recording,
                               save_result, verify)
from elsewhere.storage.documents import LineSeals
from elsewhere.storage.seal import make_seal, seal_table
from elsewhere.training import (Curriculum, Exemplars, Network, Phase, list_checkpoints,
    load_curriculum,
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

# --- recordings

names = tuple(f"object {i}" for i in range(6))
design = Design(names, names, Axes.of(y=(5, 9, 12), x=(5, 7, 9, 20)), (5, 5))
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
        for unit in itertools.islice(writer.portions, n_units):
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
                for block in recording.blocks(recording.layer(name), stage):
                    found[name, stage, int(block.positions[0])] = block.full().tobytes()
        if not partial:
            found["image"] = recording.objects["image"].values.tobytes()
    return found

def check_values(path):
    """Compare what is there with what was written, place by place."""
    with open_recording(path, allow_partial=True) as recording:
        (y, x), n = map(np.array, recording.design.axes.values), len(names)
        for layer in layers:
            array = recording[layer.name].values
            for i, j, o in itertools.product(range(len(y)), range(len(x)), range(n)):
                place = design.axes.index((y[i], x[j]))
                number = int(header.portions.locate(np.array([o]), np.array([place]))[0])
                draw = np.random.default_rng([number, layer.shape[0]])
                objects, positions = header.portions.portion(number).rows(design)
                values = draw.normal(size=(len(objects), *layer.shape)).astype("float32")
                row = np.flatnonzero((objects == o) & (positions == place))
                assert np.array_equal(array[o, i, j], values[row[0]])

def prepare(kind, folder):
    """Return the file, and what reads it; None as truth where any reading is right."""
    if kind == "recording":
        path = folder / "run.h5"
        write(path)
        return path, lambda: content(path)
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
        return path, lambda: load_curriculum(path).to_dict()
    if kind == "reproduction":
        scale = load_scale("quick")
        task = Task(scale, make_runs(scale)[0], 0, folder)
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

def fuzz_parts(folder):
    """Parts of an unfinished recording: a part less is said, and what is there is right."""
    path = folder / "run.h5"
    write(path, 3)
    check_values(path)
    files = sorted(p for p in (folder / "run.h5.parts").iterdir()
                   if p.name not in ("lock", "claim"))
    originals, truth = {p: p.read_bytes() for p in files}, content(path, True)
    counts = collections.Counter()
    for number in range(count):
        chosen = files[int(rng.integers(0, len(files)))]
        what, data = mutate(originals[chosen])
        chosen.write_bytes(data)
        changed = data != originals[chosen]
        for again in range(2):
            try:
                found = content(path, True)
            except ElsewhereError as error:
                assert "\\n" not in str(error), error
                judged = "refused"
            else:
                if found["share"] < truth["share"]:
                    check_values(path)
                    judged = "refused"
                else:
                    assert found == truth, f"silence: {chosen.name} {what}"
                    judged = "right, though changed" if changed else "not changed"
        counts[judged] += 1
        if number % 10 == 0:
            try:
                assert bool(verify(path).damages) == changed or chosen.name == "manifest.json"
            except ElsewhereError:
                pass
        chosen.write_bytes(originals[chosen])
        counts[f"kind {what}"] += 1
    return counts

# --- whole seals over absurd values: a stranger can seal what he likes

DEEP = json.loads("[" * 200 + "]" * 200)
ABSURD = (None, True, [], {}, DEEP, -1, 0, 2**70, 1e308, -0.5, "", "../../outside", "a" * 10**5,
          "os:system", "$\\\\frac{", "\\x1b[2J\\n", ["a", 1, None], {"a": {"b": []}}, "1e400", [[]])

def absurd():
    return ABSURD[int(rng.integers(0, len(ABSURD)))]

def spoil(value, depth=0):
    """Return JSON with one entry somewhere in it replaced, removed, added or doubled."""
    if isinstance(value, (dict, list)) and value and (depth == 0 or rng.random() < 0.6):
        value = value.copy()
        keys = list(value) if isinstance(value, dict) else range(len(value))
        key = keys[int(rng.integers(0, len(keys)))]
        what = rng.random()
        if what < 0.12:
            del value[key]
        elif what < 0.2 and isinstance(value, dict):
            value[str(absurd())[:20]] = absurd()
        else:
            value[key] = spoil(value[key], depth + 1)
        return value
    return absurd()

def spoil_result(path):
    """Change a result as only h5py can, in one way."""
    import h5py
    with h5py.File(path, "r+") as file:
        names = [name for name in file if isinstance(file[name], h5py.Dataset)]
        name = names[int(rng.integers(0, len(names)))]
        kind = ["attribute", "attribute of one", "remove", "rename", "huge", "deep", "bomb", "soft",
                "external", "compound", "texts", "reference", "shape", "scale", "region",
                "virtual", "attributes"][int(rng.integers(0, 17))]
        values = (np.array([1, 2]), np.zeros((0,)), "a" * 60_000, "[" * 5_000, b"\\xff\\xfe", -1,
                  1e308, np.nan, h5py.Empty("f4"), "{\\"a\\": ", "true", np.array(["a", "b"], "S1"))
        value = values[int(rng.integers(0, len(values)))]
        if kind in ("attribute", "attribute of one"):
            chosen = file if kind == "attribute" else file[name]
            keys = list(chosen.attrs)
            if keys:
                chosen.attrs[keys[int(rng.integers(0, len(keys)))]] = value
        elif kind == "attributes":
            for number in range(300):
                file.attrs[f"more{number}"] = "x"
        elif kind == "remove":
            del file[name]
        elif kind == "rename":
            file.move(name, ["..", "a b", "\\x1b[2J", "x" * 500][int(rng.integers(0, 4))])
        elif kind == "huge":
            file.create_dataset("huge", shape=(2**36,), chunks=(2**10,), dtype="f8")
        elif kind == "deep":
            group = file
            for _ in range(300):
                group = group.create_group("g")
        elif kind == "bomb":
            file.create_dataset("bomb", data=np.zeros(2**22), chunks=(2**20,), compression="gzip")
        elif kind == "soft":
            file["soft"] = h5py.SoftLink("/" + name)
        elif kind == "external":
            file["outer"] = h5py.ExternalLink("/etc/passwd", "/x")
        elif kind == "compound":
            file["odd"] = np.zeros(3, dtype=[("a", "f4"), ("b", "i8")])
        elif kind == "texts":
            del file[name]
            file[name] = np.array([b"x", b"\\xff"], dtype="S2")
        elif kind == "reference":
            file.create_dataset("refs", data=file[name].ref, dtype=h5py.ref_dtype)
        elif kind == "region":
            file.attrs["region"] = file[name].ref
        elif kind == "shape":
            data = file[name][()]
            del file[name]
            file[name] = np.asarray(data).ravel()[:1]
        elif kind == "scale":
            file[name].attrs.pop("DIMENSION_LIST", None)
            file[name].attrs["CLASS"] = "DIMENSION_SCALE"
        elif kind == "virtual":
            layout = h5py.VirtualLayout(shape=(4,), dtype="f8")
            layout[:] = h5py.VirtualSource("/etc/passwd", "x", shape=(4,))
            file.create_virtual_dataset("virtual", layout)
    return kind

def reseal(kind, path, original):
    """Write a changed file with a seal that fits it; return in which way it was changed."""
    if kind in ("result", "readout"):
        path.write_bytes(original)
        what = spoil_result(path)
        data = path.read_bytes()
        path.write_bytes(data + make_seal(data))
        return what
    if kind == "metrics":
        seals = LineSeals()
        tables = [table for table, _ in LineSeals().decode(original, path)]
        changed = int(rng.integers(0, len(tables)))
        tables[changed] = spoil(tables[changed])
        if not isinstance(tables[changed], dict):
            tables[changed] = {}
        path.write_bytes(b"".join(map(seals.encode, tables)))
    else:
        table = spoil({k: v for k, v in json.loads(original).items() if k != "seal"})
        path.write_text(json.dumps(seal_table(table if isinstance(table, dict) else {})))
    return "value"

def fuzz_resealed(kind, folder):
    """Whatever is in a file, there is a value or one clear error."""
    path, read = prepare(kind, folder)
    original = path.read_bytes()
    counts = collections.Counter()
    for number in range(count):
        what = reseal(kind, path, original)
        try:
            read()
        except ElsewhereError as error:
            assert "\\n" not in str(error), error
            counts["refused"] += 1
        except Exception:
            print(kind, number, what, path.read_bytes()[:300], file=sys.stderr)
            raise
        else:
            counts["right, though changed"] += 1
        counts[f"kind {what}"] += 1
    return counts

found = {}
for name in sys.argv[2].split(","):
    rng = np.random.default_rng(seed)
    FOLDER = Path(sys.argv[1], name)
    FOLDER.mkdir()
    kind, _, resealed = name.partition(" ")
    if resealed:
        found[name] = fuzz_resealed(kind, FOLDER)
    elif kind == "parts":
        found[name] = fuzz_parts(FOLDER)
    else:
        found[name] = fuzz(kind, FOLDER)
print(json.dumps(found))
'''
KINDS = ("recording", "parts", "result", "readout", "state", "metrics", "run", "card", "weights",
         "curriculum", "reproduction")  # fmt: skip
RESEALED = tuple(
    f"{kind} resealed" for kind in ("result", "readout", "metrics", "run", "card", "reproduction")
)


def fuzz(folder, names, seed, count):
    program = [sys.executable, "-c", SCRIPT, str(folder), ",".join(names), str(seed), str(count)]
    out = subprocess.run(program, capture_output=True, text=True, timeout=1800, check=False)
    assert out.returncode == 0, out.stderr[-2000:]
    found = json.loads(out.stdout.splitlines()[-1])
    assert list(found) == list(names)
    for name, counts in found.items():
        judged = ("refused", "right, though changed", "not changed")
        assert sum(counts.get(key, 0) for key in judged) == count, name
        if name in RESEALED:
            continue
        assert counts["refused"] > count / 3, (name, counts)
        if name in ("recording", "result", "readout", "weights"):  # all bytes are covered
            assert counts.get("right, though changed", 0) <= 2 * (name != "recording"), counts
    return found


def test_mutated_files(tmp_path):
    fuzz(tmp_path, KINDS, 0, 100)


def test_files_sealed_by_strangers(tmp_path):
    fuzz(tmp_path, RESEALED, 0, 100)


@pytest.mark.long
@pytest.mark.parametrize("name", [*KINDS, *RESEALED])
def test_many_mutated_files(tmp_path, name):
    fuzz(tmp_path, [name], 1, 1000)
