"""The layers of the zoo's networks as they stand, from a table; imports no torch."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

from elsewhere.protocols import BY_NUMBER, LAYOUTS, Layer
from elsewhere.tokens import Tokens

NONE = "-"
"""What stands in the table where a layer has no such number, or no name."""
_TOKENS = "tokens:"
_BRANCHES = {NONE: None, "main": False, "beside": True}


def zoo_table(model: str) -> tuple[Layer, ...]:
    """Return the layers of a network of the zoo with default arguments, on its own canvas.

    Parameters
    ----------
    model
        Its name.

    Returns
    -------
    tuple
        What :func:`elsewhere.models.list_layers` lists, containers included: names, classes,
        shapes, strides, sizes of receptive fields, px, and which are beside the main branch;
        neither offsets nor shapes of inputs.
        Empty where the network is not in the table, which ``docs/make_zoo_table.py`` makes and a
        test compares with the networks.

    Examples
    --------
    >>> zoo_table("vgg16")[0].name, zoo_table("vgg16")[0].shape
    ('conv1_1', (64, 224, 224))
    """
    return tuple(map(_read, _lines().get(model, ())))


@cache
def _lines() -> dict[str, list[str]]:
    found: dict[str, list[str]] = json.loads(Path(__file__).with_suffix(".json").read_text())
    return found


def to_line(layer: Layer) -> str:
    """Return a layer as it stands in the table."""
    numbers = [layer.stride, layer.receptive_field]
    branch = next(word for word, beside in _BRANCHES.items() if beside is layer.beside)
    return " ".join(
        [layer.name, layer.module, layer.kind, "x".join(map(str, layer.shape))]
        + [NONE if number is None else str(number) for number in numbers]
        + [layer.repeats or NONE, branch]
        + [",".join(layer.layout)] * (layer.layout != LAYOUTS.get(len(layer.shape), ()))
        + ([] if layer.tokens is None else [_TOKENS + _compact(layer.tokens.facts)])
    )


def _compact(facts: object) -> str:
    return json.dumps(facts, separators=(",", ":"))


def _read(line: str) -> Layer:
    name, module, kind, shape, stride, field, repeats, branch, *more = line.split()
    tokens = [text.removeprefix(_TOKENS) for text in more if text.startswith(_TOKENS)]
    layout = [text for text in more if not text.startswith(_TOKENS)]
    return Layer(
        name,
        module,
        kind,
        tuple(map(int, shape.split("x"))),
        stride=None if stride == NONE else int(stride),
        layout=tuple(layout[0].split(",")) if layout else BY_NUMBER,
        receptive_field=None if field == NONE else int(field),
        tokens=Tokens.from_facts(json.loads(tokens[0])) if tokens else None,
        repeats="" if repeats == NONE else repeats,
        beside=_BRANCHES[branch],
    )
