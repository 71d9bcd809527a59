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
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import index
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Int
from torch import Tensor

from interp import metrics
from interp.engine.work import Work, tokens_at_once
from interp.errors import RunError
from interp.metrics import Metric
from interp.models.model import Model
from interp.patching.cells import Grid, Positions, lay_out, members
from interp.patching.paths import PathGrid, is_path, lay_out_paths, values_at_receivers
from interp.patching.result import PatchResult
from interp.patching.resume import same_sweep
from interp.patching.run import Engine, Outcome, choose_way, run_cells
from interp.patching.setup import Baselines, arguments, baselines, names_of, run_sides, with_answers
from interp.patching.sources import (
    Direction,
    Side,
    Source,
    edited_side,
    pick_direction,
    read_side,
    values_of,
)
from interp.prompts.prompts import Prompts
from interp.results import Axis, Provenance
from interp.sites import Edge, Site

__all__ = ["checked", "patch", "sites_text", "source_text"]


def patch(
    model: Model,
    prompts: Prompts | str | Sequence[str] | Int[Tensor, "prompt pos"],
    *rest: Any,
    metric: str | Metric | Callable[..., Tensor] = "logit_diff",
    direction: Direction | None = None,
    source: Source = None,
    positions: Positions = None,
    window: int = 1,
    answers: Any = None,
    foils: Any = None,
    reference: Prompts | None = None,
    seed: int = 0,
    batch: int | Literal["auto"] = "auto",
    engine: Engine = "auto",
    resume: PatchResult | str | Path | None = None,
    progress: bool | None = None,
) -> PatchResult:
    """Replace activations of one run by another's, one cell at a time, and score each run.

    ``patch(model, prompts, sites)`` takes aligned Prompts; ``patch(model, clean, corrupted,
    sites)`` takes two strings, two lists of strings, or two token tensors.

    >>> interp.patch(model, pairs, "L*.resid_pre")                          # doctest: +SKIP
    PatchResult(layer 4 × position 8; logit_diff in logits: clean 9.1, corrupted -8.7; ...)

    Args:
        sites: what to patch; each wildcard, range or list makes an axis (``"L*.H*.z"``).
            Several sites in a list make a first axis ``site``; ``"L1.H0.z + L2.H3.z"`` patches
            both at once. ``"L1.H0.z -> L2.H1.k"`` patches the direct path from a sender to a
            receiver, with everything else frozen: other heads (Wang et al. 2022) and, as in
            Goldowsky-Dill et al. 2023, MLPs too. A direct path stays at its position: a sender
            elsewhere, or behind its receiver, gives the baseline.
        metric: ``logit_diff``, ``prob``, ``prob_diff``, ``log_prob``, ``kl``, ``nll``, ``rank``,
            ``accuracy``, or a callable ``(logits [prompt, pos, vocab], prompts) -> [prompt]``.
        direction: the run that is edited: ``"denoise"`` puts clean values into the corrupted
            run (default), ``"noise"`` the reverse (default for zero, mean, resample, tensors).
        source: what is put in: None or ``"clean"``/``"corrupted"`` (the other run's value),
            ``"zero"``, ``"mean"`` (of ``reference``, column by column), ``"resample"`` (of
            another prompt of the same run, by seed), ``"noise"`` (the run's own value plus
            Gaussian noise of the site's own standard deviation, by seed), an edit of the run's
            own value such as ``interp.Noise(std=0.1)``, a tensor that broadcasts to the cell, or
            a mapping from sites to such tensors (``interp.surveys.means(...)``).
        positions: ``"each"`` column, ``"all"`` at once, a name that the prompts define, a
            number, or a list of those. None: the site's own ``@position``; else each column
            for sites on the residual stream and in the MLP, all at once for heads.
        window: replace this many layers around each one of the layer axis (Meng et al. 2022).
        answers, foils: for two strings or lists: the tokens compared. None takes each
            prompt's own top token: the clean prompt's as answer, the corrupted one's as foil.
        reference: prompts to average over for ``source="mean"``; the evaluated prompts are
            never averaged unless you pass them yourself.
        batch: prompts × cells at a time; "auto" fits them to caches and memory.
        engine: ``"replay"`` restarts each cell at the block it changes, on the positions that
            can have changed, many cells at once; ``"plain"`` is one forward pass for each
            cell, the reference. ``"auto"`` replays where the model's blocks can be, and the
            result says what was done and why; where dictionaries stand it takes the plain path, and
            leaves out the features that no prompt would change (``work["skipped"]``). Both agree within float
            rounding (1e-5 of the scores in float32).
        resume: the result (or its file) of this call, interrupted: only what it lacks is run.
            Ctrl-C returns what is finished, with ``done`` False elsewhere.
        progress: show a bar; None shows one for long sweeps if a person can see it.

    Raises:
        SiteError: a site does not exist or is refused for this model.
        PromptError: pairs of different lengths, or both prompts predict the same token.
        RunError: a source that is the edited run, or one that does not fit these prompts.
        MetricError: the prompts lack what the metric needs.
    """
    pairs, sites = arguments(model, prompts, rest, answers, foils, "patch")
    how = metrics.resolve(metric)
    direction = pick_direction(direction, source, pairs)
    side: Side = "corrupted" if direction == "denoise" else "clean"
    positions, window = checked(positions, window, batch)
    grid = _grid(model, sites, positions, pairs, window, at_answer=how.positions == "answer")
    sent = grid.senders if isinstance(grid, PathGrid) else grid.cells
    pairs = with_answers(model, pairs, how)
    tokens = edited_side(pairs, direction).to(model.device)
    way = choose_way(
        model, tokens, grid.cells, sent, whole=how.positions == "all", engine=engine, batch=batch
    )
    logits, known = run_sides(
        model, pairs, how, sent,
        read=read_side(source, direction),
        known={} if way.logits is None else {side: way.logits}, batch=batch,
    )  # fmt: skip
    base = baselines(pairs, how, logits)
    values = values_of(
        model, pairs, sent, direction=direction, source=source, reference=reference,
        seed=seed, batch=batch, known=known,
    )  # fmt: skip
    work = Work(tokens_at_once(model.anatomy, batch, tokens.ids.shape[1]))
    if isinstance(grid, PathGrid):
        values = values_at_receivers(way, grid.paths, values, work)
    drawn = isinstance(source, str) and source in ("resample", "noise")
    provenance = Provenance.of(
        model, pairs, seed=seed if drawn else None,
        verb="patch", sites=sites_text(sites), metric=how.name, direction=direction,
        source=source_text(source),
        reference=None if reference is None else reference.hash,
        reference_columns=None if reference is None else _columns(reference),
        named_columns=_columns(pairs),
        positions=positions if isinstance(positions, int | str | None) else list(positions),
        window=window,
    )  # fmt: skip
    outcome = run_cells(
        way, values, base.readouts[side], base.scores[side], _differs(pairs, source),
        before=_finished(resume, provenance, grid.axes, base), work=work, progress=progress,
    )  # fmt: skip
    per_prompt = outcome.scores.view(*grid.shape, len(pairs))
    return PatchResult(
        values=per_prompt.mean(-1),
        per_prompt=per_prompt,
        done=outcome.done.view(grid.shape),
        axes=grid.axes,
        clean=base.scores["clean"].cpu(),
        corrupted=base.scores["corrupted"].cpu() if "corrupted" in base.scores else None,
        metric=how.name,
        unit=how.unit,
        direction=direction,
        engine=outcome.engine,
        work=outcome.work,
        answers=names_of(model, pairs.answers),
        foils=names_of(model, pairs.foils),
        provenance=provenance,
    )


