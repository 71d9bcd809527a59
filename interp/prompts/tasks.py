"""The tasks, as prompts for one model.

Each draws text-level examples from a seed (``examples``) and keeps those that fit the
model's tokenizer (``fitting``): clean and corrupted of one token length, answers of one
token, named words at the same tokens of both. It returns exactly ``n`` or raises.

    capitals, languages, continents, currencies   a fact about a country
    ioi                                           who is given the object
    greater_than                                  a later year
    mcq                                           the right option's letter
    induction                                     what followed last time
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from interp.prompts import examples
from interp.prompts.fitting import fit
from interp.prompts.induction import HasTokens, induction
from interp.prompts.prompts import Prompts

__all__ = [
    "capitals",
    "continents",
    "currencies",
    "greater_than",
    "induction",
    "ioi",
    "languages",
    "mcq",
]

Split = Literal["all", "trained", "heldout"]
PadSide = Literal["right", "left"]


def capitals(
    model: HasTokens,
    n: int = 64,
    seed: int = 0,
    *,
    split: Split = "all",
    pad: PadSide = "right",
) -> Prompts:
    """A country's capital: "The capital of France is" → " Paris", against another country.

    Args:
        model: whose tokenizer the prompts must suit.
        n: how many prompts.
        seed: which ones.
        split: of template × country cells, the ones that the demo model was trained
            on, those it never read, or all.
        pad: side of the padding where lengths differ.

    Positions: ``subject`` (the last token of the country's name, also called
    ``subject_last``), ``subject_first`` and ``END``.
    """
    return _relation("capital", "capitals", model, n, seed, split, pad)


def languages(
    model: HasTokens,
    n: int = 64,
    seed: int = 0,
    *,
    split: Split = "all",
    pad: PadSide = "right",
) -> Prompts:
    """A country's language: "People in Brazil speak" → " Portuguese"; otherwise as ``capitals``."""
    return _relation("language", "languages", model, n, seed, split, pad)


def continents(
    model: HasTokens,
    n: int = 64,
    seed: int = 0,
    *,
    split: Split = "all",
    pad: PadSide = "right",
) -> Prompts:
    """A country's continent: "Togo is located in" → " Africa"; otherwise as ``capitals``."""
    return _relation("continent", "continents", model, n, seed, split, pad)


def currencies(
    model: HasTokens,
    n: int = 64,
    seed: int = 0,
    *,
    split: Split = "all",
    pad: PadSide = "right",
) -> Prompts:
    """A country's currency: "The currency of Japan is the" → " yen"; otherwise as ``capitals``."""
    return _relation("currency", "currencies", model, n, seed, split, pad)


def ioi(
    model: HasTokens,
    n: int = 64,
    seed: int = 0,
    *,
    corruption: Literal["swap", "abc"] = "swap",
    pad: PadSide = "right",
) -> Prompts:
    """The name not repeated: "When Mary and John went to the store, John gave a book to" → " Mary".

    Args:
        model: whose tokenizer the prompts must suit.
        n: how many prompts.
        seed: which ones.
        corruption: what replaces the second mention of the subject: "swap" the other
            name, so that the answer turns around; "abc" a third one.
        pad: side of the padding where lengths differ.

    Positions: ``IO``, ``S1``, ``S2``, ``place``, ``object`` and ``END``.

    Source:
        Wang et al. 2022, arXiv:2211.00593.
    """

    def draw(count: int) -> list[examples.Example]:
        return examples.ioi(count, seed, corruption=corruption)

    return fit(model.tokens, draw, n, name="ioi", seed=seed, pad=pad)


def greater_than(
    model: HasTokens, n: int = 64, seed: int = 0, *, pad: PadSide = "right"
) -> Prompts:
    """A later year: "The war lasted from the year 1732 to the year 17" → any of "33" to "99".

    Answers are all later years, foils all others; score with ``prob_diff``.
    Positions: ``noun``, ``century``, ``YY`` (the start's last two digits),
    ``century2`` and ``END``.

    Source:
        Hanna et al. 2023, arXiv:2305.00586.
    """

    def draw(count: int) -> list[examples.Example]:
        return examples.greater_than(count, seed)

    return fit(model.tokens, draw, n, name="greater_than", seed=seed, pad=pad)


def mcq(
    model: HasTokens,
    n: int = 64,
    seed: int = 0,
    *,
    options: int | Sequence[int] = 4,
    first: float | None = None,
    labels: Sequence[str] | None = None,
    pad: PadSide = "right",
) -> Prompts:
    """A question about a country with lettered options → the right letter.

    Args:
        model: whose tokenizer the prompts must suit.
        n: how many prompts.
        seed: which ones.
        options: how many options; several numbers are used in turn.
        first: the chance that the first option is right; None: the same for all.
        labels: words to label options with in the place of A, B, C, D; each prompt draws its own,
            in an order of its own.
        pad: side of the padding where lengths differ.

    Positions: ``subject``, the labels ``A``, ``B``, … that every prompt has (``A`` is where the
    first one stands, whatever it is), what they stand for (``option_A``, …), ``correct``,
    ``correct_option``, ``foil``, ``foil_option`` and ``END``.

    Source:
        Lieberum et al. 2023, arXiv:2307.09458.
    """

    def draw(count: int) -> list[examples.Example]:
        return examples.mcq(count, seed, options=options, first=first, labels=labels)

    return fit(model.tokens, draw, n, name="mcq", seed=seed, pad=pad)


def _relation(
    relation: str, name: str, model: HasTokens, n: int, seed: int, split: Split, pad: PadSide
) -> Prompts:
    """Facts of one kind: every cell once, in an order that the seed decides."""
    every = examples.relation(relation, None, seed, split=split)
    return fit(model.tokens, lambda count: every[:count], n, name=name, seed=seed, pad=pad)
