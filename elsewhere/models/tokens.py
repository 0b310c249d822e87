"""Which tokens of a transformer's layer are a grid on the canvas: a rule says, a probe proves.

A rule of a family says how many tokens stand before the grid and which of them is the class token;
users register rules for families of their own. No rule is believed: a noisy square as large as a
cell stands at some cells of an otherwise empty canvas in turn, and each time the token of that cell
has to change most. Tokens that no rule explains, or whose rule the probe refutes, stay vectors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from elsewhere.models.forward import evaluating
from elsewhere.models.model import Model
from elsewhere.models.outputs import output_tensors
from elsewhere.models.taps import Taps
from elsewhere.registry import Registry, loaded
from elsewhere.tokens import Tokens

Place: TypeAlias = tuple[str, int, int | str | None]
"""A module's name, which of its calls, and the key of the tensor in its output."""

TokenRule: TypeAlias = Callable[[nn.Module, int], Tokens | None]
"""Says of a part of a network, and of so many tokens, where these stand; None where it is not of
its family."""

token_rules: Registry[TokenRule] = Registry("rule of tokens")
"""Families to rules, asked in this order; the general one, ``square``, comes last."""

GENERAL = "square"
N_PROBES = 4
"""Cells at which a noisy square stands in turn."""
MOST_BEFORE = 8
"""Tokens before a grid, at most, where no family says how many."""
CLEARLY = 3.0
"""How many times more than the probed cell another one changes, to speak against a rule."""
LEAST_SIDE = 2
"""Cells a side, below which a grid has no order to prove."""


def square(count: int, before: int, class_token: int | None = None) -> Tokens | None:
    """Return a square grid, row after row, behind so many tokens; None where it is no square.

    Examples
    --------
    >>> square(197, 1, class_token=0).height, square(198, 1)
    (14, None)
    """
    side = math.isqrt(max(0, count - before))
    if side < LEAST_SIDE or side * side != count - before:
        return None
    return Tokens(count, before, side, side, class_token=class_token if before else None)


def _torchvision(part: nn.Module, count: int) -> Tokens | None:
    """One class token in front."""
    if not isinstance(part, loaded("torchvision.models", "VisionTransformer")):
        return None
    return square(count, 1, class_token=0) or square(count, 0)


def _timm(part: nn.Module, count: int) -> Tokens | None:
    """``num_prefix_tokens`` in front: a class token where there is one, one of distillation, and
    registers."""
    before: Any = getattr(part, "num_prefix_tokens", None)
    if not type(part).__module__.startswith("timm.") or not isinstance(before, int):
        return None
    class_token = 0 if getattr(part, "cls_token", None) is not None else None
    return square(count, before, class_token) or square(count, 0)


def _any_square(part: nn.Module, count: int) -> Tokens | None:
    """As few tokens in front as leave a square; a class token is the one that the head is given."""
    found = (square(count, before) for before in range(MOST_BEFORE + 1))
    return next((tokens for tokens in found if tokens is not None), None)


for _name, _rule, _summary in (
    ("torchvision", _torchvision, "a class token, then rows"),
    ("timm", _timm, "a class token, registers, then rows"),
    (GENERAL, _any_square, "the largest square of tokens at the end"),
):
    token_rules.add(_name, _rule, summary=_summary)


@dataclass(frozen=True)
class FoundTokens:
    """Where a layer's tokens stand, and whether what they answer is where the probe is."""

    tokens: Tokens
    local: bool


def find_tokens(
    model: Model, size: int, layers: Mapping[Place, tuple[int, int]]
) -> dict[Place, FoundTokens]:
    """Return where the tokens of layers stand, of those for which a rule holds.

    The network runs on five images, or a few more, in evaluation mode and without gradients.

    Parameters
    ----------
    model, size
        The network, and the side of its canvas, px.
    layers
        In the order in which they run: how many tokens each gives, and the axis of these.

    Notes
    -----
    A rule holds for a number of tokens if, in one layer that gives so many, every probe is where
    the rule says. It then holds for the others that give so many, but for those whose tokens answer
    clearly elsewhere. Attention may spread an answer over all tokens: that is not `local`.
    """
    found: dict[Place, FoundTokens] = {}
    probe = _Probe(model, size, layers)
    for count in dict.fromkeys(count for count, _ in layers.values()):
        alike = [place for place, (n, _) in layers.items() if n == count]
        for proposed in _proposals(model.module, count):
            answers = _answers(probe, alike, proposed)
            if answers is None:
                continue
            if proposed.class_token is None and proposed.first:
                given = probe.given_to_head()
                if given in range(proposed.first):
                    proposed = replace(proposed, class_token=given)
            for place in alike:
                if (answer := answers[place]).elsewhere:
                    continue
                tokens = replace(proposed, axis=layers[place][1])
                found[place] = FoundTokens(tokens, answer.hits >= len(answer.most) - 1)
            break
    return found


def _proposals(module: nn.Module, count: int) -> Iterator[Tokens]:
    """Yield what rules say, each also with the grid column after column."""
    said: dict[Tokens, None] = {}
    for name in sorted(token_rules, key=lambda name: name == GENERAL):
        rule = token_rules.get(name)
        for part in module.modules():
            if (tokens := rule(part, count)) is not None:
                said[tokens] = None
                break
    for tokens in said:
        yield tokens
        yield replace(tokens, by_rows=not tokens.by_rows)


