"""Which layers a user means: names, aliases, module names, globs, calls, and the default."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from elsewhere.errors import LayerError, UnknownNameError
from elsewhere.models.heads import HEAD, NO_HEAD
from elsewhere.models.model import Model
from elsewhere.models.names import OUTPUT, matching, unknown_layer
from elsewhere.models.outputs import is_container
from elsewhere.protocols import Layer
from elsewhere.tokens import TOKEN_PARTS, TokenPart

_UNINTERESTING = re.compile(r"(\w*Dropout\w*|Identity|Flatten)")
_REQUEST = re.compile(r"(?P<base>.+?)(?::(?P<call>\d+))?(?:\[(?P<output>[^\]]+)\])?")


def select_layers(
    layers: Sequence[Layer], wanted: str | Sequence[str] | None, model: Model
) -> tuple[Layer, ...]:
    """Return those of `layers` that `wanted` names, in network order, each once.

    Parameters
    ----------
    layers
        From `list_layers`; with its ``containers=True``, containers may be wanted by name, and so
        may be ``(output)``, with ``output=True``.
    wanted
        Names, aliases, module names or globs (``relu*``, ``blocks.[0-3]``), also separated by
        commas. A name stands for all calls of its module, ``name:1`` for the second. A glob, and
        ``depth:2`` for names of two parts, stand for all that they fit but ``Identity``; of a
        module and the last of its parts, whose output is one, only the part is taken where they
        fit both. None is the default: the last pooling
        that changes its input's shape and everything after it, except dropout and modules that
        only reshape; where the pooling is no module, the last map before it instead.
    model
        The model that `layers` belong to.

    Raises
    ------
    UnknownNameError
        A name or a glob that fits nothing.
    LayerError
        A module that does not run or has no tensor to record, a call that does not happen, or
        nothing wanted.

    Examples
    --------
    >>> from elsewhere.models.layers import list_layers
    >>> from elsewhere.models.loading import load_model
    >>> model = load_model("small-cnn", model_args={"channels": "4-8", "canvas": 16})
    >>> [layer.name for layer in select_layers(list_layers(model), "conv*,logits", model)]
    ['conv1_1', 'conv2_1', 'logits']
    >>> [layer.name for layer in select_layers(list_layers(model), None, model)]
    ['pool2', 'fc3', 'relu3', 'fc4', 'relu4', 'logits']
    """
    modules = dict(model.module.named_modules())
    leaves = [each for each in layers if each.module and not is_container(modules[each.module])]
    if wanted is None:
        return _default(leaves, model)
    texts = [wanted] if isinstance(wanted, str) else wanted
    requests = [part.strip() for text in texts for part in text.split(",") if part.strip()]
    if not requests:
        raise LayerError("no layer is asked for; name at least one, or leave the option out")
    chosen: set[Layer] = set()
    for request in requests:
        chosen.update(_fitting(layers, request, model))
    return tuple(layer for layer in layers if layer in chosen)


def take_tokens(layers: Sequence[Layer], part: TokenPart) -> tuple[Layer, ...]:
    """Return layers of which only a part of their tokens is taken.

    A grid is a map (height, width, channel), a class token a vector, registers have no place.
    Layers without tokens, such as logits, stay as they are.

    Raises
    ------
    UnknownNameError
        There is no such part.
    LayerError
        A layer's tokens have no such part, or are not known to, or no layer gives tokens.
    """
    if part not in TOKEN_PARTS:
        raise UnknownNameError("part of the tokens", part, TOKEN_PARTS)
    if part == "all":
        return tuple(layers)
    found = []
    for layer in layers:
        if layer.tokens is not None:
            found.append(_taken(layer, part))
            continue
        if "token" in layer.layout:
            count = layer.shape[layer.layout.index("token")]
            raise LayerError(
                f"layer {layer.name!r} gives {count} tokens, and no probe proves that they are a "
                f"grid on the canvas, so that --tokens {part} cannot be told; take --tokens all, "
                "or other layers"
            )
        found.append(layer)
    if all(layer.tokens is None for layer in layers):
        raise LayerError(
            f"none of the layers gives tokens, so that --tokens {part} would change nothing; leave "
            "it out (maps have height and width already), or name other layers"
        )
    return tuple(found)


def _taken(layer: Layer, part: TokenPart) -> Layer:
    tokens = layer.tokens
    if tokens is None or tokens.part != "all":
        return layer
    if part not in tokens.parts:
        what = {"class": "a class token", "registers": "registers"}[part]
        raise LayerError(
            f"layer {layer.name!r} gives {tokens.count} tokens without {what}; take --tokens "
            + " or ".join(tokens.parts)
        )
    chosen = tokens.of(part)
    return replace(
        layer,
        shape=chosen.shape(layer.shape[1 - tokens.axis]),
        layout=chosen.layout,
        tokens=chosen,
        stride=layer.stride if part == "grid" else None,
        offset=layer.offset if part == "grid" else None,
    )


def unknown_layouts(layers: Sequence[Layer]) -> list[str]:
    """Return what has to be said of layers whose values have no known place; often nothing."""
    found: dict[str, list[str]] = {}
    for layer in layers:
        if len(layer.shape) > 1 and not layer.layout:
            why = "it is not known which dimensions are height and width, or tokens"
        elif layer.tokens is None and {"token", "feature"} == set(layer.layout):
            why = "no probe proves that its tokens are a grid on the canvas"
        else:
            continue
        found.setdefault(why, []).append(layer.name)
    return [f"{', '.join(names)}: {why}; taken as a vector" for why, names in found.items()]


def _fitting(layers: Sequence[Layer], request: str, model: Model) -> list[Layer]:
    """Return what a name or a pattern means; brackets are an output's where there is one."""
    pattern = any(sign in request for sign in "*?[") or request.startswith("depth:")
    if not pattern:
        return _named(layers, request, model)
    refused: Exception | None = None
    if "*" not in request and "?" not in request and "[" in request:
        try:
            return _named(layers, request, model)
        except (UnknownNameError, LayerError) as error:
            refused = error
    listed = [layer for layer in layers if layer.module and layer.kind != "Identity"]
    found = [listed[n] for n in matching(request, [(each.name, each.module) for each in listed])]
    if not found:
        raise refused or _unknown(request, layers, model)
    taken = {layer.module for layer in found}
    return [layer for layer in found if layer.repeats not in taken]


