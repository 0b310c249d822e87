"""The conditions of the reproduction, as runs of training that build on each other."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from elsewhere.errors import InputError
from elsewhere.models.readouts import READOUTS
from elsewhere.reproduction.scale import Scale
from elsewhere.stimuli import Canvas
from elsewhere.training.curriculum import Curriculum, Network, Phase
from elsewhere.training.seeds import draw_location
from elsewhere.types import Location

Kind: TypeAlias = Literal["pretraining", "learning", "interference"]

FULL, FIXED, CELL, EQUAL = "full", "fixed", "fixed-cell", "equal-accuracy"


@dataclass(frozen=True)
class Run:
    """A run of training and what it starts from.

    Measured is ``pretraining``, ``learning`` of new objects, or ``interference``. Each phase of
    ``learning`` starts from the same weights. With a `rival` it starts from that of the two runs
    that learnt its task better, at the first checkpoint at which it was as good as the other one in
    the end.
    """

    name: str  # of its folder
    kind: Kind  # what is measured
    network: Network
    canvas: Canvas
    phases: tuple[Phase, ...]
    start: str | None = None  # the run whose last weights it starts from
    rival: str | None = None
    compare: bool = False  # whether layers are compared after it

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
        return draw_location(self.canvas, seed)

    def curriculum(self, seed: int, weights: Path | None = None) -> Curriculum:
        """Return what is trained for a seed, starting from the checkpoint `weights` if given."""
        network = self.network
        if weights is not None:
            network = Network(
                network.name,
                weights=str(weights),
                precision=network.precision,
                batch_norm=network.batch_norm,
                freeze_affine=network.freeze_affine,
            )
        return Curriculum(self.name, network, self.canvas, self.phases, seed=seed)


_NEEDED: Mapping[str, Kind] = {
    FULL: "pretraining",
    FIXED: "pretraining",
    CELL: "pretraining",
    "vanilla": "learning",
    "acquired": "learning",
    "interference": "interference",
    "translated": "interference",
    "near": "interference",
    "fixed-learning": "learning",
    "fixed-cell-learning": "learning",
    EQUAL: "learning",
}
"""The conditions that the claims need, each after those that it starts from."""

_CONFOUNDS: Mapping[str, Kind] = {
    "pinned-pretraining": "pretraining",
    "pinned": "learning",
    "vanilla-gain-1": "learning",
    "full-gain-1": "pretraining",
    "acquired-gain-1": "learning",
    "vanilla-background-mean": "learning",
    "full-background-mean": "pretraining",
    "acquired-background-mean": "learning",
    "vanilla-centre": "learning",
    "acquired-centre": "learning",
}
"""What could explain the result otherwise."""

PRETRAINED, RANDOM = "pretrained", "random"
HEADED = tuple(f"{start}-{kind}" for start in (PRETRAINED, RANDOM) for kind in READOUTS)
"""With the question of ImageNet: a new head on frozen layers, from its weights or at random."""

ALL_WEIGHTS = tuple(f"{start}-all" for start in (PRETRAINED, RANDOM))
"""The same with all weights trained, not the head alone: with confounds."""

_COMPARED = ("vanilla", "acquired", "pretrained-logits", "random-logits", *ALL_WEIGHTS)
"""After these, layers are compared; those below the heads are the same for all three."""


def make_runs(
    scale: Scale,
    *,
    confounds: bool = False,
    imagenet_weights: str | None = None,
    state_key: str | None = None,
) -> tuple[Run, ...]:
    """Return the runs of one seed, each after those that it needs.

    With `confounds`, what could explain the result otherwise is run as well: pinned exemplars, gain
    1, a background equal to the input's mean, the centre as the trained location. The ImageNet
    condition needs weights, ``imagenet`` or a state file of VGG16, of which `state_key` chooses a
    state. A scale that asks of ImageNet has those of its network by default; its confounds are the
    same with all weights trained.

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
    asked = scale.question == "imagenet"
    kinds: dict[str, Kind] = {**_NEEDED}
    if asked:
        kinds = dict.fromkeys((*HEADED, *(ALL_WEIGHTS if confounds else ())), "learning")
    for number in range(2, len(scale.pretraining) + 1):
        kinds |= {f"{FULL}-{number}": "pretraining", f"acquired-{number}": "learning"}
    if confounds and not asked:
        kinds |= _CONFOUNDS
    runs = [_run(scale, name, kind) for name, kind in kinds.items()]
    for number, run in enumerate(runs):
        before = [other.name for other in runs[:number]]
        if later := [name for name in run.needs if name not in before]:
            raise InputError(
                f"{run.name}.toml starts from {later[0]}, which is not made before it; expected "
                f"one of: {', '.join(before) or 'none, for it is the first'}"
            )
    if asked:
        return tuple(_from(run, imagenet_weights, state_key) for run in runs)
    if imagenet_weights is not None:
        runs.append(_imagenet(scale, imagenet_weights, state_key))
    return tuple(runs)


def _run(scale: Scale, name: str, kind: Kind) -> Run:
    phases, part = scale.phases(name), scale.conditions[name]
    return Run(
        name,
        kind,
        part.curriculum.network,
        part.curriculum.canvas,
        phases,
        start=part.start,
        rival=part.rival,
        compare=name in _COMPARED,
    )


def _imagenet(scale: Scale, weights: str, state_key: str | None) -> Run:
    """Return the condition that starts from ImageNet weights, all else as in the vanilla one."""
    return _from(_run(scale, "imagenet", "learning"), weights, state_key)


def _from(run: Run, weights: str | None, state_key: str | None) -> Run:
    """Return a run that starts from other ImageNet weights; one from random weights as it is."""
    if weights is None or run.network.random:
        return run
    if weights != "imagenet" and not Path(weights).is_file():
        raise InputError(
            f"the ImageNet weights {weights} are no file; expected 'imagenet' or a state file of "
            f"{run.network.name}, .pth or .safetensors"
        )
    network = dataclasses.replace(run.network, weights=weights, state_key=state_key)
    return dataclasses.replace(run, network=network)
