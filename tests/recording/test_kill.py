"""A recording that is killed again and again ends as one that was left in peace."""

import json
import subprocess
import sys

import pytest

from elsewhere.recording import record
from elsewhere.storage import open_recording, verify

SCRIPT = '''
import json, os, signal, sys, time
from pathlib import Path
import numpy as np, torch
from elsewhere.models import load_model
from elsewhere.recording import Sweep, make_header, record
from elsewhere.recording.incremental import streaming
from elsewhere.stimuli import Canvas, Grid, ObjectSet

torch.set_num_threads(1)
folder, kills_wanted, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
engine = sys.argv[4]
streaming.TILE_WORK = 2_000_000  # several tiles, small as it is
draw = np.random.default_rng(seed)
rng = np.random.default_rng(0)
images = rng.integers(0, 256, (5, 12, 12, 3), dtype=np.uint8)
ids = tuple("abcde")
canvas = Canvas(24, 12)
model = load_model("small-cnn", model_args={"channels": "4-6", "canvas": 24, "hidden": 12})
objects = ObjectSet("set", images, np.full((5, 12, 12), 255, np.uint8), ids, ids, {})
sweep = Sweep(model, objects, canvas=canvas, grid=Grid.parse("all", canvas), layers="pool1,logits",
              engine=engine)
header = make_header(sweep)
units = header.units
tasks = sweep.tasks(units, header.tile)

def run(path, pipe):
    """Record, in this process, and say after each batch how many images were computed."""
    def progress(done, total):
        os.write(pipe, b"%d\\n" % done)
    record(sweep, path, progress=progress)

def images_there(path):
    parts = path.with_name(path.name + ".parts")
    numbers = [int(p.stem.removeprefix("unit-")) for p in parts.glob("unit-*.h5")]
    return sum(int(np.prod(units.unit(n).shape)) for n in numbers)

whole = folder / "whole.h5"
begin = time.monotonic()
record(sweep, whole)
duration = time.monotonic() - begin
largest = max(sum(int(np.prod(units.unit(n).shape)) for n in task) for task in tasks)
kills, recordings, lost, moments = 0, [folder / "run-0.h5"], [], []
while kills < kills_wanted:
    path = recordings[-1]
    before = images_there(path)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        try:
            run(path, writer)
        finally:
            os._exit(0)
    os.close(writer)
    time.sleep(draw.uniform(0, 1.3) * duration)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    said = b""
    while piece := os.read(reader, 65536):
        said += piece
    os.close(reader)
    computed = int(said.split()[-1]) if said.strip() else 0
    if os.WIFSIGNALED(status):
        kills += 1
        if not path.exists():
            lost.append(max(0, computed - 1) - (images_there(path) - before))
        moments.append("merging" if list(path.parent.glob(path.name + ".parts/merged-*"))
                       else "finished" if path.exists() else "recording")
    if path.exists():  # killed before its parts were removed, the same call does it
        record(sweep, path)
        recordings.append(folder / f"run-{len(recordings)}.h5")
record(sweep, recordings[-1])
print(json.dumps({"kills": kills, "recordings": [str(p) for p in recordings], "lost": lost,
                  "largest": largest, "moments": moments, "tasks": len(tasks)}))
'''


@pytest.mark.parametrize(
    ("engine", "kills"),
    [
        ("dense", 5),
        ("incremental", 4),
        pytest.param("dense", 20, marks=pytest.mark.long),
        pytest.param("incremental", 20, marks=pytest.mark.long),
    ],
)
def test_killed_at_random_moments(tmp_path, contents_of, engine, kills):
    program = [sys.executable, "-c", SCRIPT, str(tmp_path), str(kills), "7", engine]
    out = subprocess.run(program, capture_output=True, text=True, timeout=600, check=False)
    assert out.returncode == 0, out.stderr
    found = json.loads(out.stdout.splitlines()[-1])
    assert found["kills"] == kills
    expected = contents_of(tmp_path / "whole.h5")
    for path in found["recordings"]:
        assert contents_of(path) == expected  # bit for bit
    assert verify(found["recordings"][0]).ok
    # What a kill costs: never more than one unit of work; of windows, a tile of them.
    assert found["tasks"] >= 4
    assert max(found["lost"]) <= found["largest"], found["lost"]
    assert "recording" in found["moments"]
    left = {p.name for p in tmp_path.iterdir()} - {"whole.h5"}
    assert left == {p.rpartition("/")[2] for p in found["recordings"]}


def test_a_run_that_is_killed_after_its_file_got_its_name(make_sweep, tmp_path, monkeypatch):
    """The parts that it leaves are removed by the next run, which answers that all is done."""
    sweep, path = make_sweep(layers="logits"), tmp_path / "run.h5"

    class Killed(BaseException):
        pass

    def killed(self):
        raise Killed

    monkeypatch.setattr("elsewhere.storage.parts.Parts.discard", killed)
    with pytest.raises(Killed):
        record(sweep, path)
    monkeypatch.undo()
    assert (tmp_path / "run.h5.parts").is_dir()
    with open_recording(path) as recording:
        assert list(recording) == ["logits"]
    before = path.read_bytes()
    record(sweep, path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.h5"]
