"""How well a few features tell texts apart, beside the model's own activations and null controls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import ResultError
from interp.results import Provenance, Stored

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

__all__ = ["SparseProbing"]

_Z = 1.959964


@dataclass(frozen=True, eq=False, repr=False)
class SparseProbing(Stored):
    """Test accuracies of probes, 0 to 1; classes are balanced, so chance is a half.

    Attributes:
        rows: the dictionaries.
        tasks: binary tasks.
        probes: ``"sae_top_1"``, ... on that many features; ``"sae"`` on all; ``"llm_top_1"``, ... and
            ``"llm"`` on the activations that the dictionary reads.
        accuracy: of each probe.
        shuffled: the same probes trained on shuffled labels, a mean over several shuffles.
        random_model: the same on the model's random twin; NaN if it was not run.
        chosen: the features that a probe on the most of them uses, the best first.
        n_train, n_test: texts of each task.
        provenance: model, hash of the texts, seed, versions and the call.
    """

    rows: tuple[str, ...]
    tasks: tuple[str, ...]
    probes: tuple[str, ...]
    accuracy: Float[Tensor, "row task probe"]
    shuffled: Float[Tensor, "row task probe"]
    random_model: Float[Tensor, "row task probe"]
    chosen: Int[Tensor, "row task k"]
    n_train: Int[Tensor, " task"]
    n_test: Int[Tensor, " task"]
    provenance: Provenance

    def __repr__(self) -> str:
        means = ", ".join(
            f"{name} {value:.2f}"
            for name, value in zip(self.probes, self.accuracy[0].mean(0).tolist(), strict=True)
        )
        return f"SparseProbing({self.rows[0]}, {len(self.tasks)} tasks: {means})"

    def to_frame(self) -> DataFrame:
        """One row for each dictionary, task and probe.

        Columns: ``dictionary``, ``task``, ``probe``, ``accuracy``, ``low``, ``high`` (Wilson's 95%
        interval over test texts), ``shuffled``, ``random_model``, ``n_train``, ``n_test``.
        """
        import pandas as pd

        low, high = self._wilson()
        records = []
        for i, row in enumerate(self.rows):
            for j, task in enumerate(self.tasks):
                for k, probe in enumerate(self.probes):
                    records.append({
                        "dictionary": row, "task": task, "probe": probe,
                        "accuracy": float(self.accuracy[i, j, k]),
                        "low": float(low[i, j, k]), "high": float(high[i, j, k]),
                        "shuffled": float(self.shuffled[i, j, k]),
                        "random_model": float(self.random_model[i, j, k]),
                        "n_train": int(self.n_train[j]), "n_test": int(self.n_test[j]),
                    })  # fmt: skip
        return pd.DataFrame(records)

    def _wilson(self) -> tuple[Float[Tensor, "row task probe"], Float[Tensor, "row task probe"]]:
        """Wilson's interval, which has a width at accuracies of 0 and 1 too."""
        n = self.n_test[:, None].double()
        middle = (self.accuracy + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
        within = self.accuracy * (1 - self.accuracy) / n + _Z**2 / (4 * n**2)
        half = _Z / (1 + _Z**2 / n) * within.sqrt()
        return middle - half, middle + half

    def means(self) -> list[dict[str, Any]]:
        """Means over tasks, as SAEBench reports them, in the form of an evaluation's rows."""
        spread = self.accuracy * (1 - self.accuracy) / self.n_test[:, None]
        half = _Z * spread.sum(1).sqrt() / len(self.tasks)
        return [
            {
                "dictionary": row, "metric": f"{probe}_test_accuracy",
                "value": float(self.accuracy[i, :, k].mean()),
                "low": float(self.accuracy[i, :, k].mean() - half[i, k]),
                "high": float(self.accuracy[i, :, k].mean() + half[i, k]),
                "random_model": float(self.random_model[i, :, k].mean()),
                "shuffled": float(self.shuffled[i, :, k].mean()),
            }
            for i, row in enumerate(self.rows)
            for k, probe in enumerate(self.probes)
        ]  # fmt: skip

    def plot(self, *, row: str | int = 0, title: str | None = None) -> Figure:
        """Means over tasks of each probe of one dictionary, beside both null controls.

        Raises:
            ResultError: there is no such dictionary.
        """
        from interp.evaluation.picture import draw_probing

        if row not in self.rows and row not in range(len(self.rows)):
            raise ResultError(f"no dictionary {row!r} in this result, of {', '.join(self.rows)}.")
        return draw_probing(self, self.rows.index(row) if isinstance(row, str) else row, title)
