"""A head's full circuits, from token to token.

What a head does between two tokens is two matrices over the vocabulary:

- the **OV circuit** ``E W_V W_O W_U``: how attending to a token (row) changes each logit
  (column). A value bias adds the same to every row and is left out.
- the **QK circuit** ``E W_Q M W_Kᵀ Eᵀ``: the score between a query token (row) and a key token
  (column). ``M`` is rotary's turn for their distance (:mod:`interp.weight_lenses.rotary`): at
  ``offset=0``, the default, content alone; 1 is what a previous-token head reads. The offset
  stands in the result and in its title. Learned positions have a circuit of their own,
  :func:`qk_positions`.

γ of the norm before the head and of the final norm are folded in. In the first layer of a model
without learned positions the QK circuit is the scores themselves, biases included: each token's
row is divided by its own norm's scale, which only position and token determine there. In later
layers the residual stream holds more than the token, so a circuit is the *direct* path and its
unit is not to be taken at its word.

Source: Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits",
transformer-circuits.pub/2021/framework (full OV and QK circuits).
Departures: norms are folded and rows divided by their own scale; the unembedding is less its mean
over the vocabulary; rotary positions enter QK. ``folded=False, normalise=False, centre=False``
is the paper's bare product.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import MetricError
from interp.models.folding import norm_before_attention
from interp.models.model import Model
from interp.results import Provenance
from interp.weight_lenses.circuit import Circuit
from interp.weight_lenses.ends import read_through, token_texts, tokens_in, unembedding
from interp.weight_lenses.factored import Factored
from interp.weight_lenses.heads import check_head, heads_of, norm_rows, qk_norm
from interp.weight_lenses.rotary import (
    attention_scale,
    check_offset,
    is_rotary,
    relative_rotation,
)

__all__ = ["ov_circuit", "qk_circuit", "qk_positions"]


@torch.no_grad()
def ov_circuit(
    model: Model,
    layer: int,
    head: int,
    *,
    through_mlp0: bool = False,
    folded: bool = True,
    normalise: bool = True,
    centre: bool = True,
) -> Circuit:
    """How attending to each token (row) changes the logit of each token (column).

    Args:
        through_mlp0: start from embedding + first MLP instead of the embedding.
        folded: fold γ, centring and multipliers; False takes the bare weights.
        normalise: divide each token's row by its norm's scale.
        centre: logits less their mean over the vocabulary.

    Raises:
        ModelError: no such head, or weights that cannot be viewed or folded.
    """
    check_head(model, layer, head)
    options = {"folded": folded, "normalise": normalise, "through_mlp0": through_mlp0}
    rows = _tokens(model, layer, None, **options)
    maps = heads_of(model, layer, folded=folded)
    out = unembedding(model, folded=folded, centre=centre)
    return Circuit(
        matrix=Factored(rows @ maps.v[head], maps.o[head] @ out),
        kind="ov",
        head=f"L{layer}.H{head}",
        rows=token_texts(model),
        columns=token_texts(model, out=True),
        offset=None,
        start="embedding + MLP 0" if through_mlp0 else "embedding",
        provenance=Provenance.of(
            model, verb="ov_circuit", layer=layer, head=head, centre=centre, **options
        ),
    )


@torch.no_grad()
def qk_circuit(
    model: Model,
    layer: int,
    head: int,
    offset: int | None = None,
    *,
    start: Float[Tensor, "row d_model"] | None = None,
    through_mlp0: bool = False,
    folded: bool = True,
    normalise: bool = True,
    biases: bool = True,
    centre: bool = False,
) -> Circuit:
    """Attention scores (before softmax and any soft-cap) between each pair of tokens.

    >>> qk_circuit(model, 0, 4, offset=1).top(5)   # what attends to a token before it
                                                   # doctest: +SKIP

    Args:
        offset: how many positions the key stands before the query, which matters under rotary
            positions; None: 0, content alone.
        start: rows of the residual stream to use in place of the vocabulary's.
        through_mlp0: start from embedding + first MLP instead of the embedding.
        folded: fold γ and centring; False takes the bare weights, without biases' β.
        normalise: divide each token's row, and its query and key where the family has norms on
            those, by its own scale.
        biases: add b_Q to queries and b_K to keys (they are in proportion only to rows that are
            normalised).
        centre: less each query's mean over all keys, which its pattern at one distance does not
            see: entries of different queries can then be compared.

    Raises:
        ModelError: no such head, an offset where there are no rotary positions, or weights that
            cannot be viewed or folded.
        MetricError: ``start`` is not rows of the residual stream.
    """
    check_head(model, layer, head)
    rotary = is_rotary(model.anatomy, layer)
    check_offset(model.anatomy, layer, offset)
    if start is not None and (
        start.ndim != 2 or start.shape[-1] != model.d_model or not bool(start.isfinite().all())
    ):
        raise MetricError(
            f"start has shape {list(start.shape)}; expected finite numbers [row, {model.d_model}], "
            "rows of the residual stream."
        )
    options = {"folded": folded, "normalise": normalise, "through_mlp0": through_mlp0}
    rows = _tokens(model, layer, start, **options)
    texts = token_texts(model) if start is None else tuple(map(str, range(len(start))))
    matrix = _scores(model, layer, head, rows, offset or 0, biases=biases, **options)
    if centre:
        matrix = Factored(matrix.left, matrix.right - matrix.right.mean(-1, keepdim=True))
    return Circuit(
        matrix=matrix,
        kind="qk",
        head=f"L{layer}.H{head}",
        rows=texts,
        columns=texts,
        offset=(offset or 0) if rotary else None,
        start="given rows" if start is not None else
        "embedding + MLP 0" if through_mlp0 else "embedding",
        provenance=Provenance.of(
            model, verb="qk_circuit", layer=layer, head=head, offset=offset, biases=biases,
            centre=centre, **options,
        ),
    )  # fmt: skip


@torch.no_grad()
def qk_positions(model: Model, layer: int, head: int, *, folded: bool = True) -> Circuit:
    """Scores between learned positions: ``W_pos W_Q W_Kᵀ W_posᵀ``, query row and key column.

    The part of a score that depends on the two positions alone; rows are centred where the norm
    centres and not divided by a scale (a position comes with a token, which has its share in the
    scale); biases are left out.

    Raises:
        ModelError: no such head, or the family has no learned positions (with rotary ones, see
            :func:`interp.weight_lenses.qk_offsets`).
    """
    check_head(model, layer, head)
    places = model.weights.W_pos.as_subclass(Tensor).float()
    options = {"folded": folded, "normalise": False}
    rows = _tokens(model, layer, places, **options)
    labels = tuple(map(str, range(len(places))))
    return Circuit(
        matrix=_scores(model, layer, head, rows, 0, biases=False, **options),
        kind="positions",
        head=f"L{layer}.H{head}",
        rows=labels,
        columns=labels,
        offset=None,
        start="position embedding",
        provenance=Provenance.of(model, verb="qk_positions", layer=layer, head=head, folded=folded),
    )


def _tokens(
    model: Model,
    layer: int,
    start: Tensor | None,
    *,
    folded: bool,
    normalise: bool,
    through_mlp0: bool = False,
) -> Float[Tensor, "row d_model"]:
    """Rows of the residual stream as the layer's attention reads them."""
    rows = tokens_in(model, through_mlp0=through_mlp0) if start is None else start.to(model.device)
    if not folded and not normalise:
        return rows
    norm = norm_before_attention(model.anatomy, model.anatomy.blocks[layer])
    return read_through(norm, rows, divide=normalise)


