"""``interp.ablate``: what does the model lose without this part?

The clean run is edited, so an ablation asks what is *needed*; patching into a corrupted run asks
what suffices. What is put in the part's place decides what is asked:

- **mean** over a reference distribution keeps what all its prompts share and removes what tells
  them apart (Wang et al. 2022, arXiv:2211.00593, section 3: over ABC prompts, token by token);
- **resample**, another prompt's value, does the same and stays on the model's own distribution
  (Chan et al. 2022, causal scrubbing; Zhang & Nanda 2024, arXiv:2309.16042, for why that matters);
- **zero** and **noise** take the model off its distribution: part of what they show is that.

Every ablation is a sweep of ``interp.patch`` and runs on its engine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

from jaxtyping import Int
from torch import Tensor

from interp.errors import PromptError, RunError, nearest
from interp.metrics import Metric
from interp.models.model import Model
from interp.patching.cells import Positions, Sites
from interp.patching.result import PatchResult
from interp.patching.run import Engine
from interp.patching.sources import Source
from interp.patching.verb import patch
from interp.prompts.prompts import Prompts
from interp.runs.execute import execute
from interp.token_batch import TokenBatch

__all__ = ["Inputs", "ablate", "asked_of", "default_metric"]

Method = Literal["mean", "resample", "zero", "noise"]
Inputs = Prompts | str | Sequence[str] | Int[Tensor, "prompt pos"]


def ablate(
    model: Model,
    prompts: Inputs,
    sites: Sites,
    *,
    method: Method | None = None,
    reference: Inputs | Mapping[Any, Tensor] | None = None,
    metric: str | Metric | Callable[..., Tensor] | None = None,
    positions: Positions = None,
    window: int = 1,
    answers: Any = None,
    foils: Any = None,
    seed: int = 0,
    batch: int | Literal["auto"] = "auto",
    engine: Engine = "auto",
    resume: PatchResult | str | Path | None = None,
    progress: bool | None = None,
) -> PatchResult:
    """Knock out activations of the clean run, one cell at a time, and score each run.

    >>> interp.ablate(model, prompts, "L*.H*.z", reference=abc)             # doctest: +SKIP
    PatchResult(layer 4 × head 6; logit_diff in logits: clean 9.1; noise, 64 prompts, ...)

    ``"effect"`` of :meth:`PatchResult.to_frame` and what :meth:`PatchResult.plot` shows is the
    change of the metric: negative where the part was needed, positive where it was in the way.
    A corrupted side is left alone: an ablation has one run.

    Args:
        prompts: Prompts, or text or tokens.
        sites: as in :func:`interp.patch`, paths included. ``["A", "A + B", "A + B + C"]`` ablates more
            and more (sites of a group go together).
        method: ``"mean"`` over ``reference``, ``"resample"`` (another of these prompts, by
            ``seed``), ``"zero"``, or ``"noise"`` (the site's own standard deviation, added). None:
            the mean where a reference is given, else resample. The result's title and its
            ``provenance.call["source"]`` say which.
        reference: prompts to average over, column by column or at named positions. The evaluated
            prompts themselves are used only if you pass them here. Or means that are known: a mapping
            from site to mean, such as ``interp.surveys.means(store, "L*.mlp_out")`` over a corpus.
        metric: as in :func:`interp.patch`. None: ``logit_diff`` where there are foils, else ``log_prob``
            of the answers.
        positions, window, batch, engine, resume, progress: as in :func:`interp.patch`.
        answers, foils: for text: the tokens compared. Where no answers are given, the answer is
            the model's own top token on each prompt.
        seed: of ``resample`` and ``noise``.

    Raises:
        RunError: a method that does not fit (a mean without reference, a reference without
            mean, a single prompt to resample from).
        SiteError, PromptError, MetricError: as in :func:`interp.patch`.
    """
    asked = asked_of(model, prompts, answers, foils)
    source: Source = _method(method, reference, asked)
    if metric is None:
        metric = default_metric(asked)
    means = None
    if isinstance(reference, Mapping):
        source = reference
    elif reference is not None:
        means = _reference(model, reference)
    return patch(
        model, asked, sites, metric=metric, direction="noise", source=source, reference=means,
        positions=positions, window=window, seed=seed, batch=batch, engine=engine, resume=resume,
        progress=progress,
    )  # fmt: skip


def asked_of(model: Model, given: Any, answers: Any, foils: Any) -> Prompts:
    """One side with answers: the given ones, or each prompt's own top token."""
    if isinstance(given, Prompts):
        if answers is not None or foils is not None:
            raise RunError("answers= and foils= belong to text; these Prompts carry their own.")
        asked = given
    else:
        asked = model.prompts(given, answers=answers, foils=foils)
    asked = _without_spare_columns(
        replace(asked, corrupted=None, corrupted_texts=None, corrupted_str_tokens=None)
    )
    if asked.answers is not None:
        return asked
    if asked.foils is not None:
        raise PromptError("these prompts have foils and no answers: give answers= too.")
    logits = execute(model.anatomy, asked.clean.to(model.device), logits="last").logits
    return replace(asked, answers=logits[:, 0].argmax(-1).cpu()[:, None])


def _without_spare_columns(prompts: Prompts) -> Prompts:
    """Prompts of one length without padding: a subset keeps the width of the whole it was part of."""
    tokens = prompts.clean
    if not tokens.padded or len(tokens.n_real.unique()) > 1:
        return prompts
    first, n = tokens.first, len(tokens)
    words = prompts.str_tokens
    return replace(
        prompts,
        clean=TokenBatch.of(tokens.ids[tokens.mask].view(n, -1)),
        positions={name: column - first for name, column in prompts.positions.items()},
        str_tokens=None if words is None else tuple(
            tuple(word for word, real in zip(row, mask, strict=True) if real)
            for row, mask in zip(words, tokens.mask.tolist(), strict=True)
        ),
    )  # fmt: skip


def default_metric(prompts: Prompts) -> str:
    """``logit_diff`` where there is something to compare the answers with, else ``log_prob``."""
    return "log_prob" if prompts.foils is None else "logit_diff"


def _reference(model: Model, given: Any) -> Prompts:
    asked = given if isinstance(given, Prompts) else model.prompts(given)
    return _without_spare_columns(
        replace(asked, corrupted=None, corrupted_texts=None, corrupted_str_tokens=None)
    )


def _method(method: str | None, reference: Any, prompts: Prompts) -> Method:
    """The method asked for, or the one that the arguments imply."""
    known = get_args(Method)
    if method is not None and method not in known:
        raise RunError(
            f"method={method!r}; expected one of {', '.join(known)} "
            f"(nearest: {nearest(str(method), known)}). For any other value use "
            "interp.patch(source=..., direction='noise')."
        )
    if reference is not None and method not in (None, "mean"):
        raise RunError(
            f"method={method!r} uses no reference=: leave it out, or ask for method='mean'."
        )
    if method == "mean" and reference is None:
        raise RunError(
            "method='mean' needs reference=, prompts to average over: a mean over what? The "
            "evaluated prompts are averaged only if you pass them yourself."
        )
    chosen = method or ("mean" if reference is not None else "resample")
    if chosen == "resample" and len(prompts) < 2:
        raise RunError(
            "one prompt has no other to resample from: give reference= prompts for a mean "
            "ablation, more prompts, or method='zero'."
        )
    if chosen == "resample" and prompts.clean.padded:
        raise RunError(
            "these prompts differ in length, so another prompt's columns are other words: give "
            "prompts of one length (such as those of one template), or reference= and named "
            "positions for a mean ablation, or method='zero'."
        )
    return chosen  # type: ignore[return-value]
