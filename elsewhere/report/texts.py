"""Names as a page shows them."""

from __future__ import annotations

import re

_UNSEEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060"
    "\u2066-\u2069\ufeff\ud800-\udfff]"
)
"""Control characters, those that turn the direction of writing, and halves of characters."""


def seen(text: str) -> str:
    """Return a text in which nothing is hidden, or turns what stands after it around.

    Examples
    --------
    >>> seen("fc6" + chr(0x202E) + "1.0"), seen("\u05d0 \u00e9")
    ('fc6U+202E1.0', '\u05d0 \u00e9')
    """
    return _UNSEEN.sub(lambda found: f"U+{ord(found[0]):04X}", text)
