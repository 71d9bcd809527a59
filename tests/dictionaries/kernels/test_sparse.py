"""Sparse = dense: reconstructions and all gradients, against autograd through the dense formula."""

from __future__ import annotations

import pytest
import torch

from interp.dictionaries.kernels import (
    Codes,
    backward,
    decode,
    select_topk,
    split_by_group,
)
from interp.errors import DictionaryError

D_IN, WIDTH, D_SAE, ROWS, K = 12, 20, 900, 40, 7
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-6}


def weights(dtype, d_sae=D_SAE):
    g = torch.Generator().manual_seed(3)
    enc = torch.randn(d_sae, D_IN, generator=g, dtype=dtype)
    b_enc = torch.randn(d_sae, generator=g, dtype=dtype) - 1
    dec = torch.randn(d_sae, WIDTH, generator=g, dtype=dtype)
    b_enc[d_sae // 2 : d_sae // 2 + 300] = -1e3  # never active, a block of them too
    return enc, b_enc, dec, torch.randn(ROWS, D_IN, generator=g, dtype=dtype)


def ragged(codes: Codes) -> Codes:
    """Only some entries of each row, none of some rows; zeros, also of one feature twice in a row."""
    keep = torch.rand(len(codes.values), generator=torch.Generator().manual_seed(1)) < 0.6
    rows = codes.rows()
    keep &= (rows != 0) & (rows != 5) & (rows != ROWS - 1)
    counts = torch.bincount(rows[keep], minlength=len(codes))
    values, features = codes.values[keep].clone(), codes.features[keep].clone()
    values[:3], features[:3] = 0, 4
    return Codes(values, features, counts.cumsum(0) - counts, codes.d_sae)


def off(a, b):
    return float((a - b).norm() / b.norm().clamp(min=1e-30))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("shape", ["constant", "ragged"])
@pytest.mark.parametrize("extra", [False, True])
def test_gradients_are_those_of_autograd_through_the_dense_formula(dtype, shape, extra):
    enc, b_enc, dec, x = weights(dtype)
    codes = select_topk(x, enc, b_enc, K)
    if shape == "ragged":
        codes = ragged(codes)
    leaves = [one.clone().requires_grad_() for one in (enc, b_enc, dec, x)]
    mask = codes.dense() > 0
    acts = torch.relu(leaves[3] @ leaves[0].T + leaves[1]) * mask
    recon = acts @ leaves[2]
    target = torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(9), dtype=dtype)
    loss = (recon - target).pow(2).sum()
    slopes = torch.linspace(-1, 1, len(codes.values), dtype=dtype)
    if extra:
        loss = loss + (slopes * acts[codes.rows(), codes.features]).sum()
    loss.backward()
    expected = [one.grad for one in leaves]

    assert off(decode(codes, dec), recon.detach()) < TOLERANCE[dtype]
    g = 2 * (decode(codes, dec) - target)
    out = {"d_enc": torch.full_like(enc, 7.0), "d_b_enc": torch.full_like(b_enc, 7.0),
           "d_dec": torch.full_like(dec, 7.0)}  # fmt: skip
    more = {"dvalues_extra": slopes} if extra else {}
    to_bias = backward(codes, x, g, dec, **out, **more)
    for got, want in zip(out.values(), expected[:3], strict=True):
        assert off(got, want) < TOLERANCE[dtype]
    assert torch.equal(to_bias, out["d_b_enc"])
    assert off(to_bias @ enc, expected[3].sum(0)) < TOLERANCE[dtype]

    before = {name: one.clone() for name, one in out.items()}
    backward(codes, x, g, dec, **out, **more, add=True)
    for name, one in out.items():
        assert off(one, 2 * before[name]) < TOLERANCE[dtype]


def test_the_same_bits_on_every_call():
    enc, b_enc, dec, x = weights(torch.float32)
    codes = select_topk(x, enc, b_enc, K)
    g = torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(9))
    runs = []
    for _ in range(2):
        runs.append([torch.empty_like(one) for one in (enc, b_enc, dec)])
        backward(
            codes, x, g, dec, **dict(zip(("d_enc", "d_b_enc", "d_dec"), runs[-1], strict=True))
        )
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


