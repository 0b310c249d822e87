"""Several devices share the work, one process each; here the CPU pretends to be several."""

import dataclasses
import os
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from elsewhere import record, similarity
from elsewhere.errors import InputError
from elsewhere.recording import workers
from elsewhere.recording.sharing import SharedSweep
from elsewhere.recording.workers import pack, perform, unpack


def test_a_recording_of_two_devices_is_that_of_one(make_sweep, tmp_path, contents_of):
    options = {"n": 12, "grid": "4x4", "layers": "pool2,logits"}
    alone = record(make_sweep(**options), tmp_path / "one.h5")
    shared = record(make_sweep(**options), tmp_path / "two.h5", workers=("cpu", "cpu"))
    assert contents_of(shared) == contents_of(alone)


def test_a_live_measure_is_shared_by_devices(make_sweep):
    sweep = make_sweep(n=12, grid="4x4", layers="logits")
    shared = SharedSweep(sweep, workers=("cpu", "cpu"))
    found, expected = similarity(shared), similarity(sweep)
    np.testing.assert_allclose(found["cosine_each"], expected["cosine_each"], atol=1e-12)
    assert len(shared.work) == 2  # both computed
    assert sum(shared.work.values()) == 12 * 16


@dataclass(frozen=True)
class Telling:
    """A job that says on which device it is, and in which process."""

    device: str
    weights: torch.Tensor

    def on(self, device):
        return dataclasses.replace(self, device=device)

    def prepare(self):
        pass

    def perform(self, task):
        return self.device, os.getpid(), float(self.weights.sum())


def test_each_process_has_a_device_of_its_own():
    job, found = Telling("first", torch.ones(3)), []
    tasks = list(range(6))
    perform(job, tasks, workers=("cpu", "cpu:0"), done=lambda _, each: found.append(each))
    assert {device for device, *_ in found} <= {"cpu", "cpu:0"}
    assert len({(device, number) for device, number, _ in found}) == len(
        {number for _, number, _ in found}
    )
    assert {total for *_, total in found} == {3.0}


def test_a_single_device_is_this_process():
    job, found = Telling("own", torch.ones(1)), []
    perform(job, [0], workers=("cpu",), done=lambda _, each: found.append(each))
    assert found == [("own", os.getpid(), 1.0)]


def test_tensors_come_on_the_device_of_the_process(monkeypatch):
    asked = []
    monkeypatch.setattr(
        torch.serialization,
        "default_restore_location",
        lambda storage, place: asked.append(place) or storage,
    )
    place = workers._places("cuda:1")
    storage = torch.ones(2).untyped_storage()
    for saved_on in ("cpu", "cuda:0", "cuda:3"):
        assert place(storage, saved_on) is storage
    assert asked == ["cpu", "cuda:1", "cuda:1"]
    assert workers._places(None) is None


def test_a_job_is_sent_whole(make_sweep):
    weights = torch.arange(4.0)
    job = unpack(pack(Telling("cpu", weights)), "cpu")
    torch.testing.assert_close(job.weights, weights)


@pytest.mark.parametrize("none", [0, -1, ()])
def test_no_worker_is_refused(none):
    with pytest.raises(InputError, match="expected 1 worker or more"):
        perform(Telling("cpu", torch.ones(1)), [0], workers=none, done=print)
