"""The run that cells are edits of: what each block read, and every key and value.

One forward pass of the Hugging Face model, with the arguments of each block kept as they
came (:class:`Base`). A block can then be run again on some of its positions, for many cells
at once, without a line of code for its family.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from interp.engine.kernels import replay_kernels
from interp.engine.where import Where, repeat
from interp.runs.edits import RowEdit
from interp.runs.execute import forward
from interp.taps.anatomy import Anatomy
from interp.taps.hooks import Fn
from interp.taps.points import Key, tapped
from interp.token_batch import TokenBatch

__all__ = ["Base", "CannotReplay", "run_base"]

#: Arguments that are cut by position, and the axis that counts queries.
_CUT: Final = {"attention_mask": 2, "position_embeddings": 1, "position_ids": 1}
#: The names under which families hand a block its key-value cache.
_CACHES: Final = ("past_key_values", "layer_past", "past_key_value")
_EMBED: Final[Key] = ("embed", None)


class CannotReplay(Exception):  # noqa: N818 (a reason, which the plain path's result states)
    """A block was given something that is not known to be cut by position."""


@dataclass(frozen=True, eq=False)
class Base:
    """One run of some prompts.

    Attributes:
        resid: the residual stream before each block, and after the last one.
        keys, values: as each block's attention handed them to its cache: after rotary, before
            grouped heads are repeated.
        arguments: what each block was called with, beside the residual stream.
        logits: of every position if they were asked for, else of each prompt's last token.
        seen: whole tensors of the run that were asked for, by point and layer.
    """

    anatomy: Anatomy
    tokens: TokenBatch
    resid: tuple[Float[Tensor, "prompt pos d_model"], ...]
    keys: tuple[Float[Tensor, "prompt kv_head pos d_head"], ...]
    values: tuple[Float[Tensor, "prompt kv_head pos d_head"], ...]
    arguments: tuple[Mapping[str, Any], ...]
    logits: Float[Tensor, "prompt pos_or_1 d_vocab"]
    seen: Mapping[Key, Tensor]

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def width(self) -> int:
        return self.tokens.ids.shape[1]

    def picks(self, columns: Int[Tensor, "*cell prompt"] | None) -> bool:
        """Whether these columns can be run without those behind them."""
        if columns is None:
            return False
        return not self.anatomy.family.window_from_end or bool((columns == self.width - 1).all())

    def kwargs(self, layer: int, where: Where, keys: Any) -> dict[str, Any]:
        """A block's arguments for a run on ``where``, with ``keys`` as its cache."""
        made: dict[str, Any] = {}
        for name, given in self.arguments[layer].items():
            if isinstance(given, _Recorder):
                made[name] = keys
            elif name == "attention_mask" and given is None and self.anatomy.causal:
                made[name] = where.share(self._causal, 2)  # the kernel was told "causal"
            else:
                made[name] = self._argument(name, given, where)
        return made

    @cached_property
    def _causal(self) -> Float[Tensor, "1 1 pos pos"]:
        """The mask to add that lets every column see itself and those before it."""
        x = self.resid[0]
        mask = torch.full((self.width, self.width), torch.finfo(x.dtype).min, dtype=x.dtype)
        return mask.triu(1)[None, None].to(x.device)

    def _argument(self, name: str, given: Any, where: Where) -> Any:
        if isinstance(given, tuple):
            return tuple(self._argument(name, part, where) for part in given)
        if not isinstance(given, Tensor):
            return given
        if name in _CUT:
            axis = _CUT[name]
            if given.shape[0] > 1 and not self.tokens.padded:  # the same for every prompt
                given = given[:1]
            return (where.share if given.shape[0] == 1 else where.take)(given, axis)
        if name == "alibi":  # [prompt * head, 1, key]: by key, so every query keeps it whole
            return repeat(given, where.copies)
        raise CannotReplay(f"its blocks take {name!r}, and how that is cut by position is unknown")


def _same(x: Tensor) -> Tensor:
    return x


class _Recorder:
    """Stands in for a block's key-value cache and keeps what it is handed."""

    def __init__(self) -> None:
        self.keys: Tensor | None = None
        self.values: Tensor | None = None

    def update(self, keys: Tensor, values: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        self.keys, self.values = keys, values
        return keys, values


def run_base(
    anatomy: Anatomy,
    tokens: TokenBatch,
    *,
    logits: bool,
    see: Iterable[Key] = (),
    embed: RowEdit | None = None,
) -> Base:
    """Run the prompts once.

    Args:
        logits: keep the logits of every position, not only of each prompt's last token.
        see: whole tensors to keep, by point and layer.
        embed: an edit of the embeddings that stands in this run, and so in every cell of it.

    Raises:
        CannotReplay: a block has no cache to hand keys to, or takes an unknown tensor.
    """
    resid: list[Tensor] = []
    calls: list[dict[str, Any]] = []
    recorders = [_Recorder() for _ in anatomy.blocks]
    seen: dict[Key, Tensor] = {}

    def keep(key: Key, x: Tensor) -> Tensor:
        seen[key] = x
        return x

    def before(
        layer: int, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[()], dict[str, Any]]:
        names = list(inspect.signature(module.forward).parameters)
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        resid.append(given.pop("hidden_states"))
        caches = [name for name in _CACHES if given.get(name) is not None]
        if not caches:
            raise CannotReplay("its blocks are handed no key-value cache")
        given |= dict.fromkeys(caches, recorders[layer])
        calls.append(given)
        return (), {"hidden_states": resid[-1], **given}

    def after(module: nn.Module, args: Any, out: Any) -> None:
        resid.append(out[0] if isinstance(out, tuple) else out)

    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(replay_kernels(anatomy))
        for layer, block in enumerate(anatomy.blocks):
            hook = partial(before, layer)
            handle = block.module.register_forward_pre_hook(hook, with_kwargs=True)
            stack.callback(handle.remove)
        stack.callback(anatomy.blocks[-1].module.register_forward_hook(after).remove)
        taps: dict[Key, Fn] = {key: partial(keep, key) for key in see}
        if embed is not None:
            then = taps.get(_EMBED, _same)
            taps[_EMBED] = lambda x: then(embed(x))
        stack.enter_context(tapped(anatomy, taps))
        out = forward(anatomy, tokens, last=not logits)
    keys, values = [r.keys for r in recorders], [r.values for r in recorders]
    if any(k is None or k.shape[2] != tokens.ids.shape[1] for k in keys):
        raise CannotReplay("its attention hands no keys to the cache")
    return Base(
        anatomy, tokens, tuple(resid), tuple(keys), tuple(values), tuple(calls),  # type: ignore[arg-type]
        out, seen,
    )  # fmt: skip
