"""Recordings are pickled by absolute path and identity; compiled networks are looked through."""

import os
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from elsewhere.errors import InputError, StorageError
from elsewhere.models.model import unwrap
from elsewhere.recording import record
from elsewhere.storage import open_recording


def test_a_recording_is_pickled_by_path_and_identity(make_sweep, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    record(make_sweep(n=2, layers="logits"), "a.h5")
    (tmp_path / "elsewhere").mkdir()
    with open_recording("a.h5") as recording:
        there = recording.at(tuple(int(v) for v in recording.design.positions[-1]))
        os.chdir("elsewhere")
        with pickle.loads(pickle.dumps(there)) as again, there:
            assert again.design == there.design
            np.testing.assert_array_equal(again["logits"].values, there["logits"].values)
        assert recording.tree["layers/logits/empty"].shape == (7,)
        data = pickle.dumps(recording)
    record(make_sweep(n=3, layers="logits"), tmp_path / "a.h5", overwrite=True)
    with pytest.raises(StorageError, match="another recording"):
        pickle.loads(data)


def test_what_torch_compile_was_given():
    network = nn.Sequential(nn.ReLU())
    assert unwrap(torch.compile(nn.DataParallel(network))) is network


def test_a_measure_that_nothing_takes_is_refused():
    from elsewhere.analyzer import measure
    from elsewhere.measures.catalogue import measures

    nothing = replace(measures.get("cka"), reading=None)
    measures.add("never", nothing, summary="registered, and taken by nothing")
    try:
        with pytest.raises(InputError, match="nothing takes it"):
            measure(np.ones((2, 2, 3)), [[1, 1], [1, 2]], names="never")
    finally:
        del measures._entries["never"]
