"""What one MLP usually reads: the uncentred second moment of its keys, E[k kᵀ].

A key is the input of an MLP's down projection (``mlp_post``). ROME takes the projection for a linear
memory W k = v; to add one pair with the least harm to those that are there, it must know how often
each direction is read. C = E[k kᵀ] over ordinary text says so (Meng et al. 2022, arXiv:2202.05262,
eq. 2 and appendix E.1).

Streamed over the texts, summed in float64; real tokens only (BOS, where the model has one, is real:
every prompt begins with it, so it is worth protecting).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import BudgetError, ModelError, PromptError, RunError, warn
from interp.models.model import Model
from interp.progress import Bar
from interp.results import Provenance, Stored
from interp.runs.execute import execute
from interp.runs.memory import available
from interp.token_batch import TokenBatch

__all__ = ["Covariance", "covariance"]

Texts = Sequence[str] | Int[Tensor, "row pos"] | TokenBatch


@dataclass(frozen=True, eq=False, repr=False)
class Covariance(Stored):
    """Uncentred second moments of the keys of some layers.

    Attributes:
        layers: which layers.
        moments: E[k kᵀ], in the unit of ``mlp_post`` squared.
        n_tokens: tokens averaged over. Fewer than d_mlp leave directions that were never read.
        provenance: the model and the corpus.
    """

    layers: tuple[int, ...]
    moments: Float[Tensor, "layer d_mlp d_mlp"]
    n_tokens: int
    provenance: Provenance
    _factors: dict[tuple[int, float], Tensor] = field(default_factory=dict)  # of what was solved

    def __repr__(self) -> str:
        return (
            f"Covariance(layers {list(self.layers)}, d_mlp {self.moments.shape[-1]}, "
            f"{self.n_tokens} tokens, {self.provenance.model!r})"
        )

    def at(self, layer: int) -> Float[Tensor, "d_mlp d_mlp"]:
        """E[k kᵀ] of one layer.

        Raises:
            ModelError: this layer was not measured.
        """
        if layer not in self.layers:
            raise ModelError(
                f"this covariance has layers {list(self.layers)}, not {layer}: measure it with "
                f"covariance(model, texts, layers=[{layer}])."
            )
        return self.moments[self.layers.index(layer)]

    def solve(
        self, layer: int, key: Float[Tensor, " d_mlp"], *, damping: float
    ) -> Float[Tensor, " d_mlp"]:
        """(C + damping · mean(diag C) · I)⁻¹ k, in float64.

        Args:
            damping: as a share of the mean diagonal entry; 0 solves with C itself.

        Raises:
            ModelError: C is singular, because the corpus was small, and damping is 0.
        """
        factor = self._factors.get((layer, damping))
        if factor is None:
            factor = self._factors[layer, damping] = self._factor(layer, damping)
        return torch.cholesky_solve(key.to(factor)[:, None], factor)[:, 0]

    def _factor(self, layer: int, damping: float) -> Float[Tensor, "d_mlp d_mlp"]:
        moment = self.at(layer).double()
        shift = damping * float(moment.diagonal().mean())
        damped = moment + shift * torch.eye(len(moment), dtype=torch.float64, device=moment.device)
        factor, failed = torch.linalg.cholesky_ex(damped)
        if int(failed):
            raise ModelError(
                f"the covariance of layer {layer} is singular with damping={damping:g}: it was "
                f"measured on {self.n_tokens} tokens for {len(moment)} neurons. Use more text, or "
                "a larger damping (1e-2)."
            )
        return factor

    def check(self, model: Model) -> None:
        """ModelError unless it was measured on this model as it is now."""
        if model.weights_hash != self.provenance.weights_hash:
            raise ModelError(
                f"this covariance was measured on {self.provenance.model!r} with weights "
                f"{self.provenance.weights_hash[:12]}…, but {model.name!r} has "
                f"{model.weights_hash[:12]}…: measure it on this model."
            )


@torch.no_grad()
def covariance(
    model: Model,
    texts: Texts,
    layers: int | Iterable[int] | None = None,
    *,
    batch: int = 16,
    progress: bool | None = None,
) -> Covariance:
    """Measure E[k kᵀ] of some layers' keys on a corpus.

    One pass for all layers, which keeps 8 · d_mlp² bytes for each; texts run ``batch`` at a time.
    Ctrl-C ends it early with what is summed so far.

    Args:
        texts: a corpus: texts, rows of token ids, or a TokenBatch. Several thousand tokens per
            neuron are good, one is the least.
        layers: which layers; None for all.
        batch: texts at a time.
        progress: show a bar; None shows it for long work on a terminal.

    Raises:
        PromptError: no text, or one that cannot be read; an iterator, which has no length.
        ModelError: no such layer, or one named twice.
        SiteError: the model has no neurons (a mixture of experts).
        BudgetError: the matrices do not fit in memory.
    """
    wanted = _layers(model, layers)
    if batch < 1:
        raise RunError(f"batch={batch}; expected 1 or more.")
    texts = model.batch(texts) if isinstance(texts, Tensor) else texts  # one row may stand alone
    total = _rows(texts)
    size = model.anatomy.d_mlp or 0
    _fits(model, len(wanted), size)
    where = torch.device("cpu") if model.device.type == "mps" else model.device  # has no float64
    sums = torch.zeros(len(wanted), size, size, dtype=torch.float64, device=where)
    counts = torch.zeros(len(wanted), dtype=torch.long)  # Ctrl-C may come between two layers
    n_tokens, digest = 0, hashlib.sha256()
    try:
        with Bar(total=total, what="covariance of keys", show=progress) as bar:
            for tokens in _batches(model, texts, batch):
                n_tokens += _add(model, tokens, wanted, sums, counts)
                digest.update(tokens.ids[tokens.mask].cpu().numpy().astype("<i8").tobytes())
                bar.advance(len(tokens))
    except KeyboardInterrupt:
        if not n_tokens:
            raise
        warn(f"interrupted: this covariance is of the first {n_tokens} tokens of the corpus.")
    origin = Provenance.of(model, verb="covariance", layers=list(wanted), texts=total)
    origin = replace(origin, prompts_hash=digest.hexdigest())  # the tokens that were read
    return Covariance(wanted, sums.cpu() / counts[:, None, None], n_tokens, origin)


def _add(
    model: Model, tokens: TokenBatch, layers: Sequence[int], sums: Tensor, counts: Tensor
) -> int:
    """Add the moments of some texts and count them; how many tokens they were."""
    sites = [f"L{layer}.mlp_post" for layer in layers]
    cache = execute(model.anatomy, tokens, save=sites, logits="none").cache
    for total, count, site in zip(sums, counts, sites, strict=True):
        keys = cache[site][tokens.mask].to(sums.device).double()
        moment = keys.T @ keys
        total += moment
        count += len(keys)
    return int(tokens.mask.sum())


def _batches(model: Model, texts: Texts, batch: int) -> Iterator[TokenBatch]:
    whole = None if not isinstance(texts, Tensor | TokenBatch) else model.batch(texts)
    for start in range(0, _rows(texts), batch):
        part = slice(start, start + batch)
        yield model.batch(texts[part]) if whole is None else whole.rows(part)  # type: ignore[index]


def _rows(texts: Texts) -> int:
    if not isinstance(texts, Tensor | TokenBatch | list | tuple) or len(texts) == 0:
        sized = isinstance(texts, Tensor | TokenBatch | list | tuple)
        raise PromptError(
            f"the corpus {'is empty' if sized else f'got a {type(texts).__name__}'}; expected a "
            "list of texts, or rows of token ids."
        )
    return len(texts)


def _layers(model: Model, layers: int | Iterable[int] | None) -> tuple[int, ...]:
    if layers is None:
        return tuple(range(model.n_layers))
    wanted = (layers,) if isinstance(layers, int) else tuple(layers)
    wrong = [layer for layer in wanted if layer not in range(model.n_layers)]
    if wrong or not wanted or len(set(wanted)) < len(wanted):
        raise ModelError(
            f"layers={list(wanted)}: expected different ones of 0 to {model.n_layers - 1}, or None for all."
        )
    return wanted


def _fits(model: Model, layers: int, size: int) -> None:
    need, have = 3 * 8 * layers * size**2, available(model.device)
    if need > have:
        raise BudgetError(
            f"the second moments of {layers} layers of {size} neurons take {need / 2**30:.1f} GiB "
            f"while they are summed, and {have / 2**30:.1f} GiB are free: measure fewer layers at a "
            "time."
        )
