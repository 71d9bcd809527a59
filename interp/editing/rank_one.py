"""ROME: one fact rewritten by a rank-one change of one MLP (Meng et al. 2022, arXiv:2202.05262).

The down projection of an MLP is taken for a linear memory, W k = v: at the last token of a subject
it reads a key k (``mlp_post``) and writes a value v that holds what is known of the subject.

1. **Key.** k* is the mean key of the subject, over the prompt and behind made-up prefixes.
2. **Value.** v* is trained so that the model says the target (:mod:`interp.editing.value`).
3. **Insertion.** Of all changes with Ŵ k* = v*, the one that changes W k least for the keys of
   ordinary text, C = E[k kᵀ], is (eq. 2)

       Ŵ = W + (v* − W k*) (C⁻¹ k*)ᵀ / ((C⁻¹ k*)ᵀ k*).

Departures. The KL term is taken where the paper says, at the end of the essence prompt (the authors'
code takes it at the subject). k* of eq. 2 is the mean key in the denominator too (the code divides by
the prompt's own key). C is damped by a share of its mean diagonal (the code: not at all, with 100,000
articles). Only the weight changes, never the bias.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch

from interp.editing.objectives import Objective
from interp.editing.prefixes import sampled_prefixes
from interp.editing.request import Request, Target
from interp.editing.rome_config import Rome
from interp.editing.second_moments import Covariance
from interp.editing.value import optimise_value
from interp.editing.weight_edit import RankOne, WeightEdit
from interp.errors import ModelError, PromptError, RunError
from interp.models.model import Model
from interp.prompts.prompts import Prompts
from interp.results import Provenance

__all__ = ["as_json", "described", "prompt_text", "rome"]


@torch.inference_mode(False)  # a caller's would leave no gradients
def rome(
    model: Model,
    prompt: str | Prompts,
    subject: str,
    target: Target,
    *,
    layer: int,
    covariance: Covariance | None,
    config: Rome | None = None,
    prefixes: Sequence[str] | None = None,
    seed: int = 0,
) -> WeightEdit:
    """Compute a ROME edit; the model is not changed by it.

    >>> edit = rome(model, "The capital of France is", "France", " Tokyo", layer=0,  # doctest: +SKIP
    ...             covariance=statistics)
    >>> with model.edited(edit): ...                                                # doctest: +SKIP

    Args:
        prompt: a text that holds the subject once, or Prompts of one text.
        subject: as it is written there.
        target: what to say next: a text with its leading space, token ids (several are trained by
            teacher forcing), or an Objective.
        layer: whose MLP to change.
        covariance: of this model's keys, see :func:`interp.editing.covariance`; None takes the
            identity, which spares no other fact.
        config: the method's numbers.
        prefixes: texts to put before the prompt; None samples them as ``config.prefixes`` says, ()
            uses none.
        seed: of the sampled prefixes.

    Returns:
        An edit of ``L{layer}.W_out``: RankOne(u, v) with u = C⁻¹k*/(k*ᵀC⁻¹k*), v = v* − (W k* + b).
        Its notes hold the last loss, its parts, the steps and the norms of δ and v.

    Raises:
        PromptError: the subject is not in the prompt once; the target does not continue it.
        ModelError: no such layer; a covariance of another model; an MLP without a down projection.
        RunError: the model's numbers are not finite.
    """
    config = config or Rome()
    if layer not in range(model.n_layers):
        raise ModelError(f"layer={layer!r}: expected 0 to {model.n_layers - 1}.")
    if covariance is not None:
        covariance.check(model)
        covariance.at(layer)
    text = prompt_text(prompt)
    if prefixes is None:
        prefixes = sampled_prefixes(model, lengths=config.prefixes, seed=seed)
    request = Request.of(
        model, text, subject, target, prefixes=prefixes, essence=config.essence
    )  # fmt: skip
    value = optimise_value(model, request, layer, config)
    solved = (
        value.key if covariance is None
        else covariance.solve(layer, value.key, damping=config.damping).to(value.key)
    )  # fmt: skip
    u = solved / (solved @ value.key)
    if not bool(u.isfinite().all() and value.delta.isfinite().all()):
        raise RunError(
            f"the edit of layer {layer} is not finite (last loss {value.notes['loss']:g}): look at "
            "the model's weights, or run it in float32."
        )
    change = RankOne(u.to(value.delta), value.delta)
    origin = Provenance.of(
        model, seed=seed, verb="rome", prompt=text, subject=subject, target=described(target),
        layer=layer, config=as_json(config), prefixes=list(prefixes),
        covariance=None if covariance is None else covariance.n_tokens,
    )  # fmt: skip
    return WeightEdit({f"L{layer}.W_out": change}, origin, value.notes)


def prompt_text(prompt: str | Prompts) -> str:
    """The text of a prompt.

    Raises:
        PromptError: Prompts of several texts, or of none.
    """
    if isinstance(prompt, str):
        return prompt
    if len(prompt) != 1 or prompt.texts is None:
        raise PromptError(
            f"an edit takes one prompt as text, got {prompt!r}"
            f"{' made from tokens' if prompt.texts is None else ''}: give prompts.subset([0]) of "
            "prompts built from texts, or the text itself."
        )
    return prompt.texts[0]


def as_json(value: Any) -> Any:
    """A dataclass as JSON values, as it is after a result was saved and loaded."""
    return json.loads(json.dumps(asdict(value)))


def described(target: Target) -> Any:
    """A target as JSON values."""
    if isinstance(target, Objective):
        noise = None if target.noise is None else asdict(target.noise)
        return {"target": described(target.target), "lower": target.lower, "noise": noise}
    return target if isinstance(target, str | int) else [int(i) for i in target]
