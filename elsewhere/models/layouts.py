"""Which dimensions of a layer are channels, height and width: found by a probe that moves.

A noisy patch stands in each corner of the canvas in turn. Of what it changes of a layer's
activation, the centre of mass moves along the layer's height when the patch moves down, along its
width when the patch moves to the right, and along its channels with neither. Of outputs with two
dimensions, tokens are the one along which it moves at all. A linear layer that is given channels by
tokens mixes the tokens: what it gives has no such dimension, nor has what follows directly.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from elsewhere.models.forward import evaluating
from elsewhere.models.model import Model
from elsewhere.models.outputs import output_tensors
from elsewhere.models.taps import Taps
from elsewhere.protocols import LAYOUTS, Layout

Place: TypeAlias = tuple[str, int, int | str | None]
"""A module's name, which of its calls, and the key of the tensor in its output."""

TOKENS = LAYOUTS[2]
INPUT = "(input)"
"""The key of what a linear layer is given, beside that of what it gives."""
_PLACE = "_elsewhere_place"  # kept on the tensor itself, so that it goes when the tensor goes
CORNERS = ((0, 0), (0, 1), (1, 0), (1, 1))
LEAST_MOVE, CLEAR_MOVE = 0.03, 0.1
"""Share of an axis by which the answer has to move along it, and to overrule another layout."""
LEAST_SHARE = 3.0
"""How many times less it has to move along every other axis."""


@dataclass(frozen=True)
class FoundLayout:
    """A layer's layout, empty where it was not found.

    `stride` is the cumulative one, px, of cells that tile the canvas; None where they do not.
    """

    layout: Layout = ()
    stride: int | None = None


