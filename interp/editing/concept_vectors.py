"""Concept vectors: is what a model knows of one thing held in one column of one MLP, and did unlearning remove it?

A column of an MLP's down projection (one neuron's ``W_out``) is a direction that writes to the residual stream. Read
through the unembedding, a few of them name one concept only: *concept vectors*. They tell what outputs do not: after
most unlearning methods the model stops answering, and the vector is still there, so the knowledge can come back.
Three steps:

1. *Find*: decode columns (``interp.weight_lenses.decode(model, "L3.mlp_post.N77", top=200)``).
2. *Validate* (:func:`noise_effect`): add Gaussian noise to the column. It must hurt prompts about the concept, and others
   little; and noise on random columns of its layer must hurt neither.
3. *Measure* (:func:`vector_change`) before and after unlearning: cosine, L2 distance, and the Jaccard overlap of the 200
   tokens with the largest logits. Cosine 1, distance 0 and Jaccard 1 mean that nothing was removed.

Source: Hong et al. 2024, "Intrinsic evaluation of unlearning using parametric knowledge traces", arXiv:2406.11614
(ConceptVectors): noise of σ = 0.1 to validate, top 200 tokens.

Departure: effects are log-probabilities of answers in nats; the authors compare generated answers by BLEU and ROUGE.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import MetricError, ModelError, PromptError
from interp.metrics import evaluate
from interp.models.edited import Change
from interp.models.model import Model
from interp.prompts.prompts import Prompts
from interp.results import Provenance, Stored
from interp.weight_lenses.ends import unembedding

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["NoiseEffect", "VectorChange", "jaccard", "noise_effect", "vector_change"]

Place = tuple[int, int]  # layer, column (neuron)


def jaccard(a: Int[Tensor, "*rows k"], b: Int[Tensor, "*rows k"]) -> Float[Tensor, "*rows"]:
    """|A ∩ B| / |A ∪ B| of sets of k different ids: 0 = disjoint, 1 = the same. Two random sets of 200 of 32,000 have .003.

    Raises:
        MetricError: sets of different sizes, or with an id twice.

    >>> jaccard(torch.tensor([1, 2, 3]), torch.tensor([3, 4, 1])).item()
    0.5
    """
    if a.shape != b.shape or a.ndim < 1:
        raise MetricError(
            f"jaccard() got ids {list(a.shape)} and {list(b.shape)}; expected as many in both."
        )
    for ids in (a, b):
        ordered = ids.sort(-1).values
        if bool((ordered[..., 1:] == ordered[..., :-1]).any()):
            raise MetricError("jaccard() got an id twice in one set; expected different ids.")
    common = (a[..., :, None] == b[..., None, :]).any(-1).sum(-1).double()
    return common / (2 * a.shape[-1] - common)


@dataclass(frozen=True, eq=False, repr=False)
class VectorChange(Stored):
    """What became of some columns.

    Attributes:
        places: (layer, column) of each.
        cosine: between the column before and after; 1 = same direction.
        distance: L2, in the weights' unit; 0 = untouched.
        jaccard: overlap of the top tokens; 1 = it still says the same.
        before, after: the top tokens' ids, largest logit first.
        provenance: the model before, versions and the call.
    """

    places: tuple[Place, ...]
    cosine: Float[Tensor, " place"]
    distance: Float[Tensor, " place"]
    jaccard: Float[Tensor, " place"]
    before: Int[Tensor, "place top"]
    after: Int[Tensor, "place top"]
    provenance: Provenance

    def __repr__(self) -> str:
        return (
            f"VectorChange({len(self.places)} columns; mean cosine {float(self.cosine.mean()):.3g}, "
            f"L2 {float(self.distance.mean()):.3g}, Jaccard@{self.before.shape[1]} {float(self.jaccard.mean()):.3g})"
        )

    def to_frame(self) -> DataFrame:
        """One row for each column."""
        import pandas as pd

        return pd.DataFrame({
            "layer": [place[0] for place in self.places], "column": [place[1] for place in self.places],
            "cosine": self.cosine.tolist(), "distance": self.distance.tolist(), "jaccard": self.jaccard.tolist(),
        })  # fmt: skip


@torch.no_grad()
def vector_change(
    model: Model, after: Model | Change | Mapping[str, Any], places: Sequence[Place], *,
    top: int = 200, folded: bool = False,
) -> VectorChange:  # fmt: skip
    """Compare columns of a model with those of another, or with its own under an edit.

    Args:
        after: a model of the same shape (``continue_training(...).model``), or what ``model.edited`` takes.
        places: (layer, column) of each.
        top: how many tokens; at most half the vocabulary says anything.
        folded: read through the final norm's γ and centring; False: W_U · v, as in the paper.

    Raises:
        ModelError: models of different shapes, or no such column.
        MetricError: ``top`` is not between 1 and the vocabulary's size.
    """
    if not 1 <= top <= model.d_vocab_out:
        raise MetricError(f"top={top}; expected 1 to {model.d_vocab_out}, the vocabulary's size.")
    old = _columns(model, places), unembedding(model, folded=folded)
    other = after if isinstance(after, Model) else model
    with nullcontext() if isinstance(after, Model) else model.edited(after):
        new = _columns(other, places), unembedding(other, folded=folded)
    if old[0].shape != new[0].shape or old[1].shape != new[1].shape:
        raise ModelError(
            f"{model!r} and {other!r} differ in shape: their columns cannot be compared."
        )
    ids = [(v.to(u) @ u).topk(top, dim=-1).indices.cpu() for v, u in (old, new)]
    a, b = (v.cpu().double() for v, _ in (old, new))
    name = other.name if isinstance(after, Model) else type(after).__name__
    return VectorChange(
        tuple((int(i), int(c)) for i, c in places), torch.cosine_similarity(a, b, dim=-1),
        (a - b).norm(dim=-1), jaccard(ids[0], ids[1]), ids[0], ids[1],
        Provenance.of(model, verb="vector_change", after=name, top=top, folded=folded),
    )  # fmt: skip


@dataclass(frozen=True, eq=False, repr=False)
class NoiseEffect(Stored):
    """What noise on columns does to prompts about the concept and to others: log-probability lost, in nats.

    Positive: the answer became less likely. A concept vector has a large ``own`` and a small ``other``, and ``random``
    columns' noise does nothing to its prompts.

    Attributes:
        places: (layer, column) of the columns, noised together.
        own: loss of each prompt about the concept, by draw of the noise.
        other: of each other prompt.
        random: of the prompts about the concept, with as many random columns of the same layers noised.
        std: of the noise, in the weights' unit.
        provenance: model, versions and the call.
    """

    places: tuple[Place, ...]
    own: Float[Tensor, "draw prompt"]
    other: Float[Tensor, "draw other_prompt"]
    random: Float[Tensor, "draw prompt"]
    std: float
    provenance: Provenance

    def __repr__(self) -> str:
        own, other, random = (float(x.mean()) for x in (self.own, self.other, self.random))
        return (
            f"NoiseEffect({len(self.places)} columns, σ {self.std:g}; lost: own {own:.3g}, others {other:.3g}, "
            f"random columns {random:.3g} nats)"
        )

    def to_frame(self) -> DataFrame:
        """One row for each draw: mean ``own``, ``other`` and ``random``."""
        import pandas as pd

        return pd.DataFrame(
            {name: getattr(self, name).mean(-1).tolist() for name in ("own", "other", "random")}
        )


@torch.no_grad()
def noise_effect(
    model: Model, own: Prompts, other: Prompts, places: Sequence[Place], *,
    std: float = 0.1, draws: int = 5, seed: int = 0,
) -> NoiseEffect:  # fmt: skip
    """Add Gaussian noise to columns of down projections, and see what is forgotten.

    Args:
        own, other: prompts with answers: about the concept, and about other things.
        places: (layer, column) of each; several are noised together.
        std: of the noise on each weight: .1 in the paper. Columns of other lengths need other noise: ``random`` has the
            same, and must do nothing.
        draws: of the noise, and of the random columns.
        seed: of both.

    Raises:
        PromptError: prompts without answers.
        ModelError: no such column, or too few others to draw from.
        MetricError: ``std`` not above 0, or no draws.
    """
    if own.answers is None or other.answers is None:
        raise PromptError(
            "noise_effect() needs prompts with answers on both sides: build them with answers=."
        )
    if not std > 0 or draws < 1:
        raise MetricError(f"std={std}, draws={draws}; expected a std above 0 and 1 draw at least.")
    _columns(model, places)
    clean = [_log_prob(model, prompts) for prompts in (own, other)]
    generator = torch.Generator().manual_seed(seed)
    lost: list[tuple[Tensor, Tensor, Tensor]] = []
    for _ in range(draws):
        noise = std * torch.randn(len(places), model.d_model, generator=generator)
        with model.edited(_noised(places, noise)):
            mine, others = clean[0] - _log_prob(model, own), clean[1] - _log_prob(model, other)
        with model.edited(_noised(_random(model, places, generator), noise)):
            lost.append((mine, others, clean[0] - _log_prob(model, own)))
    stacked = [torch.stack([one[i] for one in lost]) for i in range(3)]
    provenance = Provenance.of(
        model, own, seed=seed, verb="noise_effect", other=other.hash, std=std, draws=draws
    )
    return NoiseEffect(
        tuple((int(i), int(c)) for i, c in places),
        stacked[0],
        stacked[1],
        stacked[2],
        std,
        provenance,
    )


def _columns(model: Model, places: Sequence[Place]) -> Float[Tensor, "place d_model"]:
    for layer, column in places:
        if not (0 <= layer < model.n_layers and 0 <= column < (model.anatomy.d_mlp or 0)):
            raise ModelError(
                f"({layer}, {column}): {model.name!r} has no such column of a down projection; expected (layer, "
                f"neuron) below ({model.n_layers}, {model.anatomy.d_mlp})."
            )
    if not places:
        raise ModelError("no columns were given; expected (layer, neuron) of one at least.")
    rows = [model.weights.layer(i).W_out[c].as_subclass(Tensor) for i, c in places]
    return torch.stack(rows).float().clone()


def _log_prob(model: Model, prompts: Prompts) -> Float[Tensor, " prompt"]:
    return evaluate("log_prob", model.run(prompts).logits, prompts).cpu()


def _noised(
    places: Sequence[Place], noise: Float[Tensor, "place d_model"]
) -> dict[str, Callable[[Tensor], Tensor]]:
    def edit(mine: list[tuple[int, Tensor]]) -> Callable[[Tensor], Tensor]:
        def apply(w: Tensor) -> Tensor:
            for column, added in mine:
                w[column] += added.to(w)
            return w

        return apply

    by_layer: dict[int, list[tuple[int, Tensor]]] = {}
    for (layer, column), added in zip(places, noise, strict=True):
        by_layer.setdefault(layer, []).append((column, added))
    return {f"L{layer}.W_out": edit(mine) for layer, mine in by_layer.items()}


def _random(model: Model, places: Sequence[Place], generator: torch.Generator) -> list[Place]:
    """As many other columns of the same layers, none twice."""
    taken, out = set(places), []
    for layer, _ in places:
        free = [c for c in range(model.anatomy.d_mlp or 0) if (layer, c) not in taken]
        if not free:
            raise ModelError(
                f"layer {layer} has no other columns to noise at random: give fewer places."
            )
        out.append((layer, free[int(torch.randint(len(free), (), generator=generator))]))
        taken.add(out[-1])
    return out
