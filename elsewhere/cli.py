"""The command line: each command parses, calls one function of the library and reports.

Data goes to standard output, progress and messages to standard error. Exit 1 for what the library
refuses, with one line; 2 for wrong usage. The library is imported inside the commands, so that
``--help`` answers at once.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import logging
import os
import shlex
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from elsewhere.commands import (
    analyses,
    attribution,
    measuring,
    probes,
    recordings,
    reproduction,
    training,
)
from elsewhere.commands.recordings import SchedulerOption, WorkersOption, check_sharing
from elsewhere.errors import ElsewhereError, InputError
from elsewhere.notes import notes_of
from elsewhere.options import (
    JsonOption,
    KeepOptions,
    ModelOptions,
    OverwriteOption,
    PartialOption,
    StimulusOptions,
    describe,
    open_source,
    takes,
)
from elsewhere.terminal import (
    LossyStream,
    VisibleFormatter,
    check_different,
    check_output,
    counted,
    duration,
    print_json,
    print_notes,
    print_plan,
    print_table,
    progress,
    put,
    say,
)
from elsewhere.types import format_bytes, parse_color

if TYPE_CHECKING:
    from elsewhere.recording import Sweep

MODELS = "Networks"
RECORDINGS = "Recordings"
ANALYSES = "Analyses"
TRAINING = "Training"


class _Commands(TyperGroup):
    """Turns what the library refuses into one line and exit 1."""

    def invoke(self, ctx: Any) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except ElsewhereError as error:
            say(f"error: {error}")
            raise typer.Exit(1) from error
        except KeyboardInterrupt:
            say("interrupted; nothing unfinished stands under a finished name")
            raise typer.Exit(130) from None
        except BrokenPipeError:
            raise typer.Exit(1) from None
        except (OSError, MemoryError, RuntimeError) as error:  # the system's word, on sizes
            if isinstance(error, RuntimeError) and "memory" not in str(error):
                raise  # torch says so when there is not enough
            name = getattr(error, "filename", None)
            reason = (
                getattr(error, "strerror", None) or str(error).split("\n")[0] or "out of memory"
            )
            say(f"error: {reason}" + (f": {name}" if name else ""))
            if getattr(error, "errno", None) == errno.ENOSPC and name is None:
                sys.stdout = open(os.devnull, "w")  # noqa: SIM115  (full: nothing left to flush)
            raise typer.Exit(1) from error


class _Command(TyperCommand):
    """Looks at what a command is to write, and to read, before it is run."""

    def invoke(self, ctx: Any) -> Any:
        check_different(
            {max(each.opts, key=len): ctx.params.get(each.name) for each in self.params}
        )
        return super().invoke(ctx)


app = typer.Typer(
    cls=_Commands,
    name="elsewhere",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Trained here, recognised elsewhere? Records networks for objects at every location of a "
    "canvas, and measures in which layer an object's code survives the move.",
    epilog="Example: elsewhere record vgg16 --objects novel --grid 7x7 --out run.h5",
)


command = partial(app.command, cls=_Command)

MODEL = Annotated[
    str,
    typer.Argument(help="A zoo or torchvision name, a checkpoint, or package.module:factory."),
]


# --- commands --------------------------------------------------------------------------------


@command(rich_help_panel=MODELS, epilog="Example: elsewhere layers vgg16")
@takes(ModelOptions)
def layers(
    model: MODEL,
    options: ModelOptions,
    canvas: Annotated[int | None, typer.Option("--canvas", help="Side in px.")] = None,
    select: Annotated[
        list[str] | None, typer.Option("--layers", help="Only these: names or globs.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List a network's layers: names, aliases, types, shapes, strides, bytes per location."""
    from elsewhere.models import list_layers, select_layers

    loaded = options.load(model)
    print_notes(list(loaded.doubts))
    found = list_layers(loaded, canvas, containers=bool(select))
    if select:
        found = select_layers(found, select, loaded)
    rows: list[dict[str, Any]] = [
        {
            "name": layer.name,
            "module": layer.module,
            "type": layer.kind,
            "shape": list(layer.shape),
            "layout": list(layer.layout),
            "stride": layer.stride,
            "receptive_field": layer.receptive_field,
            "bytes": layer.bytes,
        }
        for layer in found
    ]
    if as_json:
        print_json(rows)
        return
    shown = [
        {
            "layer": row["name"],
            "module": row["module"],
            "type": row["type"],
            "shape": " x ".join(map(str, row["shape"])),
            "layout": " x ".join(row["layout"]) or "unknown",
            "stride": row["stride"] or "",
            "field": row["receptive_field"] or "",
            "per location": format_bytes(row["bytes"]),
        }
        for row in rows
    ]
    total = format_bytes(sum(row["bytes"] for row in rows))
    print_table(shown, right=("stride", "field", "per location"))
    put(f"{len(rows)} layers, {total} per object and location as float32")


