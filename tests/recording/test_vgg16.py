"""The main job at its real size: VGG16 at 224 px. Minutes, so before a release only."""

from __future__ import annotations

import copy
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor

from elsewhere.models import load_model
from elsewhere.recording import Sweep, record
from elsewhere.stimuli import Grid, load_objects
from elsewhere.storage import open_recording
from tests.roles import similarity

pytestmark = pytest.mark.long
LAYERS = ["conv1_2", "relu3_3", "conv5_3", "relu5_3", "pool5", "fc6", "relu7", "logits"]

PEAK = """
import resource, sys, torch
from elsewhere.analyzer import similarity
from elsewhere.models import load_model
from elsewhere.recording import Sweep
from elsewhere.recording.planning import working_bytes
from elsewhere.stimuli import Grid, load_objects
sweep = Sweep(load_model("vgg16"), load_objects("glyphs", categories=12),
              grid=Grid(y=(112,), x=(60, 164)), layers="*", engine=sys.argv[1])
budget = 400 * 2**20
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
from elsewhere.analyzer import SimilaritySink
print(len(sweep.groups([SimilaritySink()], max_memory=budget)))
similarity(sweep, max_memory=budget)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(peak - before, budget + working_bytes(sweep))
"""


@pytest.fixture(scope="module")
def sweep() -> Sweep:
    model = load_model("vgg16", seed=3)
    objects = load_objects("novel", categories=3)
    return Sweep(model, objects, grid=Grid(y=(25, 112), x=(60, 199)), layers=LAYERS)


def test_recorded_values_are_the_networks(sweep: Sweep, tmp_path: object) -> None:
    """Against torchvision's feature extraction on a copy without in-place ReLUs."""
    path = record(sweep, tmp_path / "run.h5")  # type: ignore[operator]
    plain = copy.deepcopy(sweep.model.module)
    for part in plain.modules():
        if isinstance(part, nn.ReLU):
            part.inplace = False
    names = {sweep.model.aliases[name]: name for name in LAYERS}
    extract = create_feature_extractor(plain, return_nodes=names).eval()
    patches = sweep.objects.patches(sweep.color)
    with open_recording(path) as recording, torch.inference_mode():
        for o in range(3):
            pixels = sweep.canvas.paste(patches[o : o + 1], sweep.grid.locations, sweep.color)
            found = extract(sweep.model.transform.apply(torch.from_numpy(pixels)))
            for name in LAYERS:
                want = found[name].numpy()
                got = recording[name].isel(object=o).values.reshape(want.shape)
                np.testing.assert_allclose(got, want, atol=1e-5 * np.abs(want).max())
        live, stored = similarity(sweep), similarity(recording)
    for name in ("similarity", "baseline_cross", "baseline_same"):
        np.testing.assert_allclose(live[name].values, stored[name].values, atol=1e-5)


@pytest.mark.parametrize("engine", ["dense", "incremental"])
def test_live_similarity_of_all_layers_stays_within_its_memory(engine: str) -> None:
    command = [sys.executable, "-c", PEAK, engine]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    groups, sizes = done.stdout.strip().splitlines()
    used, allowed = map(int, sizes.split())
    assert int(groups) > 1 or engine == "incremental"  # which holds windows only
    assert used < allowed
