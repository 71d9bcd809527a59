"""Linear maps from activations to labels, and back to the activations' own basis.

Each kind minimises, over standardised features, with ``w`` the weights:

    logistic   mean cross-entropy + l2/2 · ‖w‖²      (scikit-learn's LogisticRegression)
    ridge      mean squared error + l2 · ‖w‖²        (scikit-learn's Ridge)
    linear     mean squared error                    (least squares, the shortest solution)
    mean       nothing: the nearest class mean, features as they are. Its direction is the class's
               mean less the mean of the class means: for two classes the difference of means,
               a steering vector (the mass-mean probe of Marks & Tegmark 2023, arXiv:2310.06824)

Where there are more dimensions than examples, features are first turned into the span of the
examples, where every penalised solution lies; nothing is lost.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import numpy as np
from jaxtyping import Float

__all__ = ["CLASSIFIERS", "GRIDS", "KINDS", "Design", "Kind", "Linear"]

Kind = Literal["logistic", "ridge", "linear", "mean"]
KINDS: Final[tuple[str, ...]] = get_args(Kind)
CLASSIFIERS: Final = ("logistic", "mean")
#: Strengths tried where none is given, the strongest first: it wins a tie.
GRIDS: Final = {
    "logistic": (1.0, 0.1, 0.01),
    "ridge": (10.0, 1.0, 0.1, 0.01, 0.001),
    "linear": (0.0,),
    "mean": (0.0,),
}
_ITERATIONS = 3000


@dataclass(frozen=True, eq=False)
class Linear:
    """``x @ weight.T + bias``: one row for real labels and two classes, else a row for each class.

    Attributes:
        converged: False where the solver stopped early.
    """

    weight: Float[np.ndarray, "k d"]
    bias: Float[np.ndarray, " k"]
    converged: bool = True

    def decide(self, x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n k"]:
        """Log-odds (two classes: of the second), scores of classes, or the predicted number."""
        return x @ self.weight.T + self.bias

    def predict(self, x: Float[np.ndarray, "n d"], *, classes: bool) -> Float[np.ndarray, " n"]:
        """Class numbers, or numbers."""
        out = self.decide(x)
        if not classes:
            return out[:, 0]
        chosen = out.argmax(1) if out.shape[1] > 1 else out[:, 0] > 0
        return chosen.astype(np.float64)


@dataclass(frozen=True, eq=False)
class Design:
    """Features made ready once, for as many sets of labels as there are.

    Attributes:
        kind: of probe; ``"mean"`` takes features as they are.
        z: standardised features, in the span of the examples where that is smaller.
        centre, scale, basis: the way back to the features' own basis.
    """

    kind: str
    z: Float[np.ndarray, "n r"]
    centre: Float[np.ndarray, " d"]
    scale: Float[np.ndarray, " d"]
    basis: Float[np.ndarray, "d r"] | None

    @classmethod
    def of(cls, kind: str, x: Float[np.ndarray, "n d"]) -> Design:
        """Standardise by these examples alone; a constant feature gets no weight."""
        if kind == "mean":
            return cls(kind, x, np.zeros(x.shape[1]), np.ones(x.shape[1]), None)
        centre, scale = x.mean(0), x.std(0)
        scale = np.where(scale > 1e-9 * np.abs(x).max(0), scale, np.inf)
        z = (x - centre) / scale
        if z.shape[1] <= len(z):
            return cls(kind, z, centre, scale, None)
        basis = np.linalg.qr(z.T)[0]
        return cls(kind, z @ basis, centre, scale, basis)

    def fit(
        self, y: Float[np.ndarray, " n"], l2: float, n_classes: int, *, tolerance: float = 1e-3
    ) -> Linear:
        """Fit one set of labels; the weights act on the features as they are.

        Args:
            n_classes: of the whole data (a part may lack some); 0 for real labels.
            tolerance: where the logistic solver stops: largest entry of the loss's gradient.
        """
        if self.kind == "mean":
            return _nearest_mean(self.z, y, n_classes)
        if self.kind == "logistic":
            weight, bias, converged = _logistic(self.z, y, l2, n_classes, tolerance)
        else:
            (weight, bias), converged = _squares(self.z, y, l2), True
        if self.basis is not None:
            weight = weight @ self.basis.T
        weight = weight / self.scale
        return Linear(weight, bias - weight @ self.centre, converged)


def _logistic(z: Any, y: Any, l2: float, n_classes: int, tolerance: float) -> tuple[Any, Any, bool]:
    from sklearn.linear_model import LogisticRegression

    rows = 1 if n_classes == 2 else n_classes
    present = np.unique(y).astype(int)
    if len(present) == 1:  # a part of shuffled labels can have one class: then nothing is learnt
        empty = _constant(z.shape[1], rows, present[0])
        return empty.weight, empty.bias, True
    model = LogisticRegression(C=1 / (len(z) * l2), tol=tolerance, max_iter=_ITERATIONS).fit(z, y)
    converged = int(np.max(model.n_iter_)) < _ITERATIONS
    if rows == 1:
        return model.coef_, model.intercept_, converged
    weight, bias = np.zeros((rows, z.shape[1])), np.full(rows, -np.inf)
    if len(present) == 2:
        weight[present[1]], bias[present] = model.coef_[0], [0.0, model.intercept_[0]]
    else:
        weight[present], bias[present] = model.coef_, model.intercept_
    return weight, bias, converged


def _constant(d: int, rows: int, which: int) -> Linear:
    """A probe that always says one class."""
    bias = np.full(rows, -np.inf)
    if which or rows > 1:
        bias[0 if rows == 1 else which] = np.inf
    return Linear(np.zeros((rows, d)), bias)


def _squares(z: Any, y: Any, l2: float) -> tuple[Any, Any]:
    from sklearn.linear_model import LinearRegression, Ridge

    model: Any = LinearRegression() if l2 == 0 else Ridge(alpha=len(z) * l2)
    model.fit(z, y)
    return np.atleast_2d(model.coef_), np.atleast_1d(model.intercept_)


def _nearest_mean(x: Any, y: Any, n_classes: int) -> Linear:
    rows = 1 if n_classes == 2 else n_classes
    present = np.unique(y).astype(int)
    if len(present) == 1:
        return _constant(x.shape[1], rows, present[0])
    means = np.stack([x[y == c].mean(0) for c in present])
    middle = means.mean(0)
    if rows == 1:
        weight = means[1:] - means[:1]
        return Linear(weight, -weight @ middle)
    weight, bias = np.zeros((rows, x.shape[1])), np.full(rows, -np.inf)
    weight[present] = means - middle
    bias[present] = (middle @ middle - np.square(means).sum(1)) / 2
    return Linear(weight, bias)
