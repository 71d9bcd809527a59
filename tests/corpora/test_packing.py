"""Packing: every token once, at the right place, and the same batches from any cursor on."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from interp.corpora import Cursor, Packing, forecast, pack, read
from interp.corpora.corpus import chain
from interp.errors import CorpusError
from interp.tokens import Tokenization
from tests.conftest import SENTENCES

WAYS = ("isolated", "padded", "joined")
WORDS = sorted({word for text in SENTENCES for word in text.replace(",", "").split()})


@pytest.fixture(scope="module")
def tokens(llama_like_tokenizer):
    return Tokenization(llama_like_tokenizer, n_vocab=len(llama_like_tokenizer), n_ctx=512)


@pytest.fixture(scope="module")
def without_bos(word_tokenizer):
    return Tokenization(word_tokenizer, n_vocab=len(word_tokenizer))


def documents(seed: int, n: int = 14) -> list:
    """Texts of many lengths, some empty, and some documents that are token ids already."""
    draw = random.Random(seed)
    found: list = []
    for _ in range(n):
        length = draw.choice([0, 1, 2, 5, 9, 20, 60])
        if draw.random() < 0.3:
            found.append(np.array([draw.randrange(3, 20) for _ in range(length)], dtype=np.uint16))
        else:
            found.append(" ".join(draw.choices(WORDS, k=length)))
    return [*found, "Paris"]


def expected(tokens, document, bos) -> list[int]:
    """A document's tokens, one document at a time."""
    if isinstance(document, str):
        return tokens.encode(document, bos=bos).ids[0].tolist() if document else []
    ids = document.tolist()
    return [tokens.bos_id, *ids] if bos and ids and ids[0] != tokens.bos_id else ids


def same(a, b) -> bool:
    pairs = [(x.tokens.ids, y.tokens.ids) for x, y in zip(a, b, strict=True)]
    pairs += [(getattr(x, name), getattr(y, name)) for x, y in zip(a, b, strict=True)
              for name in ("document", "position", "keep")]  # fmt: skip
    pairs += [(x.tokens.mask, y.tokens.mask) for x, y in zip(a, b, strict=True)]
    segments = [(x.tokens.segments, y.tokens.segments) for x, y in zip(a, b, strict=True)]
    return (
        all(torch.equal(x, y) for x, y in pairs)
        and all((x is None) == (y is None) for x, y in segments)
        and all(x is None or torch.equal(x, y) for x, y in segments)
        and [x.end for x in a] == [x.end for x in b]
    )


CASES = [(way, bos, context, rows) for way in WAYS for bos in (None, True, False)
         for context, rows in ((2, 3), (7, 2), (24, 4))]  # fmt: skip


@pytest.mark.parametrize(("way", "bos", "context", "rows"), CASES)
def test_every_token_stands_once_at_its_place(tokens, way, bos, context, rows):
    how = Packing(context=context, rows=rows, way=way, bos=bos)
    given = documents(seed=context)
    found: dict[tuple[int, int], int] = {}
    for batch in pack(read(given), tokens, how, pad_id=7):
        ids, mask = batch.tokens.ids, batch.tokens.mask
        assert ids.shape[0] <= rows
        assert ids.shape[1] <= context
        assert mask.any(-1).all()  # no row is empty
        assert (ids[~mask] == 7).all()
        assert (batch.document[~mask] == -1).all()
        assert (batch.position[~mask] == -1).all()
        assert (batch.document[mask] >= 0).all()
        assert not batch.keep[~mask].any()
        extra = mask & (batch.position == -1)
        assert (ids[extra] == tokens.bos_id).all()
        assert torch.equal(batch.keep, mask & (ids != tokens.bos_id))
        for n, position, token in zip(
            *(x[mask & ~extra].tolist() for x in (batch.document, batch.position, ids)), strict=True
        ):
            assert (n, position) not in found
            found[n, position] = token
    want = {
        (n, position): token
        for n, document in enumerate(given)
        for position, token in enumerate(expected(tokens, document, bos))
    }
    assert found == want


@pytest.mark.parametrize(("way", "bos", "context", "rows"), CASES)
def test_going_on_from_any_cursor_gives_the_batches_that_follow(tokens, way, bos, context, rows):
    how = Packing(context=context, rows=rows, way=way, bos=bos)
    corpus = read(documents(seed=context + 1))
    batches = list(pack(corpus, tokens, how))
    assert batches[-1].end.document == corpus.n_documents
    assert batches[-1].end.offset == 0
    for n, batch in enumerate(batches):
        assert same(list(pack(corpus, tokens, how, start=batch.end)), batches[n + 1 :])


