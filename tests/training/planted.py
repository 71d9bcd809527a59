"""Data whose features are known: sparse sums of directions, read at one site and written at another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from interp.harvesting.ranks import Ranks
from interp.store.rows import Rows
from interp.training.config import TrainConfig
from interp.training.parallel import Together
from interp.training.places import specified
from interp.training.trainee import Trainee

ALONE = Together(Ranks())
SITES = {
    "sae": "L0.resid_post",
    "transcoder": "L0.mlp",
    "skip_transcoder": "L0.mlp",
    "cross_layer_transcoder": "L*.mlp",
}


@dataclass(frozen=True)
class Planted:
    """Features that are active at random, with directions to read and to write at two layers.

    Attributes:
        reads: [layer, feature, d] unit directions.
        writes: [layer, feature, d].
        active: how many of the features are active in a row, on average.
        shuffled: each number keeps its values, and which go together is lost.
        signed: features are read with either sign and written as they are, so that no linear map from
            what is read to what is written says anything.
    """

    reads: Tensor
    writes: Tensor
    active: float
    shuffled: bool = False
    signed: bool = False

    @classmethod
    def of(cls, n: int, d: int, active: float = 4.0, *, seed: int = 0, **how: bool) -> Planted:
        draw = torch.Generator().manual_seed(seed)

        def directions() -> Tensor:
            x = torch.randn(2, n, d, generator=draw)
            return x / x.norm(dim=-1, keepdim=True)

        return cls(directions(), directions(), active, **how)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        d = self.reads.shape[-1]
        names = ("resid_post", "mlp.input", "mlp_out")
        return {f"L{layer}.{name}": (d,) for layer in (0, 1) for name in names}

    def rows(self, size: int, seed: int, dtype: torch.dtype = torch.float32) -> Rows:
        """A batch. Layer 1 writes what its own features say and what layer 0's say there."""
        draw = torch.Generator().manual_seed(seed)
        n = self.reads.shape[1]
        on = torch.rand(2, size, n, generator=draw) < self.active / n
        acts = on * (0.5 + torch.rand(2, size, n, generator=draw))
        across = 0.5 * self.writes[0].flip(-1)  # what layer 0's features write at layer 1
        tensors = {}
        for layer in (0, 1):
            sign = torch.randint(0, 2, acts[layer].shape, generator=draw) * 2 - 1
            x = (acts[layer] * sign if self.signed else acts[layer]) @ self.reads[layer]
            tensors[f"L{layer}.resid_post"] = tensors[f"L{layer}.mlp.input"] = x
            tensors[f"L{layer}.mlp_out"] = acts[layer] @ self.writes[layer]
        tensors["L1.mlp_out"] = tensors["L1.mlp_out"] + acts[0] @ across
        if self.shuffled:
            tensors = {
                name: x.gather(0, torch.rand(x.shape, generator=draw).argsort(0))
                for name, x in tensors.items()
            }
        blank = torch.zeros(size, dtype=torch.long)
        return Rows({n: x.to(dtype) for n, x in tensors.items()}, blank, blank, blank)

    def trainee(self, dtype: torch.dtype = torch.float32, **options: object) -> Trainee:
        kind = options.setdefault("kind", "sae")
        config = TrainConfig.from_options({"site": SITES[str(kind)], "batch": 512, **options})
        spec = specified(config, self.shapes, model="planted", weights_hash="0", metadata={})
        sample = [self.rows(2048, 10**6, dtype)]
        return Trainee("planted", config, spec, sample, ALONE)

    def found(self, trainee: Trainee) -> Tensor:
        """For each planted feature of layer 0, the largest cosine with a direction written.

        Of features that were active in training: those that were not have not been learned.
        """
        dictionary = trainee.dictionary
        d = self.reads.shape[-1]
        true = self.reads[0] if dictionary.kind == "sae" else self.writes[0]
        learned = dictionary.decoder(0, 0).detach()[trainee.firing[0] > 1e-4]
        learned = learned[:, :d].to(true) / learned[:, :d].norm(dim=-1, keepdim=True)
        return (true @ learned.T).max(-1).values


def trained(data: Planted, batches: Sequence[Rows] | None = None, **options: object) -> Trainee:
    """Trained to its end, on these batches or on fresh ones."""
    trainee = data.trainee(**options)
    for step in range(trainee.config.steps):
        trainee.step(data.rows(trainee.config.batch, step) if batches is None else batches[step])
    return trainee
