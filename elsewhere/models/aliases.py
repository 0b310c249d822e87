"""Layer names in the field's words: ``conv5_3``, ``relu5_3``, ``pool5``, ``fc6``, ``logits``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

from elsewhere.models.zoo import SlimVGG
from elsewhere.registry import loaded

_ALEXNET = {
    "conv1": "features.0",
    "relu1": "features.1",
    "pool1": "features.2",
    "conv2": "features.3",
    "relu2": "features.4",
    "pool2": "features.5",
    "conv3": "features.6",
    "relu3": "features.7",
    "conv4": "features.8",
    "relu4": "features.9",
    "conv5": "features.10",
    "relu5": "features.11",
    "pool5": "features.12",
    "fc6": "classifier.1",
    "relu6": "classifier.2",
    "fc7": "classifier.4",
    "relu7": "classifier.5",
    "logits": "classifier.6",
}


def aliases(module: nn.Module) -> dict[str, str]:
    """Return alias to module name for the layers of `module`, in network order.

    VGG networks, ours included, are named block by block (``conv1_1``, ``bn1_1``, ``relu1_1``,
    ``pool1``), with fully connected layers counted on from the last block (``fc6``, ``relu6``,
    ``drop6``); AlexNet layer by layer. Other networks have no aliases that their structure could
    tell; which layer makes the logits, a pass tells (:func:`elsewhere.models.heads.name_head`).

    Examples
    --------
    >>> from elsewhere.models.zoo import small_cnn
    >>> list(aliases(small_cnn(channels="4-8", canvas=16)).items())[2:5]
    [('pool1', 'features.2'), ('conv2_1', 'features.3'), ('relu2_1', 'features.4')]
    """
    vgg: tuple[type[Any], ...] = (SlimVGG, *loaded("torchvision.models", "VGG"))
    alexnet = loaded("torchvision.models", "AlexNet")
    if isinstance(module, vgg):
        found = dict(_vgg(module))
    elif isinstance(module, alexnet):
        found = dict(_ALEXNET)
    else:
        return {}
    forwards = [kind.forward for kind in (*vgg, *alexnet)]
    if type(module).forward not in forwards or module._forward_hooks:
        found.pop("logits", None)  # who knows what it does with what its classifier gives
    modules = dict(module.named_modules())
    return {
        alias: name for alias, name in found.items() if name in modules and alias not in modules
    }


def _vgg(module: nn.Module) -> Iterator[tuple[str, str]]:
    block, place = 1, 0
    for name, part in module.get_submodule("features").named_children():
        if isinstance(part, nn.Conv2d):
            place += 1
            yield f"conv{block}_{place}", f"features.{name}"
        elif isinstance(part, nn.BatchNorm2d):
            yield f"bn{block}_{place}", f"features.{name}"
        elif isinstance(part, nn.ReLU):
            yield f"relu{block}_{place}", f"features.{name}"
        elif isinstance(part, nn.MaxPool2d | nn.AvgPool2d):
            yield f"pool{block}", f"features.{name}"
            block, place = block + 1, 0
    yield from _classifier(module.get_submodule("classifier"), block)


def _classifier(classifier: nn.Module, first: int) -> Iterator[tuple[str, str]]:
    if isinstance(classifier, nn.Linear):
        yield "logits", "classifier"
        return
    parts = list(classifier.named_children())
    linear = [name for name, part in parts if isinstance(part, nn.Linear)]
    number = first - 1
    for name, part in parts:
        if isinstance(part, nn.Linear):
            number += 1
            alias = "logits" if name == linear[-1] else f"fc{number}"
            yield alias, f"classifier.{name}"
        elif number >= first and isinstance(part, nn.ReLU):
            yield f"relu{number}", f"classifier.{name}"
        elif number >= first and isinstance(part, nn.Dropout):
            yield f"drop{number}", f"classifier.{name}"
