"""Reports in a real browser, opened from a file: what it shows is what the results hold."""

import csv
import io
import re

import matplotlib.pyplot as plt
import numpy as np
import pytest

from elsewhere.storage import load_result
from tests.report.conftest import LAYERS, PLACES

TRACK = "#what=track&measure=cosine_G"
NUMBER = re.compile(r": cosine G (undefined|[−\d.]+(?:e-\d+)?)")


def shown(tab):
    """Return the value that is read out."""
    text = tab.inner_text("#readout")
    found = NUMBER.search(text)[1].replace("−", "-")
    return float("nan") if found == "undefined" else float(found)


def settled(tab):
    """Wait until all has followed what was done."""
    tab.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


def until(tab, condition):
    """Wait for a condition; Playwright's own waiting evaluates text, which the policy forbids."""
    for _ in range(600):
        if tab.evaluate(condition):
            return
        tab.wait_for_timeout(100)
    pytest.fail(f"never: {condition}")


@pytest.fixture
def track(runs):
    return load_result(runs / "seeds/100/full-track.nc")


def test_keys_move_the_object_and_the_number_is_the_file_s(open_page, page, track):
    tab = open_page(page, f"{TRACK}&y=0&x=0&layer=1&checkpoint=2")
    tab.focus("#stage [role=gridcell]")
    values = track["cosine_G"].values
    for key, at in (
        ("ArrowRight", (0, 1)),
        ("ArrowDown", (1, 1)),
        ("End", (1, 2)),
        ("Home", (1, 0)),
    ):
        tab.keyboard.press(key)
        settled(tab)
        assert shown(tab) == pytest.approx(values[2, 1, *at], abs=6e-4, nan_ok=True)
    assert tab.evaluate("document.activeElement.getAttribute('role')") == "gridcell"
    label = tab.get_attribute("#stage [role=gridcell]", "aria-label")
    assert "y 18, x 8, fc6" in label


def test_dragging_moves_the_object(open_page, page, track):
    tab = open_page(page, f"{TRACK}&y=0&x=0&layer=2&checkpoint=2")
    tab.locator("#stage").scroll_into_view_if_needed()
    box = tab.locator("#stage").bounding_box()
    part = box["width"] / 48
    tab.mouse.move(box["x"] + 8 * part, box["y"] + 8 * part)
    tab.mouse.down()
    tab.mouse.move(box["x"] + 20 * part, box["y"] + 20 * part)
    tab.mouse.move(box["x"] + 39 * part, box["y"] + 41 * part)
    tab.mouse.up()
    settled(tab)
    assert shown(tab) == pytest.approx(track["cosine_G"].values[2, 2, 3, 2], abs=6e-4)


def test_the_slider_and_the_play_button_go_through_the_checkpoints(open_page, page, track):
    tab = open_page(page, f"{TRACK}&y=3&x=2&layer=2&checkpoint=0")
    values = track["cosine_G"].values[:, 2, 3, 2]
    assert shown(tab) == pytest.approx(values[0], abs=6e-4)
    tab.focus("#checkpoint")
    tab.keyboard.press("ArrowRight")
    settled(tab)
    assert shown(tab) == pytest.approx(values[1], abs=6e-4)
    assert tab.inner_text("#checkpoint-name") == "learn, step 10"
    tab.click("#play")
    until(tab, "document.getElementById('checkpoint').value === '3'")
    until(tab, "document.getElementById('play').textContent === 'Play'")
    settled(tab)
    assert shown(tab) == pytest.approx(values[3], abs=6e-4)


def test_what_is_chosen_stands_in_the_address_and_comes_back(open_page, page, runs):
    tab = open_page(page)
    tab.select_option("#choose-what", "things-similarity")
    tab.select_option("#choose-condition", "acquired")
    tab.select_option("#choose-seed", "101")
    tab.select_option("#choose-measure", "cosine_G")
    tab.select_option("#choose-layer", label="fc6")
    until(tab, "location.hash.includes('layer=1')")
    address = tab.evaluate("location.hash")
    other = open_page(page, address)
    assert other.input_value("#choose-seed") == "101"
    result = load_result(runs / "seeds/101/acquired-things-similarity.nc")
    state = other.evaluate("Object.fromEntries(new URLSearchParams(location.hash.slice(1)))")
    at = {dim: int(state[dim]) for dim in ("layer", "y", "x")}
    assert shown(other) == pytest.approx(result["cosine_G"].isel(at).item(), abs=6e-4)
    low, high = result["cosine_G_interval"].isel(at).values
    assert f"[{low:.3f}, {high:.3f}]".replace("-", "−") in other.inner_text("#readout")


