"""One training step of a TopK SAE, by this package and by each peer at its own best on this device.

All have the same width, features, k, batch and learning rate, decoder rows of norm 1 where the library
keeps them there, and no auxiliary loss at work (no feature has been dead for long).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from interp.harvesting.ranks import Ranks
from interp.store.rows import Rows
from interp.training.config import TrainConfig
from interp.training.parallel import Together
from interp.training.places import specified
from interp.training.trainee import Trainee

Step = Callable[[Tensor], Any]
SITE = "L0.resid_post"


@dataclass(frozen=True)
class Size:
    """What is trained."""

    d_in: int
    d_sae: int
    k: int = 32
    batch: int = 4096
    steps: int = 1000
    lr: float = 2e-4

    def __str__(self) -> str:
        return f"{self.d_in} → {self.d_sae}"


def rows_of(x: Tensor) -> Rows:
    blank = torch.zeros(len(x), dtype=torch.long, device=x.device)
    return Rows({SITE: x}, blank, blank, blank)


def trainee(size: Size, sample: Tensor, **options: Any) -> Trainee:
    """This package's."""
    config = TrainConfig.from_options(
        {"site": SITE, "d_sae": size.d_sae, "k": size.k, "batch": size.batch, "lr": size.lr,
         "tokens": size.steps * size.batch, **options}
    )  # fmt: skip
    spec = specified(config, {SITE: (size.d_in,)}, model="", weights_hash="", metadata={})
    return Trainee("bench", config, spec, [rows_of(sample)], Together(Ranks()))


def ours(size: Size, sample: Tensor, **options: Any) -> Step:
    own = trainee(size, sample, **options)
    return lambda x: own.step(rows_of(x))


def saelens(
    size: Size, sample: Tensor, *, autocast: bool = False, batchtopk: bool = False
) -> tuple[Any, Step]:
    """SAELens's own trainer, a step at a time, as its ``fit`` takes them."""
    from sae_lens.config import SAETrainerConfig
    from sae_lens.saes.batchtopk_sae import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig
    from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.training.sae_trainer import SAETrainer

    device = str(sample.device)
    shared = {"d_in": size.d_in, "d_sae": size.d_sae, "k": size.k, "device": device,
              "normalize_activations": "expected_average_only_in"}  # fmt: skip
    sae: Any = (
        BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(**shared)) if batchtopk
        else TopKTrainingSAE(TopKTrainingSAEConfig(**shared))
    )  # fmt: skip
    trainer: Any = SAETrainer(
        SAETrainerConfig(
            total_training_samples=size.steps * size.batch, train_batch_size_samples=size.batch,
            lr=size.lr, lr_end=0.0, lr_warm_up_steps=min(1000, size.steps // 20),
            lr_decay_steps=size.steps // 5, device=device, autocast=autocast,
            n_batches_for_norm_estimate=1,
        ),
        sae, data_provider=iter([sample] * 4),
    )  # fmt: skip
    trainer.activation_scaler.estimate_scaling_factor(
        d_in=size.d_in, data_provider=iter([sample] * 4), n_batches_for_norm_estimate=1
    )

    def step(x: Tensor) -> None:
        trainer.step(x)
        trainer.n_training_steps += 1

    return trainer, step


def dictionary_learning(size: Size, sample: Tensor, *, batchtopk: bool = False) -> Step:
    from dictionary_learning.trainers.batch_top_k import BatchTopKTrainer
    from dictionary_learning.trainers.top_k import TopKTrainer

    kind = BatchTopKTrainer if batchtopk else TopKTrainer
    trainer: Any = kind(
        steps=10**6, activation_dim=size.d_in, dict_size=size.d_sae, k=size.k, layer=0, lm_name="",
        lr=size.lr, warmup_steps=1, device=str(sample.device), seed=0,
    )  # fmt: skip
    at = [1]  # step 0 finds a geometric median

    def step(x: Tensor) -> None:
        trainer.update(at[0], x)
        at[0] += 1

    return step


def sparsify(size: Size, sample: Tensor) -> Step:
    """The steps of its trainer: unit rows, forward, backward, projection, Adam."""
    import contextlib
    import io

    with contextlib.redirect_stdout(io.StringIO()):  # it says which decoder it took
        from sparsify.config import SparseCoderConfig
        from sparsify.sparse_coder import SparseCoder

    sae: Any = SparseCoder(
        size.d_in, SparseCoderConfig(num_latents=size.d_sae, k=size.k), device=str(sample.device)
    )
    adam = torch.optim.Adam(sae.parameters(), lr=size.lr)

    def step(x: Tensor) -> None:
        sae.set_decoder_norm_to_unit_norm()
        sae(x).fvu.backward()
        sae.remove_gradient_parallel_to_decoder_directions()
        adam.step()
        adam.zero_grad()

    return step


def floor(size: Size, sample: Tensor) -> Step:
    """The encoder's product alone, in the chunks that our step takes."""
    enc = torch.randn(size.d_sae, size.d_in, device=sample.device)
    out = torch.empty(256, size.d_sae, device=sample.device)

    def step(x: Tensor) -> None:
        for i in range(0, len(x), 256):
            torch.mm(x[i : i + 256], enc.T, out=out[: len(x[i : i + 256])])

    return step


def sides(size: Size, sample: Tensor) -> dict[str, Step]:
    """Every side that can run here, by name; ours first."""
    found: dict[str, Step] = {"ours": ours(size, sample)}
    if sample.device.type == "cpu":
        found["ours, screened"] = ours(size, sample, screen=True)
    found["ours, BatchTopK"] = ours(size, sample, activation="batchtopk")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found["SAELens"] = saelens(size, sample)[1]
        found["SAELens, bf16 autocast"] = saelens(size, sample, autocast=True)[1]
        found["dictionary_learning"] = dictionary_learning(size, sample)
        found["dictionary_learning, BatchTopK"] = dictionary_learning(size, sample, batchtopk=True)
        found["sparsify"] = sparsify(size, sample)
    found["floor"] = floor(size, sample)
    return found
