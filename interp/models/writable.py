"""Weights by name, as memory that can be written to.

A name is TransformerLens's, with a layer and perhaps a head before it (``"L2.W_out"``,
``"L1.H3.W_O"``, ``"L*.b_in"``, ``"W_U"``; also ``"blocks.2.mlp.W_out"``), or the Hugging Face
parameter's own (``"model.layers.2.mlp.down_proj.weight"``). Both lead to views of the model's
parameters, through fused and transposed matrices, so that writing a view writes the model.

Not everything that can be read can be written: a bias that a family does not have reads as
zeros, and OPT-350m's ``W_E`` is a product of two matrices. Such names are refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.errors import ModelError, nearest
from interp.models.affine import affine
from interp.models.weights import Weights
from interp.sites import Index
from interp.taps.anatomy import Anatomy

__all__ = ["Place", "embedding_names", "places"]

_HEADED: Final = ("W_Q", "W_K", "W_V", "W_O", "b_Q", "b_K", "b_V")
_LAYERED: Final = (*_HEADED, "b_O", "W_in", "b_in", "W_gate", "b_gate", "W_out", "b_out")
_OUTSIDE: Final = ("W_E", "W_pos", "W_U", "b_U")
#: TransformerLens's modules, and what each holds.
_MODULES: Final = {
    "attn": (*_HEADED, "b_O"), "mlp": ("W_in", "b_in", "W_gate", "b_gate", "W_out", "b_out"),
    "embed": ("W_E",), "pos_embed": ("W_pos",), "unembed": ("W_U", "b_U"),
}  # fmt: skip
_NAME: Final = re.compile(
    r"(?:(?:blocks\.(?P<block>\d+)\.)?(?P<module>attn|mlp|embed|pos_embed|unembed)\."
    r"|L(?P<layer>[^.]+)\.)?"
    r"(?:H(?P<head>[^.]+)\.)?(?P<weight>[Wb]_\w+)"
)


@dataclass(frozen=True, eq=False)
class Place:
    """One named weight of a model.

    Attributes:
        name: its name, with one layer and at most one head.
        views: the parameter's memory in the weight's layout: one view, or one for each head
            where no single view holds them all (Falcon's grouped queries).
    """

    name: str
    views: tuple[Float[Tensor, "..."], ...]

    @property
    def shape(self) -> torch.Size:
        first = self.views[0].shape
        return first if len(self.views) == 1 else torch.Size([len(self.views), *first])

    def read(self) -> Float[Tensor, "..."]:
        """A copy of the weight."""
        return self.views[0].clone() if len(self.views) == 1 else torch.stack(self.views)

    def write(self, value: Float[Tensor, "..."]) -> None:
        """Write through to the parameter, in its own dtype and on its own device."""
        parts = [value] if len(self.views) == 1 else list(value)
        with torch.inference_mode(False), torch.no_grad():  # so that versions count the write
            for view, part in zip(self.views, parts, strict=True):
                view.copy_(part.detach())


def places(anatomy: Anatomy, name: str) -> list[Place]:
    """What a name means: one place, or several where its layer or head is a pattern.

    Raises:
        ModelError: there is no such weight, or it is not memory of the model's own.
        SiteError: a layer or head is out of range.
    """
    parameters = dict(anatomy.hf.named_parameters(remove_duplicate=False))
    if name in parameters:
        return [Place(name, (parameters[name].detach(),))]
    match = _NAME.fullmatch(name)
    weight = match["weight"] if match else ""
    layer = (match["block"] or match["layer"]) if match else None
    known = _LAYERED if layer is not None else _OUTSIDE
    held = _MODULES.get(match["module"] or "", known) if match else ()
    if (
        match is None
        or weight not in known
        or weight not in held
        or (match["head"] and weight not in _HEADED)
    ):
        raise _unknown(anatomy, name)
    if layer is None:
        return [Place(name, _own(anatomy, name, getattr(Weights(anatomy), weight)))]
    found = []
    for index in Index(layer).expand(anatomy.n_layers, "layer"):
        whole = _views(anatomy, index, weight)
        if match["head"] is None:
            found.append(Place(f"L{index}.{weight}", whole))
            continue
        by_head = whole if len(whole) > 1 else tuple(whole[0])
        found += [
            Place(f"L{index}.H{head}.{weight}", (by_head[head],))
            for head in Index(match["head"]).expand(len(by_head), "head")
        ]
    return found


def embedding_names(anatomy: Anatomy) -> tuple[frozenset[str], frozenset[str]]:
    """The names of the token embedding and those of the unembedding, both as weight and parameter."""
    reads, writes = anatomy.hf.get_input_embeddings(), anatomy.hf.get_output_embeddings()
    return (
        frozenset(("W_E", "embed.W_E", *_parameter_of(anatomy, reads))),
        frozenset(("W_U", "unembed.W_U", *_parameter_of(anatomy, writes))),
    )


def _parameter_of(anatomy: Anatomy, module: Any) -> Iterator[str]:
    return (f"{name}.weight" for name, one in anatomy.hf.named_modules() if one is module)


def _views(anatomy: Anatomy, layer: int, weight: str) -> tuple[Tensor, ...]:
    name = f"L{layer}.{weight}"
    whole = getattr(Weights(anatomy).layer(layer), weight)
    grouped = anatomy.family.layout == "heads" and anatomy.n_kv_heads > 1
    if weight not in ("W_Q", "b_Q") or not grouped:
        return _own(anatomy, name, whole)
    # Queries stand in groups, each before its key and value: a view for each head.
    fused = affine(anatomy.blocks[layer].qkv[0])
    columns = fused.matrix if weight == "W_Q" else fused.bias
    groups = columns.unflatten(-1, (anatomy.n_kv_heads, -1, anatomy.d_head))
    per = anatomy.n_heads // anatomy.n_kv_heads
    heads = [groups[..., head // per, head % per, :] for head in range(anatomy.n_heads)]
    return tuple(view for head in heads for view in _own(anatomy, name, head))


def _own(anatomy: Anatomy, name: str, view: Tensor) -> tuple[Tensor]:
    """The view as an ordinary tensor, if its memory is that of a parameter."""
    with torch._C.DisableTorchFunctionSubclass():
        plain = Tensor._make_subclass(Tensor, view)
    if not any(_within(plain, p) for p in anatomy.hf.parameters()):
        raise ModelError(
            f"{name!r} cannot be written in a model of type {anatomy.name!r}: what is read under "
            "that name is not memory of a parameter (a bias that this family does not have, or a "
            "product of two matrices). Name the parameter itself, as in "
            "model.hf.named_parameters()."
        )
    return (plain,)


def _within(view: Tensor, parameter: nn.Parameter) -> bool:
    same = view.untyped_storage().data_ptr() == parameter.untyped_storage().data_ptr()
    start = parameter.data_ptr()
    inside = start <= view.data_ptr() < start + max(1, parameter.numel()) * parameter.element_size()
    return same and inside


def _unknown(anatomy: Anatomy, name: str) -> ModelError:
    names = [*(f"L0.{weight}" for weight in _LAYERED), *_OUTSIDE]
    names += [f"L0.H0.{weight}" for weight in _HEADED]
    names += [parameter for parameter, _ in anatomy.hf.named_parameters()]
    return ModelError(
        f"no weight is called {name!r}; nearest: {nearest(name, names)}. Weights inside a block "
        "have its layer before them ('L2.W_out'), those of a head the head ('L1.H3.W_O')."
    )
