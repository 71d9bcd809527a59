"""Norms and activations as TransformerLens computes them, and rotary positions."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional
from transformers.activations import FastGELUActivation, NewGELUActivation, ReLUSquaredActivation

from interp.models.hooked.config import HookedConfig

__all__ = ["ACTIVATIONS", "RMSNorm", "Rotary", "activation", "norm", "rotated"]

_FULL: Final = (torch.float32, torch.float64)


class RMSNorm(nn.Module):
    """``x / √(mean x² + ε)``, times a weight if there is one; computed in float32 or better."""

    def __init__(self, size: int, eps: float, *, weighted: bool = True) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(size)) if weighted else None

    def forward(self, x: Float[Tensor, "*any size"]) -> Float[Tensor, "*any size"]:
        wide = x if x.dtype in _FULL else x.float()
        out = (wide / (wide.pow(2).mean(-1, keepdim=True) + self.eps).sqrt()).to(x.dtype)
        return out if self.weight is None else out * self.weight


def norm(kind: str | None, size: int, eps: float) -> nn.Module | None:
    """A norm by TransformerLens's name of its kind; None for no norm."""
    if kind is None:
        return None
    weighted = not kind.endswith("Pre")
    if kind.startswith("RMS"):
        return RMSNorm(size, eps, weighted=weighted)
    return nn.LayerNorm(size, eps, elementwise_affine=weighted)


class SoLU(nn.Module):
    """``x · softmax(x)`` over neurons (Elhage et al. 2022, "Softmax Linear Units")."""

    def forward(self, x: Float[Tensor, "*any d_mlp"]) -> Float[Tensor, "*any d_mlp"]:
        return x * functional.softmax(x, dim=-1)


#: Activations by TransformerLens's names. ``solu_ln`` is ``solu`` and a LayerNorm over neurons.
ACTIVATIONS: Final[dict[str, Callable[[], nn.Module]]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "gelu_new": NewGELUActivation,
    "gelu_fast": FastGELUActivation,
    "gelu_pytorch_tanh": partial(nn.GELU, approximate="tanh"),
    "silu": nn.SiLU,
    "relu2": ReLUSquaredActivation,
    "solu": SoLU,
    "solu_ln": SoLU,
}


def activation(config: HookedConfig) -> nn.Module:
    """What stands between an MLP's two maps."""
    made = ACTIVATIONS[config.hidden_act]()
    if not config.hidden_act.endswith("_ln"):
        return made
    assert config.intermediate_size is not None  # such a block has an MLP
    after = norm("LN" if config.normalization == "LN" else "LNPre",
                 config.intermediate_size, config.norm_eps)  # fmt: skip
    assert after is not None
    return nn.Sequential(made, after)


class Rotary(nn.Module):
    """Angles of rotary positions (Su et al. 2021, arXiv:2104.09864)."""

    def __init__(self, config: HookedConfig) -> None:
        super().__init__()
        assert config.rotary_dim is not None
        local = config.rotary_base_local
        self.bases = {
            "full_attention": config.rotary_base,
            "sliding_attention": config.rotary_base if local is None else local,
        }
        self.factors = {"full_attention": config.rotary_factor, "sliding_attention": 1.0}
        self.dim = config.rotary_dim
        self.adjacent = config.rotary_adjacent_pairs
        self.precision = torch.float64 if config.rotary_float64 else torch.float32

    def forward(
        self, x: Tensor, position_ids: Int[Tensor, "batch pos"], layer_type: str
    ) -> tuple[Float[Tensor, "batch pos rotary"], Float[Tensor, "batch pos rotary"]]:
        """Cosines and sines in the dtype of ``x``, each angle twice: for both entries that it turns."""
        half = torch.arange(self.dim // 2, dtype=self.precision, device=position_ids.device)
        lengths = self.bases[layer_type] ** (half / (self.dim / 2)) * self.factors[layer_type]
        lengths = lengths.repeat_interleave(2) if self.adjacent else torch.cat([lengths, lengths])
        angles = position_ids[..., None].to(self.precision) / lengths
        return angles.cos().to(x.dtype), angles.sin().to(x.dtype)


def rotated(
    x: Float[Tensor, "batch head pos d_head"],
    cos: Float[Tensor, "#batch pos rotary"],
    sin: Float[Tensor, "#batch pos rotary"],
    *,
    adjacent: bool,
) -> Float[Tensor, "batch head pos d_head"]:
    """The first entries of each head rotated, the others as they are."""
    turning, still = x[..., : cos.shape[-1]], x[..., cos.shape[-1] :]
    if adjacent:
        pairs = turning.unflatten(-1, (-1, 2))
        turned = torch.stack([-pairs[..., 1], pairs[..., 0]], -1).flatten(-2)
    else:
        first, second = turning.chunk(2, -1)
        turned = torch.cat([-second, first], -1)
    return torch.cat([turning * cos[:, None] + turned * sin[:, None], still], -1)
