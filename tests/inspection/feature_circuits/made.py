"""Transcoders with random weights for models of any family, some features of which are active."""

from __future__ import annotations

from functools import cache

import torch

import interp
from interp.dictionaries.dictionary import Dictionary
from interp.dictionaries.spec import DictionarySpec
from tests import tiny

D_SAE = 24


def transcoder(model, layer, *, activation="relu", reads="mlp.input", kind="transcoder", seed=0, d_sae=D_SAE):  # fmt: skip
    generator = torch.Generator().manual_seed(100 * seed + layer)
    d = model.d_model
    options = {"k": 6} if activation in ("topk", "batchtopk") else {}
    spec = DictionarySpec(
        kind, (f"L{layer}.{reads}",), (f"L{layer}.mlp_out",), d, d, d_sae, activation, options
    )
    tensors = {
        name: (0.3 * torch.randn(x.shape, generator=generator)).to(model.dtype)
        for name, x in Dictionary(spec).state_dict().items()
    }
    return Dictionary.of(spec, tensors)


@cache
def double(family):
    """A tiny model in float64, where a sum that is off by 1e-9 is wrong (Mixtral's experts have float32 alone)."""
    built = tiny.build(family)
    return interp.load(built if family == "mixtral" else built.double(), check=False)


def strongest(model, ids, dictionary, layer, column=-1):
    """The feature that is most active at a position."""
    site = dictionary.spec.reads[0]
    x = model.run(ids, save=site).cache[site][0]
    return int(dictionary.encode(x)[column].argmax())


def neurons_as_features(model, layer):
    """The neurons of a GPT-2's MLP under ReLU, as a transcoder that leaves out nothing."""
    mlp = model.hf.transformer.h[layer].mlp
    d, wide = model.d_model, mlp.c_fc.weight.shape[1]
    ends = (f"L{layer}.mlp.input",), (f"L{layer}.mlp_out",)
    tensors = {"parts.0.enc": mlp.c_fc.weight.T, "parts.0.b_enc": mlp.c_fc.bias,
               "parts.0.dec": mlp.c_proj.weight, "b_dec": mlp.c_proj.bias}  # fmt: skip
    spec = DictionarySpec("transcoder", *ends, d, d, wide, "relu")
    return Dictionary.of(spec, {name: x.detach().contiguous() for name, x in tensors.items()})
