"""Commands that ask which pixels drive a network, and whether that can be trusted."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from elsewhere.commands.sources import check_room
from elsewhere.errors import InputError
from elsewhere.notes import notes_of
from elsewhere.options import (
    ENGINES,
    MODEL,
    CostOptions,
    DtypeOption,
    JsonOption,
    LayerOption,
    ModelOptions,
    OptionGroup,
    OverwriteOption,
    PhaseOption,
    StimulusOptions,
    choose,
    part,
)
from elsewhere.terminal import (
    bar,
    called,
    check_output,
    command_line,
    counted,
    print_json,
    print_notes,
    print_numbers,
    print_rows,
    print_table,
    progress,
    say,
    stamped,
)
from elsewhere.types import AttributionMethod

if TYPE_CHECKING:
    import xarray

    from elsewhere.analyzer.attribution import AttributionSettings
    from elsewhere.recording import Sweep
    from elsewhere.training import Card


@dataclasses.dataclass(kw_only=True)
class MethodOptions(OptionGroup):
    """What is attributed, and how."""

    panel = "Method"

    method: Annotated[
        str,
        typer.Option(
            "--method",
            help="integrated-gradients, occlusion, grad-cam, saliency, ... (`elsewhere attribute`)",
        ),
    ] = "integrated-gradients"
    target: Annotated[
        str | None,
        typer.Option(
            "--target",
            help="logit[:CLASS], probability[:CLASS], similarity:LAYER or probe:FILE[:CLASS] (of "
            "`probe --readout`); CLASS: true, predicted, reference, a name or a number.",
        ),
    ] = None
    layer: LayerOption = None
    options: Annotated[
        list[str], typer.Option("--option", help="name=value, the method's own; repeatable.")
    ] = dataclasses.field(default_factory=list)
    baseline: Annotated[
        str, typer.Option("--baseline", help="empty, black, blurred or blurred:SIGMA.")
    ] = "empty"
    margin: Annotated[
        int | None,
        typer.Option("--margin", help="Of the frame around the object, px; default: half."),
    ] = None
    canvas_maps: Annotated[
        bool, typer.Option("--canvas-maps", help="Keep maps of the whole canvas too.")
    ] = False
    dtype: DtypeOption = "float16"
    extras: Annotated[
        list[str], typer.Option("--extra", help="sensitivity or infidelity; repeatable, slow.")
    ] = dataclasses.field(default_factory=list)
    n_perturbations: Annotated[
        int, typer.Option("--perturbations", help="Random ones, for each extra.")
    ] = 10

    def settings(self, seed: int) -> AttributionSettings:
        """Return what these options ask for."""
        from elsewhere.analyzer.attribution import AttributionSettings

        return AttributionSettings(
            method=self.method,
            target=self.target,
            layer=self.layer,
            options=tuple(self.options),
            baseline=self.baseline,
            margin=self.margin,
            canvas_maps=self.canvas_maps,
            dtype=self.dtype,  # type: ignore[arg-type]
            extras=tuple(self.extras),  # type: ignore[arg-type]
            n_perturbations=self.n_perturbations,
            seed=seed,
        )


def attribute(
    network: Annotated[ModelOptions, part(without=("precision",))],
    stimuli: Annotated[StimulusOptions, part(without=("axes",))],
    wanted: MethodOptions,
    cost: CostOptions,
    model: Annotated[str | None, MODEL] = None,
    out: Annotated[Path | None, typer.Option("--out", help="The netCDF file to write.")] = None,
    checkpoints: Annotated[
        Path | None, typer.Option("--checkpoints", help="A training run: all its checkpoints.")
    ] = None,
    phases: PhaseOption = None,
    joined: Annotated[
        list[Path] | None,
        typer.Option("--join", help="Results of accuracy, similarity or probes; repeatable."),
    ] = None,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Map which pixels drive the answer at every location, in the object's own frame.

    Without a MODEL, list the methods. There is no --precision: the network
    computes in float32, for maps add up small differences of scores, which
    lower precisions round away.
    """
    if model is None and checkpoints is None:
        _list_methods(as_json=as_json)
        return
    if model is not None and checkpoints is not None:
        raise InputError(f"name a model ({model}) or --checkpoints ({checkpoints}), not both")
    if out is None:
        raise InputError("--out is missing; expected the netCDF file to write")
    there = out.is_file() and not overwrite and checkpoints is None
    if not there:  # whether it is what is asked for is found out later
        check_output(out, overwrite)
    _check(model, network, stimuli, wanted, cost)
    from elsewhere.analyzer.attribution import attribute as attribute_sweep
    from elsewhere.analyzer.attribution import attribute_checkpoints, check_joinable
    from elsewhere.storage import load_result, save_result

    sharing: dict[str, Any] = {"workers": cost.sharing, "scheduler": cost.scheduler}
    settings = wanted.settings(network.seed)
    others = [load_result(path) for path in joined or ()]
    for other in others:
        check_joinable(other)
    if checkpoints is not None:
        if others:
            raise InputError("--join takes results of one network; leave --checkpoints out")
        run = functools.partial(attribute_checkpoints, **sharing, out=out)
        result = _over_training(
            checkpoints, network, stimuli, settings, phases, cost, run
        )  # fmt: skip
    else:
        if phases:
            raise InputError("--phase belongs to --checkpoints; leave it out")
        sweep, card = _sweep(str(model), network, stimuli, cost)
        _describe(sweep, settings)
        with progress("attributing") as report:
            result = attribute_sweep(
                sweep,
                settings,
                classes=None if card is None else card.categories,
                path=out,
                command=command_line(),
                others=others,
                overwrite=overwrite,
                max_memory=cost.max_memory,
                **sharing,
                progress=report,
                announce=say,
            )
    if checkpoints is not None:
        save_result(stamped(result), out, overwrite=overwrite, rescue=True)
    _report(result, as_json=as_json)
    say(f"{out}: already complete" if there else f"wrote {out}")


