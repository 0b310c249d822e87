"""Checkpoints: weights as safetensors, and beside them a card in JSON that says what they are."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from elsewhere.errors import (
    ElsewhereError,
    InputError,
    StorageError,
    WeightsError,
)
from elsewhere.models import Model, load_model, state_sha256
from elsewhere.models.heads import find_head, with_head_named
from elsewhere.models.names import check_named
from elsewhere.models.weights import fit_state
from elsewhere.storage import write_atomically
from elsewhere.storage.documents import read_document, tell_unsealed, write_document
from elsewhere.storage.files import list_folder, make_inside, refuse_link
from elsewhere.training.card_notes import BY_MODE, note_of_modes
from elsewhere.training.cards import Card
from elsewhere.training.curriculum import check_phase_name
from elsewhere.training.heads import replace_head
from elsewhere.training.statistics import find_norms
from elsewhere.training.toml import TomlSource, convert

MOST_TRAINED = 2**12
"""Locations that a card may list: those that training writes have 64 at most."""
ENCODING = "checkpoint"
VERSION = "0.2"
"""Since 0.2 a card is sealed; as it holds the checksum of the weights, they are covered as well."""


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
    said = [note for note in card.notes if BY_MODE in note] or [
        f"phase {card.phase}: {note}"
        for note in note_of_modes(card.training_mode, card.evaluation_mode, card.batch_norm)
    ]
    return dataclasses.replace(
        model,
        notes=(*model.notes, *said),  # in the card's words: it is said once
        batch_norm=card.batch_norm if find_norms(model.module) else "",
        noise=card.noise,
        origin=card.origin,
        weights=card.path.name,
        seed=None,
        weights_sha256=state_sha256(model.module.state_dict()),
        classes=card.categories,
        unrepeated=tuple(name for name in model.unrepeated if name not in state),
    )
