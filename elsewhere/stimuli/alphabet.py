"""The characters of the object set ``glyphs``: one of each shape, whatever script it is from.

Chosen from the fonts that matplotlib ships so that no two look alike (a test holds this): of the
homoglyphs Latin A, Greek Alpha and Cyrillic A there is one, of c and C, which differ by size only,
there is one, and nothing that looks like a digit 1 to 9 is in, so that pretraining on ``glyphs``
says nothing about ``digits``. A few rings with something to them remain (``greek_sigma``,
``arabic_heh``, ``tifinagh_yas``, ``latin_d_capital``, ``latin_q_capital``).
"""

from __future__ import annotations

import itertools
import unicodedata

GROUPS: dict[str, str] = {
    "latin": "ACDEHKLMNPQTUVWXYZabdekmnqrtyßæþƕƣʎʖʞɷ",
    "greek": "ΔΞΣΦΨΩαβζμξπςσϗϞϠϣ",
    "cyrillic": "ДЖИЛЦЧШЩЪЫЮЯьЂЉЊѪѰҨԆ",
    "hebrew": "\u05d0\u05d1\u05d2\u05dc\u05e2\u05e6\u05e7\u05e9",
    "arabic": "\u062c\u0633\u0637\u0639\u0643\u0645\u0647\u064a\u062b\u0621",
    "maths": "=∞√∈⊂⊗⊠⊥⊢∴∠⋈⋔ℏ℘ℜ%",
    "georgian": "ბდეთკლრტფქშჭჯჰჲჴჶႠႡႢႥႧႨႪႫႮႰႵႸႼႾႿჁჄჅ",
    "armenian": "ԲԳԶԹԺԿՀՂՃՆՇՊՎՒՔՖդթխծկմչպփֆև",
    "lao": (
        "\u0e81\u0e82\u0e84\u0e88\u0e8a\u0e8d\u0e95\u0e96\u0e97\u0e99\u0e9b\u0e9c\u0e9d"
        "\u0e9e\u0ea1\u0ea3\u0ea5\u0ea7\u0eaa\u0eae"
    ),
    "tifinagh": (
        "\u2d32\u2d35\u2d3b\u2d3c\u2d3d\u2d3e\u2d3f\u2d41\u2d43\u2d44\u2d4b\u2d50\u2d52"
        "\u2d59\u2d5b\u2d5c\u2d63\u2d64"
    ),
    "symbols": "&@#£§¶‰«“¤₪₫₲₴",
    "arrows": "←→↕↗↙↯↶⇄⇐⇧↝↺",
    "shapes": "■□▣▤▨▲▶▼◀◆◇◉◐◒◖◢◤◧★☆",
    "pictures": "☀☂☃☎☕☘☞☢☣☥☪☯☰☺☽☿♂♃♆♈♉♊♋♎♔♖♘♜♡♪♫♮⚃⚐⚓⚡✂✌✎✡✿❄❦➲",
    "canadian": (
        "\u1405\u140a\u1433\u1438\u1450\u14a7\u14c0\u14c2\u14c4\u14c7\u14ed\u14ef"
        "\u1526\u1528\u152a\u152d"
    ),
    "nko": "\u07cc\u07cf\u07d0\u07d1\u07d2\u07d6\u07d8\u07dd\u07de\u07df\u07e2\u07e4",
    "old_italic": (
        "\U0001030b\U0001030c\U0001030d\U0001030e\U00010311\U00010312\U00010314"
        "\U00010316\U0001031c\U0001031d"
    ),
}
"""The characters by script, each script in the order of Unicode."""

FACES = ("DejaVuSans", "DejaVuSerif", "DejaVuSans-Bold", "STIXGeneral")
"""The canonical face, which has all characters, and the others, which have many of them."""

UNLIKE: dict[str, str] = {
    "DejaVuSerif": "↕ԹΨ⊂↯ШЫьσჯჶႠႢպmnႸႾႿჁჅ",
    "DejaVuSans-Bold": "\u2d32\u07cc\u07cfDΩШ\u0647\u0e97πσ\u2d59\u0ea1\u0ea3\u0ea5\u0eaeɷ",
    "STIXGeneral": "Ξ↕▤⊂▨↯ШЫξ∠↝π↺⋔℘W%♂♃emnq♡♫æ",
}
"""By face: the characters that it draws more like another one, or unlike the canonical face."""

CHARACTERS: tuple[str, ...] = tuple(
    character
    for turn in itertools.zip_longest(*GROUPS.values())
    for character in turn
    if character is not None
)
"""All characters; the scripts take turns, so that the first ones are the least alike."""


def character_name(character: str) -> str:
    """Return a readable name that files and HDF5 can carry, from the Unicode name.

    Examples
    --------
    >>> character_name("A"), character_name("a"), character_name("\N{GREEK SMALL LETTER OMEGA}")
    ('latin_a_capital', 'latin_a', 'greek_omega')
    """
    words = unicodedata.name(character).lower().replace("-", " ").split()
    kept = [word for word in words if word not in ("letter", "small", "capital")]
    return "_".join(kept + ["capital"] * ("capital" in words))


NAMES: dict[str, str] = {character_name(character): character for character in CHARACTERS}
"""Category names to characters, in order."""
