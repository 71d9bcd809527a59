"""Scores of edges: what each edge of a model's graph does to the metric, exactly or estimated."""

from interp.attribution.edges.result import EdgeScores

__all__ = ["EdgeScores"]
