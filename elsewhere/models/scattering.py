"""Wavelet scattering: a network whose filters are given, not learnt (Bruna & Mallat 2012)."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from elsewhere.errors import InputError

_INAUDIBLE = 1e-9
"""Of a wavelet's largest value: what is below it is left out."""
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
    """The coefficients. Spectra of moduli are sampled as soon as their wavelet allows it.

    What a wavelet leaves of a spectrum is folded while it is multiplied: the sampled map's spectrum
    is a sum over as many pieces as samples are left out, and pieces on which the wavelet is zero
    are left out. The Gaussian is separable, so that means of maps are two products with a matrix.
    """

    def __init__(self, scales: int, orientations: int, canvas: int) -> None:
        super().__init__()
        self.scales, self.orientations = scales, orientations
        step = 2**scales
        side = ((canvas + step) // step + 1) * step
        self.before = (side - canvas) // 2
        self.behind = side - canvas - self.before
        self.pieces: dict[tuple[int, int], list[tuple[int, int]]] = {}
        for scale in range(scales):
            width, frequency = 0.8 * 2**scale, 0.75 * math.pi / 2**scale
            waves = np.stack([
                _morlet(side, width, frequency, turn, orientations) for turn in range(orientations)
            ])  # fmt: skip
            for sampled in range(scale + 1):
                fold = 2 ** (scale - sampled)
                cut = _crop(waves, 2**sampled).reshape(orientations, fold, side >> scale, fold, -1)
                heard = np.abs(cut).max(axis=(0, 2, 4)) > _INAUDIBLE * np.abs(cut).max()
                self.pieces[scale, sampled] = list(zip(*map(list, np.nonzero(heard)), strict=True))
                # once for real and imaginary parts, so that products go through memory in order
                pieces = cut.transpose(1, 3, 0, 2, 4)[heard, ..., None].repeat(2, -1) / fold**2
                self.register_buffer(
                    f"waves{scale}_{sampled}", _as_tensor(pieces), persistent=False
                )
        blur = _gabor(side, 0.8 * 2 ** (scales - 1), 0.0, 0.0, 1.0)
        line = blur[0] / math.sqrt(blur[0, 0])  # its square is the Gaussian's spectrum
        for sampled in range(scales):
            half = np.fft.fft(np.eye(side >> sampled), axis=0) * _crop(line, 2**sampled)[:, None]
            folded = half.reshape(step >> sampled, side // step, -1).mean(axis=0)
            means = np.fft.ifft(folded, axis=0).real[1:-1]
            self.register_buffer(f"means{sampled}", _as_tensor(means), persistent=False)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        count, colours = values.shape[:2]
        pads = (self.before, self.behind, self.before, self.behind)
        padded = functional.pad(values, pads, mode="reflect")[:, :, None]
        spectrum = torch.fft.fft2(padded)
        zeroth, first, second = self._average(padded, 0), [], []
        for scale in range(self.scales):
            moduli = self._moduli(spectrum, scale, 0)
            first.append(self._average(moduli, scale))
            wider = range(scale + 1, self.scales)
            moved = torch.fft.fft2(moduli) if wider else moduli
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
        """Return the moduli, every ``2 ** scale`` px, after each wavelet of a scale.

        Shape (n, colour, path, side, side) for spectra of such a shape, of maps sampled every
        ``2 ** sampled`` px; paths are multiplied by the orientations.
        """
        waves = self.get_buffer(f"waves{scale}_{sampled}")
        side = waves.shape[-2]
        numbers = torch.view_as_real(spectra)[:, :, :, None]
        folded: torch.Tensor | None = None
        for wave, (down, across) in zip(waves, self.pieces[scale, sampled], strict=True):
            rows, columns = (slice(n * side, (n + 1) * side) for n in (down, across))
            piece = numbers[..., rows, columns, :]
            folded = piece * wave if folded is None else torch.addcmul(folded, piece, wave)
        assert folded is not None
        moduli: torch.Tensor = torch.fft.ifft2(torch.view_as_complex(folded).flatten(2, 3)).abs()
        return moduli

    def _average(self, maps: torch.Tensor, sampled: int) -> torch.Tensor:
        """Return Gaussian means, every ``2 ** J`` px, of maps sampled every ``2 ** sampled`` px."""
        means = self.get_buffer(f"means{sampled}")
        return means @ maps @ means.T


def _crop(spectrum: NDArray[np.float64], step: int) -> NDArray[np.float64]:
    """Return a filter's spectrum for maps sampled every `step` px: its low frequencies."""
    for axis in range(-min(2, spectrum.ndim), 0):
        side = spectrum.shape[axis]
        half = side // step // 2
        kept = np.r_[:half, side - half : side]
        spectrum = np.asarray(spectrum.take(kept, axis=axis))
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
