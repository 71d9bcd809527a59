"""``interp.tune_lens``: train a translator for each site, so that it says what the model will say.

1. Run the model once on a batch; keep each site's vectors and the last residual stream.
2. For each site, ``logits = unembed(ln_final(h + W h + b))``, with ``W`` and ``b`` zero at first, so
   that training starts at the logit lens. Norm and unembedding are the model's own, and fixed.
3. The loss is KL(model's output ‖ lens), a mean over all real tokens, the first included; the sum
   over sites is descended.

Source: Belrose et al. 2023, arXiv:2303.08112, and its package ``tuned-lens`` (0.2.0), whose optimiser
this is: SGD with Nesterov momentum .9, ``lr`` 1.0 times (1 − momentum), weight decay 1e-3, a
linear decay to 0, and the gradient of the whole lens clipped to norm 1. With
``sites="L*.H*.result"`` it is an attention lens, a translator for each head (Sakarvadia et al. 2023,
arXiv:2310.16270).

Departures. Rows are taken as they are: the package joins documents and cuts them to 2048 tokens.
A step is ``batch`` rows (the package's: 2¹⁸ tokens). Translators and loss are in float32. Adam decays to
0 at the last step, the package's some steps earlier. The attention lens keeps
the model's norm and unembedding behind a translator of d_model × d_model; the paper's learns, for each
head, a map from its output straight to the vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import BudgetError, RunError, warn
from interp.lenses.corpus import batches, hash_of, rows, split
from interp.lenses.reading import Piece, decode, divergence, pieces, rows_of, slabs
from interp.lenses.tuned_lens import LENSES, TunedLens
from interp.models.model import Model
from interp.progress import Bar
from interp.results import Provenance
from interp.runs.memory import as_text, available
from interp.runs.plan import Save
from interp.sites import Site
from interp.token_batch import TokenBatch

__all__ = ["tune_lens"]

Optimiser = Literal["sgd", "adam"]


@torch.inference_mode(False)  # a caller's would leave no gradients
def tune_lens(
    model: Model,
    inputs: Any,
    *,
    sites: Save = "L*.resid_pre",
    steps: int = 250,
    batch: int = 16,
    optimiser: Optimiser = "sgd",
    lr: float = 1.0,
    momentum: float = 0.9,
    weight_decay: float = 1e-3,
    bias_only: bool = True,
    holdout: float = 0.1,
    seed: int = 0,
    progress: bool | None = None,
) -> TunedLens:
    """Train a tuned lens on text, and measure it on rows held out.

    All sites are trained from the same runs. Ctrl-C ends the training early: the lens so far is
    measured and returned, with a warning.

    >>> tuned = interp.tune_lens(model, texts)                                 # doctest: +SKIP
    >>> tuned.report()                                                         # doctest: +SKIP
    >>> interp.lens(model, "The capital of France is", using=tuned).plot()     # doctest: +SKIP

    Args:
        inputs: a corpus of rows: whatever ``model.run`` takes, or an iterable of texts, of which
            as many are taken as the steps need. Rows longer than the context are refused.
        sites: of the model's width; ``"L*.H*.result"`` trains one translator for each head.
            Each takes d_model² numbers, three times over (five with Adam) while it is trained.
        steps: how often the translators are changed.
        batch: rows in a step. Rows are drawn without replacement until all have been seen.
        optimiser: ``"sgd"``, or ``"adam"`` (with ``amsgrad`` and a warm-up over a fifth of the
            steps, 1000 at most, as in the package).
        lr: 1 is the paper's: a step of 1 − ``momentum`` for SGD, 1e-3 for Adam.
        momentum: of SGD, or Adam's first beta.
        weight_decay: pulls towards the logit lens.
        bias_only: also train the baseline whose ``W`` stays zero. It costs nearly as much again.
        holdout: the share of different rows to measure on, at least one; 0: no report.
        seed: draws the rows held out and the order of the others.
        progress: show a bar with the KL; None: where a person can see it.

    Raises:
        SiteError: a site that does not exist, or is not of the model's width.
        PromptError: no rows to train on, or too few to hold some out.
        BudgetError: the translators do not fit in memory.
        RunError: a number that cannot work, or a loss that is no longer finite.
    """
    for name, value, least in (("steps", steps, 1), ("batch", batch, 1)):
        if value != int(value) or value < least:
            raise RunError(f"{name}={value}; expected {least} or more.")
    if optimiser not in ("sgd", "adam"):
        raise RunError(f"optimiser={optimiser!r}; expected 'sgd' or 'adam'.")
    if not (lr >= 0 and 0 <= momentum < 1 and weight_decay >= 0):
        raise RunError(
            f"lr={lr}, momentum={momentum}, weight_decay={weight_decay}: expected lr of at least 0, "
            "momentum from 0 to below 1, weight_decay of at least 0."
        )
    where = rows_of(model, sites)
    _check_memory(model, len(where), 3 if optimiser == "sgd" else 5)
    corpus = rows(model, inputs, most=round(steps * batch / (1 - min(holdout, 0.99))) + 1)
    train, held = split(corpus, holdout=holdout, seed=seed)
    training = _Training(model, where, bias_only=bias_only)
    rule = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
    training.descends(optimiser, steps, **rule)
    curve = training.run(train, steps, batch, seed, progress)
    provenance = Provenance.of(
        model, verb="tune_lens", seed=seed, sites=[str(site) for site in where], steps=steps,
        batch=batch, optimiser=optimiser, bias_only=bias_only, holdout=holdout,
        rows=len(train), **rule,
    )  # fmt: skip
    return TunedLens(
        sites=tuple(str(site) for site in where),
        weight=training.weight.detach().cpu(),
        bias=training.bias.detach().cpu(),
        bias_only=None if training.bias_only is None else training.bias_only.detach().cpu(),
        held_out=training.losses(held),
        curve=curve,
        provenance=replace(provenance, prompts_hash=hash_of(train)),
    )


def _check_memory(model: Model, count: int, copies: int) -> None:
    size, free = 4 * copies * count * model.d_model**2, available(model.device)
    if size > free:
        raise BudgetError(
            f"{count} translators of {model.d_model} × {model.d_model} need {as_text(size)} to be "
            f"trained, but {as_text(free)} are free: train fewer sites at a time, such as "
            "'L0.H*.result'."
        )


@dataclass(frozen=True, eq=False)
class _Target:
    """What the model says of some tokens: read once, used for every site."""

    probs: Float[Tensor, "token d_vocab"]
    log_probs: Float[Tensor, "token d_vocab"]

    @classmethod
    def of(cls, logits: Float[Tensor, "token d_vocab"]) -> _Target:
        log_probs = logits.log_softmax(-1)
        return cls(log_probs.exp(), log_probs)

    def divergence(self, guess: Float[Tensor, "token d_vocab"]) -> Float[Tensor, ""]:
        """KL(target ‖ guess) in nats, summed over tokens."""
        return (self.log_probs - guess).mul_(self.probs).sum()


class _Training:
    """Translators being trained. A gradient is summed over slabs of tokens, so that logits of a
    whole batch never exist together."""

    def __init__(self, model: Model, sites: tuple[Site, ...], *, bias_only: bool) -> None:
        n, d = len(sites), model.d_model
        self.model, self.sites = model, sites
        self.weight = torch.zeros(n, d, d, device=model.device)
        self.bias = torch.zeros(n, d, device=model.device)
        self.bias_only = torch.zeros(n, d, device=model.device) if bias_only else None
        self.lenses = [[self.weight, self.bias]]  # each is clipped by itself
        if self.bias_only is not None:
            self.lenses.append([self.bias_only])
        for tensor in chain(*self.lenses):
            tensor.grad = torch.zeros_like(tensor)

    def descends(self, optimiser: Optimiser, steps: int, *, lr: float, momentum: float,
                 weight_decay: float) -> None:  # fmt: skip
        """Set up the optimiser, and its rate for each step."""
        tensors = list(chain(*self.lenses))
        warm = 0 if optimiser == "sgd" else min(1000, steps // 5)
        self.optimiser: torch.optim.Optimizer
        if optimiser == "sgd":  # torch's momentum multiplies steps by 1 / (1 - momentum)
            self.optimiser = torch.optim.SGD(
                tensors, lr=lr * (1 - momentum), momentum=momentum, nesterov=momentum > 0,
                weight_decay=weight_decay,
            )  # fmt: skip
        else:
            self.optimiser = torch.optim.Adam(
                tensors, lr=lr * 1e-3, betas=(momentum, 0.999), amsgrad=True,
                weight_decay=weight_decay,
            )  # fmt: skip
        self.rate = torch.optim.lr_scheduler.LambdaLR(
            self.optimiser,
            lambda s: s / warm if s < warm else max(0, steps - s) / max(1, steps - warm),
        )

    def run(
        self, train: TokenBatch, steps: int, size: int, seed: int, progress: bool | None
    ) -> Float[Tensor, "step site"]:
        """Take the steps; the KL of each site before each of them."""
        curve: list[Tensor] = []
        order = batches(len(train), size, seed=seed)
        with Bar(total=steps, what="tuning", show=progress) as bar:
            try:
                for step in range(steps):
                    curve.append(self._step(train.rows(next(order).to(train.ids.device))))
                    if not bool(curve[-1].isfinite().all()):
                        raise RunError(
                            f"the loss is no longer finite at step {step}: lower lr, or raise batch."
                        )
                    bar.advance(what=f"KL {float(curve[-1].mean()):.3f}")
            except KeyboardInterrupt:
                warn(
                    f"interrupted: this lens was trained for {len(curve)} of {steps} steps. It "
                    "cannot be taken up again; its report says how good it is."
                )
        return torch.stack(curve).cpu() if curve else torch.zeros(0, len(self.sites))

    @torch.no_grad()
    def _step(self, batch: TokenBatch) -> Float[Tensor, " site"]:
        self.optimiser.zero_grad(set_to_none=False)
        tokens = int(batch.mask.sum())
        found = torch.zeros(len(self.sites), device=self.model.device)
        for piece in pieces(self.model, batch, self.sites):
            for prompts, columns in _real(batch, piece, self.model.d_vocab):
                target = _Target.of(decode(self.model, piece.final[prompts, columns]))
                for i, saved in enumerate(piece.saved):
                    h = saved[prompts, columns].float()
                    found[i] += self._descend(i, h, target, tokens) / tokens
        for lens in self.lenses:
            torch.nn.utils.clip_grad_norm_(lens, 1.0)
        self.optimiser.step()
        self.rate.step()
        return found

    def _descend(
        self, site: int, h: Float[Tensor, "token d_model"], target: _Target, tokens: int
    ) -> Float[Tensor, ""]:
        """Add one slab's share to the gradients of one site; its summed KL under the lens."""
        loss = torch.zeros((), device=h.device)
        for lens in self.lenses:
            leaves = [tensor[site].detach().requires_grad_() for tensor in lens]
            with torch.enable_grad():
                moved = torch.nn.functional.linear(h, *leaves) if len(leaves) == 2 else leaves[0]
                logits = decode(self.model, h + moved)
            guess = logits.detach().log_softmax(-1)
            if lens is self.lenses[0]:
                loss = target.divergence(guess)
            slope = guess.exp_().sub_(target.probs).div_(tokens)  # of KL(p ‖ q) by q's logits
            slopes = torch.autograd.grad(logits, leaves, slope)
            for tensor, own in zip(lens, slopes, strict=True):
                assert tensor.grad is not None  # made with the tensor
                tensor.grad[site] += own
        return loss

    @torch.no_grad()
    def losses(self, held: TokenBatch | None) -> Float[Tensor, "3 site row"]:
        """Mean KL over each held-out row's tokens, of each of ``LENSES``."""
        shape = len(LENSES), len(self.sites)
        if held is None:
            return torch.zeros(*shape, 0)
        total = torch.zeros(*shape, len(held), device=self.model.device)
        for piece in pieces(self.model, held, self.sites):
            for prompts, columns in _real(held, piece, self.model.d_vocab):
                reference = decode(self.model, piece.final[prompts, columns]).log_softmax(-1)
                at = prompts + piece.rows.start
                for i, saved in enumerate(piece.saved):
                    h = saved[prompts, columns].float()
                    tuned = h + torch.nn.functional.linear(h, self.weight[i], self.bias[i])
                    plain = None if self.bias_only is None else h + self.bias_only[i]
                    for kind, x in enumerate((h, plain, tuned)):
                        if x is not None:
                            log_probs = decode(self.model, x).log_softmax(-1)
                            total[kind, i].index_add_(0, at, divergence(reference, log_probs))
        if self.bias_only is None:
            total[1] = torch.nan
        return (total / held.mask.sum(-1).to(total)).cpu()


def _real(batch: TokenBatch, piece: Piece, d_vocab: int) -> list[tuple[Tensor, Tensor]]:
    """Rows and columns of a piece's real tokens, a slab at a time."""
    mask = batch.mask[piece.rows].to(piece.final.device)
    prompts, columns = mask.nonzero(as_tuple=True)
    return [(prompts[part], columns[part]) for part in slabs(len(prompts), d_vocab)]
