"""``interp.trace``: which states carry a fact from its subject to the answer?

1. **Clean run.** The prompt as it is: P(answer), and every state.
2. **Corrupted runs.** Gaussian noise on the embeddings of the subject's tokens; P falls.
3. **Corrupted with restoration.** The same noise, with the clean value put back at one token: a
   state of one layer, or the MLP or attention outputs of a window of layers. What comes back
   of P is that place's indirect effect.

With ``sever=`` the MLPs (or attention) of later layers are held at what they do in the corrupted
run, at the restored token: the part of a state's effect that does not pass through them.

Source: Meng et al. 2022, "Locating and Editing Factual Associations in GPT" (arXiv:2202.05262),
section 2 and appendix B; constants as in their code and in Hase et al. 2023 (arXiv:2301.04213).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Int
from torch import Tensor

from interp import metrics
from interp.engine.spots import Spot, Values
from interp.engine.work import Work, tokens_at_once
from interp.errors import BudgetError, PromptError, RunError, warn
from interp.metrics import Metric
from interp.models.model import Model
from interp.patching.resume import same_sweep
from interp.patching.run import Engine, Outcome, choose_way, run_cells
from interp.patching.setup import baselines, names_of
from interp.patching.verb import checked
from interp.prompts.prompts import Prompts
from interp.results import Provenance
from interp.runs.edits import Add
from interp.runs.execute import execute
from interp.runs.memory import as_text, available
from interp.runs.slices import read
from interp.sites import Site
from interp.tracing.cells import Kind, TraceGrid, columns_of, default_window, lay_out_trace
from interp.tracing.result import TraceResult
from interp.tracing.subject import Subject, embedding_noise, embedding_std, find_subject

__all__ = ["trace"]


@torch.no_grad()
def trace(
    model: Model,
    prompts: Prompts | str | Sequence[str] | Int[Tensor, "prompt pos"],
    *,
    subject: Subject = None,
    noise: float = 3.0,
    std: float | None = None,
    subjects: Sequence[str] | None = None,
    samples: int = 10,
    window: int | None = None,
    kinds: Kind | Sequence[Kind] = ("states", "mlp", "attn"),
    sever: Literal["mlp", "attn"] | Sequence[Literal["mlp", "attn"]] = (),
    metric: str | Metric | Callable[..., Tensor] = "prob",
    answers: Any = None,
    only_known: bool = True,
    seed: int = 0,
    batch: int | Literal["auto"] = "auto",
    engine: Engine = "auto",
    resume: TraceResult | str | Path | None = None,
    progress: bool | None = None,
) -> TraceResult:
    """Noise on the subject, one clean value put back at a time: where is the fact?

    >>> interp.trace(model, "The capital of France is", subject="France").plot()  # doctest: +SKIP
    >>> interp.trace(model, pairs).by_role().indirect_effect()                    # doctest: +SKIP

    Args:
        prompts: text, texts, token ids, or Prompts (their clean side is traced).
        subject: whose tokens are noised: text in the prompt, its positions ``(first, last)``, or a
            list with one for each prompt. None: the ``subject_first`` and ``subject_last`` that the
            prompts name, as those of ``interp.prompts`` do.
        noise: the noise's standard deviation, as a multiple of that of subject embeddings.
        std: the same in the unit of the site ``embed`` (behind a multiplier or norm of the embeddings,
            as Granite and BLOOM have), instead (Hase et al.: .1 for GPT2-XL, .094 for
            GPT-J, .03 for NeoX-20B).
        subjects: names over whose embeddings that deviation is measured; None: the subjects of
            the prompts that are traced.
        samples: draws of the noise for each prompt; every cell gets the same ones.
        window: layers restored together in the ``mlp`` and ``attn`` panels; states are restored
            one at a time. None: 10 of 48 layers, at this model's depth.
        kinds: what is restored: ``resid_post``, ``mlp_out``, ``attn_out``.
        sever: also states with later MLPs, attention, or each of both, held at the corrupted run's.
        metric: as in :func:`interp.patch`; the paper's is ``prob``, of the answer.
        answers: for text: the tokens traced. None: each prompt's own top token.
        only_known: leave out prompts whose top token is not their answer, with a warning.
        seed: of the noise; each prompt's is drawn anew from it, as in the paper's code.
        batch, engine, resume, progress: as in :func:`interp.patch`.

    Raises:
        PromptError: no subject, a subject that does not occur once, or no prompt that is known.
        RunError: numbers that make no sense, an unknown kind, or an engine that cannot run.
        SiteError: the model lacks a site that is restored.
        BudgetError: the runs do not fit in memory together; it says how many do.
    """
    how = metrics.resolve(metric)
    severed = (sever,) if isinstance(sever, str) else tuple(sever)
    kinds = (kinds,) if isinstance(kinds, str) else tuple(kinds)
    window = default_window(model.n_layers) if window is None else window
    _check(noise, std, samples)
    checked(None, 1, batch)
    pairs = _as_prompts(model, prompts, answers)
    span = find_subject(model, pairs, subject)
    pairs, span, logits = _known(model, pairs, span, batch, how, only_known=only_known)
    sigma = noise * embedding_std(model, pairs, span, subjects) if std is None else float(std)
    _check_room(model, pairs, samples, engine)
    edit = embedding_noise(model, pairs, span, std=sigma, samples=samples, seed=seed)
    rows = pairs.subset(torch.arange(len(pairs)).repeat_interleave(samples))
    rows = replace(rows, corrupted=rows.clean)  # the same tokens, under noise
    grid = _grid(model, pairs, rows, kinds, severed, window)
    tokens, columns = rows.clean.to(model.device), _first_noised(rows, span, samples)
    way = choose_way(
        model, tokens, grid.cells, (), whole=how.positions == "all", engine=engine, batch=batch,
        embed=edit,
    )  # fmt: skip
    noised = way.logits if way.logits is not None else _logits(model, rows, how, batch, edit)
    base = baselines(
        rows, how, {"clean": logits.repeat_interleave(samples, 0), "corrupted": noised}
    )
    provenance = Provenance.of(
        model, pairs, seed=seed, verb="trace", noise=None if std is not None else noise, std=sigma,
        subjects=None if subjects is None else list(subjects), samples=samples, window=window,
        kinds=list(kinds), sever=list(severed), metric=how.name, subject=span.tolist(),
    )  # fmt: skip
    clean = base.scores["clean"].cpu().view(len(pairs), samples)[:, 0]
    corrupted = base.scores["corrupted"].cpu().view(len(pairs), samples)
    outcome = run_cells(
        way, _values(model, pairs, grid, samples, batch, rows, edit), base.readouts["corrupted"],
        base.scores["corrupted"], columns,
        before=_finished(resume, provenance, grid, clean, corrupted),
        work=Work(tokens_at_once(model.anatomy, batch, tokens.ids.shape[1])),
        progress=progress, verb="tracing",
    )  # fmt: skip
    scores = outcome.scores.view(*grid.shape, len(pairs), samples)
    lengths = pairs.clean.n_real.cpu()
    absent = torch.arange(grid.shape[-1])[:, None] >= lengths
    return TraceResult(
        per_sample=scores.masked_fill(absent[..., None], torch.nan), axes=grid.axes,
        clean=clean, corrupted=corrupted, done=outcome.done.view(grid.shape), subject=span,
        n_real=lengths, std=sigma, noise=None if std is not None else noise, window=window,
        metric=how.name, unit=how.unit, answers=names_of(model, pairs.answers),
        tokens=pairs.str_tokens, engine=outcome.engine, work=outcome.work, provenance=provenance,
    )  # fmt: skip


def _check(noise: float, std: float | None, samples: int) -> None:
    if isinstance(samples, bool) or not isinstance(samples, int) or samples < 1:
        raise RunError(f"samples={samples!r}; expected a positive number of draws, such as 10.")
    word, given = ("noise", noise) if std is None else ("std", std)
    if not isinstance(given, int | float) or isinstance(given, bool) or not 0 < given < 1e6:
        raise RunError(
            f"{word}={given!r}; expected a positive number: a multiple of the spread of subject "
            "embeddings (noise=3), or a standard deviation in their unit (std=0.1)."
        )


def _check_room(model: Model, pairs: Prompts, samples: int, engine: Engine) -> None:
    """Refuse what cannot be kept before it is begun.

    The corrupted runs' residual streams, keys and values of every layer (the engine restarts from
    them), and the clean values that are put back.
    """
    anatomy, width = model.anatomy, pairs.clean.ids.shape[1]
    run = anatomy.d_model + 2 * anatomy.n_kv_heads * anatomy.d_head
    row = (samples * run if engine != "plain" else 0) + 3 * anatomy.d_model
    each = row * width * anatomy.n_layers * torch.finfo(model.dtype).bits // 8
    free = available(model.device)
    if each * len(pairs) > free:
        raise BudgetError(
            f"tracing {len(pairs)} prompts × {samples} draws of noise keeps "
            f"{as_text(each * len(pairs))}, and {as_text(free)} are free: trace at most "
            f"{max(1, free // each)} at a time (prompts.subset), draw fewer samples, or use "
            "engine='plain', which keeps less and takes longer."
        )


def _as_prompts(model: Model, prompts: Any, answers: Any) -> Prompts:
    if not isinstance(prompts, Prompts):
        return model.prompts(prompts, answers=answers)
    if answers is not None:
        raise RunError("answers= belong to text; these Prompts carry their own.")
    return prompts


def _logits(
    model: Model, prompts: Prompts, how: Metric, batch: Any, edit: Add | None = None
) -> Tensor:
    """The clean side's logits, of the last token unless the metric reads more."""
    kind: Literal["last", "all"] = "last" if how.positions == "answer" else "all"
    edits = {} if edit is None else {"embed": edit}
    tokens = prompts.clean.to(model.device)
    return execute(model.anatomy, tokens, edit=edits, logits=kind, rows_at_once=batch).logits


