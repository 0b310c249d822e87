"""Recordings that can be trusted, from the command line."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest

from elsewhere.storage import load_result, open_recording

SMALL = ("small-cnn", "--objects", "novel", "--categories", "3", "--grid", "6x6", "--threads", 1)


def test_the_same_command_again_answers_already_complete(run, refuse, here):
    run("record", *SMALL, "--out", "run.h5")
    before = (here / "run.h5").read_bytes()
    again = run("record", *SMALL, "--out", "run.h5")
    assert again.err == "run.h5: already complete\n"
    assert again.out == ""
    assert (here / "run.h5").read_bytes() == before
    says = ("run.h5", "exists already", "differs in layers", "--overwrite")
    refuse("record", *SMALL, "--layers", "fc5", "--out", "run.h5", says=says)
    says = ("differs in axes, ", "input.gain", "state")
    refuse(
        "record", *SMALL, "--seed", 3, "--gain", 2, "--grid", "5x6", "--out", "run.h5", says=says
    )
    run("record", *SMALL, "--similarity", "sim.nc", "--out", "run.h5")  # what is missing is made
    assert (here / "run.h5").read_bytes() == before
    run("similarity", "run.h5", "--layers", "fc5", "--out", "again.nc")
    with h5py.File(here / "sim.nc") as one, h5py.File(here / "again.nc") as other:
        place = one["layer"].asstr()[...].tolist().index("fc5")
        np.testing.assert_allclose(
            one["cosine_each"][place], other["cosine_each"][0], rtol=0, atol=1e-5
        )


def test_verify(run, refuse, made, here):
    shutil.copy(made[0], here / "run.h5")
    assert "all as they were recorded" in run("verify", "run.h5").out
    found = run("verify", "run.h5", "--json").json
    assert (found["ok"], found["finished"], found["damages"]) == (True, True, [])
    with h5py.File(here / "run.h5") as file:
        dataset = file["layers/fc5/activation"]
        chunk, n = dataset.id.get_chunk_info(0), dataset.chunks[0]
        first = chunk.chunk_offset[0]
        names = file["object"].asstr()[first : first + n]
        y = file["y"][chunk.chunk_offset[1]]
    data = bytearray((here / "run.h5").read_bytes())
    data[chunk.byte_offset + 5] ^= 1
    (here / "run.h5").write_bytes(data)
    where = f"objects {names[0]} to {names[-1]}, y {y} to "
    says = (f"is damaged: layer fc5, {where}", "unreadable")
    refuse("verify", "run.h5", says=says)
    refuse("similarity", "run.h5", "--out", "sim.nc", says=("fc5", "elsewhere verify"), late=True)
    refuse("verify", "missing.h5", says="does not exist")
    refuse("verify", "run.h5", "--timeout", 0, says="--timeout")


def test_inspect_shows_where_it_came_from(run, made):
    text = run("inspect", made[0]).out
    found = run("inspect", made[0], "--json").json
    about = found["attributes"]
    assert found["share"] == 1
    for key in ("user", "host", "command", "created", "versions", "weights_sha256", "identity"):
        assert key in about
        assert f"\n{key}: " in text
    assert set(about["versions"]) >= {"python", "torch", "torchvision", "elsewhere", "h5py"}
    assert len(about["identity_fields"]["state"]) == 64


SLOW = """
import os
import time
from pathlib import Path
from torch import nn

class Slow(nn.Module):
    def waits(self):
        units = list(Path(".").glob("run.h5.parts/unit-*"))
        return "SLOW_NET" in os.environ and Path("wait").exists() and len(units) >= 3

    def forward(self, values):
        while self.waits():
            time.sleep(0.05)
        return values

def build():
    return nn.Sequential(Slow(), nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.Flatten(),
                         nn.Linear(4 * 11 * 11, 6))
