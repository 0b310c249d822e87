"""The command that trains probes at one place and tests them at all others."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from elsewhere.commands.sources import check_room, open_any
from elsewhere.errors import InputError
from elsewhere.options import (
    SOURCE,
    CostOptions,
    JsonOption,
    LayersOption,
    ModelOptions,
    OverwriteOption,
    PartialOption,
    StimulusOptions,
    TokensOption,
    choose,
    part,
)
from elsewhere.terminal import (
    check_output,
    layer_columns,
    print_notes,
    print_rows,
    print_table,
    progress,
    say,
    stamped,
)

if TYPE_CHECKING:
    import xarray


def probe(
    source: Annotated[str, SOURCE],
    network: ModelOptions,
    stimuli: Annotated[StimulusOptions, part(without=("reference",))],
    cost: CostOptions,
    out: Annotated[Path, typer.Option("--out", help="The netCDF file to write.")],
    train_at: Annotated[
        str,
        typer.Option("--train-at", help="left, centre, y,x, several (y,x;y,x), or each in turn."),
    ] = "left",
    split: Annotated[
        str | None,
        typer.Option("--split", help="same, held-out or both; default: both where that can be."),
    ] = None,
    kind: Annotated[
        str, typer.Option("--probe", help="logistic, ridge, svm or nearest-centroid.")
    ] = "logistic",
    layers: LayersOption = None,
    tokens: TokensOption = "all",
    held_out: Annotated[
        float, typer.Option("--held-out", help="Share of each category's exemplars to hold out.")
    ] = 0.25,
    strengths: Annotated[
        str | None,
        typer.Option("--strengths", help="To choose from, with commas: C, or alpha of ridge."),
    ] = None,
    folds: Annotated[
        int, typer.Option("--folds", help="Of the cross-validation at the trained location.")
    ] = 5,
    controls: Annotated[
        str,
        typer.Option("--controls", help="pixels, untrained, shuffled, with commas; or none."),
    ] = "pixels,untrained,shuffled",
    threshold: Annotated[
        float | None,
        typer.Option("--threshold", help="Accuracy; default: half-way from chance to 1."),
    ] = None,
    readout: Annotated[
        Path | None,
        typer.Option(
            "--readout",
            help="Also keep the one layer's probe, for `attribute --target probe:FILE`.",
        ),
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", help="Processes for the fits.")] = 1,
    allow_partial: PartialOption = False,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Train a linear probe on every layer at one place, and test it at all the others."""
    from elsewhere.probes import CONTROLS
    from elsewhere.probes.kinds import probe_kinds
    from elsewhere.probes.splits import ASKED
    from elsewhere.storage import save_all, save_result

    check_output(out, overwrite)
    if readout is not None:
        _check_readout(readout, train_at, overwrite)
    choose("probe", kind, tuple(probe_kinds))
    if split is not None:
        choose("split", split, ASKED)
    wanted = [] if controls == "none" else [part.strip() for part in controls.split(",")]
    for control in wanted:
        choose("control", control, CONTROLS)
    opened = open_any(
        source, network, stimuli, cost, layers, allow_partial=allow_partial, tokens=tokens
    )
    with opened as (found, chosen):
        from elsewhere.probes import fit_probe, save_readout
        from elsewhere.probes import probe as measure

        layer = "" if readout is None else _one_layer(found, chosen)
        places = found.design.n_positions if train_at.strip() == "each" else 1
        names = chosen if readout is None else [layer]
        check_room(out, found, names, places=places, readout=readout)
        with progress("probing") as bar:
            result = measure(
                found,
                train_at=train_at,
                split=split,  # type: ignore[arg-type]
                kind=kind,
                layers=chosen,
                held_out=held_out,
                strengths=None if strengths is None else _numbers(strengths),
                n_folds=folds,
                controls=wanted,
                threshold=threshold,
                seed=network.seed,
                jobs=jobs,
                max_memory=cost.max_memory,
                trust=network.trust,
                progress=bar,
            )
            fitted = None
            if readout is not None:
                fitted = fit_probe(
                    found,
                    layer,
                    train_at=train_at,
                    kind=kind,
                    held_out=result["held_out"].values.astype(bool),
                    strengths=None if strengths is None else _numbers(strengths),
                    n_folds=folds,
                    seed=network.seed,
                    max_memory=cost.max_memory,
                )
    saves = [partial(save_result, stamped(result), out)]
    if readout is not None and fitted is not None:
        saves.append(partial(save_readout, fitted, readout))
    save_all(*(partial(save, overwrite=overwrite, rescue=True) for save in saves))
    print_probe(result, as_json=as_json)
    say(f"wrote {out}" + (f" and {readout}" if readout is not None else ""))


def _check_readout(readout: Path, train_at: str, overwrite: bool) -> None:
    """Refuse what cannot be kept as a readout, before work starts."""
    check_output(readout, overwrite)
    if train_at.strip() == "each":
        raise InputError("--readout keeps one probe, and --train-at each trains many; name a place")


def _one_layer(source: Any, chosen: list[str] | None) -> str:
    """Return the only layer that is probed, whole.

    Raises
    ------
    InputError
        There are several, or a recording has only a part of it.
    """

    layers = [each for each in source.layers if chosen is None or each.name in chosen]
    if len(layers) != 1:
        names = ", ".join(each.name for each in layers[:4]) + (", ..." if len(layers) > 4 else "")
        raise InputError(
            f"--readout keeps the probe of one layer, and there are {len(layers)} ({names}); name "
            "one with --layers"
        )
    if layers[0].keep.kind != "full":
        raise InputError(
            f"--readout needs whole activations, and the recording has {layers[0].name} as "
            f"{layers[0].keep}; record it in full, or name the model instead"
        )
    return str(layers[0].name)


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise InputError(
            f"cannot read the strengths {text!r}; expected numbers with commas, such as 0.01,1,100"
        ) from None


def print_probe(result: xarray.Dataset, *, as_json: bool) -> None:
    """Print what a result of probes says of each layer."""
    rows = []
    for place in range(result.sizes["layer"]):
        for exemplars in result["exemplars"].values:
            here = result.isel(layer=place).sel(exemplars=exemplars)
            row: dict[str, Any] = layer_columns(result, place, as_json=as_json)
            row["exemplars"] = str(exemplars)
            for where in ("on", "off", "far"):
                row[where] = float(here["accuracy_at"].sel(where=where))
            row["II_far"] = float(here["II_far"])
            row["II_far interval"] = [float(v) for v in here["II_far_interval"]]
            for control in ("untrained", "pixels", "shuffled"):
                if f"{control}_accuracy_at" in result:
                    row[f"{control} off"] = float(here[f"{control}_accuracy_at"].sel(where="off"))
            if "selectivity_at" in result and here["selectivity_at"].isnull().all():
                row["shuffled off"] = math.nan  # they control for nothing here
            rows.append(row)
    print_notes(result)
    if as_json:
        print_rows(rows, result)
        return
    shown = [{key: _short(value) for key, value in row.items()} for row in rows]
    print_table(shown, right=tuple(shown[0])[2:])
    say(f"chance is {float(result.attrs['chance']):.3f}")


def _short(value: Any) -> Any:
    if isinstance(value, list):
        return f"[{_short(value[0])}, {_short(value[1])}]"
    if isinstance(value, float):
        return "-" if value != value else f"{value:.3f}"
    return value
