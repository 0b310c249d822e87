"""Wavelet scattering: a network whose filters are given, not learnt (Bruna & Mallat 2012)."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from elsewhere.errors import InputError

_SLANT = 4.0
"""Of an envelope: its extent across the wave over that along it, times the orientations."""


class Scattering(nn.Module):
    """Moduli of Morlet wavelets, averaged over 2^J px, of each colour; and a linear head.

    Of orders 0, 1 and 2: the picture, ``|x * psi|`` and ``||x * psi| * psi'|`` with a wider psi',
    each convolved with a Gaussian and sampled every ``2 ** J`` px. What moves by less than 2^J px
    changes them little, whatever the head learns. Features are normalised by their statistics in
    training (batch normalisation without parameters), for higher orders are small.

    Parameters
    ----------
    J
        Scales: wavelets of 1, 2, ... ``2 ** (J - 1)`` px.
    L
        Orientations of each.
    canvas
        Side of the canvas, px: a multiple of ``2 ** J``.
    num_classes
        Outputs.

    Notes
    -----
    The wavelets are those of kymatio 0.3 (Andreux et al. 2020), which takes 3.1415 for pi in each
    filter's norm: but for this factor, coefficients are within 1e-6 of its.

    Examples
    --------
    >>> Scattering(J=2, L=4, canvas=16).scatter(torch.zeros(1, 3, 16, 16)).shape
    torch.Size([1, 75, 4, 4])
    """

    def __init__(self, *, J: int = 3, L: int = 4, canvas: int = 64, num_classes: int = 10) -> None:
        super().__init__()
        for name, value, least in (("J", J, 1), ("L", L, 1), ("num_classes", num_classes, 1)):
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise InputError(f"{name} must be an integer of at least {least}; got {value!r}")
        if not isinstance(canvas, int) or canvas % 2**J or canvas < 2 ** (J + 1):
            raise InputError(
                f"the canvas of a scattering of J={J} must be a multiple of {2**J} px, and at "
                f"least {2 ** (J + 1)}; got {canvas!r}"
            )
        self.canvas_size = canvas
        self.maps = _Maps(J, L, canvas)
        count = 3 * (1 + J * L + L * L * J * (J - 1) // 2)
        self.norm = nn.BatchNorm2d(count, affine=False)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(count * (canvas // 2**J) ** 2, num_classes)
        nn.init.normal_(self.fc.weight, std=1 / math.sqrt(self.fc.in_features))
        nn.init.zeros_(self.fc.bias)

    def scatter(self, values: torch.Tensor) -> torch.Tensor:
        """Return the coefficients, shape (n, 3 * paths, side, side), before normalisation.

        Paths are in the order of kymatio: order 0; order 1 by scale and orientation; order 2 by
        the first wavelet's scale and orientation, then the second's.
        """
        result: torch.Tensor = self.maps(values)
        return result

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Return the logits, shape (n, num_classes), of `values`, shape (n, 3, side, side)."""
        logits: torch.Tensor = self.fc(self.flatten(self.norm(self.maps(values))))
        return logits


