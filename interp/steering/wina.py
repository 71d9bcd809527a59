"""WINA: which inputs of a weight matrix can be left out, token by token, with the least change of its output?

A matrix product x W is a sum over inputs i of x_i W_i. Keep the k inputs with the largest *score* at each token and set
the others to 0; the rows W_i of those need not even be read. Three scores:

    wina        |x_i| · ‖W_i‖₂   weight-informed: an input that is read by small weights says little
    magnitude   |x_i|            what earlier methods take (CATS, TEAL)
    random      none             the null

Under orthogonal W_i the error of x W is exactly Σ_dropped (|x_i| ‖W_i‖)², so WINA's choice is then the best one of its
size; with magnitudes alone it is that only if all ‖W_i‖ are equal. Where they are nearly so, as in the demo
model, both choose nearly the same; rescaling an input and its row the other way changes magnitudes alone.

Sparsity is an edit of a run, not of the weights: ``model.run(text, edit=sparsified(model, 0.5))``.

Source: Chen et al. 2025, "WINA: Weight informed neuron activation for accelerating large language model inference",
arXiv:2505.19427: W_{:,i} there is the column of W [out, in], here the row of W [in, out] (``x @ W``).

Departures: one sparsity for all matrices (the authors also allocate it greedily); weights stay as they are (they
rotate them first, so that columns are orthogonal); matrices that read one vector (q, k and v; up and gate) share one
mask, by the norms of all of them together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.errors import MetricError, RunError, nearest
from interp.models.model import Model
from interp.runs.edits import Edit, Noise
from interp.runs.plan import resolve
from interp.sites import Site

__all__ = [
    "METHODS",
    "Sparsify",
    "SparsifyAtRandom",
    "kept",
    "read_norms",
    "sparsified",
    "wina_scores",
]

Method = Literal["wina", "magnitude", "random"]
METHODS: Final[tuple[Method, ...]] = ("wina", "magnitude", "random")
#: Sites whose tensor a matrix of the block reads, and which do.
_READERS: Final = {
    "mlp_post": ("W_out",), "mlp.input": ("W_in", "W_gate"), "attn.input": ("W_Q", "W_K", "W_V"),
    "z": ("W_O",),
}  # fmt: skip


def wina_scores(
    x: Float[Tensor, "*tokens d_in"], weight: Float[Tensor, "d_in d_out"]
) -> Float[Tensor, "*tokens d_in"]:
    """|x_i| · ‖W_i‖₂: the length of what input i adds to x @ W. 0 = it adds nothing.

    Raises:
        MetricError: the two do not fit.

    >>> wina_scores(torch.tensor([-2.0, 3.0]), torch.tensor([[3.0, 4.0], [1.0, 0.0]])).tolist()
    [10.0, 3.0]
    """
    if weight.ndim != 2 or x.shape[-1:] != weight.shape[:1]:
        raise MetricError(
            f"wina_scores() got x {list(x.shape)} and a weight {list(weight.shape)}; expected [..., d_in] and "
            "[d_in, d_out] (x @ W; torch's nn.Linear holds its transpose)."
        )
    return x.abs() * weight.norm(dim=-1).to(x)


def kept(scores: Float[Tensor, "*tokens d"], sparsity: float) -> Bool[Tensor, "*tokens d"]:
    """The mask of each row's largest scores: a share ``sparsity`` of d, rounded down, is left out.

    Raises:
        MetricError: a sparsity that is no share from 0 to 1.

    >>> kept(torch.tensor([3.0, 1.0, 2.0, 0.0]), 0.5).tolist()
    [True, False, True, False]
    """
    _check(sparsity)
    d = scores.shape[-1]
    keep = d - math.floor(sparsity * d + 1e-9)
    mask = torch.zeros_like(scores, dtype=torch.bool)
    return mask.scatter_(-1, scores.topk(keep, dim=-1).indices, True)


@dataclass(frozen=True, eq=False)
class Sparsify:
    """An edit that leaves out, at each token, the inputs with the smallest |x_i| · ``norms``_i.

    Attributes:
        norms: of what reads each input; ones for |x_i| alone. Heads flattened into one axis.
        sparsity: share of the inputs that become 0.
    """

    norms: Float[Tensor, " d"]
    sparsity: float

    def __call__(self, x: Float[Tensor, "batch pos *d"]) -> Float[Tensor, "batch pos *d"]:
        flat = x.flatten(2)
        if flat.shape[-1] != len(self.norms):
            raise RunError(
                f"Sparsify was given {len(self.norms)} norms, but the site holds {list(x.shape)}: give it to a "
                "whole site, such as 'L2.mlp_post', with one norm for each input."
            )
        keep = kept(flat.abs() * self.norms.to(flat), self.sparsity)
        return torch.where(keep, flat, 0.0).to(x).view_as(x)

    def rows(self, start: int, stop: int, total: int) -> Sparsify:
        return self


@dataclass(frozen=True)
class SparsifyAtRandom:
    """The null: as many inputs left out at each token, drawn by ``seed`` and the row's number alone."""

    sparsity: float
    seed: int = 0
    first_row: int = 0

    def __call__(self, x: Float[Tensor, "batch pos *d"]) -> Float[Tensor, "batch pos *d"]:
        draws = Noise(1.0, self.seed, self.first_row)(torch.zeros_like(x, dtype=torch.float32))
        keep = kept(draws.flatten(2), self.sparsity).view_as(x)
        return torch.where(keep, x, torch.zeros_like(x))

    def rows(self, start: int, stop: int, total: int) -> SparsifyAtRandom:
        return replace(self, first_row=self.first_row + start)


