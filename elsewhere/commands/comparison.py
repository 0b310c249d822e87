"""The command that sets results side by side."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from elsewhere.options import JsonOption, OverwriteOption, choose
from elsewhere.terminal import check_output, print_json, print_notes, print_table, put, say

if TYPE_CHECKING:
    import xarray

_ROWS = 40
"""Lines of a table that are printed, at most."""


def compare(
    results: Annotated[
        list[Path],
        typer.Argument(
            help="Two results or more of one kind, or claims.nc of a list of systems.",
            metavar="RESULT",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="The netCDF file to write.")],
    names: Annotated[
        list[str] | None,
        typer.Option(
            "--names",
            help="What each result is called, with commas; default: what tells them apart.",
        ),
    ] = None,
    by: Annotated[
        str, typer.Option("--by", help="How layers are joined: auto, name or depth (relative).")
    ] = "auto",
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Set results side by side: several networks, conditions or seeds, and how they differ."""
    check_output(out, overwrite)
    from elsewhere.analyzer.comparison import By
    from elsewhere.analyzer.comparison import compare as run
    from elsewhere.storage import load_result, save_result

    choose("way to join layers", by, get_args(By))
    called = [part.strip() for text in names or () for part in text.split(",") if part.strip()]
    held = [load_result(result) for result in results]
    if names is None and len(results) > 1:
        called = _file_names(results)
    found = run(held, called or None, by=by)  # type: ignore[arg-type]
    save_result(found, out, overwrite=overwrite, rescue=True)
    rows = _difference_rows(found)
    if as_json:
        print_json(
            {
                "results": found["result"].values.tolist(),
                "compared": found.attrs["compared"],
                "differences": rows,
                "notes": list(found.attrs["notes"]),
            }
        )
    else:
        _print(found, rows)
    print_notes(found)
    say(f"wrote {out}")


def _file_names(results: list[Path]) -> list[str]:
    """Return the files' names, with as many of their folders as tell them apart."""
    for parts in range(1, 4):
        called = ["/".join([*each.parts[-parts:-1], each.stem]) for each in results]
        if len({*called}) == len(called):
            return called
    return [f"{name} #{number}" for number, name in enumerate(called, start=1)]


def _difference_rows(found: xarray.Dataset) -> list[dict[str, Any]]:
    """Return the differences of each result from the first one, a row for each number."""
    rows = []
    for key in map(str, found.data_vars):
        if not key.endswith("_difference"):
            continue
        values = found[key]
        bounds = found[f"{key}_interval"].transpose(*values.dims, "bound").values
        for index in itertools.product(*map(range, values.shape)):
            row: dict[str, Any] = {"number": key.removesuffix("_difference")}
            for dim, place in zip(map(str, values.dims), index, strict=True):
                for name in _SAID.get(dim, (dim,)):
                    if name in found.variables:
                        row[name.removeprefix("joined_")] = found[name].values[place].item()
            row["difference"] = _finite(values.values[index])
            row["interval"] = [_finite(end) for end in bounds[index]]
            rows.append(row)
    return rows


_SAID = {
    "joined": ("joined_layer",),
    "checkpoint": ("phase", "step"),
    "claim": ("claim", "part", "pair", "exemplars"),
}
"""Coordinates that say what a number along a dimension is of."""


def _finite(value: Any) -> float | None:
    return float(value) if math.isfinite(value) else None


def _print(found: xarray.Dataset, rows: list[dict[str, Any]]) -> None:
    """Print a table: verdicts of claims, else the first differences."""
    if found.attrs["compared"] == "claims":
        _print_claims(found)
        return
    known = [row for row in rows if row["difference"] is not None]
    shown = [
        {
            **{key: text for key, text in row.items() if key not in ("difference", "interval")},
            "difference": f"{row['difference']:.3f}",
            "interval": ""
            if None in row["interval"]
            else f"[{row['interval'][0]:.3f}, {row['interval'][1]:.3f}]",
        }
        for row in known[:_ROWS]
    ]
    columns = dict.fromkeys(key for row in shown for key in row)
    print_table(
        [{key: row.get(key, "") for key in columns} for row in shown],
        right=("difference", "interval"),
    )
    if len(known) > _ROWS:
        put(f"... and {len(known) - _ROWS} more; `elsewhere table` writes all of them")
    put(f"differences are from {found['result'].values[0]}")


def _print_claims(found: xarray.Dataset) -> None:
    """Print a row for each statistic that decides a claim, a column for each system."""
    systems = found["result"].values.tolist()
    rows = []
    for place in range(found.sizes["claim"]):
        row = found.isel(claim=place)
        if not bool(row["counts"]) or not row["value"].notnull().any():
            continue
        rows.append(
            {
                "claim": row["claim"].item(),
                "statistic": row["part"].item(),
                "holds when": f"{row['direction'].item()} {float(row['threshold']):.2f}",
                **{
                    name: f"{value:.2f}" if math.isfinite(value) else "-"
                    for name, value in zip(systems, row["value"].values, strict=True)
                },
            }
        )
    print_table(rows, right=("holds when", *systems))
