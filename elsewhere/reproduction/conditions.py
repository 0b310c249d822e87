"""The conditions of the reproduction, as runs of training that build on each other."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from elsewhere.errors import InputError
from elsewhere.reproduction.scale import Scale
from elsewhere.stimuli import Canvas
from elsewhere.training.curriculum import Curriculum, Network, Phase
from elsewhere.training.seeds import derive_seed
from elsewhere.types import Location

Kind: TypeAlias = Literal["pretraining", "learning", "interference"]

FULL, FIXED, CELL, EQUAL = "full", "fixed", "fixed-cell", "equal-accuracy"
MEAN = 0.45
"""The input's mean in the condition whose background is that mean."""


@dataclass(frozen=True)
class Run:
    """A run of training and what it starts from.

    Parameters
    ----------
    name
        Of its folder.
    kind
        What is measured: ``pretraining``, ``learning`` of new objects, or ``interference``.
    network, canvas
        The system.
    phases
        What is trained; each phase of ``learning`` starts from the same weights.
    start
        The run whose last weights it starts from.
    rival
        With `start`: of the two, the one that learnt its task better is taken, at the first
        checkpoint at which it was as good as the other one in the end.
    compare
        Whether layers are compared after it.
    """

    name: str
    kind: Kind
    network: Network
    canvas: Canvas
    phases: tuple[Phase, ...]
    start: str | None = None
    rival: str | None = None
    compare: bool = False

    @property
    def needs(self) -> tuple[str, ...]:
        """The runs that must be done before."""
        return tuple(name for name in (self.start, self.rival) if name is not None)

    @property
    def n_steps(self) -> int:
        """Steps of training, at most."""
        return sum(phase.n_steps(0) for phase in self.phases)

    def trained(self, seed: int) -> Location:
        """Return the location that objects are trained at, and invariance is measured from.

        The seed draws it from all valid locations, the same in all runs of the seed: also where
        objects are shown everywhere.
        """
        if self.phases[0].environment == "centre":
            return self.canvas.centre
        rng = np.random.default_rng(derive_seed(seed, "trained location"))
        y, x = rng.choice(self.canvas.valid, 2).tolist()
        return y, x

    def curriculum(self, seed: int, weights: Path | None = None) -> Curriculum:
        """Return what is trained for a seed, starting from the checkpoint `weights` if given."""
        network = self.network
        if weights is not None:
            network = Network(network.name, weights=str(weights))
        y, x = self.trained(seed)
        phases = tuple(
            dataclasses.replace(phase, environment=f"one:{y},{x}")
            if phase.environment == "one"
            else phase
            for phase in self.phases
        )
        return Curriculum(self.name, network, self.canvas, phases, seed=seed)


def make_runs(
    scale: Scale,
    *,
    confounds: bool = False,
    imagenet_weights: str | None = None,
    state_key: str | None = None,
) -> tuple[Run, ...]:
    """Return the runs of one seed, each after those that it needs.

    Parameters
    ----------
    scale
        How large everything is.
    confounds
        Whether to run what could explain the result otherwise: pinned exemplars, gain 1, a
        background equal to the input's mean, the centre as the trained location.
    imagenet_weights
        ``imagenet`` or a state file of VGG16, for the ImageNet condition.
    state_key
        Which state of that file, if it holds several.

    Raises
    ------
    InputError
        The weights' file does not exist, or a state is chosen without one.
    """
    if state_key is not None and imagenet_weights in (None, "imagenet"):
        given = "not given" if imagenet_weights is None else imagenet_weights
        raise InputError(
            f"--state-key {state_key} chooses within a file of --imagenet-weights, which is "
            f"{given}; name a state file, or leave the key out"
        )
    first = scale.pretraining[0]
    base = Run("", "learning", scale.network, scale.canvas, scale.learning)
    runs = [
        _pretrain(base, FULL, first),
        _pretrain(base, FIXED, dataclasses.replace(first, environment="fixed:shared")),
        _pretrain(base, CELL, dataclasses.replace(first, environment="fixed:cell")),
        dataclasses.replace(base, name="vanilla", compare=True),
        dataclasses.replace(base, name="acquired", start=FULL, compare=True),
    ]
    start = dataclasses.replace(base, kind="interference", start=FULL)
    learn, further = scale.interference
    everywhere = dataclasses.replace(further, environment="full")
    runs += [
        dataclasses.replace(start, name="interference", phases=scale.interference),
        dataclasses.replace(start, name="translated", phases=(learn, everywhere)),
        dataclasses.replace(start, name="near", phases=scale.near),
        dataclasses.replace(base, name="fixed-learning", start=FIXED),
        dataclasses.replace(base, name="fixed-cell-learning", start=CELL),
        dataclasses.replace(base, name=EQUAL, start=FULL, rival=FIXED),
    ]
    for number, phase in enumerate(scale.pretraining[1:], start=2):
        runs += _acquire(base, f"{FULL}-{number}", f"acquired-{number}", phase)
    if confounds:
        runs += _confounds(scale, base)
    if imagenet_weights is not None:
        runs.append(_imagenet(scale, imagenet_weights, state_key))
    return tuple(runs)


def _pretrain(base: Run, name: str, phase: Phase) -> Run:
    return dataclasses.replace(base, name=name, kind="pretraining", phases=(phase,))


def _acquire(base: Run, pretraining: str, learning: str, phase: Phase) -> list[Run]:
    return [
        _pretrain(base, pretraining, phase),
        dataclasses.replace(base, name=learning, start=pretraining),
    ]


def _confounds(scale: Scale, base: Run) -> list[Run]:
    first = scale.pretraining[0]
    runs: list[Run] = []
    pinned = dataclasses.replace(first, environment="pinned")
    runs += _acquire(base, "pinned-pretraining", "pinned", pinned)
    inputs = {
        "gain-1": (dataclasses.replace(scale.network, gain=1.0), scale.canvas),
        "background-mean": (
            dataclasses.replace(scale.network, mean=(MEAN,) * 3),
            dataclasses.replace(scale.canvas, background="mean"),
        ),
    }
    for label, (network, canvas) in inputs.items():
        other = dataclasses.replace(base, network=network, canvas=canvas)
        runs.append(dataclasses.replace(other, name=f"vanilla-{label}"))
        runs += _acquire(other, f"{FULL}-{label}", f"acquired-{label}", first)
    centred = _at(scale.learning, "centre")
    runs.append(dataclasses.replace(base, name="vanilla-centre", phases=centred))
    runs.append(dataclasses.replace(base, name="acquired-centre", phases=centred, start=FULL))
    return runs


def _at(phases: Iterable[Phase], environment: str) -> tuple[Phase, ...]:
    return tuple(dataclasses.replace(phase, environment=environment) for phase in phases)


def _imagenet(scale: Scale, weights: str, state_key: str | None) -> Run:
    """Return the condition that starts from ImageNet weights, all else as in the vanilla one."""
    if weights != "imagenet" and not Path(weights).is_file():
        raise InputError(
            f"the ImageNet weights {weights} are no file; expected 'imagenet' or a state file of "
            "VGG16, .pth or .safetensors"
        )
    network = Network("vgg16", weights=weights, state_key=state_key)
    return Run("imagenet", "learning", network, Canvas(224, 50), scale.learning)
