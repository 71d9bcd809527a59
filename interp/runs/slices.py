"""Reading and writing the part of a tensor that a site addresses.

A single head, neuron or position drops its axis; a range, a list or a star
keeps it. Positions count a prompt's real tokens (0 is the first, -1 the last),
so under padding each row has its own column.
"""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from interp.errors import RunError
from interp.sites import Index, Site

__all__ = ["read", "write"]

Columns = Int[Tensor, " batch"]


def read(x: Tensor, site: Site, columns: Columns | None) -> Tensor:
    """The part of ``x`` that ``site`` addresses; ``columns`` is each row's position."""
    if columns is not None:
        x = x[torch.arange(x.shape[0], device=x.device), columns.to(x.device)]
    for axis, index, what in _picked(site, columns):
        chosen = index.expand(x.shape[axis], what)
        if index.single:
            x = x.select(axis, chosen[0])
        else:
            x = x.index_select(axis, torch.tensor(chosen, device=x.device))
    return x


def write(x: Tensor, site: Site, columns: Columns | None, part: Tensor) -> Tensor:
    """A copy of ``x`` with ``part`` where ``site`` points.

    Raises:
        RunError: ``part`` does not have the shape that :func:`read` gives.
    """
    expected = read(x, site, columns)
    if part.shape != expected.shape:
        raise RunError(
            f"an edit of {str(site)!r} returned shape {list(part.shape)}; "
            f"expected {list(expected.shape)}, the shape it was given."
        )
    picked = _picked(site, columns)
    if columns is None and not picked:
        part = part.to(x.dtype)
        # With other strides a matmul may round differently: the same values, the same layout.
        return part if part.stride() == x.stride() else torch.empty_like(x).copy_(part)
    out, part = x.clone(), part.to(x.dtype)
    rows = torch.arange(x.shape[0], device=x.device)
    inner = out if columns is None else out[rows, columns.to(x.device)]
    for axis, index, what in picked:  # a site has heads or units, never both
        chosen = list(index.expand(x.shape[axis + (columns is not None)], what))
        inner[(slice(None),) * axis + (chosen[0] if index.single else chosen,)] = part
    if columns is not None:
        out[rows, columns.to(x.device)] = inner if picked else part
    return out


def _picked(site: Site, columns: Columns | None) -> list[tuple[int, Index, str]]:
    """Axes to narrow, from the last to the first, as they lie once the position is taken."""
    axes = [axis for axis in site.kind.axes if columns is None or axis != "pos"]
    picked = []
    if site.unit is not None:
        picked.append((len(axes) - 1, site.unit, "neuron" if site.kind.units == "N" else "feature"))
    if site.head is not None:
        axis = next(i for i, name in enumerate(axes) if name in ("head", "kv_head"))
        picked.append((axis, site.head, "head"))
    return picked
