"""How many dimensions of its queries, keys and values does a head need to choose a label?

For each head, on prompts with labelled options:

1. take its query at the last position and its keys and values at the labels (and the token behind each);
2. centre them, x - μ, and take the singular vectors of what is left: U S Vᵀ;
3. *causally*: put μ + P(x - μ) in the place of x, P the projection on the first r rows of Vᵀ, at those positions
   only, and see how much of the letter logit difference d survives:

       share(r) = (d(r) - d(0)) / (d(clean) - d(0))

   0 is a head that sees the mean alone, 1 the head as it is.

Controls: a random subspace of the same rank, and the *complement* (everything but the r directions).

With ``centre="label"`` μ is the mean at each label over prompts: what survives at rank 0 is what all prompts
share, and the subspace must carry what tells prompts apart. With ``centre="all"`` μ is one vector for all labels:
rank 0 takes what tells *labels* apart too, which is the stricter question.

Rotary positions: queries and keys are taken as the projections write them, before rotation, so no direction says
where a label stands; the model rotates what is put in. Grouped queries: a key head serves several query heads.
The projected key and value are seen by the named heads alone: each layer is run once with them, the named heads'
output (``z``) at the last position is kept, and only that is put into the scored run.

Source: Lieberum et al. 2023 (arXiv:2307.09458), the sections on the low-rank approximation of correct-letter heads.
Departures: the centring is said; heads of every kind are taken, not those of correct letters alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import ModelError, RunError
from interp.metrics import METRICS
from interp.models.model import Model
from interp.pipelines.labels import against_all, label_columns
from interp.pipelines.letter_heads import Head
from interp.pipelines.low_rank_result import LowRank
from interp.prompts.prompts import Prompts
from interp.results import Axis, Provenance
from interp.runs.edits import Replace

__all__ = ["HeadSubspaces", "head_subspaces", "low_rank"]

Centre = Literal["label", "all"]
Part = Literal["q", "k", "v"]
_PARTS: Final = ("q", "k", "v")
#: What varies by less than this share of its size does not vary.
_ROUNDING: Final = 1e-5


@dataclass(frozen=True, eq=False, repr=False)
class HeadSubspaces:
    """Singular directions of some heads' queries, keys and values where labels are chosen.

    Attributes:
        heads: layer and head.
        centre: over what is averaged: prompts at each label, or labels too.
        behind: how many tokens behind a label count as the label.
        mean: by head and part, μ; one row for each place, or a single one.
        basis: by head and part, orthonormal rows, the strongest direction first.
        variance: by head and part, the share of the variance along each; NaN where nothing varies (in the
            first block last tokens, and labels, of all prompts are alike), and the directions mean nothing.
    """

    heads: tuple[Head, ...]
    centre: Centre
    behind: int
    mean: dict[tuple[Head, str], Float[Tensor, "place d_head"]]
    basis: dict[tuple[Head, str], Float[Tensor, "d_head d_head"]]
    variance: dict[tuple[Head, str], Float[Tensor, " d_head"]]

    def __repr__(self) -> str:
        named = ", ".join(f"L{layer}.H{head}" for layer, head in self.heads)
        return f"HeadSubspaces({named}; centre {self.centre!r})"


def head_subspaces(
    model: Model,
    prompts: Prompts,
    heads: Sequence[Head],
    *,
    centre: Centre = "label",
    behind: int = 1,
) -> HeadSubspaces:
    """The singular directions of heads' queries at the end, and keys and values at the labels.

    Args:
        prompts: labelled options; the fit sees no others.
        heads: as (layer, head).
        centre: ``"label"``: the mean at each label; ``"all"``: one mean for all labels.
        behind: how many tokens behind a label are taken with it.

    Raises:
        ModelError: no such head.
        RunError: an unknown ``centre``, or a negative ``behind``.
        PromptError: no labelled options.
    """
    chosen = _checked(model, heads)
    if centre not in ("label", "all"):
        raise RunError(f"centre={centre!r}; expected 'label' or 'all'.")
    if behind < 0:
        raise RunError(f"behind={behind}; expected how many tokens after each label, 0 or more.")
    layers = sorted({layer for layer, _ in chosen})
    run = model.run(
        prompts, save=[f"L{n}.{part}" for n in layers for part in _PARTS], logits="none"
    )
    mean, basis, variance = {}, {}, {}
    for layer, head in chosen:
        for part in _PARTS:
            where = _columns(prompts, part, behind).to(model.device)
            rows = torch.arange(len(where), device=where.device)[:, None]
            x = run.cache[f"L{layer}.{part}"][:, :, _of(model, head, part)][rows, where].float()
            mu = x.mean(0) if centre == "label" else x.mean((0, 1))[None]
            spread = (x - mu).flatten(0, 1)
            values, vectors = torch.linalg.eigh(spread.T @ spread)
            key = ((layer, head), part)
            mean[key], basis[key] = mu, vectors.T.flip(0).contiguous()
            variance[key] = _shares(values.flip(0), x)
    return HeadSubspaces(chosen, centre, behind, mean, basis, variance)


@torch.no_grad()
def low_rank(
    model: Model,
    prompts: Prompts,
    subspaces: HeadSubspaces,
    *,
    ranks: Sequence[int] = (1, 2, 3, 4, 8),
    parts: Sequence[str] = ("q", "k", "v", "qkv"),
    draws: int = 5,
    seed: int = 0,
) -> LowRank:
    """How much of the letter logit difference survives on low-rank queries, keys and values.

    Args:
        prompts: labelled options, others than those the subspaces were fitted on; of any labels.
        subspaces: of :func:`head_subspaces`.
        ranks: how many directions to keep.
        parts: which of q, k and v are projected; several letters together.
        draws: random subspaces of each rank.
        seed: of these.

    Raises:
        RunError: ranks beyond the head's width, parts other than q, k and v, or options of another number
            than the subspaces were fitted on.
        PromptError: no labelled options.
    """
    if not parts or not all(part and set(part) <= set(_PARTS) for part in parts):
        raise RunError(f"parts={list(parts)}; expected letters of 'qkv', such as 'qk'.")
    if not ranks or not all(0 < rank <= model.d_head for rank in ranks):
        raise RunError(f"ranks={list(ranks)}; expected 1 to {model.d_head}, the head's width.")
    asked = against_all(prompts)
    places = _columns(asked, "k", subspaces.behind).shape[1]
    fitted = {mu.shape[0] for (_, part), mu in subspaces.mean.items() if part != "q"}
    if not fitted <= {1, places}:
        raise RunError(
            f"the subspaces were fitted at {max(fitted)} places and these prompts have {places}: expected as "
            "many options."
        )
    generator = torch.Generator().manual_seed(seed)

    def scored(part: str, pick: Callable[[Tensor], Tensor]) -> Float[Tensor, " prompt"]:
        return _score(model, asked, subspaces, part, pick)

    kept, without, random = [], [], []
    for part in parts:
        kept.append([scored(part, _rows(0)), *(scored(part, _rows(r)) for r in ranks)])
        without.append([scored(part, _rows(r, None)).mean() for r in ranks])
        random.append(
            [[scored(part, _random(r, generator)).mean() for _ in range(draws)] for r in ranks]
        )
    return LowRank(
        axes=(Axis("part", tuple(parts)), Axis("rank", ("0", *map(str, ranks)))),
        per_prompt=torch.stack([torch.stack(row) for row in kept]).float().cpu(),
        complement=torch.tensor(without),
        random=torch.tensor(random).reshape(len(parts), len(ranks), draws),
        clean=_plain(model, asked).float().cpu(),
        provenance=Provenance.of(
            model, asked, seed=seed, verb="low_rank", heads=[list(h) for h in subspaces.heads],
            centre=subspaces.centre, behind=subspaces.behind, ranks=list(ranks), parts=list(parts),
            draws=draws,
        ),
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Projected:
    """Put μ + (x - μ)Bᵀ B in the place of x, at each prompt's own columns."""

    columns: Int[Tensor, "prompt place"]
    mean: Float[Tensor, "#place d_head"]
    basis: Float[Tensor, "rank d_head"]

    def __call__(self, x: Float[Tensor, "prompt pos d_head"]) -> Float[Tensor, "prompt pos d_head"]:
        rows = torch.arange(len(x), device=x.device)[:, None]
        columns, x = self.columns.to(x.device), x.clone()
        mean, basis = self.mean.to(x), self.basis.to(x)
        x[rows, columns] = mean + (x[rows, columns] - mean) @ basis.T @ basis
        return x

    def rows(self, start: int, stop: int, total: int) -> _Projected:
        return _Projected(self.columns[start:stop], self.mean, self.basis)


