"""The small test that accompanies training: some exemplars, at trained and at other locations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from elsewhere.models.forward import Paster, evaluating
from elsewhere.stimuli import Canvas, ObjectSet
from elsewhere.training.batches import draw_locations
from elsewhere.training.heads import check_logits
from elsewhere.training.resolution import ResolvedPhase
from elsewhere.training.seeds import derive_seed, make_generator

PROBE_OBJECTS = 40


@dataclass(frozen=True)
class Accuracies:
    """Accuracy at the trained locations and at others; None where there are none."""

    on: float | None
    off: float | None


class Probe:
    """Held-out exemplars (the trained ones where none is held out), each at a fixed place.

    Parameters
    ----------
    resolved
        The phase.
    paster
        Places objects; the probe has its own.
    seed
        Draws exemplars and places.
    """

    def __init__(self, resolved: ResolvedPhase, paster: Paster[Canvas], *, seed: int) -> None:
        objects = resolved.train if resolved.held_out is None else resolved.held_out
        chosen = _choose(objects, np.random.default_rng(derive_seed(seed, "objects")))
        self._paster, self._n_classes = paster, len(resolved.categories)
        self._patches = paster.load(objects.subset(chosen))
        # subsets re-number the classes that are left, so they are taken from the whole set
        categories = objects.category_index[chosen]
        self._labels = torch.from_numpy(categories).to(paster.device)
        on = draw_locations(
            resolved.placement,
            torch.from_numpy(categories),
            torch.from_numpy(objects.exemplar_index[chosen]),
            make_generator(derive_seed(seed, "on")),
        )
        self._on = on.to(paster.device)
        self._off, self._has_off = _off_locations(
            resolved, categories, np.random.default_rng(derive_seed(seed, "off")), paster.device
        )

    def measure(self, network: nn.Module) -> Accuracies:
        """Return the accuracies; the network's modes are left as they were."""
        with evaluating(network):
            on = self._correct(network, self._on).mean().item()
            off = None
            if bool(self._has_off.any()):
                off = self._correct(network, self._off)[self._has_off].mean().item()
        return Accuracies(on, off)

    def _correct(self, network: nn.Module, locations: torch.Tensor) -> torch.Tensor:
        output = network(self._paster.paste(self._patches, locations))
        logits = check_logits(output, self._n_classes, type(network).__name__)[: len(self._labels)]
        return (logits.argmax(1) == self._labels).double()


def _choose(objects: ObjectSet, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return up to `PROBE_OBJECTS` objects, from as many classes as can be, in the set's order."""
    order = rng.permutation(len(objects))
    exemplar = objects.exemplar_index
    rounds = np.argsort(exemplar[order], kind="stable")
    return np.sort(order[rounds][:PROBE_OBJECTS])


def _off_locations(
    resolved: ResolvedPhase,
    categories: NDArray[np.int64],
    rng: np.random.Generator,
    device: torch.device,
) -> tuple[torch.Tensor, torch.Tensor]:
    placement = resolved.placement
    low = placement.canvas.valid[0]
    places = np.full((len(categories), 2), low, np.int64)
    has = np.zeros(len(categories), bool)
    elsewhere: dict[int, NDArray[np.int64]] = {}
    for row, category in enumerate(categories.tolist()):
        key = 0 if placement.same_for_classes else category
        if key not in elsewhere:
            elsewhere[key] = np.argwhere(~placement.support(key)) + low
        if len(elsewhere[key]):
            places[row], has[row] = rng.choice(elsewhere[key]), True
    return torch.from_numpy(places).to(device), torch.from_numpy(has).to(device)
