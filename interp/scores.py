"""The arithmetic of the built-in metrics: pure functions, one score per cell and prompt.

All but ``nll`` read the logits at one column of each prompt. ``*cells`` is whatever
was patched. Answers and foils are sets of token ids, padded with -1 on the right;
a set of answers counts as one answer (mean logit, total probability, best rank).
``metrics`` says what each needs and checks it; here nothing is checked.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

__all__ = [
    "accuracy",
    "diff_accuracy",
    "kl",
    "log_prob",
    "logit_diff",
    "nll",
    "prob",
    "prob_diff",
    "rank",
]

Logits = Float[Tensor, "*cells prompt vocab"]
Ids = Int[Tensor, "prompt _"]  # sets of answers and of foils differ in size
Scores = Float[Tensor, "*cells prompt"]


def logit_diff(logits: Logits, answers: Ids, foils: Ids, _: Any = None) -> Scores:
    """Mean logit of the answers minus mean logit of the foils; positive favours the answers."""
    return _mean_logit(logits, answers) - _mean_logit(logits, foils)


def diff_accuracy(logits: Logits, answers: Ids, foils: Ids, _: Any = None) -> Scores:
    """1 where the answers' mean logit is above the foils', else 0 (a tie is 0).

    The accuracy of the IOI paper (Wang et al. 2023, arXiv:2211.00593).
    """
    return (logit_diff(logits, answers, foils) > 0).to(logits.dtype)


def prob(logits: Logits, answers: Ids, *_: Any) -> Scores:
    """Total probability of the answers, 0 to 1."""
    return log_prob(logits, answers).exp()


def prob_diff(logits: Logits, answers: Ids, foils: Ids, _: Any = None) -> Scores:
    """Probability of the answers minus that of the foils, -1 to 1.

    The greater-than score of Hanna et al. 2023, arXiv:2305.00586.
    """
    return prob(logits, answers) - prob(logits, foils)


def log_prob(logits: Logits, answers: Ids, *_: Any) -> Scores:
    """Log of the answers' total probability, in nats; 0 is certainty."""
    chosen, real = _gather(logits, answers)
    best = chosen.masked_fill(~real, -torch.inf).logsumexp(-1)
    return best - logits.logsumexp(-1)


def kl(
    logits: Logits, _answers: Any, _foils: Any, reference: Float[Tensor, "prompt vocab"]
) -> Scores:
    """KL(reference ‖ run) over the vocabulary, in nats; 0 if the run predicts as the reference."""
    run = logits.log_softmax(-1)
    clean = reference.to(logits).log_softmax(-1)
    p = clean.exp()
    return torch.where(p > 0, p * (clean - run), torch.zeros_like(run)).sum(-1)


def rank(logits: Logits, answers: Ids, *_: Any) -> Scores:
    """How many other tokens score at least as high as the best answer; 0 is the top."""
    chosen, real = _gather(logits, answers)
    best = chosen.masked_fill(~real, -torch.inf).amax(-1, keepdim=True)
    others = torch.ones(answers.shape[0], logits.shape[-1], dtype=torch.bool, device=logits.device)
    others = others.scatter(-1, _filled(answers).to(logits.device), False)
    return ((logits >= best) & others).sum(-1).to(logits.dtype)


def accuracy(logits: Logits, answers: Ids, *_: Any) -> Scores:
    """1 where the best answer beats every other token of the vocabulary, else 0 (a tie is 0)."""
    return (rank(logits, answers) == 0).to(logits.dtype)


def nll(
    logits: Float[Tensor, "*cells prompt pos vocab"],
    ids: Int[Tensor, "prompt pos"],
    mask: Bool[Tensor, "prompt pos"],
) -> Scores:
    """Mean next-token negative log likelihood of each prompt's real tokens, in nats.

    The first real token is predicted by nothing and does not count; a prompt of
    one token has no score and gives nan.
    """
    target = ids[:, 1:].to(logits.device)
    real = (mask[:, 1:] & mask[:, :-1]).to(logits.device)
    before = logits[..., :-1, :]
    chosen = before.gather(-1, target.expand(before.shape[:-1])[..., None])[..., 0]
    surprise = before.logsumexp(-1) - chosen
    # where, not a product: logits at padding may be infinite.
    return torch.where(real, surprise, torch.zeros_like(surprise)).sum(-1) / real.sum(-1)


def _filled(ids: Int[Tensor, "prompt a"]) -> Int[Tensor, "prompt a"]:
    """The same sets with a repeated first id in place of -1."""
    return torch.where(ids < 0, ids[:, :1], ids)


def _gather(
    logits: Float[Tensor, "*cells prompt vocab"], ids: Int[Tensor, "prompt a"]
) -> tuple[Float[Tensor, "*cells prompt a"], Bool[Tensor, "prompt a"]]:
    """The logits of each prompt's ids, and which of them are not padding."""
    ids = ids.to(logits.device)
    index = _filled(ids).expand(*logits.shape[:-1], ids.shape[-1])
    return logits.gather(-1, index), ids >= 0


def _mean_logit(logits: Logits, ids: Ids) -> Scores:
    chosen, real = _gather(logits, ids)
    return torch.where(real, chosen, torch.zeros_like(chosen)).sum(-1) / real.sum(-1)
