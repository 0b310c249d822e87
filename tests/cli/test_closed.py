"""Terminals that were closed, and full ones: the work is done, and nothing is a traceback."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from elsewhere.storage import load_result
from elsewhere.terminal import LossyStream

OPTIONS = ["record", "small-cnn", "--canvas", "24", "--objects", "novel", "--categories", "2",
           "--grid", "2x2", "--layers", "logits", "--out", "run.h5"]  # fmt: skip


def elsewhere(*arguments, **streams):
    program = [sys.executable, "-m", "elsewhere.cli", *arguments]
    return subprocess.run(program, check=False, **streams)


def test_progress_that_cannot_be_printed_is_dropped(tmp_path):
    with open("/dev/full", "w") as full:
        done = elsewhere(*OPTIONS, cwd=tmp_path, stdout=subprocess.PIPE, stderr=full)
    assert done.returncode == 0
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.h5"]


OLD = Path(__file__).parents[1] / "data" / "recording-0.3.h5"
TABLES = {"objects": [], "measure": [str(OLD), "--names", "cosine", "--out", "m.nc"]}


@pytest.mark.parametrize("command", TABLES)
def test_standard_output_that_is_full_is_one_line(command, tmp_path):
    with open("/dev/full", "w") as full:
        done = elsewhere(
            command, *TABLES[command], stdout=full, stderr=subprocess.PIPE, text=True, cwd=tmp_path
        )
    assert done.returncode == 1
    assert "cannot write to standard output" in done.stderr
    assert "No space left on device" in done.stderr
    if TABLES[command]:
        load_result(tmp_path / "m.nc")
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_a_stream_whose_other_end_is_gone():
    reader, writer = os.pipe()
    os.close(reader)
    stream = LossyStream(os.fdopen(writer, "w"))
    assert stream.write("progress") == 8
    stream.flush()
    with pytest.raises(BrokenPipeError):
        stream.close()
