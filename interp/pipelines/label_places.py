"""Labels that were changed: does a model name what is printed, or the letter of that place?

"A: Rome B: Paris" asks for a letter. Where the labels are other words ("Tom: Rome Anna: Paris"), or letters out of
order, two answers are right in their own way:

- by *label*: the word that is printed at the right option;
- by *place*: the letter that usually stands there, A at the first option, B at the second.

A model that answers by place knows the right option as the *Nth item of an enumeration*. Prompts of :func:`by_place` ask
for that; :func:`chosen` counts either. The control :func:`dealt` deals the right places out to other prompts: what a
model says whatever is asked is still counted there.

Source: Lieberum et al. 2023 (arXiv:2307.09458): labels are shuffled, or random letters or numbers, to tell the feature
"Nth item" from "line labelled B".
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.errors import PromptError
from interp.models.model import Model
from interp.pipelines.head_subspaces import HeadSubspaces
from interp.pipelines.labels import label_columns, labels_of
from interp.pipelines.letter_heads import Head
from interp.prompts.prompts import Prompts

__all__ = ["by_place", "chosen", "coordinates", "dealt", "letters_of", "place_of", "preference"]


def place_of(prompts: Prompts) -> Int[Tensor, " prompt"]:
    """Which option of each prompt is right: 0 for the first.

    Raises:
        PromptError: prompts without labelled options.
    """
    labels = [prompts.columns(label) for label in labels_of(prompts)]
    return (torch.stack(labels) == prompts.columns("correct")).int().argmax(0)


def letters_of(prompts: Prompts) -> Int[Tensor, " place"]:
    """The token that answers at each place, from prompts that label places alike.

    Raises:
        PromptError: no prompt's right answer is at some place, or two answers share one.
    """
    places, count = place_of(prompts), len(labels_of(prompts))
    assert prompts.answers is not None  # of labelled options
    found = [prompts.answers[places == place, 0].unique() for place in range(count)]
    if [len(tokens) for tokens in found] != [1] * count:
        raise PromptError(
            f"the places of these {len(prompts)} prompts have {[len(t) for t in found]} different answers; expected one "
            "each: prompts with labels in their order (interp.prompts.mcq without labels=), and enough of them."
        )
    return torch.cat(found)


def by_place(prompts: Prompts, letters: Int[Tensor, " place"]) -> Prompts:
    """The same prompts, of whatever labels, with the letter of the right place as the answer.

    Args:
        letters: of :func:`letters_of`; the others become foils.

    Raises:
        PromptError: not one letter for each option.
    """
    places, count = place_of(prompts), len(labels_of(prompts))
    if len(letters) != count:
        raise PromptError(f"{len(letters)} letters for {count} options; expected one for each.")
    others = torch.stack([letters[torch.arange(count) != place] for place in places.tolist()])
    return replace(
        prompts, answers=letters[places][:, None], foils=others, answer_texts=None, foil_texts=None
    )


def dealt(prompts: Prompts, *, seed: int) -> Prompts:
    """The same prompts with the right places of one another: a control of what looks at, or names, the right one.

    Answers are left as they are; ask :func:`by_place` of the result for those of the new places.
    """
    order = torch.randperm(len(prompts), generator=torch.Generator().manual_seed(seed))
    places, rows = place_of(prompts)[order], torch.arange(len(prompts))
    moved = {
        name: torch.stack([prompts.columns(f"{stem}{one}") for one in labels_of(prompts)])[places, rows]
        for name, stem in (("correct", ""), ("correct_option", "option_"))
    }  # fmt: skip
    return replace(prompts, positions={**prompts.positions, **moved})


def preference(model: Model, prompts: Prompts) -> Float[Tensor, " prompt"]:
    """The answer's logit less the mean of the foils', in logits: d. Positive: for the answer."""
    answer, foils = _logits(model, prompts)
    return (answer - foils.mean(1, keepdim=True))[:, 0]


def chosen(model: Model, prompts: Prompts) -> Bool[Tensor, " prompt"]:
    """Whether each prompt's answer has a higher logit than all its foils."""
    answer, foils = _logits(model, prompts)
    return (answer > foils).all(1)


@torch.no_grad()
def _logits(
    model: Model, prompts: Prompts
) -> tuple[Float[Tensor, "prompt 1"], Float[Tensor, "prompt foil"]]:
    logits = model.run(prompts, logits="last").logits[:, 0].float().cpu()
    assert prompts.answers is not None  # of labelled options
    assert prompts.foils is not None
    return logits.gather(1, prompts.answers.cpu()), logits.gather(1, prompts.foils.cpu())


@torch.no_grad()
def coordinates(
    model: Model,
    prompts: Prompts,
    subspaces: HeadSubspaces,
    head: Head,
    part: str,
    *,
    rank: int = 2,
) -> Float[Tensor, "prompt place rank"]:
    """A head's keys (``part="k"``) or values at the labels along the first directions of its subspace.

    Places are each label and the ``subspaces.behind`` tokens behind it, in the order of the labels.

    Raises:
        PromptError: the subspaces are not of this head, or ``part`` is neither.
    """
    if part not in ("k", "v") or (head, part) not in subspaces.basis:
        raise PromptError(
            f"part={part!r} of head {head}; expected 'k' or 'v' of one of {list(subspaces.heads)}."
        )
    layer, index = head
    own = model.run(prompts, save=[f"L{layer}.{part}"], logits="none").cache[f"L{layer}.{part}"]
    where = label_columns(prompts, behind=subspaces.behind).to(own.device)
    rows = torch.arange(len(where), device=own.device)[:, None]
    x = own[:, :, index // (model.n_heads // model.n_kv_heads)][rows, where].float()
    mean, basis = (values[head, part].to(x) for values in (subspaces.mean, subspaces.basis))
    return ((x - mean) @ basis[:rank].T).cpu()
