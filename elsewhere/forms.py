"""What layers and networks are called wherever their numbers are shown.

A mean over space or a sketch of a layer is not the layer: a result has the form of each in the
coordinate ``kept (layer)``, and tables, axes and legends name layers by :func:`layer_labels`.
A factory may make many networks, with weights of its own: see :func:`network_name`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePath, PureWindowsPath
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:  # which needs NumPy, and help texts do not
    from elsewhere.protocols import Layer

FULL = "full"
MEAN = "mean"
Result = TypeVar("Result")


def layer_forms(result: Any) -> list[str]:
    """Return what a result is of, layer by layer: ``full``, ``mean`` or ``sketch:K``.

    Parameters
    ----------
    result
        An ``xarray.Dataset`` with the coordinate ``layer``; ``kept``, or in files of earlier
        versions ``measure`` (``cosine(mean)``), says the form, which is ``full`` where neither
        does.
    """
    names = result.coords["layer"].values.reshape(-1)
    if "kept" in result.coords:
        return [str(form) for form in result.coords["kept"].values.reshape(-1)]
    if "measure" in result.coords and "measure" not in result.dims:
        measured = map(str, result.coords["measure"].values.reshape(-1))
        found = [re.search(r"\((mean|sketch:\d+)\)$", text) for text in measured]
        return [match.group(1) if match else FULL for match in found]
    return [FULL] * len(names)


def layer_labels(result: Any) -> list[str]:
    """Return how the layers of a result are named where its numbers are shown.

    Examples
    --------
    >>> import xarray
    >>> kept = ("layer", ["mean", "sketch:64", "full"])
    >>> layers = {"layer": ["conv5_3", "fc6", "fc7"], "kept": kept}
    >>> layer_labels(xarray.Dataset(coords=layers))
    ['conv5_3 (mean)', 'fc6 (sketch:64)', 'fc7']
    """
    names = map(str, result.coords["layer"].values.reshape(-1))
    return [label(name, form) for name, form in zip(names, layer_forms(result), strict=True)]


def label(name: str, form: str) -> str:
    """Return a layer's name, with its form where that is another than ``full``."""
    return name if form == FULL else f"{name} ({form})"


def with_forms(result: Result, layers: Sequence[Layer]) -> Result:
    """Return a result whose coordinate ``kept`` says what each of its `layers` is kept as.

    Where layers are beside the main branch, that coordinate's attribute ``shortcuts`` names them;
    where layers are called otherwise than their modules, ``modules`` holds these by name, as JSON.
    """
    forms = {layer.name: layer.form for layer in layers}
    found: Any = result
    kept = [forms[str(name)] for name in found.coords["layer"].values]
    said: dict[str, Any] = {
        "long_name": "what was kept of the layer: full activations, means over space, sketches"
    }
    if names := shortcuts(layers):
        said["shortcuts"] = names
    if modules := {each.name: each.module for each in layers if each.module not in ("", each.name)}:
        said["modules"] = json.dumps(modules)
    labelled: Result = found.assign_coords(kept=("layer", kept, said))
    return labelled


def shortcuts(layers: Sequence[Layer]) -> list[str]:
    """Return the names of those of `layers`, in the order in which they run, that are shortcuts.

    Layers of a network that was followed say it themselves. Else: a cell never sees less than what
    it is computed from. A layer with a smaller receptive field than one that ran before is
    therefore not computed from that one, but beside it; so is the shortcut of a residual block that
    runs after the branch it passes by.
    """
    if any(layer.beside is not None for layer in layers):
        return [layer.name for layer in layers if layer.beside]
    found, widest = [], 0
    for layer in layers:
        if layer.receptive_field is not None and layer.receptive_field < widest:
            found.append(layer.name)
        widest = max(widest, layer.receptive_field or 0)
    return found


def beside_main(result: Any) -> list[int]:
    """Return the places of a result's layers that are beside the main branch, as it says.

    Examples
    --------
    >>> import xarray
    >>> kept = ("layer", ["full"] * 3, {"shortcuts": ["down"]})
    >>> beside_main(xarray.Dataset(coords={"layer": ["conv1", "conv2", "down"], "kept": kept}))
    [2]
    """
    said = result["kept"].attrs.get("shortcuts", []) if "kept" in result.coords else []
    known = [said] if isinstance(said, str) else list(map(str, said))
    names = result.coords["layer"].values.reshape(-1)
    return [place for place, name in enumerate(names) if str(name) in known]


