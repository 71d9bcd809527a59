"""``interp.features``: what the features of a dictionary are about.

Two passes over the same tokens: the first counts how often each feature fires and how strongly at most,
the second looks at the chosen ones (:mod:`.look`). Then their weights are read at both ends of the model
(:mod:`.ends`), compared with each other (:mod:`.neighbours`) and held against chance (:mod:`.control`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from interp.dictionaries.dictionary import Dictionary
from interp.errors import BudgetError, DictionaryError, ModelError, RunError, warn
from interp.harvesting.stream import stream
from interp.inspection.chosen import Chosen, feature_name, parsed
from interp.inspection.control import by_chance, concentration, random_kurtosis, random_readers
from interp.inspection.ends import Tokens, de_embedding, logit_effects
from interp.inspection.firing import Fired, Firing
from interp.inspection.look import Look, Looked
from interp.inspection.neighbours import by_firing, by_weights
from interp.inspection.result import Features
from interp.models.model import Model
from interp.progress import announce
from interp.runs.memory import as_text, available
from interp.store.rows import Rows
from interp.surveys.source import is_whole, opened
from interp.surveys.survey import survey
from interp.weight_lenses.ends import token_texts

__all__ = ["Which", "features"]

Which = Literal["live"] | int | Sequence[int | str] | None
#: Features whose correlations with each other are still cheap to sum.
MOST_TOGETHER = 2048
#: Tokens that are read for the clock, and how much longer both passes take than the first alone.
_SAMPLE, _PASSES = 2048, 3


@torch.no_grad()
def features(
    dictionary: Dictionary,
    model: Model,
    source: Any,
    *,
    which: Which = None,
    tokens: int | None = 100_000,
    k: int = 20,
    context: tuple[int, int] = (10, 5),
    intervals: int = 5,
    sampled: int = 4,
    bins: int = 40,
    top: int = 10,
    neighbours: int = 5,
    controls: int = 256,
    n_ctx: int = 128,
    seed: int = 0,
    size: int = 4096,
    progress: bool | None = None,
) -> Features:
    """Where features are active, what they read and write, what resembles them, and what chance gives.

    >>> found = interp.features(dictionary, model, "demo", which="live")    # doctest: +SKIP
    >>> found.feature(12)                                                   # doctest: +SKIP
    >>> found.dashboard("out/features.html")                                # doctest: +SKIP

    Memory: activations of all tokens are never kept. What is kept takes features × (k + intervals ·
    sampled) × (context + 1) × 8 bytes, twice while it is updated: 5 MB for 1000 features as given here.
    Time: a live corpus is run twice.

    Args:
        dictionary: of any kind; the sites it reads must be the model's.
        model: the model that it belongs to. With ``model.random_twin()`` everything is a null.
        source: an ActivationStore that has the sites the dictionary reads, ``interp.stream(...)``, a list of
            Rows; or a corpus as :func:`interp.harvest` takes it, which is run.
        which: None: all features; ``"live"``: those that fire in these tokens; a number: so many of
            the live ones, drawn by the seed; a list of numbers or names (``"L0.F12"`` of a cross-layer transcoder).
        tokens: read at most so many; None: all.
        k: strongest tokens of each feature, at most one of each document.
        context: tokens shown before and behind each.
        intervals: equal intervals from zero to a feature's maximum (Bricken et al. 2023), and
        sampled: tokens drawn at random from each, by the seed.
        bins: of the histogram of positive activations.
        top: tokens at each end of the logit effects and of the de-embedding.
        neighbours: nearest features of each, by decoder, by encoder and by correlation (the latter among the
            chosen ones, where they are at most 2048).
        controls: random directions that the features are held against.
        n_ctx: tokens of a document that the model sees at once, for a corpus that is run.
        seed: of what is drawn.
        size: rows at a time; it changes speed and memory, not results.
        progress: None says what it will take, and shows a bar to a person, True always; False is silent.

    Raises:
        DictionaryError: features that are not there, none that fires, or activations of another width.
        SiteError: the source or the model lacks a site that the dictionary reads.
        RunError: options out of range, no tokens, or a source that cannot be read twice.
        BudgetError: examples of so many features do not fit in memory.
    """
    counts = {"k": k, "intervals": intervals, "bins": bins, "top": top, "neighbours": neighbours,
              "controls": controls}  # fmt: skip
    _check(dictionary, model, source, context, {"sampled": sampled, "seed": seed}, counts)
    seen = _opened(model, source, dictionary, n_ctx, tokens)
    options: dict[str, Any] = {"tokens": tokens, "size": size, "progress": progress}

    listed = None if which is None or isinstance(which, str | int) else parsed(dictionary, which)
    asked = Chosen.all(dictionary) if listed is None else Chosen.some(dictionary, listed)
    if progress is not False:
        _say(model, seen, asked, tokens)
    (fired,) = survey(seen, [Firing(asked)], **options)
    pairs = asked.pairs
    index = _wanted(which, fired, seed)
    everything = which is None
    chosen = asked if everything else Chosen.some(dictionary, [pairs[i] for i in index.tolist()])
    _budget(len(chosen), k + intervals * sampled, sum(context) + 1)

    record = {
        "verb": "features", "dictionary": dictionary.hash, "which": _json(which), "k": k,
        "context": list(context), "intervals": intervals, "sampled": sampled, "bins": bins,
        "controls": controls, "n_ctx": n_ctx,
    }  # fmt: skip
    plan = Look(
        chosen, fired.most[index], random_readers(dictionary, controls, seed), k,
        (context[0], context[1]), intervals, sampled, bins, len(chosen) <= MOST_TOGETHER, seed, record,
    )  # fmt: skip
    left = min(fired.n_tokens, tokens or fired.n_tokens)  # the same, also where Ctrl-C has ended it
    ((looked, provenance),) = survey(seen, [plan], **{**options, "tokens": left})
    return Features(
        **_described(dictionary, model, chosen, top, neighbours, looked, controls, seed),
        **_measured(plan, looked), words=None,
        live=int((fired.count > 0).sum()) if listed is None else None,
        provenance=replace(
            provenance, model=model.name, weights_hash=model.weights_hash, seed=seed
        ),
    ).with_texts(token_texts(model, out=True))  # fmt: skip


# -- what was asked ------------------------------------------------------------------------


def _check(
    dictionary: Any, model: Any, source: Any, context: Any, zero: dict[str, Any], one: dict[str, Any]
) -> None:  # fmt: skip
    if not isinstance(dictionary, Dictionary) or not isinstance(model, Model):
        raise DictionaryError(
            f"features got a {type(dictionary).__name__} and a {type(model).__name__}; expected "
            "features(dictionary, model, source)."
        )
    pair = isinstance(context, tuple | list) and len(context) == 2
    if (
        not pair
        or not all(is_whole(n, least=0) for n in [*context, *zero.values()])
        or not all(is_whole(n, least=1) for n in one.values())
    ):
        given = ", ".join(f"{name}={value!r}" for name, value in {**one, **zero}.items())
        raise RunError(
            f"{given}, context={context!r}; expected whole numbers from 1 up (sampled and seed from 0 up), and "
            "how many tokens to show before and behind, such as (10, 5)."
        )
    if isinstance(source, Iterator):
        raise RunError(
            f"features got a {type(source).__name__}, which can be read once, and it reads twice: give a list "
            "of Rows, an ActivationStore, or a corpus."
        )
    known = dictionary.spec.weights_hash
    if known is not None and known != model.weights_hash:
        warn(
            f"this dictionary was trained on {dictionary.spec.model or 'a model'} with other weights than "
            f"{model.name}'s: what it shows is a null, not an explanation."
        )


def _opened(
    model: Model, source: Any, dictionary: Dictionary, n_ctx: int, tokens: int | None
) -> Any:
    """A source of activations: what was given, or the corpus run through the model."""
    if hasattr(source, "batches") and hasattr(source, "sites"):
        return source
    if isinstance(source, Rows) or (
        isinstance(source, list) and source and isinstance(source[0], Rows)
    ):
        return source
    reads = list(dict.fromkeys(dictionary.spec.reads))
    return stream(model, source, reads, context=n_ctx, tokens=tokens)


def _say(model: Model, seen: Any, asked: Chosen, tokens: int | None) -> None:
    """What it will take, from a few tokens read for the clock."""
    source: Any = opened(seen)
    known = len(source) if hasattr(source, "__len__") else None
    total = min(tokens or known or 0, known or tokens or 0)
    start, few = time.perf_counter(), min(_SAMPLE, total or _SAMPLE)
    (some,) = survey(seen, [Firing(asked)], tokens=few, size=_SAMPLE, progress=False)
    seconds = (time.perf_counter() - start) / some.n_tokens * total * _PASSES
    much = f"{total:,} tokens, about {max(1, round(seconds))} s" if total else "all its tokens"
    announce(
        f"features of {asked.dictionary.spec.name} in {model.name!r}: {len(asked):,} features, "
        f"two passes over {much}"
    )


def _wanted(which: Which, fired: Fired, seed: int) -> Tensor:
    """Places of the chosen features among those that were asked, in order."""
    device, n = fired.count.device, len(fired.count)
    if which is None or not isinstance(which, str | int):
        return torch.arange(n, device=device)
    alive = (fired.count > 0).nonzero().flatten()
    if isinstance(which, str) and which != "live":
        raise DictionaryError(
            f"which={which!r}; expected 'live', a number of features, a list of them, or None for all."
        )
    if not isinstance(which, str) and (isinstance(which, bool) or which < 1):
        raise DictionaryError(f"which={which!r}; expected a number of features from 1 up.")
    if not len(alive):
        raise DictionaryError(
            f"none of {n:,} features fires in {fired.n_tokens:,} tokens: is this the model, and the site, that "
            "the dictionary was trained on?"
        )
    if isinstance(which, str) or which >= len(alive):
        return alive
    order = torch.randperm(len(alive), generator=torch.Generator().manual_seed(seed))
    return alive[order[:which].sort().values.to(device)]


def _budget(n: int, examples: int, window: int) -> None:
    need = 2 * n * examples * window * 12 + (2 * 8 * n * n if n <= MOST_TOGETHER else 0)
    free = available(torch.device("cpu"))
    if need > 2**27 and need > free:
        raise BudgetError(
            f"{examples} examples of {n:,} features take {as_text(need)}, and {as_text(free)} are free: ask for "
            "fewer with which=, a smaller k= or a narrower context=."
        )


def _json(which: Which) -> Any:
    return list(which) if isinstance(which, Sequence) and not isinstance(which, str) else which


# -- what was found ------------------------------------------------------------------------


def _measured(plan: Look, looked: Looked) -> dict[str, Any]:
    """What the second pass says, as the result's attributes."""
    kept = [looked.best, *reversed(looked.drawn)]  # the strongest first
    examples = {
        name: torch.cat([getattr(part, name) for part in kept], 1).cpu()
        for name in ("values", "tokens", "document", "position")
    }
    before = plan.window[0]
    share, token = concentration(looked.best.tokens[..., before])
    null, _ = concentration(looked.random.tokens[..., 0])
    counts = looked.count.clamp(min=1)
    return {
        **examples, "k": plan.k, "before": before, "sampled": plan.sampled,
        "intervals": plan.intervals, "n_tokens": looked.n_tokens, "count": looked.count.cpu(),
        "mean": (looked.total / counts).float().cpu(), "most": looked.most.cpu(),
        "counts": looked.counts.cpu(), "concentration": share.cpu(), "own_token": token.cpu(),
        "random_concentration": null.cpu(),
        "chance_concentration": by_chance(looked.vocabulary, plan.k, seed=plan.seed),
    }  # fmt: skip


