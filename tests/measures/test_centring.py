"""Centred cosines whose mean is that of the rest when an object or a category is left out."""

import numpy as np
import pytest

from elsewhere import measure
from elsewhere.errors import InputError
from elsewhere.measures import tables
from elsewhere.measures.cosines import location_cosines
from elsewhere.measures.displacement import Displacements, mean_off_diagonal
from elsewhere.measures.intervals import jackknife_t
from elsewhere.storage import ArraySource
from tests.roles import similarity

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
    monkeypatch.setattr(tables, "ALL_REFERENCES", 10)
    found = measure(values, PLACES, names=metric).isel(layer=0)
    for part in ("", "_baseline", "_G"):
        np.testing.assert_allclose(found[f"{name}{part}"], whole[f"{name}{part}"], atol=1e-9)
    assert np.isnan(found[f"{name}_away_interval"]).all()
    assert np.isnan(found[f"{name}_displaced_interval"]).all()
    assert any(note.startswith(f"{metric}: no intervals") for note in found.attrs["notes"])
    monkeypatch.setattr("elsewhere.analyzer.measure_sink.WORKING_BYTES", 0)
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


# --- silent objects ---------------------------------------------------------------------------


def with_silent(values, categories, places):
    """Put objects that are zero at all locations among others, at these places."""
    names = list(categories)
    for place in places:
        values = np.insert(values, place, 0.0, axis=0)
        names.insert(place, f"silent{place}" if place % 2 else names[0])
    return values, names


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("parts", [1, 4])
@pytest.mark.parametrize("categories", [list("abcdef"), list("aabbbc")], ids=["own", "mixed"])
def test_silent_objects_are_left_out_of_similarity(metric, parts, categories):
    """Less a mean they are alike everywhere: two of eight read G .3 where the others have none."""
    values = draw(n_units=400)
    more, names = with_silent(values, categories, (0, 3))
    memory = "2GiB" if parts == 1 else "130kB"
    found = similarity(source_of(more, names), metric=metric, max_memory=memory)
    living = np.delete(np.arange(8), [0, 3])
    wanted = similarity(source_of(values, [names[o] for o in living]), metric=metric)
    for key in wanted.data_vars:
        if "object" in wanted[key].dims:
            np.testing.assert_allclose(found[key][:, living], wanted[key], atol=1e-9)
            assert np.isnan(found[key][:, [0, 3]]).all()
        elif key in ("G_away", "G_step") or not str(key).startswith(("G_", "zero_share")):
            np.testing.assert_allclose(found[key], wanted[key], atol=1e-9, err_msg=str(key))
    np.testing.assert_allclose(found["G_away_interval"], wanted["G_away_interval"], atol=1e-9)
    left = found["G_away_without"].values[0]
    np.testing.assert_allclose(left[~np.isnan(left)], wanted["G_away_without"][0], atol=1e-9)
    assert float(found["zero_share"][0]) == 0.25
    assert any("2 of 8 objects change nothing in" in note for note in found.attrs["notes"])
    assert not any("change nothing" in note for note in wanted.attrs["notes"])


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("path", ["products", "too many", "stretches"])
def test_silent_objects_are_left_out_of_measures(metric, path, monkeypatch):
    values, name = draw(n_units=4_000 if path == "stretches" else 40), metric.replace("-", "_")
    more, names = with_silent(values, list("aabcde"), (1, 2, 8))
    living = [names[o] for o in (0, 3, 4, 5, 6, 7)]
    memory = "2GiB"
    if path != "products":
        monkeypatch.setattr(tables, "ALL_REFERENCES", 10)
    if path == "stretches":
        if metric == "centred-by-place":
            pytest.skip("the means at all places take one sweep")
        monkeypatch.setattr("elsewhere.analyzer.measure_sink.WORKING_BYTES", 0)
        memory = "330kB"
    wanted = measure(values, PLACES, names=metric, categories=living)
    found = measure(more, PLACES, names=metric, categories=names, max_memory=memory)
    for key in wanted.data_vars:
        if "band" not in str(key) and not str(key).endswith("zero_share"):
            np.testing.assert_allclose(found[key], wanted[key], atol=1e-9, err_msg=str(key))
    assert float(found[f"{name}_zero_share"][0]) == pytest.approx(3 / 9)
    assert any("3 of 9 objects change nothing in" in note for note in found.attrs["notes"])
    book = location_cosines(values, metric=metric, categories=living)
    pure = location_cosines(more, metric=metric, categories=names)
    np.testing.assert_allclose(pure.G, book.G, atol=1e-9)


@pytest.mark.parametrize("metric", METRICS)
def test_zero_vectors_are_counted_before_the_mean_is_removed(metric):
    values, name = draw(), metric.replace("-", "_")
    values[2, 1:4] = 0.0  # an object that a layer answers at some places only
    found = measure(values, PLACES, names=metric).isel(layer=0)
    assert float(found[f"{name}_zero_share"]) == pytest.approx(3 / 36)
    assert any("8% zero vectors" in note for note in found.attrs["notes"])
    less = values - values.mean(axis=0 if metric == "centred-by-place" else (0, 1))
    unit = less / np.linalg.norm(less, axis=2, keepdims=True)
    wanted = np.einsum("opu,oru->pr", unit, unit) / 6
    np.testing.assert_allclose(found[name].values.reshape(6, 6), wanted, atol=1e-9)
    single = similarity(source_of(values), metric=metric)
    assert float(single["zero_share"][0]) == pytest.approx(3 / 36)
    np.testing.assert_allclose(single["similarity_mean"].values.ravel(), wanted[3], atol=1e-9)


def test_a_layer_in_which_all_objects_are_silent_is_dead():
    found = measure(np.zeros((4, 6, 5)), PLACES, names="centred")
    assert float(found["centred_zero_share"][0]) == 1
    assert float(found["centred_away"][0]) == 0
    assert not any("are left out" in note for note in found.attrs["notes"])
