"""A linear probe's weights for a layer's raw units, in memory and on disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray
from numpy.typing import ArrayLike, NDArray
from scipy.special import softmax

from elsewhere.errors import InputError, StorageError
from elsewhere.measures.variables import described
from elsewhere.storage import load_result, save_result
from elsewhere.types import Location

NETWORK = (
    "model",
    "weights",
    "weights_sha256",
    "mean",
    "std",
    "gain",
    "channels",
    "notes",
    "behaviour",
)
"""What a source tells of its network, by which a readout is known to belong to it, and the doubts
under which it was fitted."""

READOUT = "readout"
"""The kind of the result that a fitted probe is on disk."""

EXPECTED = "a readout, as `elsewhere probe ... --readout FILE` writes it"


@dataclass(frozen=True, eq=False)
class FittedProbe:
    """A linear probe of a layer, trained at one place.

    Parameters
    ----------
    layer
        Name of the layer.
    classes
        The categories, in the order of the scores.
    coef
        float32 (class, unit): weights for raw units, flattened.
    intercept
        float64 (class,): scores are ``activation @ coef.T + intercept``.
    shape
        Shape of one activation.
    strength
        Of the regularisation, in the kind's own parameter; NaN where it has none.
    kind
        Name of the probe.
    trained
        The trained locations (y, x), px.
    network
        What tells the network that it reads from others: ``model``, ``weights``,
        ``weights_sha256``, and the transform of its input; empty where the source tells nothing.
    """

    layer: str
    classes: tuple[str, ...]
    coef: NDArray[np.float32]
    intercept: NDArray[np.float64]
    shape: tuple[int, ...]
    strength: float
    kind: str
    trained: tuple[Location, ...]
    network: Mapping[str, Any] = field(default_factory=dict)

    def scores(self, activations: ArrayLike) -> NDArray[np.float64]:
        """Return the scores, float64 (row, class), of activations (row, *shape)."""
        values = np.asarray(activations)
        values = values.reshape(len(values), -1).astype(np.float64)
        if values.shape[1] != self.coef.shape[1]:
            raise InputError(
                f"activations of {values.shape[1]} units; the probe of {self.layer} reads "
                f"{self.coef.shape[1]}"
            )
        return np.asarray(values @ self.coef.T.astype(np.float64) + self.intercept)

    def predict(self, activations: ArrayLike) -> list[str]:
        """Return the category of the largest score of each row."""
        return [self.classes[code] for code in self.scores(activations).argmax(axis=1)]

    def probabilities(self, activations: ArrayLike) -> NDArray[np.float64]:
        """Return probabilities (row, class) of a logistic probe.

        Raises
        ------
        InputError
            The probe is of another kind.
        """
        if self.kind != "logistic":
            raise InputError(f"a {self.kind} probe gives scores, no probabilities; use scores")
        return np.asarray(softmax(self.scores(activations), axis=1))


def save_readout(
    probe: FittedProbe, path: str | Path, *, overwrite: bool = False, rescue: bool = False
) -> Path:
    """Write a fitted probe as a result of the kind ``readout``.

    Parameters
    ----------
    probe
        From :func:`elsewhere.probes.fit_probe`.
    path
        Where to write: ``coef (class, unit)`` and ``intercept (class)`` for raw units, with the
        layer, the trained locations and the network's identity as attributes.
    overwrite
        Whether an existing file is replaced.
    rescue
        Whether it goes elsewhere where it cannot be written there; the error says where.

    Raises
    ------
    ExistsError, StorageError
        The file exists, or cannot be written.
    """
    result = xarray.Dataset(
        {
            "coef": (("class", "unit"), probe.coef),
            "intercept": ("class", probe.intercept),
        },
        coords={"class": list(probe.classes)},
        attrs={
            "kind": READOUT,
            "layer": probe.layer,
            "shape": list(probe.shape),
            "probe": probe.kind,
            "strength": float(probe.strength),
            "trained": [list(place) for place in probe.trained],
            **probe.network,
        },
    )
    return save_result(described(result), path, overwrite=overwrite, rescue=rescue)


def load_readout(path: str | Path) -> FittedProbe:
    """Read a fitted probe that :func:`save_readout` wrote.

    Raises
    ------
    StorageError
        The file is missing, damaged, or no readout.
    """
    if not Path(path).is_file():
        raise StorageError(f"{path} does not exist; expected {EXPECTED}")
    result = load_result(path)
    attributes = result.attrs
    if attributes.get("kind") != READOUT:
        raise StorageError(
            f"{path} holds a result of the kind {attributes.get('kind')!r}; expected {EXPECTED}"
        )
    try:
        found = FittedProbe(
            str(attributes["layer"]),
            tuple(str(name) for name in result["class"].values),
            np.asarray(result["coef"].transpose("class", "unit").values, np.float32),
            np.asarray(result["intercept"].values, np.float64),
            tuple(int(side) for side in attributes["shape"]),
            float(attributes["strength"]),
            str(attributes["probe"]),
            tuple((int(y), int(x)) for y, x in attributes["trained"]),
            {key: attributes[key] for key in NETWORK if key in attributes},
        )
    except (KeyError, TypeError, ValueError) as error:
        raise StorageError(f"the readout {path} is damaged: {error}; fit it again") from error
    numbers = (found.coef, found.intercept)
    fits = found.coef.shape == (len(found.classes), int(np.prod(found.shape)))
    if not fits or not all(np.isfinite(values).all() for values in numbers):
        raise StorageError(
            f"the readout {path} is damaged: weights {found.coef.shape} for "
            f"{len(found.classes)} classes and activations {found.shape}, or some are not finite; "
            "fit it again"
        )
    return found
