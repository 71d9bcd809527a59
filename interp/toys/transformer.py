"""Small transformers, trained and read through the same taps as every other model.

A toy is a :class:`~interp.models.hooked.HookedForCausalLM`: TransformerLens's computation as a Hugging Face
model, with what toys need beside it (keys weighed by a sigmoid or not at all, no positions, vectors for
tokens, experts). So a trained toy *is* a model of this library: ``toy.model`` goes into ``interp.patch``,
``interp.attention``, ``interp.ablate`` and the rest, and ``toy.save`` writes a checkpoint folder that
``interp.load`` reads.

Three kinds of input:

- ``d_vocab=``: token ids and a trained table;
- ``features=``: token ids, a *fixed* vector for each, and a trained map of these into the residual stream
  (images behind a frozen encoder, as in Chan et al. 2022, arXiv:2205.05055);
- ``d_in=``: vectors, and a trained map. Such a toy has no ``toy.model``; :meth:`Toy.run` reads and
  edits its sites.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import ToyError, nearest
from interp.models.hooked import HookedConfig, HookedForCausalLM
from interp.models.hooked.parts import ACTIVATIONS
from interp.toys.toy import Toy

__all__ = ["from_json", "transformer"]

_POSITIONS: Final = {"learned": "standard", "rotary": "rotary", "none": "none"}
_WEIGHTINGS: Final = ("softmax", "sigmoid", "linear")
_REAL: Final = ("scale", "init")
_NORMS: Final = ("LN", "LNPre", "RMS", "RMSPre")


def transformer(
    *,
    d_out: int,
    n_layers: int,
    n_heads: int,
    d_model: int,
    n_ctx: int,
    d_vocab: int | None = None,
    d_in: int | None = None,
    features: Float[Tensor, "d_vocab d_in"] | None = None,
    d_head: int | None = None,
    d_mlp: int | None = None,
    act: str = "gelu",
    attention: Literal["softmax", "sigmoid", "linear"] = "softmax",
    scale: float | None = None,
    positions: Literal["learned", "rotary", "none"] = "learned",
    rotary_base: float = 10000.0,
    causal: bool = True,
    norm: Literal["LN", "LNPre", "RMS", "RMSPre"] | None = "LN",
    experts: int | None = None,
    experts_per_token: int = 1,
    init: float | None = None,
    seed: int = 0,
) -> Toy:
    """A transformer with random weights.

    Args:
        d_out: width of the logits (or of what is regressed).
        n_ctx: positions it can read.
        d_vocab, d_in, features: what it reads; give one of them (see the module's text).
        d_head: entries of a head; ``d_model // n_heads`` by default.
        d_mlp: neurons of a block's MLP; None: attention only.
        act: the MLP's activation: ``"gelu"``, ``"relu"``, ``"silu"``, ...
        attention: what makes a pattern of the scores: a softmax over keys, a sigmoid of each score (Gu et al. 2024,
            arXiv:2410.10781: no sum to share), or the scores themselves (linear attention).
        scale: what scores are divided by; √d_head by default.
        positions: ``"learned"`` vectors added to the stream, ``"rotary"`` q and k, or ``"none"``.
        causal: whether a position sees itself and earlier ones alone.
        norm: of the blocks and of the end; None for none.
        experts: MLPs of a block, of which a router picks ``experts_per_token`` for each position.
        init: standard deviation of the initial matrices; 0.8 / √d_model by default, TransformerLens's.
            Biases start at 0, norms at 1.
        seed: of the initial weights; the global random state is left as it was.

    Raises:
        ToyError: sizes or options that do not go together.
    """
    _positive(
        d_out=d_out, n_layers=n_layers, n_heads=n_heads, d_model=d_model, n_ctx=n_ctx, d_vocab=d_vocab,
        d_in=d_in, d_head=d_head, d_mlp=d_mlp, experts=experts, scale=scale, init=init,
    )  # fmt: skip
    reads = _reads(d_vocab, d_in, features)
    _check(attention, positions, norm, act, n_heads, d_model, d_head, d_mlp, experts,
           experts_per_token)  # fmt: skip
    head = d_head or d_model // n_heads
    if positions == "rotary" and head % 2:
        raise ToyError(f"rotary positions turn pairs of entries, and d_head={head} is odd.")
    config = HookedConfig(
        **reads,
        output_vocab_size=d_out,
        hidden_size=d_model,
        num_hidden_layers=n_layers,
        num_attention_heads=n_heads,
        head_dim=head,
        intermediate_size=d_mlp,
        max_position_embeddings=n_ctx,
        hidden_act=act,
        normalization=norm,
        position_embedding=_POSITIONS[positions],
        rotary_dim=head if positions == "rotary" else None,
        rotary_base=rotary_base,
        is_causal=causal,
        attention_divisors=None if scale is None else [float(scale)] * n_layers,
        attention_weighting=attention,
        num_experts=experts,
        experts_per_token=experts_per_token,
        initializer_range=init,
    )
    toy = _built(config, seed)
    if features is not None:
        with torch.no_grad():
            table = toy.hf.model.embed.weight
            assert isinstance(table, Tensor)
            table.copy_(features)
    return toy


def from_json(described: Mapping[str, Any]) -> Toy:
    """A toy of the same shape as the one that :meth:`Toy.to_json` described, its weights random."""
    return _built(HookedConfig(**described["config"]), 0)


def _built(config: HookedConfig, seed: int) -> Toy:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        hf = HookedForCausalLM._from_config(
            config, dtype=torch.float32, attn_implementation="eager"
        )
    return Toy(hf.eval())


def _positive(**sizes: int | float | None) -> None:
    for name, size in sizes.items():
        if size is not None and not (size > 0 and (name in _REAL or isinstance(size, int))):
            kind = "number" if name in _REAL else "whole number"
            raise ToyError(f"{name}={size!r}; expected a {kind} above 0.")


def _reads(d_vocab: int | None, d_in: int | None, features: Tensor | None) -> dict[str, Any]:
    given = {"d_vocab": d_vocab, "d_in": d_in, "features": features}
    names = [name for name, value in given.items() if value is not None]
    if len(names) != 1:
        raise ToyError(
            f"a toy reads one kind of input, and was given {' and '.join(names) or 'none'}: give d_vocab= "
            "(tokens), features= (tokens with a fixed vector each) or d_in= (vectors)."
        )
    if features is not None:
        if features.dim() != 2:
            raise ToyError(
                f"features is {list(features.shape)}; expected a row for each token, [d_vocab, d_in]."
            )
        return {"vocab_size": features.shape[0], "embedding_size": features.shape[1]}
    return {"vocab_size": d_vocab} if d_in is None else {"vocab_size": 1, "vector_size": d_in}


def _check(
    attention: str, positions: str, norm: str | None, act: str, n_heads: int, d_model: int,
    d_head: int | None, d_mlp: int | None, experts: int | None, experts_per_token: int,
) -> None:  # fmt: skip
    options = {
        "attention": (attention, _WEIGHTINGS), "positions": (positions, tuple(_POSITIONS)),
        "norm": (norm, (*_NORMS, None)), "act": (act, tuple(ACTIVATIONS)),
    }  # fmt: skip
    for name, (value, known) in options.items():
        if value not in known:
            told = [str(one) for one in known]
            raise ToyError(f"{name}={value!r}; nearest: {nearest(str(value), told)}.")
    if d_head is None and d_model % n_heads:
        raise ToyError(
            f"d_model={d_model} cannot be shared by {n_heads} heads: give d_head=, or another size."
        )
    if experts is not None and d_mlp is None:
        raise ToyError(f"experts={experts} are MLPs: give d_mlp=, the neurons of each.")
    if experts is not None and not 1 <= experts_per_token <= experts:
        raise ToyError(
            f"experts_per_token={experts_per_token} of {experts} experts: expected 1 to {experts}."
        )
