"""A mixture of experts: MLPs of which a router picks some for each position.

``p = softmax(x @ W_router)``; of the k largest, renormalised to sum to one, out = Σ p_e · expert_e(x)
(Shazeer et al. 2017, arXiv:1701.06538; no noise, and no auxiliary loss here). All experts are computed:
toys are small, and then each expert's output can be read and each can be switched off exactly.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from interp.models.hooked.config import HookedConfig
from interp.models.hooked.mlp import HookedMLP

__all__ = ["HookedExperts"]


class HookedExperts(nn.Module):
    """Experts and their router.

    Attributes:
        off: experts that are switched off: the router chooses among the others as if they were
            not there. For the length of a ``with`` block, see :mod:`interp.toys.experts`.
    """

    def __init__(self, config: HookedConfig) -> None:
        super().__init__()
        assert config.num_experts is not None
        self.chosen = config.experts_per_token
        self.router = nn.Linear(config.hidden_size, config.num_experts, bias=False)
        self.experts = nn.ModuleList(HookedMLP(config) for _ in range(config.num_experts))
        self.off: tuple[int, ...] = ()

    def route(
        self, hidden_states: Float[Tensor, "batch pos d_model"]
    ) -> tuple[Float[Tensor, "batch pos expert"], Int[Tensor, "batch pos chosen"]]:
        """The weight of each expert, 0 for those not chosen, and the chosen ones, the largest first."""
        scores = self.router(hidden_states)
        if self.off:
            hidden = torch.zeros(scores.shape[-1], dtype=torch.bool, device=scores.device)
            hidden[list(self.off)] = True
            scores = scores.masked_fill(hidden, -torch.inf)
        best, chosen = scores.softmax(-1).topk(self.chosen, dim=-1)
        shares = best / best.sum(-1, keepdim=True)
        return torch.zeros_like(scores).scatter(-1, chosen, shares), chosen

    def forward(
        self, hidden_states: Float[Tensor, "batch pos d_model"]
    ) -> Float[Tensor, "batch pos d_model"]:
        """What the experts add to the residual stream."""
        weights, _ = self.route(hidden_states)
        written = torch.stack([expert(hidden_states) for expert in self.experts], dim=-2)
        return torch.einsum("bpe,bped->bpd", weights, written)
