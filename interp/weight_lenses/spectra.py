"""Singular vectors of a model's weights, in words.

A weight matrix, or the product of two that a head applies in turn, is a sum of directions read
and directions written, each pair with its gain. The products are of rank d_head and their SVD is
exact without ever multiplying them out (:mod:`interp.weight_lenses.factored`). Both sides that
lie in the residual stream are decoded; the sign of a pair is arbitrary, so look at both ends.

The spectrum is shown beside that of Gaussian factors of the same shapes and the same norm: a
steeper one has fewer directions that matter than chance would give.

Sources: Millidge & Black 2022, "The Singular Value Decompositions of Transformer Weight Matrices
are Highly Interpretable" (AI Alignment Forum); Roy & Vetterli 2007 (effective rank).
Departure: norms are folded unless ``folded=False``; the control.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import MetricError
from interp.models.model import Model
from interp.results import Provenance
from interp.weight_lenses.decode import decode
from interp.weight_lenses.directions import neurons
from interp.weight_lenses.factored import Factored
from interp.weight_lenses.heads import check_head, heads_of
from interp.weight_lenses.rotary import attention_scale, check_offset, is_rotary, relative_rotation
from interp.weight_lenses.spectrum import Spectrum

__all__ = ["svd"]

Which = Literal["ov", "qk", "mlp_in", "mlp_gate", "mlp_out"]


@torch.no_grad()
def svd(
    model: Model,
    layer: int,
    head: int | None = None,
    which: Which = "ov",
    *,
    offset: int = 0,
    n: int = 16,
    top: int = 10,
    folded: bool = True,
    seed: int = 0,
) -> Spectrum:
    """Singular values of a head's OV or QK map or of an MLP matrix, and what the vectors decode to.

    Args:
        head: of the ``"ov"`` and ``"qk"`` maps.
        which: ``"ov"``: W_V W_O (read on the left, written on the right); ``"qk"``: W_Q W_Kᵀ
            with the attention scale (query on the left, key on the right); ``"mlp_in"``,
            ``"mlp_gate"``: read on the left; ``"mlp_out"``: written on the right.
        offset: for ``"qk"`` under rotary positions, how far before the query the key stands.
        n: how many pairs of vectors to keep and decode, of the largest singular values.
        top: how many tokens to keep at each end.
        seed: of the Gaussian control.

    Raises:
        MetricError: ``which`` is none of these, or a head is missing or given without need.
        ModelError: no such layer or head, an offset without rotary positions, or weights that
            cannot be viewed or folded.
    """
    if which not in ("ov", "qk", "mlp_in", "mlp_gate", "mlp_out"):
        raise MetricError(
            f"which={which!r}; expected 'ov', 'qk', 'mlp_in', 'mlp_gate' or 'mlp_out'."
        )
    if n < 1:
        raise MetricError(f"n={n}; expected 1 or more.")
    if (head is None) == (which in ("ov", "qk")):
        asked = "a head: svd(model, 2, 1)" if head is None else "no head"
        raise MetricError(f"svd of {which!r} got head={head}; expected {asked}.")
    factors = (
        _head(model, layer, head, which, offset, folded)
        if head is not None
        else _mlp(model, layer, which, folded)
    )
    u, s, v = _decompose(factors)
    sides = {"ov": "lr", "qk": "lr", "mlp_in": "l", "mlp_gate": "l", "mlp_out": "r"}[which]
    where = f"L{layer}.{which}" if head is None else f"L{layer}.H{head}.{which}"
    n = min(n, len(s))
    read, written = (
        decode(model, x[:, :n].T, top=min(top, model.d_vocab_out), folded=folded,
               names=[f"{where}[{i}]" for i in range(n)]) if side in sides else None
        for side, x in (("l", u), ("r", v))
    )  # fmt: skip
    rotary = which == "qk" and is_rotary(model.anatomy, layer)
    return Spectrum(
        name=where,
        values=s.cpu(),
        null=_null(factors, seed).cpu(),
        left=u[:, :n].cpu().contiguous(),
        right=v[:, :n].cpu().contiguous(),
        read=read,
        written=written,
        offset=offset if rotary else None,
        provenance=Provenance.of(
            model, seed=seed, verb="svd", layer=layer, head=head, which=which, offset=offset, n=n,
            top=top, folded=folded,
        ),
    )  # fmt: skip


def _head(
    model: Model, layer: int, head: int, which: str, offset: int, folded: bool
) -> tuple[Tensor, ...]:
    check_head(model, layer, head)
    maps = heads_of(model, layer, folded=folded)
    if which == "ov":
        return maps.v[head], maps.o[head]
    check_offset(model.anatomy, layer, offset)
    turn = relative_rotation(model.anatomy, layer, offset).to(maps.q)
    scale = attention_scale(model.anatomy, layer)
    return maps.q[head] @ turn * scale, maps.k[head].T


def _mlp(model: Model, layer: int, which: str, folded: bool) -> tuple[Tensor, ...]:
    side = which.removeprefix("mlp_")
    rows = neurons(model, layer, side, folded=folded)
    return (rows,) if side == "out" else (rows.T,)


def _decompose(factors: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor]:
    if len(factors) == 2:
        return Factored(*factors).svd()
    u, s, vh = torch.linalg.svd(factors[0], full_matrices=False)
    sign = vh.gather(1, vh.abs().argmax(1, keepdim=True)).sign()
    return u * sign.T, s, (vh * sign).T


def _null(factors: tuple[Tensor, ...], seed: int) -> Float[Tensor, " r"]:
    """Singular values of Gaussian factors of these shapes, scaled to the same Frobenius norm."""
    generator = torch.Generator().manual_seed(seed)
    random = tuple(torch.randn(x.shape, generator=generator).to(x) for x in factors)
    values, own = (_values(x) for x in (random, factors))
    return values * own.norm() / values.norm()


def _values(factors: tuple[Tensor, ...]) -> Tensor:
    if len(factors) == 1:
        return torch.linalg.svdvals(factors[0])
    r_left, r_right = torch.linalg.qr(factors[0]).R, torch.linalg.qr(factors[1].T).R
    return torch.linalg.svdvals(r_left @ r_right.T)