def probe_layouts(
    model: Model,
    size: int,
    shapes: Mapping[Place, tuple[int, ...]],
    expected: Mapping[Place, Layout],
) -> dict[Place, FoundLayout]:
    """Return the layouts of outputs with two or three dimensions.

    The network runs five times on one image, in evaluation mode and without gradients. `shapes` are
    those of the outputs for one image, `expected` the layouts that follow from the operations,
    empty where they do not say; they stand unless the answer clearly moves otherwise.

    Notes
    -----
    Where two dimensions have one cell each, these are height and width. Without an expected
    layout, height and width have to be equal, as the canvas's are.
    """
    side = max(1, size // 4)
    ground = np.full((size, size, 3), 128, np.uint8)
    patch = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    before: dict[Place, Place | None] = {}
    empty: dict[Place, torch.Tensor] = {}

    def keep(place: Place, values: torch.Tensor) -> None:
        empty[place] = values.clone()

    _run(model, ground, shapes, keep, before)
    every = dict.fromkeys([*shapes, *empty])
    moments: dict[Place, list[list[NDArray[np.float64]]]] = {place: [] for place in every}

    # for all layers: allocated for each, it leaves holes in memory, 0.5 GiB per pass of a large ViT
    room = torch.empty(0, dtype=torch.float64, device=model.device)

    def compare(place: Place, values: torch.Tensor) -> None:
        if place in empty and values.shape == empty[place].shape:
            changed = room.resize_(values.shape)
            torch.sub(values, empty[place], out=changed).square_()
            axes = range(changed.ndim)
            moments[place].append(
                [changed.sum([o for o in axes if o != axis]).cpu().numpy() for axis in axes]
            )

    for down, right in CORNERS:
        image = ground.copy()
        top, left = down * (size - side), right * (size - side)
        image[top : top + side, left : left + side] = patch
        _run(model, image, shapes, compare)
    found = {
        place: _judge(expected[place], shape, moments[place], (size - side) / size, size)
        for place, shape in shapes.items()
    }
    mixed: set[Place] = set()
    proven = {
        shape
        for place, shape in shapes.items()
        if len(shape) == len(TOKENS) and _along_first(_moved(moments[place]))
    }
    for place, source in before.items():  # in the order in which they ran
        name, call, _ = place
        given = moments.get((name, call, INPUT))
        mixes = bool(given) and _mixes(given or [], proven)
        moves = _tokens(TOKENS, _moved(moments[place])) == TOKENS[::-1]
        if (mixes or source in mixed) and not moves:
            mixed.add(place)
            found[place] = FoundLayout()
    return found


def _judge(
    expected: Layout,
    shape: tuple[int, ...],
    profiles: list[list[NDArray[np.float64]]],
    moved: float,
    size: int,
) -> FoundLayout:
    """Return the layout of one output from what the patch changed along each axis."""
    least = CLEAR_MOVE if expected else LEAST_MOVE
    if len(shape) == len(TOKENS):
        return FoundLayout(_tokens(expected, _moved(profiles)))
    single = [axis for axis, count in enumerate(shape) if count == 1]
    if len(single) > 1:
        return FoundLayout(_named(*single[-2:]))
    centres = _centres(profiles)
    if centres is None:
        return FoundLayout(expected)
    moves = _moves(centres)
    axes = []
    for own, other in (moves, moves[::-1]):
        found = np.flatnonzero((own >= least) & (own >= LEAST_SHARE * np.abs(other)))
        if len(found) != 1 or own[found[0]] < LEAST_SHARE * np.abs(np.delete(own, found)).max():
            return FoundLayout(expected)
        axes.append(int(found[0]))
    count = shape[axes[0]]
    if axes[0] == axes[1] or (not expected and shape[axes[1]] != count):
        return FoundLayout(expected)
    stride = None
    if shape[axes[1]] == count > 1 and size % count == 0:
        measured = moves[[0, 1], axes] * (count - 1) / count
        if ((measured > 0.4 * moved) & (measured < 1.25 * moved)).all():
            stride = size // count
    return FoundLayout(_named(*axes), stride)


def _tokens(expected: Layout, moved: NDArray[np.float64]) -> Layout:
    """Return which of two dimensions are tokens; nothing where both are places."""
    if (moved >= CLEAR_MOVE).all() and moved.max() < LEAST_SHARE * moved.min():
        return ()
    if moved[1] >= CLEAR_MOVE and moved[1] >= LEAST_SHARE * moved[0]:
        return TOKENS[::-1]
    return expected


def _along_first(moved: NDArray[np.float64]) -> bool:
    """Return whether the answer moves along the first of two dimensions, and hardly the other."""
    return bool(moved[0] >= max(CLEAR_MOVE, LEAST_SHARE * moved[1]))


def _mixes(given: list[list[NDArray[np.float64]]], proven: Collection[tuple[int, ...]]) -> bool:
    """Return whether what a linear layer is given are features by tokens.

    The answer moves so, or, once tokens have been mixed and nothing moves any more, they have the
    sides of tokens by features that are `proven`, the other way round.
    """
    moved = _moved(given)
    if _tokens(TOKENS, moved) == TOKENS[::-1]:
        return True
    first, second = map(len, given[0])
    return first != second and (second, first) in proven and not _along_first(moved)


def _moved(profiles: list[list[NDArray[np.float64]]]) -> NDArray[np.float64]:
    """Return by how much the answer moves along each of two dimensions at most."""
    centres = _centres(profiles)
    found: NDArray[np.float64] = (
        np.abs(_moves(centres)).max(0) if centres is not None else np.zeros(2)
    )
    return found


def _centres(profiles: list[list[NDArray[np.float64]]]) -> NDArray[np.float64] | None:
    """Return where the answer to a patch in each corner is, (corner, axis); None without one."""
    if len(profiles) < len(CORNERS) or not all(
        np.isfinite(p).all() and p.sum() > 0 for corner in profiles for p in corner
    ):
        return None
    return np.array([[_centre(profile) for profile in corner] for corner in profiles])


def _moves(centres: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return by how much that moves when the patch moves down, and to the right, (way, axis)."""
    corners = np.array(CORNERS)
    return np.array(
        [
            centres[corners[:, way] == 1].mean(0) - centres[corners[:, way] == 0].mean(0)
            for way in (0, 1)
        ]
    )


def _named(height: int, width: int) -> Layout:
    return tuple({height: "height", width: "width"}.get(axis, "channel") for axis in range(3))


def _centre(profile: NDArray[np.float64]) -> float:
    """Return the centre of mass along an axis, 0 at its first cell and 1 at its last."""
    if len(profile) == 1:
        return 0.0
    return float(profile @ np.linspace(0, 1, len(profile)) / profile.sum())


def _run(
    model: Model,
    image: NDArray[np.uint8],
    shapes: Mapping[Place, tuple[int, ...]],
    take: Callable[[Place, torch.Tensor], None],
    before: dict[Place, Place | None] | None = None,
) -> None:
    """Hand on the wanted outputs for one image, and what linear layers are given, as they are made.

    Of outputs with two dimensions `before` gets the output that the module was given, or gives,
    as it is.
    """
    linear = {n for n, part in model.module.named_modules() if isinstance(part, nn.Linear)}

    def receive(name: str, call: int, given: Any, output: object) -> None:
        for key, tensor in output_tensors(output).items():
            place = (name, call, key)
            if place not in shapes or tensor.shape[:1] != (1,):
                continue
            take(place, tensor[0].detach().float())
            if len(shapes[place]) == len(TOKENS) and isinstance(given, torch.Tensor):
                if before is not None:
                    before[place] = getattr(tensor, _PLACE, None) or getattr(given, _PLACE, None)
                if name in linear and given.ndim == tensor.ndim:
                    take((name, call, INPUT), given[0].detach().float())
            setattr(tensor, _PLACE, place)

    names = (name for name, _, _ in shapes)
    with Taps(model.module, names, receive), evaluating(model.module):
        model.module(model.transform.apply(torch.from_numpy(image[None]).to(model.device)))
