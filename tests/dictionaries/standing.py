"""Small dictionaries for the tests of splicing: random, identical, and by hand."""

from __future__ import annotations

import torch

from interp.dictionaries.dictionary import Dictionary
from interp.dictionaries.spec import DictionarySpec
from interp.sites import HOSTS, POINTS, Site

D_SAE = 24


def width(model, site):
    """Numbers at each token of a site, heads laid out."""
    sizes = {"d_model": model.d_model, "d_mlp": model.anatomy.d_mlp,
             "d_head": model.n_heads * model.d_head}  # fmt: skip
    return sizes[Site.parse(site).kind.axes[-1]]


def hosts(model):
    """Every point of this model that an SAE can stand at."""
    return [point for point in HOSTS if point not in model.anatomy.refused]


def random(spec, seed=0, scale=0.2):
    generator = torch.Generator().manual_seed(seed)
    tensors = Dictionary(spec).state_dict()
    return Dictionary.of(
        spec, {k: torch.randn(v.shape, generator=generator) * scale for k, v in tensors.items()}
    )


def transcoder(model, layer, *, kind="transcoder", reads="mlp.input", writes="mlp_out", seed=0,
               activation="relu", d_sae=D_SAE, **options):  # fmt: skip
    read, write = f"L{layer}.{reads}", f"L{layer}.{writes}"
    return random(
        DictionarySpec(kind, (read,), (write,), width(model, read), width(model, write), d_sae,
                       activation, options=options), seed,
    )  # fmt: skip


def sae(model, site, *, seed=0, activation="relu", d_sae=D_SAE, options=None, **changes):
    d = width(model, site)
    return random(
        DictionarySpec("sae", (site,), (site,), d, d, d_sae, activation, options=options or {},
                       **changes), seed,
    )  # fmt: skip


def crossing(model, *, seed=0, d_sae=D_SAE):
    reads, writes = ([f"L{n}.{p}" for n in range(model.n_layers)] for p in ("mlp.input", "mlp_out"))
    d = model.d_model
    spec = DictionarySpec(
        "cross_layer_transcoder", tuple(reads), tuple(writes), d, d, d_sae, "relu"
    )
    return random(spec, seed)


def identical(model, site):
    """An SAE that loses nothing: relu(x) - relu(-x)."""
    d = width(model, site)
    spec = DictionarySpec("sae", (site,), (site,), d, d, 2 * d, "relu")
    both = torch.cat([torch.eye(d), -torch.eye(d)])
    zeros = {name: torch.zeros_like(x) for name, x in Dictionary(spec).state_dict().items()}
    return Dictionary.of(spec, {**zeros, "parts.0.enc": both, "parts.0.dec": both})


def everywhere(model, make):
    """A dictionary of ``make(model, site)`` at every host of every layer."""
    return [make(model, f"L{n}.{point}") for n in range(model.n_layers) for point in hosts(model)]


def headed(site):
    return POINTS[Site.parse(site).point].headed
