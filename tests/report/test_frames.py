"""Maps of attribution follow the object, and are those of the file."""

import sys

import numpy as np
import pytest

from elsewhere.report import check_report, write_report
from elsewhere.report.frames import in_squares
from elsewhere.storage import load_result
from tests.report.test_browser import settled, violations

MAPS = "[...explorer.charts.named('frame-images').data.image].map(each => [...each])"


@pytest.fixture(scope="module")
def maps(attributed):
    pytest.importorskip("bokeh", reason="reports are drawn by Bokeh")
    return write_report([attributed], attributed.parent / "maps.html")


def test_maps_lie_over_the_object_and_move_with_it(open_page, maps, attributed):
    tab = open_page(maps, "#y=0&x=0&object=1")
    result = load_result(attributed / "maps.nc")
    tab.focus("#stage [role=gridcell]")
    for key, at in (("ArrowRight", (0, 1)), ("ArrowDown", (1, 1)), ("End", (1, 2))):
        tab.keyboard.press(key)
        settled(tab)
        here, there = (np.array(each) for each in tab.evaluate(MAPS))
        wanted = result["attribution"].isel(object=1, y=at[0], x=at[1]).values.astype(float)
        shape = wanted.shape
        np.testing.assert_allclose(here.reshape(shape)[::-1], wanted, atol=0.005)
        reference = result["reference_attribution"].isel(object=1).values
        np.testing.assert_allclose(there.reshape(shape)[::-1], reference, atol=0.005)
        names = (".over", "[role=gridcell]")
        boxes = [tab.locator(f"#stage {each}").bounding_box() for each in names]
        margin = -int(result["height"][0])
        part = boxes[1]["width"] / 12
        for side in ("x", "y"):
            assert boxes[0][side] == pytest.approx(boxes[1][side] - margin * part, abs=1)
        assert boxes[0]["width"] == pytest.approx(shape[1] * part, abs=1)
    painted = tab.evaluate(
        """() => {
          const over = document.querySelector("#stage .over");
          const { data } = over.getContext("2d").getImageData(0, 0, over.width, over.height);
          return [...data];
        }"""
    )
    strength = np.array(painted).reshape(*shape, 4)[..., 3]
    finite = np.isfinite(wanted)
    assert (strength[~finite] == 0).all()
    assert strength[np.nan_to_num(np.abs(wanted)) > 0.9].min() > 220
    assert "input-x-gradient of logit:0" in tab.inner_text("#box-frames")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_beside_maps(open_page, maps, scheme):
    tab = open_page(maps, width=390, scheme=scheme)
    assert violations(tab) == []
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390


def test_no_pixel_is_taken_for_a_place(open_page, maps):
    tab = open_page(maps)
    assert tab.locator("#further select[data-dim=height]").count() == 0


def test_the_check_reads_pixels_of_maps(maps, attributed, monkeypatch):
    found = check_report(maps, [attributed], numbers=300)
    assert found.different == ()
    monkeypatch.setattr(sys.modules[check_report.__module__], "pixel", lambda *_: 2.0)
    broken = check_report(maps, [attributed], numbers=300)
    assert any("attribution of maps.nc" in line for line in broken.different)


def test_large_maps_are_means_over_squares():
    rng = np.random.default_rng(0)
    maps = rng.normal(size=(2, 5, 7))
    maps[0, 0] = np.nan
    found = in_squares(maps, 3)
    assert found.shape == (2, 2, 3)
    assert found[0, 0, 0] == pytest.approx(maps[0, 1:3, :3].mean())
    assert found[1, 1, 2] == pytest.approx(maps[1, 3:, 6].mean())
    assert np.isnan(in_squares(maps[:1, :1], 3)).all()
