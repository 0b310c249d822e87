"""Measures of single networks: accuracy, similarity, equivariance, and of two object sets."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray

from elsewhere.analyzer.equivariance import AlignedSink, aligned_attributes
from elsewhere.analyzer.similarity import SimilaritySink, finish, similarity
from elsewhere.errors import InputError
from elsewhere.models import Model, list_layers
from elsewhere.recording import Sweep
from elsewhere.stimuli import Canvas, Grid, ObjectSet
from elsewhere.storage.recording import DEFAULT_MEMORY
from elsewhere.training import Card, accuracy, load_checkpoint, resolve
from elsewhere.training.curriculum import Choice, Curriculum, Exemplars, Network, Phase, Split
from elsewhere.types import Location

N_RESAMPLES = 200


@dataclasses.dataclass(frozen=True)
class NamedLayers:
    """The layers that the claims are about.

    Parameters
    ----------
    convolutions
        Names of all convolutions.
    pooling
        The last max pooling.
    hidden
        The last hidden fully connected layer.
    """

    convolutions: tuple[str, ...]
    pooling: str
    hidden: str


def name_layers(model: Model, canvas: Canvas) -> NamedLayers:
    """Return the names of the layers that the claims are about."""
    layers = list_layers(model, canvas.size)
    by_kind = {
        kind: tuple(layer.name for layer in layers if layer.kind == kind)
        for kind in ("Conv2d", "MaxPool2d", "Linear")
    }
    return NamedLayers(by_kind["Conv2d"], by_kind["MaxPool2d"][-1], by_kind["Linear"][-2])


def trained_location(environment: str, canvas: Canvas) -> Location:
    """Return the location that invariance is measured from: also for objects shown everywhere."""
    return canvas.centre if environment == "centre" else (canvas.centre[0], canvas.valid[0])


def measure_accuracy(
    card: Card,
    *,
    grid: Grid,
    trained: Location,
    per_category: int,
    device: str,
    data_dir: Path | None,
) -> xarray.Dataset:
    """Return the accuracy of a checkpoint over the grid, same and held-out exemplars apart."""
    objects, held_out = card.test_objects(per_category=per_category, data_dir=data_dir)
    return accuracy(
        load_checkpoint(card).to(device),
        objects,
        card.canvas,
        grid,
        trained=(trained,),
        held_out=held_out,
        classes=card.categories,
        n_resamples=N_RESAMPLES,
        attributes={"seed": card.seed, "phase": card.phase, "step": card.step},
    )


def load_shown(
    phase: Phase, canvas: Canvas, seed: int, *, data_dir: Path | None = None
) -> ObjectSet:
    """Return the exemplars that a phase shows, of the classes that the seed gives it."""
    if not isinstance(phase.categories, Choice):
        raise InputError(f"phase {phase.name!r} must say which of its set's classes it takes")
    shown, choice = (phase.objects, phase.exemplars.train, phase.split), phase.categories
    return _load_shown(*shown, choice, canvas, seed, data_dir)


@functools.lru_cache(maxsize=8)  # rendering takes seconds, and several runs of a seed ask
def _load_shown(
    objects: str,
    count: int,
    split: Split,
    categories: Choice,
    canvas: Canvas,
    seed: int,
    data_dir: Path | None,
) -> ObjectSet:
    phase = Phase(
        "shown",
        objects,
        categories=categories,
        exemplars=Exemplars(count, 0),
        split=split,
        steps=1,
    )
    curriculum = Curriculum("shown", Network("none"), canvas, (phase,), seed=seed)
    return resolve(curriculum, data_dir=data_dir)[0].train


def compare_layers(
    model: Model, objects: ObjectSet, canvas: Canvas, grid: Grid, reference: Location
) -> xarray.Dataset:
    """Return the plain cosines of the last pooling and all layers after it."""
    sweep = Sweep(model, objects, canvas=canvas, grid=grid, reference=reference)
    return similarity(sweep)


def exact_grid(canvas: Canvas, reference: Location, stride: int) -> Grid:
    """Return the places at multiples of `stride` from the reference.

    Examples
    --------
    >>> exact_grid(Canvas(48, 11), (24, 5), 8)
    Grid(y=(8, 16, 24, 32, 40), x=(5, 13, 21, 29, 37))
    """
    y, x = (
        tuple(value for value in canvas.valid if (value - centre) % stride == 0)
        for centre in reference
    )
    return Grid(y, x)


def compare_maps(
    model: Model,
    objects: ObjectSet,
    canvas: Canvas,
    reference: Location,
    *,
    layers: Sequence[str],
    stride: int,
) -> tuple[xarray.Dataset, xarray.Dataset]:
    """Return evoked and aligned cosines of feature maps, at the same places."""
    grid = exact_grid(canvas, reference, stride)
    sweep = Sweep(
        model, objects, canvas=canvas, grid=grid, reference=reference, layers=list(layers)
    )
    plain = SimilaritySink(metric="evoked")
    aligned = AlignedSink(object_size=canvas.object_size)
    sweep.stream([plain, aligned], max_memory=DEFAULT_MEMORY)
    moved = aligned.result(list(layers))
    moved.attrs = aligned_attributes(sweep, "exact")
    return finish(plain.result(list(layers)), sweep, metric="evoked"), moved


def equivariance_gain(plain: xarray.Dataset, aligned: xarray.Dataset) -> float:
    """Return aligned G less plain G, the mean over layers and over places that both know.

    The reference itself is left out.
    """
    gain = (aligned["aligned_G"] - plain["G"]).transpose("layer", "y", "x")
    there = (plain["y"] == plain.attrs["reference_y"]) & (plain["x"] == plain.attrs["reference_x"])
    per_layer = gain.where(~there).mean(("y", "x"))
    return float(per_layer.mean()) if bool(np.isfinite(per_layer).any()) else float("nan")


def largest_correlation(first: ObjectSet, second: ObjectSet, *, rows: int = 512) -> float:
    """Return the largest Pearson correlation between pixels of two sets' objects.

    Parameters
    ----------
    first, second
        Of the same size; they are shown on black.
    rows
        Objects of `first` that are compared at a time.

    Examples
    --------
    >>> from elsewhere.stimuli import load_objects
    >>> glyphs = load_objects("glyphs", size=11, categories=2)
    >>> round(largest_correlation(glyphs, glyphs), 6)
    1.0
    """
    ours, theirs = _standardised(first), _standardised(second)
    parts = (ours[start : start + rows] @ theirs.T for start in range(0, len(ours), rows))
    return float(max(part.max() for part in parts))


def _standardised(objects: ObjectSet) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    pixels = objects.patches((0, 0, 0)).mean(-1).reshape(len(objects), -1).astype(np.float32)
    pixels -= pixels.mean(1, keepdims=True)
    norms = np.linalg.norm(pixels, axis=1, keepdims=True)
    standard: np.ndarray[tuple[int, int], np.dtype[np.float32]] = pixels / np.where(
        norms > 0, norms, 1.0
    )
    return standard
