"""Folding a norm's γ and β into the linear map that reads it.

A norm computes ``n * γ + β``, where ``n`` is the normalised input (the site
``ln1.normalized``). The next map reads that, so both are one map of ``n``:

    (n * γ + β) @ W + b  =  n @ (γ[:, None] * W)  +  (b + β @ W)

After folding, every direction of ``n`` counts alike, so weights of different
layers and heads can be compared. Nothing is centred: the mean that LayerNorm
takes out is still in ``W``'s columns.
"""

from __future__ import annotations

import torch
from torch import nn

from interp.errors import ModelError
from interp.models.affine import Affine
from interp.taps.anatomy import Anatomy, Block
from interp.taps.norms import gamma

__all__ = ["fold", "norm_before_attention", "norm_before_mlp"]


def fold(norm: nn.Module | None, reader: Affine, *, offset: int) -> Affine:
    """The map that gives from ``normalized`` what ``reader`` gives from the norm's output.

    New tensors, in float32 or better. ``reader`` itself if there is no norm.

    Args:
        offset: 1 where the norm multiplies by ``1 + weight`` (Gemma), else 0.
    """
    if norm is None:
        return reader
    dtype = torch.promote_types(reader.matrix.dtype, torch.float32)
    matrix, bias = reader.matrix.to(dtype), reader.bias.to(dtype)
    factor, beta = gamma(norm, offset), getattr(norm, "bias", None)
    columns = factor if isinstance(factor, float) else factor.detach()[:, None]
    shift = torch.zeros_like(bias) if beta is None else beta.detach().to(dtype) @ matrix
    return Affine(matrix * columns, bias + shift)


def norm_before_attention(anatomy: Anatomy, block: Block) -> nn.Module | None:
    """The norm whose output attention reads; None if it reads the residual stream itself."""
    if anatomy.family.ln1 is None or _after_branches(anatomy):
        return None
    return _found(block.ln1, anatomy, "attention")


def norm_before_mlp(anatomy: Anatomy, block: Block) -> nn.Module | None:
    """The norm whose output the MLP reads; attention's own where both share one."""
    if block.ln2 is None and (anatomy.parallel or anatomy.family.ln1 is None):
        return norm_before_attention(anatomy, block)
    return None if _after_branches(anatomy) else _found(block.ln2, anatomy, "the MLP")


def _after_branches(anatomy: Anatomy) -> bool:
    """Whether ln1 and ln2 come after the branch is added (OPT-350m)."""
    return not getattr(anatomy.hf.config.get_text_config(), "do_layer_norm_before", True)


def _found(norm: nn.Module | None, anatomy: Anatomy, reader: str) -> nn.Module:
    if norm is not None:
        return norm
    raise ModelError(
        f"cannot fold the norm before {reader}: in this {anatomy.name!r} model no module is known "
        "to be that norm. Expected one norm per branch or one that both share. "
        "Use the weights without .folded()."
    )
