"""Options that several commands share, and the decorator that gives them to a command."""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Callable, Collection, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from elsewhere.errors import InputError, StorageError, UnknownNameError
from elsewhere.terminal import counted, say
from elsewhere.types import Engine, parse_bytes

if TYPE_CHECKING:
    from elsewhere.models import Model
    from elsewhere.recording import Sweep
    from elsewhere.storage.recording import Recording


def _option(*names: str, help: str, panel: str, **more: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=panel, **more)


NETWORK, STIMULI, COST = "Network", "Stimuli", "Cost"
ENGINES = ("auto", "incremental", "dense")
ENGINE_HELP = "auto; incremental: only what an object changes; dense: whole canvases."


JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, ...")]
DataOption = Annotated[Path | None, typer.Option("--data-dir", help="Folder of mnist and its kin.")]
TRUST_HELP = "package.module:factory that may be built if a file names it; repeatable."
TrustOption = Annotated[list[str] | None, typer.Option("--trust-factory", help=TRUST_HELP)]
PartialOption = Annotated[
    bool,
    typer.Option("--allow-partial", help="Take what is there of an unfinished recording."),
]
OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", help="Replace the output, once the new one is finished.")
]


BATCH_HELP = "For networks whose images depend on each other: refuse, or one-at-a-time."
CHANCE_HELP = "For networks that draw random numbers: seed every pass, of one image, with this."
BatchOption = Annotated[str, typer.Option("--batch-dependent", help=BATCH_HELP)]
ChanceOption = Annotated[int | None, typer.Option("--chance-seed", help=CHANCE_HELP)]


@dataclasses.dataclass
class ModelOptions:
    """How a network is loaded."""

    weights: Annotated[
        str,
        _option("--weights", help="none, imagenet, or a .pth or .safetensors file.", panel=NETWORK),
    ] = "none"
    model_args: Annotated[
        list[str],
        _option("--model-arg", help="name=value for its constructor; repeatable.", panel=NETWORK),
    ] = dataclasses.field(default_factory=list)
    partial_weights: Annotated[
        bool,
        _option(
            "--partial-weights",
            help="Accept a file that covers only a part; what stays random is listed.",
            panel=NETWORK,
        ),
    ] = False
    state_key: Annotated[
        str | None,
        _option(
            "--state-key",
            help="Which state of a file that holds several (EMA, ...).",
            panel=NETWORK,
        ),
    ] = None
    input_mean: Annotated[
        str | None, _option("--input-mean", help="Input mean, one number or R,G,B.", panel=NETWORK)
    ] = None
    input_std: Annotated[
        str | None, _option("--input-std", help="Input deviation, likewise.", panel=NETWORK)
    ] = None
    gain: Annotated[
        float | None, _option("--gain", help="Factor on the normalised input.", panel=NETWORK)
    ] = None
    device: Annotated[
        str, _option("--device", help="auto, cpu, cuda, cuda:1, ...", panel=NETWORK)
    ] = "auto"
    seed: Annotated[
        int, _option("--seed", help="Of weights, exemplars and sketches.", panel=NETWORK)
    ] = 0
    batch_dependent: Annotated[
        str, _option("--batch-dependent", help=BATCH_HELP, panel=NETWORK)
    ] = "refuse"
    chance_seed: Annotated[
        int | None, _option("--chance-seed", help=CHANCE_HELP, panel=NETWORK)
    ] = None
    trust: Annotated[list[str], _option("--trust-factory", help=TRUST_HELP, panel=NETWORK)] = (
        dataclasses.field(default_factory=list)
    )

    def load(self, model: str) -> Model:
        """Return the network called `model` on its device; a checkpoint brings all its own."""
        from elsewhere.models import find_device
        from elsewhere.recording import ModelRequest
        from elsewhere.training import is_checkpoint, load_checkpoint

        if is_checkpoint(model):
            own = ("--device", "--seed", "--trust-factory", "--batch-dependent", "--chance-seed")
            if given := [name for name in given_options(self) if name not in own]:
                raise InputError(
                    f"{model} is a checkpoint, which has its own weights and input: leave out "
                    + ", ".join(given)
                )
            loaded = load_checkpoint(model, trust=self.trust).to(find_device(self.device))
            how: Any = self.batch_dependent
            return loaded.running(how, self.chance_seed)
        values = option_values(self)
        del values["trust"]  # what is named here is the user's own
        loaded = ModelRequest(model, **values).load()
        if loaded.random_keys:
            keys = ", ".join(loaded.random_keys)
            say(f"left random, not in {self.weights}: {keys}")
        return loaded


