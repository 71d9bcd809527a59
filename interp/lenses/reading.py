"""From d_model vectors anywhere in a run to distributions over the vocabulary.

Two loops share this file, reading with a lens and tuning one. Both walk over a few rows of the
prompts at a time, and within those over a slab of tokens at a time, so that logits of all sites,
prompts and positions never exist together: the largest tensor is one slab by the vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import ModelError, SiteError
from interp.models.model import Model
from interp.runs.execute import execute
from interp.runs.memory import needs
from interp.runs.plan import Save, resolve
from interp.sites import ALL, POINTS, Index, Site
from interp.taps.norms import normalise
from interp.taps.unembed import unembed
from interp.token_batch import TokenBatch

__all__ = [
    "FINAL", "Piece", "answer_probabilities", "decode", "divergence", "label", "pieces", "rows_of",
    "short_names", "slabs",
]  # fmt: skip

#: The residual stream after the last block: what the model itself decodes.
FINAL = "L-1.resid_post"
#: Bytes of the logits of one slab, and of the activations saved at one time.
_SLAB, _SAVED = 2**25, 2**28


@dataclass(frozen=True, eq=False)
class Piece:
    """Some rows of the prompts with what was saved of them.

    Attributes:
        rows: which rows of the batch these are.
        saved: for each site asked for, in order.
        final: the residual stream after the last block.
    """

    rows: slice
    saved: list[Float[Tensor, "row pos d_model"]]
    final: Float[Tensor, "row pos d_model"]


def rows_of(model: Model, sites: Save) -> tuple[Site, ...]:
    """One site for each row of a lens: layers expanded, each head of ``result`` by itself.

    Raises:
        SiteError: a site that does not exist here, whose vectors are not in the space of the
            residual stream, or at one position (a lens reads each).
    """
    found: dict[Site, None] = {}
    for site in resolve(model.anatomy, sites):
        axes = POINTS[site.point].axes
        if axes[-1] != "d_model":
            fitting = [
                p for p, one in POINTS.items() if one.axes[-1] == "d_model" and not one.spliced
            ]
            raise SiteError(
                f"{str(site)!r} has axes {list(axes)}: a lens reads vectors of d_model. Sites that "
                f"have them: {', '.join(fitting)}."
            )
        if site.position is not None:
            raise SiteError(
                f"{str(site)!r} is one position; a lens reads every one: give "
                f"{str(site).partition('@')[0]!r} and pick the position from the result."
            )
        if "head" not in axes:
            found[site] = None
            continue
        for head in (site.head or ALL).expand(model.n_heads, "head"):
            found[Site(site.point, site.layer, Index(str(head)))] = None
    if not found:
        raise SiteError("no sites were given; expected some, such as 'L*.resid_pre'.")
    return tuple(found)


def label(model: Model, site: Site) -> str:
    """How a row is called: ``"L3"`` for the stream before block 3, ``"out"`` for its end."""
    if site.point == "resid_pre" and site.layer is not None:
        return f"L{site.layer.text}"
    return "out" if (site,) == resolve(model.anatomy, FINAL) else str(site)


def short_names(rows: Sequence[str]) -> tuple[list[str], str]:
    """Names of rows without the point, where all have the same, and that point (else "").

    >>> short_names(["L0.H0.result", "L0.H1.result"])
    (['L0.H0', 'L0.H1'], 'result')
    """
    points = {row.split(".", 2 if ".H" in row else 1)[-1] for row in rows if "." in row}
    if len(points) != 1 or not all("." in row for row in rows):
        return list(rows), ""
    (point,) = points
    return [row.removesuffix(f".{point}") for row in rows], point


@torch.no_grad()
def pieces(model: Model, batch: TokenBatch, sites: Sequence[Site]) -> Iterator[Piece]:
    """Run the model over as many rows at a time as bounded memory takes.

    Raises:
        ModelError: the model's head is more than a norm and an unembedding that this package
            knows: what is read at the end would not be the model's own output.
    """
    (final,) = resolve(model.anatomy, FINAL)
    wanted = tuple(dict.fromkeys((*sites, final)))
    kept, work = needs(
        model.anatomy, rows=1, width=batch.ids.shape[1], save=wanted, logit_positions=1,
        d_vocab=model.d_vocab, grad=False,
    )  # fmt: skip
    step = max(1, _SAVED // (kept + work))
    for start in range(0, len(batch), step):
        rows = slice(start, min(start + step, len(batch)))
        part = batch.rows(rows)
        run = execute(model.anatomy, part, save=wanted, logits="last")
        end = run.cache[final]
        at = part.column(-1).to(end.device)
        _proven(model, end[torch.arange(len(part), device=end.device), at], run.logits[:, 0])
        yield Piece(rows, [run.cache[site] for site in sites], end)


def slabs(count: int, d_vocab: int) -> Iterator[slice]:
    """Cut ``count`` tokens so that the logits of one part are no more than 32 MiB."""
    step = max(1, _SLAB // (4 * d_vocab))
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))


def decode(
    model: Model,
    x: Float[Tensor, "*token d_model"],
    *,
    end: Float[Tensor, "*token d_model"] | None = None,
) -> Float[Tensor, "*token d_vocab"]:
    """Logits of vectors read as the last residual stream, in float32.

    They pass the model's own final norm, unembedding, logit multiplier and final soft-cap.

    Args:
        end: the residual stream after the last block. The final norm then divides by the scale
            that it has there, as it does in the model's own run; None: by that of ``x`` itself.
    """
    norm: Any = model.anatomy.ln_final
    x = x.to(model.dtype)
    if end is None or norm is None:
        return unembed(model.anatomy, x).float()
    (_, own), (_, there) = normalise(norm, x), normalise(norm, end)
    normed, bias = norm(x), getattr(norm, "bias", None)
    factor = (own / there).to(normed.dtype)
    scaled = normed * factor if bias is None else bias + (normed - bias) * factor
    return unembed(model.anatomy, scaled, normed=True).float()


def divergence(
    reference: Float[Tensor, "token d_vocab"], other: Float[Tensor, "token d_vocab"]
) -> Float[Tensor, " token"]:
    """KL(reference ‖ other) of two tables of log-probabilities, in nats."""
    return (reference.exp() * (reference - other)).sum(-1).clamp(min=0)


def answer_probabilities(
    log_probs: Float[Tensor, "prompt d_vocab"], answers: Int[Tensor, "prompt a"]
) -> tuple[Float[Tensor, " prompt"], Int[Tensor, " prompt"]]:
    """Probability of any of a prompt's answers, and the rank of its best one (0 is the top).

    Tokens as probable as the answer count as before it. ``-1`` in ``answers`` is padding.
    """
    given = answers.to(log_probs.device)
    scores = log_probs.gather(1, given.clamp(min=0)).masked_fill(given < 0, -torch.inf)
    best = scores.max(-1, keepdim=True).values
    return scores.exp().sum(-1), (log_probs >= best).sum(-1) - 1


def _proven(
    model: Model, end: Float[Tensor, "row d_model"], logits: Float[Tensor, "row d_vocab"]
) -> None:
    for part in slabs(len(end), model.d_vocab):
        read, own = decode(model, end[part]), logits[part].float()
        deviation = float((read - own).abs().max() / own.abs().max().clamp(min=1e-9))
        if not deviation < (1e-4 if model.dtype in (torch.float32, torch.float64) else 3e-2):
            raise ModelError(
                f"the head of {model.anatomy.name} is not understood: reading the last residual "
                f"stream gives logits that differ from the model's own by {deviation:.1e} "
                "(relative)."
            )
