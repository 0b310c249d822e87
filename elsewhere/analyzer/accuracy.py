"""`accuracy`: what a network calls each object at each location, and what follows from it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import torch
import xarray
from numpy.typing import ArrayLike, NDArray

from elsewhere.analyzer.invariance import EXEMPLARS, summarize
from elsewhere.axes import Axis
from elsewhere.errors import InputError, UnknownNameError
from elsewhere.measures.accuracy import displacements
from elsewhere.measures.aligned import size_of
from elsewhere.measures.answers import Answer, AnswerSink
from elsewhere.models import OUTPUT, Model
from elsewhere.models.heads import HEAD, input_dtype
from elsewhere.models.labels import known_classes
from elsewhere.models.restoring import copy_network
from elsewhere.notes import notes_of
from elsewhere.protocols import Design, Layer, Progress, Source, Stage
from elsewhere.recording import Sweep
from elsewhere.recording.sharing import share_out
from elsewhere.recording.workers import Workers
from elsewhere.sources import restarting
from elsewhere.stimuli import Canvas, Grid, ObjectSet
from elsewhere.types import WHERE, Engine, Location, parse_bytes

IN_ORDER = (
    "what the classes are called is not known: the scores are taken for those of the objects' "
    "categories in their order ({}); name them with `classes`"
)

MOST_BESIDE = 64
"""Where a class is trained at more locations than these, only those on the grid are tested."""

Trained: TypeAlias = Sequence[Location] | Mapping[str, Sequence[Location]]


@restarting
def accuracy(
    source: Source,
    *,
    layer: str | None = None,
    classes: Sequence[str] | None = None,
    trained: Trained = (),
    held_out: ArrayLike | None = None,
    object_size: int | None = None,
    max_memory: int | str = "2GiB",
    attributes: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> xarray.Dataset:
    """Return what a network calls each object at each location of a grid.

    Parameters
    ----------
    source
        A live sweep, a recording that kept the class scores, or arrays.
    layer
        Where the class scores are; by default the network's own output, ``(output)``, or else
        ``logits``.
    classes
        The names of the classes, score by score; by default what a labelled array calls them, or a
        network that is known, or else the categories of the objects, as a note says then.
    trained
        The locations that these classes were trained at, px: the same for all, or by category.
        Those off the grid are tested in addition; of a class that was trained at more than 64,
        those on the grid are, or where there is none, the middle one. Distances are from all.
    held_out
        bool (object,): which exemplars were not trained on; by default none.
    object_size
        px, of which a location is far at least; by default what the source says.
    max_memory
        Bytes that answers may take up.
    attributes
        Of the result, such as the run's seed and phase.
    progress
        Called with canvases done and in all.

    Returns
    -------
    xarray.Dataset
        Trials, over (object, y, x) and, for trained locations, (object, trained): ``correct``,
        ``choice`` (an index into ``class``), ``margin`` (logit of the true class less the largest
        other). Over ``exemplars = [same, held-out]``, each class counting alike however many
        exemplars it has: ``accuracy`` and ``N`` (y, x);
        ``accuracy_at`` and ``N_at`` (where), on the trained locations, off them, and far: at
        least an object's size (Chebyshev) from each; ``II_far`` and ``II``, N far and off as
        shares of N on; ``on_minus_far``, ``on_minus_off``; ``accuracy_by_displacement``, over
        Chebyshev distances, px. 95 % intervals are called ``*_interval`` and have the dimension
        ``bound``: they speak of new exemplars of the same classes
        (:func:`elsewhere.measures.intervals.share_interval`) and are NaN where a class has fewer
        than three. ``II_far`` is NaN where N on is below 0.9, ``II`` unless its lower bound exceeds
        0.5, and both where the network gives one answer only; the attribute ``reason`` says so.
        Where not all classes of the head are tested, the gates take chance among those tested,
        which an answer that never changes would reach.

    Raises
    ------
    InputError
        Classes and scores that do not fit, a layer that gives no class scores or did not keep them
        in full, a mask of another length.
    UnknownNameError
        A category that is no class of the head, or no such layer.
    CanvasError
        A location is off the canvas, or not in the recording.
    NumericsError
        Scores that are not finite.
    """
    design, facts = source.design, source.provenance
    notes = list((attributes or {}).get("notes", ()))
    names = _unit_names(source.layers, layer, classes) or tuple(classes or ())
    if classes is None and not names:
        names = known_classes(source.origin)
    if classes is None and not names:
        names = tuple(dict.fromkeys(design.categories))
        notes.append(IN_ORDER.format(", ".join(names[:4]) + ", ..." * (len(names) > 4)))
    scores = find_scores(source.layers, layer, names, str(facts.get("model", "the source")))
    mask = _check_held_out(held_out, len(design.objects))
    for category in dict.fromkeys(design.categories):
        if category not in names:
            raise UnknownNameError("class of the head", category, names)
    side = size_of(source, object_size)
    check = Canvas(int(facts["canvas"]), side).check if "canvas" in facts else _whole
    places, is_trained, apart = _trained_places(trained, design, check)
    labels = np.array([names.index(category) for category in design.categories], np.int64)
    memory = parse_bytes(max_memory)

    def ask(asked: Source, *stages: Stage) -> AnswerSink:
        sink = AnswerSink(scores.name, labels, stages)
        asked.stream([sink], max_memory=memory, progress=progress)
        return sink

    answers = dict[Location, Answer]()
    beside = [at for at in map(tuple, places.tolist()) if design.at(at).reference_index is None]
    stages: tuple[Stage, ...] = ("reference", "grid")
    found = ask(source, *stages[design.reference_location not in beside :])
    for place in beside:
        if place == design.reference_location:
            answers[place] = found.answers("reference", 1)
        else:
            with source.at(place) as other:
                answers[place] = ask(other, "reference").answers("reference", 1)
    grid = found.answers("grid", design.n_positions)
    result = _trials(design, mask, names, labels, places, is_trained, grid, answers)
    if apart is not None:
        result["distance"] = (("object", "y", "x"), apart[0])
        result["trained_distance"] = (("object", "trained"), apart[1])
    reference = design.at(places[0].tolist() if len(places) else ()).reference
    result.attrs = {
        **facts,
        "kind": "accuracy",
        "layer": scores.name,
        "object_size": side,
        **{f"reference_{name}": at for name, at in zip(design.names, reference, strict=True)},
        "n_classes": len(names),
        "chance": 1 / len(names),
        **(attributes or {}),
    }
    if tied := float(grid[2].mean()):
        notes.append(
            f"in {tied:.2g} of the answers the true class and another have the same score up to "
            "rounding: which of them is chosen says nothing"
        )
    result.attrs["notes"] = notes_of(source, notes)
    summarize(result)
    return result


def network_accuracy(
    model: Model,
    objects: ObjectSet,
    canvas: Canvas,
    grid: Grid | str,
    *,
    axes: Sequence[Axis] = (),
    trained: Trained = (),
    held_out: ArrayLike | None = None,
    classes: Sequence[str] | None = None,
    layer: str = OUTPUT,
    engine: Engine = "auto",
    workers: Workers = 1,
    scheduler: str | None = None,
    **options: Any,
) -> xarray.Dataset:
    """Return the :func:`accuracy` of a network, swept live.

    Parameters
    ----------
    model
        The network, on the device where it is to run; one in double precision is run in single.
    objects
        Of the canvas's object size; those that cannot be seen on its background are left out.
    canvas, grid, axes
        Where and how the objects are shown; see :class:`elsewhere.recording.Sweep`.
    trained, held_out, layer, options
        See :func:`accuracy`; `held_out` has an entry for each of `objects`.
    classes
        By default what the model says, or else the categories of `objects`.
    engine
        See :class:`elsewhere.recording.Sweep`.
    workers, scheduler
        Local processes, or a Dask scheduler whose workers, share the sweep.
    """
    mask = _check_held_out(held_out, len(objects))
    said = []
    if input_dtype(model) == torch.float64:
        model = replace(model, module=copy_network(model.module).float())
        said = ["the network, in double precision, was run in single precision"]
    every = list(trained.values()) if isinstance(trained, Mapping) else [trained]
    reference = min((canvas.check(place) for places in every for place in places), default=None)
    sweep = Sweep(
        model, objects, canvas=canvas, grid=grid, axes=axes, reference=reference, layers=layer,
        engine=engine,
    ).in_batches(parse_bytes(options.get("max_memory", "2GiB")))  # fmt: skip
    given = dict(options.pop("attributes", None) or {})
    given["notes"] = [*said, *given.get("notes", ())]
    names = (model.classes or objects.category_names) if classes is None else classes
    if classes is None and not model.classes:
        given["notes"].append(IN_ORDER.format(", ".join(names[:4]) + ", ..." * (len(names) > 4)))
    return accuracy(
        share_out(sweep, workers, scheduler),
        layer=layer,
        classes=names,
        trained=trained,
        held_out=mask[np.isin(objects.ids, sweep.design.objects)],
        attributes={"numerics": sweep.numerics, **given},
        **options,
    )


def _unit_names(
    layers: Sequence[Layer], wanted: str | None, classes: Sequence[str] | None
) -> tuple[str, ...]:
    """Return what a labelled array calls the class scores, which decides their order.

    Other names than the classes' are an ``InputError``.
    """
    found = next((each.units for each in layers if each.name == _scored(layers, wanted)), ())
    if found and classes is not None and sorted(found) != sorted(classes):
        raise InputError(
            f"the units of the class scores are called {', '.join(found[:4])}, and the classes "
            f"{', '.join(classes[:4])}; give the classes these names, or drop the labels"
        )
    return found


def _scored(layers: Sequence[Layer], wanted: str | None) -> str:
    """Return the name of the layer of class scores."""
    known = [each.name for each in layers]
    return next((n for n in (OUTPUT, HEAD) if n in known), HEAD) if wanted is None else wanted


def find_scores(
    layers: Sequence[Layer], wanted: str | None, classes: Sequence[str], network: str
) -> Layer:
    """Return the layer that holds the class scores.

    UnknownNameError where there is none, InputError where it does not have one score for each
    class, or they were not kept in full.
    """
    known = {each.name: each for each in layers}
    name = _scored(layers, wanted)
    if name not in known:
        hint = "class scores are needed: record them with --layers logits, or name their layer"
        raise UnknownNameError("layer", name, known, hint)
    layer = known[name]
    if layer.keep.kind != "full":
        raise InputError(
            f"layer {name!r} was kept as {layer.keep}, which gives no class scores; record it with "
            f"--keep {name}=full"
        )
    if layer.shape != (len(classes),):
        shown = "x".join(map(str, layer.shape))
        raise InputError(
            f"layer {name!r} of {network} gives {shown} values per image for {len(classes)} "
            "classes; expected one score for each class: name the classes of the head, or the "
            "layer of class scores"
        )
    return layer


def _check_held_out(held_out: ArrayLike | None, n_objects: int) -> NDArray[np.bool_]:
    """Return which objects were held out, bool (object,); none of them by default."""
    if held_out is None:
        return np.zeros(n_objects, bool)
    mask = np.asarray(held_out)
    if mask.dtype != bool or mask.shape != (n_objects,):
        raise InputError(
            f"held_out must be bool of shape ({n_objects},), one for each object; got "
            f"{mask.dtype} {mask.shape}"
        )
    return mask


# --- the trained locations


def _trained_places(
    trained: Trained, design: Design, check: Callable[[Location], Location]
) -> tuple[
    NDArray[np.int64], NDArray[np.bool_], tuple[NDArray[np.int64], NDArray[np.int64]] | None
]:
    """Return the trained locations that are tested (m, 2), and which are whose: bool (object, m).

    Where some are not tested, also the distance from the nearest trained one, px: of the grid
    (object, y, x), and of the tested ones (object, m).
    """
    categories = list(dict.fromkeys(design.categories))
    ys, xs = (np.asarray(values) for values in design.axes.moving.values)
    if isinstance(trained, Mapping):
        for category in categories:
            if category not in trained:
                raise InputError(
                    f"trained names no locations for the category {category!r}; give them for each"
                )
        every = {name: _sorted(trained[name], check) for name in categories}
    else:
        every = dict.fromkeys(categories, _sorted(trained, check))
    owned = {name: _tested_of(places, ys, xs) for name, places in every.items()}
    tested = sorted(set().union(*owned.values()))
    places = np.array(tested, np.int64).reshape(-1, 2)
    number = [categories.index(name) for name in design.categories]
    mask = np.array([[at in owned[name] for at in tested] for name in categories], bool)
    mask = mask.reshape(len(categories), len(tested))[number]
    if all(len(owned[name]) == len(every[name]) for name in categories):
        return places, mask, None
    shown = np.concatenate(
        [np.stack(np.meshgrid(ys, xs, indexing="ij"), -1).reshape(-1, 2), places]
    )
    known = {id(there): _far_from(shown, there) for there in every.values()}
    apart = np.stack([known[id(every[name])] for name in categories])[number]
    grid, beside = np.split(apart, [len(ys) * len(xs)], axis=1)
    return places, mask, (grid.reshape(-1, len(ys), len(xs)), beside)


def _sorted(places: Sequence[Location], check: Callable[[Location], Location]) -> NDArray[np.int64]:
    return np.array(sorted({check(at) for at in places}), np.int64).reshape(-1, 2)


def _tested_of(
    places: NDArray[np.int64], ys: NDArray[np.integer], xs: NDArray[np.integer]
) -> set[Location]:
    """Return which of a class's trained locations are tested."""
    if len(places) > MOST_BESIDE:
        on_grid = np.isin(places[:, 0], ys) & np.isin(places[:, 1], xs)
        middle = np.abs(places - places.mean(axis=0)).max(axis=1).argmin()
        places = places[on_grid] if on_grid.any() else places[[middle]]
    return {(y, x) for y, x in places.tolist()}


