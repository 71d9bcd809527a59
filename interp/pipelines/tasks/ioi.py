"""Indirect object identification, "... Mary and John ... John gave a book to": from heads to roles.

Wang et al. 2022 read off GPT-2 which heads see that a name came twice (duplicate-token, induction), which turn
the last position away from it (S-inhibition), and which copy the other name (name movers). Here each is a
question to every head, with a number:

- *name mover*: looks from END to IO, writes for the name it looks at, and so for the answer;
- *name copier*: the same, but nothing is asked about the answer: it may bring both names;
- *negative name mover*: looks at IO and writes against it;
- *S-inhibition*: looks from END to S2, and the name movers' attention to IO falls when its path into their
  queries is corrupted;
- *S suppression*: looks from END to S2, and what MLPs at END read of it brings back the answer (a way that
  GPT-2 does not need: the MLP writes against S itself);
- *duplicate token*, *induction*, *previous token*: look from S2 to S1, from S2 to what follows S1, from there
  to S1, and matter at that position;
- *readout*: an MLP at END that adds to the answer's logit directly.

Source: Wang et al. 2022, "Interpretability in the Wild" (arXiv:2211.00593). Departures: prompts swap the names
(S2 becomes IO), not three random ones; MLPs may carry and read; thresholds are stated, beside the twin's best.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from interp.models.model import Model
from interp.pipelines.attending import attention
from interp.pipelines.behaviour import Behaviour, mlp_names
from interp.pipelines.composition import composition
from interp.pipelines.effects import direct, effect, mlps_at, through
from interp.pipelines.kinds import Kind, kind
from interp.pipelines.measured import Measured, Task
from interp.prompts.prompts import Prompts
from interp.prompts.tasks import ioi as prompts

__all__ = ["TASK", "kinds", "measure", "prompts"]

#: Heads whose Q-composition is measured; all MLPs are.
CANDIDATES: Final = 8
_WANG: Final = "Wang et al. 2022, arXiv:2211.00593"


def measure(model: Model, pairs: Prompts) -> Measured:
    """Where heads look at END and S2, what they write and bring back, whom they turn away."""
    end = attention(model, pairs, "END", {"IO": "IO", "S1": "S1", "S2": "S2"})
    second = attention(model, pairs, "S2", {"S1": "S1", "S1+1": "S1+1"})
    behind = attention(model, pairs, "S1+1", {"S1": "S1"})
    written, written_by_mlps = direct(model, pairs)
    queries = composition(
        model, pairs, [*end["S2"].top(CANDIDATES), *mlp_names(model)], "q", query="END", key="IO",
        progress=False,
    )  # fmt: skip
    effects = [one for place in ("END", "S2", "S1+1") for one in effect(model, pairs, place)]
    behaviours = [
        *end.values(), *second.values(), *behind.values(), written, written_by_mlps,
        _for_the_attended(end, written), queries.behaviour(), *effects,
        through(model, pairs, mlps_at(model, "END"), "MLPs at END"),
        through(model, pairs, ["logits"], "logits alone"),
    ]  # fmt: skip
    return Measured.of(behaviours, q_composition=queries)


def _for_the_attended(end: dict[str, Behaviour], written: Behaviour) -> Behaviour:
    """Logits written for the name that a head looks at more, weighted by how much more that is.

    Above 0 the head copies the name it looks at, below 0 it writes against it, whichever is right.
    """
    more = end["IO"].per_prompt - end["S1"].per_prompt
    return Behaviour(
        "writes for the name attended", "logits", written.nodes, more * written.per_prompt
    )


def kinds(gap: float) -> Sequence[Kind]:
    """The roles looked for; effects are shares of the gap between clean and corrupted prompts."""
    small, large = 0.02 * gap, 0.05 * gap
    return [
        kind("name mover", _WANG, [
            ("attention END→IO", 0.3), ("writes for the name attended", small),
            ("direct effect", small),
        ]),
        kind("name copier", "ours", [
            ("attention END→IO", 0.3), ("writes for the name attended", small),
        ]),
        kind("negative name mover", _WANG, [
            ("attention END→IO", 0.3), ("writes for the name attended", -small),
            ("direct effect", -small),
        ]),
        kind("S-inhibition", _WANG, [("attention END→S2", 0.3), ("Q-composition", 0.1)]),
        kind("S suppression", "ours", [
            ("attention END→S2", 0.3), ("effect through MLPs at END", large),
        ]),
        kind("duplicate token", _WANG, [("attention S2→S1", 0.3), ("effect at S2", small)]),
        kind("induction", _WANG, [("attention S2→S1+1", 0.3), ("effect at S2", small)]),
        kind("previous token", _WANG, [("attention S1+1→S1", 0.3), ("effect at S1+1", small)]),
        kind("readout", "Geva et al. 2023, arXiv:2304.14767", [
            ("MLP's direct effect", large), ("MLP's effect at END", large),
        ]),
    ]  # fmt: skip


def _runs(model: Model) -> float:
    return (CANDIDATES + model.n_layers) * (2 + model.n_layers / 2) + 6 * model.n_layers + 10


TASK: Final = Task("ioi", "logit_diff", measure, kinds, _runs)
