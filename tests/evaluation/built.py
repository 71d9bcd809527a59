"""Dictionaries made by hand."""

from __future__ import annotations

import torch

from interp.dictionaries.dictionary import Dictionary
from interp.dictionaries.spec import DictionarySpec


def identity(site: str, d: int) -> Dictionary:
    """An SAE that writes what it reads: ``relu(x) − relu(−x)``."""
    both = torch.cat([torch.eye(d), -torch.eye(d)]).double()
    return made("sae", (site,), (site,), both, torch.zeros(2 * d), both, torch.zeros(d))


def zero(site: str, d: int, bias: torch.Tensor | None = None) -> Dictionary:
    """An SAE without an active feature: it writes its bias."""
    none = torch.zeros(4, d)
    return made(
        "sae",
        (site,),
        (site,),
        none,
        -torch.ones(4),
        none,
        torch.zeros(d) if bias is None else bias,
    )


def random(kind: str, layers: range, d: int, d_sae: int, *, seed: int = 0, scale=0.1) -> Dictionary:
    """Random weights; for several layers a cross-layer transcoder."""
    draw = torch.Generator().manual_seed(seed)
    reads = tuple(f"L{n}.resid_post" if kind == "sae" else f"L{n}.mlp.input" for n in layers)
    writes = reads if kind == "sae" else tuple(f"L{n}.mlp_out" for n in layers)
    n = len(layers)
    spec = DictionarySpec(kind, reads, writes, d, d, d_sae, "topk", {"k": 8})
    tensors = {"b_dec": torch.randn(n * d, generator=draw) * scale}
    for i in range(n):
        tensors |= {
            f"parts.{i}.enc": torch.randn(d_sae, d, generator=draw),
            f"parts.{i}.b_enc": torch.randn(d_sae, generator=draw),
            f"parts.{i}.dec": torch.randn(d_sae, (n - i) * d, generator=draw) * scale,
        }
    if kind == "skip_transcoder":
        tensors["W_skip"] = torch.randn(d, d, generator=draw) * scale
    return Dictionary.of(spec, {name: x.double() for name, x in tensors.items()})


def made(kind, reads, writes, enc, b_enc, dec, b_dec, activation="relu", **options) -> Dictionary:
    d_sae, d_in = enc.shape
    spec = DictionarySpec(kind, reads, writes, d_in, dec.shape[1], d_sae, activation, options)
    tensors = {"parts.0.enc": enc, "parts.0.b_enc": b_enc, "parts.0.dec": dec, "b_dec": b_dec}
    return Dictionary.of(spec, {name: x.double() for name, x in tensors.items()})