@command(rich_help_panel=MODELS, epilog="Example: elsewhere objects glyphs --out glyphs.png")
@takes(StimulusOptions, without=("objects", "grid", "reference", "canvas"))
def objects(
    options: StimulusOptions,
    name: Annotated[str | None, typer.Argument(help="A set, or folder:PATH.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Draw a contact sheet there.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the exemplars.")] = 0,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """List the object sets, describe one, or draw its contact sheet."""
    from elsewhere.stimuli import Canvas, load_objects, object_sets, parse_categories

    if name is None:
        if out is not None:
            raise InputError(
                "--out draws one set; name it, as in elsewhere objects glyphs --out ..."
            )
        rows = [{"set": entry, "what": object_sets.summary(entry)} for entry in object_sets]
        print_json(rows) if as_json else print_table(rows)
        return

    if out is not None:
        check_output(out, overwrite)
    ground = options.background_color
    found = load_objects(
        name,
        size=50 if options.object_size is None else options.object_size,
        categories=parse_categories(options.categories),
        per_category=options.per_category,
        seed=seed,
        data_dir=options.data_dir,
        background_color=None if ground is None else parse_color(ground),
        skip_broken=options.skip_broken,
    )
    if out is not None:
        from elsewhere.figures import plot_objects, save_figure

        color = Canvas.parse_background(options.background)
        if color == "mean":
            raise InputError("a contact sheet has no normalisation; give --background as a colour")
        rgb = (color, color, color) if isinstance(color, int) else color
        save_figure(plot_objects(found, background=rgb), out, overwrite=overwrite)
        say(f"wrote {out}")
        return
    described = {
        "set": found.name,
        "objects": len(found),
        "categories": list(found.category_names),
        "digest": found.digest(),
        "source": dict(found.source),
    }
    if as_json:
        print_json(described)
        return
    categories = " ".join(found.category_names)
    put(f"{found.name}: {len(found)} objects, {len(found.category_names)} categories")
    put(categories)


@command(rich_help_panel=RECORDINGS, epilog="Example: elsewhere plan vgg16 --grid stride:7")
@takes(ModelOptions, StimulusOptions, KeepOptions)
def plan_(
    model: MODEL,
    network: ModelOptions,
    stimuli: StimulusOptions,
    kept: KeepOptions,
    out: Annotated[Path | None, typer.Option("--out", help="Where it would go.")] = None,
    workers: WorkersOption = 1,
    scheduler: SchedulerOption = None,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Say what `record` would cost: bytes, time, memory."""
    from elsewhere.recording import check_room
    from elsewhere.recording import plan as plan_sweep

    check_sharing(workers, scheduler, kept)
    _check_outputs(out, kept.measure, overwrite)
    sweep, wanted, sinks = _prepare(model, network, stimuli, kept)
    cost = plan_sweep(sweep, layers=wanted, also=sinks, **kept.header(network.seed))
    cost = cost.shared(workers)
    if as_json:
        print_json(dataclasses.asdict(cost))
    else:
        print_plan(cost)
    if out is not None:
        check_room(cost, out, overwrite=overwrite)
    if not as_json:
        say(f"engine {sweep.choice}")


plan_.__name__ = "plan"


@command(
    rich_help_panel=RECORDINGS,
    epilog="Example: elsewhere record vgg16 --objects novel --grid 7x7 --out run.h5",
)
@takes(ModelOptions, StimulusOptions, KeepOptions)
def record(
    model: MODEL,
    network: ModelOptions,
    stimuli: StimulusOptions,
    kept: KeepOptions,
    out: Annotated[Path, typer.Option("--out", help="The HDF5 file to write.")],
    workers: WorkersOption = 1,
    scheduler: SchedulerOption = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Record a network for every object at every location of the grid into HDF5.

    The same command goes on where it was killed, and leaves what is complete as it is.
    """
    from elsewhere.analyzer import complete
    from elsewhere.recording import check_room, is_complete, make_header
    from elsewhere.recording import plan as plan_sweep
    from elsewhere.recording import record as record_sweep
    from elsewhere.storage import save_result

    check_sharing(workers, scheduler, kept)
    _check_outputs(out, kept.measure, overwrite, resumed=True)
    sweep, wanted, sinks = _prepare(model, network, stimuli, kept)
    options = kept.header(network.seed)
    header = make_header(sweep, layers=wanted, also=sinks, **options)
    there = not overwrite and is_complete(out, header)
    if there:
        say(f"{out}: already complete")
        if kept.measure is None:
            return
    say(describe(sweep, wanted))
    cost = plan_sweep(sweep, layers=wanted, also=sinks, **kept.header(network.seed))
    cost = cost.shared(workers)
    if not there:
        check_room(cost, out, overwrite=overwrite)
    stored = f"about {format_bytes(cost.stored_bytes)} ({format_bytes(cost.raw_bytes)} raw)"
    say(f"plan: {cost.n_images} images, {stored}, about {duration(cost.seconds)}")
    sinks = _sinks(kept, sweep)
    with progress("recording") as bar:
        record_sweep(
            sweep,
            out,
            layers=wanted,
            also=sinks,
            overwrite=overwrite,
            **kept.header(network.seed),
            command=_command_line(),
            workers=workers,
            scheduler=scheduler,
            progress=bar,
        )
    print_notes(sweep)
    if not there:
        say(f"wrote {out} ({format_bytes(out.stat().st_size)})")
    if kept.measure is not None:
        result = complete(sinks[0], sweep)
        save_result(result, kept.measure, overwrite=overwrite, rescue=True)
        print_notes(result)
        say(f"wrote {kept.measure}")


@command(rich_help_panel=RECORDINGS, epilog="Example: elsewhere inspect run.h5")
def inspect_(
    path: Annotated[Path, typer.Argument(metavar="RECORDING", help="An HDF5 recording.")],
    allow_partial: PartialOption = False,
    as_json: JsonOption = False,
) -> None:
    """Say what is in a recording, and where it came from: who, what, versions, command line."""
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
            "axes": {name: list(values) for name, values in design.axes},
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
    for name, values in design.axes:
        put(f"{name}: {counted(len(values), 'location')}, {values[0]} to {values[-1]} px")
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
    }
    for key, value in described["attributes"].items():
        if key not in hidden:
            put(f"{key}: {json.dumps(value) if isinstance(value, list | dict) else value}")


inspect_.__name__ = "inspect"

command(rich_help_panel=RECORDINGS, epilog="Example: elsewhere verify run.h5")(recordings.verify)


# --- analyses --------------------------------------------------------------------------------

command(
    rich_help_panel=ANALYSES,
    epilog="Example: elsewhere similarity run.h5 --metric evoked --out sim.nc",
)(analyses.similarity)
command(rich_help_panel=ANALYSES, epilog="Example: elsewhere figure sim.nc --out fig.svg")(
    analyses.figure
)
command(
    rich_help_panel=ANALYSES,
    epilog="Example: elsewhere measure run.h5 --names cosine,cka,partition --out measures.nc",
)(measuring.measure)
command(rich_help_panel=ANALYSES, epilog="Example: elsewhere table sim.nc --out sim.csv")(
    measuring.table
)
command(rich_help_panel=ANALYSES, epilog="Example: elsewhere methods run.h5 --out methods.md")(
    measuring.methods
)
command(
    rich_help_panel=ANALYSES,
    epilog="Example: elsewhere probe run.h5 --train-at left --out probe.nc",
)(probes.probe)
command(
    rich_help_panel=ANALYSES,
    epilog="Example: elsewhere attribute run/checkpoints/novel-000500.safetensors --out attr.nc",
)(attribution.attribute)
command(
    rich_help_panel=ANALYSES,
    epilog="Example: elsewhere sanity vgg11-slim --target logit:predicted --out sanity.nc",
)(attribution.sanity)


# --- training --------------------------------------------------------------------------------

command(rich_help_panel=TRAINING, epilog="Example: elsewhere train quick/vanilla --out run")(
    training.train
)
command(
    rich_help_panel=TRAINING,
    epilog="Example: elsewhere accuracy run/checkpoints/novel-000500.safetensors --out acc.nc",
)(training.accuracy)
command(rich_help_panel=TRAINING, epilog="Example: elsewhere track run --out track.nc")(
    training.track
)
command(rich_help_panel=TRAINING, epilog="Example: elsewhere reproduce --scale quick --out claims")(
    reproduction.reproduce
)


# --- what commands share ---------------------------------------------------------------------


def _prepare(
    model: str, network: ModelOptions, stimuli: StimulusOptions, kept: KeepOptions
) -> tuple[Sweep, Any, list[Any]]:
    """Return the sweep, the layers to keep, and the sinks that measure meanwhile."""
    from elsewhere.models import list_layers, select_layers

    kept.check()
    loaded = network.load(model)
    size = loaded.canvas_size if stimuli.canvas is None else stimuli.canvas
    every = list_layers(loaded, size, containers=True)
    wanted = select_layers(every, kept.layers or None, loaded)
    names = [layer.name for layer in wanted]
    if kept.measure is not None:
        measured = select_layers(every, kept.measure_layers, loaded)
        names += [layer.name for layer in measured]
    engine: Any = kept.engine
    sweep = stimuli.build(model, loaded, names, network.seed, engine=engine)
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


def _check_outputs(
    out: Path | None, measure: Path | None, overwrite: bool, *, resumed: bool = False
) -> None:
    """Refuse outputs of a recording that are there, or that would replace each other.

    Where it is `resumed`, a recording that is there is compared with what is asked for later.
    """
    paths = [path for path in (out, measure) if path is not None]
    for path in paths:
        if not (resumed and path == out and path.is_file()):
            check_output(path, overwrite)


def _command_line() -> str:
    return shlex.join(["elsewhere", *sys.argv[1:]])


def main() -> None:
    """Run the command line."""
    sys.stderr = LossyStream(sys.stderr)
    handler = logging.StreamHandler()
    handler.setFormatter(VisibleFormatter("%(levelname)s: %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    try:
        app()
    finally:
        _flush()


def _flush() -> None:
    """Write what is waiting for standard output; where that fails, say so in one line."""
    try:
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            say(f"error: cannot write to standard output: {error.strerror or error}")
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
