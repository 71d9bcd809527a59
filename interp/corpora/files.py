"""Corpora in files, read as they are needed: text, JSON lines, tables, arrays of token ids.

    .txt  .txt.gz                     text; ``split`` says what a document is
    .jsonl  .json  .jsonl.gz  .json.gz   a JSON record, text or list of token ids on each line
    .parquet  .arrow                  tables with a column of texts or token ids         (tables)
    .npy  .safetensors                token ids: [row, pos], or one row                  (tables)

A folder means all files in it with such an ending that are not hidden, in the order of their names.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal, cast

from interp.corpora.corpus import Corpus, Document, weight
from interp.corpora.records import document_of
from interp.corpora.tables import array_documents, array_shape, table_documents, table_rows
from interp.errors import CorpusError

__all__ = ["ENDINGS", "Split", "is_known", "read_files"]

#: What one document of a text file is.
Split = Literal["file", "line", "paragraph"]

TEXT = (".txt", ".txt.gz")
LINES = (".jsonl", ".json", ".jsonl.gz", ".json.gz")
TABLES = (".parquet", ".arrow")
ARRAYS = (".npy", ".safetensors")
#: Endings of files that a corpus can be read from.
ENDINGS = (*TEXT, *LINES, *TABLES, *ARRAYS)

WHOLE = 2**28  # bytes above which a text file is not tokenised as one document
SAMPLE = 2**22  # bytes read to estimate a file's share of text


@dataclass(frozen=True)
class _Reader:
    """How the files of one corpus are read."""

    files: tuple[tuple[str, Path], ...]
    field: str
    split: Split

    def documents(self) -> Iterator[Document]:
        for _, path in self.files:
            yield from self.of_file(path)

    def of_file(self, path: Path) -> Iterator[Document]:
        name = path.name.lower()
        if name.endswith(LINES):
            return _records(path, self.field)
        if name.endswith(TABLES):
            return table_documents(path, self.field)
        if name.endswith(ARRAYS):
            return array_documents(path)
        return {"file": _whole, "line": _lines, "paragraph": _paragraphs}[self.split](path)

    def count(self) -> int | None:
        """Documents in all, where the files say so."""
        total = 0
        for _, path in self.files:
            name = path.name.lower()
            if name.endswith(TABLES):
                total += table_rows(path, self.field)
            elif name.endswith(ARRAYS):
                total += array_shape(path)[0]
            elif name.endswith(TEXT) and self.split == "file":
                total += 1
            else:
                return None
        return total

    def size(self) -> float | None:
        """Bytes of text, from the files' sizes and what the first of each kind holds."""
        total, shares = 0.0, dict[str, float]()
        for _, path in self.files:
            ending = "".join(path.suffixes[-2:]).lower()
            if path.name.lower().endswith(TABLES):
                return None
            if path.name.lower().endswith(ARRAYS):
                rows, width = array_shape(path)
                total += 4 * rows * width
                continue
            if ending not in shares:
                shares[ending] = self._share(path)
            total += path.stat().st_size * shares[ending]
        return total

    def _share(self, path: Path) -> float:
        """Bytes of text for each byte on disk, at the beginning of a file."""
        if path.name.lower().endswith(".txt"):
            return 1.0
        if path.name.lower().endswith(".txt.gz"):
            with _opened(path) as (raw, file):
                found = len(file.read(SAMPLE))
                return found / max(1, raw.tell())
        found = read = 0
        with _opened(path) as (raw, file):
            for number, line in enumerate(file, start=1):
                read += len(line)
                record = _record(path, number, line, self.field)
                found += weight(record) if record is not None else 0
                if read >= SAMPLE:
                    break
            packed = raw.tell() if path.name.lower().endswith(".gz") else read
        return found / max(1, packed)


def read_files(paths: Sequence[Path], *, field: str, split: Split) -> Corpus:
    """The documents of some files and folders, one file after another.

    Raises:
        CorpusError: a file that does not exist or is of no known kind, a folder without any.
    """
    if split not in ("file", "line", "paragraph"):
        raise CorpusError(f"split={split!r}; expected 'file', 'line' or 'paragraph'.")
    files = tuple(found for path in paths for found in _found(path))
    reader = _Reader(files, field, split)
    kinds = {next(e for e in ENDINGS if path.name.lower().endswith(e)) for _, path in files}
    options = {
        **({"field": field} if kinds & {*LINES, *TABLES} else {}),
        **({"split": split} if kinds & {*TEXT} else {}),
    }
    return Corpus(
        name=files[0][0] if len(files) == 1 else f"{len(files)} files",
        identity={
            "kind": "files",
            "files": [[name, path.stat().st_size] for name, path in files],
            **options,
        },
        n_documents=reader.count(),
        source=reader.documents,
        size=reader.size,
    )


