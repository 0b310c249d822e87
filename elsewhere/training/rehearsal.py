"""A training pass that leaves no trace: what a phase's keys would do to a network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from elsewhere.errors import InputError
from elsewhere.models import Model, output_tensors
from elsewhere.models.expected import find_single
from elsewhere.models.heads import find_head, input_dtype
from elsewhere.models.outputs import memory_of, tensors_in
from elsewhere.models.proof import undisturbed
from elsewhere.training.heads import check_logits
from elsewhere.training.optimisation import find_dropout, freeze
from elsewhere.training.statistics import AS_BUILT, Treatment


@dataclass(frozen=True)
class Rehearsal:
    """What a training pass did.

    It `moves` if statistics of frozen layers were gathered, which no mode of a module stops: by a
    function, or by a module that heeds no mode.
    """

    drops: bool  # whether a dropout layer ran in training mode
    moves: bool
    refused: str = ""  # why it cannot be trained; empty where it can
    failed: Exception | None = None  # what it raised
    norms: str = "none"  # what becomes of running statistics: `Treatment.done`


def rehearse(
    model: Model, patterns: Iterable[str], batch: int, norms: Treatment = AS_BUILT
) -> Rehearsal:
    """Return what a training pass does when `patterns` are trained.

    Two images tell, or where the network takes no two, as many as a phase's `batch`.
    """
    found = _rehearse(model, patterns, 2, norms)
    return _rehearse(model, patterns, batch, norms) if found.failed and batch != 2 else found


def _rehearse(model: Model, patterns: Iterable[str], rows: int, norms: Treatment) -> Rehearsal:
    network, drops = model.module, list[bool]()
    required = [(parameter, parameter.requires_grad) for parameter in network.parameters()]
    size = (rows, 3, model.canvas_size, model.canvas_size)

    def hook(part: nn.Module, *_: object) -> None:
        drops.append(part.training)

    try:
        with undisturbed(network), torch.enable_grad():
            freeze(model, patterns, norms)
            treated = norms.done(network)
            watch = _Statistics(network)
            kept = [
                (part, key, value.clone(), part.training)
                for part in network.modules()
                for key, value in part._buffers.items()
                if value is not None
            ]
            parts = [network.get_submodule(name) for name in find_dropout(network)]
            handles = [part.register_forward_hook(hook) for part in parts]
            image = torch.rand(size, device=model.device, dtype=input_dtype(model))
            try:
                with watch:
                    output = network(image)
                moved = any(
                    not _same(now, before) and (not training or watch.is_of_frozen(part, now))
                    for part, key, before, training in kept
                    if (now := part._buffers[key]) is not None
                )
            except Exception as error:  # any network, any complaint
                return Rehearsal(False, False, failure(model, rows, error), error)
            finally:
                for handle in handles:
                    handle.remove()
    finally:
        for parameter, before in required:
            parameter.requires_grad_(before)
    return Rehearsal(any(drops), watch.found or moved, _refusal(model, output), norms=treated)


def failure(model: Model, rows: int, error: Exception) -> str:
    """Return what to say of a network that fails in a training pass."""
    reason = " ".join(str(error).split())[:160] or type(error).__name__
    remedy = find_single(model.module, error) or "expected (image, class)"
    return f"{model.name} fails in training mode on a batch of {rows} ({reason}); {remedy}"


def _refusal(model: Model, output: Any) -> str:
    """Return why what a network gives in training mode cannot be trained."""
    several = output_tensors(output)
    if len(several) > 1:
        keys = getattr(output, "_fields", several)  # of a named tuple
        given = zip(keys, several.values(), strict=False)
        shapes = ", ".join(f"{key}: {tuple(value.shape)}" for key, value in given)
        return (
            f"{model.name} gives one tensor in evaluation mode and {len(several)} in training mode "
            f"({shapes}), of which one would be trained; build it without "
            "auxiliary heads (torchvision: aux_logits = false), or return the logits alone"
        )
    try:
        check_logits(output, find_head(model)[1].out_features, f"{model.name} in training mode")
    except InputError as error:
        return str(error)
    return ""


def _same(values: torch.Tensor, before: torch.Tensor) -> bool:
    return values.shape == before.shape and torch.equal(
        torch.nan_to_num(values), torch.nan_to_num(before)
    )


class _Statistics(TorchFunctionMode):
    """Looks for statistics that are gathered of what only frozen weights have made."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        norms = (p for p in network.modules() if isinstance(p, nn.modules.batchnorm._NormBase))
        self._known = {id(buffer) for norm in norms for buffer in norm.buffers()}
        self._frozen, self.found = False, False
        self._made: dict[int, set[bool]] = {}  # by memory: of frozen weights, of trained ones
        self._held: list[torch.Tensor] = []  # so that no other tensor gets its memory

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
            tensors = tensors_in((args, kwargs))
            buffers = [v for v in tensors[1:] if not isinstance(v, nn.Parameter)]
            own = any(id(value) in self._known for value in buffers)
            frozen = self._frozen and not any(value.requires_grad for value in tensors)
            gathers = any(flag is True for flag in (*args[5:6], kwargs.get("training")))
            if frozen and buffers and not own and (gathers or name == "instance_norm"):
                self.found = True
        for value in tensors_in((args, kwargs)):
            if isinstance(value, nn.Parameter) and not value.requires_grad:
                self._frozen = True
        result = func(*args, **kwargs)
        self._note(args, kwargs, result)
        return result

    def _note(self, args: Any, kwargs: Any, result: Any) -> None:
        """Note of which weights the values in memory are made."""
        given = tensors_in((args, kwargs))
        made = tensors_in(result)
        of = set[bool]().union(*(self._made.get(memory_of(value), ()) for value in given))
        of |= {value.requires_grad for value in given if isinstance(value, nn.Parameter)}
        for value in made or given[:1]:
            if of and not isinstance(value, nn.Parameter):
                self._held.append(value)
                self._made.setdefault(memory_of(value), set()).update(of)

    def is_of_frozen(self, part: nn.Module, buffer: torch.Tensor) -> bool:
        """Return whether a buffer is made of frozen weights only, and its part trains none."""
        trains = any(parameter.requires_grad for parameter in part.parameters(recurse=False))
        return not trains and self._made.get(memory_of(buffer)) == {False}
