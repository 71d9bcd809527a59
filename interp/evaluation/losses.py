"""What a run predicts, token by token: its loss, and how far it is from the original's prediction.

Logits of a batch are looked at a few tokens at a time, so that no second tensor of the size of
[token, vocabulary] exists beside them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.corpora.packed import PackedBatch

__all__ = ["Predictions", "divergences", "losses"]

_AT_ONCE = 2**23  # logits


@dataclass(frozen=True, eq=False)
class Predictions:
    """The kept tokens of a batch, and the token that each is to predict.

    Attributes:
        row, column: where each kept token stands.
        target: the next token of the same text.
        has: whether there is one. The last token of a text predicts nothing that is known.
    """

    row: Int[Tensor, " kept"]
    column: Int[Tensor, " kept"]
    target: Int[Tensor, " kept"]
    has: Bool[Tensor, " kept"]

    @classmethod
    def of(cls, batch: PackedBatch) -> Predictions:
        """Of a packed batch: a target stands in the same row, is real, and of the same text."""
        tokens = batch.tokens
        same = tokens.mask[:, 1:] & tokens.mask[:, :-1]
        if tokens.segments is not None:
            same = same & (tokens.segments[:, 1:] == tokens.segments[:, :-1])
        has, target = torch.zeros_like(tokens.mask), torch.zeros_like(tokens.ids)
        has[:, :-1], target[:, :-1] = same, tokens.ids[:, 1:]
        row, column = batch.keep.nonzero(as_tuple=True)
        return cls(row, column, target[batch.keep], has[batch.keep])


def losses(logits: Float[Tensor, "row pos vocab"], where: Predictions) -> Float[Tensor, " kept"]:
    """Cross-entropy of each kept token's prediction in nats; 0 where there is no target."""
    out = []
    for part in _parts(where, logits.shape[-1]):
        own = _wide(logits[where.row[part].to(logits.device), where.column[part].to(logits.device)])
        chosen = own.gather(-1, where.target[part].to(own.device)[:, None])[:, 0]
        out.append((own.logsumexp(-1) - chosen).cpu())
    return torch.cat(out) * where.has


def divergences(
    logits: Float[Tensor, "row pos vocab"], original: Float[Tensor, "row pos vocab"],
    where: Predictions,
) -> tuple[Float[Tensor, " kept"], Bool[Tensor, " kept"]]:  # fmt: skip
    """KL(original ‖ run) in nats at each kept token, and whether both have the same top token."""
    kl, agree = [], []
    for part in _parts(where, logits.shape[-1]):
        row, column = where.row[part].to(logits.device), where.column[part].to(logits.device)
        run, base = (_wide(x[row, column]).log_softmax(-1) for x in (logits, original))
        p = base.exp()
        kl.append(torch.where(p > 0, p * (base - run), torch.zeros_like(p)).sum(-1).cpu())
        agree.append((run.argmax(-1) == base.argmax(-1)).cpu())
    return torch.cat(kl), torch.cat(agree)


def _parts(where: Predictions, d_vocab: int) -> list[slice]:
    step = max(1, _AT_ONCE // d_vocab)
    return [slice(start, start + step) for start in range(0, max(1, len(where.row)), step)]


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()
