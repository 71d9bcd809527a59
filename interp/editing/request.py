"""What an edit is asked to do, as token rows: where the subject ends, where the target begins.

A *request* is a prompt with a subject in it and what the model is to say next. Its rows are the
prompt alone and behind each prefix, with the target's tokens but for the last appended (teacher
forcing), so the last ``len(target)`` columns of each row predict the target.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.editing.objectives import Objective
from interp.errors import PromptError
from interp.models.model import Model
from interp.runs.edits import Noise
from interp.token_batch import TokenBatch

__all__ = ["Request", "Target", "target_ids"]

#: A text that continues the prompt (with its leading space), token ids, or an Objective.
Target = str | int | Sequence[int] | Objective


@dataclass(frozen=True, eq=False)
class Request:
    """Rows of one prompt and what they should lead to.

    Attributes:
        batch: the prompt alone (row 0, and its copies), then behind each prefix; then the essence prompt.
        subject: column of the subject's last token, of every row.
        first: column of its first.
        target: ids of the target.
        lower: whether the target is to become less probable.
        noise: what is added to the subject's embeddings, or None.
        essence: whether the last row is the essence prompt.
    """

    batch: TokenBatch
    subject: Int[Tensor, " row"]
    first: Int[Tensor, " row"]
    target: tuple[int, ...]
    lower: bool
    noise: Float[Tensor, "prompt span d_model"] | None
    essence: bool

    @classmethod
    def of(
        cls,
        model: Model,
        prompt: str,
        subject: str | None,
        target: Target,
        *,
        prefixes: Sequence[str] = (),
        essence: str | None = None,
        copies: int = 1,
    ) -> Request:
        """The rows of a request.

        Args:
            prompt: a text that holds the subject once.
            subject: as it is written there; None where nothing is done at the subject.
            target: see :data:`Target`.
            prefixes: texts to put before the prompt, with a full stop between.
            essence: a prompt with ``{subject}``, as "{subject} is a".
            copies: rows of the prompt alone, each with its own noise.

        Raises:
            PromptError: the subject does not stand in the prompt exactly once; the target is not a
                continuation of it; a text is too long or has unknown words.
        """
        goal = target if isinstance(target, Objective) else Objective(target)
        if subject is None and (goal.noise is not None or essence is not None):
            raise PromptError(
                "noise and the essence prompt stand at the subject, but subject is None: give the "
                "subject as it is written in the prompt."
            )
        ids = target_ids(model, prompt, goal.target)
        texts = [prompt] * copies + [*(f"{prefix}. {prompt}" for prefix in prefixes)]
        spans = [_span(model, text, subject, len(text) - len(prompt), prompt) for text in texts]
        rows = [model.tokens.encode(text).ids[0].tolist() + list(ids[:-1]) for text in texts]
        if essence is not None:
            text = essence.replace("{subject}", str(subject))
            spans.append(_span(model, text, subject, 0, text))
            rows.append(model.tokens.encode(text).ids[0].tolist())
        batch = model.tokens.take(TokenBatch.stack(rows)).to(model.device)
        first, last = (batch.first + torch.tensor(ends).to(model.device)
                       for ends in zip(*spans, strict=True))  # fmt: skip
        noise = None
        if goal.noise is not None:
            width = int((last - first).max()) + 1
            noise = _draw(model, goal.noise, len(texts), width)
        return cls(batch, last, first, ids, goal.lower, noise, essence is not None)

    @property
    def n_prompts(self) -> int:
        """Rows that end in the target."""
        return len(self.batch) - self.essence

    @property
    def predicted(self) -> tuple[Int[Tensor, "row 1"], Int[Tensor, "row target"]]:
        """Row numbers and columns whose logits predict the target."""
        last = self.batch.column(-1)[: self.n_prompts, None]
        back = torch.arange(len(self.target) - 1, -1, -1, device=last.device)
        return torch.arange(self.n_prompts, device=last.device)[:, None], last - back

    @property
    def noisy(self) -> Callable[[Tensor], Tensor] | None:
        """What happens to the embeddings; None if nothing does."""
        if self.noise is None:
            return None
        noise, rows = self.noise, range(self.n_prompts)

        def add(x: Float[Tensor, "row pos d_model"]) -> Float[Tensor, "row pos d_model"]:
            x = x.clone()
            for row in rows:
                start, stop = int(self.first[row]), int(self.subject[row]) + 1
                x[row, start:stop] += noise[row, : stop - start].to(x)
            return x

        return add


def target_ids(model: Model, prompt: str, target: str | int | Sequence[int]) -> tuple[int, ...]:
    """The token ids that continue a prompt, one or more.

    Raises:
        PromptError: the text changes the prompt's own tokens, or adds none; an id that the model
            does not have.
    """
    if not isinstance(target, str):
        return _ids(model, target)
    before = model.tokens.encode(prompt).ids[0].tolist()
    after = model.tokens.encode(prompt + target).ids[0].tolist()
    if after[: len(before)] != before or len(after) == len(before):
        raise PromptError(
            f"{target!r} does not continue {prompt!r}: together they are the tokens "
            f"{model.to_str_tokens(after)}, which do not begin with the prompt's own. Write the "
            "target with its leading space (' Paris'), or give its ids."
        )
    return tuple(after[len(before) :])


def _ids(model: Model, target: Any) -> tuple[int, ...]:
    try:
        given = torch.as_tensor(target).reshape(-1)
    except (TypeError, ValueError, RuntimeError):
        given = torch.zeros(1)
    if len(given) and (given.is_floating_point() or given.dtype == torch.bool):
        raise PromptError(
            f"the target is {target!r}: expected a text with its leading space, a token id, or "
            "several."
        )
    ids = tuple(int(i) for i in given.tolist())
    wrong = [i for i in ids if not 0 <= i < model.d_vocab_out]
    if wrong or not ids:
        raise PromptError(
            f"the target {target!r} has {f'the id {wrong[0]}' if wrong else 'no token'}: expected 0 "
            f"to {model.d_vocab_out - 1}, one or more."
        )
    return ids


def _span(model: Model, text: str, subject: str | None, start: int, within: str) -> tuple[int, int]:
    """First and last position of the subject in ``text``, whose part ``within`` holds it once."""
    if subject is None:
        return 0, 0
    count = within.count(subject) if subject else 0
    if count != 1:
        raise PromptError(
            f"the subject {subject!r} occurs {count} times in {within!r}, expected once: an edit "
            "is made at its last token. Give the subject as it is written there."
        )
    begin = start + within.index(subject)
    columns = model.tokens.span_columns(text, (begin, begin + len(subject)))
    return columns[0], columns[-1]


def _draw(model: Model, noise: Noise, rows: int, width: int) -> Float[Tensor, "row span d_model"]:
    return noise(torch.zeros(rows, width, model.d_model, device=model.device))
