"""A recording larger than the memory that a process may have is analysed all the same."""

import json
import subprocess
import sys

import pytest

PREPARE = """
import itertools, sys
from pathlib import Path
import numpy as np
from elsewhere.measures.blocks import DenseBlock
from elsewhere.protocols import Design
from elsewhere.axes import Axes
from elsewhere.storage import Header, RecordingWriter, StoredLayer

path, n_places, shape = Path(sys.argv[1]), int(sys.argv[2]), (64, 64, 64)
names = tuple(f"o{i}" for i in range(8))
axes = Axes.of(y=(10, 20), x=range(10, 10 + n_places // 2))
design = Design(names, names, axes, (20, 10))
image = np.zeros((8, 4, 4, 3), np.uint8)
header = Header(design, (StoredLayer("relu", "relu", "ReLU", shape, stride=1,
                offset=0.0, receptive_field=1),), "float32", image,
                image[..., 0], {}, {"model": "made", "object_size": 9})
rng = np.random.default_rng(0)
none = np.array([-1])
with RecordingWriter(path, header) as writer:
    writer.add(DenseBlock("empty", "relu", none, none, np.zeros((1, *shape), "float32")))
    spots = [rng.random((64, 9, 9)).astype("float32") for _ in names]
    for position in range(design.n_positions):
        values = np.zeros((8, *shape), "float32")
        at = 3 + position % 40
        for number, spot in enumerate(spots):
            values[number, :, at : at + 9, at : at + 9] = spot
        where = np.full(8, position)
        writer.add(DenseBlock("grid", "relu", np.arange(8), where, values))
    writer.finish()
"""

ANALYSE = """
import json, resource, sys
import numpy as np
import torch  # whatever an analysis needs is loaded before the memory is capped
import elsewhere
from elsewhere.analyzer import similarity, similarity_biscione_bowers
from elsewhere.analyzer.equivariance import aligned_similarity
from elsewhere.measures.vectors import to_numpy

def virtual():
    for line in open("/proc/self/status"):
        if line.startswith("VmSize"):
            return int(line.split()[1]) * 1024

torch.set_num_threads(1)
path, more, budget = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
metrics = sys.argv[4].split(",")
with elsewhere.open(path) as recording:
    raw = recording["relu"].nbytes
    warm = recording["relu"][0, 0, 0].values
    cap = virtual() + more if more > 0 else -more
    resource.setrlimit(resource.RLIMIT_AS, (cap, cap))
    found = {}
    for metric in metrics:
        if metric == "aligned":
            result = aligned_similarity(recording, max_memory=budget)
            found[metric] = float(result["aligned"].mean())
        elif metric == "biscione-bowers":
            result = similarity_biscione_bowers(recording, max_memory=budget)
            found[metric] = float(result["cosine_away"][0])
        else:
            result = similarity(recording, metric=metric, max_memory=budget)
            found[metric] = float(result[f"{metric.replace('-', '_')}_away"][0])
    lazy = elsewhere.open(path, chunks="auto")["relu"]
    if lazy.chunks is not None:
        import dask
        with dask.config.set(scheduler="synchronous"):
            found["mean"] = float(lazy.mean(dtype="float64").compute())
    try:
        whole = recording["relu"].values
    except MemoryError:
        found["whole"] = "does not fit"
print(json.dumps({"raw": raw, "cap": cap, **found}))
"""


def run(program, *arguments):
    command = [sys.executable, "-c", program, *map(str, arguments)]
    out = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    assert out.returncode == 0, out.stderr[-2000:]
    return out.stdout


def check(path, more, metrics):
    found = json.loads(run(ANALYSE, path, more, 2**26, ",".join(metrics)))
    assert found["whole"] == "does not fit"
    for metric in metrics:
        assert 0.0 < found[metric] <= 1.0
    assert found["mean"] == pytest.approx(0.5 * 81 / 4096, rel=0.05)
    return found


def test_more_raw_bytes_than_the_process_may_add(tmp_path):
    path = tmp_path / "run.h5"
    run(PREPARE, path, 100)  # 0.8 GiB raw
    more = 400 * 2**20
    found = check(path, more, ("cosine", "aligned", "biscione-bowers"))
    assert found["cosine"] < 1.0
    assert found["raw"] >= 2 * more


@pytest.mark.long
def test_more_raw_bytes_than_the_process_may_have_at_all(tmp_path):
    path = tmp_path / "run.h5"
    run(PREPARE, path, 900)  # 7 GiB raw
    found = check(path, -6 * 2**30, ("cosine",))  # each metric reads all of it
    assert found["raw"] > found["cap"]
