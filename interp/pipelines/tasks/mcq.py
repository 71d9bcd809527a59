"""Multiple choice: how does a model pick the letter, once it knows the answer?

Lieberum et al. 2023 sort the heads of Chinchilla that write letter logits by where they look from the last
position. The questions to every head:

- *correct letter*: looks at the right letter (or the token behind it) more than at the others, and writes for
  it: direct effect on the right letter's logit, centred over the letters;
- *correct option*: looks at the right option (its end, or the two tokens behind it, which have read it) more
  than at the others, and brings the answer back;
- *single letter*: looks at one and the same letter (or behind it), whichever is right, and brings the answer back:
  what stands there says whether the options before it fit;
- *content gatherer*: looks at what the question is about, and brings the answer back;
- *readout*: an MLP at END that writes for the right letter.

Source: Lieberum et al. 2023, "Does Circuit Analysis Interpretability Scale?" (arXiv:2307.09458). Departures: their
content gatherers look at the right option's text; ours are asked about the subject too; *correct option* and
*readout* are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from interp.models.model import Model
from interp.pipelines.attending import attention, attention_from
from interp.pipelines.behaviour import Behaviour
from interp.pipelines.effects import direct, effect
from interp.pipelines.kinds import Kind, kind
from interp.pipelines.labels import BEHIND, above, against_all, labels_of, looks, single
from interp.pipelines.measured import Measured, Task
from interp.prompts.prompts import Prompts
from interp.prompts.tasks import mcq as prompts

__all__ = ["TASK", "kinds", "measure", "prompts"]

_LIEBERUM: Final = "Lieberum et al. 2023, arXiv:2307.09458"


def measure(model: Model, pairs: Prompts) -> Measured:
    """Where heads look at END among letters and options, and what they bring back."""
    at_end = attention(model, pairs, "END", {"subject": "subject"})
    shares = attention_from(model, pairs, "END")
    letters = labels_of(pairs)
    seen = {what: looks(shares, pairs, letters, what) for what in BEHIND}
    chosen = [
        Behaviour.of_heads(f"attention END→correct {what} above others", "share",
                           above(shown, pairs, letters))
        for what, shown in seen.items()
    ]  # fmt: skip
    behaviours = [
        at_end["subject"], *chosen, single(seen["letter"]), *effect(model, pairs, "END"),
        *direct(model, against_all(pairs)),
    ]  # fmt: skip
    return Measured.of(behaviours)


def kinds(gap: float) -> Sequence[Kind]:
    """The roles looked for; effects are shares of the gap between clean and corrupted prompts."""
    small, large = 0.02 * gap, 0.05 * gap
    return [
        kind("correct letter", _LIEBERUM, [
            ("attention END→correct letter above others", 0.2), ("direct effect", small),
        ]),
        kind("correct option", "ours", [
            ("attention END→correct option above others", 0.2), ("effect at END", small),
        ]),
        kind("single letter", _LIEBERUM, [
            ("attention END→one letter", 0.5), ("effect at END", small),
        ]),
        kind("content gatherer", _LIEBERUM, [
            ("attention END→subject", 0.3), ("effect at END", small),
        ]),
        kind("readout", "Geva et al. 2023, arXiv:2304.14767", [
            ("MLP's direct effect", large), ("MLP's effect at END", large),
        ]),
    ]  # fmt: skip


def _runs(model: Model) -> float:
    return 4 * model.n_layers + 10


TASK: Final = Task("mcq", "logit_diff", measure, kinds, _runs)
