"""The head of a network: the linear layer that makes its output, found by running the network.

`find_head`, `name_head`, `is_passed_by_all`, `hooked`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from elsewhere.errors import ElsewhereError, InputError
from elsewhere.models.expected import refusal
from elsewhere.models.model import Model
from elsewhere.models.outputs import output_tensors
from elsewhere.models.restoring import seeded, untouched

HEAD = "logits"
"""The alias of the head."""

NO_HEAD = "no linear layer makes the network's output, so that none is called logits"


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

    with hooked(model, {name: listen(name) for name in linear}):
        result = find_logits(network(images[:1]), model.name)
    # a layer that gives several things, as those that leave their bias to the next, is none
    ran = [each for each in ran if isinstance(each[2], torch.Tensor)]
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
    """Return the model with the alias ``logits`` on its head; a module that has that name itself
    keeps it.

    Raises
    ------
    InputError
        There is no head.
    """
    head = find_head(model)[0]
    if HEAD in dict(model.module.named_modules()):
        return model
    return replace(model, aliases={**model.aliases, HEAD: head})


def name_head(model: Model, canvas_size: int | None = None) -> Model:
    """Return the model with the alias ``logits`` on its head; without, where it has no head.

    An alias that is there is taken to be right. `canvas_size` is the side of a canvas that the
    network takes, px; its own by default.
    """
    if HEAD in model.aliases:
        return model
    shown = model if canvas_size is None else replace(model, canvas_size=canvas_size)
    try:
        return replace(model, aliases=with_head_named(shown).aliases)
    except InputError:
        return model


@contextmanager
def hooked(model: Model, hooks: Mapping[str, Any]) -> Iterator[None]:
    """While active, a network is in evaluation mode and calls the hooks of its parts.

    It is given copies of its images, which it may change in place, and then given back as it was
    found.

    Raises
    ------
    InputError
        Whatever else is raised meanwhile: the network cannot process its canvas.
    """
    network = model.module
    try:
        with untouched(network, hooks=True), seeded(0, network), torch.no_grad():
            network.eval()
            handles = [
                network.get_submodule(name).register_forward_hook(hook)
                for name, hook in hooks.items()
            ]
            handles.append(network.register_forward_pre_hook(_copied))
            try:
                yield
            finally:
                for handle in handles:
                    handle.remove()
    except ElsewhereError:
        raise
    except Exception as error:  # any network, any complaint
        raise refusal(model, model.canvas_size, error) from error


def _copied(_: nn.Module, given: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    return tuple(value.clone() for value in given)


def _same_values(output: torch.Tensor, result: torch.Tensor) -> bool:
    """Return whether two tensors are one, or views of one."""
    return output is result or (
        output.numel() == result.numel() and output.data_ptr() == result.data_ptr()
    )


def is_passed_by_all(model: Model, name: str) -> bool:
    """Return whether all that the network's output knows of an image comes through one layer.

    Two random images of its canvas tell. `name` is that of a module that runs once in a pass and
    gives one tensor.

    Examples
    --------
    >>> from elsewhere.models import load_model
    >>> is_passed_by_all(load_model("small-cnn", model_args={"canvas": 16}), "classifier.0")
    True
    """
    images = _two_images(model)
    outputs: list[Any] = []
    with hooked(model, {name: lambda _, given, output: outputs.append(output)}):
        model.module(images[:1])
    if len(outputs) != 1 or not isinstance(outputs[0], torch.Tensor):
        return False
    return _is_bottleneck(model, name, outputs[0], images)


def _two_images(model: Model) -> torch.Tensor:
    size = (2, 3, model.canvas_size, model.canvas_size)
    return torch.rand(size, generator=torch.Generator().manual_seed(0)).to(
        model.device, input_dtype(model)
    )


def _is_bottleneck(model: Model, name: str, output: torch.Tensor, images: torch.Tensor) -> bool:
    """Return whether the network's output depends on the image by one layer's output only."""
    found = []
    # no constant: a softmax would not see it
    other = output + torch.arange(output.numel(), device=output.device).view_as(output)
    for image, values in zip(
        (*images, images[0]), (output, output, other.to(output.dtype)), strict=True
    ):
        with hooked(model, {name: lambda *_, v=values: v}):
            found.append(find_logits(model.module(image[None]), model.name))
    return torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


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
