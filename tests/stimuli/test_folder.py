import logging
import os
import socket

import numpy as np
import pytest
from PIL import Image

from elsewhere.errors import ObjectSetError
from elsewhere.stimuli import load_objects
from elsewhere.stimuli.folder import SUFFIXES

POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"
RED = np.full((8, 8, 3), (200, 10, 20), np.uint8)


def test_sub_folders_are_categories(tmp_path, write_picture):
    for name in ("cat/1.png", "cat/2.png", "dog/1.png", "dog/2.png", "empty/notes.txt"):
        if name.endswith("png"):
            write_picture(tmp_path / name, RED)
    (tmp_path / "stray.png").write_bytes(b"not looked at")
    objects = load_objects(f"folder:{tmp_path}", size=8, per_category=2)
    assert objects.categories == ("cat", "cat", "dog", "dog")
    assert objects.ids == ("cat/1.png", "cat/2.png", "dog/1.png", "dog/2.png")
    assert objects.source["folder"] == str(tmp_path)
    assert (objects.images == RED).all()
    assert (objects.masks == 255).all()


def test_files_are_categories_where_there_are_no_sub_folders(tmp_path, write_picture):
    for name in ("b.png", "a.jpg", "c.png", "c.bmp"):
        write_picture(tmp_path / name, RED)
    (tmp_path / "notes.txt").write_text("no picture")
    objects = load_objects(f"folder:{tmp_path}", size=8)
    assert objects.categories == ("a", "b", "c.bmp", "c.png")


@pytest.mark.parametrize(
    ("names", "categories"),
    [
        (("a.png", "a.jpg", "a.png.jpg"), ("a.jpg", "a.png", "a.png.jpg")),
        (("a.png", "A.png", "a.PNG"), ("A", "a.PNG", "a.png")),
        (("a.png", "a.png.png", "a.png.png.png"), ("a", "a.png.png", "a.png.png.png")),
        (("a.b.png", "a.b.jpg", "a.png"), ("a.b.jpg", "a.b.png", "a")),
    ],
)
def test_no_picture_is_lost_to_the_name_of_another(names, categories, tmp_path, write_picture):
    for place, name in enumerate(names):
        write_picture(tmp_path / name.replace(".PNG", ".png"), RED // (place + 1))
        if name.endswith(".PNG"):
            (tmp_path / name.replace(".PNG", ".png")).rename(tmp_path / name)
            write_picture(tmp_path / "a.png", RED)
    objects = load_objects(f"folder:{tmp_path}", size=8)
    assert sorted(objects.ids) == sorted(names)
    assert sorted(objects.categories) == sorted(categories)


def test_what_is_no_file_is_told_and_not_opened(tmp_path, write_picture, caplog):
    """A pipe would block for ever, and a link to itself is no picture."""
    for name in ("cat/1.png", "dog/1.png"):
        write_picture(tmp_path / name, RED)
    os.mkfifo(tmp_path / "cat" / "0.png")
    (tmp_path / "dog" / "loop.png").symlink_to("loop.png")
    (tmp_path / "dog" / "gone.jpg").symlink_to("nowhere")
    (tmp_path / "dog" / "folder.png").mkdir()
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.path.relpath(tmp_path / "dog" / "s.png"))
        objects = load_objects(f"folder:{tmp_path}", size=8)
    assert objects.ids == ("cat/1.png", "dog/1.png")
    assert "4 names of pictures" in caplog.text
    assert "such as cat/0.png" in caplog.text


def test_pictures_outside_the_categories_are_told(tmp_path, write_picture, caplog):
    for name in ("cat/1.png", "cat/more/2.png", "dog/1.png", "stray.png", ".cache/3.png"):
        write_picture(tmp_path / name, RED)
    objects = load_objects(f"folder:{tmp_path}", size=8)
    assert objects.ids == ("cat/1.png", "dog/1.png")
    assert "2 pictures in" in caplog.text


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_is_read(suffix, tmp_path, write_picture):
    write_picture(tmp_path / f"one{suffix.upper()}", RED)
    objects = load_objects(f"folder:{tmp_path}", size=4)
    assert abs(objects.images.astype(int) - RED[0, 0]).max() < 8


