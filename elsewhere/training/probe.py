"""The test that accompanies training: some exemplars, at trained and at other locations."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from elsewhere.measures.intervals import Spread
from elsewhere.models.forward import Paster, evaluating
from elsewhere.stimuli import Canvas, ObjectSet
from elsewhere.training.batches import draw_locations
from elsewhere.training.frozen_trunk import FrozenTrunk
from elsewhere.training.heads import check_logits
from elsewhere.training.resolution import ResolvedPhase
from elsewhere.training.seeds import derive_seed, make_generator

ROWS = 40
"""Images in a pass."""

LEAST, MOST, SHARE = 128, 384, 0.1
"""Each accuracy is measured on so many images: between `LEAST` and `MOST`, and in between so many
that all tests of a phase together show `SHARE` of the images that the phase trains on."""


@dataclass(frozen=True)
class Share:
    """A share of correct answers and its standard error."""

    value: float
    error: float


@dataclass(frozen=True)
class Accuracies:
    """Accuracy at the trained locations and at others; None where there are none."""

    on: Share
    off: Share | None

    def values(self) -> dict[str, Any]:
        """Return them by the names that reports and cards have for them."""
        return {
            "accuracy_on": self.on.value,
            "accuracy_on_error": self.on.error,
            "accuracy_off": None if self.off is None else self.off.value,
            "accuracy_off_error": None if self.off is None else self.off.error,
        }


def images_of_test(trained: int, tests: int) -> int:
    """Return on how many images each of the two accuracies of each of so many tests is measured.

    `trained` is the number of images that the phase trains on.

    Examples
    --------
    >>> images_of_test(960, 13), images_of_test(64_000, 20), images_of_test(10**6, 50)
    (128, 160, 384)
    """
    return min(max(round(SHARE * trained / (2 * tests)), LEAST), MOST)


class Probe:
    """Held-out exemplars (the trained ones where none is held out), each at some fixed places.

    As many exemplars as images are wanted, from as many classes as can be; where there are fewer,
    each stands at several places, at trained ones only if the phase draws places. What is drawn
    stays the same as long as the probe lives. Each accuracy is measured on so many images, about.
    A frozen `trunk` is run for the first measurement only.
    """

    def __init__(
        self,
        resolved: ResolvedPhase,
        paster: Paster[Canvas],
        *,
        images: int,
        seed: int,
        trunk: FrozenTrunk | None = None,
    ) -> None:
        objects = resolved.train if resolved.held_out is None else resolved.held_out
        chosen = _choose(objects, images, np.random.default_rng(derive_seed(seed, "objects")))
        self._paster, self._n_classes = paster, len(resolved.categories)
        self._patches = paster.load(objects.subset(chosen))
        # subsets re-number the classes that are left, so they are taken from the whole set
        self._categories = objects.category_index[chosen]
        several = math.ceil(images / len(chosen))
        boxes = resolved.placement.boxes
        drawn = boxes.shape[2] > 1 or bool((boxes[..., ::2] != boxes[..., 1::2]).any())
        rows = np.repeat(np.arange(len(chosen)), several if drawn else 1)
        places = draw_locations(
            resolved.placement,
            torch.from_numpy(self._categories[rows]),
            torch.from_numpy(objects.exemplar_index[chosen][rows]),
            make_generator(derive_seed(seed, "on")),
        )
        self._on = rows, places.to(paster.device)
        self._trunk = trunk
        self._off = _elsewhere(
            resolved, self._categories, several, np.random.default_rng(derive_seed(seed, "off"))
        )

    def measure(self, network: nn.Module) -> Accuracies:
        """Return the accuracies; the network's modes are left as they were."""
        with evaluating(network):
            on = self._share(network, *self._on)
            rows, places = self._off
            off = self._share(network, rows, places) if len(rows) else None
        return Accuracies(on, off)

    def _share(self, network: nn.Module, rows: NDArray[np.int64], places: torch.Tensor) -> Share:
        """Return the share of correct answers: the mean over classes, exemplars are the sample."""
        device, found = self._paster.device, []
        for start in range(0, len(rows), self._paster.rows):
            part = slice(start, start + self._paster.rows)
            shown = torch.from_numpy(rows[part]).to(device)
            run = partial(self._run, network, shown, places[part])
            output = run() if self._trunk is None else self._trunk.again((id(places), start), run)
            logits = check_logits(output, self._n_classes, type(network).__name__)
            found.append(logits.argmax(1)[: len(shown)])
        correct = torch.cat(found).cpu().numpy() == self._categories[rows]
        each = np.unique(rows)
        shares = np.array([correct[rows == row].mean() for row in each])
        spread = Spread.of(shares, self._categories[each])
        variance = float(spread.variance)
        if math.isnan(variance):  # classes of one or two exemplars: all are one sample
            variance = float(Spread.of(shares).variance)
        # what luck alone gives so many independent answers, also where all are alike
        luck = (correct.sum() + 0.5) / (len(correct) + 1)
        least = luck * (1 - luck) / (len(correct) + 1)
        return Share(float(spread.mean), math.sqrt(np.fmax(variance, least)))

    def _run(self, network: nn.Module, shown: torch.Tensor, places: torch.Tensor) -> Any:
        images = self._paster.paste(self._patches[shown], places.to(self._paster.device))
        return network(images)


def _choose(objects: ObjectSet, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return up to `count` objects, from as many classes as can be, in the set's order."""
    order = rng.permutation(len(objects))
    exemplar = objects.exemplar_index
    rounds = np.argsort(exemplar[order], kind="stable")
    return np.sort(order[rounds][:count])


def _elsewhere(
    resolved: ResolvedPhase, categories: NDArray[np.int64], several: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], torch.Tensor]:
    """Return rows of objects and where each stands: at `several` places that are not its class's.

    All valid locations off those of the class are equally likely, and none comes twice before all
    have come; a class without any is left out.
    """
    placement = resolved.placement
    low = placement.canvas.valid[0]
    rows, places = [np.empty(0, np.int64)], [np.empty((0, 2), np.int64)]
    groups = [0] if placement.same_for_classes else np.unique(categories).tolist()
    for category in groups:
        free = np.argwhere(~placement.support(category)) + low
        members = np.arange(len(categories))
        if not placement.same_for_classes:
            members = np.flatnonzero(categories == category)
        shown = np.tile(members, several)
        if len(free):
            rounds = [rng.permutation(free) for _ in range(math.ceil(len(shown) / len(free)))]
            rows.append(shown)
            places.append(np.concatenate(rounds)[: len(shown)])
    return np.concatenate(rows), torch.from_numpy(np.concatenate(places))
