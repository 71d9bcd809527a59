"""``interp.logit_attribution``: who writes the answer? Direct logit attribution.

1. Run the prompts once; take the residual stream behind the last block apart into what each
   component (head, neuron) wrote.
2. Hold the final norm's scale at its value for each prompt and position. What is left of the way to
   a logit is linear, so each part has its own share of the logit, and γ, β, the centring of a
   LayerNorm, a logit divisor and b_U are all kept: the shares sum to the model's own logit.
3. Compare with the control: the same parts, scored for answers that are not the prompts' own.

What it does not say: a part that writes little may still matter through what later parts read of
it. Patch to see indirect effects.

Sources: Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits" (the decomposition);
nostalgebraist 2020, "interpreting GPT: the logit lens" (reading the stream in the vocabulary); Wang
et al. 2023, arXiv:2211.00593 (attribution of a logit difference to heads). TransformerLens:
``ActivationCache.logit_attrs``, ``decompose_resid``, ``stack_head_results``, ``accumulated_resid``;
it leaves the bias term out, and γ unless the weights are folded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.direct.control import LEAST, different, random_directions, random_tokens, shuffle
from interp.direct.measure import Measured, loudest_neurons, measure
from interp.direct.places import Positions, places
from interp.direct.result import LogitAttribution
from interp.direct.stream import By, outline
from interp.direct.targets import Along, Logits, Target
from interp.errors import PromptError, RunError
from interp.models.model import Inputs, Model
from interp.prompts.answers import Answers
from interp.prompts.prompts import Prompts
from interp.results import Axis, Provenance
from interp.runs.execute import execute

__all__ = ["logit_attribution"]


@torch.no_grad()
def logit_attribution(
    model: Model,
    prompts: Inputs,
    *,
    by: By = "component",
    tokens: str | int | Sequence[str | int] | Int[Tensor, " token"] | None = None,
    direction: Float[Tensor, "*prompt d_model"] | None = None,
    at: str = "final",
    positions: Positions = "END",
    answers: Answers | None = None,
    foils: Answers | None = None,
    neurons: int = 50,
    draws: int = 100,
    seed: int = 0,
    batch: int | Literal["auto"] = "auto",
    progress: bool | None = None,
) -> LogitAttribution:
    """What each part of the residual stream adds directly to a logit, or to a difference of logits.

    >>> written = interp.logit_attribution(model, pairs, by="head")        # doctest: +SKIP
    >>> written.top(3)          # the parts which add most to answer minus foil, with intervals
    >>> written.survives()      # which of them do so only for the prompt's own answer

    Args:
        prompts: Prompts (their clean side), or whatever ``model.run`` takes. What is measured is
            the mean logit of the answers less that of the foils; without foils the answers'
            logit; without answers each prompt's own top token at its end is the answer.
        by: ``"component"`` (embeddings, attention, MLPs), ``"head"`` (heads in the place of
            attention), or ``"neuron"`` (the ``neurons`` of all layers that add most in absolute
            value, and the rest of each MLP as one part).
        tokens: measure these tokens' logits instead, side by side on an axis ``token``.
        direction: measure the product with this direction of the stream instead, one for all
            prompts or one for each; no norm and no unembedding are applied.
        at: where a ``direction`` is read: ``"final"``, or a site such as ``"L3.resid_pre"``.
        positions: where the logits are read: a name or number, ``"each"`` column, or a list;
            the last two make an axis ``position``. The target is the same at all of them.
        answers, foils: for text or token ids, as ``model.prompts`` takes them.
        draws: of the control (see :mod:`interp.direct.control`), at least 39; 0 for none.
        seed: of the control.
        batch: prompts at a time.

    Returns:
        A :class:`LogitAttribution`; logits before a final soft-cap.

    Raises:
        ModelError: the parts do not sum to the model's own logit: the stream of this family is
            not the sum of its branches, or its head is not understood.
        SiteError: a part does not exist in this model, with the reason.
        PromptError: answers, tokens or positions that do not fit the prompts.
        RunError: options that do not go together.
    """
    _check_options(tokens, direction, at, answers, foils, neurons, draws, batch, model)
    asked, own_top = _asked(
        model, prompts, answers, foils, top=tokens is None and direction is None
    )
    target, axes, what = _target(model, asked, tokens, direction)
    columns, real, where = places(asked, positions)
    plan = outline(model.anatomy, at, by)
    setting = (model.anatomy, asked.clean.to(model.device), columns, real)
    how: dict[str, Any] = {"batch": batch, "progress": progress}
    if by == "neuron":
        plan = replace(plan, neurons=loudest_neurons(plan, *setting, target, count=neurons, **how))
    control, name = _control(model, target, draws, seed, single=tokens is None)
    found = measure(plan, *setting, target, control, **how)
    kept = (bool(axes), bool(where))
    per_prompt = _squeezed(found.parts.movedim(2, -1), *kept)
    provenance = Provenance.of(
        model, asked, seed=seed if control is not None else None,
        verb="logit_attribution", by=by, what=what, at=str(plan.at),
        positions=positions if isinstance(positions, int | str) else list(positions),
        tokens=list(axes[0].labels) if axes else None, own_top_token=own_top, control=name,
    )  # fmt: skip
    return LogitAttribution(
        values=per_prompt.nanmean(-1),
        per_prompt=per_prompt,
        axes=(Axis("part", found.names), *axes, *where),
        total=_squeezed(found.total.movedim(1, -1)[None], *kept)[0],
        error=found.error,
        null=_null(found, per_prompt.shape[:-1], *kept),
        control=name,
        by=by,
        what=what,
        n_heads=model.n_heads,
        answers=None if what not in ("logit", "logit_diff") else _names(model, asked.answers),
        foils=None if what != "logit_diff" else _names(model, asked.foils),
        provenance=provenance,
    )


def _check_options(
    tokens: Any, direction: Any, at: str, answers: Any, foils: Any, neurons: int, draws: int,
    batch: Any, model: Model,
) -> None:  # fmt: skip
    given = [n for n, v in (("tokens", tokens), ("direction", direction),
                            ("answers", answers if answers is not None else foils)) if v is not None]  # fmt: skip
    if len(given) > 1:
        raise RunError(f"{' and '.join(given)} were given; expected one thing to measure.")
    if direction is None and str(at) != "final":
        raise RunError(
            f"at={at!r}: logits are read behind the last block; only a direction= can be read "
            "elsewhere. interp.lens reads the logits of earlier layers."
        )
    counts = _whole(neurons, 1) and (draws == 0 or _whole(draws, 39))
    if not (counts and (batch == "auto" or _whole(batch, 1))):
        raise RunError(
            f"neurons={neurons}, draws={draws}, batch={batch!r}; expected at least one neuron, no draws "
            "of the control or at least 39 (fewer can say nothing at 5%), and 'auto' or at least one prompt at a time."
        )
    if direction is not None and not isinstance(direction, Tensor):
        raise RunError(f"direction is a {type(direction).__name__}; expected a torch.Tensor.")
    if direction is not None and (
        direction.ndim not in (1, 2) or direction.shape[-1] != model.d_model
    ):
        raise RunError(
            f"direction has shape {list(direction.shape)}; expected [{model.d_model}], or "
            f"[prompt, {model.d_model}]."
        )


def _whole(n: Any, least: int) -> bool:
    return isinstance(n, int) and not isinstance(n, bool) and n >= least


def _asked(
    model: Model, prompts: Inputs, answers: Any, foils: Any, *, top: bool
) -> tuple[Prompts, bool]:
    """The prompts with answers, and whether those are the model's own top tokens."""
    if not isinstance(prompts, Prompts):
        prompts = model.prompts(prompts, answers=answers, foils=foils)
    elif answers is not None or foils is not None:
        raise RunError("answers= and foils= belong to text; these Prompts carry their own.")
    if prompts.answers is not None or not top:
        return prompts, False
    run = execute(model.anatomy, prompts.clean.to(model.device), logits="last")
    return replace(prompts, answers=run.logits[:, 0].argmax(-1)[:, None].cpu()), True


