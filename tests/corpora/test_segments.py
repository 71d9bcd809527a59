"""Packed rows: every text as if it stood in a row of its own."""

from __future__ import annotations

import pytest
import torch

import interp
from interp.corpora import Packing, demo, pack
from interp.errors import PromptError, RunError
from interp.token_batch import TokenBatch
from tests import tiny

#: Families that build ALiBi from the padding, and take no mask of who may attend to whom.
ALIBI = ("bloom", "falcon-sequential")
ALL = (*tiny.REGISTRY, *tiny.OWN_ATTENTION, *tiny.FALCONS)
WHOLE = tuple(family for family in ALL if family not in ALIBI)


def packed(rows: list[list[torch.Tensor]]) -> TokenBatch:
    """Each list of texts in one row, padded on the right."""
    width = max(sum(map(len, texts)) for texts in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    segments = torch.full_like(ids, -1)
    for row, texts in enumerate(rows):
        ids[row, : sum(map(len, texts))] = torch.cat(texts)
        numbers = torch.arange(len(texts)).repeat_interleave(torch.tensor([len(t) for t in texts]))
        segments[row, : len(numbers)] = numbers
    return TokenBatch(ids, segments >= 0, segments)


def difference(model, rows: list[list[torch.Tensor]], *, site: str = "resid_post") -> float:
    """Greatest difference from each text alone, as a share of the largest activation."""
    batch, site = packed(rows), f"L{model.n_layers - 1}.{site}"
    together = model.run(batch, save=site).cache[site]
    worst = 0.0
    for row, texts in enumerate(rows):
        for number, text in enumerate(texts):
            alone = model.run(text[None], save=site).cache[site][0]
            found = together[row, batch.segments[row] == number]
            worst = max(worst, float((found - alone).abs().max() / alone.abs().max()))
    return worst


def texts(*lengths: int) -> list[torch.Tensor]:
    return [tiny.tokens(1, n, seed=n)[0] for n in lengths]


def test_masks_and_positions_of_packed_rows():
    batch = packed([[torch.tensor([5, 6]), torch.tensor([7, 8, 9])], [torch.tensor([4])]])
    assert batch.position_ids().tolist() == [[0, 1, 0, 1, 2], [0, 0, 0, 0, 0]]
    allowed = batch.may_attend()
    assert allowed[0].int().tolist() == [
        [1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 1, 1, 0], [0, 0, 1, 1, 1],
    ]  # fmt: skip
    assert allowed.diagonal(dim1=1, dim2=2).all()  # padding too: no row of scores is empty
    assert not allowed[1, 1:, 0].any()
    assert not allowed.triu(1).any()
    assert repr(batch) == "TokenBatch(2 × 5 tokens, padded, packed)"
    assert batch.rows([1]).segments.tolist() == [[0, -1, -1, -1, -1]]


@pytest.mark.bad_input
def test_segments_of_another_shape_and_continuations_are_refused():
    ids = torch.ones(1, 3, dtype=torch.long)
    with pytest.raises(PromptError, match=r"segments have shape \[1, 2\], expected \[1, 3\]"):
        TokenBatch(ids, ids.bool(), ids[:, :2])
    with pytest.raises(PromptError, match="packed into cannot be continued"):
        TokenBatch(ids, ids.bool(), ids).left_padded()


@pytest.mark.parametrize("family", WHOLE)
def test_texts_in_one_row_do_not_see_each_other(family):
    """Also where layers have a window of 4 or 5 tokens: Mistral's all, Gemma's every other."""
    model = interp.load(tiny.shared(family), check=False)
    rows = [texts(3, 9, 4), texts(12, 2)]
    assert difference(model, rows) < 1e-5
    # The comparison can fail: without segments the second text sees the first.
    batch, site = packed(rows), "L0.resid_post"
    joined = model.run(TokenBatch(batch.ids, batch.mask), save=site).cache[site]
    apart = model.run(batch, save=site).cache[site]
    assert (joined - apart)[0, 3:12].abs().max() > 1e-2


@pytest.mark.parametrize("family", ALIBI)
def test_alibi_takes_no_packed_rows(family):
    """Their own code makes positions of a mask of padding."""
    model = interp.load(tiny.shared(family), check=False)
    with pytest.raises(RunError, match="counts positions by ALiBi.*a row of its own"):
        difference(model, [texts(3, 2), texts(4, 1)])


def test_a_packed_corpus_gives_the_demo_model_each_document_as_it_is():
    model = interp.load("demo", check=False)
    corpus = demo(24)
    encoded = model.tokens.encode_rows(list(corpus.documents()))
    sites = ["L0.attn_out", "L3.resid_post", "L3.z"]
    for way in ("isolated", "padded"):
        seen = 0
        for batch in pack(corpus, model.tokens, Packing(context=96, rows=4, way=way)):
            run = model.run(batch.tokens, save=[*sites, "L3.pattern"])
            for number in batch.document[batch.document >= 0].unique().tolist():
                here = batch.document == number
                whole = batch.tokens.ids[here]
                if whole.tolist() != encoded[number]:
                    continue  # cut into pieces
                alone = model.run(whole[None], save=sites)
                for site in sites:
                    torch.testing.assert_close(
                        run.cache[site][here], alone.cache[site][0], rtol=0, atol=2e-5
                    )
                seen += 1
        assert seen > 10


def test_logits_of_packed_rows_are_those_of_each_text():
    model = interp.load("demo", check=False)
    first, second = (
        model.batch(text).ids[0]
        for text in ("The capital of France is", "The capital of Japan is Tokyo")
    )
    batch = packed([[first, second]])
    logits = model.run(batch).logits[0]
    for text, rows in ((first, logits[: len(first)]), (second, logits[len(first) :])):
        torch.testing.assert_close(rows, model.run(text[None]).logits[0], rtol=0, atol=1e-4)
    assert model.to_string(logits[[len(first) - 1]].argmax(-1)) == "Paris"