def _grid(
    model: Model, sites: Any, positions: Positions, pairs: Prompts, window: int, *, at_answer: bool
) -> Grid | PathGrid:
    if not is_path(sites):
        return lay_out(model.anatomy, sites, positions, pairs, window=window)
    if window != 1:
        raise RunError("window= slides over layers of sites; a path has two ends: leave it out.")
    return lay_out_paths(model.anatomy, sites, positions, pairs, at_answer=at_answer)


def _differs(pairs: Prompts, source: Source) -> Int[Tensor, " prompt"]:
    """Each prompt's first column at which a value of the source can differ from the run's own."""
    if source is None or (isinstance(source, str) and source in ("clean", "corrupted")):
        return pairs.differing()
    return torch.zeros(len(pairs), dtype=torch.long)


def _finished(
    resume: PatchResult | str | Path | None,
    provenance: Provenance,
    axes: tuple[Axis, ...],
    base: Baselines,
) -> Outcome | None:
    """What an interrupted sweep has finished.

    Raises:
        ResultError: it is another sweep.
    """
    if resume is None:
        return None
    old = resume if isinstance(resume, PatchResult) else PatchResult.load(resume)
    theirs = {"clean": old.clean, "corrupted": old.corrupted}
    scores = {side: (own.cpu(), theirs[side]) for side, own in base.scores.items()}
    same_sweep(provenance, old.provenance, axes, old.axes, scores)
    return Outcome(
        old.per_prompt.reshape(-1, old.per_prompt.shape[-1]),
        old.done.flatten(),
        old.engine,
        old.work,
    )


def _columns(prompts: Prompts) -> dict[str, list[int]]:
    return {name: column.tolist() for name, column in prompts.positions.items()}


def checked(positions: Any, window: Any, batch: Any) -> tuple[Positions, int]:
    """Positions and window as plain numbers.

    Raises:
        RunError: a window or a batch that is no whole number.
    """
    if isinstance(window, bool) or not hasattr(window, "__index__"):
        raise RunError(f"window={window!r}; expected a whole number of layers, such as 5.")
    if batch != "auto" and (isinstance(batch, str) or not hasattr(batch, "__index__")):
        raise RunError(f"batch={batch!r}; expected a positive number, or 'auto'.")
    if isinstance(positions, str | None):
        return positions, index(window)
    if hasattr(positions, "__index__") and not getattr(positions, "shape", ()):
        return index(positions), index(window)
    if not isinstance(positions, Iterable):
        raise RunError(
            f"positions={positions!r}; expected 'each', 'all', a name, a number, or a list of those."
        )
    listed = [one if isinstance(one, str) else index(one) for one in positions]
    return listed, index(window)


def _fingerprint(source: Tensor) -> str:
    """A tensor's shape and sha256, to tell one source from another."""
    values = source.detach().float().cpu().contiguous().numpy().tobytes()
    return f"tensor {list(source.shape)} sha256 {hashlib.sha256(values).hexdigest()}"


def source_text(source: Source) -> str | None:
    """A source, for the record."""
    if isinstance(source, Tensor):
        return _fingerprint(source)
    if isinstance(source, Mapping):
        each = sorted(f"{site}: {_fingerprint(value)}" for site, value in source.items())
        digest = hashlib.sha256("\n".join(each).encode()).hexdigest()
        return f"mapping of {len(source)} sites sha256 {digest}"
    return source if source is None or isinstance(source, str) else repr(source)


def sites_text(sites: Any) -> str | list[str]:
    """Sites, groups and paths in their canonical form, for the record."""
    if isinstance(sites, str | Site | Edge):
        ends = str(sites).split("->")
        return " -> ".join(" + ".join(str(site) for site in members(end)) for end in ends)
    return [str(sites_text(one)) for one in sites]
