"""Curricula: lists of phases, from TOML or Python, checked before anything is trained.

:class:`Curriculum` and its parts are frozen descriptions; :mod:`elsewhere.training.folders` reads
them. Imports no torch.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from elsewhere.axes import Axes
from elsewhere.displays import page
from elsewhere.errors import CurriculumError, ElsewhereError, StorageError, visible
from elsewhere.stimuli import Canvas
from elsewhere.stimuli.transformations import parse_axis
from elsewhere.storage.documents import read_document
from elsewhere.storage.files import is_file
from elsewhere.training.parts import Augment as Augment
from elsewhere.training.parts import Choice as Choice
from elsewhere.training.parts import Criterion as Criterion
from elsewhere.training.parts import Exemplars as Exemplars
from elsewhere.training.parts import problem, require
from elsewhere.training.toml import KeyPath, TomlSource, convert, plain
from elsewhere.types import Convention, Precision

Optimiser: TypeAlias = Literal["adam", "adamw", "sgd"]
Schedule: TypeAlias = Literal["constant", "one-cycle", "cosine"]
MOST = 2**16
"""Presentations in a step, and checkpoints of a phase, at most."""

MOST_STEPS = 10**9
"""Steps of a phase, at most."""

_STEPS = f"1 or more, up to {MOST_STEPS}"

Split: TypeAlias = Literal["train", "test"]
BatchNorm: TypeAlias = Literal["frozen", "batch", "recalibrated"]


def check_phase_name(name: str, key: str = "name") -> None:
    """Refuse a phase's name, which stands under `key`, that cannot be a part of a file's name.

    Raises
    ------
    CurriculumError
        It has other characters than letters, digits, ``-`` and ``_``, or is too long.
    """
    plain = name.replace("-", "").replace("_", "")
    fits = plain.isascii() and plain.isalnum() and name != "none" and len(name) <= 100
    require(key, name, fits, "up to 100 letters, digits, - and _ (and not 'none')")


@dataclass(frozen=True)
class Network:
    """The network that is trained, and its input.

    Parameters
    ----------
    name
        A model's name, or ``package.module:factory``.
    weights
        What it starts from: ``none``, ``imagenet``, a state file or a checkpoint of ours.
    arguments
        Keyword arguments of the network; a slim network's ``canvas`` is that of the curriculum
        unless given.
    gain, mean, std
        The input transform ``(pixel / 255 - mean) / std * gain``; by default that of the weights.
    input
        The same by name, as :func:`elsewhere.models.load_model` takes it: ``caffe-bgr``, ...
    state_key
        Which state of a state file that holds several, see :func:`elsewhere.models.load_model`.
    precision
        What it computes in: ``float32``, ``tf32`` (on a GPU) or ``bfloat16``.
    batch_norm
        What becomes of the running statistics of batch normalisation (and of other layers that
        keep some). ``frozen``: they stay as they are, and are used in training, too; by default
        where `weights` are given. ``recalibrated``: training normalises by the batch, and before a
        checkpoint is tested or kept they are measured anew, as means over 256 presentations of the
        phase; by default from random weights. ``batch``: as torch does, an exponential mean
        that lags behind the weights. From a checkpoint, training goes on by default as the run that
        left it.
    freeze_affine
        Whether the weights and biases of ``frozen`` layers stay as well; by default not.
    """

    name: str
    weights: str = "none"
    arguments: Mapping[str, Any] = field(default_factory=dict)
    gain: float | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    input: Convention | None = field(default=None, repr=False)  # as the axes of a phase
    state_key: str | None = None
    precision: Precision = field(default="float32", repr=False)  # as the axes of a phase
    batch_norm: BatchNorm | None = field(default=None, repr=False)
    freeze_affine: bool | None = field(default=None, repr=False)

    @property
    def random(self) -> bool:
        """Whether the network starts from weights drawn at random."""
        return self.weights == "none"


@dataclass(frozen=True)
class Phase:
    """One stage of training.

    Parameters
    ----------
    name
        Letters, digits, ``-`` and ``_``; its checkpoints are named after it.
    objects
        An object set, such as ``glyphs`` or ``folder:PATH``.
    categories
        So many classes of the set, these, ``{skip, count}``, or all. The seed draws the order;
        what an earlier phase of the same set had is not drawn again.
    same_categories_as
        The earlier phase whose classes this one has, instead of `categories`.
    exemplars
        How many of each class are trained on and held out.
    split
        Which part of a set that has two, such as ``mnist``.
    environment
        Where the objects stand.
    axes
        Axes that change the objects, such as ``scale=0.5:2:5``: where they are shown everywhere
        (``full``), each presentation draws one of the values, too; elsewhere they are as they are.
    steps
        How many steps the phase has at most; either this or `epochs`.
    epochs
        How often it shows each exemplar at most, instead.
    batch
        Presentations in a step.
    criterion
        When the phase has learnt enough; by default it runs to its last step.
    optimiser
        What moves the weights.
    learning_rate
        The largest that the schedule gives.
    schedule
        ``constant``, ``one-cycle`` (from 1/25 of the rate up to it in the first
        `warmup` of the steps, and down to nothing, by cosines) or ``cosine`` (up in a line, down
        by a cosine).
    warmup
        Share of the steps in which the rate rises: by default 0.3 for ``one-cycle``, else 0.
    momentum
        Of ``sgd``.
    weight_decay
        Of the optimiser.
    label_smoothing
        Of the loss: this share of each target is spread over all classes.
    clip
        Largest norm of the gradient; 0 for none.
    dropout
        Probability in all dropout layers, of which there must be some; by default as the network
        was built.
    ema
        Decay of an average of the weights, which then is what is tested and kept, with statistics
        of batch normalisation that are measured anew for it; 0 for none.
    trainable
        Patterns of module names or aliases (``classifier.*``, ``fc*``, ``logits``), or ``all``:
        everything but what whoever built the network had frozen.
    rates
        Pattern to a factor of the learning rate for what it names; of several that name the same,
        that counts which covers fewest parameters.
    new_head
        Whether the last layer is replaced by a new one; by default only where a phase starts from
        random weights.
    checkpoints
        How many, log-spaced from step 1 to the last one, beside that of step 0 (fewer where some
        coincide); or their steps, none after the last one.
    augment
        Changes of appearance.
    after
        The phase whose final weights this one starts from, or ``none`` for the curriculum's
        initial weights; by default the phase before.
    seed
        Added to the curriculum's in what this phase draws: order, places, exemplars, head.
    precision
        What the network computes in, by default what the curriculum's network says.
    batch_norm, freeze_affine
        As those of the network, which counts by default.
    """

    name: str
    objects: str
    categories: int | tuple[str, ...] | Choice | None = None
    same_categories_as: str | None = None
    exemplars: Exemplars = field(default_factory=Exemplars)
    split: Split = "train"
    environment: str = "full"
    axes: tuple[str, ...] = field(default=(), repr=False)  # older digests are of texts without it
    steps: int | None = None
    epochs: float | None = None
    batch: int = 32
    criterion: Criterion | None = None
    optimiser: Optimiser = "adam"
    learning_rate: float = 1e-3
    schedule: Schedule = "constant"
    warmup: float | None = None
    momentum: float = 0.9
    weight_decay: float = 0.0
    label_smoothing: float = 0.0
    clip: float = 0.0
    dropout: float | None = None
    ema: float = 0.0
    trainable: tuple[str, ...] = ("all",)
    rates: Mapping[str, float] = field(default_factory=dict)
    new_head: bool | None = None
    checkpoints: int | tuple[int, ...] = 12
    augment: Augment | None = None
    after: str | None = None
    seed: int = 0
    precision: Precision | None = field(default=None, repr=False)
    batch_norm: BatchNorm | None = field(default=None, repr=False)
    freeze_affine: bool | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        check_phase_name(self.name)
        if (self.steps is None) == (self.epochs is None):
            given = "neither" if self.steps is None else "both"
            raise problem("steps", f"expected either steps or epochs; got {given}; give one")
        require("steps", self.steps, self.steps is None or 1 <= self.steps <= MOST_STEPS, _STEPS)
        epochs_fit = self.epochs is None or 0 < self.epochs <= MOST_STEPS
        require("epochs", self.epochs, epochs_fit, f"above 0, up to {MOST_STEPS}")
        if self.categories is not None and self.same_categories_as is not None:
            raise problem("same_categories_as", "excludes categories; leave one of the two out")
        try:
            Axes(tuple(map(parse_axis, self.axes)))
        except ElsewhereError as error:
            raise problem("axes", error) from error
        if isinstance(self.categories, int):
            require("categories", self.categories, self.categories >= 1, "1 or more")
        require("batch", self.batch, 1 <= self.batch <= MOST, f"1 or more, up to {MOST}")
        require("learning_rate", self.learning_rate, 0 < self.learning_rate < math.inf, "above 0")
        for name in ("warmup", "momentum", "label_smoothing", "ema", "dropout"):
            value = getattr(self, name)
            require(name, value, value is None or 0 <= value < 1, "from 0 to below 1")
        for name in ("weight_decay", "clip"):
            value = getattr(self, name)
            require(name, value, 0 <= value < math.inf, "0 or more")
        if self.optimiser != "sgd" and self.momentum != 0.9:
            raise problem(
                "momentum",
                f"does nothing with optimiser = {self.optimiser!r}, only with 'sgd'; leave it out",
            )
        if self.augment is not None and not any(dataclasses.astuple(self.augment)):
            raise problem("augment", "changes nothing, as all its parts are 0; leave it out")
        require("trainable", self.trainable, bool(self.trainable), "at least one pattern")
        for pattern, factor in self.rates.items():
            require(f"rates.{pattern}", factor, 0 < factor < math.inf, "above 0")
        counts = (self.checkpoints,) if isinstance(self.checkpoints, int) else self.checkpoints
        few = all(n >= 0 for n in counts) and len(counts) <= MOST
        few = few and not (isinstance(self.checkpoints, int) and self.checkpoints > MOST)
        require("checkpoints", self.checkpoints, few, f"0 or more, and at most {MOST} of them")

    @property
    def drawn_axes(self) -> Axes:
        """The axes of which each presentation draws a value."""
        return Axes(tuple(map(parse_axis, self.axes)) if self.environment == "full" else ())

    @property
    def warmup_share(self) -> float:
        """Share of the steps in which the learning rate rises."""
        if self.warmup is not None:
            return self.warmup
        return 0.3 if self.schedule == "one-cycle" else 0.0

    def n_steps(self, n_objects: int) -> int:
        """Return the number of steps, given how many exemplars are trained on in all."""
        if self.steps is not None:
            return self.steps
        return max(1, math.ceil((self.epochs or 0) * n_objects / self.batch))


def _classes(phase: Phase) -> str:
    """Return in words which classes a phase has."""
    if phase.same_categories_as is not None:
        return f"those of {phase.same_categories_as}"
    if isinstance(phase.categories, Choice):
        return f"{phase.categories.count}, from number {phase.categories.skip + 1} on"
    if phase.categories is None or isinstance(phase.categories, int):
        return "all" if phase.categories is None else str(phase.categories)
    return ", ".join(phase.categories)


def _shown(phase: Phase) -> dict[str, object]:
    """Return what a notebook shows of a phase."""
    most = f"{phase.epochs} epochs" if phase.steps is None else f"{phase.steps} steps"
    until = "" if phase.criterion is None else f", until accuracy {phase.criterion.accuracy:g}"
    exemplars = phase.exemplars
    return {
        "phase": phase.name,
        "objects": phase.objects,
        "classes": _classes(phase),
        "exemplars": f"{exemplars.train} trained, {exemplars.held_out} held out",
        "where": phase.environment,
        "how long": f"{most} at most{until}",
        "after": phase.after or "",
    }


@dataclass(frozen=True)
class Curriculum:
    """A network, a canvas and the phases of training.

    Parameters
    ----------
    name
        What it is called.
    network
        The network and its input.
    canvas
        The canvas and the size of the objects.
    phases
        In order.
    seed
        The replicate: redraws weights, classes, order and places.
    source
        Where it was read from, for messages.

    Raises
    ------
    CurriculumError
        No phase, a name twice, or a phase that refers to one that does not come before it.

    Examples
    --------
    >>> phase = Phase("learn", "digits", environment="one", steps=200)
    >>> curriculum = Curriculum("vanilla", Network("small-cnn"), Canvas(48, 11), (phase,))
    >>> curriculum.fingerprint[:12]
    '...'
    """

    name: str
    network: Network
    canvas: Canvas
    phases: tuple[Phase, ...]
    seed: int = 0
    source: TomlSource = field(default=TomlSource(), compare=False, repr=False)

    def __post_init__(self) -> None:
        if not self.phases:
            raise self.error(("phase",), "no phase; a curriculum needs at least one [[phase]]")
        if not 0 <= self.seed < 2**62:
            raise self.error(("seed",), f"expected 0 or more; got {self.seed}")
        earlier: list[str] = []
        for index, phase in enumerate(self.phases):
            if phase.name.lower() in (name.lower() for name in earlier):
                message = f"{phase.name!r} is the name of two phases; rename one"
                raise self.error(("phase", index, "name"), message)
            for key in ("same_categories_as", "after"):
                wanted = getattr(phase, key)
                if wanted is None or wanted in earlier or (key, wanted) == ("after", "none"):
                    continue
                known = ", ".join(earlier) or "there is none"
                raise self.error(
                    ("phase", index, key), f"no earlier phase {wanted!r}; earlier ones: {known}"
                )
            earlier.append(phase.name)

    def __repr__(self) -> str:
        phases = ", ".join(phase.name for phase in self.phases)
        network = self.network.name
        return visible(f"<Curriculum {self.name}: {network}, phases {phases}, seed {self.seed}>")

    def _repr_html_(self) -> str:
        rows = [_shown(phase) for phase in self.phases]
        facts = {
            "network": self.network.name,
            "weights": self.network.weights,
            "canvas": f"{self.canvas.size} px, objects of {self.canvas.object_size} px",
            "seed": self.seed,
        }
        return page("Curriculum", self.name, facts, rows=rows, what="phases")

    def error(self, path: KeyPath, message: object) -> CurriculumError:
        """Return an error that names the key at `path`, and its line where there is one.

        A `message` that is such an error already, of a key within, is returned itself.
        """
        if isinstance(message, CurriculumError) and message.placed:
            return message
        where = [str(part) for part in path]
        if len(path) > 1 and path[0] == "phase" and isinstance(path[1], int):
            phases = getattr(self, "phases", ())
            name = phases[path[1]].name if path[1] < len(phases) else str(path[1] + 1)
            where = [f"phase {name}", *where[2:]]
        shared = ("network", path[-1])  # where a phase has it from
        if path[0] == "phase" and path not in self.source.lines and shared in self.source.lines:
            path = shared
        error = self.source.error(path, f"{': '.join(where)}: {message}")
        error.placed = True
        return error

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all that is trained, hexadecimal; the seed is not part of it.

        A file of weights counts by its content, not its name.
        """
        table = self.to_dict()
        del table["seed"]
        weights = Path(self.network.weights)
        if not self.network.random and weights.is_file():
            digest = hashlib.sha256(weights.read_bytes()).hexdigest()
            table["network"]["weights"] = f"sha256:{digest}"
        text = json.dumps(table, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """Return the curriculum as plain values, without what is as by default."""
        return {
            "name": self.name,
            "seed": self.seed,
            "network": plain(self.network),
            "canvas": dataclasses.asdict(self.canvas),
            "phase": [plain(phase) for phase in self.phases],
        }

    @classmethod
    def from_dict(cls, table: Mapping[str, Any], source: TomlSource | None = None) -> Curriculum:
        """Return the curriculum that plain values describe, as TOML gives them.

        Raises
        ------
        CurriculumError
            An unknown key, a value of another type or out of range, named with its line.
        """
        source = TomlSource(read=True) if source is None else source
        known = ("name", "seed", "network", "canvas", "phase")
        source.check_keys(table, known, ())
        phases = table.get("phase", [])
        if not isinstance(phases, list | tuple):
            raise source.error(("phase",), "phase: expected [[phase]], two brackets for each")
        return cls(
            name=convert(table.get("name", ""), str, ("name",), source),
            network=convert(table.get("network", {}), Network, ("network",), source),
            canvas=convert(table.get("canvas", {}), Canvas, ("canvas",), source),
            phases=tuple(
                convert(phase, Phase, ("phase", index), source)
                for index, phase in enumerate(phases)
            ),
            seed=convert(table.get("seed", 0), int, ("seed",), source),
            source=source,
        )

    @classmethod
    def load_run(cls, directory: str | Path) -> Curriculum:
        """Return the curriculum that was trained in `directory`, with its seed.

        Raises
        ------
        StorageError
            The directory holds no run.
        """
        path = Path(directory) / "curriculum.json"
        expected = "a directory that training wrote"
        if not is_file(path):
            raise StorageError(f"{directory} holds no run; expected {expected}")
        table, _ = read_document(path, encoding="run", expected=expected)
        try:
            return cls.from_dict(table["curriculum"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StorageError(
                f"{directory} holds no run ({path.name}: {type(error).__name__}); expected "
                f"{expected}"
            ) from error
