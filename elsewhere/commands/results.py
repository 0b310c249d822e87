"""Commands that draw results and write them as tables and words."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from elsewhere.commands.sources import names_result, open_source
from elsewhere.errors import InputError
from elsewhere.options import JsonOption, OverwriteOption
from elsewhere.terminal import check_output, print_json, print_notes, put_text, say


def figure(
    results: Annotated[
        list[Path],
        typer.Argument(help="A result, such as sim.nc; several of sanity tests.", metavar="RESULT"),
    ],
    out: Annotated[Path, typer.Option("--out", help=".svg, .pdf or .png")],
    kind: Annotated[
        str | None, typer.Option("--kind", help="maps, layerwise, displacement, ...")
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
    width: Annotated[
        str | None,
        typer.Option("--width", help="Of the figure: 85mm, 8.5cm, 3.3in; a number is in mm."),
    ] = None,
    height: Annotated[str | None, typer.Option("--height", help="Likewise.")] = None,
    font_size: Annotated[
        float | None,
        typer.Option(
            "--font-size", help="Of all text but titles, pt; default: 8 to 6, 7 to 5 below 120 mm."
        ),
    ] = None,
    title: Annotated[bool, typer.Option("--title/--no-title", help="Write a title above.")] = True,
    dpi: Annotated[
        float, typer.Option("--dpi", help="Dots per inch of a .png, and of pictures inside others.")
    ] = 200,
    overwrite: OverwriteOption = False,
) -> None:
    """Draw a result, or several where a figure has a panel for each (sanity)."""
    from elsewhere.figures import draw, figure_kinds, save_figure
    from elsewhere.storage import load_result

    check_output(out, overwrite)
    if kind is not None and ":" in kind:
        kind = figure_kinds.named(kind)
    found = [load_result(result) for result in results]
    values = dict(map(_value_at, at or ()))
    drawn = draw(
        found[0],
        kind,
        *found[1:],
        at=values,
        along=along,
        facet=facet,
        layers=_names(layers),
        quantities=_names(quantities),
        width=width,
        height=height,
        font_size=font_size,
        title=title,
    )
    save_figure(drawn, out, dpi=dpi, overwrite=overwrite)
    print_notes(*found, again=True)
    say(f"wrote {out}")


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
