"""Sweeps in bfloat16: torch's own autocast, another identity, and refused where it is not meant."""

import numpy as np
import pytest
import torch
from torch import nn

from elsewhere.analyzer import similarity
from elsewhere.analyzer.methods import describe_methods
from elsewhere.errors import ExistsError, InputError, UnknownNameError
from elsewhere.recording import Sweep, make_header, record
from elsewhere.storage import open_recording


def at(sweep, precision, engine="dense"):
    """Return the same sweep in a precision."""
    return Sweep(
        sweep.model,
        sweep.objects,
        canvas=sweep.canvas,
        grid=sweep.grid,
        layers=[layer.name for layer in sweep.layers],
        engine=engine,
        precision=precision,
    )


@pytest.mark.parametrize("engine", ["dense", "incremental"])
def test_recorded_are_the_values_of_torchs_autocast(make_sweep, plain_forwards, tmp_path, engine):
    sweep = at(make_sweep(), "bfloat16", engine)
    assert sweep.choice.name == engine
    path = record(sweep, tmp_path / "low.h5")
    exact = plain_forwards(sweep)
    with torch.autocast("cpu", torch.bfloat16):
        low = plain_forwards(sweep)
    differing = 0
    with open_recording(path) as recording:
        for layer in recording.layers:
            found = np.asarray(recording[layer.name])
            assert found.dtype == np.float32
            found = found.reshape(low[layer.name][0].shape)
            largest = np.abs(exact[layer.name][0]).max()
            assert np.abs(found - low[layer.name][0]).max() <= 2**-7 * largest
            assert np.abs(found - exact[layer.name][0]).max() <= 2**-5 * largest
            differing += bool((found != exact[layer.name][0]).any())
        assert differing  # it is not what float32 gives
        attributes = recording.attributes
        assert attributes["precision"] == attributes["numerics"]["precision"] == "bfloat16"
        assert "precision bfloat16" in describe_methods(recording)
        result = similarity(recording)
    assert result.attrs["precision"] == "bfloat16"


def test_another_precision_is_another_recording(make_sweep, tmp_path):
    sweep, path = make_sweep(), tmp_path / "run.h5"
    low = at(sweep, "bfloat16")
    assert make_header(sweep).identity == make_header(at(sweep, "float32")).identity
    assert make_header(sweep).identity != make_header(low).identity

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        record(sweep, path, progress=stop)
    with pytest.raises(ExistsError, match="differs in precision"):
        record(low, path)
    record(sweep, path)
    with pytest.raises(ExistsError, match="differs in precision"):
        record(low, path)


def test_what_surrounds_a_sweep_in_float32_does_not_reach_it(make_sweep, plain_forwards, tmp_path):
    sweep = make_sweep()
    plain = record(sweep, tmp_path / "plain.h5")
    with torch.autocast("cpu", torch.bfloat16):
        within = record(make_sweep(), tmp_path / "within.h5")
    with open_recording(plain) as one, open_recording(within) as other:
        for layer in one.layers:
            assert np.array_equal(one[layer.name], other[layer.name])


class Picky(nn.Module):
    """Takes float32 only."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, values):
        found = self.conv(values)
        if found.dtype != torch.float32:
            raise RuntimeError("expected float32")
        return found.mean((2, 3))


def test_what_cannot_be_is_refused_in_one_line(make_sweep, wrap):
    sweep = make_sweep()
    with pytest.raises(InputError, match=r"tf32 is of CUDA .* float32 or bfloat16"):
        at(sweep, "tf32")
    with pytest.raises(UnknownNameError, match="float16"):
        at(sweep, "float16")
    with pytest.raises(InputError, match=r"cannot be run in bfloat16 \(expected float32\)"):
        at(make_sweep(wrap(Picky()), layers="conv"), "bfloat16")
