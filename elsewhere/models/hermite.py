"""Filters confined to a Gauss-Hermite basis (Sundaramoorthi & Wang 2019)."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import nn
from torch.nn import functional

from elsewhere.errors import InputError

ORDER = 2
"""The largest sum of the two orders of a function of the basis: six functions."""
SIDE = 5
"""Cells along a filter, at least: three do not hold a Gaussian."""


def hermite_functions(order: int, x: ArrayLike) -> NDArray[np.float64]:
    """Return the Hermite functions of orders 0 to `order`, shape (order + 1, ...), at `x`.

    They are orthonormal over the real line. A filter ``f`` of orders up to n changes under a shift
    by ``d`` deviations by no more than ``d * sqrt(2 n + 1) * |f|``, for
    ``h_n' = sqrt(n / 2) h_(n-1) - sqrt((n + 1) / 2) h_(n+1)``.

    Examples
    --------
    >>> hermite_functions(1, [0.0]).round(4).tolist()
    [[0.7511], [0.0]]
    """
    points = np.asarray(x, dtype=np.float64)
    functions = [np.exp(-(points**2) / 2) / math.pi**0.25]
    for n in range(order):
        before = functions[n - 1] * math.sqrt(n / (n + 1)) if n else 0.0
        functions.append(math.sqrt(2 / (n + 1)) * points * functions[n] - before)
    return np.stack(functions)


def hermite_basis(side: int, order: int = ORDER) -> NDArray[np.float64]:
    """Return a basis of filters, shape (function, side, side), orthonormal over their cells.

    Products of two Hermite functions whose orders add up to `order` at most, of a Gaussian whose
    deviation is a fifth of the side, made orthonormal on the cells one function after the other.
    """
    cells = (np.arange(side) - (side - 1) / 2) * 5 / side
    lines, _ = np.linalg.qr(hermite_functions(order, cells).T)
    pairs = [(y, n - y) for n in range(order + 1) for y in range(n + 1)]
    return np.stack([np.outer(lines[:, y], lines[:, x]) for y, x in pairs])


class HermiteConv2d(nn.Conv2d):
    """A convolution whose filters are sums of a given basis; `weight` holds their shares, shape
    (out, in, function)."""

    basis: torch.Tensor

    @property
    def filters(self) -> torch.Tensor:
        """The filters, shape (out, in, side, side)."""
        filters: torch.Tensor = torch.tensordot(self.weight, self.basis, dims=1)
        return filters

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return the map, shape (n, channel, height, width), of `values` of such a shape."""
        return functional.conv2d(
            values, self.filters, self.bias, self.stride, self.padding, self.dilation, self.groups
        )


def confine_filters(network: nn.Module) -> None:
    """Confine every filter of more than one cell to a Gauss-Hermite basis of orders 0 to 2.

    Filters of 3 cells a side become 5 cells wide, for three do not hold a Gaussian; maps keep
    their size. Shares are drawn with half the variance that would keep that of noise (He et al.
    2015): maps are smooth, and low orders answer smooth maps about twice as strongly.
    """
    found = 0
    for part in network.modules():
        if not isinstance(part, nn.Conv2d) or max(part.kernel_size) < 3:
            continue
        if type(part) is not nn.Conv2d:
            raise InputError("another variant has changed one of its convolutions already")
        high, wide = part.kernel_size
        if high != wide or high % 2 == 0 or not isinstance(part.padding, tuple):
            raise InputError(f"a filter of {high} by {wide} cells; expected odd squares")
        side = max(SIDE, high)
        basis = torch.from_numpy(hermite_basis(side).astype(np.float32))
        more = (side - high) // 2 * part.dilation[0]
        shares = torch.empty(*part.weight.shape[:2], len(basis))
        fan = 2 * shares.shape[1] * shares.shape[2]
        object.__setattr__(part, "__class__", HermiteConv2d)
        part.kernel_size = (side, side)
        part.padding = (part.padding[0] + more, part.padding[1] + more)
        part.weight = nn.Parameter(nn.init.normal_(shares, std=math.sqrt(2 / fan)))
        part.register_buffer("basis", basis, persistent=False)
        found += 1
    if not found:
        raise InputError("it has no convolution of more than one cell")
