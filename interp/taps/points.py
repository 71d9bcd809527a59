"""Where each point lies in a block, and how an edit of it enters the model.

``tapped(anatomy, functions)`` lets each function see (and replace) the tensor
at its site inside a ``with`` block. Two rules make that exact and differentiable:

1. A function that returns the tensor it was given changes nothing, to the bit.
   Where a site is not itself a tensor of the model (``result``, ``resid_mid``,
   ``normalized``, a branch under a multiplier), an edit is added to the model's
   own tensor as a difference, which is exactly zero for an unchanged one.
2. With gradients on, the tensor that a function returns lies on the path to the
   logits, so ``torch.autograd.grad(score, cache[site])`` is the full derivative.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, Final

import torch
from torch import Tensor, nn

from interp.errors import RunError
from interp.sites import POINTS
from interp.taps.anatomy import Anatomy, Block
from interp.taps.attention import tapped_attention
from interp.taps.hooks import Fn, Hooks, shift
from interp.taps.norms import tap_norm
from interp.taps.offload import fetched
from interp.taps.splices import Key, woven

__all__ = ["Key", "tapped"]

_ORDER: Final = {point: i for i, point in enumerate(POINTS)}
_under_way: ContextVar[frozenset[nn.Module]] = ContextVar("models", default=frozenset())
_IN_ATTENTION: Final = ("rot_q", "rot_k", "attn_scores", "pattern")


@contextmanager
def tapped(anatomy: Anatomy, functions: Mapping[Key, Fn]) -> Iterator[None]:
    """Let each function see (and replace) the tensor at its site inside the block.

    The keys must be sites that the model has (``anatomy.refused`` lists the others). Splices of the
    anatomy stand in the run too, and functions at their features and errors are called by them.
    Hooks, configs and modules are as before when the block ends, however it ends.
    """
    if anatomy.hf in _under_way.get():
        raise RunError(
            "a run of this model is under way, and its hooks would fire in this one too: do not run "
            "a model inside an edit of its own run; compute the value before."
        )
    if anatomy.splices:
        functions = woven(anatomy.splices, functions)
    inner: dict[nn.Module, dict[str, Fn]] = {}
    norms: dict[Key, dict[str, Fn]] = {}
    with ExitStack() as stack:
        token = _under_way.set(_under_way.get() | {anatomy.hf})
        stack.callback(_under_way.reset, token)
        hooks = Hooks(stack, anatomy)
        for point, layer in sorted(functions, key=lambda key: _ORDER[key[0]]):
            fn = functions[point, layer]
            if point == "pattern" and (dropout := _block(anatomy, layer).dropout) is not None:
                hooks.on_output(dropout, fn)
            elif point in _IN_ATTENTION:
                inner.setdefault(_given(_block(anatomy, layer).attn), {})[point] = fn
            elif point.startswith("ln"):
                name, what = point.split(".")
                norms.setdefault((name, layer), {})[what] = fn
            elif layer is None:
                _OUTSIDE[point](hooks, fn)
            else:
                _INSIDE[point](hooks, _block(anatomy, layer), fn)
        for (name, layer), pair in norms.items():
            _norm(hooks, name, layer, pair)
        if anatomy.family.registry:
            stack.enter_context(tapped_attention(anatomy, inner))
        elif inner:
            hooks.on_calls(inner)
        yield


def _block(anatomy: Anatomy, layer: int | None) -> Block:
    assert layer is not None
    return anatomy.blocks[layer]


def _given(module: nn.Module | None) -> nn.Module:
    assert module is not None  # points without a module stand in anatomy.refused
    return module


# -- the residual stream and its branches --------------------------------------------------


def _resid_pre(hooks: Hooks, block: Block, fn: Fn) -> None:
    hooks.on_input(block.module, fn)


def _resid_post(hooks: Hooks, block: Block, fn: Fn) -> None:
    hooks.on_output(block.module, fn)


def _branch(hooks: Hooks, module: nn.Module | None, factor: float, fn: Fn) -> None:
    """What is added to the residual: the module's output times the family's multiplier."""

    def scaled(out: Tensor) -> Tensor:
        return shift(out, out * factor, fn, lambda change: change / factor)

    hooks.on_output(_given(module), fn if factor == 1.0 else scaled)


def _attn_out(hooks: Hooks, block: Block, fn: Fn) -> None:
    _branch(hooks, block.attn_branch, hooks.anatomy.residual_multiplier, fn)


def _mlp_out(hooks: Hooks, block: Block, fn: Fn) -> None:
    if hooks.anatomy.family.inplace_mlp_out:  # the block goes on to add to this tensor in place
        _branch(hooks, block.mlp_branch, 1.0, lambda out: fn(out).clone())
    else:
        _branch(hooks, block.mlp_branch, hooks.anatomy.residual_multiplier, fn)


def _resid_mid(hooks: Hooks, block: Block, fn: Fn) -> None:
    """The residual after attention. The block keeps its own reference to the residual, so an
    edit enters through what attention adds to it."""
    factor = hooks.anatomy.residual_multiplier
    resid: Tensor | None = None

    def remember(x: Tensor) -> Tensor:
        nonlocal resid
        resid = x
        return x

    def mid(out: Tensor) -> Tensor:
        assert resid is not None
        added = out if factor == 1.0 else out * factor
        return shift(out, resid + added, fn, lambda change: change / factor)

    hooks.on_input(block.module, remember)
    hooks.on_output(_given(block.attn_branch), mid)


# -- attention -----------------------------------------------------------------------------


def _attn_input(hooks: Hooks, block: Block, fn: Fn) -> None:
    hooks.on_input(_given(block.attn), fn)


def _project(part: int, hooks: Hooks, block: Block, fn: Fn) -> None:
    """q (part 0), k or v as its projection writes it: before any q/k norm and before rotary."""
    anatomy = hooks.anatomy

    def alone(out: Tensor) -> Tensor:
        return fn(anatomy.cut(out, part)).flatten(-2)

    def fused(out: Tensor) -> Tensor:
        return _rejoin(out, [anatomy.cut(out, i) for i in range(3)], part, fn, anatomy.join)

    split = anatomy.family.layout == "split"
    hooks.on_output(block.qkv[part if split else 0], alone if split else fused)


def _rejoin(
    out: Tensor, pieces: Any, part: int, fn: Fn, join: Callable[[list[Tensor]], Tensor]
) -> Tensor:
    """``out`` with one of its pieces replaced; itself if nothing changed and no graph is kept."""
    new = fn(pieces[part])
    if new.data_ptr() == pieces[part].data_ptr() and not out.requires_grad:
        return out
    return join([*pieces[:part], new, *pieces[part + 1 :]])


def _z(hooks: Hooks, block: Block, fn: Fn) -> None:
    shape = (hooks.anatomy.n_heads, hooks.anatomy.d_head)
    hooks.on_input(_given(block.o), lambda x: fn(x.unflatten(-1, shape)).flatten(-2))


def _result(hooks: Hooks, block: Block, fn: Fn) -> None:
    """Each head's part of attention's output, ``z @ W_O`` by head; b_O belongs to no head.

    In families with a norm after attention this is what enters that norm.
    """
    anatomy, o = hooks.anatomy, _given(block.o)
    factor = 1.0 if block.norm_after_attn else anatomy.residual_multiplier

    def split(z: Tensor, out: Tensor) -> Tensor:
        z = z.unflatten(-1, (anatomy.n_heads, anatomy.d_head))
        weight: Any = fetched(o, "weight")
        rows = weight if type(o).__name__ == "Conv1D" else weight.T  # [head * d_head, d_model]
        w_o = rows.unflatten(0, (anatomy.n_heads, anatomy.d_head))
        per_head = torch.einsum("bphe,hed->bphd", z, w_o) * factor
        return shift(out, per_head, fn, lambda change: change.sum(-2) / factor)

    hooks.on_both(o, split)


# -- the MLP, the norms, and what lies outside the blocks --------------------------------------


def _mlp_input(hooks: Hooks, block: Block, fn: Fn) -> None:
    hooks.on_input(_given(block.mlp), fn)


def _mlp_pre(hooks: Hooks, block: Block, fn: Fn) -> None:
    """Before the non-linearity: the gate's projection where the MLP is gated."""
    if block.gate is not None and block.gate is block.up:  # fused, and the gate comes first
        hooks.on_output(
            block.gate,
            lambda out: _rejoin(out, out.chunk(2, -1), 0, fn, partial(torch.cat, dim=-1)),
        )
    else:
        hooks.on_output(_given(block.gate or block.up), fn)


