"""The last position's attention to two places, exchanged: those weights, those rows, and nothing else."""

from __future__ import annotations

import pytest
import torch

import interp
from interp.editing.attention_swap import swap_attention
from interp.errors import PromptError, RunError
from tests import tiny

IDS = [[1, 5, 9, 17, 30, 44], [1, 8, 3, 21], [1, 7, 2, 90, 4]]
PLACES = {"one": [1, 2, 1], "two": [3, 1, 3]}


@pytest.fixture(scope="module")
def model():
    return interp.load(tiny.build("gpt_neox"), check=False)


def made(model):
    """Prompts of three lengths, with two places each."""
    return model.prompts(IDS, positions=PLACES)


def by_hand(pattern, prompts, pairs):
    """``pairs`` of places of each prompt exchanged in its last row."""
    out = pattern.clone()
    for row, (exchanged, end) in enumerate(zip(pairs, prompts.answer_column.tolist(), strict=True)):
        for one, two in exchanged:
            out[row, ..., end, one] = pattern[row, ..., end, two]
            out[row, ..., end, two] = pattern[row, ..., end, one]
    return out


@pytest.mark.parametrize("site", ["L1.pattern", "L1.H2.pattern"])
@pytest.mark.parametrize("batch", [3, 1])
def test_two_weights_of_the_last_row_change_places_and_nothing_else(model, site, batch):
    prompts = made(model)
    plain = model.run(prompts, save=site).cache[site]
    swap = swap_attention(prompts, "one", "two")
    run = model.run(prompts, save=site, edit={site: swap}, batch=batch)
    want = by_hand(plain, prompts, [[(1, 3)], [(2, 1)], [(1, 3)]])
    assert torch.allclose(run.cache[site], want, atol=1e-6)
    assert (want - plain).abs().max() > 0.01
    assert torch.allclose(run.cache[site].sum(-1), plain.sum(-1), atol=1e-6)


def test_tokens_behind_go_with_each_and_swapping_twice_restores(model):
    prompts = model.prompts([row[:4] for row in IDS])
    swap = swap_attention(prompts, 0, -2, behind=1)
    pattern = model.run(prompts, save="L0.pattern").cache["L0.pattern"]
    assert torch.equal(swap(pattern), by_hand(pattern, prompts, [[(0, 2), (1, 3)]] * 3))
    assert torch.equal(swap(swap(pattern)), pattern)


def test_one_place_by_two_names_changes_nothing(model):
    prompts = made(model)
    plain = model.run(prompts, edit={"L*.pattern": lambda x: x}).logits
    for behind in (0, 1):
        swap = swap_attention(prompts, "one", "one", behind=behind)
        assert torch.equal(model.run(prompts, edit={"L*.pattern": swap}).logits, plain)


def test_earlier_positions_see_nothing_of_it(model):
    prompts = made(model)
    plain, run = model.run(prompts), model.run(
        prompts, edit={"L*.pattern": swap_attention(prompts, "one", "two")}
    )  # fmt: skip
    for row, end in enumerate(prompts.answer_column.tolist()):
        assert torch.allclose(run.logits[row, :end], plain.logits[row, :end], atol=1e-6)
        assert not torch.allclose(run.logits[row, end], plain.logits[row, end], atol=1e-4)


@pytest.mark.parametrize(
    ("second", "behind"), [("two", 2), ("two", -1), ("END", 1), (2, 1)]
)  # the second and third prompts' places lie two apart, "END" has nothing behind, and 2 is next to "one"
def test_places_that_overlap_or_reach_beyond_the_end_are_refused(model, second, behind):
    with pytest.raises(RunError, match=rf"behind={behind}: 'one' and .* Take fewer"):
        swap_attention(made(model), "one", second, behind=behind)


@pytest.mark.bad_input
def test_unknown_places_and_other_tensors_are_refused(model):
    prompts = made(model)
    with pytest.raises(PromptError, match="no position is called 'three'"):
        swap_attention(prompts, "one", "three")
    swap = swap_attention(prompts, "one", "two")
    with pytest.raises(
        RunError, match="made for the patterns of 3 prompts, and was given a run of 2"
    ):
        model.run(prompts.subset([0, 1]), edit={"L0.pattern": swap})
    with pytest.raises(RunError, match=r"given a tensor of shape \[3, 32\]"):
        model.run(prompts, edit={"L0.resid_pre@END": swap})
    with pytest.raises(RunError, match="Use it at 'L2.H3.pattern'"):  # two of its entries else
        model.run(prompts, edit={"L0.resid_pre": swap})