def _score(
    model: Model,
    asked: Prompts,
    subspaces: HeadSubspaces,
    part: str,
    pick: Callable[[Tensor], Tensor],
) -> Float[Tensor, " prompt"]:
    """The letter logit difference with every named head's output from projected q, k, v."""
    outputs: dict[str, Any] = {}
    for layer in sorted({layer for layer, _ in subspaces.heads}):
        mine = [head for head in subspaces.heads if head[0] == layer]
        edit = dict(outputs)
        for one in mine:
            for letter in part:
                name = f"L{layer}.H{_of(model, one[1], letter)}.{letter}"
                where = _columns(asked, letter, subspaces.behind)
                key = (one, letter)
                edit[name] = _Projected(where, subspaces.mean[key], pick(subspaces.basis[key]))
        names = [f"L{layer}.H{head}.z@END" for _, head in mine]
        run = model.run(asked, save=names, edit=edit, logits="none")
        outputs |= {name: Replace(run.cache[name]) for name in names}
    return _plain(model, asked, outputs)


def _plain(
    model: Model, asked: Prompts, edit: dict[str, Any] | None = None
) -> Float[Tensor, " prompt"]:
    logits = model.run(asked, edit=edit, logits="last").logits[:, 0]
    assert asked.answers is not None  # of labelled options
    assert asked.foils is not None
    return METRICS["logit_diff"].score(
        logits, asked.answers.to(logits.device), asked.foils.to(logits.device)
    )


