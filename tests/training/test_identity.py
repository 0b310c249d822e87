"""What belongs to a run beside its curriculum: threads, pictures, and one process at a time."""

import dataclasses
import json
import os
import pickle
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch

from elsewhere.errors import ExistsError, InputError, StorageError
from elsewhere.training import list_checkpoints, read_metrics, run_directory, train
from elsewhere.training.checkpoints import read_weights


class Stop(Exception):
    pass


def stop(report):
    if report.step >= 100:
        raise Stop


@pytest.fixture
def long_curriculum(make_curriculum, make_phase):
    return make_curriculum(make_phase(steps=120, checkpoints=(0, 120)))


def weights_of(directory):
    return [card.sha256 for card in list_checkpoints(directory)]


def test_a_run_goes_on_with_the_threads_it_was_begun_with(long_curriculum, tmp_path):
    before = torch.get_num_threads()
    whole = train(long_curriculum, tmp_path / "whole", device="cpu", threads=1)
    with pytest.raises(Stop):
        train(
            long_curriculum, tmp_path / "run", device="cpu", threads=1, progress=stop, save_every=0
        )
    torch.set_num_threads(2)
    try:
        with pytest.raises(ExistsError, match="begun with 1 threads.*got 2.*leave --threads out"):
            train(long_curriculum, tmp_path / "run", device="cpu", threads=2)
        train(long_curriculum, tmp_path / "run", device="cpu")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert weights_of(tmp_path / "run") == weights_of(whole)
    card = list_checkpoints(tmp_path / "run")[-1]
    assert card.numerics["threads"] == 1
    assert card.numerics["torch"] == torch.__version__
    assert not card.notes
    with pytest.raises(InputError, match="threads must be at least 1"):
        train(long_curriculum, tmp_path / "other", device="cpu", threads=0)


def test_what_changed_under_a_run_is_told_in_its_cards(long_curriculum, tmp_path, monkeypatch):
    with pytest.raises(Stop):
        train(long_curriculum, tmp_path / "run", device="cpu", progress=stop, save_every=0)
    plain = run_directory.describe_machine
    monkeypatch.setattr(
        run_directory, "describe_machine", lambda device: plain(device) | {"torch": "9.9"}
    )
    train(long_curriculum, tmp_path / "run", device="cpu")
    first, *_, last = list_checkpoints(tmp_path / "run")
    assert not first.notes
    assert "torch" in last.notes[0]
    assert "9.9 now" in last.notes[0]


def test_a_run_goes_on_on_another_processor_and_says_so(long_curriculum, tmp_path, other_processor):
    with pytest.raises(Stop):
        train(long_curriculum, tmp_path / "run", device="cpu", progress=stop, save_every=0)
    (tmp_path / "curriculum.pkl").write_bytes(pickle.dumps(long_curriculum))
    script = """
import pickle, sys
from elsewhere.training import train

class Stop(Exception): pass

def stop(report):
    raise Stop

curriculum = pickle.load(open(sys.argv[1], "rb"))
try:
    train(curriculum, sys.argv[2], device="cpu", save_every=0, progress=stop)
except Stop:
    pass
"""
    given = [str(tmp_path / "curriculum.pkl"), str(tmp_path / "run")]
    subprocess.run(
        [sys.executable, "-c", script, *given], env=other_processor, check=True, timeout=300
    )
    train(long_curriculum, tmp_path / "run", device="cpu")  # here again
    first, *_, last = list_checkpoints(tmp_path / "run")
    assert not first.notes
    assert any("went on elsewhere" in note and "blas" in note for note in last.notes)
    assert {"cpu_capability", "processor", "blas", "threads"} <= set(last.numerics)
    alone = train(long_curriculum, tmp_path / "alone", device="cpu")
    one, other = read_weights(list_checkpoints(alone)[-1]), read_weights(last)
    for name, value in one.items():
        assert float((value - other[name]).abs().max()) <= 0.05 * float(value.abs().max()), name


def test_other_pictures_of_the_same_name_are_another_run(make_curriculum, make_phase, tmp_path):
    from PIL import Image

    rng = np.random.default_rng(0)
    for category in ("a", "b"):
        (tmp_path / "set" / category).mkdir(parents=True)
        for number in range(4):
            pixels = rng.integers(0, 256, (7, 7, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "set" / category / f"{number}.png")
    phase = make_phase(
        steps=120, objects=f"folder:{tmp_path / 'set'}", categories=2, checkpoints=(0, 120)
    )
    few = dataclasses.replace(phase.exemplars, train=2, held_out=1)
    phase = dataclasses.replace(phase, exemplars=few)
    curriculum = make_curriculum(phase)
    with pytest.raises(Stop):
        train(curriculum, tmp_path / "run", device="cpu", progress=stop, save_every=0)
    Image.fromarray(np.zeros((7, 7, 3), np.uint8) + 99).save(tmp_path / "set" / "a" / "0.png")
    for _ in range(2):
        with pytest.raises(ExistsError, match="begun with other pictures in phase 'learn'"):
            train(curriculum, tmp_path / "run", device="cpu")


TRAIN = """
import json, sys, time
from elsewhere.training import Curriculum, train
def wait(report):
    print("ready", flush=True)
    time.sleep(600)
train(Curriculum.from_dict(json.loads(sys.argv[1])), sys.argv[2], device="cpu", progress=wait)
"""


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_the_second_to_train_a_run_is_refused_until_the_first_is_dead(
    long_curriculum, tmp_path, sign
):
    program = [sys.executable, "-c", TRAIN, json.dumps(long_curriculum.to_dict())]
    with subprocess.Popen([*program, str(tmp_path / "run")], stdout=subprocess.PIPE) as first:
        assert first.stdout.readline() == b"ready\n"
        (tmp_path / "run" / "checkpoints" / ".elsewhere-0123.tmp").write_bytes(bytes(1000))
        with pytest.raises(StorageError, match="is being trained by another process"):
            train(long_curriculum, tmp_path / "run", device="cpu")
        os.kill(first.pid, sign)
        first.wait()
    train(long_curriculum, tmp_path / "run", device="cpu")
    assert len(list_checkpoints(tmp_path / "run")) == 2
    assert not list((tmp_path / "run").rglob(".elsewhere-*"))


def test_a_disk_that_is_too_small_is_told_before(long_curriculum, mounted):
    folder = mounted("64k")
    steps = []
    with pytest.raises(StorageError, match="no space left for .* checkpoints and the state"):
        train(long_curriculum, folder / "run", device="cpu", progress=steps.append)
    assert not steps
    assert not list(folder.iterdir())


def test_metrics_that_do_not_fit_are_one_line_and_the_run_goes_on_later(
    long_curriculum, tmp_path, monkeypatch
):
    whole = train(long_curriculum, tmp_path / "whole", device="cpu")
    plain, full = os.pwrite, []

    def pwrite(handle, data, place):
        if len(full) < 2 and place > 0:
            full.append(place)
            if len(full) == 1:
                return plain(handle, data[:10], place)  # a part still fits
            raise OSError(28, "No space left on device")
        return plain(handle, data, place)

    monkeypatch.setattr(os, "pwrite", pwrite)
    with pytest.raises(StorageError, match=r"no space left for .*metrics\.jsonl") as told:
        train(long_curriculum, tmp_path / "run", device="cpu", save_every=0)
    assert "\n" not in str(told.value)
    assert len(read_metrics(tmp_path / "run")) == 1
    train(long_curriculum, tmp_path / "run", device="cpu")
    assert weights_of(tmp_path / "run") == weights_of(whole)
    assert read_metrics(tmp_path / "run") == read_metrics(whole)
