"""What follows from answers: accuracy on, off and far from trained places, indices, intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import xarray
from numpy.typing import NDArray

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
from elsewhere.measures.variables import described
from elsewhere.types import WHERE

EXEMPLARS = ("same", "held-out")
UNDEFINED = " is undefined (nan): "
TRIAL_NUMBERS = ("accuracy_at", "N_at", "II_far", "II", "on_minus_far", "on_minus_off")
"""What trials are summarised by."""


def summarize(result: xarray.Dataset) -> None:
    """Add the maps, the means with their intervals, the indices and the curve."""
    n_classes = int(result.attrs["n_classes"])
    held_out = result["held_out"].values
    named = list(dict.fromkeys(result["category"].values.tolist()))
    classes = np.array([named.index(name) for name in result["category"].values], np.int64)
    rows = {"same": ~held_out, "held-out": held_out}
    correct = result["correct"].values.astype(np.float64)
    maps = np.stack([balanced_mean(correct[mine], classes[mine]) for mine in rows.values()])
    axes = result["correct"].dims[1:]
    result["accuracy"] = (("exemplars", *axes), maps)
    result["N"] = (("exemplars", *axes), normalized_accuracy(maps, n_classes))
    distance, unchanged = _distances(result)
    means = _object_means(result, distance, unchanged)
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
    undefined: dict[str, list[str]] = {}
    for index in ("II_far", "II"):
        reasons = {name: each.reasons[index] for name, each in zip(rows, summaries, strict=True)}
        found = {name: why for name, why in reasons.items() if why}
        result[index].attrs["reason"] = "; ".join(f"{name}: {why}" for name, why in found.items())
        if len(found) == len(rows) and len(set(found.values())) == 1:
            undefined.setdefault(reasons["same"], []).append(index)
            continue
        for name, why in found.items():
            undefined.setdefault(why, []).append(f"{index} ({name})")
    if undefined:
        said = "; ".join(f"{', '.join(names)}: {why}" for why, names in undefined.items())
        result.attrs["notes"].append(f"the invariance index{UNDEFINED}{said}")
    for name, mine in rows.items():
        if why := _too_few(classes[mine], named):
            result.attrs["notes"].append(f"exemplars that are {name}: {why}")
    _add_curve(result, np.where(unchanged, distance, -1), rows, classes)
    described(result)


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
            if missing[where] and not missing[0]:
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


def trial_bounds(
    name: str, means: NDArray[np.float64], classes: NDArray[np.integer], n_classes: int
) -> NDArray[np.float64]:
    """Return the interval of one of :data:`TRIAL_NUMBERS`, of objects' accuracies (object, where).

    It speaks of new exemplars of the same `classes`, int (object,).
    """
    return _intervals(means, np.asarray(classes, np.int64), n_classes)[name]


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


def _distances(result: xarray.Dataset) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return each object's distance from its trained locations, (object, position); -1 for none.

    And whether objects are as they are at the reference, (position,), where axes change them.
    """
    names = [str(name) for name in result["correct"].dims[1:]]
    grids = np.meshgrid(*(result[name].values for name in names), indexing="ij")
    at = {name: grid.ravel() for name, grid in zip(names, grids, strict=True)}
    locations = np.stack([at.pop("y"), at.pop("x")], axis=1)
    unchanged = np.ones(len(locations), bool)
    for name, values in at.items():
        unchanged &= values == result.attrs[f"reference_{name}"]
    if "distance" in result:
        apart = result["distance"].values.reshape(result.sizes["object"], -1)
        return np.tile(apart, (1, len(locations) // apart.shape[1])), unchanged
    places = np.stack([result["trained_y"].values, result["trained_x"].values], axis=1)
    found = np.full((result.sizes["object"], len(locations)), -1, np.int64)
    owners, inverse = np.unique(result["is_trained"].values, axis=0, return_inverse=True)
    for number, mine in enumerate(owners):
        if mine.any():
            found[inverse.reshape(-1) == number] = displacements(locations, places[mine])
    return found, unchanged


def _object_means(
    result: xarray.Dataset, distance: NDArray[np.int64], unchanged: NDArray[np.bool_]
) -> NDArray[np.float64]:
    correct = result["correct"].values.reshape(distance.shape)
    on = masked_means(result["trained_correct"].values, result["is_trained"].values)
    off = masked_means(correct, (distance > 0) | ((distance == 0) & ~unchanged))
    far = masked_means(correct, distance >= int(result.attrs["object_size"]))
    return np.stack([on, off, far], axis=1)


def object_accuracies(result: xarray.Dataset) -> NDArray[np.float64]:
    """Return each object's accuracy on, off and far from its trained locations, (object, where)."""
    return _object_means(result, *_distances(result))


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
