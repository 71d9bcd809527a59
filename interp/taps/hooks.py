"""Torch hooks on modules: the three kinds the taps need, removed when the run ends.

A function is shown a module's input, its output, or both, always as
``[batch, pos, ...]`` (some blocks flatten the first two axes before their MLP),
and may return another tensor of the same shape.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from torch import Tensor, nn

from interp.taps.anatomy import Anatomy

__all__ = ["Fn", "Hooks", "shift"]

Fn = Callable[[Tensor], Tensor]


class Hooks:
    """Puts functions on modules and takes them off when ``stack`` closes."""

    def __init__(self, stack: ExitStack, anatomy: Anatomy) -> None:
        self._stack = stack
        self._shape: tuple[int, int] | None = None
        self.anatomy = anatomy
        if anatomy.family.mlp is None:  # such blocks flatten [batch, pos] inside
            self._add(anatomy.blocks[0].module, pre=True, hook=self._remember_shape)

    def on_input(self, module: nn.Module, fn: Fn) -> None:
        """``fn`` sees the first tensor that the module is called with."""

        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if args:
                return (self._shaped(fn, args[0]), *args[1:]), kwargs
            return args, {**kwargs, "hidden_states": self._shaped(fn, kwargs["hidden_states"])}

        self._add(module, pre=True, hook=hook)

    def on_output(self, module: nn.Module, fn: Fn) -> None:
        """``fn`` sees the module's output, or the first part of an output tuple."""

        def hook(_: nn.Module, args: Any, kwargs: Any, out: Any) -> Any:
            if isinstance(out, tuple):
                return (self._shaped(fn, out[0]), *out[1:])
            return self._shaped(fn, out)

        self._add(module, pre=False, hook=hook)

    def on_both(self, module: nn.Module, fn: Callable[[Tensor, Tensor], Tensor]) -> None:
        """``fn(input, output)`` returns the output to use."""

        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Any:
            x = args[0] if args else kwargs["hidden_states"]
            return self._shaped(lambda shaped: fn(x.reshape(*shaped.shape[:2], -1), shaped), out)

        self._add(module, pre=False, hook=hook)

    def _add(self, module: nn.Module, *, pre: bool, hook: Callable[..., Any]) -> None:
        register = module.register_forward_pre_hook if pre else module.register_forward_hook
        self._stack.callback(register(hook, with_kwargs=True).remove)

    def _remember_shape(self, _: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        x = args[0] if args else kwargs["hidden_states"]
        self._shape = (x.shape[0], x.shape[1])

    def _shaped(self, fn: Fn, x: Tensor) -> Tensor:
        if x.requires_grad:  # a node of its own: other readers of x are not this site
            x = x.view_as(x)
        if x.dim() > 2 or self._shape is None:
            return fn(x)
        return fn(x.unflatten(0, self._shape)).flatten(0, 1)


def shift(out: Tensor, old: Tensor, fn: Fn, back: Fn) -> Tensor:
    """``out`` moved by what ``fn`` changes in ``old``; ``back`` maps that change onto ``out``.

    For sites which are not themselves tensors of the model. An unchanged tensor
    leaves ``out`` equal to the bit. With gradients on, what ``fn`` returns lies on
    the path to the logits: the difference is zero, its derivative is not.
    """
    alias = old.view_as(old)
    new = fn(alias)
    if new is alias and not alias.requires_grad:
        return out
    return out + back(new - old).to(out.dtype)
