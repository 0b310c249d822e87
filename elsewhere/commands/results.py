"""Commands that draw results and write them as tables and words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from elsewhere.commands.sources import names_result, open_source
from elsewhere.errors import InputError
from elsewhere.notes import news_of, notes_on
from elsewhere.options import JsonOption, OverwriteOption
from elsewhere.terminal import check_output, print_json, put_text, say


def figure(
    out: Annotated[Path, typer.Option("--out", help=".svg, .pdf or .png")],
    results: Annotated[
        list[Path] | None,
        typer.Argument(help="A result, such as sim.nc, or several.", metavar="RESULT"),
    ] = None,
    kind: Annotated[
        list[str] | None,
        typer.Option(
            "--kind",
            "--kinds",
            help="maps, layerwise, displacement, ...; several, with commas, are panels of one "
            "figure.",
        ),
    ] = None,
    paper: Annotated[
        Path | None,
        typer.Option(
            "--paper",
            help="Draw the paper's figures from the directory of a reproduction: accuracy maps for "
            "each condition, and the similarity of each layer before and after.",
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", help="With --paper, whose results; default: the first.")
    ] = None,
    at: Annotated[
        list[str] | None,
        typer.Option("--at", help="AXIS=VALUE of an axis that changes objects; repeatable."),
    ] = None,
    along: Annotated[
        str | None, typer.Option("--along", help="Draw against the values of this axis instead.")
    ] = None,
    facet: Annotated[
        str | None, typer.Option("--facet", help="A panel for each value of this axis.")
    ] = None,
    layers: Annotated[
        list[str] | None,
        typer.Option("--layers", help="Layers to draw, by name, with commas; default: the kind's."),
    ] = None,
    quantities: Annotated[
        list[str] | None,
        typer.Option(
            "--quantities",
            help="What to draw, with commas: similarity, baseline, baseline_same, G; on, off, far; "
            "measures by name; ...",
        ),
    ] = None,
    labels: Annotated[
        list[str] | None,
        typer.Option(
            "--names",
            help="What each result is called, with commas; default: what tells them apart.",
        ),
    ] = None,
    style: Annotated[
        str, typer.Option("--style", help="paper, or slides: 254 mm wide, with larger text.")
    ] = "paper",
    columns: Annotated[
        int | None,
        typer.Option("--columns", help="Panels of different kinds in a row; default: 1, slides 2."),
    ] = None,
    width: Annotated[
        str | None,
        typer.Option("--width", help="Of the figure: 85mm, 8.5cm, 3.3in; a number is in mm."),
    ] = None,
    height: Annotated[str | None, typer.Option("--height", help="Likewise.")] = None,
    font_size: Annotated[
        float | None,
        typer.Option(
            "--font-size",
            help="Of all text but titles, pt; default: 8 to 6, 7 to 5 below 120 mm, 14 to 10 on "
            "slides.",
        ),
    ] = None,
    title: Annotated[
        str | None, typer.Option("--title", help="A title instead of the usual one.")
    ] = None,
    no_title: Annotated[bool, typer.Option("--no-title", help="Write no title above.")] = False,
    dpi: Annotated[
        float, typer.Option("--dpi", help="Dots per inch of a .png, and of pictures inside others.")
    ] = 200,
    overwrite: OverwriteOption = False,
) -> None:
    """Draw a result, several as panels or on shared axes, or the paper's figures."""
    from elsewhere.figures import draw, figure_kinds, save_figure
    from elsewhere.storage import load_result

    check_output(out, overwrite)
    if title is not None and no_title:
        raise InputError("--title and --no-title exclude each other; leave one of them out")
    page: dict[str, Any] = {
        "width": width,
        "height": height,
        "font_size": font_size,
        "title": not no_title if title is None else title,
        "style": style,
    }
    chosen, notes = _names(layers), list[str]()
    if paper is not None:
        other = (results, kind, at, along, facet, quantities, labels, columns)
        if any(each is not None for each in other):
            raise InputError(
                "--paper chooses what is drawn of a reproduction; leave RESULT, --kind, --at, "
                "--along, --facet, --quantities, --names and --columns out"
            )
        from elsewhere.reproduction import draw_paper

        drawn = draw_paper(paper, seed=seed, layers=chosen, **page)
    elif not results:
        raise InputError("missing RESULT or --paper: give a result, or a reproduction's directory")
    elif seed is not None:
        raise InputError("--seed chooses among the seeds of --paper; leave it out")
    else:
        kinds = [figure_kinds.named(name) if ":" in name else name for name in _names(kind) or ()]
        found = [load_result(result) for result in results]
        drawn = draw(
            found[0],
            kinds[0] if len(kinds) == 1 else kinds or None,
            *found[1:],
            at=dict(map(_value_at, at or ())),
            along=along,
            facet=facet,
            layers=chosen,
            quantities=_names(quantities),
            labels=_names(labels),
            columns=columns,
            **page,
        )
        notes = _notes_of_drawn(found, chosen)
    save_figure(drawn, out, dpi=dpi, overwrite=overwrite)
    for note in notes:
        say(f"note: {note}")
    _say_size(out, drawn.get_size_inches().tolist(), style)


