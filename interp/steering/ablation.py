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

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from jaxtyping import Int
from torch import Tensor

from interp.errors import PromptError, ResultError, RunError, SiteError, nearest
from interp.metrics import Metric
from interp.models.model import Model
from interp.patching.cells import Positions, Sites, members
from interp.patching.result import PatchResult
from interp.patching.run import Engine
from interp.patching.verb import patch
from interp.prompts.prompts import Prompts
from interp.runs.execute import execute
from interp.runs.plan import resolve
from interp.sites import ALL, Site
from interp.token_batch import TokenBatch

__all__ = ["ablate", "asked_of", "chance", "default_metric", "random_ablation"]

Method = Literal["mean", "resample", "zero", "noise"]
Inputs = Prompts | str | Sequence[str] | Int[Tensor, "prompt pos"]


def ablate(
    model: Model,
    prompts: Inputs,
    sites: Sites,
    *,
    method: Method | None = None,
    reference: Inputs | None = None,
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
            prompts themselves are used only if you pass them here.
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
    source = _method(method, reference, asked)
    if metric is None:
        metric = default_metric(asked)
    means = None if reference is None else _reference(model, reference)
    return patch(
        model, asked, sites, metric=metric, direction="noise", source=source, reference=means,
        positions=positions, window=window, seed=seed, batch=batch, engine=engine, resume=resume,
        progress=progress,
    )  # fmt: skip


def random_ablation(
    model: Model,
    prompts: Inputs,
    sites: int | str,
    *,
    draws: int = 50,
    pool: str | Site | Sequence[str | Site] = "L*.H*.z",
    same_layers: bool = False,
    seed: int = 0,
    **options: Any,
) -> PatchResult:
    """The control of an ablation: random sets of as many sites, ablated in the same way.

    The axis ``site`` of the result names each set. :func:`chance` compares a set of your own.

    >>> null = interp.random_ablation(model, prompts, "L1.H0.z + L2.H3.z")  # doctest: +SKIP

    Args:
        sites: how many sites a set has, or a group such as ``"L1.H0.z + L2.H3.z"`` to match.
        draws: how many sets; sets may repeat, and may be the group itself, as in any
            permutation test.
        pool: what is drawn from: heads or neurons by wildcard, or a list of sites.
        same_layers: draw for each site of the group another (or itself) of its own layer.
        seed: of the draws, and of ``resample`` and ``noise``.
        options: of :func:`ablate`: ``method``, ``reference``, ``metric``, ``positions``, ...

    Raises:
        RunError: no draws, or ``same_layers`` without a group.
        SiteError: the pool has fewer sites than a set (or than a layer needs).
    """
    if isinstance(draws, bool) or not hasattr(draws, "__index__") or draws < 1:
        raise RunError(f"draws={draws!r}; expected a number of random sets, at least 1.")
    every = _pool(model, pool)
    layers = _layers(model, sites, every, same_layers=same_layers)
    generator = torch.Generator().manual_seed(seed)
    sets = [_draw(every, layers, generator) for _ in range(draws)]
    return ablate(model, prompts, sets, seed=seed, **options)


def chance(result: PatchResult, null: PatchResult) -> float:
    """How often a random set moves the metric at least as far: a permutation p-value.

    ``(1 + number of random sets with |effect| ≥ the set's) / (1 + number of random sets)``
    (Phipson & Smyth 2010), so never 0; with 50 draws at least .02.

    Args:
        result: an ablation of one cell.
        null: :func:`random_ablation` of the same prompts, metric and method.

    Raises:
        ResultError: several cells, unfinished ones, or results that cannot be compared.
    """
    if result.values.numel() != 1 or not bool(result.done.all() and null.done.all()):
        raise ResultError(
            f"chance() compares one finished cell with finished random sets; given {result!r} and "
            f"{null!r}. Pick a cell with result.select(...)."
        )
    for word in ("metric", "direction"):
        if getattr(result, word) != getattr(null, word):
            raise ResultError(
                f"these results differ in {word}: {getattr(result, word)!r} and "
                f"{getattr(null, word)!r}. Run both alike."
            )
    same = ("source", "reference", "positions")
    ours, theirs = result.provenance, null.provenance
    if (
        ours.prompts_hash != theirs.prompts_hash
        or ours.weights_hash != theirs.weights_hash
        or any(ours.call.get(word) != theirs.call.get(word) for word in same)
    ):
        raise ResultError(
            "these results are of other prompts, another model or another method: ablate the set "
            "and draw the random ones with the same arguments."
        )
    effect = (result.values.flatten() - result.clean.mean()).abs()
    random = (null.values.flatten() - null.clean.mean()).abs()
    return float((1 + (random >= effect - 1e-6).sum()) / (1 + len(random)))


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


def _pool(model: Model, pool: str | Site | Sequence[str | Site]) -> list[Site]:
    """Single sites: wildcards over layers, heads and neurons written out."""
    found: dict[Site, None] = {}
    for site in resolve(model.anatomy, pool):
        if site.head is not None or site.kind.headed:
            count = model.n_kv_heads if "kv_head" in site.kind.axes else model.n_heads
            found |= {site.at(head=n): None for n in (site.head or ALL).expand(count, "head")}
        elif site.unit is not None:
            count = model.anatomy.d_mlp or 0
            found |= {site.at(unit=n): None for n in site.unit.expand(count, "neuron")}
        else:
            found[site] = None
    return list(found)


def _layers(
    model: Model, sites: int | str, pool: Sequence[Site], *, same_layers: bool
) -> list[str | None]:
    """For each member of a set the layer it is drawn from; None: any."""
    if isinstance(sites, str | Site):
        group = members(sites)
        own = [one for site in group for one in _pool(model, [site])]
        layers = [_layer(site) if same_layers else None for site in own]
    elif isinstance(sites, bool) or not hasattr(sites, "__index__") or sites < 1:
        raise RunError(f"sites={sites!r}; expected a number of sites, or a group such as 'A + B'.")
    elif same_layers:
        raise RunError("same_layers=True needs the group to match, such as 'L1.H0.z + L2.H3.z'.")
    else:
        layers = [None] * sites
    for layer in set(layers):
        have = sum(layer is None or _layer(site) == layer for site in pool)
        if have < layers.count(layer):
            where = "the pool" if layer is None else f"layer {layer} of the pool"
            raise SiteError(f"{where} has {have} sites, and a set takes {layers.count(layer)}.")
    return layers


def _layer(site: Site) -> str | None:
    return None if site.layer is None else site.layer.text


def _draw(pool: Sequence[Site], layers: Sequence[str | None], generator: torch.Generator) -> str:
    """A random group, without repetition."""
    chosen: set[Site] = set()
    for layer in layers:
        free = [s for s in pool if s not in chosen and (layer is None or _layer(s) == layer)]
        chosen.add(free[int(torch.randint(len(free), (), generator=generator))])
    return " + ".join(str(site) for site in pool if site in chosen)
