"""A shortcut proves itself before it is used: against the whole network, in plain torch.

:func:`find_difference` runs both and says in what they differ, in outputs and, where they are used,
in gradients; :func:`alike` compares two tensors; :func:`undisturbed` takes back whatever a pass
does to a network. Windows of sweeps, of training and of attribution use the same three.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from elsewhere.errors import reason_of
from elsewhere.models.generators import own_generators, seed_own_generators
from elsewhere.models.outputs import tensors_in
from elsewhere.models.restoring import untouched
from elsewhere.types import Precision

TOLERANCE = 1e-5
"""By how much two ways may differ by rounding, as a share of a tensor's largest value."""

TOLERANCES: dict[Precision, float] = {"float32": TOLERANCE, "tf32": 2**-7, "bfloat16": 2**-5}
"""The same by what is computed in: eight steps of its last digit, as layers add up. They tell two
ways apart only roughly, so a shortcut proves itself in float32 as well."""

SHAKE = 0.1
"""By so much weights are changed, at random, for the proof that other weights need."""

Pass = Callable[[], object]


def alike(found: torch.Tensor, expected: torch.Tensor, *, tolerance: float = TOLERANCE) -> bool:
    """Return whether two tensors are equal up to rounding.

    Where one is not finite, the other must not be either. `tolerance` is a share of the largest
    finite value of `expected`.

    Examples
    --------
    >>> alike(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.1]))
    False
    """
    if found.shape != expected.shape:
        return False
    return _distance(found, expected) <= tolerance


def find_difference(
    network: nn.Module,
    whole: Pass,
    shortcut: Pass,
    *,
    parameters: bool = False,
    inputs: Sequence[torch.Tensor] = (),
    shaken: bool = False,
    double: bool = False,
    tolerance: float = TOLERANCE,
    seed: int = 0,
) -> str:
    """Return in what a shortcut differs from the whole network; nothing where it does not.

    Both run the network in the mode in which it will be used, draw the same random numbers and find
    the same buffers; each returns a tensor, or tuples, lists or dictionaries of tensors. The
    network is left as it was: its weights, statistics, modes, plain attributes and gradients, and
    the global generators. The reason is as it follows "because".

    Parameters
    ----------
    parameters
        Whether gradients with respect to the parameters that are trained are compared too.
    inputs
        Tensors that both read and whose gradients are compared too.
    shaken
        Whether the comparison is made again with every weight changed by about a tenth, for a
        shortcut that goes on after the weights have changed.
    double
        Whether the network is in double precision meanwhile. Rounding is then no excuse, and ReLUs
        do not fall on different sides; `whole` and `shortcut` give it float64.
    tolerance
        See :func:`alike`; for gradients in single precision as a share of the largest of all
        tensors, as some are nothing but rounding.
    """
    if any(isinstance(part, torch.jit.ScriptModule) for part in network.modules()):
        return "it has compiled parts, which cannot be looked into"
    for shake in (False, True) if shaken else (False,):
        found: list[Mapping[str, torch.Tensor]] = []
        for what, run in (("the whole pass", whole), ("the shortcut", shortcut)):
            with undisturbed(network, double=double, shake=SHAKE if shake else 0.0, seed=seed):
                try:
                    found.append(_run(network, run, parameters, inputs))
                except Exception as error:  # any network, any complaint
                    reason = reason_of(error)
                    return f"{what} fails on random scenes ({reason})"
        reason = _compare(found[1], found[0], tolerance, floor=_FLOOR if double else 1.0)
        if reason:
            return reason + (", once the weights have changed" if shake else "")
    return ""


def extremes(objects: torch.Tensor) -> list[int]:
    """Return the rows of the objects whose values add up to most and to least.

    They are what noise is not: whatever a network does from a threshold on, it does with them.

    Examples
    --------
    >>> extremes(torch.tensor([[1, 2], [3, 4], [0, 1]]))
    [1, 2]
    """
    sums = objects.flatten(1).sum(1, dtype=torch.float64)
    return [int(sums.argmax()), int(sums.argmin())]


