"""Names of networks and of their layers, and the reading of ``--model-arg``; imports no torch.

A factory's name in a file (a checkpoint's card, a recording, a curriculum) would let whoever wrote
the file choose which program runs: see docs/security.md.
"""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elsewhere.errors import InputError, UnknownNameError
from elsewhere.forms import matching as matching
from elsewhere.registry import Registry, loaded

if TYPE_CHECKING:
    from torch import nn

OUTPUT = "(output)"
"""The name of the network's own output, among layers and where behaviour is observed."""

model_registry: Registry[Callable[..., nn.Module]] = Registry("model")
"""Names to functions that build a network from keyword arguments."""

for _name, _summary in {
    "vgg11": "VGG with 8 convolutions and a flattening head (torchvision)",
    "vgg11_bn": "VGG11 with batch normalisation (torchvision)",
    "vgg13": "VGG with 10 convolutions and a flattening head (torchvision)",
    "vgg13_bn": "VGG13 with batch normalisation (torchvision)",
    "vgg16": "VGG with 13 convolutions and a flattening head (torchvision)",
    "vgg16_bn": "VGG16 with batch normalisation (torchvision)",
    "vgg19": "VGG with 16 convolutions and a flattening head (torchvision)",
    "vgg19_bn": "VGG19 with batch normalisation (torchvision)",
    "alexnet": "5 convolutions and a flattening head (torchvision)",
    "resnet18": "residual network, global average pooling (torchvision)",
    "resnet50": "residual network with bottlenecks, global average pooling (torchvision)",
    "densenet121": "densely connected network, global average pooling (torchvision)",
    "googlenet": "Inception v1, global average pooling (torchvision)",
}.items():
    model_registry.add(_name, f"torchvision.models:{_name}", summary=_summary)

for _depth in (11, 13, 16, 19):
    model_registry.add(
        f"vgg{_depth}-slim",
        f"elsewhere.models.zoo:vgg{_depth}_slim",
        summary=f"VGG{_depth}'s topology with fewer channels; width, hidden, canvas (64 px)",
    )
model_registry.add(
    "small-cnn",
    "elsewhere.models.zoo:small_cnn",
    summary="4 convolutions, each pooled, and a flattening head; channels, hidden, canvas (48 px)",
)
for _name, _summary in {
    "alexnet-slim": "AlexNet's topology with fewer channels; width, hidden, canvas (64 px)",
    "googlenet-slim": "GoogLeNet's topology with fewer channels; width, canvas (64 px)",
    "resnet18-slim": "ResNet-18's topology with fewer channels; width, canvas (64 px)",
    "densenet-slim": "densely connected network of 4 blocks of 4 layers; growth, canvas (64 px)",
    "convnext-slim": "ConvNeXt with fewer channels; width, patch, canvas (64 px)",
    "vit-slim": "vision transformer; width, patch, layers, canvas (64 px)",
    "swin-slim": "Swin transformer of 3 stages; width, canvas (64 px)",
}.items():
    model_registry.add(_name, f"elsewhere.models.slim:{_name.replace('-', '_')}", summary=_summary)

model_registry.add(
    "scattering",
    "elsewhere.models.scattering:Scattering",
    summary="wavelet scattering and a linear head (Bruna & Mallat 2012); J, L, canvas (64 px)",
)

variant_registry: Registry[Callable[[nn.Module], None]] = Registry("variant")
"""Names to functions that change one thing of a network; applied in this order."""

for _name, _function, _summary in (
    ("stride1", "keep_every_cell", "every stride is 1: no cell is left out"),
    ("blurpool", "blur_pools", "maps are blurred before cells are left out (Zhang 2019)"),
    ("aps", "choose_phases", "the phase with the largest norm is kept (Chaman & Dokmanic 2021)"),
    (
        "hermite",
        "hermite:confine_filters",
        "filters of a Gauss-Hermite basis (Sundaramoorthi & Wang 2019)",
    ),
    ("circular", "pad_circularly", "every map continues on its other side"),
    ("reflect", "pad_by_reflection", "padding mirrors the map"),
    ("valid", "pad_nothing", "no padding (Kayhan & van Gemert 2020)"),
    ("full", "pad_fully", "padding of a whole kernel (Kayhan & van Gemert 2020)"),
    ("gap", "pool_globally", "global average pooling instead of flattening (Blything et al. 2020)"),
    (
        "stn",
        "spatial_transformer:look_first",
        "a spatial transformer in front (Jaderberg et al. 2015)",
    ),
):
    _function = _function if ":" in _function else f"variants:{_function}"
    variant_registry.add(_name, f"elsewhere.models.{_function}", summary=_summary)

