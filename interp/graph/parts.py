"""How each node of a model writes, and how it reads: its own modules, one node at a time.

What a node writes is its term of the residual stream. In families with a norm behind attention
(Gemma-2, OLMo-2) a head's term is its part of what that norm lets through, at the scale which all
heads of the run gave it, so the terms still sum to what was added.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from interp.direct.stream import heads_of, neurons_of
from interp.graph.units import transcoder_at
from interp.models.affine import affine
from interp.taps.anatomy import Anatomy, Block
from interp.taps.norms import centres, gamma, normalise

__all__ = ["Parts"]

#: The denominators of norms in one run, by the norm's name and layer (None: the final one).
Scales = Mapping[tuple[str, int | None], Float[Tensor, "*rows 1"]]


@dataclass(frozen=True, eq=False)
class Parts:
    """The nodes' own weights.

    Attributes:
        frozen: whether norms divide by the scales they are handed instead of their input's own.
    """

    anatomy: Anatomy
    frozen: bool = False
    _projections: dict[tuple[int, int], tuple[Tensor, Tensor]] = field(default_factory=dict)

    # -- writing -------------------------------------------------------------------------

    def heads(
        self, layer: int, z: Float[Tensor, "row pos head d_head"]
    ) -> Float[Tensor, "head row pos d_model"]:
        """What each head writes, without ``b_O``."""
        heads = heads_of(self.anatomy, layer, _wide(z))
        return heads.only(range(self.anatomy.n_heads)).tensors()

    def neurons(
        self, layer: int, post: Float[Tensor, "row pos neuron"], chosen: list[int]
    ) -> Float[Tensor, "chosen row pos d_model"]:
        """What some neurons of an MLP write."""
        return neurons_of(self.anatomy, layer, _wide(post)).only(chosen).tensors()

    def features(
        self, layer: int, acts: Float[Tensor, "row pos feature"], chosen: list[int]
    ) -> Float[Tensor, "chosen row pos d_model"]:
        """What some features of the transcoder in the place of an MLP write."""
        standing = transcoder_at(self.anatomy, layer)
        assert standing is not None  # check_units has seen to it
        silent = torch.zeros_like(acts)
        x = acts.new_zeros(*acts.shape[:2], self.anatomy.d_model)  # of skip transcoders: falls out
        bias, found = _wide(standing.decode(0, [silent], x)), list[Tensor]()
        for feature in chosen:
            alone = silent.clone()
            alone[..., feature] = acts[..., feature]
            found.append(_wide(standing.decode(0, [alone], x)) - bias)
        return torch.stack(found)

    # -- reading -------------------------------------------------------------------------

    def before_attention(self, layer: int) -> nn.Module | None:
        """The norm whose output attention reads."""
        return self._block(layer).ln1

    def before_mlp(self, layer: int) -> nn.Module | None:
        """The norm whose output the MLP reads: the one it shares with attention in some families."""
        block = self._block(layer)
        return block.ln1 if block.ln2 is None and self.anatomy.parallel else block.ln2

    def normed(
        self,
        norm: nn.Module | None,
        x: Float[Tensor, "*rows d_model"],
        scale: Float[Tensor, "*rows 1"] | None = None,
    ) -> Float[Tensor, "*rows d_model"]:
        """What a norm makes of a stream; ``scale`` is what it divides by, if that is held."""
        if norm is None:
            return x
        if scale is None:
            return norm(x)
        centred = normalise(norm, x)[0]
        out = centred / scale * gamma(norm, self.anatomy.family.norm_offset)
        bias = getattr(norm, "bias", None)
        return (out if bias is None else out + bias).to(x.dtype)

    def project(
        self,
        layer: int,
        channel: int,
        heads: Int[Tensor, " node"],
        x: Float[Tensor, "node *rows d"],
    ) -> Float[Tensor, "node *rows d_head"]:
        """Queries (channel 0), keys or values of some query heads, each of an input of its own."""
        matrix, bias = self.projection(layer, channel)
        flat = torch.bmm(x.flatten(1, -2), matrix[heads])
        return (flat + bias[heads][:, None]).unflatten(1, x.shape[1:-1])

    def projection(
        self, layer: int, channel: int
    ) -> tuple[Float[Tensor, "head d_model d_head"], Float[Tensor, "head d_head"]]:
        """The weights behind :meth:`project`: a row for each query head, shared within groups."""
        if (layer, channel) not in self._projections:
            modules = self._block(layer).qkv
            whole, cut = affine(modules[channel % len(modules)]), self.anatomy.cut
            matrix, bias = cut(whole.matrix, channel).movedim(-2, 0), cut(whole.bias, channel)
            groups = self.anatomy.n_heads // matrix.shape[0]
            self._projections[layer, channel] = (
                matrix.repeat_interleave(groups, 0), bias.repeat_interleave(groups, 0)
            )  # fmt: skip
        return self._projections[layer, channel]

    def backward(
        self,
        norm: nn.Module | None,
        x: Float[Tensor, "row pos d_model"],
        gradient: Float[Tensor, "node row pos d_model"],
        scale: Float[Tensor, "row pos 1"] | None = None,
    ) -> Float[Tensor, "node row pos d_model"]:
        """Gradients with respect to what a norm reads, from those with respect to its output.

        J = C (γ g - x̂ mean(x̂ γ g)) / s with x̂ the centred input over the scale s, and C the
        centring of LayerNorm; if scales are held, C γ g / s, at ``scale`` if it is not the input's.
        """
        if norm is None:
            return gradient
        centred, own = normalise(norm, x)
        scale = own if scale is None else scale
        inner = gradient * (gamma(norm, self.anatomy.family.norm_offset) / scale)
        mean = inner.mean(-1, keepdim=True) if centres(norm) else None
        if not self.frozen:
            unit = centred / scale
            inner.addcmul_(unit, (inner * unit).mean(-1, keepdim=True), value=-1)
        return inner if mean is None else inner.sub_(mean)  # x̂ itself has mean 0

    def _block(self, layer: int) -> Block:
        return self.anatomy.blocks[layer]


def _wide(x: Tensor) -> Tensor:
    """In float32 or better."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def scale_of(norm: Any, x: Float[Tensor, "*rows d_model"]) -> Float[Tensor, "*rows 1"]:
    """What a norm divides this stream by."""
    return normalise(norm, x)[1]
