"""From a behaviour to its circuit, end to end, with roles assigned by what nodes were seen to do.

One call each: :func:`induction`, :func:`factual_recall`, :func:`ioi`, :func:`greater_than`, :func:`mcq`
give a :class:`Finding`. Steps of theirs for any prompts: :func:`composition`, :func:`mlp_regression`.

Multiple choice, part by part (Lieberum et al. 2023; ``notebooks/05_multiple_choice.py``), for prompts of
``interp.prompts.mcq``:

- :func:`letter_heads`: which heads write the letter, and of what kind each is; :func:`ranked_heads` puts them in
  order, :func:`carried` says how much the first of them carry, :func:`right_over_others` where they look;
- :func:`head_subspaces` and :func:`low_rank`: in how few dimensions their queries, keys and values do it;
- :mod:`interp.pipelines.label_places`: whether a model answers by the printed label or by place.
"""

from interp.pipelines.composition import Composition, composition
from interp.pipelines.finding import Finding
from interp.pipelines.head_subspaces import HeadSubspaces, head_subspaces, low_rank
from interp.pipelines.letter_heads import carried, letter_heads, ranked_heads, right_over_others
from interp.pipelines.low_rank_result import LowRank
from interp.pipelines.mlp_regression import MlpRegression, mlp_regression
from interp.pipelines.roles import Roles
from interp.pipelines.verbs import factual_recall, greater_than, induction, ioi, mcq

__all__ = [
    "Composition", "Finding", "HeadSubspaces", "LowRank", "MlpRegression", "Roles", "carried",
    "composition", "factual_recall", "greater_than", "head_subspaces", "induction", "ioi",
    "letter_heads", "low_rank", "mcq", "mlp_regression", "ranked_heads", "right_over_others",
]  # fmt: skip
