"""What a TransformerLens model computes, as a Hugging Face config; and what toys may compute beside it.

Names that other code looks for are Hugging Face's (``hidden_size``, ``layer_types``, ``is_causal``,
``final_logit_softcapping``); what only TransformerLens has keeps a name of its own. Toys
(:mod:`interp.toys`) may weigh keys otherwise, go without positions, read vectors and route to experts.
"""

from __future__ import annotations

from typing import Literal

from transformers import PreTrainedConfig

__all__ = ["HookedConfig", "Normalization"]

Normalization = Literal["LN", "LNPre", "RMS", "RMSPre"]


class HookedConfig(PreTrainedConfig):
    """The shape and the parts of a model with TransformerLens's computation.

    Attributes:
        output_vocab_size: width of the logits; that of the input by default.
        intermediate_size: neurons of a block's MLP; None in attention-only models.
        normalization: the norms of the blocks and, but for ``final_rms``, the last one: LayerNorm,
            RMSNorm, either without weights (``Pre``), or none at all (None).
        norm_after: whether each branch passes an RMSNorm before it is added.
        qk_norm: whether each head's q and k pass an RMSNorm.
        position_embedding: ``"standard"`` adds a row of a table to the residual stream, ``"rotary"``
            rotates q and k, ``"none"`` does neither.
        rotary_dim: entries of q and k that are rotated; the others stay.
        rotary_factor: positions of full attention count 1/factor; windowed attention's count 1.
        rotary_base_local: the base in windowed attention, where it is another.
        rotary_adjacent_pairs: whether neighbours are rotated (GPT-J) or halves (NeoX).
        rotary_float64: whether angles are computed in float64; else in float32.
        parallel: whether attention and MLP read the same residual stream.
        is_causal: False where each position sees all positions.
        attention_divisors: what each layer's scores are divided by.
        attention_softcap: the bound of the scores, ``cap · tanh(scores / cap)``; None for none.
        layer_types: ``"full_attention"`` or ``"sliding_attention"`` for each layer; None: all full.
        sliding_window: keys that a windowed query sees, itself among them.
        attention_weighting: what makes the pattern of the scores: ``"softmax"``, ``"sigmoid"`` of each, or
            ``"linear"``: the scores themselves.
        embedding_size: width of a table of fixed features that stands before a trained map into the
            residual stream; None: a trained table of the stream's own width.
        vector_size: width of the vectors that the model reads in the place of tokens; None: tokens.
        num_experts: MLPs of a block that a router chooses from; None: one MLP, not routed.
        experts_per_token: how many of them each position passes through.
    """

    model_type = "hooked_transformer"
    keys_to_ignore_at_inference = ["past_key_values"]  # noqa: RUF012 (Hugging Face's)

    vocab_size: int = 1
    output_vocab_size: int | None = None
    hidden_size: int = 1
    num_hidden_layers: int = 1
    num_attention_heads: int = 1
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    intermediate_size: int | None = None
    max_position_embeddings: int = 1
    hidden_act: str = "relu"
    gated_mlp: bool = False
    normalization: str | None = "LN"
    final_rms: bool = False
    norm_eps: float = 1e-5
    norm_after: bool = False
    qk_norm: bool = False
    position_embedding: str = "standard"
    rotary_dim: int | None = None
    rotary_base: float = 10000.0
    rotary_base_local: float | None = None
    rotary_factor: float = 1.0
    rotary_adjacent_pairs: bool = False
    rotary_float64: bool = False
    parallel: bool = False
    is_causal: bool = True
    attention_divisors: list[float] | None = None
    attention_softcap: float | None = None
    final_logit_softcapping: float | None = None
    layer_types: list[str] | None = None
    sliding_window: int | None = None
    attention_weighting: str = "softmax"
    embedding_size: int | None = None
    vector_size: int | None = None
    num_experts: int | None = None
    experts_per_token: int = 1
    initializer_range: float | None = None
    use_cache: bool = True
    tie_word_embeddings: bool = False
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    pad_token_id: int | None = None

    def __post_init__(self, **kwargs: object) -> None:
        if self.output_vocab_size is None:
            self.output_vocab_size = self.vocab_size
        if self.num_key_value_heads is None:
            self.num_key_value_heads = self.num_attention_heads
        if self.head_dim is None:
            self.head_dim = self.hidden_size // self.num_attention_heads
        if self.attention_divisors is None:
            self.attention_divisors = [self.head_dim**0.5] * self.num_hidden_layers
        if self.initializer_range is None:
            self.initializer_range = 0.8 / self.hidden_size**0.5  # TransformerLens's default
        super().__post_init__(**kwargs)

    @property
    def attention_only(self) -> bool:
        """Whether the blocks have no MLP."""
        return self.intermediate_size is None

    @property
    def rotary(self) -> bool:
        """Whether positions rotate q and k."""
        return self.position_embedding == "rotary"

    def kind(self, layer: int) -> str:
        """``"full_attention"``, or ``"sliding_attention"`` where a query sees a window of keys."""
        return "full_attention" if self.layer_types is None else self.layer_types[layer]
