"""Prompts in files: one pair per line, as text, to read, to share and to edit.

JSONL, one object per line; CSV has the first four keys as columns:

    clean       the clean prompt (JSONL: or a list of token ids)
    corrupted   its twin; may be left out
    answer      the right next token, or ``answers``: a list of them (JSONL: or ids)
    foil        the wrong one, or ``foils``
    positions   JSONL only: name → a word, an integer or [start, end] in characters
    group       what the prompt belongs to; may be left out

Either every line has a key or none has.
"""

from __future__ import annotations

import csv
import io
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from interp.errors import PromptError, nearest
from interp.prompts.induction import HasTokens
from interp.prompts.pairs import build
from interp.prompts.positions import END, Place
from interp.prompts.prompts import Prompts
from interp.token_batch import TokenBatch

__all__ = ["load", "save"]

KEYS = ("clean", "corrupted", "answer", "answers", "foil", "foils", "positions", "group")
Line = dict[str, Any]


def load(
    model: HasTokens,
    path: str | Path,
    *,
    bos: bool | None = None,
    pad: Literal["right", "left"] = "right",
) -> Prompts:
    """Prompts from a ``.jsonl`` or ``.csv`` file, named after it.

    Args:
        model: whose tokenizer reads them.
        path: the file.
        bos: see ``Tokenization.encode``.
        pad: side of the padding where lengths differ.

    Raises:
        PromptError: with the file and, where one is to blame, the line.
    """
    path = Path(path)
    lines = _read(path)
    try:
        return _build(model, list(lines.values()), path.stem, bos, pad)
    except PromptError as error:
        for number, line in lines.items():
            _blame(model, line, f"{path}, line {number}", bos)
        raise PromptError(f"{path}: {error}") from error


def save(prompts: Prompts, path: str | Path) -> None:
    """Write prompts as JSONL; the file appears whole or not at all.

    Text is written where the prompts were made from text, token ids elsewhere.
    Prompts made with ``bos=False`` must be loaded with it.
    """
    path = Path(path)
    if path.suffix != ".jsonl":
        raise PromptError(f"{path} ends in {path.suffix!r}, expected '.jsonl'. Rename it.")
    lines = [json.dumps(_line(prompts, row), ensure_ascii=False) for row in range(len(prompts))]
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise PromptError(
            f"cannot write {path}: {error.strerror}. Expected an existing folder that is writable."
        ) from error
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _read(path: Path) -> dict[int, Line]:
    """The file's objects by line number, each with known keys and all with the same."""
    readers = {".jsonl": _jsonl, ".csv": _csv}
    if path.suffix not in readers:
        raise PromptError(f"{path} ends in {path.suffix!r}, expected '.jsonl' or '.csv'.")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise PromptError(
            f"cannot read {path}: {error.strerror}. Expected a JSONL or CSV file of prompts."
        ) from error
    except UnicodeDecodeError as error:
        raise PromptError(
            f"{path} is not UTF-8 text ({error.reason}). Save it as UTF-8."
        ) from error
    lines = readers[path.suffix](path, text)
    if not lines:
        raise PromptError(f"{path} has no prompts, expected at least one line with 'clean'.")
    first = next(iter(lines.values()))
    for number, line in lines.items():
        _check_keys(line, first, f"{path}, line {number}")
    return lines


def _jsonl(path: Path, text: str) -> dict[int, Line]:
    lines = {}
    for number, raw in enumerate(text.split("\n"), start=1):
        if not raw.strip():
            continue
        try:
            line = json.loads(raw)
        except json.JSONDecodeError as error:
            raise PromptError(
                f"{path}, line {number} is not JSON ({error.msg} at character {error.pos}), "
                "expected one object per line."
            ) from error
        if not isinstance(line, dict):
            raise PromptError(
                f"{path}, line {number} is a {type(line).__name__}, expected an object such as "
                '{"clean": "The capital of France is", "answer": " Paris"}.'
            )
        lines[number] = line
    return lines


