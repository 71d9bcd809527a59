"""A change of a model's weights as a value: what is added where, and to which model.

    RankOne       u vᵀ, added to a weight
    Add, Replace  a whole matrix, added or put in          (the same edits as of a run)
    WeightEdit    weight name → one of these, and the model that it was made for

An edit changes nothing until it is used: ``with model.edited(edit):`` for a while, or
``edit.apply(model)`` until ``.undo()``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import ModelError
from interp.models.edited import Edited
from interp.models.model import Model
from interp.results import Provenance, read_file, write_file
from interp.runs.edits import Add, Replace

__all__ = ["RankOne", "WeightChange", "WeightEdit", "norm_matched"]


@dataclass(frozen=True, eq=False)
class RankOne:
    """Add ``u vᵀ`` to a weight: inputs along ``u`` then write ``v`` as well.

    In the layout of ``model.weights`` (``x @ W``) ``u`` lies on the input side. The sum is done in
    float32 or better.
    """

    u: Float[Tensor, " d_in"]
    v: Float[Tensor, " d_out"]

    def __call__(self, w: Float[Tensor, "d_in d_out"]) -> Float[Tensor, "d_in d_out"]:
        if w.shape != (len(self.u), len(self.v)):
            raise ModelError(
                f"a rank-one change of {[len(self.u), len(self.v)]} does not fit a weight of "
                f"{list(w.shape)}: it was made for another weight or another model."
            )
        wide = torch.promote_types(w.dtype, torch.float32)
        return (w.to(wide) + torch.outer(self.u.to(w.device, wide), self.v.to(w.device, wide))).to(
            w.dtype
        )

    @property
    def norm(self) -> float:
        """Frobenius norm of the change, in the unit of the weight."""
        return float(self.u.norm() * self.v.norm())


WeightChange = RankOne | Add | Replace
_PARTS: Final[dict[type, tuple[str, ...]]] = {
    RankOne: ("u", "v"), Add: ("value",), Replace: ("value",),
}  # fmt: skip


@dataclass(frozen=True, eq=False, repr=False)
class WeightEdit:
    """Changes of named weights, and the model that they were made for.

    Attributes:
        changes: weight name (``"L0.W_out"``) → RankOne, Add or Replace.
        provenance: how it was made; its ``weights_hash`` is the model that it fits.
        notes: numbers about how it was made, such as the last loss.
    """

    changes: Mapping[str, WeightChange]
    provenance: Provenance
    notes: Mapping[str, float] = field(default_factory=dict)

    def __repr__(self) -> str:
        kinds = ", ".join(f"{name}: {type(c).__name__}" for name, c in self.changes.items())
        return f"WeightEdit({kinds}; for {self.provenance.model!r})"

    def on(self, model: Model) -> Mapping[str, WeightChange]:
        """The changes, if they were made for this model as it is now.

        Raises:
            ModelError: the model's weights are not those that the edit was made for.
        """
        if model.weights_hash != self.provenance.weights_hash:
            raise ModelError(
                f"this edit was made for {self.provenance.model!r} with weights "
                f"{self.provenance.weights_hash[:12]}…, but {model.name!r} has "
                f"{model.weights_hash[:12]}…: another model, or one that is edited already. Undo the "
                "other edit, or give edit.changes to model.edited, which are not checked."
            )
        return self.changes

    def apply(self, model: Model) -> Edited:
        """Edit the model until ``.undo()`` of what is returned is called, exactly as ``with`` does.

        Raises:
            ModelError: see :meth:`on`.
        """
        edited = model.edited(self)
        edited.__enter__()
        return edited

    def save(self, path: str | Path) -> Path:
        """Write the edit to one safetensors file; a rank-one change stays two vectors."""
        tensors = {
            f"{name}/{part}": torch.as_tensor(getattr(change, part))
            for name, change in self.changes.items()
            for part in _PARTS[type(change)]
        }
        kinds = {name: type(change).__name__ for name, change in self.changes.items()}
        meta = {"changes": kinds, "provenance": self.provenance, "notes": dict(self.notes)}
        return write_file(path, "WeightEdit", tensors, meta)

    @classmethod
    def load(cls, path: str | Path) -> WeightEdit:
        """Read a saved edit."""
        tensors, meta = read_file(path, "WeightEdit")
        kinds = {kind.__name__: kind for kind in _PARTS}
        changes = {
            name: kinds[kind](*(tensors[f"{name}/{part}"] for part in _PARTS[kinds[kind]]))
            for name, kind in meta["changes"].items()
        }
        return cls(changes, Provenance(**meta["provenance"]), meta["notes"])


def norm_matched(edit: WeightEdit, *, seed: int) -> WeightEdit:
    """The null of an edit: changes of the same kind and Frobenius norm in random directions.

    What this does to a model is what the size of an edit does, whatever its direction.

    Raises:
        ModelError: the edit puts whole weights in, which have no norm as a change.
    """
    generator = torch.Generator().manual_seed(seed)

    def like(x: Tensor) -> Tensor:
        random = torch.randn(x.shape, generator=generator, dtype=torch.float64)
        return (random * (x.double().norm().cpu() / random.norm())).to(x)

    changes: dict[str, WeightChange] = {}
    for name, change in edit.changes.items():
        if isinstance(change, RankOne):
            changes[name] = RankOne(like(change.u), like(change.v))
        elif isinstance(change, Add):
            changes[name] = Add(like(torch.as_tensor(change.value)))
        else:
            raise ModelError(
                f"the change of {name!r} puts a whole weight in: expected RankOne or Add, whose norm "
                "can be matched. Write it as Add(new - old)."
            )
    call = {**edit.provenance.call, "control": "norm_matched"}
    return WeightEdit(changes, replace(edit.provenance, call=call, seed=seed), {})
