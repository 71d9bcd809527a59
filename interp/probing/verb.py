"""``interp.probe``: what can be read linearly off the activations, and is it the model's doing?

1. Read the activations at each site, at one position of each prompt or at every token.
2. Fit a linear probe on all documents but one fold's, predict that fold; so for every fold.
3. Do the same where there is nothing to read: with shuffled labels (the null distribution), and
   with a random label for each word type (the control task; Hewitt & Liang 2019).
4. Do the same on ``model.random_twin()``: what an untrained network of this shape lets through.

A *document* is what must not be on both sides. If each country has several prompts, pass the
countries as documents: else the probe can look the label up by the country's name, and even an
untrained model passes. That a probe can read something does not show that the model uses it.

Sources: Alain & Bengio 2016, arXiv:1610.01644 (linear probes); Hewitt & Liang 2019,
arXiv:1909.03368 (control tasks, selectivity); Belinkov 2022, arXiv:2102.12452 (what probes do not
show); Ojala & Garriga 2010, JMLR 11 (permutation tests of classifiers).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.errors import MetricError, PromptError
from interp.models.model import Model
from interp.probing.features import EACH, collect, tokens_counted
from interp.probing.fit import Kind
from interp.probing.measure import measure
from interp.probing.result import ProbeResult
from interp.probing.study import digest, per_example, plan
from interp.probing.targets import flat, number
from interp.results import Provenance, versions
from interp.sites import Site

__all__ = ["probe", "probe_features"]

Labels = Sequence[Any] | Tensor


def probe(
    model: Model,
    inputs: Any,
    labels: Labels,
    sites: str | Site | Sequence[str | Site] = "L*.resid_pre",
    *,
    kind: Kind = "logistic",
    positions: int | str = "END",
    where: Bool[Tensor, "batch pos"] | None = None,
    documents: Labels | None = None,
    types: Labels | None = None,
    folds: int = 5,
    l2: float | Sequence[float] | None = None,
    metric: str | None = None,
    shuffles: int = 20,
    controls: int = 3,
    seed: int = 0,
    batch: int | Literal["auto"] = "auto",
    progress: bool | None = None,
) -> ProbeResult:
    """Fit one linear probe for each site, cross-validated by document, with its controls.

    >>> interp.probe(model, prompts, continents, documents=countries)      # doctest: +SKIP
    ProbeResult(4 sites; 5 classes, 240 examples of 120 documents; accuracy best 0.81 at ...)

    Args:
        inputs: whatever ``model.run`` takes.
        labels: one for each prompt; under ``positions="each"`` [batch, pos], those at padding or
            outside ``where`` are not read. Classes may be words or whole numbers.
        sites: ``"L*.resid_pre"``, ``"L*.H*.z"`` (a probe for each head), a list. A site's own
            ``@position`` goes before ``positions``.
        kind: ``"logistic"`` or ``"mean"`` for classes, ``"ridge"`` or ``"linear"`` for numbers
            (see :mod:`interp.probing.fit`).
        positions: a name or number, one example for each prompt; ``"each"``: every real token.
        where: of the tokens under ``"each"``, those that count, such as all but BOS.
        documents: what each prompt (or token) belongs to; None: each prompt is its own document.
        types: the word type of each example for control tasks; None: the token read.
        folds: into how many parts the documents are dealt.
        l2: the penalty (see :mod:`interp.probing.fit`), for features of unit variance and the
            mean loss. Several: the best on the training folds alone is taken, anew for each
            fold; None: of three (ridge: five) strengths. Needs 3 folds.
        metric: ``"accuracy"``, ``"balanced_accuracy"`` or ``"r2"``: what intervals and controls
            speak of. None: accuracy for classes, R² for numbers.
        shuffles: how many times labels are shuffled (documents swap theirs, where each has one).
            Shuffled and control labels take the strength chosen for the true ones.
        controls: how many control tasks are drawn.
        seed: of folds, shuffles and control tasks.
        progress: show a bar; None shows one for many sites if a person can see it.

    Ctrl-C gives the sites that are finished, with a warning.

    Raises:
        PromptError: labels, types or documents of the wrong number, one class only, a class of one
            document only, fewer documents than folds, or labels that do not suit ``kind``.
        MetricError: an option out of range, or activations that are not finite.
        SiteError: a site does not exist, or has no position axis.
    """
    counted = tokens_counted(model, inputs, where) if positions == EACH else None
    if counted is None and where is not None:
        raise PromptError("where= counts tokens; it needs positions='each'.")
    features = collect(model, inputs, sites, positions=positions, counted=counted, batch=batch)
    n = len(features.prompt)
    kept = per_example(labels, n, "labels", counted)
    groups = features.prompt.tolist()
    if documents is not None:
        given = flat(documents)
        per_prompt = counted is not None and len(given) == len(counted)
        groups = (
            [given[i] for i in groups]
            if per_prompt
            else per_example(given, n, "documents", counted)
        )
    study, record = plan(kept, groups, kind, folds, l2, metric, shuffles, controls, seed)
    words = None if types is None else number(per_example(types, n, "types", counted))[0]
    named = {
        s: number(ids.tolist())[0] if words is None else words for s, ids in features.types.items()
    }
    provenance = Provenance.of(
        model, inputs, seed=seed, verb="probe", sites=list(features.rows),
        positions=positions, tokens=digest(model.batch(inputs).ids.tolist()), **record,
    )  # fmt: skip
    return measure(
        features.rows, features.shapes, named, study, str(positions), provenance, progress
    )


def probe_features(
    features: Float[Tensor, "n d"] | Mapping[str, Float[Tensor, "n d"]],
    labels: Labels,
    *,
    kind: Kind = "logistic",
    documents: Labels | None = None,
    types: Labels | None = None,
    folds: int = 5,
    l2: float | Sequence[float] | None = None,
    metric: str | None = None,
    shuffles: int = 20,
    controls: int = 3,
    seed: int = 0,
    progress: bool | None = None,
) -> ProbeResult:
    """The same on features of your own: [n, d], or several by name.

    Args:
        documents: what each row belongs to; None: each row is its own document.
        types: each row's word type, for control tasks; None: there are none.

    Other arguments and errors are those of :func:`probe`.
    """
    named = dict(features) if isinstance(features, Mapping) else {"features": features}
    rows = {name: _array(name, x) for name, x in named.items()}
    sizes = {name: tuple(x.shape) for name, x in rows.items()}
    if (
        not rows
        or any(x.ndim != 2 or not x.numel() for x in rows.values())
        or len({s[0] for s in sizes.values()}) > 1
    ):
        raise MetricError(
            f"features have shapes {sizes}; expected [n, d], the same n at each site."
        )
    n = len(next(iter(rows.values())))
    kept = per_example(labels, n, "labels", None)
    groups = list(range(n)) if documents is None else per_example(documents, n, "documents", None)
    study, record = plan(kept, groups, kind, folds, l2, metric, shuffles, controls, seed)
    words = (
        np.zeros(n, dtype=np.int64)
        if types is None
        else number(per_example(types, n, "types", None))[0]
    )
    values = b"".join(
        x.detach().float().cpu().contiguous().numpy().tobytes() for x in rows.values()
    )
    provenance = Provenance(
        call={"verb": "probe_features", "sites": list(rows), **record},
        model="features", weights_hash="", prompts_hash=hashlib.sha256(values).hexdigest(),
        seed=seed, versions=versions(),
    )  # fmt: skip
    shapes = {name: tuple(x.shape[1:]) for name, x in rows.items()}
    rows = {name: x.detach().float().cpu() for name, x in rows.items()}
    return measure(rows, shapes, dict.fromkeys(rows, words), study, "rows", provenance, progress)


def _array(name: str, given: Any) -> Tensor:
    """Features as a tensor.

    Raises:
        MetricError: they are no numbers.
    """
    try:
        return torch.as_tensor(given)
    except (TypeError, ValueError, RuntimeError) as error:
        raise MetricError(
            f"the features {name!r} are {type(given).__name__}; expected numbers [n, d]."
        ) from error
