"""A sweep asked for in words, as on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from elsewhere.errors import InputError
from elsewhere.models import InputTransform, Model, find_device, load_model, parse_model_args
from elsewhere.models.forward import check_precision
from elsewhere.recording.sweep import Sweep
from elsewhere.stimuli import Canvas, Grid, load_objects, parse_categories
from elsewhere.stimuli.transformations import parse_axis
from elsewhere.types import BatchDependent, Engine, Precision, parse_color

OBJECT_SHARE = 50 / 224
"""Side of an object over side of the canvas, by default, as in Biscione & Bowers (2021)."""


@dataclass(frozen=True)
class ModelRequest:
    """A network in words.

    Parameters
    ----------
    model
        A zoo name, ``package.module:factory``, or any torchvision classification model.
    weights
        ``none``, ``imagenet`` or a state file.
    model_args
        ``name=value`` texts for its constructor.
    partial_weights
        Whether a file may cover a part of the network.
    state_key
        Which state of a file that holds several.
    input_mean, input_std, gain
        The input transform, where it is not the weights' own: three numbers with commas.
    device
        ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ...
    seed
        Of random weights.
    batch_dependent, chance_seed, precision
        See :class:`elsewhere.models.Model`.
    """

    model: str
    weights: str = "none"
    model_args: Sequence[str] = ()
    partial_weights: bool = False
    state_key: str | None = None
    input_mean: str | None = None
    input_std: str | None = None
    gain: float | None = None
    device: str = "auto"
    seed: int = 0
    batch_dependent: BatchDependent = "refuse"
    chance_seed: int | None = None
    precision: Precision = "float32"

    def load(self) -> Model:
        """Return the network on its device."""
        device, transform = find_device(self.device), None
        check_precision(device, self.precision)
        if (self.input_mean, self.input_std, self.gain) != (None, None, None):
            plain = InputTransform()
            transform = InputTransform(
                mean=plain.mean if self.input_mean is None else _three(self.input_mean, "mean"),
                std=plain.std if self.input_std is None else _three(self.input_std, "std"),
                gain=plain.gain if self.gain is None else self.gain,
            )
        model = load_model(
            self.model,
            weights=self.weights,
            model_args=parse_model_args(self.model_args),
            partial_weights=self.partial_weights,
            state_key=self.state_key,
            seed=self.seed,
            transform=transform,
            batch_dependent=self.batch_dependent,
            chance_seed=self.chance_seed,
        )
        return model.to(device).running(precision=self.precision)


@dataclass(frozen=True)
class StimulusRequest:
    """Objects, canvas and grid in words.

    Parameters
    ----------
    objects
        A set's name, or ``folder:PATH``.
    categories
        How many of its categories, or their names with commas; all by default.
    per_category
        Exemplars of each.
    grid, reference
        As ``Grid.parse`` and ``parse_location`` read them.
    axes
        Axes that change objects, such as ``scale=0.5:2:5``.
    canvas, object_size
        px; by default the model's own canvas, and 50/224 of it.
    background
        A value, a colour or ``mean``.
    data_dir, background_color, skip_broken, seed
        See ``load_objects``.
    """

    objects: str = "glyphs"
    categories: str | None = None
    per_category: int = 1
    grid: str = "stride:7"
    reference: str | None = None
    axes: Sequence[str] = ()
    canvas: int | None = None
    object_size: int | None = None
    background: str = "0"
    data_dir: Path | None = None
    background_color: str | None = None
    skip_broken: bool = False
    seed: int = 0

    def build(
        self,
        model: Model,
        layers: str | Sequence[str] | None = None,
        *,
        engine: Engine = "auto",
    ) -> Sweep:
        """Return the sweep of `model` over what is asked for."""
        size = model.canvas_size if self.canvas is None else self.canvas
        side = self.object_size
        if side is None:
            side = max(1, round(OBJECT_SHARE * size))
        background = Canvas.parse_background(self.background)
        canvas = Canvas(size=size, object_size=side, background=background)
        if not self.axes:
            Grid.parse(self.grid, canvas)  # which is refused before any picture is read
        objects = load_objects(
            self.objects,
            size=side,
            categories=parse_categories(self.categories),
            per_category=self.per_category,
            seed=self.seed,
            data_dir=self.data_dir,
            background_color=None
            if self.background_color is None
            else parse_color(self.background_color),
            skip_broken=self.skip_broken,
        )
        return Sweep(
            model,
            objects,
            canvas=canvas,
            grid=self.grid,
            axes=[parse_axis(text) for text in self.axes],
            reference=self.reference,
            layers=layers,
            engine=engine,
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
