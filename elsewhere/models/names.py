"""The names of the zoo and the reading of ``--model-arg``; imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from elsewhere.errors import InputError
from elsewhere.registry import Registry

if TYPE_CHECKING:
    from torch import nn

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
