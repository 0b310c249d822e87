"""Commands that measure recordings and live sweeps, and draw what came out."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated, Any

import typer

from elsewhere.errors import InputError
from elsewhere.options import (
    ENGINE_HELP,
    ENGINES,
    JsonOption,
    ModelOptions,
    OverwriteOption,
    PartialOption,
    StimulusOptions,
    check_room,
    choose,
    describe,
    is_file,
    match_layers,
    open_source,
    recorded_reference,
    refuse_live_options,
    set_threads,
    takes,
)
from elsewhere.terminal import check_output, print_notes, print_similarity, progress, say
from elsewhere.types import parse_bytes


@takes(ModelOptions, StimulusOptions)
def similarity(
    source: Annotated[str, typer.Argument(help="A recording, or a MODEL to sweep live.")],
    network: ModelOptions,
    stimuli: StimulusOptions,
    out: Annotated[Path, typer.Option("--out", help="The netCDF file to write.")],
    select: Annotated[
        list[str] | None,
        typer.Option("--layers", help="Names, aliases or globs; default: all that are there."),
    ] = None,
    metric: Annotated[
        str, typer.Option("--metric", help="cosine, centred, centred-by-place, evoked or pearson.")
    ] = "cosine",
    protocol: Annotated[
        str, typer.Option("--protocol", help="elsewhere, or biscione-bowers: as the authors did.")
    ] = "elsewhere",
    max_memory: Annotated[
        str, typer.Option("--max-memory", help="For activations, e.g. 2GiB.")
    ] = "2GiB",
    engine: Annotated[str, typer.Option("--engine", help=ENGINE_HELP)] = "auto",
    threads: Annotated[int | None, typer.Option("--threads", help="CPU threads.")] = None,
    allow_partial: PartialOption = False,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Compare every layer's code of an object here with that at the reference."""
    from elsewhere.analyzer import PROTOCOL, similarity_biscione_bowers
    from elsewhere.analyzer import similarity as measure
    from elsewhere.analyzer.similarity import METRICS
    from elsewhere.storage import save_result

    check_output(out, overwrite)
    choose("metric", metric, METRICS)
    choose("engine", engine, ENGINES)
    choose("protocol", protocol, ("elsewhere", PROTOCOL))
    if protocol == PROTOCOL and metric != "cosine":
        raise InputError(f"--protocol {PROTOCOL} uses the cosine; leave --metric out")
    parse_bytes(max_memory)
    set_threads(threads)
    with contextlib.ExitStack() as stack:
        found: Any
        if is_file(source):
            refuse_live_options(source, network, stimuli)
            if engine != "auto":
                raise InputError(f"{source} is a file: --engine is for live sweeps; leave it out")
            found = stack.enter_context(open_source(Path(source), allow_partial=allow_partial))
            if stimuli.reference is not None:
                place = recorded_reference(found, stimuli.reference)
                found = stack.enter_context(found.refer_to(place))
            chosen = match_layers(found, select) if select else None
        else:
            if allow_partial:
                raise InputError("--allow-partial is for recordings; leave it out, or name one")
            how: Any = engine
            found = stimuli.build(source, network.load(source), select, network.seed, engine=how)
            chosen = [layer.name for layer in found.layers] if select else None
            say(describe(found, found.layers))
        check_room(out, found, chosen)
        bar = stack.enter_context(progress("comparing"))
        common: dict[str, Any] = {"max_memory": max_memory, "progress": bar}
        if protocol == PROTOCOL:
            result = similarity_biscione_bowers(
                found, layers=chosen, seed=network.seed, **common
            )  # fmt: skip
        else:
            result = measure(found, metric=metric, layers=chosen, **common)  # type: ignore[arg-type]
    save_result(result, out, overwrite=overwrite, rescue=True)
    print_similarity(result, as_json=as_json)
    say(f"wrote {out}")


def figure(
    results: Annotated[
        list[Path],
        typer.Argument(help="A result, such as sim.nc; several of sanity tests.", metavar="RESULT"),
    ],
    out: Annotated[Path, typer.Option("--out", help=".svg, .pdf or .png")],
    kind: Annotated[
        str | None, typer.Option("--kind", help="maps, layerwise, displacement, ...")
    ] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Draw a result, or several where a figure has a panel for each (sanity)."""
    from elsewhere.figures import draw, save_figure
    from elsewhere.storage import load_result

    check_output(out, overwrite)
    found = [load_result(result) for result in results]
    save_figure(draw(found[0], kind, *found[1:]), out, overwrite=overwrite)
    print_notes(*found)
    say(f"wrote {out}")