def is_known(name: str) -> bool:
    """Whether a name ends as a corpus's file does."""
    return name.lower().endswith(ENDINGS)


def _found(path: Path) -> list[tuple[str, Path]]:
    """The files meant by a path, each with a name that does not depend on where they lie."""
    path = path.expanduser()
    if path.is_dir():
        inside = sorted(
            (p.relative_to(path).as_posix(), p)
            for p in path.rglob("*")
            if p.is_file() and is_known(p.name) and not _hidden(p.relative_to(path))
        )
        if inside:
            return inside
        raise CorpusError(
            f"the folder {str(path)!r} holds no file of a kind that is read; expected some that end "
            f"in {', '.join(ENDINGS)}."
        )
    if not path.exists():
        raise CorpusError(
            f"there is no file {str(path)!r}; expected an existing file or folder. Check the path."
        )
    if not is_known(path.name):
        raise CorpusError(
            f"{str(path)!r} is of no kind that is read; expected a name that ends in "
            f"{', '.join(ENDINGS)}. Rename it, or pass its texts as a list."
        )
    return [(path.name, path)]


def _hidden(path: Path) -> bool:
    """Whether a file, or a folder that it lies in, is hidden, as copies in ``.ipynb_checkpoints`` are."""
    return any(part.startswith(".") for part in path.parts)


# -- lines of text ---------------------------------------------------------------------------


@contextmanager
def _opened(path: Path) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """The file on disk, and its bytes unpacked; what is wrong with it as one error."""
    try:
        raw = path.open("rb")
    except OSError as error:
        raise CorpusError(
            f"cannot read {path}: {error.strerror}. Expected a file as it was when the corpus was made."
        ) from error
    with raw:
        packed = path.name.lower().endswith(".gz")
        try:
            yield raw, cast(IO[bytes], gzip.GzipFile(fileobj=raw)) if packed else raw
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise CorpusError(
                f"{path} is damaged ({error}); expected a complete gzip file. Fetch it again."
            ) from error


def _decoded(path: Path, line: bytes, number: int) -> str:
    """A line (or several, from ``number`` on) as text."""
    try:
        return line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        number += line[: error.start].count(b"\n")
        raise CorpusError(
            f"{path}, line {number} is not UTF-8 ({error.reason}, byte {line[error.start]:#04x}). Save "
            "it as UTF-8, as with: iconv -t UTF-8."
        ) from error


def _lines(path: Path) -> Iterator[str]:
    """Each line, without its end; an empty one is an empty document."""
    with _opened(path) as (_, file):
        for number, line in enumerate(file, start=1):
            yield _decoded(path, line, number).rstrip("\r\n")


def _paragraphs(path: Path) -> Iterator[str]:
    """Lines up to a blank one, joined again."""
    paragraph: list[str] = []
    for line in _lines(path):
        if line.strip():
            paragraph.append(line)
        elif paragraph:
            yield "\n".join(paragraph)
            paragraph = []
    if paragraph:
        yield "\n".join(paragraph)


def _whole(path: Path) -> Iterator[str]:
    """The whole file, without the end of its last line."""
    with _opened(path) as (_, file):
        text = file.read(WHOLE + 1)
    if len(text) > WHOLE:
        raise CorpusError(
            f"{path} has more than {WHOLE // 2**20} MiB, too much to tokenise as one document. Say "
            "interp.corpora.read(path, split='line') or split='paragraph' (--split in the command)."
        )
    yield _decoded(path, text, 1).replace("\r\n", "\n").removesuffix("\n")


# -- JSON lines ------------------------------------------------------------------------------


def _records(path: Path, field: str) -> Iterator[Document]:
    with _opened(path) as (_, file):
        for number, line in enumerate(file, start=1):
            document = _record(path, number, line, field)
            if document is not None:
                yield document


def _record(path: Path, number: int, line: bytes, field: str) -> Document | None:
    """The document of one line; None for a blank one."""
    text = _decoded(path, line, number)
    if not text.strip():
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:  # also numbers too long, lists too deep
        why = str(error)
        if isinstance(error, json.JSONDecodeError):
            why = f"{error.msg} at character {error.pos}"
        raise CorpusError(
            f"{path}, line {number} is not JSON ({why}); expected one "
            'record on each line, such as {"text": "The capital of France is Paris"}.'
        ) from error
    return document_of(value, field=field, where=f"{path}, line {number}")
