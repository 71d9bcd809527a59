"""Rotary positions as matrices: what stands between a query and a key at a distance.

Rotary positions turn a query at position ``p`` and a key at position ``p'`` by angles that grow
with their positions, so that only the distance is left in the score:

    score = (q R_p) · (k R_p')  =  q M k,      M = R_{p-p'} R_0ᵀ

``M`` is read off the model's own rotary module, so other bases, partial rotary (only the first
dimensions turn), interleaved pairs (GPT-J) and the factor of long-context variants come out
right. ALiBi (BLOOM, one Falcon) adds a number for the distance, whatever the tokens are, and is
not part of any circuit here.

Source: Su et al. 2021, "RoFormer", arXiv:2104.09864.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import ModelError
from interp.taps.anatomy import Anatomy

__all__ = ["attention_scale", "check_offset", "is_rotary", "relative_rotation", "turned"]


def is_rotary(anatomy: Anatomy, layer: int) -> bool:
    """Whether this layer turns its queries and keys by position (SmolLM-3 skips some layers)."""
    refused = anatomy.refused.get("rot_q", "")
    if refused and "no rotary" not in refused:
        raise ModelError(f"no QK circuit of a model of type {anatomy.name!r}: {refused}.")
    return not refused and bool(getattr(anatomy.blocks[layer].attn, "use_rope", True))


def check_offset(anatomy: Anatomy, layer: int | None, offset: int | None) -> None:
    """ModelError for an offset that changes nothing: no rotary positions in this layer (in any)."""
    layers = range(anatomy.n_layers) if layer is None else (layer,)
    if not offset or any(is_rotary(anatomy, index) for index in layers):
        return
    where = "" if layer is None else f"layer {layer} of "
    raise ModelError(
        f"offset={offset}: {where}this {anatomy.name} model has no rotary positions, so its "
        "token-token scores do not depend on distance; leave offset out (learned positions: "
        "qk_positions)."
    )


def relative_rotation(anatomy: Anatomy, layer: int, offset: int) -> Float[Tensor, "d_head d_head"]:
    """``M`` with ``score = q @ M @ k`` for a key ``offset`` positions before the query.

    The identity without rotary positions; at 0 the identity (times the factor that long-context
    variants give the turned dimensions).
    """
    attn: Any = anatomy.blocks[layer].attn
    eye = torch.eye(anatomy.d_head, device=next(attn.parameters()).device)
    if not is_rotary(anatomy, layer):
        return eye
    at = torch.tensor([max(0, offset), max(0, -offset)], device=eye.device)
    query, key = turned(anatomy, layer, eye, at)
    return query @ key.T


def turned(
    anatomy: Anatomy, layer: int, x: Float[Tensor, "row d_head"], positions: Tensor
) -> Float[Tensor, "pos row d_head"]:
    """Queries or keys as they would be at each of some positions."""
    cos, sin, pairs = _angles(anatomy, layer, positions)
    n = cos.shape[-1]
    half = (
        torch.stack([-x[:, 1:n:2], x[:, 0:n:2]], -1).flatten(-2)
        if pairs
        else torch.cat([-x[:, n // 2 : n], x[:, : n // 2]], -1)
    )
    moved = x[:, :n] * cos[:, None] + half * sin[:, None]
    return torch.cat([moved, x[:, n:].expand(len(positions), -1, -1)], -1)


def _angles(
    anatomy: Anatomy, layer: int, positions: Tensor
) -> tuple[Float[Tensor, "pos turned"], Float[Tensor, "pos turned"], bool]:
    """Cosine and sine for each dimension that turns, and whether neighbours turn together."""
    attn: Any = anatomy.blocks[layer].attn
    table = getattr(attn, "embed_positions", None)  # GPT-J: pairs (0, 1), (2, 3), ...
    if table is not None:
        if int(positions.max()) >= len(table):
            raise ModelError(
                f"offset {int(positions.max())} in a model of {len(table)} positions: expected "
                f"at most {len(table) - 1}."
            )
        sin, cos = table.float()[positions].repeat_interleave(2, -1).chunk(2, -1)
        return cos, sin, True
    rotary: Any = getattr(attn, "rotary_emb", None) or getattr(anatomy.decoder, "rotary_emb", None)
    if rotary is None:
        raise ModelError(
            f"no rotary module was found in this {anatomy.name!r} model; expected "
            "'rotary_emb' in its decoder or its attention."
        )
    kind = (
        {"layer_type": attn.layer_type}
        if "layer_type" in inspect.signature(rotary.forward).parameters
        else {}
    )
    with torch.no_grad():
        cos, sin = rotary(torch.zeros(1, device=positions.device), positions[None], **kind)
    pairs = bool(getattr(anatomy.hf.config.get_text_config(), "rotary_adjacent_pairs", False))
    return cos[0].float(), sin[0].float(), pairs


def attention_scale(anatomy: Anatomy, layer: int) -> float:
    """What query-key products are multiplied by: usually 1/√d_head (Granite and Gemma-2 differ,
    GPT-Neo has 1)."""
    attn: Any = anatomy.blocks[layer].attn
    if isinstance(getattr(attn, "scaling", None), float):
        return float(attn.scaling)
    if isinstance(getattr(attn, "inv_norm_factor", None), float):
        return float(attn.inv_norm_factor)
    if isinstance(getattr(attn, "scale_attn", None), float):
        return 1.0 / float(attn.scale_attn)
    return 1.0 if anatomy.name == "gpt_neo" else float(anatomy.d_head**-0.5)
