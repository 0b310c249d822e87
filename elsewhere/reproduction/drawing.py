"""All figures of a reproduction, from the results that its runs left."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import xarray
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from elsewhere.analyzer.track_summary import join_seeds
from elsewhere.errors import StorageError
from elsewhere.figures import (
    plot_accuracy_displacement,
    plot_accuracy_maps,
    plot_acquisition,
    plot_claims,
    plot_interference,
    plot_layerwise_change,
    save_figure,
)
from elsewhere.reproduction.conditions import FULL, HEADED, PRETRAINED, RANDOM
from elsewhere.reproduction.paper import CONDITIONS
from elsewhere.reproduction.scale import Scale
from elsewhere.storage import load_result
from elsewhere.storage.files import make_inside


def draw_figures(
    scale: Scale, folders: Sequence[Path], out: Path, claims: xarray.Dataset
) -> list[Path]:
    """Draw every figure anew from what the runs left in the seeds' folders; return the files."""
    make_inside(out.parent, out.name)
    drawn: list[Path] = []

    def save(name: str, made: Figure | Axes) -> None:
        figure = made if isinstance(made, Figure) else made.get_figure(root=True)
        if figure is None:
            raise StorageError(f"the figure {name} was not drawn")
        drawn.append(save_figure(figure, out / f"{name}.svg", overwrite=True))

    def track(run: str) -> xarray.Dataset:
        return join_seeds([load_result(folder / f"{run}-track.nc") for folder in folders])

    save("claims", plot_claims(claims.isel(claim=np.flatnonzero(claims["counts"].values))))
    save("claims-all", plot_claims(claims))
    if scale.question == "imagenet":
        _draw_heads(scale, folders[0], save)
        return drawn
    for phase in scale.learning:
        maps = {
            label: load_result(folders[0] / f"{run}-{phase.name}-accuracy.nc")
            for run, label in CONDITIONS.items()
        }
        for exemplars in ("same", "held-out"):
            figure = plot_accuracy_maps(maps, exemplars=exemplars)
            save(f"accuracy-maps-{phase.name}-{exemplars}", figure)
        save(f"accuracy-displacement-{phase.name}", plot_accuracy_displacement(maps))
    save("acquisition", plot_acquisition(track(FULL), exemplars="held-out", quantities=("on", "G")))
    pairs: tuple[tuple[str, str | None, str], ...] = (
        ("interference", "translated", "interference"),
        ("near", None, "further training on objects like those of the pretraining"),
    )
    for name, control, subject in pairs:
        beside = None if control is None else track(control)
        save(name, plot_interference(track(name), beside, exemplars="same", subject=subject))
    for phase in scale.unseen:
        before, after = (
            load_result(folders[0] / f"{run}-{phase.name}-similarity.nc")
            for run in ("vanilla", "acquired")
        )
        change = plot_layerwise_change(before, after, labels=("vanilla", "acquired"))
        save(f"layerwise-{phase.name}", change)
    return drawn


def _draw_heads(scale: Scale, folder: Path, save: Callable[[str, Figure | Axes], None]) -> None:
    """Draw what one seed left of the three heads, and of the layers below them."""
    runs = {name: name.replace("-", ", ") for name in HEADED}
    for phase in scale.learning:
        maps = {
            label: _of_system(scale, load_result(folder / f"{run}-{phase.name}-accuracy.nc"))
            for run, label in runs.items()
        }
        for exemplars in ("same", "held-out"):
            figure = plot_accuracy_maps(maps, exemplars=exemplars)
            save(f"accuracy-maps-{phase.name}-{exemplars}", figure)
        save(f"accuracy-displacement-{phase.name}", plot_accuracy_displacement(maps))
    for phase in scale.unseen:
        random, pretrained = (
            _of_system(scale, load_result(folder / f"{start}-logits-{phase.name}-similarity.nc"))
            for start in (RANDOM, PRETRAINED)
        )
        labels = ("random weights", "ImageNet weights")
        save(f"layerwise-{phase.name}", plot_layerwise_change(random, pretrained, labels=labels))


def _of_system(scale: Scale, result: xarray.Dataset) -> xarray.Dataset:
    """Return a result that names the system of the scale, which titles then do."""
    return result.assign_attrs(model=scale.system)
