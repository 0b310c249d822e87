"""Lost or hidden: codes whose truth is known, and scikit-learn's ridge regression."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from elsewhere.analyzer import measure
from elsewhere.errors import InputError
from elsewhere.measures import identification
from elsewhere.measures.identification import _told
from elsewhere.measures.move_maps import MoveMaps, around

N, UNITS = 60, 200


@pytest.fixture(scope="module")
def here():
    """Objects in a few dimensions of many units."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(N, 15)) @ rng.normal(size=(15, UNITS))


def turned(rows, seed=1):
    turn, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(rows.shape[1],) * 2))
    return rows @ turn


def means(found, name):
    return getattr(found, name).mean(axis=0)


def test_what_is_turned_is_hidden_and_what_is_noise_is_lost(here):
    noise = np.random.default_rng(2).normal(size=here.shape)
    found = identification(np.stack([here, turned(here), noise, here], axis=1))
    chance = found.chance
    np.testing.assert_allclose(means(found, "raw")[[0, 3]], 1)
    np.testing.assert_allclose(means(found, "mapped")[[0, 1, 3]], 1)
    for name, place in (("raw", 1), ("centred", 1), ("raw", 2), ("mapped", 2), ("centred", 2)):
        assert abs(means(found, name)[place] - chance) < 0.08, (name, place)
    assert (abs(means(found, "null") - chance) < 0.05).all()
    assert found.ceiling.mean() == 1


def test_a_common_part_hides_from_raw_but_not_from_centred(here):
    common = 1e3 * np.random.default_rng(3).normal(size=(2, UNITS))
    found = identification(np.stack([here + common[0], here + common[1]], axis=1))
    assert means(found, "centred")[1] == 1
    assert means(found, "mapped")[1] == 1
    assert means(found, "raw")[1] < 0.5


def test_a_part_of_the_dimensions_lost_lowers_the_mapped_share(here):
    few = turned(here @ np.diag(np.arange(UNITS) < 3).astype(float))
    both = identification(np.stack([here, turned(here), few], axis=1))
    mapped = means(both, "mapped")
    assert both.chance + 0.1 < mapped[2] < mapped[1] - 0.1


@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_scale_and_rotation_change_nothing(here, scale):
    rng = np.random.default_rng(4)
    there = turned(here) + 0.5 * rng.normal(size=here.shape)
    first = identification(np.stack([here, there], axis=1))
    second = identification(np.stack([here, scale * turned(there, 9)], axis=1))
    np.testing.assert_allclose(second.mapped, first.mapped, atol=0.03)


def test_the_map_is_scikit_learns(here):
    rng = np.random.default_rng(5)
    there = turned(here) + rng.normal(size=here.shape)
    codes = np.arange(N)
    both = np.stack([here, there])
    grams = np.stack([rows @ rows.T for rows in both - both.mean(axis=1, keepdims=True)])
    test, train = np.arange(12), np.arange(12, N)
    fit = MoveMaps(grams, 0, train, test, codes, np.random.default_rng(0))
    kernel = around(grams[1], train)[np.ix_(train, train)]
    penalty = fit.strengths[1] * np.linalg.eigvalsh(kernel).mean()
    mapped = Ridge(alpha=penalty).fit(there[train], here[train]).predict(there[test])
    middle = here[train].mean(axis=0)
    products = (mapped - middle) @ (here[test] - middle).T
    expected = products / np.linalg.norm(here[test] - middle, axis=1)
    expected /= abs(expected).max(axis=1, keepdims=True)
    np.testing.assert_allclose(fit.scores()[1], expected, atol=1e-8)


def test_objects_of_a_category_are_never_each_others_rivals():
    rng = np.random.default_rng(6)
    kinds = rng.normal(size=(16, 5))
    rows = np.repeat(kinds, 3, axis=0) + 1e-9 * rng.normal(size=(48, 5))  # exemplars look alike
    names = np.repeat(np.arange(16), 3)
    alike = identification(np.stack([rows, rows], axis=1), categories=names)
    assert alike.raw.min() == alike.mapped.min() == 1
    apart = identification(np.stack([rows, rows], axis=1), categories=range(48))
    # three that cannot be told apart share the answer, where they are tested together
    assert means(apart, "raw")[1] < 0.95


def test_ties_share_the_answer():
    scores = np.array([[[1.0, 1.0, 0.0], [0.0, 1.0, 0.0], [1.0, 0.0, 1.0 - 1e-9]]])
    others = ~np.eye(3, dtype=bool)
    np.testing.assert_allclose(_told(scores, others), [[0.5, 1.0, 0.5]])


def test_a_dead_place_is_at_chance_and_a_dead_reference_is_refused(here):
    dead = np.ones_like(here)
    found = identification(np.stack([here, dead, 0 * dead], axis=1))
    for name in ("raw", "centred", "mapped", "null"):
        if name == "raw":  # a constant code there is nearest to one object here
            assert means(found, name)[1] <= 0.2
        np.testing.assert_allclose(means(found, name)[2], found.chance)
    np.testing.assert_allclose(means(found, "mapped")[1], found.chance)
    with pytest.raises(InputError, match="same code at the reference"):
        identification(np.stack([dead, here], axis=1))


def test_bad_input(here):
    with pytest.raises(InputError, match="5 categories are too few"):
        identification(np.stack([here, here], axis=1), categories=np.arange(N) % 5)
    with pytest.raises(InputError, match="none of 2 locations"):
        identification(np.stack([here, here], axis=1), reference=2)


def test_the_seed_decides_the_partitions(here):
    there = turned(here) + 20 * np.random.default_rng(7).normal(size=here.shape)
    both = np.stack([here, there], axis=1)
    first, again, other = (identification(both, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.mapped, again.mapped)
    assert (first.mapped != other.mapped).any()


def test_what_the_map_itself_costs_is_said():
    """A code that stays is told as it stands; a map of few objects tells fewer."""
    rng, places = np.random.default_rng(8), [[5, 5], [5, 15]]
    few, many = rng.normal(size=(8, 1, 60)), rng.normal(size=(40, 1, 8))
    found = measure(few.repeat(2, axis=1), places, names="identification")
    assert float(found["identification_hidden"][0]) < -0.1
    assert any("hidden is that, and no finding" in note for note in found.attrs["notes"])
    found = measure(many.repeat(2, axis=1), places, names="identification")
    assert float(found["identification_ceiling"][0]) > 0.95
    assert not any("no finding" in note for note in found.attrs["notes"])
