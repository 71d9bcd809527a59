"""A map of all neurons: the token that each points at, how sharply, and how sharply by chance.

Every neuron's input or output direction goes through the unembedding, in blocks; what is kept is
its top token, that token's probability, and the kurtosis of its logits over the vocabulary (a
direction that singles out a few tokens has heavy tails). Beside them stand *random* directions
with the same lengths and the same size in each coordinate as the layer's neurons: among thousands
of random directions some point at a token too.

Source: "Decoding specialised feature neurons in LLMs with the final projection layer".
Departures: norms are folded unless ``folded=False``; kurtosis and the control are added.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.errors import MetricError, ResultError
from interp.models.model import Model
from interp.progress import Bar
from interp.results import Provenance, Stored
from interp.sites import Index
from interp.weight_lenses.decode import Through, vocabulary
from interp.weight_lenses.directions import neurons
from interp.weight_lenses.ends import token_texts
from interp.weight_lenses.reading import read

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

__all__ = ["NeuronMap", "decode_neurons"]

Side = Literal["in", "gate", "out"]


@dataclass(frozen=True, eq=False, repr=False)
class NeuronMap(Stored):
    """What each neuron decodes to.

    Attributes:
        side: ``"out"`` (what it writes), ``"in"`` or ``"gate"`` (what it reads).
        layers: which blocks.
        top_ids: the token with the largest logit.
        top_logits, top_probs: of that token; the probability of softmax over the direction's
            logits, 0 to 1.
        kurtosis: excess kurtosis of the logits over the vocabulary; 0 = as Gaussian.
        null_probs, null_kurtosis: the same of random directions.
        words: the top tokens as text.
        provenance: model, versions and the call.
    """

    side: str
    layers: tuple[int, ...]
    top_ids: Int[Tensor, "layer neuron"]
    top_logits: Float[Tensor, "layer neuron"]
    top_probs: Float[Tensor, "layer neuron"]
    kurtosis: Float[Tensor, "layer neuron"]
    null_probs: Float[Tensor, "layer control"]
    null_kurtosis: Float[Tensor, "layer control"]
    words: tuple[tuple[str, ...], ...]
    provenance: Provenance

    def __repr__(self) -> str:
        layers, count = self.top_ids.shape
        share = float(self.beyond_null().float().mean())
        return (
            f"NeuronMap({layers} layers × {count} neurons, {self.side}; {share:.0%} decode more "
            "sharply than 99% of random directions)"
        )

    def beyond_null(self, level: float = 0.99) -> Bool[Tensor, "layer neuron"]:
        """Which neurons have a kurtosis above that quantile of random directions.

        By chance a share of ``1 - level`` would.
        """
        return self.kurtosis > self.null_kurtosis.quantile(level, dim=-1, keepdim=True)

    def agreement(self, other: NeuronMap) -> Float[Tensor, " layer"]:
        """Share of neurons, 0 to 1, with the same top token in both maps (base and instruct).

        Raises:
            ResultError: maps of other neurons.
        """
        if (self.side, self.layers, self.top_ids.shape) != (
            other.side, other.layers, other.top_ids.shape,
        ):  # fmt: skip
            raise ResultError(
                f"agreement of {self!r} with {other!r}; expected maps of the same side and layers "
                "of two models of one shape."
            )
        return (self.top_ids == other.top_ids).float().mean(-1)

    def to_frame(self) -> DataFrame:
        """One row for each neuron: ``layer``, ``neuron``, ``token``, ``id``, ``logit``, ``prob``,
        ``kurtosis``, and ``beyond_null`` (at 99%)."""
        import pandas as pd

        count = self.top_ids.shape[1]
        return pd.DataFrame({
            "layer": [layer for layer in self.layers for _ in range(count)],
            "neuron": list(range(count)) * len(self.layers),
            "token": [word for row in self.words for word in row],
            "id": self.top_ids.flatten().tolist(),
            "logit": self.top_logits.flatten().tolist(),
            "prob": self.top_probs.flatten().tolist(),
            "kurtosis": self.kurtosis.flatten().tolist(),
            "beyond_null": self.beyond_null().flatten().tolist(),
        })  # fmt: skip

    def top(self, n: int = 20, *, by: Literal["prob", "kurtosis", "logit"] = "prob") -> DataFrame:
        """The ``n`` sharpest neurons."""
        return self.to_frame().nlargest(n, by).reset_index(drop=True)

    def plot(self, *, title: str | None = None) -> Figure:
        """Kurtosis over layers: median and 99th percentile, neurons beside random directions."""
        from interp.figures import lines

        name = {"in": "reads", "gate": "is gated by", "out": "writes"}[self.side]
        curves = {}
        for label, values in (("neurons", self.kurtosis), ("random", self.null_kurtosis)):
            curves[f"{label}, median"] = values.median(-1).values.tolist()
            curves[f"{label}, 99%"] = values.quantile(0.99, dim=-1).tolist()
        return lines(
            [str(layer) for layer in self.layers], curves, x_name="layer",
            y_name="excess kurtosis over tokens",
            title=title or f"How sharply what a neuron {name} decodes",
        )  # fmt: skip


@torch.no_grad()
def decode_neurons(
    model: Model,
    layer: str | int = "*",
    *,
    side: Side = "out",
    folded: bool = True,
    through: Through = "unembed",
    controls: int = 512,
    seed: int = 0,
) -> NeuronMap:
    """The top token of every neuron of some layers, in memory bounded by one block of logits.

    Args:
        layer: ``"*"``, ``3``, ``"0-3"`` or ``"1,5"``.
        side: ``"out"``: rows of W_out; ``"in"``: columns of W_in (the up-projection, as in the
            paper); ``"gate"``: columns of W_gate.
        folded, through: see :func:`interp.weight_lenses.decode`.
        controls: random directions for each layer.
        seed: of the random directions.

    Raises:
        ModelError: the MLP has no neurons (mixtures of experts) or no gate.
        SiteError: no such layer.
        MetricError: no controls.
    """
    if controls < 1:
        raise MetricError(f"controls={controls}; expected 1 or more.")
    layers = Index(str(layer)).expand(model.n_layers, "layer")
    vectors = vocabulary(model, through, folded=folded, centre=True)
    texts = token_texts(model, out=through == "unembed")
    generator = torch.Generator().manual_seed(seed)
    found, null = [], []
    total = len(layers) * ((model.anatomy.d_mlp or 0) + controls)
    with Bar(total=total, what="neurons", least=1 << 15) as bar:
        for i in layers:
            rows = neurons(model, i, side, folded=folded)
            found.append(read(rows, vectors, top=1, bar=bar))
            null.append(read(_random(rows, controls, generator), vectors, top=1, bar=bar))
    ids = torch.stack([one.top_ids[:, 0] for one in found])
    return NeuronMap(
        side=side,
        layers=layers,
        top_ids=ids,
        top_logits=torch.stack([one.top_logits[:, 0] for one in found]),
        top_probs=torch.stack([one.top_probs[:, 0] for one in found]),
        kurtosis=torch.stack([one.kurtosis for one in found]),
        null_probs=torch.stack([one.top_probs[:, 0] for one in null]),
        null_kurtosis=torch.stack([one.kurtosis for one in null]),
        words=tuple(tuple(texts[i] for i in row) for row in ids.tolist()),
        provenance=Provenance.of(
            model, seed=seed, verb="decode_neurons", layer=str(layer), side=side, folded=folded,
            through=through, controls=controls,
        ),
    )  # fmt: skip


def _random(
    rows: Float[Tensor, "neuron d_model"], n: int, generator: torch.Generator
) -> Float[Tensor, "control d_model"]:
    """Gaussian directions with the neurons' root mean square in each coordinate, and lengths drawn
    from theirs."""
    draws = torch.randn(n, rows.shape[1], generator=generator).to(rows)
    draws = draws * rows.square().mean(0).sqrt()
    lengths = rows.norm(dim=-1)[torch.randint(len(rows), (n,), generator=generator).to(rows.device)]
    return draws / draws.norm(dim=-1, keepdim=True).clamp(min=1e-30) * lengths[:, None]
