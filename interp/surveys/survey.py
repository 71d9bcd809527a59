"""One pass over a source for several questions at once.

A *plan* says what is asked; it is a frozen dataclass of parameters. As rows go by it folds them into
a *state* of fixed size, and at the end makes a result of it. States are values: a new one is made for
each chunk, so a pass that is interrupted in the middle of a chunk still has the state before it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import torch

from interp.errors import RunError, warn
from interp.progress import Bar
from interp.results import Provenance
from interp.store.rows import Rows
from interp.surveys.source import Digest, Source, chunks, is_whole, opened, origin

__all__ = ["Plan", "survey"]


@runtime_checkable
class Plan(Protocol):
    """A question to rows of activations."""

    def on(self, sites: Sequence[str]) -> Plan:
        """The same question to a source that has these sites, patterns spelled out.

        Raises:
            SiteError: the source lacks what it asks for.
        """
        ...

    def reads(self) -> tuple[str, ...]:
        """The sites it reads, once it is :meth:`on` a source."""
        ...

    def call(self) -> dict[str, Any]:
        """Its parameters as JSON values, for the record."""
        ...

    def update(self, state: Any, rows: Rows) -> Any:
        """A state that has seen these rows too; None is the state that has seen nothing."""
        ...

    def result(self, state: Any, provenance: Provenance) -> Any:
        """What the rows seen so far say."""
        ...


@torch.no_grad()
def survey(
    source: Source | Any,
    plans: Sequence[Plan],
    *,
    tokens: int | None = None,
    size: int = 4096,
    progress: bool | None = None,
) -> tuple[Any, ...]:
    """Ask several questions in one pass; a result for each plan, in their order.

    >>> means, top = survey(store, [Mean("L*.mlp_out"), Top("L2.mlp_post", k=20)])  # doctest: +SKIP

    Ctrl-C ends the pass early: the results are then of the tokens read so far, and a warning says how
    many those are.

    Args:
        source: an ActivationStore, ``interp.stream(...)``, or an iterable of Rows.
        plans: :class:`Mean`, :class:`Top`, :class:`Histogram`, :class:`Correlate`.
        tokens: read at most this many; None: all.
        size: rows at a time. It changes speed and memory, not results.
        progress: show a bar; None shows it for long work on a terminal.

    Raises:
        RunError: no source, no rows, or an activation that is NaN or infinite.
        SiteError: the source lacks a site.
    """
    if not is_whole(size, least=1) or not (tokens is None or is_whole(tokens, least=1)):
        raise RunError(f"size={size!r}, tokens={tokens!r}; expected whole numbers from 1 up.")
    if not isinstance(plans, list | tuple) or not plans:
        raise RunError(
            f"plans={plans!r}; expected a list of plans, such as [Mean(), Top('L2.mlp_post')]."
        )
    source = opened(source)
    placed = [plan.on(tuple(source.sites)) for plan in plans]
    sites = tuple(dict.fromkeys(site for plan in placed for site in plan.reads()))
    seen: tuple[int, Digest, list[Any]] = (0, Digest(), [None] * len(placed))
    total = min(tokens or 2**62, len(source)) if hasattr(source, "__len__") else tokens  # type: ignore[arg-type]
    try:
        with Bar(total=total, what="survey", show=progress, least=10 * size) as bar:
            for rows in _limited(chunks(source, sites, size), tokens):
                _check(rows, sites)
                states = [plan.update(s, rows) for plan, s in zip(placed, seen[2], strict=True)]
                seen = (seen[0] + len(rows), seen[1].with_rows(rows), states)
                bar.advance(len(rows))
    except KeyboardInterrupt:
        if not seen[0]:
            raise
        warn(f"interrupted: this survey is of the first {seen[0]:,} tokens of its source.")
    n, digest, states = seen
    if not n:
        raise RunError("this source has no rows: nothing was surveyed. Is the corpus empty?")
    return tuple(
        plan.result(state, origin(source, digest, **plan.call(), tokens=n))
        for plan, state in zip(placed, states, strict=True)
    )


def _limited(parts: Iterator[Rows], tokens: int | None) -> Iterator[Rows]:
    """Rows up to a number of tokens; chunks without rows are left out."""
    left = tokens
    for rows in parts:
        if left is not None and len(rows) > left:
            rows = rows.take(slice(0, left))
        if len(rows):
            yield rows
        if left is not None:
            left -= len(rows)
            if left <= 0:
                return


def _check(rows: Rows, sites: Sequence[str]) -> None:
    """RunError where an activation is no number, with the token it stands at."""
    for site in sites:
        x = rows[site]
        if bool(x.isfinite().all()):
            continue
        row = int((~x.flatten(1).isfinite().all(-1)).int().argmax())
        raise RunError(
            f"{site} has NaN or infinite numbers in document {int(rows.document[row])} at position "
            f"{int(rows.position[row])}; expected finite ones. Harvest it in float32 or bfloat16 if "
            "the model overflows in float16."
        )
