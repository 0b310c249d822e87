"""What a device computes comes to the host, and to the disk, while it goes on."""

import threading

import pytest

from elsewhere import record
from elsewhere.errors import StorageError
from elsewhere.measures import landing
from elsewhere.recording import parse_keeps
from elsewhere.storage import parts
from elsewhere.storage.backlog import Backlog
from tests.counting import counting


@pytest.mark.parametrize("engine", ["dense", "incremental"])
@pytest.mark.parametrize("keep", [None, "mean"])
def test_a_recording_of_a_device_has_the_same_bits(
    make_sweep, contents_of, monkeypatch, tmp_path, late, engine, keep
):
    options = {"n": 5, "grid": "4x4", "reference": (9, 14), "layers": "relu1_1,pool2,logits"}
    keeps = parse_keeps(["relu1_1=mean"]) if keep else None
    expected = record(make_sweep(**options, engine=engine), tmp_path / "plain.h5", keep=keeps)
    plain = contents_of(expected)
    assert late  # measures and windows of a "device", and so does what is written
    monkeypatch.setattr("elsewhere.measures.vectors.HOST", ("cpu", "mps"))
    late.clear()
    found = record(make_sweep(**options, engine=engine), tmp_path / "host.h5", keep=keeps)
    assert not late
    here = contents_of(found)
    for name, value in here.items():
        if keep is None or "relu1_1" not in name:  # means are summed in another order there
            assert plain[name] == value, name


def test_nobody_waits_for_a_block(make_sweep, late, tmp_path):
    sweep = make_sweep(n=8, grid="6x6", layers="pool2,logits")
    record(sweep, tmp_path / "first.h5")  # what is found out once
    late.clear()
    with counting() as counted:
        record(sweep, tmp_path / "run.h5")
    ours = {line: n for line, n in counted.lines.items() if "storage/" in line}
    assert not ours
    n_blocks = 2 * (36 * 8 // 8 + 1)  # passes of eight, and the empty canvas, of two layers
    assert late.count("start") == late.count("wait") == n_blocks
    # a block is waited for when four later ones are on their way
    assert late[: landing.PIECES] == ["start"] * landing.PIECES


def test_a_portion_is_written_beside_the_computation(make_sweep, on_device, monkeypatch, tmp_path):
    threads, write = [], parts.Parts.write_portion

    def note(self, number, data):
        threads.append(threading.current_thread())
        write(self, number, data)

    monkeypatch.setattr(parts.Parts, "write_portion", note)
    record(make_sweep(n=8, grid="6x6", layers="logits"), tmp_path / "run.h5")
    assert len(threads) > 2
    assert threading.main_thread() not in threads


def test_a_full_disk_is_said_and_the_recording_goes_on(
    make_sweep, on_device, monkeypatch, tmp_path, contents_of
):
    options = {"n": 8, "grid": "6x6", "layers": "logits"}
    whole = contents_of(record(make_sweep(**options), tmp_path / "whole.h5"))
    write, numbers = parts.Parts.write_portion, []

    def full(self, number, data):
        if number == 2:
            raise StorageError("no space left")
        numbers.append(number)
        write(self, number, data)

    with monkeypatch.context() as patch:
        patch.setattr(parts.Parts, "write_portion", full)
        with pytest.raises(StorageError, match="no space left"):
            record(make_sweep(**options), tmp_path / "run.h5")
    assert not (tmp_path / "run.h5").exists()
    assert {0, 1} <= set(numbers)
    left = []
    with monkeypatch.context() as patch:
        patch.setattr(
            parts.Parts,
            "write_portion",
            lambda self, number, data: (left.append(number), write(self, number, data)),
        )
        found = record(make_sweep(**options), tmp_path / "run.h5")
    assert not set(left) & set(numbers)
    assert contents_of(found) == whole


def test_what_waits_is_bounded_and_fails_where_the_next_comes():
    gate, done = threading.Event(), []
    backlog = Backlog(100)
    backlog.add(gate.wait, 60)
    assert backlog._full(60)  # the next one has to wait for it
    gate.set()
    backlog.add(lambda: done.append(1), 60)
    backlog.drain()
    assert done == [1]

    def fail():
        raise OSError("full")

    backlog.add(fail, 200)  # more than all: it goes alone
    with pytest.raises(OSError, match="full"):
        backlog.add(lambda: done.append(2), 10)
    backlog.close()
    assert done == [1]