@dataclasses.dataclass
class StimulusOptions:
    """What is shown, and where."""

    objects: Annotated[
        str, _option("--objects", help="A set (`elsewhere objects`) or folder:PATH.", panel=STIMULI)
    ] = "glyphs"
    categories: Annotated[
        str | None,
        _option("--categories", help="How many, or their names: 10 or A,B.", panel=STIMULI),
    ] = None
    per_category: Annotated[
        int, _option("--per-category", help="Exemplars of each.", panel=STIMULI)
    ] = 1
    grid: Annotated[
        str,
        _option("--grid", help="stride:K, NxM, all, or at:y,x;y,x.", panel=STIMULI),
    ] = "stride:7"
    reference: Annotated[
        str | None,
        _option(
            "--reference",
            help="y,x, left or centre; default: leftmost of the middle row.",
            panel=STIMULI,
        ),
    ] = None
    canvas: Annotated[
        int | None,
        _option("--canvas", help="Side in px; default: the network's own.", panel=STIMULI),
    ] = None
    object_size: Annotated[
        int | None,
        _option("--object-size", help="Side in px; default: 50/224 of the canvas.", panel=STIMULI),
    ] = None
    background: Annotated[
        str, _option("--background", help="Value, R,G,B, #RRGGBB or mean.", panel=STIMULI)
    ] = "0"
    data_dir: Annotated[
        Path | None, _option("--data-dir", help="Folder of mnist and its kin.", panel=STIMULI)
    ] = None
    background_color: Annotated[
        str | None,
        _option("--background-color", help="folder: the colour that is ground.", panel=STIMULI),
    ] = None
    skip_broken: Annotated[
        bool, _option("--skip-broken", help="folder: leave out broken images.", panel=STIMULI)
    ] = False

    def build(
        self,
        name: str,
        model: Model,
        layers: list[str] | None,
        seed: int,
        *,
        engine: Engine = "auto",
    ) -> Sweep:
        """Return the sweep of `model`, called `name`, over what is asked for.

        A checkpoint brings the canvas, the objects' size and the background it was trained with.
        """
        from elsewhere.recording import StimulusRequest
        from elsewhere.training import is_checkpoint, read_card

        values = option_values(self)
        if is_checkpoint(name):
            canvas = read_card(name).canvas
            color = ",".join(map(str, canvas.background_color(model.transform.mean)))
            own = {"canvas": canvas.size, "object_size": canvas.object_size, "background": color}
            given = set(given_options(self))
            for key, value in own.items():
                if "--" + key.replace("_", "-") not in given:
                    values[key] = value
        return StimulusRequest(**values, seed=seed).build(model, layers or None, engine=engine)


