"""Intervals of means over objects: what was sampled is left out in turn."""

import numpy as np
import pytest

from elsewhere.analyzer.attribution import AttributionSettings, attribute
from elsewhere.analyzer.attribution.summaries import summarise
from elsewhere.measures.attribution import MAP_METRICS, unit_maps
from elsewhere.measures.intervals import jackknife_t

DIFFERENCE = "equivariance_over_cross_away"


@pytest.fixture(scope="module")
def found(make_sweep):
    """Four categories, the last of one exemplar, the others of two."""
    sweep = make_sweep(n=4, per=2, grid="2x2")
    result = attribute(sweep, AttributionSettings(method="input-x-gradient", target="logit:1"))
    return summarise(result.isel(object=np.arange(result.sizes["object"] - 1)))


def means(result):
    return [str(name) for name in result.data_vars if str(name).endswith("_interval")]


def test_copies_of_exemplars_change_no_interval(found):
    copies = summarise(found.isel(object=np.repeat(np.arange(7), 5)))
    assert found.attrs["sampled"] == copies.attrs["sampled"] == "category"
    assert {"mass_away_interval", "entropy_mean_interval", f"{DIFFERENCE}_interval"} < set(
        means(found)
    )
    for name in means(found):
        np.testing.assert_allclose(copies[name].values, found[name].values, atol=1e-9, err_msg=name)


def test_they_are_the_jackknife_of_the_whole_computation(found):
    names = found["category"].values
    for chosen in (found, found.isel(object=[0, 2, 4, 6])):  # two exemplars each; one each
        names = chosen["category"].values
        left = [summarise(chosen.isel(object=names != name)) for name in dict.fromkeys(names)]
        whole = summarise(chosen)
        assert whole.attrs["sampled"] == ("category" if len(names) == 7 else "object")
        for name in (DIFFERENCE, "equivariance_cross_away", "equivariance_away", "mass_ratio_away"):
            without = np.stack([each[name].values for each in left])
            np.testing.assert_allclose(
                whole[f"{name}_interval"].values,
                jackknife_t(whole[name].values, without),
                atol=1e-9,
                err_msg=name,
            )


def test_the_difference_is_that_of_the_maps_themselves(found):
    """From the stored maps, in plain NumPy."""
    codes = np.unique(found["category"].values, return_inverse=True)[1]
    there = found["reference_attribution"].values.reshape(7, -1).astype(float)
    for place, metric in enumerate(MAP_METRICS):
        differences = []
        for y in found["y"].values:
            for x in found["x"].values:
                if (y, x) == (found.attrs["reference_y"], found.attrs["reference_x"]):
                    continue
                here = found["attribution"].sel(y=y, x=x).values.reshape(7, -1).astype(float)
                kept = np.isfinite(here).all(0) & np.isfinite(there).all(0)
                table = unit_maps(here[:, kept], metric) @ unit_maps(there[:, kept], metric).T
                other = [np.mean([table[i, j] for j in range(7) if codes[i] != codes[j]])
                         for i in range(7)]  # fmt: skip
                differences.append(np.diagonal(table).mean() - np.mean(other))
        assert float(found[DIFFERENCE][place]) == pytest.approx(np.mean(differences), abs=1e-9)


def test_objects_of_one_category_have_no_difference(found):
    one = summarise(found.isel(object=[0, 1]))
    assert np.isnan(one[DIFFERENCE]).all()
    assert np.isnan(one[f"{DIFFERENCE}_interval"]).all()
    assert np.isfinite(one["mass_away_interval"]).all()
    assert one.attrs["sampled"] == "object"
