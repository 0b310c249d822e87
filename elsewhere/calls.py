"""The commands as functions of Python: ``elsewhere.similarity("vgg16", objects="novel")``.

Each takes what its command takes, the options by their names with ``_`` for ``-``, and returns what
the command writes: a result, or the path of a recording, a run or a report. What is in memory, a
recording that is open, a sweep, arrays, a network, goes to the function of the library that the
command calls, with the same names.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import shlex
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from elsewhere import cli
from elsewhere.commands.training import training_bar
from elsewhere.errors import InputError, UnknownNameError
from elsewhere.forms import matching
from elsewhere.registry import loaded
from elsewhere.terminal import as_function, progress

if TYPE_CHECKING:
    import xarray

Function = TypeVar("Function", bound=Callable[..., Any])

LIBRARY = {
    "similarity": ("elsewhere.analyzer:similarity", {}),
    "measure": ("elsewhere.analyzer:measure", {}),
    "probe": ("elsewhere.probes:probe", {"probe": "kind", "folds": "n_folds"}),
    "attribute": ("elsewhere.analyzer.attribution:attribute", {"join": "others", "out": "path"}),
    "accuracy": ("elsewhere.analyzer:accuracy", {"trained_at": "trained", "labels": "classes"}),
    "record": ("elsewhere.recording:record", {"out": "path"}),
    "compare": ("elsewhere.analyzer:compare", {}),
    "train": ("elsewhere.training:train", {"axis": "axes", "trust_factory": "trust"}),
}
"""What a command calls, and what that has other names for than the options."""

SETTINGS = {"option": "options", "extra": "extras", "perturbations": "n_perturbations"}
"""Options of ``attribute`` that its settings have other names for."""

DOING = {
    "similarity": "comparing",
    "measure": "measuring",
    "probe": "probing",
    "attribute": "attributing",
    "accuracy": "classifying",
    "record": "recording",
}
"""What bars say."""


# --- a command


@functools.cache
def _commands() -> Mapping[str, Any]:
    commands: Mapping[str, Any] = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
    return commands


@functools.cache
def parameters(name: str) -> dict[str, Any]:
    """Return the parameters of a command by their names in Python; first its arguments."""
    found = {}
    if name not in _commands():
        raise InputError(f"this installation has no command {name}; install a later version")
    for each in _commands()[name].params:
        is_option = each.param_type_name == "option"
        longest = max(each.opts, key=len)
        found[longest.lstrip("-").replace("-", "_") if is_option else each.name] = each
    found.pop("json", None)
    return dict(sorted(found.items(), key=lambda item: item[1].param_type_name == "option"))


def mirrors(function: Function) -> Function:
    """Return a function of Python that shows the options of the command of its name."""
    if function.__name__ not in _commands():
        return function  # and says so when it is called
    named = parameters(function.__name__)
    kinds = inspect.Parameter
    shown, lines = [], []
    for name, each in named.items():
        is_option = each.param_type_name == "option"
        kind = kinds.KEYWORD_ONLY if is_option and name != "out" else kinds.POSITIONAL_OR_KEYWORD
        default = kinds.empty if each.required and name != "out" else each.default
        shown.append(kinds(name, kind, default=default))
        lines += [name, f"    {each.help or 'See the command.'}"]
    shown.append(kinds("progress", kinds.KEYWORD_ONLY, default=None))
    lines += ["progress", "    True, False, or what is called with what is done and in all; by"]
    lines += ["    default a bar in notebooks."]
    shown.sort(key=lambda each: (each.kind, each.default is not kinds.empty))
    function.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
    indented = "\n".join(f"    {line}" for line in ("Parameters", "----------", *lines))
    function.__doc__ = f"{function.__doc__}\n\n{indented}\n"
    return function


def _run(name: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """Run a command, and return the file that it wrote, or the result in it."""
    named = parameters(name)
    report = options.pop("progress", None)
    given = _named(name, arguments, options)
    for key in given:
        if key not in named:
            raise UnknownNameError(f"option of {name}", key, [*named, "progress"])
    line = shlex.join(["elsewhere", name, *_words(named, given)])
    results = "out" in named and name not in ("record", "train", "report")
    with tempfile.TemporaryDirectory(prefix="elsewhere-") as folder, as_function(line, report):
        if results and given.get("out") is None:
            given["out"] = Path(folder) / "result.nc"
        _invoke(name, _words(named, given))
        if given.get("serve"):
            return None
        if given.get("out") is None or not Path(given["out"]).exists():
            raise InputError(f"{name} was asked for nothing; give its source, and what is wanted")
        if not results:
            return Path(given["out"])
        return _library("elsewhere.storage:load_result")(given["out"])


def _named(name: str, arguments: tuple[Any, ...], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is given by name: first come the command's arguments, then ``out``."""
    each = [key for key, known in parameters(name).items() if known.param_type_name == "argument"]
    order = [*each, "out"]
    if each and parameters(name)[each[-1]].nargs == -1:
        return {each[-1]: list(arguments), **options}
    if len(arguments) > len(order):
        raise InputError(f"{name} takes {', '.join(order)} in this order; give the rest by name")
    found = dict(zip(order, arguments, strict=False))
    if twice := sorted(found.keys() & options.keys()):
        raise InputError(f"{name} is given {', '.join(twice)} twice; give it once")
    return {**found, **options}


