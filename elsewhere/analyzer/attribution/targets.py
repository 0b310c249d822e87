"""What is attributed to the pixels: a class, the similarity to the reference, a linear readout.

:func:`parse_target` reads the words of the command line; :class:`Scorer` is the network up to the
target, as the module that attribution methods take.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import nn
from torch.nn import functional

from elsewhere.analyzer.attribution.copies import PlainNetwork
from elsewhere.errors import InputError, LayerError, UnknownNameError
from elsewhere.measures.vectors import upload
from elsewhere.models import Layer, Model, list_layers, output_tensors, select_layers
from elsewhere.probes import FittedProbe, load_readout

CHOICES = ("true", "predicted", "reference")
"""The object's own class, the one predicted at the location, the one predicted at the reference."""

FORMS = "logit[:CLASS], probability[:CLASS], similarity:LAYER, probe:FILE[:CLASS]; CLASS is " + (
    "true, predicted, reference, a class's name or its number"
)


@dataclass(frozen=True)
class ClassTarget:
    """A class's logit or probability.

    Parameters
    ----------
    quantity
        Which of the two.
    choice
        ``true`` (the object's own class), ``predicted`` (at that location), ``reference`` (as
        predicted at the reference), a class's name, or its number.
    """

    quantity: Literal["logit", "probability"] = "logit"
    choice: str = "true"

    @property
    def name(self) -> str:
        """The target in words."""
        return f"{self.quantity}:{self.choice}"


@dataclass(frozen=True)
class SimilarityTarget:
    """The cosine between a layer's activation here and that of the same object at the reference.

    Parameters
    ----------
    layer
        Name, alias or module name, of any layer of any network.
    """

    layer: str

    @property
    def name(self) -> str:
        """The target in words."""
        return f"similarity:{self.layer}"


@dataclass(frozen=True, eq=False)
class LinearTarget:
    """The score of a linear readout of a layer, such as a probe's.

    Parameters
    ----------
    layer
        The layer that is read out.
    coef
        (class, unit), on the layer's activations as they are, maps flattened; (1, unit) or (unit,)
        for a readout of two classes, whose only score speaks for the second.
    intercept
        (class,), or one number.
    classes
        Names of the classes, in the order of `coef`; needed for the choice ``true``.
    choice
        As for :class:`ClassTarget`.
    word
        What the target is called.
    network
        The network that the readout was fitted on, if that is known: as in
        :class:`elsewhere.probes.FittedProbe`. Another one is refused.
    shape
        Shape of one activation, if that is known.

    Raises
    ------
    InputError
        Shapes that do not fit, or values that are not finite.
    """

    layer: str
    coef: ArrayLike
    intercept: ArrayLike = 0.0
    classes: tuple[str, ...] | None = None
    choice: str = "true"
    word: str = "linear"
    network: Mapping[str, Any] = field(default_factory=dict)
    shape: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        coef = np.atleast_2d(np.asarray(self.coef, np.float64))
        intercept = np.broadcast_to(np.asarray(self.intercept, np.float64), (len(coef),))
        if coef.ndim != 2 or not (np.isfinite(coef).all() and np.isfinite(intercept).all()):
            raise InputError(
                f"the readout of {self.layer!r} must be finite numbers of shape (class, unit); got "
                f"{coef.shape}"
            )
        if len(coef) == 1 and self.classes is not None and len(self.classes) == 2:
            # one score for two classes: what speaks for the second speaks against the first
            coef, intercept = np.concatenate([-coef, coef]), np.stack([-intercept[0], intercept[0]])
        if self.classes is not None and len(self.classes) != len(coef):
            raise InputError(
                f"the readout of {self.layer!r} has {len(coef)} rows for {len(self.classes)} "
                "classes; expected one row for each class"
            )
        object.__setattr__(self, "classes", None if self.classes is None else (*self.classes,))
        object.__setattr__(self, "coef", coef)
        object.__setattr__(self, "intercept", np.array(intercept))

    @classmethod
    def of(cls, readout: FittedProbe, *, choice: str = "true") -> LinearTarget:
        """Return the target that a fitted readout's score is."""
        return cls(
            readout.layer,
            readout.coef,
            readout.intercept,
            readout.classes,
            choice,
            "probe",
            readout.network,
            readout.shape,
        )

    @property
    def name(self) -> str:
        """The target in words."""
        return f"{self.word}:{self.layer}:{self.choice}"

    def check_network(self, model: Model) -> None:
        """Refuse a network on which the readout was not fitted.

        Raises
        ------
        InputError
            Other weights, or another transform of the input.
        """
        there: dict[str, Any] = {"weights_sha256": model.weights_sha256, "channels": "rgb"}
        there |= model.transform.facts
        for key, value in there.items():
            known = self.network.get(key, "rgb" if key == "channels" else None)
            if known is None or np.array_equal(known, value):
                continue
            name = key
            if key == "weights_sha256":
                name, known, value = "weights", str(known)[:12], str(value)[:12]
            raise InputError(
                f"the readout of {self.layer!r} was fitted on {self.network.get('model')} with "
                f"{name} {known}, and {model.name} has {value}; fit one on this network, with "
                f"`elsewhere probe ... --layers {self.layer} --readout FILE`"
            )