@dataclass
class _Answer:
    """Of one layer: which cell of the grid changed most at each probe, and how much more than the
    probed one."""

    most: list[int]
    hits: int = 0
    clear: int = 0

    @property
    def elsewhere(self) -> bool:
        """Whether the answers move with the probe, and are not where it is."""
        n = len(self.most)
        return self.hits <= 1 and self.clear >= n - 1 and len(set(self.most)) >= n - 1


def _answers(probe: _Probe, places: Sequence[Place], tokens: Tokens) -> dict[Place, _Answer] | None:
    """Return how layers answer the probes; None if in none of them all are where they should."""
    answers = {place: _Answer([]) for place in places}
    cells = tokens.height * tokens.width
    for number, (row, column) in enumerate(_cells(tokens), start=1):
        changes = probe.at((row, column), (tokens.height, tokens.width))
        at = row * tokens.width + column if tokens.by_rows else column * tokens.height + row
        for place, answer in answers.items():
            changed = changes[place][tokens.first : tokens.first + cells]
            most = int(changed.argmax())
            answer.most.append(most)
            answer.hits += bool(changed[most] > 0) and most == at
            answer.clear += bool(changed[most] > CLEARLY * changed[at])
        if all(answer.hits < number for answer in answers.values()):
            return None
    return answers


def _cells(tokens: Tokens) -> Sequence[tuple[int, int]]:
    """Return the cells that are probed: two corners off the diagonal, and some at random."""
    every = [(row, column) for row in range(tokens.height) for column in range(tokens.width)]
    some = np.random.default_rng(0).permutation(len(every))[: N_PROBES - 2]
    corners = [(0, tokens.width - 1), (tokens.height - 1, 0)]
    return list(dict.fromkeys([*corners, *(every[n] for n in some)]))


class _Probe:
    """Runs a network on a noisy square at a cell; what was run once is kept."""

    def __init__(self, model: Model, size: int, layers: Mapping[Place, tuple[int, int]]) -> None:
        self._model, self._size, self._layers = model, size, layers
        self._kept: dict[tuple[int, ...], dict[Place, NDArray[np.float64]]] = {}
        self._empty: dict[Place, torch.Tensor] = {}
        self._given: list[int | None] = []
        image = np.full((size, size, 3), 128, np.uint8)
        self._run(image, self._empty.__setitem__)

    def at(self, cell: tuple[int, int], sides: tuple[int, int]) -> dict[Place, NDArray[np.float64]]:
        """Return by how much each token of each layer changes, squared, (token,)."""
        if (*cell, *sides) in self._kept:
            return self._kept[*cell, *sides]
        (top, bottom), (left, right) = (
            (n * self._size // side, (n + 1) * self._size // side)
            for n, side in zip(cell, sides, strict=True)
        )
        image = np.full((self._size, self._size, 3), 128, np.uint8)
        noise = np.random.default_rng(cell[0] * sides[1] + cell[1])
        shape = (bottom - top, right - left, 3)
        image[top:bottom, left:right] = noise.integers(0, 256, shape, dtype=np.uint8)
        found = {place: np.zeros(count) for place, (count, _) in self._layers.items()}

        # for all layers, as in :func:`elsewhere.models.layouts.probe_layouts`
        room = torch.empty(0, dtype=torch.float64, device=self._model.device)

        def compare(place: Place, values: torch.Tensor) -> None:
            empty = self._empty.get(place)
            if empty is not None and empty.shape == values.shape:
                changed = room.resize_(values.shape).copy_(values).sub_(empty).square_()
                found[place] = np.nan_to_num(changed.sum(1).cpu().numpy())

        self._run(image, compare)
        return self._kept.setdefault((*cell, *sides), found)

    def given_to_head(self) -> int | None:
        """Return which token a linear layer is given alone, bit by bit; None where none is."""
        if self._given:
            return self._given[0]
        last: dict[int, torch.Tensor] = {}
        found: list[int] = []

        def given(first: torch.Tensor) -> None:
            for values in last.values():
                if values.shape[1:] == first.shape[1:]:
                    found.extend((values == first).all(1).nonzero()[:1, 0].tolist())

        def keep(place: Place, values: torch.Tensor) -> None:
            last[len(values)] = values

        noise = np.random.default_rng(0)
        image = noise.integers(0, 256, (self._size, self._size, 3), dtype=np.uint8)
        self._run(image, keep, given)
        self._given.append(found[-1] if found else None)
        return self._given[0]

    def _run(
        self,
        image: NDArray[np.uint8],
        take: Callable[[Place, torch.Tensor], None],
        given: Callable[[torch.Tensor], None] | None = None,
    ) -> None:
        """Run an image; hand on what layers give, (token, feature), and what heads are given."""
        module = self._model.module
        heads = {n for n, part in module.named_modules() if isinstance(part, nn.Linear)}
        heads = heads if given is not None else set()

        def receive(name: str, call: int, first: Any, output: object) -> None:
            if given is not None and name in heads and getattr(first, "ndim", 0) == 2:
                given(first)
            for key, tensor in output_tensors(output).items():
                if (place := (name, call, key)) in self._layers and tensor.ndim == 3:
                    values = tensor[0].detach()
                    take(place, (values if self._layers[place][1] == 0 else values.mT).clone())

        names = {name for name, _, _ in self._layers} | heads
        with Taps(module, names, receive), evaluating(module):
            shown = torch.from_numpy(image[None]).to(self._model.device)
            module(self._model.transform.apply(shown))