def sanity(
    model: Annotated[str, MODEL],
    network: Annotated[ModelOptions, part(without=("precision",))],
    stimuli: Annotated[StimulusOptions, part(without=("axes",), grid="3x3")],
    wanted: MethodOptions,
    cost: Annotated[CostOptions, part(without=("workers", "scheduler"))],
    out: Annotated[Path, typer.Option("--out", help="The netCDF file to write.")],
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Randomise a network layer by layer: a method whose maps stay the same is flagged.

    The network computes in float32, as for `attribute`.
    """
    check_output(out, overwrite)
    _check(model, network, stimuli, wanted, cost)
    from elsewhere.analyzer.attribution import sanity as test_sanity
    from elsewhere.storage import save_result

    settings = wanted.settings(network.seed)
    sweep, card = _sweep(model, network, stimuli, cost)
    _describe(sweep, settings)
    check_room(out, sweep, [layer.name for layer in sweep.layers], places=0)
    with progress("randomising") as report:
        result = test_sanity(
            sweep,
            settings,
            classes=None if card is None else card.categories,
            max_memory=cost.max_memory,
            progress=report,
            announce=say,
        )
    save_result(stamped(result), out, overwrite=overwrite, rescue=True)
    rows, stages = [], result["stage"].values.tolist()
    for place, stage in enumerate(stages):
        share = float(result["randomised"][place])
        row: dict[str, Any] = {"randomised": stage, "share of weights": share}
        for name in result["metric"].values.tolist():
            row[name] = float(result["likeness"][place].sel(metric=name))
        rows.append(row)
    unchanged = bool(result.attrs["unchanged"])
    print_notes(result)
    if as_json:
        print_json({"stages": rows, "unchanged": unchanged, "notes": notes_of(result)})
    else:
        print_numbers(rows, right=tuple(rows[0])[1:])
    if unchanged:
        judged = str(result.attrs["judged_at"])
        alike = max(row["spearman"] for row in rows if row["randomised"] in (judged, stages[-1]))
        say(
            f"flagged: with all layers from {judged} up random, the maps of {settings.method} "
            f"still rank pixels alike ({alike:.2f}); they say little about what was learnt"
        )
    say(f"wrote {out}")


# --- what both share ---------------------------------------------------------------------------


def _check(
    model: str | None,
    network: ModelOptions,
    stimuli: StimulusOptions,
    wanted: MethodOptions,
    cost: CostOptions,
) -> None:
    """Refuse names that nobody knows before torch is imported."""
    cost.check()
    choose("engine of maps", cost.engine, ENGINES)  # those of one's own run sweeps only
    stimuli.check(model)
    if model is not None:
        network.check(model)
    if ":" not in (model or ""):  # the module of a factory may register methods
        choose("attribution method", wanted.method, get_args(AttributionMethod))
    cost.set_threads()


def _sweep(
    name: str, network: ModelOptions, stimuli: StimulusOptions, cost: CostOptions
) -> tuple[Sweep, Card | None]:
    """Return the sweep, and the card of a checkpoint, which brings its own objects and classes."""
    from elsewhere.recording import Sweep
    from elsewhere.stimuli import Grid, parse_categories, parse_location
    from elsewhere.storage.files import is_checkpoint
    from elsewhere.training import read_card

    loaded = network.load(name)
    if not is_checkpoint(name):
        return stimuli.build(name, loaded, None, network.seed, cost.engine), None
    card = read_card(name)
    if stimuli.objects is not None:
        return stimuli.build(name, loaded, None, network.seed, cost.engine), card
    other = [o for o in ("--canvas", "--object-size", "--background") if o in stimuli.given]
    if other:
        raise InputError(
            f"{name} brings its own objects and canvas; name --objects to use {', '.join(other)}"
        )
    objects, _ = card.test_objects(per_category=stimuli.per_category, data_dir=stimuli.data_dir)
    objects = objects.select(parse_categories(stimuli.categories), stimuli.per_category)
    grid = Grid.parse(stimuli.grid, card.canvas)
    trained = card.trained or ()
    place = trained[0] if len(trained) == 1 else None
    if stimuli.reference is not None:
        place = parse_location(stimuli.reference, card.canvas, grid)
    engine: Any = cost.engine
    sweep = Sweep(
        loaded, objects, canvas=card.canvas, grid=grid, reference=place, engine=engine
    )  # fmt: skip
    return sweep, card


def _over_training(
    directory: Path,
    network: ModelOptions,
    stimuli: StimulusOptions,
    settings: AttributionSettings,
    phases: list[str] | None,
    cost: CostOptions,
    run: Any,
) -> xarray.Dataset:
    from elsewhere.stimuli import Grid, load_objects, parse_categories, parse_location
    from elsewhere.training import list_checkpoints

    network.refuse_beside(
        directory,
        "holds checkpoints, which bring their own network and canvas",
        *(o for o in stimuli.given if o in ("--canvas", "--object-size", "--background")),
    )
    cards = list_checkpoints(directory)
    card = ([each for each in cards if not phases or each.phase in phases] or cards)[-1]
    objects, place = None, None
    grid = stimuli.grid if "--grid" in stimuli.given else "7x7"
    if stimuli.objects is not None:
        objects = load_objects(
            stimuli.objects,
            size=card.canvas.object_size,
            categories=parse_categories(stimuli.categories),
            per_category=stimuli.per_category,
            seed=network.seed,
            data_dir=stimuli.data_dir,
        )
    elif {"--categories", "--per-category"} & set(stimuli.given):
        objects, _ = card.test_objects(per_category=stimuli.per_category, data_dir=stimuli.data_dir)
        objects = objects.select(parse_categories(stimuli.categories), stimuli.per_category)
    if stimuli.reference is not None:
        place = parse_location(stimuli.reference, card.canvas, Grid.parse(grid, card.canvas))
    with bar("attributing", note=True) as update:
        found: xarray.Dataset = run(
            directory,
            settings,
            grid=grid,
            reference=place,
            objects=objects,
            phases=phases,
            device=network.device,
            max_memory=cost.max_memory,
            data_dir=stimuli.data_dir,
            engine=cost.engine,
            batch_dependent=network.batch_dependent,
            chance_seed=network.chance_seed,
            trust=network.trust,
            report=update,
            announce=say,
        )
    return found


def _describe(sweep: Sweep, settings: AttributionSettings) -> None:
    from elsewhere.analyzer.attribution import methods

    shape = " x ".join(map(str, sweep.design.shape))
    say(
        f"{settings.method} on {called(sweep.model)}, "
        f"{counted(len(sweep.objects), 'object')} of {sweep.canvas.object_size} px at {shape} "
        f"locations of a {sweep.canvas.size} px canvas"
    )
    if warning := methods.get(settings.method).warning:
        say(f"warning: {warning}")


def _list_methods(*, as_json: bool) -> None:
    from elsewhere.analyzer.attribution import methods

    rows = [
        {
            "method": name,
            "what": methods.summary(name),
            "options": ", ".join(methods.get(name).options) or "-",
        }
        for name in methods
    ]
    print_json(rows) if as_json else print_table(rows)


_REPORTED = ("mass_inside", "centre_distance", "entropy", "mass_ratio", "sensitivity", "infidelity")


def _report(result: xarray.Dataset, *, as_json: bool) -> None:
    if reason := result.attrs.get("engine_reason"):
        say(f"engine {result.attrs['engine']} ({reason})")
    print_notes(result)
    if "n_steps" in result:
        _say_steps(result)
    rows = []
    many = "checkpoint" in result.dims
    for place in range(result.sizes["checkpoint"] if many else 1):
        at = result.isel(checkpoint=place) if many else result
        row: dict[str, Any] = {}
        if many:
            row = {"phase": str(at["phase"].values), "step": int(at["step"])}
        equal = at["equivariance_away"].sel(metric="pearson")
        row["equivariance"] = float(equal)
        row["interval"] = [
            float(v) for v in at["equivariance_away_interval"].sel(metric="pearson").values
        ]
        row["other object"] = float(at["equivariance_cross_away"].sel(metric="pearson"))
        over = at["equivariance_over_cross_away_interval"].sel(metric="pearson")
        row["less other"] = row["equivariance"] - row["other object"]
        row["its interval"] = [float(v) for v in over.values]
        row |= {name: float(at[f"{name}_away"]) for name in _REPORTED if f"{name}_away" in at}
        if "accuracy" in at:
            row["accuracy"] = float(at["accuracy"].mean())
        rows.append(row)
    if as_json:
        print_rows(rows, result)
    else:
        print_numbers(rows, right=tuple(rows[0]))
    if not many and "by_recognition" in result:
        _report_recognition(result, as_json=as_json)


def _say_steps(result: xarray.Dataset) -> None:
    """Say where more steps were taken than asked for."""
    steps, options = result["n_steps"], result.attrs.get("options")
    asked = int(options["n_steps"]) if isinstance(options, dict) else int(steps.min())
    if raised := int((steps > asked).sum()):
        say(
            f"of {raised} of {steps.size} maps the steps were raised from {asked}, up to "
            f"{int(steps.max())}, for them to sum to the score's change"
        )


def _report_recognition(result: xarray.Dataset, *, as_json: bool) -> None:
    if as_json or not bool(result["recognition_gap"].notnull().any()):
        return
    rows = []
    for place, name in enumerate(result["measure"].values.tolist()):
        yes, no = (float(v) for v in result["by_recognition_matched"][place].values)
        low, high = (float(v) for v in result["recognition_gap_interval"][place].values)
        gap = float(result["recognition_gap"][place])
        rows.append(
            {"measure": name, "recognised": yes, "not": no, "gap": gap, "interval": [low, high]}
        )
    print_numbers(rows, right=("recognised", "not", "gap", "interval"))
