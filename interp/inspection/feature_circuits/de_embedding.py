"""De-embedding: which tokens a feature reads, from weights.

*Direct*: ``W_E · W_enc[:, i]`` (Dunefsky et al. 2024, §4.2.2), a number for each token of the vocabulary.
*Through a head*: ``W_E · W_V W_O · W_enc[:, i]``, what the head would bring of that token if it attended to it.
*Along a path* of one run, input-dependent: what the token's embedding would contribute at the path's end if it
stood there and everything else were held (norms' scales, attention, active features).

**Norms.** Direct, the embedding goes through the norm in front of the MLP whole (centring, division, γ, β): the
number is what the encoder would read in layer 0 if nothing else were in the stream, ``b_enc`` left out. Through a head it
goes through the norm in front of attention whole, then W_V, b_V and W_O; the norm in front of the MLP is then
a linear map (γ and centring), whose division no weight knows: it is left out, so only order and ratios mean
something. A norm behind attention (Gemma-2) is treated alike. Along a path every scale is the run's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.dictionaries.dictionary import Dictionary
from interp.errors import DictionaryError
from interp.inspection.chosen import Chosen, feature_name, parsed
from interp.inspection.ends import as_read
from interp.inspection.feature_circuits.contributions import begin
from interp.inspection.feature_circuits.de_embedding_result import DeEmbedding
from interp.inspection.feature_circuits.frozen import folded
from interp.inspection.feature_circuits.node import Node
from interp.inspection.feature_circuits.standing import Transcoders, layer_of
from interp.models.folding import norm_before_attention, norm_before_mlp
from interp.models.model import Inputs, Model
from interp.results import Provenance
from interp.sites import Site
from interp.weight_lenses.ends import token_texts, tokens_in
from interp.weight_lenses.heads import check_head, written
from interp.weight_lenses.reading import read

__all__ = ["de_embed", "de_embed_path", "through_head"]


@torch.no_grad()
def de_embed(
    dictionary: Dictionary,
    model: Model,
    which: Sequence[int | str] | None = None,
    *,
    head: tuple[int, int] | None = None,
    top: int = 10,
) -> DeEmbedding:
    """Tokens whose embedding alone excites features most, straight or through a head; weights alone.

    >>> interp.inspection.de_embed(tc, model, [12, 40]).plot()                # doctest: +SKIP
    >>> interp.inspection.de_embed(tc, model, ["F12"], head=(1, 3)).to_frame()  # doctest: +SKIP

    Args:
        dictionary: a transcoder of one MLP; straight also an SAE of the residual stream.
        model: that it belongs to.
        which: features, by number or name; None: all.
        head: layer and number of the head that brings the token, at most as late as the MLP.
        top: tokens at each end.

    Raises:
        DictionaryError: no such feature, a dictionary that reads something else, or a head that writes behind it.
        ModelError: no such head.
        MetricError: ``top`` is not from 1 to the size of the vocabulary.
    """
    pairs = None if which is None else parsed(dictionary, which)
    chosen = Chosen.all(dictionary) if pairs is None else Chosen.some(dictionary, pairs)
    if dictionary.spec.crossing:
        raise DictionaryError("de_embed takes dictionaries of one layer: this is a cross-layer transcoder.")  # fmt: skip
    rows = [unit for _, unit in chosen.pairs]
    enc = dictionary.W_enc.T[rows].to(torch.promote_types(dictionary.dtype, torch.float32))
    if head is None:
        x, said = as_read(model, Site.parse(dictionary.spec.reads[0]), tokens_in(model))
        if x.shape[1] != dictionary.d_in:
            raise DictionaryError(
                f"no de-embedding: the encoder reads {dictionary.d_in} numbers, and this model's embeddings "
                f"have {x.shape[1]}."
            )
        x = dictionary.prepared(x.to(dictionary.device)).to(enc)
    else:
        x, enc = through_head(model, *head), _behind_attention(model, dictionary, enc, head[0])
        said = f"token embeddings through L{head[0]}.H{head[1]}, × encoder; norms' divisions behind the head left out."
    names = tuple(feature_name(dictionary, 0, unit) for unit in rows)
    record = {"dictionary": dictionary.hash, "head": None if head is None else list(head)}
    return _made(model, names, enc, x.to(enc), top, said, verb="de_embed", **record)


@torch.no_grad()
def de_embed_path(
    transcoders: Transcoders,
    model: Model,
    prompt: Inputs,
    path: Sequence[str],
    *,
    top: int = 10,
) -> DeEmbedding:
    """What every token would contribute to a feature at the end of a path, in one run.

    >>> de_embed_path(tcs, model, prompt, ["L2.mlp.F12@9", "L1.H3@9←5"]).plot()   # doctest: +SKIP

    Args:
        path: nodes as ``FeaturePaths.paths`` has them, the feature first. The tokens are put at the place
            that the last one reads.

    Returns:
        One row, in units of the feature's pre-activation: for the token that stands there it is the
        contribution of ``embed`` to the path.

    Raises:
        DictionaryError: nodes that no such run has, or that cannot be gone through.
        PromptError, SiteError: as :func:`contributions`.
    """
    nodes = [Node.parse(name) for name in path]
    if not nodes or nodes[0].kind != "feature" or not all(node.passable for node in nodes):
        raise DictionaryError(
            f"path={list(path)}; expected a feature such as 'L2.mlp.F12@9', then features and heads that lead to it."
        )
    run, root = begin(transcoders, model, prompt, path[0])
    direction = run.root(root)
    for node in nodes[1:]:
        if node.name not in {one.name for one, _ in run.terms(direction)}:
            raise DictionaryError(f"{node.name!r} contributes nothing to the node before it on this path.")  # fmt: skip
        behind = run.behind(node, direction)
        assert behind is not None
        direction = behind
    said = f"token embeddings at position {direction.column}, along {' ← '.join(path)}; all else as in this run."
    rows, tokens = direction.vector[None], tokens_in(model).to(direction.vector)
    return _made(
        model, (" ← ".join(path),), rows, tokens, top, said, verb="de_embed_path", path=list(path),
        ids=run.batch.ids[0].tolist(), dictionaries=[one.hash for one in run.transcoders.values()],
    )  # fmt: skip


def through_head(model: Model, layer: int, head: int) -> Float[Tensor, "token d_model"]:
    """What a head writes of each token of the vocabulary that it attends to alone, with b_V, without b_O.

    Raises:
        ModelError: there is no such head.
    """
    check_head(model, layer, head)
    norm = norm_before_attention(model.anatomy, model.anatomy.blocks[layer])
    x = tokens_in(model)
    if norm is not None:
        own = next((p.dtype for p in norm.parameters()), x.dtype)
        x = norm(x.to(own)).to(x)
    weights, group = model.weights.layer(layer), model.n_heads // model.n_kv_heads
    w_v, b_v = (w.as_subclass(Tensor)[head // group].to(x) for w in (weights.W_V, weights.b_V))
    return written(
        model, layer, "attn", (x @ w_v + b_v) @ weights.W_O.as_subclass(Tensor)[head].to(x)
    )


def _behind_attention(
    model: Model, dictionary: Dictionary, enc: Float[Tensor, "feature d_in"], head_layer: int
) -> Float[Tensor, "feature d_model"]:
    """Encoders as readers of the stream in front of their norm, whose division is left out."""
    layer = layer_of(model, dictionary)
    if head_layer > layer or (head_layer == layer and model.anatomy.parallel):
        raise DictionaryError(
            f"a head of layer {head_layer} writes behind what the MLP of layer {layer} reads: expected an earlier one."
        )
    norm = norm_before_mlp(model.anatomy, model.anatomy.blocks[layer])
    bare = Site.parse(dictionary.spec.reads[0]).point == "ln2.normalized"
    return folded(norm, enc.to(model.device), model.anatomy.family.norm_offset, bare=bare)


def _made(
    model: Model, names: tuple[str, ...], rows: Float[Tensor, "feature d"],
    tokens: Float[Tensor, "token d"], top: int, said: str, **call: Any,
) -> DeEmbedding:  # fmt: skip
    found = read(rows.to(tokens), tokens.T.contiguous(), top=top)
    return DeEmbedding(
        names=names, top_ids=found.top_ids, top=found.top_logits, bottom_ids=found.bottom_ids,
        bottom=found.bottom_logits, kurtosis=found.kurtosis, words=token_texts(model), note=said,
        provenance=Provenance.of(model, top=top, **call),
    )  # fmt: skip