"""
SLOWLY = {**os.environ, "SLOW_NET": "1"}  # only the process that shall wait
COMMAND = ("slow_net:build", "--canvas", "24", "--objects", "novel", "--categories", "6",
           "--grid", "8x8", "--layers", "logits", "--reference", "2,2", "--threads", "1",
           "--engine", "dense", "--out", "run.h5")  # fmt: skip


@pytest.fixture
def waiting(here, monkeypatch):
    """A process that records to run.h5 and waits, three units done; it goes on without `wait`."""
    (here / "slow_net.py").write_text(SLOW)
    (here / "wait").touch()
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    command = [sys.executable, "-B", "-m", "elsewhere.cli", "record", *COMMAND]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=here, env=SLOWLY
    ) as process:
        deadline = time.monotonic() + 600
        while len(list(here.glob("run.h5.parts/unit-*.h5"))) < 3 and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield process
        process.kill()
    sys.modules.pop("slow_net", None)


def test_two_commands_to_one_name_and_a_look_at_what_is_there(run, refuse, waiting, here):
    command = [sys.executable, "-B", "-m", "elsewhere.cli", "record", *COMMAND]
    second = subprocess.run(command, capture_output=True, text=True, cwd=here, check=False)
    assert second.returncode == 1
    assert second.stderr.splitlines()[-1].startswith(
        "error: run.h5 is being recorded by another process"
    )
    assert "Traceback" not in second.stderr
    # meanwhile what is there can be analysed, if one says so
    refuse("similarity", "run.h5", "--out", "sim.nc", says=("not finished", "--allow-partial"))
    part = run("similarity", "run.h5", "--allow-partial", "--out", "sim.nc")
    assert "run.h5 is not finished: " in part.err
    share = run("inspect", "run.h5", "--allow-partial", "--json").json["share"]
    assert 0 < share < 1
    assert f"{share:.1%} of it is there" in part.err
    refuse("measure", "run.h5", "--names", "cosine", "--out", "m.nc", says="--allow-partial")
    run("measure", "run.h5", "--allow-partial", "--names", "cosine", "--out", "m.nc")
    probe = ("run.h5", "--train-at", "2,2", "--split", "same", "--controls", "none")
    refuse("probe", *probe, "--out", "p.nc", says="--allow-partial")
    run("probe", *probe, "--allow-partial", "--out", "p.nc")
    assert [load_result(name).attrs["share"] for name in ("m.nc", "p.nc")] == [share, share]
    refuse("verify", "run.h5", says=("not finished", "%"))
    for command in ("similarity", "probe", "measure"):
        live = (command, "small-cnn", "--allow-partial", "--out", "x.nc")
        names = ("--names", "cosine") if command == "measure" else ()
        refuse(*live, *names, says="for recordings", late=True)
    (here / "wait").unlink()
    _, err = waiting.communicate(timeout=300)
    assert waiting.returncode == 0, err
    with open_recording("run.h5") as recording, h5py.File("sim.nc") as partial:
        assert recording.share == 1
        assert (
            json.loads(partial.attrs["share"])
            if isinstance(partial.attrs["share"], str)
            else 0 < float(np.asarray(partial.attrs["share"]).item()) < 1
        )


def fill(path):
    """Take up all the room that is left."""
    with open(path, "wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


def test_a_disk_that_fills_up_is_one_line_and_the_same_command_goes_on(mounted, monkeypatch, run):
    folder = mounted(24 * 2**20)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (folder / "slow_net.py").write_text(SLOW)
    (folder / "wait").touch()
    command = [sys.executable, "-B", "-m", "elsewhere.cli", "record", *COMMAND]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder, env=SLOWLY
    ) as process:
        deadline = time.monotonic() + 600
        while len(list(folder.glob("run.h5.parts/unit-*.h5"))) < 3 and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        fill(folder / "ballast")
        (folder / "wait").unlink()
        _, err = process.communicate(timeout=300)
    assert process.returncode == 1
    assert err.splitlines()[-1].startswith("error: no space left for run.h5.parts/unit-")
    assert "Traceback" not in err
    assert not (folder / "run.h5").exists()
    kept = len(list(folder.glob("run.h5.parts/unit-*.h5")))
    assert kept >= 3
    (folder / "ballast").unlink()
    run("record", *COMMAND)
    sys.modules.pop("slow_net", None)
    assert not (folder / "run.h5.parts").exists()
    assert run("verify", "run.h5").code == 0
    monkeypatch.chdir("/")


def test_ways_of_sharing_that_do_not_go_together(refuse):
    call = ("record", *SMALL, "--out", "run.h5")
    refuse(*call, "--workers", 0, says="--workers must be at least 1")
    refuse(*call, "--workers", 2, "--scheduler", "tcp://a:1", says="give one")
    refuse("plan", *SMALL, "--workers", -1, says="--workers")


class Payload:
    def __reduce__(self):
        return (open, ("ran", "w"))


def test_a_recording_that_carries_code_never_runs_it(run, refuse, made, here):
    import pickle

    payload = pickle.dumps(Payload())
    shutil.copy(made[0], here / "run.h5")
    with h5py.File(here / "run.h5", "r+") as file:
        file.attrs["model"] = np.void(payload)
        file.attrs["payload"] = np.frombuffer(payload, np.uint8)
        file["object"].attrs["payload"] = np.void(payload)
        file["payload"] = np.void(payload)
        group = file["layers/fc5"]
        group.attrs["type"] = np.void(payload)
    from elsewhere.storage.merge import seal_recording

    seal_recording(here / "run.h5")
    for command in (("inspect", "run.h5"), ("verify", "run.h5"),
                    ("similarity", "run.h5", "--out", "sim.nc")):  # fmt: skip
        from typer.testing import CliRunner

        from elsewhere.cli import app

        CliRunner().invoke(app, list(command))
    parts = here / "other.h5.parts"
    parts.mkdir()
    for name in ("manifest.json", "header.h5", "unit-0000000.h5"):
        (parts / name).write_bytes(payload)
    refuse("similarity", "other.h5", "--allow-partial", "--out", "x.nc", says="not finished")
    refuse("verify", "other.h5", says="no manifest")
    (here / "weights.pth").write_bytes(payload)
    refuse("record", "small-cnn", "--weights", "weights.pth", "--out", "b.h5", says="weights.pth")
    assert not (here / "ran").exists()
    pickle.loads(payload).close()  # it would
    assert (here / "ran").exists()
