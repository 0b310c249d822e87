"""Dissimilarities of every layer and location, and as rsatoolbox has them."""

import sys

import numpy as np
import pytest
import xarray
from scipy.spatial.distance import pdist

from elsewhere import ArraySource
from elsewhere.analyzer import dissimilarity_matrices, to_rsatoolbox
from elsewhere.errors import InputError, UnknownNameError

VALUES = np.random.default_rng(0).normal(2, 1, size=(5, 2, 3, 40))


@pytest.fixture
def source():
    return ArraySource(
        {"fc6": VALUES, "fc7": VALUES[..., :7]},
        y=[5, 9],
        x=[5, 9, 13],
        categories=list("aabbc"),
        objects=list("vwxyz"),
    )


@pytest.mark.parametrize("kind", ["correlation", "cosine", "euclidean"])
def test_they_are_what_scipy_gives(source, kind):
    found = dissimilarity_matrices(source, dissimilarity=kind)
    for y in range(2):
        for x in range(3):
            for layer, values in (("fc6", VALUES), ("fc7", VALUES[..., :7])):
                row = found["dissimilarity"].sel(layer=layer).isel(y=y, x=x)
                np.testing.assert_allclose(row, pdist(values[:, y, x], kind), atol=1e-9)
    assert found["object_a"].values[:5].tolist() == list("vvvvw")
    assert found["object_b"].values[:5].tolist() == list("wxyzx")


def test_rsatoolbox_takes_them(source):
    rdm = pytest.importorskip("rsatoolbox.rdm")
    data = pytest.importorskip("rsatoolbox.data")
    found = to_rsatoolbox(dissimilarity_matrices(source))
    assert isinstance(found, rdm.RDMs)
    assert found.n_rdm == 12
    assert found.pattern_descriptors["object"] == list("vwxyz")
    assert found.pattern_descriptors["category"] == list("aabbc")
    one = found.subset("layer", "fc6").subset("y", 9).subset("x", 13)
    wanted = rdm.calc_rdm(data.Dataset(VALUES[:, 1, 2]), method="correlation")
    np.testing.assert_allclose(one.dissimilarities, wanted.dissimilarities, atol=1e-9)


def test_without_rsatoolbox_the_error_says_how_to_get_it(source, monkeypatch):
    result = dissimilarity_matrices(source)
    monkeypatch.setitem(sys.modules, "rsatoolbox", None)
    monkeypatch.setitem(sys.modules, "rsatoolbox.rdm", None)
    with pytest.raises(InputError, match=r"pip install 'elsewhere\[rsatoolbox\]'"):
        to_rsatoolbox(result)


def test_what_does_not_fit_is_refused(source):
    with pytest.raises(UnknownNameError, match="nearest: euclidean"):
        dissimilarity_matrices(source, dissimilarity="euclidian")
    with pytest.raises(UnknownNameError, match="known: fc6, fc7"):
        dissimilarity_matrices(source, layers=["fc8"])
    with pytest.raises(InputError, match="two objects or more"):
        dissimilarity_matrices(ArraySource({"a": VALUES[:1]}, y=[5, 9], x=[5, 9, 13]))
    with pytest.raises(InputError, match="holds no dissimilarities"):
        to_rsatoolbox(xarray.Dataset(attrs={"kind": "similarity"}))
