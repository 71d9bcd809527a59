"""Greater-than, "The war lasted from the year 1732 to the year 17": from the year to later years.

Hanna et al. 2023 find in GPT-2 heads that look from the end to the year's last two digits, YY, and MLPs that
turn what those bring into a preference for all later years. The questions:

- *year mover*: looks from END to YY, and its clean output there brings the preference back; whether it does so
  through MLPs or directly stands beside;
- *greater-than*: an MLP at END which brings it back too, and writes more for later years than for others;
- *year encoder*: an MLP whose output at YY brings it back: the year as the movers find it.

Source: Hanna et al. 2023, "How does GPT-2 compute greater-than?" (arXiv:2305.00586).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from interp.models.model import Model
from interp.pipelines.attending import attention
from interp.pipelines.effects import direct, effect, mlps_at, through
from interp.pipelines.kinds import Kind, kind
from interp.pipelines.measured import Measured, Task
from interp.prompts.prompts import Prompts
from interp.prompts.tasks import greater_than as prompts

__all__ = ["TASK", "kinds", "measure", "prompts"]

_METRIC: Final = "prob_diff"
_HANNA: Final = "Hanna et al. 2023, arXiv:2305.00586"
#: Logits for later years above others, of one MLP's direct effect, that count as a preference.
_LOGITS: Final = 0.25


def measure(model: Model, pairs: Prompts) -> Measured:
    """Where heads look at END, and what heads and MLPs bring back at END and at YY."""
    end = attention(model, pairs, "END", {"YY": "YY", "century": "century"})
    behaviours = [
        *end.values(),
        *effect(model, pairs, "END", metric=_METRIC), *effect(model, pairs, "YY", metric=_METRIC),
        through(model, pairs, mlps_at(model, "END"), "MLPs at END", metric=_METRIC),
        through(model, pairs, ["logits"], "logits alone", metric=_METRIC),
        *direct(model, pairs),
    ]  # fmt: skip
    return Measured.of(behaviours)


def kinds(gap: float) -> Sequence[Kind]:
    """The roles looked for; effects are shares of the gap between clean and corrupted prompts."""
    large = 0.05 * gap
    return [
        kind("year mover", _HANNA, [("attention END→YY", 0.3), ("effect at END", large)]),
        kind("greater-than", _HANNA, [
            ("MLP's effect at END", large), ("MLP's direct effect", _LOGITS),
        ]),
        kind("year encoder", "ours", [("MLP's effect at YY", large)]),
    ]  # fmt: skip


def _runs(model: Model) -> float:
    return 8 * model.n_layers + 10


TASK: Final = Task("greater_than", _METRIC, measure, kinds, _runs)
