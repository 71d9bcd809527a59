"""Tensors that refuse to be written to.

A view of a weight shares the model's memory, and PyTorch has no read-only flag:
``weights.W_E[5] = 0`` would change the model without a word. A :class:`ReadOnly`
tensor raises instead. It is otherwise an ordinary tensor:

- what shares its memory (``w[0]``, ``w.T``, ``w.float()`` of a float32 weight) is
  read-only too, and so is the array that ``w.numpy()`` gives;
- what has memory of its own (``w + 1``, ``x @ w``, ``w.clone()``) is a plain tensor.

>>> w = read_only(torch.ones(2))
>>> w * 3
tensor([3., 3.])
>>> w.clone().zero_()
tensor([0., 0.])
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from interp.errors import ModelError

__all__ = ["ReadOnly", "read_only"]

_ASSIGNMENTS: Final = frozenset(
    f"__{name}__"
    for name in (
        "setitem", "set", "delete", "iadd", "isub", "imul", "itruediv", "ifloordiv", "imod",
        "ipow", "iand", "ior", "ixor", "ilshift", "irshift",
    )
)  # fmt: skip


def read_only(x: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, "*shape"]:
    """The same memory, without gradient, behind a tensor that cannot be written to."""
    with torch._C.DisableTorchFunctionSubclass():
        return Tensor._make_subclass(ReadOnly, x)


class ReadOnly(Tensor):
    """A tensor that raises ``ModelError`` when it would be changed in place."""

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if any(isinstance(x, cls) for x in tree_leaves(_written(func, args, kwargs))):
            raise ModelError(
                f"{func.__name__!r} would write to a weight, but a model's weights are read-only "
                "here. Work on a copy, weight.clone(), or edit a run with edit={site: value}."
            )
        with torch._C.DisableTorchFunctionSubclass():
            guarded = {_memory(x) for x in tree_leaves((args, kwargs)) if isinstance(x, cls)}
            args, kwargs = tree_map_only(cls, _plain, (args, kwargs))
        out = func(*args, **kwargs)
        if isinstance(out, np.ndarray):
            out.setflags(write=False)
        return tree_map_only(Tensor, lambda x: read_only(x) if _memory(x) in guarded else x, out)


def _written(func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """The arguments that a torch function changes, by torch's naming rules."""
    name = func.__name__
    method = name.endswith("_") and not name.endswith("__")
    if method or name in _ASSIGNMENTS or kwargs.get("inplace"):
        return args[0] if args else dict(kwargs)
    return kwargs.get("out")


def _plain(x: ReadOnly) -> Tensor:
    return Tensor._make_subclass(Tensor, x)


def _memory(x: Tensor) -> int | None:
    """Which storage holds the values; None for kinds that have none, such as sparse tensors."""
    return x.untyped_storage()._cdata if torch._C._has_storage(x) else None
