"""Files of strangers: nothing that lies outside of a file or a folder is read or written."""

import contextlib
import json
import os
import pickle
import shutil
import tempfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray

import elsewhere
from elsewhere.errors import ElsewhereError, StorageError
from elsewhere.recording import record
from elsewhere.storage import load_result, open_recording, save_result, verify
from elsewhere.storage.merge import seal_recording
from elsewhere.storage.parts import Parts
from elsewhere.storage.seal import append_seal, read_seal, seal_table


def unseal(path):
    size = read_seal(path).size
    with open(path, "rb+") as file:
        file.truncate(size)


@pytest.mark.parametrize("fits", [True, False])
def test_arrays_that_claim_more_together_than_the_memory_has(tmp_path, monkeypatch, fits):
    """Each holds enough to claim what it does, and a file may have any number of them."""
    values = {f"a{number}": ("x", np.zeros(10_000)) for number in range(10)}
    path = save_result(xarray.Dataset(values, attrs={"kind": "made"}), tmp_path / "r.nc")
    pages = 800_000 // os.sysconf("SC_PAGE_SIZE") + (20 if fits else 0)
    plain = os.sysconf
    monkeypatch.setattr(os, "sysconf", lambda key: pages if "PHYS" in str(key) else plain(key))
    if fits:
        assert load_result(path).sizes == {"x": 10_000}
    else:
        with pytest.raises(StorageError, match="its arrays claim 800000 bytes, and the memory has"):
            load_result(path)


def external_link(file, name, other):
    del file[name]
    file[name] = h5py.ExternalLink(str(other), "/secret")


def soft_link(file, name, other):
    file["way"] = h5py.ExternalLink(str(other), "/")
    del file[name]
    file[name] = h5py.SoftLink("/way/secret")


def soft_link_within(file, name, other):
    file.move(name, "moved")
    file[name] = h5py.SoftLink("/moved")


def external_storage(file, name, other):
    raw = other.with_suffix(".raw")
    np.arange(1000, dtype="<f8").tofile(raw)
    old = file[name]
    shape = old.shape
    del file[name]
    file.create_dataset(name, shape, "<f8", external=[(str(raw), 0, h5py.h5f.UNLIMITED)])


def virtual(file, name, other):
    shape = file[name].shape
    size = int(np.prod(shape))
    layout = h5py.VirtualLayout(shape=(size,), dtype="f8")
    layout[:] = h5py.VirtualSource(str(other), "secret", shape=(size,))
    del file[name]
    file.create_virtual_dataset(name, layout)


def cycle(file, name, other):
    file["again"] = file["/"]


def huge(file, name, other):
    del file[name]
    file.create_dataset(name, (2**36,), "f8", chunks=(2**20,))


WAYS = [external_link, soft_link, soft_link_within, external_storage, virtual, cycle, huge]


@pytest.fixture
def secret(tmp_path):
    path = tmp_path / "secret.h5"
    with h5py.File(path, "w") as file:
        file["secret"] = np.arange(1000.0)
    return path


@pytest.mark.parametrize("way", WAYS)
def test_a_result_that_leads_out_of_itself(tmp_path, secret, way):
    result = xarray.Dataset({"G": ("unit", np.ones(8)), "other": ("unit", np.zeros(8))})
    path = save_result(result.assign_attrs(kind="similarity"), tmp_path / "r.nc")
    unseal(path)
    with h5py.File(path, "r+") as file:
        way(file, "other", secret)
    for sealed in (False, True):
        if sealed:
            append_seal(path, [])
        with pytest.raises(StorageError) as caught:
            load_result(path)
        assert "\n" not in str(caught.value)
        assert not verify(path).ok
    from elsewhere.probes.readout_weights import load_readout

    with pytest.raises(StorageError, match="refused"):
        load_readout(path)


@pytest.mark.parametrize("name", ["object", "image", "y", "layers/fc3/activation"])
@pytest.mark.parametrize("way", WAYS)
def test_a_recording_that_leads_out_of_itself(recorded, tmp_path, secret, way, name):
    if way is huge and name.endswith("activation"):
        return  # an array that is read by blocks: verify finds that they are missing
    path = tmp_path / "run.h5"
    shutil.copy(recorded[0], path)
    with h5py.File(path, "r+") as file:
        way(file, name, secret)
    with h5py.File(path) as file:
        leads_out = file.get("layers/fc3/activation", getlink=True)
        plain = isinstance(leads_out, h5py.HardLink) and name != "layers/fc3/activation"
    seal_recording(path) if plain else append_seal(path, [])
    with pytest.raises(StorageError) as caught:
        open_recording(path)
    assert "\n" not in str(caught.value)
    assert not verify(path).ok


