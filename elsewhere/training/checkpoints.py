"""Checkpoints: weights as safetensors, and beside them a card in JSON that says what they are."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load, save

from elsewhere.axes import Axes
from elsewhere.errors import (
    ElsewhereError,
    InputError,
    StorageError,
    UnknownNameError,
    WeightsError,
)
from elsewhere.models import InputTransform, Model, load_model, state_sha256
from elsewhere.models.heads import find_head, with_head_named
from elsewhere.models.names import check_named
from elsewhere.models.weights import fit_state
from elsewhere.stimuli import Canvas, ObjectSet
from elsewhere.stimuli.transformations import parse_axis, vary, window_of
from elsewhere.storage import write_atomically
from elsewhere.storage.documents import read_document, tell_unsealed, write_document
from elsewhere.storage.files import list_folder, make_inside, refuse_link
from elsewhere.training.card_notes import note_of_modes
from elsewhere.training.curriculum import BatchNorm, Exemplars, Split, check_phase_name
from elsewhere.training.heads import replace_head
from elsewhere.training.resolution import load_phase_objects, place_objects
from elsewhere.training.seeds import draw_location
from elsewhere.training.seen import Past, digest_each, join, parse_view, set_name, unpack, view_of
from elsewhere.training.statistics import Done, find_norms
from elsewhere.training.toml import TomlSource, convert
from elsewhere.types import Channels, Location

MOST_TRAINED = 2**12
"""Locations that a card may list: those that training writes have 64 at most."""
ENCODING = "checkpoint"
VERSION = "0.2"
"""Since 0.2 a card is sealed; as it holds the checksum of the weights, they are covered as well."""


@dataclass(frozen=True)
class Card:
    """What a checkpoint is: how to rebuild the network, and how it came about.

    Parameters
    ----------
    model, arguments
        What the network is built from.
    mean, std, gain
        Its input transform.
    canvas
        The canvas it was trained on.
    curriculum, fingerprint, seed
        The curriculum's name and fingerprint, and the seed of the run.
    phase, phase_index, step, steps
        Where in the curriculum: after `step` of at most `steps` steps of the phase.
    final
        Whether the phase ended here.
    objects, split, categories, exemplars, exemplar_seed
        What the phase shows; `categories` are the classes of the head, unit by unit.
    environment
        Where it shows them.
    axes
        The axes of which it draws a value for each presentation, such as ``scale=0.5:2:5``.
    trained
        Locations the phase trains at, where they are the same for all classes and few; see
        :meth:`trained_locations` for the others.
    learning_rate
        Of the phase.
    train_accuracy
        Share of the phase's latest presentations that was classified correctly.
    accuracy_on, accuracy_off
        Of the probe, at trained locations and at others; None where there are none.
    accuracy_on_error, accuracy_off_error
        Standard errors of these; None in cards of older versions.
    training_mode, evaluation_mode
        Accuracies on the latest presentations of training, where batches are normalised by
        themselves and in evaluation mode; None where nothing gathers running statistics.
    batch_norm
        What becomes of the running statistics of normalisations: ``frozen``, ``batch``, as in cards
        of older versions, ``recalibrated``, or ``none`` where the network keeps none.
    batch_norm_default
        What becomes of them in a phase that says nothing of it, also one of a run that goes on from
        this checkpoint; None in cards of older versions.
    noise
        What acted in training only: ``dropout 0.5 (classifier.2)``, stochastic depth, or random
        numbers that a module draws in its own code.
    origin
        Where the weights that training began with come from, if they are published ones.
    criterion_step
        The step at which the phase's criterion was met, if it was by then.
    pictures
        Digests of the pictures that the phase trained on; empty in cards of older versions.
    seen
        How pictures were loaded (the side of an object, px, and of a folder's the colour of what is
        no object) to the digests of those trained on before the phase.
    classes
        Object set to the classes of it that were trained on before the phase.
    channels
        The order in which the network takes red, green and blue.
    passes
        How the network was run: on ``windows``, or on ``whole canvases`` and why.
    notes
        What a reader of its numbers has to know.
    numerics
        Device, threads, instructions and torch that it was trained with: its last bits depend on
        them.
    sha256
        Of the file of weights.
    path, trust, sealed
        Of the weights; the factories that the user names, see :func:`read_card`; whether the card
        carries a seal. None of these stands in the card.
    """

    model: str
    arguments: Mapping[str, Any]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    gain: float
    canvas: Canvas
    curriculum: str
    fingerprint: str
    seed: int
    phase: str
    phase_index: int
    step: int
    steps: int
    final: bool
    objects: str
    split: Split
    categories: tuple[str, ...]
    exemplars: Exemplars
    exemplar_seed: int
    environment: str
    trained: tuple[Location, ...] | None
    learning_rate: float
    train_accuracy: float | None = None
    accuracy_on: float | None = None
    accuracy_off: float | None = None
    accuracy_on_error: float | None = None
    accuracy_off_error: float | None = None
    training_mode: float | None = None
    evaluation_mode: float | None = None
    batch_norm: Done = "batch"
    batch_norm_default: BatchNorm | None = None
    noise: tuple[str, ...] = ()
    origin: str = ""
    criterion_step: int | None = None
    axes: tuple[str, ...] = ()
    pictures: str = ""
    seen: Mapping[str, str] = field(default_factory=dict)
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    channels: Channels = "rgb"
    passes: str = ""
    notes: tuple[str, ...] = ()
    numerics: Mapping[str, Any] = field(default_factory=dict)
    sha256: str = ""
    path: Path = field(default=Path(), compare=False)
    trust: tuple[str, ...] = field(default=(), compare=False)
    sealed: bool = field(default=True, compare=False)

    @property
    def transform(self) -> InputTransform:
        """The network's input."""
        return InputTransform(self.mean, self.std, self.gain, self.channels)

    def test_objects(
        self, *, per_category: int = 20, data_dir: Path | None = None
    ) -> tuple[ObjectSet, NDArray[np.bool_]]:
        """Return some exemplars that the phase trained on and some held out, and which are which.

        Parameters
        ----------
        per_category
            How many of each kind for each class, at most.
        data_dir
            The folder of the object sets that are not made here.

        Returns
        -------
        objects : ObjectSet
        held_out : ndarray
            bool (object,)
        """
        trained, held_out = self.load_objects(data_dir=data_dir)
        parts = []
        for category in self.categories:
            for objects in (trained, held_out):
                if objects is not None:
                    few = min(per_category, objects.categories.count(category))
                    parts.append(objects.select((category,), few))
        held = [np.full(len(part), number % 2 == 1) for number, part in enumerate(parts)]
        if held_out is None:
            held = [np.zeros(len(part), bool) for part in parts]
        return join(parts), np.concatenate(held)

    def trained_locations(
        self, *, data_dir: Path | None = None
    ) -> tuple[Location, ...] | dict[str, tuple[Location, ...]]:
        """Return all locations the phase trains at, px: the same for all classes, or by class.

        A class's are those of all its exemplars. None are returned where the environment is no
        longer registered.
        """
        if self.trained is not None:
            return self.trained
        window = self.canvas
        if self.axes:
            axes = Axes(tuple(map(parse_axis, self.axes)))
            trained, _ = self.load_objects(data_dir=data_dir)
            variants = vary(trained, axes.names, axes.positions.tolist())
            window = window_of(variants, self.canvas, axes.names)
        try:
            placement = place_objects(
                self.environment,
                window,
                n_classes=len(self.categories),
                n_exemplars=self.exemplars.train,
                phase=self.phase,
                exemplar_seed=self.exemplar_seed,
                drawn=draw_location(self.canvas, self.seed),
            )
        except UnknownNameError:
            return ()
        shared = placement.same_for_classes
        each = [
            tuple((y, x) for y, x in placement.locations(number).tolist())
            for number in range(1 if shared else len(self.categories))
        ]
        return each[0] if shared else dict(zip(self.categories, each, strict=True))

    def has_seen(self, objects: ObjectSet) -> NDArray[np.bool_]:
        """Return which pictures the network was trained on, by content, bool (object,)."""
        known = frozenset[bytes]().union(*self.past.pictures.values())
        return np.array([digest in known for digest in digest_each(objects)], bool)

    def load_objects(self, *, data_dir: Path | None = None) -> tuple[ObjectSet, ObjectSet | None]:
        """Return the exemplars the phase trained on, and those it held out (None: there are none).

        Their classes come in the order of the head's units. The card's digests say which pictures
        were trained on, whatever the set holds by now.
        """
        trained, held_out, _ = load_phase_objects(
            self.objects,
            self.canvas,
            categories=self.categories,
            train=self.exemplars.train,
            held_out=self.exemplars.held_out,
            seed=self.exemplar_seed,
            split=self.split,
            data_dir=data_dir,
            past=Past({view: unpack(text) for view, text in self.seen.items()}),
            trained=unpack(self.pictures) or None,
        )
        return trained, held_out

    @property
    def past(self) -> Past:
        """What the network has been trained on, the card's phase included."""
        own_view, name = view_of(self.objects, self.canvas), set_name(self.objects)
        pictures = {view: unpack(text) for view, text in self.seen.items()}
        pictures[own_view] = pictures.get(own_view, frozenset()) | unpack(self.pictures)
        for view in pictures:
            parse_view(view)
        own = dict.fromkeys((*self.classes.get(name, ()), *self.categories))
        return Past(pictures, {**self.classes, name: tuple(own)}, f"the checkpoint {self.path}")


