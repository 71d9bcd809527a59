"""Roles are defined by what nodes do: criteria, each a behaviour and the least of it that counts.

A node has a role if it passes every criterion of it. It passes one if

1. its mean goes as far as the threshold,
2. the 95% interval over prompts does not reach zero (where the behaviour is a mean over prompts),
3. it goes more than twice as far as *any* node of the untrained twin, asked the same.

A behaviour that a family shows of no node at all (what single heads write, behind a norm) is left out of
the definitions there; a role whose every behaviour is missing is nobody's.

So no name, layer or number of a head stands in a definition, and a model of random weights has no
roles unless it does by chance twice what another one does anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["MARGIN", "Criterion", "Kind", "kind"]

#: How many times the twin's best a node must reach.
MARGIN = 2.0


@dataclass(frozen=True)
class Criterion:
    """One condition of a role.

    Attributes:
        behaviour: its name.
        least: how far a node must go, in the behaviour's unit; negative: at most this.
    """

    behaviour: str
    least: float


@dataclass(frozen=True)
class Kind:
    """A role and what it takes.

    Attributes:
        name: what nodes of this kind are called.
        criteria: all of which must hold.
        source: who described it.
    """

    name: str
    criteria: tuple[Criterion, ...]
    source: str


def kind(name: str, source: str, criteria: Sequence[tuple[str, float]]) -> Kind:
    """A kind from pairs of behaviour and threshold."""
    return Kind(name, tuple(Criterion(*one) for one in criteria), source)
