"""The probes by name: how each is made at a strength, and which strengths are tried."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import RidgeClassifier
from sklearn.neighbors import NearestCentroid
from sklearn.svm import LinearSVC

from elsewhere.errors import InputError
from elsewhere.probes.logistic import Logistic
from elsewhere.registry import Registry

Control: TypeAlias = Literal["pixels", "untrained", "shuffled"]
CONTROLS: tuple[str, ...] = get_args(Control)


@dataclass(frozen=True)
class ProbeKind:
    """A family of classifiers over one strength of regularisation.

    Parameters
    ----------
    make
        From a strength to a scikit-learn classifier.
    strengths
        The values that are tried, from the strongest regularisation to the weakest; none where
        there is nothing to choose.
    default
        The strength where none can be chosen.
    parameter
        The classifier's parameter that holds the strength.
    quick
        Parameters while strengths are compared; a fit then starts from that of the strength
        before, which the classifier's ``warm_start`` must allow.
    """

    make: Callable[[float], Any]
    strengths: tuple[float, ...] = ()
    default: float = float("nan")
    parameter: str = ""
    quick: Mapping[str, Any] = field(default_factory=dict)


probe_kinds: Registry[ProbeKind] = Registry("probe")


def _powers(first: int, last: int) -> tuple[float, ...]:
    step = 1 if last > first else -1
    return tuple(10.0**power for power in range(first, last + step, step))


probe_kinds.add(
    "logistic",
    ProbeKind(
        lambda strength: Logistic(strength, warm_start=True),
        strengths=_powers(-4, 4),
        default=1.0,
        parameter="C",
        quick={"tol": 1e-6},
    ),
    summary="multinomial logistic regression with an L2 penalty",
)
probe_kinds.add(
    "ridge",
    ProbeKind(
        lambda strength: RidgeClassifier(alpha=strength),
        strengths=_powers(6, -2),
        default=1.0,
        parameter="alpha",
    ),
    summary="ridge regression on the classes",
)
probe_kinds.add(
    "svm",
    ProbeKind(
        lambda strength: LinearSVC(
            C=strength, dual=True, random_state=0, tol=1e-5, max_iter=20_000
        ),
        strengths=_powers(-6, 2),
        default=1.0,
        parameter="C",
    ),
    summary="linear support vector machine, one class against the rest",
)
probe_kinds.add(
    "nearest-centroid",
    ProbeKind(lambda strength: NearestCentroid()),
    summary="the class whose mean is nearest",
)


def find_kind(kind: str | Any) -> tuple[str, ProbeKind]:
    """Return the name and the kind of what was asked for: a name, or a scikit-learn classifier.

    Raises
    ------
    UnknownNameError, InputError
        No probe of that name; neither a name nor a classifier.
    """
    if isinstance(kind, str):
        return kind, probe_kinds.get(kind)
    if not all(hasattr(kind, name) for name in ("fit", "predict", "get_params")):
        raise InputError(
            f"kind is a {type(kind).__name__}; expected one of {', '.join(probe_kinds)}, or a "
            "scikit-learn classifier"
        )
    return type(kind).__name__, ProbeKind(lambda strength: kind)


def linear_weights(
    classifier: Any, n_classes: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Return (class, dimension) weights and (class,) intercepts of a fitted linear classifier.

    It was fitted on the labels 0, 1, ... n_classes - 1; the largest score is the choice. Of a
    classifier that is not linear, None.
    """
    if isinstance(classifier, NearestCentroid):
        if classifier.metric != "euclidean" or classifier.shrink_threshold is not None:
            return None
        centroids = np.asarray(classifier.centroids_, np.float64)
        # |z - c|² without |z|², which is the same for all classes
        return centroids, -0.5 * np.einsum("ij,ij->i", centroids, centroids)
    if not hasattr(classifier, "coef_") or not hasattr(classifier, "intercept_"):
        return None
    weights = np.atleast_2d(np.asarray(classifier.coef_, np.float64))
    intercept = np.atleast_1d(np.asarray(classifier.intercept_, np.float64))
    intercept = np.broadcast_to(intercept, (len(weights),))
    if len(weights) == 1 and n_classes == 2:
        weights = np.concatenate([np.zeros_like(weights), weights])
        intercept = np.concatenate([np.zeros(1), intercept])
    return (weights, intercept) if len(weights) == n_classes else None
