"""Documents as tokens, several at a time, from any cursor on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Integer

from interp.corpora.corpus import Corpus, Document, chain, weight
from interp.corpora.packed import Cursor
from interp.errors import CorpusError, PromptError
from interp.tokens import Tokenization

__all__ = ["Encoded", "encoded"]

#: A group that is tokenised in one call: so many documents, or so many bytes.
DOCUMENTS, BYTES = 256, 2**20


@dataclass(frozen=True, eq=False)
class _Read:
    """A document, its number, and the chain before and after it."""

    number: int
    document: Document
    before: str
    after: str


@dataclass(frozen=True, eq=False)
class Encoded:
    """One document as tokens.

    Attributes:
        number: its number in the corpus.
        ids: its tokens, its BOS included; none if it is empty.
        offset: the first token that is wanted.
        bos: what every later piece of it gets in front, None for nothing.
        before: the chain over all documents before it.
        after: the chain over it too.
    """

    number: int
    ids: Integer[np.ndarray, " token"]
    offset: int
    bos: int | None
    before: str
    after: str

    def at(self, offset: int) -> Cursor:
        """The cursor of one of its tokens."""
        return Cursor(self.number, offset, self.after if offset else self.before)

    @property
    def next(self) -> Cursor:
        """The cursor behind it."""
        return Cursor(self.number + 1, 0, self.after)


def encoded(
    corpus: Corpus, tokens: Tokenization, bos: bool | None, start: Cursor
) -> Iterator[Encoded]:
    """The documents of a corpus as tokens, from a cursor on; those before it are only hashed.

    Text is tokenised as ``tokens.encode(text, bos=bos)`` does, but never refused for its length.
    Token ids are taken as they are; only ``bos=True`` puts a BOS before them.

    Raises:
        CorpusError: the documents before ``start`` are not those that its chain was made of; a
            document that this tokenizer cannot read, or ids of another vocabulary, with its number.
    """
    for group in _groups(_from(corpus, start)):
        for read, ids in zip(group, _ids(group, tokens, bos), strict=True):
            later = tokens.bos_id if bos is not False and len(ids) else None
            yield Encoded(
                number=read.number,
                ids=ids,
                offset=start.offset if read.number == start.document else 0,
                bos=later if later is not None and int(ids[0]) == later else None,
                before=read.before,
                after=read.after,
            )


def _from(corpus: Corpus, start: Cursor) -> Iterator[_Read]:
    """The documents from a cursor on, once those before it have been recognised."""
    before, number = "", -1
    for number, document in enumerate(corpus.documents()):
        if number == start.document:
            _recognise(corpus, start, before if not start.offset else None)
        try:
            after = chain(before, document)
        except CorpusError as error:
            raise CorpusError(f"document {number}: {error}") from None
        if number == start.document and start.offset:
            _recognise(corpus, start, after)
        if number >= start.document:
            yield _Read(number, document, before, after)
        before = after
    packed = start.document + bool(start.offset)
    if number + 1 < packed:
        raise CorpusError(
            f"the corpus {corpus.name!r} is not the one that was packed so far: it ends after "
            f"{number + 1} documents, and {packed} were packed. Pass the same documents, or begin anew."
        )
    if number + 1 == start.document:
        _recognise(corpus, start, before)


def _recognise(corpus: Corpus, start: Cursor, found: str | None) -> None:
    """Compare the chain so far with the cursor's (None: nothing to compare yet)."""
    if found is not None and found != start.chain:
        n = start.document + bool(start.offset)
        raise CorpusError(
            f"the corpus {corpus.name!r} is not the one that was packed so far: its first {n} "
            "documents differ. Pass the same documents in the same order, or begin anew."
        )


def _groups(reads: Iterator[_Read]) -> Iterator[list[_Read]]:
    """Documents that are tokenised together."""
    group: list[_Read] = []
    size = 0
    for read in reads:
        group.append(read)
        size += weight(read.document)
        if len(group) == DOCUMENTS or size >= BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _ids(
    group: list[_Read], tokens: Tokenization, bos: bool | None
) -> Iterator[Integer[np.ndarray, " token"]]:
    """The token ids of some documents."""
    texts = [read for read in group if isinstance(read.document, str)]
    rows = iter(_tokenised(texts, tokens, bos))
    for read in group:
        ids = read.document
        if isinstance(ids, str):
            ids = np.asarray(next(rows), dtype=np.int64)
        elif bos and len(ids) and ids[0] != tokens.bos_id:
            ids = np.concatenate([[tokens.bos_id], ids]).astype(np.int64)
        _check_vocabulary(read.number, ids, tokens)
        yield ids


def _tokenised(texts: list[_Read], tokens: Tokenization, bos: bool | None) -> list[list[int]]:
    """Tokens of several texts; an error names the document that it is about."""
    if not texts:
        return []
    try:
        return tokens.encode_rows([str(read.document) for read in texts], bos=bos)
    except PromptError as error:
        for read in texts:
            try:
                tokens.encode_rows([str(read.document)], bos=bos)
            except PromptError as cause:
                raise CorpusError(f"document {read.number}: {cause}") from cause
        raise CorpusError(str(error)) from error


def _check_vocabulary(
    number: int, ids: Integer[np.ndarray, " token"], tokens: Tokenization
) -> None:
    if not len(ids):
        return
    least, greatest = int(ids.min()), int(ids.max())
    if least < 0 or greatest >= tokens.n_vocab:
        raise CorpusError(
            f"document {number} has token id {least if least < 0 else greatest}, outside the "
            f"vocabulary: expected 0 to {tokens.n_vocab - 1}. Were these tokens made by another "
            "tokenizer?"
        )
