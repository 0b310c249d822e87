"""Statistics of batch normalisation: frozen, gathered, or measured anew for the weights.

Running statistics belong to the weights with which they were gathered. An exponential mean lags
behind weights that move; averaged weights, or weights of another training, need their own (as
``torch.optim.swa_utils.update_bn`` measures them).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import nn

from elsewhere.errors import InputError
from elsewhere.models.forward import evaluating
from elsewhere.training.batches import PRESENTATIONS
from elsewhere.training.curriculum import BatchNorm, Network, Phase

Done: TypeAlias = Literal["frozen", "batch", "recalibrated", "none"]
"""What became of running statistics; ``none`` where the network keeps none."""

_Normalisation = nn.modules.batchnorm._NormBase


@dataclass(frozen=True)
class Treatment:
    """What a phase does with the running statistics of normalisations.

    Parameters
    ----------
    mode
        See :class:`elsewhere.training.Network`.
    stated
        Where it says so: in the ``phase``, the ``network`` or nowhere.
    freeze_affine
        Whether affine parameters of frozen ones are frozen, too.
    """

    mode: BatchNorm = "batch"
    stated: Literal["phase", "network", ""] = ""
    freeze_affine: bool = False

    @classmethod
    def of(cls, network: Network, phase: Phase, default: BatchNorm) -> Treatment:
        """Return what a phase of a curriculum does: where it states nothing, the `default`."""
        stated: Literal["phase", "network", ""] = "phase" if phase.batch_norm else "network"
        mode = phase.batch_norm or network.batch_norm
        affine = network.freeze_affine if phase.freeze_affine is None else phase.freeze_affine
        return cls(mode or default, stated if mode else "", bool(affine))

    def rest(self, network: nn.Module) -> None:
        """Put normalisations into evaluation mode where they are frozen."""
        if self.mode == "frozen":
            for norm in find_norms(network).values():
                norm.training = False

    def left_out(self, network: nn.Module) -> set[str]:
        """Return the names of the parameters that are not trained for it."""
        if self.mode != "frozen" or not self.freeze_affine:
            return set()
        return {
            f"{name}.{key}"
            for name, norm in find_norms(network).items()
            for key, _ in norm.named_parameters(recurse=False)
        }

    def done(self, network: nn.Module) -> Done:
        """Return what becomes of the statistics of a network whose modes are set; or ``none``."""
        norms = find_norms(network).values()
        if not norms:
            return "none"
        if any(norm.training for norm in norms):
            return self.mode
        return "recalibrated" if self.mode == "recalibrated" and untouched(network) else "frozen"

    def check(self, network: nn.Module, name: str, presentations: int) -> None:
        """Refuse what is stated and does nothing, or cannot be done in so many presentations.

        Raises
        ------
        InputError
            Saying what to write instead.
        """
        if self.stated and not find_norms(network):
            raise InputError(
                f"{self.mode!r} does nothing: {name} has no normalisation that keeps running "
                "statistics, such as torch.nn.BatchNorm2d; leave the key out"
            )
        if self.stated and self.mode == "recalibrated" and presentations < PRESENTATIONS:
            raise InputError(
                f"the phase is too short to recalibrate: it has {presentations} presentations, and "
                f"statistics are measured over {PRESENTATIONS}; add steps, or write batch_norm = "
                "'batch' or 'frozen' in this phase"
            )

    def check_affine(self, network: nn.Module, name: str) -> None:
        """Refuse freeze_affine where it does nothing.

        Raises
        ------
        InputError
            Saying why.
        """
        if not self.freeze_affine or self.left_out(network):
            return
        reason = f"{name} has no normalisation with running statistics, weights and biases"
        if self.mode != "frozen":
            reason = f"batch_norm is {self.mode!r} here, and it goes with 'frozen' only"
        raise InputError(
            f"does nothing: {reason}; leave it out, or write freeze_affine = false in this phase"
        )


AS_BUILT = Treatment()
"""What torch does."""


def is_norm(part: nn.Module) -> bool:
    """Return whether a module is one of torch's normalisations, and keeps running statistics."""
    return isinstance(part, _Normalisation) and part.running_mean is not None


def find_norms(network: nn.Module) -> dict[str, nn.Module]:
    """Return the layers that keep running statistics, by name."""
    return {name: part for name, part in network.named_modules() if is_norm(part)}


