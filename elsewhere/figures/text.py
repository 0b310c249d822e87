"""Text in any script, as wide as it may be: fonts that have it, lines that fit."""

from __future__ import annotations

import bisect
import itertools
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal

from matplotlib import font_manager
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

from elsewhere.logs import get_logger

logger = get_logger(__name__)

BASE_FONT = "DejaVu Sans"
"""Ships with matplotlib, so a figure looks the same on every machine."""


# Boxes for every character; bitmaps; parts of mathematical symbols at codes of their own.
_UNFIT = ("Last Resort", "LastResort", "STIXNonUnicode", "STIXSize", "cmex", "cmsy", "cmmi")


@lru_cache(maxsize=1)
def _families() -> dict[str, str]:
    """Return the installed families that have an upright face of normal weight, and its file."""
    return {
        entry.name: entry.fname
        for entry in sorted(font_manager.fontManager.ttflist, key=lambda entry: entry.name)
        if entry.style == "normal"
        and entry.weight in (400, "normal", "regular")
        and not entry.name.startswith(_UNFIT)
        and "Emoji" not in entry.name
    }


@lru_cache(maxsize=1024)
def _characters(family: str) -> frozenset[int]:
    """Return the characters that `family` draws as outlines."""
    try:
        font = font_manager.get_font(_families()[family])
        return frozenset(font.get_charmap()) if font.scalable else frozenset()
    except (OSError, RuntimeError, ValueError) as error:
        logger.debug("the font %s cannot be read: %s", family, error)
        return frozenset()


@lru_cache(maxsize=4096)
def _font_with(code: int) -> str | None:
    """Return an installed family that has the character `code`, if there is one."""
    return next((family for family in _families() if code in _characters(family)), None)


def clean_text(text: object) -> str:
    """Return `text` on one line, characters without a shape of their own as ``U+XXXX``.

    Those are characters that no installed font has, and marks that steer, such as the direction of
    writing.

    Examples
    --------
    >>> clean_text("a\\tb \\ud800 \\u202e")
    'a b U+D800 U+202E'
    """
    return _clean(str(text))


@lru_cache(maxsize=4096)  # names are shortened to many lengths before one fits
def _clean(text: str) -> str:
    known, parts = _characters(BASE_FONT), []
    for character in " ".join(text.split()):
        code = ord(character)
        if character.isprintable() and (code in known or _font_with(code) is not None):
            parts.append(character)
        else:
            parts.append(f"U+{code:04X}")
    return "".join(parts)


def text_style(*texts: str) -> dict[str, Any]:
    """Return the properties with which `texts` are drawn literally, in fonts that have them."""
    known = _characters(BASE_FONT)
    families = [BASE_FONT]
    for code in sorted({ord(character) for text in texts for character in text} - known):
        family = _font_with(code)
        if family is not None and family not in families:
            families.append(family)
    return {"parse_math": False, "fontfamily": families}


def shorten(text: object, length: int, *, keep: Literal["start", "end", "both"] = "start") -> str:
    """Return `text` in at most `length` characters, an ellipsis for what was left out.

    Examples
    --------
    >>> shorten("features.denseblock3.conv2", 12, keep="end")
    '…lock3.conv2'
    >>> shorten("greek_omega_capital", 9, keep="both")
    'gree…ital'
    """
    whole, length = clean_text(text), max(length, 2)
    if len(whole) <= length:
        return whole
    if keep == "end":
        return "…" + whole[-(length - 1) :].lstrip("._")
    tail = (length - 1) // 2 if keep == "both" else 0
    return whole[: length - 1 - tail] + "…" + whole[len(whole) - tail :]


