"""A model's weights in TransformerLens's layouts, whatever the family.

``x @ W + b`` everywhere, heads on an axis of their own:

>>> weights = model.weights
>>> weights.W_Q.shape                  # [layer, head, d_model, d_head]: a stacked copy
torch.Size([12, 12, 768, 64])
>>> weights.layer(3).W_Q.shape         # [head, d_model, d_head]: a view
torch.Size([12, 768, 64])
>>> weights.folded().layer(3).W_Q      # γ of the norm before attention folded in

*Memory.* ``W_E``, ``W_pos``, ``W_U`` and all of ``layer(i)`` are views of the model's
parameters. ``weights.W_Q`` stacks the layers, so it is a copy, made anew at each
access and kept nowhere: hold it in a variable, or go through ``layer(i)``.

*Read-only.* Every tensor is detached and raises ``ModelError`` when written to (see
:mod:`interp.models.readonly`); ``.clone()`` gives one that can be changed.

*Raw.* Nothing is folded, centred or scaled. Where the forward pass does more, the
weight does not show it, as in TransformerLens's ``TransformerBridge``: Gemma
multiplies ``W_E``'s rows by √d_model, Granite by ``embedding_multiplier``, BLOOM
normalises them, Gemma-2 soft-caps and Granite divides what ``W_U`` gives.

Where families differ:

- *Grouped-query attention*: ``W_K W_V b_K b_V`` have ``n_kv_heads`` heads, as in the
  bridge; query head ``h`` reads head ``h // (n_heads // n_kv_heads)``.
- *Gated MLPs*: ``post = act(x @ W_gate + b_gate) * (x @ W_in + b_in)``.
- *Missing biases* are zeros of the right shape (the bridge raises for some).
- *OPT*: ``W_pos[0]`` belongs to position 0: the two rows that OPT never uses are left
  out (the bridge keeps them). Where OPT projects in and out of the residual stream
  (350m), ``W_E`` and ``W_U`` include the projection, and are copies.
- What a family lacks raises ``ModelError`` with the reason: ``W_pos`` with rotary
  positions, ``W_in`` of a mixture of experts, ``W_gate`` of an ungated MLP.
"""

# ruff: noqa: N802  (the names are the field's)

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import ModelError
from interp.models.affine import Affine, affine
from interp.models.folding import fold
from interp.models.layer_weights import LayerWeights, absent
from interp.models.readonly import read_only
from interp.taps.anatomy import Anatomy
from interp.taps.families import FAMILIES
from interp.taps.offload import offloaded

__all__ = ["LayerWeights", "Weights"]


