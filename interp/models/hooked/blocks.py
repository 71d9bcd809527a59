"""A block of a TransformerLens model: attention, MLP, and the norms around them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from interp.models.hooked.config import HookedConfig
from interp.models.hooked.experts import HookedExperts
from interp.models.hooked.mlp import HookedMLP
from interp.models.hooked.parts import RMSNorm, norm, rotated
from interp.taps.attention import weighed

__all__ = ["HookedAttention", "HookedBlock"]


def eager_attention(
    module: nn.Module,
    query: Float[Tensor, "batch head query d_head"],
    key: Float[Tensor, "batch kv_head key d_head"],
    value: Float[Tensor, "batch kv_head key d_head"],
    attention_mask: Float[Tensor, "#batch #head query key"] | None,
    scaling: float,
    softcap: float | None = None,
    **_: Any,
) -> tuple[Float[Tensor, "batch query head d_head"], Float[Tensor, "batch head query key"]]:
    """Attention written out, with its pattern."""
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    scores = torch.matmul(query, key.transpose(2, 3)) * scaling
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    if attention_mask is not None:
        scores = scores + attention_mask[..., : key.shape[-2]]
    pattern = weighed(module, scores)
    return torch.matmul(pattern, value).transpose(1, 2).contiguous(), pattern


class HookedAttention(nn.Module):
    """Heads, each of which may read k and v of a group (grouped-query attention)."""

    def __init__(self, config: HookedConfig, layer: int) -> None:
        super().__init__()
        assert config.head_dim is not None
        assert config.num_key_value_heads is not None
        assert config.attention_divisors is not None
        heads, kv_heads, d_head = (
            config.num_attention_heads, config.num_key_value_heads, config.head_dim,
        )  # fmt: skip
        self.config = config
        self.layer_idx = layer
        self.layer_type = config.kind(layer)
        self.head_dim = d_head
        self.num_key_value_groups = heads // kv_heads
        self.scaling = 1 / config.attention_divisors[layer]
        self.is_causal = config.is_causal
        self.weighting = config.attention_weighting
        self.q = nn.Linear(config.hidden_size, heads * d_head)
        self.k = nn.Linear(config.hidden_size, kv_heads * d_head)
        self.v = nn.Linear(config.hidden_size, kv_heads * d_head)
        self.o = nn.Linear(heads * d_head, config.hidden_size)
        self.q_norm = RMSNorm(d_head, config.norm_eps) if config.qk_norm else None
        self.k_norm = RMSNorm(d_head, config.norm_eps) if config.qk_norm else None

    def forward(
        self,
        hidden_states: Float[Tensor, "batch pos d_model"],
        position_embeddings: tuple[Tensor, Tensor] | None = None,
        attention_mask: Tensor | None = None,
        past_key_values: Any = None,
        **kwargs: Any,
    ) -> tuple[Float[Tensor, "batch pos d_model"], Tensor | None]:
        """What all heads add to the residual stream, and the pattern where the kernel gives one."""
        query, key, value = (
            project(hidden_states).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for project in (self.q, self.k, self.v)
        )
        query = query if self.q_norm is None else self.q_norm(query)
        key = key if self.k_norm is None else self.k_norm(key)
        if position_embeddings is not None:
            adjacent = self.config.rotary_adjacent_pairs
            query = rotated(query, *position_embeddings, adjacent=adjacent)
            key = rotated(key, *position_embeddings, adjacent=adjacent)
        if past_key_values is not None:
            key, value = past_key_values.update(key, value, self.layer_idx)
        attend: Callable[..., tuple[Tensor, Tensor | None]] = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention
        )
        z, pattern = attend(
            self, query, key, value, attention_mask,
            scaling=self.scaling, softcap=self.config.attention_softcap, **kwargs,
        )  # fmt: skip
        return self.o(z.reshape(*hidden_states.shape[:-1], -1)), pattern


class HookedBlock(GradientCheckpointingLayer):
    """One block: the residual stream plus what attention and MLP read from it and write."""

    def __init__(self, config: HookedConfig, layer: int) -> None:
        super().__init__()
        size, eps = config.hidden_size, config.norm_eps
        only = config.attention_only
        after = "RMS" if config.norm_after else None
        self.parallel = config.parallel
        self.attn = HookedAttention(config, layer)
        routed = config.num_experts is not None
        self.mlp = None if only else HookedExperts(config) if routed else HookedMLP(config)
        self.ln1 = norm(config.normalization, size, eps)
        self.ln2 = None if only else norm(config.normalization, size, eps)
        self.ln1_post = norm(after, size, eps)
        self.ln2_post = None if only else norm(after, size, eps)

    def forward(
        self,
        hidden_states: Float[Tensor, "batch pos d_model"],
        attention_mask: Tensor | None = None,
        position_embeddings: tuple[Tensor, Tensor] | None = None,
        past_key_values: Any = None,
        **kwargs: Any,
    ) -> Float[Tensor, "batch pos d_model"]:
        """The residual stream behind the block."""
        added, _ = self.attn(
            hidden_states=_through(self.ln1, hidden_states),
            position_embeddings=position_embeddings,
            attention_mask=attention_mask,
            past_key_values=past_key_values,
            **kwargs,
        )
        mid = hidden_states + _through(self.ln1_post, added)
        if self.mlp is None:
            return mid
        read = hidden_states if self.parallel else mid
        return mid + _through(self.ln2_post, self.mlp(_through(self.ln2, read)))


def _through(module: nn.Module | None, x: Tensor) -> Tensor:
    return x if module is None else module(x)
