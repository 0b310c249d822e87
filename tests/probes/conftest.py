"""Sources with known answers, small enough for double loops."""

import numpy as np
import pytest

from elsewhere.storage import ArraySource

YS, XS = (5, 13, 21), (6, 14, 22, 30)


def make(
    *,
    kind="invariant",
    n=4,
    per=6,
    units=150,
    noise=1.0,
    seed=0,
    ys=YS,
    xs=XS,
    object_size=8,
    dtype=np.float32,
):
    """Return a source of one layer ``fc``: categories have a code, places may change it.

    ``invariant``: the same code everywhere; ``local``: a code of its own at every location;
    ``mixed``: the same code and a place's own pattern added.
    """
    rng = np.random.default_rng(seed)
    codes = rng.normal(size=(n, 1, 1, units))
    exemplars = noise * rng.normal(size=(n * per, 1, 1, units))
    values = np.repeat(codes, per, axis=0) + exemplars
    values = np.broadcast_to(values, (n * per, len(ys), len(xs), units))
    if kind == "local":
        turned = np.empty(values.shape)
        for i in range(len(ys)):
            for k in range(len(xs)):
                turned[:, i, k] = values[:, i, k][:, rng.permutation(units)]
        values = turned
    if kind == "mixed":
        values = values + 3 * rng.normal(size=(1, len(ys), len(xs), units))
        values = values + 0.7 * rng.normal(size=values.shape)
    categories = [f"c{i}" for i in range(n) for _ in range(per)]
    source = ArraySource({"fc": values.astype(dtype)}, y=ys, x=xs, categories=categories)
    if object_size:
        source.provenance["object_size"] = object_size
        source.provenance["canvas"] = 36
    return source


@pytest.fixture(scope="session")
def make_source():
    return make


def values_of(source, layer="fc"):
    """Return the activations, float64 (object, position, unit)."""
    array = source._arrays[layer]
    return array.reshape(array.shape[0], -1, int(np.prod(array.shape[3:]))).astype(np.float64)


@pytest.fixture(scope="session")
def raw():
    return values_of