def _scores(
    model: Model,
    layer: int,
    head: int,
    rows: Float[Tensor, "row d_model"],
    offset: int,
    *,
    folded: bool,
    normalise: bool,
    biases: bool,
    through_mlp0: bool = False,
) -> Factored:
    maps = heads_of(model, layer, folded=folded, qk_norms=not normalise)
    bias = 1.0 if biases else 0.0
    sides = []
    for kind, matrix, b in (("q", maps.q, maps.b_q), ("k", maps.k, maps.b_k)):
        sides.append(_by_head(model, layer, kind, rows, matrix, b * bias, head, norm=normalise))
    turn = relative_rotation(model.anatomy, layer, offset).to(rows)
    queries = sides[0] @ turn * attention_scale(model.anatomy, layer)
    return Factored(queries, sides[1].T)


def _by_head(
    model: Model, layer: int, kind: str, rows: Tensor, matrix: Tensor, bias: Tensor, head: int,
    *, norm: bool,
) -> Float[Tensor, "row d_head"]:  # fmt: skip
    """Queries or keys of one head, after the layer's norm on them where it has one."""
    if not norm or qk_norm(model, layer, kind) is None:
        return rows @ matrix[head] + bias[head]
    every = torch.einsum("rd,hde->rhe", rows, matrix) + bias
    return norm_rows(model, layer, kind, every)[:, head]
