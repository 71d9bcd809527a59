"""Selection by group maxima: the values are those of torch.topk, whatever the row looks like."""

from __future__ import annotations

import pytest
import torch

from interp.dictionaries.kernels import topk
from interp.dictionaries.kernels.topk import exact_topk, kth_largest, nonzero


def rows_of(kind: str, rows: int, n: int, dtype: torch.dtype) -> torch.Tensor:
    generator = torch.Generator().manual_seed(n)
    h = torch.randn(rows, n, generator=generator, dtype=torch.float64)
    shaped = {
        "normal": h,
        "heavy": h.sign() * h.abs().exp().pow(4),
        "ties": (2 * h).round(),
        "nearly all 0": h.clamp(min=2),
        "constant": torch.zeros_like(h),
        "negative": -h.abs(),
        "ascending": h.sort(-1).values,
    }
    return shaped[kind].to(dtype)


@pytest.mark.parametrize("threads", ["few", "many"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(
    "kind", ["normal", "heavy", "ties", "nearly all 0", "constant", "negative", "ascending"]
)
def test_values_are_those_of_torch_topk(kind, dtype, threads, monkeypatch):
    if threads == "many":
        monkeypatch.setattr(topk, "_FEW_THREADS", 0)
    for n, k in [(1, 1), (7, 7), (33, 5), (513, 1), (1000, 32), (4096, 32), (4099, 32), (5000, 700),
                 (12289, 3)]:  # fmt: skip
        h = rows_of(kind, 9, n, dtype)
        values, index = exact_topk(h, k)
        expected = h.topk(k, -1).values
        assert torch.equal(values.sort(-1, descending=True).values, expected), (n, k)
        assert torch.equal(h.gather(-1, index), values)
        assert all(len(set(row)) == k for row in index.tolist())  # no element twice


def test_rows_may_have_any_shape():
    h = torch.randn(2, 3, 600, generator=torch.Generator().manual_seed(0))
    values, index = exact_topk(h, 4)
    assert values.shape == index.shape == (2, 3, 4)
    assert torch.equal(values.sort(-1).values, h.topk(4, -1).values.sort(-1).values)
    assert exact_topk(h[:, :0], 4)[0].shape == (2, 0, 4)


def test_a_row_with_nan_has_nan_and_leaves_the_others_alone():
    h = torch.randn(4, 2000, generator=torch.Generator().manual_seed(0))
    h[1, 77] = torch.nan
    values, _ = exact_topk(h, 8)
    assert values[1].isnan().sum() == 1
    assert torch.equal(values[2].sort().values, h[2].topk(8).values.sort().values)


def test_the_kth_largest_is_0_where_there_are_fewer_or_it_is_negative():
    values = torch.tensor([3.0, -1.0, 2.0, 2.0])
    assert [float(kth_largest(values, k)) for k in (1, 2, 3, 4, 5)] == [3, 2, 2, 0, 0]
    assert kth_largest(values[:0], 1) == 0


@pytest.mark.parametrize("few", [0, 99])
def test_hits_come_in_order(few, monkeypatch):
    monkeypatch.setattr(topk, "_FEW_THREADS", few)
    assert nonzero(torch.tensor([[0, 1], [1, 1]]) > 0).tolist() == [1, 2, 3]