def test_a_group_of_layers_elsewhere(recorded, tmp_path):
    path = tmp_path / "run.h5"
    shutil.copy(recorded[0], path)
    with h5py.File(path, "r+") as file:
        del file["layers"]
        file["layers"] = h5py.ExternalLink(str(recorded[0]), "/layers")
    append_seal(path, [])
    with pytest.raises(StorageError, match="could lead out of the file"):
        elsewhere.open(path)
    assert not verify(path).ok


# --- links in folders ----------------------------------------------------------------------------


@pytest.fixture
def precious(tmp_path):
    """A file and a folder that belong to the user."""
    folder = tmp_path / "precious"
    folder.mkdir()
    for name in ("file", "thesis.txt", "unit-0000000.h5"):
        (folder / name).write_text("precious")
    yield folder
    assert len(list(folder.iterdir())) == 3
    assert {path.read_text() for path in folder.iterdir()} == {"precious"}


@pytest.mark.parametrize("name", ["lock", "claim"])
@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_links_in_a_folder_of_parts_are_not_written_through(tmp_path, precious, name, link):
    (tmp_path / "run.h5.parts").mkdir()
    link(precious / "file", tmp_path / "run.h5.parts" / name)
    for overwrite in (False, True):
        with (
            pytest.raises(StorageError, match="link"),
            Parts(tmp_path / "run.h5", {"a": 1}, overwrite=overwrite),
        ):
            pass


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_of_parts_that_is_a_link(tmp_path, precious, overwrite):
    (tmp_path / "run.h5.parts").symlink_to(precious)
    with (
        pytest.raises(StorageError, match="is a link"),
        Parts(tmp_path / "run.h5", {"a": 1}, overwrite=overwrite) as parts,
    ):
        parts.discard()


def test_parts_that_are_links_are_replaced_not_followed(make_sweep, tmp_path, precious):
    sweep, path = make_sweep(grid="4x4", layers="logits"), tmp_path / "run.h5"
    folder = tmp_path / "run.h5.parts"
    folder.mkdir()
    for name in ("unit-0000000.h5", "header.h5", "manifest.json"):
        (folder / name).symlink_to(precious / "file")
    record(sweep, path, overwrite=True)
    whole = record(sweep, tmp_path / "other.h5")
    with open_recording(path) as one, open_recording(whole) as other:
        np.testing.assert_array_equal(one["logits"].values, other["logits"].values)


# --- parts that are none ---------------------------------------------------------------------


class Interrupted(Exception):
    pass


@pytest.fixture
def unfinished(make_sweep, tmp_path):
    """A sweep, and its recording of which half is there."""

    def interrupt(done, total):
        if done > total / 2:
            raise Interrupted

    sweep, path = make_sweep(grid="12x12", layers="logits"), tmp_path / "run.h5"
    with pytest.raises(Interrupted):
        record(sweep, path, progress=interrupt)
    return sweep, path


def test_copies_of_parts_are_left_alone(unfinished, tmp_path, caplog):
    sweep, path = unfinished
    parts = tmp_path / "run.h5.parts"
    first = (parts / "unit-0000000.h5").read_bytes()
    names = ("unit-0000000 (1).h5", "unit-0000000.h5.bak", "unit-0.h5", "unit-\u0660000000.h5",
             "unit-.h5", "unit--000001.h5", "unit-copy.h5", "unit-00000000.h5")  # fmt: skip
    for name in names:
        (parts / name).write_bytes(first)
    assert verify(path).ok
    with elsewhere.open(path, allow_partial=True) as recording:
        there = recording["logits"].load()
    record(sweep, path)
    assert sum("copy or a link" in message for message in caplog.messages) == len(names)
    with elsewhere.open(path) as recording:
        values = recording["logits"].sel(y=there["y"], x=there["x"])
        np.testing.assert_array_equal(values, there)
    assert verify(path).ok