_ALTERNATIVES = {
    "the stride": ("stride1", "blurpool", "aps"),
    "the padding": ("circular", "reflect", "valid", "full"),
}
"""Variants of which a network can have one."""

for _number, _side in enumerate((224, 240, 260)):
    model_registry.add(
        f"efficientnet-lite{_number}",
        f"elsewhere.models.efficientnet:lite{_number}",
        summary="depthwise convolutions, global average pooling, ImageNet weights in a package "
        f"(timm); canvas {_side} px",
    )


def model_names() -> tuple[str, ...]:
    """Return the names of the zoo, in its own order.

    Any other classification model of torchvision, and any ``package.module:factory``, can be
    loaded as well.

    Examples
    --------
    >>> model_names()[:3]
    ('vgg11', 'vgg11_bn', 'vgg13')
    """
    return tuple(model_registry)


def is_factory(name: str) -> bool:
    """Return whether `name` means a factory, not a network of the zoo or of torchvision."""
    return ":" in name


_NAMED_IN_PYTHON: set[str] = set()


def split_variants(name: str) -> tuple[str, tuple[str, ...]]:
    """Return the network that a name begins with, and its variants in the registry's order.

    Raises
    ------
    UnknownNameError
        The rest of the name is not made of variants.
    InputError
        A variant is given twice, or two of which each takes the other's place.

    Examples
    --------
    >>> split_variants("vgg16-slim-gap-circular")
    ('vgg16-slim', ('circular', 'gap'))
    """
    base, given = name, list[str]()
    while base not in model_registry and base not in torchvision_names() and "-" in base:
        base, _, last = base.rpartition("-")
        given.insert(0, last)
    if base not in model_registry and base not in torchvision_names():
        return name, ()
    for variant in given:
        if variant not in variant_registry:
            raise UnknownNameError(f"variant of {base}", variant, list(variant_registry))
    if len(set(given)) < len(given):
        raise InputError(f"{name} names a variant twice; give each once")
    for what, those in _ALTERNATIVES.items():
        if len(both := [variant for variant in given if variant in those]) > 1:
            raise InputError(
                f"{name} names two variants of {what}, {both[0]} and {both[1]}; give one of them"
            )
    return base, tuple(each for each in variant_registry if each in given)


def name_in_python(name: str) -> None:
    """Take a factory for one that the user names, for the rest of this process.

    What a program of the user's has written itself, such as a curriculum made in Python, need not
    be named again to open what came of it.
    """
    _NAMED_IN_PYTHON.add(name)


def check_named(name: str, source: object, trust: Collection[str]) -> None:
    """Refuse a factory that a file, the `source`, names, unless it is among those that the user
    trusts.

    Raises
    ------
    InputError
        The message says which factory, and what to add.
    """
    if is_factory(name) and name not in trust and name not in _NAMED_IN_PYTHON:
        raise InputError(
            f"{source} names the factory {name!r}, and building it would run that program; if you "
            f"know it, add --trust-factory {name} (in Python: trust=[{name!r}])"
        )


@cache
def torchvision_names() -> tuple[str, ...]:
    """Return the names of torchvision's classification models, as its source registers them."""
    spec = importlib.util.find_spec("torchvision")
    folders = (spec.submodule_search_locations if spec else None) or ()
    sources = sorted(path for each in folders for path in (Path(each) / "models").glob("*.py"))
    pattern = re.compile(r"^@register_model\(\)\n(?:[@ )].*\n)*def (\w+)", re.M)
    found = [name for path in sources for name in pattern.findall(path.read_text("utf-8"))]
    return tuple(sorted(found))


def torchvision_part(name: str) -> Any:
    """Return a module of torchvision, imported when something of it is first asked for.

    It brings torch's compiler with it, which takes as long as torch itself.
    """
    return importlib.import_module(f"torchvision.{name}")


def inceptions() -> tuple[type[Any], ...]:
    """Return the classes of torchvision that may turn the published input into their own."""
    return loaded("torchvision.models", "GoogLeNet", "Inception3")


@cache
def torchvision_version() -> str:
    """Return ``torchvision.__version__``, read from its source where it is not imported.

    Examples
    --------
    >>> import torchvision
    >>> torchvision_version() == torchvision.__version__
    True
    """
    if (imported := sys.modules.get("torchvision")) is not None:
        return str(imported.__version__)
    spec = importlib.util.find_spec("torchvision")
    for folder in (spec.submodule_search_locations if spec else None) or ():
        source = Path(folder) / "version.py"
        text = source.read_text("utf-8") if source.is_file() else ""
        if found := re.search(r"^__version__ = ['\"](.+)['\"]$", text, re.M):
            return found[1]
    return str(importlib.import_module("torchvision").__version__)


