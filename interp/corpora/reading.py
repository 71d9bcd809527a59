"""``interp.corpora.read``: a corpus from whatever holds documents."""

from __future__ import annotations

import hashlib
import numbers
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Integer
from torch import Tensor

from interp.corpora.corpus import Corpus, Document, chain, weight
from interp.corpora.files import Split, is_known, read_files
from interp.corpora.hub import is_dataset, read_dataset
from interp.corpora.records import FIELD, document_of
from interp.corpora.written import demo
from interp.errors import CorpusError
from interp.prompts.prompts import Prompts
from interp.token_batch import TokenBatch

__all__ = ["read"]

_AT_ONCE = 1 << 20  # ids of an array hashed at a time


def read(corpus: Any, *, field: str = FIELD, split: Split = "file", seed: int = 0) -> Corpus:
    """A corpus from files, texts, token ids, records, a stream or a Hugging Face data set.

    Nothing is read before it is needed, except that lists are looked through and hashed.

    ======================================  ====================================================
    ``"demo"``                              the corpus written from ``data/`` (:func:`demo`)
    a path, or several                      ``.txt .jsonl .json`` (also ``.gz``), ``.parquet
                                            .arrow .npy .safetensors``, or a folder of such
                                            files, in the order of their names
    a list of texts, records or id lists    as they are
    an array or tensor [row, pos]           a document for each row (or [pos]: one)
    ``TokenBatch``, ``Prompts``             their rows without padding; the clean prompts
    an iterator or generator                once; going on needs the same documents again
    another iterable, or a function         a stream that is begun anew whenever it is read
    that returns an iterator
    a ``datasets`` data set                 also a streamed one; for one split
    ======================================  ====================================================

    Args:
        corpus: one of these.
        field: the field (or column) that holds the text or the token ids of a record. Records
            without ``"text"`` may have ``"tokens"`` or ``"input_ids"`` in its place.
        split: what a document of a text file is: the whole ``"file"``, each ``"line"``, or each
            ``"paragraph"`` (lines up to a blank one).
        seed: of the demo corpus.

    Raises:
        CorpusError: something else, or nothing in it.

    >>> read(["one text", "another"])
    Corpus('2 documents', 2 documents)
    """
    if isinstance(corpus, Corpus):
        return corpus
    if isinstance(corpus, str | Path):
        return _named(corpus, field, split, seed)
    if isinstance(corpus, Prompts):
        return _listed(_rows(corpus.clean), field, name=corpus.name)
    if isinstance(corpus, TokenBatch):
        return _listed(_rows(corpus), field)
    if isinstance(corpus, Tensor):
        return _array(corpus.detach().cpu().numpy())
    if isinstance(corpus, np.ndarray) and corpus.dtype.kind not in "OUT":
        return _array(corpus)
    if is_dataset(corpus):
        return read_dataset(corpus, field)
    if isinstance(corpus, list | tuple | np.ndarray):
        return _sequence(list(corpus), field, split)
    _refuse(corpus)
    return _stream(corpus, field)


def _named(given: str | Path, field: str, split: Split, seed: int) -> Corpus:
    if given == "demo":
        return demo(seed=seed)
    path = Path(given).expanduser()
    if isinstance(given, str) and not is_known(given) and not _exists(path):
        raise CorpusError(
            f"{given[:60]!r} is neither 'demo' nor an existing file or folder. To read one text pass "
            "[text]; for a data set of the Hugging Face hub pass datasets.load_dataset(...)."
        )
    return read_files([path], field=field, split=split)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a text too long, or of characters that no path has
        return False


def _sequence(given: list[Any], field: str, split: Split) -> Corpus:
    """Paths, one row of ids, or documents."""
    if given and all(
        isinstance(one, Path) or (isinstance(one, str) and is_known(one)) for one in given
    ):
        return read_files([Path(one) for one in given], field=field, split=split)
    if given and all(
        isinstance(one, numbers.Integral) and not isinstance(one, bool) for one in given
    ):
        given = [given]
    return _listed(given, field)


