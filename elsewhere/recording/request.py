"""A network and its sweep asked for in words, as on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from elsewhere.errors import InputError
from elsewhere.models import InputTransform, Model, find_device, load_model, parse_model_args
from elsewhere.models.forward import check_precision
from elsewhere.models.model import wake
from elsewhere.recording.sweep import Sweep
from elsewhere.stimuli import Canvas, Grid, load_objects, parse_categories
from elsewhere.stimuli.transformations import parse_axis
from elsewhere.tokens import TokenPart
from elsewhere.types import Channels, Convention, Engine, Precision, parse_color

OBJECT_SHARE = 50 / 224
"""Side of an object over side of the canvas, by default, as in Biscione & Bowers (2021)."""


def request_model(
    name: str,
    *,
    model_args: Sequence[str] = (),
    input: Convention | None = None,
    input_mean: str | None = None,
    input_std: str | None = None,
    gain: float | None = None,
    channels: Channels | None = None,
    device: str = "auto",
    precision: Precision = "float32",
    **how: Any,
) -> Model:
    """Return the network called `name` on its device.

    ``name=value`` texts are arguments of its constructor. The input is a name, or three numbers
    with commas and an order of channels, where it is not the weights' own. The rest is as for
    :func:`elsewhere.load_model`.
    """
    place = find_device(device)
    wake(place)
    transform: InputTransform | Convention | None = input
    check_precision(place, precision)
    if (input_mean, input_std, gain, channels) != (None, None, None, None):
        plain = InputTransform()
        transform = InputTransform(
            mean=plain.mean if input_mean is None else _three(input_mean, "mean"),
            std=plain.std if input_std is None else _three(input_std, "std"),
            gain=plain.gain if gain is None else gain,
            channels=plain.channels if channels is None else channels,
        )
    model = load_model(name, model_args=parse_model_args(model_args), transform=transform, **how)
    return model.to(place).running(precision=precision)


def request_sweep(
    model: Model,
    layers: str | Sequence[str] | None = None,
    *,
    objects: str = "glyphs",
    categories: str | None = None,
    grid: str = "stride:7",
    reference: str | None = None,
    axes: Sequence[str] = (),
    canvas: int | None = None,
    object_size: int | None = None,
    background: str = "0",
    background_color: str | None = None,
    engine: Engine = "auto",
    tokens: TokenPart = "all",
    **how: Any,
) -> Sweep:
    """Return the sweep of `model` over objects, canvas and grid in words.

    Categories are how many, or their names with commas. Canvas and objects are given by their side,
    px, by default the model's own and 50/224 of it. The rest is as for
    :func:`elsewhere.load_objects`.
    """
    size = model.canvas_size if canvas is None else canvas
    side = max(1, round(OBJECT_SHARE * size)) if object_size is None else object_size
    ground = Canvas(size, side, Canvas.parse_background(background))
    if not axes:
        Grid.parse(grid, ground)  # which is refused before any picture is read
    shown = load_objects(
        objects,
        size=side,
        categories=parse_categories(categories),
        background_color=None if background_color is None else parse_color(background_color),
        **how,
    )
    return Sweep(
        model,
        shown,
        canvas=ground,
        grid=grid,
        axes=[parse_axis(text) for text in axes],
        reference=reference,
        layers=layers,
        engine=engine,
        tokens=tokens,
    )


def _three(text: str, name: str) -> tuple[float, float, float]:
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) == 1:
        values *= 3
    if len(values) != 3:
        raise InputError(f"cannot read input {name} {text!r}; expected one number, or R,G,B")
    return values[0], values[1], values[2]
