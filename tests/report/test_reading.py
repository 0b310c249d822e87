"""What can be read off the explorer: small numbers, names below axes, where the object's box is."""

import pytest

from elsewhere.report import write_report
from elsewhere.storage import save_result
from tests.report.conftest import measured, tracked
from tests.report.test_browser import settled


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """A report of tiny numbers, and of a track whose phase has a long name."""
    pytest.importorskip("bokeh", reason="reports are drawn by Bokeh")
    folder = tmp_path_factory.mktemp("odd") / "odd"
    folder.mkdir()
    tiny = measured(0.8).drop_vars(["cosine_G_interval", "cosine_G_away_interval"], errors="ignore")
    tiny["cosine_G"].values[:] = 0.0004
    tiny["cosine_G"].values[1, 0] = [0.00021, 0.0, -0.000345]
    tiny["cosine_G"].values[2, 0, 0] = -1.0  # 16 bits from here to there have steps of 1.5e-5
    tiny["cosine_G_away"].values[:] = [0.0, 0.00021, 0.5]
    tiny["cosine"].values[2, 0] = [1.0, 2e-6, 0.0]
    save_result(tiny, folder / "tiny.nc")
    track = tracked().assign_coords(phase=("checkpoint", ["pretraining everywhere"] * 4))
    save_result(track, folder / "track.nc")
    return write_report([folder], folder.parent / "odd.html")


def test_small_numbers_keep_digits_and_zero_is_zero(open_page, odd):
    tab = open_page(odd, "#what=tiny&measure=cosine_G&layer=1&y=0&x=0")
    for x, text in enumerate(("2.1e-4", "0.000", "−3.4e-4")):
        tab.evaluate("(x) => explorer.set({ x })", x)
        settled(tab)
        said = tab.inner_text("#readout").rsplit("cosine G ", 1)[1]
        assert (said[:2], said[-3:]) == (text[:2], text[-3:])
    cells = tab.locator("#layers td").all_inner_texts()
    assert {"0.000", "2.1e-4", "0.500"} <= {text.strip() for text in cells}


def test_no_digit_is_shown_that_the_packing_lost(open_page, odd):
    """Of an array from 0 to 1, in steps of 1.5e-5, 2e-6 cannot be told from 0."""
    tab = open_page(odd, "#what=tiny&measure=cosine&layer=2&y=0&x=1")
    for x in (1, 2):
        tab.evaluate("(x) => explorer.set({ x })", x)
        settled(tab)
        assert "cosine 0.000" in tab.inner_text("#readout")


@pytest.mark.parametrize("width", [390, 1280])
def test_names_below_an_axis_are_not_cut_off(open_page, odd, width):
    pixels_are_read = ["Canvas2D: Multiple readback"]
    tab = open_page(odd, "#what=track&measure=cosine_G", width=width, expected=pixels_are_read)
    tab.locator("#by-checkpoint").scroll_into_view_if_needed()
    tab.evaluate("explorer.charts.paint()")
    settled(tab)
    inked = tab.evaluate(
        """() => {
          const { canvas } = explorer.charts.plots["by-checkpoint"].view.canvas_view.primary;
          const ink = (left, wide) => canvas.getContext("2d")
            .getImageData(left, 0, wide, canvas.height).data.some((part) => part > 0);
          return [ink(0, 3), ink(3, canvas.width - 6), ink(canvas.width - 3, 3)];
        }"""
    )
    assert inked == [False, True, False]


def test_the_lines_of_the_object_s_box_are_inside_of_it(open_page, odd):
    tab = open_page(odd, "#what=tiny")
    line = """(part) => (({ outlineStyle, boxShadow }) => [outlineStyle, boxShadow])(
      getComputedStyle(document.querySelector("#stage [role=gridcell]"), part))"""
    assert tab.evaluate(line, "") == ["none", "none"]
    _, shadows = tab.evaluate(line, "::after")
    assert shadows.count("rgb") == shadows.count("inset") == 3
