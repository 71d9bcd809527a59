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
from dataclasses import replace
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

from interp.models.model import Model
from interp.pipelines.attending import attention, attention_from, share_at
from interp.pipelines.behaviour import Behaviour, columns
from interp.pipelines.effects import direct, effect
from interp.pipelines.kinds import Kind, kind
from interp.pipelines.measured import Measured, Task
from interp.prompts.prompts import Prompts
from interp.prompts.tasks import mcq as prompts

__all__ = ["TASK", "kinds", "measure", "prompts"]

_LIEBERUM: Final = "Lieberum et al. 2023, arXiv:2307.09458"
#: How far behind a letter, or the end of an option, a head may look at it.
_BEHIND: Final = {"letter": 1, "option": 2}


def measure(model: Model, pairs: Prompts) -> Measured:
    """Where heads look at END among letters and options, and what they bring back."""
    at_end = attention(model, pairs, "END", {"subject": "subject"})
    shares = attention_from(model, pairs, "END")
    letters = _each_letter(pairs)
    looks = {what: _looks(shares, pairs, letters, what) for what in _BEHIND}
    chosen = [
        Behaviour.of_heads(f"attention END→correct {what} above others", "share",
                           _above(seen, pairs, letters))
        for what, seen in looks.items()
    ]  # fmt: skip
    behaviours = [
        at_end["subject"], *chosen, _single(looks["letter"]), *effect(model, pairs, "END"),
        *direct(model, _against_all(pairs)),
    ]  # fmt: skip
    return Measured.of(behaviours)


def _each_letter(pairs: Prompts) -> tuple[str, ...]:
    """The letters that every prompt has."""
    return tuple(
        name.removeprefix("option_") for name in pairs.positions if name.startswith("option_")
    )


def _looks(
    shares: Float[Tensor, "layer head prompt key"],
    pairs: Prompts,
    letters: Sequence[str],
    what: str,
) -> Float[Tensor, "letter layer head prompt"]:
    """Attention to each letter, or option, and to the tokens behind it; the end itself left out."""
    found = []
    for letter in letters:
        column = columns(pairs, letter if what == "letter" else f"option_{letter}")
        total = torch.zeros(shares.shape[:3])
        for behind in range(_BEHIND[what] + 1):
            inside = column + behind < pairs.answer_column
            there = share_at(shares, (column + behind).minimum(pairs.answer_column)).cpu()
            total += there * inside
        found.append(total)
    return torch.stack(found)


def _above(
    seen: Float[Tensor, "letter layer head prompt"], pairs: Prompts, letters: Sequence[str]
) -> Float[Tensor, "layer head prompt"]:
    """Attention to the right one, less the mean of the others."""
    right = torch.stack([pairs.columns(letter) == pairs.columns("correct") for letter in letters])
    right = right[:, None, None].to(seen)
    return (seen * right).sum(0) - (seen * (1 - right)).sum(0) / (len(letters) - 1)


def _single(seen: Float[Tensor, "letter layer head prompt"]) -> Behaviour:
    """Attention to the one letter that a head looks at most, over all prompts."""
    most = seen.mean(-1).argmax(0)
    chosen = seen.gather(0, most[None, ..., None].expand(1, *seen.shape[1:]))[0]
    return Behaviour.of_heads("attention END→one letter", "share", chosen)


def _against_all(pairs: Prompts) -> Prompts:
    """The same prompts with all other letters as foils: effects are centred over letters."""
    assert pairs.answers is not None  # of this task
    assert pairs.foils is not None
    every = torch.cat([pairs.answers, pairs.foils]).unique()
    others = [[int(i) for i in every if i != answer] for answer in pairs.answers[:, 0]]
    return replace(pairs, foils=torch.tensor(others), foil_texts=None)


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
