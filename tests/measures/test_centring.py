"""Centred cosines whose mean is that of the rest when an object or a category is left out."""

import numpy as np
import pytest

from elsewhere import measure
from elsewhere.analyzer import readings
from elsewhere.analyzer.similarity import similarity
from elsewhere.errors import InputError
from elsewhere.measures.cosines import location_cosines
from elsewhere.measures.displacement import Displacements, mean_off_diagonal
from elsewhere.measures.intervals import jackknife_t
from elsewhere.storage import ArraySource

METRICS = ("centred", "centred-by-place")
CATEGORIES = [list("abcdef"), list("aabbbc"), list("abcacb")]
PLACES = np.array([[y, x] for y in (10, 20) for x in (10, 20, 35)])


def draw(n=6, n_units=40, seed=0):
    """Return codes with something that all share, and something that each place adds."""
    rng = np.random.default_rng(seed)
    values = 2 * rng.normal(size=n_units) + rng.normal(size=(n, 1, n_units))
    values = values + 3 * rng.normal(size=(1, 6, n_units))
    return values + 0.7 * rng.normal(size=(n, 6, n_units))


def source_of(values, categories=None, **more):
    shape = (len(values), 2, 3, -1)
    return ArraySource(
        {"layer": values.reshape(shape)}, y=[10, 20], x=[10, 20, 35], categories=categories, **more
    )


def left_out(categories):
    """Return the objects that are kept without each unit, in order."""
    units = categories if len(set(categories)) < len(categories) else range(len(categories))
    return [[o for o, u in enumerate(units) if u != unit] for unit in dict.fromkeys(units)]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("categories", CATEGORIES, ids=["own", "together", "mixed"])
def test_intervals_of_similarity_are_the_jackknife_of_all(by_the_book, metric, categories):
    values = draw().astype(np.float32)
    found = similarity(source_of(values, categories, reference=(20, 20)), metric=metric)
    book = by_the_book(values, values[:, 4], categories, metric, at=4)
    expected, intervals = book.estimates(range(6)), book.intervals()
    np.testing.assert_allclose(found["similarity"].values.reshape(6, 6), book.own(), atol=1e-9)
    for name, variable in (
        ("similarity", "similarity_mean"),
        ("baseline_cross", "baseline_cross"),
        ("G", "G"),
        *((f"{name}_away",) * 2 for name in ("similarity", "baseline_cross", "G")),
    ):
        shape = expected[name].shape
        value = found[variable].values.reshape(shape)
        np.testing.assert_allclose(value, expected[name], atol=1e-9, err_msg=name)
        bounds = found[f"{name}_interval"].values.reshape(*shape, 2)
        np.testing.assert_allclose(bounds, intervals[name], atol=1e-9, err_msg=name)
    without = [float(book.estimates(kept)["G_away"]) for kept in book.left_out()]
    np.testing.assert_allclose(found["G_away_without"][0], without, atol=1e-9)
    same = book.baseline(range(6), cross=False)
    np.testing.assert_allclose(found["baseline_same"].values.ravel(), same, atol=1e-9)
    left = []
    for kept in book.left_out():
        chosen = [categories[o] for o in kept]
        fewer = by_the_book(values[kept], values[kept, 4], chosen, metric, at=4)
        left.append(fewer.baseline(range(len(kept)), cross=False))
    bounds = found["baseline_same_interval"].values.reshape(6, 2)
    np.testing.assert_allclose(bounds, jackknife_t(same, np.array(left)), atol=1e-9)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("categories", CATEGORIES, ids=["own", "together", "mixed"])
def test_intervals_of_measures_are_the_jackknife_of_all(metric, categories):
    values, name = draw(), metric.replace("-", "_")
    found = measure(values, PLACES, names=metric, categories=categories).isel(layer=0)
    apart = Displacements.between(PLACES)

    def compute(kept):
        chosen = [categories[o] for o in kept]
        rest = location_cosines(values[kept], metric=metric, categories=chosen)
        return {
            f"{name}_away": mean_off_diagonal(rest.similarity),
            f"{name}_displaced": apart.means(rest.similarity),
            f"{name}_baseline_away": mean_off_diagonal(rest.baseline),
            f"{name}_G_away": mean_off_diagonal(rest.G),
            f"{name}_over_place_away": mean_off_diagonal(rest.similarity)
            - np.diag(rest.baseline).mean(),
        }

    whole, parts = compute(range(6)), [compute(kept) for kept in left_out(categories)]
    for key, value in whole.items():
        np.testing.assert_allclose(found[key], value, atol=1e-9, err_msg=key)
        interval = jackknife_t(np.asarray(value), np.array([part[key] for part in parts]))
        np.testing.assert_allclose(found[f"{key}_interval"], interval, atol=1e-9, err_msg=key)


@pytest.mark.parametrize("metric", METRICS)
def test_where_all_products_are_too_many_there_is_no_interval_and_it_is_said(metric, monkeypatch):
    values, name = draw(), metric.replace("-", "_")
    whole = measure(values, PLACES, names=metric).isel(layer=0)
    assert not any("no intervals" in note for note in whole.attrs["notes"])
    monkeypatch.setattr(readings, "ALL_REFERENCES", 10)
    found = measure(values, PLACES, names=metric).isel(layer=0)
    for part in ("", "_baseline", "_G"):
        np.testing.assert_allclose(found[f"{name}{part}"], whole[f"{name}{part}"], atol=1e-9)
    assert np.isnan(found[f"{name}_away_interval"]).all()
    assert np.isnan(found[f"{name}_displaced_interval"]).all()
    assert any(note.startswith(f"{metric}: no intervals") for note in found.attrs["notes"])
    monkeypatch.setattr("elsewhere.analyzer.stretching.WORKING_BYTES", 0)
    wide = draw(n_units=4_000)  # 576 kB in several sweeps: the means at all places need one
    if metric == "centred":
        cut = measure(wide, PLACES, names=metric, max_memory="250kB")
        np.testing.assert_allclose(cut[name], measure(wide, PLACES, names=metric)[name], atol=1e-9)
    else:
        with pytest.raises(InputError, match="at least .* raise it"):
            measure(wide, PLACES, names=metric, max_memory="250kB")


def test_what_a_place_adds_to_all_objects_is_gone():
    """A place's own pattern hides the object from cosine and centred, and from this not."""
    rng = np.random.default_rng(1)
    objects, places = rng.normal(size=(12, 1, 400)), 6 * rng.normal(size=(1, 6, 400))
    found = {m: similarity(source_of(objects + places), metric=m) for m in ("cosine", *METRICS)}
    away = {metric: float(result["G_away"][0]) for metric, result in found.items()}
    assert away["cosine"] < 0.1
    assert away["centred"] < 0.1
    assert away["centred-by-place"] == pytest.approx(1, abs=1e-9)
    np.testing.assert_allclose(found["centred-by-place"]["baseline_same"], -1 / 11, atol=0.01)
    attributes = found["centred-by-place"].attrs
    assert attributes["expected_baseline"] == pytest.approx(-1 / 11)
    assert any("-1/(n - 1) = -0.091" in note for note in attributes["notes"])
    assert "expected_baseline" not in found["centred"].attrs


def test_one_object_is_refused_in_a_line():
    for call in (
        lambda: similarity(source_of(draw(n=1)), metric="centred-by-place"),
        lambda: measure(draw(n=1), PLACES, names="centred-by-place"),
    ):
        with pytest.raises(InputError, match=r"there is 1 object, .* show at least 2") as error:
            call()
        assert "\n" not in str(error.value)