def _known(
    model: Model, pairs: Prompts, span: Tensor, batch: Any, how: Metric, *, only_known: bool
) -> tuple[Prompts, Tensor, Tensor]:
    """The prompts that are traced, with their answers, and their logits."""
    logits = _logits(model, pairs, how, batch)
    last = logits[:, -1] if how.positions == "answer" else logits[
        torch.arange(len(pairs)), pairs.answer_column.to(logits.device)
    ]  # fmt: skip
    top = last.argmax(-1).cpu()
    if pairs.answers is None:
        return replace(pairs, answers=top[:, None]), span, logits
    known = (pairs.answers == top[:, None]).any(-1)
    if not only_known or bool(known.all()):
        return pairs, span, logits
    if not known.any():
        raise PromptError(
            f"{model.name} answers none of these {len(pairs)} prompts rightly, so there is no fact to "
            "trace: give prompts that it knows, answers=None for its own top token, or "
            "only_known=False."
        )
    warn(
        f"{int((~known).sum())} of {len(pairs)} prompts are left out: their answer is not the "
        "model's top token (only_known=False keeps them)."
    )
    rows = known.nonzero().flatten()
    return pairs.subset(rows), span[rows], logits[rows.to(logits.device)]


def _first_noised(rows: Prompts, span: Tensor, samples: int) -> Int[Tensor, " row"]:
    """Each row's first column at which the corrupted run can differ from the clean one."""
    return rows.clean.first.cpu() + span[:, 0].repeat_interleave(samples)