Target: TypeAlias = ClassTarget | SimilarityTarget | LinearTarget


def parse_target(text: str) -> Target:
    """Return the target that `text` names; a probe's readout is read from its file.

    Raises
    ------
    InputError
        It names none.
    StorageError
        The file is missing, or holds no readout.

    Examples
    --------
    >>> parse_target("logit:predicted"), parse_target("similarity:fc7")
    (ClassTarget(quantity='logit', choice='predicted'), SimilarityTarget(layer='fc7'))
    """
    kind, separator, rest = text.strip().partition(":")
    if kind == "similarity" and rest:
        return SimilarityTarget(rest)
    if kind == "probe" and rest:
        return _parse_readout(rest)
    if kind in ("logit", "probability") and bool(separator) == bool(rest):
        return ClassTarget(cast(Literal["logit", "probability"], kind), rest or "true")
    raise InputError(f"cannot read {text!r} as a target; expected {FORMS}")


def _parse_readout(text: str) -> LinearTarget:
    """Return the target of ``FILE`` or ``FILE:CLASS``; both may hold colons."""
    path, choice = text, "true"
    ends = [place for place, sign in enumerate(text) if sign == ":"]
    if not Path(text).is_file() and ends:
        files = [place for place in ends if Path(text[:place]).is_file()]
        end = (files or ends)[-1]
        path, choice = text[:end], text[end + 1 :] or "true"
    return LinearTarget.of(load_readout(path), choice=choice)


def find_layer(name: str, model: Model, canvas_size: int) -> Layer:
    """Return the one layer that `name` means.

    Raises
    ------
    UnknownNameError, LayerError
        It means none, or several.
    """
    every = list_layers(model, canvas_size, containers=True)
    found = select_layers(every, name, model)
    if len(found) > 1:
        raise LayerError(
            f"{name!r} means {len(found)} layers; name one: "
            + ", ".join(layer.name for layer in found[:8])
        )
    return found[0]


