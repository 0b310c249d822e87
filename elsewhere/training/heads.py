"""The head of a network: the layer that makes its logits, finding it and replacing it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from elsewhere.errors import ElsewhereError, InputError
from elsewhere.models import Model, output_tensors, state_sha256
from elsewhere.models.proof import alike, undisturbed
from elsewhere.training.seeds import make_generator


def find_head(model: Model) -> tuple[str, nn.Linear]:
    """Return the name and the module of a network's head: the linear layer that makes its output.

    One forward pass tells, on an empty canvas of the model's size: the head's output is the
    network's, or all that the network's output knows of an image comes through it (as where a
    softmax follows).

    Raises
    ------
    InputError
        There is no such layer, or the network cannot process the canvas.

    Examples
    --------
    >>> from elsewhere.models import load_model
    >>> find_head(load_model("small-cnn", model_args={"channels": "4-8", "canvas": 16}))[0]
    'classifier.6'
    """
    network, ran = model.module, list[tuple[str, nn.Linear, torch.Tensor]]()
    linear = {name: part for name, part in network.named_modules() if isinstance(part, nn.Linear)}
    images = _two_images(model)

    def listen(name: str) -> Any:
        return lambda part, given, output: ran.append((name, part, output))

    with hooked(network, {name: listen(name) for name in linear}):
        result = find_logits(network(images[:1]), model.name)
    candidates = [(name, part) for name, part, output in ran if _same_values(output, result)]
    if not candidates:
        candidates = [
            (name, part)
            for name, part, output in ran
            if output.shape == result.shape and _is_bottleneck(model, name, output, images)
        ]
    if not candidates:
        raise InputError(
            f"{model.name} has no linear layer that makes its output, and so no head; expected a "
            "network that ends in torch.nn.Linear"
        )
    return candidates[-1]


def with_head_named(model: Model) -> Model:
    """Return the model with the alias ``logits`` on its head, where it had it on another layer.

    Raises
    ------
    InputError
        There is no head.
    """
    head = find_head(model)[0]
    named = {a: head if a == "logits" else module for a, module in model.aliases.items()}
    return dataclasses.replace(model, aliases=named)


@contextmanager
def hooked(network: nn.Module, hooks: Mapping[str, Any]) -> Iterator[None]:
    """While active, the network is in evaluation mode and calls the hooks of its parts.

    Raises
    ------
    InputError
        Whatever else is raised meanwhile: the network cannot process its canvas.
    """
    with undisturbed(network), torch.no_grad():
        network.eval()
        handles = [
            network.get_submodule(name).register_forward_hook(hook) for name, hook in hooks.items()
        ]
        try:
            yield
        except ElsewhereError:
            raise
        except Exception as error:  # any network, any complaint
            reason = " ".join(str(error).split())[:160] or type(error).__name__
            raise InputError(
                f"the network cannot process its canvas ({reason}); expected one that takes "
                "images of that size; choose another canvas or other arguments"
            ) from error
        finally:
            for handle in handles:
                handle.remove()


def _same_values(output: torch.Tensor, result: torch.Tensor) -> bool:
    """Return whether two tensors are one, or views of one."""
    return output is result or (
        output.numel() == result.numel() and output.data_ptr() == result.data_ptr()
    )


def is_passed_by_all(model: Model, name: str) -> bool:
    """Return whether all that the network's output knows of an image comes through one layer.

    Parameters
    ----------
    model
        The network; two random images of its canvas tell.
    name
        The name of a module that runs once in a pass and gives one tensor.

    Examples
    --------
    >>> from elsewhere.models import load_model
    >>> is_passed_by_all(load_model("small-cnn", model_args={"canvas": 16}), "classifier.0")
    True
    """
    images = _two_images(model)
    outputs: list[Any] = []
    with hooked(model.module, {name: lambda _, given, output: outputs.append(output)}):
        model.module(images[:1])
    if len(outputs) != 1 or not isinstance(outputs[0], torch.Tensor):
        return False
    return _is_bottleneck(model, name, outputs[0], images)


def _two_images(model: Model) -> torch.Tensor:
    size = (2, 3, model.canvas_size, model.canvas_size)
    return torch.rand(size, generator=make_generator(0)).to(model.device, input_dtype(model))


def _is_bottleneck(model: Model, name: str, output: torch.Tensor, images: torch.Tensor) -> bool:
    """Return whether the network's output depends on the image by one layer's output only."""
    found = []
    # no constant: a softmax would not see it
    other = output + torch.arange(output.numel(), device=output.device).view_as(output)
    for image, values in zip(
        (*images, images[0]), (output, output, other.to(output.dtype)), strict=True
    ):
        with hooked(model.module, {name: lambda *_, v=values: v}):
            found.append(find_logits(model.module(image[None]), model.name))
    return torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


@torch.no_grad()
def order_units(model: Model, order: Sequence[int]) -> None:
    """Put the units of a plain head in another order, in place: `order` are their old numbers."""
    name, head = find_head(model)
    check_replaceable(model, name, head)
    for values in (head.weight, head.bias):
        if values is not None:
            values.copy_(values[list(order)].clone())


def check_replaceable(model: Model, name: str, head: nn.Linear) -> None:
    """Refuse a head whose units cannot be exchanged, or that a new linear layer cannot stand for.

    Raises
    ------
    InputError
        It is a subclass, is parametrised, or has hooks; or what follows it knows its units apart.
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


def _follows_units(model: Model, name: str) -> bool:
    """Return whether exchanging the head's units exchanges the network's outputs alike."""
    images = torch.rand(
        (2, 3, model.canvas_size, model.canvas_size), generator=make_generator(1)
    ).to(model.device, input_dtype(model))
    made: list[torch.Tensor] = []
    with hooked(model.module, {name: lambda _, given, output: made.append(output)}):
        plain = find_logits(model.module(images), model.name)
    order = torch.randperm(made[-1].shape[-1], generator=make_generator(2)).to(model.device)
    if torch.equal(order, order.sort().values):
        order = order.flip(0)
    with hooked(model.module, {name: lambda _, given, output: output[..., order]}):
        exchanged = find_logits(model.module(images), model.name)
    return alike(exchanged, plain[..., order])


def find_logits(output: Any, name: str) -> torch.Tensor:
    """Return the one tensor that a network gives.

    Raises
    ------
    InputError
        It gives none or several.
    """
    tensors = output_tensors(output)
    if len(tensors) != 1:
        kinds = ", ".join(str(tuple(value.shape)) for value in tensors.values()) or "none"
        raise InputError(
            f"{name} gives {len(tensors)} tensors ({kinds}); expected one, (image, class): wrap it "
            "in a factory whose network returns the logits alone"
        )
    return next(iter(tensors.values()))


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
    check_replaceable(model, name, old)
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
    logits = find_logits(output, name)
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
