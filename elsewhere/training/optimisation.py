"""What moves the weights: schedules, optimisers, what is trainable, averages of weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

import torch
from torch import nn

from elsewhere.errors import UnknownNameError
from elsewhere.models import Model
from elsewhere.training.curriculum import Phase

_START, _END = 1 / 25, 1 / 250_000


def schedule_factor(phase: Phase, step: int, steps: int) -> float:
    """Return the learning rate of a step as a share of the phase's.

    ``one-cycle`` is Smith & Topin's (2018) with cosines: from 1/25 up to 1 and down to 1/250000.

    Parameters
    ----------
    phase
        States the schedule and the share of steps that it rises.
    step
        From 0.
    steps
        The number of steps.

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
    falling = (step - rising) / max(1.0, steps - rising)
    if phase.schedule == "constant":
        return 1.0
    end = _END if phase.schedule == "one-cycle" else 0.0
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
    names = [name for name, _ in model.module.named_parameters()]
    if pattern == "all":
        return names
    modules = [name for name, _ in model.module.named_modules() if name]
    found = {name for name in (*modules, *names) if fnmatchcase(name, pattern)}
    found |= {name for alias, name in model.aliases.items() if fnmatchcase(alias, pattern)}
    chosen = [
        name for name in names if any(name == part or name.startswith(f"{part}.") for part in found)
    ]
    if not chosen:
        known = ["all", *model.aliases, *modules]
        raise UnknownNameError("trainable layer", pattern, known, "patterns may use *")
    return chosen


def freeze(model: Model, patterns: Iterable[str]) -> list[str]:
    """Make only what `patterns` cover trainable, and return the parameters' names.

    Modules of which nothing is trained are put into evaluation mode, so that the statistics of
    frozen normalisations stay as they are; the rest into training mode.
    """
    chosen = {name for pattern in patterns for name in select_parameters(model, pattern)}
    for name, parameter in model.module.named_parameters():
        parameter.requires_grad_(name in chosen)
    model.module.train()
    for part in model.module.modules():
        own = list(part.parameters(recurse=False))
        if own and not any(parameter.requires_grad for parameter in own):
            part.eval()
    return [name for name, _ in model.module.named_parameters() if name in chosen]


def make_optimiser(model: Model, phase: Phase, trainable: Sequence[str]) -> torch.optim.Optimizer:
    """Return the phase's optimiser; each group holds its ``factor`` of the learning rate.

    Raises
    ------
    UnknownNameError
        A pattern of ``rates`` that covers nothing.
    """
    factors = dict.fromkeys(trainable, 1.0)
    for pattern, factor in phase.rates.items():
        for name in select_parameters(model, pattern):
            if name in factors:
                factors[name] = factor
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


def find_dropout(module: nn.Module) -> dict[str, float]:
    """Return the probability of every dropout layer, by its name."""
    kinds = nn.Dropout | nn.Dropout1d | nn.Dropout2d | nn.Dropout3d
    return {name: part.p for name, part in module.named_modules() if isinstance(part, kinds)}


def set_dropout(module: nn.Module, probabilities: Mapping[str, float]) -> None:
    """Set the probability of dropout layers, by their names."""
    for name, probability in probabilities.items():
        module.get_submodule(name).p = probability  # type: ignore[assignment]


class Average:
    """An exponential moving average of parameters (Polyak & Juditsky 1992, with decay).

    Parameters
    ----------
    parameters
        What is averaged.
    decay
        Weight of the past; in the first steps ``step / (step + 10)`` where that is less.
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
