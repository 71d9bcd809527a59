"""Weights without gradients, for as long as something else is differentiated."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

__all__ = ["frozen"]


@contextmanager
def frozen(hf: nn.Module) -> Iterator[None]:
    """No weight takes part in a graph within the ``with`` block; all are put back at its end.

    Gradients of weights would cost half as much again as those of the activations.
    """
    before = [(p, p.requires_grad) for p in hf.parameters()]
    try:
        for parameter, _ in before:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter, needed in before:
            parameter.requires_grad_(needed)
