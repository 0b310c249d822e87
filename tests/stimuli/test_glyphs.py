import re

import numpy as np
import pytest

from elsewhere.errors import ObjectSetError, UnknownNameError
from elsewhere.stimuli import alphabet, glyphs, load_objects


def rendered(characters, face=alphabet.FACES[0]):
    return np.stack([glyphs.draw(glyphs.outline(c, face, 108), size=48) for c in characters])


@pytest.fixture(scope="module")
def canonical():
    return rendered(alphabet.CHARACTERS)


def test_no_two_glyphs_look_alike(canonical):
    assert len(alphabet.CHARACTERS) >= 300
    similarity = glyphs.shape_similarity(canonical, canonical)
    np.testing.assert_allclose(np.diag(similarity), 1, rtol=1e-4)
    np.fill_diagonal(similarity, -1)
    i, j = np.unravel_index(similarity.argmax(), similarity.shape)
    assert similarity.max() < glyphs.DISTINCT, alphabet.CHARACTERS[i] + alphabet.CHARACTERS[j]


def test_no_glyph_looks_like_a_digit(canonical):
    assert glyphs.shape_similarity(canonical, rendered("0123456789")).max() < glyphs.DISTINCT
    assert not any(character.isdigit() for character in alphabet.CHARACTERS)


def test_the_glyphs_differ_at_the_smallest_size_in_use():
    masks = load_objects("glyphs", size=11).masks.reshape(-1, 121).astype(float)
    similarity = np.corrcoef(masks) - np.eye(len(masks))
    assert similarity.max() < 0.93


@pytest.mark.parametrize("face", alphabet.FACES[1:])
def test_every_face_in_use_draws_the_same_shapes(face, canonical):
    mine = [n for n, c in enumerate(alphabet.CHARACTERS) if face in glyphs.faces_of(c)]
    drawn = rendered([alphabet.CHARACTERS[n] for n in mine], face)
    similarity = glyphs.shape_similarity(drawn, canonical)
    assert len(mine) > 100
    assert similarity.argmax(1).tolist() == mine
    assert similarity[range(len(mine)), mine].min() > 0.55


@pytest.mark.parametrize(
    ("character", "name"),
    [
        ("A", "latin_a_capital"),
        ("\N{GREEK CAPITAL LETTER ALPHA}", "latin_a_capital"),
        ("\N{CYRILLIC CAPITAL LETTER A}", "latin_a_capital"),
        ("\N{CYRILLIC CAPITAL LETTER ER}", "latin_p_capital"),
        ("c", "latin_c_capital"),
        ("\N{CYRILLIC SMALL LETTER ZHE}", "cyrillic_zhe_capital"),
        ("\N{GREEK SMALL LETTER XI}", "greek_xi"),
        ("8", "digit_eight"),
    ],
)
def test_homoglyphs_are_one(character, name):
    assert glyphs.visual_identity(character) == name


def test_names_suit_files_and_keep_apart_on_any_file_system():
    assert len(alphabet.NAMES) == len(alphabet.CHARACTERS)
    assert all(re.fullmatch(r"[a-z][a-z0-9_]*", name) for name in alphabet.NAMES)


def test_the_canonical_glyph_fills_the_box_and_is_centred(canonical):
    for mask in canonical:
        ys, xs = np.nonzero(mask > 60)
        assert 0.85 * 48 <= max(np.ptp(ys), np.ptp(xs)) + 1 <= 0.96 * 48
        assert abs(ys.min() + ys.max() - 47) <= 2
        assert abs(xs.min() + xs.max() - 47) <= 2


def test_every_exemplar_lies_wholly_inside():
    # large, so that the pixel at the rim is narrower than the margin that is kept
    masks = load_objects("glyphs", size=160, categories=40, per_category=6, seed=3).masks
    assert masks[:, [0, -1], :].max() == 0
    assert masks[:, :, [0, -1]].max() == 0


@pytest.mark.parametrize("size", [8, 11, 50])
def test_every_exemplar_is_visible(size):
    objects = load_objects("glyphs", size=size, categories=60, per_category=6, seed=3)
    assert (objects.masks.max(axis=(1, 2)) > 120).all()
    assert (objects.images == 255).all()


def test_exemplars_vary_but_remain_their_category(canonical):
    objects = load_objects("glyphs", size=48, categories=40, per_category=9, seed=1)
    similarity = glyphs.shape_similarity(objects.masks, canonical[:40])
    right = similarity.argmax(1) == objects.category_index
    assert right[objects.exemplar_index == 0].all()
    assert right.mean() > 0.85
    assert len({mask.tobytes() for mask in objects.masks}) == len(objects)


def test_a_character_names_its_category():
    objects = load_objects("glyphs", size=16, categories=["\N{GREEK CAPITAL LETTER BETA}", "A"][1:])
    assert objects.category_names == ("latin_a_capital",)
    with pytest.raises(UnknownNameError, match="latin_o_capital"):
        load_objects("glyphs", size=16, categories=["O"])


def test_too_many_categories_are_refused_with_their_number():
    with pytest.raises(ObjectSetError, match=f"has {len(alphabet.NAMES)} categories; 999 were"):
        load_objects("glyphs", categories=999)


def test_the_source_names_the_fonts():
    source = load_objects("glyphs", size=12, categories=1, seed=4).source
    assert "DejaVuSans: Version" in source["fonts"]
    assert source["seed"] == "4"


def test_missing_fonts_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr(glyphs.matplotlib, "get_data_path", lambda: str(tmp_path))
    with pytest.raises(ObjectSetError, match=r"DejaVuSans\.ttf"):
        glyphs._font_file("DejaVuSans")


def test_many_small_glyphs_share_small_outlines(monkeypatch):
    made, outline = [], glyphs.outline

    def count(character, face, resolution):
        made.append((character, face, resolution))
        return outline(character, face, resolution)

    monkeypatch.setattr(glyphs, "outline", count)
    load_objects("glyphs", size=11, categories=50, per_category=20)
    assert 50 <= len(made) == len(set(made)) <= 50 * len(glyphs.FACES)
    assert {resolution for *_, resolution in made} == {48}
