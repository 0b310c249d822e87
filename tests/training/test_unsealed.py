"""Files of releases that knew no seals still open, and it is said that they carry none."""

import json

import h5py
import torch
import xarray

from elsewhere.storage import load_result, save_result, verify
from elsewhere.storage.documents import UNSEALED
from elsewhere.storage.seal import read_seal
from elsewhere.training import Curriculum, list_checkpoints, load_checkpoint, read_metrics, train


def without_seals(folder):
    """Rewrite a run as it was written before there were seals."""
    for path in folder.rglob("*.json"):
        table = json.loads(path.read_text())
        del table["seal"]
        path.write_text(json.dumps(table | {"encoding_version": "0.1"}, indent=1))
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    plain = [{key: value for key, value in line.items() if key != "seal"} for line in lines]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in plain))
    state = torch.load(folder / "state.pt", weights_only=True)
    size = (folder / "metrics.jsonl").stat().st_size
    torch.save(state | {"version": 1, "metrics_bytes": size}, folder / "state.pt")


def test_an_old_run_is_read_and_verified(curriculum, tmp_path, caplog):
    run = train(curriculum, tmp_path / "run", device="cpu")
    cards, metrics = list_checkpoints(run), read_metrics(run)
    weights = load_checkpoint(cards[-1]).weights_sha256
    assert verify(run).unsealed == ()
    without_seals(run)
    caplog.clear()
    assert list_checkpoints(run) == cards
    assert read_metrics(run) == metrics
    assert load_checkpoint(cards[-1].path).weights_sha256 == weights
    assert Curriculum.load_run(run) == curriculum
    assert train(curriculum, run, device="cpu") == run  # it is finished, and known to be
    assert sum(UNSEALED in message for message in caplog.messages) >= 4
    found = verify(run)
    assert found.ok
    names = {path.removeprefix(f"{run}/") for path in found.unsealed}
    assert {"curriculum.json", "metrics.jsonl", "state.pt"} <= names
    assert len(names) == 3 + len(cards)


def test_an_old_result_is_read_and_says_so_in_its_notes(tmp_path):
    result = xarray.Dataset({"G": ("unit", [1.0, 2.0])}, attrs={"kind": "similarity", "notes": []})
    path = save_result(result, tmp_path / "r.nc")
    with path.open("rb+") as file:
        file.truncate(read_seal(path).size)
    with h5py.File(path, "r+") as file:
        file.attrs["encoding_version"] = "0.1"
    found = load_result(path)
    assert found["cosine_G"].values.tolist() == [1.0, 2.0]
    assert found.attrs["notes"] == [f"r.nc {UNSEALED}"]
    assert verify(path).ok
    assert verify(path).unsealed == (str(path),)
