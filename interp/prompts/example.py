"""One example: a clean prompt, a corrupted one, and what the answer is in each.

Examples are text, so the same ones serve every tokenizer. A prompt stops just before its answer,
without the space between them; the answer carries that space, ``" Paris"``. The corrupted prompt
has as many words as the clean one and differs only where the answer is decided.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from interp.errors import PromptError
from interp.prompts.templates import Span

__all__ = ["Example"]


@dataclass(frozen=True, kw_only=True)
class Example:
    """A clean and a corrupted prompt with the answers that tell them apart.

    Attributes:
        clean: the prompt whose right answer is ``answer``.
        corrupted: the same prompt with the decisive words changed.
        answer: continues ``clean`` rightly, and ``corrupted`` wrongly.
        foil: the reverse.
        spans: where the named parts of ``clean`` stand, in characters.
        corrupted_spans: where the same parts of ``corrupted`` stand.
        group: the template this example was made from.
        answers: every right answer, if there are several; else just ``answer``.
        foils: every wrong one that counts; else just ``foil``.
    """

    clean: str
    corrupted: str
    answer: str
    foil: str
    spans: Mapping[str, Span]
    corrupted_spans: Mapping[str, Span]
    group: str
    answers: tuple[str, ...] = ()
    foils: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "answers", self.answers or (self.answer,))
        object.__setattr__(self, "foils", self.foils or (self.foil,))
        if both := set(self.answers) & set(self.foils):
            raise PromptError(f"{sorted(both)} cannot be both an answer and a foil: {self.clean!r}")
        counts = [len(text.split()) for text in (self.clean, self.corrupted)]
        if counts[0] != counts[1]:
            raise PromptError(
                f"clean and corrupted must have as many words, got {counts[0]} and {counts[1]}: "
                f"{self.clean!r} / {self.corrupted!r}"
            )