def read_norms(model: Model, site: str | Site) -> Float[Tensor, " d"]:
    """‖W_i‖₂ of what reads each input at a site of one layer, all matrices that do together.

    Raises:
        SiteError: no such site in this model.
        MetricError: a site that no matrix of the block reads.
        ModelError: this model has no such weights (mixtures of experts).
    """
    site = resolve(model.anatomy, site)[0]
    if site.point not in _READERS or site.layer is None:
        raise MetricError(
            f"{str(site)!r} is not what a matrix of a block reads; expected one of {', '.join(_READERS)} "
            f"(nearest: {nearest(site.point, _READERS)})."
        )
    index = site.layer.expand(model.n_layers, "layer")[0]
    at, gated = model.weights.layer(index), model.anatomy.blocks[index].gate is not None
    square = 0.0
    for name in _READERS[site.point]:
        if name == "W_gate" and not gated:
            continue
        weight = getattr(at, name).as_subclass(Tensor).float()
        if name == "W_O":
            weight = weight.flatten(0, 1)
        elif weight.ndim == 3:  # [head, d_model, d_head]
            weight = weight.movedim(1, 0).flatten(1)
        square = square + weight.square().sum(-1)
    return torch.as_tensor(square).sqrt()


def sparsified(
    model: Model, sparsity: float, sites: str | tuple[str, ...] = "L*.mlp_post", *,
    method: Method = "wina", seed: int = 0,
) -> dict[str, Edit]:  # fmt: skip
    """Edits for ``model.run`` that sparsify what matrices read, at every token.

    Args:
        sparsity: share of the inputs left out; 0 changes nothing, to the bit.
        sites: ``mlp_post`` (read by the down projection), ``mlp.input``, ``attn.input``, ``z``; several by wildcard.
        method: ``"wina"``, ``"magnitude"`` or ``"random"``.
        seed: of ``"random"``; each site draws its own.

    Raises:
        MetricError: an unknown method, no share, or a site that no matrix reads.
        SiteError, ModelError: as :func:`read_norms`.
    """
    _check(sparsity)
    if method not in METHODS:
        raise MetricError(f"method={method!r}; expected one of {', '.join(METHODS)}.")
    edits: dict[str, Edit] = {}
    for number, site in enumerate(resolve(model.anatomy, sites)):
        norms = read_norms(model, site)
        if method == "random":
            edits[str(site)] = SparsifyAtRandom(sparsity, seed + 1_000_003 * number)
        else:
            edits[str(site)] = Sparsify(
                norms if method == "wina" else norms.new_ones(len(norms)), sparsity
            )
    return edits


def _check(sparsity: float) -> None:
    if not 0 <= sparsity <= 1:
        raise MetricError(
            f"sparsity={sparsity!r}; expected a share from 0 (nothing left out) to 1."
        )