@dataclass(frozen=True, repr=False)
class Weights:
    """All weights of a model: ``Weights(anatomy)``, or ``model.weights``."""

    anatomy: Anatomy
    is_folded: bool = False

    def __post_init__(self) -> None:
        if offloaded(self.anatomy.hf):
            raise ModelError(
                f"some weights of this {self.anatomy.name} are offloaded by its device_map, so there is "
                "nothing to view: load it onto devices that hold all of it."
            )

    def __repr__(self) -> str:
        kind = ", folded" if self.is_folded else ""
        return f"Weights({self.anatomy.name}, {self.anatomy.n_layers} layers{kind})"

    def layer(self, index: int) -> LayerWeights:
        """One block's weights, without stacking.

        Raises:
            ModelError: there is no such layer.
        """
        if not 0 <= index < self.anatomy.n_layers:
            raise ModelError(
                f"layer {index} of a model with {self.anatomy.n_layers} layers: "
                f"expected 0 to {self.anatomy.n_layers - 1}."
            )
        return LayerWeights(self.anatomy, index, self.is_folded)

    def folded(self) -> Weights:
        """The same names, with each norm's γ and β folded into the maps that read it.

        ``W_Q W_K W_V``, ``W_in W_gate`` and ``W_U``, with their biases, become maps of
        ``ln1.normalized``, ``ln2.normalized`` and ``ln_final.normalized``: copies, in
        float32 or better, computed at each access. Nothing is centred, the model stays
        as it is, and all other weights are the same views as before.

        In families that normalise what a branch *writes* (OLMo-2, OPT-350m) no norm
        stands before attention and MLP, so those weights stay as they are. Norms after
        a branch (Gemma-2) and on q and k (Qwen-3) are never folded.

        Raises:
            ModelError: the family is not known, so neither is how its norms multiply.
        """
        if not self.anatomy.known:
            raise ModelError(
                f"cannot fold the norms of a {self.anatomy.name!r} model: this family is not "
                "known, so neither is whether its norms multiply by weight or by 1 + weight. "
                f"Known families: {', '.join(sorted(FAMILIES))}."
            )
        return replace(self, is_folded=True)

    # -- into and out of the residual stream -----------------------------------------------

    @property
    def W_E(self) -> Float[Tensor, "d_vocab d_model"]:
        table: Any = self.anatomy.hf.get_input_embeddings()
        project = getattr(self.anatomy.decoder, "project_in", None)
        rows = table.weight.detach()
        return read_only(rows if project is None else rows @ affine(project).matrix)

    @property
    def W_pos(self) -> Float[Tensor, "n_ctx d_model"]:
        table: Any = self.anatomy.pos_embed
        if table is None:
            reason = self.anatomy.refused.get("pos_embed", "no such module was found")
            raise absent("W_pos", self.anatomy, reason)
        return read_only(table.weight[getattr(table, "offset", 0) :])

    @property
    def W_U(self) -> Float[Tensor, "d_model d_vocab"]:
        return read_only(self._unembed().matrix)

    @property
    def b_U(self) -> Float[Tensor, " d_vocab"]:
        return read_only(self._unembed().bias)

    def _unembed(self) -> Affine:
        head = affine(self.anatomy.hf.get_output_embeddings())
        project = getattr(self.anatomy.decoder, "project_out", None)
        if project is not None:
            head = Affine(affine(project).matrix @ head.matrix, head.bias)
        if not self.is_folded:
            return head
        return fold(self.anatomy.ln_final, head, offset=self.anatomy.family.norm_offset)

    # -- stacked over layers: copies -------------------------------------------------------

    @property
    def W_Q(self) -> Float[Tensor, "layer head d_model d_head"]:
        return self._stack("W_Q")

    @property
    def W_K(self) -> Float[Tensor, "layer kv_head d_model d_head"]:
        return self._stack("W_K")

    @property
    def W_V(self) -> Float[Tensor, "layer kv_head d_model d_head"]:
        return self._stack("W_V")

    @property
    def b_Q(self) -> Float[Tensor, "layer head d_head"]:
        return self._stack("b_Q")

    @property
    def b_K(self) -> Float[Tensor, "layer kv_head d_head"]:
        return self._stack("b_K")

    @property
    def b_V(self) -> Float[Tensor, "layer kv_head d_head"]:
        return self._stack("b_V")

    @property
    def W_O(self) -> Float[Tensor, "layer head d_head d_model"]:
        return self._stack("W_O")

    @property
    def b_O(self) -> Float[Tensor, "layer d_model"]:
        return self._stack("b_O")

    @property
    def W_in(self) -> Float[Tensor, "layer d_model d_mlp"]:
        return self._stack("W_in")

    @property
    def b_in(self) -> Float[Tensor, "layer d_mlp"]:
        return self._stack("b_in")

    @property
    def W_gate(self) -> Float[Tensor, "layer d_model d_mlp"]:
        return self._stack("W_gate")

    @property
    def b_gate(self) -> Float[Tensor, "layer d_mlp"]:
        return self._stack("b_gate")

    @property
    def W_out(self) -> Float[Tensor, "layer d_mlp d_model"]:
        return self._stack("W_out")

    @property
    def b_out(self) -> Float[Tensor, "layer d_model"]:
        return self._stack("b_out")

    def _stack(self, name: str) -> Float[Tensor, "layer ..."]:
        layers = (self.layer(index) for index in range(self.anatomy.n_layers))
        return read_only(torch.stack([getattr(layer, name) for layer in layers]))
