"""What a method works with: its options, a batch of images, and what it says of itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch

from elsewhere.analyzer.attribution.covering import Coverer
from elsewhere.analyzer.attribution.lattices import Lattice
from elsewhere.analyzer.attribution.ruled import Ruled
from elsewhere.analyzer.attribution.rules import RuleSet
from elsewhere.analyzer.attribution.targets import Scorer
from elsewhere.errors import InputError
from elsewhere.measures.vectors import upload
from elsewhere.models import Layer
from elsewhere.types import BATCH_ROWS

DEVICE_ROWS = 64
"""Images of a pass there and back on a GPU, at most: what fills it."""


@dataclass(frozen=True)
class Option:
    """A method's option: its default, what it means, and which values it takes.

    A default of None is worked out from the object's size.
    """

    default: int | float | bool | str | None
    help: str
    kind: type = int
    low: float = -math.inf
    values: tuple[str, ...] = ()

    def read(self, name: str, given: object, method: str) -> int | float | bool | str:
        """Return `given` as the option takes it.

        Raises
        ------
        InputError
            Another type, or out of range.
        """
        text = str(given).strip()
        if self.kind is bool and text.lower() in ("true", "false", "yes", "no", "1", "0"):
            return text.lower() in ("true", "yes", "1")
        if self.kind is str and text in self.values:
            return text
        if self.kind in (int, float):
            try:
                number = self.kind(text)
            except ValueError:
                number = math.nan
            if math.isfinite(number) and number >= self.low:
                found: int | float = number
                return found
        raise InputError(
            f"option {name!r} of {method} is {text!r}; expected {self.expected}: {self.help}"
        )

    @property
    def expected(self) -> str:
        """What values the option takes."""
        if self.kind is bool:
            return "true or false"
        if self.kind is str:
            return "one of " + ", ".join(self.values)
        number = "a whole number" if self.kind is int else "a number"
        return number if self.low == -math.inf else f"{number} from {self.low:g}"


@dataclass(frozen=True)
class Batch:
    """Some images of one object, and what is attributed of each.

    Parameters
    ----------
    images, baselines
        (n, 3, height, width), as the network takes them.
    corners
        First row and column of the object's box, px.
    classes
        The target's column for each image.
    references
        (n, unit): what the similarity compares with; None for other targets.
    keys
        What tells each image from all others of the run, for methods that draw at random.
    plain
        Whether the baselines equal the images outside the object's box.
    compared
        (1, class): the scores of the one baseline that all images have, where they are known.
    """

    images: torch.Tensor
    baselines: torch.Tensor
    corners: Sequence[tuple[int, int]]
    classes: Sequence[int]
    references: torch.Tensor | None = None
    keys: Sequence[tuple[int, ...]] = ()
    plain: bool = False
    compared: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.images)

    @property
    def extra(self) -> tuple[torch.Tensor, ...]:
        """What the scorer takes beside images."""
        return () if self.references is None else (self.references,)

    def take(self, rows: slice) -> Batch:
        """Return some of the images, not copied."""
        return self._with(range(len(self))[rows], lambda values: values[rows])

    def padded(self, rows: int) -> Batch:
        """Return `rows` images, the last one repeated: results depend on how many there are."""
        more = rows - len(self)

        def widen(values: torch.Tensor) -> torch.Tensor:
            return torch.cat([values, values[-1:].expand(more, *values.shape[1:])])

        chosen = [min(row, len(self) - 1) for row in range(rows)]
        return self._with(chosen, widen) if more > 0 else self.take(slice(rows))

    def pick(self, rows: Sequence[int]) -> Batch:
        """Return these images, in this order."""
        places = upload(np.array(rows), self.images.device)
        return self._with(rows, lambda values: values[places])

    def _with(self, rows: Sequence[int], change: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
        return Batch(
            change(self.images),
            change(self.baselines),
            [self.corners[row] for row in rows],
            [self.classes[row] for row in rows],
            None if self.references is None else change(self.references),
            [self.keys[row] for row in rows] if self.keys else (),
            self.plain,
            self.compared,
        )


def in_full_batches(images: torch.Tensor) -> bool:
    """Return whether all points of all images are run together, as a GPU has to be filled."""
    return images.device.type != "cpu"


def most_rows(device: torch.device, max_memory: int) -> tuple[int, int]:
    """Return how many images a pass takes at most, and the bytes that there are for it.

    A GPU has memory of its own; how much of it is free at the moment decides nothing.
    """
    if device.type != "cuda":
        return BATCH_ROWS, max_memory
    return DEVICE_ROWS, max(max_memory, torch.cuda.get_device_properties(device).total_memory // 4)


def even_rows(n_images: int, most: int) -> int:
    """Return how many images a pass takes, at most `most`, so that few rows only fill it up.

    A multiple of what a pass takes on a CPU; the passes are no more.

    Examples
    --------
    >>> [even_rows(n, 64) for n in (9, 36, 64, 65)], even_rows(36, 8), even_rows(36, 5)
    ([16, 40, 64, 40], 8, 5)
    """
    rows = math.ceil(n_images / math.ceil(n_images / most))
    return min(math.ceil(rows / BATCH_ROWS) * BATCH_ROWS, most)


def _unfollowed(images: torch.Tensor) -> Ruled:
    raise NotImplementedError("this method replaces no derivatives")


@dataclass(frozen=True)
class Setting:
    """What a method works with.

    Parameters
    ----------
    scorer
        From images to scores.
    layer
        The layer of a method that needs one.
    options
        All of the method's options.
    rows
        Images that fit the memory at a time.
    object_size
        Side of the object's box, px.
    seed
        Of methods that draw at random.
    coverer
        For methods that cover windows: the engine that runs these alone, if it is to.
    share
        Of the memory that its windows may take.
    follow
        For methods that replace derivatives: from images to the network with rules.
    kept
        Gets, of each image in turn, the score that a map does not share out, on the device.
    """

    scorer: Scorer
    layer: Layer | None
    options: Mapping[str, Any]
    rows: int
    object_size: int
    seed: int
    coverer: Coverer | None = None
    share: float = 1.0
    follow: Callable[[torch.Tensor], Ruled] = _unfollowed
    kept: list[torch.Tensor] = field(default_factory=list)


Run = Callable[[Setting, Batch], torch.Tensor]


@dataclass(frozen=True)
class Method:
    """A method of attribution.

    Parameters
    ----------
    run
        From a batch to maps, (n, 3 or 1, height, width).
    summary
        What it computes, in a line.
    options
        By name.
    needs_layer
        Whether it works on a convolutional layer.
    compares
        Whether it needs a baseline.
    shares
        What its maps share out pixel by pixel: the ``change`` of the score from the baseline's, as
        ``(x - b) slope``, or the ``score``, as ``x slope``; None for other maps.
    slopes
        Whether its maps are slopes: the change of the score for each unit of the input.
    complete
        Whether its maps sum to what they share out, but for what biases and the stabiliser keep
        of relevance, within the option ``tolerance``.
    rules
        From the options, the rules by which it replaces derivatives; None for other methods.
    linear_target
        Whether it takes targets that are made of layers only: logits and linear readouts.
    alone
        Whether images are taken one by one, since they would disturb each other.
    batches
        Whether it fills its passes by itself on a GPU, and has no use for images that pad a batch.
    lattice
        For methods that cover windows: these, from the options. They fill passes everywhere.
    warning
        What speaks against it.
    """

    run: Run
    summary: str
    options: Mapping[str, Option] = field(default_factory=dict)
    needs_layer: bool = False
    compares: bool = False
    shares: Literal["change", "score"] | None = None
    slopes: bool = False
    complete: bool = False
    rules: Callable[[Mapping[str, Any]], RuleSet] | None = None
    linear_target: bool = False
    alone: bool = False
    batches: bool = False
    lattice: Callable[[Mapping[str, Any]], Lattice] | None = None
    warning: str = ""

    def fills(self, images: torch.Tensor) -> bool:
        """Return whether it fills passes with what it makes of images, however few these are."""
        return self.lattice is not None or (self.batches and in_full_batches(images))
