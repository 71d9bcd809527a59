"""Prompts: clean and corrupted pairs, their answers, and the names of their positions.

A pair isolates one behaviour. The clean prompt has one right next token (the
*answer*), the corrupted prompt another (the *foil*), and all else is as alike as can
be: same template, same number of tokens. Patching then asks which activation carries
the difference.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from interp.errors import PromptError
from interp.prompts.positions import END, resolve_columns
from interp.prompts.table import table
from interp.token_batch import TokenBatch

__all__ = ["Prompts"]

Texts = tuple[str, ...]


@dataclass(frozen=True, eq=False, repr=False)
class Prompts:
    """Clean prompts, perhaps with corrupted twins, and what is asked of them.

    Prompts may differ in length (the shorter are padded), the two of a pair may not,
    so a column means the same token of a prompt in both runs.

    Attributes:
        clean: tokens of the clean prompts.
        corrupted: tokens of their twins, padded alike; None if there are none.
        answers: right next tokens of the clean prompts, padded with -1 on the right.
        foils: right next tokens of the corrupted prompts, or other wrong ones.
        positions: columns by name; ``END``, the last real token, is always there.
        texts: the clean prompts as text, None if they came as tokens.
        corrupted_texts: the corrupted prompts as text.
        str_tokens: the clean tokens as text, one per column, "" at padding; None
            without a tokenizer.
        corrupted_str_tokens: the same for the corrupted prompts.
        answer_texts: the answers as they were given, None if they were given as ids.
        foil_texts: the foils as they were given.
        groups: what each prompt belongs to, usually its template.
        name: the task's name.
        seed: the seed they were drawn with, if any.
    """

    clean: TokenBatch
    corrupted: TokenBatch | None = None
    answers: Int[Tensor, "prompt a"] | None = None
    foils: Int[Tensor, "prompt f"] | None = None
    positions: Mapping[str, Int[Tensor, " prompt"]] = field(default_factory=dict)
    texts: Texts | None = None
    corrupted_texts: Texts | None = None
    str_tokens: tuple[Texts, ...] | None = None
    corrupted_str_tokens: tuple[Texts, ...] | None = None
    answer_texts: tuple[Texts, ...] | None = None
    foil_texts: tuple[Texts, ...] | None = None
    groups: Texts | None = None
    name: str = "prompts"
    seed: int | None = None

    def __post_init__(self) -> None:
        end = self.answer_column
        if END in self.positions and not torch.equal(self.positions[END], end):
            raise PromptError(
                f"position {END!r} is given as {self.positions[END].tolist()}, but it always means "
                f"the last real token, {end.tolist()}. Choose another name."
            )
        object.__setattr__(self, "positions", {**self.positions, END: end})
        _check_twins(self.clean, self.corrupted)
        _check_sizes(self)
        _check_sets(self)
        _check_disjoint(self.answers, self.foils)

    def __len__(self) -> int:
        return len(self.clean)

    def __repr__(self) -> str:
        low, high = int(self.clean.n_real.min()), int(self.clean.n_real.max())
        length = f"{low}" if low == high else f"{low}-{high}"
        kind = "pairs" if self.corrupted is not None else "prompts"
        named = ", ".join(self.positions)
        return f"Prompts({self.name!r}, {len(self)} {kind} of {length} tokens, {named})"

    @property
    def answer_column(self) -> Int[Tensor, " prompt"]:
        """Column whose logits predict the answer: the last real token."""
        return self.clean.column(-1)

    @property
    def hash(self) -> str:
        """sha256 over ids, masks, answers and foils: the same prompts, the same hash.

        Names, texts and what stands at padding do not count.
        """
        digest = hashlib.sha256()
        for tensor in (*_real(self.clean), *_real(self.corrupted), self.answers, self.foils):
            shape = "none" if tensor is None else str(list(tensor.shape))
            digest.update(shape.encode())
            if tensor is not None:
                digest.update(tensor.cpu().long().numpy().astype("<i8").tobytes())
        return digest.hexdigest()

    def columns(self, position: int | str) -> Int[Tensor, " prompt"]:
        """The column of a position: an integer among real tokens, or a name."""
        return resolve_columns(position, self.clean, self.positions)

    def differing(self) -> Int[Tensor, " prompt"]:
        """First column where clean and corrupted tokens differ; the width if they never do.

        In a causal model nothing before that column can differ between the two runs.
        """
        twin = self._twin("differing()")
        differ = (self.clean.ids != twin.ids) & self.clean.mask
        never = torch.full_like(self.answer_column, differ.shape[1])
        return torch.where(differ.any(-1), differ.int().argmax(-1), never)

    def subset(self, indices: Sequence[int] | slice | Int[Tensor, " some"]) -> Prompts:
        """Some of the prompts, at the same width, in the order given."""
        rows = _rows(indices, len(self))

        def pick(value: Any) -> Any:
            if isinstance(value, TokenBatch):
                return value.rows(rows)
            if isinstance(value, Tensor):
                return value[rows]
            return tuple(value[row] for row in rows) if isinstance(value, tuple) else value

        parts = {name: pick(value) for name, value in vars(self).items() if name != "positions"}
        return Prompts(**parts, positions={k: pick(v) for k, v in self.positions.items()})

    def split(self, fraction: float, *, seed: int = 0) -> tuple[Prompts, Prompts]:
        """Two disjoint parts at random, ``fraction`` of the prompts in the first.

        Both keep the order of the whole. Discover on one, evaluate on the other.
        """
        first = round(fraction * len(self))
        if not 0 < first < len(self):
            raise PromptError(
                f"split({fraction}) of {len(self)} prompts leaves one part empty, expected at "
                "least one prompt in each. Try 0.5, or more prompts."
            )
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        return self.subset(order[:first].sort().values), self.subset(order[first:].sort().values)

    def show(self, n: int = 5) -> str:
        """The first ``n`` prompts as text, tokens of a pair one under the other."""
        return table(self, n)

    def _twin(self, what: str) -> TokenBatch:
        if self.corrupted is None:
            raise PromptError(
                f"{what} needs corrupted prompts, but these have none. Build them with "
                "model.prompts(clean, corrupted, ...)."
            )
        return self.corrupted


def _rows(indices: Sequence[int] | slice | Int[Tensor, " some"], n: int) -> list[int]:
    """Row numbers from 0, at least one, all of them among ``n``."""
    rows = list(range(n))[indices] if isinstance(indices, slice) else [int(row) for row in indices]
    if not rows or not all(-n <= row < n for row in rows):
        raise PromptError(
            f"a subset of {n} prompts by {indices} has nothing or reaches outside, expected rows "
            f"from 0 to {n - 1}, at least one."
        )
    return [row % n for row in rows]


def _real(batch: TokenBatch | None) -> tuple[Tensor | None, Tensor | None]:
    """Ids and mask, with zeros at padding."""
    return (None, None) if batch is None else (batch.ids.masked_fill(~batch.mask, 0), batch.mask)


def _check_twins(clean: TokenBatch, corrupted: TokenBatch | None) -> None:
    if corrupted is not None and not torch.equal(clean.mask, corrupted.mask):
        raise PromptError(
            f"clean {clean} and corrupted {corrupted} are padded differently, expected the same "
            "mask in both. Use model.prompts(clean, corrupted), which shows where they differ."
        )


def _check_sizes(prompts: Prompts) -> None:
    """Everything that comes once per prompt must come that often."""
    for name, value in [*vars(prompts).items(), *prompts.positions.items()]:
        if isinstance(value, Tensor | tuple) and len(value) != len(prompts):
            raise PromptError(
                f"{name!r} has {len(value)} entries for {len(prompts)} prompts, expected one each."
            )


def _check_sets(prompts: Prompts) -> None:
    """Every set of answers or foils has a member, with its padding on the right."""
    for word, ids in (("answers", prompts.answers), ("foils", prompts.foils)):
        if ids is None:
            continue
        if ids.ndim != 2 or (ids[:, 0] < 0).any() or ((ids[:, :-1] < 0) & (ids[:, 1:] >= 0)).any():
            raise PromptError(
                f"{word} are {ids.tolist()[:3]}…, expected token ids [prompt, set] with at least "
                "one for each prompt and -1 only as padding on the right."
            )


def _check_disjoint(answers: Tensor | None, foils: Tensor | None) -> None:
    """No token may be both right and wrong."""
    if answers is None or foils is None:
        return
    both = (answers[:, :, None] == foils[:, None, :]) & (answers[:, :, None] >= 0)
    if both.any():
        row, column, _ = (int(i) for i in both.nonzero()[0])
        raise PromptError(
            f"prompt {row} has token {int(answers[row, column])} both as an answer and as a foil, "
            "expected two sets without a common token. Check that the corruption changes the "
            "answer, and that the two words do not begin with the same token."
        )
