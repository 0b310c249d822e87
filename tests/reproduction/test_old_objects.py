"""Objects that were known, looked for by their nearest centroid."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elsewhere.reproduction.old_objects import FeatureSink, nearest_centroid, old_object_indices
from elsewhere.stimuli import Grid


@given(seed=st.integers(0, 1000), scale=st.floats(0.1, 10))
@settings(max_examples=25, deadline=None)
def test_a_rotation_or_another_length_changes_no_choice(seed, scale):
    rng = np.random.default_rng(seed)
    train, test = rng.normal(size=(12, 5)), rng.normal(size=(4, 3, 5))
    labels = np.arange(12) % 3
    rotation = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    choice = nearest_centroid(train, labels, test)
    assert choice.shape == (4, 3)
    assert np.array_equal(choice, nearest_centroid(train @ rotation, labels, test @ rotation))
    assert np.array_equal(choice, nearest_centroid(scale * train, labels, test))


def test_clusters_are_found():
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(6, 20))
    labels = np.repeat(np.arange(6), 5)
    train = centres[labels] + 0.1 * rng.normal(size=(30, 20))
    test = centres + 0.1 * rng.normal(size=(6, 20))
    assert np.array_equal(nearest_centroid(train, labels, test), np.arange(6))


@pytest.fixture
def measured(make_objects, model, make_sweep):
    sweep = make_sweep()
    objects = make_objects(n=4, per=3, size=sweep.canvas.object_size)
    held_out = objects.exemplar_index == 2
    found = old_object_indices(
        model,
        objects,
        held_out,
        canvas=sweep.canvas,
        grid=Grid.parse("3x3", sweep.canvas),
        trained=(12, 4),
        layer="fc4",
    )
    return found, objects, held_out


def test_shares_are_those_of_the_choices(measured):
    found, _, held_out = measured
    for kind, rows in (("same", ~held_out), ("held-out", held_out)):
        on, far, index = (found[f"{part}/{kind}"] for part in ("on", "far", "index"))
        assert 0 <= far <= 1
        assert (on * rows.sum()) % 1 == pytest.approx(0, abs=1e-9)
        if not np.isnan(index):
            assert index == pytest.approx((far - 0.25) / (on - 0.25))
            assert (on - 0.25) / 0.75 > 0.5


def test_without_held_out_exemplars_theirs_is_nan(make_objects, model, make_sweep):
    canvas = make_sweep().canvas
    objects = make_objects(n=3, per=2, size=canvas.object_size)
    none = np.zeros(6, bool)
    grid = Grid.parse("2x2", canvas)
    found = old_object_indices(
        model, objects, none, canvas=canvas, grid=grid, trained=(12, 4), layer="fc4"
    )
    assert np.isnan(found["index/held-out"])
    assert np.isfinite(found["on/same"])


def test_the_sink_keeps_what_the_network_gives(model, make_sweep):
    sweep, sink = make_sweep(layers=["fc4"]), FeatureSink()
    sweep.stream([sink])
    n, positions = len(sweep.objects), sweep.design.n_positions
    assert sink.elsewhere.shape == (n, positions, 12)
    index = sweep.design.reference_index
    if index is not None:
        np.testing.assert_allclose(sink.elsewhere[:, index], sink.reference, rtol=1e-5, atol=1e-6)
