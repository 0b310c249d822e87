"""Unfinished recordings, as far as they are there."""

import numpy as np
import pytest
import xarray

from elsewhere.errors import StorageError
from elsewhere.recording import record
from elsewhere.storage import open_recording
from elsewhere.storage.partial import largest_grid
from tests.roles import similarity


def stop_after(count):
    def progress(done, total):
        if done >= count:
            raise KeyboardInterrupt

    return progress


def assert_same(found, expected):
    """Compare values, coordinates and attributes but the time at which each was made."""
    for each in (found, expected):
        each.attrs.pop("created", None)
    xarray.testing.assert_identical(found, expected)


@pytest.fixture
def unfinished(make_sweep, tmp_path):
    """An unfinished recording of the upper part of a grid, and the whole of it."""
    sweep = make_sweep(grid="8x8", layers="pool2,logits", reference=(4, 4))
    whole = record(sweep, tmp_path / "whole.h5")
    path = tmp_path / "run.h5"
    with pytest.raises(KeyboardInterrupt):
        record(sweep, path, progress=stop_after(230))
    return path, whole, sweep


def test_what_is_there_is_read_and_its_share_told(unfinished):
    path, whole, sweep = unfinished
    with pytest.raises(StorageError, match="not finished"):
        open_recording(path)
    with open_recording(path, allow_partial=True) as part, open_recording(whole) as all_of_it:
        assert 0.4 < part.share < 0.8
        y, x = part.design.axes.values
        assert x == sweep.grid.x
        assert y == sweep.grid.y[: len(y)]
        assert 1 < len(y) < 8
        assert part.provenance["share"] == part.share
        for name in part:
            expected = all_of_it[name].sel(y=list(y), x=list(x))
            assert_same(part[name].load(), expected.load())
            some = part[name][1:4:2, -1, [0, 3, 5]]
            np.testing.assert_array_equal(some.values, expected.values[1:4:2, -1][:, [0, 3, 5]])
        assert part.stored_bytes("logits") < all_of_it.stored_bytes("logits")
        assert_same(part.objects.load(), all_of_it.objects.load())


@pytest.mark.parametrize("metric", ["cosine", "centred", "evoked", "pearson"])
def test_analyses_of_a_part_are_those_of_the_same_places(unfinished, make_sweep, metric):
    path, _, sweep = unfinished
    with open_recording(path, allow_partial=True) as part:
        found = similarity(part, metric=metric)
        places = ";".join(f"{y},{x}" for y in part.design.axes["y"].values for x in sweep.grid.x)
    assert found.attrs["share"] < 1
    fewer = make_sweep(grid=f"at:{places}", layers="pool2,logits", reference=(4, 4))
    expected = similarity(fewer, metric=metric)
    np.testing.assert_allclose(found["similarity"], expected["similarity"], atol=1e-5)
    np.testing.assert_allclose(found["baseline_cross"], expected["baseline_cross"], atol=1e-5)


def test_a_reference_that_is_not_recorded_yet_is_told(make_sweep, tmp_path):
    sweep, path = make_sweep(grid="8x8", layers="logits"), tmp_path / "run.h5"
    with pytest.raises(KeyboardInterrupt):
        record(sweep, path, progress=stop_after(120))
    with open_recording(path, allow_partial=True) as part:
        assert part.design.reference == sweep.reference
        with pytest.raises(StorageError, match=r"is not recorded yet \(\d.*--reference"):
            similarity(part)
        other = part.at((sweep.grid.y[0], sweep.grid.x[3]))
        assert np.isfinite(similarity(other)["similarity"].values).all()
        other.close()


def test_a_reference_off_the_grid_of_the_part(make_sweep, tmp_path):
    """Parts of other places than the first ones, as several workers may leave them."""
    sweep, path = make_sweep(grid="4x8", layers="logits"), tmp_path / "run.h5"
    whole = record(sweep, tmp_path / "whole.h5")
    with pytest.raises(KeyboardInterrupt):
        record(sweep, path, progress=stop_after(150))
    first = tmp_path / "run.h5.parts" / "unit-0000000.h5"
    first.unlink()
    with open_recording(path, allow_partial=True) as part, open_recording(whole) as every:
        axes = part.design.axes
        expected = every["logits"].sel(y=list(axes["y"].values), x=list(axes["x"].values))
        xarray.testing.assert_identical(part["logits"].load(), expected.load())


def test_nothing_there_yet_is_told(make_sweep, tmp_path):
    sweep, path = make_sweep(layers="logits"), tmp_path / "run.h5"
    with pytest.raises(KeyboardInterrupt):
        record(sweep, path, progress=stop_after(1))
    with pytest.raises(StorageError, match="nothing of it can be read yet"):
        open_recording(path, allow_partial=True)
    record(sweep, path)
    with open_recording(path, allow_partial=True) as whole:
        assert whole.share == 1


def test_largest_grids():
    rng = np.random.default_rng(0)
    for _ in range(50):
        there = rng.random((int(rng.integers(1, 6)), int(rng.integers(1, 6)))) < 0.7
        rows, columns = largest_grid(there)
        assert there[np.ix_(rows, columns)].all()
        assert len(rows) * len(columns) >= there.all(axis=1).sum() * there.shape[1]
        assert len(rows) * len(columns) >= there.sum(axis=1).max()
