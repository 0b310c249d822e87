"""Other heads on a network that ends in global pooling: where place has weights, or on the scores.

`READOUTS`, `give_readout`, `kept_head`. Invariance can come from the architecture (pooling discards
place), from training, or from the head: the same layers with three heads tell these apart.
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from typing import Any

import torch
from torch import nn

from elsewhere.errors import InputError, UnknownNameError
from elsewhere.models.heads import HEAD, find_head, find_logits, hooked, input_dtype, name_head
from elsewhere.models.model import Model
from elsewhere.models.weights import state_sha256

READOUT = "readout"
"""The argument of networks that chooses one."""

KEPT, NEW = "kept", "new"
READOUTS = ("own", "flatten", "logits")
"""``own``: the network's own head. ``flatten``: a linear layer on the last map as it is, before
global pooling, so that each place has weights of its own. ``logits``: the network's own head is
kept, and a linear layer is put on its scores."""


def give_readout(
    model: Model, kind: str, *, n_classes: int | None = None, canvas: int | None = None, seed: int
) -> Model:
    """Return a network with another head; its module is changed.

    Parameters
    ----------
    model
        Loaded, with its own head.
    kind
        One of `READOUTS`.
    n_classes
        Units of a new head; by default as many as the network's own has.
    canvas
        Side of the canvas, px, on which the size of the last map depends; by default the model's.
    seed
        Draws the new head: normal with variance ``1 / fan_in``, biases zero.

    Raises
    ------
    UnknownNameError
        No such readout.
    InputError
        The network has no head, or, for ``flatten``, no global pooling before it; or ``own`` is
        asked for with another number of classes.

    Examples
    --------
    >>> from elsewhere.models import load_model
    >>> small = load_model("resnet18", model_args={"readout": "flatten", "canvas": 64})
    >>> find_head(small)[1].in_features
    2048
    """
    if kind not in READOUTS:
        raise UnknownNameError(READOUT, str(kind), READOUTS)
    if canvas is not None:
        if not isinstance(canvas, int) or isinstance(canvas, bool) or canvas < 1:
            raise InputError(f"canvas must be an integer above 0; got {canvas!r}")
        model = dataclasses.replace(model, canvas_size=canvas)
    name, head = find_head(model)
    n_units = head.out_features if n_classes is None else n_classes
    if kind == "own":
        return model
    if not isinstance(n_units, int) or isinstance(n_units, bool) or n_units < 1:
        raise InputError(f"num_classes must be an integer above 0; got {n_units!r}")
    network, generator = model.module, torch.Generator().manual_seed(seed)
    if kind == "logits":
        new = _draw(head.out_features, n_units, head, generator)
        network.set_submodule(name, nn.Sequential(OrderedDict([(KEPT, head), (NEW, new)])))
        name = f"{name}.{NEW}"
    else:
        pooling, size = _find_global_pooling(model)
        network.set_submodule(pooling, nn.Flatten(1))
        network.set_submodule(name, _draw(size, n_units, head, generator))
    aliases = {alias: part for alias, part in model.aliases.items() if alias != HEAD}
    found = dataclasses.replace(
        model,
        aliases=aliases,
        weights_sha256=state_sha256(network.state_dict()),
        random_keys=tuple(
            f"{name}.{key}" for key, _ in network.get_submodule(name).named_parameters()
        ),
        classes=(),
    )
    try:
        find_head(found)
    except InputError as error:
        raise InputError(
            f"{model.name} does not take readout = {kind!r} ({error}); expected a network whose "
            "last map goes through global pooling straight to its head"
        ) from error
    return name_head(found)


def kept_head(model: Model) -> str | None:
    """Return the name of the head whose scores a readout of kind ``logits`` takes."""
    name = f"{find_head(model)[0].rpartition('.')[0]}.{KEPT}"
    return name if name in dict(model.module.named_modules()) else None


def _draw(n_in: int, n_out: int, like: nn.Linear, generator: torch.Generator) -> nn.Linear:
    new = nn.Linear(n_in, n_out, device="meta").to_empty(device="cpu").to(like.weight.dtype)
    with torch.no_grad():
        new.weight.normal_(0, n_in**-0.5, generator=generator)
        new.bias.zero_()
    return new.to(like.weight.device).train(like.training)


def _find_global_pooling(model: Model) -> tuple[str, int]:
    """Return the last module that makes one value of each channel's map, and the map's size."""
    found: list[tuple[str, int]] = []

    def listen(name: str) -> Any:
        def hook(_: nn.Module, given: Any, output: Any) -> None:
            if not (given and isinstance(given[0], torch.Tensor) and given[0].ndim == 4):
                return
            maps = given[0]
            pooled = isinstance(output, torch.Tensor) and output.numel() == maps.shape[:2].numel()
            if pooled and maps.shape[2:].numel() > 1:
                found.append((name, maps[0].numel()))

        return hook

    leaves = {n: part for n, part in model.module.named_modules() if not any(part.children())}
    size = (1, 3, model.canvas_size, model.canvas_size)
    with hooked(model, {name: listen(name) for name in leaves}):
        image = torch.zeros(size, device=model.device, dtype=input_dtype(model))
        find_logits(model.module(image), model.name)
    if not found:
        raise InputError(
            f"{model.name} has no module that pools its last map globally, such as "
            "torch.nn.AdaptiveAvgPool2d(1), which readout = 'flatten' would leave out; expected a "
            "network that ends in global pooling and a head, such as resnet18, or readout = 'own'"
        )
    return found[-1]
