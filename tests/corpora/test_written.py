"""The demo corpus: a function of seed and number, in the demo's words, with nothing held out."""

from __future__ import annotations

from itertools import islice

import pytest

from interp.corpora import Packing, demo, pack
from interp.corpora.corpus import chain
from interp.corpora.sentences import words
from interp.corpora.written import written
from interp.demo.vocabulary import build_tokenizer, vocabulary
from interp.errors import CorpusError
from interp.prompts import facts
from interp.prompts.templates import fill
from interp.tokens import Tokenization


@pytest.fixture(scope="module")
def documents():
    return list(demo(800).documents())


@pytest.fixture(scope="module")
def tokens():
    tokenizer = build_tokenizer(context=128)
    return Tokenization(tokenizer, n_vocab=len(tokenizer), n_ctx=128)


def test_a_document_depends_on_seed_and_number_alone(documents):
    assert documents[17] == written(0, 17)
    assert list(demo(20).documents()) == documents[:20]
    assert list(islice(demo(seed=1).documents(), 3)) != documents[:3]
    assert demo(20).identity != demo(21).identity
    assert demo(20).identity["seed"] == 0


def test_the_first_documents_never_change(documents):
    """Whoever changes what is written raises VERSION, and this hash."""
    hashed = ""
    for document in documents[:100]:
        hashed = chain(hashed, document)
    assert hashed == "ba92067131a35ad62fa303e31fa72ca0fdf38a5fc22794bdd2710462fc34e83d"


def test_every_word_is_one_known_token(documents, tokens):
    rows = tokens.encode_rows(documents)
    assert tokens.tokenizer.unk_token_id not in {i for row in rows for i in row}
    known = set(vocabulary())
    assert all("▁" + word in known for word in words())
    repeats = [i for i, text in enumerate(documents) if "." not in text]
    assert 0.14 < len(repeats) / len(documents) < 0.26
    for i in repeats:
        n = len(documents[i].split())
        row = rows[i][1:]
        assert len(row) == n
        assert any(n % k == 0 and row[: n // k] * k == row for k in (2, 3))


def test_nothing_held_out_is_stated(documents):
    text = " ".join(documents)
    for name in facts.relation_names():
        relation = facts.relation(name)
        for split in ("trained", "heldout"):
            stated = [
                fill(relation.templates[i], {"subject": c["country"], "object": c[name]})[0]
                for i, c in facts.cells(name, split)
            ]
            found = sum(one + "." in text for one in stated)
            assert found == 0 if split == "heldout" else found > 0


def test_the_default_has_about_two_million_tokens(documents, tokens):
    batches = list(pack(demo(len(documents)), tokens, Packing()))
    per_document = sum(b.n_kept for b in batches) / len(documents)
    n = demo().n_documents
    assert n is not None
    assert n * per_document == pytest.approx(2e6, rel=0.1)


def test_an_empty_demo_corpus_is_refused():
    with pytest.raises(CorpusError, match="n_documents=0; expected at least 1"):
        demo(0)