def test_no_entry_at_all_is_a_reconstruction_and_gradients_of_zero():
    _, _, dec, x = weights(torch.float32)
    none = torch.empty(0, dtype=torch.long)
    codes = Codes(torch.empty(0), none, torch.zeros(ROWS, dtype=torch.long), D_SAE)
    assert torch.equal(decode(codes, dec), torch.zeros(ROWS, WIDTH))
    out = [torch.ones(D_SAE, D_IN), torch.ones(D_SAE), torch.ones(D_SAE, WIDTH)]
    backward(codes, x, torch.ones(ROWS, WIDTH), dec, d_enc=out[0], d_b_enc=out[1], d_dec=out[2])
    assert not any(one.any() for one in out)
    assert torch.equal(codes.dense(), torch.zeros(ROWS, D_SAE))


def test_bfloat16_gradients_are_near_the_dense_ones():
    enc, b_enc, dec, x = (one.bfloat16() for one in weights(torch.float32))
    codes = select_topk(x, enc, b_enc, K)
    g = torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(9)).bfloat16()
    out = [torch.empty_like(one) for one in (enc, b_enc, dec)]
    backward(codes, x, g, dec, d_enc=out[0], d_b_enc=out[1], d_dec=out[2])
    dense = codes.dense().float()
    assert off(out[2].float(), dense.T @ g.float()) < 2e-2
    slopes = (g.float() @ dec.float().T) * (dense > 0)
    assert off(out[0].float(), slopes.T @ x.float()) < 2e-2


def test_codes_know_their_rows():
    codes = ragged(select_topk(weights(torch.float32)[3], *weights(torch.float32)[:2], K))
    assert int(codes.counts()[0]) == int(codes.counts()[-1]) == 0
    assert torch.equal(torch.bincount(codes.rows(), minlength=ROWS), codes.counts())
    assert len(codes) == ROWS


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_nested_groups_are_those_of_autograd(dtype):
    enc, b_enc, dec, x = weights(dtype)
    ends = [100, 400, D_SAE]
    codes = select_topk(x, enc, b_enc, K)
    leaves = [one.clone().requires_grad_() for one in (enc, b_enc, dec)]
    acts = torch.relu(x @ leaves[0].T + leaves[1]) * (codes.dense() > 0)
    target = torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(9), dtype=dtype)
    prefixes = [acts[:, :end] @ leaves[2][:end] for end in ends]
    sum((one - target).pow(2).sum() for one in prefixes).backward()

    groups = split_by_group(codes, ends)
    assert sum(len(one.values) for one in groups) == len(codes.values)
    recons, behind = [torch.zeros_like(target)], [torch.zeros_like(target)]
    for one in groups:
        recons.append(recons[-1] + decode(one, dec))
    for got, want in zip(recons[1:], prefixes, strict=True):
        assert off(got, want.detach()) < TOLERANCE[dtype]
        behind = [g + 2 * (got - target) for g in behind] + [torch.zeros_like(target)]
    out = [torch.ones_like(one) for one in (enc, b_enc, dec)]
    sums = 0
    for i, (one, g) in enumerate(zip(groups, behind, strict=False)):
        sums = sums + backward(
            one, x, g, dec, d_enc=out[0], d_b_enc=out[1], d_dec=out[2], add=i > 0
        )
    for got, leaf in zip(out, leaves, strict=True):
        assert off(got, leaf.grad) < TOLERANCE[dtype]
    assert off(sums, out[1]) < TOLERANCE[dtype]


@pytest.mark.parametrize("ends", [[], [10], [500, 100, D_SAE], [0, D_SAE]])
def test_groups_that_do_not_ascend_to_d_sae_are_refused(ends):
    codes = select_topk(weights(torch.float32)[3], *weights(torch.float32)[:2], K)
    with pytest.raises(
        DictionaryError, match="expected ascending feature numbers that end with d_sae=900"
    ):
        split_by_group(codes, ends)
