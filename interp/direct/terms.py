"""Terms of the residual stream: what was written into it, whole or by the units that wrote it.

A term can be *read along* directions of the stream without being laid out: a head's ``z`` meets
``W_O u`` instead of its ``result`` meeting ``u``, and a neuron's activation meets one number.

Families with a norm behind a branch (Gemma-2, OLMo-2) add ``γ · y / s(y) + β`` where ``y`` is what
the branch wrote. With the scale ``s`` held at its value in this run, that is linear in ``y``, so
each head and neuron has a part, and the parts sum to what was added.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.taps.norms import centres, gamma, normalise

__all__ = ["Branch", "Rest", "Term", "Whole", "centred", "frozen"]

Directions = Float[Tensor, "k row d_model"]


@dataclass(frozen=True, eq=False)
class Whole:
    """A tensor of the run that is one part."""

    name: str
    value: Float[Tensor, "row pos d_model"]

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name,)

    def along(self, directions: Directions) -> Float[Tensor, "1 k row pos"]:
        return torch.einsum("rpd,krd->krp", self.value, directions)[None]

    def tensors(self) -> Float[Tensor, "1 row pos d_model"]:
        return self.value[None]


@dataclass(frozen=True, eq=False)
class Branch:
    """Attention by head, or an MLP by neuron: ``factor · (γ · (x W + b) / scale + β)``.

    Attributes:
        unit_names: one for each unit.
        bias_name: the name of the part that belongs to no unit (``b`` and ``β``).
        x: what each unit hands to its rows of the output matrix.
        writer: those rows.
        bias: ``b``; None if there is none.
        gain, shift, centre, scale: of the norm behind the branch; None and False without one.
        factor: the family's residual multiplier.
    """

    unit_names: tuple[str, ...]
    bias_name: str
    x: Float[Tensor, "row pos unit d_unit"]
    writer: Float[Tensor, "unit d_unit d_model"]
    bias: Float[Tensor, " d_model"] | None
    factor: float
    gain: Float[Tensor, " d_model"] | float = 1.0
    shift: Float[Tensor, " d_model"] | None = None
    centre: bool = False
    scale: Float[Tensor, "row pos 1"] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        return self.unit_names + ((self.bias_name,) if self._has_bias else ())

    @property
    def _has_bias(self) -> bool:
        return self.bias is not None or self.shift is not None

    def along(self, directions: Directions) -> Float[Tensor, "part k row pos"]:
        back = self._back(directions)
        (k, _, _), (_, pos, _, d_unit) = directions.shape, self.x.shape
        if pos * (d_unit + k) < k * d_unit:  # many directions, few places: lay the units out once
            written = torch.einsum("rpue,ued->urpd", self.x, self.writer)
            parts = torch.einsum("urpd,krd->ukrp", written, back)
        else:
            read = torch.einsum("ued,krd->krue", self.writer, back)
            parts = torch.einsum("rpue,krue->ukrp", self.x, read)
        parts = parts if self.scale is None else parts / self.scale[..., 0]
        if not self._has_bias:
            return parts
        return torch.cat([parts, self._bias_along(directions, back).expand_as(parts[:1])])

    def _bias_along(self, directions: Directions, back: Directions) -> Float[Tensor, "1 k row _"]:
        out = directions.new_zeros(*directions.shape[:2], 1)
        if self.bias is not None:
            through = (back @ self.bias)[..., None]
            out = out + (through if self.scale is None else through / self.scale[..., 0])
        if self.shift is not None:
            out = out + self.factor * (directions @ self.shift)[..., None]
        return out[None]

    def _back(self, directions: Directions) -> Directions:
        """The directions as the branch's output matrix sees them, but for the norm's scale."""
        back = directions * self.gain * self.factor
        return centred(back) if self.centre else back

    def tensors(self) -> Float[Tensor, "part row pos d_model"]:
        parts = self._forward(torch.einsum("rpue,ued->urpd", self.x, self.writer))
        if not self._has_bias:
            return parts
        rest = torch.zeros_like(parts[:1])
        if self.bias is not None:
            rest = rest + self._forward(self.bias.expand_as(rest))
        if self.shift is not None:
            rest = rest + self.factor * self.shift
        return torch.cat([parts, rest])

    def _forward(self, written: Float[Tensor, "part row pos d_model"]) -> Tensor:
        out = centred(written) if self.centre else written
        if not (isinstance(self.gain, float) and self.gain * self.factor == 1.0):
            out = out * self.gain * self.factor
        return out if self.scale is None else out / self.scale

    def only(self, units: Sequence[int]) -> Branch:
        """Some of the units, and nothing that belongs to no unit."""
        kept = list(units)
        return replace(
            self, unit_names=tuple(self.unit_names[i] for i in kept), x=self.x[:, :, kept],
            writer=self.writer[kept], bias=None, shift=None,
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Rest:
    """Some units of a branch, and the rest of what it wrote as one more part."""

    name: str
    whole: Whole
    units: Branch

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.units.names, self.name)

    def along(self, directions: Directions) -> Float[Tensor, "part k row pos"]:
        units = self.units.along(directions)
        return torch.cat([units, self.whole.along(directions) - units.sum(0, keepdim=True)])

    def tensors(self) -> Float[Tensor, "part row pos d_model"]:
        units = self.units.tensors()
        return torch.cat([units, self.whole.tensors() - units.sum(0, keepdim=True)])


#: What was added to the stream, in one part or several: ``names``; ``along(directions)``, each
#: part's product with every direction of its row; ``tensors()``, the parts themselves.
Term = Whole | Branch | Rest


def frozen(branch: Branch, norm: nn.Module | None, *, offset: int) -> Branch:
    """The branch with the norm behind it, whose scale is held at what this run gave it."""
    if norm is None:
        return branch
    written = branch.x.flatten(2) @ branch.writer.flatten(0, 1)
    written = written if branch.bias is None else written + branch.bias
    gain, shift = gamma(norm, offset), getattr(norm, "bias", None)
    return replace(
        branch,
        gain=gain if isinstance(gain, float) else gain.detach().to(written.dtype),
        shift=None if shift is None else shift.detach().to(written.dtype),
        centre=centres(norm),
        scale=normalise(norm, written)[1],
    )


def centred(x: Float[Tensor, "*any d_model"]) -> Float[Tensor, "*any d_model"]:
    """Without the mean over the stream's dimensions, which LayerNorm takes out."""
    return x - x.mean(-1, keepdim=True)
