"""Several processes: the maps are those of one."""

import dataclasses
import os
import signal

import numpy as np
import pytest
import torch
import xarray

from elsewhere.analyzer.attribution import (
    AttributionSettings,
    attribute,
    attribute_checkpoints,
)
from elsewhere.analyzer.attribution.sharing import ObjectJob, fields_of
from elsewhere.errors import ExistsError, InputError, StorageError
from elsewhere.models import load_model
from elsewhere.recording import Sweep
from elsewhere.recording.workers import pack, unpack
from elsewhere.stimuli import Canvas, Grid, load_objects
from elsewhere.storage import load_result
from elsewhere.storage.parts import Parts

SETTINGS = AttributionSettings(
    method="gradient-shap", target="logit:1", options={"n_samples": 4, "stdevs": 0.3}, margin=2
)


@pytest.fixture
def sweep():
    canvas = Canvas(24, 8)
    return Sweep(
        load_model("small-cnn", model_args={"channels": "4-8", "canvas": 24, "num_classes": 3}),
        load_objects("novel", size=8, categories=5),
        canvas=canvas,
        grid=Grid.parse("2x3", canvas),
    )


def test_two_processes_of_which_one_is_killed(sweep, tmp_path):
    psutil = pytest.importorskip("psutil")

    seen, killed = [], []

    def progress(done, total):
        seen.append((done, total))
        if not killed:
            workers = [
                child.pid
                for child in psutil.Process().children(recursive=True)
                if "spawn_main" in " ".join(child.cmdline())
            ]
            killed.append(max(workers))
            os.kill(killed[0], signal.SIGKILL)

    path = tmp_path / "shared.nc"
    found = attribute(sweep, SETTINGS, path=path, workers=2, progress=progress)
    assert killed
    assert seen[-1] == (30, 30)
    alone = attribute(sweep, SETTINGS, path=tmp_path / "alone.nc")
    xarray.testing.assert_identical(found, alone)
    xarray.testing.assert_identical(load_result(path), load_result(tmp_path / "alone.nc"))
    assert found.attrs["numerics"]["engine"] == "dense"
    assert not (tmp_path / "shared.nc.parts").exists()


def test_a_cluster(sweep, tmp_path):
    """Files are written in Dask's own tasks, in which xarray would take a lock of the cluster's."""
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, dashboard_address=None, local_directory=tmp_path
    ) as cluster:
        path, address = tmp_path / "shared.nc", cluster.scheduler_address
        found = attribute(sweep, SETTINGS, path=path, scheduler=address)
    alone = attribute(sweep, SETTINGS, path=tmp_path / "alone.nc")
    xarray.testing.assert_identical(found, alone)


def test_a_worker_that_would_compute_something_else_is_refused(sweep, tmp_path):
    from elsewhere.analyzer.attribution.objects import ObjectRun

    sweep, limit = sweep.using("dense"), 2**31
    fields = fields_of(ObjectRun(sweep, SETTINGS, classes=None, max_memory=limit))
    with Parts(tmp_path / "a.nc", fields) as parts:
        job = ObjectJob(sweep, SETTINGS, None, limit, parts.folder)
        assert unpack(pack(job)).perform(0) == 6
        assert parts.done() == {0}
        threads = torch.get_num_threads()
        try:
            torch.set_num_threads(threads + 1)
            with pytest.raises(InputError, match=r"differs in numerics\.threads"):
                job.prepare()
        finally:
            torch.set_num_threads(threads)
    with pytest.raises(StorageError, match="every worker must see the same files"):
        ObjectJob(sweep, SETTINGS, None, limit, tmp_path / "nowhere").prepare()
    with pytest.raises(InputError, match="share a run through its parts"):
        attribute(sweep, SETTINGS, workers=2)


def test_checkpoints_are_shared_out(tmp_path):
    from elsewhere.training import Curriculum, Exemplars, Network, Phase, train

    phase = Phase("only", objects="glyphs", categories=3, exemplars=Exemplars(train=3, held_out=1),
                  environment="one", steps=4, batch=8, checkpoints=2)  # fmt: skip
    network = Network("small-cnn", arguments={"channels": "4-8", "hidden": 12}, gain=4.0)
    curriculum = Curriculum(
        name="tiny", network=network, canvas=Canvas(16, 7), phases=(phase,), seed=1
    )
    train(curriculum, tmp_path / "run")
    settings = AttributionSettings(method="saliency", target="similarity:fc3", margin=2)
    seen = []
    found = attribute_checkpoints(
        tmp_path / "run", settings, grid="1x2", workers=2, report=lambda *now: seen.append(now)
    )
    assert seen[0][0] == 0
    assert seen[-1][:2] == (found.sizes["checkpoint"],) * 2
    for path in (tmp_path / "run" / "attribution").rglob("*.nc"):
        path.unlink()
    alone = attribute_checkpoints(tmp_path / "run", settings, grid="1x2")
    xarray.testing.assert_identical(found, alone)
    assert float(np.abs(found["attribution"]).max()) > 0


def test_a_result_that_is_complete_is_left_as_it_is(sweep, tmp_path, monkeypatch):
    """Also when the run that made it was killed before it removed its parts."""
    path, done = tmp_path / "a.nc", []

    class Killed(BaseException):
        pass

    def killed(self):
        raise Killed

    monkeypatch.setattr(Parts, "discard", killed)
    with pytest.raises(Killed):
        attribute(sweep, SETTINGS, path=path)
    monkeypatch.undo()
    assert (tmp_path / "a.nc.parts").is_dir()
    before = path.read_bytes()
    again = attribute(sweep, SETTINGS, path=path, progress=lambda *now: done.append(now))
    assert not done  # nothing is computed
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.nc"]
    xarray.testing.assert_identical(again, load_result(path))
    fewer = dataclasses.replace(SETTINGS, margin=1)
    with pytest.raises(ExistsError, match="exists already and is another result"):
        attribute(sweep, fewer, path=path)
    with monkeypatch.context() as changed:
        changed.setattr("elsewhere.analyzer.attribution.sharing.code_version", lambda: "9.9")
        with pytest.raises(ExistsError, match="exists already and is another result"):
            attribute(sweep, SETTINGS, path=path)
    path.write_bytes(b"nonsense")
    with pytest.raises(ExistsError, match="exists already and is no result"):
        attribute(sweep, SETTINGS, path=path)