def _target(
    model: Model, prompts: Prompts, tokens: Any, direction: Tensor | None
) -> tuple[Target, tuple[Axis, ...], str]:
    """What is measured, the axis that it makes, and its name."""
    if direction is not None:
        if direction.ndim == 2 and len(direction) != len(prompts):
            raise RunError(
                f"there are {len(direction)} directions for {len(prompts)} prompts; expected one for "
                "all (a vector), or one for each."
            )
        wide = torch.promote_types(direction.dtype, torch.promote_types(model.dtype, torch.float32))
        rows = direction.detach().to(wide).expand(len(prompts), model.d_model)
        return Along(rows[None]), (), "direction"
    if tokens is not None:
        ids = _token_ids(model, tokens)
        labels = _names(model, torch.tensor(ids)[:, None]) or ()
        sets = torch.tensor(ids)[:, None, None].expand(len(ids), len(prompts), 1)
        return Logits(sets), (Axis("token", labels),), "logits"
    assert prompts.answers is not None
    foils = None if prompts.foils is None else prompts.foils[None].cpu()
    return (
        Logits(prompts.answers[None].cpu(), foils),
        (),
        "logit" if foils is None else "logit_diff",
    )


def _token_ids(model: Model, tokens: Any) -> list[int]:
    if isinstance(tokens, Tensor):
        tokens = tokens.flatten().tolist()
    listed = [tokens] if isinstance(tokens, str | int) else list(tokens)
    if not all(isinstance(t, str | int) for t in listed):
        raise PromptError(f"tokens={listed}; expected words of one token, or whole numbers.")
    ids = [model.to_single_token(t) if isinstance(t, str) else t for t in listed]
    if not ids or not all(0 <= i < model.d_vocab_out for i in ids) or len(set(ids)) < len(ids):
        raise PromptError(
            f"tokens={ids}; expected at least one, each once, with ids from 0 to "
            f"{model.d_vocab_out - 1}."
        )
    return ids