def unknown_model(name: str) -> UnknownNameError:
    """Return the error of a network that nobody knows."""
    known = dict.fromkeys((*model_names(), *torchvision_names()))
    hint = "or package.module:factory, or path/to/file.py:factory, for a network of your own"
    if Path(name).suffix in (".safetensors", ".json", ".pth", ".pt", ".ckpt"):
        known, hint = {}, _of_file(Path(name))
    elif (Path(name) / "checkpoints").is_dir():
        known = {}
        hint = f"it is a run of training: name one of its checkpoints, {name}/checkpoints/..."
    elif Path(name).is_dir():
        hint = f"the folder {name} holds no run of training; {hint}"
    return UnknownNameError("model", name, known, hint)


def _of_file(path: Path) -> str:
    """Return what is missing where a network's name is a file's."""
    weights, card = path.with_suffix(".safetensors"), path.with_suffix(".json")
    if card.is_file() and not weights.is_file():
        return f"the file {weights} is missing, though its card is there"
    if weights.is_file():
        return (
            f"its card {card} is missing: copy it beside the checkpoint; other weights are given "
            "by --weights, after the name of their network"
        )
    if path.is_file():
        return "it is a file and no checkpoint; weights are given by --weights, after a MODEL"
    return f"there is no file {path}"


def check_model(name: str) -> None:
    """Refuse a name that is none of the zoo, of torchvision, or of a factory, without torch.

    Raises
    ------
    UnknownNameError
        With the nearest names.
    """
    base = name if is_factory(name) else split_variants(name)[0]
    known = is_factory(name) or base in model_registry or base in torchvision_names()
    if not known and torchvision_names():
        raise unknown_model(name)


def check_layers(model: str, wanted: Iterable[str]) -> None:
    """Refuse names of layers that a network of the zoo, as it stands, does not have, without torch.

    Names are as :func:`elsewhere.models.select_layers` takes them. Other networks pass.

    Raises
    ------
    UnknownNameError
        With the nearest names.
    """
    if model not in model_registry:
        return
    known = zoo_layers().get(model, ())
    for request in filter(None, (part.strip() for text in wanted for part in text.split(","))):
        # without a call, an output of several
        forms = [request] + [re.sub(r"(:\d+)?(\[[^\]]*\])?$", "", request)] * (
            "depth:" not in request
        )
        names = [(name, name) for name in (*known, OUTPUT)]
        if known and not any(matching(form, names) for form in forms):
            raise unknown_layer(model, request, known)


_HEADS = ("logits", "head", "fc", "classifier", "linear", "output", "fc_out", "last_linear")
IS_HEAD = "the layer that makes the network's output is called logits"


def unknown_layer(
    model: str, request: str, known: Iterable[str], hint: str = ""
) -> UnknownNameError:
    """Return the error of a layer that a network does not have."""
    listed = f"`elsewhere layers {model}` lists them"
    known = list(known)
    if request.lower() in _HEADS and "logits" in known:  # what is spelled alike is another layer
        return UnknownNameError("layer", request, (), f"{IS_HEAD}; {listed}")
    return UnknownNameError("layer", request, known, f"{hint}; {listed}" if hint else listed)


@cache
def zoo_layers() -> dict[str, Sequence[str]]:
    """Return aliases and modules of the zoo's networks with their default arguments."""
    found: dict[str, str] = json.loads(Path(__file__).with_name("zoo_layers.json").read_text())
    return {name: names.split() for name, names in found.items()}


def parse_model_args(texts: Iterable[str]) -> dict[str, object]:
    """Return the keyword arguments that ``key=value`` texts stand for.

    Parameters
    ----------
    texts
        One text per argument. Values are read as an integer, a number, ``true`` or ``false``,
        else kept as text.

    Raises
    ------
    InputError
        A text without ``=``, a key that is no identifier, or a key given twice.

    Examples
    --------
    >>> parse_model_args(["num_classes=10", "width=0.25", "batch_norm=true", "channels=8-16"])
    {'num_classes': 10, 'width': 0.25, 'batch_norm': True, 'channels': '8-16'}
    """
    arguments: dict[str, object] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        key = key.strip()
        if not equals or not key.isidentifier():
            raise InputError(
                f"cannot read the model argument {text!r}; expected key=value, "
                "for example num_classes=10"
            )
        if key in arguments:
            raise InputError(f"the model argument {key!r} is given twice; give it once")
        arguments[key] = _parse_value(value.strip())
    return arguments


def _parse_value(text: str) -> object:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
