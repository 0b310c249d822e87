"""What a method of attribution can work with: targets, sizes, layers, networks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from elsewhere.analyzer.attribution.batches import Method
from elsewhere.analyzer.attribution.copies import PlainNetwork
from elsewhere.analyzer.attribution.targets import (
    ClassTarget,
    SimilarityTarget,
    Target,
    find_layer,
)
from elsewhere.errors import InputError
from elsewhere.measures.blocks import without_layout
from elsewhere.models import Conduct, Layer, Model, list_layers, output_tensors, untouched
from elsewhere.models.forward import computing


def check_target(method: Method, name: str, target: Target) -> None:
    """Refuse a target for which the method called `name` has no rule."""
    bent = isinstance(target, SimilarityTarget) or (
        isinstance(target, ClassTarget) and target.quantity == "probability"
    )
    if method.linear_target and bent:
        raise InputError(
            f"{name} sends relevance back through layers and has no rule for the target "
            f"{target.name}; take a logit, or a method that needs gradients only, such "
            "as integrated-gradients"
        )


def check_sizes(name: str, options: Mapping[str, Any], canvas_size: int, object_size: int) -> None:
    """Refuse windows that are larger than the canvas."""
    for key in ("window", "cell"):
        if options.get(key, 0) > canvas_size:
            raise InputError(
                f"option {key!r} of {name} is {options[key]}, more than the canvas "
                f"has px ({canvas_size}); the object has {object_size}"
            )


def find_map_layer(
    method: Method, name: str, layer_name: str | None, model: Model, canvas_size: int
) -> Layer | None:
    """Return the layer that a method works on, None where it works on pixels.

    Raises
    ------
    InputError
        None is named where one is needed, or the other way round; or it gives no map of the canvas.
    """
    if not method.needs_layer:
        if layer_name is not None:
            raise InputError(
                f"{name} attributes to pixels and takes no layer; leave --layer {layer_name} out"
            )
        return None
    every = list_layers(model, canvas_size, containers=True)
    maps = [layer for layer in every if layer.is_map and layer.stride is not None]
    convolutions = [layer.name for layer in maps if layer.kind.startswith("Conv")]
    known = ", ".join(convolutions[-3:]) or "none in this network"
    if layer_name is None:
        raise InputError(
            f"{name} needs a layer and none was given; name a convolutional one with "
            f"--layer (the last ones: {known})"
        )
    layer = find_layer(layer_name, model, canvas_size)
    if not layer.layout:
        raise InputError(without_layout(layer_name, layer.shape, "Grad-CAM"))
    if not layer.is_map or layer.stride is None:
        raise InputError(
            f"{name} needs a convolutional layer, whose output is a map of the canvas; "
            f"{layer_name!r} is a {layer.kind} that gives {'x'.join(map(str, layer.shape))}; take "
            f"one of the last ones: {known}"
        )
    return layer


def check_copy(network: PlainNetwork, model: Model, conduct: Conduct, canvas_size: int) -> None:
    """Refuse to work on a copy that does not do what the network does."""
    shape = (1 if conduct.alone else 2, 3, canvas_size, canvas_size)
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(shape, generator=generator).to(model.device)
    with untouched(model.module), torch.no_grad(), computing(model.device):
        with conduct.a_pass(model.module.eval()):
            expected = output_tensors(model.module(images.clone()))
        found = output_tensors(network(images))
    for key, tensor in expected.items():
        if not torch.allclose(found[key], tensor, rtol=1e-5, atol=1e-6, equal_nan=True):
            raise InputError(
                f"{model.name} cannot be copied: the copy's output differs; it keeps "
                "something outside its modules that its output depends on"
            )
