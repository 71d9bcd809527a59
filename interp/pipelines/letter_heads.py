"""Which heads write the letter, and what kind each of them is.

Lieberum et al. 2023 take a multiple-choice model apart in three steps, at the last position:

1. *Direct effect*: what each head adds to the right letter's logit, centred over the letters,
   d = logit[right] - mean of logit[others]. A part that raises all letters alike chooses none of them.
2. *Total effect*: how far d falls if the head's output is that of another prompt (resample ablation).
3. *Kinds*, by where a head looks from the last position:

   - correct letter: at the right label, more than at the others, and writes for it;
   - uniform: at all labels about alike, and writes for the right one;
   - single letter: at one and the same label, whichever is right;
   - content gatherer: at what the question is about, and d needs it;
   - correct option: at the end of the right option or just behind it, and d needs it (ours).

A small model's heads often look at the token *behind* a label or an option, which has read it: places are counted
with the tokens of ``BEHIND``. Every kind is asked of the untrained twin too (:class:`interp.pipelines.Roles`).

How much of d the strongest heads carry together is :func:`carried`.

Source: Lieberum et al. 2023, "Does Circuit Analysis Interpretability Scale? Evidence from Multiple Choice Capabilities
in Chinchilla" (arXiv:2307.09458). Departures: theirs are chosen by eye from attention and effects, ours by the
thresholds below; their content gatherers look at the right option's text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import ModelError, ResultError, RunError, nearest
from interp.metrics import METRICS, recovered
from interp.models.model import Model
from interp.pipelines.attending import attention, attention_from
from interp.pipelines.behaviour import Behaviour
from interp.pipelines.effects import direct
from interp.pipelines.kinds import Kind, kind
from interp.pipelines.labels import BEHIND, above, against_all, labels_of, looks, single
from interp.pipelines.roles import Roles, assign
from interp.prompts.prompts import Prompts
from interp.results import Provenance
from interp.steering.ablation import ablate

__all__ = ["Head", "carried", "letter_heads", "ranked_heads", "right_over_others"]

Head = tuple[int, int]
_LIEBERUM: Final = "Lieberum et al. 2023, arXiv:2307.09458"


def letter_heads(
    model: Model, prompts: Prompts, *, twin: Model | None = None, seed: int = 0
) -> Roles:
    """What every head does to the letter, and which kind of head it is.

    >>> found = letter_heads(model, interp.prompts.mcq(model, n=200))      # doctest: +SKIP
    >>> found.by_node()                                                    # doctest: +SKIP
    {'a0.h3': ('content gatherer',), 'a2.h0': ('single letter',), ...}

    Args:
        prompts: labelled options, of one length (:func:`interp.prompts.mcq`).
        twin: the control; None: ``model.random_twin()``.
        seed: of the resampling.

    Returns:
        Roles with the behaviours ``"direct effect"`` and ``"total effect"`` (logits, positive: for the
        right letter) and shares of attention; ``.measured()`` has them for every head.

    Raises:
        PromptError: prompts without labelled options.
        RunError: prompts of different lengths, from which nothing can be resampled.
    """
    asked = against_all(prompts)
    own, control = (_measure(one, asked, seed) for one in (model, twin or model.random_twin()))
    score = float(own[-1].per_prompt.mean())
    return assign(
        _kinds(score), own[:-1], control[:-1],
        Provenance.of(model, asked, verb="letter_heads", seed=seed),
    )  # fmt: skip


def _measure(model: Model, asked: Prompts, seed: int) -> list[Behaviour]:
    """The behaviours, and last the score itself as a behaviour of nobody's."""
    shares, labels = attention_from(model, asked, "END"), labels_of(asked)
    seen = {what: looks(shares, asked, labels, what) for what in BEHIND}
    lost = ablate(model, asked, "L*.H*.z@END", method="resample", seed=seed, progress=False)
    unit = METRICS["logit_diff"].unit
    return [
        attention(model, asked, "END", {"subject": "subject"})["subject"],
        *(
            Behaviour.of_heads(
                f"attention END→correct {what} above others",
                "share",
                above(shown, asked, labels),
            )
            for what, shown in seen.items()
        ),
        single(seen["letter"]),
        Behaviour.of_heads("attention END→every letter", "share", _evenly(seen["letter"])),
        direct(model, asked)[0],
        Behaviour.of_heads("total effect", unit, lost.clean - lost.per_prompt),
        Behaviour("score", unit, ("all",), lost.clean[None].float().cpu()),
    ]


