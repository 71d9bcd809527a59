"""How sharply does a head attend? The entropy of its pattern, and the size of the scores behind it.

A softmax over n keys has an entropy between 0 (one key takes all) and ln n (all alike). Two failures of training
are seen there before the loss shows them: *entropy collapse*, where heads become one-hot and their gradient
vanishes, and *growth of attention logits*, the cause: queries and keys grow until the softmax saturates. Both
are measured on what ``model.run(save=["L*.pattern", "L*.attn_scores"])`` has, checkpoint by checkpoint.

Patterns are [query, key] last, with as many keys as the last query sees: query i of q sees the first
k - q + i + 1 keys (causal). Give prompts of one length, or leave padding out.

Sources: Zhai et al. 2023, "Stabilizing transformer training by preventing attention entropy collapse",
arXiv:2303.06296; Dehghani et al. 2023, "Scaling vision transformers to 22 billion parameters", arXiv:2302.05442,
and Wortsman et al. 2023, "Small-scale proxies for large-scale transformer training instabilities",
arXiv:2309.14322 (growth of attention logits: the largest of them).
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.errors import MetricError
from interp.geometry.rows import array, as_rows

__all__ = [
    "attention_entropy", "collapsed_share", "max_attention_logit", "relative_entropy", "visible_keys",
]  # fmt: skip

_SUM = 1e-2  # what the sum of a half-precision row may miss


def attention_entropy(pattern: Float[Tensor, "*heads q k"]) -> Float[Tensor, "*heads q"]:
    """-Σ A ln A of each query's attention, in nats; 0 = one key, ln n = n keys alike.

    Raises:
        MetricError: rows that are no distributions (sigmoid or linear attention, padding): below 0, or with a
            sum that is not 1.

    >>> attention_entropy(torch.tensor([[1.0, 0.0], [0.5, 0.5]])).tolist()
    [0.0, 0.6931471805599453]
    """
    rows = as_rows(pattern, "attention_entropy()", least=1)
    sums = rows.sum(-1)
    if bool((rows < 0).any()) or bool(((sums - 1).abs() > _SUM).any()):
        raise MetricError(
            f"attention_entropy() got rows with sums from {float(sums.min()):.3g} to {float(sums.max()):.3g}; "
            "expected attention of a softmax, whose rows sum to 1. Of sigmoid attention, divide each row by its "
            "sum; leave padding out."
        )
    return torch.special.entr(rows).sum(-1)


def relative_entropy(
    pattern: Float[Tensor, "*heads q k"], *, visible: Int[Tensor, " q"] | None = None
) -> Float[Tensor, "*heads"]:
    """Entropy as a share of the largest possible, ln(visible keys), averaged over queries: 0 to 1.

    0 = one-hot everywhere, 1 = even. Queries that see one key have no choice and do not count.

    Args:
        visible: how many keys each query can see; None: causal. Of a sliding window of w, min(those, w).

    Raises:
        MetricError: as :func:`attention_entropy`; no query has a choice; ``visible`` does not fit.

    >>> relative_entropy(torch.tensor([[1.0, 0.0], [0.5, 0.5]])).item()
    1.0
    """
    entropy = attention_entropy(pattern)
    q, k = array(pattern, "relative_entropy()").shape[-2:]
    if visible is None:
        seen = visible_keys(q, k).sum(-1)
    else:
        seen = torch.as_tensor(visible)
        if seen.shape != (q,) or bool((seen > k).any()):
            raise MetricError(
                f"relative_entropy(visible={list(seen.shape)}) of patterns [{q}, {k}]; expected {q} numbers of keys."
            )
    seen = seen.to(entropy.device)
    if not bool((seen > 1).any()):
        raise MetricError("relative_entropy(): no query sees two keys or more; give a longer text.")
    chosen = seen > 1
    return (entropy[..., chosen] / seen[chosen].double().log()).mean(-1)


def collapsed_share(
    pattern: Float[Tensor, "*heads q k"],
    *,
    below: float = 0.1,
    visible: Int[Tensor, " q"] | None = None,
) -> float:
    """Share of heads (and layers, and prompts) whose relative entropy lies below a threshold: 0 = none is one-hot.

    What is low depends on what a head does: a previous-token head is one-hot and works. So compare with the same
    heads earlier in training, not with 0.

    Source:
        Zhai et al. 2023, arXiv:2303.06296, who watch each layer's mean entropy fall; the threshold is ours.

    Raises:
        MetricError: as :func:`relative_entropy`.
    """
    return float((relative_entropy(pattern, visible=visible) < below).double().mean())


def max_attention_logit(scores: Float[Tensor, "*heads q k"]) -> Float[Tensor, "*heads"]:
    """The largest |score| before the softmax over all pairs of query and key that are not masked.

    A softmax sees differences only, but training grows scores as they are; a few tens leave one key nearly all. In
    the scores' unit (logits, after the scale 1/√d_head).
    To follow *growth*, take it at each checkpoint on the same text.

    Args:
        scores: ``attn_scores``: above the diagonal they are the mask's, whatever that holds, and are not read.

    Raises:
        MetricError: no [*, q, k] with k ≥ q, or a visible score that is not finite.

    >>> max_attention_logit(torch.tensor([[2.0, float("-inf")], [-5.0, 1.0]])).item()
    5.0
    """
    given = array(scores, "max_attention_logit()").detach()
    if given.ndim < 2 or not 1 <= given.shape[-2] <= given.shape[-1]:
        raise MetricError(
            f"max_attention_logit() got an array of shape {list(given.shape)}; expected scores [*, q, k], k ≥ q."
        )
    seen = visible_keys(*given.shape[-2:]).to(given.device)
    size = torch.where(seen, given.double(), 0.0).abs()
    if not bool(size.isfinite().all()):
        raise MetricError("max_attention_logit() got visible scores that are NaN or infinite.")
    return size.amax((-1, -2))


def visible_keys(q: int, k: int) -> Bool[Tensor, "q k"]:
    """Which keys each of the last q queries of k positions can see: its own and earlier ones."""
    return torch.ones(q, k, dtype=torch.bool).tril(k - q)
