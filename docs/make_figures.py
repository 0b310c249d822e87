"""Writes docs/figures.md from the code: `python docs/make_figures.py`. A test compares them."""
# ruff: noqa: E501  (the text of a page)

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from typer.main import get_command

from elsewhere.cli import app
from elsewhere.figures.kinds import DRAWN_OF, FACETED, OVERLAID, figure_kinds, quantity_of

PAGE = Path(__file__).with_name("figures.md")

MADE = {
    "accuracy": ("acc.nc", "elsewhere accuracy"),
    "attribution": ("attr.nc", "elsewhere attribute"),
    "attribution sanity": ("sanity.nc", "elsewhere sanity"),
    "attribution timeline": ("attr.nc", "elsewhere attribute --checkpoints"),
    "claims": ("claims.nc", "elsewhere reproduce"),
    "comparison": ("comparison.nc", "elsewhere compare"),
    "measures": ("m.nc", "elsewhere measure"),
    "probe": ("probe.nc", "elsewhere probe --train-at left"),
    "probe-each": ("probe.nc", "elsewhere probe --train-at each"),
    "similarity": ("sim.nc", "elsewhere similarity"),
    "track": ("track.nc", "elsewhere track"),
}
"""A file of each kind of result, and the command that makes it."""

HEAD = """\
# Figures

<!-- made by docs/make_figures.py from the code; change that, and run it again -->

`elsewhere figure RESULT --out FILE` draws a finished result, as `.pdf`, `.svg` or `.png`; `elsewhere.figures.draw(result,
kind, ...)` takes the same options in Python, and each kind of figure is a function `plot_...` of `elsewhere.figures`. A
figure computes nothing: what it shows stands in the result, and `elsewhere table` writes it as numbers.

```
$ elsewhere figure sim.nc --out sim.pdf
$ elsewhere figure sim.nc --kind maps --layers fc6,fc7 --quantities similarity,baseline,G --out maps.png
$ elsewhere figure track.nc --quantities on,off --width 85mm --height 60mm --font-size 7 --no-title --out on.pdf
$ elsewhere figure sim.nc --kinds maps,layerwise --layers fc6,fc7 --title "VGG16" --out panels.pdf
$ elsewhere figure sim.nc acc.nc --style slides --out slide.svg
$ elsewhere figure --paper runs/claims --width 178mm --out paper.pdf
```

## What is drawn of which result

The first figure of a result is the one that is drawn without `--kind`.

"""

TAIL = """\

## Several panels, and several results

- `--kinds maps,layerwise` draws each kind as a panel of one figure, with a letter, `--columns` in a row. Of several results
  each panel is drawn of those that it is for; without `--kinds` each has the figure that it has by itself.
- Several results of one kind share axes ({overlaid}), have a panel
  each (`accuracy-maps`, `sanity`), a colour each (`accuracy-displacement`), or are before and after (`change`). `--names`
  says what they are called; by default that is what tells them apart: run, network, weights, or phase.
- `elsewhere figure --paper DIR` draws the paper's figures from what `elsewhere reproduce --out DIR` left: accuracy over the
  canvas for each condition and each set of objects, and the similarity of each layer before and after. They are those of one
  seed, the first one or `--seed`, for seeds differ in the trained location. In Python it is
  `elsewhere.reproduction.draw_paper(DIR)`.

## Pages

- Without `--width` a figure is at most 178 mm wide, the text of a printed page, and as tall as it needs. With `--width`
  alone it grows in height until names, title and legend have room. With `--height` as well it has exactly that size, and
  a page on which something would be cut off, or numbers would overlap, is refused, with what can be done.
- Labels of axes have 8 pt, and 7 pt where a width below 120 mm is asked for; numbers and small print have less (7/8 and
  3/4), titles 9/8. With `--font-size` all text but the titles has that size. Only a word that is too long for its panel
  by itself is smaller.
- `--style slides` is a slide of 16 to 9: 254 mm wide, no taller than 143 mm if that can be, with text of 14 pt. It is a
  smaller page, enlarged: lines, marks and distances are larger as well. So is a page with `--font-size` above 9.
- A figure that is taller than a page (240 mm) or a slide is written, and a note says so.
- Names of layers, networks, objects and conditions stand whole, in lines where they need them. A form other than the
  full one stands in the name of the layer in every figure, `fc6 (mean)`, and no line joins layers of different forms.
- Text is text in `.svg` and `.pdf` (TrueType): it can be searched and edited. DejaVu Sans ships with matplotlib, so a
  figure looks the same everywhere; characters that it lacks come from an installed font that has them.
- The same result gives the same file, byte for byte, with the same version of matplotlib.
- Where intervals are known they are drawn: bars, and bands from {bands} layers on. A cross on the lower edge says that
  there is no value, a triangle at an edge that a value lies beyond, with its number, and an open one that an interval
  does.
- Axes of your own figure (`plot_layerwise(result, ax=ax)`) give way to their legend where no layout engine arranges the figure.

Why the default figures are what they are is decided in
[decisions/{decision}]({link}).
"""


