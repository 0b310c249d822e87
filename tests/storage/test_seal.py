"""Seals: whatever byte changes, it shows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elsewhere.storage.seal import (
    SealError,
    append_seal,
    check_seal,
    merge_ranges,
    read_seal,
    recorded_end,
    seal_bytes,
)


def is_whole(path):
    try:
        seal = read_seal(path)
        if seal is None:
            return False
        check_seal(path, seal)
    except SealError:
        return False
    return True


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_change_shows_but_in_what_is_left_out(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("seal") / "file"
    size = data.draw(st.integers(1, 3000))
    content = np.random.default_rng(size).bytes(size)
    cuts = sorted(data.draw(st.sets(st.integers(0, size), max_size=8)))
    left_out = [(a, b - a) for a, b in zip(cuts[::2], cuts[1::2], strict=False)]
    path.write_bytes(content)
    append_seal(path, left_out)
    sealed = bytearray(path.read_bytes())
    assert sealed[:size] == content
    assert is_whole(path)
    place = data.draw(st.integers(0, len(sealed) - 1))
    sealed[place] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(sealed)
    assert is_whole(path) == any(a <= place < a + n for a, n in left_out)
    sealed[place:] = b""
    path.write_bytes(sealed)
    assert not is_whole(path)


def test_sealed_bytes_are_what_a_sealed_file_holds(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(b"twelve bytes")
    append_seal(one, ())
    other.write_bytes(seal_bytes(b"twelve bytes"))
    assert one.read_bytes() == other.read_bytes()
    other.write_bytes(seal_bytes(b"twelve bytes", mark="mine"))
    assert read_seal(other).mark == "mine"
    assert is_whole(other)


def test_bytes_in_front_of_a_seal_are_counted(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(seal_bytes(b"twelve bytes"))
    path.write_bytes(b"more" + path.read_bytes())
    with pytest.raises(SealError, match="16 bytes before its seal; expected 12"):
        read_seal(path)


def test_ranges_that_overlap_nowhere_are_merged():
    assert merge_ranges([]) == ()
    assert merge_ranges([(5, 5), (0, 2), (2, 3), (20, 1)]) == ((0, 10), (20, 1))


@pytest.mark.parametrize("libver", ["earliest", "latest", "v108"])
def test_where_an_hdf5_file_ends_is_read_without_hdf5(tmp_path, libver):
    import h5py

    path = tmp_path / "a.h5"
    with h5py.File(path, "w", libver=libver) as file:
        file["values"] = np.arange(1000)
    assert recorded_end(path) == path.stat().st_size
    path.write_bytes(b"no HDF5" * 100)
    assert recorded_end(path) is None
