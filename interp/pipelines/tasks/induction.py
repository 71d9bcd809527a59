"""Induction: after ``A B ... A`` comes ``B``. From the behaviour to the circuit.

1. **Heads by behaviour.** On random tokens written twice: previous-token, duplicate-token and induction
   heads, by where they look. An induction head must also *copy*: raise the logit of the token it looks at, in
   runs and by its OV weights. Most heads of small models copy by weights, so copying alone is never a
   finding.
2. **Composition.** What do induction heads' keys read? Each candidate's path into later keys is corrupted (another
   token stands before B), and the attention they lose is measured; the same for queries.
3. **The circuit**, on prompts whose corrupted twin has both A and B exchanged, so that neither the match
   nor what is copied survives: see :mod:`interp.pipelines.circuit`.

Sources: Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits"; Olsson et al. 2022,
arXiv:2209.11895 (prefix matching, copying); Singh et al. 2024, arXiv:2404.07129 (what an induction head
needs); Yan et al. on repeated data (copying alone is not enough).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch

from interp.discovery.heads import THRESHOLD, head_scores
from interp.models.model import Model
from interp.pipelines.attending import attention
from interp.pipelines.behaviour import Behaviour, mlp_names
from interp.pipelines.composition import Composition, composition
from interp.pipelines.effects import direct, effect
from interp.pipelines.kinds import Kind, kind
from interp.pipelines.measured import Measured, Task
from interp.prompts.induction import induction as draw
from interp.prompts.pairs import build
from interp.prompts.prompts import Prompts

__all__ = ["TASK", "kinds", "measure", "prompts"]

#: Heads whose composition is measured, for each channel; all MLPs are.
CANDIDATES: Final = 8
#: Length of one copy of the random tokens on which heads are scored.
PERIOD: Final = 24
_OLSSON: Final = "Olsson et al. 2022, arXiv:2209.11895"
_ELHAGE: Final = "Elhage et al. 2021"


def prompts(model: Model, n: int, seed: int, *, period: int = 20) -> Prompts:
    """Induction prompts; in the corrupted twin A and B are both other tokens."""
    return draw(model, n, seed, period=period, corrupt="both")


def _cue_alone(model: Model, pairs: Prompts) -> Prompts:
    """The same prompts with B left as it is: the twins differ in what stood before it."""
    assert pairs.corrupted is not None
    ids, rows = pairs.corrupted.ids.clone(), torch.arange(len(pairs))
    column = pairs.columns("B1")
    ids[rows, column] = pairs.clean.ids[rows, column]
    places = {name: where.tolist() for name, where in pairs.positions.items() if name != "END"}
    assert pairs.answers is not None  # of this task
    assert pairs.foils is not None
    return build(
        model.tokens, pairs.clean.ids, ids, answers=pairs.answers, foils=pairs.foils,
        positions=places, name=pairs.name, seed=pairs.seed,
    )  # fmt: skip


def measure(model: Model, pairs: Prompts) -> Measured:
    """Head scores on repeated tokens, and composition and effects on the prompts."""
    scores = head_scores(
        model, n=min(64, max(8, len(pairs))), period=_period(model), seed=pairs.seed or 0
    )
    kinds = ("previous_token", "duplicate_token", "induction")
    looks = [
        Behaviour.of_heads(f"{name.replace('_', '-')} attention", "share", getattr(scores, name))
        for name in kinds
    ]
    copies = [
        Behaviour.of_heads("copying in runs", "logits", scores.copying_logit),
        Behaviour.of_heads("copying by OV", "share", scores.copying_ov),
    ]
    at_end = attention(model, pairs, "END", {"A1": "A1", "B1": "B1"})
    before = attention(model, pairs, "B1", {"A1": "A1"})
    cue = _cue_alone(model, pairs)
    keys = _composed(model, cue, before["A1"], "k")
    queries = _composed(model, cue, at_end["A1"], "q")
    behaviours = [
        *looks, *copies, at_end["B1"], keys.behaviour(), queries.behaviour(),
        *effect(model, pairs, "END"), *direct(model, pairs),
    ]  # fmt: skip
    return Measured.of(behaviours, head_scores=scores, k_composition=keys, q_composition=queries)


def _period(model: Model) -> int:
    """The usual length of a copy, or what fits."""
    room = PERIOD if model.n_ctx is None else (model.n_ctx - (model.tokens.bos_id is not None)) // 2
    return min(PERIOD, room)


def _composed(model: Model, cue: Prompts, looks: Behaviour, channel: str) -> Composition:
    """Composition of the heads that look most at the cue, and of all MLPs."""
    senders = [*looks.top(CANDIDATES), *mlp_names(model)]
    return composition(
        model, cue, senders, "k" if channel == "k" else "q", query="END", key="B1", progress=False
    )


def kinds(gap: float) -> Sequence[Kind]:
    """The roles looked for; none depends on the gap."""
    return [
        kind("previous token", _ELHAGE, [("previous-token attention", THRESHOLD)]),
        kind("duplicate token", "Wang et al. 2022, arXiv:2211.00593",
             [("duplicate-token attention", THRESHOLD)]),
        kind("induction", _OLSSON, [
            ("induction attention", THRESHOLD), ("copying in runs", 0.1), ("copying by OV", 0.2),
        ]),
        kind("K-composition", _ELHAGE, [("K-composition", 0.1)]),
        kind("Q-composition", _ELHAGE, [("Q-composition", 0.1)]),
    ]  # fmt: skip


def _runs(model: Model) -> float:
    return 2 * (CANDIDATES + model.n_layers) * (2 + model.n_layers / 2) + 3 * model.n_layers + 20


TASK: Final = Task("induction", "logit_diff", measure, kinds, _runs)
