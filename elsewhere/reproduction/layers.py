"""The layers that the claims are about: named by the scale, or found by what the network is."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

from torch import nn

from elsewhere.errors import InputError
from elsewhere.models import Model, list_layers, select_layers
from elsewhere.models.heads import find_head, is_passed_by_all
from elsewhere.models.repetition import unrepeated_note
from elsewhere.protocols import Layer
from elsewhere.reproduction.conditions import Run
from elsewhere.reproduction.scale import ClaimLayers, Scale
from elsewhere.stimuli import Canvas
from elsewhere.training.heads import check_replaceable
from elsewhere.training.initial_network import start_model


@dataclasses.dataclass(frozen=True)
class NamedLayers:
    """The layers that the claims are about, by name; None where the network has none of its own."""

    convolutions: tuple[str, ...]  # all; the last one is the deepest
    pooling: str | None  # the last one, or else the last map
    hidden: str | None  # the last fully connected one, or else what gives the head's input
    missing: Mapping[str, str]  # why there is none, by the name of the field


def name_layers(model: Model, canvas: Canvas, named: ClaimLayers | None = None) -> NamedLayers:
    """Return the names of the layers that the claims are about.

    Those that a scale has `named` are taken; the others are found. The pooling is the last one that
    changes its input's shape, of any kind, or the last map where there is none. The hidden layer is
    the last fully connected one before the head that gives a vector through which all passes that
    the output knows of an image, or else the layer that gives the head's input. Convolutions are
    all ``Conv2d`` and what is derived from it.

    Raises
    ------
    InputError
        The network has no head, or a name stands for several layers.
    UnknownNameError
        A name that fits no layer.

    Examples
    --------
    >>> from elsewhere.models import load_model
    >>> model = load_model("small-cnn", model_args={"channels": "4-8", "canvas": 16})
    >>> found = name_layers(model, Canvas(16, 5))
    >>> found.convolutions, found.pooling, found.hidden
    (('conv1_1', 'conv2_1'), 'pool2', 'fc4')
    """
    model = dataclasses.replace(model, canvas_size=canvas.size)
    named = ClaimLayers() if named is None else named
    layers = list_layers(model, containers=True)
    head, linear = find_head(model)
    leaves = list_layers(model)
    usual = select_layers(leaves, None, model)
    missing: dict[str, str] = {}
    hidden = _one(layers, named.hidden, model) or _find_hidden(model, usual, head, linear)
    if hidden is None:
        missing["hidden"] = (
            f"no hidden layer gives what the head {head} takes ({linear.in_features} values)"
        )
    pooling = _one(layers, named.pooling, model)
    if pooling is None and usual and len(usual[0].shape) > 1:
        pooling = usual[0].name
    if pooling is None:
        missing["pooling"] = "the network has no pooling and no map"
    elif pooling == hidden:
        missing["pooling"] = f"{pooling} is the last pooling and the head's input in one"
        pooling = None
    if named.convolutions:
        found = tuple(layer.name for layer in select_layers(layers, named.convolutions, model))
    else:
        modules = dict(model.module.named_modules())
        found = tuple(each.name for each in leaves if isinstance(modules[each.module], nn.Conv2d))
    if not found:
        missing["convolutions"] = "the network has no convolution"
    return NamedLayers(found, pooling, hidden, missing)


def check_layers(scale: Scale, run: Run) -> None:
    """Refuse a scale whose layers or head cannot be found, before anything is trained.

    `run` is one of the scale's own network, from random weights.

    Raises
    ------
    InputError
        The network has no head that can be replaced, is another one each time it is built, or a
        name stands for several layers.
    UnknownNameError
        The scale names a layer that the network lacks.
    """
    model = start_model(run.curriculum(0))
    if model.unrepeated:
        raise InputError(unrepeated_note(model.name, model.unrepeated))
    check_replaceable(model, *find_head(model))
    name_layers(model, run.canvas, scale.layers)


def _one(layers: tuple[Layer, ...], name: str | None, model: Model) -> str | None:
    """Return the name of the one layer that a scale means."""
    if name is None:
        return None
    found = [layer.name for layer in select_layers(layers, name, model)]
    if len(found) != 1:
        raise InputError(
            f"the scale's layer {name!r} stands for {len(found)} layers ({', '.join(found)}); "
            "expected one: name it with its call, such as relu:1"
        )
    return found[0]


def _find_hidden(
    model: Model, usual: tuple[Layer, ...], head: str, linear: nn.Linear
) -> str | None:
    modules = dict(model.module.named_modules())
    place = max(n for n, layer in enumerate(usual) if layer.module == head)
    calls = [layer.module for layer in usual]
    before = [each for each in reversed(usual[:place]) if calls.count(each.module) == 1]
    connected = [
        each
        for each in before
        if len(each.shape) == 1 and isinstance(modules[each.module], nn.Linear)
    ]
    inputs = [each for each in before if math.prod(each.shape) == linear.in_features]
    for each in (*connected, *inputs):
        if is_passed_by_all(model, each.module):
            return each.name
    return None
