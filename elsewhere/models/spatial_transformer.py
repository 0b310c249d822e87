"""A spatial transformer in front of a network, which sees a window (Jaderberg et al. 2015)."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from elsewhere.models.zoo import initialize


class WindowPlace(nn.Identity):
    """Where a :class:`Window` lies, ``(size, x, y)``: which the measure ``window`` takes."""


class Window(nn.Module):
    """A window of the canvas, chosen by a small network, shown to the next in its place.

    `locate` gives ``(size, x, y)`` of the window, as a share of the canvas: side over the canvas's
    side, and its centre, -1 at the left and upper edge, 1 at the right and lower one (equation 2 of
    the cited paper, the "attention" transformer); that is the layer `place`. Untrained, the window
    is the whole canvas.
    """

    def __init__(self) -> None:
        super().__init__()
        self.locate = nn.Sequential(
            nn.Conv2d(3, 16, kernel_size=5, stride=2, padding=2),
            nn.ReLU(inplace=True),
            nn.Conv2d(16, 32, kernel_size=5, stride=2, padding=2),
            nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool2d(8),
            nn.Flatten(),
            nn.Linear(32 * 8 * 8, 64),
            nn.ReLU(inplace=True),
            nn.Linear(64, 3),
        )
        initialize(self.locate)
        self.place = WindowPlace()
        places = torch.zeros(3, 6)  # of (size, x, y) in the matrix [[size, 0, x], [0, size, y]]
        places[[0, 0, 1, 2], [0, 4, 2, 5]] = 1
        self.register_buffer("places", places, persistent=False)
        last = self.locate.get_submodule("8")
        last.load_state_dict({"weight": torch.zeros(3, 64), "bias": torch.tensor([1.0, 0, 0])})

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return the window, shape (n, 3, height, width), of `values` of this shape."""
        rows = self.place(self.locate(values)) @ self.places
        rows = rows.reshape(-1, 2, 3)
        grid = functional.affine_grid(rows, list(values.shape), align_corners=False)
        return functional.grid_sample(values, grid, align_corners=False)


class _Looking(nn.Module):
    """A network that is shown its own window; derived from together with the network's class."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = super().forward(self.window(values))  # type: ignore[operator]
        return result


def look_first(network: nn.Module) -> None:
    """Let a network see a :class:`Window` of its canvas, its module ``window``."""
    kind = type(network)
    looking = type(f"Looking{kind.__name__}", (_Looking, kind), {"__module__": __name__})
    network.add_module("window", Window())
    object.__setattr__(network, "__class__", looking)
