"""Keeping the best of few entries is keeping the best of all rows; chance is what it says."""

from dataclasses import fields

import pytest
import torch

from interp.inspection.control import by_chance, concentration
from interp.surveys.kept import Block, Kept
from tests.inspection.conftest import whole_rows


@pytest.mark.parametrize("per_document", [True, False])
def test_entries_are_kept_as_rows_are(gpt2, per_document):
    rows = whole_rows(gpt2)
    values = rows["L0.mlp.input"].relu()[:, :7] * (
        torch.arange(7) > 0
    )  # many equal; one never active
    kept = [Kept.empty(7, 5, 6, torch.device("cpu")) for _ in range(2)]
    start = 0
    for part in torch.arange(900).split([1, 250, 640, 9]):
        own = rows.take(part)
        block = Block(start, values[part], own.tokens, own.document, own.position)
        options = {"before": 3, "per_document": per_document}
        scores = block.values.masked_fill(block.values <= 0, -torch.inf)
        kept[0] = kept[0].with_rows(block, scores, 0, **options)
        row, unit = block.values.nonzero(as_tuple=True)
        shuffled = torch.randperm(len(row), generator=torch.Generator().manual_seed(0))
        row, unit = row[shuffled], unit[shuffled]
        kept[1] = kept[1].with_entries(block, row, unit, block.values[row, unit], **options)
        start += len(part)
    for field in fields(Kept):
        one, other = (getattr(k, field.name).nan_to_num(-1) for k in kept)
        assert torch.equal(one, other), field.name


def test_concentration():
    tokens = torch.tensor([[5, 5, 7, 5], [1, 2, 3, -1], [-1, -1, -1, -1]])
    share, token = concentration(tokens)
    assert share[:2].tolist() == pytest.approx([0.75, 1 / 3])
    assert bool(share[2].isnan())
    assert token.tolist() == [5, 1, -1]


def test_chance_is_that_of_the_corpus():
    drawn = by_chance(torch.tensor([1, 0, 1]), 2, draws=4000)
    assert drawn[0].tolist() == [1.0] * 4000
    assert float(drawn[1].mean()) == pytest.approx(0.75, abs=0.02)  # two coins: equal half the time
