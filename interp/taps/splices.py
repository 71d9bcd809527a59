"""Splices: computations put in the place of a model's own, with features that can be read and edited.

A splice reads some tensors of a run, makes features of them, and writes other tensors from the
features. :func:`woven` turns splices and the functions of a run into the functions that the hooks
call, so a splice lives as long as they do: for one run. At a tensor that is both written and read
this is the order, whichever splice came first:

1. what another part writes there (a transcoder's output),
2. what is read and written in one place (an SAE's reconstruction),
3. the run's own functions (edits, then what is saved),
4. what is read there (a transcoder's input).

So an edit of the site acts on what the model goes on with, and dictionaries see edits before them.

**Error nodes.** With them, a splice writes ``x + (decode(edited) - decode(own)) + (edited error -
error)``, where ``x`` is the model's own tensor and ``error = x - decode(own)``: equal to ``x`` to the bit
where nothing was edited. Gradients reach what lies before only through the features: the error is
constant (Marks et al. 2024, "Sparse Feature Circuits", arXiv:2403.19647, §2).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import RunError

__all__ = ["Key", "Splice", "woven"]

#: A point and its layer (None for points which belong to no block).
Key = tuple[str, int | None]
Fn = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Splice:
    """A computation that stands in a model's run.

    Attributes:
        name: for people: ``transcoder-L2.mlp``.
        reads, writes, features: what each of its parts reads and writes, and where its features are
            shown. Part i's features act on the i-th write and all behind it.
        errors: where what it leaves out is shown, for each write; empty without error nodes.
        d_sae: features of a part.
        encode: (part, what it reads) → features.
        decode: (number of the write, features of the parts up to it, what that part reads) → what
            is written.
        identity: a digest of what it computes.
    """

    name: str
    reads: tuple[Key, ...]
    writes: tuple[Key, ...]
    features: tuple[Key, ...]
    errors: tuple[Key, ...]
    d_sae: int
    encode: Callable[[int, Float[Tensor, "batch pos *d_in"]], Float[Tensor, "batch pos d_sae"]]
    decode: Callable[
        [int, Sequence[Float[Tensor, "batch pos d_sae"]], Float[Tensor, "batch pos *d_in"]],
        Float[Tensor, "batch pos *d_out"],
    ]
    identity: Callable[[], str]

    @property
    def shown(self) -> frozenset[Key]:
        """Sites that are there because of it."""
        return frozenset((*self.features, *self.errors))


class _Passing:
    """A splice on its way through one run: what it has read so far."""

    def __init__(self, splice: Splice, functions: Mapping[Key, Fn]) -> None:
        self._splice = splice
        self._functions = functions
        self._inputs: dict[int, Tensor] = {}
        self._own: dict[int, Tensor] = {}
        self._edited: dict[int, Tensor] = {}

    def read(self, part: int, x: Tensor) -> Tensor:
        """Make a part's features, and show them to their function."""
        own = self._splice.encode(part, x)
        fn = self._functions.get(self._splice.features[part])
        self._inputs[part], self._own[part] = x, own
        self._edited[part] = own if fn is None else fn(own)
        return x

    def write(self, number: int, x: Tensor) -> Tensor:
        """What goes on in the place of ``x``."""
        splice = self._splice
        if number not in self._edited:
            raise RunError(
                f"{splice.name} was to write {_text(splice.writes[number])} before this model had "
                f"computed {_text(splice.reads[number])}, which it reads."
            )
        out = self._with_error(number, x) if splice.errors else self._decoded(number, self._edited)
        if len(splice.reads) == 1:  # nobody else needs them
            for kept in (self._inputs, self._own, self._edited):
                kept.clear()
        return out if out is x else out.to(x.dtype)

    def _decoded(self, number: int, features: Mapping[int, Tensor]) -> Tensor:
        parts = [features[part] for part in range(number + 1)]
        return self._splice.decode(number, parts, self._inputs[number])

    def _with_error(self, number: int, x: Tensor) -> Tensor:
        fn = self._functions.get(self._splice.errors[number])
        edited = any(self._edited[i] is not self._own[i] for i in range(number + 1))
        graph = torch.is_grad_enabled() and any(
            self._edited[i].requires_grad for i in range(number + 1)
        )
        if not (edited or graph or fn is not None):
            return x
        new = self._decoded(number, self._edited)
        with torch.no_grad():
            old = self._decoded(number, self._own) if edited else new.detach()
        out = x.detach() + (new - old)
        if fn is None:
            return out
        error = x.detach() - old
        if torch.is_grad_enabled():
            error.requires_grad_()
        return out + (fn(error) - error.detach())


def woven(splices: Sequence[Splice], functions: Mapping[Key, Fn]) -> dict[Key, Fn]:
    """The functions of a run with the splices at their places among them."""
    shown = frozenset[Key]().union(*(splice.shown for splice in splices))
    steps: dict[Key, tuple[list[Fn], list[Fn], list[Fn], list[Fn]]] = {}

    def at(key: Key) -> tuple[list[Fn], list[Fn], list[Fn], list[Fn]]:
        return steps.setdefault(key, ([], [], [], []))

    for splice in splices:
        passing = _Passing(splice, functions)
        for i, (read, write) in enumerate(zip(splice.reads, splice.writes, strict=True)):
            if read == write:
                at(read)[1].append(_both(passing, i))
            else:
                at(read)[3].append(_bound(passing.read, i))
                at(write)[0].append(_bound(passing.write, i))
    for key, fn in functions.items():
        if key not in shown:
            at(key)[2].append(fn)
    return {key: _in_order([fn for group in groups for fn in group])
            for key, groups in steps.items()}  # fmt: skip


def _bound(step: Callable[[int, Tensor], Tensor], number: int) -> Fn:
    return lambda x: step(number, x)


def _both(passing: _Passing, number: int) -> Fn:
    return lambda x: passing.write(number, passing.read(number, x))


def _in_order(fns: Sequence[Fn]) -> Fn:
    def apply(x: Tensor) -> Tensor:
        for fn in fns:
            x = fn(x)
        return x

    return apply


def _text(key: Key) -> str:
    return key[0] if key[1] is None else f"L{key[1]}.{key[0]}"