def mean_note(result: Any) -> list[str]:
    """Return what has to be said of layers of which means over space were kept; often nothing."""
    if MEAN not in (forms := layer_forms(result)):
        return []
    names = [name for name, form in zip(layer_labels(result), forms, strict=True) if form == MEAN]
    return [
        f"{', '.join(names)}: a mean over space hardly changes when the object moves, so such a "
        "layer looks invariant by construction; keep it in full to tell whether it is"
    ]


def near(name: str) -> str:
    """Return a file, or what is named in it, as it can stand in a text: without the way to it.

    A relative name stays; of an absolute one what lies below the working directory, or else the
    name of the file, is left.

    Examples
    --------
    >>> near("/home/anna/nets/own.py:Net"), near("nets/own.py:Net"), near("vgg16")
    ('own.py:Net', 'nets/own.py:Net', 'vgg16')
    """
    path = PurePath(name)
    if not (path.is_absolute() or PureWindowsPath(name).is_absolute() or name.startswith("~")):
        return name
    here = Path.cwd()
    if path.is_relative_to(here) and path != here:
        return str(path.relative_to(here))
    return PureWindowsPath(name).name if "\\" in name else path.name


_ASKED = ("model_name", "model", "name", "arch", "architecture", "variant")
"""Arguments of factories that say which network they make."""


def network_name(facts: Mapping[str, Any]) -> str:
    """Return what a network is called: of a factory of many, the one that it was asked for.

    A network of timm has one name, whether it was asked for by name or of ``timm:create_model``.

    Parameters
    ----------
    facts
        Attributes of a result or a recording: ``model``, ``model_arguments``.

    Examples
    --------
    >>> network_name({"model": "timm:create_model", "model_arguments": {"model_name": "resnet10t"}})
    'timm:resnet10t'
    >>> network_name({"model": "own:make", "model_arguments": {"name": "small"}})
    'small (own)'
    >>> network_name({"model": "vgg16"}), network_name({"model": "own:make"})
    ('vgg16', 'own:make')
    """
    model, arguments = str(facts.get("model", "")), _arguments(facts)
    asked = [arguments[key] for key in _ASKED if isinstance(arguments.get(key), str)]
    if ":" not in model or not asked:
        return near(model)
    if model == "timm:create_model":
        return f"timm:{asked[0]}"
    return f"{asked[0]} ({near(model.rpartition(':')[0])})"


def weights_name(facts: Mapping[str, Any]) -> str:
    """Return what weights are called; those of a factory's network are its own, not none.

    Examples
    --------
    >>> weights_name({"model": "vgg16", "weights": "none"}), weights_name({"model": "vgg16"})
    ('none', '')
    >>> weights_name({"model": "own:make", "weights": "none"})
    'as its factory makes them'
    >>> asked = {"model_name": "resnet10t", "pretrained": True}
    >>> weights_name({"model": "timm:create_model", "weights": "none", "model_arguments": asked})
    'pretrained=True'
    """
    weights = str(facts.get("weights") or "")
    if weights != "none" or ":" not in str(facts.get("model", "")):
        return weights
    said = {key: value for key, value in _arguments(facts).items() if _LOADS.search(key) and value}
    return ", ".join(f"{key}={value}" for key, value in said.items()) or "as its factory makes them"


_LOADS = re.compile("pretrained|weights|checkpoint", re.IGNORECASE)


def _arguments(facts: Mapping[str, Any]) -> Mapping[str, Any]:
    found = facts.get("model_arguments")
    return found if isinstance(found, Mapping) else {}


def matching(pattern: str, names: Sequence[tuple[str, str]]) -> list[int]:
    """Return which layers a pattern means, by their places in `names`.

    Parameters
    ----------
    pattern
        A glob (``relu*``, ``blocks.?``, ``blocks.[0-3]``), or ``depth:2`` for modules of two parts,
        as ``blocks.3``. Brackets belong to the name of an output (``lstm[0]``) where there is one.
    names
        Each layer's name and its module's.

    Examples
    --------
    >>> names = [(name, name) for name in ("stem", "blocks.0", "blocks.1", "blocks.1.fc")]
    >>> matching("blocks.[1-9]", names), matching("blocks.*", names), matching("depth:1", names)
    ([2], [1, 2, 3], [0])
    """
    if depth := re.fullmatch(r"depth:([0-9]+)", pattern):
        parts = int(depth[1])
        return [
            n for n, (_, module) in enumerate(names) if module and len(module.split(".")) == parts
        ]
    for form in (pattern.replace("[", "[[]"), pattern):
        found = [
            n
            for n, (name, module) in enumerate(names)
            if any(
                fnmatchcase(each, form)
                for each in (name, module, re.sub(r":\d+(?=\[|$)", "", name))
            )
        ]
        if found:
            return found
    return []
