"""``interp.decompose``: the residual stream at a point, as a stack of the parts that sum to it.

Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits". TransformerLens has the
same stacks as ``ActivationCache.decompose_resid`` and ``stack_head_results``.

Where a family puts a norm behind a branch (Gemma-2, OLMo-2), a head's or neuron's part is what the
norm makes of it with the norm's scale held at its value in this run; the scale depends on all of
the branch, so a part says what was written, not what the run would be without it.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from interp.direct.proof import check
from interp.direct.stream import By, Outline, outline
from interp.errors import BudgetError
from interp.models.model import Inputs, Model
from interp.prompts.positions import resolve_columns
from interp.prompts.prompts import Prompts
from interp.runs.cache import Decomposition
from interp.runs.execute import execute
from interp.runs.memory import as_text, available

__all__ = ["decompose"]


@torch.no_grad()
def decompose(
    model: Model,
    inputs: Inputs,
    *,
    at: str = "final",
    by: By = "component",
    position: int | str | None = None,
) -> Decomposition:
    """The residual stream at a point as named parts which sum to it.

    >>> parts = interp.decompose(model, "The capital of France is", by="head")  # doctest: +SKIP
    >>> parts["L2.H3.result"].shape
    torch.Size([1, 6, 192])

    Args:
        inputs: whatever ``model.run`` takes.
        at: ``"final"`` (behind the last block), or a layer's ``resid_pre``, ``resid_mid`` or
            ``resid_post``.
        by: ``"component"``: ``embed`` (and ``pos_embed``), then each layer's ``attn_out`` and
            ``mlp_out``, after a norm on the branch and the residual multiplier where the family
            has them. ``"head"``: each head's ``L0.H3.result`` in the place of ``attn_out``, with
            ``L0.attn_bias`` for what belongs to no head (``b_O``, and the β of a norm behind
            it). ``"neuron"``: each ``L0.mlp_post.N7`` in the place of ``mlp_out``, with
            ``L0.mlp_bias``; parts that cannot exist in a model (no bias) are left out.
        position: one position, by number or name; None: all columns.

    Returns:
        Parts in float32 or better, in the unit of the stream: [part, batch, pos, d_model], with
        one ``pos`` where a position was named. At padding they mean nothing.

    Raises:
        SiteError: the point, or a part, does not exist in this model.
        ModelError: the stream of this model is not the sum of these parts.
        BudgetError: all parts together do not fit in memory.
    """
    plan, batch = outline(model.anatomy, at, by), model.batch(inputs)
    named = inputs.positions if isinstance(inputs, Prompts) else {}
    columns = None if position is None else resolve_columns(position, batch, named)
    width = batch.ids.shape[1] if columns is None else 1
    _check_room(model, plan, len(batch) * width)
    run = execute(model.anatomy, batch, save=plan.sites(), logits="none")

    def pick(x: Tensor) -> Tensor:
        if columns is None:
            return x
        return x[torch.arange(len(x), device=x.device), columns.to(x.device)][:, None]

    terms = plan.terms(run.cache, pick)
    names = tuple(name for term in terms for name in term.names)
    parts = torch.cat([term.tensors() for term in terms])
    found = Decomposition(names, parts)
    off = _deviation(found, pick(run.cache[plan.at]))[pick(batch.mask)]
    check(model.anatomy, batch, off, float(parts.abs().max()), str(plan.at))
    return found


def _deviation(found: Decomposition, stream: Float[Tensor, "batch pos d_model"]) -> Tensor:
    return found.total() - stream.to(found.parts.dtype)


def _check_room(model: Model, plan: Outline, places: int) -> None:
    """Refuse a stack that cannot exist before it is begun."""
    heads, neurons = model.n_heads, model.anatomy.d_mlp or 1
    count = 2 + len(plan.attn) * (heads + 1 if plan.by == "head" else 1)
    count += len(plan.mlp) * (neurons + 1 if plan.by == "neuron" else 1)
    needed, free = 8 * count * places * model.d_model, available(model.device)
    if needed > free:
        raise BudgetError(
            f"{count} parts at {places} places take {as_text(needed)}, and {as_text(free)} are free: "
            "name a position, give fewer prompts, or read the parts along one direction with "
            "interp.logit_attribution(..., direction=...), which never lays them out."
        )
