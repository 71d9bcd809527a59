"""What does an MLP make of the heads before it? A regression of its output on theirs.

At the last position, an MLP's output is written as a weighted sum of what single heads wrote there,
plus one vector for all prompts:

    y_p ≈ Σ_h c_h · x_{h,p} + b

A coefficient above 0 says that the MLP adds more of what a head brought (amplifies it), below 0 that it
takes it away (erases it); the intercept b is what it writes whatever was brought. Lv et al. find
that b speaks for all capitals at once: a direction "name a capital", which the movers' subject turns
into one capital.

Scalars times whole vectors are few parameters (one for each head), so a fit says much about the MLP
if it holds on other prompts, and little if it does not: R² is measured on a held-out half, beside the
same fit on *shuffled* pairs, where each prompt's head outputs belong to another prompt.

Source: Lv et al. 2024, "Interpreting Key Mechanisms of Factual Recall in Transformer-Based Language
Models" (arXiv:2403.19521). Departures: held-out R², the shuffled control and the AUROC of the intercept
are ours; regressions of all MLPs, not of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.errors import RunError
from interp.graph.names import Node
from interp.models.model import Model
from interp.pipelines.behaviour import mlp_names
from interp.pipelines.composition import site_of
from interp.prompts.prompts import Prompts
from interp.results import Provenance, Stored
from interp.weight_lenses.ends import unembedding

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

__all__ = ["MlpRegression", "fit", "mlp_regression", "r_squared", "speaks_for"]


@dataclass(frozen=True, eq=False, repr=False)
class MlpRegression(Stored):
    """Each MLP's output at the last position as a sum of head outputs and an intercept.

    Attributes:
        mlps, heads: the MLPs explained, and the heads that explain them.
        coefficients: of each head; above 0 the MLP amplifies what the head brings, below 0 it
            erases it. NaN for heads that the MLP cannot read.
        intercept: what is written whatever the heads bring.
        r2: on held-out prompts, of the variance around the mean of the fitted ones: 1 = all of
            it, 0 = no better than that mean, below 0 = worse.
        null_r2: the same with each prompt's head outputs taken from another prompt.
        answers: AUROC with which the intercept's logits rank the answers of the task above other
            words: 0.5 = chance, 1 = every answer above every other word.
        null_answers: the same of the shuffled fit's intercept. An intercept that ranks no better is
            the MLP's mean output, and says nothing about the heads.
        provenance: model, prompts, versions and the call.
    """

    mlps: tuple[str, ...]
    heads: tuple[str, ...]
    coefficients: Float[Tensor, "mlp head"]
    intercept: Float[Tensor, "mlp d_model"]
    r2: Float[Tensor, " mlp"]
    null_r2: Float[Tensor, " mlp"]
    answers: Float[Tensor, " mlp"]
    null_answers: Float[Tensor, " mlp"]
    provenance: Provenance

    def __repr__(self) -> str:
        each = ", ".join(
            f"{name} R² {float(own):.3f} (shuffled {float(null):.3f})"
            for name, own, null in zip(self.mlps, self.r2, self.null_r2, strict=True)
        )
        return f"MlpRegression({len(self.heads)} heads; held out: {each})"

    def said(self) -> list[str]:
        """What the regressions bear, in a sentence."""
        each = ", ".join(
            f"{name} {float(own):.3f} ({float(null):.3f}; answers {float(rank):.2f}, shuffled "
            f"{float(null_rank):.2f})"
            for name, own, null, rank, null_rank in zip(
                self.mlps, self.r2, self.null_r2, self.answers, self.null_answers, strict=True
            )
        )
        return [
            f"regression of MLPs on {len(self.heads)} heads, held-out R² (shuffled pairs; AUROC of the "
            f"intercept over the task's answers): {each}"
        ]

    def to_frame(self) -> DataFrame:
        """One row for each MLP and head: ``coefficient``, and the MLP's numbers beside it.

        Columns: ``mlp``, ``head``, ``coefficient``, ``r2``, ``null_r2``, ``answers``,
        ``null_answers``.
        """
        import pandas as pd

        per_mlp = ("r2", "null_r2", "answers", "null_answers")
        rows = [
            {"mlp": mlp, "head": head, "coefficient": float(self.coefficients[i, j])}
            | {name: float(getattr(self, name)[i]) for name in per_mlp}
            for i, mlp in enumerate(self.mlps)
            for j, head in enumerate(self.heads)
            if not bool(self.coefficients[i, j].isnan())
        ]
        return pd.DataFrame(rows, columns=["mlp", "head", "coefficient", *per_mlp])

    def plot(self, *, title: str = "coefficients of heads in each MLP's output") -> Figure:
        """A heat map; the row of an MLP says how much of its output they explain."""
        from interp.figures import heatmap

        return heatmap(
            self.coefficients,
            rows=[f"{m} (R² {float(r):.2f})" for m, r in zip(self.mlps, self.r2, strict=True)],
            columns=list(self.heads), title=title, unit="coefficient (above 0 amplifies)",
            row_name="MLP", column_name="head", missing="not read by this MLP",
        )  # fmt: skip


@torch.no_grad()
def mlp_regression(
    model: Model,
    fitted: Prompts,
    held_out: Prompts,
    heads: Sequence[str],
    *,
    position: str = "END",
    seed: int = 0,
) -> MlpRegression:
    """Explain each MLP's output at one position by what some heads wrote there.

    Args:
        fitted, held_out: prompts to fit on and to measure R² on.
        heads: nodes, ``"a2.h5"``.
        seed: of the shuffled control.

    Raises:
        RunError: no heads, or fewer prompts than three.
        SiteError: this family's heads have no outputs of their own.
    """
    if not heads or min(len(fitted), len(held_out)) < 3:
        raise RunError(
            f"a regression on {len(heads)} heads over {len(fitted)} and {len(held_out)} prompts; "
            "expected at least one head, and three prompts in each part."
        )
    own, other = (_outputs(model, part, heads, position) for part in (fitted, held_out))
    generator = torch.Generator().manual_seed(seed)
    shuffled = [torch.randperm(len(part), generator=generator) for part in (fitted, held_out)]
    reader, answers = unembedding(model).cpu(), _answers(model, fitted)
    coefficients = torch.full((model.n_layers, len(heads)), torch.nan)
    intercepts, numbers = [], []
    for layer in range(model.n_layers):
        (x, y), (x2, y2) = (
            (a[:, : _read(model, heads, layer)], b[:, layer]) for a, b in (own, other)
        )
        c, b = fit(x, y)
        null_c, null_b = fit(x[shuffled[0]], y)
        coefficients[layer, : len(c)] = c.float()
        intercepts.append(b)
        numbers.append([
            r_squared(c, b, x2, y2, y.mean(0)),
            r_squared(null_c, null_b, x2[shuffled[1]], y2, y.mean(0)),
            *(_auroc(reader.T @ one.float(), answers) for one in (b, null_b)),
        ])  # fmt: skip
    r2, null_r2, ranks, null_ranks = torch.tensor(numbers).T
    return MlpRegression(
        mlps=mlp_names(model), heads=tuple(heads), coefficients=coefficients,
        intercept=torch.stack(intercepts).float(), r2=r2, null_r2=null_r2, answers=ranks,
        null_answers=null_ranks,
        provenance=Provenance.of(
            model, fitted, seed=seed, verb="mlp_regression", heads=list(heads), position=position,
            held_out=held_out.hash,
        ),
    )  # fmt: skip


def fit(
    x: Float[Tensor, "prompt head d_model"], y: Float[Tensor, "prompt d_model"]
) -> tuple[Float[Tensor, " head"], Float[Tensor, " d_model"]]:
    """Least squares: one coefficient for each head, one intercept for each dimension.

    Heads without variance, or that others already say, get the solution of least norm.
    """
    x, y = x.double(), y.double()
    moved, aim = x - x.mean(0), y - y.mean(0)
    among = torch.einsum("phd,pgd->hg", moved, moved)
    onto = torch.einsum("phd,pd->h", moved, aim)
    c = torch.linalg.lstsq(among, onto[:, None], driver="gelsd").solution[:, 0]
    return c, y.mean(0) - torch.einsum("h,hd->d", c, x.mean(0))


def r_squared(
    c: Float[Tensor, " head"], b: Float[Tensor, " d_model"],
    x: Float[Tensor, "prompt head d_model"], y: Float[Tensor, "prompt d_model"],
    centre: Float[Tensor, " d_model"],
) -> float:  # fmt: skip
    """Share of the variance of ``y`` around ``centre`` that the fit explains."""
    left = y.double() - torch.einsum("h,phd->pd", c, x.double()) - b
    return 1.0 - float(left.square().sum() / (y.double() - centre).square().sum())


@torch.no_grad()
def speaks_for(
    model: Model, vector: Float[Tensor, " d_model"], words: Int[Tensor, "*some"], *,
    aside: Int[Tensor, "*others"] | None = None,
) -> float:  # fmt: skip
    """How high a vector of the residual stream ranks some words, by its direct logits.

    The final norm's scale is left out, which moves no rank, and its bias, which is not the vector's.

    Args:
        words: token ids; below 0 is padding.
        aside: token ids that count neither as words nor as others: those that a fit has seen, say.

    Returns:
        AUROC against all other tokens: 0.5 = chance, 1 = each of the words above each other token.

    Raises:
        RunError: no words are left, or no others.
    """
    logits = unembedding(model).cpu().T @ vector.float().cpu()
    right = torch.zeros(len(logits), dtype=torch.bool)
    kept = torch.ones_like(right)
    right[words[words >= 0].cpu()] = True
    if aside is not None:
        kept[aside[aside >= 0].cpu()] = False
    if not (right & kept).any() or not (~right & kept).any():
        raise RunError(
            f"{int((right & kept).sum())} words to rank against {int((~right & kept).sum())} other tokens; "
            "expected at least one of each. Give words that are not set aside."
        )
    return _auroc(logits[kept], right[kept])


def _outputs(
    model: Model, prompts: Prompts, heads: Sequence[str], position: str
) -> tuple[Float[Tensor, "prompt head d_model"], Float[Tensor, "prompt layer d_model"]]:
    """What the heads and every MLP wrote at the position, on the CPU."""
    named = [site_of(head).replace(".z", ".result") + f"@{position}" for head in heads]
    mlps = [f"L{layer}.mlp_out@{position}" for layer in range(model.n_layers)]
    cache = model.run(prompts, save=[*named, *mlps], logits="none").cache
    x, y = (torch.stack([cache[name] for name in names], 1) for names in (named, mlps))
    return x.float().cpu(), y.float().cpu()


def _read(model: Model, heads: Sequence[str], layer: int) -> int:
    """How many of the heads, which stand in order, the MLP of a layer can read."""
    last = layer if model.anatomy.parallel else layer + 1
    return sum((Node.parse(head).layer or 0) < last for head in heads)


def _answers(model: Model, prompts: Prompts) -> Bool[Tensor, " d_vocab"]:
    """Which tokens are an answer of some prompt."""
    assert prompts.answers is not None  # tasks always have answers
    which = torch.zeros(model.d_vocab, dtype=torch.bool)
    which[prompts.answers[prompts.answers >= 0]] = True
    return which


def _auroc(scores: Float[Tensor, " d_vocab"], right: Bool[Tensor, " d_vocab"]) -> float:
    """How often a right token scores above a wrong one (Mann & Whitney 1947)."""
    ranks = scores.double().argsort().argsort().double() + 1
    n, m = int(right.sum()), int((~right).sum())
    return float((ranks[right].sum() - n * (n + 1) / 2) / (n * m))
