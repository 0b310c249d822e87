"""Memory stays within `max_memory` on recordings of several times that size."""

import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
import torch
from torch import nn

from elsewhere import measure
from elsewhere.measures import measures
from elsewhere.measures.unit_chunks import COLUMN_BYTES, PIECE_BYTES
from elsewhere.recording import record
from elsewhere.storage import open_recording

# Position and discrimination keep products of all rows, which small layers are dwarfed by.
REST = {"consistency", "position", "discrimination"}
UNITS = [n for n in measures if measures.get(n).taken == "units" and n not in REST]


@pytest.fixture(scope="module")
def large(make_sweep, wrap, tmp_path_factory):
    """A recording of one layer of 24 MiB as float32."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = wrap(nn.Sequential(nn.Conv2d(3, 20, 3, padding=1)))
    sweep = make_sweep(network, n=6, grid="9x10", layers="0")
    return record(sweep, tmp_path_factory.mktemp("large") / "run.h5")


@pytest.mark.parametrize("names", [UNITS, ["centred", "partition"], ["cka"]], ids=len)
def test_the_peak_is_below_the_limit(large, names, monkeypatch):
    monkeypatch.setattr("elsewhere.storage.recording.BLOCK_BYTES", 2**17)
    monkeypatch.setattr("elsewhere.measures.unit_chunks.PIECE_BYTES", PIECE_BYTES // 16)
    monkeypatch.setattr("elsewhere.measures.unit_chunks.COLUMN_BYTES", COLUMN_BYTES // 16)
    working = 4 * PIECE_BYTES // 16 + 6 * COLUMN_BYTES // 16
    monkeypatch.setattr("elsewhere.analyzer.measure_sink.WORKING_BYTES", working)
    recording = open_recording(large)
    size = 4 * np.prod(recording["0"].shape)
    # centred codes keep the products of all, fourteen measures have large sums of their own
    limit = int(size / {1: 4, 2: 2.5}.get(len(names), 1.25))
    whole = measure(recording, names=names)
    tracemalloc.start()
    try:
        cut = measure(recording, names=names, max_memory=int(limit))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < limit, f"{peak / limit:.2f} of the limit"
    for name in ("centred", "object_share", "cka"):
        if name in whole:
            np.testing.assert_allclose(cut[name], whole[name], atol=2e-5)


PEAK = """
import resource, sys
from elsewhere import measure, open
path, limit = sys.argv[1], int(sys.argv[2])
recording = open(path)
measure(recording, names="cosine,cka", layers=["1"], max_memory=limit)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
measure(recording, names="centred,cka,partition,rsa", layers=["0"], max_memory=limit)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


@pytest.mark.long
def test_the_process_stays_within_the_limit(make_sweep, wrap, tmp_path):
    """A layer of 580 MiB within 128 MiB, measured from outside."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(3, 128, 3, padding=1), nn.AvgPool2d(24))
    sweep = make_sweep(wrap(network), n=7, grid="17x17", layers=["0", "1"])
    path = record(sweep, tmp_path / "run.h5")
    limit = 128 * 2**20
    size = 4 * np.prod(open_recording(path)["0"].shape)
    assert size > 4 * limit
    found = subprocess.run(
        [sys.executable, "-c", PEAK, str(path), str(limit)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(found.stdout) < 1.1 * limit
