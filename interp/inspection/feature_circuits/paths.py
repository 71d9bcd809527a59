"""``feature_paths``: how an input gets to a feature, along which other features and heads.

Greedy search backwards (Dunefsky et al. 2024, §4.3, Algorithm 1):

1. Begin with the path that is the feature alone; its contribution is its activation.
2. Extend each path by the ``k`` terms that contribute most to its last node (:mod:`.contributions`).
3. Of all extended paths keep the ``k`` with the largest contribution. Go on with 2.

A contribution is always that to the *first* feature, along the whole path. A feature on the way can give no
more than it has: what enters a feature can at most switch it off, so a contribution is capped at the smallest
contribution of any feature on the path (``cap=True``). The authors' code takes the last feature's for that;
here it is the minimum, as their comment says. Departures beside: ends other than embeddings (an MLP without a
transcoder) may close a path, and only positive contributions are followed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from interp.errors import DictionaryError
from interp.inspection.feature_circuits.contributions import begin, prompt_texts
from interp.inspection.feature_circuits.frozen import Direction, FrozenRun
from interp.inspection.feature_circuits.node import Node
from interp.inspection.feature_circuits.paths_result import FeaturePaths
from interp.inspection.feature_circuits.standing import Transcoders
from interp.models.model import Inputs, Model
from interp.prompts.prompts import Prompts
from interp.results import Provenance

__all__ = ["feature_paths"]

_FOLLOWED = ("feature", "head", "embed", "pos_embed", "mlp")


@dataclass(frozen=True, eq=False)
class _Path:
    """Nodes from the feature backwards, each with its contribution to the feature."""

    nodes: tuple[Node, ...]
    contributions: tuple[float, ...]
    direction: Direction | None  # what the last node reads; None of an end

    @property
    def limit(self) -> float:
        """The smallest contribution of a feature on the path."""
        own = zip(self.nodes, self.contributions, strict=True)
        return min(value for node, value in own if node.kind == "feature")


@torch.no_grad()
def feature_paths(
    transcoders: Transcoders,
    model: Model,
    prompt: Inputs,
    feature: str,
    *,
    k: int = 5,
    steps: int = 3,
    cap: bool = True,
    ignore_bos: bool = True,
) -> FeaturePaths:
    """The paths that contribute most to a feature, by greedy search, and the small graph they make.

    >>> paths = interp.inspection.feature_paths(tcs, model, "The capital of Peru is", "L3.mlp.F12@END")
    ... # doctest: +SKIP
    >>> paths.to_frame(); paths.plot(); paths.graph()                         # doctest: +SKIP

    Args:
        transcoders: of the MLPs that are to be taken apart: one, several, or a mapping as ``interp.train``
            gives it.
        model: that they belong to, with none of them in its runs.
        prompt: one prompt.
        feature: as a site, ``"L3.mlp.F12@END"``; it must be active there.
        k: branches of each path, and paths that are kept, at each step.
        steps: longest path, in edges.
        cap: hold a contribution to what features on the path have.
        ignore_bos: do not follow heads to a BOS at the start (as the authors' code): attention rests there.

    Raises:
        DictionaryError: as :func:`contributions`; or the feature is not active there, or ``k`` and ``steps`` are
            not whole numbers from 1 up.
        PromptError, SiteError: as :func:`contributions`.
    """
    for name, value in (("k", k), ("steps", steps)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise DictionaryError(f"{name}={value!r}; expected a whole number from 1 up.")
    run, root = begin(transcoders, model, prompt, feature)
    start = _root(run, root)
    bos = ignore_bos and _has_bos(model, run)
    kept, found = [start], list[_Path]()
    for _ in range(steps):
        longer = [one for path in kept for one in _extended(run, path, k, cap=cap, bos=bos)]
        kept = sorted(longer, key=lambda path: path.contributions[-1], reverse=True)[:k]
        found += kept
    return FeaturePaths(
        feature=root.name,
        tokens=prompt_texts(model, run),
        activation=start.contributions[0],
        paths=tuple(tuple(node.name for node in path.nodes) for path in found),
        contributions=tuple(path.contributions for path in found),
        provenance=Provenance.of(
            model, prompt if isinstance(prompt, Prompts) else None, verb="feature_paths", feature=feature, k=k,
            steps=steps, cap=cap, ignore_bos=ignore_bos,
            dictionaries=[one.hash for one in run.transcoders.values()],
        ),
    )  # fmt: skip


def _root(run: FrozenRun, root: Node) -> _Path:
    layer, unit, column = root.numbers
    acts = run.activations(layer, column)
    if not acts[unit]:
        best = acts.topk(min(5, len(acts)))
        active = ", ".join(
            f"F{i} ({v:.3g})"
            for i, v in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        )
        raise DictionaryError(
            f"{root.name} is not active on this prompt, so nothing leads to it; the strongest there are {active}."
        )
    return _Path((root,), (float(acts[unit]),), run.root(root))


def _extended(run: FrozenRun, path: _Path, k: int, *, cap: bool, bos: bool) -> list[_Path]:
    """The ``k`` best continuations of a path."""
    if path.direction is None:
        return []
    terms = [
        (node, value) for node, value in run.terms(path.direction)
        if value > 0 and node.kind in _FOLLOWED and not (bos and node.source == 0)
    ]  # fmt: skip
    best = sorted(terms, key=lambda term: term[1], reverse=True)[:k]
    return [
        _Path(
            (*path.nodes, node),
            (*path.contributions, min(value, path.limit) if cap else value),
            run.behind(node, path.direction),
        )
        for node, value in best
    ]


def _has_bos(model: Model, run: FrozenRun) -> bool:
    bos = getattr(model.tokenizer, "bos_token_id", None)
    return bos is not None and int(run.batch.ids[0, 0]) == bos
