"""Which way a metric is worse: up for a loss or a divergence, down for a score.

The sign of an edge's score is pinned: the metric without the edge less the metric with it. For a
score such as ``logit_diff`` an edge that helps has a negative one, for a loss a positive one.
"""

from __future__ import annotations

from typing import Final

__all__ = ["DIVERGENCES", "LOSSES", "harm_sign"]

#: Divergences from the full model: 0 there, and never below.
DIVERGENCES: Final = ("kl", "l2")
#: Metrics that are better when lower, by name; a callable of such a name is taken for one.
LOSSES: Final = (*DIVERGENCES, "nll", "rank")


def harm_sign(metric: str) -> int:
    """1 if a rise of this metric is for the worse, -1 if a fall is.

    >>> harm_sign("kl"), harm_sign("logit_diff")
    (1, -1)
    """
    return 1 if metric in LOSSES else -1
