"""Which directions of the residual stream a site of weights means.

===================  ============================================================================
``L3.mlp_post.N77``  what neuron 77 writes: its row of ``W_out``
``L3.mlp_pre.N77``   what it reads: its column of ``W_gate`` (of ``W_in`` where nothing is gated)
``L2.H1.z``          what each dimension of a head's output writes: the rows of ``W_O``
``L2.H1.q``, k, v    what each dimension of a query, key or value reads (k, v: key-value heads)
``L2.H1.result``     what the head writes, by strength: the right singular vectors of ``W_V W_O``
===================  ============================================================================
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import ModelError, SiteError
from interp.models.folding import norm_before_mlp
from interp.models.model import Model
from interp.sites import ALL, Site
from interp.taps.norms import centres
from interp.weight_lenses.factored import Factored
from interp.weight_lenses.heads import heads_of, written

__all__ = ["directions", "neurons"]

_HEADED = ("q", "k", "v", "z", "result")


def neurons(model: Model, layer: int, side: str, *, folded: bool) -> Float[Tensor, "d_mlp d_model"]:
    """What each neuron of a block writes (``"out"``), or reads through its ``"in"`` or ``"gate"``.

    Raises:
        ModelError: the MLP has no such weights, or ``side`` is none of these.
    """
    if side not in ("in", "gate", "out"):
        raise ModelError(f"side={side!r}; expected 'in', 'gate' or 'out'.")
    at = (model.weights.folded() if folded else model.weights).layer(layer)
    rows = {"in": lambda: at.W_in.T, "gate": lambda: at.W_gate.T, "out": lambda: at.W_out}[side]()
    rows = rows.as_subclass(Tensor).to(torch.promote_types(rows.dtype, torch.float32))
    if not folded:
        return rows
    if side == "out":
        return written(model, layer, "mlp", rows)
    norm = norm_before_mlp(model.anatomy, model.anatomy.blocks[layer])
    return rows - rows.mean(-1, keepdim=True) if norm is not None and centres(norm) else rows


def directions(
    model: Model, site: str | Site, *, folded: bool = True
) -> tuple[tuple[str, ...], Float[Tensor, "row d_model"]]:
    """The directions a site means, each with its name; several layers, heads and neurons too.

    Raises:
        SiteError: the site does not parse, is out of range, or means no weights (see the table).
        ModelError: this model has no such weights.
    """
    site = Site.parse(site)
    if site.point not in (*_HEADED, "mlp_post", "mlp_pre") or site.position is not None:
        raise SiteError(
            f"{str(site)!r} does not name weights; expected a neuron ('L3.mlp_post.N77' writes, "
            "'L3.mlp_pre.N77' reads) or a head ('L2.H1.result', 'L2.H1.z', q, k or v), without a "
            "position. Any other direction can be given as a tensor [..., d_model]."
        )
    names, parts = [], []
    for one in site.per_layer(model.n_layers):
        assert one.layer is not None
        layer = one.layer.expand(model.n_layers, "layer")[0]
        found = _headed if site.point in _HEADED else _neurons
        own_names, rows = found(model, one, layer, folded)
        names.extend(own_names)
        parts.append(rows)
    return tuple(names), torch.cat(parts)


def _neurons(model: Model, site: Site, layer: int, folded: bool) -> tuple[list[str], Tensor]:
    gated = model.anatomy.blocks[layer].gate is not None
    side = "out" if site.point == "mlp_post" else "gate" if gated else "in"
    rows = neurons(model, layer, side, folded=folded)
    chosen = (site.unit or ALL).expand(len(rows), "neuron")
    return [str(site.at(layer=layer, unit=i)) for i in chosen], rows[list(chosen)]


def _headed(model: Model, site: Site, layer: int, folded: bool) -> tuple[list[str], Tensor]:
    maps = heads_of(model, layer, folded=folded)
    own = model.n_kv_heads if site.point in ("k", "v") else model.n_heads
    names, parts = [], []
    for head in (site.head or ALL).expand(own, "head"):
        at = head * (model.n_heads // own)
        if site.point == "result":
            rows = Factored(maps.v[at], maps.o[at]).svd()[2].T
        else:
            rows = maps.o[at] if site.point == "z" else getattr(maps, site.point)[at].T
        names += [f"{site.at(layer=layer, head=head)}[{i}]" for i in range(len(rows))]
        parts.append(rows)
    return names, torch.cat(parts)
