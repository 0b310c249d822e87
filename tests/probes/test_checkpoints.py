"""Probes at a checkpoint, as `track --probes` takes them."""

import numpy as np

from elsewhere.probes import probe, probe_checkpoint


def test_a_checkpoint_s_probes_are_those_of_probe(make_source):
    source = make_source(kind="mixed")
    mask = np.arange(24) % 3 == 0
    found = probe_checkpoint(source, at=(13, 14), held_out=mask, seed=2)
    whole = probe(source, train_at=(13, 14), held_out=mask, seed=2, controls=())
    np.testing.assert_array_equal(found["probe_accuracy_at"].values, whole["accuracy_at"].values)
    np.testing.assert_array_equal(found["probe_II_far"].values, whole["II_far"].values)
    assert set(found.coords) == {"layer", "exemplars", "where", "bound"}
