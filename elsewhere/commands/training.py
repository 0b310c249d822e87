"""Commands that train networks and measure what training does."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import typer

from elsewhere.errors import InputError
from elsewhere.notes import notes_of
from elsewhere.options import (
    CostOptions,
    JsonOption,
    LayersOption,
    MetricOption,
    ModelOptions,
    NamesOption,
    OverwriteOption,
    PhaseOption,
    StimulusOptions,
    TokensOption,
    choose,
    part,
)
from elsewhere.terminal import (
    bar,
    check_output,
    print_json,
    print_notes,
    print_table,
    put,
    put_text,
    say,
    stamped,
)
from elsewhere.tokens import TOKEN_PARTS, TokenPart
from elsewhere.types import Metric

if TYPE_CHECKING:
    from collections.abc import Callable

    import xarray

    from elsewhere.training import Card, Report


def train(
    network: Annotated[ModelOptions, part("seed", "device", "trust", seed=None)],
    stimuli: Annotated[StimulusOptions, part("axes", "data_dir")],
    cost: Annotated[CostOptions, part("threads")],
    curriculum: Annotated[
        str | None, typer.Argument(help="Such as laptop/acquired, or a TOML file; none lists them.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="The run's directory.")] = None,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write TensorBoard files too.")
    ] = False,
    show: Annotated[
        bool,
        typer.Option("--show", help="Print the curriculum as one TOML file, and train nothing."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Train a network through a curriculum; a killed run goes on where it stood."""
    from elsewhere.training import load_curriculum, presets, scales

    if curriculum is None and show:
        raise InputError("--show needs a curriculum, such as: elsewhere train --show quick/vanilla")
    if curriculum is None:
        listed = [{"curriculum": name, "what": presets.summary(name)} for name in presets]
        if as_json:
            print_json(listed)
            return
        print_table([{"scale": name, "what": scales.summary(name)} for name in scales])
        put("")
        print_table(_by_name(listed))
        put("")
        put("name a curriculum with its scale: elsewhere train quick/acquired --out run")
        return
    if show:
        if out is not None:
            raise InputError("--show trains nothing: leave --out out, and write > mine.toml")
        from elsewhere.training.folders import adjusted
        from elsewhere.training.toml import to_toml

        loaded = adjusted(load_curriculum(curriculum), seed=network.seed, axes=stimuli.axes)
        table = loaded.to_dict()
        if as_json:
            print_json(table)
        else:
            put_text(f"# {curriculum}, in one file; docs/curricula.md explains all keys.\n")
            put_text(to_toml(table))
        return
    if out is None:
        raise InputError("--out is missing; expected the directory of the run")
    cost.check()
    stimuli.check()
    loaded = load_curriculum(curriculum)
    from elsewhere.training import list_checkpoints
    from elsewhere.training import train as train_curriculum

    cost.set_threads()
    with training_bar() as report:
        train_curriculum(
            loaded,
            out,
            device=network.device,
            progress=report,
            seed=network.seed,
            axes=stimuli.axes,
            data_dir=stimuli.data_dir,
            tensorboard=tensorboard,
            threads=cost.threads,
            trust=network.trust,
        )
    cards = list_checkpoints(out)
    rows: list[dict[str, Any]] = [
        {
            "phase": card.phase,
            "step": card.step,
            "train": card.train_accuracy,
            "on": card.accuracy_on,
            "on_error": card.accuracy_on_error,
            "off": card.accuracy_off,
            "off_error": card.accuracy_off_error,
            "training_mode": card.training_mode,
            "evaluation_mode": card.evaluation_mode,
            "batch_norm": card.batch_norm,
            "file": str(card.path),
        }
        for card in cards
    ]
    print_notes(*(list(card.notes) for card in cards))
    if as_json:
        print_json([{**row, "notes": list(c.notes)} for row, c in zip(rows, cards, strict=True)])
    else:
        shown = [
            {
                "phase": card.phase,
                "step": card.step,
                "train": _share(card.train_accuracy),
                "on": _share(card.accuracy_on, card.accuracy_on_error),
                "off": _share(card.accuracy_off, card.accuracy_off_error),
                **({"by mode": _modes(card)} if any(map(_modes, cards)) else {}),
                "file": card.path,
            }
            for card in cards
        ]
        print_table(shown, right=("step", "train", "on", "off"))
        say(_COLUMNS)
    say(f"wrote {out}")


_COLUMNS = (
    "train: share of training's latest presentations that was right; on, off: accuracy and its "
    "standard error for exemplars of a fixed sample (held out, if any are), at trained locations "
    "and at others"
)


def _share(value: float | None, error: float | None = None) -> str:
    """Return a share, with its standard error where there is one, at two digits."""
    if value is None:
        return "-"
    return f"{value:.2f}" if error is None else f"{value:.2f} ±{error:.2f}"


def _modes(card: Card | Report) -> str:
    """Return the accuracies in training and in evaluation mode where they are far apart."""
    from elsewhere.training.card_notes import note_of_modes

    pair = card.training_mode, card.evaluation_mode
    return f"training {pair[0]:.2f}, evaluation {pair[1]:.2f}" if note_of_modes(*pair) else ""


