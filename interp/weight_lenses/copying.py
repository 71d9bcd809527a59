"""Does a head copy, by its weights? Beside it: what a head of random weights would score.

The copying score ΣRe λ / Σ|λ| of a full OV circuit (see
:func:`interp.weight_lenses.factored.copying_score`) is about 0 for random weights, but how far
from 0 chance can take it depends on d_head and on the vocabulary's own geometry. So each layer is
scored again with Gaussian W_V and W_O between the model's own embedding and unembedding.

Copying alone is no finding: most middle-layer heads of small models copy by weights, and few are
induction heads. ``interp.head_scores`` asks about behaviour too.

Source: Elhage et al. 2021 (eigenvalue score). Departure: the control.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.errors import MetricError, ModelError
from interp.models.folding import norm_before_attention
from interp.models.model import Model
from interp.results import Provenance, Stored
from interp.weight_lenses.ends import read_through, tokens_in, unembedding
from interp.weight_lenses.factored import copying_score
from interp.weight_lenses.heads import heads_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

__all__ = ["CopyingScores", "copying_scores"]


@dataclass(frozen=True, eq=False, repr=False)
class CopyingScores(Stored):
    """The copying score of every head's OV circuit.

    Attributes:
        values: ΣRe λ / Σ|λ|, -1 to 1; 1 = each token raises its own logit, -1 = lowers it.
        null: the same of heads with Gaussian weights between the same ends.
        provenance: model, versions and the call.
    """

    values: Float[Tensor, "layer head"]
    null: Float[Tensor, "layer control"]
    provenance: Provenance

    def __repr__(self) -> str:
        layers, heads = self.values.shape
        return (
            f"CopyingScores({layers} × {heads} heads; {int(self.beyond_null().sum())} beyond every "
            f"one of {self.null.shape[1]} random heads)"
        )

    def beyond_null(self) -> Bool[Tensor, "layer head"]:
        """Which heads score above every random head of their layer."""
        return self.values > self.null.max(-1, keepdim=True).values

    def to_frame(self) -> DataFrame:
        """One row for each head: ``layer``, ``head``, ``copying``, ``null_mean``, ``null_max``."""
        import pandas as pd

        layers, heads = self.values.shape
        wide = {"null_mean": self.null.mean(-1), "null_max": self.null.max(-1).values}
        return pd.DataFrame({
            "layer": [i for i in range(layers) for _ in range(heads)],
            "head": list(range(heads)) * layers,
            "copying": self.values.flatten().tolist(),
            **{name: x.repeat_interleave(heads).tolist() for name, x in wide.items()},
        })  # fmt: skip

    def top(self, n: int = 10) -> DataFrame:
        """The ``n`` heads that copy most."""
        return self.to_frame().nlargest(n, "copying").reset_index(drop=True)

    def plot(self, *, title: str | None = None) -> Figure:
        """A layer × head heat map."""
        from interp.figures import heatmap

        layers, heads = self.values.shape
        most = float(self.null.abs().max())
        return heatmap(
            self.values,
            rows=[str(i) for i in range(layers)],
            columns=[str(i) for i in range(heads)],
            title=title or f"copying by weights (random heads: within ±{most:.2f})",
            unit="ΣRe λ / Σ|λ| of the OV circuit",
            column_name="head",
            limit=1.0,
        )


@torch.no_grad()
def copying_scores(
    model: Model,
    *,
    through_mlp0: bool = False,
    folded: bool = True,
    normalise: bool = True,
    centre: bool = True,
    controls: int = 32,
    seed: int = 0,
) -> CopyingScores:
    """The copying score of each head, beside random heads between the same ends.

    The options are those of :func:`interp.weight_lenses.ov_circuit`; each value is that circuit's
    ``copying_score()``, computed for all heads of a layer at once.

    Args:
        controls: random heads for each layer.
        seed: of their weights.

    Raises:
        MetricError: no controls.
        ModelError: weights that cannot be viewed or folded, or a model that answers in other
            tokens than it reads, where no head can copy.
    """
    if controls < 1:
        raise MetricError(f"controls={controls}; expected 1 or more.")
    if model.tokens.n_out is not None:
        raise ModelError(
            f"{model.name} reads {model.d_vocab} tokens and answers in {model.d_vocab_out} others, so "
            "there is nothing to copy: expected one vocabulary. ov_circuit takes such a model."
        )
    rows = tokens_in(model, through_mlp0=through_mlp0)
    out = unembedding(model, folded=folded, centre=centre)
    norm = None
    if folded or normalise:  # every layer's norm centres and divides a token's row alike
        norm = norm_before_attention(model.anatomy, model.anatomy.blocks[0])
    core = out @ read_through(norm, rows, divide=normalise)  # from what is written to what is read
    generator = torch.Generator().manual_seed(seed)
    values, null = [], []
    for layer in range(model.n_layers):
        maps = heads_of(model, layer, folded=folded)
        values.append(_scores(maps.o, core, maps.v))
        size = (controls, model.d_head, model.d_model)
        o, v = (torch.randn(size, generator=generator).to(core) for _ in range(2))
        null.append(_scores(o, core, v.transpose(-1, -2)))
    return CopyingScores(
        values=torch.stack(values).cpu(),
        null=torch.stack(null).cpu(),
        provenance=Provenance.of(
            model, seed=seed, verb="copying_scores", through_mlp0=through_mlp0, folded=folded,
            normalise=normalise, centre=centre, controls=controls,
        ),
    )  # fmt: skip


def _scores(
    o: Float[Tensor, "head d_head d_model"],
    core: Float[Tensor, "d_model d_model"],
    v: Float[Tensor, "head d_model d_head"],
) -> Float[Tensor, " head"]:
    return copying_score(torch.linalg.eigvals((o @ core @ v).double())).float()
