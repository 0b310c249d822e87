"""Position decoding against scikit-learn, on codes that tell the place and on those that do not."""

import itertools

import numpy as np
import pytest
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import Ridge

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
    every = _ridge(values @ values.T, targets[..., None], train, ~train)
    centred = values[train] - values[train].mean(axis=0)
    for place, model in itertools.product((3, 9, 15), (Ridge, KernelRidge)):
        predicted = every[place, ..., 0]
        model = model(alpha=STRENGTHS[place] * np.trace(centred @ centred.T) / 80)
        shift = targets[train].mean(axis=0) if isinstance(model, KernelRidge) else 0
        model.fit(centred, targets[train] - shift)
        wanted = model.predict(values[~train] - values[train].mean(axis=0)) + shift
        np.testing.assert_allclose(predicted, wanted, atol=1e-6)


def nested(values, labels):
    """Ridge by scikit-learn, its penalty by folds of units within the fit, as the page says."""
    n, n_places, _ = values.shape
    rows, targets = values.reshape(n * n_places, -1), np.tile(PLACES, (n, 1)).astype(float)
    unit = np.repeat(labels, n_places)
    predicted = np.empty_like(targets)

    def fit(train, test, strength):
        centred = rows[train] - rows[train].mean(axis=0)
        alpha = strength * (centred**2).sum() / len(centred)
        return Ridge(alpha=alpha).fit(rows[train], targets[train]).predict(rows[test])

    for fold in range(5):
        test = np.isin(unit, np.unique(labels)[fold::5])
        rest = np.unique(unit[~test])
        inner = [np.isin(unit, rest[k::4]) for k in range(4)]
        errors = [
            sum(((fit(~test & ~held, held, s) - targets[held]) ** 2).sum() for held in inner)
            for s in STRENGTHS
        ]
        predicted[test] = fit(~test, test, STRENGTHS[int(np.argmin(errors))])
    spread = ((targets - targets.mean(axis=0)) ** 2).sum(axis=0)
    return 1 - ((targets - predicted) ** 2).sum(axis=0) / spread


def test_the_r2_is_that_of_nested_folds_of_objects():
    values = code(n=10, signal=0.5)
    found = position_decoding(values, locations=PLACES)
    np.testing.assert_allclose(found.per_axis, nested(values, np.arange(10)), atol=1e-4)
    assert found.r2 == pytest.approx(found.per_axis.mean())
    names = np.repeat(np.arange(5), 2)
    by_category = position_decoding(values, locations=PLACES, categories=names)
    np.testing.assert_allclose(by_category.per_axis, nested(values, names), atol=1e-4)


def test_rows_of_an_object_are_no_replicates():
    """Objects far apart, units few: a penalty by rows reads the objects and fails on new ones."""
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(2, 50)) / 10
    own = 3 * rng.normal(size=(24, 1, 50)) * rng.normal(size=(24, len(PLACES), 1))
    values = PLACES @ mixing + own + rng.normal(size=(24, len(PLACES), 50))
    found = position_decoding(values, locations=PLACES)
    assert found.r2 > 0.4
    low, high = found.interval
    assert low < found.r2 < high
    assert abs(found.null) < 0.1


def test_the_interval_covers_and_the_null_is_at_zero():
    """Objects are drawn anew, what tells the place stays."""
    features = np.tanh(PLACES @ np.random.default_rng(0).normal(size=(2, 30)) / 30)

    def draw(seed):
        rng = np.random.default_rng(seed)
        size = rng.gamma(4, 0.25, (12, 1, 1))
        values = size * features + rng.normal(size=(12, len(PLACES), 30))
        return position_decoding(values, locations=PLACES)

    truth = np.mean([draw(seed).r2 for seed in range(60)])
    found = [draw(seed) for seed in range(100, 160)]
    hits = [low <= truth <= high for low, high in (each.interval for each in found)]
    assert np.mean(hits) > 0.85
    assert abs(np.mean([each.null for each in found])) < 0.05


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