def _mlp_post(hooks: Hooks, block: Block, fn: Fn) -> None:
    hooks.on_input(_given(block.down), fn)


def _norm(hooks: Hooks, name: str, layer: int | None, pair: Mapping[str, Fn]) -> None:
    """One hook serves a norm's ``scale`` and its ``normalized``, in that order."""
    owner: Any = hooks.anatomy if layer is None else hooks.anatomy.blocks[layer]
    norm = _given(getattr(owner, name))
    shown = partial(
        tap_norm,
        norm,
        offset=hooks.anatomy.family.norm_offset,
        on_scale=pair.get("scale"),
        on_normalized=pair.get("normalized"),
    )
    hooks.on_both(norm, shown)


def _embed(hooks: Hooks, fn: Fn) -> None:
    _branch(hooks, hooks.anatomy.embed, hooks.anatomy.embedding_multiplier, fn)


def _pos_embed(hooks: Hooks, fn: Fn) -> None:
    """Position embeddings come as [1, pos, d_model]; a function sees one row for each prompt."""
    batch = 1

    def count(ids: Tensor) -> Tensor:
        nonlocal batch
        batch = ids.shape[0]
        return ids

    hooks.on_input(hooks.anatomy.hf.get_input_embeddings(), count)
    hooks.on_output(
        _given(hooks.anatomy.pos_embed),
        lambda out: fn(out.expand(batch, -1, -1) if out.shape[0] == 1 else out),
    )


_OUTSIDE: Final[dict[str, Callable[[Hooks, Fn], None]]] = {
    "embed": _embed,
    "pos_embed": _pos_embed,
}
_INSIDE: Final[dict[str, Callable[[Hooks, Block, Fn], None]]] = {
    "resid_pre": _resid_pre,
    "attn.input": _attn_input,
    "q": partial(_project, 0),
    "k": partial(_project, 1),
    "v": partial(_project, 2),
    "z": _z,
    "result": _result,
    "attn_out": _attn_out,
    "resid_mid": _resid_mid,
    "mlp.input": _mlp_input,
    "mlp_pre": _mlp_pre,
    "mlp_post": _mlp_post,
    "mlp_out": _mlp_out,
    "resid_post": _resid_post,
}
