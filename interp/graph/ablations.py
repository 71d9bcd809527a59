"""What an ablated edge carries: the paired run's value, zero, or a mean over other prompts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import GraphError
from interp.graph.contributions import run_and_read
from interp.graph.graph import Graph
from interp.graph.parts import Parts
from interp.prompts.prompts import Prompts
from interp.token_batch import TokenBatch

__all__ = ["ABLATIONS", "Ablated", "Ablation", "ablated_values", "check_ablation"]

Ablation = Literal["resample", "zero", "mean"]
ABLATIONS: Final = ("resample", "zero", "mean")
#: What every source's ablated edges carry, for some of the prompts.
Ablated = Callable[[slice], Float[Tensor, "source row pos d_model"]]


def check_ablation(ablation: str, prompts: Prompts, reference: Prompts | None) -> None:
    """Refuse what cannot be: an unknown word, or prompts that lack what the ablation needs.

    Raises:
        GraphError: with what was expected.
    """
    if ablation not in ABLATIONS:
        raise GraphError(
            f"ablation={ablation!r}; expected 'resample' (the paired corrupted run's values), "
            "'zero', or 'mean' (over the prompts of reference=)."
        )
    if ablation == "resample" and prompts.corrupted is None:
        raise GraphError(
            "ablation='resample' puts in the corrupted run's values, and these prompts have no "
            "corrupted side: use model.prompts(clean, corrupted), or ablation='zero' or 'mean'."
        )
    if ablation == "mean" and not isinstance(reference, Prompts):
        raise GraphError(
            "ablation='mean' needs reference=Prompts to average over: other prompts of the same "
            "kind, not those that are measured. prompts.split(0.5) makes two such parts."
        )
    if ablation != "mean" and reference is not None:
        raise GraphError(
            f"reference= belongs to ablation='mean', not to {ablation!r}: leave it out."
        )


def ablated_values(
    graph: Graph,
    parts: Parts,
    prompts: Prompts,
    other: TokenBatch | None,
    ablation: Ablation,
    reference: Prompts | None,
) -> Ablated:
    """What ablated edges carry. ``other`` is the paired run, for ``"resample"``."""
    if ablation == "resample":
        assert other is not None  # check_ablation has seen to it
        return lambda rows: run_and_read(parts, graph, other.rows(rows))[1]
    if ablation == "zero":
        return lambda rows: torch.zeros((), device=prompts.clean.ids.device)
    assert reference is not None
    means = _means(graph, parts, reference)
    return lambda rows: _placed(means, prompts, range(len(prompts))[rows])


def _kinds(prompts: Prompts) -> list[str]:
    """What each prompt is averaged with: its template, or the others of its length."""
    if prompts.groups is not None:
        return list(prompts.groups)
    return [f"length {n}" for n in prompts.clean.n_real.tolist()]


def _means(
    graph: Graph, parts: Parts, reference: Prompts, step: int = 32
) -> dict[str, Float[Tensor, "source pos d_model"]]:
    """For each kind of reference prompt, the mean of every node at each of its real positions."""
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}
    kinds, clean = _kinds(reference), reference.clean
    for low in range(0, len(clean), step):
        batch = clean.rows(slice(low, low + step))
        _, written = run_and_read(parts, graph, batch)
        for row, mask in enumerate(batch.mask):
            kind, own = kinds[low + row], written[:, row, mask].double()
            if kind in sums and sums[kind].shape != own.shape:
                raise GraphError(
                    f"ablation='mean' averages position by position, and the reference prompts of "
                    f"kind {kind!r} have {sums[kind].shape[1]} and {own.shape[1]} tokens: give "
                    "prompts whose templates (groups) have one length each."
                )
            sums[kind] = sums[kind] + own if kind in sums else own
            counts[kind] = counts.get(kind, 0) + 1
    return {kind: total / counts[kind] for kind, total in sums.items()}


def _placed(
    means: dict[str, Float[Tensor, "source pos d_model"]], prompts: Prompts, rows: range
) -> Float[Tensor, "source row pos d_model"]:
    """The means at the columns of some prompts' real tokens; zeros at padding."""
    kinds, clean = _kinds(prompts), prompts.clean
    missing = sorted({kinds[row] for row in rows} - means.keys())
    if missing:
        raise GraphError(
            f"the reference prompts have none of kind {missing[0]!r}, which the measured ones have; "
            f"theirs are {', '.join(sorted(means))}. Draw both from the same templates."
        )
    first = next(iter(means.values()))
    out = first.new_zeros(first.shape[0], len(rows), clean.ids.shape[1], first.shape[2])
    for place, row in enumerate(rows):
        mask, mean = clean.mask[row], means[kinds[row]]
        if int(mask.sum()) != mean.shape[1]:
            raise GraphError(
                f"prompt {row} of kind {kinds[row]!r} has {int(mask.sum())} tokens, the reference's "
                f"{mean.shape[1]}: means are taken position by position."
            )
        out[:, place, mask] = mean
    return out
