"""Processes that share work end with the one that asked for it, however that ends."""

import os
import signal
import subprocess
import sys
import time

import pytest

psutil = pytest.importorskip("psutil")

CREW = """
import sys, time
from pathlib import Path
from elsewhere.recording.workers import perform

class Endless:
    def prepare(self):
        pass
    def perform(self, task):
        Path(sys.argv[1], str(task)).touch()
        while True:  # never looks at its connection, as in a long computation
            sum(range(10_000))

if __name__ == "__main__":
    perform(Endless(), [0, 1], workers=2, done=print)
"""


@pytest.mark.parametrize(
    ("script", "sign"),
    [
        (CREW, signal.SIGKILL),
        pytest.param(CREW, signal.SIGTERM, marks=pytest.mark.long),
        pytest.param(CREW, signal.SIGHUP, marks=pytest.mark.long),
    ],
    ids=["crew-kill", "crew-term", "crew-hup"],
)
def test_workers_end_with_their_parent(tmp_path, script, sign):
    program, begun = tmp_path / "program.py", tmp_path / "begun"
    program.write_text(script)
    begun.mkdir()
    parent = subprocess.Popen(
        [sys.executable, str(program), str(begun)],
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    give_up = time.monotonic() + 600
    while len(list(begun.iterdir())) < 2 and time.monotonic() < give_up:
        assert parent.poll() is None
        time.sleep(0.05)
    workers = [
        child
        for child in psutil.Process(parent.pid).children(recursive=True)
        if "spawn_main" in " ".join(child.cmdline())
    ]
    assert len(workers) == 2
    os.kill(parent.pid, sign)
    parent.wait()
    _, alive = psutil.wait_procs(workers, timeout=300)
    for process in alive:
        process.kill()
    assert not alive
