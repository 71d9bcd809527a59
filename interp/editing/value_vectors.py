"""Value vectors: what one neuron writes, read in the vocabulary, and changed.

An MLP writes Σ_i m_i v_i + b: the value vector v_i is row i of its down projection, m_i how strongly neuron i
fires. Li & Gao 2024 (arXiv:2405.03205) look for the neurons behind GPT-2's habit of answering A:

1. *MLP lens*: logits of what the whole MLP writes at the last position, W_U · LN_f(mlp_out), the anchor's less the
   right label's. Above 0 the layer speaks for the anchor.
2. The ten neurons with the largest |m_i| ‖v_i‖, each read alone, LN_f(m_i v_i + b_out): keep those whose gap is above 4.
3. *Update* the first of them, v ← v − u_anchor + 8 u_right (u: columns of W_U), and put it back afterwards.

The update is told the right label, prompt by prompt. That it makes a model right says little: what it does to prompts
whose answer *is* the anchor, and what a random vector of its size does, say whether a bias was removed
(:func:`random_update` is that null).

Departures: the authors choose neurons for each prompt, here means over the prompts given (usually those of one right label
that the model gets wrong); their weights are folded and centred by TransformerLens, here they are the model's own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.editing.weight_edit import RankOne, WeightEdit
from interp.errors import ModelError, PromptError
from interp.models.model import Model
from interp.prompts.prompts import Prompts
from interp.results import Provenance, Stored
from interp.taps.unembed import unembed

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

__all__ = ["MlpLens", "mlp_lens", "random_update", "value_update"]


@dataclass(frozen=True, eq=False, repr=False)
class MlpLens(Stored):
    """What every MLP, and its loudest neurons, say about an anchor against the right label.

    Attributes:
        anchor: the token that is suspected.
        per_prompt: the lens gap of each MLP: logit of the anchor less that of the right label.
        neurons: of each layer, those with the largest mean |m| ‖v‖ at the last position, in that order.
        loudness: their mean |m| ‖v‖.
        activations: their mean m.
        gaps: the mean lens gap of each one's m v + b_out alone.
        provenance: model, prompts, versions and the call.
    """

    anchor: str
    per_prompt: Float[Tensor, "layer prompt"]
    neurons: Int[Tensor, "layer top"]
    loudness: Float[Tensor, "layer top"]
    activations: Float[Tensor, "layer top"]
    gaps: Float[Tensor, "layer top"]
    provenance: Provenance

    def __repr__(self) -> str:
        found = ", ".join(f"L{n} {float(v):.2g}" for n, v in enumerate(self.per_prompt.mean(-1)))
        return f"MlpLens({self.anchor!r} against the right label, in logits: {found})"

    def first(self, layer: int, *, gap: float = 4.0) -> int | None:
        """The loudest neuron of a layer whose gap is above ``gap``; None if there is none."""
        found = (self.gaps[layer] > gap).nonzero()
        return int(self.neurons[layer, found[0, 0]]) if len(found) else None

    def to_frame(self) -> DataFrame:
        """A row for each neuron: ``layer``, ``neuron``, ``loudness``, ``m`` and ``gap`` (logits)."""
        import pandas as pd

        layers, top = self.neurons.shape
        return pd.DataFrame({
            "layer": [n for n in range(layers) for _ in range(top)],
            "neuron": self.neurons.flatten().tolist(), "loudness": self.loudness.flatten().tolist(),
            "m": self.activations.flatten().tolist(), "gap": self.gaps.flatten().tolist(),
        })  # fmt: skip

    def plot(self, *, title: str | None = None) -> Figure:
        """The lens gap of each layer's MLP, and of the loudest neurons that speak most for the anchor."""
        from interp.figures.bars import bars

        names, values = [], []
        for layer in range(len(self.gaps)):
            names.append(f"L{layer} MLP")
            values.append(float(self.per_prompt[layer].mean()))
            best = int(self.gaps[layer].argmax())
            names.append(f"L{layer} N{int(self.neurons[layer, best])}")
            values.append(float(self.gaps[layer, best]))
        return bars(
            names, {"gap": values}, unit=f"lens gap: logit of {self.anchor!r} less the right one's",
            title=title or f"Who says {self.anchor!r} in {self.provenance.model}",
        )  # fmt: skip


