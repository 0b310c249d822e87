"""What is asked of an attribution run, checked before it starts."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from elsewhere.analyzer.attribution.frames import Frame, parse_baseline
from elsewhere.analyzer.attribution.methods import methods, read_options
from elsewhere.analyzer.attribution.targets import ClassTarget, LinearTarget, Target, parse_target
from elsewhere.errors import InputError, UnknownNameError
from elsewhere.stimuli import Canvas
from elsewhere.types import StorageType

Extra: TypeAlias = Literal["sensitivity", "infidelity"]
EXTRAS: tuple[str, ...] = get_args(Extra)


@dataclass(frozen=True)
class AttributionSettings:
    """What is attributed, how, and what of it is kept.

    Parameters
    ----------
    method
        Name of the method, such as ``integrated-gradients``.
    target
        What is attributed, or in words (``logit:true``, ``similarity:fc7``); by default the true
        class's logit where classes are known, else the predicted one's.
    layer
        The layer of a method that needs one (``grad-cam``).
    options
        The method's own options, by name or as ``name=value`` texts.
    baseline
        ``empty``, ``black``, ``blurred`` or ``blurred:SIGMA``.
    margin
        How far the frame reaches beyond the object's box, px; half the object by default.
    canvas_maps
        Whether maps over the whole canvas are kept as well.
    dtype
        Type in which maps are kept.
    extras
        ``sensitivity`` and ``infidelity``, which take many more maps.
    n_perturbations
        Random perturbations of each, for the extras.
    seed
        Of methods and extras that draw at random.

    Raises
    ------
    InputError
        A choice that is none.
    """

    method: str = "integrated-gradients"
    target: Target | str | None = None
    layer: str | None = None
    options: Mapping[str, object] | tuple[str, ...] = ()
    baseline: str = "empty"
    margin: int | None = None
    canvas_maps: bool = False
    dtype: StorageType = "float16"
    extras: tuple[Extra, ...] = ()
    n_perturbations: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        read_options(self.method, self.options, object_size=50)
        parse_baseline(self.baseline, Canvas())
        if isinstance(self.target, str):
            object.__setattr__(self, "target", parse_target(self.target))
        if self.dtype not in get_args(StorageType):
            raise UnknownNameError("dtype", self.dtype, get_args(StorageType))
        for extra in self.extras:
            if extra not in EXTRAS:
                raise UnknownNameError("extra measure", extra, EXTRAS)
        method = methods.get(self.method)
        if "infidelity" in self.extras and not (method.slopes or method.shares):
            every = {name: methods.get(name) for name in methods}
            known = [name for name, each in every.items() if each.slopes or each.shares]
            raise InputError(
                f"infidelity compares slopes with changes of the score, and a map of {self.method} "
                f"stands for no slopes; leave it out, or take one of {', '.join(known)}"
            )
        for name, low in (("n_perturbations", 1), ("seed", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < low:
                raise InputError(f"{name} is {value!r}; expected a whole number from {low}")

    def frame(self, canvas: Canvas) -> Frame:
        """Return the object's frame on a canvas."""
        margin = canvas.object_size // 2 if self.margin is None else self.margin
        return Frame(canvas.object_size, margin)

    def map_bytes(self, canvas: Canvas) -> int:
        """Return the bytes that what is kept of one image takes."""
        pixels = self.frame(canvas).side ** 2 + self.canvas_maps * canvas.size**2
        return pixels * np.dtype(self.dtype).itemsize

    def resolve(self, *, known: bool) -> Target:
        """Return the target, by default one that suits whether the objects' classes are known."""
        if self.target is None:
            return ClassTarget("logit", "true" if known else "predicted")
        if isinstance(self.target, str):
            return parse_target(self.target)
        return self.target

    def fields(self, canvas: Canvas) -> dict[str, Any]:
        """Return what determines the maps, as plain values."""
        found: dict[str, Any] = {
            entry.name: getattr(self, entry.name)
            for entry in fields(self)
            if entry.name not in ("target", "options", "margin")
        }
        found["extras"] = list(self.extras)
        found["options"] = read_options(
            self.method, self.options, object_size=canvas.object_size
        )  # fmt: skip
        found["margin"] = self.frame(canvas).margin
        target = self.target
        found["target"] = target if isinstance(target, str | None) else target.name
        if isinstance(target, LinearTarget):
            weights = np.concatenate(
                [np.ravel(np.asarray(target.coef)), np.ravel(target.intercept)]
            )
            found["readout_sha256"] = hashlib.sha256(weights.tobytes()).hexdigest()
        return found