@contextmanager
def undisturbed(
    network: nn.Module, *, double: bool = False, shake: float = 0.0, seed: int = 0
) -> Iterator[None]:
    """While active, passes leave no trace: in buffers, attributes, memory, modes or generators.

    The network is in double precision meanwhile if `double`; its parameters are changed at random
    by a share of `shake`, and the global generators seeded.
    """
    weights = [(parameter, parameter.data) for parameter in network.parameters()]
    device = next((value.device for _, value in weights), torch.device("cpu"))
    kept: dict[int, torch.Tensor] = {}

    def convert(values: torch.Tensor) -> torch.Tensor:
        return values.double() if double and values.is_floating_point() else values

    with untouched(network, hooks=True), own_generators(device):
        try:
            seed_own_generators(seed, device)
            for part in network.modules():
                for name, value in part._buffers.items():
                    if value is not None:  # a buffer that two modules share stays one
                        part._buffers[name] = kept.setdefault(id(value), convert(value.clone()))
            for parameter, value in weights if double or shake else ():
                parameter.data = convert(value)
                if shake and value.is_floating_point():
                    spread = value.float().std(correction=0).to(value.dtype)
                    noise = torch.randn_like(value)
                    parameter.data = convert(value + shake * (value + spread) * noise)
            seed_own_generators(seed, device)
            yield
        finally:
            for parameter, value in weights if double or shake else ():
                parameter.data = value


def _run(
    network: nn.Module, run: Pass, parameters: bool, inputs: Sequence[torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Return outputs and gradients of a pass, by what they are called in a message."""
    wanted = {f"input {number}": tensor for number, tensor in enumerate(inputs)}
    if parameters:
        wanted |= {name: p for name, p in network.named_parameters() if p.requires_grad}
    if not wanted:
        with torch.no_grad():
            return _tensors(run())
    with torch.inference_mode(False), torch.enable_grad():
        outputs = _tensors(run())
        score = sum(
            (value * _weights(value)).sum()
            for value in outputs.values()
            if value.is_floating_point() and value.requires_grad
        )
        if not isinstance(score, torch.Tensor):
            return outputs
        gradients = torch.autograd.grad(score, list(wanted.values()), allow_unused=True)
    found = {name: value.detach() for name, value in outputs.items()}
    for (name, tensor), gradient in zip(wanted.items(), gradients, strict=True):
        # in single precision from here: twice a network's size is enough
        value = torch.zeros_like(tensor) if gradient is None else gradient
        found[f"{_GRADIENT}{name}"] = value.float() if value.dtype == torch.float64 else value
    return found


_GRADIENT = "the gradient of "
_FLOOR = 1e-6  # gradients below this share of the largest are rounding, even in double precision


def _tensors(output: Any) -> dict[str, torch.Tensor]:
    if isinstance(output, Mapping) and all(isinstance(v, torch.Tensor) for v in output.values()):
        return {str(key): value for key, value in output.items()}
    found = tensors_in(output)
    if len(found) == 1:
        return {"its output": found[0]}
    return {f"its output {number}": value for number, value in enumerate(found)}


def _weights(value: torch.Tensor) -> torch.Tensor:
    generator = torch.Generator().manual_seed(value.numel())
    drawn = torch.randn(value.shape, generator=generator, dtype=torch.float64)
    return drawn.to(value.device, value.dtype)


def _compare(
    found: Mapping[str, torch.Tensor],
    expected: Mapping[str, torch.Tensor],
    tolerance: float,
    *,
    floor: float,
) -> str:
    """Return the first difference in words."""
    gradients = [value for name, value in expected.items() if name.startswith(_GRADIENT)]
    largest = max((_largest(value) for value in gradients), default=0.0)
    for name in (*expected, *(name for name in found if name not in expected)):
        if name not in found or name not in expected:
            return f"{name} is there in one of the two passes only"
        if found[name].shape != expected[name].shape:
            shapes = [tuple(values[name].shape) for values in (found, expected)]
            return f"{name} has the shape {shapes[0]} instead of {shapes[1]}"
        least = floor * largest if name.startswith(_GRADIENT) else 0.0
        by = _distance(found[name], expected[name], least)
        if by > tolerance:
            return f"{name} comes out otherwise than in a whole pass (by {by:.1g} of the largest)"
    return ""


def _largest(values: torch.Tensor) -> float:
    finite = values[torch.isfinite(values)]
    return float(finite.abs().max()) if finite.numel() else 0.0


def _distance(found: torch.Tensor, expected: torch.Tensor, least: float = 0.0) -> float:
    """Return the largest difference as a share of the largest value (or of `least`, if more)."""
    if not found.numel():
        return 0.0
    found = found.to(expected.device)
    finite = torch.isfinite(expected)
    if not torch.equal(finite, torch.isfinite(found)):
        return float("inf")
    zero = torch.zeros((), dtype=expected.dtype, device=expected.device)
    difference = torch.where(finite, found.to(expected.dtype) - expected, zero)
    return float(difference.abs().max()) / max(_largest(expected), least, 1e-30)