def _listed(given: Sequence[Any], field: str, *, name: str | None = None) -> Corpus:
    """Documents that lie in memory."""
    documents = [
        document_of(one, field=field, where=f"document {i}") for i, one in enumerate(given)
    ]
    if not documents:
        raise CorpusError("the list is empty; expected at least one document.")
    hashed = ""
    for document in documents:
        hashed = chain(hashed, document)
    n, size = len(documents), float(sum(map(weight, documents)))
    return Corpus(
        name=name or f"{n} document{'s' * (n != 1)}",
        identity={"kind": "documents", "documents": n, "sha256": hashed},
        n_documents=n,
        source=lambda: iter(documents),
        size=lambda: size,
    )


def _array(array: Integer[np.ndarray, "*row pos"]) -> Corpus:
    """Rows of token ids, never copied as a whole."""
    if array.dtype.kind not in "iu" or array.ndim not in (1, 2) or not array.size:
        raise CorpusError(
            f"the array holds {array.dtype} of shape {list(array.shape)}; expected token ids, integers "
            "of shape [row, pos] or [pos]."
        )
    rows = array[None] if array.ndim == 1 else array
    digest = hashlib.sha256()
    step = max(1, _AT_ONCE // rows.shape[1])
    for start in range(0, len(rows), step):
        digest.update(rows[start : start + step].astype("<i8").tobytes())
    shape = list(rows.shape)
    return Corpus(
        name=f"token ids {shape}",
        identity={"kind": "array", "shape": shape, "sha256": digest.hexdigest()},
        n_documents=len(rows),
        source=lambda: iter(rows),
        size=lambda: 4.0 * rows.size,
    )


def _rows(batch: TokenBatch) -> list[Integer[np.ndarray, " pos"]]:
    if batch.segments is not None:
        raise CorpusError(
            "these rows are packed already: several texts share one. Pass the texts themselves."
        )
    pairs = zip(batch.ids.cpu(), batch.mask.cpu(), strict=True)
    return [ids[mask].numpy() for ids, mask in pairs]


def _refuse(given: Any) -> None:
    """What can be iterated over, but does not give documents in a fixed order."""
    if isinstance(given, Mapping):
        tried = ", ".join(repr(key) for key in list(given)[:4])
        raise CorpusError(
            f"a {type(given).__name__} with {tried} is no corpus: expected documents in a fixed order. "
            "Pass one of its values (one split of a data set), or [record] for a single record."
        )
    if isinstance(given, set | frozenset):
        raise CorpusError("a set has no order, and a corpus needs one: pass sorted(texts).")
    if hasattr(given, "iloc") and hasattr(given, "columns"):
        raise CorpusError(
            "a data frame is iterated over by its columns' names: pass a column, as frame['text']."
        )
    if not isinstance(given, Iterable) and not callable(given):
        raise CorpusError(
            f"a {type(given).__name__} is no corpus; expected 'demo', a path, texts, token ids, records, "
            "an iterable of them, or a Hugging Face data set."
        )


def _stream(given: Any, field: str) -> Corpus:
    """Documents from an iterable, or from a function that returns one."""
    start: Callable[[], Iterator[Any]]
    if isinstance(given, Iterator):
        start, kind = _once(given), "iterator"
    elif isinstance(given, Iterable):
        start, kind = lambda: iter(given), "iterable"
    else:
        start, kind = lambda: _called(given), "function"

    def documents() -> Iterator[Document]:
        return (
            document_of(one, field=field, where=f"document {i}") for i, one in enumerate(start())
        )

    return Corpus(name=f"a stream ({kind})", identity={"kind": "stream"}, n_documents=None,
                  source=documents)  # fmt: skip


def _once(iterator: Iterator[Any]) -> Callable[[], Iterator[Any]]:
    left = [iterator]

    def start() -> Iterator[Any]:
        if not left:
            raise CorpusError(
                "this corpus is an iterator, which can be read once, and has been. Pass a list, or a "
                "function that returns a new iterator each time."
            )
        return left.pop()

    return start


def _called(function: Callable[[], Any]) -> Iterator[Any]:
    found = function()
    if isinstance(found, str | Mapping) or not isinstance(found, Iterable):
        raise CorpusError(
            f"the function returned a {type(found).__name__}; expected an iterator over documents."
        )
    return iter(found)
