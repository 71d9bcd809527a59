"""``top_examples``: the tokens at which a neuron, a head, a direction or a feature is strongest.

What a unit does is first guessed from where it is strongest. That shows its extreme and hides the
rest: a neuron that looks like one word at its top may be something else below. So, as Bills et al.
2023 ("Language models can explain neurons in language models") do, ``sampled`` also draws tokens at
random among those where the unit is not zero; read both.

Steps, for each stretch of rows: (1) wait until the tokens behind a row have come, so that its window
can be cut from the stream; (2) take each document's best row; (3) merge with the best so far.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import BudgetError, RunError, nearest
from interp.results import Provenance
from interp.runs.memory import as_text, available
from interp.sites import Site
from interp.store.rows import Rows
from interp.surveys.kept import Block, Kept
from interp.surveys.source import Source, is_whole
from interp.surveys.survey import survey
from interp.surveys.top_result import TopExamples, can_read, check_reader
from interp.surveys.units import Reading, Transform, pieces

__all__ = ["Top", "lots", "top_examples"]

Of = Literal["value", "abs", "norm"]
_OF: Final = ("value", "abs", "norm")


@dataclass(frozen=True, eq=False)
class _State:
    """What has been kept, and the last rows, whose windows are not whole yet or reach into the next."""

    best: Kept
    drawn: Kept
    tail: Block
    waiting: int  # the first row of the tail that has not been judged
    names: tuple[str, ...]
    numbers: tuple[int, ...]

    @property
    def n_tokens(self) -> int:
        return self.tail.first + len(self.tail)


@dataclass(frozen=True, eq=False)
class Top:
    """Top-activating tokens of each unit of a site, as a plan for :func:`survey`.

    The parameters are those of :func:`top_examples`.
    """

    site: str | Site
    k: int = 10
    units: int | Iterable[int] | None = None
    of: Of = "value"
    transform: Transform | None = None
    per_document: bool = True
    sampled: int = 0
    window: tuple[int, int] = (16, 8)
    seed: int = 0
    reading: Reading | None = None

    def __post_init__(self) -> None:
        if self.of not in _OF:
            raise RunError(
                f"of={self.of!r}; expected one of {', '.join(_OF)} (nearest: "
                f"{nearest(str(self.of), _OF)})."
            )
        pair = isinstance(self.window, tuple | list) and len(self.window) == 2
        if (
            not (is_whole(self.k, least=1) and is_whole(self.sampled, least=0) and pair)
            or not all(is_whole(n, least=0) for n in self.window)
            or not is_whole(self.seed, least=0)
        ):
            raise RunError(
                f"k={self.k!r}, sampled={self.sampled!r}, window={self.window!r}, seed={self.seed!r}; "
                "expected whole numbers: k from 1 up, sampled and seed from 0 up, and how many tokens "
                "to show before and behind each, such as (16, 8)."
            )

    def on(self, sites: Sequence[str]) -> Top:
        reading = Reading.of(
            self.site, norm=self.of == "norm", transform=self.transform, units=self.units
        )
        return replace(self, reading=reading.on(sites))

    def reads(self) -> tuple[str, ...]:
        return (self._reading.whole,)

    @property
    def _reading(self) -> Reading:
        assert self.reading is not None  # on() has been called
        return self.reading

    def call(self) -> dict[str, Any]:
        return {
            "verb": "top_examples", **self._reading.call, "k": self.k, "of": self.of,
            "per_document": self.per_document, "sampled": self.sampled, "window": list(self.window),
        }  # fmt: skip

    def update(self, state: _State | None, rows: Rows) -> _State:
        if state is None:
            state = self._start(rows)
        for part in pieces(rows, len(state.names)):
            state = self._step(state, part)
        return state

    def _start(self, rows: Rows) -> _State:
        values = self._reading(rows.take(slice(0, 1)))
        units, window = values.shape[1], sum(self.window) + 1
        need = units * window * 8 * (self.k + self.sampled) * 2 + window * units * 8
        if need > 2**27 and need > available(values.device):
            raise BudgetError(
                f"examples of {units} units take {as_text(need)} "
                f"({self.k + self.sampled} each, {window} tokens wide), and "
                f"{as_text(available(values.device))} are free: ask for fewer units=, a smaller k= or "
                "a narrower window=."
            )
        none = torch.zeros(0, dtype=torch.int64, device=values.device)
        return _State(
            Kept.empty(units, self.k, window, values.device),
            Kept.empty(units, self.sampled, window, values.device),
            Block(0, values[:0], none, none, none), 0,
            self._reading.names(rows, units), self._reading.numbers(rows, units),
        )  # fmt: skip

    def _step(self, state: _State, rows: Rows) -> _State:
        values = self._reading(rows)
        where = (
            x.to(values.device, torch.int64) for x in (rows.tokens, rows.document, rows.position)
        )
        block = state.tail.then(Block(state.n_tokens, values, *where))
        return self._judged(state, block, max(state.waiting, len(block) - self.window[1]))

    def _judged(self, state: _State, block: Block, stop: int) -> _State:
        """Judge the rows before ``stop``, and keep as many as windows still to come reach back to."""
        best, drawn, start = state.best, state.drawn, state.waiting
        if stop > start:
            values = block.values[start:stop]
            score = values.abs() if self.of == "abs" else values
            best = best.with_rows(
                block, score, start, before=self.window[0], per_document=self.per_document
            )
        if stop > start and self.sampled:
            lot = _lots(block.first + start, len(values), self.seed, values.device)
            own = _lots(0, max(state.numbers) + 1, self.seed + 1, values.device)
            turned = (lot[:, None] + own[list(state.numbers)]) % 1  # else all units draw alike
            score = turned.masked_fill(values == 0, -torch.inf)
            drawn = drawn.with_rows(block, score, start, before=self.window[0], per_document=False)
        spare = max(0, stop - self.window[0])
        return replace(
            state, best=best, drawn=drawn, tail=block.behind(spare), waiting=stop - spare
        )

    def result(self, state: _State, provenance: Provenance) -> TopExamples:
        last = self._judged(state, state.tail, len(state.tail))
        parts = [last.best]
        if self.sampled:
            parts.append(_by_value(last.drawn, self.window[0]))
        joined = {
            name: torch.cat([getattr(part, name) for part in parts], 1).cpu()
            for name in ("values", "tokens", "document", "position")
        }
        return TopExamples(
            site=self._reading.site, of=self.of, names=state.names, units=state.numbers, k=self.k,
            before=self.window[0], **joined, n_tokens=state.n_tokens, words=None,
            provenance=replace(provenance, seed=self.seed if self.sampled else None),
        )  # fmt: skip


def top_examples(
    source: Source | Any,
    site: str | Site,
    k: int = 10,
    *,
    units: int | Iterable[int] | None = None,
    of: Of = "value",
    transform: Transform | None = None,
    per_document: bool = True,
    sampled: int = 0,
    window: tuple[int, int] = (16, 8),
    seed: int = 0,
    model: Any = None,
    tokens: int | None = None,
    size: int = 4096,
    progress: bool | None = None,
) -> TopExamples:
    """The tokens at which each unit of a site is strongest, with the text around them.

    >>> top = top_examples(store, "L2.mlp_post", k=10, model=model)         # doctest: +SKIP
    >>> top.view(77)                                                        # doctest: +SKIP

    Exact: the same as sorting all activations, the first among equal ones. Kept in memory:
    units × (k + sampled) × window × 8 bytes.

    Args:
        source: an ActivationStore, ``interp.stream(...)``, or an iterable of Rows, in the corpus's order.
        site: a whole site, or some of it: ``"L2.mlp_post.N5,77"``, ``"L2.H3.z"``.
        k: examples for each unit; fewer where there are not so many documents.
        units: numbers of the units wanted; None: all.
        of: ``"value"``, the largest; ``"abs"``, the largest in size, of either sign; ``"norm"``, the longest
            vector: of each head for ``z`` or ``q``, of the whole for a residual stream.
        transform: a function from rows in float32, [row, ...], to [row, unit], such as a dictionary's
            ``encode`` or ``lambda x: x @ directions.T``. It is given several rows at a time and must
            treat each alone.
        per_document: at most one example of a document for each unit: its strongest.
        sampled: as many more, drawn by ``seed`` among all tokens where the unit is not zero.
        window: how many tokens are shown before and behind. Only tokens that the source has beside it:
            where special tokens were filtered out, the text has gaps, and where a document was cut at
            the context, it may break off, as it did for the model.
        model: a Model or a tokenizer, to show text; None: the source's own, if it has one, else
            ids are shown and :meth:`TopExamples.with_text` adds the text.
        tokens, size, progress: as in :func:`survey`.

    Raises:
        SiteError, RunError: as in :func:`survey`; a transform that does not fit.
        ResultError: a ``model`` that cannot read token ids.
        BudgetError: the examples of so many units do not fit in memory.
    """
    plan = Top(site, k, units, of, transform, per_document, sampled, window, seed)
    reader = getattr(source, "model", None) if model is None else model
    if model is not None:
        check_reader(model)  # now, not after the pass
    (result,) = survey(source, [plan], tokens=tokens, size=size, progress=progress)
    return result.with_text(reader) if can_read(reader) else result


def lots(index: Int[Tensor, " row"], seed: int) -> Float[Tensor, " row"]:
    """A number in [0, 1) for each row, by the seed and its number in the stream (splitmix64)."""
    x = index * -7046029254386353131
    x = x + (seed * 0x9E3779B1 + 0x7F4A7C15) % 2**62
    for shift, factor in ((30, -4658895280553007687), (27, -7723592293110705685), (31, 1)):
        x = (x ^ ((x >> shift) & (2 ** (64 - shift) - 1))) * factor
    return ((x >> 40) & 0xFFFFFF).float() / 2**24


def _lots(first: int, count: int, seed: int, device: torch.device) -> Float[Tensor, " row"]:
    return lots(torch.arange(first, first + count, device=device), seed)


def _by_value(drawn: Kept, before: int) -> Kept:
    """Drawn examples with the strongest first."""
    centre = drawn.values[..., before].nan_to_num(-torch.inf)
    order = centre.sort(dim=1, descending=True, stable=True).indices
    wide: Int[Tensor, "unit k window"] = order[..., None].expand_as(drawn.values)
    return Kept(
        drawn.score.gather(1, order), drawn.document.gather(1, order),
        drawn.position.gather(1, order), drawn.tokens.gather(1, wide), drawn.values.gather(1, wide),
    )  # fmt: skip
