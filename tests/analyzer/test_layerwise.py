"""Bands over layers of every measure with an interval, against values computed apart."""

import numpy as np
import pytest
from scipy import stats

from elsewhere.analyzer import measure
from elsewhere.measures import bands
from elsewhere.measures.cka import linear_cka
from elsewhere.storage import ArraySource
from tests.roles import similarity

PLACES = [[5, 5], [5, 15], [5, 25]]
NAMES = (
    "cosine,cka-biased,rsa,partition,sensitivity-euclidean,position,consistency,discrimination,"
    "identification"
)
AWAY = ~np.eye(3, dtype=bool)


@pytest.fixture(scope="module")
def layers():
    rng = np.random.default_rng(0)
    own = rng.normal(size=(8, 1, 20))
    return {f"fc{w}": (w * own + (4 - w) * rng.normal(size=(8, 3, 20))) for w in (1, 2, 3, 4)}


@pytest.fixture(scope="module")
def result(layers):
    return measure(layers, PLACES, names=NAMES)


def test_every_jackknife_has_a_band_that_holds_it_and_steps(result):
    scalars = [
        name.removesuffix("_interval")
        for name in map(str, result.data_vars)
        if name.endswith("_interval") and result[name].dims == ("layer", "bound")
    ]
    numbers = [n for n in scalars if not n.endswith("_step")]
    assert len(numbers) >= 17
    for name in numbers:
        low, high = result[f"{name}_interval"].values.T
        band_low, band_high = result[f"{name}_band"].values.T
        assert ((band_low <= low) & (band_high >= high)).all(), name
        step = f"{name.removesuffix('_away')}_step"
        np.testing.assert_allclose(result[step][1:], np.diff(result[name]), err_msg=name)
        assert np.isnan(result[step][0])
        widths = [np.ptp(result[f"{step}_{k}"].values[1:], axis=1) for k in ("band", "interval")]
        assert (widths[0] >= widths[1]).all(), name
    assert "long_name" in result["cka_biased_away_band"].attrs


def test_the_band_of_cka_is_max_t_of_its_pseudo_values(layers, result):
    """By the definition, with other draws: pseudo-values, multipliers, new t statistics."""
    value = np.array([linear_cka(a, biased=True)[AWAY].mean() for a in layers.values()])
    without = np.array(
        [
            [linear_cka(np.delete(a, k, 0), biased=True)[AWAY].mean() for a in layers.values()]
            for k in range(8)
        ]
    )

    def half(theta, rest, seed):
        pseudo = 8 * theta - 7 * rest
        error = pseudo.std(axis=0, ddof=1) / np.sqrt(8)
        unit = (pseudo - pseudo.mean(axis=0)) / np.linalg.norm(pseudo - pseudo.mean(axis=0), axis=0)
        new = np.random.default_rng(seed).normal(size=(20_000, 8, 8)) @ unit
        t = new.mean(axis=1) / new.std(axis=1, ddof=1) * np.sqrt(8)
        return np.quantile(np.abs(t).max(axis=1), 0.95) * error

    varies = slice(3)  # the last layer is invariant: its CKA is 1 up to rounding, and no part of it
    found = np.ptp(result["cka_biased_away_band"].values, axis=1)[varies] / 2
    np.testing.assert_allclose(found, half(value[varies], without[:, varies], 1), rtol=0.06)
    found = np.ptp(result["cka_biased_step_band"].values[1:], axis=1) / 2
    np.testing.assert_allclose(found, half(np.diff(value), np.diff(without, axis=1), 2), rtol=0.06)


def test_shares_at_the_edge_have_bands_that_are_no_points():
    """Five places in five: Wilson's interval of all, at the level of the band."""
    value, rest = np.ones(3), np.ones((9, 3))
    value[0], rest[:, 0] = 0.5, np.r_[np.full(5, 0.4), np.full(4, 0.625)]
    found = bands.layer_bands(value, rest, share=True)
    quantile = stats.norm.ppf(0.975) ** 2
    np.testing.assert_allclose(found["band"][1:], [[9 / (9 + quantile), 1.0]] * 2, rtol=1e-6)
    assert (np.ptp(found["step_band"][1:], axis=1) > 0.2).all()  # 1 less 1 is not surely 0
    assert found["step"][2] == 0


def test_few_units_have_no_bands_and_say_so(layers):
    few = measure({name: a[:3] for name, a in layers.items()}, PLACES, names="cosine")
    assert np.isfinite(few["cosine_away_interval"]).all()
    assert np.isnan(few["cosine_away_band"]).all()
    assert any("no band over layers" in note for note in few.attrs["notes"])
    one = measure({"fc1": layers["fc1"][:3]}, PLACES, names="cosine")
    assert not any("band" in note for note in one.attrs["notes"])


def test_similarity_says_where_it_has_no_interval(layers):
    source = ArraySource(
        {"fc1": layers["fc1"][:, None]}, y=[5], x=[5, 15, 25], categories=list("aaaabbbb")
    )
    found = similarity(source)
    assert np.isfinite(found["G_away"]).all()
    assert np.isnan(found["G_away_interval"]).all()
    (note,) = [note for note in found.attrs["notes"] if "no interval" in note]
    assert "G_away" in note
    assert "categories" in note
