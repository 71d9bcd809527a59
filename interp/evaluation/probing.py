"""k-sparse probing: can a few features do what the whole activation does?

1. The feature activations of a text are averaged over its tokens, special ones left out.
2. Of the training texts, the k features whose class means differ most in absolute value are chosen.
3. A logistic regression on these k is fitted to the training texts and scored on the test texts.

The same is done with the k best numbers of the activation that the dictionary reads, and with all of
them: a dictionary is worth something here if k features beat k numbers and come near to all. Null
controls: labels shuffled over the training texts, and the model's random twin, in which only the words
themselves can be read.

Source: SAEBench (Karvonen et al. 2025, arXiv:2503.09532), ``evals/sparse_probing`` of sae-bench 0.6.0, after
Gurnee et al. 2023 (arXiv:2305.01610): the same pooling, choice, classifier (scikit-learn's, L2 with C = 1)
and balanced one-against-the-others tasks. Departures: the probe on all numbers is the same logistic
regression (there: AdamW, the epoch with the best *test* accuracy, which flatters it); two classes are one
task, not two; a text beyond the context is cut into pieces, not truncated; of a dictionary of several
parts the features of all parts, and all that they read, are put side by side.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.corpora.packing import Packing, pack
from interp.corpora.reading import read
from interp.dictionaries.dictionary import Dictionary
from interp.errors import PromptError, RunError
from interp.evaluation.probing_result import SparseProbing
from interp.evaluation.probing_tasks import Task, Tasks, demo_tasks, tasks_of
from interp.evaluation.spliced import Placed
from interp.harvesting.forecast import TOKENS_AT_ONCE
from interp.models.model import Model
from interp.progress import Bar
from interp.results import Provenance
from interp.runs.execute import execute

__all__ = ["Tasks", "sparse_probing", "strongest"]

_SHUFFLES = 5
#: For each dictionary the pooled features, and the pooled activations, of every text.
Pooled = list[tuple[Float[np.ndarray, "text feature"], Float[np.ndarray, "text d"]]]


def sparse_probing(
    dictionaries: Mapping[str, Dictionary],
    model: Model,
    tasks: Tasks | Literal["demo"] = "demo",
    *,
    k: Sequence[int] = (1, 2, 5),
    test: float = 0.2,
    seed: int = 0,
    controls: bool = True,
    context: int = 128,
    bos: bool | None = None,
    progress: bool | None = None,
) -> SparseProbing:
    """Sparse probing of dictionaries in a model.

    Args:
        dictionaries: by name.
        tasks: ``"demo"`` (see :func:`~interp.evaluation.probing_tasks.demo_tasks`), or
            ``{"task": (texts, labels)}``; more than two classes become a task each. Texts with equal
            entries of a third list, groups, are never on both sides of the split.
        k: numbers of features.
        test: share of the texts (or groups) to test on.
        seed: of the split, the balancing and the shuffles.
        controls: also probe the model's random twin.
        context: longest piece of a text.
        bos: None puts a BOS before each text if the tokenizer has one.

    Raises:
        PromptError: texts and labels that do not fit together, or too few.
        RunError: k or test that cannot be.
    """
    if not k or min(k) < 1 or not 0 < test < 1:
        raise RunError(
            f"k={tuple(k)}, test={test}; expected numbers from 1 up, and a share of the texts."
        )
    given: Tasks = demo_tasks(seed=seed) if tasks == "demo" else tasks
    split = tasks_of(given, test=test, seed=seed)
    placed = [Placed.of(model, one, name) for name, one in dictionaries.items()]
    how = Packing(min(context, model.n_ctx or context), 64, "padded", bos)
    how = replace(how, rows=max(1, TOKENS_AT_ONCE.get(model.device.type, 8192) // how.context))
    texts = {name: list(one[0]) for name, one in given.items()}
    models = [model, *([model.random_twin(seed, check=False)] if controls else [])]
    n_texts = sum(map(len, texts.values())) * len(models)
    with Bar(total=n_texts, what="sparse probing", show=progress, least=500) as bar:
        pooled = [
            {name: _pooled(one, placed, own, how, bar.advance) for name, own in texts.items()}
            for one in models
        ]
    ks = tuple(sorted(set(map(int, k))))
    scores = torch.full(
        (3, len(placed), len(split), 2 * len(ks) + 2), torch.nan, dtype=torch.float64
    )
    chosen = torch.full((len(placed), len(split), ks[-1]), -1)
    for i in range(len(placed)):
        for j, task in enumerate(split):
            features, raw = pooled[0][task.data][i]
            best = strongest(features[task.train], task.label[task.train], ks[-1])
            chosen[i, j, : len(best)] = torch.from_numpy(best.copy())
            scores[0, i, j] = _accuracies(features, raw, task, ks, task.label[task.train])
            scores[1, i, j] = _shuffled(features, raw, task, ks, seed)
            if controls:
                scores[2, i, j] = _accuracies(
                    *pooled[1][task.data][i], task, ks, task.label[task.train]
                )
    provenance = Provenance.of(
        model, seed=seed, verb="sparse_probing", k=list(ks), test=test, controls=controls,
        context=how.context, bos=bos, dictionaries=[one.dictionary.hash for one in placed],
    )  # fmt: skip
    return SparseProbing(
        rows=tuple(one.name for one in placed),
        tasks=tuple(task.name for task in split),
        probes=tuple(f"{what}{top}" for what in ("sae", "llm") for top in (*(f"_top_{n}" for n in ks), "")),
        accuracy=scores[0], shuffled=scores[1], random_model=scores[2],
        chosen=chosen,
        n_train=torch.tensor([len(task.train) for task in split]),
        n_test=torch.tensor([len(task.test) for task in split]),
        provenance=replace(provenance, prompts_hash=_hash(given)),
    )  # fmt: skip


def strongest(
    x: Float[np.ndarray, "n d"], label: Int[np.ndarray, " n"], k: int
) -> Int[np.ndarray, " _"]:
    """The k columns whose means differ most between the classes, the best first."""
    gap = np.abs(x[label == 1].mean(0) - x[label == 0].mean(0))
    return np.argsort(-gap, kind="stable")[:k]


@torch.no_grad()
def _pooled(
    model: Model, placed: Sequence[Placed], texts: Sequence[str], how: Packing,
    done: Callable[[int], None],
) -> Pooled:  # fmt: skip
    """Means over each text's tokens."""
    sites = tuple(dict.fromkeys(site for one in placed for site in one.reads))
    widths = [
        (len(one.reads) * one.dictionary.d_sae, len(one.reads) * one.dictionary.d_in)
        for one in placed
    ]
    sums = [[torch.zeros(len(texts), w, dtype=torch.float64) for w in pair] for pair in widths]
    count, before = torch.zeros(len(texts)), 0
    for batch in pack(read(list(texts)), model.tokens, how):
        tokens = batch.tokens.to(model.device)
        cache = execute(
            model.anatomy, tokens, save=sites, logits="none", rows_at_once=len(tokens)
        ).cache
        number = batch.document[batch.keep]
        count.index_add_(0, number, torch.ones(len(number)))
        keep = batch.keep.to(model.device)
        for one, (features, raw) in zip(placed, sums, strict=True):
            x = [cache[site][keep].flatten(1).to(one.dictionary.device) for site in one.reads]
            acts = [one.dictionary.encode_part(p, rows) for p, rows in enumerate(x)]
            for total, parts in ((features, acts), (raw, x)):
                total.index_add_(0, number, torch.cat(parts, -1).cpu().double())
        done(batch.end.document - before)
        before = batch.end.document
    if bool((count == 0).any()):
        raise PromptError(
            f"text {int((count == 0).int().argmax())} of a probing task has no token but special ones."
        )
    return [tuple((total / count[:, None]).numpy() for total in pair) for pair in sums]  # type: ignore[misc]


