"""Planted cases: a model in which what a method looks for is there, because we put it there.

A small model has no super weight and no concept vector of its own. To know that a finder finds, plant one: the truth is
then known to the last coordinate, and the same model without it is the null. Both are edits of weights
(``with model.edited(edits): ...``); nothing is trained, and everything else of the model stays as it is. So a model can
be shown to *hold* what was planted, not to need it: without a planted super weight its loss falls, where a natural one's rises.

    super_weight     one neuron made loud at every text, and one weight that writes it into one channel
    concept_vector   one neuron that fires on some prompts only, and writes some tokens
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import ModelError, PromptError
from interp.models.model import Model
from interp.prompts.prompts import Prompts
from interp.weight_lenses.ends import unembedding

__all__ = ["Edits", "concept_vector", "super_weight"]

Edits = dict[str, Callable[[Tensor], Tensor]]


@torch.no_grad()
def super_weight(
    model: Model, inputs: Any, *, layer: int, row: int, column: int, spike: float = 200.0, weight: float = 1.0
) -> Edits:  # fmt: skip
    """Edits that plant a super weight at (layer, row, column), row = output channel, column = neuron.

    The neuron reads what the MLP's input is at the first token (BOS, where the model has one: so it fires at every
    text, as natural super weights do), as loudly as it takes for its largest |activation| over ``inputs`` to be
    ``spike``. All its other output weights become 0, and W[row, column] becomes ``weight``: the channel gets ``spike``
    times that.

    Raises:
        ModelError: no such layer, row or column; a nonlinearity that lets nothing through.
    """
    _check(model, layer, column, row=row)
    tokens, site = model.batch(inputs), f"L{layer}.mlp_post.N{column}"
    first = model.run(tokens, save=f"L{layer}.mlp.input@0", logits="none").cache[
        f"L{layer}.mlp.input@0"
    ]
    direction = first[0].flatten().float()
    direction = direction / direction.square().sum().clamp(min=1e-12)
    factor = spike
    for _ in range(
        4
    ):  # what is loudest elsewhere, and what a GELU gives, is not quite proportional
        edits = _reading(model, layer, column, direction, loud=factor)
        with model.edited(edits):
            post = model.run(tokens, save=site, logits="none").cache[site][tokens.mask]
        top = float(post.abs().max())
        if not top > 0:
            raise ModelError(f"{site} lets nothing through: choose another layer.")
        factor *= spike / top

    def write(w: Tensor) -> Tensor:
        w[column] = 0
        w[column, row] = weight
        return w

    return {**_reading(model, layer, column, direction, loud=factor), f"L{layer}.W_out": write}


@torch.no_grad()
def concept_vector(
    model: Model, own: Prompts, other: Any, tokens: Sequence[str | int], *, layer: int, column: int,
    activation: float = 20.0, strength: float = 20.0,
) -> Edits:  # fmt: skip
    """Edits that plant a concept vector: neuron ``column`` fires at the last token of ``own`` and not at ``other``'s.

    It reads what tells the MLP's input there from that at all other tokens of both sets (least squares: ``activation``
    before the nonlinearity on the one, 0 on the others), and writes the unembedding's directions of ``tokens``, scaled to raise their mean logit by
    ``strength`` if later layers and the norm's scale stayed as they are (both answer to it, so it is less).

    Args:
        own, other: prompts; what the concept is asked by, and what it is not.
        tokens: what the concept says.

    Raises:
        ModelError: no such layer or column.
        PromptError: no tokens, or both sets look alike at this layer.
    """
    _check(model, layer, column)
    if not tokens:
        raise PromptError("a concept vector needs tokens to write; got none.")
    reads = _separating(*_read(model, layer, own, other))
    ids = [model.to_single_token(t) if isinstance(t, str) else int(t) for t in tokens]
    up = unembedding(model, folded=True)[:, ids].mean(-1)
    scale = 1.0
    if "ln_final.scale" not in model.anatomy.refused:
        last = "ln_final.scale@-1"
        scale = float(model.run(own, save=last, logits="none").cache[last].mean())
    value = strength / activation * scale * up / up.square().sum()

    def write(w: Tensor) -> Tensor:
        w[column] = value.to(w)
        return w

    return {**_reading(model, layer, column, reads, loud=activation), f"L{layer}.W_out": write}


def _read(
    model: Model, layer: int, own: Prompts, other: Any
) -> tuple[Float[Tensor, "yes d"], Float[Tensor, "no d"]]:
    """The MLP's inputs at the last tokens of ``own``, and at all others of both."""
    site, yes, no = f"L{layer}.mlp.input", [], []
    for prompts, last in ((own, True), (other, False)):
        tokens = model.batch(prompts)
        x = model.run(tokens, save=site, logits="none").cache[site].float()
        chosen = torch.zeros_like(tokens.mask)
        if last:
            chosen[torch.arange(len(tokens), device=model.device), tokens.column(-1)] = True
            yes.append(x[chosen])
        no.append(x[tokens.mask & ~chosen])
    return torch.cat(yes), torch.cat(no)


def _separating(yes: Float[Tensor, "yes d"], no: Float[Tensor, "no d"]) -> Float[Tensor, " d"]:
    """w with w · x about 1 on average over ``yes`` and about 0 over ``no``: ridge regression, both sides alike."""
    x = torch.cat([yes / len(yes) ** 0.5, no / len(no) ** 0.5]).double()
    y = torch.cat([yes.new_ones(len(yes)) / len(yes) ** 0.5, yes.new_zeros(len(no))]).double()
    gram = x.T @ x
    ridge = (
        1e-3 * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    )
    w = torch.linalg.solve(gram + ridge, x.T @ y).float()
    says = (yes @ w).mean()
    if not float(says) > max(0.3, 2 * float((no @ w).max())):
        raise PromptError(
            "own and other prompts look alike here: no direction is read by the last tokens of the ones alone. Give "
            "prompts that differ at their last token's surroundings, or a later layer."
        )
    return w / says


def _reading(
    model: Model, layer: int, column: int, direction: Float[Tensor, " d"], *, loud: float
) -> Edits:
    """A neuron whose activation is about ``loud`` where ``direction`` · x is 1, and about 0 where it is 0."""
    block = model.anatomy.blocks[layer]
    gate = 5.0  # far enough for any nonlinearity to be open
    if block.gate is None:
        edits: Edits = {f"L{layer}.W_in": _column(column, loud * direction)}
    else:
        edits = {
            f"L{layer}.W_gate": _column(column, gate * direction),
            f"L{layer}.W_in": _column(column, loud / gate * direction),
        }
    if getattr(block.up, "bias", None) is not None:
        edits[f"L{layer}.b_in"] = _column(column, torch.zeros(()))
    if block.gate is not None and getattr(block.gate, "bias", None) is not None:
        edits[f"L{layer}.b_gate"] = _column(column, torch.zeros(()))
    return edits


def _column(column: int, value: Tensor) -> Callable[[Tensor], Tensor]:
    def apply(w: Tensor) -> Tensor:
        w[..., column] = value.to(w)
        return w

    return apply


def _check(model: Model, layer: int, column: int, *, row: int = 0) -> None:
    d_mlp = model.anatomy.d_mlp
    if d_mlp is None:
        raise ModelError(f"{model.name!r} has no MLPs of numbered neurons to plant in.")
    if not (0 <= layer < model.n_layers and 0 <= column < d_mlp and 0 <= row < model.d_model):
        raise ModelError(
            f"layer {layer}, row {row}, column {column}; expected a layer below {model.n_layers}, a row below "
            f"{model.d_model} and a column below {d_mlp}."
        )
