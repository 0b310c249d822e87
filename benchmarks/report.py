"""How long a report takes to be ready, and to answer, in headless Chromium.

    python -m benchmarks.report REPORT.html [--times 12] [--at stage|curves]

Ready is when the explorer is, by the page's own clock. An answer is timed from the change to the
frame after the last chart was painted; `paints` and `layouts` are those of Bokeh's charts, which do
not depend on the machine. Charts out of sight rest: ``--at curves`` has all of them in sight, in a
window of 1280 x 900 px. It needs Playwright and a Chromium on the path.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

PREPARE = """() => {
  window.last = 0; window.layouts = 0; window.paints = 0;
  for (const { view } of Object.values(explorer.charts.plots)) {
    view.repainted.connect(() => { last = performance.now(); paints += 1; });
    const compute = view.compute_layout.bind(view);
    view.compute_layout = () => { layouts += 1; return compute(); };
  }
  const draw = explorer.draw.bind(explorer);
  explorer.draw = () => { draw(); last = performance.now(); };
  const frame = () => new Promise((done) => requestAnimationFrame(() => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = done;
    port2.postMessage(0);
  }));
  window.act = async (change) => {
    await new Promise((done) => setTimeout(done, 600));
    const begun = performance.now();
    let ended = begun, answered = begun;
    last = begun; layouts = 0; paints = 0;
    change();
    while (performance.now() - last < 150 || explorer.asked || explorer.dirty) {
      await frame();
      if (last !== ended) { ended = last; answered = performance.now(); }
    }
    return [answered - begun, paints, layouts];
  };
}"""
"""Makes `act`, which changes something and resolves once nothing was painted for 150 ms."""

_NEXT = """{
  const menu = byId('choose-%s');
  menu.selectedIndex = (menu.selectedIndex + 1) %% menu.options.length;
  menu.dispatchEvent(new Event('change'));
}"""
ACTIONS = {
    "measure": _NEXT % "measure",
    "layer": _NEXT % "layer",
    "checkpoint": """{
      const slider = byId('checkpoint');
      slider.value = (Number(slider.value) + 1) % (Number(slider.max) + 1);
      slider.dispatchEvent(new Event('input'));
    }""",
    "key": """{
      const key = ['ArrowLeft', 'ArrowUp', 'ArrowRight', 'ArrowDown'][number % 4];
      byId('stage').dispatchEvent(new KeyboardEvent('keydown', { key, bubbles: true }));
    }""",
    "result": _NEXT % "what",
}
PLACES = {"stage": ("stage", "start"), "curves": ("box-layer", "end")}


def show(page: Page, report: Path, at: str) -> float:
    """Open a report, and scroll to a part of it; return after how many ms it was ready."""
    page.goto(report.resolve().as_uri(), wait_until="commit")
    page.wait_for_selector("html[data-ready=yes]", state="attached")
    ready = float(page.evaluate("performance.now()"))
    element, block = PLACES[at]
    page.evaluate(f"byId('{element}').scrollIntoView({{ block: '{block}' }})")
    page.wait_for_timeout(800)
    return ready


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("report", type=Path)
    parser.add_argument("--times", type=int, default=12)
    parser.add_argument("--at", choices=sorted(PLACES), default="stage")
    asked = parser.parse_args()
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        ready = []
        for _ in range(3):
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            page.set_default_timeout(300_000)
            ready.append(show(page, asked.report, asked.at))
        print(f"ready after {', '.join(f'{each:.0f}' for each in ready)} ms")
        print(f"{'action':<12}{'median, ms':>12}{'largest':>10}{'paints':>8}{'layouts':>9}")
        page.evaluate(PREPARE)
        for name, code in ACTIONS.items():
            found = [page.evaluate(f"act(() => {{ const number = {n}; {code} }})")
                     for n in range(asked.times)]  # fmt: skip
            times, paints, layouts = zip(*found, strict=True)
            print(
                f"{name:<12}{statistics.median(times):>12.0f}{max(times):>10.0f}"
                f"{statistics.mean(paints):>8.1f}{statistics.mean(layouts):>9.1f}"
            )
        browser.close()


if __name__ == "__main__":
    main()
