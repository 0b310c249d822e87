"""Checkpoints: weights as safetensors, and beside them a card in JSON that says what they are."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load, save

from elsewhere.errors import ElsewhereError, StorageError, WeightsError
from elsewhere.models import InputTransform, Model, load_model, state_sha256
from elsewhere.models.weights import fit_state
from elsewhere.stimuli import Canvas, ObjectSet
from elsewhere.storage import write_atomically
from elsewhere.training.curriculum import Exemplars, Split
from elsewhere.training.heads import find_head, replace_head
from elsewhere.training.resolution import load_phase_objects
from elsewhere.types import Location

ENCODING = "checkpoint"
VERSION = "0.1"


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
    trained
        Locations the phase trains at, where they are the same for all classes and few.
    learning_rate
        Of the phase.
    train_accuracy
        Share of the phase's latest presentations that was classified correctly.
    accuracy_on, accuracy_off
        Of the probe, at trained locations and at others; None where there are none.
    criterion_step
        The step at which the phase's criterion was met, if it was by then.
    passes
        How the network was run: on ``windows``, or on ``whole canvases`` and why.
    notes
        What a reader of its numbers has to know.
    sha256
        Of the file of weights.
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
    criterion_step: int | None = None
    passes: str = ""
    notes: tuple[str, ...] = ()
    sha256: str = ""
    path: Path = field(default=Path(), compare=False)

    @property
    def transform(self) -> InputTransform:
        """The network's input."""
        return InputTransform(self.mean, self.std, self.gain)

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
        n_train, n_held_out = self.exemplars.train, self.exemplars.held_out
        objects, _ = load_phase_objects(
            self.objects,
            self.canvas,
            categories=self.categories,
            train=n_train + n_held_out,
            held_out=0,
            seed=self.exemplar_seed,
            split=self.split,
            data_dir=data_dir,
        )
        exemplar = objects.exemplar_index
        held_out = exemplar >= n_train
        chosen = np.where(held_out, exemplar - n_train, exemplar) < per_category
        return objects.subset(np.flatnonzero(chosen)), held_out[chosen]

    def load_objects(self, *, data_dir: Path | None = None) -> tuple[ObjectSet, ObjectSet | None]:
        """Return the exemplars the phase trained on, and those it held out (None: there are none).

        Their classes come in the order of the head's units.
        """
        return load_phase_objects(
            self.objects,
            self.canvas,
            categories=self.categories,
            train=self.exemplars.train,
            held_out=self.exemplars.held_out,
            seed=self.exemplar_seed,
            split=self.split,
            data_dir=data_dir,
        )


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
    table = {"elsewhere_encoding": ENCODING, "encoding_version": VERSION}
    table |= dataclasses.asdict(card)
    del table["path"]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, data)
    text = json.dumps(table, indent=1, sort_keys=True, allow_nan=False)
    write_atomically(path.with_suffix(".json"), text.encode())
    return card


def is_checkpoint(path: str | Path) -> bool:
    """Return whether `path` is weights with a card beside them, or such a card."""
    path = Path(path)
    if path.suffix not in (".safetensors", ".json"):
        return False
    return path.with_suffix(".safetensors").is_file() and path.with_suffix(".json").is_file()


def read_card(path: str | Path) -> Card:
    """Return the card of a checkpoint, given its weights or the card itself.

    Raises
    ------
    StorageError
        It is missing, damaged or of something else.
    """
    path = Path(path).with_suffix(".json")
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StorageError(
            f"the checkpoint's card {path} cannot be read ({error.strerror}); expected it beside "
            "the weights"
        ) from error
    except ValueError as error:
        raise StorageError(f"the checkpoint's card {path} is damaged: {error}") from error
    stamp = table.pop("elsewhere_encoding", None) if isinstance(table, dict) else None
    if stamp != ENCODING:
        raise StorageError(f"{path} is no checkpoint's card; expected one that training wrote")
    version = table.pop("encoding_version", None)
    try:
        if table["canvas"]["background"] != "mean" and isinstance(
            table["canvas"]["background"], list
        ):
            table["canvas"]["background"] = tuple(table["canvas"]["background"])
        table["canvas"] = Canvas(**table["canvas"])
        table["exemplars"] = Exemplars(**table["exemplars"])
        for name in ("mean", "std", "categories", "notes"):
            table[name] = tuple(table.get(name, ()))
        if table["trained"] is not None:
            table["trained"] = tuple((int(y), int(x)) for y, x in table["trained"])
        return Card(**table, path=path.with_suffix(".safetensors"))
    except (KeyError, TypeError, ValueError) as error:
        raise StorageError(
            f"the checkpoint's card {path} (version {version}) cannot be understood: "
            f"{type(error).__name__}: {error}"
        ) from error


def list_checkpoints(directory: str | Path) -> list[Card]:
    """Return the cards of a run's checkpoints, by phase and step.

    Raises
    ------
    StorageError
        The directory holds none, or a card is damaged.
    """
    folder = Path(directory) / "checkpoints"
    cards = [
        read_card(path)
        for path in folder.glob("*.json")
        if path.with_suffix(".safetensors").exists()
    ]
    if not cards:
        raise StorageError(
            f"{directory} holds no checkpoint; expected a directory that training wrote"
        )
    return sorted(cards, key=lambda card: (card.phase_index, card.step))


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


def load_checkpoint(path: str | Path) -> Model:
    """Return the network of a checkpoint, in evaluation mode on the CPU.

    Parameters
    ----------
    path
        The weights, or the card beside them.

    Raises
    ------
    StorageError
        The card is missing or damaged.
    WeightsError
        The weights are damaged, or of another architecture than the card's.
    """
    card = read_card(path)
    state = read_weights(card)
    try:
        model = load_model(card.model, model_args=card.arguments, transform=card.transform)
        if find_head(model)[1].out_features != len(card.categories):
            model = replace_head(model, len(card.categories), seed=0)
    except WeightsError:
        raise
    except ElsewhereError as error:
        raise WeightsError(f"cannot rebuild the network of {card.path}: {error}") from error
    fit_state(model.module, state, source=str(card.path))
    return dataclasses.replace(
        model,
        weights=card.path.name,
        weights_sha256=state_sha256(model.module.state_dict()),
        canvas_size=card.canvas.size,
    )
