"""A full circuit of one head as a result: the factored matrix with the names of its ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from interp.errors import ResultError, nearest
from interp.results import Provenance, read_file, write_file
from interp.weight_lenses.factored import Factored

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

__all__ = ["Circuit"]

_WORDS = {
    "ov": ("attended token", "output token", "change of logit"),
    "qk": ("query token", "key token", "attention score"),
    "positions": ("query position", "key position", "attention score"),
}


@dataclass(frozen=True, eq=False, repr=False)
class Circuit:
    """What one head does between each two tokens (or positions), never written out whole.

    Attributes:
        matrix: [row, column]. OV: the change of the column token's logit, in logits before the
            final norm's division, from attending fully to the row token. QK: the score before
            softmax of the row's query with the column's key.
        kind: ``"ov"``, ``"qk"`` or ``"positions"``.
        head: as ``"L1.H5"``.
        rows, columns: the tokens as text, or positions.
        offset: under rotary positions, how far before the query the key stands; else None.
        start: what stands for a token in the residual stream.
        provenance: model, versions and the call.
    """

    matrix: Factored
    kind: str
    head: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    offset: int | None
    start: str
    provenance: Provenance

    def __repr__(self) -> str:
        return f"Circuit({self.title}; {self.matrix.shape[0]} × {self.matrix.shape[1]})"

    @property
    def title(self) -> str:
        """What the numbers are, with the offset they hold at."""
        if self.kind == "ov":
            return f"{self.head} OV circuit from {self.start}"
        if self.kind == "positions":
            return f"{self.head} QK circuit of positions"
        at = {None: "", 0: ", content alone (offset 0)"}.get(
            self.offset, f", key at offset {self.offset}"
        )
        return f"{self.head} QK circuit from {self.start}{at}"

    def copying_score(self) -> float:
        """ΣRe λ / Σ|λ|, -1 to 1; of an OV circuit, 1 = each token raises its own logit.

        Read it beside a control: :func:`interp.weight_lenses.copying_scores` has one for each head.
        """
        return self.matrix.copying_score()

    def row(self, token: str | int, n: int = 10) -> DataFrame:
        """The ``n`` columns with the largest entries in one row (a token's text, or its number)."""
        return self._line(self.matrix.rows([self._index(token, self.rows)])[0], self.columns, n)

    def column(self, token: str | int, n: int = 10) -> DataFrame:
        """The ``n`` rows with the largest entries in one column."""
        index = self._index(token, self.columns)
        return self._line(self.matrix.columns([index])[:, 0], self.rows, n)

    def top(self, n: int = 20, *, largest: bool = True) -> DataFrame:
        """The ``n`` largest (or smallest) entries with the tokens at both ends.

        Goes through all rows × columns in bounded memory: seconds for 50,000 tokens on a GPU,
        minutes on a processor.
        """
        import pandas as pd

        values, where = self.matrix.top(n, largest=largest)
        row_name, column_name, _ = _WORDS[self.kind]
        return pd.DataFrame({
            row_name: [self.rows[i] for i in where[:, 0].tolist()],
            column_name: [self.columns[i] for i in where[:, 1].tolist()],
            "value": values.tolist(),
        })  # fmt: skip

    def to_frame(self, n: int = 100) -> DataFrame:
        """The ``n`` largest entries: a full circuit has too many to list."""
        return self.top(n)

    def plot(self, tokens: Sequence[str | int] | None = None, *, n: int = 12,
             title: str | None = None) -> Figure:  # fmt: skip
        """A heat map between some tokens: those given, or the ends of the largest entries.

        Args:
            tokens: texts or numbers of rows and columns alike; None takes ``n`` rows and columns:
                those of the largest entry, of the largest in other rows and columns than that,
                and so on (of positions: the first 48).

        Raises:
            ResultError: no such token, or none.
        """
        from interp.figures import heatmap

        if tokens is not None and not tokens:
            raise ResultError(
                "no tokens were given; expected some, or None for the largest entries."
            )
        if tokens is not None:
            rows = [self._index(token, self.rows) for token in tokens]
            columns = [self._index(token, self.columns) for token in tokens]
        elif self.kind == "positions":
            rows = columns = list(range(min(48, len(self.rows))))
        else:
            rows, columns = self._ends(n)
        row_name, column_name, unit = _WORDS[self.kind]
        if self.kind == "qk" and self.provenance.call.get("centre"):
            unit += " less the query's mean"
        return heatmap(
            self.matrix.entries(rows, columns),
            rows=[self.rows[i] for i in rows],
            columns=[self.columns[j] for j in columns],
            title=title or self.title,
            unit=unit,
            row_name=row_name,
            column_name=column_name,
        )

    def save(self, path: str | Path) -> Path:
        """Write the result to one safetensors file, whole or not at all."""
        tensors = {"left": self.matrix.left, "right": self.matrix.right}
        meta = {name: value for name, value in vars(self).items() if name != "matrix"}
        return write_file(path, "Circuit", tensors, meta)

    @classmethod
    def load(cls, path: str | Path) -> Circuit:
        """Read a saved result.

        Raises:
            ResultError: no such file, a damaged one, or a result of another kind.
        """
        tensors, meta = read_file(path, "Circuit")
        meta["provenance"] = Provenance(**meta["provenance"])
        meta["rows"], meta["columns"] = tuple(meta["rows"]), tuple(meta["columns"])
        return cls(matrix=Factored(**tensors), **meta)

    def _ends(self, n: int) -> tuple[list[int], list[int]]:
        """Rows and columns of the largest entries, each named once."""
        rows: list[int] = []
        columns: list[int] = []
        for i, j in self.matrix.top(64 * n)[1].tolist():
            if i not in rows and j not in columns and len(rows) < n:
                rows.append(i)
                columns.append(j)
        return rows, columns

    @staticmethod
    def _index(token: str | int, labels: tuple[str, ...]) -> int:
        if isinstance(token, int) and 0 <= token < len(labels):
            return token
        if isinstance(token, str) and token in labels:
            return labels.index(token)
        close = nearest(str(token), labels)
        raise ResultError(
            f"no row or column {token!r}: expected a number below {len(labels)} or a token's own "
            f"text, with its space; nearest: {close}."
        )

    @staticmethod
    def _line(values: Tensor, labels: tuple[str, ...], n: int) -> DataFrame:
        import pandas as pd

        best = values.topk(min(n, len(labels)))
        return pd.DataFrame({
            "token": [labels[i] for i in best.indices.tolist()], "value": best.values.tolist()
        })  # fmt: skip
