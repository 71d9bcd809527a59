"""What does a model lose when its matrices read fewer inputs? Loss by sparsity, WINA beside magnitude and chance.

See :mod:`interp.steering.wina` for the scores. A method is worth something where its loss lies below that of
magnitudes alone at the same sparsity; both must lie below inputs left out at random.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import MetricError
from interp.models.model import Model
from interp.progress import Bar
from interp.results import Provenance, Stored
from interp.scores import nll
from interp.steering.wina import METHODS, Method, sparsified

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

__all__ = ["SparsityLosses", "sparsity_losses"]


@dataclass(frozen=True, eq=False, repr=False)
class SparsityLosses(Stored):
    """Loss of a model whose matrices read a share of their inputs.

    Attributes:
        methods: how inputs were chosen.
        sparsities: shares left out.
        per_prompt: mean next-token loss of each prompt, in nats.
        dense: the same of the model as it is.
        sites: what was sparsified.
        provenance: model, versions and the call.
    """

    methods: tuple[str, ...]
    sparsities: tuple[float, ...]
    per_prompt: Float[Tensor, "method sparsity prompt"]
    dense: Float[Tensor, " prompt"]
    sites: tuple[str, ...]
    provenance: Provenance

    def __repr__(self) -> str:
        last = ", ".join(
            f"{m} {float(v):.3g}" for m, v in zip(self.methods, self.loss[:, -1], strict=True)
        )
        return f"SparsityLosses(dense {float(self.dense.mean()):.3g}; at {self.sparsities[-1]:.0%}: {last} nats)"

    @property
    def loss(self) -> Float[Tensor, "method sparsity"]:
        """Mean over prompts, in nats."""
        return self.per_prompt.mean(-1)

    def to_frame(self) -> DataFrame:
        """One row for each method and sparsity: ``loss`` and ``added`` (less the dense model's), in nats."""
        import pandas as pd

        rows = [
            {"method": m, "sparsity": s, "loss": float(v), "added": float(v - self.dense.mean())}
            for m, line in zip(self.methods, self.loss, strict=True)
            for s, v in zip(self.sparsities, line, strict=True)
        ]
        return pd.DataFrame(rows)

    def plot(self, *, title: str | None = None) -> Figure:
        """Loss over sparsity, one line for each method, with the dense model's."""
        from interp.figures import curves

        return curves(
            list(self.sparsities), {m: line.tolist() for m, line in zip(self.methods, self.loss, strict=True)},
            x_name="sparsity: share of inputs left out", y_name="loss (nats per token)",
            lines={"dense": float(self.dense.mean())},
            title=title or "Loss where matrices read fewer inputs",
        )  # fmt: skip


@torch.no_grad()
def sparsity_losses(
    model: Model,
    inputs: Any,
    sparsities: Sequence[float] = (0.25, 0.4, 0.5, 0.65, 0.8),
    sites: str | tuple[str, ...] = "L*.mlp_post",
    *,
    methods: Sequence[Method] = METHODS,
    seed: int = 0,
    progress: bool | None = None,
) -> SparsityLosses:
    """Run the model at each sparsity under each method.

    Args:
        inputs: whatever ``model.run`` takes, two tokens or longer.
        sparsities, sites, methods, seed: as :func:`interp.steering.wina.sparsified`.

    Raises:
        MetricError: no sparsities or methods, or as :func:`~interp.steering.wina.sparsified`.
    """
    if not sparsities or not methods:
        raise MetricError(
            "sparsity_losses() got no sparsities or no methods; expected one at least."
        )
    tokens = model.batch(inputs)
    if int(tokens.n_real.min()) < 2:
        raise MetricError(
            "sparsity_losses() got a prompt of one token, which has no loss: give longer ones."
        )

    def loss(edit: Any) -> Float[Tensor, " prompt"]:
        logits = model.run(tokens, edit=edit).logits
        return nll(logits.float(), tokens.ids, tokens.mask).cpu()

    dense, cells = loss({}), []
    where: tuple[str, ...] = ()
    with Bar(total=len(methods) * len(sparsities), what="sparsity", show=progress) as bar:
        for method in methods:
            for sparsity in sparsities:
                edits = sparsified(model, sparsity, sites, method=method, seed=seed)
                cells.append(loss(edits))
                where = tuple(edits)
                bar.advance()
    return SparsityLosses(
        tuple(methods), tuple(float(s) for s in sparsities),
        torch.stack(cells).view(len(methods), len(sparsities), -1), dense, where,
        Provenance.of(model, inputs, seed=seed, verb="sparsity_losses", sparsities=list(sparsities),
                      sites=list(where), methods=list(methods)),
    )  # fmt: skip
