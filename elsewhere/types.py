"""Small shared types and the parsing of sizes and colours."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

from elsewhere.errors import InputError

Color: TypeAlias = tuple[int, int, int]
Location: TypeAlias = tuple[int, int]
"""(y, x), in px of the canvas: the pixel at ``top + size // 2``, ``left + size // 2``."""

Metric: TypeAlias = Literal["cosine", "centred", "centred-by-place", "evoked", "pearson"]
Engine: TypeAlias = str
"""``auto``, or the name of an engine: ``dense``, ``incremental``, or one that was registered."""
AttributionMethod: TypeAlias = Literal[
    "integrated-gradients",
    "occlusion",
    "grad-cam",
    "saliency",
    "input-x-gradient",
    "gradient-shap",
    "deep-lift",
    "feature-ablation",
    "lrp",
    "guided-backprop",
]
BatchDependent: TypeAlias = Literal["refuse", "one-at-a-time"]
StorageType: TypeAlias = Literal["float32", "float16"]
Precision: TypeAlias = Literal["float32", "tf32", "bfloat16"]
"""What networks compute in; training takes ``tf32`` for float32 where a device has no TF32."""

Channels: TypeAlias = Literal["rgb", "bgr"]
Convention: TypeAlias = Literal["imagenet", "caffe-bgr", "inception", "unit", "timm"]
"""How pixels become a network's input, by name."""

BATCH_ROWS = 8
"""Every forward pass has exactly this many rows: results depend on the batch size."""

_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_UNITS |= {"kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}


def parse_bytes(text: str | int) -> int:
    """Return the number of bytes that `text` (``2GiB``, ``500 MB``, ``1000``) stands for.

    Examples
    --------
    >>> parse_bytes("2GiB")
    2147483648
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", str(text))
    if match is None or match.group(2).lower() not in _UNITS:
        raise InputError(f"cannot read {text!r} as a size; expected for example 2GiB or 500MB")
    return int(float(match.group(1)) * _UNITS[match.group(2).lower()])


def format_bytes(count: float) -> str:
    """Return `count` bytes in words.

    Examples
    --------
    >>> format_bytes(26_456_000_000)
    '24.6 GiB'
    """
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(count) < 1024 or unit == "TiB":
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError("unreachable")


def plain_text(text: str) -> str:
    r"""Return text that any file can hold: bytes of names that are not UTF-8 are written out.

    Examples
    --------
    >>> print(plain_text("caf\udce9"))
    caf\udce9
    """
    return text.encode("utf-8", "backslashreplace").decode()


_COLORS = {"black": 0, "grey": 128, "gray": 128, "white": 255}


def parse_color(text: str) -> Color:
    """Return the (red, green, blue) in 0..255 of ``white``, ``128``, ``10,20,30`` or ``#0a141e``.

    Examples
    --------
    >>> parse_color("#ff8000"), parse_color("7"), parse_color("1,2,3"), parse_color("grey")
    ((255, 128, 0), (7, 7, 7), (1, 2, 3), (128, 128, 128))
    """
    if text.lower() in _COLORS:
        return (_COLORS[text.lower()],) * 3
    if text == "1" or re.fullmatch(r"[01]?\.\d+(,[01]?\.\d+)*", text):
        levels = ",".join(f"{255 * min(float(value), 1):.0f}" for value in text.split(","))
        exact = ", or 1,1,1 for the level 1, which is nearly black" if text == "1" else ""
        raise InputError(
            f"cannot read {text!r} as a colour: levels run from 0 (black) to 255 (white); if a "
            f"share of white is meant, write {levels}{exact}"
        )
    if match := re.fullmatch(r"#([0-9a-fA-F]{6})", text):
        red, green, blue = bytes.fromhex(match.group(1))
        return red, green, blue
    values = [int(part) for part in text.split(",")] if re.fullmatch(r"\d+(,\d+)*", text) else []
    if len(values) == 1:
        values *= 3
    if len(values) != 3 or max(values) > 255:
        raise InputError(
            f"cannot read {text!r} as a colour; expected black, grey, white, a value 0..255, R,G,B "
            "or #RRGGBB"
        )
    return values[0], values[1], values[2]


COMPARED: Mapping[str, str] = MappingProxyType(
    {
        "similarity": "same object elsewhere",
        "baseline": "other object elsewhere",
        "baseline_same": "other object, same place",
        "G": "invariance (G)",
    }
)
"""What a similarity compares, in words: the same in figures, tables, files and docs."""

WHERE: Mapping[str, str] = MappingProxyType(
    {
        "on": "on the trained locations",
        "off": "off the trained locations",
        "far": "far from the trained locations",
    }
)
"""Where an accuracy is taken: ``far`` is an object's size or more from every trained location."""


def stem_of(attributes: Mapping[str, Any]) -> str:
    """Return what the variables of a similarity result begin with: its metric.

    Examples
    --------
    >>> stem_of({"metric": "centred-by-place(mean)"})
    'centred_by_place'
    """
    return str(attributes.get("metric") or "cosine").partition("(")[0].replace("-", "_")
