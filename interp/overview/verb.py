"""``interp.scan``: one prompt at a glance, and which of what is seen survives a control.

1. What the model predicts.
2. Who writes the answer (direct logit attribution by component and by head), what each layer would
   say (logit lens), where heads look from the end, which tokens matter (noise on each), which heads
   and MLPs matter at the end (each put to its mean).
3. The same on random contexts, the prompt with other words, and on an untrained twin. A finding
   is what goes further than any cell of its family does on 95% of the contexts, and further than
   the twin does anywhere.

A top token is what it is because the model's parts agree on it, in an untrained model too. So where
no ``answer`` is given, contexts and twin are asked about their own top tokens: a part is found if it
writes more of this prediction than parts do of any. With a given answer, all are asked about that one:
a part is found if it writes this token because of this prompt.

An overview: each of these is a verb of its own with more to say. Sources stand with those verbs, and
those of the test in :mod:`interp.overview.family`.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import PromptError, RunError
from interp.lenses.attention import attention
from interp.lenses.logit_lens import lens
from interp.models.model import Model
from interp.overview.contexts import contexts, one_prompt
from interp.overview.family import Family
from interp.overview.measure import Setting, measurements
from interp.overview.result import ScanResult
from interp.progress import track
from interp.results import Provenance

__all__ = ["scan"]

_HEADS = 6  # patterns that are shown
_FEWEST = 19  # random contexts, of the twin and at least


@torch.no_grad()
def scan(
    model: Model,
    prompt: Any,
    *,
    answer: str | int | None = None,
    foil: str | int | None = None,
    top: int = 5,
    draws: int = 39,
    twin: Model | bool = True,
    seed: int = 0,
    progress: bool | None = None,
) -> ScanResult:
    """Everything at a first look about how a model continues one prompt, beside its control.

    >>> interp.scan(model, "The capital of France is").findings()               # doctest: +SKIP
    >>> interp.scan(model, "The capital of France is").save_page("scan.html")   # doctest: +SKIP

    Args:
        prompt: one text, or one row of token ids; at least three tokens.
        answer: the next token to explain (one token), the same in every context; None: the model's
            own top token, in each context and for the twin their own.
        foil: with ``answer``, a token whose logit is subtracted in the direct attribution.
        top: predictions kept.
        draws: random contexts of the control, at least 19.
        twin: run the untrained twin too, on 19 contexts (memory for a second model), or a model to
            take for it.
        seed: of the contexts, the noise and the twin.

    Raises:
        PromptError: several prompts, a short one, an answer of several tokens, or a foil alone.
        RunError: too few draws, or options that make no sense.
        SiteError: the model lacks a site that is read (``z``, ``pattern``, ``mlp_out``).
    """
    ids = one_prompt(model, prompt)
    rows = contexts(model, ids, draws=draws, seed=seed)
    logits = _logits(model, ids)
    if not isinstance(top, int) or top < 1 or not isinstance(twin, Model | bool):
        raise RunError(
            f"top={top!r}, twin={twin!r}; expected at least one prediction, and a Model, True or False."
        )
    given = None if answer is None else _token(model, answer, "answer")
    other = None if foil is None else _token(model, foil, "foil")
    said = int(logits.argmax()) if given is None else given
    if other is not None and (given is None or other == given):
        raise PromptError(
            f"foil={foil!r} with answer={answer!r}: a foil needs an answer to be compared with, and "
            "another token than it."
        )
    words = [f"{i} {_text(model, token).strip()}" for i, token in enumerate(ids.tolist())]
    untrained = model.random_twin(seed + 1) if twin is True else twin or None
    steps = [
        (who, name, run)
        for who, some in ((untrained, rows[: 1 + _FEWEST]), (model, rows))
        if who is not None
        for name, run in measurements(Setting.of(who, some, given, other, words), seed).items()
    ]
    largest: dict[str, float] = {}
    families = []
    for who, name, run in track(steps, total=len(steps), what="scanning", show=progress, least=1):
        found = run()
        family = Family(
            name, found.unit, found.cells, found.values[:, 0].clone(),
            found.values[:, 1:].contiguous(), largest.get(name),
        )  # fmt: skip
        if who is model:
            families.append(family)
        else:
            largest[name] = float(family.excess.abs().max())
    return ScanResult(
        tokens=tuple(words),
        answer=_text(model, said),
        foil=None if other is None else _text(model, other),
        predictions=_top(model, logits, top),
        twin_predictions=None if untrained is None else _top(model, _logits(untrained, ids), top),
        families=tuple(families),
        lens=lens(model, ids[None]),
        attention=attention(model, ids[None], _heads(families)),
        provenance=Provenance.of(
            model, seed=seed, verb="scan", ids=ids.tolist(), answer=given, foil=other, draws=draws,
            twin=None if untrained is None else untrained.name,
        ),
    )  # fmt: skip


def _logits(model: Model, ids: Int[Tensor, " pos"]) -> Float[Tensor, " vocab"]:
    return model.run(ids[None], logits="last").logits[0, 0].float().cpu()


def _token(model: Model, given: str | int, word: str) -> int:
    if isinstance(given, str):
        return model.to_single_token(given)
    if not (isinstance(given, int) and 0 <= given < model.d_vocab_out):
        raise PromptError(f"{word}={given}; expected a token id from 0 to {model.d_vocab_out - 1}.")
    return given


def _text(model: Model, token: int) -> str:
    return str(token) if model.tokenizer is None else model.to_str_tokens([token])[0]


def _top(model: Model, logits: Tensor, n: int) -> tuple[tuple[str, float], ...]:
    best = logits.softmax(-1).topk(min(n, len(logits)))
    return tuple(
        (_text(model, i), p)
        for i, p in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    )


def _heads(families: list[Family]) -> list[str]:
    """The heads with the largest |t| of any kind, strongest first."""
    best: dict[str, float] = {}
    for family in families:
        for cell, t in zip(family.cells, family.t().abs().tolist(), strict=True):
            name = cell.split(" ")[0]
            if ".H" in name:
                best[name] = max(best.get(name, 0.0), t)
    return sorted(best, key=lambda name: -best[name])[:_HEADS]
