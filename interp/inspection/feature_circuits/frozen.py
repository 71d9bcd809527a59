"""One run with everything frozen that is not linear: then each step backwards is a matrix.

A feature's pre-activation reads the residual stream ``x`` through a norm, ``pre = w·LN(x) + b``. Held
in this run are

- **norms**: the scale s(x) they divide by. With it held, ``w·LN(x) = v·x + β·w`` where ``v = γ⊙w / s``, less
  its mean under LayerNorm. (Dunefsky et al. 2024, §4.2, write this as ``v·c_LN`` with c_LN = (v·LN(x))/(v·x);
  for such a ``v`` the quotient is 1/s, which is what is used: their form is 0/0 where v·x = 0.)
- **attention patterns** α (their QK circuits; rotary positions turn only queries and keys, so they are in α).
  A head writes ``Σ_src α[dst, src] · (LN(x_src) W_V + b_V) W_O``: through it, a direction goes on to each source
  as ``α · W_V W_O v``, behind the norm there.
- **which features are active**: an active one is ``f = pre`` (a gated one ``f = (f/pre) · pre``, the quotient
  held), an inactive one 0. Through it, a direction goes on as ``(W_dec·v) · w_enc``.

So the terms of a direction sum to ``v·x`` exactly, at every step, with the MLPs that transcoders do not
account for (``error``) among them. It says how a number came about, not what a change would do: a change
would move scales, patterns and gates too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.dictionaries.dictionary import Dictionary
from interp.direct.stream import heads_of
from interp.direct.terms import centred
from interp.inspection.feature_circuits.node import Node
from interp.models.folding import norm_before_attention, norm_before_mlp
from interp.models.model import Model
from interp.runs.execute import execute
from interp.sites import Site
from interp.taps.norms import centres, gamma, normalise
from interp.token_batch import TokenBatch

__all__ = ["Direction", "FrozenRun", "folded"]

Term = tuple[Node, float]


@dataclass(frozen=True, eq=False)
class Direction:
    """What is read of the stream at one place: ``vector · x + constant``.

    Attributes:
        vector: in units of what it reads for, per unit of the stream.
        constant: what norms' β and encoders' biases add on the way.
        column: the position whose stream is read.
        attn, mlp: attention and MLPs of so many blocks have written to it.
    """

    vector: Float[Tensor, " d_model"]
    constant: float
    column: int
    attn: int
    mlp: int


class FrozenRun:
    """A run of one prompt, with what is held.

    Args:
        model: as it is, with no dictionary in its runs.
        batch: one prompt without padding.
        transcoders: by their layer.
    """

    def __init__(
        self, model: Model, batch: TokenBatch, transcoders: Mapping[int, Dictionary]
    ) -> None:
        self.model, self.anatomy, self.batch = model, model.anatomy, batch
        self.transcoders = transcoders
        self.cache = execute(self.anatomy, batch, save=self._sites(), logits="none").cache
        self._pre: dict[int, Tensor] = {}
        self._acts: dict[int, Tensor] = {}
        for layer, one in transcoders.items():
            x = self.at(one.spec.reads[0]).to(one.device, one.dtype)
            self._pre[layer] = one.parts[0].pre(one.prepared(x)).to(self._like(x))
            self._acts[layer] = one.encode_part(0, x).to(self._like(x))

    @property
    def n_tokens(self) -> int:
        return self.batch.ids.shape[1]

    def _like(self, x: Tensor) -> torch.dtype:
        return torch.promote_types(x.dtype, torch.float32)

    def _sites(self) -> list[str]:
        outside = ["embed"] + ["pos_embed"] * ("pos_embed" not in self.anatomy.refused)
        points = ["resid_pre", "pattern", "v", "z", "mlp_out"]
        points += [] if self.anatomy.parallel else ["resid_mid"]
        read = {one.spec.reads[0] for one in self.transcoders.values()}
        return [*outside, *(f"L*.{point}" for point in points), *sorted(read)]

    def at(self, site: str) -> Float[Tensor, "pos ..."]:
        """What the run has at a site, of its one prompt, in float32 or better."""
        x = self.cache[site][0].as_subclass(Tensor)
        return x.to(self._like(x))

    def pre(self, feature: Node) -> float:
        """A feature's pre-activation, as its encoder computes it."""
        layer, unit, column = feature.numbers
        return float(self._pre[layer][column, unit])

    def activations(self, layer: int, column: int) -> Float[Tensor, " d_sae"]:
        return self._acts[layer][column]

    def stream_at_mlp(self, layer: int) -> str:
        """The residual stream that a block's MLP reads."""
        return f"L{layer}.{'resid_pre' if self.anatomy.parallel else 'resid_mid'}"

    # -- directions --------------------------------------------------------------------

    def root(self, feature: Node) -> Direction:
        """What a feature reads: ``vector · x + constant`` is its pre-activation."""
        return self._encoder(*feature.numbers, 1.0)

    def behind(self, node: Node, after: Direction) -> Direction | None:
        """What is read of the stream by which ``node`` contributes to ``after``; None of ends.

        ``vector · x + constant`` there is the node's contribution.
        """
        if node.kind == "feature":
            layer, unit, _ = node.numbers
            return self._behind_feature(layer, unit, after)
        if node.kind == "head":
            return self._behind_head(*node.numbers, after)
        return None

    def _behind_feature(self, layer: int, unit: int, after: Direction) -> Direction:
        dec = self.transcoders[layer].W_dec[unit].detach().to(after.vector)
        acts = self.activations(layer, after.column)
        gate = float(acts[unit] / self._pre[layer][after.column, unit]) if acts[unit] else 0.0
        return self._encoder(layer, unit, after.column, float(dec @ after.vector) * gate)

    def _encoder(self, layer: int, unit: int, column: int, factor: float) -> Direction:
        one, x = self.transcoders[layer], self.at(self.stream_at_mlp(layer))[column]
        part = one.parts[0]
        weight = part.enc[unit].detach().to(x) * factor
        norm = norm_before_mlp(self.anatomy, self.anatomy.blocks[layer])
        bare = Site.parse(one.spec.reads[0]).point == "ln2.normalized"
        vector, shift = self._before(norm, weight, x, bare=bare)
        attn = layer + (0 if self.anatomy.parallel else 1)
        return Direction(vector, shift + factor * float(part.b_enc[unit]), column, attn, layer)

    def _behind_head(self, layer: int, head: int, source: int, after: Direction) -> Direction:
        share = self.at(f"L{layer}.pattern")[head, after.column, source]
        read = self._read_by_heads(layer, after)[0][head] * share
        weights, group = (
            self.model.weights.layer(layer),
            self.anatomy.n_heads // self.anatomy.n_kv_heads,
        )
        w_v, b_v = (
            x.as_subclass(Tensor)[head // group].to(read) for x in (weights.W_V, weights.b_V)
        )
        norm = norm_before_attention(self.anatomy, self.anatomy.blocks[layer])
        vector, shift = self._before(norm, w_v @ read, self.at(f"L{layer}.resid_pre")[source])
        return Direction(vector, shift + float(b_v @ read), source, layer, layer)

    def _before(
        self, norm: nn.Module | None, weight: Tensor, x: Tensor, *, bare: bool = False
    ) -> tuple[Float[Tensor, " d_model"], float]:
        """``(v, c)`` with ``weight · norm(x) = v·x + c``, the norm's scale held."""
        if norm is None:
            return weight, 0.0
        scale, beta = normalise(norm, x)[1], None if bare else getattr(norm, "bias", None)
        shift = 0.0 if beta is None else float(beta.detach().to(weight) @ weight)
        return folded(norm, weight, self.anatomy.family.norm_offset, bare=bare) / scale, shift

    # -- terms -------------------------------------------------------------------------

    def terms(self, direction: Direction) -> list[Term]:
        """Every term of ``vector · x + constant``, with its value. Features that are not active are left out."""
        column, v = direction.column, direction.vector
        found: list[Term] = []
        for kind in ("embed", "pos_embed"):
            if kind not in self.anatomy.refused:
                found.append((Node(kind, column), float(self.at(kind)[column] @ v)))
        for layer in range(direction.attn):
            found += self._attention(layer, direction)
            if layer < direction.mlp:
                found += self._mlp(layer, direction)
        return [*found, (Node("bias"), direction.constant)]

    def _attention(self, layer: int, direction: Direction) -> Iterator[Term]:
        """Every head and source: ``α · (v_src · read)``; then what belongs to no head."""
        read, bias = self._read_by_heads(layer, direction)
        v = self.at(f"L{layer}.v").repeat_interleave(
            self.anatomy.n_heads // self.anatomy.n_kv_heads, 1
        )
        shares = self.at(f"L{layer}.pattern")[:, direction.column]
        parts = shares * torch.einsum("phe,he->hp", v, read)
        for head, row in enumerate(parts.tolist()):
            for source, value in enumerate(row):
                if float(shares[head, source]):
                    yield Node("head", direction.column, layer, head, source), value
        if bias:
            yield Node("attn_bias", direction.column, layer), bias

    def _read_by_heads(
        self, layer: int, direction: Direction
    ) -> tuple[Float[Tensor, "head d_head"], float]:
        """The direction as each head's ``z`` sees it, and what b_O and β add, norms behind frozen."""
        column = direction.column
        branch = heads_of(self.anatomy, layer, self.at(f"L{layer}.z")[None, column, None])
        back = direction.vector * branch.gain * branch.factor
        back = centred(back) if branch.centre else back
        back = back if branch.scale is None else back / branch.scale[0, 0]
        bias = 0.0 if branch.bias is None else float(branch.bias @ back)
        if branch.shift is not None:
            bias += branch.factor * float(branch.shift @ direction.vector)
        return torch.einsum("hed,d->he", branch.writer, back), bias

    def _mlp(self, layer: int, direction: Direction) -> Iterator[Term]:
        column, v = direction.column, direction.vector
        whole = float(self.at(f"L{layer}.mlp_out")[column] @ v)
        one: Any = self.transcoders.get(layer)
        if one is None:
            yield Node("mlp", column, layer), whole
            return
        acts = self.activations(layer, column)
        active = acts.nonzero()[:, 0]
        values = acts[active] * (one.W_dec.detach()[active].to(v) @ v)
        for unit, value in zip(active.tolist(), values.tolist(), strict=True):
            yield Node("feature", column, layer, unit), value
        bias, skip = float(one.b_dec.detach().to(v) @ v), 0.0
        yield Node("mlp_bias", column, layer), bias
        if one.W_skip is not None:
            x = self.at(one.spec.reads[0])[column]
            skip = float(one.W_skip.detach().to(v) @ x @ v)
            yield Node("skip", column, layer), skip
        yield Node("error", column, layer), whole - float(values.sum()) - bias - skip


def folded(
    norm: nn.Module | None, weight: Float[Tensor, "*any d_model"], offset: int, *, bare: bool
) -> Float[Tensor, "*any d_model"]:
    """A direction that reads a norm's output, as one of its input, but for the division by its scale.

    Args:
        bare: it reads ``normalized``, before γ.
    """
    if norm is None:
        return weight
    if not bare:
        gain = gamma(norm, offset)
        weight = weight * (gain if isinstance(gain, float) else gain.detach().to(weight))
    return centred(weight) if centres(norm) else weight
