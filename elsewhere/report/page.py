"""The page: it needs no network and lets nothing in."""

from __future__ import annotations

import hashlib
import importlib.resources
from collections.abc import Sequence

import jinja2
from markupsafe import Markup

from elsewhere.report.catalogue import Catalogue, to_json
from elsewhere.report.charts import bokeh_script, charts, script_digest
from elsewhere.report.material import Material
from elsewhere.report.packing import INDEX, data_name, data_script
from elsewhere.report.parts import Section
from elsewhere.report.texts import seen

SCRIPTS = ("values.js", "stage.js", "charts.js", "evidence.js", "explorer.js")


def asset(name: str) -> str:
    """Return the text of a file of the package's own."""
    folder = importlib.resources.files("elsewhere.report") / "assets"
    return (folder / name).read_text(encoding="utf-8")


def render(
    material: Material,
    catalogue: Catalogue,
    sections: Sequence[Section],
    title: str,
    *,
    split: bool = False,
) -> dict[str, bytes]:
    """Return the page as HTML, by its name; and beside it, if `split`, a file of data of each file.

    Every text of a file goes through a template that escapes it, or stands in JSON in which no sign
    can end its element. Scripts are those whose digests the policy names; everything else,
    the network first, is forbidden.

    Files of data are scripts that hand over text: a page that is opened from a disk may load
    nothing else. The policy takes those that bear its mark, a digest of all data, which therefore
    no text in the data can contain.
    """
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, finalize=_finish
    )
    own = "\n".join(map(asset, SCRIPTS))
    explorer = any(file["fields"] for file in catalogue.files)
    scripts = [bokeh_script(), own] if explorer else [own]
    facts, blocks = to_json(catalogue.facts()), catalogue.blocks
    pages: dict[str, bytes] = {}
    mark = ""
    if split:
        for number, held in blocks.items():
            if held:
                pages[data_name(number)] = data_script(number, held).encode()
        mark = _digest(facts, *pages.values())
    allowed = " ".join(map(script_digest, scripts))
    policy = (
        "default-src 'none'; base-uri 'none'; form-action 'none'; img-src data: blob:; "
        f"style-src 'unsafe-inline'; script-src {allowed}"
    )
    page = environment.from_string(asset("page.html")).render(
        title=title,
        policy=f"{policy} 'nonce-{mark}'" if mark else policy,
        mark=mark,
        style=Markup(asset("report.css")),
        sections=sections,
        explorer=explorer,
        scripts=[Markup(script) for script in scripts],
        catalogue=Markup(facts),
        charts=Markup(to_json(charts())),
        blocks={}
        if split
        else {key: text for held in blocks.values() for key, text in held.items()},
        notes=catalogue.notes,
        directories=material.directories,
    )
    return {INDEX: page.encode(), **pages}


def _finish(value: object) -> object:
    """Return a value of the template as it is shown; what is ours stays what it is."""
    return seen(value) if type(value) is str else value


def _digest(facts: str, *pages: bytes) -> str:
    digest = hashlib.sha256(facts.encode())
    for page in pages:
        digest.update(page)
    return digest.hexdigest()
