"""What moves the weights: schedules, optimisers, what is trainable, averages of weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

import torch
from torch import nn
from torch.nn.utils import parametrize

from elsewhere.errors import InputError, UnknownNameError
from elsewhere.forms import matching
from elsewhere.models import Model
from elsewhere.models.heads import hooked, input_dtype
from elsewhere.models.outputs import is_container
from elsewhere.training.curriculum import Phase
from elsewhere.training.statistics import AS_BUILT, Treatment

_START, _END = 1 / 25, 1 / 250_000


def schedule_factor(phase: Phase, step: int, steps: int) -> float:
    """Return the learning rate of a step, from 0 on, of so many, as a share of the phase's.

    ``one-cycle`` is Smith & Topin's (2018) with cosines: from 1/25 up to 1 and down to 1/250000.

    Examples
    --------
    >>> phase = Phase("p", "digits", steps=10, schedule="cosine")
    >>> schedule_factor(phase, 0, 10), round(schedule_factor(phase, 5, 10), 3)
    (1.0, 0.5)
    """
    rising = phase.warmup_share * steps
    if step < rising:
        share = step / rising
        if phase.schedule == "one-cycle":
            return _START + (1 - _START) * (1 - math.cos(math.pi * share)) / 2
        return (step + 1) / (rising + 1)
    if phase.schedule == "constant":
        return 1.0
    cycle = phase.schedule == "one-cycle"
    # the last step of a cycle is its end; a cosine would reach 0 after the last one
    falling = min(1.0, (step - rising) / max(1e-9, steps - rising - cycle))
    end = _END if cycle else 0.0
    return end + (1 - end) * (1 + math.cos(math.pi * falling)) / 2


def select_parameters(model: Model, pattern: str) -> list[str]:
    """Return the names of the parameters that a pattern of module names or aliases covers.

    Raises
    ------
    UnknownNameError
        It covers none.

    Examples
    --------
    >>> from elsewhere.models import load_model
    >>> model = load_model("small-cnn", model_args={"channels": "4-8", "canvas": 16})
    >>> select_parameters(model, "logits")
    ['classifier.6.weight', 'classifier.6.bias']
    """
    parameters = dict(model.module.named_parameters())
    if pattern == "all":
        return list(parameters)
    # what is tied has several names, and any of them is its name
    named = dict(model.module.named_parameters(remove_duplicate=False))
    modules = [name for name, _ in model.module.named_modules(remove_duplicate=False) if name]
    found = {name for name in (*modules, *named) if fnmatchcase(name, pattern)}
    found |= {name for alias, name in model.aliases.items() if fnmatchcase(alias, pattern)}
    if pattern.startswith("depth:"):
        found |= {modules[n] for n in matching(pattern, [(name, name) for name in modules])}
    covered = {
        id(weights)
        for name, weights in named.items()
        if any(name == part or name.startswith(f"{part}.") for part in found)
    }
    chosen = [name for name, weights in parameters.items() if id(weights) in covered]
    if not chosen:
        known = ["all", *model.aliases, *modules]
        raise UnknownNameError("trainable layer", pattern, known, "or a pattern, or depth:N")
    return chosen


def freeze(model: Model, patterns: Iterable[str], norms: Treatment = AS_BUILT) -> list[str]:
    """Make only what `patterns` cover trainable, and return the parameters' names.

    Parameters that do not require gradients, as whoever built the network left them, stay so unless
    a pattern other than ``all`` names them. Frozen modules are put into evaluation mode, so that
    their statistics stay as they are to the bit, the rest into training mode. Frozen is a module of
    which nothing is trained; what has no parameters of its own (a normalisation without affine, a
    dropout) goes with the module that runs before it, and a dropout with the one after it too.
    Normalisations are treated as `norms` says.

    Raises
    ------
    UnknownNameError
        A pattern that covers nothing.
    InputError
        Nothing is left to train.
    """
    network, patterns = model.module, tuple(patterns)
    parameters = dict(network.named_parameters())
    named = {
        name
        for pattern in patterns
        if pattern != "all"
        for name in select_parameters(model, pattern)
    }
    chosen = set(named)
    if "all" in patterns:
        chosen |= {name for name, parameter in parameters.items() if parameter.requires_grad}
    chosen -= norms.left_out(network)
    if not chosen:
        raise InputError(
            f"nothing of {model.name} is trainable: the network came with all its parameters "
            "frozen; name in trainable what is to be trained"
        )
    order = _running_order(model)  # before the modes are set: a pass must not find them half set
    for name, parameter in parameters.items():
        parameter.requires_grad_(name in chosen)
    network.train()
    for part in network.modules():
        part.training = _is_trained(part) is not False
    for place, part in enumerate(order):
        if _is_trained(part) is None:
            before = [_is_trained(other) for other in reversed(order[:place])]
            after = [_is_trained(other) for other in order[place + 1 :]]
            nearest = [
                next((known for known in side if known is not None), None)
                for side in (before, after)
            ]
            kept = any(True for _ in part.buffers())
            part.training = _goes_on(nearest[0], nearest[1], keeps_statistics=kept)
    for part in network.modules():
        if parametrize.is_parametrized(part):  # what makes its weights goes with it
            for inner in part.get_submodule("parametrizations").modules():
                inner.training = part.training
    for name in model.resting:
        if not any(other.startswith(f"{name}.") for other in named):
            network.get_submodule(name).training = False
    norms.rest(network)
    return [name for name in parameters if name in chosen]


def _running_order(model: Model) -> list[nn.Module]:
    """Return the modules without parts in the order in which a pass runs them, each once."""
    leaves = {name: part for name, part in model.module.named_modules() if not is_container(part)}
    ran: dict[nn.Module, None] = {}
    size = model.canvas_size
    image = torch.zeros((1, 3, size, size), device=model.device, dtype=input_dtype(model))

    def hook(part: nn.Module, *_: object) -> None:
        ran.setdefault(part)

    with hooked(model, dict.fromkeys(leaves, hook)):
        model.module(image)
    return list(ran)


def _is_trained(part: nn.Module) -> bool | None:
    """Return whether anything of a module is trained; None where it has no parameters."""
    found = [parameter.requires_grad for parameter in part.parameters()]
    return any(found) if found else None


def _goes_on(before: bool | None, after: bool | None, *, keeps_statistics: bool) -> bool:
    """Return whether a module without parameters is in training, by its nearest neighbours."""
    if keeps_statistics:
        return bool(after if before is None else before)
    return not (before is False and after is False)


def make_optimiser(model: Model, phase: Phase, trainable: Sequence[str]) -> torch.optim.Optimizer:
    """Return the phase's optimiser; each group holds its ``factor`` of the learning rate.

    Raises
    ------
    UnknownNameError, InputError
        A pattern of ``rates`` that covers nothing, see :func:`find_factors`.
    """
    factors = find_factors(model, phase.rates, trainable)
    parameters = dict(model.module.named_parameters())
    groups = [
        {
            "params": [parameters[name] for name in trainable if factors[name] == factor],
            "factor": factor,
        }
        for factor in sorted(set(factors.values()))
    ]
    rate, decay = phase.learning_rate, phase.weight_decay
    if phase.optimiser == "sgd":
        return torch.optim.SGD(
            groups, rate, momentum=phase.momentum, weight_decay=decay, fused=True
        )
    kind = torch.optim.AdamW if phase.optimiser == "adamw" else torch.optim.Adam
    return kind(groups, rate, weight_decay=decay, fused=True)


def find_factors(
    model: Model, rates: Mapping[str, float], trainable: Sequence[str]
) -> dict[str, float]:
    """Return the factor of the learning rate for each parameter that is trained.

    Of several patterns that cover a parameter the most specific one counts, that which covers
    fewest parameters; their order does not matter.

    Raises
    ------
    UnknownNameError
        A pattern that covers nothing.
    InputError
        A pattern that covers nothing that is trained, or two that are equally specific and differ.
    """
    factors = dict.fromkeys(trainable, 1.0)
    best: dict[str, tuple[int, str]] = {}
    for pattern, factor in rates.items():
        covered = select_parameters(model, pattern)
        if not set(covered) & set(factors):
            raise InputError(
                f"the rate of {pattern!r} does nothing: nothing it names is trained; add it to "
                "trainable, or leave the rate out"
            )
        for name in covered:
            if name not in factors:
                continue
            size, other = best.get(name, (len(covered) + 1, ""))
            if size == len(covered) and rates[other] != factor:
                raise InputError(
                    f"{other!r} and {pattern!r} give {name} different rates ({rates[other]:g} and "
                    f"{factor:g}) and cover equally many parameters; leave one of them out"
                )
            if len(covered) < size:
                best[name], factors[name] = (len(covered), pattern), factor
    return factors


def find_dropout(module: nn.Module) -> dict[str, float]:
    """Return the probability of every dropout layer, by its name."""
    kinds = nn.modules.dropout._DropoutNd
    return {name: part.p for name, part in module.named_modules() if isinstance(part, kinds)}


def set_dropout(module: nn.Module, probabilities: Mapping[str, float]) -> None:
    """Set the probability of dropout layers, by their names."""
    for name, probability in probabilities.items():
        module.get_submodule(name).p = probability  # type: ignore[assignment]


class Average:
    """An exponential moving average of parameters (Polyak & Juditsky 1992, with decay).

    `decay` is the weight of the past; in the first steps ``step / (step + 10)`` where that is less.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], decay: float) -> None:
        self.parameters, self.decay = list(parameters), decay
        self.values = [parameter.detach().clone() for parameter in parameters]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take the weights after `step` steps into the average."""
        decay = min(self.decay, step / (step + 10))
        torch._foreach_lerp_(self.values, [p.detach() for p in self.parameters], 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the average and the weights."""
        for parameter, value in zip(self.parameters, self.values, strict=True):
            current = parameter.detach().clone()
            parameter.copy_(value)
            value.copy_(current)
