"""What a notebook keeps while it runs: its paper and seeds, its figures, and its claims.

A notebook opens with ``study = interp.study(...)``, hands it each figure and each claim, and ends with
``study``: a table for the reader, and the same numbers as data in the cell's output. ``interp notebooks run``
takes the claims from there, so nobody writes a number down by hand.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from interp.errors import NotebookError
from interp.notebooks.claim import Claim, Paper

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["MIME", "Study", "study"]

#: The type of the output that holds a study's claims.
MIME: Final = "application/vnd.interp.study+json"
_COLUMNS: Final = ("claim", "ours", "threshold", "null", "its bound", "the paper")


class Study:
    """The paper, the seeds, the figures and the claims of one notebook. Made by :func:`study`.

    Attributes:
        name: the notebook's name, with its number: ``"02_localization_editing"``.
        question: what the notebook asks.
        paper: authors, year and arXiv number.
        model: what its ``MODEL`` was; None where it trains its own.
        seeds: the seeds of the claims: the first alone in the fast form.
        fast: whether this is the fast form.
        figures: the folder that figures are written to.
        claims: the claims made so far.
    """

    def __init__(
        self, name: str, question: str, *, paper: str, model: str | None, seeds: Sequence[int],
        fast: bool, figures: Path,
    ) -> None:  # fmt: skip
        self.name, self.question, self.paper, self.model = name, question, paper, model
        self.seeds = tuple(seeds[:1]) if fast else tuple(seeds)
        self.fast, self.figures = fast, figures
        self.claims: list[Claim] = []
        self.drawn: list[str] = []

    def figure(self, figure: Figure, name: str) -> Figure:
        """Write a figure as ``figures/<notebook>-<name>.png`` and ``.svg``, and give it back to be shown.

        The fast form writes none: its numbers are not those that the notebook reports.
        """
        from interp.figures.style import save

        if not re.fullmatch(r"[\w-]+", name):
            raise NotebookError(
                f"figure name {name!r}: expected letters, digits, '-' and '_', as it names a file that a "
                "page links to."
            )
        if name in self.drawn:
            raise NotebookError(
                f"there is a figure {name!r} in this notebook already: name each anew."
            )
        self.drawn.append(name)
        if not self.fast:
            save(figure, self.figures / f"{self.name}-{name}")
        return figure

    def claim(
        self,
        name: str,
        values: Mapping[int, float] | Sequence[float] | float,
        *,
        null: Mapping[int, float] | Sequence[float] | float,
        control: str,
        basis: str | Sequence[int],
        above: float | None = None,
        below: float | None = None,
        null_bound: float | None = None,
        paper: str | None = None,
        source: str | None = None,
    ) -> Claim:
        """State a claim; see :class:`interp.notebooks.Claim` for when it holds.

        Args:
            name: what is claimed, as a short noun phrase with the unit.
            values: the number for each of the study's seeds: by seed, or in their order.
            null: the same measure on the control.
            control: what the control is.
            basis: where the threshold comes from: words, or the seeds it was fixed on.
            above: values must be greater than this, or
            below: smaller than this.
            null_bound: what null numbers must not pass; the threshold itself by default.
            paper: what the paper reports on its own model, in words.
            source: where it does.

        Raises:
            NotebookError: not one value for each seed, a threshold fixed on the claim's own seeds, a null
                bound that would let the effect through, a paper's number without its source, or
                a second claim of that name.
        """
        if any(claim.name == name for claim in self.claims):
            raise NotebookError(
                f"there is a claim {name!r} in this notebook already: name each anew."
            )
        if (paper is None) != (source is None):
            raise NotebookError(
                f"claim {name!r}: paper={paper!r}, source={source!r}; expected both (what the paper "
                "reports, and where) or neither."
            )
        claim = Claim(
            name, self._by_seed(name, values), _numbers(null), control, basis,
            above, below, null_bound, None if paper is None else Paper(paper, str(source)),
        )  # fmt: skip
        self.claims.append(claim)
        return claim

    def _by_seed(self, name: str, values: Any) -> dict[int, float]:
        by_seed = isinstance(values, Mapping)
        if hasattr(values, "keys") and not by_seed:  # a pandas series, by seed or in order
            by_seed = set(values.keys()) == set(self.seeds)
        given = dict(values) if by_seed else None
        if given is None:
            listed = _numbers(values)
            given = dict(enumerate(listed))
            if len(listed) == len(self.seeds):
                given = dict(zip(self.seeds, listed, strict=True))
        if set(given) != set(self.seeds):
            raise NotebookError(
                f"claim {name!r} was given {len(given)} values, and the seeds are {list(self.seeds)}: give one "
                "number for each seed, in their order or by seed."
            )
        return given

    @property
    def holds(self) -> bool:
        """Whether all claims hold."""
        return all(claim.holds for claim in self.claims)

    def rows(self) -> list[tuple[str, ...]]:
        """A row of text for each claim, under claim, ours, threshold, null, its bound, the paper."""
        return [
            (
                f"{'✓' if claim.holds else '✗'} {claim.name}",
                claim.told,
                claim.threshold,
                f"{claim.null_told} ({claim.control})",
                claim.null_threshold,
                "" if claim.paper is None else f"{claim.paper.says} ({claim.paper.source})",
            )
            for claim in self.claims
        ]

    def to_json(self) -> dict[str, Any]:
        """What ``interp notebooks run`` takes from the notebook's output."""
        return {
            "name": self.name, "question": self.question, "paper": self.paper, "model": self.model,
            "seeds": list(self.seeds), "fast": self.fast, "figures": [] if self.fast else list(self.drawn),
            "claims": [claim.to_json() for claim in self.claims],
        }  # fmt: skip

    def __repr__(self) -> str:
        head = f"Study({self.name!r}, seeds={list(self.seeds)}, fast={self.fast})"
        return "\n".join([head, *(f"  {claim!r}" for claim in self.claims)])

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        head = "".join(f"<th style='text-align:left'>{name}</th>" for name in _COLUMNS)
        body = "".join(
            "<tr>"
            + "".join(f"<td style='text-align:left'>{escape(cell)}</td>" for cell in row)
            + "</tr>"
            for row in self.rows()
        )
        seeds = ", ".join(map(str, self.seeds))
        caption = f"{escape(self.paper)}; mean [lowest, highest] over seeds {seeds}"
        table = f"<table><caption>{caption}</caption><tr>{head}</tr>{body}</table>"
        return {"text/plain": repr(self), "text/html": table, MIME: self.to_json()}


def study(
    name: str,
    question: str,
    *,
    paper: str,
    model: str | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    fast: bool = False,
    figures: str | Path = "figures",
) -> Study:
    """Open the study of a notebook.

    Args:
        name: the notebook's file name without its ending: ``"02_localization_editing"``.
        question: what it asks, in one sentence.
        paper: authors, year and arXiv number.
        model: its ``MODEL``; None where it trains its own.
        seeds: the seeds of its claims.
        fast: the fast form: the first seed alone, and no figure is written.
        figures: the folder that figures are written to.

    Raises:
        NotebookError: there are no seeds, or one stands twice.
    """
    if not seeds or len(set(seeds)) != len(seeds):
        raise NotebookError(f"seeds={list(seeds)}: expected at least one, each once.")
    return Study(
        name, question, paper=paper, model=model, seeds=seeds, fast=fast, figures=Path(figures)
    )


def _numbers(values: Any) -> tuple[float, ...]:
    if isinstance(values, Mapping):
        values = list(values.values())
    if (
        not hasattr(values, "__len__") or getattr(values, "ndim", 1) == 0
    ):  # a number, or a tensor of one
        return (float(values),)
    return tuple(float(v) for v in values)
