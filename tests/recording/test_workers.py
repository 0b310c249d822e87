"""Several processes, several machines: the file is that of one process."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch
import xarray

from elsewhere.analyzer import SimilaritySink
from elsewhere.errors import InputError, NumericsError, StorageError
from elsewhere.models import load_model
from elsewhere.recording import Sweep, make_header, record
from elsewhere.recording.engines import windows
from elsewhere.recording.sharing import PortionJob
from elsewhere.recording.workers import LOSSES, pack, perform, unpack
from elsewhere.stimuli import Canvas, Grid, load_objects

NETWORK = """
import time
from pathlib import Path
import torch
from torch import nn

class Slow(nn.Module):
    def forward(self, values):
        time.sleep(0.02)
        return values

class Sick(nn.Module):
    def forward(self, values):
        spread = values.amax((2, 3), keepdim=True) - values.amin((2, 3), keepdim=True)
        return torch.where(spread > 1e-3, torch.nan, values)  # where there is an object

def slow():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 5, stride=2), Slow(), nn.ReLU(), nn.Flatten(),
                            nn.Linear(4 * 10 * 10, 6))
    network.canvas_size = 24
    return network

def sick():
    network = nn.Sequential(nn.Conv2d(3, 4, 5, stride=2), Sick())
    network.canvas_size = 24
    return network
"""


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Return a function that makes a sweep of a network of the current directory."""
    (tmp_path / "shared_networks.py").write_text(NETWORK)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def sweep(name="slow", grid="7x9", reference=None):
        canvas = Canvas(24, 8)
        return Sweep(
            load_model(f"shared_networks:{name}"),
            load_objects("novel", size=8, categories=5),
            canvas=canvas,
            grid=Grid.parse(grid, canvas),
            reference=reference,
            layers="*",
        )

    yield sweep
    sys.modules.pop("shared_networks", None)


def processes_with(word):
    """Return the ids of this process's descendants whose command holds `word`."""
    psutil = pytest.importorskip("psutil")

    found = []
    for child in psutil.Process().children(recursive=True):
        try:
            if word in " ".join(child.cmdline()):
                found.append(child.pid)
        except psutil.Error:
            continue
    return found


def test_two_processes_of_which_one_is_killed(make, tmp_path, contents_of):
    sweep = make(reference=(11, 9)).using("dense")
    whole = record(sweep, tmp_path / "whole.h5")
    killed, images = [], []

    def progress(done, total):
        images.append((done, total))
        if not killed and done > 40:
            killed.append(processes_with("spawn_main")[0])
            os.kill(killed[0], signal.SIGKILL)

    path = record(sweep, tmp_path / "run.h5", workers=2, progress=progress)
    assert killed
    assert images[-1] == (5 * 63, 5 * 63)
    assert contents_of(path) == contents_of(whole)  # bit for bit
    assert not (tmp_path / "run.h5.parts").exists()
    assert not processes_with("spawn_main")


