import re
from pathlib import Path

import matplotlib
import numpy as np
import pytest

from elsewhere.errors import ObjectSetError, UnknownNameError
from elsewhere.stimuli import glyphs, hangul, load_objects
from elsewhere.stimuli.alphabet import CHARACTERS

DEJAVU = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"


def rendered(characters, font, size=48):
    return np.stack([glyphs.draw(glyphs.outline(c, font, 108), size=size) for c in characters])


def likeness(masks):
    similarity = glyphs.shape_similarity(masks, masks)
    np.fill_diagonal(similarity, -1)
    return similarity


def test_there_are_100_syllables_each_with_a_name():
    assert len(hangul.CHARACTERS) == len(hangul.NAMES) == 100
    assert all(0xAC00 <= ord(character) <= 0xD7A3 for character in hangul.CHARACTERS)
    assert all(re.fullmatch("[a-z]+", name) for name in hangul.NAMES)
    assert hangul.NAMES["han"] == "한"


def test_no_two_syllables_look_alike(korean_font):
    masks = rendered(hangul.CHARACTERS, korean_font)
    similarity = likeness(masks)
    i, j = np.unravel_index(similarity.argmax(), similarity.shape)
    assert similarity.max() < glyphs.DISTINCT, hangul.CHARACTERS[i] + hangul.CHARACTERS[j]
    assert similarity[:20, :20].max() < similarity.max() - 0.05  # the first are the least alike


def test_the_syllables_differ_at_the_smallest_size_in_use(korean_font):
    masks = load_objects("hangul", size=11).masks.reshape(-1, 121).astype(float)
    similarity = np.corrcoef(masks) - np.eye(len(masks))
    assert similarity.max() < 0.93


def test_no_syllable_looks_like_a_glyph_or_a_digit(korean_font):
    others = rendered([*CHARACTERS, *"0123456789"], glyphs.FACES[0])
    syllables = rendered(hangul.CHARACTERS, korean_font)
    assert glyphs.shape_similarity(syllables, others).max() < glyphs.DISTINCT


def test_exemplars_vary_but_remain_their_category(korean_font):
    objects = load_objects("hangul", size=48, categories=30, per_category=6, seed=1)
    similarity = glyphs.shape_similarity(
        objects.masks, rendered(hangul.CHARACTERS[:30], korean_font)
    )
    right = similarity.argmax(1) == objects.category_index
    assert right[objects.exemplar_index == 0].all()
    assert right.mean() > 0.9
    assert len({mask.tobytes() for mask in objects.masks}) == len(objects)


def test_a_syllable_names_its_category(korean_font):
    objects = load_objects("hangul", size=16, categories=["고", "han"])
    assert objects.category_names == ("go", "han")
    with pytest.raises(UnknownNameError, match="category of hangul"):
        load_objects("hangul", size=16, categories=["A"])


def test_a_font_that_is_named_is_the_one_that_is_found(korean_font):
    named = load_objects(f"hangul:{korean_font}", size=16, categories=5)
    assert named.digest() == load_objects("hangul", size=16, categories=5).digest()
    assert named.source["fonts"].startswith(Path(korean_font).stem)


def _refused(spec, *words):
    with pytest.raises(ObjectSetError) as caught:
        load_objects(spec, size=16, categories=2)
    assert "\n" not in str(caught.value)
    for word in (*words, "fonts-nanum", "--font"):
        assert word in str(caught.value)


def test_where_the_system_has_no_such_font_it_is_said(monkeypatch):
    monkeypatch.setattr(hangul, "findSystemFonts", lambda: [str(DEJAVU), "/none/such.ttf"])
    _refused("hangul", "none of the system's 2")


def test_a_font_that_cannot_be_used_is_refused(tmp_path):
    _refused(f"hangul:{DEJAVU}", "DejaVuSans.ttf has no Korean glyphs")
    _refused(f"hangul:{tmp_path / 'none.ttf'}", "there is no font")
    (tmp_path / "text.ttf").write_text("no font")
    _refused(f"hangul:{tmp_path / 'text.ttf'}", "cannot read the font")


def test_a_font_that_draws_all_syllables_alike_is_refused(monkeypatch):
    monkeypatch.setattr(hangul, "_lacking", lambda font: ())
    _refused(f"hangul:{DEJAVU}", "draws 'han' and 'seu' alike")
