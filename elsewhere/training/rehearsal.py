"""A training pass that leaves no trace: what a phase's keys would do to a network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from elsewhere.models import Model
from elsewhere.models.heads import input_dtype
from elsewhere.models.proof import undisturbed
from elsewhere.training.optimisation import find_dropout, freeze


@dataclass(frozen=True)
class Rehearsal:
    """What a training pass did.

    Parameters
    ----------
    drops
        Whether a dropout layer ran in training mode.
    moves
        Whether statistics of frozen layers were gathered, which no mode of a module stops: by a
        function, or by a module that heeds no mode.
    """

    drops: bool
    moves: bool


def rehearse(model: Model, patterns: Iterable[str]) -> Rehearsal | None:
    """Return what a training pass does when `patterns` are trained; None where it fails."""
    network, drops = model.module, list[bool]()
    required = [(parameter, parameter.requires_grad) for parameter in network.parameters()]
    size = (2, 3, model.canvas_size, model.canvas_size)

    def hook(part: nn.Module, *_: object) -> None:
        drops.append(part.training)

    try:
        with undisturbed(network), torch.enable_grad():
            freeze(model, patterns)
            watch = _Statistics(network)
            resting = [part for part in network.modules() if not part.training]
            kept = [(b, b.clone()) for part in resting for b in part.buffers(recurse=False)]
            parts = [network.get_submodule(name) for name in find_dropout(network)]
            handles = [part.register_forward_hook(hook) for part in parts]
            image = torch.rand(size, device=model.device, dtype=input_dtype(model))
            try:
                with watch:
                    network(image)
                moved = any(not _same(buffer, before) for buffer, before in kept)
            except Exception:  # training says what fails
                return None
            finally:
                for handle in handles:
                    handle.remove()
    finally:
        for parameter, before in required:
            parameter.requires_grad_(before)
    return Rehearsal(any(drops), watch.found or moved)


def _same(values: torch.Tensor, before: torch.Tensor) -> bool:
    return torch.equal(torch.nan_to_num(values), torch.nan_to_num(before))


class _Statistics(TorchFunctionMode):
    """Looks for statistics that are gathered of what only frozen weights have made."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        norms = (p for p in network.modules() if isinstance(p, nn.modules.batchnorm._NormBase))
        self._known = {id(buffer) for norm in norms for buffer in norm.buffers()}
        self._frozen, self.found = False, False

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Look at one call."""
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in ("batch_norm", "instance_norm"):
            tensors = [v for v in tree_leaves((args, kwargs)) if isinstance(v, torch.Tensor)]
            buffers = [v for v in tensors[1:] if not isinstance(v, nn.Parameter)]
            own = any(id(value) in self._known for value in buffers)
            frozen = self._frozen and not any(value.requires_grad for value in tensors)
            gathers = any(flag is True for flag in (*args[5:6], kwargs.get("training")))
            if frozen and buffers and not own and (gathers or name == "instance_norm"):
                self.found = True
        for value in tree_leaves((args, kwargs)):
            if isinstance(value, nn.Parameter) and not value.requires_grad:
                self._frozen = True
        return func(*args, **kwargs)
