"""Multinomial logistic regression in few dimensions, as scikit-learn defines it, without overhead.

Cross-validation asks for dozens of fits of small problems; of the time that scikit-learn 1.9 takes
for one, four fifths are checks around the same L-BFGS.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin


class Logistic(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    r"""Multinomial logistic regression with an L2 penalty, its intercept not penalised.

    It minimises :math:`\frac1n \sum_i -\log p_{y_i}(x_i) + \frac1{2Cn} \lVert W \rVert^2` with
    :math:`p` the softmax of :math:`W x + b`: the objective of scikit-learn's
    ``LogisticRegression``, for two classes as well (where that one fits a single row of weights of
    half the penalty, which is allowed for).

    Parameters
    ----------
    C
        Inverse strength of the penalty.
    tol
        The fit ends when no entry of the gradient, divided by the root mean square of the
        samples, is larger than `tol`, or than ``tol / C`` for C above 1: with a weak penalty the
        gradient is small long before the weights are right.
    max_iter
        Or after so many iterations.
    warm_start
        Whether a fit begins at the weights of the one before.

    Examples
    --------
    >>> x, y = np.array([[-1.0], [0.0], [1.0]]), [0, 1, 2]
    >>> Logistic(C=10.0).fit(x, y).predict(x)
    array([0, 1, 2])
    """

    def __init__(
        self,
        C: float = 1.0,
        *,
        tol: float = 1e-9,
        max_iter: int = 5_000,
        warm_start: bool = False,
    ) -> None:
        self.C, self.tol, self.max_iter, self.warm_start = C, tol, max_iter, warm_start

    def fit(self, X: ArrayLike, y: ArrayLike) -> Logistic:
        """Fit (sample, dimension) to the labels (sample,), and return the classifier.

        Two classes share a penalty as in scikit-learn: with rows of weights -w/2 and w/2 the
        penalty is half of that on w, which doubling it makes good.
        """
        x = np.ascontiguousarray(X, dtype=np.float64)
        self.classes_, codes = np.unique(np.asarray(y), return_inverse=True)
        (n, d), k = x.shape, len(self.classes_)
        truth = np.zeros((n, k))
        truth[np.arange(n), codes] = 1.0
        # samples of length one take a third of the steps that those of thousands of units take
        scale = float(np.sqrt(np.vdot(x, x) / max(x.size, 1))) or 1.0
        x = x / scale
        penalty = (2.0 if k == 2 else 1.0) / (self.C * scale**2 * n)
        start = np.zeros(k * (d + 1))
        before: NDArray[np.float64] | None = getattr(self, "coef_", None)
        if self.warm_start and before is not None and before.shape == (k, d):
            start = np.concatenate([before.ravel() * scale, self.intercept_])

        def objective(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
            weights = flat[: k * d].reshape(k, d)
            scores = x @ weights.T
            scores += flat[k * d :]
            scores -= scores.max(axis=1, keepdims=True)
            own = float(np.vdot(scores, truth))
            np.exp(scores, out=scores)
            sums = scores.sum(axis=1, keepdims=True)
            value = (float(np.log(sums).sum()) - own) / n
            value += 0.5 * penalty * float(np.vdot(weights, weights))
            scores /= sums
            scores -= truth
            scores /= n
            gradient = np.empty_like(flat)
            np.matmul(scores.T, x, out=gradient[: k * d].reshape(k, d))
            gradient[: k * d] += penalty * flat[: k * d]
            gradient[k * d :] = scores.sum(axis=0)
            return value, gradient

        options: dict[str, Any] = {
            "gtol": self.tol * min(1.0, 1.0 / self.C),
            "ftol": 0.0,
            "maxiter": self.max_iter,
            "maxls": 50,
            "maxfun": 10**6,
        }
        found = minimize(objective, start, jac=True, method="L-BFGS-B", options=options)
        self.coef_: NDArray[np.float64] = found.x[: k * d].reshape(k, d) / scale
        self.intercept_: NDArray[np.float64] = found.x[k * d :]
        self.n_iter_ = int(found.nit)
        return self

    def decision_function(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return scores (sample, class)."""
        return np.asarray(np.asarray(X, np.float64) @ self.coef_.T + self.intercept_)

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return probabilities (sample, class)."""
        return np.asarray(softmax(self.decision_function(X), axis=-1))

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the likeliest class of each sample."""
        return np.asarray(self.classes_[self.decision_function(X).argmax(axis=1)])
