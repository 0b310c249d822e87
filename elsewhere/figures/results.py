"""Reading what a figure needs from a finished result, and saying clearly what is missing."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TypeVar

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from elsewhere.errors import InputError, UnknownNameError
from elsewhere.forms import matching, network_name, weights_name
from elsewhere.types import stem_of

T = TypeVar("T")

DEAD_SHARE = 0.05
"""Above this share of zero vectors a layer is flagged: its similarity says nothing."""


@dataclass(frozen=True)
class MeasuredCanvas:
    """The canvas a result was measured on, in px; ``y, x`` is the reference.

    ``shown_size`` is the object's side at the scale that is drawn.
    """

    canvas: int
    object_size: int
    y: int
    x: int
    shown_size: int


def require(result: object, names: Iterable[str], dims: Sequence[str]) -> xr.Dataset:
    """Return `result`, checked to hold the variables `names` over exactly `dims`.

    Raises
    ------
    InputError
        Not a dataset, a variable that is missing, or one with other dimensions.
    """
    if not isinstance(result, xr.Dataset):
        raise InputError(
            f"expected a result as an xarray.Dataset, got {type(result).__name__}; "
            "open the file with xarray.open_dataset"
        )
    for name in names:
        if name not in result.data_vars:
            held = ", ".join(sorted(map(str, result.data_vars))) or "no variables"
            raise InputError(
                f"the result has no variable {name!r}, which this figure draws; it holds: {held}; "
                "draw another kind or quantity, or compute the result again"
            )
        if set(result[name].dims) != set(dims):
            raise InputError(
                f"the variable {name!r} runs over ({', '.join(map(str, result[name].dims))}); "
                f"expected ({', '.join(dims)})"
            )
    for dim in dims:
        if dim not in result.coords:
            raise InputError(
                f"the result has no coordinate {dim!r}; expected one value for each entry of "
                f"the dimension, such as the names of layers or locations in px"
            )
    return result


def some(table: Mapping[str, T], quantities: Sequence[str] | None) -> dict[str, T]:
    """Return the entries of `table` that are asked for, in that order; all for None."""
    if quantities is None:
        return dict(table)
    wanted = [quantities] if isinstance(quantities, str) else list(dict.fromkeys(quantities))
    if not wanted:
        raise InputError(f"no quantities to draw; expected some of {', '.join(table)}")
    for name in wanted:
        if name not in table:
            raise UnknownNameError("quantity", str(name), table)
    return {name: table[name] for name in wanted}


def scene_of(result: xr.Dataset) -> MeasuredCanvas:
    """Return the canvas, object size and reference that `result` names in its attributes."""
    values = []
    for name in ("canvas", "object_size", "reference_y", "reference_x"):
        if name not in result.attrs:
            held = ", ".join(sorted(map(str, result.attrs))) or "none"
            raise InputError(
                f"the result has no attribute {name!r} (px), which places it on the canvas; "
                f"it has: {held}"
            )
        try:
            values.append(int(result.attrs[name]))
        except (TypeError, ValueError) as error:
            raise InputError(
                f"the attribute {name!r} is {result.attrs[name]!r}; expected a number of px"
            ) from error
    canvas, size, y, x = values
    return MeasuredCanvas(canvas, size, y, x, int(result.attrs.get("shown_size", size)))


def layer_names(result: xr.Dataset) -> list[str]:
    """Return the names of the layers, in the order of the result (that of the network)."""
    names = [str(name) for name in result["layer"].values]
    if not names:
        raise InputError("the result holds no layer; record or measure at least one")
    return names


def select_layers(result: xr.Dataset, layers: Sequence[str] | None) -> list[int]:
    """Return the indices of `layers` in `result`, of all of them for None.

    Layers are named as the result names them, by their modules, or by patterns of either.
    """
    known = layer_names(result)
    if layers is None:
        return list(range(len(known)))
    wanted = [layers] if isinstance(layers, str) else list(layers)
    if not wanted:
        raise InputError("no layers to draw: the list is empty; name one, or leave it out for all")
    said = result["kept"].attrs.get("modules", {}) if "kept" in result.coords else {}
    modules = json.loads(said) if isinstance(said, str) else said
    both = [(name, modules.get(name, name)) for name in known]
    found: dict[int, None] = {}
    for name in wanted:
        meant = [known.index(name)] if name in known else matching(name, both)
        if not meant:
            raise UnknownNameError("layer", name, known)
        found |= dict.fromkeys(meant)
    return list(found)


def variable_of(result: object, quantity: str, where: str = "") -> str:
    """Return what a quantity of a similarity result is called: ``cosine_G_away`` of ``G``.

    Parameters
    ----------
    result
        Its attribute ``metric`` is what variables begin with.
    quantity
        ``similarity``, ``baseline``, ``baseline_same`` or ``G``.
    where
        ``_away`` for the mean over all locations but the reference.
    """
    stem = stem_of(result.attrs if isinstance(result, xr.Dataset) else {})
    return f"{stem}{'' if quantity == 'similarity' else f'_{quantity}'}{where}"


def is_dead(result: xr.Dataset) -> NDArray[np.bool_]:
    """Return which layers, bool (layer,), gave zero vectors more often than is fair to compare."""
    key = f"{stem_of(result.attrs)}_zero_share"
    if key not in result.data_vars:
        return np.zeros(result.sizes["layer"], dtype=bool)
    shares: NDArray[np.float64] = np.asarray(result[key].values, dtype=np.float64)
    return np.greater(shares, DEAD_SHARE)


def cell_edges(centres: NDArray[np.floating], canvas: int, width: float) -> NDArray[np.float64]:
    """Return the borders of the cells around ascending locations, halfway between neighbours.

    Parameters
    ----------
    centres
        (n,), px, ascending.
    canvas
        Side of the canvas, px; no cell reaches beyond it.
    width
        The cell's width where there is one location only, px.

    Returns
    -------
    (n + 1,), float64, px, ascending.

    Examples
    --------
    >>> cell_edges(np.array([10.0, 20.0, 40.0]), 100, 5)
    array([ 5., 15., 30., 50.])
    """
    centres = centres.astype(np.float64)
    if len(centres) == 1:
        edges: NDArray[np.float64] = np.array([centres[0] - width / 2, centres[0] + width / 2])
    else:
        middle = (centres[1:] + centres[:-1]) / 2
        first, last = 2 * centres[0] - middle[0], 2 * centres[-1] - middle[-1]
        edges = np.concatenate([[first], middle, [last]])
    return np.minimum(np.maximum(edges, 0.0), float(canvas))


def describe(result: xr.Dataset, what: str) -> str:
    """Return a title: `what`, then model, weights and number of objects, as far as known.

    Examples
    --------
    >>> describe(xr.Dataset(attrs={"model": "vgg16", "n_objects": 50}), "cosine")
    'cosine · vgg16 · 50 objects'
    """
    parts = [what]
    n_checkpoints = result.sizes.get("checkpoint", 0)
    if n_checkpoints > 1 and "curriculum" in result.attrs:
        run = f"run {result.attrs['curriculum']!r}, {n_checkpoints} checkpoints"
        parts.append(f"{network_name(result.attrs)} ({run})".strip())
    elif model := network_name(result.attrs):
        weights = weights_name(result.attrs)
        parts.append(f"{model} (weights: {weights})" if weights else model)
    count = result.attrs.get("n_objects")
    if count is not None:
        parts.append(f"{count} object" if int(count) == 1 else f"{count} objects")
    if "shown_at" in result.attrs:
        parts.append(str(result.attrs["shown_at"]))
    return " · ".join(parts)


def layer_groups(names: Sequence[str]) -> list[tuple[str, int, int]]:
    """Return runs of layers that belong together, as (group, first, last) indices.

    Aliases are grouped by block (``conv1_2``, ``relu1_2`` and ``pool1`` are ``conv1``), and so is
    everything from ``fc6`` on (``fc``); module names by their first part that says something. A
    group whose name begins the name of none of its layers has none (``""``).

    Examples
    --------
    >>> layer_groups(["conv1_1", "relu1_1", "pool1", "conv2_1", "avgpool", "fc6", "relu6"])
    [('conv1', 0, 2), ('conv2', 3, 3), ('avgpool', 4, 4), ('fc', 5, 6)]
    >>> layer_groups(["layer1.0.conv1", "layer1.1.conv1", "layer2.0.conv1"])
    [('layer1', 0, 1), ('layer2', 2, 2)]
    >>> layer_groups(["relu5_3", "pool5", "head.norm", "head.fc", "logits"])
    [('', 0, 1), ('head', 2, 3), ('logits', 4, 4)]
    """
    groups: list[str] = []
    for name in names:
        block = re.fullmatch(r"(?:conv|relu|bn|norm|pool)(\d+)(?:_\w+)?", name)
        parts = [part for part in name.split(".") if part]
        after = bool(groups) and groups[-1] == "fc" and len(parts) == 1
        if after or re.fullmatch(r"fc\d*", parts[0] if parts else name):
            groups.append("fc")
        elif block:
            groups.append(f"conv{block.group(1)}")
        elif len(parts) > 1 and parts[0] == "features" and not parts[1].isdigit():
            groups.append(parts[1])
        else:
            groups.append(parts[0] if parts else name)
    runs = []
    for group, members in groupby(range(len(groups)), key=groups.__getitem__):
        indices = list(members)
        shared = any(names[index].startswith(group) for index in indices)
        runs.append((group if shared else "", indices[0], indices[-1]))
    return runs
