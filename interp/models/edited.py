"""Weights changed for the length of a ``with`` block, and put back to the bit.

>>> with model.edited({"L2.W_out": lambda w: 0 * w}) as edited:        # doctest: +SKIP
...     edited.run("The capital of France is").logits                  # the same model, changed

The edits write through to the Hugging Face parameters: everything that runs the model sees them,
this package or not. The values that stood there are copied first and copied back at the end,
also after an exception or Ctrl-C, so the model is equal to the bit afterwards, with the same
``weights_hash``. dtype, device and ``requires_grad`` stay as they are. What else is written to the
named weights meanwhile is undone with the edit.

Edits nest. They end in reverse order; an edit that ends before one that was made inside it
takes that one with it, and says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.errors import ModelError
from interp.models.writable import Place, embedding_names, places

if TYPE_CHECKING:
    from interp.models.model import Model

__all__ = ["Change", "Edited", "Value"]

#: A new weight, or a function of the old one: ``Add``, ``Scale``, ``Zero`` and ``Replace`` are.
Value = Tensor | Callable[[Tensor], Tensor]
_Versions = tuple[tuple[int, int], ...]


@runtime_checkable
class Change(Protocol):
    """Edits that know which model they were made for, such as ``editing.WeightEdit``."""

    def on(self, model: Any) -> Mapping[str, Value]:
        """The edits, if they are this model's; ModelError if not."""
        ...


#: The edits that stand on each model, in the order in which they were made.
_standing: WeakKeyDictionary[nn.Module, list[Edited]] = WeakKeyDictionary()


class Edited:
    """A model with some weights changed, between ``__enter__`` and ``__exit__``.

    Args:
        model: the model, which is yielded itself.
        edits: weight name → a tensor of the weight's shape, or a function of the old value (one
            call for each layer and head that the name means). Names are TransformerLens's
            (``"L2.W_out"``, ``"L1.H3.W_O"``, ``"L0-3.b_in"``, ``"W_U"``) in its layouts
            (``x @ W``), or Hugging Face's in Hugging Face's. Applied in the order given. Or a
            ``WeightEdit``.

    Raises:
        ModelError: no such weight; a value of another shape; embeddings that are tied and
            named alone (writing ``W_E`` would write ``W_U``); a ``WeightEdit`` of another model.
    """

    def __init__(self, model: Model, edits: Mapping[str, Value] | Change) -> None:
        self._model = model
        self._edits = edits
        self._old: list[tuple[str, Tensor]] = []
        self._hash: str | None = None
        self._written: _Versions = ()

    def __enter__(self) -> Model:
        stack = _standing.setdefault(self._model.hf, [])
        if self in stack:
            raise ModelError("this edit stands already: make a new one with model.edited(...).")
        edits = self._edits.on(self._model) if isinstance(self._edits, Change) else self._edits
        plan = _plan(self._model, edits)
        self._hash = _known_hash(self._model)
        stack.append(self)
        try:
            for place, value in plan:
                old = place.read()
                new = _new(place, value, old)
                self._old.append((place.name, old))
                place.write(new)
            self._written = _versions(self._model)
        except BaseException:
            self.undo()
            raise
        return self._model

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.undo()

    def undo(self) -> None:
        """Put every weight back as it was. Without effect if that is done already.

        Raises:
            ModelError: edits made after this one still stood; they were undone with it.
        """
        stack = _standing.get(self._model.hf, [])
        if self not in stack:
            return
        undone = stack[stack.index(self) :][::-1]
        names = ", ".join(dict.fromkeys(name for name, _ in self._old))
        interrupts = [stop for edit in undone if (stop := edit._restore()) is not None]
        del stack[stack.index(self) :]
        if interrupts:
            raise interrupts[0]
        if len(undone) > 1:
            raise ModelError(
                f"an edit of {names} ended while {len(undone) - 1} made inside it still "
                "stood: they were undone with it, and the model is as before this edit. End edits "
                "in reverse order."
            )

    def _restore(self) -> KeyboardInterrupt | None:
        """Copy the old values back, whatever interrupts; writing one twice does no harm."""
        interrupted, untouched = None, False
        try:
            untouched = _versions(self._model) == self._written
        except KeyboardInterrupt as error:
            interrupted = error
        while self._old:
            try:
                name, old = self._old[-1]
                places(self._model.anatomy, name)[0].write(old)
                self._old.pop()
            except KeyboardInterrupt as error:
                interrupted = error
        if untouched and self._hash is not None:
            try:
                self._model._hashed.update(state=_versions(self._model), hash=self._hash)
            except KeyboardInterrupt as error:
                interrupted = error
        return interrupted


