"""Codes that share a large common part: differences of nearly equal numbers."""

import numpy as np
import pytest
from scipy import stats
from scipy.spatial.distance import pdist
from scipy.special import comb

from elsewhere.analyzer.all_measures import measure
from elsewhere.measures import (
    discrimination,
    distance_matrix,
    linear_cka,
    rsa,
    strongest_consistency,
)
from elsewhere.measures.position import position_decoding
from elsewhere.measures.variance import normalized_variance

PLACES = [[10, x] for x in (10, 20, 30, 40)]


def codes(own, *, n=20, units=500, seed=0, dtype="f4"):
    """A common part of length about 1 a unit, each object's own part, each location's gain."""
    rng = np.random.default_rng(seed)
    base, parts = rng.normal(size=units), rng.normal(size=(n, 1, units))
    return ((base + own * parts) * rng.uniform(0.5, 2, (n, 4, 1))).astype(dtype)


def moving(own, *, n=12, units=400, seed=1, apart=1.0):
    """Objects whose own parts are partly others at every location."""
    rng = np.random.default_rng(seed)
    base = 3 + rng.normal(size=units)
    parts = rng.normal(size=(n, 1, units)) + apart * rng.normal(size=(n, 4, units))
    return (base + own * parts).astype("f4")


def rsa_of(values, metric="correlation"):
    exact = values.astype(np.float64)
    tables = [pdist(exact[:, place], metric) for place in range(exact.shape[1])]
    return stats.spearmanr(np.stack(tables, axis=1)).statistic


@pytest.mark.parametrize("own", [1e-4, 3e-4, 1e-3, 1.0])
def test_rsa_of_a_common_part_ranks_what_objects_differ_by(own):
    np.testing.assert_allclose(rsa(codes(own)), 1.0, atol=2e-5)
    found = rsa(moving(own))
    wanted = [[rsa_of(moving(own)[:, [p, q]]) for q in range(4) if q != p] for p in range(4)]
    off = found[~np.eye(4, dtype=bool)].reshape(4, 3)
    np.testing.assert_allclose(off, wanted, atol=2e-4)


@pytest.mark.parametrize("dissimilarity", ["correlation", "cosine", "euclidean"])
def test_rsa_of_equal_codes_is_undefined(dissimilarity):
    same = np.repeat(codes(0.0)[:1], 20, axis=0)
    assert np.isnan(rsa(same, dissimilarity=dissimilarity)).all()
    if dissimilarity != "euclidean":
        assert np.isnan(rsa(codes(0.0), dissimilarity=dissimilarity)).all()


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_equal_dissimilarities_keep_one_rank(dtype):
    rng = np.random.default_rng(2)
    flags = (rng.random((20, 1, 60)) < 0.5).astype(dtype)
    both = np.concatenate([flags, flags[:, :, ::-1] * 3], axis=1)
    for dissimilarity in ("correlation", "euclidean"):
        assert rsa(both, dissimilarity=dissimilarity)[0, 1] == pytest.approx(1, abs=1e-12)
    hamming = pdist(flags[:, 0], "hamming")
    other = np.concatenate([flags, (rng.random((20, 1, 60)) < 0.5).astype(dtype)], axis=1)
    wanted = stats.spearmanr(hamming, pdist(other[:, 1], "hamming")).statistic
    assert rsa(other, dissimilarity="euclidean")[0, 1] == pytest.approx(wanted, abs=1e-9)


def test_equal_distances_with_rounding_are_no_geometry():
    rng = np.random.default_rng(3)
    one_hot = np.repeat(np.eye(8)[:, None], 3, axis=1) * (1 + 1e-8 * rng.normal(size=(8, 3, 8)))
    values = (0.3 * one_hot).astype("f4")
    assert np.isnan(rsa(values, dissimilarity="cosine")).all()
    with pytest.warns(UserWarning, match="noisy"):
        assert np.isnan(linear_cka(values + np.float32(1e3))).all()


def test_pairs_below_rounding_are_ties_and_say_so():
    values = moving(1.0)
    values[3:9] = values[3]
    found = measure(values, PLACES, names="rsa")
    assert found["rsa"].values[0, 0, 0, 0, 1] == pytest.approx(rsa_of(values)[0, 1], abs=1e-6)
    assert any(note.startswith("rsa: layer activations: 0.23 of") for note in found.notes)
    assert not any("tie" in note for note in measure(moving(1.0), PLACES, names="rsa").notes)


