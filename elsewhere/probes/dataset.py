"""The result of probes as a Dataset, variable by variable."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import xarray
from numpy.typing import NDArray

from elsewhere.errors import InputError
from elsewhere.forms import shortcuts
from elsewhere.measures.intervals import Bounded
from elsewhere.probes.controls import PIXELS
from elsewhere.probes.engine import FitOutcome
from elsewhere.probes.splits import SPLITS, ExemplarSplit
from elsewhere.probes.summary import Summary, stack
from elsewhere.protocols import Source
from elsewhere.types import WHERE, Location


class Builder:
    """Collects the variables of the result; `each` says that every location was trained in turn."""

    def __init__(self, summary: Summary, source: Source, names: list[str], each: bool) -> None:
        self.summary, self.design, self.names, self.each = summary, source.design, names, each
        named = shortcuts(source.layers)
        self._beside = [place for place, name in enumerate(names) if name in named]
        self.variables: dict[str, Any] = {}

    def _values(self, outcome: FitOutcome | None, *, shuffled: bool = False) -> NDArray[np.float64]:
        if outcome is None or outcome.reason:
            shape = (
                self.summary.regions.distances.shape[0],
                len(self.design.objects),
                self.design.n_positions,
            )
            return np.full(shape, np.nan)
        values = np.array(outcome.shuffled if shuffled else outcome.correct, np.float64)
        values[:, outcome.left_out] = np.nan
        return values

    def _maps(
        self, values: list[NDArray[np.float64]], layered: bool, *, shuffled: bool = False
    ) -> Any:
        """Return dimensions and accuracies over the grid."""
        maps = np.stack([self.summary.maps(each, shuffled=shuffled) for each in values])
        n_sets = maps.shape[2]
        trained: tuple[str, ...] = ("train_y", "train_x") if self.each else ()
        sets = self.design.axes.moving.shape if self.each else ()
        if not self.each and n_sets != 1:
            raise InputError("several training sets are only known as 'each'")
        shape = (*maps.shape[:2], *sets, *self.design.shape)
        dims = ("layer", "exemplars", *trained, *self.design.names)
        maps = maps.reshape(shape)
        return (dims, maps) if layered else (dims[1:], maps[0])

    def add(
        self, prefix: str, outcomes: Mapping[str, FitOutcome] | None, *, layered: bool = True
    ) -> None:
        """Add what a network, or a control, got right."""
        names = self.names if layered else [PIXELS]
        found = {} if outcomes is None else outcomes
        values = [self._values(found.get(name)) for name in names]
        self.variables[f"{prefix}accuracy"] = self._maps(values, layered)
        numbers = {
            name: self.summary.numbers(each) for name, each in zip(names, values, strict=True)
        }

        def put(name: str, key: str, *dims: str) -> None:
            stacked = stack(numbers, key)
            lead = ("layer", "exemplars") if layered else ("exemplars",)
            self.variables[prefix + name] = ((*lead, *dims), stacked if layered else stacked[0])

        for name, dims in (("accuracy_at", ("where",)), ("II_far", ())):
            put(name, name, *dims)
            put(f"{name}_interval", f"{name}_interval", *dims, "bound")
        if layered and not prefix:
            each = np.stack([self.summary.by_class(each) for each in values])
            self.variables["accuracy_at_class"] = (("layer", "exemplars", "class", "where"), each)
            over = ("layer", "exemplars", "where")
            for key, bands in self.summary.bands(each, self._beside).items():
                bound = () if bands.ndim == len(over) else ("bound",)
                self.variables[f"accuracy_at_{key}"] = ((*over, *bound), bands)
        put("share_above", "share_above")
        put("accuracy_by_displacement", "by_displacement", "displacement")
        if not prefix:
            put("accuracy_by_displacement_interval", "by_displacement_interval", "displacement",
                "bound")  # fmt: skip
            put("on_minus_far", "on_minus_far")
            put("on_minus_far_interval", "on_minus_far_interval", "bound")
            if self.each:
                sets = stack(numbers, "accuracy_at_set")
                shape = (*sets.shape[:2], *self.design.axes.moving.shape, len(WHERE))
                lead = ("layer", "exemplars", "train_y", "train_x", "where")
                self.variables["accuracy_at_each"] = (lead, sets.reshape(shape))

    def add_shuffled(self, outcomes: Mapping[str, FitOutcome], exemplars: ExemplarSplit) -> None:
        """Add the control tasks, what they leave of the accuracy, and whether they are solved.

        They control for exemplars that were trained on only, of which a category has two or more.
        """
        values = [self._values(outcomes.get(name), shuffled=True) for name in self.names]
        self.variables["shuffled_accuracy"] = self._maps(values, True, shuffled=True)
        numbers = {
            name: self.summary.numbers(each, shuffled=True)
            for name, each in zip(self.names, values, strict=True)
        }
        at = stack(numbers, "accuracy_at")
        dims = ("layer", "exemplars", "where")
        self.variables["shuffled_accuracy_at"] = (dims, at)
        self.variables["shuffled_accuracy_at_interval"] = (
            (*dims, "bound"),
            stack(numbers, "accuracy_at_interval"),
        )
        accuracy = self.variables["accuracy_at"][1]
        controls = np.array([exemplars.shuffles_mean, False])
        selectivity = np.where(controls[:, None], accuracy - at, np.nan)
        self.variables["selectivity_at"] = (dims, selectivity)
        mine, theirs = (
            Bounded(value, self.variables[f"{name}_at_interval"][1])
            for name, value in (("accuracy", accuracy), ("shuffled_accuracy", at))
        )
        bounds = np.where(controls[:, None, None], mine.less(theirs), np.nan)
        self.variables["selectivity_at_interval"] = ((*dims, "bound"), bounds)
        chance = np.array([1 / self.summary.classes_of(each) for each in values])
        self.variables["above_chance_at"] = (dims, accuracy - chance[:, None, None])
        solved = controls & (stack(numbers, "off_low") > chance[:, None])
        self.variables["shuffled_flag"] = (dims[:2], solved.astype(np.int8))

    def add_fits(self, outcomes: Mapping[str, FitOutcome], tried: tuple[float, ...]) -> None:
        """Add what was chosen, and by which scores."""
        trained: tuple[str, ...] = ("train_y", "train_x") if self.each else ()
        sets = self.design.axes.moving.shape if self.each else ()

        def put(name: str, get: Callable[[FitOutcome], Any], *more: str, size: int = 0) -> None:
            rows = [np.asarray(get(outcomes[layer])) for layer in self.names]
            shape = (len(rows), *sets, *((size,) if more else ()))
            self.variables[name] = (("layer", *trained, *more), np.stack(rows).reshape(shape))

        put("strength", lambda o: o.strengths)
        put("rank", lambda o: o.ranks)
        units = [outcomes[layer].n_units for layer in self.names]
        self.variables["n_units"] = (("layer",), np.array(units, np.int64))
        if tried:

            def scores(outcome: FitOutcome) -> Any:
                blank = np.full(len(tried), np.nan)
                return [each if len(each) == len(tried) else blank for each in outcome.scores]

            put("cross_validated", scores, "strengths", size=len(tried))

    def add_trials(self, outcomes: Mapping[str, FitOutcome]) -> None:
        """Add each object's choice at each location, and whether it is right; -1 where left out."""
        dims = ("layer", "object", *self.design.names)
        shape = (len(self.names), len(self.design.objects), *self.design.shape)
        choice = np.stack([outcomes[name].choice[0] for name in self.names]).reshape(shape)
        correct = np.stack([outcomes[name].correct[0] for name in self.names]).reshape(shape)
        self.variables["choice"] = (dims, choice)
        self.variables["correct"] = (dims, np.where(choice < 0, -1, correct).astype(np.int8))

    def dataset(
        self,
        exemplars: ExemplarSplit,
        places: tuple[tuple[Location, ...], ...],
        tried: tuple[float, ...],
    ) -> xarray.Dataset:
        """Return the result, without its attributes."""
        design = self.design
        coordinates: dict[str, Any] = {
            "layer": self.names,
            "exemplars": list(SPLITS),
            "where": list(WHERE),
            "bound": ["low", "high"],
            "displacement": ("displacement", self.summary.steps, {"units": "px"}),
            "class": list(exemplars.names),
            "object": list(design.objects),
            "category": ("object", list(design.categories)),
            "held_out": ("object", exemplars.held_out.astype(np.int8)),
            **design.axes.coordinates(),
        }
        if tried:
            coordinates["strengths"] = list(tried)
        if self.each:
            coordinates |= design.axes.moving.coordinates("train_")
        else:
            place = np.array(places[0])
            for number, name in enumerate(design.axes.moving.names):
                coordinates[f"trained_{name}"] = ("trained", place[:, number], {"units": "px"})
        return xarray.Dataset(self.variables, coords=coordinates)