def _far_from(shown: NDArray[np.int64], trained: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the distance of each location from the nearest trained one; -1 where there is none."""
    if not len(trained):
        return np.full(len(shown), -1)
    pieces = np.array_split(shown, -(-len(shown) * len(trained) // 2**22))
    return np.concatenate([displacements(piece, trained) for piece in pieces])


def _whole(place: Location) -> Location:
    return int(place[0]), int(place[1])


# --- the result


def _trials(
    design: Design,
    held_out: NDArray[np.bool_],
    names: Sequence[str],
    labels: NDArray[np.int64],
    places: NDArray[np.int64],
    is_trained: NDArray[np.bool_],
    grid: Answer,
    beside: Mapping[Location, Answer],
) -> xarray.Dataset:
    dims, shape = ("object", *design.names), (len(labels), *design.shape)
    counts, exemplar = Counter[str](), list[int]()
    for name in design.categories:
        exemplar.append(counts[name])
        counts[name] += 1
    variables: dict[str, Any] = {"is_trained": (("object", "trained"), is_trained)}
    for which, name in enumerate(("choice", "margin")):
        values = grid[which].astype((np.int32, np.float32)[which])
        columns = [
            beside[at][which][:, 0] if at in beside else values[:, design.at(at).reference_index]
            for at in map(tuple, places.tolist())
        ]
        there = np.stack(columns, axis=1) if columns else values[:, :0]
        variables[name] = (dims, values.reshape(shape))
        variables[f"trained_{name}"] = (("object", "trained"), there.astype(values.dtype))
    for prefix in ("", "trained_"):
        its, choice = variables[f"{prefix}choice"]
        right = choice == labels.reshape(-1, *(1,) * (choice.ndim - 1))
        variables[f"{prefix}correct"] = (its, right)
    return xarray.Dataset(
        variables,
        coords={
            "object": list(design.objects),
            "category": ("object", list(design.categories)),
            "exemplar": ("object", np.array(exemplar, np.int64)),
            "held_out": ("object", held_out),
            **design.axes.coordinates(),
            "trained_y": ("trained", places[:, 0], {"units": "px"}),
            "trained_x": ("trained", places[:, 1], {"units": "px"}),
            "class": list(names),
            "exemplars": list(EXEMPLARS),
            "where": list(WHERE),
            "bound": ["low", "high"],
        },
    )
