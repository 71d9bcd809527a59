"""Whether a model honours several texts in one row, shown on the model at hand.

Packed rows come with a mask of who may attend to whom and with positions counted anew in each text.
Some families do not take such a mask (ALiBi), and one that is not known yet may read it in its own
way. So before packing, three random texts in one row and one that fills the context are compared
with the same texts in rows of their own.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import RunError
from interp.models.model import Model
from interp.runs.execute import execute
from interp.sites import Site
from interp.token_batch import TokenBatch

__all__ = ["packs"]

#: Differences allowed by the bits of the model's dtype: the largest as a share of the largest
#: activation, and the median as a share of the median one. In many models a few activations are a
#: thousand times the others (Sun et al. 2024, "Massive activations"): beside them the first sees nothing.
_ALLOWED = {
    torch.float64: (1e-9, 1e-8), torch.float32: (1e-4, 1e-3), torch.bfloat16: (5e-2, 0.15),
    torch.float16: (1e-2, 3e-2),
}  # fmt: skip


def packs(model: Model, sites: tuple[Site, ...], *, context: int) -> str | None:
    """Why texts cannot share rows in this model; None if they can."""
    texts = _texts(model, context)
    batch = _packed(texts).to(model.device)
    try:
        together = execute(model.anatomy, batch, save=sites, logits="none", rows_at_once=2).cache
    except RunError as error:
        return str(error)
    except (ValueError, TypeError) as error:  # a family's own code met a mask that it does not know
        return f"{model.anatomy.name} does not take a mask of packed rows ({error})"
    for number, text in enumerate(texts):
        one = TokenBatch.of(text[None].to(model.device))
        alone = execute(model.anatomy, one, save=sites, logits="none").cache
        for site in sites:
            want = alone[site][0]
            have = together[site][torch.as_tensor(batch.segments == number).to(want.device)]
            most, usual = _off(have, want)
            if not (most <= _ALLOWED[model.dtype][0] and usual <= _ALLOWED[model.dtype][1]):
                return (
                    f"{model.anatomy.name} does not keep texts in one row apart: {site} is off by "
                    f"{most:.1g} of its largest value and {usual:.1g} of its usual one"
                )
    return None


def _off(have: Float[Tensor, "pos ..."], want: Float[Tensor, "pos ..."]) -> tuple[float, float]:
    """The largest difference by the largest value, and the median by the median where not all are 0."""
    most = (have - want).abs().max() / want.abs().max().clamp(min=1e-30)
    there = (have != 0) | (want != 0)
    if not there.any():
        return float(most), 0.0
    wide = torch.promote_types(want.dtype, torch.float32)
    have, want = have[there].to(wide), want[there].to(wide)
    usual = (have - want).abs().median() / want.abs().median().clamp(min=1e-30)
    return float(most), float(usual)


def _texts(model: Model, context: int) -> list[Int[Tensor, " _pos"]]:
    """Three texts that share a row, and one that fills its row."""
    draw = torch.Generator().manual_seed(0)
    short = max(1, context // 4)
    lengths = [short, max(1, context // 3), short, context] if context >= 4 else [1, context]
    return [torch.randint(model.d_vocab, (n,), generator=draw) for n in lengths]


def _packed(texts: list[Int[Tensor, " _pos"]]) -> TokenBatch:
    """All texts but the last in one row, the last in another."""
    context = max(len(texts[-1]), sum(map(len, texts[:-1])))
    ids = torch.zeros(2, context, dtype=torch.long)
    segments = torch.full((2, context), -1)
    start = 0
    for number, text in enumerate(texts):
        row = int(number == len(texts) - 1)
        at = 0 if row else start
        ids[row, at : at + len(text)], segments[row, at : at + len(text)] = text, number
        start += len(text)
    return TokenBatch(ids, segments >= 0, segments)
