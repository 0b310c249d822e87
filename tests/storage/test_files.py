import errno
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from elsewhere.errors import ElsewhereError, ExistsError, StorageError
from elsewhere.models.weights import read_states
from elsewhere.reproduction import load_scale
from elsewhere.storage import (
    check_output,
    files,
    free_bytes,
    load_result,
    open_recording,
    verify,
    write_atomically,
)
from elsewhere.storage.documents import write_document
from elsewhere.storage.locks import Claim, locked
from elsewhere.training import load_curriculum
from elsewhere.training.checkpoints import list_checkpoints


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    umask = os.umask(0)
    os.umask(umask)
    path = tmp_path / "a.bin"
    write_atomically(path, b"old")
    assert path.read_bytes() == b"old"
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask

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


# --- names, modes, links ----------------------------------------------------------------------


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_a_new_file_has_the_mode_that_the_umask_leaves(tmp_path, mask):
    before = os.umask(mask)
    try:
        write_atomically(tmp_path / "new", b"1")
        (tmp_path / "plain").write_bytes(b"1")
    finally:
        os.umask(before)
    modes = [(tmp_path / name).stat().st_mode & 0o777 for name in ("new", "plain")]
    assert modes == [0o666 & ~mask] * 2


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664])
def test_a_file_that_is_replaced_keeps_its_mode(tmp_path, mode):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    path.chmod(mode)
    write_atomically(path, b"new", overwrite=True)
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == mode


def test_of_two_that_create_a_file_the_second_is_refused(tmp_path):
    """Both looked before, when there was none."""
    path = tmp_path / "a"
    check_output(path)
    write_atomically(path, b"first", overwrite=False)
    with pytest.raises(ExistsError, match="has come into being meanwhile"):
        write_atomically(path, b"second", overwrite=False)
    assert path.read_bytes() == b"first"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]


def test_where_there_are_no_hard_links_the_name_is_reserved(tmp_path, monkeypatch):
    def without(*_):
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "link", without)
    write_atomically(tmp_path / "a", b"first", overwrite=False)
    with pytest.raises(ExistsError, match="meanwhile"):
        write_atomically(tmp_path / "a", b"second", overwrite=False)
    assert (tmp_path / "a").read_bytes() == b"first"


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_link_to_nowhere_is_not_replaced_in_silence(tmp_path, overwrite):
    path = tmp_path / "a"
    path.symlink_to(tmp_path / "gone")
    with pytest.raises(ExistsError, match=r"a is a link to .*gone, which does not exist"):
        check_output(path, overwrite=overwrite)
    assert path.is_symlink()


def test_devices_long_names_and_closed_folders_are_refused_before(tmp_path):
    with pytest.raises(StorageError, match="/dev/full is a device or a pipe"):
        check_output(files.Path("/dev/full"), overwrite=True)
    with pytest.raises(StorageError, match="File name too long"):
        check_output(tmp_path / ("a" * 300))
    with pytest.raises(StorageError, match="will need about"):
        check_output(tmp_path / "a", room=2**60)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_told_before_anything_is_computed(mounted):
    folder = mounted("64k")
    (folder / "filled").write_bytes(bytes(64 * 1024))
    with pytest.raises(StorageError, match="no space left"):
        check_output(folder / "a")
    assert [entry.name for entry in folder.iterdir()] == ["filled"]


# --- rescue -----------------------------------------------------------------------------------


def test_what_cannot_be_written_there_goes_elsewhere_and_the_line_says_where(
    mounted, tmp_path, monkeypatch
):
    folder = mounted("64k")
    monkeypatch.chdir(tmp_path)
    data = os.urandom(100_000)
    with pytest.raises(
        StorageError, match=r"no space left for .*; what was computed is in"
    ) as told:
        files.save_output(folder / "a.nc", data)
    rescued = tmp_path / "a.rescued.nc"
    assert str(rescued) in str(told.value)
    assert rescued.read_bytes() == data
    assert not list(folder.iterdir())


def test_two_results_of_one_name_are_both_kept(tmp_path):
    path = tmp_path / "a.nc"
    files.save_output(path, b"0")
    for number in (1, 2):
        with pytest.raises(ExistsError, match=r"what was computed is in .*a\.rescued"):
            files.save_output(path, b"%d" % number)
    names = ["a.nc", "a.rescued-1.nc", "a.rescued.nc"]
    assert sorted(entry.name for entry in tmp_path.iterdir()) == names
    assert [(tmp_path / name).read_bytes() for name in names] == [b"0", b"2", b"1"]


# --- what killed processes leave --------------------------------------------------------------