def test_one_process_goes_on_with_what_two_began(make, tmp_path, contents_of):
    sweep, path = make(grid="4x9"), tmp_path / "run.h5"

    def interrupt(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        record(sweep, path, workers=2, progress=interrupt)
    assert list((tmp_path / "run.h5.parts").glob("unit-*.h5"))
    assert not processes_with("spawn_main")
    record(sweep, path)
    assert contents_of(path) == contents_of(record(sweep, tmp_path / "whole.h5"))


def test_what_a_worker_refuses_is_told_as_if_it_were_here(make, tmp_path):
    with pytest.raises(NumericsError, match=r"layer '1' gives NaN or infinity for"):
        record(make("sick"), tmp_path / "run.h5", workers=2)
    assert not (tmp_path / "run.h5.parts").exists()


def test_networks_that_cannot_be_sent_are_told(make, wrap, make_sweep, tmp_path):
    class Local(torch.nn.Module):
        def forward(self, values):
            return values

    sweep = make_sweep(wrap(torch.nn.Sequential(Local())), layers="*")
    with pytest.raises(InputError, match=r"cannot be sent to other processes .*into a module"):
        record(sweep, tmp_path / "run.h5", workers=2)
    with pytest.raises(InputError, match="1 worker or more; got 0"):
        perform(None, [1], workers=0, done=print)


def test_errors_without_a_word_are_told_by_their_names(monkeypatch):
    class Silent:
        def __reduce__(self):
            raise TypeError

    with pytest.raises(InputError, match=r"cannot be sent to other processes \(TypeError\)"):
        perform(Silent(), [1, 2], workers=2, done=print)
    cluster = pytest.importorskip("elsewhere.recording.cluster")

    def connect(*_, **__):
        raise TimeoutError

    monkeypatch.setattr(cluster, "connect", connect)
    with pytest.raises(InputError, match=r"no Dask scheduler answers at 'tcp://x:1' \(Timeout"):
        perform(None, [1], scheduler="tcp://x:1", done=print)


def test_what_is_measured_beside_a_shared_recording_is_the_same(make, tmp_path):
    alone, shared = SimilaritySink(), SimilaritySink()
    record(make(), tmp_path / "a.h5", also=[alone])
    record(make(), tmp_path / "b.h5", workers=2, also=[shared])
    xarray.testing.assert_allclose(shared.result(), alone.result(), rtol=1e-6, atol=1e-6)


def test_a_worker_with_other_numerics_is_refused(make, tmp_path):
    from elsewhere.storage import RecordingWriter

    sweep, path = make(), tmp_path / "run.h5"
    with RecordingWriter(path, make_header(sweep)) as writer:
        packed = pack(PortionJob(sweep, writer.header, writer.parts.folder))
        threads = torch.get_num_threads()
        try:
            unpack(packed)  # as the sender: its number of threads comes along
            job = PortionJob(sweep, writer.header, writer.parts.folder)
            torch.set_num_threads(threads + 1)
            with pytest.raises(InputError, match=rf"threads {threads + 1} instead of {threads}"):
                job.prepare()
        finally:
            torch.set_num_threads(threads)
    gone = PortionJob(sweep, make_header(sweep), tmp_path / "nowhere")
    with pytest.raises(StorageError, match="every worker must see the same files"):
        gone.prepare()


class Dying:
    """A job whose process dies."""

    def prepare(self):
        pass

    def perform(self, task):
        os._exit(7)


def test_a_task_that_ends_its_process_again_and_again_is_given_up():
    with pytest.raises(StorageError, match=rf"ended {LOSSES} times at the same task \(exit code 7"):
        perform(Dying(), [0], workers=2, done=print)


# --- a cluster ------------------------------------------------------------------------------

CHAIN = """
import json, os, sys
from elsewhere.recording.workers import perform, tell

class Chain:
    def prepare(self):
        pass
    def perform(self, task):
        tell([task, "begun", os.getpid()])
        return os.getpid()

if __name__ == "__main__":
    needs = {"a": [], "b": ["a"], "c": [], "d": ["b", "c"]}
    finished, events = [], []
    perform(
        Chain(), list(needs), workers=int(sys.argv[1]),
        ready=lambda task: all(need in finished for need in needs[task]),
        told=lambda word: events.append([word[0], list(finished), word[2] == os.getpid()]),
        done=lambda task, _: finished.append(task),
    )
    print(json.dumps([finished, events]))
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_tasks_wait_for_those_that_they_need_and_are_heard(tmp_path, workers):
    program = tmp_path / "chain.py"
    program.write_text(CHAIN)
    found = subprocess.run(
        [sys.executable, str(program), str(workers)],
        capture_output=True,
        check=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    finished, events = json.loads(found.stdout)
    assert sorted(finished) == sorted(event[0] for event in events) == ["a", "b", "c", "d"]
    before = {task: done for task, done, _ in events}
    assert "a" in before["b"]
    assert {"b", "c"} <= {*before["d"]}
    assert {here for *_, here in events} == {workers == 1}


@pytest.fixture
def cluster(tmp_path):
    """A scheduler and two workers in processes of their own; its address and a way to kill one."""
    pytest.importorskip("distributed")
    file = tmp_path / "scheduler.json"
    options = {"cwd": tmp_path, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    dask = [sys.executable, "-m", "distributed.cli.dask_scheduler"]
    started = [
        subprocess.Popen(
            [*dask, "--port", "0", "--no-dashboard", "--scheduler-file", file], **options
        )
    ]
    dask = [sys.executable, "-m", "distributed.cli.dask_worker", "--scheduler-file", file]
    dask += ["--nthreads", "2", "--no-dashboard", "--no-nanny", "--local-directory", tmp_path]
    started += [subprocess.Popen(dask, **options) for _ in range(2)]
    deadline = time.monotonic() + 600
    while not file.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    import json

    yield json.loads(file.read_text())["address"], started[1:]
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.parametrize("engine", ["dense", "incremental"])
def test_a_cluster_of_which_a_worker_is_killed(
    make, tmp_path, cluster, contents_of, engine, monkeypatch
):
    monkeypatch.setattr(windows, "TILE_WORK", 100_000)  # several tiles, small as it is
    address, workers = cluster
    sweep = make().using(engine)
    header = make_header(sweep)
    assert len(sweep.tasks(header.portions, header.tile)) > 4
    whole = record(sweep, tmp_path / "whole.h5")
    killed = threading.Event()

    def progress(done, total):
        if not killed.is_set() and done > 40:
            workers[0].kill()
            killed.set()

    path = record(sweep, tmp_path / "run.h5", scheduler=address, progress=progress)
    assert killed.is_set()
    assert workers[0].wait() == -signal.SIGKILL
    assert workers[1].poll() is None
    assert contents_of(path) == contents_of(whole)
    assert not (tmp_path / "run.h5.parts").exists()


def test_no_scheduler_is_told(make, tmp_path, monkeypatch):
    cluster = pytest.importorskip("elsewhere.recording.cluster")
    monkeypatch.setattr(cluster, "PATIENCE", 1.0)
    with pytest.raises(InputError, match=r"no Dask scheduler answers at 'tcp://127.0.0.1:9'"):
        record(make(), tmp_path / "run.h5", scheduler="tcp://127.0.0.1:9")


def test_what_a_late_worker_of_another_recording_leaves_is_not_taken(
    make_sweep, tmp_path, contents_of
):
    """Its recording was thrown away meanwhile: its units bear another mark."""
    path, folder = tmp_path / "run.h5", tmp_path / "run.h5.parts"
    kept = []

    def interrupt(done, total):
        kept[:] = sorted(folder.glob("unit-*.h5"))
        if len(kept) >= 2:
            raise KeyboardInterrupt

    old, new = (make_sweep(grid="12x12", layers="logits", seed=seed) for seed in (1, 2))
    with pytest.raises(KeyboardInterrupt):
        record(old, path, progress=interrupt)
    late = kept[0].read_bytes()
    with pytest.raises(KeyboardInterrupt):
        record(new, path, overwrite=True, progress=interrupt)
    kept[0].write_bytes(late)
    record(new, path)
    assert contents_of(path) == contents_of(record(new, tmp_path / "whole.h5"))
