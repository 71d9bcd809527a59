"""The model: embeddings, blocks and unembedding, as a Hugging Face language model.

Blocks take a key-value cache and their attention goes through Hugging Face's registry, so taps, weight
views and the exact engine treat such a model as any other family.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, DynamicCache, GenerationMixin
from transformers.masking_utils import create_causal_mask, create_sliding_window_causal_mask
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.modeling_utils import PreTrainedModel

from interp.errors import ModelError
from interp.models.hooked.blocks import HookedBlock
from interp.models.hooked.config import HookedConfig
from interp.models.hooked.parts import Rotary, norm

__all__ = ["HookedForCausalLM", "HookedModel"]


class HookedPreTrainedModel(PreTrainedModel):
    """What both classes share."""

    config_class = HookedConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["HookedBlock"]  # noqa: RUF012 (Hugging Face's)
    _skip_keys_device_placement = ["past_key_values"]  # noqa: RUF012
    _supports_attention_backend = True

    @property
    def _supports_sdpa(self) -> bool:
        """The fused kernel has no soft-cap, and weighs by softmax."""
        return (
            self.config.attention_softcap is None and self.config.attention_weighting == "softmax"
        )


class HookedModel(HookedPreTrainedModel):
    """All but the unembedding."""

    def __init__(self, config: HookedConfig) -> None:
        super().__init__(config)
        size, rms = config.hidden_size, {"LN": "RMS", "LNPre": "RMSPre"}
        final = config.normalization
        if config.final_rms and final is not None:
            final = rms.get(final, final)
        self.embed: nn.Module
        if config.vector_size is not None:
            self.embed = nn.Linear(config.vector_size, size, bias=False)
        else:
            self.embed = nn.Embedding(config.vocab_size, config.embedding_size or size)
        self.project_in = None
        if config.embedding_size is not None:
            self.embed.requires_grad_(False)
            self.project_in = nn.Linear(config.embedding_size, size, bias=False)
        self.pos_embed = (
            nn.Embedding(config.max_position_embeddings, size)
            if config.position_embedding == "standard"
            else None
        )
        self.rotary_emb = Rotary(config) if config.rotary else None
        self.blocks = nn.ModuleList(
            HookedBlock(config, layer) for layer in range(config.num_hidden_layers)
        )
        self.ln_final = norm(final, size, config.norm_eps)
        self.gradient_checkpointing = False
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The embedding of tokens."""
        return self.embed

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Put another embedding of tokens in its place."""
        self.embed = value

    def embedded(
        self, inputs: Int[Tensor, "batch pos"] | Float[Tensor, "batch pos d_in"]
    ) -> Float[Tensor, "batch pos d_model"]:
        """Tokens (or vectors) in the residual stream, before positions."""
        x = self.embed(inputs)
        return x if self.project_in is None else self.project_in(x)

    def forward(
        self,
        input_ids: Int[Tensor, "batch pos"] | Float[Tensor, "batch pos d_in"] | None = None,
        attention_mask: Tensor | Mapping[str, Tensor] | None = None,
        position_ids: Int[Tensor, "#batch pos"] | None = None,
        past_key_values: Any = None,
        inputs_embeds: Float[Tensor, "batch pos d_model"] | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """The residual stream behind the final norm."""
        if inputs_embeds is None:
            assert input_ids is not None
            inputs_embeds = self.embedded(input_ids)
        x = inputs_embeds
        if past_key_values is None and (self.config.use_cache if use_cache is None else use_cache):
            past_key_values = DynamicCache()
        if position_ids is None:
            seen = 0 if past_key_values is None else past_key_values.get_seq_length()
            position_ids = torch.arange(x.shape[1], device=x.device)[None] + seen
        masks = self._masks(x, attention_mask, past_key_values, position_ids)
        turn = self.rotary_emb
        angles = {} if turn is None else {kind: turn(x, position_ids, kind) for kind in masks}
        if self.pos_embed is not None:
            x = x + self.pos_embed(position_ids)
        for layer, block in enumerate(self.blocks):
            kind = self.config.kind(layer)
            x = block(
                x,
                attention_mask=masks[kind],
                position_embeddings=angles.get(kind),
                past_key_values=past_key_values,
                **kwargs,
            )
        x = x if self.ln_final is None else self.ln_final(x)
        return BaseModelOutputWithPast(last_hidden_state=x, past_key_values=past_key_values)

    def _masks(
        self,
        x: Float[Tensor, "batch pos d_model"],
        given: Tensor | Mapping[str, Tensor] | None,
        cache: Any,
        positions: Int[Tensor, "#batch pos"],
    ) -> Mapping[str, Tensor | None]:
        """The mask of each kind of layer, in the form that the kernel takes."""
        if isinstance(given, Mapping):
            return given
        kinds = map(self.config.kind, range(self.config.num_hidden_layers))
        makers = {
            "full_attention": create_causal_mask,
            "sliding_attention": create_sliding_window_causal_mask,
        }
        return {
            kind: makers[kind](
                config=self.config, inputs_embeds=x, attention_mask=given,
                past_key_values=cache, position_ids=positions,
            )
            for kind in dict.fromkeys(kinds)
        }  # fmt: skip


class HookedForCausalLM(HookedPreTrainedModel, GenerationMixin):
    """The model with its unembedding."""

    def __init__(self, config: HookedConfig) -> None:
        super().__init__(config)
        assert config.output_vocab_size is not None
        self.model = HookedModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.output_vocab_size)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The embedding of tokens."""
        return self.model.embed

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Put another embedding of tokens in its place."""
        self.model.embed = value

    def get_output_embeddings(self) -> nn.Module:
        """The unembedding."""
        return self.lm_head

    def forward(
        self,
        input_ids: Int[Tensor, "batch pos"] | Float[Tensor, "batch pos d_in"] | None = None,
        attention_mask: Tensor | Mapping[str, Tensor] | None = None,
        position_ids: Int[Tensor, "#batch pos"] | None = None,
        past_key_values: Any = None,
        inputs_embeds: Float[Tensor, "batch pos d_model"] | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Int[Tensor, " column"] = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Logits over the output vocabulary."""
        out = self.model(
            input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids,
            past_key_values=past_key_values, inputs_embeds=inputs_embeds, use_cache=use_cache,
            **kwargs,
        )  # fmt: skip
        keep = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(out.last_hidden_state[:, keep])
        cap = self.config.final_logit_softcapping
        logits = torch.tanh(logits / cap) * cap if cap else logits
        return CausalLMOutputWithPast(logits=logits, past_key_values=out.past_key_values)

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """Hugging Face's ``generate``.

        Raises:
            ModelError: the model cannot continue a text, as it sees later tokens or does not answer
                in the tokens that it reads.
        """
        if not self.config.is_causal:
            raise ModelError(
                "this model's attention is bidirectional: it sees later tokens, so it cannot write "
                "them one by one. Use model.run."
            )
        if self.config.output_vocab_size != self.config.vocab_size:
            raise ModelError(
                f"this model reads {self.config.vocab_size} tokens and answers in "
                f"{self.config.output_vocab_size} others (d_vocab_out), so what it writes cannot be "
                "read again. Use model.run."
            )
        return super().generate(*args, **kwargs)


AutoConfig.register(HookedConfig.model_type, HookedConfig, exist_ok=True)
AutoModel.register(HookedConfig, HookedModel, exist_ok=True)
AutoModelForCausalLM.register(HookedConfig, HookedForCausalLM, exist_ok=True)
