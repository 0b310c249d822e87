"""What a run cannot promise of its network, said in every checkpoint from then on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

import torch
from torch import nn

from elsewhere.logs import get_logger
from elsewhere.models.memory import Memory
from elsewhere.models.proof import alike, undisturbed

logger = get_logger(__name__)


def note_of_loss(lost: Sequence[str]) -> str:
    """Return what a run that goes on without some of what its network remembers says for good."""
    return (
        f"the run went on without {', '.join(lost[:3])}, which the network changes and no state "
        "can hold: its weights are not those of a run without a break"
    )


APART = 0.1
"""Accuracies in training and in evaluation mode that differ by more are said to."""

MODES = ("training_mode", "evaluation_mode")
"""Names of these accuracies in cards and reports."""

BY_MODE = "of the presentations that it was trained on last, the network classifies"
"""How a note on them begins."""


def note_of_modes(
    training: float | None, evaluation: float | None, batch_norm: str = "batch"
) -> list[str]:
    """Return what to say of accuracies on the same presentations that differ by the mode.

    `batch_norm` is what became of running statistics: where they were not gathered as in torch,
    measuring anew was done or would not reach them.
    """
    if training is None or evaluation is None or abs(training - evaluation) <= APART:
        return []
    remedy = (
        "train with batch_norm = 'recalibrated', which reaches torch's own normalisations (such as "
        "torch.nn.BatchNorm2d)"
        if batch_norm == "batch"
        else "what measures statistics anew reaches torch's own normalisations (such as "
        "torch.nn.BatchNorm2d), each in one place of the network: build it of these"
    )
    return [
        f"{BY_MODE} {training:.2f} correctly where batches are normalised by themselves, as in "
        f"training, and {evaluation:.2f} in evaluation mode: the running statistics are not those "
        f"of its weights, and what is measured on it is not what training has made; {remedy}"
    ]


class Doubts:
    """Notes on a network that remembers, or draws from, more than checkpoints and seeds hold.

    It is in the mode in which it is trained, and `run` returns its logits for some images, always
    the same.
    """

    def __init__(self, network: nn.Module, run: Callable[[], torch.Tensor]) -> None:
        self.notes: list[str] = []
        self.memory = Memory(network, hooks=True)
        self._network, self._run = network, run
        found: list[torch.Tensor] = []
        with contextlib.suppress(Exception), torch.no_grad():  # training says what fails
            for _ in range(2):
                with undisturbed(network):
                    found.append(run())
        if len(found) == 2 and not alike(found[1], found[0]):
            self.add(
                "two passes of the network that began alike differ: it draws from something that "
                "no seed reaches, so that the run can be neither repeated nor gone on with alike"
            )

    def add(self, note: str) -> None:
        """Say something, once."""
        if note not in self.notes:
            self.notes.append(note)
            logger.warning("%s", note)

    def look(self) -> None:
        """Say what a checkpoint that is written now does not hold."""
        if outside := self.memory.outside():
            self.add(
                f"the network changes {', '.join(outside[:3])}, outside itself: another run, or "
                "one that goes on after a break, may come out otherwise"
            )
        changed = self.memory.changed()
        found: list[torch.Tensor] = []
        for kept in (changed, {}) if changed else ():
            with undisturbed(self._network), torch.no_grad():
                self.memory.restore(kept)
                self._network.eval()
                found.append(self._run())
        if found and not alike(found[1], found[0]):
            self.add(
                f"the network remembers {', '.join(list(changed)[:3])} outside its state_dict, "
                "which training changes and checkpoints do not hold: they are tested with what its "
                "factory makes"
            )
