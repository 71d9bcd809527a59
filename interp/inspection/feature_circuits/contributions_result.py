"""What a feature's pre-activation is the sum of: as a table, and as bars."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from interp.inspection.feature_circuits.node import Node
from interp.results import Provenance, Stored

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

__all__ = ["Contributions"]


@dataclass(frozen=True, eq=False, repr=False)
class Contributions(Stored):
    """Terms of one feature's pre-activation at one token. Made by :func:`contributions`.

    Attributes:
        feature: whose, ``"L2.mlp.F12@5"``.
        tokens: the prompt as text.
        names: of the terms; :class:`interp.inspection.feature_circuits.node.Node` says what they are.
        values: each term, in units of the pre-activation; negative terms lower it.
        pre_activation: what the encoder computes; the values sum to it.
        activation: what the feature is then, 0 if it is not active.
        deviation: sum of the values less the pre-activation: rounding.
        provenance: model, versions and the call.
    """

    feature: str
    tokens: tuple[str, ...]
    names: tuple[str, ...]
    values: Float[Tensor, " term"]
    pre_activation: float
    activation: float
    deviation: float
    provenance: Provenance

    def __repr__(self) -> str:
        order = self.values.abs().argsort(descending=True)[:3].tolist()
        best = ", ".join(f"{self.names[i]} {float(self.values[i]):+.3g}" for i in order)
        return (
            f"Contributions({self.feature} = {self.pre_activation:.4g} before its activation; {len(self.names)} "
            f"terms: {best}, ...)"
        )

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The terms as nodes, in the order of ``names``."""
        return tuple(map(Node.parse, self.names))

    def __getitem__(self, name: str) -> float:
        """One term's value; 0 if there is no such term (a feature that is not active, say)."""
        return float(self.values[self.names.index(name)]) if name in self.names else 0.0

    def to_frame(self) -> DataFrame:
        """A row for each term, largest in size first.

        Columns: ``name``, ``kind``, ``layer``, ``position`` (where it writes), ``token`` (at the place it comes from:
        a head's source), ``contribution``, and ``share`` of the pre-activation.
        """
        import pandas as pd

        rows = [
            {"name": node.name, "kind": node.kind, "layer": node.layer, "position": node.position,
             "token": "" if node.place is None else self.tokens[node.place], "contribution": value,
             "share": value / self.pre_activation if self.pre_activation else float("nan")}
            for node, value in zip(self.nodes, self.values.tolist(), strict=True)
        ]  # fmt: skip
        frame = pd.DataFrame(rows)
        return frame.sort_values("contribution", key=abs, ascending=False, ignore_index=True)

    def by_kind(self) -> DataFrame:
        """Sums over the terms of each kind: features, heads, embeddings, errors, biases."""
        frame = self.to_frame().groupby("kind", sort=False)[["contribution", "share"]].sum()
        return frame.sort_values("contribution", key=abs, ascending=False).reset_index()

    def errors(self) -> DataFrame:
        """What each transcoder leaves out for this reader: a row for each layer.

        Columns: ``layer``, ``mlp`` (v·MLP(x)), ``error`` (v·(MLP(x) − TC(x))) and ``share`` (error / mlp: 0 = nothing
        is left out, 1 = all; beyond, it is larger than what it is left out of).
        """
        import pandas as pd

        rows = []
        terms = list(zip(self.nodes, self.values.tolist(), strict=True))
        for layer in sorted({node.layer for node, _ in terms if node.kind == "error"}):  # type: ignore[type-var]
            inside = ("feature", "mlp_bias", "skip", "error")
            mlp = sum(v for node, v in terms if node.layer == layer and node.kind in inside)
            error = sum(v for node, v in terms if node.layer == layer and node.kind == "error")
            rows.append({"layer": layer, "mlp": mlp, "error": error,
                         "share": error / mlp if mlp else float("nan")})  # fmt: skip
        return pd.DataFrame(rows, columns=["layer", "mlp", "error", "share"])

    def plot(self, *, top: int = 15, title: str | None = None) -> Figure:
        """The ``top`` largest terms as bars, red where they raise the pre-activation."""
        from interp.figures.ranked import ranked

        frame = self.to_frame().head(top)
        names = [
            f"{name}  {token.strip()}"
            for name, token in zip(frame["name"], frame["token"], strict=True)
        ]
        values = torch.tensor(frame["contribution"].to_numpy())
        none = torch.full_like(values, float("nan"))
        return ranked(
            names, values, low=none, high=none,
            title=title or f"what {self.feature} reads ({self.pre_activation:.3g} in all)",
            unit="contribution to the pre-activation",
        )  # fmt: skip
