"""Small models, objects and sweeps, and independent implementations to compare with."""

import dataclasses
import importlib.util
import itertools
import os
import runpy
import subprocess
from pathlib import Path
from typing import ClassVar

import h5py
import hdf5plugin  # noqa: F401  (registers the filter)
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings
from scipy import stats
from torch import nn

from elsewhere.measures import landing
from elsewhere.models import InputTransform, Model, load_model
from elsewhere.models.aliases import aliases
from elsewhere.recording import Sweep, record
from elsewhere.stimuli import Canvas, Grid, ObjectSet

# No example is too slow: how long one takes says more about what else runs than about the code.
settings.register_profile("no clock", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("no clock")


def pytest_collection_modifyitems(items):
    """Skip tests marked gpu where there is none, and of networks whose package is missing."""
    if importlib.util.find_spec("timm") is None:
        skip = pytest.mark.skip(reason="timm, which builds EfficientNet-Lite, is not installed")
        for item in items:
            asked = getattr(getattr(item, "callspec", None), "params", {}).get("name")
            if str(asked).startswith("efficientnet-lite"):
                item.add_marker(skip)
    if os.environ.get("ELSEWHERE_TEST_DEVICE") is None and not torch.cuda.is_available():
        skip = pytest.mark.skip(reason="torch sees no CUDA device")
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(skip)


TRANSFORM = InputTransform(mean=(0.4, 0.5, 0.3), std=(0.2, 0.3, 0.25), gain=1.5)


@pytest.fixture(scope="session")
def other_processor():
    """Return the environment of a process that takes itself to be on another processor."""
    pretended = runpy.run_path(str(Path(__file__).parent / "lowest.py"))["pretend"]()
    if os.environ.get("ATEN_CPU_CAPABILITY") == "default":  # all tests run on the lowest
        return {name: value for name, value in os.environ.items() if name not in pretended}
    return os.environ | pretended


@pytest.fixture(scope="session")
def wrap():
    """Return a function that makes a Model of any module."""

    def make(module, canvas_size=24, transform=TRANSFORM):
        names = aliases(module)
        return Model("net", module.eval(), transform, names, "none", "0", (), {}, canvas_size)

    return make


@pytest.fixture(scope="session")
def disturb():
    """Return a function that draws weights which keep the signal, and biases other than zero."""

    def draw(module, seed=0):
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for part in module.modules():
                if isinstance(part, nn.Conv2d | nn.Linear):
                    nn.init.kaiming_normal_(part.weight, generator=generator)
                    if part.bias is not None:
                        part.bias.normal_(0, 0.2, generator=generator)
                elif isinstance(part, nn.BatchNorm2d):
                    part.weight.uniform_(0.5, 1.5, generator=generator)
                    part.bias.normal_(0, 0.2, generator=generator)
                    part.running_mean.normal_(0, 0.2, generator=generator)
                    part.running_var.uniform_(0.5, 1.5, generator=generator)
        return module

    return draw


@pytest.fixture(scope="session")
def model(disturb):
    """A convolutional network of two blocks at 24 px, with biases."""
    arguments = {"channels": "4-6", "canvas": 24, "hidden": 12, "num_classes": 7}
    loaded = load_model("small-cnn", model_args=arguments, transform=TRANSFORM)
    disturb(loaded.module)
    return loaded


@pytest.fixture(scope="session")
def make_objects():
    """Return a function that makes random objects: `per` exemplars of each category."""

    def make(n=5, per=1, size=8, seed=0):
        rng = np.random.default_rng(seed)
        images = rng.integers(0, 256, (n * per, size, size, 3), dtype=np.uint8)
        masks = rng.integers(0, 2, (n * per, size, size), dtype=np.uint8) * 255
        ids = tuple(f"o{i}-{k}" for i in range(n) for k in range(per))
        return ObjectSet(
            "random", images, masks, ids, tuple(name.split("-")[0] for name in ids), {"seed": "0"}
        )

    return make


@pytest.fixture(scope="session")
def make_sweep(model, make_objects):
    """Return a function that makes a small sweep; `network` is the small one by default."""

    def make(
        network=None,
        *,
        n=5,
        per=1,
        grid="3x4",
        reference=None,
        layers="*",
        seed=0,
        objects=None,
        background=(200, 40, 90),
        engine="dense",
    ):
        canvas = Canvas(24, 8, background=background)
        return Sweep(
            network or model,
            objects or make_objects(n, per, seed=seed),
            canvas=canvas,
            grid=Grid.parse(grid, canvas),
            reference=reference,
            layers=layers,
            engine=engine,
        )

    return make


@pytest.fixture(scope="session")
def plain_forwards():
    """Return a function that computes a layer one canvas after the other, without elsewhere.

    It returns float32 arrays: (object, position, ...), (object, ...) at the reference, (...) of
    the empty canvas.
    """

    def outputs(sweep, images):
        transform = sweep.model.transform
        values = (images / 255.0 - transform.mean) / transform.std * transform.gain
        values = torch.from_numpy(values.transpose(0, 3, 1, 2).astype(np.float32))
        found = {layer.name: [] for layer in sweep.layers}
        modules = dict(sweep.model.module.named_modules())
        calls = dict.fromkeys(modules, 0)
        handles = []

        def hook(name):
            def keep(_, __, output):
                for layer in sweep.layers:
                    if layer.module == name and layer.call == calls[name]:
                        tensor = output if layer.output is None else output[layer.output]
                        wide = tensor.float() if tensor.dtype == torch.bfloat16 else tensor
                        found[layer.name].append(wide.clone().numpy())
                calls[name] += 1

            return keep

        for name in {layer.module for layer in sweep.layers}:
            handles.append(modules[name].register_forward_hook(hook(name)))
        with torch.no_grad():
            for image in values:
                calls.update(dict.fromkeys(calls, 0))
                sweep.model.module(image[None])
        for handle in handles:
            handle.remove()
        return {name: np.concatenate(arrays) for name, arrays in found.items()}

    def canvas_with(sweep, number, place):
        size, side = sweep.canvas.size, sweep.canvas.object_size
        image = np.empty((size, size, 3))
        image[:] = sweep.color
        if number is not None:
            alpha = sweep.objects.masks[number][..., None] / 255.0
            patch = sweep.objects.images[number] * alpha + np.array(sweep.color) * (1 - alpha)
            top, left = place[0] - side // 2, place[1] - side // 2
            image[top : top + side, left : left + side] = np.floor(patch + 0.5)
        return image

    def compute(sweep):
        places = [(y, x) for y in sweep.grid.y for x in sweep.grid.x]
        n = len(sweep.objects)
        images = [canvas_with(sweep, o, p) for o in range(n) for p in places]
        images += [canvas_with(sweep, o, sweep.reference) for o in range(n)]
        images.append(canvas_with(sweep, None, None))
        every = outputs(sweep, np.stack(images))
        stop = n * len(places)
        return {
            name: (
                array[:stop].reshape(n, len(places), *array.shape[1:]),
                array[stop:-1],
                array[-1],
            )
            for name, array in every.items()
        }

    return compute


@pytest.fixture(scope="session")
def recorded(make_sweep, tmp_path_factory):
    """A finished recording of all layers: 4 categories of 2, 3 x 4 locations; and its sweep."""
    sweep = make_sweep(n=4, per=2)
    return record(sweep, tmp_path_factory.mktemp("recorded") / "run.h5"), sweep


@pytest.fixture(scope="session")
def hooks_of():
    """Return a function that counts the hooks on a module and all its parts."""

    def count(module):
        kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")
        return sum(len(getattr(part, kind)) for part in module.modules() for kind in kinds)

    return count


@dataclasses.dataclass
class ByTheBook:
    """Similarity by explicit loops over pairs, in double precision.

    Parameters
    ----------
    values, reference
        Shapes (object, position, unit) and (object, unit).
    """

    values: np.ndarray
    reference: np.ndarray
    categories: list
    metric: str = "cosine"
    empty: np.ndarray | None = None
    at: int | None = None
    """The reference's position, left out of means."""

    def __post_init__(self):
        a, r = self.values.astype(np.float64), self.reference.astype(np.float64)
        removed_a, removed_r = a, r
        if self.metric == "evoked":
            removed_a, removed_r = a - self.empty, r - self.empty
        elif self.metric == "centred":
            mean = a.mean(axis=(0, 1))
            removed_a, removed_r = a - mean, r - mean
        elif self.metric == "centred-by-place":
            removed_a, removed_r = a - a.mean(axis=0), r - r.mean(axis=0)
        elif self.metric == "pearson":
            removed_a = a - a.mean(axis=-1, keepdims=True)
            removed_r = r - r.mean(axis=-1, keepdims=True)
        self.a, self.r = removed_a, removed_r

    @staticmethod
    def cosine(u, v):
        length = np.sqrt(np.sum(u * u)) * np.sqrt(np.sum(v * v))
        return float(np.sum(u * v) / length) if length > 0 else 0.0

    def own(self):
        n, n_positions, _ = self.a.shape
        return np.array(
            [[self.cosine(self.a[o, p], self.r[o]) for p in range(n_positions)] for o in range(n)]
        )

    def baseline(self, chosen, *, cross):
        """Return D_cross or D_same over pairs of `chosen` objects, per position."""
        means = []
        for p in range(self.a.shape[1]):
            cosines = [
                self.cosine(self.a[other, p], self.r[o] if cross else self.a[o, p])
                for o, other in itertools.permutations(chosen, 2)
                if self.categories[o] != self.categories[other]
            ]
            means.append(np.mean(cosines) if cosines else np.nan)
        return np.array(means)

    def estimates(self, chosen):
        """Return I, D_cross and G per position, and then over positions, of the chosen alone."""
        chosen = list(chosen)
        if len(chosen) < len(self.values):  # means over objects are those of the chosen ones
            categories = [self.categories[o] for o in chosen]
            fewer = dataclasses.replace(
                self,
                values=self.values[chosen],
                reference=self.reference[chosen],
                categories=categories,
            )
            return fewer.estimates(range(len(chosen)))
        similarity = self.own()[list(chosen)].mean(axis=0)
        cross = self.baseline(chosen, cross=True)
        g = np.array(
            [
                (i - d) / (1 - d) if 1 - d >= 1e-3 and p != self.at else np.nan
                for p, (i, d) in enumerate(zip(similarity, cross, strict=True))
            ]
        )
        away = [p for p in range(len(similarity)) if p != self.at]

        def over(values):
            defined = [values[p] for p in away if np.isfinite(values[p])]
            return np.array(np.mean(defined) if defined else np.nan)

        return {
            "similarity": similarity,
            "baseline_cross": cross,
            "G": g,
            "similarity_away": over(similarity),
            "baseline_cross_away": over(cross),
            "G_away": over(g),
        }

    def left_out(self):
        """Return the objects that are kept without each object, or category of several."""
        names = list(self.categories)
        several = 1 < len(set(names)) < len(names)
        units = names if several else list(range(len(names)))
        return [
            [o for o, unit in enumerate(units) if unit != left] for left in dict.fromkeys(units)
        ]

    def intervals(self):
        """Return delete-one jackknife-t intervals over objects, or over categories."""
        whole = self.estimates(range(len(self.a)))
        parts = [self.estimates(kept) for kept in self.left_out()]
        n = len(parts)
        quantile = stats.t.ppf(0.975, n - 1)
        found = {}
        for name, value in whole.items():
            each = np.stack([part[name] for part in parts])
            error = np.sqrt((n - 1) / n * ((each - each.mean(axis=0)) ** 2).sum(axis=0))
            found[name] = np.stack([value - quantile * error, value + quantile * error], axis=-1)
        return found


@pytest.fixture(scope="session")
def by_the_book():
    return ByTheBook


@pytest.fixture(scope="session")
def contents_of():
    """Return a function that reads every dataset and attribute of a file, as bytes.

    What tells runs apart is left out: the command line and when it was.
    """

    def contents(path, besides=("created", "command")):
        found = {}

        def visit(name, item):
            if isinstance(item, h5py.Dataset):
                values = item[...]
                data = repr(values.tolist()) if values.dtype == object else values.tobytes()
                found[name] = (values.shape, str(values.dtype), data)
            for key, value in item.attrs.items():
                if isinstance(value, str | bytes | np.ndarray) and value is not None:
                    array = np.asarray(value)
                    if array.dtype.kind in "iufSU":
                        found[f"{name}@{key}"] = array.tolist()

        with h5py.File(path) as file:
            file.visititems(visit)
            found |= {
                f"@{key}": np.asarray(value).tolist()
                for key, value in file.attrs.items()
                if key not in besides
            }
        return found

    return contents


@pytest.fixture
def mounted(tmp_path):
    """Return a function that makes a file system of so many bytes, or changes its size."""
    folder = tmp_path / "disk"
    folder.mkdir()
    sizes = []

    def mount(size):
        options = f"size={size}" + (",remount" if sizes else "")
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        try:
            done = subprocess.run(command, capture_output=True, text=True)
        except FileNotFoundError:
            pytest.skip("there is no mount command")
        if done.returncode != 0:
            pytest.skip(f"cannot mount a file system here: {done.stderr.strip()}")
        sizes.append(size)
        return folder

    yield mount
    if sizes:
        subprocess.run(["umount", str(folder)], check=False, capture_output=True)


@pytest.fixture
def on_device(monkeypatch):
    """Let tensors of the CPU take the way of those of a GPU through measures and windows."""
    monkeypatch.setattr("elsewhere.measures.vectors.HOST", ("mps",))
    for module in ("blocks", "engine", "gathering", "operations", "reads"):
        name = f"elsewhere.recording.incremental.{module}.batched"
        monkeypatch.setattr(name, lambda device: True)


class Late(landing.Lane):
    """The latest that a device may copy: when it is waited for."""

    said: ClassVar[list] = []

    def start(self, n):
        self.n = n
        self.said.append("start")

    def wait(self):
        self.said.append("wait")
        return self.there[: self.n].clone()


@pytest.fixture
def late(on_device, monkeypatch):
    """Let what comes from a device be copied as late as can be; return what was said of it."""
    Late.said.clear()
    monkeypatch.setattr(landing, "open_lane", Late)
    return Late.said
