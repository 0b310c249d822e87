"""Probes of a network on a device: activations are multiplied there, and scores cross together."""

import numpy as np
import pytest

from elsewhere.measures.vectors import to_numpy
from elsewhere.probes import probe
from elsewhere.probes.features import FeatureReading, ScoreSink
from tests.counting import counting

ROOMS = (" measures/", " probes/", " recording/engines/dense", " recording/hooks")


def waits(make_sweep, grid):
    sweep = make_sweep(n=3, per=3, grid=grid, layers="pool1,logits")
    with counting() as counted:
        found = probe(sweep, train_at="left", controls=("shuffled",), n_shuffles=2)
    return found, {k: n for k, n in counted.lines.items() if any(room in k for room in ROOMS)}


def test_waits_do_not_grow_with_locations(make_sweep, request):
    (expected, _), (_, _) = (waits(make_sweep, grid) for grid in ("1x2", "2x2"))
    request.getfixturevalue("late")
    (found, few), (_, many) = (waits(make_sweep, grid) for grid in ("1x2", "3x4"))
    assert few == many
    np.testing.assert_array_equal(found["correct"], expected["correct"])
    for name in ("accuracy", "shuffled_accuracy"):
        np.testing.assert_array_equal(found[name], expected[name])


def test_a_wait_for_each_block_is_seen(make_sweep, late, monkeypatch):
    plain = FeatureReading.rows
    monkeypatch.setattr(FeatureReading, "rows", lambda self, block: to_numpy(plain(self, block)))
    (_, few), (_, many) = (waits(make_sweep, grid) for grid in ("1x2", "3x4"))
    assert sum(many.values()) - sum(few.values()) >= 2 * (9 * 12 - 9 * 2) // 8


@pytest.mark.parametrize("units", [None, (3, 9)])
def test_scores_of_a_device_are_those_of_the_cpu(make_sweep, request, units):
    sweep = make_sweep(n=5, grid="2x3", layers="pool1")
    (layer,) = sweep.layers
    rng = np.random.default_rng(0)
    n_units = layer.n_units if units is None else units[1] - units[0]
    weights = {layer.name: rng.standard_normal((4, n_units)).astype(np.float32)}
    centres = {layer.name: rng.standard_normal(n_units).astype(np.float32)}

    def scores():
        found = np.full((5, 6, 4), np.nan)

        def take(name, each, objects, positions):
            found[objects, positions] = each

        reading = {layer.name: FeatureReading.of(layer)}
        sweep.stream([ScoreSink(reading, weights, centres, take, units=units)])
        return found

    expected = scores()
    request.getfixturevalue("on_device")
    np.testing.assert_allclose(scores(), expected, rtol=0, atol=1e-9 * np.abs(expected).max())
    assert np.isfinite(expected).all()
