from __future__ import annotations

import io
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elsewhere.errors import InputError
from elsewhere.figures import plot_objects, plot_placements
from elsewhere.figures.text import clean_text, shorten, text_style, wrap


def render(figure):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.savefig(io.BytesIO(), format="png", dpi=60)


def strips(figure):
    return figure.axes[0].images


def drawn(figure, side=8):
    """Every object's picture, in the order of the sheet, cut from its strips."""
    found = []
    for image in strips(figure):
        picture = image.get_array()
        starts = range(0, picture.shape[1], side + 1)  # objects of 8 px stand 1 px apart
        found += [picture[:, start : start + side] for start in starts]
    return found


def names(figure):
    return [text.get_text() for text in figure.axes[0].texts]


@pytest.mark.parametrize("count", [1, 7, 24, 150, 400])
def test_one_of_each_category_stands_over_its_name(make_objects, count):
    objects = make_objects(tuple(f"c{idx}" for idx in range(count)))
    figure = plot_objects(objects)
    pictures = drawn(figure)
    assert len(pictures) == count
    for picture, patch in zip(pictures, objects.patches((0, 0, 0)), strict=True):
        np.testing.assert_array_equal(picture[..., :3], patch)
        assert (picture[..., 3] == 255).all()
    assert names(figure) == list(objects.categories)
    width, height = figure.get_size_inches()
    assert width <= 7.01
    assert height <= 9.5


def test_pictures_are_crisp_and_square(make_objects):
    figure = plot_objects(make_objects(tuple("abcdefgh")))
    figure.draw_without_rendering()
    ax = figure.axes[0]
    assert {image.get_interpolation() for image in strips(figure)} == {"nearest"}
    (x0, y0), (x1, y1) = ax.transData.transform([(0, 0), (1, 1)])
    assert abs(x1 - x0) == pytest.approx(abs(y1 - y0), rel=1e-3)


def test_several_of_a_category_stand_in_its_row(make_objects):
    objects = make_objects(("T-shirt", "Trouser") * 3)  # not next to each other
    figure = plot_objects(objects)
    patches = objects.patches((0, 0, 0))
    for picture, idx in zip(drawn(figure), (0, 2, 4, 1, 3, 5), strict=True):
        np.testing.assert_array_equal(picture[..., :3], patches[idx])
    assert names(figure) == ["T-shirt", "Trouser"]
    assert len(strips(figure)) == 2


@pytest.mark.parametrize(("categories", "each"), [(10, 40), (100, 4), (200, 2), (1, 400), (47, 8)])
def test_large_sets_fit_a_page_without_overlap(make_objects, categories, each):
    objects = make_objects(tuple(f"category {i}" for i in range(categories) for _ in range(each)))
    figure = plot_objects(objects)
    width, height = figure.get_size_inches()
    assert width <= 7.01
    assert height <= 9.5
    assert len(drawn(figure)) == categories * each
    boxes = [image.get_extent() for image in strips(figure)]
    right, bottom = figure.axes[0].get_xlim()[1], figure.axes[0].get_ylim()[0]
    for idx, (x0, x1, y1, y0) in enumerate(boxes):
        assert min(x0, y0) >= 0
        assert x1 <= right + 1e-9
        assert y1 <= bottom + 1e-9
        for a0, a1, b1, b0 in boxes[:idx]:
            assert x0 >= a1 or a0 >= x1 or y0 >= b1 or b0 >= y1


def test_columns_and_background_are_those_asked_for(make_objects):
    figure = plot_objects(make_objects(tuple("abcde")), columns=2, background=(9, 8, 7))
    assert [image.get_array().shape[1] for image in strips(figure)] == [17, 17, 8]
    assert drawn(figure)[0][0, 0].tolist() == [9, 8, 7, 255]


def test_names_in_any_script_are_drawn_silently(make_objects, caplog):
    odd = ("가나", "日本", "$x^{$", "é\n\t\x00", "عربي", "", "🙂", "x" * 300, "\ud800", "𝓐")
    figure = plot_objects(make_objects(odd, name="한글"))
    assert "$x^{$" in names(figure)
    render(figure)
    assert not caplog.records


def test_labels_stay_within_the_figure_and_apart(make_objects):
    figure = plot_objects(make_objects(tuple(f"greek_omega_capital_{i}" for i in range(40))))
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    for idx, box in enumerate(boxes):
        assert box.x0 >= 0
        assert box.x1 <= figure.bbox.x1
        assert box.y0 >= 0
        assert not any(box.overlaps(other) for other in boxes[:idx])


def test_fonts_beyond_the_base_are_found():
    script = "\U0001d4d0"  # in STIXGeneral, which ships with matplotlib, not in DejaVu Sans
    assert clean_text(script) == script
    assert len(text_style(script)["fontfamily"]) == 2
    assert clean_text("\U0010fffd") == "U+10FFFD"


@given(st.text(max_size=40), st.integers(2, 20))
@settings(max_examples=50, deadline=None)
def test_texts_are_kept_short_and_on_one_line(text, length):
    for keep in ("start", "end", "both"):
        short = shorten(text, length, keep=keep)
        assert len(short) <= length
        assert short.splitlines() in ([short], [])
    assert shorten(text, 10_000) == clean_text(text)


def test_a_title_never_begins_a_line_with_its_separator():
    lines = wrap("one thing · another thing · a third thing", 1.2, 9).split("\n")
    assert len(lines) > 1
    assert not any(text.startswith("·") or text.endswith("·") for text in lines)


def test_placements_draw_each_picture(make_objects):
    images = np.random.default_rng(0).integers(0, 256, (5, 12, 12, 3)).astype(np.uint8)
    figure = plot_placements(images, titles=list("abcde"), columns=3)
    assert len(figure.axes) == 5
    for ax, image in zip(figure.axes, images, strict=True):
        np.testing.assert_array_equal(ax.images[0].get_array(), image)
    assert [ax.get_title() for ax in figure.axes] == list("abcde")
    render(figure)


def test_what_cannot_be_drawn_is_refused(make_objects):
    with pytest.raises(InputError, match="no object"):
        plot_objects(make_objects(()))
    with pytest.raises(InputError, match="columns is 0"):
        plot_objects(make_objects(("a",)), columns=0)
    wrong = make_objects(("a", "b"))
    wrong.patches = lambda color: np.zeros((2, 8, 8), dtype=np.uint8)
    with pytest.raises(InputError, match=r"shape \(2, 8, 8\).*expected \(2, size, size, 3\)"):
        plot_objects(wrong)
    wrong.patches = lambda color: np.zeros((2, 8, 8, 3))
    with pytest.raises(InputError, match="float64"):
        plot_objects(wrong)
    with pytest.raises(InputError, match="uint8"):
        plot_placements(np.zeros((2, 8, 8, 3)))
    images = np.zeros((2, 8, 8, 3), dtype=np.uint8)
    with pytest.raises(InputError, match="3 titles for 2 pictures"):
        plot_placements(images, titles=["a", "b", "c"])
    with pytest.raises(InputError, match="columns is -1"):
        plot_placements(images, columns=-1)