def _grid(
    model: Model, pairs: Prompts, rows: Prompts, kinds: Sequence[str], sever: Sequence[str],
    window: int,
) -> TraceGrid:  # fmt: skip
    first = rows.clean.first.cpu()
    columns = columns_of(first, rows.answer_column.cpu())
    labels = [str(i) for i in range(len(columns))]
    if len(pairs) == 1 and pairs.str_tokens is not None:
        words = [word for word in pairs.str_tokens[0] if word]
        if len(words) == len(labels):
            labels = [f"{i} {word.strip()}".strip() for i, word in enumerate(words)]
    return lay_out_trace(model.anatomy, columns, labels, kinds=kinds, sever=sever, window=window)


def _values(
    model: Model, pairs: Prompts, grid: TraceGrid, samples: int, batch: Any, rows: Prompts,
    edit: Add,
) -> Values:  # fmt: skip
    """Clean values, read once for each prompt; in severed branches those of the corrupted run."""
    held = tuple(dict.fromkeys(spot.site.whole for spot in grid.severed))
    wanted = {spot.site.whole for cell in grid.cells for spot in cell if spot not in grid.severed}

    def run(tokens: Any, sites: Sequence[Site], edits: Mapping[str, Add]) -> Mapping[Site, Tensor]:
        if not sites:
            return {}
        out = execute(
            model.anatomy, tokens.to(model.device), save=sites, edit=edits, logits="none",
            rows_at_once=batch,
        )  # fmt: skip
        return {site: out.cache[site] for site in sites}

    clean = run(pairs.clean, sorted(wanted, key=str), {})
    noised = run(rows.clean, held, {"embed": edit})

    def value(spot: Spot) -> Tensor:
        assert spot.columns is not None
        if spot in grid.severed:
            return read(noised[spot.site.whole], spot.site, spot.columns)
        own = read(clean[spot.site.whole], spot.site, spot.columns[::samples])
        return own.repeat_interleave(samples, 0)

    return value


def _finished(
    resume: TraceResult | str | Path | None,
    provenance: Provenance,
    grid: TraceGrid,
    clean: Tensor,
    corrupted: Tensor,
) -> Outcome | None:
    """What an interrupted trace has finished; ResultError if it is another one."""
    if resume is None:
        return None
    old = resume if isinstance(resume, TraceResult) else TraceResult.load(resume)
    same_sweep(
        provenance, old.provenance, grid.axes, old.axes,
        {"clean": (clean, old.clean), "corrupted": (corrupted, old.corrupted)},
    )  # fmt: skip
    scores = old.per_sample.flatten(3).flatten(0, 2)
    padded = torch.where(old.done.flatten()[:, None], scores.nan_to_num(), scores)
    return Outcome(padded, old.done.flatten(), old.engine, old.work)
