"""Options that several commands share: one spelling, one help text, one default of each.

A command takes a group as a parameter, ``network: ModelOptions``, or a part of one,
``Annotated[StimulusOptions, part("grid", grid="3x3")]``; :func:`takes` makes options of its fields.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import inspect
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeAlias, get_args, get_type_hints

import typer
from typer import Option

from elsewhere.errors import InputError, UnknownNameError
from elsewhere.terminal import say
from elsewhere.types import Channels, Convention, parse_bytes

if TYPE_CHECKING:
    from elsewhere.models import Model
    from elsewhere.recording import Sweep

ENGINES = ("auto", "incremental", "dense")

MODEL = typer.Argument(
    help="A zoo or torchvision name, a checkpoint, package.module:factory, or path/file.py:factory."
)
SOURCE = typer.Argument(help="A recording, or a MODEL to sweep live.")
LayerOption: TypeAlias = Annotated[
    str | None,
    Option(
        "--layer",
        help="One layer: a convolutional one for grad-cam; of an accuracy, where the class scores "
        "are (default: the network's output, `logits` of a recording).",
    ),
]
LayersOption: TypeAlias = Annotated[
    list[str] | None,
    Option(
        "--layers",
        help="Names, aliases, globs (blocks.[0-3]) or depth:N, with commas; default: all that a "
        "recording has, of a model the last pooling and after (`layers`: all).",
    ),
]
TokensOption: TypeAlias = Annotated[
    str,
    Option(
        "--tokens",
        help="Of layers that give tokens: all; grid, those with a place on the canvas, as a map; "
        "class, that token as a vector; registers.",
    ),
]
MetricOption: TypeAlias = Annotated[
    str, Option("--metric", help="cosine, centred, centred-by-place, evoked or pearson.")
]
NamesOption: TypeAlias = Annotated[
    list[str] | None,
    Option("--names", help="Measures, with commas; one of your own is package.module:name."),
]
PhaseOption: TypeAlias = Annotated[
    list[str] | None, Option("--phase", help="Only these phases of a run; repeatable.")
]
DtypeOption: TypeAlias = Annotated[
    str, Option("--dtype", help="Of what is stored: float32 or float16.")
]
JsonOption: TypeAlias = Annotated[bool, Option("--json", help="Print JSON.")]
PartialOption: TypeAlias = Annotated[
    bool, Option("--allow-partial", help="Take what is there of an unfinished recording.")
]
OverwriteOption: TypeAlias = Annotated[
    bool, Option("--overwrite", help="Replace the output, once the new one is finished.")
]


@dataclasses.dataclass(kw_only=True)
class OptionGroup:
    """A group of options.

    Parameters
    ----------
    given
        Those that stand on the command line, by their names there.
    devices
        Those that --device names, if there are several: what shares work has one process for each.
    """

    panel: ClassVar[str]
    given: Sequence[str] = ()
    devices: Sequence[str] = ()

    @property
    def values(self) -> dict[str, Any]:
        """The options by the names of their fields."""
        names = [each.name for each in dataclasses.fields(self)]
        return {name: getattr(self, name) for name in names if name not in ("given", "devices")}


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


@dataclasses.dataclass(kw_only=True)
class StimulusOptions(OptionGroup):
    """What is shown, and where."""

    panel = "Stimuli"
    objects: Annotated[
        str | None,
        Option(
            "--objects",
            help="A set (`elsewhere objects`) or folder:PATH; default: glyphs, or what a "
            "checkpoint was trained on.",
        ),
    ] = None
    font: Annotated[
        Path | None,
        Option("--font", help="hangul: a font file; default: one of the system's."),
    ] = None
    categories: Annotated[
        str | None, Option("--categories", help="How many, or their names: 10 or A,B.")
    ] = None
    per_category: Annotated[int, Option("--per-category", help="Exemplars of each category.")] = 1
    grid: Annotated[str, Option("--grid", help="stride:K, NxM, all, or at:y,x;y,x.")] = "stride:7"
    axes: Annotated[
        list[str],
        Option(
            "--axis",
            help="Change the objects as well: scale=0.5:2:5, rotation=0,45,90, contrast=, blur=; "
            "repeatable.",
        ),
    ] = dataclasses.field(default_factory=list)
    reference: Annotated[
        str | None,
        Option("--reference", help="y,x, left or centre; default: leftmost of the middle row."),
    ] = None
    canvas: Annotated[
        int | None, Option("--canvas", help="Side in px; default: the network's own.")
    ] = None
    object_size: Annotated[
        int | None, Option("--object-size", help="Side in px; default: 50/224 of the canvas.")
    ] = None
    background: Annotated[
        str,
        Option("--background", help="white, grey, black, 0..255, R,G,B, #RRGGBB or mean."),
    ] = "0"
    data_dir: Annotated[
        Path | None, Option("--data-dir", help="Folder of mnist and the other sets in files.")
    ] = None
    background_color: Annotated[
        str | None, Option("--background-color", help="folder: the colour that is ground.")
    ] = None
    background_tolerance: Annotated[
        int,
        Option("--background-tolerance", help="folder: levels that ground may differ from it."),
    ] = 0
    skip_broken: Annotated[
        bool, Option("--skip-broken", help="folder: leave out broken images.")
    ] = False

    def check(self, model: str | None = None) -> None:
        """Refuse an unknown set or axis; the module of a factory may register more when loaded."""
        from elsewhere.stimuli import object_sets
        from elsewhere.stimuli.transformations import parse_axis, transformations

        later = ":" in (model or "")
        self.objects = with_font(self.objects, self.font)
        if self.objects is not None:
            self.objects = named_set(self.objects)
            name = self.objects.partition(":")[0]
            if not later or name in object_sets:
                object_sets.summary(name)
        for number, text in enumerate(self.axes):
            name, *values = text.split("=", 1)
            if ":" in name:
                name = transformations.named(name.strip())
                self.axes[number] = text = "=".join([name, *values])
            if not later or name.strip() in transformations:
                parse_axis(text)

    def build(
        self,
        name: str,
        model: Model,
        layers: list[str] | None,
        seed: int,
        engine: str,
        tokens: str = "all",
    ) -> Sweep:
        """Return the sweep of `model`, called `name`, over what is asked for.

        A checkpoint brings the canvas, the objects' size and the background it was trained with.
        """
        from elsewhere.recording import request_sweep
        from elsewhere.storage.files import is_checkpoint
        from elsewhere.training import read_card

        values = self.values
        if is_checkpoint(name):
            canvas = read_card(name).canvas
            color = ",".join(map(str, canvas.background_color(model.transform.mean)))
            own = {"canvas": canvas.size, "object_size": canvas.object_size, "background": color}
            for key, value in own.items():
                if "--" + key.replace("_", "-") not in self.given:
                    values[key] = value
        del values["font"]  # which `check` has put behind the set's name
        if self.objects is None:
            del values["objects"]
        how: dict[str, Any] = {"seed": seed, "engine": engine, "tokens": tokens}
        return request_sweep(model, layers or None, **how, **values)


@dataclasses.dataclass(kw_only=True)
class CostOptions(OptionGroup):
    """How the work is done, and what it may take."""

    panel = "Cost"
    engine: Annotated[
        str,
        Option(
            "--engine",
            help="auto; incremental: only what an object (or what covers it) changes; dense: "
            "whole canvases; one of your own: package.module:name.",
        ),
    ] = "auto"
    max_memory: Annotated[
        str, Option("--max-memory", help="For activations, maps and fits, e.g. 2GiB.")
    ] = "2GiB"
    threads: Annotated[int | None, Option("--threads", help="CPU threads of the network.")] = None
    workers: Annotated[
        int,
        Option(
            "--workers",
            help="Local processes that share the work; `reproduce`: by default one for each core.",
        ),
    ] = 1
    scheduler: Annotated[
        str | None,
        Option("--scheduler", help="A Dask scheduler whose workers share it: tcp://host:port."),
    ] = None

    @property
    def shared(self) -> bool:
        """Whether several processes do the work."""
        return self.n_workers > 1 or self.scheduler is not None

    @property
    def sharing(self) -> int | Sequence[str]:
        """The local processes that share the work, or their devices."""
        return self.devices or self.workers

    @property
    def n_workers(self) -> int:
        """How many local processes share the work."""
        return len(self.devices) or self.workers

    def check(self, model: str | None = None) -> None:
        """Refuse what cannot be; the module of a factory may register engines when it is loaded."""
        loaded = sys.modules.get("elsewhere.recording.engines")
        if ":" in self.engine:
            from elsewhere.recording.engines import engines

            self.engine = engines.named(self.engine)
        elif ":" not in (model or ""):
            known = ENGINES if loaded is None else ("auto", *loaded.engines)
            choose("engine", self.engine, known)
        parse_bytes(self.max_memory)
        if self.workers < 1:
            raise InputError(f"--workers must be at least 1; got {self.workers}")
        if self.workers > 1 and self.scheduler is not None:
            raise InputError("--workers are local processes, --scheduler is a cluster; give one")
        if self.threads is not None and self.threads < 1:
            raise InputError(f"--threads must be at least 1; got {self.threads}")

    def set_threads(self) -> None:
        """Set torch's number of CPU threads, if one is given."""
        if self.threads is not None:
            import torch

            torch.set_num_threads(self.threads)


