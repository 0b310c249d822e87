"""How much a browser has to do for an action: what is seen is painted once, the rest later."""

import pytest

from tests.report.test_browser import TRACK, settled, until

COUNT = """() => {
  globalThis.painted = {};
  globalThis.layouts = 0;
  for (const [name, { view }] of Object.entries(explorer.charts.plots)) {
    view.repainted.connect(() => { painted[name] = (painted[name] ?? 0) + 1; });
    const compute = view.compute_layout.bind(view);
    view.compute_layout = () => { layouts += 1; compute(); };
  }
}"""
LATER = "globalThis.later = explorer.settle.bind(explorer); explorer.settle = () => {};"
FRESH = """(name) => {
  const { view } = explorer.charts.plots[name];
  const look = () => view.canvas_view.primary.canvas.toDataURL();
  const seen = look();
  view.request_repaint();
  view.model.hold_render = false;
  while (view.is_paused) view.unpause(true);
  view.repaint();
  return look() === seen;
}"""
"""Whether a chart shows what it shows when it is painted anew."""


def watched(open_page, page, *, low):
    """Return a page whose paintings are counted; in a low window the curves are out of sight.

    What follows an action a quarter of a second later waits for `later()`, so that no test depends
    on how fast it runs.
    """
    tab = open_page(page, TRACK)
    tab.set_viewport_size({"width": 1280, "height": 500 if low else 1600})
    tab.evaluate("byId(`choose-measure`).scrollIntoView()")
    paused = "explorer.charts.plots['by-layer'].view.is_paused"
    until(tab, paused if low else f"!{paused}")
    tab.wait_for_timeout(500)
    tab.evaluate(LATER)
    tab.evaluate(COUNT)
    return tab


def choose(tab, name, value):
    """Choose from a menu, and return how often charts were painted for it."""
    tab.evaluate("painted = {}")
    tab.select_option(f"#choose-{name}", value)
    until(tab, f"explorer.state['{name}'] === '{value}' && !explorer.dirty && painted.maps > 0")
    settled(tab)
    settled(tab)
    return tab.evaluate("painted")


def test_what_is_out_of_sight_is_painted_when_it_comes_near(open_page, page):
    tab = watched(open_page, page, low=True)
    for measure in ("cosine", "cosine_baseline", "cosine_G", "cosine"):
        assert choose(tab, "measure", measure) == {"maps": 1}
    assert tab.evaluate("layouts") == 0
    tab.locator("#by-layer").scroll_into_view_if_needed()
    until(tab, "painted['by-layer'] === 1 && painted['by-checkpoint'] === 1")
    settled(tab)
    assert tab.evaluate(FRESH, "by-layer")
    assert tab.evaluate(FRESH, "by-checkpoint")


@pytest.mark.parametrize("comes", ["later()", "dispatchEvent(new Event('beforeprint'))"])
def test_what_is_out_of_sight_is_painted_for_paper_and_when_nothing_else_is_done(
    open_page, page, comes
):
    tab = watched(open_page, page, low=True)
    assert choose(tab, "measure", "cosine_baseline") == {"maps": 1}
    tab.evaluate(comes)
    assert tab.evaluate("painted") == {"maps": 1, "by-layer": 1, "by-checkpoint": 1}
    assert tab.evaluate(FRESH, "by-layer")


def test_what_is_out_of_sight_is_painted_again_in_a_window_of_another_size(open_page, page):
    tab = watched(open_page, page, low=True)
    tab.set_viewport_size({"width": 900, "height": 500})
    until(tab, "explorer.charts.plots['by-layer'].view.bbox.width < 500")
    settled(tab)
    tab.evaluate("painted = {}; later()")
    assert tab.evaluate("painted['by-layer']") == 1
    assert tab.evaluate(FRESH, "by-layer")


def test_what_is_out_of_sight_is_saved_as_it_is_now(open_page, page, tmp_path):
    tab = watched(open_page, page, low=True)
    assert choose(tab, "measure", "cosine_baseline") == {"maps": 1}
    with tab.expect_download() as waiting:
        tab.evaluate("document.querySelector(`[data-save='by-layer svg']`).click()")
    waiting.value.save_as(tmp_path / "layers.svg")
    assert "cosine baseline" in (tmp_path / "layers.svg").read_text()


def test_charts_in_sight_are_painted_once_whatever_their_legends_have(open_page, page):
    tab = watched(open_page, page, low=False)
    once = {"maps": 1, "by-layer": 1, "by-checkpoint": 1}
    measures = ("cosine", "cosine_baseline", "cosine_G")
    for measure in measures:  # other seeds' curves are drawn when they are there
        choose(tab, "measure", measure)
        until(tab, "explorer.others.length === 1")
    for measure in measures:
        assert choose(tab, "measure", measure) == once


def test_another_result_is_painted_once(open_page, page):
    tab = watched(open_page, page, low=True)
    for result in ("things-similarity", "track"):
        assert choose(tab, "what", result)["maps"] == 1


def test_style_sheets_are_not_written_again_as_they_were(open_page, page):
    """Bokeh would; the browser would find out all styles anew."""
    tab = watched(open_page, page, low=False)
    tab.evaluate(
        """() => {
          globalThis.again = 0;
          const { get, set } = Object.getOwnPropertyDescriptor(Node.prototype, "textContent");
          Object.defineProperty(HTMLStyleElement.prototype, "textContent", {
            get, set(text) { if (get.call(this) === text) again += 1; set.call(this, text); },
          });
        }"""
    )
    tab.evaluate("painted = {}; explorer.set({ layer: 0, y: 1 })")
    until(tab, "painted['by-checkpoint'] > 0")
    assert tab.evaluate("again") == 0
