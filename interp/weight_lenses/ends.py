"""The two ends of every full circuit: the vocabulary going in, and coming out.

*In*: what a token puts into the residual stream before anything else does. This is its embedding
as the model uses it (Gemma's √d_model, Granite's multiplier, BLOOM's norm included), or that plus
what the first MLP makes of it alone, which for GPT-2 says better what a token is.

*Out*: the unembedding with the final norm's γ folded in, LayerNorm's centring included, less its
mean over the vocabulary, which no probability sees. A soft-cap (Gemma-2) and ``b_U`` are left out.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.models.model import Model
from interp.runs.edits import Zero
from interp.runs.execute import execute
from interp.taps.norms import centres, normalise
from interp.token_batch import TokenBatch
from interp.weight_lenses.heads import final_centres

__all__ = ["read_through", "token_texts", "tokens_in", "unembedding"]


@torch.no_grad()
def tokens_in(model: Model, *, through_mlp0: bool = False) -> Float[Tensor, "d_vocab d_model"]:
    """What each token of the vocabulary puts into the residual stream, without position.

    Args:
        through_mlp0: add what the first block's MLP makes of it with attention silenced.
    """
    ids = torch.arange(model.d_vocab, device=model.device)[:, None]
    site, edit = "embed", {}
    if through_mlp0:
        site, edit = "L0.resid_post", {"L0.attn_out": Zero()}
        if "pos_embed" not in model.anatomy.refused:
            edit["pos_embed"] = Zero()
    run = execute(model.anatomy, TokenBatch.of(ids), save=site, edit=edit, logits="none")
    rows = run.cache[site][:, 0]
    return rows.to(torch.promote_types(rows.dtype, torch.float32))


def read_through(
    norm: nn.Module | None, rows: Float[Tensor, "row d_model"], *, divide: bool
) -> Float[Tensor, "row d_model"]:
    """Rows of the residual stream as a norm's ``normalized``; centred only unless ``divide``."""
    if norm is None:
        return rows
    if not divide:
        return rows - rows.mean(-1, keepdim=True) if centres(norm) else rows
    centred, scale = normalise(norm, rows)
    return centred / scale


def unembedding(
    model: Model, *, folded: bool = True, centre: bool = True
) -> Float[Tensor, "d_model d_vocab"]:
    """From a direction of the residual stream to logits.

    Args:
        folded: with the final norm's γ and centring and the logit multiplier; else bare ``W_U``.
        centre: less the mean over the vocabulary.
    """
    w_u = (model.weights.folded() if folded else model.weights).W_U.as_subclass(Tensor)
    w_u = w_u.to(torch.promote_types(w_u.dtype, torch.float32))
    if folded:
        config: Any = model.anatomy.hf.config.get_text_config()
        w_u = w_u / (getattr(config, "logits_scaling", None) or 1.0)
        if final_centres(model):
            w_u = w_u - w_u.mean(0, keepdim=True)
    return w_u - w_u.mean(-1, keepdim=True) if centre else w_u


def token_texts(model: Model, *, out: bool = False) -> tuple[str, ...]:
    """Each token of the vocabulary as text; its id where there is no tokenizer.

    Args:
        out: each column of the logits, which in some models are no tokens of the input.
    """
    own = out and model.tokens.n_out is not None
    ids = range(model.d_vocab_out if out else model.d_vocab)
    if model.tokenizer is None or own:
        return tuple(map(str, ids))
    return tuple(model.to_str_tokens(list(ids)))
