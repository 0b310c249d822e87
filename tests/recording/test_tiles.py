"""Tiles of a recording: cut by the design alone, computed by whoever comes, equal bit for bit."""

import os
import re
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elsewhere.axes import Axes
from elsewhere.errors import ExistsError
from elsewhere.models import load_model
from elsewhere.protocols import Design
from elsewhere.recording import Sweep, make_header, plan, record
from elsewhere.recording.engines import windows
from elsewhere.recording.incremental.tiling import choose_shape, cut_tiles
from elsewhere.stimuli import Canvas, Grid, load_objects
from elsewhere.storage import Keep, open_recording
from elsewhere.storage.portions import Portions

KEEP = {"conv1_1": Keep("mean"), "relu1_1": Keep("sketch", 20)}
LAYERS = "conv1_1,relu1_1,pool1,logits"


@pytest.fixture
def small_tiles(monkeypatch):
    """Cut recordings into several tiles, small as they are."""
    monkeypatch.setattr(windows, "TILE_WORK", 2_500_000)


def incremental(make_sweep, **options):
    settings = {"n": 5, "grid": "7x9", "layers": LAYERS, "engine": "incremental"}
    return make_sweep(**(settings | options))


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 200), n_y=st.integers(1, 12), n_x=st.integers(1, 12),
    bytes_per_image=st.sampled_from([0, 10**6, 10**8]), limit=st.integers(1, 4000),
    together=st.booleans(),
)  # fmt: skip
def test_each_unit_lies_in_one_tile(n, n_y, n_x, bytes_per_image, limit, together):
    names = tuple(map(str, range(n)))
    axes = Axes.of(y=range(n_y), x=range(n_x))
    design = Design(names, names, axes, (0, 0))
    portions = Portions.cut(design, bytes_per_image=bytes_per_image)
    shape = choose_shape(lambda tile: tile.n_rows <= limit, portions, together=together)
    seen = np.zeros((n, n_y, n_x), int)
    homes = {}
    for place, tile in enumerate(cut_tiles(shape, design)):
        seen[np.ix_(tile.objects, tile.ys, tile.xs)] += 1
        for y in tile.ys:
            for x in tile.xs:
                at = np.full(len(tile.objects), y * n_x + x)
                for number in portions.locate(tile.objects, at):
                    assert homes.setdefault(int(number), place) == place
        assert tile.n_rows <= limit or shape == (min(n, portions.n_objects), 1, portions.n_cells)
    assert (seen == 1).all()
    assert sorted(homes) == list(range(len(portions)))


@pytest.mark.parametrize("share", [0.15, 0.5, 0.9])
def test_an_interrupted_recording_is_the_same_bit_for_bit(
    make_sweep, tmp_path, small_tiles, contents_of, share
):
    sweep, path = incremental(make_sweep, reference=(12, 13)), tmp_path / "run.h5"
    header = make_header(sweep, keep=KEEP)
    tiles = sweep.tasks(header.portions, header.tile)
    assert len(tiles) > 2
    assert max(map(len, tiles)) > 1

    def stop(done, total):
        if done > share * total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        record(sweep, path, keep=KEEP, progress=stop)
    left = sorted(path.with_name("run.h5.parts").glob("unit-*.h5"))
    for part in left[::2]:  # tiles of which some portions are there
        part.unlink()
    seen = []
    record(sweep, path, keep=KEEP, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1]
    whole = record(sweep, tmp_path / "whole.h5", keep=KEEP)
    assert contents_of(path) == contents_of(whole)


def test_other_memory_is_the_same_or_refused_by_name(make_sweep, tmp_path, monkeypatch):
    monkeypatch.setattr(windows, "LEAST_BYTES", 2**16)
    sweep, path = incremental(make_sweep), tmp_path / "run.h5"

    def stop(done, total):
        if list(tmp_path.glob("run.h5.parts/unit-*.h5")):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        record(sweep, path, max_memory="3MiB", progress=stop)
    tile = list(make_header(sweep, max_memory="3MiB").tile)
    other = list(make_header(sweep, max_memory="2GiB").tile)
    assert tile != other
    says = re.escape(f"tile {tile} then, {other} now") + r".*--max-memory"
    with pytest.raises(ExistsError, match=says):
        record(sweep, path, max_memory="2GiB")
    record(sweep, path, max_memory="3MiB")
    with open_recording(path) as recording:
        assert recording.attributes["numerics"]["tile"] == tile
    assert make_header(sweep, max_memory="1GiB").tile == tuple(other)  # what room is left is enough
    record(sweep, path, max_memory="2GiB")  # finished is finished


NETWORK = """
import os, time
from pathlib import Path
import torch
from torch import nn

def build():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
                            nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(), nn.Flatten(),
                            nn.Linear(8 * 16 * 16, 6))
    network.canvas_size = 32
    return network
"""


@pytest.fixture
def own_sweep(tmp_path, monkeypatch):
    """A sweep of a user's own network, in a module of the current directory."""
    (tmp_path / "tiled_network.py").write_text(NETWORK)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    canvas = Canvas(32, 8)
    yield Sweep(
        load_model("tiled_network:build"),
        load_objects("novel", size=8, categories=4),
        canvas=canvas,
        grid=Grid.parse("9x9", canvas),
        reference=(11, 9),
        layers="*",
        engine="incremental",
    )
    sys.modules.pop("tiled_network", None)


def test_two_processes_with_windows_are_as_one(own_sweep, tmp_path, small_tiles, contents_of):
    psutil = pytest.importorskip("psutil")

    keep = {"1": Keep("mean"), "2": Keep("sketch", 16)}
    whole = record(own_sweep, tmp_path / "whole.h5", keep=keep)
    header = make_header(own_sweep, keep=keep)
    assert len(own_sweep.tasks(header.portions, header.tile)) >= 4
    killed, images = [], []

    def progress(done, total):
        images.append((done, total))
        if not killed:
            workers = [
                child.pid
                for child in psutil.Process().children(recursive=True)
                if "spawn_main" in " ".join(child.cmdline())
            ]
            killed.append(max(workers))
            os.kill(killed[0], signal.SIGKILL)

    path = record(own_sweep, tmp_path / "run.h5", keep=keep, workers=2, progress=progress)
    assert killed
    assert images[-1] == (4 * 81, 4 * 81)
    with open_recording(path) as recording:
        assert recording.attributes["numerics"]["engine"] == "incremental"
    assert contents_of(path) == contents_of(whole)
    assert not Path(f"{path}.parts").exists()


def test_plans_share_tiles_and_not_images(own_sweep, small_tiles):
    cost = plan(own_sweep)
    assert cost.engine == "incremental"
    assert 2 <= cost.n_tasks < own_sweep.design.n_positions
    many = cost.shared(10_000)
    assert many.seconds == pytest.approx(cost.seconds / cost.n_tasks)
    assert many.memory_bytes == cost.memory_bytes * cost.n_tasks
    two = cost.shared(2)
    assert cost.seconds / 2 <= two.seconds < cost.seconds
