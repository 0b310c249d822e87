"""`probe`: trained at one place, what can be read off each layer at all the others."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import xarray
from numpy.typing import ArrayLike, NDArray

from elsewhere.errors import InputError, UnknownNameError
from elsewhere.forms import FULL, layer_labels, mean_note, with_forms
from elsewhere.measures.accuracy import INDEX_GATE
from elsewhere.measures.bands import band_notes, without_steps
from elsewhere.measures.intervals import LEAST_SAMPLED
from elsewhere.measures.responses import find_responses
from elsewhere.measures.variables import described
from elsewhere.notes import notes_of
from elsewhere.probes.controls import PIXELS, ControlScene, PixelSource, untrained
from elsewhere.probes.dataset import Builder
from elsewhere.probes.engine import FitOutcome, FitPlan, run
from elsewhere.probes.features import FeatureReading
from elsewhere.probes.kinds import CONTROLS, find_kind
from elsewhere.probes.places import find_places
from elsewhere.probes.selection import strengths_of
from elsewhere.probes.splits import (
    ONE_CATEGORY,
    SPLITS,
    Split,
    balance,
    deal_folds,
    divide,
    shuffle_labels,
)
from elsewhere.probes.summary import Regions, Summary
from elsewhere.protocols import Progress, Source
from elsewhere.sources import numerics_of, restarting
from elsewhere.types import Location, parse_bytes

TrainAt: TypeAlias = str | Location | Sequence[Location]


@restarting
def probe(
    source: Source,
    *,
    train_at: TrainAt = "left",
    split: Split | None = None,
    kind: str | Any = "logistic",
    layers: Sequence[str] | None = None,
    held_out: float | ArrayLike = 0.25,
    strengths: Sequence[float] | None = None,
    n_folds: int = 5,
    controls: Collection[str] = CONTROLS,
    n_shuffles: int = 3,
    threshold: float | None = None,
    seed: int = 0,
    jobs: int = 1,
    max_memory: int | str = "2GiB",
    trust: Collection[str] = (),
    progress: Progress | None = None,
) -> xarray.Dataset:
    """Train a linear classifier on a layer's activations at one place, test it at all others.

    Parameters
    ----------
    source
        A recording (:func:`elsewhere.open`), a live sweep, or arrays.
    train_at
        ``left``, ``centre``, ``y,x`` or (y, x); several locations, trained on together; ``each``:
        every location in turn. See :func:`elsewhere.probes.places.find_places`.
    split
        ``same``: the trained exemplars, elsewhere; ``held-out``: other exemplars, elsewhere;
        ``both``. By default both, if every category has two exemplars or more, else ``same``.
        Exemplars are held out at every location.
    kind
        ``logistic``, ``ridge``, ``svm``, ``nearest-centroid``, or a scikit-learn classifier,
        which is given the samples rotated into their span: exact for linear models with an L2
        penalty, not for what looks at single units.
    layers
        Names of layers; all that the source has by default.
    held_out
        The share of each category's exemplars that is held out, or bool (object,).
    strengths
        Strengths of regularisation to choose from, in the kind's own parameter: C, or alpha.
    n_folds
        Of the cross-validation at the trained location, by exemplar.
    controls
        Some of ``pixels``, ``untrained``, ``shuffled``.
    n_shuffles
        Control tasks, of which the mean is reported.
    threshold
        Accuracy for the share of the canvas; by default half-way from chance to 1.
    seed
        Of the split, the folds, the shuffles and the untrained weights.
    jobs
        Processes for the fits.
    max_memory
        Bytes that activations and weights may take up, such as ``"2GiB"``.
    trust
        Factories (``package.module:factory``) that may be built for the untrained control where a
        recording names them.
    progress
        Called with what is done and what there is to do.

    Returns
    -------
    xarray.Dataset
        Over ``exemplars``, with y and x in px and 95 % intervals over ``bound = [low, high]``:
        ``accuracy (layer, exemplars, y, x)``, for ``each`` ``(layer, exemplars, train_y, train_x,
        y, x)``; ``accuracy_at (layer, exemplars, where = [on, off, far])``, far being an object's
        size or more from all trained locations, with ``accuracy_at_band``, which holds for all
        layers together, ``accuracy_at_step`` from the layer before (``*_interval``,
        ``*_band``), and ``accuracy_at_class`` of each class; ``accuracy_by_displacement``;
        ``II_far``: N far over N on, NaN unless the lower bound of N on (new exemplars, same
        categories) exceeds 0.5, and ``on_minus_far``; ``share_above``; ``selectivity_at``, of
        exemplars trained on only: shuffled labels of others cannot be known; ``above_chance_at``;
        ``shuffled_flag``; ``strength``, ``cross_validated (layer, strengths)``. The controls are
        called ``pixels_*``, ``untrained_*`` and ``shuffled_*``. For one training set also
        ``correct`` and ``choice`` ``(layer, object, y, x)``. Intervals speak of new categories,
        with the probes as they were fitted (:func:`elsewhere.measures.intervals.share_interval` of
        the categories' means); with fewer than three categories there are none. Locations are
        never resampled.

    Raises
    ------
    InputError
        One category; nothing to hold out; a memory that does not suffice.
    CanvasError
        A location that is not on the grid, with the nearest one.
    UnknownNameError
        An unknown layer, kind, split or control.
    NumericsError
        NaN or infinite activations.

    References
    ----------
    Alain & Bengio (2016), Understanding intermediate layers using linear classifier probes,
    arXiv:1610.01644. Hewitt & Liang (2019), Designing and interpreting probes with control tasks,
    EMNLP.
    """
    known = {layer.name: layer for layer in source.layers}
    for name in layers or ():
        if name not in known:
            raise UnknownNameError("layer", name, known)
    for control in controls:
        if control not in CONTROLS:
            raise UnknownNameError("control", str(control), CONTROLS)
    kind_name, found_kind = find_kind(kind)
    tried = strengths_of(kind, strengths)
    _check_counts(n_folds=n_folds, n_shuffles=n_shuffles, jobs=jobs)
    memory = parse_bytes(max_memory)
    design = source.design
    places = find_places(train_at, design)
    exemplars = divide(design, split, held_out=held_out, seed=seed)
    chance = 1 / len(exemplars.names)
    limit = (1 + chance) / 2 if threshold is None else float(threshold)
    if not 0 <= limit <= 1:
        raise InputError(f"threshold is {limit:g}; expected an accuracy from 0 to 1")

    def plan_of(members: NDArray[np.int64]) -> FitPlan:
        some = exemplars.among(members)
        labels = some.labels[None]
        if "shuffled" in controls:
            labels = np.concatenate([labels, shuffle_labels(some, n_shuffles, seed=seed)])
        weights = np.zeros((len(labels), len(design.objects)))
        weights[:, members] = balance(labels, some)
        numbers = np.full(weights.shape, -1)
        numbers[:, members] = labels
        trained = some.labels[some.train]
        return FitPlan(
            places,
            members[some.train],
            numbers,
            weights,
            deal_folds(trained, n_folds, seed=seed) if n_folds > 1 else None,
            kind,
            len(some.names),
            strengths=tried if strengths is not None else None,
            jobs=jobs,
            linear=isinstance(kind, str),
        )

    everything = np.arange(len(design.objects))
    plan = plan_of(everything)
    folds = plan.folds
    names = [name for name in known if layers is None or name in layers]
    readings = {name: FeatureReading.of(known[name]) for name in names}
    reasons = {"held-out": exemplars.reason} if exemplars.reason else {}
    if tried and len(tried) > 1 and folds is None:
        reasons["strength"] = (
            "one exemplar of a category leaves nothing to cross-validate: "
            f"{found_kind.parameter} = {found_kind.default:g}"
        )

    responses = find_responses(source, names, max_memory=memory)
    groups: dict[tuple[int, ...], list[str]] = {}
    unanswered = dict.fromkeys(responses.deaf, "no object changes anything in it")
    fewer = list[str]()
    for name, silent in responses.silent.items():
        members, said = exemplars.heard(silent)
        if said == ONE_CATEGORY:
            unanswered.setdefault(name, said)
            members = everything
        elif said:
            fewer.append(f"{name}: {said}")
        groups.setdefault(tuple(members.tolist()), []).append(name)
    chosen = ((np.array(members), group) for members, group in groups.items())
    plans = [(members, plan_of(members), group) for members, group in chosen]
    steps = _Steps(progress, len(plans) * (1 + ("untrained" in controls)))

    def run_all(source: Source, *, bare: bool) -> dict[str, FitOutcome]:
        """Probe each layer with the objects that it responds to."""
        done: dict[str, FitOutcome] = {}
        for members, plan, group in plans:
            own = {name: readings[name] for name in group}
            plan = _without_controls(plan) if bare else plan
            found = run(source, own, plan, max_memory=memory, progress=steps.next())
            codes = np.unique(exemplars.labels[members])
            for outcome in found.values():
                outcome.left_out = np.setdiff1d(everything, members)
                outcome.choice = np.where(outcome.choice < 0, -1, codes[outcome.choice]).astype(
                    outcome.choice.dtype
                )
                outcome.choice[:, outcome.left_out] = -1
            done |= found
        return done

    outcomes = run_all(source, bare=False)
    for name, reason in unanswered.items():
        outcomes[name].reason = reason
    others: dict[str, dict[str, FitOutcome]] = {}
    told: dict[str, Any] = {}
    if "untrained" in controls:
        try:
            sweep, told["untrained"] = untrained(source, seed=seed, trust=trust)
        except InputError as error:
            reasons["untrained"] = str(error)
            steps.leave_out(len(plans))
        else:
            others["untrained"] = run_all(sweep, bare=True)
    if "pixels" in controls:
        try:
            scene = ControlScene.of(source)
            own = _probe_pixels(scene, source, _without_controls(plan), memory)
            others["pixels"] = {PIXELS: own}
        except (InputError, UnknownNameError) as error:  # an axis that was registered elsewhere
            reasons["pixels"] = str(error)
    for name, outcome in outcomes.items():
        if outcome.reason:
            reasons[name] = outcome.reason

    size = source.provenance.get("object_size")
    if size is None:
        reasons["far"] = "the source does not tell the objects' size, so no location counts as far"
    regions = Regions.of(design, places, size)
    if not regions.masks[1].any():
        reasons["off, far"] = "all locations of the grid are trained ones"
    elif size is not None and not regions.masks[2].any():
        reasons["far"] = f"no location of the grid is {size} px or more from the trained ones"
    if len(exemplars.names) < LEAST_SAMPLED:
        reasons["intervals"] = (
            f"none (nan), for they speak of new categories and take {LEAST_SAMPLED} or more; there "
            f"are {len(exemplars.names)}"
        )
    summary = Summary(exemplars, regions, threshold=limit)
    each = train_at == "each"
    builder = Builder(summary, source, names, each)
    builder.add("", outcomes)
    for prefix in ("untrained", "pixels"):
        if prefix in controls:
            builder.add(f"{prefix}_", others.get(prefix), layered=prefix != "pixels")
    if "shuffled" in controls:
        builder.add_shuffled(outcomes, exemplars)
        if not exemplars.shuffles_mean:
            reasons["shuffled"] = (
                "each category has one exemplar to train on, so that shuffled labels are other "
                "names for the same task: no control"
            )
    builder.add_fits(outcomes, tried)
    if not each:
        builder.add_trials(outcomes)
    asked = SPLITS if split in (None, "both") else (split,)
    result = builder.dataset(exemplars, places, tried).sel(exemplars=list(asked))
    result = with_forms(result, source.layers)
    forms = result["kept"].values
    measures = [kind_name if form == FULL else f"{kind_name}({form})" for form in forms]
    result = result.assign_coords(measure=("layer", measures))
    result.attrs = {
        "kind": "probe-each" if each else "probe",
        "probe": kind_name,
        "strength_parameter": found_kind.parameter,
        "train_at": train_at if isinstance(train_at, str) else str(places[0]),
        "n_classes": len(exemplars.names),
        "chance": chance,
        "threshold": limit,
        "n_objects": len(design.objects),
        "n_trained": len(exemplars.train),
        "n_folds": 0 if folds is None else int(folds.max()) + 1,
        "n_shuffles": n_shuffles if "shuffled" in controls else 0,
        "controls": [name for name in CONTROLS if name in controls],
        "seed": seed,
        **{f"{key}_network": value for key, value in told.items()},
        **({} if each else {"trained": [list(place) for place in places[0]]}),
        **({"reason": "; ".join(f"{k}: {v}" for k, v in reasons.items())} if reasons else {}),
        **numerics_of(source),
        **source.provenance,
        **{
            f"reference_{name}": value
            for name, value in zip(design.names, design.at(places[0][0]).reference, strict=True)
        },
    }
    doubts = [*responses.notes, *mean_note(result), *fewer]
    doubts += [f"{subject}: {reason}" for subject, reason in reasons.items()]
    doubts += band_notes(len(exemplars.names), result.sizes["layer"])
    doubts += without_steps(result)
    if solved := solved_shuffles(result):
        doubts.append(
            "the probe beats chance on shuffled labels off the trained location: "
            f"{', '.join(solved)}; what it reads there is who the exemplar is, not only what"
        )
    result.attrs["notes"] = notes_of(source, doubts, _gated(result))
    return described(result)


def _gated(result: xarray.Dataset) -> list[str]:
    """Return of which layers the index was refused although the accuracies are known."""
    known = result["accuracy_at"].sel(where=["on", "far"]).notnull().all("where")
    refused = (known & result["II_far"].isnull()).transpose("layer", "exemplars")
    names = [
        f"{layer} ({which})"
        for layer, row in zip(layer_labels(refused), refused.values, strict=True)
        for which, one in zip(refused["exemplars"].values, row, strict=True)
        if one
    ]
    if not names:
        return []
    return [
        f"II_far of probes is undefined (nan), for N on the trained location may be {INDEX_GATE} "
        f"or less: {', '.join(names)}"
    ]


def _without_controls(plan: FitPlan) -> FitPlan:
    return replace(plan, labels=plan.labels[:1], balance=plan.balance[:1])


def _check_counts(**counts: int) -> None:
    for name, value in counts.items():
        if int(value) != value or value < 1:
            raise InputError(f"{name} is {value}; expected a whole number, 1 or more")


class _Steps:
    """Shares one progress bar among several runs."""

    def __init__(self, progress: Progress | None, n_runs: int) -> None:
        self._progress, self._n_runs, self._run = progress, n_runs, -1
        self._total = 0  # of the run before

    def leave_out(self, n_runs: int) -> None:
        """Count so many runs less, which do not come after all."""
        self._n_runs -= n_runs
        if self._progress is not None and self._total:
            self._progress((self._run + 1) * self._total, self._n_runs * self._total)

    def next(self) -> Progress | None:
        """Return the progress of the next run."""
        progress = self._progress
        if progress is None:
            return None
        self._run += 1
        number = self._run

        def report(done: int, total: int) -> None:
            self._total = total
            progress(number * total + done, self._n_runs * total)

        return report


def _probe_pixels(scene: ControlScene, source: Source, plan: FitPlan, memory: int) -> FitOutcome:
    """Return the outcome on raw pixels, each training set in the box of its own locations."""
    found = []
    for places in plan.places:
        own = replace(plan, places=(places,), jobs=1)
        pixels = PixelSource(scene, source.design, places)
        found.append(run(pixels, {PIXELS: FeatureReading()}, own, max_memory=memory)[PIXELS])
    return FitOutcome(
        correct=np.concatenate([each.correct for each in found]),
        shuffled=np.concatenate([each.shuffled for each in found]),
        choice=np.concatenate([each.choice for each in found]),
        strengths=np.concatenate([each.strengths for each in found]),
        scores=[each.scores[0] for each in found],
        n_units=found[0].n_units,
        ranks=np.concatenate([each.ranks for each in found]),
        reason=next((each.reason for each in found if each.reason), ""),
    )


def probe_checkpoint(
    source: Source,
    *,
    at: Location,
    held_out: NDArray[np.bool_],
    seed: int = 0,
    max_memory: int | str = "2GiB",
) -> xarray.Dataset:
    """Return what probes trained at one place tell of a network at one checkpoint.

    Without controls: across checkpoints the first one is the untrained network.

    Parameters
    ----------
    source
        Exemplars that the network was trained on and held-out ones, at all locations.
    at
        The trained location, on the grid.
    held_out
        bool (object,).
    seed
        Of folds.
    max_memory
        Bytes that activations and weights may take up.

    Returns
    -------
    xarray.Dataset
        ``probe_accuracy_at (layer, exemplars, where)``, ``probe_II_far (layer, exemplars)``,
        their intervals, and ``probe_accuracy_at_class (layer, exemplars, class, where)``.
    """
    result = probe(
        source,
        train_at=at,
        held_out=held_out,
        controls=(),
        seed=seed,
        max_memory=max_memory,
    )
    names = {"accuracy_at": "probe_accuracy_at", "II_far": "probe_II_far"}
    names |= {f"{old}_interval": f"{new}_interval" for old, new in names.items()}
    names["accuracy_at_class"] = "probe_accuracy_at_class"
    found = result[list(names)].rename(names)
    return found.drop_vars(
        [name for name in found.coords if name not in ("layer", "exemplars", "where", "bound")]
    )


def solved_shuffles(result: xarray.Dataset) -> list[str]:
    """Return the layers, with the exemplars, whose probes beat chance on shuffled labels."""
    if "shuffled_flag" not in result:
        return []
    flags = result["shuffled_flag"].transpose("layer", "exemplars").values
    layers, kinds = layer_labels(result), result["exemplars"].values
    return [f"{layers[i]} ({kinds[k]})" for i, k in zip(*np.nonzero(flags), strict=True)]