_OLD = (
    "the checkpoint {} is of an older version and does not say which pictures it has seen: "
    "which are held out is taken from the set as it is now, and earlier phases may have seen them"
)
_NOT_WRITTEN = ("path", "trust", "sealed")


def checkpoint_path(directory: Path, phase: str, step: int) -> Path:
    """Return where a run keeps the weights after a step of a phase."""
    return directory / "checkpoints" / f"{phase}-{step:06d}.safetensors"


def save_checkpoint(path: Path, state: Mapping[str, torch.Tensor], card: Card) -> Card:
    """Write weights and card, each whole or not at all, and return the card with its checksum.

    Raises
    ------
    StorageError
        They cannot be written.
    """
    tensors = {
        name: value.detach().cpu().contiguous().clone(memory_format=torch.contiguous_format)
        for name, value in state.items()
    }
    data = save(tensors)
    card = dataclasses.replace(card, sha256=hashlib.sha256(data).hexdigest(), path=path)
    table = dataclasses.asdict(card)
    for name in _NOT_WRITTEN:
        del table[name]
    make_inside(path.parent.parent, path.parent.name)
    write_atomically(path, data)
    write_document(path.with_suffix(".json"), table, encoding=ENCODING, version=VERSION)
    return card


def read_card(path: str | Path, *, trust: Collection[str] = ()) -> Card:
    """Return the card of a checkpoint, given its weights or the card itself.

    Parameters
    ----------
    path
        The weights, or the card beside them.
    trust
        Factories (``package.module:factory``) that may be built if the card names them; see
        docs/security.md.

    Raises
    ------
    StorageError
        It is missing, damaged or of something else.
    """
    card = _read_card(Path(path), trust)
    if not card.sealed:
        tell_unsealed(card.path.with_suffix(".json"))
    return card


