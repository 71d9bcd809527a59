"""``connections``: how strongly features of one layer feed those of a later one, from weights alone.

*Input-invariant*: ``W_dec_j · v_i`` for feature j of the earlier and i of the later transcoder, where ``v_i`` is
the encoder's direction in front of its norm (γ and LayerNorm's centring folded in; the division, a positive number
for each position, left out). Through a head: ``W_dec_j · W_V W_O · v_i``, norms on the way folded alike, attention
left out. (Dunefsky et al. 2024, arXiv:2406.11944, §4.1.)

*Input-dependent* at a token: that times the earlier feature's activation and divided by the norm's scale there,
``f_j(x) · W_dec_j·v_i / s(x)``: the term of :func:`contributions`. Its mean over the tokens of a corpus at which
feature i is active factors in the same way, into the input-invariant number and the mean of ``f_j / s`` over these
tokens. The first says what a feature *can* do to another, the second whether it is there when it counts.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.dictionaries.dictionary import Dictionary
from interp.errors import BudgetError, DictionaryError
from interp.harvesting.stream import stream
from interp.inspection.feature_circuits.connections_result import Connections
from interp.inspection.feature_circuits.frozen import folded
from interp.inspection.feature_circuits.standing import by_layer, layer_of
from interp.models.folding import norm_before_attention, norm_before_mlp
from interp.models.model import Model
from interp.progress import Bar
from interp.results import Provenance
from interp.runs.memory import as_text, available
from interp.sites import Site
from interp.taps.norms import normalise
from interp.weight_lenses.heads import check_head, written

__all__ = ["connections"]

_ROWS = 4096


@torch.no_grad()
def connections(
    source: Dictionary,
    target: Dictionary,
    model: Model,
    *,
    head: tuple[int, int] | None = None,
    corpus: Any = None,
    tokens: int | None = 20_000,
    context: int = 128,
    seed: int = 0,
    progress: bool | None = None,
) -> Connections:
    """Connections from every feature of ``source`` to every feature of ``target``.

    >>> found = interp.inspection.connections(tcs["L0.mlp"], tcs["L2.mlp"], model, corpus="demo")
    ... # doctest: +SKIP
    >>> found.into(12); found.matrix.top(10)                                   # doctest: +SKIP

    Args:
        source, target: transcoders of two layers, the earlier first.
        model: that they belong to.
        head: layer and number of a head between them, for connections through it.
        corpus: where to look which features are active together, as :func:`interp.harvest` takes it; None:
            weights alone.
        tokens: of it that are read.
        context: longest stretch of text that a token can look back on.
        seed: of a generated corpus.
        progress: None shows a bar to a person, True always; False is silent.

    Raises:
        DictionaryError: no transcoders of two layers in this order, a head that is not between them, or a corpus
            beside a head (which attention would have to say).
        ModelError: no such head.
        BudgetError: a number for each pair of features does not fit in memory.
    """
    layers = layer_of(model, source), layer_of(model, target)
    by_layer(model, [source, target])
    _check_order(model, layers, head)
    if head is not None and corpus is not None:
        raise DictionaryError("corpus= beside head=: what passes a head depends on its attention, prompt by prompt. Use "
                              "contributions(...) or feature_paths(...) for that.")  # fmt: skip
    dec = source.W_dec.detach().to(torch.promote_types(source.dtype, torch.float32))
    reads = _reads(model, target, layers[1]).to(dec)
    if head is not None:
        reads = _through(model, reads, *head)
    together, fired = None, None
    if corpus is not None:
        together, fired = _together(model, source, target, layers[1], corpus, tokens, context, seed, progress)  # fmt: skip
    return Connections(
        source=source.spec.features[0], target=target.spec.features[0],
        head=None if head is None else f"L{head[0]}.H{head[1]}",
        written=dec.cpu(), read=reads.T.contiguous().cpu(), together=together, fired=fired,
        provenance=Provenance.of(
            model, seed=seed, verb="connections", dictionaries=[source.hash, target.hash],
            head=None if head is None else list(head), corpus=None if corpus is None else str(corpus)[:200],
            tokens=tokens, context=context,
        ),
    )  # fmt: skip


def _check_order(model: Model, layers: tuple[int, int], head: tuple[int, int] | None) -> None:
    if layers[0] >= layers[1]:
        raise DictionaryError(
            f"connections from layer {layers[0]} to layer {layers[1]}: expected the earlier one first."
        )
    if head is None:
        return
    check_head(model, *head)
    last = layers[1] - 1 if model.anatomy.parallel else layers[1]
    if not layers[0] < head[0] <= last:
        raise DictionaryError(
            f"L{head[0]}.H{head[1]} does not lie between the MLPs of layers {layers[0]} and {layers[1]}: expected a head "
            f"of layers {layers[0] + 1} to {last}."
        )


def _reads(model: Model, target: Dictionary, layer: int) -> Float[Tensor, "feature d_model"]:
    """Encoders in front of their norm, whose division is left out."""
    norm = norm_before_mlp(model.anatomy, model.anatomy.blocks[layer])
    bare = Site.parse(target.spec.reads[0]).point == "ln2.normalized"
    enc = target.parts[0].enc.detach().to(torch.promote_types(target.dtype, torch.float32))
    return folded(norm, enc.to(model.device), model.anatomy.family.norm_offset, bare=bare)


def _through(
    model: Model, reads: Float[Tensor, "feature d_model"], layer: int, head: int
) -> Float[Tensor, "feature d_model"]:
    """The same in front of a head's norm: ``W_V W_O v``."""
    weights, group = model.weights.layer(layer), model.n_heads // model.n_kv_heads
    w_v = weights.W_V.as_subclass(Tensor)[head // group].to(reads)
    w_o = written(model, layer, "attn", weights.W_O.as_subclass(Tensor)[head].to(reads))
    norm = norm_before_attention(model.anatomy, model.anatomy.blocks[layer])
    back = (reads @ w_o.T) @ w_v.T
    return folded(norm, back, model.anatomy.family.norm_offset, bare=False)


def _together(
    model: Model, source: Dictionary, target: Dictionary, layer: int, corpus: Any,
    tokens: int | None, context: int, seed: int, progress: bool | None,
) -> tuple[Float[Tensor, "source target"], Tensor]:  # fmt: skip
    """Mean of ``f_j / s`` over the tokens at which feature i is active, and how many those are."""
    needed = 16 * source.d_sae * target.d_sae
    if needed > available(torch.device("cpu")):
        raise BudgetError(
            f"{source.d_sae:,} × {target.d_sae:,} pairs of features take {as_text(needed)}: leave corpus out, and "
            "ask for what is active together with contributions(...) on prompts of interest."
        )
    norm = norm_before_mlp(model.anatomy, model.anatomy.blocks[layer])
    resid = f"L{layer}.{'resid_pre' if model.anatomy.parallel else 'resid_mid'}"
    sites = list(dict.fromkeys([source.spec.reads[0], target.spec.reads[0], resid]))
    rows = stream(model, corpus, sites, tokens=tokens, context=context, seed=seed)
    total = torch.zeros(source.d_sae, target.d_sae, dtype=torch.float64)
    fired = torch.zeros(target.d_sae, dtype=torch.int64)
    with Bar(total=None, what="tokens", show=progress) as bar:
        for batch in rows.batches(_ROWS, shuffle=None, drop_last=False):
            x = batch[resid]
            scale = torch.ones(len(x), 1) if norm is None else normalise(norm, x.to(model.device))[1].cpu()  # fmt: skip
            early = source.encode(batch[source.spec.reads[0]].to(source.device)).cpu() / scale
            active = (target.encode(batch[target.spec.reads[0]].to(target.device)) > 0).cpu()
            total += early.double().T @ active.double()
            fired += active.sum(0)
            bar.advance(len(x))
    return (total / fired.clamp(min=1)).float(), fired
