"""Names that matplotlib would read as something else: drawn literally, in every figure."""

import warnings

import numpy as np
import pytest
from matplotlib.text import Text

from elsewhere.figures import figure_kinds, plot_objects
from elsewhere.figures.text import clean_text
from tests.figures.conftest import FakeObjects
from tests.figures.test_kinds import DRAWN_FROM, draw_kind

PLAIN = "Plain"
ALIKE = ("$x_1$", "_hid_", r"a\b%s")
"""Names as long as the plain one, which are shortened where that is."""
ODD = (
    r"$\frac{1}$ $\nonsense{$",
    "two\nlines\r\tand a tab",
    "long" * 300,
    "\U0001f98a fox \U0001f1e9\U0001f1ea",
    "\u05d0\u05d1\u05d2 \u202eabc\u200f",
    "\x1b[31mred\x07\x00 \x7f",
    "",
    "   ",
)
COORDINATES = ("layer", "object", "category", "phase", "part", "pair", "system", "result")
ATTRIBUTES = ("model", "weights", "method", "target", "system", "probe")


def renamed(result, *names):
    """Return `result` with `names` in turn wherever users and files can put their own."""
    result = result.copy(deep=True)
    for key in COORDINATES:
        if key in result.coords:
            old = result[key]
            texts = [f"{names[k % len(names)]}{v}" for k, v in enumerate(old.values.ravel())]
            named = np.array(texts, dtype=object).reshape(old.shape)
            result = result.assign_coords({key: (old.dims, named)})
    result.attrs |= {key: names[0] for key in ATTRIBUTES if key in result.attrs}
    return result


def texts_of(figure, *, layout=False):
    """Return all texts of a drawn figure; drawing must not complain."""
    if not layout:  # which takes most of the time
        figure.set_layout_engine("none")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.canvas.draw()
    found = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text()]
    for text in found:
        shown = text.get_text()
        assert "$" not in shown or not text.get_parse_math(), shown
        assert shown.replace("\n", "").isprintable(), shown
    return [text.get_text() for text in found]


@pytest.mark.parametrize("kind", list(figure_kinds))
def test_every_figure_draws_names_as_they_are(results, kind):
    result = results[DRAWN_FROM[kind]]

    def times(name):
        found = texts_of(draw_kind({DRAWN_FROM[kind]: renamed(result, name)}, kind))
        return sum(text.count(name) for text in found)

    expected = times(PLAIN)
    assert expected
    shown = {name: times(name) for name in ALIKE}
    assert shown == dict.fromkeys(ALIKE, expected)
    for first in range(2):
        texts_of(
            draw_kind({DRAWN_FROM[kind]: renamed(result, *ODD[first::2])}, kind), layout=first == 0
        )


def test_an_object_sheet_draws_categories_as_they_are():
    names = [*ALIKE, *ODD]
    texts = texts_of(plot_objects(FakeObjects(tuple(names))))
    for name in ALIKE:
        assert any(clean_text(name) in text for text in texts), name
