"""Batches of presentations: which objects are shown, and where.

What is drawn comes from generators of the CPU, whatever the device is, for many steps at once.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from elsewhere.models.forward import Paster, send
from elsewhere.stimuli import Canvas
from elsewhere.training.augment import change_appearance
from elsewhere.training.placements import Placement
from elsewhere.training.resolution import ResolvedPhase
from elsewhere.training.seeds import derive_seed, make_generator

BLOCK = 50
"""Steps whose presentations are drawn together; a run goes on from the start of one."""

PRESENTATIONS = 256
"""So many are shown, at least, where statistics are measured, or modes compared."""


class Presentations:
    """What a phase shows: its objects, on the device, and the order that its seed draws."""

    def __init__(self, resolved: ResolvedPhase, paster: Paster[Canvas], *, seed: int) -> None:
        self._resolved, self._paster, self._seed = resolved, paster, seed
        train, variants = resolved.train, resolved.variants
        self.patches = torch.cat([paster.load(each) for each in variants])
        self._categories = torch.from_numpy(train.category_index)
        self._exemplars = torch.from_numpy(train.exemplar_index)
        self.labels = self._categories.repeat(len(variants)).to(paster.device)

    def draw(self, first: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return which objects `count` steps from the `first` on show and where, (step, row) and
        (step, row, 2).
        """
        batch, n = self._resolved.phase.batch, len(self._resolved.train)
        start, stop = first * batch, (first + count) * batch
        epochs = range(start // n, (stop - 1) // n + 1)
        orders = [torch.randperm(n, generator=self._generator("order", epoch)) for epoch in epochs]
        rows = torch.cat(orders)[start - epochs[0] * n : stop - epochs[0] * n]
        places = self._places(rows, self._generator("locations", first))
        rows = self._varied(rows, self._generator("axes", first))
        drawn = torch.cat([rows[:, None], places], 1).reshape(count, batch, 3)
        sent = send(drawn, self._paster.device)
        return sent[..., 0], sent[..., 1:]

    def fixed_places(self) -> torch.Tensor | None:
        """Return where each exemplar always stands, looking as it is: int64 (exemplar, 2), px.

        None where place or appearance are drawn.
        """
        boxes = self._resolved.placement.boxes
        drawn = boxes.shape[2] > 1 or bool((boxes[..., ::2] != boxes[..., 1::2]).any())
        if drawn or len(self._resolved.variants) > 1 or self._resolved.phase.augment is not None:
            return None
        generator = make_generator(0)  # nothing is left to chance
        places = draw_locations(
            self._resolved.placement, self._categories, self._exemplars, generator
        )
        return send(places, self._paster.device)

    def appearing(self, rows: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Return objects as they are shown: their appearance is drawn anew each time."""
        patches, augment = self.patches[rows], self._resolved.phase.augment
        if augment is None:
            return patches
        return change_appearance(patches, self._paster.background, augment, generator)

    def sample(self) -> Iterator[torch.Tensor]:
        """Yield images of `PRESENTATIONS` presentations, or more to fill a batch.

        They are drawn as the phase draws, epoch by epoch, from streams of their own, and are the
        same at each call.
        """
        generator, batch = self._generator("statistics"), self._resolved.phase.batch
        n, wanted = len(self._categories), -(-PRESENTATIONS // batch) * batch
        epochs = [torch.randperm(n, generator=generator) for _ in range(-(-wanted // n))]
        orders = torch.cat(epochs)[:wanted].reshape(-1, batch)
        looks = self._looks("statistics")
        for rows in orders:
            places = self._places(rows, generator)
            shown = self._varied(rows, generator)
            shown, places = (send(each, self._paster.device) for each in (shown, places))
            yield self._paster.paste(self.appearing(shown, looks), places)

    def latest(self, done: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield images and labels of the latest steps, of `PRESENTATIONS` presentations or so.

        Objects and places are those of training; changes of appearance are drawn anew.
        """
        first = max(0, done - -(-PRESENTATIONS // self._resolved.phase.batch))
        looks = self._looks("latest", done)
        for start in range(first // BLOCK * BLOCK, done, BLOCK):
            size = min(BLOCK, self._resolved.steps - start)
            rows, places = self.draw(start, size)
            for step in range(max(first - start, 0), min(done - start, size)):
                shown = self.appearing(rows[step], looks)
                yield self._paster.paste(shown, places[step]), self.labels[rows[step]]

    def _looks(self, *names: object) -> torch.Generator:
        """Return what changes of appearance are drawn with, on the device."""
        return make_generator(derive_seed(self._seed, "looks", *names), self._paster.device)

    def _generator(self, *names: object) -> torch.Generator:
        return make_generator(derive_seed(self._seed, *names))

    def _places(self, rows: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        categories, exemplars = self._categories[rows], self._exemplars[rows]
        return draw_locations(self._resolved.placement, categories, exemplars, generator)

    def _varied(self, rows: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Return the rows of the same exemplars, each in a variant that is drawn."""
        count = len(self._resolved.variants)
        if count == 1:
            return rows
        return rows + len(self._categories) * torch.randint(count, rows.shape, generator=generator)


def draw_locations(
    placement: Placement,
    category: torch.Tensor,
    exemplar: torch.Tensor,
    generator: torch.Generator,
) -> torch.Tensor:
    """Return a location for each presentation, int64 (n, 2), y and x, px.

    `category` and `exemplar` are int64 (n,), on the generator's device: the class of each, and its
    number in the class. Three numbers are drawn for each, whatever the environment.
    """
    device = generator.device
    boxes = torch.from_numpy(placement.boxes).to(device)
    drawn = torch.rand((len(category), 3), generator=generator, dtype=torch.float64, device=device)
    choice = (drawn[:, 0] * boxes.shape[2]).long()
    box = boxes[category % boxes.shape[0], exemplar % boxes.shape[1], choice]
    first, last = box[:, ::2], box[:, 1::2]
    return first + (drawn[:, 1:] * (last - first + 1)).long()