KILLED = """
import os, signal, sys
from pathlib import Path
from elsewhere.storage.files import temporary_file
with temporary_file(Path(sys.argv[1])) as (file, name):
    file.write(bytes(1000))
    file.flush()
    print("written", flush=True)
    if sys.argv[2] == "wait":
        sys.stdin.read()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_leftovers_of_the_dead_are_removed_and_only_those(tmp_path):
    program = [sys.executable, "-c", KILLED, str(tmp_path)]
    subprocess.run([*program, "die"], check=False, capture_output=True)
    (dead,) = tmp_path.iterdir()
    (tmp_path / ".elsewhere-link.tmp").symlink_to(tmp_path / "other")
    (tmp_path / "other").write_bytes(b"not ours")
    with subprocess.Popen(
        [*program, "wait"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as living:
        assert living.stdout.readline() == b"written\n"
        check_output(tmp_path / "a")
        left = {entry.name for entry in tmp_path.iterdir()}
        assert dead.name not in left
        assert len(left) == 3
        living.stdin.close()
    check_output(tmp_path / "a")
    assert {entry.name for entry in tmp_path.iterdir()} == {".elsewhere-link.tmp", "other"}


# --- locks ------------------------------------------------------------------------------------


def test_a_folder_is_locked_by_one_only(tmp_path):
    with (
        locked(tmp_path, "it is in use"),
        pytest.raises(StorageError, match="it is in use"),
        locked(tmp_path, "it is in use"),
    ):
        pass
    with locked(tmp_path, "it is in use"):
        pass


def test_a_lock_that_is_a_link_is_not_followed(tmp_path):
    other = tmp_path / "other"
    other.write_bytes(b"precious")
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "lock").symlink_to(other)
    with pytest.raises(StorageError, match="is a link"), locked(folder, ""):
        pass
    assert other.read_bytes() == b"precious"


def test_who_outlives_its_run_writes_nothing_more(tmp_path):
    first = Claim.take(tmp_path)
    with first.writing():
        pass
    second = Claim.take(tmp_path)
    with pytest.raises(StorageError, match="begun again or finished"), first.writing():
        pass
    with second.writing():
        pass
    (tmp_path / "claim").unlink()
    with pytest.raises(StorageError, match="begun again or finished"), second.writing():
        pass


def test_a_new_run_waits_for_the_file_that_is_being_written(tmp_path):
    first, order = Claim.take(tmp_path), []

    def take():
        Claim.take(tmp_path)
        order.append("claimed")

    with first.writing():
        thread = threading.Thread(target=take)
        thread.start()
        thread.join(0.3)
        order.append("written")
    thread.join()
    assert order == ["written", "claimed"]


HANG_UP = """
import os, signal, sys
from pathlib import Path
from elsewhere.storage import files
write = files.write_atomically
def hung_up(*arguments, **options):
    os.kill(os.getpid(), signal.SIGHUP)
    return write(*arguments, **options)
files.write_atomically = hung_up
files.save_output(Path(sys.argv[1]), b"found")
assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
"""


def test_a_terminal_that_is_closed_while_the_output_is_written(tmp_path):
    path = tmp_path / "a.nc"
    subprocess.run([sys.executable, "-c", HANG_UP, str(path)], check=True)
    assert path.read_bytes() == b"found"


def test_room_is_looked_at(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "free_bytes", lambda _: 2**20)
    files.check_room(tmp_path / "a.nc", 2**20)
    with pytest.raises(StorageError, match=r"a\.nc will need about 2.0 MiB, and 1.0 MiB are free"):
        files.check_room(tmp_path / "a.nc", 2**21)


@pytest.fixture
def ordinary_user():
    """Return a folder in which this process has the rights of nobody in particular."""
    folder = Path(tempfile.mkdtemp())
    user = os.geteuid()
    if user == 0:  # may read everything
        os.chown(folder, 65534, -1)
        os.seteuid(65534)
    yield folder
    os.seteuid(user)
    subprocess.run(["chmod", "-R", "u+rwx", folder], check=True)
    shutil.rmtree(folder)


def closed(folder, name):
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"something")
    path.chmod(0)
    return path


def inside(folder, name):
    path = folder / "shut" / name
    path.parent.mkdir()
    path.write_bytes(b"something")
    path.parent.chmod(0)
    return path


def in_parts(folder, name):
    (folder / f"{name}.parts").mkdir(mode=0)
    return folder / name


def with_checkpoints(folder, name):
    (folder / name).mkdir()
    (folder / name / "checkpoints").mkdir(mode=0)
    return folder / name


@pytest.mark.parametrize(
    ("read", "make", "name"),
    [
        (read_states, closed, "w.safetensors"),
        (read_states, inside, "w.pth"),
        (load_scale, inside, "scale.toml"),
        (lambda path: load_scale(path.parent), inside, "scale.toml"),
        (load_curriculum, inside, "mine.toml"),
        (load_result, inside, "r.nc"),
        (open_recording, inside, "r.h5"),
        (lambda path: open_recording(path, allow_partial=True), in_parts, "r.h5"),
        (verify, in_parts, "r.h5"),
        (list_checkpoints, with_checkpoints, "run"),
    ],
)
def test_closed_to_whoever_asks(ordinary_user, read, make, name):
    with pytest.raises(ElsewhereError, match="(?i)permission denied"):
        read(make(ordinary_user, name))


def test_a_closed_folder_is_not_passed_over(ordinary_user):
    write_document(ordinary_user / "c.json", {}, encoding="claims", version="0.2")
    inside(ordinary_user, "r.nc")
    found = verify(ordinary_user)
    assert [(damage.file, found.ok) for damage in found.damages] == [("shut", False)]