def _read_card(path: Path, trust: Collection[str]) -> Card:
    path = path.with_suffix(".json")
    expected = "a checkpoint's card, which training writes beside the weights"
    table, sealed = read_document(path, encoding=ENCODING, expected=expected)
    try:
        if extra := sorted(set(table) & set(_NOT_WRITTEN)):
            raise InputError(f"unknown key {extra[0]!r}")
        card: Card = convert(table, Card, (), TomlSource())
        check_phase_name(card.phase, "phase")
        if min(card.step, card.phase_index, card.seed) < 0:
            raise InputError("step, phase_index and seed: expected 0 or more")
        if len(card.trained or ()) > MOST_TRAINED:
            raise InputError(f"trained: more than {MOST_TRAINED} locations; training lists few")
        if not re.fullmatch("[0-9a-f]{64}", card.sha256):
            raise InputError(f"sha256: expected 64 hexadecimal digits; got {card.sha256[:80]!r}")
        card.transform  # noqa: B018  (refuses numbers that make no input)
        card.past  # noqa: B018  (refuses damaged digests)
    except InputError as error:
        raise StorageError(f"the checkpoint's card {path} cannot be understood: {error}") from error
    weights = path.with_suffix(".safetensors")
    if not card.pictures:
        card = dataclasses.replace(card, notes=(*card.notes, _OLD.format(weights.name)))
    return dataclasses.replace(card, path=weights, trust=tuple(trust), sealed=sealed)