def _accuracies(
    features: Float[np.ndarray, "text feature"], raw: Float[np.ndarray, "text d"], task: Task,
    ks: Sequence[int], label: Int[np.ndarray, " n"],
) -> Float[Tensor, " probe"]:  # fmt: skip
    """Test accuracies of all probes, trained with these labels."""
    out = []
    for x in (features, raw):
        order = strongest(x[task.train], label, ks[-1])
        out += [_accuracy(x[:, order[:n]], task, label) for n in ks]
        out.append(_accuracy(x, task, label))
    return torch.tensor(out, dtype=torch.float64)


def _accuracy(x: Float[np.ndarray, "text d"], task: Task, label: Int[np.ndarray, " n"]) -> float:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():  # a thousand iterations are SAEBench's, converged or not
        warnings.simplefilter("ignore", ConvergenceWarning)
        probe = LogisticRegression(C=1.0, max_iter=1000).fit(x[task.train], label)
    return float((probe.predict(x[task.test]) == task.label[task.test]).mean())


def _shuffled(
    features: Any, raw: Any, task: Task, ks: Sequence[int], seed: int
) -> Float[Tensor, " probe"]:
    """Probes chosen and trained on shuffled labels, a mean over shuffles."""
    rng = np.random.default_rng([seed, 2])
    label = task.label[task.train]
    return torch.stack(
        [_accuracies(features, raw, task, ks, rng.permutation(label)) for _ in range(_SHUFFLES)]
    ).mean(0)


def _hash(given: Tasks) -> str:
    digest = hashlib.sha256()
    for name, one in given.items():
        digest.update(repr((name, [list(map(str, column)) for column in one])).encode())
    return digest.hexdigest()
