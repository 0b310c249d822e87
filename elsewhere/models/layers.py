"""What can be recorded of a network: its layers, call by call, with shape and geometry.

`Layer`, `list_layers`.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from elsewhere.errors import ElsewhereError, InputError
from elsewhere.models.expected import refusal
from elsewhere.models.fields import FieldMode, Plane, Trail
from elsewhere.models.heads import name_head
from elsewhere.models.layouts import FoundLayout, probe_layouts
from elsewhere.models.loading import as_model
from elsewhere.models.model import Model
from elsewhere.models.names import OUTPUT
from elsewhere.models.outputs import is_container, output_tensors
from elsewhere.models.restoring import seeded, untouched
from elsewhere.models.taps import Taps
from elsewhere.models.tokens import find_tokens, token_rules
from elsewhere.protocols import LAYOUTS, Layer, Layout


def list_layers(
    model: Model | nn.Module,
    canvas_size: int | None = None,
    *,
    containers: bool = False,
    output: bool = False,
) -> tuple[Layer, ...]:
    """Return the layers of `model` in the order in which one forward pass runs them.

    The network runs on an empty canvas, and on probes that tell layouts, in evaluation mode and
    without gradients; its modes are restored, and no hook stays behind. Modules that never run are
    not listed, nor those that give the same one row for any number of images, as the tables of
    relative places of Swin v2 do: these hold no activation of an image.

    Parameters
    ----------
    model
        The network, loaded or in memory.
    canvas_size
        Side of the canvas, px; the model's own by default.
    containers
        Whether modules made of others (``layer4``, ``features``) are listed too, each after its
        parts.
    output
        Whether the network's own output, ``(output)``, is listed in the end.

    Raises
    ------
    InputError
        The network cannot process a canvas of this size.

    Examples
    --------
    >>> from elsewhere.models.loading import load_model
    >>> model = load_model("small-cnn", model_args={"channels": "4-8", "canvas": 16})
    >>> [(layer.name, layer.shape, layer.stride) for layer in list_layers(model)][2:5]
    [('pool1', (4, 8, 8), 2), ('conv2_1', (8, 8, 8), 2), ('relu2_1', (8, 8, 8), 2)]
    """
    model = as_model(model)
    size = model.canvas_size if canvas_size is None else canvas_size
    if size < 1:
        raise InputError(f"the canvas must have a side of at least 1 px; got {size}")
    pixels = torch.zeros(1, size, size, 3, dtype=torch.uint8, device=model.device)
    # The fields are kept on tensors, which hands them from the mode to the hooks.
    fields, found, ways = FieldMode(), list[Layer](), list[Trail | None]()
    parts = {
        name: part
        for name, part in model.module.named_modules()
        if (output if not name else containers or not is_container(part))
    }

    last: list[tuple[str, object]] = [("", None)]  # the module that gave something last, and what

    def describe(name: str, call: int, first: Any, given: object) -> None:
        before, same = last[0]
        repeats = before if before.startswith(f"{name}.") and same is given else ""
        last[0] = name, given
        leaf = not is_container(parts[name])
        weights = leaf and any(part.ndim > 1 for part in parts[name].parameters())
        for key, tensor in output_tensors(given).items():
            # An image's activation needs a row per image, and one canvas was given.
            if tensor.is_floating_point() and tensor.ndim >= 2 and tensor.shape[0] == 1:
                kind = type(parts[name]).__name__
                layer = _describe(name, call, kind, key, first, tensor, fields)
                found.append(replace(layer, repeats=repeats))
                way = fields.call(tensor, weights=weights) if leaf else fields.find_way(tensor)
                ways.append(way)

    with untouched(model.module), seeded(None, model.module):
        model.module.eval()
        with Taps(model.module, parts, describe):
            given = _dry_run(model, pixels, fields)
        layers = _with_ways(found, ways, given, fields)
        listed = _probed(model, size, _of_images(model, pixels, layers), given)
    calls = Counter({layer.module: layer.call for layer in listed})
    alias_of = {module: alias for alias, module in name_head(model, size).aliases.items()}
    return tuple(_named(layer, alias_of, several=calls[layer.module] > 0) for layer in listed)


def _with_ways(
    layers: Sequence[Layer], ways: Sequence[Trail | None], given: object, fields: FieldMode
) -> Sequence[Layer]:
    """Return layers that say whether they lie on the longest way to what the network gave."""
    ends = [way for each in output_tensors(given).values() if (way := fields.find_way(each))]
    longest = max(ends, key=lambda way: way.length, default=None)
    if longest is None:
        return layers
    main = longest.all()
    return [
        replace(layer, beside=None if way is None else way not in main)
        for layer, way in zip(layers, ways, strict=True)
    ]


def _of_images(model: Model, pixels: torch.Tensor, layers: Sequence[Layer]) -> Sequence[Layer]:
    """Return layers without those that give one row for two images too.

    Only layers to which no way from the pixels is known are asked.
    """
    asked = {layer.module for layer in layers if layer.beside is None}
    if not asked:
        return layers
    rows: dict[tuple[str, int, int | str | None], Sequence[int]] = {}

    def count(name: str, call: int, first: Any, given: object) -> None:
        rows.update(
            ((name, call, key), tensor.shape[:1]) for key, tensor in output_tensors(given).items()
        )

    two = model.transform.apply(pixels.expand(2, -1, -1, -1))
    with Taps(model.module, asked, count), torch.inference_mode(), suppress(Exception):
        model.module(two)  # any network, any complaint
    return [
        layer
        for layer in layers
        if layer.beside is not None or rows.get((layer.module, layer.call, layer.output)) != (1,)
    ]


def _dry_run(model: Model, pixels: torch.Tensor, fields: FieldMode) -> object:
    size = pixels.shape[1]
    values = model.transform.apply(pixels)
    try:
        with torch.inference_mode(), fields:
            fields.start(values)
            return model.module(values)
    except ElsewhereError:
        raise
    except Exception as error:  # any network, any complaint
        raise refusal(model, size, error) from error


def _describe(
    name: str,
    call: int,
    kind: str,
    key: int | str | None,
    given: Any,
    tensor: torch.Tensor,
    fields: FieldMode,
) -> Layer:
    field = fields.find(tensor) if tensor.ndim == 4 else None
    first = given if isinstance(given, torch.Tensor) else None
    if first is not None and fields.find_plane(tensor) is None and first.shape == tensor.shape:
        fields.take_plane(tensor, first)
    return Layer(
        name=name,
        module=name,
        call=call,
        kind=kind,
        shape=tuple(tensor.shape[1:]),
        stride=field.stride if field else None,
        offset=field.offset if field else None,
        receptive_field=field.size if field else None,
        layout=_layout(fields.find_plane(tensor), tensor.ndim - 1),
        output=key,
        input_shape=None if first is None else tuple(first.shape[1:]),
    )


_kept: WeakKeyDictionary[nn.Module, tuple[object, dict[Layer, Layer]]] = WeakKeyDictionary()
"""What probes said of a network's layers, and what the network was then: a command lists them again
and again, and each time would cost about ten passes."""


def _probed(model: Model, size: int, layers: Sequence[Layer], given: object) -> list[Layer]:
    """Return layers with their layouts, from what probes said of the same network before."""
    now = _state(model, size, given)
    then, known = _kept.get(model.module, (None, {}))
    if now is not None and now == then and all(layer in known for layer in layers):
        return [known[layer] for layer in layers]
    found = _with_layouts(model, size, layers)
    if now is not None:
        _kept[model.module] = now, dict(zip(layers, found, strict=True))
    return found


def _state(model: Model, size: int, given: object) -> object:
    """Return what decides what probes find: weights by their versions, what an empty canvas gave,
    and the rules of tokens.

    None where torch keeps no versions of the weights.
    """
    try:
        weights = [
            (value.data_ptr(), value._version)
            for value in (*model.module.parameters(), *model.module.buffers())
        ]
    except RuntimeError:
        return None
    outputs = [
        hashlib.sha256(tensor.detach().float().cpu().numpy().tobytes()).hexdigest()
        for tensor in output_tensors(given).values()
    ]
    rules = [(name, token_rules.get(name)) for name in token_rules]
    return size, model.transform, weights, outputs, rules


def _with_layouts(model: Model, size: int, layers: Sequence[Layer]) -> list[Layer]:
    """Return layers with the layouts of their maps, those without a field checked by a probe.

    So are tokens by features, which some networks have the other way round.

    Where what depends on the whole canvas hides the receptive fields, as attention does, the cells
    of a map whose answer moves as the probe does tile the canvas.
    """
    open_ = {
        (layer.module, layer.call, layer.output): layer
        for layer in layers
        if len(layer.shape) in (2, 3) and layer.receptive_field is None
    }
    shapes = {place: layer.shape for place, layer in open_.items()}
    expected = {place: layer.layout for place, layer in open_.items()}
    found = probe_layouts(model, size, shapes, expected) if open_ else {}
    listed = []
    for layer in layers:
        seen: FoundLayout | None = found.get((layer.module, layer.call, layer.output))
        if seen is not None:
            layer = replace(layer, layout=seen.layout)
        if seen is not None and seen.stride is not None:
            layer = replace(layer, stride=seen.stride, offset=(seen.stride - 1) / 2)
        listed.append(layer)
    return _with_tokens(model, size, listed)


def _with_tokens(model: Model, size: int, layers: list[Layer]) -> list[Layer]:
    """Return layers that say where their tokens stand, where a probe proves it."""
    tokens = {
        (layer.module, layer.call, layer.output): (
            layer.shape[layer.layout.index("token")],
            layer.layout.index("token"),
        )
        for layer in layers
        if set(layer.layout) == set(LAYOUTS[2])
    }
    found = find_tokens(model, size, tokens) if tokens else {}
    listed = []
    for layer in layers:
        seen = found.get((layer.module, layer.call, layer.output))
        if seen is not None:
            layer = replace(layer, tokens=seen.tokens)
            stride = size // seen.tokens.height
            tiled = {side * stride for side in (seen.tokens.height, seen.tokens.width)} == {size}
            if seen.local and tiled:
                layer = replace(layer, stride=stride, offset=(stride - 1) / 2)
        listed.append(layer)
    return listed


def _layout(plane: Plane | None, n: int) -> Layout:
    """Return the layout that a map's plane tells, or that the number of dimensions says."""
    if n != len(LAYOUTS[3]):
        return LAYOUTS.get(n, ())
    if plane is None or min(plane) < -n:
        return ()
    names = ["channel"] * n
    names[plane[0]], names[plane[1]] = "height", "width"
    return tuple(names)


def _named(layer: Layer, alias_of: Mapping[str, str], *, several: bool) -> Layer:
    name = alias_of.get(layer.module, layer.module) or OUTPUT
    if several:
        name += f":{layer.call}"
    if layer.output is not None:
        name += f"[{layer.output}]"
    return replace(layer, name=name)
