"""Random dictionaries of every kind and activation, with parts large enough to matter."""

from __future__ import annotations

import torch

from interp.dictionaries.dictionary import Dictionary
from interp.dictionaries.spec import DictionarySpec

D, D_SAE = 16, 40
KINDS = ("sae", "transcoder", "skip_transcoder", "cross_layer_transcoder")
ACTIVATIONS = ("relu", "gated", "jumprelu", "topk", "batchtopk")
EVERY = [(kind, activation) for kind in KINDS for activation in ACTIVATIONS]


def made(
    kind="sae", activation="relu", *, seed=0, layer=1, d=D, d_out=None, point="mlp.input", **changes
):
    """A dictionary with random weights, thresholds and biases."""
    n = 3 if kind == "cross_layer_transcoder" else 1
    at = range(n) if n > 1 else [layer]
    sites = [f"L{i}.resid_post" for i in at] if kind == "sae" else [f"L{i}.{point}" for i in at]
    writes = sites if kind == "sae" else [f"L{i}.mlp_out" for i in at]
    values = {
        "kind": kind, "reads": tuple(sites), "writes": tuple(writes), "d_in": d, "d_out": d_out or d,
        "d_sae": D_SAE, "activation": activation, "centre": kind == "sae",
        "options": {"k": 7} if "topk" in activation else {},
    }  # fmt: skip
    blank = Dictionary(DictionarySpec(**{**values, **changes}))
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, tensor in blank.state_dict().items():
        noise = torch.randn(tensor.shape, generator=generator) * 0.4
        state[name] = noise.abs() if name.endswith("threshold") else noise
    return Dictionary.of(blank.spec, state)


def rows(dictionary, n=64, *, seed=1):
    """Inputs for :meth:`Dictionary.encode`, not centred and of no unit scale."""
    layers = (len(dictionary.parts),) if dictionary.spec.crossing else ()
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*layers, n, dictionary.d_in, generator=generator) * 2 + 0.5


def assert_same(one, other):
    """Equal to the bit: weights and what they are."""
    assert one.spec == other.spec
    ours, theirs = one.state_dict(), other.state_dict()
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert ours[name].dtype == theirs[name].dtype
        assert torch.equal(ours[name], theirs[name]), name


def assert_close(one, other, x, *, atol=1e-5):
    """Equal in what they compute."""
    assert torch.allclose(one.encode(x), other.encode(x), atol=atol)
    assert torch.allclose(one(x), other(x), atol=atol)
