"""The demo model's architecture and its initial weights.

GPT-NeoX as Hugging Face ships it, with the MLP after attention rather than beside it, rotary
positions over the whole head and an unembedding of its own. Initial weights come from the seed
alone, so the untrained twin of any demo model can be made again at any time.
"""

from __future__ import annotations

import math

import torch
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from interp.demo.recipe import Recipe

__all__ = ["build_model"]


def build_model(recipe: Recipe, *, vocabulary: int, seed: int) -> GPTNeoXForCausalLM:
    """An untrained model: the same recipe and seed give the same weights.

    Args:
        recipe: its size and the scale of its initial weights.
        vocabulary: number of tokens; the special ones come first (see ``vocabulary.py``).
        seed: source of the initial weights.
    """
    config = GPTNeoXConfig(
        vocab_size=vocabulary,
        hidden_size=recipe.width,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        intermediate_size=recipe.mlp,
        hidden_act="gelu",
        max_position_embeddings=recipe.context,
        classifier_dropout=0.0,
        use_parallel_residual=False,
        tie_word_embeddings=False,
        rope_parameters={
            "rope_type": "default",
            "rope_theta": recipe.rope_theta,
            "partial_rotary_factor": 1.0,
        },
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=3,
    )
    model = GPTNeoXForCausalLM(config)
    _initialise(model, recipe, seed)
    return model.eval()


@torch.no_grad()
def _initialise(model: GPTNeoXForCausalLM, recipe: Recipe, seed: int) -> None:
    """Draw every weight from one generator, in the order of ``named_parameters``.

    Matrices that write to the residual stream are scaled down by sqrt(2 * layers), as in GPT-2.
    """
    source = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        if weight.dim() == 1:
            weight.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
            if name.endswith("query_key_value.bias"):
                by_head = weight.view(recipe.heads, 3, -1)  # queries, keys, values of each head
                by_head[:, :2].normal_(0.0, recipe.position_std, generator=source)
            continue
        std = recipe.embedding_std if "embed_in" in name else recipe.weight_std
        if name.endswith(("attention.dense.weight", "dense_4h_to_h.weight")):
            std /= math.sqrt(2 * recipe.layers)
        weight.normal_(0.0, std, generator=source)