class _Maps(nn.Module):
    def __init__(self, scales: int, orientations: int, canvas: int) -> None:
        super().__init__()
        self.scales, self.orientations = scales, orientations
        self.step = 2**scales
        side = ((canvas + self.step) // self.step + 1) * self.step
        self.before = (side - canvas) // 2
        self.behind = side - canvas - self.before
        waves = [
            _morlet(side, 0.8 * 2**scale, 0.75 * math.pi / 2**scale, turn, orientations)
            for scale in range(scales)
            for turn in range(orientations)
        ]
        shape = (scales, orientations, side, side)
        self.register_buffer("waves", _as_tensor(np.stack(waves)).reshape(shape), persistent=False)
        blur = _as_tensor(_gabor(side, 0.8 * 2 ** (scales - 1), 0.0, 0.0, 1.0))
        self.register_buffer("blur", blur, persistent=False)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        count, colours = values.shape[:2]
        pads = (self.before, self.behind, self.before, self.behind)
        padded = functional.pad(values, pads, mode="reflect")
        spectrum = torch.fft.fft2(padded)[:, :, None]
        zeroth, first, second = self._average(spectrum, 0), [], []
        for scale in range(self.scales):
            moved = self._moduli(spectrum, scale, 0)
            first.append(self._average(moved, scale))
            wider = range(scale + 1, self.scales)
            both = [self._average(self._moduli(moved, each, scale), each) for each in wider]
            # paths of one first wavelet stand together, the wider ones by scale
            turns = [
                part.reshape(*part.shape[:2], self.orientations, -1, *part.shape[3:])
                for part in both
            ]
            second += [torch.cat(turns, dim=3).flatten(2, 3)] if turns else []
        maps: torch.Tensor = torch.cat([zeroth, *first, *second], dim=2)
        return maps.reshape(count, colours * maps.shape[2], *maps.shape[3:])

    def _moduli(self, spectra: torch.Tensor, scale: int, sampled: int) -> torch.Tensor:
        """Return spectra of the moduli, every ``2 ** scale`` px, after each wavelet of a scale.

        Shape (n, colour, path, side, side) for such a shape, sampled every ``2 ** sampled`` px;
        paths are multiplied by the orientations.
        """
        waves = _crop(self.waves[scale], 2**sampled)  # type: ignore[index]
        products = (spectra[:, :, :, None] * waves).flatten(2, 3)
        folded = _fold(products, 2 ** (scale - sampled))
        moduli: torch.Tensor = torch.fft.fft2(torch.fft.ifft2(folded).abs())
        return moduli

    def _average(self, spectra: torch.Tensor, sampled: int) -> torch.Tensor:
        """Return Gaussian means of maps that are sampled every ``2 ** sampled`` px."""
        blur = _crop(self.blur, 2**sampled)  # type: ignore[arg-type]
        products = _fold(spectra * blur, self.step // 2**sampled)
        maps: torch.Tensor = torch.fft.ifft2(products).real[..., 1:-1, 1:-1]
        return maps


def _fold(spectrum: torch.Tensor, step: int) -> torch.Tensor:
    """Return the spectrum of every `step`-th sample of the map that `spectrum` is of."""
    height, width = spectrum.shape[-2:]
    parts = spectrum.reshape(*spectrum.shape[:-2], step, height // step, step, width // step)
    folded: torch.Tensor = parts.mean(dim=(-4, -2))
    return folded


def _crop(spectrum: torch.Tensor, step: int) -> torch.Tensor:
    """Return a filter's spectrum for maps sampled every `step` px: its low frequencies."""
    half = spectrum.shape[-1] // step // 2
    for axis in (-2, -1):
        ends = (
            spectrum.narrow(axis, 0, half),
            spectrum.narrow(axis, spectrum.shape[axis] - half, half),
        )
        spectrum = torch.cat(ends, dim=axis)
    return spectrum


def _as_tensor(filters: NDArray[np.float64]) -> torch.Tensor:
    return torch.from_numpy(filters.astype(np.float32))


def _morlet(
    side: int, width: float, frequency: float, turn: int, orientations: int
) -> NDArray[np.float64]:
    """Return the spectrum, shape (side, side), of a wavelet: a wave in a Gaussian, of mean 0."""
    angle = (orientations - orientations // 2 - 1 - turn) * math.pi / orientations
    slant = _SLANT / orientations
    wave = _gabor(side, width, angle, frequency, slant)
    envelope = _gabor(side, width, angle, 0.0, slant)
    return np.asarray(wave - wave[0, 0] / envelope[0, 0] * envelope)


def _gabor(
    side: int, width: float, angle: float, frequency: float, slant: float
) -> NDArray[np.float64]:
    """Return the spectrum of a wave in a Gaussian of deviation `width`, repeated every `side`."""
    turned = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    shape = turned @ np.diag([1, slant**2]) @ turned.T / (2 * width**2)
    total = np.zeros((side, side), complex)
    for down in range(-2, 3):
        for across in range(-2, 3):
            y, x = np.mgrid[down * side : (down + 1) * side, across * side : (across + 1) * side]
            squares = shape[0, 0] * y * y + (shape[0, 1] + shape[1, 0]) * y * x
            squares = squares + shape[1, 1] * x * x
            phase = frequency * (y * math.cos(angle) + x * math.sin(angle))
            total += np.exp(-squares + 1j * phase)
    total /= 2 * math.pi * width**2 / slant
    return np.asarray(np.fft.fft2(total).real)