def test_cursors_hold_the_chain_over_what_was_read(tokens):
    given = documents(seed=3)
    for batch in pack(read(given), tokens, Packing(context=9, rows=2)):
        hashed = ""
        for document in given[: batch.end.document + bool(batch.end.offset)]:
            hashed = chain(hashed, document)
        assert batch.end.chain == hashed


def test_isolated_pieces_share_rows_but_not_segments(tokens):
    paris = "Paris Tokyo"  # 3 tokens with its BOS, the last with a space
    n = len(expected(tokens, paris, None))
    batch = next(pack(read([paris] * 5), tokens, Packing(context=3 * n + 1, rows=2)))
    assert batch.tokens.ids.shape == (2, min(3 * n + 1, -(-3 * n // 8) * 8))
    assert batch.tokens.segments[0].tolist()[: 3 * n] == [0] * n + [1] * n + [2] * n
    assert (batch.tokens.segments[0][3 * n :] == -1).all()
    assert batch.document[1].tolist()[: 2 * n] == [3] * n + [4] * n
    assert batch.tokens.position_ids()[0].tolist()[: 3 * n] == [*range(n)] * 3


def test_first_fit_fills_the_first_row_with_room(tokens):
    rows = [np.full(n, 5) for n in (5, 5, 3, 2, 1, 4)]
    (batch, last) = pack(read(rows), tokens, Packing(context=8, rows=2))
    assert batch.document.tolist() == [[0] * 5 + [2] * 3, [1] * 5 + [3, 3, 4]]
    assert last.document.tolist() == [[5] * 4 + [-1] * 4]
    assert last.tokens.segments is None  # nothing is shared


def test_later_pieces_begin_with_a_bos_where_the_document_does(tokens):
    text = " ".join(WORDS[:20])
    whole = expected(tokens, text, None)
    rows = torch.cat([b.tokens.ids for b in pack(read([text]), tokens, Packing(context=8, rows=1))
                      if b.tokens.ids.shape[1] == 8])  # fmt: skip
    assert (rows[:, 0] == tokens.bos_id).all()
    assert rows[0].tolist() == whole[:8]
    assert rows[1].tolist() == [tokens.bos_id, *whole[8:15]]
    ids = np.array(whole[1:])  # no BOS of its own: taken as it is
    rows = [b.tokens.ids[0].tolist() for b in pack(read([ids]), tokens, Packing(context=8, rows=1))]
    assert rows[1] == whole[9:17]


def test_joined_rows_are_full_and_begin_with_bos(tokens):
    texts = [" ".join(WORDS[:n]) for n in (5, 9, 2, 14)]
    stream = [i for text in texts for i in expected(tokens, text, None)]
    batches = list(pack(read(texts), tokens, Packing(context=8, rows=2, way="joined")))
    assert all(batch.tokens.segments is None for batch in batches)
    assert all(batch.tokens.mask[:-1].all() for batch in batches)
    rows = [
        row[mask] for b in batches for row, mask in zip(b.tokens.ids, b.tokens.mask, strict=True)
    ]
    assert all(row[0] == tokens.bos_id for row in rows)
    assert all(len(row) == 8 for row in rows[:-1])
    own = [i for b in batches for i in b.tokens.ids[b.tokens.mask & (b.position >= 0)].tolist()]
    assert own == stream


def test_padded_rows_hold_a_piece_each(tokens):
    batch = next(pack(read(["Paris", "Paris Tokyo Lima"]), tokens, Packing(way="padded")))
    assert batch.tokens.segments is None
    assert batch.document[:, 0].tolist() == [0, 1]
    assert batch.tokens.ids.shape[1] == len(expected(tokens, "Paris Tokyo Lima", None))


def test_special_tokens_are_kept_if_asked_for(tokens):
    text = "Paris</s>Tokyo"
    plain, special = (next(pack(read([text]), tokens, Packing(special=s))) for s in (False, True))
    assert special.n_kept == plain.n_kept + 2  # BOS and EOS
    assert torch.equal(special.keep, special.tokens.mask)


def test_a_tokenizer_without_bos_adds_none(without_bos):
    text = " ".join(WORDS[:12])
    batches = list(pack(read([text]), without_bos, Packing(context=5, rows=1)))
    assert [i for b in batches for i in b.tokens.ids[b.tokens.mask].tolist()] == expected(
        without_bos, text, None
    )
    assert all((b.position[b.tokens.mask] >= 0).all() for b in batches)


def test_token_ids_need_no_tokenizer():
    tokens = Tokenization(None, n_vocab=50)
    (batch,) = pack(read(np.arange(40).reshape(4, 10)), tokens, Packing(way="padded"))
    assert torch.equal(batch.tokens.ids, torch.arange(40).reshape(4, 10))
    assert batch.keep.all()


def test_other_documents_before_the_cursor_are_refused(tokens):
    given = documents(seed=5)
    how = Packing(context=9, rows=2)
    batches = list(pack(read(given), tokens, how))
    end = batches[3].end
    message = rf"not the one that was packed so far: its first {end.document + bool(end.offset)} documents differ"
    with pytest.raises(CorpusError, match=message):
        list(pack(read(["other", *given[1:]]), tokens, how, start=end))
    with pytest.raises(CorpusError, match="ends after 1 documents, and"):
        list(pack(read(given[:1]), tokens, how, start=end))
    last = batches[-1].end
    with pytest.raises(CorpusError, match="documents differ"):
        list(pack(read(["other", *given[1:]]), tokens, how, start=last))
    with pytest.raises(CorpusError, match=f"ends after {len(given) - 1} documents"):
        list(pack(read(given[:-1]), tokens, how, start=last))
    assert list(pack(read(given), tokens, how, start=last)) == []
    inside = next(b.end for b in batches if b.end.offset)  # a change after the cursor is none
    changed = [*given[: inside.document], "x", *given[inside.document + 1 :]]
    with pytest.raises(CorpusError, match="documents differ"):
        list(pack(read(changed), tokens, how, start=inside))


def test_documents_that_cannot_be_read_are_named_by_number(tokens, without_bos):
    with pytest.raises(CorpusError, match="document 2 has token id 999, outside the vocabulary"):
        list(pack(read(["Paris", "Lima", [4, 999]]), tokens, Packing()))
    with pytest.raises(CorpusError, match=r"document 1: 'Paris Rome' has a word that is not in"):
        list(pack(read(["Paris", "Paris Rome"]), without_bos, Packing()))
    with pytest.raises(CorpusError, match="document 1: .*half of a surrogate pair"):
        list(pack(read(iter(["Paris", "Li\ud800ma"])), tokens, Packing()))
    with pytest.raises(CorpusError, match="document 0: text input needs a tokenizer"):
        list(pack(read(["Paris"]), Tokenization(None, n_vocab=9), Packing()))


@pytest.mark.bad_input
def test_packings_that_cannot_be_are_refused(tokens, without_bos):
    for options, message in (
        ({"context": 1}, "context=1; expected at least 2"),
        ({"rows": 0}, "0 rows in a batch; expected at least 1"),
        ({"way": "tight"}, "way='tight'; expected 'isolated', 'padded' or 'joined'"),
    ):
        with pytest.raises(CorpusError, match=message):
            Packing(**options)
    with pytest.raises(CorpusError, match="the model reads at most 512 tokens: choose context=512"):
        pack(read(["Paris"]), tokens, Packing(context=513))
    with pytest.raises(CorpusError, match="bos=True, but the tokenizer has no BOS"):
        pack(read(["Paris"]), without_bos, Packing(bos=True))
    with pytest.raises(CorpusError, match="has no tokens; expected some text"):
        list(pack(read(["", ""]), tokens, Packing()))


def test_a_small_corpus_is_counted_and_a_large_one_told_from_its_beginning(tokens):
    given = documents(seed=8)
    for way in WAYS:
        how = Packing(context=9, rows=2, way=way)
        batches = list(pack(read(given), tokens, how))
        kept = sum(b.n_kept for b in batches)
        forwarded = sum(int(b.tokens.n_real.sum()) for b in batches)
        counted = forecast(read(given), tokens, how)
        assert (counted.kept, counted.forwarded, counted.exact) == (kept, forwarded, True)
    many = read([SENTENCES[i % 4] for i in range(400)])
    exact, told = (forecast(many, tokens, Packing(), sample=n) for n in (10**6, 2000))
    assert not told.exact
    assert told.kept == pytest.approx(exact.kept, rel=0.05)
    assert told.forwarded == pytest.approx(exact.forwarded, rel=0.05)
    long = read([" ".join(SENTENCES * 100), np.full(10**5, 5)])
    exact, told = (forecast(long, tokens, Packing(), sample=n) for n in (10**6, 3000))
    assert not told.exact
    assert exact.exact
    ids = read(np.full((1, 10**5), 5))
    assert forecast(ids, tokens, Packing(), sample=4000).kept == pytest.approx(10**5, rel=0.01)
    assert forecast(read(iter(SENTENCES)), tokens, Packing()).kept is None


def test_a_cursor_at_the_beginning_is_the_default(tokens):
    corpus = read(documents(seed=2))
    assert same(
        list(pack(corpus, tokens, Packing())), list(pack(corpus, tokens, Packing(), start=Cursor()))
    )