def _control(
    model: Model, target: Target, draws: int, seed: int, *, single: bool
) -> tuple[Target | None, str]:
    """The control's targets, one for each draw, and what to call it."""
    if not draws:
        return None, "none"
    if isinstance(target, Along):
        return random_directions(target.vectors, draws=draws, seed=seed), "random directions"
    if single and len(different(target).unique()) >= LEAST:
        return shuffle(target, draws=draws, seed=seed), "shuffled answers"
    drawn = random_tokens(target, d_vocab=model.d_vocab_out, draws=draws, seed=seed)
    return drawn, "random tokens"


def _squeezed(x: Float[Tensor, "first k pos prompt"], k: bool, pos: bool) -> Tensor:
    """Without the axes that were not asked for."""
    x = x if pos else x[:, :, 0]
    return x if k else x[:, 0]


def _null(found: Measured, shape: Sequence[int], k: bool, pos: bool) -> Tensor | None:
    """The control's means with the axes of the result; the same for all tokens."""
    if found.null is None:
        return None
    null = found.null if pos else found.null[..., 0]  # [draw, part, pos]
    null = null[:, :, None] if k else null
    return null.expand(len(null), *shape)


def _names(model: Model, ids: Int[Tensor, "prompt a"] | None) -> tuple[str, ...] | None:
    """Token sets as text, or as numbers where there is no tokenizer."""
    if ids is None:
        return None
    if model.tokenizer is None:
        return tuple(" ".join(str(i) for i in row if i >= 0) for row in ids.tolist())
    return tuple("|".join(model.to_string([i]) for i in row if i >= 0) for row in ids.tolist())
