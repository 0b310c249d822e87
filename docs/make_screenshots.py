"""Pictures of a report at three widths, light and dark: ``python docs/make_screenshots.py DIR``.

They go to ``runs/screenshots``, which git ignores: of the whole page, the explorer and its views.
What a browser complains of is printed. Needs Playwright and a Chromium.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from elsewhere.report import write_report
from elsewhere.terminal import say

WIDTHS = (390, 1024, 1440)
SCHEMES = ("light", "dark")


def shoot(page: Page, out: Path, name: str) -> None:
    """Save the whole page, the explorer, and its canvas and maps, which README shows."""
    page.screenshot(path=out / f"{name}.png", full_page=True)
    explorer = page.query_selector("#explorer")
    if explorer is not None:
        explorer.screenshot(path=out / f"{name}-explorer.png")
        page.evaluate("scrollTo(0, 0)")
        boxes = [page.locator(each).bounding_box() for each in (".slider", ".views", "#readout")]
        known = [box for box in boxes if box is not None]
        top, left = (min(box[side] for box in known) - 8 for side in ("y", "x"))
        bottom = max(box["y"] + box["height"] for box in known)
        right = max(box["x"] + box["width"] for box in known)
        clip = {"x": left, "y": top, "width": right - left + 8, "height": bottom - top}
        page.screenshot(path=out / f"{name}-views.png", clip=clip, full_page=True)


def main() -> None:
    """Make the report and its pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directories", nargs="+", type=Path, metavar="DIR")
    parser.add_argument("--out", type=Path, default=Path("runs/screenshots"))
    parser.add_argument("--state", default="", help="What stands after # in the address.")
    parser.add_argument("--widths", type=int, nargs="+", default=WIDTHS)
    parser.add_argument("--schemes", nargs="+", choices=SCHEMES, default=SCHEMES)
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    report = write_report(chosen.directories, chosen.out / "report.html", overwrite=True)
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        for scheme in chosen.schemes:
            for width in chosen.widths:
                window = {"width": width, "height": 900}
                page = browser.new_page(viewport=window, color_scheme=scheme)
                page.set_default_timeout(300_000)
                page.on("pageerror", lambda error: say(f"error: {error}"))
                page.goto(f"{report.absolute().as_uri()}{chosen.state and f'#{chosen.state}'}")
                page.wait_for_selector("html[data-ready=yes]")
                page.wait_for_timeout(500)
                shoot(page, chosen.out, f"{width}-{scheme}")
                page.close()
        browser.close()
    say(f"wrote the pictures to {chosen.out}")


if __name__ == "__main__":
    main()
