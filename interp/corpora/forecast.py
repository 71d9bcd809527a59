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
        filled: the share of the places that are run which hold a token; the others are padding.
    """

    kept: int | None
    forwarded: int | None
    exact: bool
    filled: float = 1.0


def forecast(
    corpus: Corpus, tokens: Tokenization, how: Packing, *, sample: int = 2**19
) -> Forecast:
    """Count the tokens of a small corpus; for a larger one, extrapolate from its beginning.

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
        CorpusError: a document that cannot be read, or none with any tokens.
    """
    whole = corpus.estimate()
    if whole is None and corpus.n_documents is None:
        return Forecast(None, None, False)
    first, share = _beginning(corpus, sample)
    part = Corpus(corpus.name, corpus.identity, len(first), lambda: iter(first))
    kept = forwarded = places = 0
    for batch in pack(part, tokens, how):
        kept += batch.n_kept
        forwarded += int(batch.tokens.n_real.sum())
        places += batch.keep.numel()
    filled = forwarded / places
    if share is None:
        return Forecast(kept, forwarded, True, filled)
    size = sum(map(weight, first))
    times = whole / size if whole is not None else (corpus.n_documents or 0) / share
    return Forecast(round(kept * times), round(forwarded * times), False, filled)


def _beginning(corpus: Corpus, sample: int) -> tuple[list[Document], float | None]:
    """The first documents, the last one cut if it is long; how many documents that is, None for
    all that there are."""
    first: list[Document] = []
    left, share = sample, 0.0
    for document in corpus.documents():
        if left <= 0:
            return first, share
        size = weight(document)
        if size > sample:
            document = _cut(document, left)
            first.append(document)
            return first, share + weight(document) / size
        first.append(document)
        left, share = left - size, share + 1
    return first, None


def _cut(document: Document, size: int) -> Document:
    """The first so many bytes of a document, at the end of a word."""
    if not isinstance(document, str):
        return document[: max(1, size // 4)]
    short = document[: max(1, size)]
    return short.rpartition(" ")[0] or short
