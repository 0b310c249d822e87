"""`--max-memory` is held: the peak of a process of its own, above what the imports take."""

import re
import subprocess
import sys

import pytest

MEASURE = """
import resource, sys, tempfile
from pathlib import Path
import torch
torch.set_num_threads(1)
from elsewhere.analyzer import measure, network_accuracy as accuracy, similarity
from elsewhere.analyzer.attribution import AttributionSettings, attribute
from elsewhere.analyzer.trajectories import TrackSettings, track
from elsewhere.models import load_model
from elsewhere.probes import probe
from elsewhere.recording import Sweep, record
from elsewhere.stimuli import Canvas, Grid, load_objects
from elsewhere.training import Curriculum, Exemplars, Network, Phase, train

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

what, limit, engine = sys.argv[1], int(sys.argv[2]) * 2**20, sys.argv[3]
folder = Path(tempfile.mkdtemp(dir=sys.argv[4]))

def make(name, side, size, count, grid, **arguments):
    canvas = Canvas(side, size)
    return Sweep(load_model(name, model_args={"canvas": side, **arguments}),
                 load_objects("novel", size=size, categories=count),
                 canvas=canvas, grid=Grid.parse(grid, canvas), layers="*", engine=engine)

def trained(name, side, size):
    phase = Phase("learn", "glyphs", categories=4, exemplars=Exemplars(2, 1), steps=1, batch=2,
                  checkpoints=1, environment="one")
    curriculum = Curriculum("tiny", Network(name), Canvas(side, size), (phase,))
    train(curriculum, folder / name, device="cpu")
    return folder / name

def follow(run, grid):
    settings = TrackSettings(grid=grid, layers=("*",), per_category=1)
    track(run, settings=settings, device="cpu", max_memory=limit)

def run(sweep, name):
    if what == "record":
        record(sweep, folder / f"{name}.h5", max_memory=limit)
    elif what == "attribute":
        settings = AttributionSettings(method="saliency", target="logit:1", canvas_maps=True)
        attribute(sweep, settings, path=folder / f"{name}.nc", max_memory=limit)
    elif what == "accuracy":
        classes = sweep.objects.category_names
        accuracy(sweep.model, sweep.objects, sweep.canvas, sweep.grid, classes=classes,
                 max_memory=limit)
    elif what == "measure":
        measure(sweep, names=["cosine", "partition", "cka", "position"], max_memory=limit)
    elif what == "probe":
        probe(sweep, split="same", controls=["shuffled"], max_memory=limit)
    else:
        similarity(sweep, metric=what, max_memory=limit)

if what == "track":
    small, large = trained("small-cnn", 24, 8), trained("vgg16-slim", 112, 22)
    follow(small, "2x2")
    before = peak()
    follow(large, "5x5")
    print(peak() - before)
    sys.exit()

heads = {"num_classes": 12} if what == "accuracy" else {}
run(make("small-cnn", 24, 8, 12, "2x2", **heads), "first")
before = peak()
large = make("vgg16-slim", 112, 22, 12, "5x5" if what != "attribute" else "3x3", **heads)
run(large, "large")
print(peak() - before)
"""

CASES = [
    ("centred", "incremental"),
    ("centred", "dense"),
    ("cosine", "incremental"),
    ("record", "incremental"),
    ("record", "dense"),
    ("accuracy", "dense"),
    ("attribute", "dense"),
    ("measure", "incremental"),
    ("measure", "dense"),
    ("probe", "dense"),
    ("track", "auto"),
]


@pytest.mark.parametrize("limit", [100, 400])
@pytest.mark.parametrize(("what", "engine"), CASES, ids=["-".join(case) for case in CASES])
@pytest.mark.long
def test_the_limit_is_held_or_refused(what, engine, limit, tmp_path):
    program = [sys.executable, "-c", MEASURE, what, str(limit), engine, str(tmp_path)]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1]
        needed = re.search(r"(?:about|at least) ([\d.]+) MiB.*--max-memory ([\d.]+) MiB", last)
        assert needed, done.stderr
        assert float(needed[2]) == pytest.approx(limit, abs=1)
        assert float(needed[1]) > limit  # what it would take
        return
    assert int(done.stdout) <= 1.1 * limit * 2**20, f"{int(done.stdout) / 2**20:.0f} MiB"