def _words(named: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """Return the words of a command line."""
    words, last = [], []
    for name, value in given.items():
        parameter = named[name]
        if value is None:
            continue
        if parameter.param_type_name == "argument":
            many = parameter.nargs == -1
            last += [str(each) for each in value] if many else [_text(name, value)]
        elif parameter.is_flag:
            words += _flag(parameter, name, value)
        else:
            texts = _texts(name, value) if parameter.multiple else [_text(name, value)]
            words += [f"{max(parameter.opts, key=len)}={text}" for text in texts]
    return [*words, "--", *last] if any(map(_dashed, last)) else [*last, *words]


def _dashed(text: str) -> bool:
    return text.startswith("-")


def _flag(parameter: Any, name: str, value: Any) -> list[str]:
    if not isinstance(value, bool):
        raise InputError(f"{name} is {value!r}; expected True or False")
    names = parameter.opts if value else parameter.secondary_opts
    return [max(names, key=len)] if names else []


def _texts(name: str, value: Any) -> list[str]:
    """Return the texts of an option that can be given several times."""
    if isinstance(value, Mapping):
        return [f"{key}={_text(name, each)}" for key, each in value.items()]
    if isinstance(value, list | tuple):
        return [_text(name, each) for each in value]
    return [_text(name, value)]


def _text(name: str, value: Any) -> str:
    """Return a value as a command line has it: ``(112, 25)`` is ``112,25``."""
    if isinstance(value, list | tuple):
        inner = ";" if any(isinstance(each, list | tuple) for each in value) else ","
        return inner.join(_text(name, each) for each in value)
    if isinstance(value, str | Path | int | float):
        return str(value)
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:  # a number of NumPy
        return str(value.item())
    raise InputError(
        f"{name} is a {type(value).__name__}; expected what the command takes: a text, a number, a "
        "path, or several of them"
    )


def _invoke(name: str, words: list[str]) -> None:
    usage: Any = typer.BadParameter.__mro__[1]  # whoever's click it is
    try:
        with _commands()[name].make_context(name, words) as context:
            _commands()[name].invoke(context)
    except usage as error:
        raise InputError(f"{name}: {error.format_message()}") from error


# --- the library


def _library(target: str) -> Any:
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _call(name: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """Run a command, or, of what is in memory, what it calls."""
    first = next(iter(parameters(name)))
    if not arguments and first in options:
        arguments = (options.pop(first),)
    source = arguments[0] if arguments else None
    if source is None or isinstance(source, str | Path):
        return _run(name, arguments, options)
    network = (*loaded("torch.nn", "Module"), *loaded("elsewhere.models.model", "Model"))
    in_words = name != "record" or isinstance(options.get("objects"), str)
    if isinstance(source, network) and in_words:
        source, options = _swept(name, source, options)
        arguments = (source, *arguments[1:])
    return _measure(name, arguments, options)


def _swept(name: str, network: Any, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Return the sweep of a network in memory that options ask for, and the other options."""
    request = _library("elsewhere.recording:request_sweep")
    group = inspect.signature(_library("elsewhere.options:StimulusOptions")).parameters
    shown = {"axis" if each == "axes" else each for each in group} - {"given", "devices"} | {
        "engine",
        "tokens",
    }
    left = {key: value for key, value in options.items() if key not in shown}
    asked = {key: options[key] for key in shown if options.get(key) is not None}
    model = _library("elsewhere.models.loading:as_model")(network)
    layers = left.pop("layers", None)
    if name == "accuracy":
        layers = [left.get("layer") or _library("elsewhere.models:OUTPUT")]
    objects = asked.get("objects")
    if isinstance(objects, _library("elsewhere.stimuli:ObjectSet")):
        if "axis" in asked:
            parse = _library("elsewhere.stimuli.transformations:parse_axis")
            asked["axes"] = [parse(each) for each in _texts("axis", asked.pop("axis"))]
        return _library("elsewhere.recording:Sweep")(model, layers=layers, **asked), left
    words = ("reference", "background", "background_color", "categories")
    for key in words:
        if key in asked:
            asked[key] = _text(key, asked[key])
    if "axis" in asked:
        asked["axes"] = _texts("axis", asked.pop("axis"))
    return request(model, layers, seed=options.get("seed", 0), **asked), left


def _measure(name: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """Call a function of the library with options as the command calls them."""
    target, renamed = LIBRARY[name]
    function = _library(target)
    report = options.pop("progress", None)
    out, overwrite = None, False
    taken = inspect.signature(function).parameters
    if "path" not in taken and name != "train":
        out, overwrite = options.pop("out", None), bool(options.pop("overwrite", False))
        if len(arguments) > 1 and isinstance(arguments[-1], str | Path):
            arguments, out = arguments[:-1], arguments[-1]
    given = {renamed.get(key, key): value for key, value in options.items()}
    if name == "attribute":
        given = _with_settings(given)
    source = arguments[0]
    if name != "record" and given.get("layers") is not None and hasattr(source, "design"):
        given["layers"] = _layers(source, given["layers"])
    known = parameters(name)
    var = any(each.kind is each.VAR_KEYWORD for each in taken.values())
    for key in given if not var else ():
        if key not in taken and key in known:
            raise InputError(
                f"{type(source).__name__} is measured as it is, and {key} would change nothing; "
                "leave out what belongs to a network that is named"
            )
        if key not in taken:
            raise UnknownNameError(f"option of {name}", key, [*taken])
    if out is not None:
        _library("elsewhere.storage:check_output")(Path(out), overwrite=overwrite)
    with as_function("", report):
        if name == "compare":
            result = function(*arguments, **given)
        elif name == "train":
            with training_bar() as shown:
                return function(*arguments, **given, progress=shown)
        else:
            with progress(DOING[name]) as shown:
                result = function(*arguments, **given, progress=shown)
    if out is not None:
        _library("elsewhere.storage:save_result")(result, out, overwrite=overwrite)
    return result


def _layers(source: Any, wanted: str | list[str]) -> list[str]:
    """Return the names of a source's layers that names or globs with commas mean."""
    pattern = wanted if isinstance(wanted, str) else ",".join(wanted)
    known = [(layer.name, layer.module) for layer in source.layers]
    names: list[str] = []
    for each in filter(None, map(str.strip, pattern.split(","))):
        names += [known[place][0] for place in matching(each, known)] or [each]
    return list(dict.fromkeys(names))


def _with_settings(given: dict[str, Any]) -> dict[str, Any]:
    """Return the options of ``attribute`` with those of its settings in one object."""
    settings = _library("elsewhere.analyzer.attribution:AttributionSettings")
    fields = inspect.signature(settings).parameters
    own = {SETTINGS.get(key, key): value for key, value in given.items()}
    own = {key: value for key, value in own.items() if key in fields}
    if not own:
        return given
    left = {k: v for k, v in given.items() if SETTINGS.get(k, k) not in fields}
    if "settings" in left:
        raise InputError("give the settings, or their values by name, not both")
    return {**left, "settings": settings(**own)}


# --- the functions


@mirrors
def record(*arguments: Any, **options: Any) -> Path:
    """Record a network for every object at every location of the grid; return the file's path."""
    path: Path = _call("record", arguments, options)
    return path


@mirrors
def similarity(*arguments: Any, **options: Any) -> xarray.Dataset:
    """Compare every layer's code of an object here with that at the reference."""
    result: xarray.Dataset = _call("similarity", arguments, options)
    return result


@mirrors
def measure(*arguments: Any, **options: Any) -> xarray.Dataset:
    """Take measures of invariance by name."""
    result: xarray.Dataset = _call("measure", arguments, options)
    return result


@mirrors
def probe(*arguments: Any, **options: Any) -> xarray.Dataset:
    """Train a linear probe on every layer at one place, and test it at all the others."""
    result: xarray.Dataset = _call("probe", arguments, options)
    return result


@mirrors
def attribute(*arguments: Any, **options: Any) -> xarray.Dataset:
    """Map which pixels drive the answer at every location, in the object's own frame."""
    result: xarray.Dataset = _call("attribute", arguments, options)
    return result


@mirrors
def train(*arguments: Any, **options: Any) -> Path:
    """Train a network through a curriculum; return the run's directory."""
    path: Path = _call("train", arguments, options)
    return path


@mirrors
def track(*arguments: Any, **options: Any) -> xarray.Dataset:
    """Measure accuracy and similarity at every checkpoint of a run."""
    result: xarray.Dataset = _run("track", arguments, options)
    return result


@mirrors
def accuracy(*arguments: Any, **options: Any) -> xarray.Dataset:
    """Map the accuracy over the canvas, trained and held-out exemplars apart."""
    result: xarray.Dataset = _call("accuracy", arguments, options)
    return result


@mirrors
def compare(*arguments: Any, **options: Any) -> xarray.Dataset:
    """Set results, or files of results, side by side: several networks, conditions or seeds."""
    if arguments and isinstance(arguments[0], list | tuple):  # as the library takes them
        options |= dict(zip(("results", "names"), arguments, strict=False))
        arguments = tuple(options.pop("results"))
    if all(isinstance(each, str | Path) for each in arguments):
        result: xarray.Dataset = _run("compare", arguments, options)
        return result
    load, names = _library("elsewhere.storage:load_result"), options.pop("names", None)
    held = [load(each) if isinstance(each, str | Path) else each for each in arguments]
    names = names.split(",") if isinstance(names, str) else names
    result = _measure("compare", (held,), {**options, "names": names})
    return result


@mirrors
def report(*arguments: Any, **options: Any) -> Path | None:
    """Write one HTML file that tells what results say; return its path."""
    path: Path | None = _run("report", arguments, options)
    return path
