"""Cosines between locations against loops over pairs, and their properties."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elsewhere.analyzer import measure
from elsewhere.analyzer.similarity import similarity
from elsewhere.errors import InputError, NumericsError, UnknownNameError
from elsewhere.measures import location_cosines
from elsewhere.measures.cosines import CosineTally
from elsewhere.measures.unit_chunks import Lengths, Stretch
from elsewhere.storage import ArraySource

METRICS = ("cosine", "centred", "evoked", "pearson")


def cosine(u, v):
    length = np.linalg.norm(u) * np.linalg.norm(v)
    return float(u @ v / length) if length else 0.0


def removed(values, metric, empty):
    a = values.astype(np.float64)
    return {
        "cosine": lambda: a,
        "centred": lambda: a - a.mean(axis=(0, 1)),
        "evoked": lambda: a - empty,
        "pearson": lambda: a - a.mean(axis=-1, keepdims=True),
    }[metric]()


def by_loops(values, categories, metric, empty):
    a = removed(values, metric, empty)
    n, n_locations, _ = a.shape
    own, cross = np.zeros((2, n_locations, n_locations))
    for p, r in itertools.product(range(n_locations), repeat=2):
        own[p, r] = np.mean([cosine(a[o, p], a[o, r]) for o in range(n)])
        pairs = [
            cosine(a[i, p], a[j, r])
            for i, j in itertools.permutations(range(n), 2)
            if categories[i] != categories[j]
        ]
        cross[p, r] = np.mean(pairs)
    return own, cross


def example(seed=0, n=6, n_locations=5, n_units=300, dtype="float64"):
    rng = np.random.default_rng(seed)
    values = rng.normal(0.5, 1, (n, n_locations, n_units)) + rng.normal(size=(n, 1, n_units))
    return values.astype(dtype), rng.normal(size=n_units)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("categories", ["abcdef", "aabbcc", "aaaaab"])
def test_they_are_what_loops_over_pairs_give(metric, categories):
    values, empty = example()
    values[1, 2] = 0  # a zero vector has the cosine 0
    found = location_cosines(values, metric=metric, categories=list(categories), empty=empty)
    own, cross = by_loops(values, categories, metric, empty)
    np.testing.assert_allclose(found.similarity, own, atol=1e-12)
    np.testing.assert_allclose(found.baseline, cross, atol=1e-12)
    G = np.where(np.eye(len(own), dtype=bool), np.nan, (own - cross) / (1 - cross))
    np.testing.assert_allclose(found.G, G, atol=1e-9)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(("dtype", "within"), [("float32", 1e-5), ("float16", 1e-3)])
def test_low_precision_recordings_give_the_same_cosines(metric, dtype, within):
    # Post-ReLU maps of 200,000 units: large means, thousands of equal values.
    rng = np.random.default_rng(3)
    exact = np.maximum(rng.normal(0.2, 1, (3, 4, 200_000)) + rng.normal(size=(3, 1, 200_000)), 0)
    empty = np.full(200_000, 0.25)
    whole = location_cosines(exact, metric=metric, empty=empty)
    short = location_cosines(exact.astype(dtype), metric=metric, empty=empty)
    for name in ("similarity", "baseline"):
        assert np.abs(getattr(whole, name) - getattr(short, name)).max() < within


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.floats(1e-3, 1e3))
def test_rotation_and_scaling_of_the_units_change_nothing(seed, scale):
    values, _ = example(seed, n=4, n_locations=3, n_units=12)
    rotation, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(12, 12)))
    for metric in ("cosine", "centred"):
        before = location_cosines(values, metric=metric)
        after = location_cosines(scale * values @ rotation, metric=metric)
        np.testing.assert_allclose(before.similarity, after.similarity, atol=1e-9)
        np.testing.assert_allclose(before.baseline, after.baseline, atol=1e-9)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(METRICS))
def test_the_diagonal_is_one_and_both_matrices_are_symmetric(seed, metric):
    values, empty = example(seed, n=3, n_locations=4, n_units=20)
    found = location_cosines(values, metric=metric, empty=empty)
    np.testing.assert_allclose(np.diag(found.similarity), 1)
    np.testing.assert_allclose(found.similarity, found.similarity.T)
    np.testing.assert_allclose(found.baseline, found.baseline.T)


def test_centred_different_objects_sit_at_minus_one_over_n_less_one():
    rng = np.random.default_rng(0)
    still = rng.normal(size=(8, 1, 4000)).repeat(3, axis=1)
    found = location_cosines(still, metric="centred")
    np.testing.assert_allclose(found.baseline, -1 / 7, atol=0.01)


def test_stretches_of_units_add_up_to_the_whole():
    values, empty = example(n_units=301)
    whole = Stretch.whole(values, list("aabbcd"), empty)
    for metric in METRICS:
        at_once = location_cosines(values, metric=metric, categories=list("aabbcd"), empty=empty)
        tally = CosineTally(metric, whole.codes, 5)
        lengths = {metric: whole.lengths_of(metric)}
        for start in (0, 100, 117, 300):
            stop = {0: 100, 100: 117, 117: 300, 300: 301}[start]
            part = Stretch(
                values[:, :, start:stop], whole.codes, empty=empty[start:stop], lengths=lengths
            )
            part.origins["centred"] = values.mean(axis=(0, 1))[start:stop]
            tally.add(part)
        np.testing.assert_allclose(tally.value().similarity, at_once.similarity, atol=1e-12)
        np.testing.assert_allclose(tally.value().baseline, at_once.baseline, atol=1e-12)


@pytest.mark.parametrize("without", [False, True])
@pytest.mark.parametrize("codes", [[0, 1, 2, 3], [0, 0, 1, 2, 2], [0, 0, 2], [0, 0, 0]])
def test_groups_and_all_but_a_category_are_what_loops_give(codes, without):
    rng, codes = np.random.default_rng(0), np.array(codes)
    values, groups = rng.normal(size=(len(codes), 6, 50)), rng.integers(-1, 4, (6, 6))
    tally = CosineTally("cosine", codes, 6, groups, without=without)
    stretch = Stretch(values, codes)
    stretch.lengths_of("cosine")
    for start in (0, 20):  # in two stretches
        stop = 50 if start else 20
        tally.add(Stretch(values[:, :, start:stop], codes, lengths=stretch.lengths))
    units = values / np.linalg.norm(values, axis=-1, keepdims=True)
    own = np.einsum("opu,oqu->opq", units, units)
    means = np.stack([own[:, groups == group].mean(axis=1) for group in range(4)], axis=1)
    np.testing.assert_allclose(tally.value().by_group, means, atol=1e-12)
    np.testing.assert_allclose(tally.value().similarity, own.mean(axis=0), atol=1e-12)
    found = list(tally.without())
    assert len(found) == (codes.max() + 1 if without else 0)
    for code, (same, cross) in enumerate(found):
        left = np.flatnonzero(codes != code)
        pairs = [units[a] @ units[b].T for a in left for b in left if codes[a] != codes[b]]
        expected = np.mean(pairs, axis=0) if pairs else np.full((6, 6), np.nan)
        np.testing.assert_allclose(cross, expected, atol=1e-12)
        if len(left):
            np.testing.assert_allclose(same, own[left].mean(axis=0), atol=1e-12)


def test_lengths_of_rows_and_of_a_stretch_are_the_same():
    values, empty = example(n_units=500)
    stretch = Stretch.whole(values, empty=empty)
    for metric in METRICS:
        lengths = Lengths.empty(6, 5)
        for o, p in itertools.product(range(6), range(5)):
            lengths.fill(
                np.array([o]), np.array([p]), values[o, p][None], metric, stretch.origin(metric)
            )
        np.testing.assert_allclose(lengths.inverse, stretch.lengths_of(metric).inverse)
        np.testing.assert_allclose(lengths.offsets, stretch.lengths_of(metric).offsets, atol=1e-12)


def test_constant_features_have_no_pearson_and_no_centred_cosine():
    same = np.full((3, 2, 50), 7.0)
    assert location_cosines(same).similarity[0, 1] == pytest.approx(1)
    assert np.isnan(location_cosines(same).G).all()
    for metric in ("pearson", "centred"):
        assert (location_cosines(same, metric=metric).similarity == 0).all()


def test_one_category_has_no_baseline():
    values, _ = example()
    found = location_cosines(values, categories=["a"] * 6)
    assert np.isnan(found.baseline).all()
    assert np.isnan(found.G).all()
    assert np.isfinite(found.similarity).all()


def test_what_does_not_fit_is_refused():
    values, _ = example()
    with pytest.raises(InputError, match="needs the empty canvas"):
        location_cosines(values, metric="evoked")
    with pytest.raises(InputError, match="has 3 units; expected 300"):
        location_cosines(values, metric="evoked", empty=np.zeros(3))
    with pytest.raises(InputError, match="2 categories for 6 objects"):
        location_cosines(values, categories=["a", "b"])
    with pytest.raises(InputError, match=r"shape \(3, 4\)"):
        location_cosines(np.zeros((3, 4)))
    with pytest.raises(UnknownNameError, match="nearest: cosine"):
        location_cosines(values, metric="cosin")
    values[4, 2, 7] = np.nan
    with pytest.raises(NumericsError, match="object 4 at location 2"):
        location_cosines(values)


def test_places_without_a_contrast_are_counted():
    """At two of five places all objects have the same code."""
    values, _ = example()
    values[:, 1:3] = values[0, 1]
    places = [[5, 5 + 4 * place] for place in range(5)]
    found = measure(values, places, names="cosine")
    assert any("of moves, G is undefined at 2 of 20 (10%)" in n for n in found.attrs["notes"])
    source = ArraySource({"fc": values[:, None]}, y=[5], x=[x for _, x in places], reference=(5, 9))
    alone = similarity(source)
    assert any("of places, G is undefined at 1 of 4 (25%)" in n for n in alone.attrs["notes"])
    rest = measure(example()[0], places, names="cosine")
    assert not any("undefined at" in note for note in rest.attrs["notes"])