@dataclasses.dataclass(kw_only=True)
class KeepOptions(OptionGroup):
    """What is kept, and how."""

    panel = "What is kept"
    keep: Annotated[
        list[str], Option("--keep", help="LAYER=full, mean or sketch:K; repeatable.")
    ] = dataclasses.field(default_factory=list)
    dtype: DtypeOption = "float32"
    measure: Annotated[
        Path | None,
        Option("--similarity", help="Also measure similarity in the same sweep, into this file."),
    ] = None
    measure_layers: Annotated[
        list[str], Option("--similarity-layers", help="Of these layers, kept or not.")
    ] = dataclasses.field(default_factory=lambda: ["*"])

    def check(self) -> None:
        """Refuse choices that are none."""
        choose("dtype", self.dtype, ("float32", "float16"))
        if self.measure is None and self.measure_layers != ["*"]:
            raise InputError("--similarity-layers has no use without --similarity FILE; give both")
        from elsewhere.recording import parse_keeps

        parse_keeps(self.keep)

    def header(self, seed: int, max_memory: str) -> dict[str, Any]:
        """Return what `plan` and `record` take of these options."""
        from elsewhere.recording import parse_keeps

        return {
            "keep": parse_keeps(self.keep),
            "dtype": self.dtype,
            "seed": seed,
            "max_memory": max_memory,
        }


