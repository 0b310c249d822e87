"""Commands that make recordings and look after them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from elsewhere.commands.sources import describe, names_result, open_source
from elsewhere.errors import InputError
from elsewhere.notes import notes_of
from elsewhere.options import (
    MODEL,
    CostOptions,
    JsonOption,
    KeepOptions,
    LayersOption,
    ModelOptions,
    OverwriteOption,
    PartialOption,
    StimulusOptions,
    TokensOption,
    choose,
)
from elsewhere.terminal import (
    check_output,
    command_line,
    counted,
    duration,
    print_json,
    print_notes,
    print_plan,
    print_table,
    progress,
    put,
    say,
    stamped,
)
from elsewhere.tokens import TOKEN_PARTS
from elsewhere.types import format_bytes

if TYPE_CHECKING:
    from elsewhere.recording import Sweep


def plan(
    model: Annotated[str, MODEL],
    network: ModelOptions,
    stimuli: StimulusOptions,
    kept: KeepOptions,
    cost: CostOptions,
    layers: LayersOption = None,
    tokens: TokensOption = "all",
    out: Annotated[Path | None, typer.Option("--out", help="Where it would go.")] = None,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Say what `record` would cost: bytes, time, memory."""
    asked = (model, network, stimuli, kept, cost, layers, tokens, out, overwrite)
    sweep, wanted, sinks = _prepare(*asked)
    from elsewhere.recording import check_room
    from elsewhere.recording import plan as plan_sweep

    options = kept.header(network.seed, cost.max_memory)
    found = plan_sweep(sweep, layers=wanted, also=sinks, **options).shared(cost.n_workers)
    if as_json:
        print_json(dataclasses.asdict(found))
    else:
        print_plan(found)
    if out is not None:
        check_room(found, out, overwrite=overwrite)
    if not as_json:
        say(f"engine {sweep.choice}")


def record(
    model: Annotated[str, MODEL],
    network: ModelOptions,
    stimuli: StimulusOptions,
    kept: KeepOptions,
    cost: CostOptions,
    out: Annotated[Path, typer.Option("--out", help="The HDF5 file to write.")],
    layers: LayersOption = None,
    tokens: TokensOption = "all",
    overwrite: OverwriteOption = False,
) -> None:
    """Record a network for every object at every location of the grid into HDF5.

    The same command goes on where it was killed, and leaves what is complete as it is.
    """
    asked = (model, network, stimuli, kept, cost, layers, tokens, out, overwrite)
    sweep, wanted, sinks = _prepare(*asked, resumed=True)
    from elsewhere.analyzer import complete
    from elsewhere.recording import check_room, go_on_as_begun, is_complete, make_header
    from elsewhere.recording import plan as plan_sweep
    from elsewhere.recording import record as record_sweep
    from elsewhere.storage import save_result

    options = kept.header(network.seed, cost.max_memory)
    if not overwrite:
        go_on_as_begun(sweep, out)
    options |= {"layers": wanted, "command": command_line()}
    header = make_header(sweep, also=sinks, state=sweep.model.weights_sha256, **options)
    there = not overwrite and is_complete(out, header)
    if there:
        say(f"{out}: already complete")
        if kept.measure is None:
            return
    say(describe(sweep, wanted))
    del options["command"]
    costs = plan_sweep(sweep, also=sinks, header=header, **options).shared(cost.n_workers)
    if not there:
        check_room(costs, out, overwrite=overwrite)
    stored = f"about {format_bytes(costs.stored_bytes)} ({format_bytes(costs.raw_bytes)} raw)"
    say(f"plan: {costs.n_images} images, {stored}, about {duration(costs.seconds)}")
    sinks = _sinks(kept, sweep)
    with progress("recording") as bar:
        record_sweep(
            sweep,
            out,
            also=sinks,
            overwrite=overwrite,
            **options,
            command=command_line(),
            header=header,
            workers=cost.sharing,
            scheduler=cost.scheduler,
            progress=bar,
        )
    print_notes(sweep)
    if not there:
        say(f"wrote {out} ({format_bytes(out.stat().st_size)})")
    if kept.measure is not None:
        result = complete(sinks[0], sweep)
        save_result(stamped(result), kept.measure, overwrite=overwrite, rescue=True)
        print_notes(result)
        say(f"wrote {kept.measure}")


def _inspect_result(path: Path, *, as_json: bool) -> None:
    """Say what each variable of a result is."""
    from elsewhere.measures.variables import FIELDS
    from elsewhere.storage import load_result

    result = load_result(path)
    sizes = {str(name): size for name, size in result.sizes.items()}
    variables: dict[str, dict[str, Any]] = {
        str(name): {"dims": list(map(str, array.dims)), **{f: array.attrs.get(f) for f in FIELDS}}
        for name, array in result.data_vars.items()
    }
    attributes = {k: v for k, v in result.attrs.items() if k not in ("notes", "behaviour")}
    if as_json:
        shown = {"path": str(path), "sizes": sizes, "variables": variables}
        print_json({**shown, "notes": notes_of(result), "attributes": attributes})
        return
    print_notes(result)
    put(f"{path}: {result.attrs.get('kind', 'a result')}")
    put(", ".join(f"{name} {size}" for name, size in sizes.items()))
    for name, said in variables.items():
        put(f"{name} ({', '.join(said['dims'])}): {said['long_name'] or 'not described'}")
        if said["formula"] and not name.endswith(("_interval", "_band", "_step", "_without")):
            put(f"    {said['formula']} [{said['source']}]")
            told = ("units", "range", "chance")
            more = [f"{name} {said[name]}" for name in told if said[name] != "none"]
            direction = [said["direction"]] if said["direction"] != "none" else []
            put("    " + "; ".join([*more, *direction]))
    for key, value in attributes.items():
        put(f"{key}: {json.dumps(value) if isinstance(value, list | dict) else value}")