def list_checkpoints(directory: str | Path, *, trust: Collection[str] = ()) -> list[Card]:
    """Return the cards of a run's checkpoints, by phase and step; links are not followed.

    Parameters
    ----------
    directory
        What training left.
    trust
        See :func:`read_card`.

    Raises
    ------
    StorageError
        The directory holds none, or a card is damaged.
    """
    folder = Path(directory) / "checkpoints"
    refuse_link(folder)
    cards = []
    for path in list_folder(folder, "*.json"):
        weights = path.with_suffix(".safetensors")
        refuse_link(path)
        refuse_link(weights)
        if weights.is_file():
            cards.append(_read_card(path, trust))
    if not cards:
        lost = ", ".join(
            path.with_suffix(".safetensors").name for path in lone_cards(directory)[:3]
        )
        raise StorageError(
            f"{directory} holds the cards of its checkpoints, and the weights of none ({lost}); "
            "put them back, or train again into another directory"
            if lost
            else f"{directory} holds no checkpoint; expected a directory that training wrote"
        )
    if not all(card.sealed for card in cards):
        tell_unsealed(folder)
    return sorted(cards, key=lambda card: (card.phase_index, card.step))


def lone_cards(directory: str | Path) -> list[Path]:
    """Return the cards of a run that have no weights beside them."""
    found = list_folder(Path(directory) / "checkpoints", "*.json")
    return [path for path in found if not path.with_suffix(".safetensors").is_file()]


def final_card(cards: Sequence[Card], phase: str | None = None) -> Card:
    """Return the card of the checkpoint with which a run, or a phase of it, ended.

    Raises
    ------
    StorageError
        There is none.
    """
    ends = [card for card in cards if phase in (None, card.phase) and card.final]
    if not ends:
        raise StorageError(
            f"{cards[0].path.parent.parent} lacks the final checkpoint of "
            f"{'its last phase' if phase is None else f'phase {phase!r}'}, which a later one "
            "starts from; delete the directory and train again"
        )
    return ends[-1]


def read_weights(card: Card) -> dict[str, torch.Tensor]:
    """Return the weights of a checkpoint, on the CPU.

    Raises
    ------
    WeightsError
        They are missing, or not what the card says.
    """
    try:
        data = card.path.read_bytes()
    except OSError as error:
        raise WeightsError(
            f"the checkpoint {card.path} cannot be read: {error.strerror}; its card is there"
        ) from error
    if hashlib.sha256(data).hexdigest() != card.sha256:
        raise WeightsError(
            f"the checkpoint {card.path} is damaged: its content ({len(data)} bytes) is not what "
            "its card says; train again, or take another checkpoint"
        )
    try:
        state: dict[str, torch.Tensor] = load(data)
    except SafetensorError as error:
        raise WeightsError(f"the checkpoint {card.path} is damaged: {error}") from error
    return state


def check_trusted(card: Card, *, trust: Collection[str] = ()) -> None:
    """Refuse a card that names a factory which the user does not.

    Raises
    ------
    InputError
        The message says which, and what to add.
    """
    source = f"the checkpoint's card {card.path.with_suffix('.json')}"
    check_named(card.model, source, {*trust, *card.trust})


def load_checkpoint(path: str | Path | Card, *, trust: Collection[str] = ()) -> Model:
    """Return the network of a checkpoint, in evaluation mode on the CPU.

    Parameters
    ----------
    path
        The weights, or the card beside them; or the card as it was read.
    trust
        See :func:`read_card`.

    Raises
    ------
    InputError
        The card names a factory that the user does not.
    StorageError
        The card is missing or damaged.
    WeightsError
        The weights are damaged, or of another architecture than the card's.
    """
    card = path if isinstance(path, Card) else read_card(path, trust=trust)
    check_trusted(card, trust=trust)
    state = read_weights(card)
    try:
        model = load_model(card.model, model_args=card.arguments, transform=card.transform)
        model = dataclasses.replace(model, canvas_size=card.canvas.size)
        if find_head(model)[1].out_features != len(card.categories):
            model = replace_head(model, len(card.categories), seed=0)
        model = with_head_named(model)
    except WeightsError:
        raise
    except ElsewhereError as error:
        raise WeightsError(f"cannot rebuild the network of {card.path}: {error}") from error
    fit_state(model.module, state, source=str(card.path))
    said = note_of_modes(card.training_mode, card.evaluation_mode, card.batch_norm)
    return dataclasses.replace(
        model,
        notes=(*model.notes, *(f"phase {card.phase}: {note}" for note in said)),
        batch_norm=card.batch_norm if find_norms(model.module) else "",
        noise=card.noise,
        origin=card.origin,
        weights=card.path.name,
        seed=None,
        weights_sha256=state_sha256(model.module.state_dict()),
        classes=card.categories,
        unrepeated=tuple(name for name in model.unrepeated if name not in state),
    )