def test_alpha_tells_the_object(tmp_path, write_picture):
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[2:6, 2:6] = (10, 200, 30, 255)
    pixels[2:6, 0:2] = (255, 255, 255, 0)  # invisible, must not shine through the rim
    write_picture(tmp_path / "a.png", pixels)
    objects = load_objects(f"folder:{tmp_path}", size=16, background_color=(10, 200, 30))
    assert objects.masks[0, 8, 8] == 255
    assert objects.masks[0, 0, 0] == 0
    rim = (objects.masks[0] > 20) & (objects.masks[0] < 235)
    assert rim.any()
    assert abs(objects.images[0, rim].astype(int) - (10, 200, 30)).max() <= 25


def test_a_background_colour_tells_the_ground(tmp_path, write_picture):
    pixels = np.full((8, 8, 3), 255, np.uint8)
    pixels[2:6, 2:6] = 40
    write_picture(tmp_path / "a.png", pixels)
    with_ground = load_objects(f"folder:{tmp_path}", size=8, background_color=(255, 255, 255))
    np.testing.assert_array_equal(with_ground.masks[0] == 255, pixels[..., 0] == 40)
    assert (load_objects(f"folder:{tmp_path}", size=8).masks == 255).all()


def test_proportions_are_kept_and_the_rest_is_transparent(tmp_path, write_picture):
    write_picture(tmp_path / "wide.png", np.full((5, 20, 3), 90, np.uint8))
    mask = load_objects(f"folder:{tmp_path}", size=40).masks[0]
    assert (mask[15:25] == 255).all()
    assert mask[:15].max() == 0
    assert mask[25:].max() == 0


def test_grey_palette_and_16_bit_pictures_are_read(tmp_path):
    Image.new("L", (4, 4), 77).save(tmp_path / "grey.png")
    Image.new("P", (4, 4), 0).save(tmp_path / "palette.png")
    Image.fromarray(np.full((4, 4), 0x4D4D, np.uint16)).save(tmp_path / "deep.png")
    objects = load_objects(f"folder:{tmp_path}", size=4)
    assert objects.category_names == ("deep", "grey", "palette")
    assert (objects.images[:2] == 77).all()


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n broken", b"text", POSTSCRIPT])
def test_a_broken_picture_is_named_or_left_out(content, tmp_path, write_picture, caplog):
    write_picture(tmp_path / "a" / "good.png", RED)
    broken = tmp_path / "a" / "bad.png"
    broken.write_bytes(content)
    with pytest.raises(ObjectSetError, match=r"bad\.png.*--skip-broken") as caught:
        load_objects(f"folder:{tmp_path}", size=8)
    assert "\n" not in str(caught.value)
    assert "Ghostscript" not in str(caught.value)  # which would run it, were it there
    with caplog.at_level(logging.WARNING, "elsewhere"):
        objects = load_objects(f"folder:{tmp_path}", size=8, skip_broken=True)
    assert objects.ids == ("a/good.png",)
    assert objects.source["broken"] == "1"
    assert "bad.png" in caplog.text


def test_a_truncated_picture_is_broken(tmp_path, write_picture):
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3))
    path = write_picture(tmp_path / "cut.png", noise)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ObjectSetError, match=r"cut\.png"):
        load_objects(f"folder:{tmp_path}", size=8)
    with pytest.raises(ObjectSetError, match=r"no picture in .* can be read; 1 are broken"):
        load_objects(f"folder:{tmp_path}", size=8, skip_broken=True)


def test_folders_without_pictures_are_refused(tmp_path, write_picture):
    with pytest.raises(ObjectSetError, match="missing"):
        load_objects(f"folder:{tmp_path / 'nowhere'}")
    with pytest.raises(ObjectSetError, match=r"no pictures in .*\.png"):
        load_objects(f"folder:{tmp_path}")
    path = write_picture(tmp_path / "a.png", RED)
    with pytest.raises(ObjectSetError, match="it is a file"):
        load_objects(f"folder:{path}")
    with pytest.raises(ObjectSetError, match=r"'a' .* has 1 exemplars; 2 were"):
        load_objects(f"folder:{tmp_path}", per_category=2)