def _plan(model: Model, edits: Mapping[str, Value]) -> list[tuple[Place, Value]]:
    """Every place with its value, before anything is written."""
    if not isinstance(edits, Mapping):
        raise ModelError(
            f"edited() got a {type(edits).__name__}; expected a dictionary from weight names to "
            "tensors or functions, such as {'L2.W_out': lambda w: 0 * w}, or a WeightEdit."
        )
    for name, value in edits.items():
        if not isinstance(name, str):
            raise ModelError(f"no weight is called {name!r}: expected text, such as 'L2.W_out'.")
        if not isinstance(value, Tensor) and not callable(value):
            raise ModelError(
                f"the edit of {name!r} is a {type(value).__name__}; expected a tensor or a "
                "function tensor -> tensor."
            )
    edits = _untied(model, edits)
    return [(place, value) for name, value in edits.items()
            for place in places(model.anatomy, name)]  # fmt: skip


def _untied(model: Model, edits: Mapping[str, Value]) -> Mapping[str, Value]:
    """The edits without the second name of an embedding that is tied to the unembedding."""
    anatomy = model.anatomy
    reads: Any = anatomy.hf.get_input_embeddings()
    writes: Any = anatomy.hf.get_output_embeddings()
    if writes is None or reads.weight.data_ptr() != writes.weight.data_ptr():
        return edits
    sides = [[name for name in edits if name in names] for names in embedding_names(anatomy)]
    if not any(sides):
        return edits
    if not all(sides):
        given, other = (sides[0], "W_U") if sides[0] else (sides[1], "W_E")
        raise ModelError(
            f"{given[0]!r} is tied to {other}: they are one parameter, and writing one writes the "
            f"other. Name both, with one value ({other!r} is its transpose), if that is meant; or "
            "edit a run at 'embed', or its logits."
        )
    first, second = sides[0][-1], sides[1][-1]
    one, other_one = (
        _new(place, edits[name], place.read())
        for name in (first, second)
        for place in places(anatomy, name)
    )
    if not torch.equal(one, (other_one.T if second.endswith("W_U") else other_one).to(one)):
        raise ModelError(
            f"{first!r} and {second!r} are tied, and were given two different values: they are one "
            "parameter, which holds one."
        )
    dropped = {*sides[0], *sides[1]} - {first}
    return {name: value for name, value in edits.items() if name not in dropped}


def _new(place: Place, value: Value, old: Tensor) -> Float[Tensor, "..."]:
    new = value if isinstance(value, Tensor) else value(old.clone())
    if not isinstance(new, Tensor) or new.shape != place.shape:
        given = list(new.shape) if isinstance(new, Tensor) else type(new).__name__
        raise ModelError(
            f"the edit of {place.name!r} gives {given}, but the weight is {list(place.shape)}: "
            "give a tensor of that shape. The layout is the one of model.weights (x @ W), or Hugging "
            "Face's under Hugging Face's name."
        )
    return new


def _versions(model: Model) -> _Versions:
    return tuple((id(p), p._version) for p in model.hf.parameters())


def _known_hash(model: Model) -> str | None:
    """The hash of the weights as they are, if it is known without computing it."""
    known = model._hashed.get("state") == _versions(model)
    return str(model._hashed["hash"]) if known else None
