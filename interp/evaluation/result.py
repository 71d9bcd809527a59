"""What an evaluation found: every metric with its interval, beside its null controls."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import ResultError, nearest
from interp.evaluation.measures import MEASURES
from interp.evaluation.probing_result import SparseProbing
from interp.intervals import Interval
from interp.results import Provenance, Stored, read_file, write_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

__all__ = ["CONTROLS", "TOGETHER", "Evaluation"]

#: The null controls, as they are called in frames.
CONTROLS = ("permuted", "random_model", "random_dictionary")
TOGETHER = "together"
_PROBING = "probing."


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation(Stored):
    """Metrics of dictionaries in a model on texts: see :mod:`interp.evaluation.measures` for each.

    Attributes:
        rows: each dictionary; of one with several parts (a cross-layer transcoder) then each written
            site, of which only reconstruction and sparsity are measured; and ``"together"``, all
            dictionaries spliced in at once, where there are several that can be.
        sites: what each row replaces, ``"L2.mlp"`` or several.
        variants: ``"value"``, then those null controls that were run.
        values, low, high: the metrics in the order of ``metrics``, and the ends of their 95%
            intervals over texts; NaN where there is none.
        parts: names of the encoders, one after another ...
        features: ... and how many features each has.
        frequency: the share of the scored tokens in which each feature is active, for
            ``frequency_of`` (the variants that have features of their own).
        tokens, predictions, texts: what was scored: tokens that are real and not special, those of
            them with a next token to predict, and documents. Other tokens are neither counted nor
            replaced.
        notes: what the reader must know.
        probing: sparse probing, if it was asked for.
        provenance: model, hash of the scored tokens, seed, versions and the call.
    """

    rows: tuple[str, ...]
    sites: tuple[str, ...]
    metrics: tuple[str, ...]
    variants: tuple[str, ...]
    values: Float[Tensor, "row metric variant"]
    low: Float[Tensor, "row metric variant"]
    high: Float[Tensor, "row metric variant"]
    parts: tuple[str, ...]
    features: Int[Tensor, " part"]
    frequency: Float[Tensor, "own feature"]
    frequency_of: tuple[str, ...]
    tokens: int
    predictions: int
    texts: int
    notes: tuple[str, ...]
    provenance: Provenance
    probing: SparseProbing | None = None

    def __repr__(self) -> str:
        row = TOGETHER if TOGETHER in self.rows else self.rows[0]
        said = ", ".join(
            f"{name} {self.value(metric, row):.3g}"
            for name, metric in (
                ("FVU", "fvu"), ("L0", "l0"), ("dead", "dead"), ("CE", "ce_original"),
                ("→", "ce_spliced"), ("recovered", "ce_recovered_mean"),
            )
        )  # fmt: skip
        return f"Evaluation({row}: {said.replace(', →', ' →')}; {self.tokens:,} tokens)"

    def value(self, metric: str, row: str | int | None = None, *, of: str = "value") -> float:
        """One number.

        Args:
            metric: ``"fvu"``, ``"l0"``, ``"ce_recovered_mean"``, ...
            row: a name or number; None: the first.
            of: ``"value"`` or a null control.

        Raises:
            ResultError: there is no such metric, row or control.
        """
        return float(self.values[self._place(metric, row, of)])

    def interval(self, metric: str, row: str | int | None = None, *, of: str = "value") -> Interval:
        """The same with its 95% interval over texts."""
        at = self._place(metric, row, of)
        return Interval(self.values[at], self.low[at], self.high[at])

    def density(self, part: str | int = 0, *, of: str = "value") -> Float[Tensor, " feature"]:
        """The share of tokens in which each feature of a part is active.

        Raises:
            ResultError: there is no such part, or no features of that variant.
        """
        number = part if isinstance(part, int) else _index(part, self.parts, "part")
        if not 0 <= number < len(self.parts):
            raise ResultError(f"part {number}; this result has {len(self.parts)}, from 0.")
        start = int(self.features[:number].sum())
        variant = _index(of, self.frequency_of, "features of the variant")
        return self.frequency[variant, start : start + int(self.features[number])]

    def to_frame(self) -> DataFrame:
        """One row for each dictionary and metric, NaN where a metric has no value.

        Columns: ``dictionary``, ``site``, ``metric``, ``unit``, ``value``, ``low``, ``high`` (95%
        interval over texts), and a column for each null control that was run. Sparse probing adds
        rows: mean test accuracies over tasks, their intervals over test texts, and a column
        ``shuffled`` (the probes trained on shuffled labels).
        """
        import pandas as pd

        part_less = self.metrics[self.metrics.index("ce_original") :]
        records: list[dict[str, Any]] = []
        for i, (row, site) in enumerate(zip(self.rows, self.sites, strict=True)):
            for j, metric in enumerate(self.metrics):
                own = dict(zip(self.variants, self.values[i, j].tolist(), strict=True))
                if metric in part_less and math.isnan(self.value("ce_original", i)):
                    continue  # a part of a dictionary has no loss of its own
                records.append({
                    "dictionary": row, "site": site, "metric": metric,
                    "unit": MEASURES[metric].unit, "value": own.pop("value"),
                    "low": float(self.low[i, j, 0]), "high": float(self.high[i, j, 0]), **own,
                })  # fmt: skip
        if self.probing is not None:
            places = dict(zip(self.rows, self.sites, strict=True))
            records += [
                {**one, "site": places[one["dictionary"]], "unit": "share"}
                for one in self.probing.means()
            ]
        return pd.DataFrame(records)

    def table(self, *, of: str = "value") -> DataFrame:
        """One row for each dictionary, a column for each metric."""
        import pandas as pd

        values = self.values[:, :, _index(of, self.variants, "variant")]
        columns = dict(zip(self.metrics, values.T.tolist(), strict=True))
        return pd.DataFrame({"dictionary": list(self.rows), "site": list(self.sites), **columns})

    def plot(self, *, title: str | None = None) -> Figure:
        """How often features fire, and what each dictionary does to the loss, with null controls."""
        from interp.evaluation.picture import draw

        return draw(self, title)

    def save(self, path: str | Path) -> Path:
        """Write the result to one safetensors file, whole or not at all."""
        tensors = {n: v for n, v in vars(self).items() if isinstance(v, Tensor)}
        meta = {n: v for n, v in vars(self).items() if n not in tensors and n != "probing"}
        if self.probing is not None:
            inner = vars(self.probing)
            tensors |= {_PROBING + n: v for n, v in inner.items() if isinstance(v, Tensor)}
            meta |= {_PROBING + n: v for n, v in inner.items() if not isinstance(v, Tensor)}
        return write_file(path, "Evaluation", tensors, meta)

    @classmethod
    def load(cls, path: str | Path) -> Evaluation:
        """Read a saved result.

        Raises:
            ResultError: no such file, a damaged one, or a result of another kind.
        """
        tensors, found = read_file(path, "Evaluation")
        every: dict[str, Any] = {
            name: tuple(x) if isinstance(x, list) else x for name, x in found.items()
        } | dict(tensors)
        inner = {n.removeprefix(_PROBING): v for n, v in every.items() if n.startswith(_PROBING)}
        own = {field.name: every.get(field.name) for field in fields(cls)}
        own["provenance"] = Provenance(**every["provenance"])
        if inner:
            inner["provenance"] = Provenance(**inner["provenance"])
            own["probing"] = SparseProbing(**inner)
        return cls(**own)  # type: ignore[arg-type]

    def _place(self, metric: str, row: str | int | None, of: str) -> tuple[int, int, int]:
        number = (
            row if isinstance(row, int) else 0 if row is None else _index(row, self.rows, "row")
        )
        if not 0 <= number < len(self.rows):
            raise ResultError(f"row {number}; this result has {len(self.rows)}, from 0.")
        return (
            number, _index(metric, self.metrics, "metric"), _index(of, self.variants, "variant"),
        )  # fmt: skip


def _index(name: str, names: tuple[str, ...], what: str) -> int:
    if name not in names:
        raise ResultError(f"no {what} {name!r} in this result; nearest: {nearest(name, names)}.")
    return names.index(name)
