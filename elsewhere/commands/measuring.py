"""Commands that take measures by name, and write results as tables and words."""

from __future__ import annotations

import contextlib
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from elsewhere.errors import InputError
from elsewhere.notes import notes_of
from elsewhere.options import (
    JsonOption,
    ModelOptions,
    OverwriteOption,
    PartialOption,
    StimulusOptions,
    check_room,
    describe,
    is_file,
    match_layers,
    open_source,
    recorded_reference,
    refuse_live_options,
    set_threads,
    takes,
)
from elsewhere.terminal import (
    check_output,
    over_layers,
    print_json,
    print_layers,
    print_notes,
    print_table,
    progress,
    put_text,
    say,
)
from elsewhere.types import parse_bytes


@takes(ModelOptions, StimulusOptions)
def measure(
    network: ModelOptions,
    stimuli: StimulusOptions,
    source: Annotated[
        str | None, typer.Argument(help="A recording, or a MODEL to sweep live.")
    ] = None,
    names: Annotated[
        list[str] | None,
        typer.Option("--names", help="Measures, with commas; without it they are listed."),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="The netCDF file to write.")] = None,
    table: Annotated[
        Path | None, typer.Option("--table", help="Also as a tidy table: .csv or .parquet.")
    ] = None,
    select: Annotated[
        list[str] | None,
        typer.Option("--layers", help="Names, aliases or globs; default: all that are there."),
    ] = None,
    max_memory: Annotated[
        str, typer.Option("--max-memory", help="For activations, e.g. 2GiB.")
    ] = "2GiB",
    threads: Annotated[int | None, typer.Option("--threads", help="CPU threads.")] = None,
    allow_partial: PartialOption = False,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Take measures of invariance by name, or list them."""
    if not names:
        if source is not None or out is not None or table is not None:
            raise InputError(
                "which measures? give --names, such as --names cosine,cka,partition; `elsewhere "
                "measure` alone lists them"
            )
        _list_measures(as_json)
        return
    from elsewhere.analyzer import check_measures
    from elsewhere.analyzer import measure as take
    from elsewhere.measures import measures_named
    from elsewhere.storage import check_table_name, save_all, save_result, save_table

    wanted = measures_named(names)
    if source is None or out is None:
        raise InputError("what is measured, and where to? give a recording or MODEL, and --out")
    check_output(out, overwrite)
    if table is not None:
        check_table_name(table, overwrite=overwrite)
    parse_bytes(max_memory)
    set_threads(threads)
    with contextlib.ExitStack() as stack:
        found: Any
        if is_file(source):
            refuse_live_options(source, network, stimuli)
            found = stack.enter_context(open_source(Path(source), allow_partial=allow_partial))
            if stimuli.reference is not None:
                place = recorded_reference(found, stimuli.reference)
                found = stack.enter_context(found.refer_to(place))
            chosen = match_layers(found, select) if select else None
        else:
            if allow_partial:
                raise InputError("--allow-partial is for recordings; leave it out, or name one")
            found = stimuli.build(source, network.load(source), select, network.seed)
            chosen = [layer.name for layer in found.layers] if select else None
            say(describe(found, found.layers))
        check_measures(found, wanted, chosen)
        n_maps = sum(map(_count_maps, wanted))
        check_room(out, found, chosen, places=0, measures=n_maps, table=table)
        bar = stack.enter_context(progress("measuring"))
        result = take(
            found,
            names=wanted,
            layers=chosen,
            seed=network.seed,
            max_memory=max_memory,
            progress=bar,
        )
    saves = [partial(save_result, result, out)]
    if table is not None:
        saves.append(partial(save_table, result, table))
    save_all(*(partial(save, overwrite=overwrite, rescue=True) for save in saves))
    _print(result, as_json)
    say(f"wrote {out}" + (f" and {table}" if table is not None else ""))


def _count_maps(name: str) -> int:
    """Return how many values a measure has for each two locations."""
    from elsewhere.measures import measures
    from elsewhere.measures.stretches import REMOVALS

    return 3 if name in REMOVALS else int(measures.get(name).pairwise)  # baseline and G come along


def _list_measures(as_json: bool) -> None:
    from elsewhere.measures import measures

    places = {
        "units": "any layer",
        "maps": "feature maps kept in full",
        "cosine": "with cosine",
        "accuracy": "elsewhere accuracy",
    }
    rows = [
        {"measure": name, "of": places[measures.get(name).taken], "what": measures.summary(name)}
        for name in measures
    ]
    if as_json:
        for row, name in zip(rows, measures, strict=True):
            row |= {
                "formula": measures.get(name).formula,
                "sources": ", ".join(measures.get(name).sources),
            }
        print_json(rows)
        return
    print_table(rows)


def _print(result: Any, as_json: bool) -> None:
    """Print one number per layer and measure; of several layers, intervals and bands as well."""
    rows: list[dict[str, Any]] = []
    for place, layer in enumerate(result["layer"].values):
        row: dict[str, Any] = {"layer": str(layer)}
        for name, variable in result.attrs["headlines"].items():
            row[name] = float(result[variable].values[place])
            if f"{variable}_interval" in result.data_vars:
                bounds = result[f"{variable}_interval"].values[place]
                row[f"{name}_interval"] = [float(value) for value in bounds]
            row |= over_layers(result, name, variable, place)
        rows.append(row)
    print_notes(result)
    if as_json:
        print_json({"layers": rows, "notes": notes_of(result)})
        return
    names = result.attrs["headlines"]
    more = {name: [key for key in rows[0] if key.startswith(f"{name}_")] for name in names}
    print_layers(rows, {name: tuple(keys) for name, keys in more.items() if keys})


def methods(
    source: Annotated[Path, typer.Argument(help="A recording or a result.")],
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
    if source.suffix in {".h5", ".hdf5"} or not source.is_file():
        with open_source(source) as recording:
            text = describe_methods(recording)
    else:
        text = describe_methods(load_result(source))
    if out is not None:
        save_output(out, text.encode(), overwrite=overwrite)
        say(f"wrote {out}")
    elif as_json:
        print_json({"methods": text})
    else:
        put_text(text)


def table(
    result: Annotated[Path, typer.Argument(help="A result, such as sim.nc.")],
    out: Annotated[Path, typer.Option("--out", help=".csv or .parquet")],
    variables: Annotated[
        list[str] | None, typer.Option("--variables", help="Only these, with commas.")
    ] = None,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write a result as a tidy table: one row for each number."""
    from elsewhere.storage import check_table_name, load_result, save_table, tidy_table

    check_table_name(out, overwrite=overwrite)
    wanted = [part.strip() for text in variables or () for part in text.split(",") if part.strip()]
    if variables is not None and not wanted:
        raise InputError("no variable is asked for; name at least one, or leave --variables out")
    tidy = tidy_table(load_result(result), None if variables is None else wanted)
    save_table(tidy, out, overwrite=overwrite, rescue=True)
    if as_json:
        print_json({"rows": len(tidy), "columns": [str(name) for name in tidy.columns]})
    say(f"wrote {out} ({len(tidy)} rows)")
