"""A product kept as its factors says what the written-out matrix would."""

import pytest
import torch

from interp.errors import BudgetError, MetricError
from interp.weight_lenses import Factored, copying_score, factored


def product(m=9, r=3, n=9, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return Factored(torch.randn(m, r, generator=generator), torch.randn(r, n, generator=generator))


def test_parts_equal_those_of_the_dense_matrix():
    matrix = product()
    dense = matrix.dense()
    assert torch.allclose(matrix.rows([2, 5]), dense[[2, 5]])
    assert torch.allclose(matrix.columns([1]), dense[:, [1]])
    assert torch.allclose(matrix.entries([2, 5], torch.tensor([0, 3])), dense[[2, 5]][:, [0, 3]])
    assert torch.allclose(matrix.diagonal(), dense.diagonal(), atol=1e-6)
    assert torch.allclose(matrix.T.dense(), dense.T)
    assert matrix.trace() == pytest.approx(float(dense.trace()), rel=1e-5)
    assert matrix.frobenius() == pytest.approx(float(dense.norm()), rel=1e-5)
    assert (matrix.shape, matrix.rank) == ((9, 9), 3)


def test_eigenvalues_are_those_that_differ_from_zero():
    matrix = product()
    full = torch.linalg.eigvals(matrix.dense().double())
    ours, full = matrix.eigenvalues(), full[full.abs().argsort(descending=True)][:3]
    assert torch.allclose(ours.abs(), full.abs(), atol=1e-5)
    assert torch.allclose(ours.real.sum(), full.real.sum(), atol=1e-5)
    assert matrix.copying_score() == pytest.approx(float(copying_score(full)), abs=1e-5)


@pytest.mark.parametrize("shape", [(9, 3, 9), (12, 3, 7), (4, 6, 5)])
def test_svd_is_exact_and_its_signs_are_settled(shape):
    matrix = product(*shape)
    u, s, v = matrix.svd()
    assert torch.allclose(u @ s.diag() @ v.T, matrix.dense(), atol=1e-5)
    known = torch.linalg.svdvals(matrix.dense())
    assert torch.allclose(s[: len(known)], known[: len(s)], atol=1e-5)
    assert (v.gather(0, v.abs().argmax(0, keepdim=True)) > 0).all()


@pytest.mark.parametrize("largest", [True, False])
def test_the_largest_entries_are_found_in_blocks(largest, monkeypatch):
    matrix = product(m=11, n=13)
    value, index = matrix.dense().flatten().topk(6, largest=largest)
    monkeypatch.setattr(factored, "BLOCK", 26)  # two rows at a time
    values, where = matrix.top(6, largest=largest)
    assert torch.allclose(values, value)
    assert torch.equal(where[:, 0] * 13 + where[:, 1], index)
    with pytest.raises(BudgetError, match="has 143 entries"):
        matrix.dense()


def test_copying_score_counts_signs():
    assert float(copying_score(torch.tensor([2.0, 1.0]) + 0j)) == 1.0
    assert float(copying_score(torch.tensor([-2.0, -1.0]) + 0j)) == -1.0
    rotation = torch.linalg.eigvals(torch.tensor([[0.0, -1.0], [1.0, 0.0]]))
    assert float(copying_score(rotation)) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.filterwarnings("ignore")
def test_transformer_lens_says_the_same():
    from transformer_lens import FactoredMatrix

    ours = product(m=20, r=5, n=20)
    theirs = FactoredMatrix(ours.left, ours.right)
    assert ours.frobenius() == pytest.approx(float(theirs.norm()), rel=1e-5)
    assert torch.allclose(ours.svd()[1], theirs.S, atol=1e-4)
    theirs = theirs.eigenvalues.abs().sort(descending=True).values.double()
    assert torch.allclose(ours.eigenvalues().abs(), theirs, atol=1e-4)


@pytest.mark.bad_input
def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(MetricError, match=r"shapes \[2, 3\] and \[2, 3\]"):
        Factored(torch.ones(2, 3), torch.ones(2, 3))
    with pytest.raises(MetricError, match="expected a square matrix"):
        product(m=4, n=5).eigenvalues()