def _rows(start: int, stop: int | None = 0) -> Callable[[Tensor], Tensor]:
    """The first ``start`` rows of a basis; with ``stop=None`` all others."""
    return (lambda basis: basis[:start]) if stop == 0 else (lambda basis: basis[start:])


def _random(rank: int, generator: torch.Generator) -> Callable[[Tensor], Tensor]:
    """A subspace of this rank with nothing to do with the head, another at each call."""

    def pick(basis: Tensor) -> Tensor:
        drawn = torch.randn(basis.shape[1], rank, generator=generator, dtype=torch.float64)
        return torch.linalg.qr(drawn).Q.T.to(basis)

    return pick


def _shares(
    squares: Float[Tensor, " d_head"], x: Float[Tensor, "prompt place d_head"]
) -> Float[Tensor, " d_head"]:
    """Each direction's share of the variance; NaN where all of it is rounding of ``x``."""
    squares = squares.clamp(min=0)
    total = squares.sum()
    if total <= _ROUNDING**2 * x.square().sum():
        return torch.full_like(squares, torch.nan).cpu()
    return (squares / total).cpu()


def _columns(prompts: Prompts, part: str, behind: int) -> Int[Tensor, "prompt place"]:
    if part == "q":
        return prompts.answer_column[:, None]
    return label_columns(prompts, behind=behind)


def _of(model: Model, head: int, part: str) -> int:
    """The head of q, k or v that a query head has."""
    return head if part == "q" else head // (model.n_heads // model.n_kv_heads)


def _checked(model: Model, heads: Sequence[Head]) -> tuple[Head, ...]:
    chosen = tuple((int(layer), int(head)) for layer, head in heads)
    inside = all(0 <= n < model.n_layers and 0 <= h < model.n_heads for n, h in chosen)
    if not chosen or not inside or len(set(chosen)) < len(chosen):
        raise ModelError(
            f"heads={list(heads)}; expected different heads as (layer, head), of {model.n_layers} layers "
            f"with {model.n_heads} heads each."
        )
    return chosen
