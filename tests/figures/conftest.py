"""Synthetic results and objects: plausible enough to be drawn, known enough to be checked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import matplotlib
import numpy as np
import pytest
import xarray as xr


def vgg16_layers() -> list[str]:
    names = []
    for block, depth in enumerate((2, 2, 3, 3, 3), start=1):
        for idx in range(1, depth + 1):
            names += [f"conv{block}_{idx}", f"relu{block}_{idx}"]
        names.append(f"pool{block}")
    return [*names, "avgpool", "fc6", "relu6", "drop6", "fc7", "relu7", "drop7", "logits"]


def similarity_result(
    layers: list[str] | None = None,
    *,
    ys: tuple[int, ...] = (25, 68, 112, 155, 199),
    xs: tuple[int, ...] = (25, 68, 112, 155, 199),
    reference: tuple[int, int] = (112, 25),
) -> xr.Dataset:
    layers = layers or ["conv1_1", "pool5", "fc7"]
    n_objects, rng = 3, np.random.default_rng(0)
    distance = np.hypot(np.array(ys)[:, None] - reference[0], np.array(xs)[None] - reference[1])
    depth = np.linspace(0.2, 0.9, len(layers))[:, None, None]
    mean = depth + (1 - depth) * np.exp(-distance / 60)
    cross = np.broadcast_to(0.5 * depth, mean.shape).copy()
    gain = (mean - cross) / (1 - cross)
    similarity = mean[:, None] + 0.01 * rng.normal(size=(len(layers), n_objects, *mean.shape[1:]))
    place = ("layer", "y", "x")

    def away(values: np.ndarray) -> np.ndarray:
        chosen = values[:, distance > 0]
        return chosen.mean(axis=1) if chosen.size else np.full(len(layers), np.nan)

    def around(values: np.ndarray) -> np.ndarray:
        return np.stack([values - 0.05, values + 0.05], axis=-1)

    variables = {
        "similarity": (("layer", "object", "y", "x"), similarity),
        "similarity_mean": (place, mean),
        "similarity_interval": ((*place, "bound"), around(mean)),
        "baseline_cross": (place, cross),
        "baseline_cross_interval": ((*place, "bound"), around(cross)),
        "baseline_same": (place, cross + 0.1),
        "G": (place, gain),
        "G_interval": ((*place, "bound"), around(gain)),
        "baseline_same_away": ("layer", away(cross + 0.1)),
        "zero_share": ("layer", np.zeros(len(layers))),
    }
    for name, values in (("similarity", mean), ("baseline_cross", cross), ("G", gain)):
        variables[f"{name}_away"] = ("layer", away(values))
        variables[f"{name}_away_interval"] = (("layer", "bound"), around(away(values)))
    return xr.Dataset(
        variables,
        coords={
            "layer": layers,
            "object": [f"object{idx}" for idx in range(n_objects)],
            "category": ("object", ["a", "b", "c"]),
            "y": list(ys),
            "x": list(xs),
            "bound": ["low", "high"],
        },
        attrs={
            "kind": "similarity",
            "metric": "cosine",
            "model": "vgg16",
            "weights": "imagenet",
            "canvas": 224,
            "object_size": 50,
            "reference_y": reference[0],
            "reference_x": reference[1],
            "n_objects": n_objects,
            "protocol": "default",
        },
    )


@dataclass
class FakeObjects:
    categories: tuple[str, ...]
    name: str = "glyphs"
    size: int = 8
    ids: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.ids = tuple(f"{idx}" for idx in range(len(self.categories)))

    def patches(self, color: tuple[int, int, int]) -> np.ndarray:
        pictures = np.empty((len(self.ids), self.size, self.size, 3), dtype=np.uint8)
        pictures[:] = color
        for idx in range(len(pictures)):
            pictures[idx, 2:6, 2:6] = (idx % 256, 200, 255 - idx % 256)
        return pictures


@pytest.fixture
def make_result() -> Callable[..., xr.Dataset]:
    return similarity_result


@pytest.fixture
def result() -> xr.Dataset:
    return similarity_result()


@pytest.fixture
def deep_result() -> xr.Dataset:
    return similarity_result(vgg16_layers(), ys=(25, 112, 199), xs=(25, 112, 199))


@pytest.fixture
def make_objects() -> type[FakeObjects]:
    return FakeObjects


@pytest.fixture(autouse=True)
def _settings_stay() -> Iterator[None]:
    """Every test in this folder fails if a figure changes global settings."""
    before = matplotlib.rcParams.copy()
    yield
    assert matplotlib.rcParams.copy() == before
