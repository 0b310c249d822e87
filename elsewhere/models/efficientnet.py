"""EfficientNet-Lite 0 to 2, as timm builds them (Tan & Le 2019; without squeeze-and-excitation).

`lite0`, `lite1`, `lite2`, `timm_names`, `import_timm`.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn

from elsewhere.errors import InputError
from elsewhere.models.caches import INSTALL, INSTALL_TIMM
from elsewhere.models.transform import InputTransform

INPUT = InputTransform(mean=(127 / 255,) * 3, std=(128 / 255,) * 3)
"""What their ImageNet weights were trained with: ``(pixel - 127) / 128``."""


def import_timm(name: str) -> Any:
    """Return the package timm, which builds `name`.

    Raises
    ------
    InputError
        It is not installed, or cannot be imported.
    """
    try:
        return importlib.import_module("timm")
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == "timm"
        reason = "which is not installed" if missing else f"which cannot be imported ({error})"
        remedy = INSTALL_TIMM if name.startswith("timm:") else INSTALL
        raise InputError(f"{name} is built by timm, {reason}; {remedy}") from error


def _make(number: int) -> Callable[..., nn.Module]:
    def build(
        *,
        num_classes: int = 1000,
        dropout: float = 0.0,
        stochastic_depth_prob: float = 0.0,
    ) -> nn.Module:
        timm = import_timm(f"efficientnet-lite{number}")
        if not isinstance(num_classes, int) or isinstance(num_classes, bool) or num_classes < 1:
            raise InputError(f"num_classes must be an integer above 0; got {num_classes!r}")
        for key, value in (("dropout", dropout), ("stochastic_depth_prob", stochastic_depth_prob)):
            if not 0 <= value < 1:
                raise InputError(f"{key} must lie from 0 up to below 1; got {value!r}")
        module: nn.Module = timm.create_model(
            f"tf_efficientnet_lite{number}",
            num_classes=num_classes,
            drop_rate=dropout,
            drop_path_rate=stochastic_depth_prob,
            pretrained_cfg_overlay={"mean": INPUT.mean, "std": INPUT.std},
        )
        return module

    build.__name__ = build.__qualname__ = f"lite{number}"
    build.__doc__ = f"Return EfficientNet-Lite{number}; in training too, nothing in it is random."
    return build


lite0, lite1, lite2 = map(_make, range(3))

_ENDS = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
_EXPANDED = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_PLAIN = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}


def timm_names(state: Mapping[str, torch.Tensor], own: Iterable[str]) -> Mapping[str, torch.Tensor]:
    """Return a state of the package ``efficientnet-lite-pytorch`` under the names that timm gives.

    Parameters
    ----------
    state
        Names to tensors; one in which nothing is named as that package does is returned as it is.
    own
        The names of timm's network. The package counts blocks through, ``_blocks.3``, timm within
        stages, ``blocks.2.0``; both in the order in which they are run. A prefix of the state's
        names, such as ``module.``, is taken off.
    """
    own, stem = set(own), "_conv_stem.weight"
    prefix = next((key.removesuffix(stem) for key in state if f".{key}".endswith(f".{stem}")), None)
    if prefix is None or "conv_stem.weight" not in own:
        return state
    places = {match[0] for key in own if (match := re.match(r"blocks\.\d+\.\d+", key))}
    blocks = sorted(places, key=lambda place: [int(part) for part in place.split(".")[1:]])

    def rename(given: str) -> str:
        first, *rest = given.removeprefix(prefix).split(".", 3)
        if given.startswith(prefix) and first in _ENDS:
            return ".".join([_ENDS[first], *rest])
        number, part, last = rest if first == "_blocks" and len(rest) == 3 else ("", "", "")
        if not number.isdecimal() or int(number) >= len(blocks):
            return given
        block = blocks[int(number)]
        names = _EXPANDED if f"{block}.conv_pwl.weight" in own else _PLAIN
        return f"{block}.{names.get(part, part)}.{last}"

    return {rename(key): value for key, value in state.items()}
