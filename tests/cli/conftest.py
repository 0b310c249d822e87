"""The command line in this process, in an empty directory of its own."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from elsewhere.cli import app

SMALL = ("small-cnn", "--objects", "novel", "--categories", "3", "--grid", "3x3")


@dataclass(frozen=True)
class Outcome:
    """What a command left: exit status, the two streams, and what stopped it."""

    code: int
    out: str
    err: str
    exception: BaseException | None

    @property
    def json(self):
        return json.loads(self.out, parse_constant=lambda name: pytest.fail(f"{name} in JSON"))


def invoke(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return Outcome(result.exit_code, result.stdout, result.stderr, result.exception)


def contents(folder):
    """Return every file below `folder` with its bytes, but Python's own of imported modules."""
    files = (p for p in folder.rglob("*") if p.is_file() and p.parent.name != "__pycache__")
    return {p.relative_to(folder): p.read_bytes() for p in files}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(here):
    """Run a command that must succeed."""

    def call(*arguments):
        outcome = invoke(*arguments)
        assert outcome.code == 0, outcome.err
        return outcome

    return call


@pytest.fixture
def refuse(here):
    """Run a command that must fail with one clear line and leave every file as it was.

    With `late`, messages may stand before the line: the failure shows only while it runs.
    """

    def call(*arguments, says, late=False):
        before = contents(here)
        outcome = invoke(*arguments)
        lines = outcome.err.splitlines()
        assert outcome.code == 1, outcome
        assert isinstance(outcome.exception, SystemExit), repr(outcome.exception)
        assert lines[-1].startswith("error: "), outcome.err
        assert late or len(lines) == 1, outcome.err
        assert sum(line.startswith("error") for line in lines) == 1
        assert "Traceback" not in outcome.err
        for word in says if isinstance(says, tuple) else (says,):
            assert word in lines[-1], outcome.err
        assert contents(here) == before
        return lines[-1]

    return call


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """A recording of 3 objects at 3 x 3 locations, and its similarity."""
    folder: Path = tmp_path_factory.mktemp("made")
    recording, result = folder / "run.h5", folder / "sim.nc"
    outcome = invoke("record", *SMALL, "--background", "90,120,30", "--out", recording)
    assert outcome.code == 0, outcome.err
    outcome = invoke("similarity", recording, "--out", result)
    assert outcome.code == 0, outcome.err
    return recording, result


@pytest.fixture
def small():
    return SMALL