def _described(
    dictionary: Dictionary, model: Model, chosen: Chosen, top: int, near: int, looked: Looked,
    controls: int, seed: int,
) -> dict[str, Any]:  # fmt: skip
    """What the weights say, as the result's attributes."""
    pairs, notes = chosen.pairs, {}
    top = min(top, model.d_vocab_out)
    out: dict[str, Any] = {
        "names": tuple(feature_name(dictionary, *pair) for pair in pairs),
        "parts": tuple(part for part, _ in pairs), "units": tuple(unit for _, unit in pairs),
        "sites": dictionary.spec.features, "reads": dictionary.spec.reads, "writes": dictionary.spec.writes, "d_sae": dictionary.d_sae,
        "dictionary": repr(dictionary), "random_kurtosis": None,
    }  # fmt: skip
    logit, notes["logits"] = _told(logit_effects, model, chosen, top)
    embed, notes["embed"] = _told(de_embedding, model, chosen, top)
    if logit is not None:
        out["random_kurtosis"] = random_kurtosis(model, chosen, controls, seed)
    for name, found in (("logit", logit), ("embed", embed)):
        for field in ("top_ids", "top", "bottom_ids", "bottom", "kurtosis"):
            if (name, field) not in {("embed", "bottom_ids"), ("embed", "bottom")}:
                value = None if found is None else getattr(found, field)
                out[f"{name}_{field}"] = None if value is None else value.cpu()
    for side in ("dec", "enc"):
        found_near = by_weights(chosen, side, near)
        out[f"{side}_near"], out[f"{side}_cosine"] = found_near.ids, found_near.values
    together = None if looked.products is None else by_firing(looked, near)
    out["fires_with"] = None if together is None else together.ids
    out["correlation"] = None if together is None else together.values
    notes["correlation"] = (
        "Pearson's r of activations over all tokens, among the features shown here." if together
        else f"not summed: more than {MOST_TOGETHER} features."
    )  # fmt: skip
    return {**out, "notes": notes}


def _told(
    end: Callable[[Model, Chosen, int], tuple[Tokens, str]], model: Model, chosen: Chosen, top: int
) -> tuple[Tokens | None, str]:
    """What is found at one end of the model, or why nothing is."""
    try:
        return end(model, chosen, top)
    except (DictionaryError, ModelError) as error:
        return None, str(error)
