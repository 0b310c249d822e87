"""The page: one file that needs no network and lets nothing in."""

from __future__ import annotations

import importlib.resources
from collections.abc import Sequence
from pathlib import Path

import jinja2
from markupsafe import Markup

from elsewhere.report.catalogue import Catalogue, to_json
from elsewhere.report.charts import bokeh_script, charts, script_digest
from elsewhere.report.material import Material
from elsewhere.report.parts import Section

SCRIPTS = ("values.js", "stage.js", "charts.js", "explorer.js")


def asset(name: str) -> str:
    """Return the text of a file of the package's own."""
    folder = importlib.resources.files("elsewhere.report") / "assets"
    return (folder / name).read_text(encoding="utf-8")


def render(
    material: Material, catalogue: Catalogue, sections: Sequence[Section], title: str
) -> str:
    """Return the page as HTML.

    Every text of a file goes through a template that escapes it, or stands in JSON in which no sign
    can end its element. Scripts are those whose digests the policy names; everything else,
    the network first, is forbidden.
    """
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    own = "\n".join(map(asset, SCRIPTS))
    scripts = [bokeh_script(), own] if any(file["fields"] for file in catalogue.files) else []
    allowed = " ".join(map(script_digest, scripts)) or "'none'"
    policy = (
        "default-src 'none'; base-uri 'none'; form-action 'none'; img-src data: blob:; "
        f"style-src 'unsafe-inline'; script-src {allowed}"
    )
    return environment.from_string(asset("page.html")).render(
        title=title,
        policy=policy,
        style=Markup(asset("report.css")),
        sections=sections,
        explorer=bool(scripts),
        scripts=[Markup(script) for script in scripts],
        catalogue=Markup(to_json(catalogue.facts())),
        charts=Markup(to_json(charts())),
        blocks=catalogue.blocks,
        notes=catalogue.notes,
        directories=material.directories,
    )


def default_title(directories: Sequence[Path]) -> str:
    """Return a title from the names of directories."""
    return " and ".join(directory.resolve().name for directory in directories)
