"""One recording on two kinds of processor: begun on one it is refused by the other; whole ones
agree within the tolerance."""

import contextlib
import io
import subprocess
import sys

import numpy as np
import pytest
import torch

from elsewhere.models import load_model
from elsewhere.storage import open_recording

SCRIPT = """
import sys
import numpy as np
from elsewhere.errors import ElsewhereError
from elsewhere.models import load_model
from elsewhere.recording import Sweep, record
from elsewhere.stimuli import Canvas, Grid, load_objects

class Stop(Exception): pass

def progress(done, total):
    if "stop" in sys.argv and done > 70:
        raise Stop

canvas = Canvas(32, 8, background=90)
small = {"channels": "6-8", "canvas": 32, "hidden": 40}
model = load_model("small-cnn", model_args=small, weights=sys.argv[2])
sweep = Sweep(model, load_objects("novel", size=8, categories=2), canvas=canvas,
              grid=Grid.parse("6x11", canvas), layers="*", engine="dense")
try:
    record(sweep, sys.argv[1], progress=progress)
except Stop:
    pass
except ElsewhereError as error:
    print(error)
"""


@pytest.fixture
def weights(tmp_path):
    """Weights in a file: those of a seed are drawn with other last bits on other processors."""
    small = {"channels": "6-8", "canvas": 32, "hidden": 40}
    state = load_model("small-cnn", model_args=small, seed=1).module.state_dict()
    torch.save(state, tmp_path / "weights.pth")
    return tmp_path / "weights.pth"


def run(path, weights, *more, env=None):
    if env is None:  # on this processor: in this process
        said = io.StringIO()
        with contextlib.redirect_stdout(said), pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["-c", str(path), str(weights), *more])
            exec(SCRIPT, {"__name__": "script"})
        return said.getvalue()
    found = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(path), str(weights), *more],
        env=env,
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    return found.stdout


def test_a_recording_is_finished_on_the_kind_of_processor_it_was_begun_on(
    tmp_path, weights, other_processor
):
    path = tmp_path / "run.h5"
    assert run(path, weights, "stop") == ""
    said = run(path, weights, env=other_processor)
    assert "was begun with other numerics" in said
    assert "cpu_capability" in said or "blas" in said
    assert "same kind of processor" in said
    assert not path.exists()
    assert run(path, weights) == ""
    with open_recording(path) as recording:
        numerics = recording.attributes["numerics"]
    assert {"cpu_capability", "processor", "blas", "threads"} <= set(numerics)


@pytest.mark.long
def test_recordings_of_two_processors_agree_within_the_tolerance(
    tmp_path, weights, other_processor
):
    here, there = tmp_path / "here.h5", tmp_path / "there.h5"
    assert run(here, weights) == run(there, weights, env=other_processor) == ""
    with open_recording(here) as a, open_recording(there) as b:
        assert a.attributes["numerics"] != b.attributes["numerics"]
        for layer in a.layers:
            first, second = a[layer.name].values, b[layer.name].values
            assert abs(first).max() > 0
            np.testing.assert_allclose(first, second, rtol=0, atol=1e-5 * abs(first).max())
