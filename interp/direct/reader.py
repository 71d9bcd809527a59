"""The final norm and the unembedding as linear readers of the residual stream.

For one prompt and position, with the norm's scale ``s`` held at its value there,

    logit[t] = resid · u[t] / s + c[t],   u[t] = centre(γ ⊙ W_U[:, t]),   c[t] = β · W_U[:, t] + b_U[t]

``centre`` only where the norm is a LayerNorm: taking the mean out of the stream is taking it out of
the direction. A logit divisor (Granite) or factor (Cohere) applies to both. ``c`` belongs to no part of the stream: it is
the part ``bias``. A final soft-cap (Gemma-2) comes after all this and is left off.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.direct.terms import centred
from interp.errors import ModelError
from interp.models.affine import affine
from interp.taps.anatomy import Anatomy
from interp.taps.norms import centres, gamma, normalise
from interp.taps.unembed import unembed

__all__ = ["before_softcap", "scale_of", "token_directions"]


def token_directions(
    anatomy: Anatomy, ids: Int[Tensor, " token"]
) -> tuple[Float[Tensor, "token d_model"], Float[Tensor, " token"]]:
    """``u`` and ``c`` of some tokens, in float32 or better."""
    head: Any = anatomy.hf.get_output_embeddings()
    written = affine(head)
    dtype = torch.promote_types(written.matrix.dtype, torch.float32)
    columns, bias = written.matrix[:, ids].to(dtype), written.bias[ids].to(dtype)
    project: Any = getattr(anatomy.decoder, "project_out", None)
    if project is not None:
        inner = affine(project)
        bias = bias + inner.bias.to(dtype) @ columns
        columns = inner.matrix.to(dtype) @ columns
    norm = anatomy.ln_final
    directions = columns.T
    if norm is not None:
        shift: Any = getattr(norm, "bias", None)
        bias = bias if shift is None else bias + shift.detach().to(dtype) @ columns
        gain = gamma(norm, anatomy.family.norm_offset)
        directions = directions * (gain if isinstance(gain, float) else gain.detach().to(dtype))
        directions = centred(directions) if centres(norm) else directions
    config = anatomy.hf.config.get_text_config()
    times = getattr(config, "logit_scale", None) or 1.0
    times /= getattr(config, "logits_scaling", None) or 1.0
    return directions * times, bias * times


def scale_of(anatomy: Anatomy, resid: Float[Tensor, "*any d_model"]) -> Float[Tensor, "*any"]:
    """What the final norm divides this stream by; ones if there is no final norm."""
    if anatomy.ln_final is None:
        return torch.ones(resid.shape[:-1], device=resid.device)
    return normalise(anatomy.ln_final, resid)[1][..., 0]


def before_softcap(
    anatomy: Anatomy,
    resid: Float[Tensor, "*any d_model"],
    own: Float[Tensor, "*any token"],
    ids: Int[Tensor, " token"],
) -> Float[Tensor, "*any token"]:
    """The model's own logits of some tokens, before a final soft-cap if it has one.

    A soft-cap cannot be undone where it is flat, so the model's own modules read its last stream
    again without it; with it, they must give the run's own logits.

    Raises:
        ModelError: they do not.
    """
    cap = getattr(anatomy.hf.config.get_text_config(), "final_logit_softcapping", None)
    if not cap:
        return own
    raw = unembed(anatomy, resid, softcap=False, columns=ids)
    deviation = float((torch.tanh(raw / cap) * cap - own).abs().max())
    if deviation > (1e-4 if own.dtype in (torch.float32, torch.float64) else 3e-2) * cap:
        raise ModelError(
            f"the head of {anatomy.name} is not understood: its last residual stream read again "
            f"gives logits that differ from the run's own by {deviation:.1e}."
        )
    return raw