def test_the_other_seeds_are_drawn_beside_the_one_that_is_chosen(open_page, page, runs):
    tab = open_page(page, f"{TRACK}&y=3&x=2&layer=2&checkpoint=0&seed=100")
    drawn = "explorer.charts.named('checkpoint-others').data.ys"
    until(tab, f"{drawn}.length === 1")
    other = load_result(runs / "seeds/101/full-track.nc")["cosine_G"].values[:, 2, 3, 2]
    np.testing.assert_allclose(tab.evaluate(f"[...{drawn}[0]]"), other, atol=1e-3)
    tab.select_option("#choose-seed", "101")
    until(tab, "explorer.state.seed === '101'")
    settled(tab)
    assert shown(tab) == pytest.approx(other[0], abs=6e-4)


def test_the_raw_similarity_is_never_shown_without_its_baseline(open_page, page):
    tab = open_page(page, "#what=track&measure=cosine")
    assert "baseline" in tab.inner_text("#readout")


def test_a_click_on_a_map_chooses_its_layer_and_place(open_page, page):
    tab = open_page(page, f"{TRACK}&y=0&x=0&layer=0&checkpoint=2")
    tab.locator("#maps").scroll_into_view_if_needed()
    box = tab.locator("#maps").bounding_box()
    # The panels: 1.12 units wide each, a title of 0.26 above, see assets/charts.js.
    unit = min(box["width"] / (3 * 1.12), 240)
    tab.mouse.click(
        box["x"] + (2 * 1.12 + 0.06 + 24 / 48) * unit, box["y"] + (0.26 + 28 / 48) * unit
    )
    settled(tab)
    assert tab.input_value("#choose-layer") == "2"
    assert "y 28, x 24, fc7" in tab.inner_text("#readout")
    assert "y 18, x 8" in tab.inner_text("#hint")  # the only reference


def test_the_table_of_numbers_and_the_file_hold_every_place(open_page, page, track, tmp_path):
    tab = open_page(page, f"{TRACK}&y=0&x=0&layer=0&checkpoint=1")
    tab.click("#numbers > summary")
    rows = tab.locator("#numbers-table tbody tr")
    rows.first.wait_for()
    assert rows.count() == 12
    assert rows.nth(5).locator("th").inner_text() == "y 18, x 40"
    with tab.expect_download() as waiting:
        tab.click("#csv")
    waiting.value.save_as(tmp_path / "numbers.csv")
    table = list(csv.DictReader(io.StringIO((tmp_path / "numbers.csv").read_text())))
    assert len(table) == 3 * 12
    for row in table:
        at = (LAYERS.index(row["layer"]), *(PLACES[n].index(int(row[n])) for n in "yx"))
        there = track["cosine_G"].values[1, *at]
        read = float(row["value"]) if row["value"] else float("nan")
        assert read == pytest.approx(there, abs=1e-4, nan_ok=True)


@pytest.mark.parametrize(("kind", "start"), [("png", b"\x89PNG"), ("svg", b"<svg")])
def test_a_view_is_saved(open_page, page, tmp_path, kind, start):
    tab = open_page(page, TRACK)
    with tab.expect_download() as waiting:
        tab.click(f"[data-save='maps {kind}']")
    waiting.value.save_as(tmp_path / "view")
    saved = (tmp_path / "view").read_bytes()
    assert saved.startswith(start)
    assert kind == "png" or saved.index(b'fill="#fff"') < saved.index(b"<g")


@pytest.mark.parametrize("name", ["maps", "by-layer"])
def test_a_view_is_saved_for_paper_whatever_colours_the_screen_has(open_page, page, name, tmp_path):
    """Dark ink on white, and the screen is afterwards what it was before."""
    view = f"explorer.charts.plots['{name}'].view"
    look = f"{view}.canvas_view.primary.canvas.toDataURL()"
    pictures = []
    for scheme in ("light", "dark"):
        tab = open_page(page, TRACK, scheme=scheme)
        tab.locator(f"#{name}").scroll_into_view_if_needed()
        settled(tab)
        tab.wait_for_timeout(500)
        tab.evaluate(f"{view}.repaint(); globalThis.seen = {look}; null")
        with tab.expect_download() as waiting:
            tab.click(f"[data-save='{name} png']")
        waiting.value.save_as(tmp_path / f"{scheme}.png")
        until(tab, f"{view}.repaint(), {look} === seen")
        pictures.append(plt.imread(tmp_path / f"{scheme}.png"))
    assert np.abs(pictures[0] - pictures[1]).mean() < 1e-4
    assert (pictures[0][[0, -1]][:, [0, -1]] == 1).all()  # white, and not transparent


