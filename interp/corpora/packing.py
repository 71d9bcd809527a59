"""Packing: documents become batches of rows to run, always the same ones.

1. A document is tokenised, with a BOS once in front if the policy has one, and never truncated.
2. It is cut into pieces of at most ``context`` tokens. Models lean on a BOS at the beginning of
   what they read, so every later piece gets one of its own in front, where the document has one.
3. Pieces are laid into the rows of a batch, in the corpus's order:

   ========== ===================================================================================
   isolated   whole, into the first row with room; pieces of one row do not see each other
   padded     a row for each, with padding behind
   joined     end to end, cut where a row is full, so texts of one row see each other, as in
              SAELens and in most pre-training; a row that begins inside a document gets a BOS
   ========== ===================================================================================

4. A piece for which there is no room closes the batch and begins the next.

So a batch depends on the documents from its cursor on and on nothing else, and whoever goes on from
``batch.end`` gets exactly the batches that follow.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from interp.corpora.corpus import Corpus
from interp.corpora.encoding import Encoded, encoded
from interp.corpora.packed import Cursor, PackedBatch
from interp.errors import CorpusError
from interp.token_batch import TokenBatch
from interp.tokens import Tokenization

__all__ = ["Packing", "Way", "pack"]

Way = Literal["isolated", "padded", "joined"]
_WIDTH = 8  # rows of isolated pieces are as wide as a multiple of this


@dataclass(frozen=True)
class Packing:
    """How documents become batches of rows.

    Attributes:
        context: the longest row in tokens, its BOS included.
        rows: rows in a batch; the last one may have fewer.
        way: ``"isolated"``, ``"padded"`` or ``"joined"``, see :mod:`interp.corpora.packing`.
        bos: None prepends a BOS to texts if the tokenizer has one; True insists on it, also before
            token ids; False adds none anywhere.
        special: also keep the activations of special tokens (BOS, EOS, padding tokens in the
            text), which are unlike all others.

    Raises:
        CorpusError: a row without room for a token behind its BOS, no rows, another way.
    """

    context: int = 128
    rows: int = 16
    way: Way = "isolated"
    bos: bool | None = None
    special: bool = False

    def __post_init__(self) -> None:
        if self.context < 2:
            raise CorpusError(
                f"context={self.context}; expected at least 2, for a BOS and a token behind it."
            )
        if self.rows < 1:
            raise CorpusError(f"{self.rows} rows in a batch; expected at least 1.")
        if self.way not in ("isolated", "padded", "joined"):
            raise CorpusError(f"way={self.way!r}; expected 'isolated', 'padded' or 'joined'.")


def pack(
    corpus: Corpus,
    tokens: Tokenization,
    how: Packing,
    *,
    start: Cursor = Cursor(),  # noqa: B008 (frozen)
    pad_id: int = 0,
) -> Iterator[PackedBatch]:
    """The batches of a corpus, from a cursor on.

    Args:
        corpus: what to pack.
        tokens: the model's tokenizer; a model without one can run token ids.
        how: context, rows and policies.
        start: where an earlier packing of the same corpus stopped (``batch.end``). The documents
            before it are hashed to recognise the corpus, and not tokenised.
        pad_id: what stands at padding.

    Raises:
        CorpusError: rows longer than the model's context, no BOS where ``bos=True``, a corpus
            without tokens; and while it runs, a document that cannot be read, or a corpus whose
            documents before ``start`` are others.
    """
    if tokens.n_ctx is not None and how.context > tokens.n_ctx:
        raise CorpusError(
            f"context={how.context}, but the model reads at most {tokens.n_ctx} tokens: choose "
            f"context={tokens.n_ctx} or less."
        )
    if how.bos and tokens.bos_id is None:
        raise CorpusError(
            "bos=True, but the tokenizer has no BOS token. Leave bos=None, which adds one only where "
            "it exists."
        )
    return _pack(corpus, tokens, how, start, pad_id)


def _pack(
    corpus: Corpus, tokens: Tokenization, how: Packing, start: Cursor, pad_id: int
) -> Iterator[PackedBatch]:
    special = np.array([] if how.special else sorted(tokens.special_ids), dtype=np.int64)
    batch, end, found = _Open(how, pad_id), start, start != Cursor()
    for document in encoded(corpus, tokens, how.bos, start):
        offset, found = document.offset, found or len(document.ids) > 0
        while offset < len(document.ids):
            taken = batch.place(document, offset)
            if not taken:
                yield batch.close(document.at(offset), special)
                batch = _Open(how, pad_id)
            offset += taken
        end = document.next
    if not batch.empty:
        yield batch.close(end, special)
    if not found:
        raise CorpusError(f"the corpus {corpus.name!r} has no tokens; expected some text.")


class _Open:
    """The batch that is being filled."""

    def __init__(self, how: Packing, pad_id: int) -> None:
        shape = (how.rows, how.context)
        self._how = how
        self._ids = np.full(shape, pad_id, dtype=np.int64)
        self._document, self._position, self._segment = (
            np.full(shape, -1, dtype=np.int64) for _ in range(3)
        )
        self._fill = [0] * how.rows  # tokens in each row
        self._pieces = [0] * how.rows

    @property
    def empty(self) -> bool:
        return not self._fill[0]

    def place(self, document: Encoded, offset: int) -> int:
        """Lay down a document's next piece; how many of its tokens that took, 0 without room."""
        front = document.bos if offset else None
        left = len(document.ids) - offset
        row, room = self._room(left + (front is not None))
        if not room:
            return 0
        at = here = self._fill[row]
        if front is not None and not (self._how.way == "joined" and at):
            self._ids[row, at], here = front, at + 1
        taken = min(left, room - (here - at))
        end = here + taken
        self._ids[row, here:end] = document.ids[offset : offset + taken]
        self._position[row, here:end] = np.arange(offset, offset + taken)
        self._document[row, at:end] = document.number
        self._segment[row, at:end] = self._pieces[row]
        self._fill[row], self._pieces[row] = end, self._pieces[row] + 1
        return taken

    def _room(self, wanted: int) -> tuple[int, int]:
        """The first row with room for so many tokens, and how much that is; 0 where none has."""
        how = self._how
        least = 1 if how.way == "joined" else how.context if how.way == "padded" else wanted
        for row, fill in enumerate(self._fill):
            if how.context - fill >= min(least, how.context):
                return row, how.context - fill
        return 0, 0

    def close(self, end: Cursor, special: np.ndarray) -> PackedBatch:
        """The batch as it is, without rows that stayed empty and columns that are padding."""
        rows, width = sum(fill > 0 for fill in self._fill), max(self._fill)
        if self._how.way == "isolated":
            width = min(-(-width // _WIDTH) * _WIDTH, self._how.context)
        ids, document, position, segment = (
            torch.from_numpy(np.ascontiguousarray(array[:rows, :width]))
            for array in (self._ids, self._document, self._position, self._segment)
        )
        mask = document >= 0
        shared = self._how.way == "isolated" and max(self._pieces) > 1
        keep = mask & ~torch.isin(ids, torch.from_numpy(special))
        batch = TokenBatch(ids, mask, segment if shared else None)
        return PackedBatch(batch, document, position, keep, end)
