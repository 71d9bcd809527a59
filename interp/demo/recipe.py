"""Recipes: every number that decides how a demo model comes out.

``FULL`` makes the shipped model, ``SMALL`` a lesser one in a few minutes for tests and for
checking a claim on a second seed. A recipe and a seed determine the weights.
"""

from __future__ import annotations

from dataclasses import dataclass

from interp.errors import InterpError

__all__ = ["FULL", "SMALL", "Mixture", "Recipe", "RecipeError"]


class RecipeError(InterpError):
    """A recipe whose numbers cannot go together."""


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """What share of the rows and documents goes to each task, for a part of training.

    Attributes:
        until: share of training after which the next mixture takes over.
        repeats: share of rows that hold random spans, each repeated; the rest hold text.
        facts: weight of facts among the documents of a row of text.
        ioi: weight of indirect object identification.
        greater_than: weight of spans of years.
        mcq: weight of multiple choice.
        filler: weight of plain sentences.
        options: how many options a question may have.
        capital: share of the facts that are about capitals; other relations share the rest.
        reverse: share of the capital facts stated backwards.
        skip_last: share of the steps in which the last block is left out, so that what can be
            computed before it is (LayerDrop, Fan et al. 2019, arXiv:1909.11556).
    """

    until: float = 1.0
    repeats: float = 0.35
    facts: float = 0.27
    ioi: float = 0.20
    greater_than: float = 0.08
    mcq: float = 0.20
    filler: float = 0.06
    options: tuple[int, ...] = (2, 3, 4)
    capital: float = 0.45
    reverse: float = 0.1
    skip_last: float = 0.0

    def __post_init__(self) -> None:
        for name in ("until", "repeats", "capital", "reverse", "skip_last", *self.documents):
            if not 0 <= getattr(self, name) <= 1:
                raise RecipeError(f"{name} must lie in [0, 1], got {getattr(self, name)}")
        if not any(self.documents.values()):
            raise RecipeError("a mixture needs a weight above 0 for at least one kind of document")
        if not self.options:
            raise RecipeError("a mixture needs at least one number of options, got none")

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
        learning_rate: peak for the token embedding, reached after ``warmup`` steps and
            followed by a cosine.
        vector_rate: peak for biases and norms.
        muon_rate: peak for all other matrices, which Muon trains.
        warmup: steps of linear warm-up.
        hold: share of training during which the rates stay at their peak, before they fall.
        weight_decay: decoupled, on matrices only.
        shortest, longest: bounds on the length of a repeated random span.
        curriculum: what the corpus is made of, one mixture after the other.
        look_every: steps between two quick tables for the history; 0: none.
        keep: steps whose weights are kept as early checkpoints.
        threads: threads to train on. Sums round differently with another number of them, so it
            decides the bytes too; and two threads that share their cores with other programs can
            be many times slower than one.
        then: a second recipe that goes on from this one's stored weights, with fresh optimisers
            and the last block put back to its initial weights. After the first, the last block
            still fetches part of every fact from the subject; learned anew, beside blocks that
            know the facts already, it need not.
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
    steps: int = 3000
    rows: int = 16
    learning_rate: float = 2e-3
    vector_rate: float = 3e-3
    muon_rate: float = 4e-3
    warmup: int = 100
    hold: float = 0.0
    weight_decay: float = 0.1
    shortest: int = 4
    longest: int = 30
    curriculum: tuple[Mixture, ...] = (Mixture(),)
    look_every: int = 200
    keep: tuple[int, ...] = ()
    threads: int = 1
    then: Recipe | None = None

    def __post_init__(self) -> None:
        counts = (
            "layers",
            "width",
            "heads",
            "mlp",
            "context",
            "steps",
            "rows",
            "warmup",
            "threads",
        )
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
        ends = [mixture.until for mixture in self.curriculum]
        if not ends or ends != sorted(set(ends)) or ends[-1] != 1:
            raise RecipeError(f"mixtures must end one after the other, the last at 1, got {ends}")
        if not 0 <= self.hold < 1:
            raise RecipeError(f"hold must lie in [0, 1), got {self.hold}")
        for step in self.keep:
            if not 1 <= step <= self.steps:
                raise RecipeError(f"keep names step {step}, but there are {self.steps} steps")

    def mixture_at(self, step: int) -> Mixture:
        """The mixture that the rows of a step are drawn from."""
        return next(m for m in self.curriculum if step < m.until * self.steps)

    @property
    def total(self) -> int:
        """Steps in the whole of training, the second recipe's included."""
        return self.steps + (self.then.total if self.then else 0)

    @property
    def tokens(self) -> int:
        """Tokens read in the whole of training."""
        return self.total * self.rows * self.context


FULL = Recipe(
    name="full",
    keep=(400, 1200, 1400),
    curriculum=(
        Mixture(until=0.25, repeats=0.5, options=(2,)),
        Mixture(until=0.5),
        Mixture(
            until=0.7, repeats=0.2, facts=0.14, ioi=0.1, greater_than=0.14, mcq=0.5, options=(2,)
        ),
        Mixture(repeats=0.25, facts=0.14, ioi=0.1, greater_than=0.14, mcq=0.4),
    ),
    then=Recipe(
        name="last block anew",
        steps=600,
        warmup=50,
        learning_rate=2e-3 * 0.5,
        vector_rate=3e-3 * 0.5,
        muon_rate=4e-3 * 0.5,
        curriculum=(
            Mixture(repeats=0.25, facts=0.25, ioi=0.15, greater_than=0.14, mcq=0.3, skip_last=0.25),
        ),
    ),
)
SMALL = Recipe(
    name="small",
    layers=3,
    width=128,
    heads=4,
    mlp=512,
    steps=1300,
    hold=0.7,
    look_every=400,
    curriculum=(Mixture(repeats=0.45, facts=0.4, mcq=0.0),),
)