class Scorer(nn.Module):
    """From images to scores: one column for each class, or a single one.

    Parameters
    ----------
    network
        The copy.
    model
        The network, for names.
    target
        What is scored.
    canvas_size
        Side of the canvas, px.

    Raises
    ------
    InputError
        The network has no classes, or the readout is of another size than the layer.
    UnknownNameError, LayerError
        The target's layer is not known, or does not run.
    """

    def __init__(
        self, network: PlainNetwork, model: Model, target: Target, canvas_size: int
    ) -> None:
        super().__init__()
        self.network, self.target, self._name = network, target, model.name
        self.layer: Layer | None = None
        self.linear: nn.Linear | None = None
        if not isinstance(target, ClassTarget):
            self.layer = find_layer(target.layer, model, canvas_size)
        if isinstance(target, LinearTarget):
            target.check_network(model)
            coef: NDArray[np.float64] = np.asarray(target.coef)
            shape = tuple(self.layer.shape) if self.layer else ()
            units = int(np.prod(shape))
            if target.shape is not None and target.shape != shape:
                raise InputError(
                    f"the readout of {target.layer!r} is of activations of "
                    f"{'x'.join(map(str, target.shape))}, and on a canvas of {canvas_size} px the "
                    f"layer gives {'x'.join(map(str, shape))}; fit it on this canvas"
                )
            if coef.shape[1] != units:
                raise InputError(
                    f"the readout of {target.layer!r} has {coef.shape[1]} units, the layer "
                    f"{units}; expected weights on its activations as they are, maps flattened"
                )
            self.linear = nn.Linear(units, len(coef)).requires_grad_(False).to(model.device)
            with torch.no_grad():
                self.linear.weight.copy_(torch.from_numpy(coef))
                self.linear.bias.copy_(torch.from_numpy(np.asarray(target.intercept)))

    def activations(self, images: torch.Tensor) -> torch.Tensor:
        """Return the target's layer, or the logits, flattened: (n, unit)."""
        if self.layer is not None:
            found = self.network.until(
                images, self.layer.module, self.layer.call, self.layer.output
            )
            return found.flatten(1)
        tensors = output_tensors(self.network(images))
        values = next(iter(tensors.values()), None)
        if values is None or values.ndim != 2 or values.is_complex():
            shape = None if values is None else f"{tuple(values.shape[1:])} of {values.dtype}"
            raise InputError(
                f"{self._name} gives {shape} for each image, not one logit for each class; take "
                "the target similarity:LAYER, which needs no head"
            )
        return values

    def forward(self, images: torch.Tensor, *references: torch.Tensor) -> torch.Tensor:
        """Return the scores, (n, class) or (n, 1)."""
        return self.score(self.activations(images), *references)

    def linear_part(self, images: torch.Tensor) -> torch.Tensor:
        """Return what is scored, as far as the network and a linear readout go: (n, unit)."""
        values = self.activations(images)
        return values if self.linear is None else self.linear(values)

    def answer(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return what :meth:`linear_part` does and, of a similarity, the network's own answer.

        That is (n, class) by the same pass; None where the network gives no such table, and for
        targets whose scores are the answer.
        """
        if self.layer is None or self.linear is not None:
            return self.linear_part(images), None
        output, values = self.network.beside(images, self.layer)
        given = next(iter(output_tensors(output).values()), None)
        return values.flatten(1), given if given is not None and given.ndim == 2 else None

    def score(self, values: torch.Tensor, *references: torch.Tensor) -> torch.Tensor:
        """Return the scores of activations (n, unit)."""
        return self.bend(values if self.linear is None else self.linear(values), *references)

    def bend(self, values: torch.Tensor, *references: torch.Tensor) -> torch.Tensor:
        """Return the scores from what :meth:`linear_part` gives."""
        if isinstance(self.target, SimilarityTarget):
            # zero vectors give 0, as everywhere in this package; near 1 single precision has too
            # few digits for the difference of two cosines
            if values.device.type != "mps":
                values, references = values.double(), (references[0].double(),)
            return functional.cosine_similarity(values, references[0], dim=1, eps=1e-12)[:, None]
        if isinstance(self.target, ClassTarget) and self.target.quantity == "probability":
            return torch.softmax(values, dim=1)
        return values


def own_scores(scores: torch.Tensor, classes: Sequence[int]) -> torch.Tensor:
    """Return of each row of scores (n, class) that of its class, (n,)."""
    chosen = upload(np.array(classes, np.int64), scores.device)
    return scores.gather(1, chosen[:, None])[:, 0]


def class_numbers(
    target: Target,
    *,
    classes: Sequence[str] | None,
    categories: Sequence[str],
    n_classes: int,
) -> NDArray[np.int64] | None:
    """Return the target's class for each object; None where it is predicted, or there are none.

    Parameters
    ----------
    target
        What is attributed.
    classes
        Names of the head's classes, unit by unit, where they are known.
    categories
        The objects' categories.
    n_classes
        Columns of the scores.

    Returns
    -------
    int64 (object,), or None

    Raises
    ------
    InputError
        The true class is asked for and not known, or the target is out of range.
    """
    if isinstance(target, SimilarityTarget) or target.choice in ("predicted", "reference"):
        return None
    if target.choice == "true":
        numbers = true_classes(classes, categories)
        if numbers is None:
            what = "no names" if classes is None else f"classes {_few(classes)}"
            has, remedy = "the head", "take a network trained on them, or the target "
            if isinstance(target, LinearTarget):
                has = "the readout"
                remedy = "name the same objects for both (--objects, --categories), or the class "
            else:
                remedy += f"{target.quantity}:"
            raise InputError(
                f"the target {target.name} needs each object's class, and {has} has {what}, the "
                f"objects {_few(categories)}; {remedy}predicted"
            )
        return numbers
    return np.full(len(categories), _class_number(target, classes, n_classes), np.int64)


def true_classes(
    classes: Sequence[str] | None, categories: Sequence[str]
) -> NDArray[np.int64] | None:
    """Return the number of each object's class, int64 (object,); None where one has none."""
    if classes is None or not set(categories) <= set(classes):
        return None
    order = {name: number for number, name in enumerate(classes)}
    return np.array([order[category] for category in categories], np.int64)


def _class_number(
    target: ClassTarget | LinearTarget, classes: Sequence[str] | None, n_classes: int
) -> int:
    if classes is not None and target.choice in classes:
        return list(classes).index(target.choice)
    try:
        number = int(target.choice)
    except ValueError:
        raise UnknownNameError(
            "class of the target", target.choice, [*CHOICES, *(classes or ())], "or a number"
        ) from None
    if any(name.strip().lstrip("+-").isdigit() for name in classes or ()):
        raise InputError(
            f"the target {target.name} is ambiguous: the classes are called "
            f"{_few(classes or ())}, and none {target.choice!r}; where names are numbers, name the "
            "class"
        )
    if not 0 <= number < n_classes:
        raise InputError(
            f"the target {target.name} is out of range: there are {n_classes} classes, numbered "
            f"from 0 to {n_classes - 1}"
        )
    return number


def _few(names: Sequence[Any]) -> str:
    known = list(dict.fromkeys(map(str, names)))
    return ", ".join(known[:4]) + (", ..." if len(known) > 4 else "")
