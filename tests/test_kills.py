"""Commands that are killed again and again: the values, and the work, of undisturbed ones.

The kills themselves are in kills.py, which runs as a process of its own, because it forks.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ALONE = ("record", "record-windows", "similarity", "measure", "probe", "sanity", "attribute",
         "accuracy", "track", "train")  # fmt: skip
SHARED = ("record-workers", "attribute-workers", "track-workers",
          "record-cluster", "attribute-cluster", "track-cluster")  # fmt: skip
CLUSTERS = ("record-cluster", "attribute-cluster", "track-cluster")


def kill(folder, cases, kills, way):
    pytest.importorskip("psutil")
    program = [sys.executable, "-B", "-m", "tests.kills", folder, ",".join(cases)]
    program += [str(kills), "0", way]
    root = Path(__file__).parents[1]
    out = subprocess.run(
        program, capture_output=True, text=True, timeout=3600, check=False, cwd=root
    )
    assert out.returncode == 0, out.stderr[-3000:]
    found = json.loads(out.stdout.splitlines()[-1])
    assert list(found) == list(cases)
    for case, counts in found.items():
        assert not counts["wrong"], (case, counts)
    return found


def test_commands_killed_at_their_writes(tmp_path):
    cases = ("record", "record-windows", "attribute", "track", "train")
    found = kill(tmp_path, cases, 2, "aimed")
    assert sum(counts["kills"] for counts in found.values()) >= 10


@pytest.mark.long
@pytest.mark.parametrize("case", ALONE)
@pytest.mark.parametrize("way", ["aimed", "random"])
def test_each_command(tmp_path, case, way):
    assert kill(tmp_path, (case,), 4, way)[case]["kills"] >= 4


@pytest.mark.long
@pytest.mark.parametrize("case", SHARED)
def test_commands_with_workers_and_clusters(tmp_path, case):
    if case in CLUSTERS:
        pytest.importorskip("distributed")
    assert kill(tmp_path, (case,), 6, "random")[case]["kills"] >= 6


@pytest.mark.long
def test_a_reproduction(tmp_path):
    """Finished phases and measurements are not done again, neither by the process nor a worker."""
    found = kill(tmp_path, ("reproduce", "reproduce-workers"), 2, "random")
    assert all(counts["kills"] >= 2 for counts in found.values())
    assert found["reproduce"]["stages done before"] > 0


@pytest.mark.long
@pytest.mark.parametrize("case", CLUSTERS)
def test_a_scheduler_that_is_lost(tmp_path, case):
    """One line, exit 1; what was done serves the same command without it."""
    pytest.importorskip("distributed")
    assert kill(tmp_path, (case,), 0, "lost")[case]["parts"] > 0
