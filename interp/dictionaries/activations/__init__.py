"""The non-linearities of dictionaries, one file each."""

from interp.dictionaries.activations.activation import Activation
from interp.dictionaries.activations.batchtopk import BatchTopK
from interp.dictionaries.activations.gated import Gated
from interp.dictionaries.activations.jumprelu import JumpReLU
from interp.dictionaries.activations.relu import ReLU
from interp.dictionaries.activations.topk import TopK

__all__ = ["Activation", "BatchTopK", "Gated", "JumpReLU", "ReLU", "TopK", "activation"]

_BY_NAME: dict[str, type[Activation]] = {
    one.name: one for one in (ReLU, Gated, JumpReLU, TopK, BatchTopK)
}


def activation(name: str, d_sae: int, **options: int | float) -> Activation:
    """An activation by its name, with its own parameters at their start."""
    return _BY_NAME[name](d_sae, **options)
