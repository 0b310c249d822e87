"""Synthetic results and objects: plausible enough to be drawn, known enough to be checked."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import matplotlib
import numpy as np
import pytest
import xarray as xr

from elsewhere.analyzer.comparison import compare


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
        "cosine_each": (("layer", "object", "y", "x"), similarity),
        "cosine": (place, mean),
        "cosine_interval": ((*place, "bound"), around(mean)),
        "cosine_baseline": (place, cross),
        "cosine_baseline_interval": ((*place, "bound"), around(cross)),
        "cosine_baseline_same": (place, cross + 0.1),
        "cosine_G": (place, gain),
        "cosine_G_interval": ((*place, "bound"), around(gain)),
        "cosine_baseline_same_away": ("layer", away(cross + 0.1)),
        "cosine_zero_share": ("layer", np.zeros(len(layers))),
    }
    for name, values in (("cosine", mean), ("cosine_baseline", cross), ("cosine_G", gain)):
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


def accuracy_result(
    elsewhere: float = 0.4,
    *,
    trained: tuple[tuple[int, int], ...] = ((24, 5),),
    side: int = 5,
    held_out: bool = True,
    seed: int = 0,
) -> xr.Dataset:
    places = np.floor(np.linspace(5, 42, side) + 0.5).astype(int)
    values = elsewhere + 0.05 * np.random.default_rng(seed).random((2, side, side))
    for y, x in trained:
        values[:, (places == y)[:, None] & (places == x)[None]] = 0.99
    values[1] = values[1] - 0.02 if held_out else np.nan
    return xr.Dataset(
        {"accuracy": (("exemplars", "y", "x"), values)},
        coords={"exemplars": ["same", "held-out"], "y": places, "x": places},
        attrs={
            "kind": "accuracy",
            "model": "small-cnn",
            "weights": "none",
            "n_classes": 10,
            "chance": 0.1,
            "canvas": 48,
            "object_size": 11,
            "trained": json.dumps([list(place) for place in trained]),
        },
    )


def track_result(
    n_seeds: int = 0,
    *,
    phases: dict[str, list[int]] | None = None,
    layers: tuple[str, ...] = ("pool4", "fc1", "fc2"),
    rise: float = 0.8,
) -> xr.Dataset:
    phases = phases or {"pretraining": [0, 1, 10, 100, 1000], "digits": [0, 2, 20, 200]}
    rng, shape = np.random.default_rng(n_seeds), (n_seeds,) if n_seeds else ()
    lead = ("seed",) if n_seeds else ()
    progress = np.concatenate([np.linspace(0, 1, len(steps)) for steps in phases.values()])
    variables = {}
    for name, share in (("on", 1.0), ("off", rise), ("far", 0.9 * rise)):
        same = 0.1 + 0.8 * share * progress + 0.02 * rng.random((*shape, len(progress)))
        values = np.stack([same, same - 0.05], axis=-1)
        variables[f"accuracy_{name}"] = ((*lead, "checkpoint", "exemplars"), values)
    depth = np.linspace(0.2, 0.8, len(layers))
    gain = rise * progress[:, None] * depth + 0.02 * rng.random(
        (*shape, len(progress), len(layers))
    )
    variables["cosine_G_away"] = ((*lead, "checkpoint", "layer"), gain)
    names = [name for name, steps in phases.items() for _ in steps]
    return xr.Dataset(
        variables,
        coords={
            "phase": ("checkpoint", names),
            "step": ("checkpoint", [step for steps in phases.values() for step in steps]),
            "exemplars": ["same", "held-out"],
            "layer": list(layers),
        },
        attrs={"kind": "track", "model": "small-cnn", "n_classes": 10},
    )


def claims_result(n_seeds: int = 4) -> xr.Dataset:
    rows = [
        ("C1", "II_far, vanilla", "glyphs", 0.03, 0.1, "<", "holds", 1),
        ("C1", "II_far, vanilla", "glyphs, held out", 0.08, 0.1, "<", "undecided", 0),
        ("C2", "II_far, ImageNet weights", "", np.nan, 0.8, ">", "not run", 1),
        ("C3", "II_far, acquired", "glyphs → digits", 0.7, 0.5, ">", "holds", 1),
        ("C4", "full - fixed", "glyphs", np.nan, 0.5, ">", "not measurable", 1),
        ("C5", "G hidden - G pooling", "", 0.12, 0.2, ">", "fails", 1),
        ("C6", "fall of II_far", "glyphs → digits", 0.2, 0.2, ">", "undecided", 1),
    ]
    values = np.array([row[3] for row in rows])
    seeds = values[:, None] + np.linspace(-0.02, 0.02, n_seeds) if n_seeds > 1 else values[:, None]
    half = 0.03 if n_seeds > 1 else np.nan
    verdicts = [row[6] for row in rows]
    if n_seeds == 1:
        shown = {"holds": "shown in this run", "fails": "not shown in this run"}
        verdicts = [shown.get(text, text) for text in verdicts]
    return xr.Dataset(
        {
            "value": ("claim", values),
            "interval": (("claim", "bound"), np.stack([values - half, values + half], axis=1)),
            "threshold": ("claim", [row[4] for row in rows]),
            "direction": ("claim", [row[5] for row in rows]),
            "verdict": ("claim", verdicts),
            "n_seeds": ("claim", np.isfinite(seeds).sum(axis=1)),
            "counts": ("claim", [row[7] for row in rows]),
            "seeds": (("claim", "seed"), seeds),
        },
        coords={
            "claim": [row[0] for row in rows],
            "part": ("claim", [row[1] for row in rows]),
            "pair": ("claim", [row[2] for row in rows]),
            "system": ("claim", ["vgg16" if row[0] == "C2" else "small-cnn" for row in rows]),
            "bound": ["low", "high"],
            "seed": np.arange(n_seeds),
        },
        attrs={
            "kind": "claims",
            "system": "small-cnn",
            "summary": json.dumps({"C1": "holds", "C6": "undecided"}),
        },
    )


def probe_result(
    *, each: bool = False, held_out: bool = True, controls: bool = True, flag: bool = False
) -> xr.Dataset:
    layers, places = ["pool4", "fc5", "fc6"], np.array([5, 24, 42])
    splits, where = ["same", "held-out"], ["on", "off", "far"]
    far = np.linspace(0.2, 0.9, 3)[:, None] - np.array([0.0, 0.1])
    if not held_out:
        far[:, 1] = np.nan
    trained = ("train_y", "train_x") if each else ()
    shape = (3, 2, *([3, 3] if each else []), 3, 3)
    accuracy = np.broadcast_to(far.reshape(3, 2, *([1] * (len(shape) - 2))), shape).copy()
    for y in range(3):
        for x in range(3):
            if each:
                accuracy[:, :, y, x, y, x] += 0.1
    if not each:
        accuracy[:, :, 1, 0] = np.where(np.isfinite(far), 0.98, np.nan)
    at = np.stack([np.where(np.isfinite(far), 0.98, np.nan), far, far], axis=-1)
    variables = {
        "accuracy": (("layer", "exemplars", *trained, "y", "x"), accuracy),
        "accuracy_at": (("layer", "exemplars", "where"), at),
        "accuracy_at_interval": (
            ("layer", "exemplars", "where", "bound"), np.stack([at - 0.05, at + 0.05], axis=-1),
        ),
        "II_far": (("layer", "exemplars"), far),
        "II_far_interval": (
            ("layer", "exemplars", "bound"), np.stack([far - 0.1, far + 0.1], axis=-1),
        ),
    }  # fmt: skip
    if controls:
        variables |= {
            "untrained_accuracy_at": (("layer", "exemplars", "where"), at * 0.5),
            "untrained_II_far": (("layer", "exemplars"), far * 0.5),
            "pixels_accuracy": (("exemplars", "y", "x"), accuracy[0] * 0.8) if not each else
            (("exemplars", *trained, "y", "x"), accuracy[0] * 0.8),
            "pixels_accuracy_at": (("exemplars", "where"), at[0] * 0.8),
            "pixels_II_far": (("exemplars",), far[0] * 0.1),
            "shuffled_accuracy_at": (("layer", "exemplars", "where"), at * 0.3),
            "shuffled_flag": (("layer", "exemplars"), np.full((3, 2), int(flag), np.int8)),
        }  # fmt: skip
    coords = {
        "layer": layers, "exemplars": splits, "where": where, "bound": ["low", "high"],
        "y": places, "x": places,
    }  # fmt: skip
    if each:
        coords |= {"train_y": places, "train_x": places}
    else:
        coords |= {"trained_y": ("trained", [24]), "trained_x": ("trained", [5])}
    return xr.Dataset(
        variables,
        coords=coords,
        attrs={
            "kind": "probe-each" if each else "probe",
            "probe": "logistic",
            "model": "small-cnn",
            "weights": "none",
            "chance": 0.125,
            "n_objects": 80,
            "canvas": 48,
            "object_size": 11,
            "reference_y": 24,
            "reference_x": 5,
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


def attribution_result(
    *, ys: tuple[int, ...] = (5, 24, 42), steps: tuple[int, ...] = ()
) -> xr.Dataset:
    """Return maps of three objects of 8 px in frames of 14 px, over checkpoints given steps."""
    rng, n, side = np.random.default_rng(1), 3, 14
    shape = (n, len(ys), len(ys), side, side)
    place, frame = ("object", "y", "x"), ("height", "width")
    maps = rng.normal(size=shape)
    maps[:, 0, :, :3] = np.nan  # off the canvas
    likeness = rng.uniform(-0.2, 1, (3, n, len(ys), len(ys)))
    masks = np.zeros((n, 8, 8), np.uint8)
    masks[:, 2:6, 1:7] = 255
    variables = {
        "attribution": ((*place, *frame), maps.astype(np.float16)),
        "scale": (place, rng.uniform(1, 2, shape[:3])),
        "reference_attribution": (("object", *frame), maps[:, 1, 0].astype(np.float16)),
        "reference_scale": ("object", np.ones(n)),
        "frame_mean": (("y", "x", *frame), maps.mean(0)),
        "equivariance": (("metric", *place), likeness),
        "equivariance_mean": (("metric", "y", "x"), likeness.mean(1)),
        "equivariance_cross": (("metric", "y", "x"), likeness.mean(1) - 0.3),
        "equivariance_away": ("metric", likeness.mean((1, 2, 3))),
        "equivariance_cross_away": ("metric", likeness.mean((1, 2, 3)) - 0.3),
        "accuracy": (("y", "x"), likeness[0].mean(0)),
        "patch": (("object", "box_y", "box_x", "rgb"), np.zeros((n, 8, 8, 3), np.uint8)),
        "mask": (("object", "box_y", "box_x"), masks),
    }
    around = np.stack([variables["equivariance_away"][1] + d for d in (-0.1, 0.1)], axis=-1)
    variables["equivariance_away_interval"] = (("metric", "bound"), around)
    made = xr.Dataset(
        variables,
        coords={
            "object": [f"o{k}" for k in range(n)], "y": list(ys), "x": list(ys),
            "height": np.arange(side) - 3, "width": np.arange(side) - 3,
            "metric": ["pearson", "cosine", "spearman"], "bound": ["low", "high"],
        },
        attrs={
            "kind": "attribution", "method": "saliency", "target": "logit:true", "model": "net",
            "canvas": 48, "object_size": 8, "reference_y": ys[1], "reference_x": ys[0],
            "n_objects": n,
        },
    )  # fmt: skip
    if not steps:
        return made
    once = made[["patch", "mask"]]
    made = xr.concat([made.drop_vars(["patch", "mask"])] * len(steps), dim="checkpoint")
    made = made.merge(once).assign_coords(
        step=("checkpoint", list(steps)), phase=("checkpoint", ["learn"] * len(steps))
    )
    return made.assign_attrs(kind="attribution timeline")


def sanity_result(method: str = "saliency", *, unchanged: bool = False) -> xr.Dataset:
    stages = ["(none)", "logits", "relu4", "fc4", "conv2_1", "conv1_1"]
    fall = np.linspace(1, 0.8 if unchanged else -0.2, len(stages))
    likeness = np.stack([fall, fall**2, fall**3], axis=1)
    around = np.stack([likeness - 0.1, likeness + 0.1], axis=-1)
    return xr.Dataset(
        {
            "likeness": (("stage", "metric"), likeness),
            "likeness_interval": (("stage", "metric", "bound"), around),
            "n_empty": ("stage", [0, 0, 0, 1, 0, 7]),
        },
        coords={
            "stage": stages, "metric": ["pearson", "cosine", "spearman"], "bound": ["low", "high"]
        },
        attrs={
            "kind": "attribution sanity", "method": method, "target": "logit:true", "model": "net",
            "n_objects": 4, "n_vanishing": 2, "unchanged": unchanged, "judged_at": "fc4",
            "threshold": 0.5,
        },
    )  # fmt: skip


@pytest.fixture
def make_sanity() -> Callable[..., xr.Dataset]:
    return sanity_result


@pytest.fixture
def make_attribution() -> Callable[..., xr.Dataset]:
    return attribution_result


@pytest.fixture
def result() -> xr.Dataset:
    return similarity_result()


@pytest.fixture
def deep_result() -> xr.Dataset:
    return similarity_result(vgg16_layers(), ys=(25, 112, 199), xs=(25, 112, 199))


def measures_result(layers: list[str] | None = None) -> xr.Dataset:
    layers = layers or ["conv1_1", "pool1", "conv2_1", "pool5", "fc6", "fc7"]
    n, rng = len(layers), np.random.default_rng(0)
    depth = np.linspace(0, 1, n)
    maps = np.array([not name.startswith("fc") for name in layers])
    values = {
        "aligned_G_away": np.where(maps, 1 - 0.6 * depth, np.nan),
        "plain_G_away": 0.1 + 0.7 * depth,
        "object_share": 0.1 + 0.5 * depth,
        "location_share": 0.6 - 0.4 * depth,
        "interaction_share": 0.3 - 0.1 * depth,
        "shift_share_in_phase": np.where(maps, 1 - 0.3 * depth, np.nan),
        "shift_share_out_of_phase": np.where(maps & (depth > 0), 0.9 - 0.5 * depth, np.nan),
        "border_share_in_phase": np.where(maps, 0.3 * depth, np.nan),
        "cka_away": 1 - 0.3 * depth,
        "identification_ceiling": 0.95 - 0.05 * depth,
        "identification_mapped_away": 0.9 - 0.3 * depth,
        "identification_raw_away": 0.2 + 0.3 * depth,
    }
    variables: dict[str, object] = {name: ("layer", found) for name, found in values.items()}
    for name, found in values.items():
        bounds = np.stack([found - 0.05, found + 0.05], axis=-1)
        variables[f"{name}_interval"] = (("layer", "bound"), bounds)
    variables["cka_away_band"] = (("layer", "bound"), values["cka_away"][:, None] + [-0.1, 0.1])
    step = np.diff(values["cka_away"], prepend=np.nan)
    variables["cka_step"] = ("layer", step)
    for key, half in (("interval", 0.03), ("band", np.where(np.arange(n) == 2, 0.05, 0.07))):
        bounds = np.stack([step - half, step + half], axis=-1)
        variables[f"cka_step_{key}"] = (("layer", "bound"), bounds)
    for part, null in (("object", 0.1), ("location", 0.15), ("interaction", 0.75)):
        variables[f"{part}_share_null"] = ("layer", np.full(n, null))
    variables["identification_chance"] = ("layer", np.full(n, 0.2))
    windows = rng.uniform(5, 20, (4, 4, 2, 2)) * np.ones((n, 1, 1, 1, 1))
    for name, values in zip(("y", "x", "side", "error_each"), windows.swapaxes(0, 1), strict=True):
        variables[f"window_{name}"] = (("layer", "object", "y", "x"), values)
    cells = np.where(maps[:, None, None], 9.0, np.nan) * np.ones((1, 2, 2))
    variables["cells"] = (("layer", "y", "x"), cells)
    return xr.Dataset(
        variables,
        coords={
            "layer": layers,
            "bound": ["low", "high"],
            "y": [5, 9],
            "x": [5, 9],
            "object": list("abcd"),
        },
        attrs={
            "kind": "measures",
            "canvas": 24,
            "object_size": 5,
            "reference_y": 9,
            "reference_x": 5,
            "model": "vgg16",
            "weights": "none",
            "n_objects": 20,
            "headlines": {
                "aligned": "aligned_G_away",
                "cka": "cka_away",
                "partition": "object_share",
            },
        },
    )


@pytest.fixture
def make_measures() -> Callable[..., xr.Dataset]:
    return measures_result


@pytest.fixture
def make_accuracy() -> Callable[..., xr.Dataset]:
    return accuracy_result


@pytest.fixture
def make_track() -> Callable[..., xr.Dataset]:
    return track_result


@pytest.fixture
def make_claims() -> Callable[..., xr.Dataset]:
    return claims_result


@pytest.fixture
def make_probe() -> Callable[..., xr.Dataset]:
    return probe_result


@pytest.fixture
def results() -> dict[str, xr.Dataset]:
    """A finished result of every kind."""
    return results_of_all_kinds()


def comparison_result() -> xr.Dataset:
    one, other = similarity_result(), similarity_result(["stem", "body", "neck", "fc7"])
    return compare([one, other.assign_attrs(model="own")], ["vgg16", "own"])


def results_of_all_kinds() -> dict[str, xr.Dataset]:
    made = (
        similarity_result(),
        accuracy_result(),
        track_result(),
        claims_result(),
        measures_result(),
        probe_result(),
        probe_result(each=True),
        attribution_result(),
        attribution_result(steps=(0, 10, 100)),
        sanity_result(),
        comparison_result(),
    )
    return {str(each.attrs["kind"]): each for each in made}


@pytest.fixture
def make_objects() -> type[FakeObjects]:
    return FakeObjects


@pytest.fixture(autouse=True)
def _settings_stay() -> Iterator[None]:
    """Every test in this folder fails if a figure changes global settings."""
    before = matplotlib.rcParams.copy()
    yield
    assert matplotlib.rcParams.copy() == before
