"""`verify` names what is damaged: layer, objects, places."""

import shutil

import h5py
import numpy as np
import pytest

from elsewhere.errors import StorageError
from elsewhere.recording import record
from elsewhere.storage import checking, open_recording, verify
from elsewhere.storage.merge import seal_recording


@pytest.fixture
def damaged(recorded, tmp_path):
    """A copy of a recording that may be damaged, and its path."""
    path = tmp_path / "run.h5"
    shutil.copy(recorded[0], path)
    return path


def flip(path, place, bit=3):
    data = bytearray(path.read_bytes())
    data[place] ^= 1 << bit
    path.write_bytes(data)


def chunks_of(path, layer):
    """Return (offset, size, first indices) of the chunks of a layer."""
    found = []
    with h5py.File(path) as file:
        file[f"layers/{layer}/activation"].id.chunk_iter(
            lambda chunk: found.append((chunk.byte_offset, chunk.size, chunk.chunk_offset))
        )
    return found


def test_a_whole_recording(recorded):
    path, sweep = recorded
    found = verify(path)
    assert found.ok
    assert found.finished
    assert (found.version, found.share) == ("0.3", 1.0)
    n = len(sweep.objects) * sweep.design.n_positions
    assert found.bytes == 4 * n * sum(int(np.prod(layer.shape)) for layer in sweep.layers)
    assert found.chunks == sum(len(chunks_of(path, layer.name)) for layer in sweep.layers)
    found.check()


@pytest.mark.parametrize("layer", ["conv1_1", "logits"])
def test_a_flipped_bit_in_a_chunk_is_placed(damaged, recorded, layer):
    _, sweep = recorded
    offset, size, first = chunks_of(damaged, layer)[-1]
    with h5py.File(damaged) as file:
        steps = file[f"layers/{layer}/activation"].chunks
    flip(damaged, offset + size // 2)
    found = verify(damaged)
    assert len(found.damages) == 1
    damage = found.damages[0]
    assert damage.layer == layer
    ids, y, x = sweep.objects.ids, sweep.grid.y, sweep.grid.x
    assert damage.objects == (ids[first[0]], ids[min(first[0] + steps[0], 8) - 1])
    assert damage.places == (
        ("y", y[first[1]], y[first[1]]),
        ("x", x[first[2]], x[min(first[2] + steps[2], 4) - 1]),
    )
    with pytest.raises(StorageError, match=f"layer {layer}, objects .*unreadable"):
        found.check()
    with open_recording(damaged) as recording:  # the rest of it can be read
        assert np.isfinite(recording["fc3"].values).all()
        with pytest.raises(StorageError, match=f"layer '{layer}' of .* is damaged") as caught:
            _ = recording[layer].values
        assert "\n" not in str(caught.value)


def test_a_flipped_bit_anywhere_else_is_found(damaged, recorded):
    covered = {
        place
        for layer in recorded[1].layers
        for offset, size, _ in chunks_of(damaged, layer.name)
        for place in (offset, offset + size)
    }
    size = damaged.stat().st_size
    original = damaged.read_bytes()
    for place in (9, 100, size // 3, size - 60, size - 3):
        if place in covered:
            continue
        flip(damaged, place)
        assert not verify(damaged).ok, place
        damaged.write_bytes(original)


def test_a_truncated_file_is_told(damaged):
    size = damaged.stat().st_size
    damaged.write_bytes(damaged.read_bytes()[: size // 2])
    found = verify(damaged)
    assert str(found.damages[0]).startswith("truncated: ")
    with pytest.raises(StorageError, match="is damaged: truncated"):
        found.check()


def test_a_missing_chunk_is_named_although_it_would_read_as_zeros(make_sweep, tmp_path):
    sweep, path = make_sweep(grid="12x12", layers="logits"), tmp_path / "run.h5"
    record(sweep, path)
    with h5py.File(path) as source, h5py.File(tmp_path / "holes.h5", "w") as target:
        for name in source:
            source.copy(name, target)
        target.attrs.update(source.attrs)
        old = source["layers/logits/activation"]
        del target["layers/logits/activation"]
        plist = old.id.get_create_plist()
        new = h5py.h5d.create(
            target["layers/logits"].id, b"activation", old.id.get_type(), old.id.get_space(), plist
        )
        for index in range(1, old.id.get_num_chunks()):
            where = old.id.get_chunk_info(index).chunk_offset
            mask, data = old.id.read_direct_chunk(where)
            new.write_direct_chunk(where, data, mask)
    seal_recording(tmp_path / "holes.h5")
    found = verify(tmp_path / "holes.h5")
    (damage,) = found.damages
    assert damage.what == "missing"
    assert damage.layer == "logits"
    assert damage.objects == ("o0-0", "o4-0")
    assert damage.places[0] == ("y", sweep.grid.y[0], sweep.grid.y[0])


def test_what_is_not_finite_is_damage(damaged):
    with h5py.File(damaged, "r+") as file:
        file["layers/logits/activation"][3, 1, 2, 0] = np.nan
    seal_recording(damaged)
    found = verify(damaged)
    assert [(d.layer, d.what) for d in found.damages] == [("logits", "not finite")]


def test_an_identity_that_does_not_fit_the_content_is_damage(damaged):
    with h5py.File(damaged, "r+") as file:
        file["image"][0, 0, 0, 0] = file["image"][0, 0, 0, 0] ^ 1
        file["y"][0] = 3
    seal_recording(damaged)
    whats = [damage.what for damage in verify(damaged).damages]
    assert whats == ["pixels differ from the identity", "axes differ from the identity"]


def test_unfinished_recordings_are_checked_part_by_part(make_sweep, tmp_path):
    def interrupt(done, total):
        if done > 300:
            raise KeyboardInterrupt

    sweep, path = make_sweep(grid="12x12", layers="logits"), tmp_path / "run.h5"
    with pytest.raises(KeyboardInterrupt):
        record(sweep, path, progress=interrupt)
    found = verify(path)
    assert found.ok
    assert not found.finished
    assert 0 < found.share < 1
    with pytest.raises(StorageError, match=r"not finished: \d+\.\d% of its portions"):
        found.check()
    part = tmp_path / "run.h5.parts" / "unit-0000001.h5"
    flip(part, part.stat().st_size // 3)
    (damage,) = verify(path).damages
    assert damage.objects == ("0", "4")
    assert damage.places[0][0] == "y"
    assert damage.what == "unit-0000001.h5 differs from its checksum"


def test_a_child_that_hangs_or_crashes_is_told(recorded, monkeypatch, tmp_path):
    for code, limit, says in (
        ("import time; time.sleep(600)", 2, "did not come to an end in 2 s"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", 600, "HDF5 ended with -11"),
    ):
        program = tmp_path / "child.py"
        program.write_text('import json; print(json.dumps({"begin": "fc3"}), flush=True)\n' + code)
        monkeypatch.setattr(checking, "__file__", str(program))
        (damage,) = verify(recorded[0], timeout=limit).damages
        assert damage.layer == "fc3"
        assert says in damage.what


def test_what_is_no_recording_is_refused(tmp_path):
    (tmp_path / "a.h5").write_text("text")
    with pytest.raises(StorageError, match="not a readable HDF5 file"):
        verify(tmp_path / "a.h5")
    with pytest.raises(StorageError, match="does not exist"):
        verify(tmp_path / "b.h5")
    h5py.File(tmp_path / "c.h5", "w").close()
    with pytest.raises(StorageError, match="not written by elsewhere"):
        verify(tmp_path / "c.h5")