def shorten_apart(
    names: Sequence[object], length: int, *, keep: Literal["start", "end", "both"] = "end"
) -> list[str]:
    """Return `names` in at most `length` characters each, such that different ones stay different.

    Where :func:`shorten` would give several names one label, these are cut to the stretch in which
    they differ; where that does not fit either, they are numbered.

    Examples
    --------
    >>> shorten_apart([f"encoder.layers.layer_{i}.attention" for i in (3, 11)], 10)
    ['…ayer_3.a…', '…ayer_11.…']
    >>> shorten_apart(["conv1", "a.rather.long.conv2"], 12)
    ['conv1', '…long.conv2']
    """
    whole = list(dict.fromkeys(clean_text(name) for name in names))
    labels = {name: shorten(name, length, keep=keep) for name in whole}

    def shared() -> list[list[str]]:
        groups = [[w for w in whole if labels[w] == label] for label in set(labels.values())]
        return [group for group in groups if len(group) > 1]

    for alike in shared():
        same = itertools.takewhile(lambda column: len(set(column)) == 1, zip(*alike, strict=False))
        prefix = "".join(column[0] for column in same)
        start = max(prefix.rfind(".") + 1, len(prefix) - length // 2, 0)
        for name in alike:
            labels[name] = shorten("…" * bool(start) + name[start:].lstrip("._"), length)
    if shared():
        room = length - 1 - len(str(len(whole)))
        labels = {w: f"{shorten(w, room, keep=keep)}#{n}" for n, w in enumerate(whole, start=1)}
    return [labels[clean_text(name)] for name in names]


@lru_cache(maxsize=4096)
def text_width(text: str, size: float) -> float:
    """Return how wide `text` is at `size` points, inches: of several lines, the widest."""
    if "\n" in text:
        return max(text_width(line, size) for line in text.split("\n"))
    font = FontProperties(family=text_style(text)["fontfamily"], size=size)
    width, _, _ = text_to_path.get_text_width_height_descent(text, font, False)
    return float(width) / 72


def wrap(text: str, width: float, size: float, *, marks: bool = False) -> str:
    """Return `text` in lines that fit `width` inches at `size` points.

    Lines end between parts (``·``) where these fit, else between words, and with `marks` else after
    one within a word (``features.|denseblock3``). No word is broken; one that is too long by itself
    is shortened.
    """
    lines: list[str] = []
    line = ""
    for part in clean_text(text).split(" · "):
        joined = f"{line} · {part}" if line else part
        if text_width(joined, size) <= width:
            line = joined
            continue
        lines, line = [*lines, line] if line else lines, ""
        for word in part.split(" "):
            joined = f"{line} {word}" if line else word
            if text_width(joined, size) > width:
                lines = [*lines, line] if line else lines
                pieces = _pieces(word, width, size) if marks else [fitting(word, width, size)]
                *before, joined = pieces
                lines += before
            line = joined
    return "\n".join([*lines, line])


def _pieces(word: str, width: float, size: float) -> list[str]:
    """Return a word in the lines that it takes, broken after marks that part names."""
    if text_width(word, size) <= width:
        return [word]
    lines = [""]
    for piece in re.findall(r"[^._/:,=-]*[._/:,=-]*(?![._/:,=-])", word):
        if text_width(lines[-1] + piece, size) <= width:
            lines[-1] += piece
        elif piece:
            lines.append(fitting(piece, width, size))
    return [line for line in lines if line]


def labels_in(names: Sequence[object], width: float, size: float, *, most: int = 4) -> list[str]:
    """Return `names` in up to `most` lines of `width` inches, different ones staying different.

    Examples
    --------
    >>> labels_in(["raw pixels", "blocks.1.conv_pwl (mean)"], 0.7, 7)
    ['raw pixels', 'blocks.1.\\nconv_pwl\\n(mean)']
    """

    def lined(name: str) -> str:
        # no letter is narrower than a quarter of an em
        length = min(len(name), int(most * width * 72 / (0.25 * size)) + 2)
        while True:
            shown = shorten(name, length, keep="end")
            label = wrap(shown, width, size, marks=True)
            whole = label.count("\n") < most and label.count("…") == shown.count("…")
            if whole or length < 4:
                return label
            length = int(0.92 * length)

    whole = [clean_text(name) for name in names]
    labels = [lined(name) for name in whole]
    if len(set(labels)) < len(set(whole)):
        cut = shorten_apart(whole, max(int(width * 72 / (0.62 * size)), 5))
        labels = [fitting(name, width, size) for name in cut]
        labels = labels if len(set(labels)) == len(set(whole)) else cut
    return labels


def fitting(text: str, width: float, size: float) -> str:
    """Return `text`, its middle left out as much as it has to fit `width` inches."""
    # no letter is narrower than a quarter of an em
    most = max(3, min(len(text), int(width * 72 / (0.25 * size)) + 2))
    longest = shorten(text, most, keep="both")
    if text_width(longest, size) <= width:
        return longest
    lengths = range(3, most)
    place = bisect.bisect_left(
        lengths, True, key=lambda n: text_width(shorten(text, n, keep="both"), size) > width
    )
    return shorten(text, lengths[place - 1] if place else 3, keep="both")