@dataclasses.dataclass
class KeepOptions:
    """What is kept, and how."""

    layers: Annotated[
        list[str],
        _option(
            "--layers",
            help="Names, aliases or globs, with commas; default: the last pooling and after.",
            panel=COST,
        ),
    ] = dataclasses.field(default_factory=list)
    keep: Annotated[
        list[str],
        _option("--keep", help="LAYER=full, mean or sketch:K; repeatable.", panel=COST),
    ] = dataclasses.field(default_factory=list)
    dtype: Annotated[str, _option("--dtype", help="float32 or float16.", panel=COST)] = "float32"
    engine: Annotated[str, _option("--engine", help=ENGINE_HELP, panel=COST)] = "auto"
    max_memory: Annotated[
        str, _option("--max-memory", help="For activations, e.g. 2GiB.", panel=COST)
    ] = "2GiB"
    threads: Annotated[
        int | None, _option("--threads", help="CPU threads of the network.", panel=COST)
    ] = None
    measure: Annotated[
        Path | None,
        _option(
            "--similarity",
            help="Also measure similarity in the same sweep, into this file.",
            panel=COST,
        ),
    ] = None
    measure_layers: Annotated[
        list[str],
        _option("--similarity-layers", help="Of these layers, kept or not.", panel=COST),
    ] = dataclasses.field(default_factory=lambda: ["*"])

    def check(self) -> None:
        """Refuse choices that are none, and set the number of threads."""
        from elsewhere.recording import parse_keeps

        choose("dtype", self.dtype, ("float32", "float16"))
        choose("engine", self.engine, ENGINES)
        parse_bytes(self.max_memory)
        parse_keeps(self.keep)
        if self.measure is None and self.measure_layers != ["*"]:
            raise InputError("--similarity-layers has no use without --similarity FILE; give both")
        set_threads(self.threads)

    def header(self, seed: int) -> dict[str, Any]:
        """Return what `plan` and `record` take of these options."""
        from elsewhere.recording import parse_keeps

        return {
            "keep": parse_keeps(self.keep),
            "dtype": self.dtype,
            "seed": seed,
            "max_memory": self.max_memory,
        }


def choose(kind: str, name: str, known: Sequence[str]) -> None:
    """Refuse a name that is not among the known ones."""
    if name not in known:
        raise UnknownNameError(kind, name, known)


def is_file(source: str) -> bool:
    """Return whether `source` means a file rather than a model."""
    from elsewhere.storage.files import is_file as is_file_there

    path = Path(source)
    if path.suffix == ".safetensors":  # a checkpoint
        return False
    named = path.suffix in {".h5", ".hdf5", ".nc"} or "/" in source or source in (".", "..")
    return named or is_file_there(path)


def open_source(path: Path, *, allow_partial: bool = False) -> Recording:
    """Open a recording; a folder is refused; what share is there of an unfinished one is said."""
    from elsewhere.storage import open_recording
    from elsewhere.storage.files import is_folder

    if is_folder(path):
        raise StorageError(f"{path} is a folder; expected a recording such as run.h5")
    recording = open_recording(path, allow_partial=allow_partial)
    if recording.share < 1:
        shape = " x ".join(map(str, recording.design.shape))
        say(
            f"{path} is not finished: {recording.share:.1%} of it is there, of which {shape} "
            "locations with every object are taken"
        )
    return recording


def refuse_live_options(source: str, network: ModelOptions, stimuli: StimulusOptions) -> None:
    """Refuse options that a recording has answered already."""
    given = [
        name
        for name in given_options(network, stimuli)
        if name not in ("--seed", "--device", "--reference", "--trust-factory")
    ]
    if given:
        raise InputError(
            f"{source} is a file, recorded as it is: {', '.join(given)} would change nothing; "
            "leave out what belongs to a live sweep, or name a model"
        )


def recorded_reference(recording: Recording, text: str) -> tuple[int, int]:
    """Return the location that `text` names on a recording's canvas and grid."""
    from elsewhere.stimuli import Canvas, Grid, parse_location

    header = recording.attributes
    canvas = Canvas(int(header["canvas"]), int(header["object_size"]))
    axes = dict(recording.design.axes)
    return parse_location(text, canvas, Grid(axes["y"], axes["x"]))


def match_layers(recording: Recording, patterns: Sequence[str]) -> list[str]:
    """Return the names of a recording's layers that names or globs mean."""
    names: list[str] = []
    for wanted in filter(None, map(str.strip, ",".join(patterns).split(","))):
        pattern = wanted.replace("[", "[[]")  # brackets belong to names of outputs
        found = [
            layer.name
            for layer in recording.layers
            if fnmatchcase(layer.name, pattern) or fnmatchcase(layer.module, pattern)
        ]
        names += found or [recording.layer(wanted).name]
    if not names:
        raise InputError("no layer is asked for; name at least one, or leave the option out")
    return list(dict.fromkeys(names))