def inspect(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="A recording, or a result.")],
    allow_partial: PartialOption = False,
    as_json: JsonOption = False,
) -> None:
    """Say what is in a recording or a result, and where it came from: versions, command line."""
    if names_result(path):
        _inspect_result(path, as_json=as_json)
        return
    with open_source(path, allow_partial=allow_partial) as recording:
        design = recording.design
        rows: list[dict[str, Any]] = [
            {
                "layer": layer.name,
                "module": layer.module,
                "type": layer.kind,
                "shape": list(layer.shape),
                "kept": str(layer.keep),
                "bytes": recording.stored_bytes(layer.name),
            }
            for layer in recording.layers
        ]
        described: dict[str, Any] = {
            "path": str(path),
            "share": recording.share,
            "bytes": sum(row["bytes"] for row in rows),
            "objects": len(design.objects),
            "categories": len(set(design.categories)),
            "axes": {axis.name: list(axis.values) for axis in design.axes},
            "reference": list(design.reference),
            "layers": rows,
            "notes": notes_of(recording),
            "attributes": {k: v for k, v in recording.attributes.items() if k[0] != "_"},
        }
    if as_json:
        print_json(described)
        return
    print_notes(described["notes"])
    put(f"{path}: {format_bytes(described['bytes'])} of activations")
    n, categories = described["objects"], described["categories"]
    put(f"{counted(n, 'object')} of {counted(categories, 'category', 'categories')}")
    for axis in design.axes:
        what, unit = ("location" if axis.moves else "value"), axis.unit.removesuffix("1")
        ends = f"{axis.values[0]:g} to {axis.values[-1]:g} {unit}".rstrip()
        put(f"{axis.name}: {counted(len(axis), what)}, {ends}")
    put(f"reference {','.join(design.names)}: {','.join(map(str, design.reference))}")
    shown = [
        {**row, "shape": " x ".join(map(str, row["shape"])), "bytes": format_bytes(row["bytes"])}
        for row in rows
    ]
    print_table(shown, right=("bytes",))
    hidden = {
        "axes",
        "layers",
        "object_source",
        "elsewhere_encoding",
        "identity_fields",
        "notes",
        "behaviour",
        "classes",
    }
    for key, value in described["attributes"].items():
        if key not in hidden:
            put(f"{key}: {json.dumps(value) if isinstance(value, list | dict) else value}")


def verify(
    path: Annotated[
        Path,
        typer.Argument(help="A recording, result, readout, checkpoint, run or reproduction."),
    ],
    timeout: Annotated[
        float | None,
        typer.Option("--timeout", help="Seconds to give up after; default: by the file's size."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Read everything of a file or folder and name what is damaged; exit 1 if something is."""
    from elsewhere.storage import verify as verify_recording
    from elsewhere.storage.verification import doubts, summary

    if timeout is not None and timeout <= 0:
        raise InputError(f"--timeout must be above 0 seconds; got {timeout:g}")
    found = verify_recording(path, timeout=timeout)
    if as_json:
        described = dataclasses.asdict(found) | {"path": str(path), "ok": found.ok}
        print_json(described)
    else:
        for damage in found.damages:
            put(str(damage))
    for doubt in doubts(found):
        say(doubt)
    found.check()
    if not as_json:
        put(summary(found))


def _prepare(
    model: str,
    network: ModelOptions,
    stimuli: StimulusOptions,
    kept: KeepOptions,
    cost: CostOptions,
    layers: list[str] | None,
    tokens: str,
    out: Path | None,
    overwrite: bool,
    *,
    resumed: bool = False,
) -> tuple[Sweep, Any, list[Any]]:
    """Return the sweep, the layers to keep, and the sinks that measure meanwhile.

    What cannot be is refused before, outputs that are there as well; where it is `resumed`, a
    recording that is there is compared with what is asked for later.
    """
    cost.check()
    choose("part of the tokens", tokens, TOKEN_PARTS)
    for path in (out, kept.measure):
        if path is not None and not (resumed and path == out and path.is_file()):
            check_output(path, overwrite)
    network.check(model, *(layers or ()), *kept.measure_layers)
    stimuli.check(model)
    kept.check()
    from elsewhere.models import list_layers, select_layers
    from elsewhere.models.selection import take_tokens

    cost.set_threads()
    loaded = network.load(model)
    if kept.measure is None:
        sweep = stimuli.build(model, loaded, layers, network.seed, cost.engine, tokens)
        return sweep, sweep.layers, []
    size = loaded.canvas_size if stimuli.canvas is None else stimuli.canvas
    every = list_layers(loaded, size, containers=True)
    wanted = take_tokens(select_layers(every, layers or None, loaded), tokens)  # type: ignore[arg-type]
    measured = select_layers(every, kept.measure_layers, loaded)
    names = [layer.name for layer in (*wanted, *measured)]
    sweep = stimuli.build(model, loaded, names, network.seed, cost.engine, tokens)
    return sweep, wanted, _sinks(kept, sweep)


def _sinks(kept: KeepOptions, sweep: Sweep) -> list[Any]:
    """Return fresh sinks for what is measured beside the recording."""
    if kept.measure is None:
        return []
    from elsewhere.analyzer import SimilaritySink
    from elsewhere.models import list_layers, select_layers

    every = list_layers(sweep.model, sweep.canvas.size, containers=True)
    chosen = select_layers(every, kept.measure_layers, sweep.model)
    return [SimilaritySink(layers=[layer.name for layer in chosen])]
