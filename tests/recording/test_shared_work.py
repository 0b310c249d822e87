"""Work that is shared out is done once, and not by the process that asks for it."""

import os
import sys

import pytest

from elsewhere.models import load_model
from elsewhere.models.conduct import N_REPEATS
from elsewhere.recording import Sweep, record
from elsewhere.recording.incremental import Incremental
from elsewhere.stimuli import Canvas, Grid, load_objects
from tests.tiny import OWN_LOOK, images_by_process, write_networks


@pytest.fixture
def log(tmp_path, monkeypatch):
    """Return the file in which the network of ``tiny_networks`` notes what it computes."""
    path = write_networks(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield path
    sys.modules.pop("tiny_networks", None)


def make(name="build", grid="6x8", reference=None, engine="dense"):
    canvas = Canvas(24, 8)
    return Sweep(
        load_model(f"tiny_networks:{name}"),
        load_objects("novel", size=8, categories=5),
        canvas=canvas,
        grid=Grid.parse(grid, canvas),
        reference=reference,
        layers="*",
        engine=engine,
    )


@pytest.mark.parametrize("reference", [None, (11, 9)])
def test_workers_record_every_image_once(log, tmp_path, contents_of, reference):
    sweep = make(reference=reference)
    log.unlink(missing_ok=True)
    whole = record(sweep, tmp_path / "whole.h5")
    alone = images_by_process(log)
    path = record(sweep, tmp_path / "run.h5", workers=2)
    found = images_by_process(log)
    n_reference = 0 if reference is None else 5
    assert set(alone) == {os.getpid()}
    assert sum(alone.values()) >= 5 * 48
    assert sum(found.values()) - sum(alone.values()) == 2 * OWN_LOOK
    assert found.pop(os.getpid(), 0) == n_reference
    assert len(found) == 2
    assert contents_of(path) == contents_of(whole)


def test_workers_go_on_with_what_is_left_only(log, tmp_path):
    sweep, path = make(), tmp_path / "run.h5"

    def interrupt(done, total):
        if done >= 80:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        record(sweep, path, progress=interrupt)
    images_by_process(log)
    units = len(list((tmp_path / "run.h5.parts").glob("unit-*.h5")))
    assert units
    record(sweep, path, workers=2)
    found = images_by_process(log)
    assert found.pop(os.getpid(), 0) == 0
    assert sum(found.values()) <= 5 * 48 + 48 - units * 40  # a unit is a row of 8 by 5 objects


def test_a_cluster_records_every_image_once(log, tmp_path, contents_of):
    distributed = pytest.importorskip("distributed")
    sweep = make(grid="3x8")
    log.unlink()
    whole = record(sweep, tmp_path / "whole.h5")
    alone = images_by_process(log)
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, dashboard_address=None, local_directory=tmp_path
    ) as cluster:
        path = record(sweep, tmp_path / "run.h5", scheduler=cluster.scheduler_address)
    found = images_by_process(log)
    # Of its one worker. While it looks, other threads of a Dask worker may draw random numbers: it
    # then shows the network two images N_REPEATS times more; and once more for the output, where
    # they draw meanwhile, too.
    looks = (OWN_LOOK, OWN_LOOK + 2 * N_REPEATS, OWN_LOOK + 2 * N_REPEATS + 2)
    assert sum(found.values()) - sum(alone.values()) in looks
    assert found.pop(os.getpid(), 0) == 0
    assert contents_of(path) == contents_of(whole)


def test_windows_are_computed_by_workers_only(log, tmp_path, monkeypatch, contents_of):
    sweep, tiles = make("windowed", engine="incremental"), []
    whole = record(sweep, tmp_path / "whole.h5")
    plain = Incremental.run

    def run(self, tile, *arguments, **options):
        tiles.append(tile)
        return plain(self, tile, *arguments, **options)

    monkeypatch.setattr(Incremental, "run", run)
    path = record(sweep, tmp_path / "run.h5", workers=2)
    assert not tiles
    assert contents_of(path) == contents_of(whole)
