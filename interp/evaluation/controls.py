"""Null controls: what a dictionary would score if it had learnt nothing about this model.

- ``permuted``: its outputs in the places of other tokens. Right size and distribution, wrong tokens.
- ``random_model``: the same dictionary on ``model.random_twin()``.
- ``random_dictionary``: directions drawn anew, as many active features, and otherwise given its best:
  the inputs' mean subtracted, the outputs' mean as bias, and the scale that fits least squares.
  What it reconstructs comes from having that many random directions. (For SAEs it decodes with the
  directions it encodes with, as SAEs are initialised; that alone reconstructs something.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from interp.dictionaries.activations import JumpReLU
from interp.dictionaries.dictionary import Dictionary
from interp.evaluation.spliced import written

__all__ = ["permutation", "random_dictionary"]

#: Rows and pre-activations that a threshold is taken from.
ROWS, _ENTRIES = 4096, 2**23

Rows = Float[Tensor, "row d"]


def permutation(seed: int) -> Callable[[Rows], Rows]:
    """Rows in an order drawn by the seed: the same for all tensors of as many rows."""

    def permuted(x: Rows) -> Rows:
        draw = torch.Generator().manual_seed(seed)
        return x[torch.randperm(len(x), generator=draw).to(x.device)]

    return permuted


@torch.no_grad()
def random_dictionary(
    dictionary: Dictionary, x: Sequence[Rows], y: Sequence[Rows], seed: int
) -> Dictionary:
    """A dictionary of random directions, with this one's shape and number of active features.

    Args:
        dictionary: the one to be compared with it; its kind and widths are kept, its activation
            becomes a JumpReLU with one threshold for all features of a part.
        x: rows of each read site, to take thresholds from.
        y: the same rows of each written site.
        seed: of the directions.
    """
    draw = torch.Generator().manual_seed(seed)
    spec = replace(
        dictionary.spec, activation="jumprelu", options={}, centre=False, normalise="none",
        weights_hash=None, metadata={},
    )  # fmt: skip
    made = Dictionary(spec).to(dictionary.device, dictionary.dtype).requires_grad_(False)
    outs = []
    for i, rows in enumerate(x):
        rows = rows[: max(64, _ENTRIES // spec.d_sae)].to(made.device)
        wanted = int(written(dictionary, i, rows).active.sum())
        _draw_part(made, i, rows.to(made.dtype), wanted, draw)
        outs.append(written(made, i, x[i]).out.cpu().double())
    for site, target in enumerate(y):
        _fit(made, site, outs, target.cpu().double())
    return made


def _draw_part(made: Dictionary, i: int, x: Rows, wanted: int, draw: torch.Generator) -> None:
    """Directions, and the threshold that ``wanted`` of these rows' pre-activations exceed."""
    part = made.parts[i]
    enc, dec = part.enc, part.dec
    enc.copy_(_unit(enc.shape, draw))
    if made.kind == "sae":
        dec.copy_(enc)
    else:
        for block in dec.split(made.d_out, -1):
            block.copy_(_unit(block.shape, draw))
    pre = (x - x.mean(0)) @ enc.T
    threshold = _exceeded_by(pre, wanted)
    up = max(0.0, -threshold)  # more active than are positive: all are raised
    part.b_enc.copy_(up - enc @ x.mean(0))
    assert isinstance(part.activation, JumpReLU)  # as it was made
    part.activation.threshold.fill_(threshold + up)


def _unit(shape: Sequence[int], draw: torch.Generator) -> Tensor:
    return torch.nn.functional.normalize(torch.randn(*shape, generator=draw), dim=-1)


def _exceeded_by(pre: Float[Tensor, "row d_sae"], wanted: int) -> float:
    """A number that so many entries exceed."""
    flat = pre.flatten().float()
    if wanted >= flat.numel():
        return float(flat.min()) - 1.0
    return float(flat.kthvalue(flat.numel() - wanted).values)


def _fit(made: Dictionary, site: int, outs: Sequence[Tensor], y: Rows) -> None:
    """Scale what each part writes to a site by least squares; the rest of the mean is the bias."""
    d = made.d_out
    blocks = [slice((site - i) * d, (site - i + 1) * d) for i in range(site + 1)]
    wrote = torch.stack([outs[i][:, block] for i, block in enumerate(blocks)])
    means, mean = wrote.mean(1), y.mean(0)
    flat, target = (wrote - means[:, None]).flatten(1), (y - mean).flatten()
    scale = torch.linalg.pinv(flat @ flat.T) @ (flat @ target)
    for i, block in enumerate(blocks):
        made.parts[i].dec[:, block] *= scale[i].to(made.dtype)
    made.b_dec[site * d : (site + 1) * d] = (mean - scale @ means).to(made.dtype)
