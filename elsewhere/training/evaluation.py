"""`accuracy`: what a network calls each object at each location, and what follows from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
import xarray
from numpy.typing import ArrayLike, NDArray

from elsewhere.errors import InputError, NumericsError, UnknownNameError
from elsewhere.measures.accuracy import (
    FAR_GATE,
    INDEX_GATE,
    balanced_mean,
    displacements,
    invariance_index,
    masked_means,
    normalized_accuracy,
)
from elsewhere.measures.intervals import (
    LEAST_SAMPLED,
    Bounded,
    Spread,
    correlation_of,
    share_interval,
)
from elsewhere.models import Conduct, Model, observe
from elsewhere.models.conduct import check_again
from elsewhere.models.forward import Paster, evaluating
from elsewhere.models.heads import input_dtype
from elsewhere.models.machine import describe_machine
from elsewhere.models.proof import extremes
from elsewhere.protocols import Progress
from elsewhere.stimuli import Canvas, Grid, ObjectSet
from elsewhere.training.batches import ROWS, check_held_out, fitting_rows
from elsewhere.training.heads import check_logits
from elsewhere.training.windows import Way, make_forward, whole_forward
from elsewhere.types import Location, parse_bytes

Trained: TypeAlias = Sequence[Location] | Mapping[str, Sequence[Location]]

EXEMPLARS = ("same", "held-out")
WHERE = ("on", "off", "far")


def accuracy(
    model: Model,
    objects: ObjectSet,
    canvas: Canvas,
    grid: Grid,
    *,
    trained: Trained = (),
    held_out: ArrayLike | None = None,
    classes: Sequence[str] | None = None,
    max_memory: int | str = "2GiB",
    attributes: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> xarray.Dataset:
    """Return what a network calls each object at each location of a grid.

    Parameters
    ----------
    model
        The network, on the device where it is to run.
    objects
        Of the canvas's object size; their categories are classes of the head.
    canvas, grid
        Where the objects are shown.
    trained
        The locations that these classes were trained at, px: the same for all, or by category.
        Those off the grid are tested in addition.
    held_out
        bool (object,): which exemplars were not trained on; by default none.
    classes
        The classes of the head, unit by unit; by default the categories of `objects`.
    max_memory
        Bytes that canvases, activations and trials may take up: fewer canvases are run at a time
        where it is short.
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
        Sizes that do not fit: objects and canvas, classes and head, mask and objects.
    UnknownNameError
        A category that is no class of the head.
    CanvasError
        A location is off the canvas.
    NumericsError
        Logits that are not finite.
    """
    names = tuple(objects.category_names if classes is None else classes)
    mask = check_held_out(held_out, objects)
    if objects.size != canvas.object_size:
        raise InputError(
            f"the objects are {objects.size} px, the canvas takes {canvas.object_size} px; load "
            "them at that size"
        )
    seen = objects.seen_on(canvas.background_color(model.transform.mean))
    mask, objects = mask[np.isin(objects.ids, seen.ids)], seen
    for category in objects.category_names:
        if category not in names:
            raise UnknownNameError("class of the head", category, names)
    places, is_trained = _trained_places(trained, objects, canvas.check)
    grid.check(canvas)
    extra = np.array([p for p in places.tolist() if grid.index_of(p) is None], np.int64)
    locations = np.concatenate([grid.locations, extra.reshape(-1, 2)])
    labels = np.array([names.index(category) for category in objects.categories], np.int64)
    batch_rows = fitting_rows(model, objects, canvas, len(locations), parse_bytes(max_memory))
    notes = list(objects.notes)
    conduct = _observe(model, objects, canvas, locations, batch_rows)
    choice, margin = sweep(
        model, objects, canvas, locations, labels, len(names),
        batch_rows=batch_rows, conduct=conduct, progress=progress, notes=notes,
    )  # fmt: skip
    result = _trials(objects, mask, names, labels, grid, places, is_trained, choice, margin)
    result.attrs = _attributes(model, canvas, grid, places, len(names)) | dict(attributes or {})
    result.attrs |= {"object_set": objects.name, "object_source": dict(objects.source)}
    result.attrs["behaviour"] = conduct.output_at(canvas.size)
    result.attrs["notes"] = [*result.attrs["notes"], *notes]
    result.attrs["numerics"] = {**describe_machine(model.device), "batch_rows": batch_rows}
    _summarize(result, objects)
    return result


def sweep(
    model: Model,
    objects: ObjectSet,
    canvas: Canvas,
    locations: NDArray[np.int64],
    labels: NDArray[np.int64],
    n_classes: int,
    *,
    batch_rows: int = ROWS,
    conduct: Conduct | None = None,
    progress: Progress | None = None,
    notes: list[str] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the choice and the margin of each object at each location, (object, location).

    What is to be said of the way in which the network was run is appended to `notes`.

    Raises
    ------
    InputError
        The head has another number of classes.
    NumericsError
        Logits that are not finite.
    """
    device, network = model.device, model.module
    paster = Paster(
        canvas,
        model.transform,
        rows=batch_rows,
        device=device,
        dtype=input_dtype(model),
        channels_last=True,
    )
    patches = paster.load(objects)
    if conduct is None:
        conduct = _observe(model, objects, canvas, locations, batch_rows)
    n_rows = 1 if conduct.alone else batch_rows
    places = torch.from_numpy(locations).to(device)
    truth = torch.from_numpy(labels).to(device)
    n_places, total = len(locations), len(objects) * len(locations)
    choice = torch.empty(total, dtype=torch.int64, device=device)
    margin = torch.empty(total, device=device)
    with evaluating(network):
        if conduct.alone:
            paster = Paster(canvas, model.transform, rows=1, device=device, dtype=paster.dtype)
            way = Way(whole_forward(network, paster), f"whole canvases: {conduct.reason}")
        else:
            way = make_forward(network, paster, patches, training=False)
        if notes is not None:
            notes += [*conduct.notes, *way.notes]
        for first in range(0, total, n_rows):
            # the last batch is filled up with its last trial
            rows = torch.arange(first, first + n_rows, device=device).clamp(max=total - 1)
            trial = rows[: total - first]
            with conduct.a_pass(network):
                output = way.forward(patches[rows // n_places], places[rows % n_places])
            logits = check_logits(output, n_classes, model.name)[: len(trial)]
            choice[trial] = logits.argmax(1)
            margin[trial] = _margins(logits, truth[trial // n_places])
            if progress is not None:
                progress(first + len(trial), total)
        if conduct.keeps:
            nothing = paster.paste(patches[:0], places[:0])[:1].clone()
            check_again(model, conduct, nothing, (), output=True)
    if not bool(torch.isfinite(margin).all()):
        raise NumericsError(
            f"{model.name} gives logits that are not finite; check its weights and its input"
        )
    shape = (len(objects), len(locations))
    return choice.cpu().numpy().reshape(shape), margin.cpu().numpy().reshape(shape)


def _observe(
    model: Model,
    objects: ObjectSet,
    canvas: Canvas,
    locations: NDArray[np.int64],
    batch_rows: int,
) -> Conduct:
    """Return how the network has to be run; refuse it where its output is not an image's own."""
    dtype = input_dtype(model)
    paster = Paster(canvas, model.transform, rows=1, device=model.device, dtype=dtype)
    patches, places = paster.load(objects), torch.from_numpy(locations).to(model.device)
    most, least = extremes(patches)
    rows, at = torch.tensor([most, least]), torch.tensor([0, -1])
    images = [  # nothing, and what stands out most
        paster.paste(patches[rows[some]], places[at[some]]).clone()
        for some in (slice(0), slice(1), slice(1, 2))
    ]
    return observe(model, images[0], torch.cat(images[1:]), (), output=True, rows=batch_rows)


def _margins(logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    own = logits.gather(1, truth[:, None])[:, 0]
    if logits.shape[1] == 1:
        return own
    others = logits.scatter(1, truth[:, None], -torch.inf)
    return own - others.max(1).values


# --- the trained locations


def _trained_places(
    trained: Trained, objects: ObjectSet, check: Any
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return all trained locations (m, 2), and which are whose: bool (object, m)."""
    if isinstance(trained, Mapping):
        for category in objects.category_names:
            if category not in trained:
                raise InputError(
                    f"trained names no locations for the category {category!r}; give them for each"
                )
        by_category = {name: trained[name] for name in objects.category_names}
    else:
        by_category = dict.fromkeys(objects.category_names, trained)
    owned = {name: {check(place) for place in places} for name, places in by_category.items()}
    every = sorted(set().union(*owned.values()))
    mask = np.array([[place in owned[name] for place in every] for name in objects.categories])
    places = np.array(every, np.int64).reshape(-1, 2)
    return places, mask.reshape(len(objects), len(every)).astype(bool)


# --- the result


def _trials(
    objects: ObjectSet,
    held_out: NDArray[np.bool_],
    names: Sequence[str],
    labels: NDArray[np.int64],
    grid: Grid,
    places: NDArray[np.int64],
    is_trained: NDArray[np.bool_],
    choice: NDArray[np.int64],
    margin: NDArray[np.float32],
) -> xarray.Dataset:
    correct = choice == labels[:, None]
    shape, on_grid = (len(objects), *grid.shape), len(grid)
    column, extra = [], on_grid
    for place in places.tolist():
        index = grid.index_of(place)
        column.append(extra if index is None else int(np.ravel_multi_index(index, grid.shape)))
        extra += index is None
    dims, trained = ("object", "y", "x"), ("object", "trained")
    variables = {"correct": correct, "choice": choice.astype(np.int32), "margin": margin}
    return xarray.Dataset(
        {name: (dims, values[:, :on_grid].reshape(shape)) for name, values in variables.items()}
        | {f"trained_{name}": (trained, values[:, column]) for name, values in variables.items()}
        | {"is_trained": (trained, is_trained)},
        coords={
            "object": list(objects.ids),
            "category": ("object", list(objects.categories)),
            "exemplar": ("object", objects.exemplar_index),
            "held_out": ("object", held_out),
            "y": ("y", list(grid.y), {"units": "px"}),
            "x": ("x", list(grid.x), {"units": "px"}),
            "trained_y": ("trained", places[:, 0], {"units": "px"}),
            "trained_x": ("trained", places[:, 1], {"units": "px"}),
            "class": list(names),
            "exemplars": list(EXEMPLARS),
            "where": list(WHERE),
            "bound": ["low", "high"],
        },
    )


def _attributes(
    model: Model, canvas: Canvas, grid: Grid, places: NDArray[np.int64], n_classes: int
) -> dict[str, Any]:
    transform = model.transform
    reference = tuple(places[0].tolist()) if len(places) else grid.default_reference
    return {
        "kind": "accuracy",
        "model": model.name,
        "weights": model.weights,
        "weights_sha256": model.weights_sha256,
        "model_arguments": dict(model.arguments),
        "mean": transform.mean,
        "std": transform.std,
        "gain": transform.gain,
        "canvas": canvas.size,
        "object_size": canvas.object_size,
        "background": canvas.background_color(transform.mean),
        "reference_y": reference[0],
        "reference_x": reference[1],
        "n_classes": n_classes,
        "chance": 1 / n_classes,
        "notes": list(model.doubts),
    }


def _summarize(result: xarray.Dataset, objects: ObjectSet) -> None:
    """Add the maps, the means with their intervals, the indices and the curve."""
    n_classes = int(result.attrs["n_classes"])
    held_out, classes = result["held_out"].values, objects.category_index
    rows = {"same": ~held_out, "held-out": held_out}
    correct = result["correct"].values.astype(np.float64)
    maps = np.stack([balanced_mean(correct[mine], classes[mine]) for mine in rows.values()])
    result["accuracy"] = (("exemplars", "y", "x"), maps)
    result["N"] = (("exemplars", "y", "x"), normalized_accuracy(maps, n_classes))
    distance = _distances(result)
    means = _object_means(result, distance)
    summaries = [
        _Summary(
            means[mine],
            classes[mine],
            n_classes,
            answers=np.unique(
                result["trained_choice"].values[mine][result["is_trained"].values[mine]]
            ),
        )
        for mine in rows.values()
    ]
    for name in summaries[0].values:
        extra = ("where",) if summaries[0].values[name].ndim else ()
        values = np.stack([summary.values[name] for summary in summaries])
        bounds = np.stack([summary.bounds[name] for summary in summaries])
        result[name] = (("exemplars", *extra), values)
        result[f"{name}_interval"] = (("exemplars", *extra, "bound"), bounds)
    for index in ("II_far", "II"):
        reasons = [summary.reasons[index] for summary in summaries]
        found = [f"{name}: {why}" for name, why in zip(EXEMPLARS, reasons, strict=True) if why]
        result[index].attrs["reason"] = "; ".join(found)
        result.attrs["notes"] += [f"{index} is undefined (nan): {why}" for why in found]
    for name, mine in rows.items():
        if why := _too_few(classes[mine], objects.category_names):
            result.attrs["notes"].append(f"exemplars that are {name}: {why}")
    _add_curve(result, distance, rows, classes)
    for name, text in _LONG_NAMES.items():
        result[name].attrs["long_name"] = text


_LONG_NAMES = {
    "accuracy": "share of objects classified correctly, the mean over classes",
    "N": "accuracy from chance (0) to 1",
    "accuracy_at": "mean accuracy on the trained locations, off them, and far from them",
    "II_far": "normalised accuracy far from the trained locations, as a share of that on them",
    "II": "normalised accuracy off the trained locations, as a share of that on them",
    "on_minus_far": "accuracy on the trained locations less that far from them",
    "on_minus_off": "accuracy on the trained locations less that off them",
    "margin": "logit of the true class less the largest other",
}


class _Summary:
    """Means over objects, indices, and their intervals, of one kind of exemplars.

    `means` is (object, where): each object's accuracy on, off and far.
    """

    def __init__(
        self,
        means: NDArray[np.float64],
        classes: NDArray[np.int64],
        n_classes: int,
        *,
        answers: NDArray[np.integer],
    ) -> None:
        self.values = _statistics(balanced_mean(means, classes), n_classes)
        self.bounds = _intervals(means, classes, n_classes)
        self.reasons = {"II_far": "", "II": ""}
        # an answer that never changes would be right for one of the classes tested
        candidates = min(n_classes, len(np.unique(classes)))
        on, low = (
            float(normalized_accuracy(value, candidates)) if len(means) else np.nan
            for value in (
                self.values["accuracy_at"][0],
                self.bounds["accuracy_at"][0, 0],
            )
        )
        missing = np.isnan(self.values["accuracy_at"])
        if not len(means):
            reason = "there are no such exemplars"
        elif missing[0]:
            reason = "nothing was tested at a trained location"
        elif candidates < 2 <= n_classes:
            reason = "one class was tested, for which an answer that never changes would be right"
        elif len(answers) == 1:
            reason = "the network gives one answer only at the trained location"
        else:
            reason = ""
        if reason or not on >= FAR_GATE:
            self._refuse(
                "II_far", reason or f"N on the trained location is {on:.2f}, below {FAR_GATE}"
            )
        if reason or not (on if np.isnan(low) else low) > INDEX_GATE:
            self._refuse("II", reason or f"N on the trained location may be {INDEX_GATE} or less")
        for where, index, which in (
            (2, "II_far", "an object's size or more from"),
            (1, "II", "off"),
        ):
            if missing[where] and not self.reasons[index]:
                self._refuse(
                    index, f"for some class no location of the grid lies {which} the trained ones"
                )

    def _refuse(self, name: str, reason: str) -> None:
        self.reasons[name] = reason
        self.values[name] = np.full_like(self.values[name], np.nan)
        self.bounds[name] = np.full_like(self.bounds[name], np.nan)


def _intervals(
    means: NDArray[np.float64], classes: NDArray[np.int64], n_classes: int
) -> dict[str, NDArray[np.float64]]:
    """Return the interval of every statistic: new exemplars of the same classes."""
    at = Spread.of(means, classes)
    bounds = share_interval(at)
    accuracies = [Bounded(at.mean[where], bounds[where]) for where in range(len(WHERE))]
    normalized = [
        Bounded(*(normalized_accuracy(each, n_classes) for each in (one.value, one.interval)))
        for one in accuracies
    ]
    found = {"accuracy_at": bounds, "N_at": normalized_accuracy(bounds, n_classes)}
    for where, index, difference in ((2, "II_far", "on_minus_far"), (1, "II", "on_minus_off")):
        parts = [Spread.of(each, classes) for each in (means[:, 0], means[:, where])]
        apart = Spread.of(means[:, 0] - means[:, where], classes)
        correlation = correlation_of(parts[0], parts[1], apart)
        found[index] = normalized[where].over(normalized[0], correlation)
        found[difference] = accuracies[0].less(accuracies[where], correlation)
    return found


def _too_few(classes: NDArray[np.int64], names: Sequence[str]) -> str:
    """Return why there is no interval, or nothing."""
    found, sizes = np.unique(classes, return_counts=True)
    if not len(found) or sizes.min() >= LEAST_SAMPLED:
        return ""
    name, size = names[found[sizes.argmin()]], int(sizes.min())
    return (
        f"no intervals (nan), for class {name!r} was tested with {size} of them; they speak of new "
        f"exemplars, and take {LEAST_SAMPLED} or more of each class"
    )


def _statistics(at: NDArray[np.float64], n_classes: int) -> dict[str, NDArray[np.float64]]:
    """Return every statistic of mean accuracies (..., where)."""
    on, off, far = at[..., 0], at[..., 1], at[..., 2]
    return {
        "accuracy_at": at,
        "N_at": normalized_accuracy(at, n_classes),
        "II_far": invariance_index(far, on, n_classes),
        "II": invariance_index(off, on, n_classes),
        "on_minus_far": np.asarray(on - far),
        "on_minus_off": np.asarray(on - off),
    }


def _distances(result: xarray.Dataset) -> NDArray[np.int64]:
    """Return each object's distance from its trained locations, (object, place); -1 for none."""
    y, x = np.meshgrid(result["y"].values, result["x"].values, indexing="ij")
    locations = np.stack([y.ravel(), x.ravel()], axis=1)
    places = np.stack([result["trained_y"].values, result["trained_x"].values], axis=1)
    found = np.full((result.sizes["object"], len(locations)), -1, np.int64)
    owners, inverse = np.unique(result["is_trained"].values, axis=0, return_inverse=True)
    for number, mine in enumerate(owners):
        if mine.any():
            found[inverse.reshape(-1) == number] = displacements(locations, places[mine])
    return found


def _object_means(result: xarray.Dataset, distance: NDArray[np.int64]) -> NDArray[np.float64]:
    correct = result["correct"].values.reshape(distance.shape)
    on = masked_means(result["trained_correct"].values, result["is_trained"].values)
    off = masked_means(correct, distance > 0)
    far = masked_means(correct, distance >= int(result.attrs["object_size"]))
    return np.stack([on, off, far], axis=1)


def _add_curve(
    result: xarray.Dataset,
    distance: NDArray[np.int64],
    rows: Mapping[str, NDArray[np.bool_]],
    classes: NDArray[np.int64],
) -> None:
    correct = result["correct"].values.reshape(distance.shape).astype(np.float64)
    values = np.unique(distance[distance >= 0])
    curve = np.full((len(EXEMPLARS), len(values)), np.nan)
    for number, mine in enumerate(rows.values()):
        here, right = distance[mine], correct[mine]
        owners = np.broadcast_to(classes[mine][:, None], here.shape)
        for place, value in enumerate(values):
            at = here == value
            curve[number, place] = balanced_mean(right[at], owners[at])
    result["accuracy_by_displacement"] = (("exemplars", "displacement"), curve)
    result.coords["displacement"] = ("displacement", values, {"units": "px"})
