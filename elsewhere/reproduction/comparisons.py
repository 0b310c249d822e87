"""Measures of single networks: accuracy, similarity, equivariance, and of two object sets."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import xarray

from elsewhere.analyzer.equivariance import aligned_attributes
from elsewhere.analyzer.similarity import finish, similarity
from elsewhere.errors import InputError
from elsewhere.measures.aligned import AlignedSink, Shift
from elsewhere.measures.similarity_sink import SimilaritySink, dead_layers
from elsewhere.measures.vectors import dot_products, means, squared_norms
from elsewhere.models import Model, list_layers, select_layers
from elsewhere.recording import Sweep
from elsewhere.sources import DEFAULT_MEMORY, restarting
from elsewhere.stimuli import Canvas, Grid, ObjectSet
from elsewhere.training import resolve
from elsewhere.training.curriculum import Choice, Curriculum, Exemplars, Network, Phase, Split
from elsewhere.types import Location

SHIFTS: tuple[Shift, ...] = ("exact", "nearest", "linear")


def load_phase(
    phase: Phase, canvas: Canvas, seed: int, *, held_out: bool, data_dir: Path | None = None
) -> ObjectSet:
    """Return the exemplars that a phase shows or holds out, of classes that the seed gives it."""
    exemplars = phase.exemplars if held_out else Exemplars(phase.exemplars.train, 0)
    if not isinstance(phase.categories, Choice):
        raise InputError(f"phase {phase.name!r} must say which of its set's classes it takes")
    return _render(phase.objects, exemplars, phase.split, phase.categories, canvas, seed, data_dir)


@functools.lru_cache(maxsize=8)  # rendering takes seconds, and several runs of a seed ask
def _render(
    objects: str,
    exemplars: Exemplars,
    split: Split,
    categories: Choice,
    canvas: Canvas,
    seed: int,
    data_dir: Path | None,
) -> ObjectSet:
    phase = Phase(
        "shown", objects, categories=categories, exemplars=exemplars, split=split, steps=1
    )
    curriculum = Curriculum("shown", Network("none"), canvas, (phase,), seed=seed)
    found = resolve(curriculum, data_dir=data_dir)[0]
    return found.train if found.held_out is None else found.held_out


def compare_layers(
    model: Model,
    objects: ObjectSet,
    canvas: Canvas,
    grid: Grid,
    reference: Location,
    *,
    also: Sequence[str] = (),
) -> xarray.Dataset:
    """Return the plain cosines of the last pooling, of all layers after it, and of those named."""
    layers = None
    if also:
        usual = select_layers(list_layers(model, canvas.size), None, model)
        layers = [*(layer.name for layer in usual), *also]
    sweep = Sweep(model, objects, canvas=canvas, grid=grid, reference=reference, layers=layers)
    return similarity(sweep)


def phase_grid(canvas: Canvas, stride: int) -> Grid:
    """Return places off the border at every phase of a stride, and the edges of the canvas.

    Off the border, an object and one cell around it lie on the canvas. A step that shares no
    factor with the stride meets each of its phases.

    Examples
    --------
    >>> phase_grid(Canvas(48, 11), 8)
    Grid(y=(5, 13, 16, 19, 22, 25, 28, 31, 34, 42), x=(5, 13, 16, 19, 22, 25, 28, 31, 34, 42))
    """
    edges = (canvas.valid[0], canvas.valid[-1])
    inner = range(edges[0] + stride, edges[1] - stride + 1)
    widest = max(1, (len(inner) - 1) // max(1, stride - 1))
    step = next(n for n in range(widest, 0, -1) if math.gcd(n, stride) == 1)
    values = tuple(sorted({*edges, *inner[::step]}))
    return Grid(values, values)


@dataclasses.dataclass(frozen=True)
class MovedMaps:
    """Feature maps of a layer at many places: as they are, and moved back with the object."""

    plain: xarray.Dataset  # similarity of evoked maps
    aligned: Mapping[Shift, xarray.Dataset]  # the same after alignment, by the kind of shift
    stride: int  # of the layer, px

    def gain(self, shift: Shift, where: Literal["inner", "border"]) -> float:
        """Return aligned G less plain G, the mean over places; the reference is left out.

        ``inner`` places are at least a cell away from where an object would touch the canvas's
        edge. NaN where dead units decide: more than 5 % of the maps are zero.
        """
        if dead_layers(self.plain):
            return float("nan")
        gain = (self.aligned[shift]["aligned_G"] - self.plain["evoked_G"]).isel(layer=0)
        values = gain.transpose("y", "x").values
        y, x = np.meshgrid(gain["y"].values, gain["x"].values, indexing="ij")
        inner = np.ones(values.shape, bool)
        for axis in (y, x):
            inner &= np.minimum(axis - axis.min(), axis.max() - axis) >= self.stride
        reference = (self.plain.attrs["reference_y"], self.plain.attrs["reference_x"])
        chosen = values[
            (inner if where == "inner" else ~inner) & ((y != reference[0]) | (x != reference[1]))
        ]
        chosen = chosen[np.isfinite(chosen)]
        return float(chosen.mean()) if len(chosen) else float("nan")


def compare_maps(
    model: Model, objects: ObjectSet, canvas: Canvas, *, layer: str
) -> MovedMaps | None:
    """Return evoked and aligned cosines of a feature map, from the centre, at all phases.

    None where the cells of the map have no known place on the canvas.
    """
    layers = list_layers(model, canvas.size, containers=True)
    stride = next(each.stride for each in layers if each.name == layer)
    if stride is None:
        return None
    sweep = Sweep(
        model,
        objects,
        canvas=canvas,
        grid=phase_grid(canvas, stride),
        reference=canvas.centre,
        layers=[layer],
    )
    return _moved(sweep, layer, stride)


@restarting
def _moved(sweep: Sweep, layer: str, stride: int) -> MovedMaps:
    plain = SimilaritySink(metric="evoked")
    sinks: dict[Shift, AlignedSink] = {
        shift: AlignedSink(object_size=sweep.canvas.object_size, shift=shift) for shift in SHIFTS
    }
    sweep.stream([plain, *sinks.values()], max_memory=DEFAULT_MEMORY)
    aligned = {
        shift: sink.result([layer]).assign_attrs(aligned_attributes(sweep, shift))
        for shift, sink in sinks.items()
    }
    return MovedMaps(finish(plain.result([layer]), sweep, metric="evoked"), aligned, stride)


def largest_correlation(first: ObjectSet, second: ObjectSet) -> float:
    """Return the largest Pearson correlation between pixels of two sets' objects, on black.

    Examples
    --------
    >>> from elsewhere.stimuli import load_objects
    >>> glyphs = load_objects("glyphs", size=11, categories=2)
    >>> round(largest_correlation(glyphs, glyphs), 6)
    1.0
    """
    ours, theirs = _standardised(first), _standardised(second)
    some = (slice(start, start + 512) for start in range(0, len(ours), 512))
    return float(max(dot_products(ours[rows], theirs).max() for rows in some))


def _standardised(objects: ObjectSet) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    pixels = objects.patches((0, 0, 0)).mean(-1).reshape(len(objects), -1).astype(np.float32)
    pixels -= means(pixels)[:, None].astype(np.float32)
    norms = np.sqrt(squared_norms(pixels))[:, None].astype(np.float32)
    standard: np.ndarray[tuple[int, int], np.dtype[np.float32]] = pixels / np.where(
        norms > 0, norms, 1.0
    )
    return standard
