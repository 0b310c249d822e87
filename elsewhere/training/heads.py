"""The head of a network: exchanging its units and replacing it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from elsewhere.errors import InputError
from elsewhere.models import Model, state_sha256
from elsewhere.models.heads import find_head, find_logits, hooked, input_dtype
from elsewhere.models.proof import alike
from elsewhere.training.seeds import make_generator


@torch.no_grad()
def order_units(model: Model, order: Sequence[int]) -> None:
    """Put the units of a plain head in another order, in place: `order` are their old numbers."""
    name, head = find_head(model)
    check_replaceable(model, name, head)
    for values in (head.weight, head.bias):
        if values is not None:
            values.copy_(values[list(order)].clone())


def check_replaceable(
    model: Model, name: str, head: nn.Linear, n_classes: int | None = None
) -> None:
    """Refuse a head whose units cannot be exchanged, or that a new linear layer cannot stand for.

    Raises
    ------
    InputError
        It is a subclass, is parametrised, or has hooks; or what follows it knows its units apart,
        or takes another number of them than the `n_classes` of a new head.
    """
    if type(head) is not nn.Linear or head._forward_pre_hooks or head._forward_hooks:
        raise InputError(
            f"the head of {model.name}, {name}, is a {type(head).__name__} with more to it than "
            "its weights (a subclass, a parametrisation, hooks); expected a plain torch.nn.Linear, "
            "as a new head would be; choose as many classes as it has, and new_head = false"
        )
    if not _follows_units(model, name):
        raise InputError(
            f"what follows the head of {model.name}, {name}, knows its units apart (weights, "
            "statistics or an order of their own), so that they cannot be exchanged, nor a new "
            "head be put before it; expected that the head's units are the network's classes: keep "
            "the classes and their order, and new_head = false"
        )
    if n_classes not in (None, head.out_features) and not _takes_units(model, name, n_classes):
        raise InputError(
            f"what follows the head of {model.name}, {name}, takes its {head.out_features} units "
            f"and no other number; got {n_classes} classes for a new head: choose "
            f"{head.out_features} classes, or a network that ends in its head"
        )


def _follows_units(model: Model, name: str) -> bool:
    """Return whether exchanging the head's units exchanges the network's outputs alike."""
    images = torch.rand(
        (2, 3, model.canvas_size, model.canvas_size), generator=make_generator(1)
    ).to(model.device, input_dtype(model))
    made: list[torch.Tensor] = []
    with hooked(model, {name: lambda _, given, output: made.append(output)}):
        plain = find_logits(model.module(images), model.name)
    order = torch.randperm(made[-1].shape[-1], generator=make_generator(2)).to(model.device)
    if torch.equal(order, order.sort().values):
        order = order.flip(0)
    with hooked(model, {name: lambda _, given, output: output[..., order]}):
        exchanged = find_logits(model.module(images), model.name)
    return alike(exchanged, plain[..., order])


def replace_head(model: Model, n_classes: int, *, seed: int) -> Model:
    """Replace a network's head by a new one, in place.

    Its weights are normal with variance ``1 / fan_in``, its biases zero.

    Parameters
    ----------
    model
        What gets the new head; its module is changed.
    n_classes
        Number of the head's units.
    seed
        Draws the weights.

    Returns
    -------
    Model
        The same module under a new checksum.

    Raises
    ------
    InputError
        There is no head, or one that is more than a linear layer.

    Examples
    --------
    >>> from elsewhere.models import load_model
    >>> model = load_model("small-cnn", model_args={"channels": "4-8", "canvas": 16})
    >>> find_head(replace_head(model, 7, seed=0))[1].out_features
    7
    """
    if n_classes < 1:
        raise InputError(f"a head needs 1 class or more; got {n_classes}")
    name, old = find_head(model)
    check_replaceable(model, name, old, n_classes)
    new = nn.Linear(old.in_features, n_classes, bias=old.bias is not None, device="meta")
    new = new.to_empty(device="cpu").to(old.weight.dtype)
    with torch.no_grad():
        new.weight.normal_(0, old.in_features**-0.5, generator=make_generator(seed))
        if new.bias is not None:
            new.bias.zero_()
    model.module.set_submodule(name, new.to(old.weight.device).train(old.training))
    arguments = dict(model.arguments)
    if "num_classes" in arguments:
        arguments["num_classes"] = n_classes
    return dataclasses.replace(
        model, arguments=arguments, weights_sha256=state_sha256(model.module.state_dict())
    )


def _takes_units(model: Model, name: str, count: int | None) -> bool:
    """Return whether the network gives one value for each of so many units of its head."""
    size = (1, 3, model.canvas_size, model.canvas_size)
    images = torch.zeros(size, device=model.device, dtype=input_dtype(model))
    try:
        with hooked(
            model, {name: lambda _, given, output: output.new_ones(*output.shape[:-1], count)}
        ):
            return find_logits(model.module(images), model.name).shape[-1] == count
    except InputError:
        return False


def check_logits(output: Any, n_classes: int, name: str) -> torch.Tensor:
    """Return the logits in what a network gives, (image, class).

    Raises
    ------
    InputError
        It gives several tensors, or not one value for each class.
    """
    logits = find_logits(output, name)
    if logits.ndim != 2 or logits.shape[1] != n_classes:
        shown = "x".join(str(length) for length in logits.shape[1:])
        raise InputError(
            f"{name} gives {shown} values per image for {n_classes} classes; expected one for "
            "each: name the classes of the head"
        )
    return logits