@torch.no_grad()
def mlp_lens(model: Model, prompts: Prompts, anchor: str | int, *, top: int = 10) -> MlpLens:
    """Read what each MLP, and each of its loudest neurons, writes at the last position.

    Args:
        prompts: whose answer is *not* the anchor; usually those that the model gets wrong.
        anchor: the label that is suspected, as text with its space, or a token id.
        top: how many neurons of each layer, by mean |m| ‖v‖.

    Raises:
        PromptError: prompts without answers, or with the anchor as an answer.
        ModelError: MLPs without a down projection of their own; ``top`` below 1.
    """
    if top < 1:
        raise ModelError(f"top={top}: expected at least one neuron of each layer.")
    ids = _answers(model, prompts, anchor)
    points = [f"L*.{point}@END" for point in ("mlp_post", "mlp_out")]
    cache = model.run(prompts, save=points, logits="none").cache
    layers = []
    for layer in range(model.n_layers):
        weights = model.weights.layer(layer)
        m = cache[f"L{layer}.mlp_post@END"].float()
        loud = m.abs().mean(0) * weights.W_out.float().norm(dim=-1)
        best = loud.topk(min(top, len(loud)))
        alone = (
            m[:, best.indices, None] * weights.W_out[best.indices].float() + weights.b_out.float()
        )
        layers.append((
            _gap(model, cache[f"L{layer}.mlp_out@END"], ids), best.indices, best.values,
            m[:, best.indices].mean(0), _gap(model, alone, ids).mean(0),
        ))  # fmt: skip
    gap, neurons, loudness, m, gaps = (
        torch.stack(part).cpu() for part in zip(*layers, strict=True)
    )
    name = str(anchor) if isinstance(anchor, int) else anchor
    origin = Provenance.of(model, prompts, verb="mlp_lens", anchor=name, top=top)
    return MlpLens(name, gap, neurons, loudness, m, gaps, origin)


def value_update(
    model: Model,
    layer: int,
    neuron: int,
    *,
    anchor: str | int,
    right: str | int,
    lower: float = 1.0,
    higher: float = 8.0,
) -> WeightEdit:
    """v ← v − lower · u_anchor + higher · u_right for one neuron's value vector, as an edit to be undone.

    >>> with model.edited(value_update(model, 2, 294, anchor=" A", right=" B")): ...  # doctest: +SKIP

    Raises:
        ModelError: no such layer or neuron.
    """
    if layer not in range(model.n_layers) or neuron not in range(
        model.weights.layer(layer).W_out.shape[0]
    ):
        raise ModelError(f"L{layer}.N{neuron}: {model.name!r} has no such neuron.")
    a, b = (t if isinstance(t, int) else model.to_single_token(t) for t in (anchor, right))
    columns = model.weights.W_U[:, [a, b]].detach().float()
    unit = torch.zeros(model.weights.layer(layer).W_out.shape[0], device=columns.device)
    unit[neuron] = 1.0
    origin = Provenance.of(
        model, verb="value_update", layer=layer, neuron=neuron, anchor=a, right=b, lower=lower,
        higher=higher,
    )  # fmt: skip
    change = RankOne(unit, higher * columns[:, 1] - lower * columns[:, 0])
    return WeightEdit({f"L{layer}.W_out": change}, origin)


def random_update(edit: WeightEdit, *, seed: int) -> WeightEdit:
    """The null of :func:`value_update`: the same neuron, a random direction, the same norm.

    Raises:
        ModelError: an edit that is not of value vectors.
    """
    generator = torch.Generator().manual_seed(seed)
    changes = {}
    for name, change in edit.changes.items():
        if not isinstance(change, RankOne):
            raise ModelError(f"the change of {name!r} is no RankOne: give an edit of value_update.")
        drawn = torch.randn(change.v.shape, generator=generator, dtype=torch.float64)
        changes[name] = RankOne(
            change.u, (drawn * (change.v.double().cpu().norm() / drawn.norm())).to(change.v)
        )
    call = {**edit.provenance.call, "control": "random_update"}
    return WeightEdit(changes, replace(edit.provenance, call=call, seed=seed))


def _answers(model: Model, prompts: Prompts, anchor: str | int) -> Int[Tensor, "prompt 2"]:
    """The anchor's and the right label's token of each prompt."""
    a = anchor if isinstance(anchor, int) else model.to_single_token(anchor)
    if prompts.answers is None or bool((prompts.answers[:, 0] == a).any()):
        raise PromptError(
            f"expected prompts with answers, none of which is the anchor {anchor!r}: the gap is between the "
            "two. Take prompts.subset(rows) where another label is right."
        )
    right = prompts.answers[:, 0]
    return torch.stack([torch.full_like(right, a), right], -1).to(model.device)


def _gap(
    model: Model, x: Float[Tensor, "prompt *some d_model"], ids: Int[Tensor, "prompt 2"]
) -> Float[Tensor, "prompt *some"]:
    """Logit of the anchor less that of the right label, of vectors read as the last stream."""
    columns, where = ids.unique(return_inverse=True)
    read = unembed(model.anatomy, x.to(model.dtype), columns=columns).float()
    picked = where.view(len(ids), *[1] * (x.dim() - 2), 2).expand(*read.shape[:-1], 2)
    pair = read.gather(-1, picked)
    return pair[..., 0] - pair[..., 1]
