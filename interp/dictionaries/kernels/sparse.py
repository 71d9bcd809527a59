"""Decoding and gradients by active entries alone.

    x̂[row] = Σ value · dec[feature]                       over the row's entries
    ∂value = g[row] · dec[feature], where value > 0         g = ∂loss/∂x̂
    ∂dec[feature] = Σ value · g[row],  ∂enc[feature] = Σ ∂value · x[row]      over the feature's entries

Each is a weighted sum of few rows (``embedding_bag``) or one dot product for each entry.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from interp.dictionaries.kernels.codes import Codes
from interp.dictionaries.kernels.order import ByFeature, by_feature, dots

__all__ = ["backward", "decode"]

_BLOCK_BYTES = (
    3 * 2**20
)  # what stays in cache; a fresh [d_sae, d] costs more in page faults than the sums


@torch.no_grad()
def decode(codes: Codes, dec: Float[Tensor, "d_sae width"]) -> Float[Tensor, "rows width"]:
    """``codes.dense() @ dec``."""
    return _weighted_sums(dec.detach(), codes.features, codes.offsets, codes.values)


@torch.no_grad()
def backward(
    codes: Codes,
    x: Float[Tensor, "rows d_in"],
    g: Float[Tensor, "rows width"],
    dec: Float[Tensor, "d_sae width"],
    *,
    d_enc: Float[Tensor, "d_sae d_in"],
    d_b_enc: Float[Tensor, " d_sae"],
    d_dec: Float[Tensor, "d_sae width"],
    dvalues_extra: Float[Tensor, " active"] | None = None,
    add: bool = False,
) -> Float[Tensor, " d_sae"]:
    """Gradients of what reads ``decode(codes, dec)``, where values are ``relu(x @ encᵀ + b_enc)``.

    The same bits on every call with the same number of threads on a CPU.

    Args:
        x: what was encoded.
        g: gradient with respect to the reconstruction.
        d_enc, d_b_enc, d_dec: where gradients go; overwritten unless ``add``.
        dvalues_extra: further gradient with respect to each entry's value, such as a penalty's.
            Entries of value 0 get none, of either.
        add: whether to add to what stands in the buffers.

    Returns:
        The gradient of ``b_enc`` of this call alone; ``−(it @ enc)`` is that of a bias that was
        subtracted from the input.
    """
    dec, g, x = dec.detach(), g.contiguous(), x.detach().contiguous()
    order = by_feature(codes.features, codes.rows(), len(codes), codes.d_sae)
    values = codes.values[order.permutation]
    slopes = dots(order, dec, g)
    if dvalues_extra is not None:
        slopes += dvalues_extra[order.permutation]
    slopes *= values > 0
    _sums_by_feature(order, g, values, d_dec, add=add)
    _sums_by_feature(order, x, slopes, d_enc, add=add)
    to_bias = _sum_each(order, slopes, codes)
    _put(d_b_enc, to_bias, add=add)
    return to_bias


def _sums_by_feature(
    order: ByFeature, of: Tensor, weights: Tensor, out: Tensor, *, add: bool
) -> None:
    """``out[feature] (+)= Σ weight · of[row]``, a block of features at a time."""
    for start, end, first, last in _blocks(order, out):
        if first < last:
            offsets = order.bounds[start:end] - first
            sums = _weighted_sums(of, order.rows[first:last], offsets, weights[first:last])
            _put(out[start:end], sums, add=add)
        elif not add:
            out[start:end].zero_()


def _blocks(order: ByFeature, out: Tensor) -> Iterator[tuple[int, int, int, int]]:
    """Ranges of features with their ranges of entries."""
    n = len(out)
    if out.device.type != "cpu":  # one: asking where blocks begin would wait for the device
        yield 0, n, 0, len(order.rows)
        return
    size = max(1, _BLOCK_BYTES // max(1, out.shape[1] * out.element_size()))
    edges = [*range(0, n, size), n]
    entries = order.bounds[edges].tolist()
    yield from zip(edges[:-1], edges[1:], entries[:-1], entries[1:], strict=True)


def _sum_each(order: ByFeature, slopes: Tensor, codes: Codes) -> Float[Tensor, " d_sae"]:
    exact = torch.promote_types(slopes.dtype, torch.float32)
    out = torch.zeros(codes.d_sae, dtype=exact, device=slopes.device)
    out.index_add_(0, codes.features[order.permutation], slopes.to(exact))
    return out.to(slopes.dtype)


def _weighted_sums(table: Tensor, index: Tensor, offsets: Tensor, weights: Tensor) -> Tensor:
    return torch.ops.aten._embedding_bag(
        table, index, offsets, False, 0, False, weights.to(table.dtype)
    )[0]


def _put(out: Tensor, values: Tensor, *, add: bool) -> None:
    if add:
        out.add_(values)
    else:
        out.copy_(values)
