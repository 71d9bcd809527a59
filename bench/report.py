"""Rows of measurements as tables (rich, Markdown) and as JSON."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from rich import box
from rich.console import Console
from rich.table import Table

README = Path(__file__).resolve().parent / "README.md"
NARROW = "\N{NO-BREAK SPACE}/\N{NO-BREAK SPACE}"  # keeps a ratio on one line
PEERS = ("TransformerLens", "TL bridge", "nnsight")


@dataclass
class Row:
    """One sweep of one model. Seconds are of whole sweeps, one for each turn.

    ``sampled`` says how many cells the peers ran, if not all: their seconds are then scaled up.
    ``differences`` are the largest between a peer's values and ours, ``scale`` is our largest
    value less our smallest, ``floor`` the arithmetic floor in seconds by the matmul rate of that turn, and
    ``memory`` the bytes held at the peak above those before.
    """

    model: str
    sweep: str
    cells: int
    engine: str
    target: float | None
    sampled: int | None = None
    compared: int = 0
    ours: list[float] = field(default_factory=list)
    theirs: dict[str, list[float]] = field(default_factory=dict)
    floor: list[float] = field(default_factory=list)
    flops: int = 0
    differences: dict[str, float] = field(default_factory=dict)
    scale: float = 0.0
    memory: dict[str, int] = field(default_factory=dict)

    def ratios(self, peer: str) -> list[float]:
        return [t / o for t, o in zip(self.theirs[peer], self.ours, strict=True)]

    @property
    def first(self) -> str:
        """The peer that the target is about."""
        return next(iter(self.theirs))

    @property
    def agrees(self) -> bool:
        """Whether every peer's values are ours up to rounding."""
        return all(d <= 1e-4 * self.scale for d in self.differences.values())

    def texts(self) -> list[str]:
        """The row's columns, as in ``COLUMNS``."""
        first = self.first
        cells = f"{self.cells}" + (f" (peers {self.sampled})" if self.sampled else "")
        form = first.partition(", ")[2]  # of attribution: which form of the peer
        sweep = f"{self.sweep} (peer {form})" if form else self.sweep
        columns = [self.model, sweep, cells, self.engine, seconds(self.ours)]
        for slot in PEERS:
            # A row of attribution has one peer, a form of TransformerLens.
            peer = first if slot == PEERS[0] else slot
            known = peer in self.theirs
            columns.append(seconds(self.theirs[peer]) if known else "")
            columns.append(spread(self.ratios(peer)) if known else "")
        difference = self.differences.get(first)
        shown = "" if difference is None else f"{difference:.0e} of {self.scale:.2g}"
        against = [o / f for o, f in zip(self.ours, self.floor, strict=True)]
        memory = [f"{self.memory[side] / 1e6:.0f}" for side in ("ours", first)]
        return [*columns, self.verdict, shown, *memory, spread(against)]

    @property
    def verdict(self) -> str:
        if self.target is None:
            return ""
        reached = statistics.median(self.ratios(self.first)) >= self.target
        return f"≥ {self.target:g} {'✓' if reached else '✗'}"


COLUMNS = (
    "model", "sweep", "cells", "engine", "ours s", "TL s", "TL / ours", "TL bridge s", "bridge / ours",
    "nnsight s", "nnsight / ours", "target TL / ours", "max diff to TL, of range",
    "ours peak MB", "TL peak MB", "ours / floor",
)  # fmt: skip


@dataclass
class Cached:
    """A forward pass that keeps activations, beside plain Hugging Face: the first side."""

    model: str
    sides: dict[str, list[float]]
    target: float

    def texts(self) -> list[list[str]]:
        base = next(iter(self.sides.values()))
        rows = []
        for side, times in self.sides.items():
            ratios = [t / b for t, b in zip(times, base, strict=True)]
            reached = statistics.median(ratios) <= self.target
            verdict = f"≤ {self.target:g} {'✓' if reached else '✗'}" if side == "ours" else ""
            milliseconds = f"{statistics.median(times) * 1e3:.1f}"
            rows.append([self.model, side, milliseconds, spread(ratios), verdict])
        return rows


CACHED_COLUMNS = ("model", "forward pass", "median ms", "× plain Hugging Face", "target")


def seconds(times: Sequence[float]) -> str:
    return f"{statistics.median(times):.3g}"


def spread(numbers: Sequence[float]) -> str:
    """The median, and the smallest and the largest if there are several."""
    middle = f"{statistics.median(numbers):.2f}"
    few = len(numbers) < 2
    return middle if few else f"{middle} ({min(numbers):.2f}–{max(numbers):.2f})"


def _folded(text: str) -> str:
    """A cell on two lines, for a narrow table."""
    return text.replace(" (", "\n(").replace(", ", ",\n")


@dataclass
class Report:
    """Everything that was measured, and how."""

    machine: dict[str, Any]
    notes: list[str]
    rows: list[Row] = field(default_factory=list)
    cached: list[Cached] = field(default_factory=list)

    def note(self, *notes: str) -> None:
        """Add what is not noted yet."""
        self.notes += [note for note in notes if note not in self.notes]

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n")

    def tables(self) -> list[tuple[Sequence[str], list[list[str]]]]:
        both = [
            (COLUMNS, [row.texts() for row in self.rows]),
            (CACHED_COLUMNS, [text for cached in self.cached for text in cached.texts()]),
        ]
        return [(columns, rows) for columns, rows in both if rows]

    def show(self, console: Console) -> None:
        for columns, rows in self.tables():
            table = Table(box=box.SIMPLE, pad_edge=False)
            for number, column in enumerate(columns):
                justify: Literal["left", "right"] = "left" if number < 2 else "right"
                header = column.replace(" / ", NARROW).replace(" ", "\n")
                table.add_column(header, justify=justify, no_wrap=True)
            for row in rows:
                table.add_row(*(_folded(text) for text in row))
            console.print(table)

    def markdown(self) -> str:
        parts = [told(self.machine), "\n".join(f"- {note}" for note in self.notes)]
        parts += [table(columns, rows, left=2) for columns, rows in self.tables()]
        return "\n\n".join(parts)


def told(machine: Mapping[str, Any]) -> str:
    """The command, and what a reader needs to judge its numbers."""
    facts = {name: fact for name, fact in machine.items() if name != "command"}
    return f"`{machine['command']}`\n\n" + ", ".join(f"{k} {v}" for k, v in facts.items())


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> str:
    """A table in Markdown; the first ``left`` columns to the left, the others to the right."""
    ruler = ["---" if number < left else "--:" for number in range(len(columns))]
    return "\n".join(f"| {' | '.join(line)} |" for line in [columns, ruler, *rows])


def into_readme(script: str, text: str, readme: Path = README) -> None:
    """Put what a script has printed between its markers.

    Raises:
        ValueError: the page has no such markers.
    """
    begin, end = f"<!-- bench/{script} begins -->", f"<!-- bench/{script} ends -->"
    page = readme.read_text()
    if begin not in page or end not in page:
        raise ValueError(f"{readme} lacks the lines {begin!r} and {end!r}")
    before, _, rest = page.partition(begin)
    readme.write_text(f"{before}{begin}\n\n{text}\n\n{end}{rest.partition(end)[2]}")
