"""What a network does in training only, found by running it: noise, and statistics it gathers.

Dropout and stochastic depth, and normalisations that keep running statistics, need not be modules
that say so: a function draws as well, and a class of one's own gathers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from types import TracebackType
from typing import Self

import torch
from torch import nn

from elsewhere.models.proof import undisturbed
from elsewhere.models.restoring import chance_state, generators_of
from elsewhere.registry import loaded
from elsewhere.training.statistics import is_norm

_LISTED = 3


def find_stated_noise(network: nn.Module) -> dict[str, str]:
    """Return the modules in training mode that are noise by design, by name, with their rates."""
    found = {}
    for name, part in network.named_modules():
        if not part.training:
            continue
        if isinstance(part, nn.modules.dropout._DropoutNd) and part.p > 0:
            found[name] = f"dropout {part.p:g}"
        elif isinstance(part, loaded("torchvision.ops", "StochasticDepth")) and part.p > 0:
            found[name] = f"stochastic depth {part.p:g}"
        elif isinstance(rate := getattr(part, "drop_prob", None), float) and rate:
            found[name] = f"stochastic depth {rate:g}"  # of timm and its like
    return found


class Drawing:
    """While active, tells which modules draw random numbers in their own code.

    What modules within them draw is theirs. Looked at are the generators of torch, NumPy and
    Python, and those that modules hold.

    Attributes
    ----------
    drew : dict of str
        What they are, by the names of the modules; the network itself has an empty one.
    """

    def __init__(self, network: nn.Module) -> None:
        self.drew: dict[str, str] = {}
        self._network, self._own = network, tuple(generators_of(network))

    def __enter__(self) -> Self:
        """Listen to every module."""
        self._open: list[tuple[str, nn.Module]] = []
        self._handles = []
        for name, part in self._network.named_modules():

            def begin(module: nn.Module, _: object, name: str = name) -> None:
                self._settle()
                self._open.append((name, module))

            def end(*_: object) -> None:
                self._settle()
                self._open.pop()

            self._handles += [
                part.register_forward_pre_hook(begin),
                part.register_forward_hook(end),
            ]
        self._state = chance_state(self._network, self._own)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        """Listen no more."""
        for handle in self._handles:
            handle.remove()

    def _settle(self) -> None:
        state = chance_state(self._network, self._own)
        if state != self._state and self._open:
            name, part = self._open[-1]
            self.drew.setdefault(name, type(part).__name__)
        self._state = state


def find_drawing(network: nn.Module, run: Callable[[], object]) -> dict[str, str]:
    """Return the modules that draw random numbers in their own code in training only, by name.

    Modules that are noise by design are left out, and so is what is also drawn in evaluation mode,
    where such a network is refused. `run` passes some images through the network.
    """
    stated, found = find_stated_noise(network), list[dict[str, str]]()
    with torch.no_grad():
        for training in (True, False):
            with undisturbed(network), Drawing(network) as drawing:
                if not training:
                    network.eval()
                run()
            found.append({n: what for n, what in drawing.drew.items() if n not in stated})
            if not found[0]:
                return {}
    return {name: what for name, what in found[0].items() if name not in found[1]}


def find_gathered(
    network: nn.Module, run: Callable[[torch.Tensor], object], images: torch.Tensor
) -> list[str]:
    """Return the buffers that a training pass moves, and moves otherwise for other images.

    Those of torch's normalisations are left out: they are frozen and measured anew. Counters, and
    vectors that follow the weights alone (as those of a spectral norm), are the same for any
    images.
    """
    own = [
        (f"{name}.{key}" if name else key, part, key)
        for name, part in network.named_modules()
        for key, value in part._buffers.items()
        if value is not None and value.is_floating_point() and not is_norm(part)
    ]
    if not own:
        return []
    before = {name: part._buffers[key] for name, part, key in own}
    moved = []
    for shown in (images, 0.5 * images + 0.5):
        with undisturbed(network), torch.no_grad():
            run(shown)
            moved.append({name: part._buffers[key] for name, part, key in own})
        if all(_same(moved[0][name], before[name]) for name in before):
            return []
    return [name for name in before if not _same(moved[0][name], moved[1][name])]


def _same(value: torch.Tensor | None, other: torch.Tensor | None) -> bool:
    if value is None or other is None:
        return value is other
    return value.shape == other.shape and torch.equal(value.nan_to_num(), other.nan_to_num())


def look_at_modes(
    network: nn.Module,
    run: Callable[[torch.Tensor], object],
    images: torch.Tensor,
    batch_norm: str,
) -> tuple[tuple[str, ...], list[str]]:
    """Return all noise, what it is and where, and notes on what no module or key tells of.

    Parameters
    ----------
    network
        Its modes are those of training.
    run
        Passes images through it.
    images
        Some that it is trained on.
    batch_norm
        What is to become of running statistics.
    """
    stated, drawing, gathered = find_stated_noise(network), dict[str, str](), list[str]()
    with contextlib.suppress(Exception):  # training says what fails
        drawing = find_drawing(network, lambda: run(images))
        gathered = [] if batch_norm == "batch" else find_gathered(network, run, images)
    names = [f"{what} ({name})" for name, what in stated.items()]
    own = [f"{what} {name}".rstrip() for name, what in drawing.items()]
    notes = []
    if own:
        names += [f"random numbers ({name})" for name in own]
        notes.append(
            f"the network draws random numbers in training in code of its own ({_few(own)}), as "
            "stochastic depth does: they act in training only, and no key of a phase sets them"
        )
    if gathered:
        done = "stay as they are" if batch_norm == "frozen" else "are measured anew"
        notes.append(
            f"batch_norm = {batch_norm!r} does not reach {_few(gathered)}, which follow the images "
            "in training: only statistics of torch's own normalisations (such as "
            f"torch.nn.BatchNorm2d) {done}"
        )
    return tuple(names), notes


def _few(names: list[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"{', '.join(names[:_LISTED])}{more}"