def _named(layers: Sequence[Layer], request: str, model: Model) -> list[Layer]:
    exact = [layer for layer in layers if layer.name == request]
    match = _REQUEST.fullmatch(request)
    if exact:
        return exact
    if request == OUTPUT:
        raise _no_output(layers, model)
    if match is None:
        raise _unknown(request, layers, model)
    # A module that the network holds under several names is listed under the first.
    shared = dict(model.module.named_modules(remove_duplicate=False))
    first = {id(part): name for name, part in model.module.named_modules()}
    base = model.aliases.get(match["base"], match["base"])
    if not base or base not in shared:
        raise _unknown(request, layers, model)
    module = first[id(shared[base])]
    calls = [layer for layer in layers if layer.module == module]
    if not calls:
        raise _silent(request, module, model)
    found = [
        layer
        for layer in calls
        if match["call"] in (None, str(layer.call)) and match["output"] in (None, str(layer.output))
    ]
    if not found:
        raise LayerError(
            f"layer {request!r} does not occur; {match['base']!r} gives "
            + ", ".join(layer.name for layer in calls)
        )
    return found


def _no_output(layers: Sequence[Layer], model: Model) -> LayerError:
    given = [f"{layer.name} {layer.shape}" for layer in layers if not layer.module]
    return LayerError(
        f"{model.name} gives {f'{len(given)} tensors' if given else 'no tensor'} with a row per "
        f"image and numbers of floating point ({', '.join(given) or 'none'}); name one of them, or "
        "a layer"
    )


def _default(leaves: Sequence[Layer], model: Model) -> tuple[Layer, ...]:
    if not leaves:
        raise LayerError(f"{model.name} runs no module whose output can be recorded")
    maps = [n for n, layer in enumerate(leaves) if len(layer.shape) > 1 and not _is_skipped(layer)]
    pools = [n for n in maps if _is_pooling(leaves[n])]
    if not maps:
        start = 0
    elif not pools or _is_collapsed(leaves, maps[-1]):
        start = maps[-1]
    else:
        start = pools[-1]
    return tuple(layer for layer in leaves[start:] if not _is_skipped(layer))


def _is_collapsed(leaves: Sequence[Layer], place: int) -> bool:
    """Return whether the layer after `place` takes less than it gives: a functional pooling."""
    after = leaves[place + 1].input_shape if place + 1 < len(leaves) else None
    return after is not None and math.prod(after) < math.prod(leaves[place].shape)


def _is_pooling(layer: Layer) -> bool:
    return "Pool" in layer.kind


def _is_skipped(layer: Layer) -> bool:
    same = _is_pooling(layer) and layer.shape == layer.input_shape
    return same or _UNINTERESTING.fullmatch(layer.kind) is not None


def _silent(request: str, module: str, model: Model) -> LayerError:
    if is_container(model.module.get_submodule(module)):
        return LayerError(
            f"layer {request!r} is made of other modules and was not listed, or has no tensor "
            "with a row per image; list with containers, or name one of its parts"
        )
    return LayerError(
        f"layer {request!r} never runs in a forward pass, or has no tensor of "
        "floating-point numbers with a row per image (complex and whole numbers are not recorded); "
        f"`elsewhere layers {model.name}` lists those that can be recorded"
    )


def _unknown(request: str, layers: Iterable[Layer], model: Model) -> UnknownNameError:
    known = dict.fromkeys(layer.name for layer in layers)
    known |= dict.fromkeys((*model.aliases, *(name for name, _ in model.module.named_modules())))
    known.pop("", None)
    return unknown_layer(model.name, request, known, NO_HEAD if request == HEAD else "")
