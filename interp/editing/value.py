"""The value v* that makes a model say the target, found by gradient descent.

A vector δ is added to what the MLP's down projection writes at the subject's last token, in the
prompt and behind each prefix, and trained until the target is likely (Meng et al. 2022, eq. 4):

    loss(δ) = mean −log p(target | prefix + prompt)            make it say so
            + kl · KL(p_δ ‖ p at "{subject} is a")             stay the same subject
            + weight_decay · ‖δ‖ / ‖v‖²                        and stay small

δ stands on the projection's own output: before a norm behind the MLP (Gemma-2, OLMo-2) and before a
residual multiplier (Granite), so the weight that writes W k + δ does to the model exactly what
was trained. Nothing else has a gradient, and the model's parameters stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.editing.request import Request
from interp.editing.rome_config import Rome
from interp.models.model import Model
from interp.runs.execute import execute, forward
from interp.runs.frozen import frozen
from interp.taps.anatomy import Anatomy
from interp.taps.points import Key, tapped

__all__ = ["Value", "logits_of", "optimise_value", "read_keys", "target_loss"]


@dataclass(frozen=True, eq=False)
class Value:
    """What the optimisation found.

    Attributes:
        key: mean input of the projection at the subject, over the prompts: k*; float64, on the CPU.
        delta: what to add to its output there: v* − (W k* + b).
        notes: the last losses, steps taken, and norms.
    """

    key: Float[Tensor, " d_mlp"]
    delta: Float[Tensor, " d_model"]
    notes: dict[str, float]


def optimise_value(model: Model, request: Request, layer: int, config: Rome) -> Value:
    """Find δ for one layer.

    As in the authors' code the loss is looked at before each step and training stops when it is
    below ``config.stop``, so ``steps`` losses are seen and at most ``steps - 1`` steps taken; and
    ``‖v‖`` is that of the prompt without a prefix.

    Raises:
        ModelError: the MLP has no down projection of its own (a mixture of experts).
    """
    weights = model.weights.layer(layer)
    w_out, b_out = weights.W_out, weights.b_out
    keys, essence = read_keys(model, request, layer)
    wide = torch.promote_types(model.dtype, torch.float32)
    size = (keys[0].to(wide) @ w_out.to(wide) + b_out.to(wide)).norm()
    delta = torch.zeros(model.d_model, device=model.device, dtype=wide, requires_grad=True)
    optimiser = torch.optim.Adam([delta], lr=config.lr)
    notes: dict[str, float] = {}
    with frozen(model.hf):
        for step in range(config.steps):
            with torch.enable_grad():
                logits = logits_of(model.anatomy, request, layer, delta)
                nll = target_loss(logits, request)
                drift = _drift(logits, request, essence)
                loss = nll + config.kl * drift + config.weight_decay * delta.norm() / size**2
            parts = {"loss": loss, "nll": nll, "kl": drift}
            notes = {name: float(part.detach()) for name, part in parts.items()} | {"steps": step}
            if loss < config.stop or step == config.steps - 1:
                break
            optimiser.zero_grad()
            loss.backward()
            if delta.grad is None or not delta.grad.any():  # nothing behind the subject reads it
                break
            optimiser.step()
            with torch.no_grad():
                delta *= (config.clamp * size / delta.norm()).clamp(max=1)
    found = delta.detach()
    norms = {"delta_norm": float(found.norm()), "value_norm": float(size)}
    key = keys[: request.n_prompts].cpu().double().mean(0)  # mps has no float64
    return Value(key, found, {**notes, **norms})


def read_keys(
    model: Model, request: Request, layer: int
) -> tuple[Float[Tensor, "row d_mlp"], Float[Tensor, " d_vocab"] | None]:
    """Inputs of the projection at each row's subject; log-probs of the essence prompt."""
    site = f"L{layer}.mlp_post"
    edit = {} if request.noisy is None else {"embed": request.noisy}
    batch = request.batch
    run = execute(model.anatomy, batch, save=site, edit=edit, rows_at_once=len(batch))
    rows = torch.arange(len(batch), device=request.subject.device)
    keys = run.cache[site][rows, request.subject]
    if not request.essence:
        return keys, None
    return keys, run.logits[-1, batch.column(-1)[-1]].float().log_softmax(-1)


def logits_of(
    anatomy: Anatomy,
    request: Request,
    layer: int | None = None,
    delta: Float[Tensor, " d_model"] | None = None,
) -> Float[Tensor, "row pos d_vocab"]:
    """Logits of a request's rows, under its noise and with δ at its subjects."""
    noisy: dict[Key, Callable[[Tensor], Tensor]] = (
        {} if request.noisy is None else {("embed", None): request.noisy}
    )
    with tapped(anatomy, noisy), _added(anatomy, request, layer, delta):
        return forward(anatomy, request.batch)


def target_loss(logits: Float[Tensor, "row pos d_vocab"], request: Request) -> Float[Tensor, ""]:
    """Mean over rows of −log p per token of the target; of −log(1 − p) where it is to be lowered."""
    rows, columns = request.predicted
    log_probs = logits[rows, columns].float().log_softmax(-1)
    ids = torch.tensor(request.target, device=logits.device).expand(len(rows), -1)
    chosen = log_probs.gather(-1, ids[..., None])[..., 0]
    if not request.lower:
        return -chosen.mean()
    p = chosen.sum(-1).exp()
    return -torch.log((1 - p).clamp(min=1e-7)).mean()


def _drift(logits: Tensor, request: Request, before: Tensor | None) -> Float[Tensor, ""]:
    """KL(with δ ‖ before) at the end of the essence prompt, in nats."""
    if before is None:
        return logits.new_zeros(())
    after = logits[-1, request.batch.column(-1)[-1]].float().log_softmax(-1)
    return (after.exp() * (after - before)).sum()


@contextmanager
def _added(
    anatomy: Anatomy, request: Request, layer: int | None, delta: Tensor | None
) -> Iterator[None]:
    """δ added to what the down projection of a layer writes at each row's subject."""
    if layer is None or delta is None:
        yield
        return
    ids, down = request.batch.ids, anatomy.blocks[layer].down
    assert down is not None  # its weights have been read
    here = torch.arange(ids.shape[1], device=ids.device) == request.subject[:, None]

    def hook(_module: Any, _args: Any, out: Tensor) -> Tensor:  # some blocks flatten [batch, pos]
        return out + (here[..., None] * delta).reshape(out.shape).to(out.dtype)

    handle = down.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()