def parameters_of(function: Callable[..., Any]) -> dict[str, str]:
    """Return what a docstring says of each parameter, on one line."""
    text = inspect.getdoc(function) or ""
    body = re.split(r"\n(?=\w+\n-{3,})", text.partition("Parameters\n----------\n")[2])[0]
    found = {}
    for entry in re.split(r"\n(?=\S)", body):
        names, _, said = entry.partition("\n")
        words = re.sub(r":func:`(\w+)`", r"``\1``", " ".join(said.split())).replace("``", "`")
        found |= dict.fromkeys((name.strip() for name in names.split(",")), words)
    for name, words in found.items():
        other = re.match(r"As for `plot_(\w+)`", words)
        if other:
            shared = inspect.unwrap(figure_kinds.get(other[1].replace("_", "-")))
            whole = parameters_of(shared).get(name, words)
            found[name] = whole + words[other.end() :] if words[other.end() :].strip(".") else whole
    return found


def options() -> str:
    """Return the options of the command as a table."""
    rows = ["| option | what |", "| --- | --- |"]
    for option in get_command(app).commands["figure"].params:  # type: ignore[attr-defined]
        names = [name for name in (*option.opts, *option.secondary_opts) if name.startswith("--")]
        if names and names != ["--help"]:
            said = (option.help or "").replace("|", "&#124;")
            rows.append(f"| {', '.join(f'`{name}`' for name in names)} | {said} |")
    return "\n".join(rows)


def make_page() -> str:
    """Return the page."""
    from elsewhere.figures.layer_axis import BAND_FROM  # noqa: PLC0415

    parts, seen = [HEAD], set[str]()
    for made, all_kinds in DRAWN_OF.items():
        kinds = [kind for kind in all_kinds if kind not in seen]
        seen |= set(kinds)
        name, command = MADE[made]
        parts.append(f"### `{made}` (`{command}`)\n\n")
        parts.append(
            "| kind | what it shows | `--layers` | `--quantities` |\n| --- | --- | --- | --- |\n"
        )
        for kind in kinds:
            function = inspect.unwrap(figure_kinds.get(kind))
            said = parameters_of(function)
            called = quantity_of(kind, function)
            chosen = "-" if called is None else said[called]
            layers = (
                "-"
                if made in WITHOUT_LAYERS
                else said.get("layers", "Names of the layers; all by default.")
            )
            cells = (f"`{kind}`", figure_kinds.summary(kind), layers, chosen)
            parts.append(f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |\n")
        parts.append(f"\n```\n$ elsewhere figure {name} --out {Path(name).stem}.pdf\n")
        parts += [
            f"$ elsewhere figure {'before.nc after.nc' if kind == 'change' else name} --kind {kind} --out {kind}.pdf\n"
            for kind in kinds[1:]
        ]
        parts.append("```\n\n")
    parts.append(
        "Results with an axis that changes objects, such as `scale`, are drawn at the value nearest to the reference's, at "
        "another one with `--at scale=0.5`, against it with `--along scale`, or with a panel for each value with "
        f"`--facet scale` ({', '.join(f'`{kind}`' for kind in FACETED)}).\n\n"
    )
    parts.append(f"## Options\n\n{options()}\n")
    decision = next(PAGE.parent.glob("decisions/*-figures.md"))
    parts.append(
        TAIL.format(
            overlaid=", ".join(f"`{kind}`" for kind in sorted(OVERLAID)),
            bands=BAND_FROM,
            decision=decision.name,
            link=f"decisions/{decision.name}",
        )
    )
    return "".join(parts)


WITHOUT_LAYERS = (
    "accuracy",
    "attribution",
    "attribution sanity",
    "attribution timeline",
    "claims",
    "comparison",
)
"""Kinds of results that are not of layers."""


if __name__ == "__main__":
    PAGE.write_text(make_page(), encoding="utf-8")