def test_an_object_is_told_by_what_is_its_own():
    values = codes(1e-4)
    assert values[:, 0].std() > 0
    np.testing.assert_array_equal(discrimination(values), 1.0)
    np.testing.assert_allclose(discrimination(codes(0.0)), 0.2)
    far = moving(2e-3, units=20, apart=2)
    exact = far.astype(np.float64)
    unit = exact / np.linalg.norm(exact, axis=2, keepdims=True)
    unit -= unit.mean(axis=(0, 1))
    apart = np.array([[np.linalg.norm(a - b) for b in unit[:, 0]] for a in unit[:, 1]])
    right = np.diag(apart)[:, None]
    below = (apart > right).sum(axis=1)  # rivals that are further away
    wanted = (comb(below, 4) / comb(11, 4)).mean()
    assert 0.2 < wanted < 1
    assert discrimination(far)[0, 1] == pytest.approx(wanted, abs=1e-9)


def test_units_that_vary_by_rounding_only_are_constant():
    rng = np.random.default_rng(4)
    values = rng.normal(size=(6, 4, 10))
    values[:, :, 5:] = 1000 * (1 + 3e-8 * rng.normal(size=(6, 4, 5)))
    values = values.astype("f4")
    assert np.ptp(values[:, :, 5:], axis=(0, 1)).max() > 0
    found = normalized_variance(values)
    assert found.dead_share == 0.5
    np.testing.assert_array_equal(found.per_unit[5:], 1)
    assert found.per_unit[:5] == pytest.approx(normalized_variance(values[..., :5]).per_unit)
    notes = measure(values, PLACES, names="normalized-variance").notes
    assert any("0.5 of the units vary by rounding only" in note for note in notes)


def test_largest_units_within_rounding_are_one():
    rng = np.random.default_rng(5)
    logits = rng.normal(size=(9, 4, 6))
    logits[:, :, 0] = logits.max(axis=2) + 1
    logits[:, :, 4] = logits[:, :, 0] * (1 + 5e-8 * rng.choice([-1, 1], size=(9, 4)))
    logits[:4, :, 2] = 9  # some objects are told
    found = strongest_consistency(logits.astype("f4"))
    assert found.value == 1.0
    notes = measure(logits.astype("f4"), PLACES, names="consistency").notes
    assert any("0.56 of the vectors have several largest units" in note for note in notes)


def test_a_unit_of_length_that_is_rounding_divides_nothing():
    values = np.zeros((8, 2, 30), "f4") + np.linspace(1, 2, 30, dtype="f4")
    values[7] += np.random.default_rng(6).normal(size=(2, 30)).astype("f4")
    values[:, 1] += np.float32(1e-8)
    assert np.isnan(distance_matrix(values)).all()


def test_a_place_that_only_rounding_tells_is_not_read():
    rng = np.random.default_rng(7)
    places = np.array([[y, x] for y in range(4) for x in range(4)])
    objects = 1e-5 * rng.normal(size=(8, 1, 40))
    place = 2e-8 * (places / 3 - 0.5) @ rng.choice([-1, 1], size=(2, 40))
    values = (1 + objects + place).astype("f4")
    assert position_decoding(values, locations=places).r2 < 0.1
    stronger = (1 + objects + 1e3 * place).astype("f4")
    assert position_decoding(stronger, locations=places).r2 > 0.9


@pytest.mark.parametrize("offset", [1e8, 1e10])
def test_a_common_offset_in_double_precision_changes_no_measure_that_ignores_it(offset):
    rng = np.random.default_rng(5)
    own = rng.normal(size=(12, 1, 30)) + rng.normal(size=(12, 4, 30)) + rng.normal(size=(1, 4, 30))
    own = np.round(own * 2**18) / 2**18  # the offset rounds none of it
    names = "cka-biased,partition,position,sensitivity-euclidean,rsa"
    found = measure(own + offset, PLACES, names=names)
    less = own - own.mean(axis=0)
    grams = [less[:, p] @ less[:, p].T for p in range(4)]
    norm = np.linalg.norm
    cka = [(k * m).sum() / norm(k) / norm(m) for i, k in enumerate(grams) for m in grams[i + 1 :]]
    assert float(found["cka_biased_away"][0]) == pytest.approx(np.mean(cka), abs=1e-6)
    total = ((own - own.mean(axis=(0, 1))) ** 2).sum()
    by_object = 4 * ((own.mean(axis=1) - own.mean(axis=(0, 1))) ** 2).sum()
    assert float(found["object_share"][0]) == pytest.approx(by_object / total, abs=1e-6)
    moved = norm(own[:, :, None] - own[:, None], axis=-1).mean(axis=0)
    between = np.median([pdist(own[:, p]) for p in range(4)], axis=1)
    wanted = (moved / between[:, None])[~np.eye(4, dtype=bool)].mean()
    assert float(found["sensitivity_euclidean_away"][0]) == pytest.approx(wanted, abs=1e-6)
    assert float(found["position_r2"][0]) == pytest.approx(
        float(measure(own, PLACES, names="position")["position_r2"][0]), abs=1e-6
    )