def with_font(objects: str | None, font: Path | None) -> str | None:
    """Return an object set with the font that it is drawn with.

    Examples
    --------
    >>> with_font("hangul", Path("a.ttf")), with_font("glyphs", None)
    ('hangul:a.ttf', 'glyphs')
    """
    if font is None:
        return objects
    if objects not in ("hangul", f"hangul:{font}"):
        shown = "no set of objects is named" if objects is None else f"the objects are {objects!r}"
        raise InputError(f"--font is for the object set hangul, and {shown}; leave it out")
    return f"hangul:{font}"


def spread_devices(options: Sequence[OptionGroup]) -> None:
    """Give the devices of --device, where it names several, to the processes that share the work.

    Raises
    ------
    InputError
        They are of several kinds; or others are to share the work.
    """
    network = next((each for each in options if isinstance(each, ModelOptions)), None)
    if network is None or "," not in network.device:
        return
    names = tuple(name.strip() for name in network.device.split(","))
    (cost,) = (each for each in options if isinstance(each, CostOptions))
    if other := [name for name in ("--workers", "--scheduler") if name in cost.given]:
        raise InputError(
            f"--device {network.device} has a process for each of {len(names)} devices, and "
            f"{other[0]} says who else shares the work; leave out one of them (a device that is "
            "named twice has two processes)"
        )
    from elsewhere.models import find_device

    kinds = {find_device(name).type for name in names}
    if len(kinds) > 1:
        raise InputError(
            f"--device {network.device} names devices of several kinds, whose results differ in "
            f"their last digits; expected one kind, such as cuda:0,cuda:1"
        )
    network.device, cost.devices = names[0], names


