"""How many tokens a corpus will have, told from its beginning."""

from __future__ import annotations

from dataclasses import dataclass

from interp.corpora.corpus import Corpus, Document, weight
from interp.corpora.packing import Packing, pack
from interp.tokens import Tokenization

__all__ = ["Forecast", "forecast"]


@dataclass(frozen=True)
class Forecast:
    """Tokens of a whole corpus.

    Attributes:
        kept: tokens whose activations are kept; None if nobody knows.
        forwarded: tokens that go through the model, every BOS included.
        exact: counted, not told from a part.
    """

    kept: int | None
    forwarded: int | None
    exact: bool


def forecast(
    corpus: Corpus, tokens: Tokenization, how: Packing, *, sample: int = 2**19
) -> Forecast:
    """Count the tokens of a small corpus; for a larger one, extrapolate from its first documents.

    Args:
        corpus: read up to the sample, and not at all where its size is unknown.
        tokens: the model's tokenizer.
        how: the packing that is meant.
        sample: bytes of text to pack (a token id counts as 4); a corpus that ends before is
            counted exactly.

    Returns:
        Extrapolated by bytes where the corpus knows its size, else by documents. Documents that
        are unlike the first ones make it wrong.

    Raises:
        CorpusError: a document that cannot be read.
    """
    whole = corpus.estimate()
    if whole is None and corpus.n_documents is None:
        return Forecast(None, None, False)
    first: list[Document] = []
    size, exact = 0, True
    for document in corpus.documents():
        if size >= sample:
            exact = False
            break
        first.append(document)
        size += weight(document)
    part = Corpus(corpus.name, corpus.identity, len(first), lambda: iter(first))
    kept = forwarded = 0
    for batch in pack(part, tokens, how):
        kept += batch.n_kept
        forwarded += int(batch.tokens.n_real.sum())
    if exact:
        return Forecast(kept, forwarded, True)
    times = whole / size if whole is not None else (corpus.n_documents or 0) / len(first)
    return Forecast(round(kept * times), round(forwarded * times), False)
