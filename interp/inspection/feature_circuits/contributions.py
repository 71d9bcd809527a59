"""``contributions``: what a feature's pre-activation at one token is the sum of.

    W_enc·LN(x) + b_enc = Σ_j f_j(x)·(W_dec_j·v)  +  Σ_{head, src} α·(...)  +  embeddings  +  errors  +  biases

Dunefsky et al. 2024 (arXiv:2406.11944), §4. Each feature's term is the product of an **input-invariant** number,
``W_dec_j·v`` (weights alone, but for the norm's scale), and an **input-dependent** one, its activation.
:mod:`.frozen` says what is held; that the terms sum to the encoder's own pre-activation is checked each time.

The error of a transcoder is a term too: ``v·(MLP(x) − TC(x))``. Its share of ``v·MLP(x)`` is the paper's error
node: 0 where the transcoder says all there is to say for this reader, 1 where it says nothing.
"""

from __future__ import annotations

import torch

from interp.direct.proof import check, tolerance
from interp.inspection.feature_circuits.contributions_result import Contributions
from interp.inspection.feature_circuits.frozen import FrozenRun
from interp.inspection.feature_circuits.node import Node
from interp.inspection.feature_circuits.standing import (
    Transcoders,
    by_layer,
    feature_of,
    one_prompt,
)
from interp.models.model import Inputs, Model
from interp.prompts.prompts import Prompts
from interp.results import Provenance

__all__ = ["begin", "contributions", "prompt_texts"]

_ROUNDING = tolerance(torch.float32)


@torch.no_grad()
def contributions(
    transcoders: Transcoders, model: Model, prompt: Inputs, feature: str
) -> Contributions:
    """The terms of one feature's pre-activation at one position, which sum to it.

    >>> found = interp.inspection.contributions(tcs, model, "The capital of Peru is", "L2.mlp.F12@END")
    ... # doctest: +SKIP
    >>> found.to_frame(); found.errors(); found.plot()                        # doctest: +SKIP

    Args:
        transcoders: of the MLPs that are to be taken apart: one, several, or a mapping as ``interp.train``
            gives it. The others are a term each.
        model: that they belong to, with none of them in its runs.
        prompt: one prompt.
        feature: as a site, ``"L2.mlp.F12@END"``; without a position at the last token.

    Raises:
        DictionaryError: no transcoders of single MLPs, or no such feature.
        PromptError: several prompts, or no such position.
        ModelError: the terms do not sum to the pre-activation: this model's stream is not the sum of its parts.
        SiteError: the model lacks a site that this needs.
    """
    run, root = begin(transcoders, model, prompt, feature)
    layer, unit, column = root.numbers
    terms = run.terms(run.root(root))
    values = torch.tensor([value for _, value in terms], dtype=torch.float64)
    pre = run.pre(root)
    off, largest = values.sum() - pre, float(values.abs().max())
    if abs(off) > _ROUNDING * max(
        1.0, largest
    ):  # else float32's: RMSNorms compute in it in any model
        check(run.anatomy, run.batch, off, largest, root.name)
    return Contributions(
        feature=root.name,
        tokens=prompt_texts(model, run),
        names=tuple(node.name for node, _ in terms),
        values=values,
        pre_activation=pre,
        activation=float(run.activations(layer, column)[unit]),
        deviation=float(off),
        provenance=Provenance.of(
            model, prompt if isinstance(prompt, Prompts) else None, verb="contributions", feature=feature,
            dictionaries=[one.hash for one in run.transcoders.values()],
        ),
    )  # fmt: skip


def begin(
    transcoders: Transcoders, model: Model, prompt: Inputs, feature: str
) -> tuple[FrozenRun, Node]:
    """The frozen run, and the feature that is asked about."""
    standing = by_layer(model, transcoders)
    batch = one_prompt(model, prompt)
    return FrozenRun(model, batch, standing), feature_of(model, prompt, standing, feature)


def prompt_texts(model: Model, run: FrozenRun) -> tuple[str, ...]:
    """The prompt's tokens as text, or their ids without a tokenizer."""
    ids = run.batch.ids[0].tolist()
    return tuple(map(str, ids)) if model.tokenizer is None else tuple(model.to_str_tokens(ids))