def _by_name(listed: list[dict[str, str]]) -> list[dict[str, str]]:
    """Return a row for each name that stands behind a scale's."""
    rows: dict[str, dict[str, str]] = {}
    for each in listed:
        name = each["curriculum"].partition("/")[2]
        rows.setdefault(name, {"name": name, "what": each["what"]})
    return list(rows.values())


def track(
    directory: Annotated[Path, typer.Argument(help="The directory of a run.")],
    out: Annotated[Path, typer.Option("--out", help="The netCDF file to write.")],
    network: Annotated[
        ModelOptions, part("device", "batch_dependent", "chance_seed", "precision", "trust")
    ],
    stimuli: Annotated[
        StimulusOptions,
        part(
            *("objects", "font", "categories", "per_category", "grid", "axes", "data_dir"),
            per_category=20,
            grid="7x7",
        ),
    ],
    cost: CostOptions,
    layers: LayersOption = None,
    tokens: TokensOption = "all",
    metric: MetricOption = "cosine",
    phases: PhaseOption = None,
    probes: Annotated[
        bool, typer.Option("--probes", help="Train linear probes of each layer as well.")
    ] = False,
    names: NamesOption = None,
    any_reference: Annotated[
        bool,
        typer.Option(
            "--any-reference",
            help="Keep, of the first and last checkpoint, what a report needs for any reference.",
        ),
    ] = False,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Measure accuracy and similarity at every checkpoint of a run; goes on where it stood."""
    from elsewhere.measures import measures_named
    from elsewhere.stimuli import parse_categories

    check_output(out, overwrite)
    choose("metric", metric, get_args(Metric))
    choose("part of the tokens", tokens, TOKEN_PARTS)
    cost.check()
    stimuli.check()
    measures_named(names or ())
    from elsewhere.analyzer.track_summary import summarise_track
    from elsewhere.analyzer.trajectories import TrackSettings
    from elsewhere.analyzer.trajectories import track as track_run
    from elsewhere.storage import save_result

    cost.set_threads()
    settings = TrackSettings(
        grid=stimuli.grid,
        axes=tuple(stimuli.axes),
        engine=cost.engine,
        layers=tuple(layers) if layers else None,
        tokens=cast(TokenPart, tokens),
        metric=cast(Metric, metric),
        objects=stimuli.objects,
        categories=parse_categories(stimuli.categories),
        per_category=stimuli.per_category,
        probes=probes,
        any_reference=any_reference,
        measures=tuple(names or ()),
        **network.how,
    )
    with bar("tracking", note=True) as update:
        result = track_run(
            directory,
            settings=settings,
            phases=phases,
            device=network.device,
            max_memory=cost.max_memory,
            data_dir=stimuli.data_dir,
            workers=cost.sharing,
            scheduler=cost.scheduler,
            trust=network.trust,
            out=out,
            report=update,
        )
    save_result(stamped(result), out, overwrite=overwrite, rescue=True)
    shown = dict.fromkeys(result["phase"].values.tolist())
    summaries = {name: summarise_track(result, name) for name in shown}
    print_notes(result.assign_attrs(notes=notes_of(result, *summaries.values())))
    if as_json:
        print_json(
            {
                name: {
                    **found.to_dict(data="list")["data_vars"],
                    "attributes": found.attrs,
                    "notes": notes_of(result, found),
                }
                for name, found in summaries.items()
            }
        )
    else:
        rows = [row for name, found in summaries.items() for row in _track_rows(name, found)]
        print_table(rows, right=tuple(rows[0])[2:])
    say(f"wrote {out}")


def _track_rows(phase: str, summary: xarray.Dataset) -> list[dict[str, Any]]:
    def number(value: float, digits: int) -> str:
        return "-" if value != value else f"{value:.{digits}f}"

    return [
        {
            "phase": phase,
            "exemplars": str(kind),
            "onset": number(float(summary["onset_step"][place]), 0),
            "half-way": number(float(summary["halfway_step"][place]), 0),
            "loss after criterion": number(float(summary["accuracy_loss"][place]), 3),
        }
        for place, kind in enumerate(summary["exemplars"].values)
    ]


@contextlib.contextmanager
def training_bar() -> Iterator[Callable[[Report], None]]:
    """Show step, loss and accuracies of the phase that is trained."""
    with bar("training", note=True) as update:

        def report(now: Report) -> None:
            parts = [now.phase]
            if now.loss is not None:
                parts.append(f"loss {now.loss:.3f}")
            for name, value, error in (
                ("train", now.train_accuracy, None),
                ("on", now.accuracy_on, now.accuracy_on_error),
                ("off", now.accuracy_off, now.accuracy_off_error),
            ):
                if value is not None:
                    parts.append(f"{name} {_share(value, error)}")
            if said := _modes(now):
                parts.append(f"by mode: {said}")
            update(now.step, now.steps, "  ".join(parts))

        yield report
