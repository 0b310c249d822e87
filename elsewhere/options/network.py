"""How a network is loaded and run."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, get_args

from typer import Option

from elsewhere.errors import InputError
from elsewhere.options.groups import OptionGroup, choose, option_names
from elsewhere.terminal import say
from elsewhere.types import Channels, Convention

if TYPE_CHECKING:
    from elsewhere.models import Model


@dataclasses.dataclass(kw_only=True)
class ModelOptions(OptionGroup):
    """How a network is loaded."""

    panel = "Network"
    weights: Annotated[
        str, Option("--weights", help="none, imagenet, or a .pth or .safetensors file.")
    ] = "none"
    model_args: Annotated[
        list[str], Option("--model-arg", help="name=value for its constructor; repeatable.")
    ] = dataclasses.field(default_factory=list)
    partial_weights: Annotated[
        bool,
        Option(
            "--partial-weights",
            help="Accept a file that covers only a part; what stays random is listed.",
        ),
    ] = False
    state_key: Annotated[
        str | None,
        Option("--state-key", help="Which state of a file of weights that holds several (EMA)."),
    ] = None
    input: Annotated[
        str | None,
        Option(
            "--input",
            help="Input by name: imagenet, caffe-bgr (0..255 less the mean, BGR), inception "
            "(-1..1), unit (0..1), or timm (of the network's own configuration).",
        ),
    ] = None
    input_mean: Annotated[
        str | None, Option("--input-mean", help="Input mean, one number or R,G,B.")
    ] = None
    input_std: Annotated[
        str | None, Option("--input-std", help="Input deviation, one number or R,G,B.")
    ] = None
    gain: Annotated[float | None, Option("--gain", help="Factor on the normalised input.")] = None
    channels: Annotated[
        str | None,
        Option(
            "--channels",
            help="Order in which the network takes red, green, blue: rgb or bgr; mean and "
            "deviation are given as R,G,B all the same.",
        ),
    ] = None
    device: Annotated[
        str,
        Option(
            "--device",
            help="auto, cpu, cuda, cuda:1, ...; where --workers can share the work, several with "
            "commas: one process for each.",
        ),
    ] = "auto"
    seed: Annotated[
        int,
        Option("--seed", help="Of weights, exemplars and sketches; `train`: the curriculum's own."),
    ] = 0
    batch_dependent: Annotated[
        str,
        Option(
            "--batch-dependent",
            help="For networks whose images depend on each other: refuse, or one-at-a-time.",
        ),
    ] = "refuse"
    chance_seed: Annotated[
        int | None,
        Option(
            "--chance-seed",
            help="For networks that draw random numbers: seed every pass, of one image, with this.",
        ),
    ] = None
    precision: Annotated[
        str,
        Option(
            "--precision",
            help="What the network computes in: float32; tf32 (CUDA) or bfloat16: faster, and "
            "right to 3 or 2 digits.",
        ),
    ] = "float32"
    trust: Annotated[
        list[str],
        Option(
            "--trust-factory",
            help="package.module:factory (or file.py:factory) that may be built if a file names "
            "it; repeatable.",
        ),
    ] = dataclasses.field(default_factory=list)

    OF_CHECKPOINTS: ClassVar = (
        *("device", "seed", "trust", "batch_dependent", "chance_seed", "precision"),
    )
    """What a checkpoint leaves open; the rest is its own."""

    def check(self, model: str, *layers: str) -> None:
        """Refuse a network that nobody knows, or layers that one of the zoo has not, at once."""
        from elsewhere.models import check_layers, check_model
        from elsewhere.storage.files import is_checkpoint

        if self.channels is not None:
            choose("channels", self.channels, get_args(Channels))
        if self.input is not None:
            choose("input", self.input, get_args(Convention))
            numbers = option_names(type(self), ("input_mean", "input_std", "gain", "channels"))
            if given := [name for name in numbers if name in self.given]:
                raise InputError(
                    f"--input {self.input} says all of the input, and {', '.join(given)} would "
                    "change it; give the name, or the numbers"
                )
        if not is_checkpoint(model):
            check_model(model)
        if all(text.startswith("num_classes=") for text in self.model_args):
            check_layers(model, layers)

    def refuse_beside(self, checkpoint: object, what: str, *more: str) -> None:
        """Refuse options, and `more` of other groups, that a checkpoint has answered already."""
        left = option_names(type(self), self.OF_CHECKPOINTS)
        if given := [*(name for name in self.given if name not in left), *more]:
            raise InputError(f"{checkpoint} {what}: leave out " + ", ".join(given))

    @property
    def how(self) -> dict[str, Any]:
        """How a network is run, whoever's it is; see :class:`elsewhere.models.Model`."""
        return {n: getattr(self, n) for n in ("batch_dependent", "chance_seed", "precision")}

    def load(self, model: str) -> Model:
        """Return the network called `model` on its device; a checkpoint brings all its own."""
        from elsewhere.models import find_device
        from elsewhere.models.forward import check_precision
        from elsewhere.recording import request_model
        from elsewhere.storage.files import is_checkpoint
        from elsewhere.training import load_checkpoint

        if is_checkpoint(model):
            self.refuse_beside(model, "is a checkpoint, which has its own weights and input")
            device = find_device(self.device)
            check_precision(device, self.precision)
            return load_checkpoint(model, trust=self.trust).to(device).running(**self.how)
        values = self.values
        del values["trust"]  # what is named here is the user's own
        loaded = request_model(model, **values)
        if loaded.random_keys and self.weights != "none":
            keys = ", ".join(loaded.random_keys)
            say(f"left random, not in {self.weights}: {keys}")
        return loaded
