"""Probes at a checkpoint, as `track --probes` takes them."""

import numpy as np

from elsewhere.analyzer.trajectories import TrackSettings
from elsewhere.probes import probe, probe_checkpoint


def test_a_checkpoint_s_probes_are_those_of_probe(make_source):
    source = make_source(kind="mixed")
    mask = np.arange(24) % 3 == 0
    found = probe_checkpoint(source, at=(13, 14), held_out=mask, seed=2)
    whole = probe(source, train_at=(13, 14), held_out=mask, seed=2, controls=())
    np.testing.assert_array_equal(found["probe_accuracy_at"].values, whole["accuracy_at"].values)
    np.testing.assert_array_equal(found["probe_index"].values, whole["invariance_index"].values)
    assert set(found.coords) == {"layer", "split", "where", "bound"}


def test_without_probes_what_was_tracked_before_is_found_again():
    plain, probed = TrackSettings(), TrackSettings(probes=True)
    assert plain.fingerprint != probed.fingerprint
    import dataclasses
    import hashlib
    import json

    values = dataclasses.asdict(plain)
    del values["probes"]
    text = json.dumps(values, sort_keys=True).encode()
    assert plain.fingerprint == hashlib.sha256(text).hexdigest()