def test_a_number_says_where_it_comes_from(open_page, page):
    tab = open_page(page)
    number = tab.locator("button.number").first
    number.focus()
    text = tab.inner_text("#evidence")
    for part in ("seeds/100/acquired-things-similarity.nc", "elsewhere similarity x", "SHA-256"):
        assert part in text
    tab.keyboard.press("Escape")
    assert tab.is_hidden("#evidence")


def violations(tab):
    """Return what axe-core finds, with all that is folded opened."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="it carries axe-core")
    tab.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true; })")
    settled(tab)
    found = axe.Axe().run(tab).response["violations"]
    return [(each["id"], each["nodes"][0]["html"][:200]) for each in found]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_axe_finds_nothing(open_page, page, width, scheme):
    tab = open_page(page, f"{TRACK}&checkpoint=2", width=width, scheme=scheme)
    assert violations(tab) == []
    assert tab.evaluate("document.documentElement.scrollWidth") <= width


def test_without_scripts_the_story_is_there(open_page, page):
    tab = open_page(page, java_script_enabled=False)
    assert "Which of the paper's claims hold here?" in tab.inner_text("main")
    assert "needs JavaScript" in tab.inner_text("#explorer")


def test_charts_fit_a_printed_page(open_page, page):
    tab = open_page(page, TRACK)
    tab.emulate_media(media="print")
    tab.evaluate("document.body.style.width = '700px'")  # 190 mm; the window is not resized for it
    ends = tab.evaluate(
        """() => ["maps", "by-layer", "by-checkpoint"].map((name) => {
          const { view } = explorer.charts.plots[name];
          return view.el.getBoundingClientRect().right;
        })"""
    )
    assert max(ends) <= 700


def test_one_tab_stop_leads_to_the_canvas(open_page, page):
    tab = open_page(page)
    stops = tab.locator("#stage [tabindex='0']")
    assert stops.count() == 1
    assert tab.get_attribute("#stage", "aria-rowcount") == "4"
    assert tab.get_attribute("#stage", "aria-colcount") == "3"


def test_an_action_is_answered_by_little_work(open_page, page):
    """Whatever is chosen within a result draws each chart, lays none out anew, unpacks once."""
    tab = open_page(page, TRACK)
    tab.evaluate(
        """() => {
          globalThis.layouts = 0;
          for (const { view } of Object.values(explorer.charts.plots)) {
            const compute = view.compute_layout.bind(view);
            view.compute_layout = () => { layouts += 1; compute(); };
          }
        }"""
    )
    measures = tab.evaluate("explorer.file.fields.map((field) => field.name)")
    assert len(measures) == 3
    for measure in (*measures, *measures):
        tab.select_option("#choose-measure", measure)
        until(tab, f"explorer.field.name === '{measure}' && !explorer.dirty")
        settled(tab)
    before = tab.evaluate("unpacked.size")
    tab.focus("#stage [role=gridcell]")
    tab.keyboard.press("ArrowLeft")
    tab.evaluate("explorer.set({ checkpoint: 1, layer: 0 })")
    settled(tab)
    tab.wait_for_timeout(100)
    assert tab.evaluate("unpacked.size") == before
    assert tab.evaluate("layouts") == 0
    assert np.isfinite(float(tab.evaluate("document.documentElement.dataset.drawn")))


def test_only_charts_that_are_seen_are_made(open_page, page):
    tab = open_page(page, "#what=things-similarity&measure=cosine_G")
    assert tab.evaluate("Object.keys(explorer.charts.plots).sort()") == ["by-layer", "maps"]
    tab.select_option("#choose-what", "track")
    until(tab, "'by-checkpoint' in explorer.charts.plots && explorer.file.kind === 'track'")
    settled(tab)
    assert tab.is_visible("#by-checkpoint")


def test_the_object_s_box_stays_within_the_canvas_of_each_map(open_page, page):
    tab = open_page(page, TRACK)
    for at in ((0, 0), (3, 2)):
        tab.evaluate("([y, x]) => explorer.set({ y, x })", list(at))
        settled(tab)
        here, canvases = (
            tab.evaluate(f"(({{ x, y, w, h }}) => [x, y, w, h])(explorer.charts.named('{n}').data)")
            for n in ("here", "canvases")
        )
        unit = tab.evaluate("explorer.charts.unit")
        (x, y, w, h), (left, top, wide, high) = np.array(here), np.array(canvases)
        line = 2 / unit  # half of the line's width
        assert (np.abs(x - left) + w / 2 + line <= wide / 2 + 1e-6).all()
        assert (np.abs(y - top) + h / 2 + line <= high / 2 + 1e-6).all()
