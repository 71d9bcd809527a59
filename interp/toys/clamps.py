"""Perfect subcircuits of an induction head, to be clamped during training.

The circuit that solves :class:`~interp.toys.tasks.InContext` (tokens e l e l q, positions 0 to 4) has three
parts, and each can be put in its perfect form while the others are left to learn:

===================  =============================================================================
previous token       heads of layer 0 attend from each position to the one before it
layer 0              what layer 1's keys and queries read is exactly the exemplar before each
                     label, and what its values read is the embedding: no interference at all
match                heads of layer 1 attend from the query to the right label, and nowhere else
copy                 the scores of a head of layer 1 *are* the logits of the two labels, so that
                     gradients of the loss reach the scores directly
===================  =============================================================================

The paper counts layers from 1; here, as everywhere in this library, from 0.

Source:
    Singh et al. 2024, arXiv:2404.07129, section 4, and ``opto.py`` of their code: ``prev_token_heads``,
    ``perfect_prev_token_input``, ``induction_heads`` and ``perfect_copy_from_head_pattern``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import ToyError
from interp.runs.edits import Edit, Replace, Zero
from interp.toys.batch import Batch
from interp.toys.state import told
from interp.toys.toy import Toy
from interp.toys.train import Clamp, Readout, outputs

__all__ = [
    "both",
    "keep_pattern_and_values",
    "only_head",
    "perfect_copy",
    "perfect_layer_0",
    "perfect_match",
    "perfect_previous_token",
    "previous_token",
]

#: The logit of labels that are not in the sequence, as in the paper's code.
_ABSENT: Final = -1e9


def previous_token(width: int) -> Float[Tensor, "query key"]:
    """Attention from each position to the one before it; the first attends to itself.

    >>> previous_token(3).tolist()
    [[1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    """
    pattern = torch.zeros(width, width)
    pattern[range(1, width), range(width - 1)] = 1.0
    pattern[0, 0] = 1.0
    return pattern


def perfect_previous_token(site: str = "L0.pattern") -> Clamp:
    """Heads of layer 0 attend to the previous token: all, or ``"L0.H2.pattern"`` alone."""

    def clamp(batch: Batch) -> Mapping[str, Edit]:
        return {site: Replace(previous_token(batch.inputs.shape[1]))}

    return _named(clamp, f"perfect_previous_token({site})")


def perfect_match(site: str = "L1.pattern") -> Clamp:
    """Heads of layer 1 attend from the last position to the right label.

    The rows of other positions stay the model's own. No gradient reaches q and k of the last row.
    """

    def clamp(batch: Batch) -> Mapping[str, Edit]:
        correct = _fact(batch, "correct")

        def attend(x: Tensor) -> Tensor:  # [batch, head, query, key], or without heads
            row = torch.zeros_like(x[..., -1, :])
            at = correct.view(-1, *(1,) * (row.dim() - 1)).expand(*row.shape[:-1], 1)
            row = row.scatter(-1, at, 1.0)
            return torch.cat([x[..., :-1, :], row[..., None, :]], -2)

        return {site: attend}

    return _named(clamp, f"perfect_match({site})")


def perfect_copy(d_out: int, *, layer: int = 1, head: int = 0) -> Readout:
    """Logits of the two labels in the sequence: the head's scores for them, from the last position.

    All other labels get -1e9. Values and what comes behind them learn nothing.

    Args:
        d_out: labels there are.
        layer, head: the head whose scores they are.
    """
    site = f"L{layer}.H{head}.attn_scores"

    def logits(saved: Mapping[str, Tensor], batch: Batch) -> Tensor:
        return _copied(saved[site], batch, d_out)

    return Readout((site,), _named(logits, f"perfect_copy({d_out}, {layer}, {head})"))


def perfect_layer_0(
    *, clamp: Clamp | None = None, copy_from: str | None = None
) -> Callable[[Toy, Batch], Tensor]:
    """Layer 0 in its perfect form, as a training forward of two passes.

    1. The stream behind layer 0 is set to the embedding of the token *before* each position (the first
       and the last position keep their own): the patterns that layer 1 makes of it are kept.
    2. The stream behind layer 0 is set to the embeddings themselves, and layer 1 attends by the patterns of
       the first pass: its values see no interference from layer 0.

    Gradients pass through embeddings, patterns and values. Positions in the stream (learned ones) would
    be carried along with the embedding: meant for rotary positions, as the paper has them.

    Args:
        clamp: edits beside these, in the second pass.
        copy_from: a head (``"L1.H0"``) whose scores of the first pass become the logits, as in
            :func:`perfect_copy`; the second pass is left out.
    """

    def forward(toy: Toy, batch: Batch) -> Tensor:
        grad = torch.is_grad_enabled()
        embedded = toy.hf.model.embedded(batch.inputs)
        carried = torch.cat([embedded[:, :1], embedded[:, :-2], embedded[:, -1:]], 1)
        site = "L1.pattern" if copy_from is None else f"{copy_from}.attn_scores"
        first = toy.run(
            batch.inputs, save=site, edit={"L0.resid_post": _put(carried)}, grad=grad, logits="none"
        ).saved[site]
        if copy_from is not None:
            return _copied(first, batch, toy.anatomy.d_vocab_out)
        edits = {"L0.resid_post": _put(embedded), site: _put(first)}
        edits |= {} if clamp is None else clamp(batch)
        return toy.run(batch.inputs, edit=edits, grad=grad).logits

    return _named(forward, f"perfect_layer_0({told(clamp)}, {copy_from})")


def only_head(head: int, n_heads: int, *, layer: int = 1) -> Clamp:
    """One head of a layer is left: the values of the others are zero."""
    others = ",".join(str(other) for other in range(n_heads) if other != head)

    def clamp(batch: Batch) -> Mapping[str, Edit]:
        return {f"L{layer}.H{others}.v": Zero()} if others else {}

    return _named(clamp, f"only_head({head}, {n_heads}, {layer})")


def both(*clamps: Clamp) -> Clamp:
    """Several clamps at once, of different sites.

    Raises:
        ToyError: two of them are of one site.
    """

    def clamp(batch: Batch) -> Mapping[str, Edit]:
        edits: dict[str, Edit] = {}
        for one in clamps:
            new = one(batch)
            if shared := sorted(edits.keys() & new.keys()):
                raise ToyError(
                    f"two clamps are of {shared[0]!r}, and one would undo the other: give one function "
                    "for that site."
                )
            edits |= new
        return edits

    return _named(clamp, f"both({', '.join(map(told, clamps))})")


@torch.no_grad()
def keep_pattern_and_values(
    toy: Toy, batch: Batch, ablated: str, *, layer: int = 1
) -> Float[Tensor, "batch pos d_out"]:
    """Logits with heads ablated, a later layer's patterns and values being what they were without.

    Two passes: patterns and values of ``layer`` are read, then ``ablated`` (``"L0.z"``: every head of layer 0)
    is zeroed and both are put back. What is left of the ablated heads' effect is the direct path to the
    logits, not what they do for ``layer``.
    """
    sites = (f"L{layer}.pattern", f"L{layer}.v")
    kept = toy.run(batch.inputs, save=sites).saved
    edits: dict[str, Any] = {ablated: Zero(), **{site: Replace(kept[site]) for site in sites}}
    return outputs(toy, batch, clamp=lambda _: edits)


def _copied(scores: Tensor, batch: Batch, n_labels: int) -> Float[Tensor, "batch d_out"]:
    """Scores of a head as logits of the labels at positions 1 and 3."""
    labels = _fact(batch, "labels")
    out = scores.new_full((len(batch), n_labels), _ABSENT)
    return out.scatter(1, labels, scores[:, -1, [1, 3]])


def _put(value: Tensor) -> Edit:
    return lambda _: value


def _fact(batch: Batch, name: str) -> Tensor:
    if name not in batch.facts:
        have = ", ".join(batch.facts) or "none"
        raise ToyError(
            f"this clamp needs the fact {name!r} of a batch, and there are: {have}. It is of the task "
            "interp.toys.InContext."
        )
    return batch.facts[name]


def _named(fn: Any, name: str) -> Any:
    """The function under a name that tells it from others, also between runs."""
    fn.__qualname__ = name
    return fn