def _csv(path: Path, text: str) -> dict[int, Line]:
    reader = csv.DictReader(io.StringIO(text, newline=""))
    lines = {}
    for row in reader:
        if None in row or None in row.values():
            raise PromptError(
                f"{path}, line {reader.line_num} has not as many fields as the heading "
                f"{reader.fieldnames}. Quote texts that contain commas."
            )
        lines[reader.line_num] = {key: value for key, value in row.items() if value != ""}
    return lines


def _check_keys(line: Line, first: Line, where: str) -> None:
    for key in line:
        if key not in KEYS:
            raise PromptError(
                f"{where} has the key {key!r}, expected some of {', '.join(KEYS)}; "
                f"the nearest are {nearest(key, KEYS)}."
            )
    for one, several in (("answer", "answers"), ("foil", "foils")):
        if one in line and several in line:
            raise PromptError(f"{where} has both {one!r} and {several!r}, expected one of them.")
    if "clean" not in line or line.keys() != first.keys():
        expected = ", ".join(first) if "clean" in first else "clean"
        raise PromptError(
            f"{where} has the keys {', '.join(line) or '(none)'}, expected {expected}, as "
            "'clean' is needed and every line must have the same."
        )


def _build(
    model: HasTokens,
    lines: Sequence[Line],
    name: str,
    bos: bool | None,
    pad: Literal["right", "left"],
) -> Prompts:
    def column(*keys: str) -> list[Any] | None:
        found = [line[key] for line in lines for key in keys if key in line]
        return found or None

    twins, positions = column("corrupted"), column("positions") or [{}]
    names = dict.fromkeys(name for one in positions for name in one)
    return build(
        model.tokens,
        _inputs([line["clean"] for line in lines], pad),
        _inputs(twins, pad) if (twins := column("corrupted")) else None,
        answers=column("answer", "answers"),
        foils=column("foil", "foils"),
        positions={name: [_place(name, one.get(name)) for one in positions] for name in names},
        bos=bos,
        pad=pad,
        groups=column("group"),
        name=name,
    )


def _blame(model: HasTokens, line: Line, where: str, bos: bool | None) -> None:
    """Raise if this line alone does not make a prompt, saying where it stands."""
    try:
        _build(model, [line], "line", bos, "right")
    except PromptError as error:
        raise PromptError(f"{where}: {error}") from error


def _inputs(given: list[Any], pad: Literal["right", "left"]) -> list[str] | TokenBatch:
    """Texts as they are, lists of ids as a batch."""
    if all(isinstance(one, str) for one in given):
        return given
    if not all(isinstance(one, list) and all(type(i) is int for i in one) for one in given):
        raise PromptError(
            f"prompts are {given[:3]}, expected all to be text or all to be lists of token ids."
        )
    return TokenBatch.stack(given, pad=pad)


def _place(name: str, given: Any) -> Place:
    """A position as the file has it: JSON has lists where Python has tuples."""
    if isinstance(given, list) and len(given) == 2:
        return int(given[0]), int(given[1])
    if not isinstance(given, str | int):
        raise PromptError(
            f"position {name!r} is {given!r}, expected a word, an integer or [start, end]. "
            "Every line must define the same positions."
        )
    return given


def _line(prompts: Prompts, row: int) -> Line:
    """One prompt as the object that ``load`` reads."""
    line: Line = {"clean": _text(prompts.texts, prompts.clean, row)}
    if prompts.corrupted is not None:
        line["corrupted"] = _text(prompts.corrupted_texts, prompts.corrupted, row)
    for key, ids, texts in (
        ("answers", prompts.answers, prompts.answer_texts),
        ("foils", prompts.foils, prompts.foil_texts),
    ):
        if ids is not None:
            line[key] = list(texts[row]) if texts else [i for i in ids[row].tolist() if i >= 0]
    first = int(prompts.clean.first[row])
    named = {name: int(columns[row]) - first for name, columns in prompts.positions.items()}
    line["positions"] = {name: at for name, at in named.items() if name != END}
    if prompts.groups is not None:
        line["group"] = prompts.groups[row]
    return line


def _text(texts: Sequence[str] | None, batch: TokenBatch, row: int) -> str | list[int]:
    return texts[row] if texts else batch.ids[row][batch.mask[row]].tolist()
