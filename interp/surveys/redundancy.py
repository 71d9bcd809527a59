"""Which layers does a model hardly use? How little each turns the residual stream, and how few neurons are active.

An attention or MLP layer f reads the residual stream x and adds to it. If x + f(x) points where x did, the layer was
hardly there. Its *importance* is

    S = 1 - cos(x, x + f(x)),   averaged over tokens.

The layers with the lowest S can be dropped (their output replaced by 0) at little loss; in large models those are many
attention layers and few MLPs. cos forgets lengths: a layer that only scales x has S = 0, and one that matters through a
small direction has a small S too. So S orders candidates; what dropping costs is measured by dropping
(``interp.ablate(model, texts, list(found.lowest(2)), method="zero", metric="nll", positions="all")``, or
``" + ".join(found.lowest(2))`` for both at once).

Sources: He et al. 2024, "What matters in transformers? Not all attention is needed", arXiv:2406.15786;
the norm counts as part of the layer, as there. Li et al. 2022, "The lazy neuron phenomenon", arXiv:2210.06313, for
:func:`active_share`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import MetricError
from interp.geometry.rows import array
from interp.models.model import Model
from interp.progress import Bar
from interp.results import Provenance, Stored

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

__all__ = ["Redundancy", "active_share", "layer_importance", "layer_redundancy"]

_ROWS: Final = 32  # prompts at a time


def layer_importance(
    before: Float[Tensor, "*tokens d_model"], added: Float[Tensor, "*tokens d_model"]
) -> Float[Tensor, "*tokens"]:
    """S = 1 - cos(x, x + f) of each token: 0 = the direction stays, 1 = orthogonal, 2 = turned around.

    NaN where x or x + f is 0.

    >>> round(layer_importance(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])).item(), 4)  # 45 degrees
    0.2929
    """
    x = array(before, "layer_importance()").double()
    y = x + array(added, "layer_importance()").double()
    size = x.norm(dim=-1) * y.norm(dim=-1)
    return torch.where(size > 0, 1 - ((x * y).sum(-1) / size).clamp(-1, 1), torch.nan)


def active_share(x: Float[Tensor, "*tokens d"], *, above: float = 0.0) -> Float[Tensor, "*tokens"]:
    """Share of a token's neurons whose activation is above a number: 0 = none, 1 = all.

    After a ReLU, above 0 are those that are not exactly 0: in trained models few (Li et al. 2022, arXiv:2210.06313: 3% in
    T5-Base, 6.3% in ViT-B16). A GELU or SiLU is never exactly 0: what is above 0 got a positive
    input, and many of those are tiny. Over a corpus and neuron by neuron: ``interp.surveys.histograms(...).density``.

    >>> active_share(torch.tensor([0.0, 2.0, 0.0, -0.1])).item()
    0.25
    """
    values = array(x, "active_share()")
    if values.ndim < 1 or not values.shape[-1]:
        raise MetricError(
            f"active_share() got an array of shape {list(values.shape)}; expected [..., d]."
        )
    return (values > above).double().mean(-1)


@dataclass(frozen=True, eq=False, repr=False)
class Redundancy(Stored):
    """How much each layer turns the residual stream.

    Attributes:
        branches: ``attn_out`` and ``mlp_out`` (attention alone in models without MLPs).
        importance: S = 1 - cos(x, x + f(x)), mean over tokens; 0 = redundant by this measure.
        blocks: S of whole blocks, both branches together.
        active: mean share of each MLP's neurons above 0; NaN where an MLP has no neurons (mixtures of experts).
        n_tokens: tokens averaged over.
        provenance: model, versions and the call.
    """

    branches: tuple[str, ...]
    importance: Float[Tensor, "branch layer"]
    blocks: Float[Tensor, " layer"]
    active: Float[Tensor, " layer"]
    n_tokens: int
    provenance: Provenance

    def __repr__(self) -> str:
        first = self.lowest(1)[0]
        return f"Redundancy({len(self.blocks)} layers, {self.n_tokens:,} tokens; least important: {first})"

    def lowest(self, n: int, branch: str | None = None) -> tuple[str, ...]:
        """The sites of the n layers with the smallest S, smallest first: what to drop.

        Args:
            branch: of one kind, ``"attn_out"`` or ``"mlp_out"``; None: of both together.

        Raises:
            MetricError: no such branch, or fewer layers than that.
        """
        layers = self.importance.shape[1]
        among = [
            (float(self.importance[b, i]), f"L{i}.{name}")
            for b, name in enumerate(self.branches) if branch in (None, name) for i in range(layers)
        ]  # fmt: skip
        if not 1 <= n <= len(among):
            raise MetricError(
                f"lowest(n={n}, branch={branch!r}): expected 1 to {len(among)} layers of {', '.join(self.branches)}."
            )
        return tuple(name for _, name in sorted(among)[:n])

    def to_frame(self) -> DataFrame:
        """One row for each layer: ``attn_out``, ``mlp_out`` and ``block`` (S), ``active`` (share of neurons)."""
        import pandas as pd

        found: dict[str, Any] = {"layer": list(range(len(self.blocks)))}
        found |= {
            name: line.tolist() for name, line in zip(self.branches, self.importance, strict=True)
        }
        return pd.DataFrame(
            {**found, "block": self.blocks.tolist(), "active": self.active.tolist()}
        )

    def plot(self, *, title: str | None = None) -> Figure:
        """S over layers, attention beside MLP."""
        from interp.figures import lines

        names = {"attn_out": "attention", "mlp_out": "MLP"}
        return lines(
            [str(i) for i in range(len(self.blocks))],
            {names[b]: line.tolist() for b, line in zip(self.branches, self.importance, strict=True)},
            x_name="layer", y_name="S = 1 - cos(x, x + f(x))", bottom=0.0,
            title=title or "How far each layer turns the residual stream",
        )  # fmt: skip


@torch.no_grad()
def layer_redundancy(model: Model, inputs: Any, *, progress: bool | None = None) -> Redundancy:
    """S of every attention and MLP layer over some text, and how many neurons are active.

    x is what the layer reads before its norm: ``resid_pre`` for attention, ``resid_mid`` for an MLP, or ``resid_pre``
    for both where they stand in parallel. f is what is added to the stream.

    Args:
        inputs: whatever ``model.run`` takes; real tokens count alike, BOS included.

    Raises:
        SiteError: a model whose layers' outputs cannot be read.
    """
    tokens = model.batch(inputs)
    branches, layers = model.anatomy.branches, range(model.n_layers)
    sequential = "resid_mid" not in model.anatomy.refused and len(branches) > 1
    neurons = "mlp_post" not in model.anatomy.refused and len(branches) > 1
    points = ["resid_pre", "resid_post", *branches, *(["mlp_post"] if neurons else [])]
    points += ["resid_mid"] if sequential else []
    reads = {"attn_out": "resid_pre", "mlp_out": "resid_mid" if sequential else "resid_pre"}
    sums = torch.zeros(len(branches) + 2, model.n_layers, dtype=torch.float64)
    with Bar(total=len(tokens), what="redundancy", show=progress) as bar:
        for start in range(0, len(tokens), _ROWS):
            part = tokens.rows(slice(start, start + _ROWS))
            save = [f"L*.{point}" for point in points]
            cache = model.run(part, save=save, logits="none").cache
            for i in layers:
                at = {point: cache[f"L{i}.{point}"][part.mask].cpu().double() for point in points}
                for b, name in enumerate(branches):
                    sums[b, i] += layer_importance(at[reads[name]], at[name]).sum()
                sums[-2, i] += layer_importance(
                    at["resid_pre"], at["resid_post"] - at["resid_pre"]
                ).sum()
                sums[-1, i] += active_share(at["mlp_post"]).sum() if neurons else torch.nan
            bar.advance(len(part))
    n = int(tokens.mask.sum())
    mean = sums / n
    provenance = Provenance.of(model, inputs, verb="layer_redundancy")
    return Redundancy(branches, mean[: len(branches)], mean[-2], mean[-1], n, provenance)
