"""The figures of the paper, from what a reproduction left: for print, without torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import xarray
from matplotlib.figure import Figure

from elsewhere.errors import InputError
from elsewhere.figures import plot_accuracy_maps, plot_layerwise_change
from elsewhere.figures.drawing import draw_page
from elsewhere.figures.page import read_length
from elsewhere.figures.results import select_layers
from elsewhere.figures.style import figure_of
from elsewhere.storage import load_result

CONDITIONS = {"vanilla": "vanilla", "fixed-learning": "fixed", "acquired": "acquired"}
"""Runs whose accuracy maps stand side by side, and what they are called."""

CHANGES = {
    ("vanilla", "acquired"): ("vanilla", "acquired"),
    ("random-logits", "pretrained-logits"): ("random weights", "ImageNet weights"),
}
"""Runs whose layers are compared, before and after, and what they are called."""


def draw_paper(
    directory: str | Path,
    *,
    seed: int | None = None,
    layers: Sequence[str] | None = None,
    **page: Any,
) -> Figure:
    """Draw the paper's figures as the panels of one.

    Above are maps of accuracy, a row for each set of objects that was learnt and a column for each
    condition, for the same exemplars elsewhere; below is the similarity of each layer before and
    after, for objects that neither network has seen.

    Parameters
    ----------
    directory
        What `elsewhere reproduce --out` filled.
    seed
        Whose results; by default the first seed's, as titles say. Seeds differ in the trained
        location, so that maps have no mean.
    layers
        Of the similarity; all by default.
    page
        ``width``, ``height``, ``font_size``, ``title`` and ``style``, as for
        :func:`elsewhere.figures.draw`.

    Returns
    -------
    A figure that pyplot does not know of.

    Raises
    ------
    InputError
        The directory holds no such results, or a page on which something would be cut off.
    """
    folder, number = _folder_of_seed(Path(directory), seed)
    maps = _accuracies(folder, number)
    changes = _changes(folder, number, layers)
    if not maps and not changes:
        raise InputError(
            f"{folder} holds neither maps of accuracy nor similarities; let `elsewhere reproduce` "
            "finish, or name another seed"
        )
    runs = len({each.attrs["run"] for each in maps.values()})
    columns = runs if runs <= 4 else -(-runs // 2)
    # as in the paper, the exemplars of the training
    above = [[lambda: plot_accuracy_maps(maps, exemplars="same", columns=columns)]] if maps else []

    def drawn(number: int) -> Callable[[], Figure]:
        before, after, labels = changes[number]
        return lambda: figure_of(plot_layerwise_change(before, after, labels=labels))

    below = [drawn(number) for number in range(len(changes))]
    width = read_length("width", page.get("width"))
    wide = 1 if width is not None and width < 4.7 else 2
    rows = [below[start : start + wide] for start in range(0, len(below), wide)]
    return draw_page([*above, *rows], **page)


def _folder_of_seed(directory: Path, seed: int | None) -> tuple[Path, int]:
    """Return the folder of a seed that has results, and its number."""
    found = {
        int(path.parent.name)
        for path in (directory / "seeds").glob("*/*.nc")
        if path.parent.name.isdecimal()
    }
    if not found:
        raise InputError(
            f"{directory} holds no results of a reproduction (seeds/SEED/*.nc); expected a "
            "directory that `elsewhere reproduce --out` filled"
        )
    number = min(found) if seed is None else seed
    if number not in found:
        raise InputError(
            f"{directory} holds no results of seed {number}; it has: "
            f"{', '.join(map(str, sorted(found)))}"
        )
    return directory / "seeds" / str(number), number


def _accuracies(folder: Path, seed: int) -> dict[str, xarray.Dataset]:
    """Return the maps by condition and set, those of a set together; the sets that all have."""
    files = {path.name.removesuffix("-accuracy.nc"): path for path in folder.glob("*-accuracy.nc")}
    found: dict[str, dict[str, xarray.Dataset]] = {}
    for path in files.values():
        each = load_result(path).assign_attrs(shown_at=f"seed {seed}")
        found.setdefault(str(each.attrs["run"]), {})[str(each.attrs["phase"])] = each
    names = (
        CONDITIONS
        if CONDITIONS.keys() & found
        else {run: run.replace("-", ", ") for run in sorted(found)}
    )
    shown = {label: found[run] for run, label in names.items() if run in found}
    phases = [
        phase
        for phase in next(iter(shown.values()), {})
        if all(phase in each for each in shown.values())
    ]
    several = len(phases) > 1
    return {
        f"{label}, {phase}" if several else label: shown[label][phase]
        for phase in sorted(phases)
        for label in shown
    }


def _changes(
    folder: Path, seed: int, layers: Sequence[str] | None
) -> list[tuple[xarray.Dataset, xarray.Dataset, tuple[str, str]]]:
    """Return similarities before and after, with what the two are called."""
    found = []
    for (first, second), labels in CHANGES.items():
        for path in sorted(folder.glob(f"{second}-*-similarity.nc")):
            objects = path.name.removeprefix(f"{second}-").removesuffix("-similarity.nc")
            other = folder / f"{first}-{objects}-similarity.nc"
            if not other.exists():
                continue
            shown_at = f"new objects, {objects} · seed {seed}"
            pair = [load_result(each).assign_attrs(shown_at=shown_at) for each in (other, path)]
            for each in pair:  # which the title above and the labels say
                for name in ("model", "model_arguments", "weights", "n_objects"):
                    each.attrs.pop(name, None)
            if layers is not None:
                pair = [each.isel(layer=select_layers(each, layers)) for each in pair]
            found.append((pair[0], pair[1], labels))
    return found
