"""Probes agree with scikit-learn on raw features, however the memory is cut."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from elsewhere.probes import fit_probe, probe
from elsewhere.probes.kinds import probe_kinds

REFERENCES = {
    "logistic": lambda s: LogisticRegression(C=s, solver="newton-cg", tol=1e-8, max_iter=999),
    "ridge": lambda s: RidgeClassifier(alpha=s),
    "svm": lambda s: LinearSVC(C=s, dual=True, tol=1e-8, max_iter=10**6, random_state=1),
    "nearest-centroid": lambda s: NearestCentroid(),
}


def choices(source, raw, held_out, positions, make, labels):
    """Return what scikit-learn chooses, trained on raw features at `positions`."""
    values = raw(source)
    train = np.flatnonzero(~held_out)
    x = np.concatenate([values[train, p] for p in positions])
    scaler = StandardScaler().fit(x)
    model = make.fit(scaler.transform(x), np.tile(labels[train], len(positions)))
    n, n_positions, units = values.shape
    flat = model.predict(scaler.transform(values.reshape(-1, units)))
    return flat.reshape(n, n_positions)


def labels_of(result):
    names = result["class"].values.tolist()
    return np.array([names.index(name) for name in result["category"].values])


@pytest.mark.parametrize("kind", list(probe_kinds))
@pytest.mark.parametrize("train_at", [(13, 6), [(5, 14), (21, 30)]])
def test_predictions_are_those_of_scikit_learn_on_raw_features(kind, train_at, make_source, raw):
    source = make_source(kind="mixed")
    result = probe(source, train_at=train_at, kind=kind, controls=())
    held_out = result["held_out"].values.astype(bool)
    assert 0 < held_out.sum() < len(held_out)
    strength = float(result["strength"][0])
    places = [train_at] if isinstance(train_at, tuple) else train_at
    index = [source.design.positions.tolist().index(list(place)) for place in places]
    expected = choices(source, raw, held_out, index, REFERENCES[kind](strength), labels_of(result))
    chosen = result["choice"].values[0].reshape(expected.shape)
    assert (chosen == expected).all()
    assert 0.3 < (expected == labels_of(result)[:, None]).mean() < 1


def test_a_classifier_of_ones_own_that_is_not_linear(make_source, raw):
    source = make_source(kind="mixed")
    own = KNeighborsClassifier(3)
    result = probe(source, train_at="centre", kind=own, controls=("shuffled",))
    held_out = result["held_out"].values.astype(bool)
    centre = source.design.positions.tolist().index([13, 22])
    # off the span all training samples are equally much further away: the nearest stay nearest
    expected = choices(source, raw, held_out, [centre], KNeighborsClassifier(3), labels_of(result))
    assert (result["choice"].values[0].reshape(expected.shape) == expected).all()
    assert result.attrs["probe"] == "KNeighborsClassifier"
    linear = probe(source, train_at="centre", kind=LogisticRegression(max_iter=999), controls=())
    assert np.isnan(linear["strength"].values).all()


def test_each_place_is_what_it_is_alone(make_source):
    source = make_source(kind="mixed")
    every = probe(source, train_at="each", controls=("shuffled",))
    assert every["accuracy"].dims == ("layer", "exemplars", "train_y", "train_x", "y", "x")
    for y, x in ((5, 6), (21, 22)):
        alone = probe(source, train_at=(y, x), controls=("shuffled",))
        there = every.sel(train_y=y, train_x=x)
        for name in ("accuracy", "shuffled_accuracy", "strength", "cross_validated", "rank"):
            np.testing.assert_array_equal(there[name].values, alone[name].values)
    diagonal = [
        float(every["accuracy"].sel(exemplars="same", train_y=y, train_x=x, y=y, x=x)[0])
        for y, x in source.design.positions.tolist()
    ]
    on = float(every["accuracy_at"].sel(exemplars="same", where="on")[0])
    np.testing.assert_allclose(np.mean(diagonal), on)


def test_processes_do_not_change_the_result(make_source):
    source = make_source(kind="mixed", units=40, per=3)
    one = probe(source, train_at="each", controls=())
    two = probe(source, train_at="each", controls=(), jobs=2)
    assert one.drop_attrs().equals(two.drop_attrs())


@pytest.mark.parametrize("kind", ["logistic", "ridge", "nearest-centroid"])
def test_a_fitted_probe_gives_the_same_choices_from_raw_activations(kind, make_source, raw):
    source = make_source(kind="mixed")
    result = probe(source, split="same", kind=kind, controls=())
    found = fit_probe(source, "fc", kind=kind)
    assert found.coef.shape == (4, 150)
    assert found.strength == pytest.approx(float(result["strength"][0]), nan_ok=True)
    values = raw(source)
    for position in (0, 7):
        names = found.predict(values[:, position])
        expected = result["class"].values[result["choice"].values[0].reshape(24, -1)[:, position]]
        assert names == expected.tolist()
    if kind == "logistic":
        np.testing.assert_allclose(found.probabilities(values[:, 3]).sum(axis=1), 1)
    else:
        with pytest.raises(ValueError, match="no probabilities"):
            found.probabilities(values[:, 3])


def test_a_large_offset_takes_no_digits(make_source):
    """Units that hardly vary around a large mean: x·w alone would be rounding."""
    plain = make_source(kind="mixed")
    moved = make_source(kind="mixed")
    moved._arrays["fc"] = (plain._arrays["fc"].astype(np.float64) + 500).astype(np.float32)
    still = make_source(kind="mixed")
    still._arrays["fc"] = moved._arrays["fc"].astype(np.float64) - 500
    a, b = (probe(source, controls=()) for source in (moved, still))
    np.testing.assert_array_equal(a["choice"].values, b["choice"].values)
