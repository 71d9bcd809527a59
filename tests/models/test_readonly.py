"""A read-only tensor raises where it would be written to, and is an ordinary tensor elsewhere."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from interp.errors import ModelError
from interp.models.readonly import ReadOnly, read_only

WRITES = {
    "assignment": lambda w: w.__setitem__(0, 0.0),
    "a row": lambda w: w[0].zero_(),
    "transposed": lambda w: w.T.fill_(1.0),
    "+=": lambda w: w.__iadd__(1.0),
    "out=": lambda w: torch.add(w, 1.0, out=w),
    "inplace=": lambda w: nn.functional.relu(w, inplace=True),
    "by keyword": lambda w: torch.relu_(input=w),
    ".data": lambda w: w.data.zero_(),
    "new data": lambda w: setattr(w, "data", torch.zeros(3, 3)),
    "detached": lambda w: w.detach().float().contiguous().neg_(),
    "split": lambda w: w.split(1)[1].mul_(2.0),
    "initialised": nn.init.normal_,
    "parameter": lambda w: nn.Parameter(w).data.zero_(),
    "many": lambda w: torch._foreach_add_([w], 1.0),
}


@pytest.mark.parametrize("way", WRITES)
def test_a_weight_cannot_be_written(way):
    base = torch.arange(-4.0, 5.0).reshape(3, 3)
    before = base.clone()
    with pytest.raises(ModelError, match=r"would write to a weight.*read-only.*weight\.clone\(\)"):
        WRITES[way](read_only(base))
    assert torch.equal(base, before)


def test_an_array_of_a_weight_cannot_be_written():
    base = torch.ones(2)
    for array in (read_only(base).numpy(), np.asarray(read_only(base))):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0.0


def test_what_is_computed_from_a_weight_is_an_ordinary_tensor():
    w, x = read_only(torch.ones(2, 2)), torch.ones(2, requires_grad=True)
    for value in (w + 1, x @ w, w.clone(), w[torch.tensor([0])], w.to_sparse(), copy.deepcopy(w)):
        assert type(value) is torch.Tensor
    assert type(w[0]) is type(w.T) is ReadOnly
    (x @ w).sum().backward()
    assert torch.equal(x.grad, torch.full((2,), 2.0))
    assert torch.equal(torch.vmap(lambda row: row @ w)(torch.eye(2)), torch.ones(2, 2))
    assert torch.zeros(2, 2).add_(w).sum() == 4  # reading into another tensor is no write
