"""Folders as people have them: opaque alpha, JPEG on white, numbered names, more than one each."""

import numpy as np
import pytest
from PIL import Image

from elsewhere.errors import CanvasError, InputError, ObjectSetError
from elsewhere.figures import plot_objects
from elsewhere.stimuli import Canvas, load_objects
from elsewhere.types import parse_color


def disc(ground, size=40, alpha=None):
    y, x = np.mgrid[:size, :size] - size / 2 + 0.5
    pixels = np.full((size, size, 3), ground, np.uint8)
    pixels[y**2 + x**2 <= 100] = (200, 30, 40)
    if alpha is not None:
        pixels = np.dstack([pixels, np.full((size, size), alpha, np.uint8)])
    return pixels


def area(mask):
    return float((mask > 127).sum())


def test_an_opaque_alpha_is_said_with_the_colour_of_its_edge(tmp_path, write_picture):
    for name in ("a", "b"):
        write_picture(tmp_path / f"{name}.png", disc((250, 250, 240), alpha=255))
    objects = load_objects(f"folder:{tmp_path}", size=40)
    (note,) = objects.notes
    assert note.startswith("2 of 2 pictures, such as a.png, have no transparent pixel")
    assert "--background-color 250,250,240" in note
    assert objects.seen_on((0, 0, 0)).subset([0]).notes == [note]
    ground = {"background_color": (250, 250, 240)}
    mended = load_objects(f"folder:{tmp_path}", size=40, **ground)
    assert mended.notes == []
    assert area(mended.masks[0]) == pytest.approx(np.pi * 100, rel=0.02)
    other = load_objects(f"folder:{tmp_path}", size=40, background_color=(0, 0, 0))
    assert "nor one within 0 levels of the background colour 0,0,0" in other.notes[0]


def test_one_picture_with_alpha_among_opaque_ones_is_not_blamed(tmp_path, write_picture):
    pixels = disc((9, 9, 9), alpha=255)
    write_picture(tmp_path / "a.png", pixels)
    pixels[:2, :, 3] = 0
    write_picture(tmp_path / "b.png", pixels)
    (note,) = load_objects(f"folder:{tmp_path}", size=20).notes
    assert note.startswith("1 of 2 pictures, such as a.png")


def test_a_few_pixels_make_no_mask(tmp_path, write_picture):
    """One transparent pixel, an alpha of 254, and single pixels of a ground that is not one colour
    leave the rectangle; a mask that is most of the picture is one."""
    pixels = disc((128, 128, 128), alpha=255)
    pixels[0, 0, 3] = 0
    write_picture(tmp_path / "one" / "a.png", pixels)
    write_picture(tmp_path / "one" / "b.png", disc((9, 9, 9), alpha=254))
    assert load_objects(f"folder:{tmp_path / 'one'}", size=40).notes[0].startswith("2 of 2")
    noisy = disc((128, 128, 128)) + np.random.default_rng(0).integers(-9, 10, (40, 40, 1))
    write_picture(tmp_path / "grey" / "a.png", noisy.astype(np.uint8))
    given = {"size": 40, "background_color": (128, 128, 128)}
    grey, large = f"folder:{tmp_path / 'grey'}", f"folder:{tmp_path / 'large'}"
    (note,) = load_objects(grey, **given).notes
    assert "128,128,128, or hardly any: their whole rectangle" in note
    assert load_objects(grey, **given, background_tolerance=9).notes == []
    square = disc((0, 0, 0))
    square[1:-1, 1:-1] = 200  # 10 % are ground, all of the rim
    write_picture(tmp_path / "large" / "a.png", square)
    assert load_objects(large, size=40, background_color=(0, 0, 0)).notes == []


def test_a_tolerance_takes_what_jpeg_left_of_the_ground(tmp_path):
    Image.fromarray(disc((255, 255, 255))).save(tmp_path / "a.jpg", quality=60)
    areas = [
        area(
            load_objects(
                f"folder:{tmp_path}",
                size=40,
                background_color=(255, 255, 255),
                background_tolerance=levels,
            ).masks[0]
        )
        for levels in (0, 40)
    ]
    assert areas[0] > 1.2 * np.pi * 100  # the ripples round the disc
    assert areas[1] == pytest.approx(np.pi * 100, rel=0.1)
    with pytest.raises(ObjectSetError, match="0 to 255"):
        load_objects(f"folder:{tmp_path}", background_tolerance=256)


def test_names_are_in_the_order_of_their_numbers(tmp_path, write_picture):
    for folder in ("class10", "class2", "class1"):
        for name in ("10", "2", "1", "1b"):
            write_picture(tmp_path / folder / f"{name}.png", disc((0, 0, 0)))
    objects = load_objects(f"folder:{tmp_path}", size=8, per_category=4)
    assert objects.category_names == ("class1", "class2", "class10")
    assert objects.ids[:4] == tuple(f"class1/{n}.png" for n in ("1", "1b", "2", "10"))
    assert load_objects(f"folder:{tmp_path}", size=8, categories=2).category_names[1] == "class2"


def test_exemplars_that_are_not_used_are_said(tmp_path, write_picture, caplog):
    for folder, count in (("cat", 3), ("dog", 5)):
        for number in range(count):
            write_picture(tmp_path / folder / f"{number}.png", disc((0, 0, 0)))
    objects = load_objects(f"folder:{tmp_path}", size=8)
    assert "1 of 3 to 5 images of each folder" in caplog.text
    assert "--per-category" in caplog.text
    assert objects.source["used"] == "1 of 3 to 5 images of each folder"
    caplog.clear()
    assert "used" not in load_objects(f"folder:{tmp_path}", size=8, per_category=3).source
    assert caplog.text == ""


def test_colours_have_names_and_fractions_are_asked_about():
    assert parse_color("White") == (255, 255, 255)
    assert Canvas.parse_background("grey") == Canvas.parse_background("128") == 128
    for text, remedy in (("1", "write 255, or 1,1,1"), ("0.5", "write 128"), ("1.0", "write 255"),
                         (".5,0.5,1.0", "write 128,128,255")):  # fmt: skip
        with pytest.raises(InputError, match=remedy):
            parse_color(text)
        with pytest.raises(CanvasError, match=remedy):
            Canvas.parse_background(text)
    objects = load_objects("glyphs", size=8, categories=2)
    assert "nearly black" in objects.seen_on((1, 1, 1)).notes[0]
    assert objects.seen_on((0, 0, 0)).notes == objects.seen_on((2, 0, 0)).notes == []


def test_a_contact_sheet_outlines_what_belongs_to_an_object(tmp_path, write_picture):
    write_picture(tmp_path / "a.png", disc((255, 255, 255)))
    write_picture(tmp_path / "b.png", disc((0, 0, 0)))
    white = load_objects(f"folder:{tmp_path}", size=40, background_color=(255, 255, 255))
    figure = plot_objects(white, masks=white.masks)
    (contours,) = (c for c in figure.axes[0].collections if hasattr(c, "levels"))
    (path,) = contours.get_paths()
    pieces = path.to_polygons()
    spans = sorted(np.ptp(piece[:, 0]) for piece in pieces)
    # the disc, 20 of 40 px wide, and the box of the picture on black, where all is object
    assert spans == pytest.approx([0.5, 1.0], abs=0.03)
