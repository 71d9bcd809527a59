"""The control of a scan: what it lets through, and how often where there is nothing."""

from __future__ import annotations

import pytest
import torch

from interp.errors import PromptError, RunError
from interp.overview.contexts import contexts, one_prompt
from interp.overview.family import LEVEL, Family
from tests import tiny


def family(score, contexts, twin=None):
    cells = tuple(str(i) for i in range(len(score)))
    return Family("direct", "logits", cells, score, contexts, twin)


def noise(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_a_planted_cell_survives_and_nothing_else():
    values = noise(30, 41, seed=0)
    values[7, 0] = 9.0
    found = family(values[:, 0], values[:, 1:])
    assert found.survives().nonzero().flatten().tolist() == [7]
    assert float(found.p()[7]) == pytest.approx(1 / 41)  # the least that 40 contexts can say
    assert float(found.t()[7]) > 5
    assert (
        not family(values[:, 0], values[:, 1:], twin=9.5).survives().any()
    )  # the twin's is larger


def test_where_there_is_nothing_a_family_speaks_one_time_in_twenty():
    spoke = 0
    for seed in range(400):
        scales = 0.1 + torch.rand(25, 1, generator=torch.Generator().manual_seed(seed))
        values = noise(25, 41, seed=1000 + seed) * scales + 3.0
        spoke += bool(family(values[:, 0], values[:, 1:]).survives().any())
    assert 0.02 < spoke / 400 < 0.08  # LEVEL, give or take


SHAPES = {
    "many cells": lambda draw: torch.randn(800, 40, generator=draw),
    "heavy tails": lambda draw: torch.randn(300, 40, generator=draw).mul(2).exp(),
    "rare spikes": lambda draw: (torch.rand(300, 40, generator=draw) < 0.02).float(),  # attention
    "few draws": lambda draw: torch.randn(300, 20, generator=draw),
}


@pytest.mark.parametrize("shape", list(SHAPES))
def test_the_level_holds_whatever_the_cells_number_and_distribution(shape):
    spoke = 0
    for seed in range(200):
        values = SHAPES[shape](torch.Generator().manual_seed(seed))
        spoke += bool(family(values[:, 0], values[:, 1:]).survives().any())
    assert spoke / 200 < 0.1  # LEVEL, give or take


def test_what_is_the_same_in_every_context_is_no_finding():
    values = noise(5, 41, seed=1)
    values[2] = 100.0  # large, and always there
    found = family(values[:, 0], values[:, 1:])
    assert float(found.excess[2]) == 0
    assert not found.survives()[2]
    rows = found.rows()
    assert rows[2]["score"] == 100.0
    assert rows[2]["p"] > LEVEL


def test_a_family_without_any_spread_has_no_findings():
    flat = torch.zeros(4)
    found = family(flat, torch.zeros(4, 20))
    assert not found.survives().any()
    assert found.t().tolist() == [0.0] * 4


def test_contexts_keep_the_last_token_and_special_ones(bpe_tokenizer):
    import interp

    hf = tiny.build("gpt2", vocab_size=len(bpe_tokenizer) + 8)  # rows that no token has
    model = interp.load(hf, tokenizer=bpe_tokenizer, check=False)
    ids = one_prompt(model, "Peru is Lima")
    rows = contexts(model, ids, draws=200, seed=0)
    assert torch.equal(rows[0], ids)
    assert (rows[:, 0] == ids[0]).all()  # BOS
    assert (rows[:, -1] == ids[-1]).all()
    assert len(rows[1:, 1].unique()) > 80
    assert int(rows[1:, 1:-1].min()) > 0  # 0 is <|endoftext|>
    assert int(rows.max()) < len(bpe_tokenizer)
    assert torch.equal(rows, contexts(model, ids, draws=200, seed=0))
    assert not torch.equal(rows, contexts(model, ids, draws=200, seed=1))
    with pytest.raises(RunError, match="at least 19 random contexts"):
        contexts(model, ids, draws=18, seed=0)
    with pytest.raises(PromptError, match="given 2 prompts; expected one"):
        one_prompt(model, ["Peru is", "Japan is"])
    with pytest.raises(PromptError, match="has 1 tokens; expected at least 3"):
        one_prompt(model, torch.tensor([[5]]))
