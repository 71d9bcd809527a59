"""A corpus: documents in one fixed order, read from the first again whenever asked.

A document is text, or token ids that are taken as they are. Its *number* is its place in the
corpus, counted from 0; documents without tokens keep theirs, so a number always leads back to the
source.

A corpus is known in two ways. Its ``identity`` says what it was made of (names and sizes of files,
a data set's fingerprint, a hash of what lies in memory) and costs nothing to compare. The *chain*
is a running hash over the documents themselves::

    chain_0 = ""        chain_{i+1} = sha256(chain_i + document_i)

so whoever goes on in the middle of a corpus can tell that what lies before is what it was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Integer

from interp.errors import CorpusError

__all__ = ["Corpus", "Document", "chain", "weight"]

#: Text, or token ids that are taken as they are.
Document = str | Integer[np.ndarray, " _token"]

_AT_ONCE = 1 << 20  # ids hashed at a time, so that a memory map is never read whole


def _unknown() -> float | None:
    return None


@dataclass(frozen=True, eq=False, repr=False)
class Corpus:
    """Documents in a fixed order. Made by :func:`interp.corpora.read`.

    Attributes:
        name: for people.
        identity: what it is made of, as JSON, the same on every machine.
        n_documents: how many there are, None if nobody knows before the end.
        source: opens it: an iterator over all documents, from the first.
        size: its whole :func:`weight` as far as that is known without reading everything.
    """

    name: str
    identity: Mapping[str, Any]
    n_documents: int | None
    source: Callable[[], Iterator[Document]]
    size: Callable[[], float | None] = _unknown

    def __repr__(self) -> str:
        n = "documents" if self.n_documents is None else f"{self.n_documents} documents"
        return f"Corpus({self.name!r}, {n})"

    def documents(self) -> Iterator[Document]:
        """All documents, from the first.

        Raises:
            CorpusError: it can be read once only, and has been; or, on the way, a document that
                cannot be read, with its file and line or its number.
        """
        return self.source()

    def estimate(self) -> float | None:
        """About how much text there is, in bytes of UTF-8 (a token id counts as 4); None if nobody
        knows before the end."""
        return self.size()


def chain(before: str, document: Document) -> str:
    """The running hash over the documents so far and this one.

    Text counts as UTF-8 and token ids as 64-bit integers, whatever type holds them.

    >>> chain("", "one") == chain("", "two")
    False
    >>> chain("", np.array([1, 2], dtype=np.uint16)) == chain("", np.array([1, 2]))
    True

    Raises:
        CorpusError: text that no encoding can write (half of a surrogate pair).
    """
    digest = hashlib.sha256(bytes.fromhex(before))
    if isinstance(document, str):
        try:
            digest.update(b"text" + document.encode())
        except UnicodeEncodeError as error:
            raise CorpusError(
                f"{document[:40]!r} holds {document[error.start]!r} at character {error.start}, half "
                "of a surrogate pair; expected text that UTF-8 can write. Repair it, as with "
                "text.encode('utf-8', 'replace').decode()."
            ) from None
        return digest.hexdigest()
    digest.update(b"ids")
    for start in range(0, len(document), _AT_ONCE):
        digest.update(document[start : start + _AT_ONCE].astype("<i8").tobytes())
    return digest.hexdigest()


def weight(document: Document) -> int:
    """How much a document counts in estimates: its bytes as UTF-8, or 4 for each token id."""
    return (
        len(document.encode(errors="replace")) if isinstance(document, str) else 4 * len(document)
    )
