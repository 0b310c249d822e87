"""Statistics of batch normalisation, measured anew for the weights as they are.

Running statistics belong to the weights with which they were gathered. Averaged weights, or weights
of another training, need their own (as ``torch.optim.swa_utils.update_bn`` measures them).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from elsewhere.models.forward import evaluating

_Normalisation = nn.modules.batchnorm._NormBase


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

    The network's modes say which normalisations are meant: those in training mode. Meanwhile all
    else is in evaluation mode (dropouts rest, as they do where the statistics are used). Batches
    are as the network takes them, (image, 3, height, width); two images or more each. How many
    normalisations were measured is returned; without any, no batch is run.

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
    with evaluating(network, inference=False):
        try:
            for norm in meant:
                norm.reset_running_stats()
                norm.momentum, norm.training = None, True
            for batch in images:
                network(batch)
        finally:
            for norm, momentum in zip(meant, momenta, strict=True):
                norm.momentum = momentum
    return len(meant)