def named_set(text: str) -> str:
    """Return the object set that `text` means: ``package.module:name`` imports the module."""
    from elsewhere.stimuli import object_sets

    before, colon, _ = text.partition(":")
    try:
        return object_sets.named(text) if colon and before not in object_sets else text
    except InputError as error:
        if isinstance(error.__cause__, ModuleNotFoundError):
            return text  # neither a set nor a module
        raise


def choose(kind: str, name: str, known: Sequence[str]) -> None:
    """Refuse a name that is not among the known ones."""
    if name not in known:
        raise UnknownNameError(kind, name, known)


@functools.cache
def _hints(group: type[OptionGroup]) -> dict[str, Any]:
    return get_type_hints(group, include_extras=True)


def option_names(group: type[OptionGroup], fields: Sequence[str]) -> list[str]:
    """Return the names on the command line of fields of a group."""
    hints = _hints(group)  # type: ignore[arg-type]  # classes can be hashed
    return [hints[field].__metadata__[0].default for field in fields]  # typer: the first name


@dataclasses.dataclass(frozen=True)
class PartOf:
    """Which options of a group a command takes; see :func:`part`."""

    only: Sequence[str]
    without: Sequence[str]
    defaults: dict[str, Any]


def part(*only: str, without: Sequence[str] = (), **defaults: Any) -> PartOf:
    """Return which fields of a group a command takes (all by default), and its own defaults."""
    return PartOf(only, without, defaults)


def takes(command: Callable[..., None]) -> Callable[..., None]:
    """Return `command` as Typer reads it: options in place of the groups that it takes.

    What is not taken of a group is left at its default.
    """
    signature, hints = inspect.signature(command), get_type_hints(command, include_extras=True)
    parameters = [inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY)]
    parameters[0] = parameters[0].replace(annotation=typer.Context)
    shared, groups = [], {}
    for each in signature.parameters.values():
        group, *more = get_args(hints[each.name]) or (hints[each.name],)
        if not (isinstance(group, type) and issubclass(group, OptionGroup)):
            parameters.append(each.replace(annotation=hints[each.name], kind=each.KEYWORD_ONLY))
            continue
        taken = more[0] if more else part()
        types = _hints(group)  # type: ignore[arg-type]
        plain = group().values | taken.defaults
        fields = [n for n in taken.only or plain if n not in taken.without]
        groups[each.name] = (group, fields, taken.defaults)
        for name in fields:
            kind, option = get_args(types[name])
            option = copy.copy(option)  # what groups share may stand in another panel there
            option.rich_help_panel = group.panel
            shared.append(
                each.replace(
                    name=name,
                    default=plain[name],
                    annotation=Annotated[kind, option],
                    kind=each.KEYWORD_ONLY,
                )
            )

    def call(context: typer.Context, **values: Any) -> None:
        for parameter, (group, fields, defaults) in groups.items():
            own = {name: values.pop(name) for name in fields}
            named = [n for n in fields if context.get_parameter_source(n).name != "DEFAULT"]  # type: ignore[union-attr]
            given = option_names(group, named)
            values[parameter] = group(**defaults | own, given=given)
        if any("workers" in fields for _, fields, _ in groups.values()):
            spread_devices([values[parameter] for parameter in groups])
        command(**values)

    call.__name__, call.__doc__ = command.__name__, command.__doc__
    parameters += shared
    call.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {each.name: each.annotation for each in parameters}
    return call