def right_over_others(
    model: Model, prompts: Prompts, *, what: Literal["letter", "option"] = "option"
) -> Float[Tensor, "layer head"]:
    """Attention from the last position to the right letter, or option, less the mean of the others.

    A mean share over prompts, with the tokens of ``BEHIND`` behind each place: 1 is a head that looks at
    the right one alone, 0 one that looks at all alike.
    """
    shares, labels = attention_from(model, prompts, "END"), labels_of(prompts)
    return above(looks(shares, prompts, labels, what), prompts, labels).mean(-1)


def _evenly(seen: Float[Tensor, "label layer head prompt"]) -> Float[Tensor, "layer head prompt"]:
    """As many times the least attention to a label as there are labels: all of it, if spread evenly."""
    return len(seen) * seen.amin(0)


def _kinds(score: float) -> Sequence[Kind]:
    """The kinds; effects must be 2% of the size of ``d``, for the right letter even if ``d`` is against it."""
    small = max(0.02 * abs(score), 1e-6)  # a criterion of 0 or less would ask for the other sign
    return [
        kind("correct letter", _LIEBERUM, [
            ("attention END→correct letter above others", 0.2), ("direct effect", small),
        ]),
        kind("uniform", _LIEBERUM, [
            ("attention END→every letter", 0.5), ("direct effect", small),
        ]),
        kind("single letter", _LIEBERUM, [
            ("attention END→one letter", 0.5), ("direct effect", small),
        ]),
        kind("content gatherer", _LIEBERUM, [
            ("attention END→subject", 0.3), ("total effect", small),
        ]),
        kind("correct option", "ours", [
            ("attention END→correct option above others", 0.2), ("total effect", small),
        ]),
    ]  # fmt: skip


def ranked_heads(roles: Roles, behaviour: str = "total effect") -> tuple[Head, ...]:
    """All heads, the one that does most of a behaviour first.

    Raises:
        ResultError: no such behaviour was measured.
    """
    if behaviour not in roles.behaviours:
        raise ResultError(
            f"no behaviour {behaviour!r} was measured; nearest: {nearest(behaviour, roles.behaviours)}."
        )
    values = roles.values[roles.behaviours.index(behaviour)]
    order = values.nan_to_num(-torch.inf).argsort(descending=True, stable=True).tolist()
    names = [roles.nodes[i] for i in order if roles.nodes[i].startswith("a")]
    return tuple(
        (int(layer), int(head))
        for name in names
        for layer, head in [name.removeprefix("a").split(".h")]
    )


def carried(
    model: Model, prompts: Prompts, order: Sequence[Head], *, most: int | None = None, seed: int = 0
) -> Float[Tensor, " k"]:
    """The share of the letter logit difference that the first ``k`` heads carry, k = 0, 1, ..., ``most``.

    All other heads' outputs at the last position are those of another prompt; MLPs, and heads at other
    positions, are the model's own. 0: what is left with every head resampled; 1: the clean run. A share
    beyond 1 means that the other heads stood in the way.

    Args:
        order: every head of the model once, the first to be kept first.
        most: the largest ``k``, 0 or more; None: all heads.
        seed: of the resampling.

    Raises:
        ModelError: not every head once.
        RunError: a negative ``most``.
        GapError: nothing is lost with every head resampled, so there is nothing to carry.
        PromptError, RunError: as in :func:`letter_heads`.
    """
    every = {(layer, head) for layer in range(model.n_layers) for head in range(model.n_heads)}
    if len(order) != len(every) or set(order) != every:
        raise ModelError(
            f"order names {len(set(order))} of the {len(every)} heads; expected every head of "
            f"{model.name!r} once, as (layer, head): see ranked_heads."
        )
    if most is not None and most < 0:
        raise RunError(f"most={most}; expected a number of heads from 0 to {len(every)}, or None.")
    names = [f"L{layer}.H{head}.z@END" for layer, head in order]
    stop = len(names) if most is None else min(most + 1, len(names))
    lost = ablate(
        model, against_all(prompts), [" + ".join(names[k:]) for k in range(stop)],
        method="resample", metric="logit_diff", seed=seed, progress=False,
    )  # fmt: skip
    kept = lost.per_prompt.reshape(stop, -1)
    if most is None or most >= len(names):
        kept = torch.cat([kept, lost.clean[None]])
    return recovered(kept, lost.clean, kept[0])
