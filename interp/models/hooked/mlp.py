"""An MLP of a TransformerLens model, gated or not."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from interp.models.hooked.config import HookedConfig
from interp.models.hooked.parts import activation

__all__ = ["HookedMLP"]


class HookedMLP(nn.Module):
    """``act(x @ W_in + b_in) @ W_out + b_out``; gated: ``act(x @ W_gate) * (x @ W_in)`` before W_out."""

    def __init__(self, config: HookedConfig) -> None:
        super().__init__()
        assert config.intermediate_size is not None
        d_model, d_mlp = config.hidden_size, config.intermediate_size
        self.up = nn.Linear(d_model, d_mlp, bias=not config.gated_mlp)
        self.gate = nn.Linear(d_model, d_mlp, bias=False) if config.gated_mlp else None
        self.act = activation(config)
        self.down = nn.Linear(d_mlp, d_model)

    def forward(
        self, hidden_states: Float[Tensor, "batch pos d_model"]
    ) -> Float[Tensor, "batch pos d_model"]:
        """What the MLP adds to the residual stream."""
        if self.gate is None:
            return self.down(self.act(self.up(hidden_states)))
        return self.down(self.act(self.gate(hidden_states)) * self.up(hidden_states))
