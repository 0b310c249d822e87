"""Position decoding against scikit-learn, on codes that tell the place and on those that do not."""

import numpy as np
import pytest
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import Ridge, RidgeCV

from elsewhere.errors import InputError
from elsewhere.measures import position_decoding
from elsewhere.measures.position import STRENGTHS, _ridge

PLACES = np.array([[y, x] for y in range(0, 40, 10) for x in range(0, 50, 10)])


def code(seed=0, n=6, n_units=200, signal=1.0):
    rng = np.random.default_rng(seed)
    features = np.tanh(PLACES @ rng.normal(size=(2, n_units)) / 30)
    return signal * features[None] + rng.normal(size=(n, len(PLACES), n_units))


@pytest.mark.parametrize("n_units", [8, 200])
def test_predictions_are_those_of_ridge_on_the_raw_features(n_units):
    values = code(n_units=n_units).reshape(120, -1) + 5
    targets = np.tile(PLACES, (6, 1)).astype(float)
    train = np.arange(120) < 80
    predicted, strength = _ridge(values @ values.T, targets, train, ~train)
    centred = values[train] - values[train].mean(axis=0)
    penalty = strength * np.trace(centred @ centred.T) / 80
    for model in (Ridge(alpha=penalty), KernelRidge(alpha=penalty)):
        shift = targets[train].mean(axis=0) if isinstance(model, KernelRidge) else 0
        model.fit(centred, targets[train] - shift)
        wanted = model.predict(values[~train] - values[train].mean(axis=0)) + shift
        np.testing.assert_allclose(predicted, wanted, atol=1e-6)


def test_the_penalty_is_about_what_leave_one_out_chooses():
    values = code(n_units=50, signal=0.4).reshape(120, -1)
    targets = np.tile(PLACES, (6, 1)).astype(float)
    train = np.ones(120, dtype=bool)
    _, strength = _ridge(values @ values.T, targets, train, train)
    centred = values - values.mean(axis=0)
    unit = np.trace(centred @ centred.T) / 120
    fitted = RidgeCV(alphas=STRENGTHS * unit, fit_intercept=True).fit(values, targets)
    ranks = np.log10([strength, fitted.alpha_ / unit])
    assert abs(ranks[0] - ranks[1]) <= 0.51  # the same or the next of the list


def test_the_cross_validated_r2_is_that_of_scikit_learn_over_objects():
    values = code()
    found = position_decoding(values, locations=PLACES)
    targets = np.tile(PLACES, (6, 1)).astype(float)
    rows = values.reshape(120, -1)
    folds = np.repeat(np.arange(6), 20) % 5
    predicted = np.empty_like(targets)
    for fold in range(5):
        train = folds != fold
        alphas = STRENGTHS * np.trace(np.cov(rows[train].T, bias=True))
        model = RidgeCV(alphas=alphas).fit(rows[train], targets[train])
        predicted[~train] = model.predict(rows[~train])
    wanted = 1 - ((targets - predicted) ** 2).sum(axis=0) / (
        (targets - targets.mean(axis=0)) ** 2
    ).sum(axis=0)
    np.testing.assert_allclose(found.per_axis, wanted, atol=0.02)
    assert found.r2 == pytest.approx(found.per_axis.mean())


def test_a_code_without_the_place_gives_nothing():
    rng = np.random.default_rng(0)
    for values in (
        rng.normal(size=(8, 20, 300)),
        rng.normal(size=(8, 1, 300)).repeat(20, axis=1) + 1e-3 * rng.normal(size=(8, 20, 300)),
    ):
        assert position_decoding(values, locations=PLACES).r2 < 0.1


def test_it_must_hold_for_objects_that_were_not_trained_on():
    """Each object tells its place by a map of its own: readable within, not across objects."""
    rng = np.random.default_rng(0)
    values = np.stack([PLACES @ rng.normal(size=(2, 400)) for _ in range(6)])
    assert position_decoding(values, locations=PLACES).r2 < 0.5
    common = PLACES @ rng.normal(size=(2, 400))
    assert position_decoding(np.stack([common] * 6), locations=PLACES).r2 > 0.999


def test_one_row_of_locations_counts_its_axis_only():
    places = PLACES[PLACES[:, 0] == 10]
    found = position_decoding(code()[:, PLACES[:, 0] == 10], locations=places)
    assert np.isnan(found.per_axis[0])
    assert found.r2 == found.per_axis[1]


def test_scaling_changes_nothing_and_too_many_rows_are_drawn_by_the_seed():
    values = code()
    before = position_decoding(values, locations=PLACES)
    assert position_decoding(1e4 * values, locations=PLACES).r2 == pytest.approx(before.r2)
    some = position_decoding(values, locations=PLACES, maximal_rows=60, seed=1)
    again = position_decoding(values, locations=PLACES, maximal_rows=60, seed=1)
    other = position_decoding(values, locations=PLACES, maximal_rows=60, seed=2)
    assert some.n_rows == 60
    assert some.r2 == again.r2 != other.r2


def test_what_cannot_be_decoded_is_undefined():
    values = code()
    for few, places in ((values[:1], PLACES), (values[:, :1], PLACES[:1])):
        assert np.isnan(position_decoding(few, locations=places).r2)
    assert np.isnan(position_decoding(np.full((3, 20, 4), 2.5), locations=PLACES).r2)
    with pytest.raises(InputError, match=r"expected \(20, 2\)"):
        position_decoding(values, locations=PLACES[:3])
