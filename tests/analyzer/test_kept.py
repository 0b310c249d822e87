"""What is kept of a run's checkpoints is keyed by all that decides it; one process at a time."""

import dataclasses
import os
import subprocess
import sys

import numpy as np
import pytest
import xarray
from PIL import Image

from elsewhere.analyzer import checkpoints
from elsewhere.analyzer.attribution import AttributionSettings, attribute_checkpoints
from elsewhere.analyzer.trajectories import TrackSettings, track
from elsewhere.errors import StorageError
from elsewhere.stimuli import Canvas
from elsewhere.storage import load_result
from elsewhere.training import Curriculum, Exemplars, Network, Phase, train

SETTINGS = TrackSettings(grid="1x2", layers=("logits",), per_category=1)


def draw(folder, seed):
    rng = np.random.default_rng(seed)
    for category in ("a", "b", "c"):
        (folder / category).mkdir(parents=True, exist_ok=True)
        for number in range(2):
            pixels = rng.integers(0, 256, (7, 7, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / category / f"{number}.png")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two phases, on glyphs and on other glyphs."""
    common = {"objects": "glyphs", "exemplars": Exemplars(train=2, held_out=1), "steps": 2,
              "batch": 4, "checkpoints": (2,), "environment": "one"}  # fmt: skip
    first = Phase("pre", categories=3, **common)
    phases = (first, Phase("post", categories=4, new_head=True, **common))
    network = Network("small-cnn", arguments={"channels": "4-8", "hidden": 12}, gain=4.0)
    curriculum = Curriculum("tiny", network=network, canvas=Canvas(16, 7), phases=phases, seed=1)
    return train(curriculum, tmp_path_factory.mktemp("kept") / "run", device="cpu")


@pytest.fixture
def measured(monkeypatch):
    """Return a list that grows with each checkpoint that is measured in this process."""
    from elsewhere.analyzer import trajectories

    found, plain = [], trajectories.measure_checkpoint

    def measure(card, *arguments, **options):
        found.append((card.phase, card.step))
        return plain(card, *arguments, **options)

    monkeypatch.setattr(trajectories, "measure_checkpoint", measure)
    return found


def test_one_phase_and_then_all(run, measured):
    one = track(run, settings=SETTINGS, phases=["pre"])
    both = track(run, settings=SETTINGS)
    assert one["phase"].values.tolist() == ["pre"]
    assert both["phase"].values.tolist() == ["pre", "post"]
    assert len(both["object"]) == 4  # of the last phase, at all checkpoints
    assert measured == [("pre", 2), ("pre", 2), ("post", 2)]
    xarray.testing.assert_identical(track(run, settings=SETTINGS), both)
    xarray.testing.assert_identical(track(run, settings=SETTINGS, phases=["pre"]), one)
    assert len(measured) == 3


def test_other_pictures_under_the_same_names_are_measured(run, tmp_path, measured):
    settings = dataclasses.replace(SETTINGS, objects=f"folder:{tmp_path / 'set'}")
    draw(tmp_path / "set", 0)
    first = track(run, settings=settings, phases=["post"])
    draw(tmp_path / "set", 1)
    second = track(run, settings=settings, phases=["post"])
    assert len(measured) == 2
    assert not np.allclose(first["cosine_each"], second["cosine_each"])
    draw(tmp_path / "set", 0)
    xarray.testing.assert_identical(track(run, settings=settings, phases=["post"]), first)
    assert len(measured) == 2


@pytest.mark.parametrize("what", ["code", "machine", "memory", "tested"])
def test_other_code_machines_and_tested_pictures_are_measured_again(
    run, measured, monkeypatch, what
):
    track(run, settings=SETTINGS, phases=["post"])
    before, options = len(measured), {}
    if what == "code":
        monkeypatch.setattr(checkpoints, "code_version", lambda: "9.9 0123")
    elif what == "machine":
        plain = checkpoints.describe_machine
        monkeypatch.setattr(
            checkpoints, "describe_machine", lambda device: plain(device) | {"torch": "9.9"}
        )
    elif what == "memory":
        options["max_memory"] = "1GiB"
    else:
        from elsewhere.analyzer import trajectories

        monkeypatch.setattr(trajectories, "tested_digest", lambda *_: ["other"])
    track(run, settings=SETTINGS, phases=["post"], **options)
    assert len(measured) == before + 1


@pytest.mark.long
def test_what_another_processor_measured_is_measured_again(run, measured, other_processor):
    script = """
import sys
from elsewhere.analyzer.trajectories import TrackSettings, track
settings = TrackSettings(grid="1x2", layers=("logits",), per_category=1)
track(sys.argv[1], settings=settings, phases=["post"])
"""
    for path in (run / "track").glob("*.nc"):
        path.unlink()
    command = [sys.executable, "-c", script, str(run)]
    subprocess.run(command, env=other_processor, check=True, timeout=600)
    (there,) = (run / "track").glob("*.nc")
    track(run, settings=SETTINGS, phases=["post"])
    assert len(measured) == 1  # and both are kept
    (here,) = set((run / "track").glob("*.nc")) - {there}
    first, second = (load_result(path)["cosine_each"] for path in (here, there))
    np.testing.assert_allclose(first, second, atol=1e-5)


def test_what_is_damaged_is_measured_again(run, measured):
    whole = track(run, settings=SETTINGS, phases=["post"])
    before = len(measured)
    for path in (run / "track").glob("post-*.nc"):
        path.write_bytes(path.read_bytes()[:-500])
    xarray.testing.assert_identical(track(run, settings=SETTINGS, phases=["post"]), whole)
    assert len(measured) == before + 1


HOLD = """
import sys
from pathlib import Path
from elsewhere.storage.locks import locked
with locked(Path(sys.argv[1]), ""):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("what", ["track", "attribution"])
def test_the_second_is_refused_in_one_line(run, what):
    (run / what).mkdir(exist_ok=True)
    attributed = AttributionSettings(method="saliency", target="similarity:fc3", margin=2)

    def second():
        if what == "track":
            return track(run, settings=SETTINGS)
        return attribute_checkpoints(run, attributed, grid="1x2")

    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(run / what)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(StorageError, match=rf"by another process \({what}\)") as told:
            second()
        assert "\n" not in str(told.value)
        holder.stdin.close()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_run_that_is_read_only_is_one_line(run):
    run.chmod(0o555)
    try:
        with pytest.raises(StorageError, match="cannot write .*track: Permission denied"):
            track(run, settings=dataclasses.replace(SETTINGS, grid="2x1"))
    finally:
        run.chmod(0o755)
