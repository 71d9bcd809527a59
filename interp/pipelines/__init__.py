"""From a behaviour to its circuit, end to end, with roles assigned by what nodes were seen to do.

One call each: :func:`induction`, :func:`factual_recall`, :func:`ioi`, :func:`greater_than`, :func:`mcq`
give a :class:`Finding`. Steps of theirs for any prompts: :func:`composition`, :func:`mlp_regression`.
"""

from interp.pipelines.composition import Composition, composition
from interp.pipelines.finding import Finding
from interp.pipelines.mlp_regression import MlpRegression, mlp_regression
from interp.pipelines.roles import Roles
from interp.pipelines.verbs import factual_recall, greater_than, induction, ioi, mcq

__all__ = [
    "Composition", "Finding", "MlpRegression", "Roles", "composition", "factual_recall",
    "greater_than", "induction", "ioi", "mcq", "mlp_regression",
]  # fmt: skip
