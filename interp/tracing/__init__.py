"""Causal tracing: which states, restored, bring a corrupted fact back?

:mod:`subject` finds the subject's tokens and how widely their embeddings spread, :mod:`cells` lays
out what is restored, :mod:`result` holds the scores, :mod:`roles` puts the tokens of different
prompts under common names; :mod:`verb` is ``interp.trace``.
"""
