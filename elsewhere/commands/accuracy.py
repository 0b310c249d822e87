"""The command that asks a network, live or recorded, what each object is."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from elsewhere.commands.sources import is_file, open_any
from elsewhere.errors import InputError, StorageError
from elsewhere.options import (
    CostOptions,
    JsonOption,
    LayerOption,
    ModelOptions,
    OverwriteOption,
    PartialOption,
    StimulusOptions,
    part,
)
from elsewhere.terminal import (
    check_output,
    print_notes,
    print_numbers,
    print_rows,
    progress,
    say,
    stamped,
)

if TYPE_CHECKING:
    import xarray

Ask = Callable[..., "xarray.Dataset"]
"""Takes ``progress`` and what every result of accuracy is asked with."""


def accuracy(
    source: Annotated[
        str,
        typer.Argument(
            help="A checkpoint, a run (its last checkpoint), any MODEL that gives class scores, or "
            "a recording that kept them."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="The netCDF file to write.")],
    network: ModelOptions,
    stimuli: Annotated[StimulusOptions, part(without=("reference",), grid="7x7", per_category=20)],
    cost: CostOptions,
    labels: Annotated[
        Path | None,
        typer.Option(
            "--labels",
            help="The names of the classes, in the order of the scores: one a line, or JSON; "
            "default: a checkpoint's, a recording's, or those of torchvision's weights.",
        ),
    ] = None,
    trained_at: Annotated[
        str | None,
        typer.Option(
            "--trained-at",
            help="Where the classes were trained: left, centre, y,x, or several (y,x;y,x); "
            "default: what a checkpoint says.",
        ),
    ] = None,
    layer: LayerOption = None,
    trials: Annotated[
        Path | None, typer.Option("--trials", help="Also a row per trial: .csv, .parquet or .xlsx.")
    ] = None,
    allow_partial: PartialOption = False,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Map the accuracy over the canvas, trained and held-out exemplars apart."""
    from elsewhere.storage import check_table_name, save_all, save_result, save_table
    from elsewhere.storage.files import is_checkpoint

    check_output(out, overwrite)
    if trials is not None:
        check_table_name(trials, overwrite=overwrite)
    cost.check(source)
    stimuli.check(source)
    source = _last_checkpoint(source, network.trust)
    if not is_file(source):
        network.check(source)
    from elsewhere.models.labels import read_labels
    from elsewhere.training import read_card, trial_table

    card = read_card(source, trust=network.trust) if is_checkpoint(source) else None
    if card is not None and labels is not None:
        raise InputError(f"{source} is a checkpoint, which names its classes: leave out --labels")
    names = None if labels is None else read_labels(labels)
    cost.set_threads()
    with contextlib.ExitStack() as stack:
        ask: Ask
        if card is not None and stimuli.objects in (None, card.objects):
            ask, n_trials = _of_its_own(card, network, stimuli, cost, trained_at, layer)
        else:
            opened = _of_any(
                source, card, network, stimuli, cost, names, trained_at, layer, allow_partial
            )
            ask, n_trials = stack.enter_context(opened)
        _check_room(out, trials, n_trials)
        with progress("classifying") as report:
            result = ask(max_memory=cost.max_memory, progress=report)
    saves = [partial(save_result, stamped(result), out)]
    if trials is not None:
        saves.append(partial(save_table, trial_table(result), trials))
    save_all(*(partial(save, overwrite=overwrite, rescue=True) for save in saves))
    if trials is not None:
        say(f"wrote {trials}")
    _report(result, as_json=as_json)
    say(f"wrote {out}")


def _last_checkpoint(source: str, trust: Sequence[str]) -> str:
    """Return the last checkpoint of a run where `source` is one's directory, else `source`."""
    from elsewhere.storage.files import is_folder

    if not is_folder(Path(source) / "checkpoints"):
        return source
    from elsewhere.training import list_checkpoints, lone_cards, read_card

    last = list_checkpoints(source, trust=trust)[-1]
    for path in lone_cards(source):
        card = read_card(path, trust=trust)
        if (card.phase_index, card.step) > (last.phase_index, last.step):
            raise StorageError(
                f"the run {source} lacks the weights of a later checkpoint than {last.path.name}, "
                f"{card.path.name}; put them back, or name the checkpoint: {last.path}"
            )
    return str(last.path)


def _of_its_own(
    card: Any,
    network: ModelOptions,
    stimuli: StimulusOptions,
    cost: CostOptions,
    trained_at: str | None,
    layer: str | None,
) -> tuple[Ask, int]:
    """Return what asks a checkpoint about the objects that it was trained on, and held out."""
    from elsewhere.analyzer import network_accuracy
    from elsewhere.models import OUTPUT
    from elsewhere.stimuli import Grid
    from elsewhere.stimuli.transformations import parse_axis

    own = ("--objects", "--per-category", "--grid", "--axis", "--data-dir")
    given = [name for name in stimuli.given if name not in own]
    network.refuse_beside(card.path, "is a checkpoint, shown what it was trained on", *given)
    model = network.load(str(card.path))
    tested, mask = card.test_objects(per_category=stimuli.per_category, data_dir=stimuli.data_dir)
    grid = Grid.parse(stimuli.grid, card.canvas)
    axes = [parse_axis(text) for text in stimuli.axes]
    ask = partial(
        network_accuracy,
        model,
        tested,
        card.canvas,
        stimuli.grid if axes else grid,
        axes=axes,
        trained=_places(trained_at, card.canvas, grid)
        or card.trained_locations(data_dir=stimuli.data_dir),
        held_out=mask,
        classes=card.categories,
        layer=OUTPUT if layer is None else layer,
        engine=cost.engine,
        workers=cost.sharing,
        scheduler=cost.scheduler,
        attributes=_said(card),
    )
    return ask, len(tested) * len(grid) * math.prod(map(len, axes))


