"""The scales of the reproduction: folders of curricula, and how their networks are tested.

Every number stands in the TOML files of ``elsewhere/training/curricula``. Commit a change of these
before the seeds that are reported are drawn.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from elsewhere.errors import InputError
from elsewhere.models.names import check_named
from elsewhere.stimuli import Canvas
from elsewhere.storage.files import is_file, is_folder
from elsewhere.training.curriculum import Choice, Exemplars, Network, Phase
from elsewhere.training.folders import EVERY, SHARED, CurriculumPart, Folder, choose, scales
from elsewhere.training.toml import convert

__all__ = ["ClaimLayers", "Scale", "load_scale", "scales"]


THRESHOLDS = ("pretrained", "random", "difference")


@dataclass(frozen=True)
class ClaimLayers:
    """The layers that claims are about, by name; what is left out is found in the network."""

    pooling: str | None = None  # where the maps end, such as the last pooling
    hidden: str | None = None  # the last one before the head, of which invariance is claimed
    convolutions: tuple[str, ...] = ()  # equivariant by construction; the last one is compared


@dataclass(frozen=True)
class Scale:
    """A folder of curricula, and how what they train is tested.

    Its conditions are the curricula, by name: ``full`` (every item is shown everywhere),
    ``vanilla`` (new objects are learnt at one location), ``interference`` (they are learnt, then
    trained on further) and the others that :func:`elsewhere.reproduction.make_runs` asks for. After
    interference, some of the pretraining's classes are looked for again (``old_...``).
    """

    name: str
    network: Network
    canvas: Canvas
    conditions: Mapping[str, CurriculumPart]
    compared: str  # the phase of learning after which layers are compared
    unseen: tuple[Phase, ...]  # the objects that layers are compared with: none is seen before
    grid: str = "7x7"  # where objects are tested
    per_category: int = 10  # exemplars of each class, trained on and held out, that are tested
    old_categories: int = 20
    old_exemplars: int = 4  # of each, trained on and held out
    old_grid: str = "4x4"
    track_checkpoints: int = 8  # of the pretraining, at which layers are compared
    tuned_on: tuple[int, ...] = ()  # seeds with which its numbers were chosen: not for reporting
    minutes: float = 5.0  # what one seed is meant to take on two cores, at most
    layers: ClaimLayers = ClaimLayers()
    question: Literal["paper", "imagenet"] = "paper"  # all claims, or C2 with three heads
    called: str = ""  # the system in words, by default its network and canvas
    thresholds: Mapping[str, float] = field(default_factory=dict)
    """Of II_far in ImageNet's question: ``pretrained`` (above), ``random`` (below), and their
    ``difference`` (above)."""

    def phases(self, name: str) -> tuple[Phase, ...]:
        """Return the phases of a condition.

        Raises
        ------
        InputError
            There is no such condition.
        """
        if name not in self.conditions:
            raise InputError(
                f"the scale {self.name} lacks {name}.toml; expected a folder with the curricula of "
                "a scale that comes with the package: copy one"
            )
        return self.conditions[name].curriculum.phases

    @property
    def pretraining(self) -> tuple[Phase, ...]:
        """The phases in which every item is shown everywhere, one for each pretraining set."""
        if self.question == "imagenet":  # came with the weights
            return ()
        more = [n for n in range(2, len(self.conditions)) if f"full-{n}" in self.conditions]
        return tuple(self.phases(name)[0] for name in ("full", *(f"full-{n}" for n in more)))

    @property
    def learning(self) -> tuple[Phase, ...]:
        """The phases in which new objects are learnt at one location, one for each test set."""
        return self.phases("vanilla" if self.question == "paper" else "pretrained-own")

    @property
    def system(self) -> str:
        """The system that claims are measured on, in words."""
        if self.called:
            return self.called
        named = f"{self.network.name} at {self.canvas.size} px"
        return named if self.network.name == "vgg16" else f"{named} (analogue)"

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all of it, hexadecimal; of layers only where they are named."""
        table: dict[str, Any] = {
            part.name: getattr(self, part.name)
            for part in dataclasses.fields(self)
            if part.name not in ("conditions", "unseen", "network", "canvas")
        }
        table["layers"] = dataclasses.asdict(self.layers)
        if self.layers == ClaimLayers():
            del table["layers"]
        for key in ("question", "called", "thresholds"):  # older digests are of tables without
            if table[key] in ("paper", "", {}):
                del table[key]
        table["unseen"] = [dataclasses.asdict(phase) for phase in self.unseen]
        for each in table["unseen"]:  # older digests are of tables without them
            for key in ("axes", "precision", "batch_norm", "freeze_affine"):
                if not each[key]:
                    del each[key]
        table["conditions"] = {
            name: [part.start, part.rival, part.curriculum.to_dict()]
            for name, part in sorted(self.conditions.items())
        }
        text = json.dumps(table, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def with_phases(self, change: Callable[[Phase], Phase]) -> Scale:
        """Return the scale with all phases of its conditions changed."""
        conditions = {
            name: dataclasses.replace(
                part,
                curriculum=dataclasses.replace(
                    part.curriculum, phases=tuple(map(change, part.curriculum.phases))
                ),
            )
            for name, part in self.conditions.items()
        }
        return dataclasses.replace(self, conditions=conditions)

    def smoke(self, max_steps: int) -> Scale:
        """Return the same scale with so few steps, objects and places that it only runs."""

        def shorten(phase: Phase) -> Phase:
            few = Exemplars(min(phase.exemplars.train, 4), min(phase.exemplars.held_out, 2))
            given = phase.checkpoints if isinstance(phase.checkpoints, tuple) else ()
            steps = max_steps if phase.steps is None else min(phase.steps, max_steps)
            asked = phase.criterion
            if asked is not None:  # a window that no phase has is refused
                asked = dataclasses.replace(asked, window=min(asked.window, steps))
            return dataclasses.replace(
                phase,
                steps=steps,
                criterion=asked,
                batch=min(phase.batch, 4),
                epochs=None,
                exemplars=few,
                checkpoints=tuple(n for n in given if n == 0),
            )

        return dataclasses.replace(
            self.with_phases(shorten),
            unseen=tuple(dataclasses.replace(p, categories=_few(p)) for p in self.unseen),
            grid="2x2",
            per_category=1,
            old_categories=2,
            old_exemplars=1,
            old_grid="2x2",
            track_checkpoints=1,
        )


def _few(phase: Phase) -> Choice:
    wanted = phase.categories
    return Choice(3, wanted.skip if isinstance(wanted, Choice) else 0)


_KEYS = tuple(
    part.name for part in dataclasses.fields(Scale) if part.name not in ("name", "conditions")
)


def load_scale(scale: str | Path, *, trust: Collection[str] = ()) -> Scale:
    """Return the scale of that name, or that in a folder.

    Parameters
    ----------
    scale
        A name, or a folder with a ``scale.toml``.
    trust
        Factories (``package.module:factory``) that may be built where the folder names them.

    Raises
    ------
    InputError
        The folder names a factory that is not in `trust`; or the name is both that of a scale and,
        in the current directory, that of a user's own.
    UnknownNameError
        Neither.
    CurriculumError
        A file of the folder cannot be understood; key and line are named.
    StorageError
        It cannot be read.

    Examples
    --------
    >>> load_scale("laptop").phases("full")[0].steps
    10000
    """
    path = Path(scale)  # a folder under a scale's name may be what a run of it left
    own = is_file(path / SHARED) if str(scale) in scales else is_folder(path)
    folder = Folder.open(choose(scale, scales, path if own else None))
    table, source = dict(folder.shared), folder.source
    source.check_keys(table, (*_KEYS, EVERY), ())
    table.pop(EVERY, None)
    for index, phase in enumerate(table.get("unseen", ())):
        if isinstance(phase, Mapping):
            table["unseen"][index] = {"name": phase.get("objects", ""), "steps": 1, **phase}
    whole = {"name": folder.path.name, "conditions": {}, **table}
    read: Scale = convert(whole, Scale, (), source)
    if read.question == "imagenet" and set(read.thresholds) != {*THRESHOLDS}:
        raise source.error(
            ("thresholds",),
            f"thresholds: expected {', '.join(THRESHOLDS)}, each once; got "
            f"{', '.join(read.thresholds) or 'none'}; fix them before seeds are drawn",
        )
    conditions = {name: folder.read(name) for name in folder.names()}
    for name in {read.network.name, *(c.curriculum.network.name for c in conditions.values())}:
        check_named(name, folder.path / SHARED, trust)
    return dataclasses.replace(read, conditions=conditions)