def describe(sweep: Sweep, wanted: Any) -> str:
    """Return in one line what is swept."""
    shape = " x ".join(map(str, sweep.design.shape))
    return (
        f"{sweep.model.name} ({sweep.model.weights}), {counted(len(sweep.objects), 'object')} of "
        f"{sweep.canvas.object_size} px at {shape} locations of a {sweep.canvas.size} px canvas; "
        f"engine {sweep.choice}; {counted(len(wanted), 'layer')}"
    )


def check_room(
    out: Path,
    source: Any,
    layers: Sequence[str] | None,
    *,
    places: int = 1,
    measures: int = 0,
    table: Path | None = None,
    readout: Path | None = None,
) -> None:
    """Refuse the result of a recording or sweep that will not fit the disk, before any work.

    Parameters
    ----------
    out
        The netCDF file to write.
    source
        The recording or sweep.
    layers
        Names of its layers; all by default.
    places
        How many locations all others are held against, one by one.
    measures
        How many values there are for each two locations.
    table
        The table of them to write, too.
    readout
        The readout of the last of these layers to write, too.
    """
    from elsewhere.storage import check_result_room, result_bytes, table_bytes

    chosen = [layer for layer in source.layers if layers is None or layer.name in layers]
    n_objects, n_positions = len(source.design.objects), source.design.n_positions
    each = places * n_objects + measures * n_positions
    n_values, beside = len(chosen) * n_positions * each, {}
    if table is not None:
        beside[table] = table_bytes(table, n_values)
    if readout is not None:
        n_weights = len(set(source.design.categories)) * math.prod(chosen[-1].shape)
        beside[readout] = result_bytes(n_weights // 2)  # of single precision
    check_result_room(out, n_values, beside=beside)


def set_threads(threads: int | None) -> None:
    """Set torch's number of CPU threads, if one is given."""
    if threads is None:
        return
    if threads < 1:
        raise InputError(f"--threads must be at least 1; got {threads}")
    import torch

    torch.set_num_threads(threads)


def option_values(options: Any) -> dict[str, Any]:
    """Return the options of a group by name."""
    return {field.name: getattr(options, field.name) for field in dataclasses.fields(options)}


def given_options(*groups: Any) -> list[str]:
    """Return the names, as on the command line, of options that are not at their default."""
    names = []
    for group in groups:
        plain, types = type(group)(), get_type_hints(type(group), include_extras=True)
        for name, value in option_values(group).items():
            if value != getattr(plain, name):
                names.append(types[name].__metadata__[0].default)  # typer: the first name
    return names


def takes(
    *groups: type, without: Collection[str] = ()
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of `groups`; it receives one instance of each.

    Options named in `without` are left at their default.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command)
        hints = get_type_hints(command, include_extras=True)
        own = [p for p in signature.parameters.values() if p.annotation not in _names(groups)]
        own = [p.replace(annotation=hints[p.name], kind=p.KEYWORD_ONLY) for p in own]
        slots = {name: group for name, hint in hints.items() for group in groups if hint is group}
        shared = []
        for group in groups:
            types = get_type_hints(group, include_extras=True)
            for field in dataclasses.fields(group):
                if field.name in without:
                    continue
                default = field.default
                if field.default_factory is not dataclasses.MISSING:
                    default = field.default_factory()
                shared.append(
                    inspect.Parameter(
                        field.name,
                        inspect.Parameter.KEYWORD_ONLY,
                        default=default,
                        annotation=types[field.name],
                    )
                )

        def call(**given: Any) -> None:
            arguments = {
                name: group(
                    **{
                        field.name: given.pop(field.name)
                        for field in dataclasses.fields(group)
                        if field.name not in without
                    }
                )
                for name, group in slots.items()
            }
            command(**given, **arguments)

        parameters = [*own, *shared]
        call.__name__, call.__doc__ = command.__name__, command.__doc__
        call.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        call.__annotations__ = {p.name: p.annotation for p in parameters}
        return call

    return decorate


def _names(groups: tuple[type, ...]) -> set[Any]:
    return {group.__name__ for group in groups} | set(groups)
