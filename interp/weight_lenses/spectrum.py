"""Singular values and vectors of a weight matrix, with what they decode to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from jaxtyping import Float
from torch import Tensor

from interp.errors import ResultError
from interp.geometry.spectrum import entropy_rank
from interp.results import Provenance, read_file, write_file
from interp.weight_lenses.decode import DecodeResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

__all__ = ["Spectrum"]

_PARTS = ("read", "written")


@dataclass(frozen=True, eq=False, repr=False)
class Spectrum:
    """The singular value decomposition of one weight matrix.

    Attributes:
        name: as ``"L2.H1.ov"``.
        values: all singular values that can differ from 0, largest first.
        null: those of Gaussian factors of the same shapes and the same Frobenius norm.
        left, right: singular vectors of the largest values; [d_model or d_mlp, n].
        read: what the left vectors decode to; of ``qk``, the queries' side. None for ``mlp_out``.
        written: what the right vectors decode to; of ``qk``, the keys' side. None for ``mlp_in``.
        offset: of ``qk`` under rotary positions; else None.
        provenance: model, versions and the call.
    """

    name: str
    values: Float[Tensor, " r"]
    null: Float[Tensor, " r"]
    left: Float[Tensor, "in n"]
    right: Float[Tensor, "out n"]
    read: DecodeResult | None
    written: DecodeResult | None
    offset: int | None
    provenance: Provenance

    def __repr__(self) -> str:
        return (
            f"Spectrum({self._title}: {len(self.values)} values, effective rank "
            f"{self.effective_rank:.1f}, Gaussian {self.null_effective_rank:.1f})"
        )

    @property
    def effective_rank(self) -> float:
        """Between 1 and the number of values (:func:`interp.geometry.effective_rank`)."""
        return float(entropy_rank(self.values))

    @property
    def null_effective_rank(self) -> float:
        """The same of the Gaussian control."""
        return float(entropy_rank(self.null))

    @property
    def _title(self) -> str:
        return self.name + ("" if self.offset is None else f" at offset {self.offset}")

    def to_frame(self) -> DataFrame:
        """One row for each singular value: ``value``, ``null``, its share of all squares, and the
        best five tokens of each decoded side."""
        import pandas as pd

        squares = self.values.square()
        columns = {
            "index": list(range(len(self.values))),
            "value": self.values.tolist(),
            "null": self.null.tolist(),
            "share": (squares / squares.sum().clamp(min=1e-30)).tolist(),
        }
        for part in _PARTS:
            found: DecodeResult | None = getattr(self, part)
            if found is not None:
                rest = [""] * (len(self.values) - len(found.names))
                for end in ("top", "bottom"):
                    rows = getattr(found, f"{end}_tokens")
                    columns[f"{part}_{end}"] = [" ".join(row[:5]) for row in rows] + rest
        return pd.DataFrame(columns)

    def plot(self, *, title: str | None = None) -> Figure:
        """The spectrum beside that of Gaussian factors."""
        from interp.figures import lines

        step = max(1, len(self.values) // 16)
        kept = slice(None, None, step)
        labels = [str(i) for i in range(len(self.values))][kept]
        curves = {
            f"weights (effective rank {self.effective_rank:.1f})": self.values[kept].tolist(),
            f"Gaussian ({self.null_effective_rank:.1f})": self.null[kept].tolist(),
        }
        return lines(labels, curves, title=title or f"singular values of {self._title}",
                     x_name="index", y_name="singular value", bottom=0.0)  # fmt: skip

    def plot_tokens(self, side: Literal["read", "written"] = "written", *, rows: int = 12,
                    title: str | None = None) -> Figure:  # fmt: skip
        """What the singular vectors of one side decode to.

        Raises:
            ResultError: that side does not lie in the residual stream.
        """
        found: DecodeResult | None = getattr(self, side, None) if side in _PARTS else None
        if found is None:
            have = " or ".join(repr(part) for part in _PARTS if getattr(self, part) is not None)
            raise ResultError(f"side={side!r} of {self.name} is not decoded; expected {have}.")
        words = {"read": "read", "written": "written"}
        if self.name.endswith("qk"):
            words = {"read": "query", "written": "key"}
        return found.plot(
            rows=rows, title=title or f"{self._title}: singular vectors, {words[side]} side"
        )

    def save(self, path: str | Path) -> Path:
        """Write the result to one safetensors file, whole or not at all."""
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        meta = {name: value for name, value in vars(self).items() if name not in tensors}
        for part in _PARTS:
            found: DecodeResult | None = meta[part]
            if found is not None:
                own = {n: v for n, v in vars(found).items() if isinstance(v, Tensor)}
                tensors |= {f"{part}.{name}": value for name, value in own.items()}
                meta[part] = {n: v for n, v in vars(found).items() if n not in own}
        return write_file(path, "Spectrum", tensors, meta)

    @classmethod
    def load(cls, path: str | Path) -> Spectrum:
        """Read a saved result.

        Raises:
            ResultError: no such file, a damaged one, or a result of another kind.
        """
        tensors, meta = read_file(path, "Spectrum")
        meta["provenance"] = Provenance(**meta["provenance"])
        for part in _PARTS:
            if meta[part] is not None:
                prefix = f"{part}."
                own = {n: tensors.pop(n) for n in list(tensors) if n.startswith(prefix)}
                own = {n.removeprefix(prefix): value for n, value in own.items()}
                meta[part] = DecodeResult.of(meta[part], own)
        return cls(**{**meta, **tensors})
