import errno
import os

import pytest

from elsewhere.errors import ExistsError, StorageError
from elsewhere.storage import check_output, files, free_bytes, write_atomically


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "a.bin"
    write_atomically(path, b"old")
    assert path.read_bytes() == b"old"
    assert path.stat().st_mode & 0o777 == 0o644

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=r"no space left for .*a.bin .* free some"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.bin"]


def test_an_interruption_leaves_no_file(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "a.bin", b"new")
    assert not list(tmp_path.iterdir())


def test_outputs_are_checked(tmp_path):
    path = tmp_path / "a"
    check_output(path)
    path.touch()
    with pytest.raises(ExistsError, match="exists already"):
        check_output(path)
    check_output(path, overwrite=True)
    with pytest.raises(StorageError, match="is a folder"):
        check_output(tmp_path, overwrite=True)
    with pytest.raises(StorageError, match="does not exist; create it first"):
        check_output(tmp_path / "b" / "a")


def test_other_errors_name_the_file_in_one_line(tmp_path):
    with (
        pytest.raises(StorageError, match=r"cannot write .*thing: Input/output error"),
        files.storage_errors(tmp_path / "thing"),
    ):
        raise OSError(errno.EIO, "Input/output error")


def test_free_bytes_of_a_file_that_is_yet_to_be(tmp_path):
    assert free_bytes(tmp_path / "a" / "b") > 0