def _notes_of_drawn(results: Sequence[Any], layers: list[str] | None) -> list[str]:
    """Return the notes of results, without those of layers that are not drawn."""
    from elsewhere.figures.results import layer_names, select_layers

    found: dict[str, None] = {}
    for result in results:
        notes = news_of(result, again=True)
        if layers is not None and "layer" in result.dims:
            names = layer_names(result)
            notes = notes_on(
                notes, names, [names[place] for place in select_layers(result, layers)]
            )
        found |= dict.fromkeys(notes)
    return list(found)


def _say_size(out: Path, inches: Sequence[float], style: str) -> None:
    """Say how large a figure is, and whether that is more than its page."""
    from elsewhere.figures.drawing import STYLES

    width, height = (25.4 * float(length) for length in inches)
    tallest = 25.4 * STYLES[style].tallest
    say(f"wrote {out} ({width:.0f} x {height:.0f} mm)")
    if height > tallest + 0.5:
        place = "a printed page" if style == "paper" else "a slide"
        say(
            f"note: the figure is {height:.0f} mm tall, and {place} has {tallest:.0f} mm; choose "
            "--layers, or give it a --height"
        )


def _names(texts: list[str] | None) -> list[str] | None:
    """Return the names in texts with commas, None where nothing is asked for."""
    if texts is None:
        return None
    return [part.strip() for text in texts for part in text.split(",") if part.strip()]


def _value_at(text: str) -> tuple[str, float]:
    """Return the axis and the value that `text` names."""
    name, _, value = text.partition("=")
    try:
        return name.strip(), float(value)
    except ValueError:
        raise InputError(f"cannot read --at {text!r}; expected AXIS=VALUE") from None


def methods(
    source: Annotated[
        Path, typer.Argument(help="A recording, a result, or the directory of a run.")
    ],
    out: Annotated[
        Path | None, typer.Option("--out", help="A Markdown file; default: standard output.")
    ] = None,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write the methods section of a paper: what was done, versions, formulas, BibTeX."""
    from elsewhere.analyzer import describe_methods
    from elsewhere.storage import load_result, save_output

    if out is not None:
        check_output(out, overwrite)
    if source.is_dir() and (source / "claims.nc").is_file():
        source = source / "claims.nc"
    if source.is_dir():
        text = describe_methods(source)
    elif names_result(source):
        text = describe_methods(load_result(source))
    else:
        with open_source(source) as recording:
            text = describe_methods(recording)
    if out is not None:
        save_output(out, text.encode(), overwrite=overwrite)
        say(f"wrote {out}")
    elif as_json:
        print_json({"methods": text})
    else:
        put_text(text)


def table(
    result: Annotated[Path, typer.Argument(help="A result, such as sim.nc.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", help=".csv, .parquet or .xlsx; default: beside the result."),
    ] = None,
    table_format: Annotated[
        str | None, typer.Option("--format", help="csv (default), parquet or xlsx.")
    ] = None,
    trials: Annotated[
        bool, typer.Option("--trials", help="Of accuracy or probes: a row for each trial.")
    ] = False,
    variables: Annotated[
        list[str] | None, typer.Option("--variables", help="Only these, with commas.")
    ] = None,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write a result as a tidy table: one row for each number."""
    from elsewhere.storage import check_table_name, load_result, save_table, tidy_table
    from elsewhere.training import trial_table

    out = _table_name(result, out, table_format)
    check_table_name(out, overwrite=overwrite)
    wanted = _names(variables)
    if variables is not None and not wanted:
        raise InputError("no variable is asked for; name at least one, or leave --variables out")
    if trials and variables is not None:
        raise InputError("--trials has columns of its own; leave --variables out")
    found = load_result(result)
    tidy = trial_table(found) if trials else tidy_table(found, wanted)
    save_table(tidy, out, overwrite=overwrite, rescue=True)
    if as_json:
        print_json({"rows": len(tidy), "columns": [str(name) for name in tidy.columns]})
    say(f"wrote {out} ({len(tidy)} rows)")


def _table_name(result: Path, out: Path | None, table_format: str | None) -> Path:
    """Return the name of a table, by its format where none is given."""
    if table_format is not None and table_format not in ("csv", "parquet", "xlsx"):
        raise InputError(f"--format is {table_format!r}; expected csv, parquet or xlsx")
    if out is None:
        return result.with_suffix(f".{'csv' if table_format is None else table_format}")
    if table_format is not None and out.suffix != f".{table_format}":
        raise InputError(
            f"--format {table_format} does not fit --out {out}; leave one of them out, or name a "
            f"file in .{table_format}"
        )
    return out
