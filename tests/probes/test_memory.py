"""Memory stays within --max-memory on a recording of more than four times that size."""

import tracemalloc

import numpy as np
import pytest
from torch import nn

from elsewhere.errors import InputError
from elsewhere.probes import probe
from elsewhere.recording import record
from elsewhere.storage import open_recording

BUDGET = 48 * 2**20


@pytest.fixture(scope="module")
def wide(wrap, make_sweep, tmp_path_factory):
    """A recording of a layer of 200,000 units: 25 objects at 12 locations, 229 MiB raw."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        network = wrap(nn.Sequential(nn.Conv2d(3, 348, 3, padding=1), nn.ReLU()))
    sweep = make_sweep(network, n=5, per=5, grid="3x4", layers=["0"])
    path = record(sweep, tmp_path_factory.mktemp("wide") / "run.h5")
    return path, sweep


def raw_bytes(recording):
    array = recording["0"]
    return int(np.prod(array.shape)) * array.dtype.itemsize


def test_the_peak_stays_within_the_budget_and_the_result_is_the_same(wide):
    path, _ = wide
    options = {"train_at": "left", "controls": ("shuffled",), "kind": "ridge", "n_shuffles": 2}
    with open_recording(path) as recording:
        assert raw_bytes(recording) > 4 * BUDGET
        whole = probe(recording, **options)
        tracemalloc.start()
        try:
            found = probe(recording, max_memory=BUDGET, **options)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak <= BUDGET, f"{peak / 2**20:.1f} MiB"
        for name in ("accuracy", "shuffled_accuracy", "strength", "choice"):
            np.testing.assert_array_equal(found[name].values, whole[name].values, err_msg=name)
        with pytest.raises(InputError, match=r"at least .* MiB .* --max-memory 8.0 MiB"):
            probe(recording, max_memory="8MiB", **options)


def test_units_in_pieces_and_places_in_groups_change_nothing(make_source):
    """A budget that holds the samples of no place whole, and the weights of few."""
    source = make_source(kind="mixed", units=9_000, per=3, ys=(5, 13), xs=(6, 14))
    options = {"train_at": "each", "controls": ("shuffled",), "kind": "nearest-centroid"}
    whole = probe(source, **options)
    samples = 8  # 4 categories of 2 trained exemplars
    fixed = 8 * (4 * samples**2 + 4 * samples * 2_048)
    for budget in (fixed + 400_000, fixed + 1_200_000):
        cut = probe(source, max_memory=budget, **options)
        for name in ("accuracy", "shuffled_accuracy", "rank"):
            np.testing.assert_array_equal(cut[name].values, whole[name].values, err_msg=name)
