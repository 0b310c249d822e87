"""Pictures of a report at three widths, light and dark: ``python docs/make_screenshots.py DIR``.

They go to ``runs/screenshots``, which git ignores: of the whole page, and of the explorer alone.
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
    """Save the whole page, and the explorer alone."""
    page.screenshot(path=out / f"{name}.png", full_page=True)
    explorer = page.query_selector("#explorer")
    if explorer is not None:
        explorer.screenshot(path=out / f"{name}-explorer.png")


def main() -> None:
    """Make the report and its pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directories", nargs="+", type=Path, metavar="DIR")
    parser.add_argument("--out", type=Path, default=Path("runs/screenshots"))
    parser.add_argument("--state", default="", help="What stands after # in the address.")
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    report = write_report(chosen.directories, chosen.out / "report.html", overwrite=True)
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        for scheme in SCHEMES:
            for width in WIDTHS:
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
    say(f"wrote {2 * len(WIDTHS) * len(SCHEMES)} pictures to {chosen.out}")


if __name__ == "__main__":
    main()
