"""What every node was seen to do: one number for each node and prompt, and how sure its mean is.

Nodes carry the names of :mod:`interp.graph`: ``a1.h3`` is head 3 of block 1, ``m2`` the MLP of
block 2.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import PromptError
from interp.intervals import bootstrap
from interp.models.model import Model
from interp.prompts.prompts import Prompts

__all__ = ["Behaviour", "columns", "head_names", "mlp_names", "named"]


@dataclass(frozen=True, eq=False)
class Behaviour:
    """One thing that nodes do.

    Attributes:
        name: what it is, ``"attention END→S2"``.
        unit: of ``values``: ``"share"``, ``"logits"``, ...
        nodes: who was asked.
        per_prompt: how much each does it on each prompt; NaN where it was not measured. A last
            axis of one where it is not a mean over prompts (scores of weights): no interval then.
    """

    name: str
    unit: str
    nodes: tuple[str, ...]
    per_prompt: Float[Tensor, "node prompt"]

    @classmethod
    def of_heads(
        cls, name: str, unit: str, values: Float[Tensor, "layer head *prompt"]
    ) -> Behaviour:
        """Of every head; without a prompt axis the values have no interval."""
        layers, heads = values.shape[:2]
        nodes = tuple(f"a{layer}.h{head}" for layer in range(layers) for head in range(heads))
        return cls(name, unit, nodes, values.reshape(layers * heads, -1).float().cpu())

    @classmethod
    def of_mlps(cls, name: str, unit: str, values: Float[Tensor, "layer prompt"]) -> Behaviour:
        """Of every MLP."""
        nodes = tuple(f"m{layer}" for layer in range(len(values)))
        return cls(name, unit, nodes, values.float().cpu())

    @classmethod
    def of_nobody(cls, name: str, unit: str, like: Behaviour) -> Behaviour:
        """Of no node, where a model has none of the kind."""
        return cls(name, unit, (), like.per_prompt[:0])

    @property
    def values(self) -> Float[Tensor, " node"]:
        """The mean over prompts."""
        return self.per_prompt.mean(-1)

    def bounds(self) -> tuple[Float[Tensor, " node"], Float[Tensor, " node"]]:
        """95% bootstrap bounds over prompts; NaN where there is nothing to resample."""
        if not self.nodes:
            return self.values, self.values
        interval = bootstrap(self.per_prompt)
        return interval.low, interval.high

    def renamed(self, name: str) -> Behaviour:
        """The same under another name."""
        return replace(self, name=name)

    def of(self, node: str) -> float:
        """The mean of one node."""
        return float(self.values[self.nodes.index(node)])

    def top(self, n: int) -> tuple[str, ...]:
        """The ``n`` nodes that do it most."""
        order = self.values.nan_to_num(-torch.inf).argsort(descending=True, stable=True)
        return tuple(self.nodes[i] for i in order[:n].tolist())


def columns(prompts: Prompts, place: str) -> Int[Tensor, " prompt"]:
    """The column of a named position, or of one some tokens behind it: ``"S1"``, ``"S1+1"``.

    Raises:
        PromptError: there is no such name, or what is behind it lies outside.
    """
    name, plus, behind = place.partition("+")
    where = prompts.columns(name)
    if not plus:
        return where
    if not behind.isdigit():
        raise PromptError(f"place {place!r}; expected a position such as 'S1', or 'S1+1'.")
    moved = where + int(behind)
    if bool((moved > prompts.answer_column).any()):
        raise PromptError(f"place {place!r} lies behind the last token of some of these prompts.")
    return moved


def named(prompts: Prompts, place: str) -> tuple[Prompts, str]:
    """The prompts with a position for this place, and its name as sites may write it."""
    if "+" not in place:
        return prompts, place
    name = place.replace("+", "_and_")
    where = {**prompts.positions, name: columns(prompts, place)}
    return replace(prompts, positions=where), name


def head_names(model: Model) -> tuple[str, ...]:
    """Every head, layer by layer."""
    return tuple(f"a{i}.h{j}" for i in range(model.n_layers) for j in range(model.n_heads))


def mlp_names(model: Model) -> tuple[str, ...]:
    """Every MLP; none in models of attention alone."""
    return (
        () if "mlp_out" in model.anatomy.refused else tuple(f"m{i}" for i in range(model.n_layers))
    )
