"""The demo corpus: documents written from ``data/`` by rules, for work without a network.

Most documents are a few sentences of the kinds that the demo model was trained on: facts, two
people and a gift, spans of years, questions with lettered options, filler. The others hold spans of
random words, each written two or three times over, where only copying predicts what comes next.

Document ``i`` is a function of the seed and ``i`` alone. No fact that is held out of training is
stated, so what is learned from this corpus can still be tested on those.
"""

from __future__ import annotations

import functools
import hashlib
import random
from collections.abc import Iterator

from interp.corpora.corpus import Corpus
from interp.corpora.sentences import TABLES, sentence, words
from interp.errors import CorpusError
from interp.paths import data_dir

__all__ = ["N_DOCUMENTS", "demo", "written"]

#: Documents of the demo corpus unless told otherwise; about two million tokens.
N_DOCUMENTS = 21_000

#: Raised whenever a document of a given seed and number comes out differently.
VERSION = 1
REPEATS = 0.2  # share of documents that hold repeated spans of words
SENTENCES = (3, 12)  # fewest and most sentences of a document
SPAN = (4, 30)  # fewest and most words of a repeated span
KINDS = {"facts": 0.35, "ioi": 0.2, "greater_than": 0.12, "mcq": 0.2, "filler": 0.13}


def demo(n_documents: int = N_DOCUMENTS, *, seed: int = 0) -> Corpus:
    """Documents in the demo model's vocabulary, written by rules from ``data/``.

    Args:
        n_documents: how many; about 95 tokens each.
        seed: which ones. More documents of one seed begin with the same ones.

    Raises:
        CorpusError: fewer than one.
    """
    if n_documents < 1:
        raise CorpusError(f"n_documents={n_documents}; expected at least 1.")

    def documents() -> Iterator[str]:
        return (written(seed, number) for number in range(n_documents))

    return Corpus(
        name=f"demo (seed {seed}, {n_documents} documents)",
        identity={
            "kind": "demo",
            "documents": n_documents,
            "seed": seed,
            "data": _data_hash(),
            "version": VERSION,
        },
        n_documents=n_documents,
        source=documents,
    )


def written(seed: int, number: int) -> str:
    """One document of the demo corpus."""
    source = random.Random(f"corpus/{seed}/{number}")
    if source.random() < REPEATS:
        span = source.choices(words(), k=source.randint(*SPAN))
        return " ".join(span * source.randint(2, 3))
    count = source.randint(*SENTENCES)
    written = (
        sentence(source, KINDS, options=(2, 3, 4), capital=0.45, reverse=0.1) for _ in range(count)
    )
    return " ".join(f"{one}." for one in written)


@functools.cache
def _data_hash() -> str:
    """sha256 over the tables that documents are written from."""
    folder, digest = data_dir() / "prompts", hashlib.sha256()
    for name in ("countries.csv", *(f"{table}.json" for table in TABLES)):
        digest.update(name.encode() + (folder / name).read_bytes())
    return digest.hexdigest()
