"""``interp.patch``: which activation carries the difference between two prompts?

1. Run the clean and the corrupted prompts; their scores are the two baselines.
2. For each cell of the sweep (a layer, a head, a position, ...), run one of them
   again with that cell's activation replaced by the source's.
3. Score each run. Denoising asks what suffices to restore the clean behaviour,
   noising what is needed for it; they need not agree.

Sources: Vig et al. 2020 (arXiv:2004.12265); Meng et al. 2022 (arXiv:2202.05262);
Zhang & Nanda 2024 (arXiv:2309.16042) for metrics and normalisation; Heimersheim &
Nanda 2024 (arXiv:2404.15255) for the two directions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from jaxtyping import Int
from torch import Tensor

from interp import metrics
from interp.errors import PromptError, RunError
from interp.metrics import Metric
from interp.models.model import Model
from interp.patching.cells import Positions, lay_out
from interp.patching.plain import run_cells
from interp.patching.result import PatchResult
from interp.patching.sources import Direction, Source, pick_direction, source_edits
from interp.prompts.prompts import Prompts
from interp.results import Provenance
from interp.runs.execute import Run, execute
from interp.sites import Site

__all__ = ["patch"]

Sites = str | Site | Sequence[str | Site]


def patch(
    model: Model,
    prompts: Prompts | str | Sequence[str] | Int[Tensor, "prompt pos"],
    *rest: Any,
    metric: str | Metric | Callable[..., Tensor] = "logit_diff",
    direction: Direction | None = None,
    source: Source = None,
    positions: Positions = None,
    answers: Any = None,
    foils: Any = None,
    reference: Prompts | None = None,
    seed: int = 0,
    batch: int | Literal["auto"] = "auto",
    engine: Literal["auto", "plain"] = "auto",
    progress: bool | None = None,
) -> PatchResult:
    """Replace activations of one run by another's, one cell at a time, and score each run.

    ``patch(model, prompts, sites)`` takes aligned Prompts; ``patch(model, clean, corrupted,
    sites)`` takes two strings, two lists of strings, or two token tensors.

    >>> interp.patch(model, pairs, "L*.resid_pre")                          # doctest: +SKIP
    PatchResult(layer 4 × position 8; logit_diff in logits: clean 9.1, corrupted -8.7; ...)

    Args:
        sites: what to patch; each wildcard, range or list makes an axis (``"L*.H*.z"``).
            Several sites in a list make a first axis ``site``.
        metric: ``logit_diff``, ``prob``, ``prob_diff``, ``log_prob``, ``kl``, ``nll``, ``rank``,
            ``accuracy``, or a callable ``(logits [prompt, pos, vocab], prompts) -> [prompt]``.
        direction: the run that is edited: ``"denoise"`` puts clean values into the corrupted
            run (default), ``"noise"`` the reverse (default for zero, mean, resample, tensors).
        source: what is put in: None or ``"clean"``/``"corrupted"`` (the other run's value),
            ``"zero"``, ``"mean"`` (of ``reference``, column by column), ``"resample"`` (of
            another prompt of the same run, by seed), or a tensor that broadcasts to the cell.
        positions: ``"each"`` column, ``"all"`` at once, a name that the prompts define, a
            number, or a list of those. None: the site's own ``@position``; else each column
            for sites on the residual stream and in the MLP, all at once for heads.
        answers, foils: for two strings or lists: the tokens compared. None takes each
            prompt's own top token: the clean prompt's as answer, the corrupted one's as foil.
        engine: ``"plain"`` is one forward pass for each cell. ``"auto"`` takes the fastest
            there is for the sweep; the result says which it was.
        progress: show a bar; None shows one for long sweeps if a person can see it.

    Raises:
        SiteError: a site does not exist or is refused for this model.
        PromptError: pairs of different lengths, or both prompts predict the same token.
        RunError: a source that is the edited run, or one that does not fit these prompts.
        MetricError: the prompts lack what the metric needs.
    """
    model_prompts, sites = _arguments(model, prompts, rest, answers, foils)
    how = metrics.resolve(metric)
    if engine not in ("auto", "plain"):
        raise RunError(f"engine={engine!r}; expected 'auto' or 'plain'.")
    direction = pick_direction(direction, source, model_prompts)
    grid = lay_out(model.anatomy, sites, positions, model_prompts)
    model_prompts = _with_answers(model, model_prompts, how)
    score, clean, corrupted = _baselines(model, model_prompts, how, batch)
    side: Literal["clean", "corrupted"] = "corrupted" if direction == "denoise" else "clean"
    edit_of = source_edits(
        model, model_prompts, grid,
        direction=direction, source=source, reference=reference, seed=seed,
        batch=batch,
    )  # fmt: skip
    cells = run_cells(
        model, model_prompts, grid,
        side=side, metric=how, edit_of=edit_of, score=score[side], batch=batch, progress=progress,
    )  # fmt: skip
    per_prompt = cells.view(*grid.shape, len(model_prompts)).cpu()
    call = {
        "verb": "patch",
        "sites": _text(sites),
        "metric": how.name,
        "direction": direction,
        "source": _fingerprint(source) if isinstance(source, Tensor) else source,
        "reference": None if reference is None else reference.hash,
        "named_columns": {
            name: column.tolist() for name, column in model_prompts.positions.items()
        },
        "positions": positions if isinstance(positions, int | str | None) else list(positions),
    }
    drawn = source == "resample" if isinstance(source, str) else False
    return PatchResult(
        values=per_prompt.mean(-1),
        per_prompt=per_prompt,
        axes=grid.axes,
        clean=clean.cpu(),
        corrupted=None if corrupted is None else corrupted.cpu(),
        metric=how.name,
        unit=how.unit,
        direction=direction,
        engine="plain",
        answers=_names(model, model_prompts.answers),
        foils=_names(model, model_prompts.foils),
        provenance=Provenance.of(model, model_prompts, seed=seed if drawn else None, **call),
    )


def _arguments(
    model: Model, prompts: Any, rest: tuple[Any, ...], answers: Any, foils: Any
) -> tuple[Prompts, Sites]:
    """The two ways to call: Prompts and sites, or clean, corrupted and sites."""
    if isinstance(prompts, Prompts):
        if len(rest) != 1:
            raise RunError("patch(model, prompts, sites): expected Prompts and then the sites.")
        if answers is not None or foils is not None:
            raise RunError("answers= and foils= belong to text; these Prompts carry their own.")
        return prompts, rest[0]
    if len(rest) != 2:
        raise RunError(
            "expected patch(model, prompts, sites) with Prompts from model.prompts or "
            "interp.prompts, or patch(model, clean, corrupted, sites)."
        )
    corrupted, sites = rest
    return model.prompts(prompts, corrupted, answers=answers, foils=foils), sites


def _with_answers(model: Model, prompts: Prompts, metric: Metric) -> Prompts:
    """The prompts, with each prompt's own top token where the metric needs what is not given."""
    custom = not metric.stacks  # a callable may read answers and foils
    missing_answers = (metric.needs_answers or custom) and prompts.answers is None
    missing_foils = (metric.needs_foils or custom) and prompts.foils is None
    if not (missing_answers or missing_foils) or prompts.corrupted is None:
        return prompts
    clean, corrupted = (
        execute(model.anatomy, side.to(model.device), logits="last").logits[:, 0].argmax(-1).cpu()
        for side in (prompts.clean, prompts.corrupted)
    )
    same = (clean == corrupted).nonzero().flatten().tolist()
    if missing_answers and missing_foils and same:
        if custom:
            return prompts
        raise PromptError(
            f"both prompts of pair {same[0]} predict {model.to_string([int(clean[same[0]])])!r}, so "
            "there is no difference to patch: give answers= and foils=, or other prompts."
        )
    return replace(
        prompts,
        answers=clean[:, None] if missing_answers else prompts.answers,
        foils=corrupted[:, None] if missing_foils else prompts.foils,
    )


def _baselines(
    model: Model, prompts: Prompts, metric: Metric, batch: int | Literal["auto"]
) -> tuple[dict[str, Callable[[Run], Tensor]], Tensor, Tensor | None]:
    """A scorer for each side, and both baselines."""
    answer = metric.positions == "answer"
    moved = prompts_on(prompts, model.device)

    def logits(tokens: Any) -> Run:
        return execute(model.anatomy, tokens.to(model.device), logits="last" if answer else "all",
                       rows_at_once=batch)  # fmt: skip

    clean_run = logits(prompts.clean)
    reference = clean_run.logits[:, 0] if answer else None

    def scorer(side: str) -> Callable[[Run], Tensor]:
        def score(run: Run) -> Tensor:
            if not answer:
                return metrics.evaluate(metric, run.logits, moved, side=side)  # type: ignore[arg-type]
            return metrics.at_answer(metric, run.logits[:, 0], moved, reference=reference)

        return score

    score = {side: scorer(side) for side in ("clean", "corrupted")}
    clean = score["clean"](clean_run)
    if prompts.corrupted is None:
        return score, clean, None
    return score, clean, score["corrupted"](logits(prompts.corrupted))


def prompts_on(prompts: Prompts, device: torch.device) -> Prompts:
    """The prompts with what a metric reads on the model's device."""

    def move(value: Any) -> Any:
        return None if value is None else value.to(device)

    return replace(
        prompts,
        clean=move(prompts.clean),
        corrupted=move(prompts.corrupted),
        answers=move(prompts.answers),
        foils=move(prompts.foils),
        positions={name: move(column) for name, column in prompts.positions.items()},
    )


def _names(model: Model, ids: Int[Tensor, "prompt a"] | None) -> tuple[str, ...] | None:
    if ids is None:
        return None
    if model.tokenizer is None:
        return tuple(" ".join(str(i) for i in row if i >= 0) for row in ids.tolist())
    return tuple("|".join(model.to_string([i]) for i in row if i >= 0) for row in ids.tolist())


def _fingerprint(source: Tensor) -> str:
    """A tensor's shape and sha256, to tell one source from another."""
    values = source.detach().float().cpu().contiguous().numpy().tobytes()
    return f"tensor {list(source.shape)} sha256 {hashlib.sha256(values).hexdigest()}"


def _text(sites: Sites) -> str | list[str]:
    if isinstance(sites, str | Site):
        return str(Site.parse(sites))
    return [str(Site.parse(site)) for site in sites]