@contextlib.contextmanager
def _of_any(
    source: str,
    card: Any,
    network: ModelOptions,
    stimuli: StimulusOptions,
    cost: CostOptions,
    names: Sequence[str] | None,
    trained_at: str | None,
    layer: str | None,
    allow_partial: bool,
) -> Iterator[tuple[Ask, int]]:
    """Yield what asks any model or recording about any objects."""
    from elsewhere.analyzer import accuracy as measure
    from elsewhere.analyzer.accuracy import find_scores
    from elsewhere.errors import UnknownNameError
    from elsewhere.measures.behaviour import differing
    from elsewhere.models import OUTPUT
    from elsewhere.models.labels import known_classes
    from elsewhere.stimuli import Canvas, Grid
    from elsewhere.types import parse_bytes

    if trained_at is not None:  # one beside the grid is swept together with it
        stimuli.reference = trained_at.partition(";")[0]
    wanted = None if is_file(source) else [OUTPUT if layer is None else layer]
    with open_any(source, network, stimuli, cost, wanted, allow_partial=allow_partial) as (
        found,
        _,
    ):
        if wanted is not None:
            found = found.in_batches(parse_bytes(cost.max_memory))
        facts, design = found.origin, found.design
        classes = known_classes(facts) if names is None else names
        if not classes:
            raise InputError(
                f"what the classes of {source} are called is not known; give --labels FILE with "
                "one name a line, in the order of the scores"
            )
        for category in dict.fromkeys(design.categories):
            if category not in classes:
                shown = stimuli.objects or facts.get("object_set", "the objects")
                hint = f"{category!r} is a category of {shown}; show objects of the head's classes"
                raise UnknownNameError("class of the head", category, classes, hint)
        scores = find_scores(found.layers, layer, classes, str(facts["model"])).name
        grid = Grid(*design.axes.moving.values)
        canvas = Canvas(int(facts["canvas"]), int(facts["object_size"]))
        trained, held_out = _places(trained_at, canvas, grid), None
        numerics = facts["numerics"] if wanted is None else found.numerics
        said: dict[str, Any] = {"notes": [], "numerics": numerics}
        if card is not None:
            trained = trained or card.trained_locations(data_dir=stimuli.data_dir)
            said = {**said, **_said(card)}
            held_out = ~card.has_seen(found.objects)
        else:
            said["notes"].append(
                f"what {facts['model']} was trained on is not known: every object counts as an "
                "exemplar that it was trained on ('same')"
            )
        behaviour = found.behaviour if wanted is None else found.conduct.behaviour
        for output in list(facts.get("behaviour", {}).values())[:1]:
            if differing({scores: output}, behaviour):
                said["notes"] = [
                    *said["notes"],
                    f"the network goes on after layer {scores!r}: choices and margins are this "
                    "layer's, and need not be those of its output",
                ]
        ask = partial(
            measure,
            found,
            layer=scores,
            classes=classes,
            trained=trained,
            held_out=held_out,
            attributes=said,
        )
        yield ask, len(design.objects) * design.n_positions


def _said(card: Any) -> dict[str, Any]:
    """Return what a result says of the checkpoint that was asked."""
    from elsewhere.analyzer.training_facts import training_facts

    return training_facts(card.path.parent.parent) | {
        "seed": card.seed,
        "phase": card.phase,
        "checkpoint": card.path.name,
        "notes": list(card.notes),
    }


def _places(text: str | None, canvas: Any, grid: Any) -> tuple[tuple[int, int], ...]:
    """Return the locations that `text` names."""
    from elsewhere.stimuli import parse_location

    return tuple(parse_location(each, canvas, grid) for each in (text or "").split(";") if each)


def _check_room(out: Path, trials: Path | None, n_trials: int) -> None:
    from elsewhere.storage import check_result_room, table_bytes

    beside = {} if trials is None else {trials: table_bytes(trials, n_trials)}
    check_result_room(out, n_trials, beside=beside)


def _report(result: xarray.Dataset, *, as_json: bool) -> None:
    """Print a row for each kind of exemplars that there are."""
    rows = []
    for kind in result["exemplars"].values.tolist():
        chosen = result.sel(exemplars=kind)
        row: dict[str, Any] = {"exemplars": kind}
        if not result.sizes["trained"]:
            rows.append(row | {"accuracy": float(chosen["accuracy"].mean())})
            continue
        for where in result["where"].values.tolist():
            at = chosen.sel(where=where)
            row[where] = float(at["accuracy_at"])
            row[f"{where} interval"] = [float(v) for v in at["accuracy_at_interval"]]
        row["II_far"] = float(chosen["II_far"])
        rows.append(row)
    print_notes(result)
    if as_json:
        print_rows(rows, result)
        return
    print_numbers(rows, right=tuple(rows[0])[1:])
