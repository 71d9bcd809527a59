"""Weights that accelerate keeps elsewhere while they are not needed (``device_map``)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["device_of", "fetched", "offloaded", "state_of"]


def fetched(module: nn.Module, name: str) -> Tensor | None:
    """A weight of a module where the module computes, brought there if it lies on disk or the CPU."""
    value = getattr(module, name, None)
    if value is None or value.device.type != "meta":
        return value
    hook: Any = module._hf_hook
    return torch.as_tensor(hook.weights_map[name]).to(hook.execution_device)


def offloaded(hf: nn.Module) -> bool:
    """Whether some weights are not in memory."""
    return any(p.device.type == "meta" for p in hf.parameters())


def device_of(hf: Any) -> torch.device:
    """Where a model takes its tokens: the device of its embedding."""
    module = hf.get_input_embeddings()
    hook = getattr(module, "_hf_hook", None)
    if module.weight.device.type == "meta" and hook is not None:
        return torch.device(hook.execution_device)
    return torch.device(module.weight.device)


def state_of(hf: nn.Module) -> dict[str, Tensor]:
    """The model's ``state_dict``, offloaded weights included."""
    if not offloaded(hf):
        return hf.state_dict()
    from accelerate.utils.modeling import get_state_dict_offloaded_model

    return dict(get_state_dict_offloaded_model(hf))