def untouched(network: nn.Module) -> bool:
    """Return whether there are running statistics, and all are what they start with, 0 and 1."""
    norms = [part for part in network.modules() if isinstance(part, _Normalisation)]
    held = [(n.running_mean, n.running_var) for n in norms]
    known = [(mean, var) for mean, var in held if mean is not None and var is not None]
    touched = [mean.any() | (var != 1).any() for mean, var in known]
    return bool(known) and not bool(torch.stack(touched).any())  # a device is asked once


def compare_modes(
    network: nn.Module,
    run: Callable[[torch.Tensor], torch.Tensor],
    shown: Callable[[], Iterable[tuple[torch.Tensor, torch.Tensor]]],
) -> tuple[float, float] | None:
    """Return the accuracy where batches are normalised by themselves, and in evaluation mode.

    What gathers statistics is what holds buffers of its own and is in training mode. All else, such
    as dropout, is in evaluation mode both times; buffers stay as they are.

    Parameters
    ----------
    network
        Its modes are as in training.
    run
        Returns its logits for images.
    shown
        Begins batches of images and labels, the same each time.

    Returns
    -------
    tuple of float, or None
        None where nothing gathers statistics, or nothing is shown.
    """
    parts = [
        part
        for part in network.modules()
        if part.training and any(value is not None for value in part._buffers.values())
    ]
    if not parts:
        return None
    found = []
    for gathering in (True, False):
        with kept_buffers(network), torch.no_grad(), evaluating(network, inference=False):
            for part in parts:
                part.training = gathering
            right = [run(images).argmax(1) == labels for images, labels in shown()]
        if not right:
            return None
        found.append(torch.cat(right).double().mean().item())
    return found[0], found[1]


@contextmanager
def kept_buffers(network: nn.Module) -> Iterator[None]:
    """Restore every buffer afterwards, to the bit."""
    before = [(buffer, buffer.clone()) for buffer in network.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, values in before:
                buffer.copy_(values)


@torch.no_grad()
def measure_statistics(network: nn.Module, images: Iterable[torch.Tensor]) -> int:
    """Measure the running statistics of normalisations anew, as plain means over batches.

    Parameters
    ----------
    network
        Its modes say which normalisations are meant: those in training mode. Meanwhile all else is
        in evaluation mode (dropouts rest, as they do where the statistics are used).
    images
        Batches as the network takes them, (image, 3, height, width); two images or more each.

    Returns
    -------
    int
        How many normalisations were measured; without any, no batch is run.

    Examples
    --------
    >>> norm = nn.BatchNorm2d(3)
    >>> measure_statistics(nn.Sequential(norm), [torch.full((2, 3, 4, 4), 5.0)] * 2)
    1
    >>> norm.running_mean
    tensor([5., 5., 5.])
    """
    meant = [
        part
        for part in network.modules()
        if isinstance(part, _Normalisation) and part.training and part.running_mean is not None
    ]
    if not meant:
        return 0
    momenta = [part.momentum for part in meant]
    seen = dict.fromkeys(meant, 0)

    def weigh(norm: nn.Module, _: object) -> None:
        """Let the batch count as much as each before: also instances, and a layer used twice."""
        seen[norm] += 1  # type: ignore[index]
        norm.momentum = 1 / seen[norm]  # type: ignore[assignment, index]

    handles = [norm.register_forward_pre_hook(weigh) for norm in meant]
    with evaluating(network, inference=False):
        try:
            for norm in meant:
                norm.reset_running_stats()
                norm.training = True
            for batch in images:
                network(batch)
        finally:
            for handle in handles:
                handle.remove()
            for norm, momentum in zip(meant, momenta, strict=True):
                norm.momentum = momentum
    return len(meant)


def measure_at_rest(network: nn.Module, images: Iterable[torch.Tensor]) -> None:
    """Measure statistics that nothing has gathered and nothing will: all layers are frozen.

    Once is enough, since neither the weights nor what is shown change. For `images` see
    :func:`measure_statistics`; nothing is done where a normalisation is in training mode, or
    statistics are there.
    """
    norms = find_norms(network).values()
    if any(norm.training for norm in norms) or not untouched(network):
        return
    for norm in norms:
        norm.training = True
    try:
        measure_statistics(network, images)
    finally:
        for norm in norms:
            norm.training = False
