"""The object set ``hangul``: Korean syllables, white, drawn with a font that is found or named.

Characters that are new to whoever does not read Korean, as Han, Roig, Geiger & Poggio ("Scale and
translation-invariance for novel objects in human vision", Scientific Reports 10, 2020, 1411) showed
them. No font of matplotlib has them, so one of the system's is looked for.
"""

from __future__ import annotations

import functools
import os
import unicodedata
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.font_manager import findSystemFonts
from matplotlib.ft2font import FT2Font

from elsewhere.errors import ObjectSetError, reason_of
from elsewhere.stimuli.glyphs import distort, draw, font_version, outline, resolution_of
from elsewhere.stimuli.objects import (
    ObjectRequest,
    ObjectSet,
    choose_categories,
    exemplar_generator,
)
from elsewhere.types import plain_text

CHARACTERS = (
    "한스늬추긋뇽슈고예낳각찔없록횬느쓿꼰빳쑈쌨셔낸옷꿇쫬초숯삯야칭흖쥑뚤븐기넒났궷쌉귿쑨벵싸윗큐먕누토뷔"
    "돼쉰쇽뾰좆층괆겯효푭쉠샷걀껙빛갭몫곡솨엮죤섀뇝손쀼홧랖샵즈잖뚠쿠돤섞뛔곬붚냑샛놂삔슐윤오닛쉈꺄쿄핥것"
)
"""Of the 2,350 syllables of KS X 1001 the next one is always the least like those before it.

Compared in NanumGothic and NanumMyeongjo (:func:`elsewhere.stimuli.glyphs.shape_similarity`), of
which the larger counts; those that look like a glyph or digit (.75) are left out, as 응 does.
"""

NAMES: dict[str, str] = {
    unicodedata.name(character).rpartition(" ")[2].lower(): character for character in CHARACTERS
}
"""Category names, the syllables in Latin letters as Unicode has them, to characters, in order."""

PREFERRED = (
    *("NanumGothic", "NanumBarunGothic", "NotoSansKR-Regular", "NotoSansCJK-Regular"),
    *("NotoSansCJKkr-Regular", "UnDotum", "malgun", "AppleSDGothicNeo", "AppleGothic"),
)
"""Files that are looked for first, so that machines with several fonts take the same one."""

_REMEDY = "install one (Debian: the package fonts-nanum), or name a file (--font, hangul:FILE)"


def build_hangul(request: ObjectRequest) -> ObjectSet:
    """Return syllables; a single one such as ``"한"`` also names its category, ``"han"``.

    Exemplar 0 is undistorted. The others are turned, sheared, scaled and made bolder or lighter as
    those of ``glyphs``, in the same font.

    Raises
    ------
    ObjectSetError
        More categories than there are; no font, or one that cannot be read, has no Korean glyphs,
        or draws them alike.
    """
    wanted = request.categories
    if isinstance(wanted, tuple):
        romanised = {character: name for name, character in NAMES.items()}
        wanted = tuple(romanised.get(name, name) for name in wanted)
    names = choose_categories(tuple(NAMES), wanted, "hangul")
    font = named_font(request.argument) if request.argument else system_font()
    masks = np.empty((len(names) * request.per_category, request.size, request.size), np.uint8)
    seen: dict[bytes, str] = {}
    for i, name in enumerate(names):
        shape = outline(NAMES[name], font, resolution_of(request.size))
        before = seen.setdefault(shape.distance.tobytes(), name)
        if before != name:
            raise ObjectSetError(
                f"the font {font} draws {before!r} and {name!r} alike, as one without Korean "
                f"glyphs does; {_REMEDY}"
            )
        for j in range(request.per_category):
            rng = exemplar_generator(request.seed, "hangul", name, str(j))
            linear, weight = distort(rng) if j else (np.eye(2), 0.0)
            masks[i * request.per_category + j] = draw(
                shape, size=request.size, linear=linear, weight=weight
            )
    return ObjectSet(
        name="hangul",
        images=np.full((*masks.shape, 3), 255, np.uint8),
        masks=masks,
        ids=tuple(f"{name}-{j}" for name in names for j in range(request.per_category)),
        categories=tuple(name for name in names for _ in range(request.per_category)),
        source={
            "fonts": plain_text(f"{Path(font).stem}: {font_version(font)}"),
            "matplotlib": matplotlib.__version__,
            "seed": str(request.seed),
        },
    )


def named_font(path: str) -> str:
    """Return the absolute path of a font that has all syllables.

    Raises
    ------
    ObjectSetError
        The message says why it cannot be used.
    """
    font = os.path.abspath(path)
    lacking = _lacking(font)
    if lacking:
        which = "no Korean glyphs" if len(lacking) == len(NAMES) else f"no glyph for {lacking[0]}"
        raise ObjectSetError(f"the font {path} has {which}; {_REMEDY}")
    return font


def system_font() -> str:
    """Return the absolute path of a font of the system that has all syllables.

    Raises
    ------
    ObjectSetError
        There is none.
    """
    found = sorted(map(os.path.abspath, findSystemFonts()), key=_preference)
    for font in found:
        try:
            if not _lacking(font):
                return font
        except ObjectSetError:  # another program's, or damaged
            continue
    raise ObjectSetError(
        f"'hangul' needs a font with Korean glyphs, and none of the system's {len(found)} has "
        f"them; {_REMEDY}"
    )


def _preference(font: str) -> tuple[int, str]:
    stem = Path(font).stem
    return (PREFERRED.index(stem) if stem in PREFERRED else len(PREFERRED), font)


@functools.lru_cache(maxsize=256)
def _lacking(font: str) -> tuple[str, ...]:
    """Return the names of the syllables for which a font has no glyph."""
    if not os.path.isfile(font):
        raise ObjectSetError(f"there is no font {font}; {_REMEDY}")
    try:
        known = FT2Font(font).get_charmap()
    except (RuntimeError, OSError, ValueError) as error:
        raise ObjectSetError(
            f"cannot read the font {font}: {reason_of(error)}; expected a .ttf, .otf or .ttc; "
            f"{_REMEDY}"
        ) from error
    return tuple(name for name, character in NAMES.items() if ord(character) not in known)
