"""The subject of a prompt: its tokens, and how widely embeddings of subjects spread."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import PromptError, RunError
from interp.models.model import Model
from interp.prompts.prompts import Prompts
from interp.runs.edits import Add
from interp.runs.execute import execute

__all__ = ["Subject", "embedding_noise", "embedding_std", "find_subject"]

#: A word in the prompt, or its first and last position; one for all prompts or one for each.
Subject = str | tuple[int, int] | Sequence[str] | Sequence[tuple[int, int]] | None


def find_subject(model: Model, prompts: Prompts, subject: Subject) -> Int[Tensor, "prompt 2"]:
    """First and last position of each prompt's subject, counted among its real tokens.

    Args:
        subject: text that occurs once in the prompt, a pair of positions, or a list with one of
            those for each prompt. None takes the positions ``subject_first`` and ``subject_last``
            that the tasks of ``interp.prompts`` define.

    Raises:
        PromptError: no subject is known, a word that does not occur once, or a span outside.
    """
    if subject is None:
        return _named(prompts)
    if isinstance(subject, str) or _is_pair(subject):
        given: list[object] = [subject] * len(prompts)
    elif isinstance(subject, Sequence):
        given = list(subject)
    else:
        raise PromptError(
            f"subject={subject!r}; expected text, its positions (first, last), or a list with one of "
            "those for each prompt."
        )
    if len(given) != len(prompts):
        raise PromptError(
            f"subject= names {len(given)} subjects for {len(prompts)} prompts; expected one for "
            "each, or one that all prompts have."
        )
    return torch.tensor([_span(model, prompts, row, one) for row, one in enumerate(given)])


def _is_pair(one: object) -> bool:
    return isinstance(one, Sequence) and len(one) == 2 and all(isinstance(i, int) for i in one)


def _named(prompts: Prompts) -> Int[Tensor, "prompt 2"]:
    missing = {"subject_first", "subject_last"} - set(prompts.positions)
    if missing:
        raise PromptError(
            f"these prompts do not say where their subject begins and ends (they name "
            f"{', '.join(prompts.positions)}): give subject='France', its positions (first, last), "
            "or a list with one for each prompt."
        )
    ends = [prompts.positions[name].cpu() for name in ("subject_first", "subject_last")]
    return torch.stack(ends, 1) - prompts.clean.first.cpu()[:, None]


def _span(model: Model, prompts: Prompts, row: int, one: object) -> tuple[int, int]:
    n_real = int(prompts.clean.n_real[row])
    if isinstance(one, str):
        return _in_text(model, prompts, row, one, n_real)
    if not (isinstance(one, Sequence) and _is_pair(one)):
        raise PromptError(
            f"subject={one!r} of prompt {row}; expected text, or its positions (first, last)."
        )
    first, last = (i + n_real * (i < 0) for i in one)
    if not 0 <= first <= last < n_real:
        raise PromptError(
            f"subject={one!r} lies outside prompt {row}, which has {n_real} tokens; expected "
            "(first, last), counted from 0 with the last one included."
        )
    return first, last


def _in_text(model: Model, prompts: Prompts, row: int, word: str, n_real: int) -> tuple[int, int]:
    if prompts.texts is None:
        raise PromptError(
            f"subject={word!r} is text, but these prompts came as tokens: give (first, last)."
        )
    text = prompts.texts[row]
    count = text.count(word) if word else 0
    if count != 1:
        raise PromptError(
            f"subject={word!r} occurs {count} times in prompt {row} {text!r}, expected once. Give a "
            "longer piece of text, or its positions (first, last)."
        )
    if model.to_tokens(text).shape[1] != n_real:
        raise PromptError(
            f"prompt {row} was not tokenised as {model.name} does it now (another BOS policy): give "
            "the subject's positions (first, last)."
        )
    start = text.index(word)
    columns = model.tokens.span_columns(text, (start, start + len(word)))
    return columns[0], columns[-1]


@torch.no_grad()
def embedding_std(
    model: Model,
    prompts: Prompts,
    span: Int[Tensor, "prompt 2"],
    subjects: Sequence[str] | None,
) -> float:
    """The standard deviation of all numbers in the token embeddings of subjects.

    Of ``subjects``, each encoded alone, as in Meng et al. 2022 (their appendix B.1 measures it over
    the subjects of a thousand facts); of the prompts' own subjects where None.
    """
    if subjects is not None:
        if isinstance(subjects, str) or not subjects:
            raise RunError(f"subjects={subjects!r}; expected a list of names to measure σ over.")
        tokens = model.tokens.take(list(subjects), bos=False).to(model.device)
        inside = tokens.mask
    else:
        tokens = prompts.clean.to(model.device)
        place = torch.arange(tokens.ids.shape[1]) - prompts.clean.first.cpu()[:, None]
        inside = (place >= span[:, :1]) & (place <= span[:, 1:])
    run = execute(model.anatomy, tokens, save="embed", logits="none")
    values = run.cache["embed"][inside.to(model.device)].float()
    if values.shape[0] < 1 or values.numel() < 2:
        raise RunError("the subjects have no token to measure the spread of embeddings over.")
    return float(values.std())


def embedding_noise(
    model: Model,
    prompts: Prompts,
    span: Int[Tensor, "prompt 2"],
    *,
    std: float,
    samples: int,
    seed: int,
) -> Add:
    """An edit of ``embed`` that adds noise at each subject; rows are prompts × samples.

    Each prompt's noise is drawn anew from the seed, as in Meng et al.'s code, so what is measured
    of a prompt does not depend on the prompts beside it.
    """
    width = prompts.clean.ids.shape[1]
    noise: Float[Tensor, "prompt sample pos d_model"]
    noise = torch.zeros(len(prompts), samples, width, model.d_model)
    begins = prompts.clean.first.cpu()
    for row, (first, last) in enumerate(span.tolist()):
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randn(samples, last + 1 - first, model.d_model, generator=generator)
        at = int(begins[row]) + first
        noise[row, :, at : at + drawn.shape[1]] = std * drawn
    return Add(noise.flatten(0, 1).to(model.device))
