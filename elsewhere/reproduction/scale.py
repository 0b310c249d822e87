"""The scales of the reproduction: every number that is trained with stands here.

Commit a change of these before the seeds that are reported are drawn.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass

from elsewhere.registry import Registry
from elsewhere.stimuli import Canvas
from elsewhere.training.curriculum import Choice, Criterion, Exemplars, Network, Phase


@dataclass(frozen=True)
class ClaimLayers:
    """The layers that claims are about, by name; what is left out is found in the network.

    Parameters
    ----------
    pooling
        Where the maps end, such as the last pooling.
    hidden
        The last layer before the head, of which invariance is claimed.
    convolutions
        Layers that are equivariant by construction, in order; the last one is compared.
    """

    pooling: str | None = None
    hidden: str | None = None
    convolutions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Scale:
    """How large everything is: networks, phases, what is measured.

    Parameters
    ----------
    name
        What it is called.
    network, canvas
        The system.
    pretraining
        Phases in which every item is shown everywhere, one for each pretraining set; the first
        one's set is also that of the conditions that differ in where things are shown.
    learning
        Phases in which new objects are learnt at one location, one for each test set; they start
        from the pretrained, or from random weights, with a new head.
    interference
        Two phases at one location, from the pretrained weights: new objects are learnt until the
        criterion is met, then trained on further, far longer and faster than they need.
    near
        The same with objects like those of the pretraining.
    compared
        The phase of `learning` after which layers are compared.
    unseen
        The objects that layers are compared with: none of them is seen before. One exemplar is
        held out of each class's two: the first is the same picture whatever the seed.
    grid
        Where objects are tested.
    per_category
        Exemplars of each class, trained on and held out, that are tested.
    old_categories, old_exemplars, old_grid
        How many of the pretraining's classes are looked for again after interference, how many
        exemplars of each, trained on and held out, and where.
    track_checkpoints
        At how many checkpoints of the pretraining layers are compared.
    tuned_on
        The seeds with which its numbers were chosen: they are not for reporting.
    minutes
        What one seed is meant to take on two cores, at most.
    layers
        The layers of the claims; found in the network where they are not named.
    """

    name: str
    network: Network
    canvas: Canvas
    pretraining: tuple[Phase, ...]
    learning: tuple[Phase, ...]
    interference: tuple[Phase, Phase]
    near: tuple[Phase, Phase]
    compared: str
    unseen: tuple[Phase, ...]
    grid: str = "7x7"
    per_category: int = 10
    old_categories: int = 20
    old_exemplars: int = 4
    old_grid: str = "4x4"
    track_checkpoints: int = 8
    tuned_on: tuple[int, ...] = ()
    minutes: float = 5.0
    layers: ClaimLayers = ClaimLayers()

    @property
    def system(self) -> str:
        """The system that claims are measured on, in words."""
        named = f"{self.network.name} at {self.canvas.size} px"
        return named if self.network.name == "vgg16" else f"{named} (analogue)"

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all of it, hexadecimal; of layers and a state's key where they are named."""
        table = dataclasses.asdict(self)
        if self.network.state_key is None:
            del table["network"]["state_key"]
        if self.layers == ClaimLayers():
            del table["layers"]
        text = json.dumps(table, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

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
            self,
            pretraining=tuple(map(shorten, self.pretraining)),
            learning=tuple(map(shorten, self.learning)),
            interference=(shorten(self.interference[0]), shorten(self.interference[1])),
            near=(shorten(self.near[0]), shorten(self.near[1])),
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


def _spread(steps: int) -> tuple[int, ...]:
    """Return steps to keep weights at: some at the beginning, then every 20th of all steps."""
    early = (1, 3, 10, 32, 100, 316)
    return tuple(sorted({*(n for n in early if n < steps / 20), *_linear(steps, 20)}))


def _linear(steps: int, parts: int) -> tuple[int, ...]:
    return tuple(round(part * steps / parts) for part in range(1, parts + 1))


def _pretraining(categories: int, steps: int) -> Phase:
    return Phase(
        "pretrain",
        "glyphs",
        categories=categories,
        exemplars=Exemplars(64, 10),
        environment="full",
        steps=steps,
        batch=32,
        learning_rate=3e-3,
        schedule="one-cycle",
        dropout=0.1,
        checkpoints=_spread(steps),
    )


def _learning(name: str, objects: str, categories: Choice) -> Phase:
    return Phase(
        name,
        objects,
        categories=categories,
        exemplars=Exemplars(40, 20),
        environment="one",
        steps=1000,
        criterion=Criterion(0.99, window=50),
        learning_rate=2e-4,
        rates={"logits": 25.0},  # only the head is new
        dropout=0.2,
        new_head=True,
        checkpoints=(),  # the last one
        after="none",
    )


def _interference(objects: str, categories: Choice) -> tuple[Phase, Phase]:
    learn = _learning("learn", objects, categories)
    further = dataclasses.replace(
        learn,
        name="further",
        categories=None,
        same_categories_as="learn",
        steps=1000,
        batch=16,  # few at a time: what is known already goes on moving the weights
        criterion=None,
        learning_rate=8e-3,
        schedule="cosine",  # what single steps do at that rate settles in the end
        rates={},
        dropout=0.0,
        ema=0.98,
        new_head=False,
        checkpoints=_FURTHER,
        after=None,
    )
    return learn, further


def _unseen(objects: str, categories: Choice) -> Phase:
    return Phase(objects, objects, categories=categories, exemplars=Exemplars(1, 1), steps=1)


_FURTHER = (0, 10, 32, 100, 316)
"""Steps of further training at which weights are kept, and those of its end."""

# The seed draws one order of the glyphs: up to 300 are for pretraining, then come those that are
# learnt, those of the near-domain control, and those that no network ever sees.
_NEW, _NEAR, _NEVER = Choice(10, skip=300), Choice(10, skip=310), Choice(19, skip=320)

LAPTOP = Scale(
    name="laptop",
    network=Network("small-cnn", arguments={"hidden": 512}, gain=6.0),
    canvas=Canvas(48, 11),
    pretraining=(_pretraining(300, 10_000),),
    learning=(
        _learning("glyphs", "glyphs", _NEW),
        _learning("digits", "digits", Choice(10)),
        _learning("novel", "novel", Choice(10)),
    ),
    interference=_interference("digits", Choice(10)),
    near=_interference("glyphs", _NEAR),
    compared="digits",
    unseen=(_unseen("novel", Choice(16)), _unseen("glyphs", _NEVER)),
    tuned_on=(0, 1, 2),
    minutes=5.0,
)

QUICK = dataclasses.replace(
    LAPTOP,
    name="quick",
    pretraining=(_pretraining(150, 3000),),
    learning=(
        _learning("glyphs", "glyphs", _NEW),
        _learning("digits", "digits", Choice(10)),
    ),
    per_category=8,
    track_checkpoints=4,
    minutes=1.5,
)


def _slower(further: Phase) -> Phase:
    """Return further training as thirteen convolutions in a row bear it: slower, for longer."""
    return dataclasses.replace(
        further, learning_rate=1.5e-3, schedule="constant", steps=3000, ema=0.99
    )


SLIM = dataclasses.replace(
    LAPTOP,
    name="slim",
    network=Network("vgg16-slim", arguments={"hidden": 512}, gain=6.0),
    canvas=Canvas(64, 15),
    pretraining=(dataclasses.replace(_pretraining(150, 10_000), learning_rate=1e-3),),
    interference=(LAPTOP.interference[0], _slower(LAPTOP.interference[1])),
    near=(LAPTOP.near[0], _slower(LAPTOP.near[1])),
    track_checkpoints=4,
    minutes=30.0,
)


def _large(phase: Phase, objects: str, steps: int, rate: float = 1e-4) -> Phase:
    return dataclasses.replace(
        phase,
        objects=objects,
        categories=None if phase.same_categories_as else Choice(10),
        split="train",
        exemplars=Exemplars(1000, 200),
        steps=steps,
        batch=64,
        learning_rate=rate,
    )


# Not tuned: nobody has run it through yet.
PAPER = dataclasses.replace(
    LAPTOP,
    name="paper",
    network=Network("vgg16", gain=6.0),
    canvas=Canvas(224, 50),
    pretraining=(
        dataclasses.replace(
            _large(_pretraining(10, 20_000), "fashion-mnist", 20_000),
            exemplars=Exemplars(5000, 500),
            dropout=None,
            checkpoints=_linear(20_000, 8),
        ),
    ),
    learning=tuple(
        _large(_learning(name, name, Choice(10)), name, 5000)
        for name in ("mnist", "kmnist", "emnist")
    ),
    interference=(
        _large(LAPTOP.interference[0], "mnist", 5000),
        dataclasses.replace(
            _large(LAPTOP.interference[1], "mnist", 5000, rate=3e-4), schedule="constant"
        ),
    ),
    near=(
        _large(LAPTOP.near[0], "kmnist", 5000),
        dataclasses.replace(_large(LAPTOP.near[1], "kmnist", 5000, rate=3e-4), schedule="constant"),
    ),
    compared="mnist",
    unseen=(_unseen("novel", Choice(16)),),
    tuned_on=(),
    per_category=20,
    old_categories=10,
    old_exemplars=10,
    minutes=600.0,
)

scales: Registry[Scale] = Registry("scale")
scales.add("quick", QUICK, summary="a slim network at 48 px, 150 glyphs; 90 seconds a seed")
scales.add("laptop", LAPTOP, summary="a slim network at 48 px, 300 glyphs; 5 minutes a seed")
scales.add("slim", SLIM, summary="VGG16's 13 convolutions, slim, at 64 px; 30 minutes a seed")
scales.add("paper", PAPER, summary="VGG16 at 224 px, Fashion-MNIST and its kin; needs a GPU")
