"""Recipes: every number that decides how a demo model comes out.

``FULL`` makes the shipped model, ``SMALL`` a lesser one in a few minutes for tests and for
checking a claim on a second seed. A recipe and a seed determine the weights.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

from interp.errors import InterpError

__all__ = ["FULL", "SMALL", "Mixture", "Recipe", "RecipeError"]


class RecipeError(InterpError):
    """A recipe whose numbers cannot go together."""


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """What share of the rows and documents goes to each task.

    Attributes:
        repeats: share of rows that hold random spans, each repeated; the rest hold text.
        early_repeats: the same, while training is early (see ``Recipe.early``).
        facts: weight of facts among the documents of a row of text.
        ioi: weight of indirect object identification.
        greater_than: weight of spans of years.
        mcq: weight of multiple choice.
        filler: weight of plain sentences.
        capital: share of the facts that are about capitals; other relations share the rest.
        reverse: share of the capital facts stated backwards.
    """

    repeats: float = 0.35
    early_repeats: float = 0.5
    facts: float = 0.27
    ioi: float = 0.20
    greater_than: float = 0.08
    mcq: float = 0.20
    filler: float = 0.06
    capital: float = 0.45
    reverse: float = 0.1

    def __post_init__(self) -> None:
        for name, share in asdict(self).items():
            if not 0 <= share <= 1:
                raise RecipeError(f"the share {name} must lie in [0, 1], got {share}")
        if not any(self.documents.values()):
            raise RecipeError("a mixture needs a weight above 0 for at least one kind of document")

    @property
    def documents(self) -> dict[str, float]:
        """The weights of the kinds of document in a row of text."""
        kinds = ("facts", "ioi", "greater_than", "mcq", "filler")
        return {kind: getattr(self, kind) for kind in kinds}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Architecture, corpus and optimiser of one demo model.

    Attributes:
        name: what to call it.
        layers, width, heads, mlp: the transformer's size.
        context: tokens in a row, and the longest sequence the model reads.
        rope_theta: base of the rotary frequencies; a small one suits a short context.
        embedding_std: initial scale of the token embeddings; facts are learned many times
            slower at the usual .02.
        weight_std: initial scale of every other matrix.
        position_std: initial scale of the biases of queries and keys. Turned by the rotary
            positions they give each head a taste for some distances from the first step on, out
            of which previous-token heads grow several times sooner than from zero.
        steps: optimiser steps.
        rows: rows in a batch.
        learning_rate: peak for the token embedding, reached after ``warmup`` steps; a cosine
            follows.
        vector_rate: peak for biases and norms.
        muon_rate: peak for all other matrices, which Muon trains.
        warmup: steps of linear warm-up.
        weight_decay: decoupled, on matrices only.
        shortest, longest: bounds on the length of a repeated random span.
        early: share of training that counts as early: more repeats, and no question with more
            than two options.
        mixture: what the corpus is made of.
        look_every: steps between two quick tables for the history; 0: none.
        keep: steps whose weights are kept as early checkpoints.
    """

    name: str
    layers: int = 4
    width: int = 192
    heads: int = 6
    mlp: int = 768
    context: int = 128
    rope_theta: float = 100.0
    embedding_std: float = 0.3
    weight_std: float = 0.02
    position_std: float = 1.0
    steps: int = 4200
    rows: int = 16
    learning_rate: float = 2e-3
    vector_rate: float = 1e-2
    muon_rate: float = 4e-3
    warmup: int = 100
    weight_decay: float = 0.1
    shortest: int = 4
    longest: int = 30
    early: float = 0.25
    mixture: Mixture = field(default_factory=Mixture)
    look_every: int = 0
    keep: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        counts = ("layers", "width", "heads", "mlp", "context", "steps", "rows", "warmup")
        for name in counts:
            if getattr(self, name) < 1:
                raise RecipeError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.width % self.heads:
            raise RecipeError(
                f"width {self.width} is not a multiple of heads {self.heads}; every head has an "
                "equal share of the width"
            )
        if not 1 <= self.shortest <= self.longest or 1 + 2 * self.longest > self.context:
            raise RecipeError(
                f"spans of {self.shortest} to {self.longest} tokens do not fit twice, after <bos>, "
                f"into a context of {self.context}; shorten the longest"
            )
        if not 0 <= self.early <= 1:
            raise RecipeError(f"early must lie in [0, 1], got {self.early}")
        for step in self.keep:
            if not 1 <= step <= self.steps:
                raise RecipeError(f"keep names step {step}, but there are {self.steps} steps")

    def is_early(self, step: int) -> bool:
        """Does this step belong to the early part of training?"""
        return step < self.early * self.steps

    @property
    def tokens(self) -> int:
        """Tokens read in the whole of training."""
        return self.steps * self.rows * self.context


FULL = Recipe(name="full")
SMALL = Recipe(name="small", layers=3, width=128, heads=4, mlp=512, steps=1500)
