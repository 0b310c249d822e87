"""The last layer of a network: finding it and replacing it."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import nn

from elsewhere.errors import InputError
from elsewhere.models import Model, output_tensors, state_sha256
from elsewhere.training.seeds import make_generator


def find_head(model: Model) -> tuple[str, nn.Linear]:
    """Return the name and the module of a network's last linear layer.

    Raises
    ------
    InputError
        It has none.

    Examples
    --------
    >>> from elsewhere.models import load_model
    >>> find_head(load_model("small-cnn", model_args={"channels": "4-8", "canvas": 16}))[0]
    'classifier.6'
    """
    linear = {
        name: part for name, part in model.module.named_modules() if isinstance(part, nn.Linear)
    }
    name = model.aliases.get("logits", next(reversed(linear), ""))
    if name not in linear:
        raise InputError(
            f"{model.name} has no linear layer that could be its head; expected a network that "
            "ends in torch.nn.Linear"
        )
    return name, linear[name]


def replace_head(model: Model, n_classes: int, *, seed: int) -> Model:
    """Replace a network's last linear layer by a new one, in place.

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


def check_logits(output: Any, n_classes: int, name: str) -> torch.Tensor:
    """Return the logits in what a network gives, (image, class).

    Raises
    ------
    InputError
        It gives several tensors, or not one value for each class.
    """
    tensors = output_tensors(output)
    if len(tensors) != 1:
        kinds = ", ".join(str(tuple(value.shape)) for value in tensors.values()) or "none"
        raise InputError(
            f"{name} gives {len(tensors)} tensors ({kinds}); expected one, (image, class): wrap it "
            "in a factory whose network returns the logits alone"
        )
    logits = next(iter(tensors.values()))
    if logits.ndim != 2 or logits.shape[1] != n_classes:
        shown = "x".join(str(length) for length in logits.shape[1:])
        raise InputError(
            f"{name} gives {shown} values per image for {n_classes} classes; expected one for "
            "each: name the classes of the head"
        )
    return logits


def input_dtype(model: Model) -> torch.dtype:
    """Return what a network computes in: the type of its first weights.

    Raises
    ------
    InputError
        Neither single nor double precision.
    """
    kinds = [value.dtype for value in model.module.parameters() if value.is_floating_point()]
    kind = kinds[0] if kinds else torch.float32
    if kind not in (torch.float32, torch.float64):
        raise InputError(
            f"{model.name} has weights of {kind}; expected float32 or float64: convert it in its "
            "factory, network.float()"
        )
    return kind
