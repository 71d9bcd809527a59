"""Which heads look back: previous-token, duplicate-token and induction heads, by behaviour.

Rows of random tokens, written twice, have no statistics to learn, so a head that
attends from a token to what followed it the last time can only be doing induction.
Attention alone does not show that the head uses what it sees; so each head is also
asked whether it *copies*, twice: by what it adds to the logit of the right next token,
and by its weights (a positive OV circuit raises the logit of the token attended to).
Many heads copy that are not induction heads: copying alone is never a finding.

Sources: Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits"
(OV eigenvalues); Olsson et al. 2022, arXiv:2209.11895 (prefix matching, copying).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from interp.discovery.scores import (
    duplicate_token_scores,
    induction_scores,
    previous_token_scores,
)
from interp.errors import PromptError
from interp.models.model import Model
from interp.results import Provenance, Stored
from interp.runs.execute import execute
from interp.taps.norms import centres
from interp.token_batch import TokenBatch
from interp.weight_lenses.copying import copying_scores

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

__all__ = ["HeadScores", "head_scores", "repeated_tokens"]

#: Above this share of its attention a head is counted as one of its kind.
THRESHOLD = 0.4


@dataclass(frozen=True, eq=False, repr=False)
class HeadScores(Stored):
    """How much each head behaves like a known kind.

    Attributes:
        previous_token, duplicate_token, induction: mean attention where a head of that kind
            looks, 0 to 1.
        copying_logit: what the head adds, in the second copy, to the logit of the right next
            token above the vocabulary's mean, in logits (final norm's scale frozen). NaN in
            families that normalise attention's output, where a head has no part of its own.
        copying_ov: ΣRe λ / Σ|λ| of the eigenvalues of W_E · W_V · W_O · W_U, -1 to 1; 1 = each
            token raises its own logit.
        chance: attention of a head that attends evenly, for the same rows.
    """

    previous_token: Float[Tensor, "layer head"]
    duplicate_token: Float[Tensor, "layer head"]
    induction: Float[Tensor, "layer head"]
    copying_logit: Float[Tensor, "layer head"]
    copying_ov: Float[Tensor, "layer head"]
    chance: float
    provenance: Provenance

    def __repr__(self) -> str:
        layers, heads = self.induction.shape
        best = self.top("induction", 1)[0]
        return f"HeadScores({layers} × {heads} heads; strongest induction {best[0]} {best[1]:.2f})"

    def top(self, kind: str, n: int = 3) -> list[tuple[str, float]]:
        """The ``n`` heads with the largest score of a kind, as ``("L2.H1", 0.8)``."""
        scores: Tensor = getattr(self, kind)
        order = scores.flatten().nan_to_num(-torch.inf).argsort(descending=True, stable=True)[:n]
        width = scores.shape[1]
        return [(f"L{i // width}.H{i % width}", float(scores.flatten()[i])) for i in order.tolist()]

    def found(self, kind: str, *, threshold: float = THRESHOLD) -> list[str]:
        """Heads of a kind: attention of at least ``threshold``; an induction head must also
        raise the logit of the token it attends to (by weights where its output has no part)."""
        scores: Tensor = getattr(self, kind)
        names = []
        for layer, head in (scores >= threshold).nonzero().tolist():
            adds = float(self.copying_logit[layer, head])
            copies = self.copying_ov[layer, head] > 0 if adds != adds else adds > 0
            if kind != "induction" or copies:
                names.append(f"L{layer}.H{head}")
        return names

    def to_frame(self) -> DataFrame:
        """One row for each head."""
        import pandas as pd

        layers, heads = self.induction.shape
        columns = ("previous_token", "duplicate_token", "induction", "copying_logit", "copying_ov")
        return pd.DataFrame({
            "layer": [i for i in range(layers) for _ in range(heads)],
            "head": list(range(heads)) * layers,
            **{name: getattr(self, name).flatten().tolist() for name in columns},
        })  # fmt: skip

    def plot(self, kind: str = "induction", *, title: str | None = None) -> Figure:
        """A layer × head heat map of one score."""
        from interp.figures import heatmap

        scores: Tensor = getattr(self, kind)
        attention = kind in ("previous_token", "duplicate_token", "induction")
        return heatmap(
            scores,
            rows=[str(i) for i in range(scores.shape[0])],
            columns=[str(i) for i in range(scores.shape[1])],
            title=title or f"{kind.replace('_', '-')} score",
            unit="mean attention"
            if attention
            else "logits"
            if kind == "copying_logit"
            else "share",
            column_name="head",
            signed=not attention,
            limit=1.0 if kind != "copying_logit" else None,
            missing="not defined",
        )


def repeated_tokens(model: Model, *, n: int, period: int, seed: int = 0) -> TokenBatch:
    """``n`` rows of BOS (where the model has one) and ``period`` random tokens written twice."""
    bos = model.tokens.bos_id
    width = 2 * period + (bos is not None)
    if period < 2 or (model.n_ctx is not None and width > model.n_ctx):
        raise PromptError(
            f"period={period} makes rows of {width} tokens; expected a period of at least 2 and "
            f"rows of at most {model.n_ctx}, the context."
        )
    allowed = torch.tensor([i for i in range(model.d_vocab) if i not in model.tokens.special_ids])
    generator = torch.Generator().manual_seed(seed)
    half = allowed[torch.randint(len(allowed), (n, period), generator=generator)]
    first = [] if bos is None else [torch.full((n, 1), bos)]
    return TokenBatch.of(torch.cat([*first, half, half], dim=1))


@torch.no_grad()
def head_scores(model: Model, *, n: int = 64, period: int = 24, seed: int = 0) -> HeadScores:
    """Score every head of a model on repeated random tokens.

    Args:
        n: rows of random tokens.
        period: length of one copy, in tokens.

    Raises:
        PromptError: the rows do not fit in the context.
        SiteError: this family does not show its attention patterns.
    """
    tokens = repeated_tokens(model, n=n, period=period, seed=seed).to(model.device)
    lead = tokens.ids.shape[1] - 2 * period
    rows: dict[str, list[Tensor]] = {"previous_token": [], "duplicate_token": [], "induction": []}
    for layer in range(model.n_layers):
        cache = execute(model.anatomy, tokens, save=f"L{layer}.pattern", logits="none").cache
        pattern = cache[f"L{layer}.pattern"].float()
        if not lead:  # the scores count BOS as position 0
            pattern = torch.nn.functional.pad(pattern, (1, 0, 1, 0))
        rows["previous_token"].append(previous_token_scores(pattern))
        rows["duplicate_token"].append(duplicate_token_scores(pattern, period))
        rows["induction"].append(induction_scores(pattern, period))
    queries = torch.arange(lead + period, lead + 2 * period)
    return HeadScores(
        **{name: torch.stack(scores).cpu() for name, scores in rows.items()},
        copying_logit=_copying_logit(model, tokens, period).cpu(),
        copying_ov=_copying_ov(model),
        chance=float((1 / (queries + 1)).mean()),
        provenance=Provenance.of(model, seed=seed, verb="head_scores", n=n, period=period),
    )


def _copying_logit(model: Model, tokens: TokenBatch, period: int) -> Float[Tensor, "layer head"]:
    """Direct effect of each head on the logit of the right next token, in the second copy."""
    anatomy = model.anatomy
    if any(block.norm_after_attn for block in anatomy.blocks):
        return torch.full((model.n_layers, model.n_heads), torch.nan)
    queries = slice(-period, -1)  # the second copy, but for its last token
    targets = tokens.ids[:, -period + 1 :]
    directions = _centred_unembedding(model)[:, targets]  # [d_model, batch, query]
    if anatomy.ln_final is not None:
        cache = execute(anatomy, tokens, save="ln_final.scale", logits="none").cache
        directions = directions / cache["ln_final.scale"][:, queries, 0]
    directions = directions / (getattr(anatomy.hf.config, "logits_scaling", None) or 1.0)
    out = []
    for layer in range(model.n_layers):
        run = execute(anatomy, tokens, save=f"L{layer}.result", logits="none")
        result = run.cache[f"L{layer}.result"][:, queries].to(directions.dtype)
        if anatomy.ln_final is not None and centres(anatomy.ln_final):
            result = result - result.mean(-1, keepdim=True)
        out.append(torch.einsum("bqhd,dbq->h", result, directions) / targets.numel())
    return torch.stack(out)


def _centred_unembedding(model: Model) -> Float[Tensor, "d_model d_vocab"]:
    """The unembedding with the final norm's γ folded in, less its mean over the vocabulary."""
    w_u = model.weights.folded().W_U
    return w_u - w_u.mean(-1, keepdim=True)


def _copying_ov(model: Model) -> Float[Tensor, "layer head"]:
    """ΣRe λ / Σ|λ| of each head's full OV circuit, of the bare product of weights."""
    found = copying_scores(model, folded=False, normalise=False, centre=False, controls=1)
    return found.values