def test_a_part_under_the_name_of_another(unfinished, tmp_path):
    """Both are whole and of this recording: only the number tells them apart."""
    sweep, path = unfinished
    parts = tmp_path / "run.h5.parts"
    with elsewhere.open(path, allow_partial=True) as recording:
        share = recording.share
    shutil.copy(parts / "unit-0000000.h5", parts / "unit-0000001.h5")
    assert not verify(path).ok
    with elsewhere.open(path, allow_partial=True) as recording:
        assert recording.share < share
    record(sweep, path)
    whole = record(sweep, tmp_path / "other.h5")
    with open_recording(path) as one, open_recording(whole) as other:
        np.testing.assert_array_equal(one["logits"].values, other["logits"].values)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m | {"numerics": {}},
        lambda m: m | {"numerics": {"unit": [0, 1]}},
        lambda m: m | {"numerics": {"unit": "ab"}},
        lambda m: m | {"identity": m["identity"] | {"n_objects": 10**12}},
        lambda m: m | {"identity": m["identity"] | {"axes": 3}},
        lambda m: {},
    ],
)
def test_manifests_of_something_else(unfinished, tmp_path, change):
    _, path = unfinished
    manifest = tmp_path / "run.h5.parts" / "manifest.json"
    manifest.write_text(json.dumps(change(json.loads(manifest.read_text()))))
    for act in (lambda: elsewhere.open(path, allow_partial=True), lambda: verify(path).check()):
        with pytest.raises(StorageError) as caught:
            act()
        assert "\n" not in str(caught.value)


# --- files that are replaced while they are used ------------------------------------------------


@pytest.fixture
def two(make_sweep, tmp_path):
    """Two recordings of one shape whose networks differ."""
    return [
        record(make_sweep(grid="3x4", layers="logits", seed=seed), tmp_path / f"{seed}.h5")
        for seed in (0, 1)
    ]


def test_a_lazy_array_that_travels_knows_its_file(two, tmp_path):
    path, other = two
    with elsewhere.open(path) as recording, elsewhere.open(path, chunks="auto") as chunked:
        array, right = pickle.dumps(recording["logits"]), recording["logits"].values
        lazy = chunked["logits"]
        assert np.array_equal(pickle.loads(array).values, right)
        shutil.copy(path, tmp_path / "copy.h5")
        os.replace(tmp_path / "copy.h5", path)  # the same content in another file is the same
        assert np.array_equal(pickle.loads(array).values, right)
        shutil.copy(other, tmp_path / "copy.h5")
        os.replace(tmp_path / "copy.h5", path)
        assert np.array_equal(recording["logits"].values, right)  # the open file is what it was
        assert np.array_equal(lazy.compute().values, right)
        for act in (
            lambda: pickle.loads(array).values,
            lambda: pickle.loads(pickle.dumps(lazy)).compute(),
            lambda: recording.at(recording.design.reference),
            lambda: recording.tree,
        ):
            with pytest.raises(ElsewhereError, match="was replaced by another file"):
                act()
        path.unlink()
        with pytest.raises(ElsewhereError):
            pickle.loads(array).values  # noqa: B018


def test_a_result_that_is_replaced_while_it_is_read(tmp_path, monkeypatch):
    """Its name is followed once for the seal and again for the values: both must be one file's."""
    from elsewhere.storage import results

    made = xarray.Dataset({"G": ("unit", np.zeros(3))}, attrs={"kind": "made"})
    path = save_result(made, tmp_path / "a.nc")
    other = save_result(made + 1, tmp_path / "b.nc")
    plain = results.read_dataset

    def read(name):
        os.replace(other, path)
        return plain(name)

    monkeypatch.setattr(results, "read_dataset", read)
    with pytest.raises(StorageError, match="was replaced or changed while it was read"):
        load_result(path)


@contextlib.contextmanager
def as_nobody():
    """Have no rights to the files of others, as root has."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_files_that_may_not_be_read(recorded):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        made = xarray.Dataset({"G": ("unit", np.zeros(3))}, attrs={"kind": "made"})
        shutil.copy(recorded[0], folder / "run.h5")
        save_result(made, folder / "r.nc")
        table = {"elsewhere_encoding": "claims", "encoding_version": "0.2"}
        (folder / "claims.json").write_text(json.dumps(seal_table(table)))
        for file in ("run.h5", "r.nc"):
            (folder / file).chmod(0)
        with as_nobody():
            for act, file in ((open_recording, "run.h5"), (load_result, "r.nc"), (verify, "r.nc")):
                with pytest.raises(StorageError, match=f"{file} cannot be read: Permission denied"):
                    act(folder / file)
            found = verify(folder)  # the others are looked at all the same
        assert found.files == 3
        assert sorted(damage.file for damage in found.damages) == ["r.nc", "run.h5"]
