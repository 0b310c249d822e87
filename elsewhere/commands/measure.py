"""Commands that measure recordings and live sweeps."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from elsewhere.commands.sources import check_room, open_any
from elsewhere.errors import InputError
from elsewhere.forms import beside_main
from elsewhere.notes import notes_of
from elsewhere.options import (
    SOURCE,
    CostOptions,
    JsonOption,
    LayersOption,
    MetricOption,
    ModelOptions,
    NamesOption,
    OverwriteOption,
    PartialOption,
    StimulusOptions,
    TokensOption,
    choose,
)
from elsewhere.terminal import (
    check_output,
    layer_columns,
    over_layers,
    print_json,
    print_layers,
    print_notes,
    print_similarity,
    print_table,
    progress,
    say,
    stamped,
)
from elsewhere.types import Metric


def similarity(
    source: Annotated[str, SOURCE],
    network: ModelOptions,
    stimuli: StimulusOptions,
    cost: CostOptions,
    out: Annotated[Path, typer.Option("--out", help="The netCDF file to write.")],
    layers: LayersOption = None,
    tokens: TokensOption = "all",
    metric: MetricOption = "cosine",
    protocol: Annotated[
        str, typer.Option("--protocol", help="elsewhere, or biscione-bowers: as the authors did.")
    ] = "elsewhere",
    allow_partial: PartialOption = False,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Compare every layer's code of an object here with that at the reference."""
    from elsewhere.storage import save_result

    check_output(out, overwrite)
    choose("metric", metric, get_args(Metric))
    choose("protocol", protocol, ("elsewhere", "biscione-bowers"))
    if protocol != "elsewhere" and metric != "cosine":
        raise InputError(f"--protocol {protocol} uses the cosine; leave --metric out")
    opened = open_any(
        source, network, stimuli, cost, layers, allow_partial=allow_partial, tokens=tokens
    )
    with opened as (found, chosen):
        from elsewhere.analyzer import similarity as measure
        from elsewhere.analyzer import similarity_biscione_bowers

        check_room(out, found, chosen)
        with progress("comparing") as bar:
            common: dict[str, Any] = {"max_memory": cost.max_memory, "progress": bar}
            if protocol == "biscione-bowers":
                result = similarity_biscione_bowers(
                    found, layers=chosen, seed=network.seed, **common
                )  # fmt: skip
            else:
                result = measure(found, metric=metric, layers=chosen, **common)  # type: ignore[arg-type]
    save_result(stamped(result), out, overwrite=overwrite, rescue=True)
    print_similarity(result, as_json=as_json)
    say(f"wrote {out}")


def measure(
    network: ModelOptions,
    stimuli: StimulusOptions,
    cost: CostOptions,
    source: Annotated[str | None, SOURCE] = None,
    names: NamesOption = None,
    listed: Annotated[
        bool,
        typer.Option("--list", help="List the measures: what they tell, of what, and their range."),
    ] = False,
    against: Annotated[
        str,
        typer.Option("--against", help="Compare locations with all others, or the reference."),
    ] = "all",
    out: Annotated[Path | None, typer.Option("--out", help="The netCDF file to write.")] = None,
    table: Annotated[
        Path | None, typer.Option("--table", help="Also as a tidy table: .csv or .parquet.")
    ] = None,
    layers: LayersOption = None,
    tokens: TokensOption = "all",
    allow_partial: PartialOption = False,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Take measures of invariance by name, or list them."""
    choose("comparison", against, ("all", "reference"))
    if listed or not names:
        if not listed and (source is not None or out is not None or table is not None):
            raise InputError(
                "which measures? give --names, such as --names cosine,cka,partition; `elsewhere "
                "measure` alone lists them"
            )
        _list_measures(as_json)
        return
    from elsewhere.measures import measures, measures_named
    from elsewhere.storage import check_table_name, save_all, save_result, save_table

    wanted = measures_named(names)
    if source is None or out is None:
        raise InputError("what is measured, and where to? give a recording or MODEL, and --out")
    check_output(out, overwrite)
    if table is not None:
        check_table_name(table, overwrite=overwrite)
    opened = open_any(
        source, network, stimuli, cost, layers, allow_partial=allow_partial, tokens=tokens
    )
    with opened as (found, chosen):
        from elsewhere.analyzer import check_measures
        from elsewhere.analyzer import measure as take

        check_measures(found, wanted, chosen, against=against)  # type: ignore[arg-type]
        n_maps = sum(measures.get(name).matrices for name in wanted) if against == "all" else 0
        check_room(out, found, chosen, places=0, measures=n_maps, table=table)
        with progress("measuring") as bar:
            result = take(
                found,
                names=wanted,
                against=against,  # type: ignore[arg-type]
                layers=chosen,
                seed=network.seed,
                max_memory=cost.max_memory,
                progress=bar,
            )
    saves = [partial(save_result, stamped(result), out)]
    if table is not None:
        saves.append(partial(save_table, result, table))
    save_all(*(partial(save, overwrite=overwrite, rescue=True) for save in saves))
    _print(result, as_json)
    say(f"wrote {out}" + (f" and {table}" if table is not None else ""))


def _list_measures(as_json: bool) -> None:
    from elsewhere.measures import measures

    places = {
        "units": "any layer",
        "vectors": "vectors, such as logits",
        "maps": "feature maps kept in full",
        "WindowPlace": "window.place of *-stn",
        "cosine": "with cosine",
        "accuracy": "elsewhere accuracy",
    }
    rows = [
        {
            "measure": name,
            "of": places["vectors" if measures.get(name).vectors else measures.get(name).taken],
            "against": ", ".join(measures.get(name).against),
            "range": measures.get(name).range or "-",
            "what": measures.summary(name),
        }
        for name in measures
    ]
    if as_json:
        for row in rows:
            found = measures.get(row["measure"])
            row |= {"formula": found.formula, "sources": ", ".join(found.sources)}
        print_json(rows)
        return
    print_table(rows)


def _print(result: Any, as_json: bool) -> None:
    """Print one number per layer and measure; of several layers, intervals and bands as well."""
    rows: list[dict[str, Any]] = []
    for place in range(result.sizes["layer"]):
        row: dict[str, Any] = layer_columns(result, place, as_json=as_json)
        for name, variable in result.attrs["headlines"].items():
            row[name] = float(result[variable].values[place])
            beside = f"{variable.removesuffix('_away')}_baseline_away"
            if beside in result.data_vars:  # no raw similarity stands alone
                row[f"{name}(other)"] = float(result[beside].values[place])
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
    together = {name: tuple(keys) for name, keys in more.items() if keys}
    print_layers(rows, together, beside_main(result))
