"""Moments merged piece by piece are those of all rows, also far from zero."""

from functools import reduce

import pytest
import torch

from interp.geometry.moments import Cross, Moments


@pytest.fixture
def rows():
    x = torch.randn(400, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return x, x[:, :3] @ torch.arange(9.0).double().view(3, 3) + x[:, 2:]


@pytest.mark.parametrize("cut", [[400], [1, 399], [7, 93, 300], [100] * 4])
def test_pieces_make_the_whole(rows, cut):
    a, b = (x + 1e4 for x in rows)
    found = reduce(Cross.merged, map(Cross.of, a.split(cut), b.split(cut)))
    assert found.a.count == found.b.count == 400
    assert torch.allclose(found.a.mean, a.mean(0), rtol=1e-14)
    assert torch.allclose(found.a.variance, a.var(0), rtol=1e-10)
    assert torch.allclose(
        found.products / 399, torch.cov(torch.cat([a, b], 1).T)[:5, 5:], rtol=1e-9
    )
    assert torch.allclose(
        found.pearson(), torch.corrcoef(torch.cat([a, b], 1).T)[:5, 5:], atol=1e-10
    )


def test_a_constant_has_no_correlation_and_a_single_row_no_variance():
    x = torch.tensor([[1.0, 2.0], [1.0, 3.0]])
    assert torch.isnan(Cross.of(x, x).pearson()[0]).all()
    assert float(Cross.of(x, x).pearson()[1, 1]) == pytest.approx(1)
    assert torch.isnan(Moments.of(x[:1]).variance).all()
