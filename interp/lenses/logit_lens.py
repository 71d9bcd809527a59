"""``interp.lens``: what would each layer say, if the model stopped there?

A vector of the model's width, at a site anywhere in the run, goes through the model's own final
norm and unembedding, as if it were the last residual stream; so does, with ``using=``, what a
trained translator makes of it (:mod:`interp.lenses.tune`). An early layer need not write in the
output's basis, so an unreadable early row means little; a readable one means something.

Branches and heads (``L*.mlp_out``, ``L*.H*.result``) are read in the same way: the distribution that
this vector alone would give. The final norm makes a small branch as loud as a large one, so
readings of branches do not add up. With ``scale="final"`` it divides by what it divides by in the model's
own run: then a branch that writes little says little (a flat distribution), and logits add up,
as in direct logit attribution. LayerNorm's mean is removed and the norm's bias added in both.
TransformerLens reads the stream as ``"own"`` does, and components as ``"final"`` (without the bias).

Source: nostalgebraist 2020, "interpreting GPT: the logit lens"; for branches, Geva et al. 2022,
arXiv:2203.14680.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import PromptError, RunError
from interp.lenses.reading import (
    FINAL,
    Piece,
    answer_probabilities,
    decode,
    divergence,
    label,
    pieces,
    rows_of,
    slabs,
)
from interp.lenses.result import LensResult
from interp.lenses.tuned_lens import TunedLens
from interp.models.model import Model
from interp.prompts.prompts import Prompts
from interp.results import Provenance
from interp.runs.plan import Save
from interp.sites import Site
from interp.token_batch import TokenBatch

__all__ = ["LensResult", "lens"]


@torch.no_grad()
def lens(
    model: Model,
    inputs: Any,
    *,
    sites: Save | None = None,
    using: TunedLens | None = None,
    top: int = 5,
    scale: Literal["own", "final"] = "own",
) -> LensResult:
    """Read vectors of the run at each position in the model's vocabulary.

    Probabilities are those of the model's own head: after its logit multiplier (Granite) and
    final soft-cap (Gemma-2). Memory does not grow with the vocabulary times the prompts.

    >>> interp.lens(model, "The capital of France is").trajectory(0)           # doctest: +SKIP
    >>> interp.lens(model, pairs, sites="L*.H*.result").plot_layers()          # doctest: +SKIP

    Args:
        inputs: whatever ``model.run`` takes; Prompts with answers are also scored by answer.
        sites: any of the model's width: ``"L*.attn_out"``, ``"L*.mlp_out"``, ``"L*.resid_mid"``,
            a list; ``"L*.H*.result"`` has a row for each head. None: the residual stream before
            each block (or what ``using`` was trained on), and after the last.
        using: a tuned lens, trained on this model for each of the sites; None: the logit lens.
        top: how many tokens to keep for each cell.
        scale: by what the final norm divides: each vector's own scale, or (``"final"``) that of
            the last residual stream at the same position.

    Raises:
        ModelError: the tuned lens belongs to another model; or the model's head is more than a
            norm and an unembedding that this package knows, so that the row ``out`` would not be
            the model's own output.
        PromptError: ``top`` is not between 1 and the vocabulary's size.
        SiteError: a site that does not exist, is not of the model's width, or that the tuned
            lens was not trained for.
    """
    if not 1 <= top <= model.d_vocab_out:
        raise PromptError(f"top={top}; expected 1 to {model.d_vocab_out}, the vocabulary's size.")
    if scale not in ("own", "final"):
        raise RunError(f"scale={scale!r}; expected 'own' or 'final'.")
    if using is not None and not isinstance(using, TunedLens):
        raise RunError(f"using={using!r:.60}; expected a TunedLens, or None for the logit lens.")
    if sites is None:
        sites = [*(["L*.resid_pre"] if using is None else using.sites), FINAL]
    rows, batch = rows_of(model, sites), model.batch(inputs)
    translator = None if using is None else using.fitted(model, rows)
    answers = inputs.answers if isinstance(inputs, Prompts) else None
    columns = inputs.answer_column if isinstance(inputs, Prompts) else batch.column(-1)
    read = _Reader(model, rows, translator, batch, columns.to(model.device), answers, top, scale)
    return LensResult(
        layers=tuple(label(model, site) for site in rows),
        tokens=_texts(model, batch),
        last=columns.cpu(),
        method="logit lens" if using is None else "tuned lens",
        provenance=Provenance.of(
            model, inputs, verb="lens", top=top, scale=scale, sites=[str(s) for s in rows],
            using=None if using is None else using.provenance.call,
        ),
        **read.everything(),
    )  # fmt: skip


class _Reader:
    """The tables of a result, filled in row by row of the prompts."""

    def __init__(
        self,
        model: Model,
        rows: tuple[Site, ...],
        translator: TunedLens | None,
        batch: TokenBatch,
        columns: Int[Tensor, " batch"],
        answers: Int[Tensor, "batch a"] | None,
        top: int,
        scale: str,
    ) -> None:
        self.model, self.rows, self.translator, self.batch = model, rows, translator, batch
        self.columns, self.answers, self.top, self.scale = columns, answers, top, scale
        shape = (len(rows), *batch.ids.shape)
        self.tables = {
            "top_ids": torch.zeros(*shape, top, dtype=torch.long),
            "top_probs": torch.full((*shape, top), torch.nan),
            "entropy": torch.full(shape, torch.nan),
            "kl": torch.full(shape, torch.nan),
        }
        if answers is not None:
            self.tables["answer_prob"] = torch.zeros(shape[:2])
            self.tables["answer_rank"] = torch.zeros(shape[:2], dtype=torch.long)

    def everything(self) -> dict[str, Any]:
        for piece in pieces(self.model, self.batch, self.rows):
            self._distributions(piece)
            if self.answers is not None:
                self._answers(piece, self.answers[piece.rows])
        words = _words(self.model, self.tables["top_ids"][..., 0])
        return {"answer_prob": None, "answer_rank": None, "top_tokens": words, **self.tables}

    def _log_probs(
        self, row: int, x: Float[Tensor, "token d_model"], end: Float[Tensor, "token d_model"]
    ) -> Float[Tensor, "token d_vocab"]:
        if self.translator is not None:
            x = self.translator.translate(str(self.rows[row]), x)
        logits = decode(self.model, x, end=end if self.scale == "final" else None)
        return logits.log_softmax(-1)

    def _distributions(self, piece: Piece) -> None:
        real = self.batch.mask[piece.rows].to(piece.final.device)
        prompts, columns = real.nonzero(as_tuple=True)
        for part in slabs(len(prompts), self.model.d_vocab):
            at = prompts[part], columns[part]
            to = at[0].cpu() + piece.rows.start, at[1].cpu()
            end = piece.final[at]
            reference = decode(self.model, end).log_softmax(-1)
            for row, saved in enumerate(piece.saved):
                log_probs = self._log_probs(row, saved[at], end)
                probs = log_probs.exp()
                best = probs.topk(self.top, dim=-1)
                self.tables["top_ids"][row, *to] = best.indices.cpu()
                self.tables["top_probs"][row, *to] = best.values.cpu()
                self.tables["entropy"][row, *to] = -torch.xlogy(probs, probs).sum(-1).cpu()
                self.tables["kl"][row, *to] = divergence(reference, log_probs).cpu()

    def _answers(self, piece: Piece, answers: Int[Tensor, "row a"]) -> None:
        rows = torch.arange(len(answers), device=piece.final.device)
        for part in slabs(len(rows), self.model.d_vocab):
            at = rows[part], self.columns[piece.rows][part]
            to = rows[part].cpu() + piece.rows.start
            for row, saved in enumerate(piece.saved):
                log_probs = self._log_probs(row, saved[at], piece.final[at])
                prob, rank = answer_probabilities(log_probs, answers[part])
                self.tables["answer_prob"][row, to] = prob.cpu()
                self.tables["answer_rank"][row, to] = rank.cpu()


def _texts(model: Model, batch: TokenBatch) -> tuple[tuple[str, ...], ...]:
    """Input tokens as text, "" at padding."""
    rows = []
    for ids, mask in zip(batch.ids.tolist(), batch.mask.tolist(), strict=True):
        words = _row(model, ids)
        rows.append(tuple(w if real else "" for w, real in zip(words, mask, strict=True)))
    return tuple(rows)


def _row(model: Model, ids: list[int]) -> list[str]:
    return model.to_str_tokens(ids) if model.tokenizer is not None else [str(i) for i in ids]


def _words(
    model: Model, ids: Int[Tensor, "layer batch pos"]
) -> tuple[tuple[tuple[str, ...], ...], ...]:
    words = {i: _row(model, [i])[0] for i in ids.unique().tolist()}
    return tuple(tuple(tuple(words[i] for i in row) for row in layer) for layer in ids.tolist())
