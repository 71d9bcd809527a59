"""Which heads read what earlier heads write, by their weights alone?

A head of a later layer can read an earlier head's output as its query, its key or its value:

    Q:  ‖W_OV¹ W_QK²‖ / (‖W_OV¹‖ ‖W_QK²‖)     K: W_QK² transposed     V: W_OV² in its place

(Frobenius norms, rows times matrices.) The score lies in [0, 1]: how much of what head 1 can write
head 2 reads. Two heads that have nothing to do with each other do not score 0: if head 1's output
directions are turned at random, the mean square is exactly 1/d_model (1/(d_model - 1) where a
LayerNorm takes the mean out), whatever the heads' own spectra. That expected value stands beside
every score as ``baseline``; and since there are many pairs, ``null`` holds the *largest* score of
all pairs under several random turns. Heads of a trained model may share loud directions of the
residual stream, which lifts many pairs at once, so compare a pair with others of its reader too.
A score says that head 2 can read head 1, not that it does: patch the path to see.

Source: Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits" (composition
scores, with random matrices' score subtracted; here it is exact, and shown).
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import MetricError
from interp.models.model import Model
from interp.progress import track
from interp.results import Provenance
from interp.weight_lenses.composition_result import CompositionResult
from interp.weight_lenses.heads import final_centres, heads_of
from interp.weight_lenses.rotary import check_offset, is_rotary, relative_rotation

__all__ = ["composition"]


@torch.no_grad()
def composition(
    model: Model,
    kind: Literal["q", "k", "v"] = "k",
    *,
    offset: int = 0,
    folded: bool = True,
    controls: int = 8,
    seed: int = 0,
) -> CompositionResult:
    """How much each head reads of what each earlier head writes, as its query, key or value.

    Args:
        kind: what the later head reads it as.
        offset: for ``"q"`` and ``"k"`` under rotary positions, how far before the query the key
            stands; 0 leaves the rotation out.
        folded: fold γ, centring and the rest (see :mod:`interp.weight_lenses.heads`).
        controls: random turns of the earlier heads' output for ``null``.
        seed: of the turns.

    Raises:
        MetricError: ``kind`` is none of these, or ``controls`` is negative.
        ModelError: weights that cannot be viewed or folded; an offset without rotary positions.

    Source:
        Elhage et al. 2021; TransformerLens's ``all_composition_scores`` gives the same numbers.
    """
    if kind not in ("q", "k", "v"):
        raise MetricError(f"composition of kind {kind!r}; expected 'q', 'k' or 'v'.")
    if controls < 0:
        raise MetricError(f"controls={controls}; expected 0 or more.")
    if kind != "v":
        check_offset(model.anatomy, None, offset)
    reads, writes, tails, heads = [], [], [], []
    for layer in range(model.n_layers):
        maps = heads_of(model, layer, folded=folded)
        pairs = {"q": (maps.q, maps.k), "k": (maps.k, maps.q), "v": (maps.v, maps.o.mT)}
        near, far = pairs[kind]
        if kind != "v" and is_rotary(model.anatomy, layer):
            turn = relative_rotation(model.anatomy, layer, offset).to(near)
            near = near @ (turn if kind == "q" else turn.T)
        reads.append(near)
        tails.append(_triangle(far))
        heads.append(_triangle(maps.v))
        writes.append(maps.o)
    parts = [torch.stack(x) for x in (heads, writes, reads, tails)]
    generator = torch.Generator().manual_seed(seed)
    null = [
        _largest(_scores(*parts, turn=_turn(model, folded, generator).to(parts[0])))
        for _ in track(range(controls), total=controls, what="random turns", least=4)
    ]
    return CompositionResult(
        values=_scores(*parts).cpu(),
        kind=kind,
        baseline=(model.d_model - _centred(model, folded)) ** -0.5,
        null=torch.tensor(null),
        offset=offset if kind != "v" and is_rotary(model.anatomy, 0) else None,
        provenance=Provenance.of(
            model, seed=seed, verb="composition", kind=kind, offset=offset, folded=folded,
            controls=controls,
        ),
    )  # fmt: skip


def _triangle(x: Float[Tensor, "head d_model d_head"]) -> Float[Tensor, "head d_head d_head"]:
    """R of X = QR: ‖X M‖ = ‖R M‖ for each M."""
    return torch.linalg.qr(x).R


def _scores(
    heads: Float[Tensor, "layer head d_head d_head"],
    writes: Float[Tensor, "layer head d_head d_model"],
    reads: Float[Tensor, "layer head d_model d_head"],
    tails: Float[Tensor, "layer head d_head d_head"],
    *,
    turn: Float[Tensor, "d_model d_model"] | None = None,
) -> Float[Tensor, "writer_layer writer reader_layer reader"]:
    """‖V O · N Fᵀ‖ / (‖V O‖ ‖N Fᵀ‖) through [d_head, d_head] cores; NaN but for later readers."""
    layers, count = writes.shape[:2]
    out = writes.new_full((layers, count, layers, count), torch.nan)
    written = (heads @ writes).flatten(-2).norm(dim=-1)  # [layer, head]
    read = (reads @ tails.mT).flatten(-2).norm(dim=-1)
    spoken = heads @ (writes if turn is None else writes @ turn)
    heard = reads @ tails.mT
    for first in range(layers):
        for later in range(first + 1, layers):
            product = torch.einsum("aed,bdf->abef", spoken[first], heard[later])
            out[first, :, later] = product.flatten(-2).norm(dim=-1)
    return out / (written[:, :, None, None] * read[None, None]).clamp(min=1e-30)


def _turn(model: Model, folded: bool, generator: torch.Generator) -> Float[Tensor, "d d"]:
    """A random rotation (Haar); where the mean is taken out, one that leaves it out."""
    size = model.d_model - _centred(model, folded)
    q, r = torch.linalg.qr(torch.randn(size, size, generator=generator))
    q = q * r.diagonal().sign()
    if size == model.d_model:
        return q
    basis = torch.linalg.qr(torch.cat([torch.ones(size + 1, 1), torch.eye(size + 1)[:, :size]], 1))
    plane = basis.Q[:, 1:]  # orthonormal, without the mean
    return plane @ q @ plane.T


def _centred(model: Model, folded: bool) -> int:
    return int(folded and final_centres(model))


def _largest(values: Tensor) -> float:
    """Over all pairs; NaN in a model of one layer."""
    kept = values[~values.isnan()]
    return float(kept.max()) if len(kept) else float("nan")
