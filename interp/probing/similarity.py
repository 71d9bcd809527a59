"""``interp.similarity``: which layers of two models represent the same examples alike?

Every pair of sites, one of each model, is compared by how examples relate to each other there
(CKA, or RSA), so the models may differ in width. Compare a model with itself to see where its
representation turns, with its untrained twin to see what comes from the tokens alone, and with
an earlier checkpoint to see what training changed. Whatever sets examples apart counts: prompts of
two templates are two clusters in any model, so compare prompts of one template.

Sources: Kornblith et al. 2019, arXiv:1905.00414; Kriegeskorte et al. 2008.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp import geometry
from interp.errors import MetricError, PromptError
from interp.models.model import Model
from interp.probing.features import EACH, collect, tokens_counted
from interp.probing.picture import parsed, steps_of
from interp.progress import Bar
from interp.results import Provenance, Stored
from interp.sites import Site

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

__all__ = ["Similarity", "similarity"]

Method = Literal["cka", "cka-biased", "rsa", "rsa-cosine"]
_METHODS: Final[dict[str, Callable[[Tensor, Tensor], Tensor]]] = {
    "cka": geometry.cka,
    "cka-biased": lambda x, y: geometry.cka(x, y, debiased=False),
    "rsa": geometry.rsa,
    "rsa-cosine": lambda x, y: geometry.rsa(x, y, distance="cosine"),
}
_UNITS: Final = {
    "cka": "debiased linear CKA", "cka-biased": "linear CKA",
    "rsa": "RSA (Spearman, correlation distance)", "rsa-cosine": "RSA (Spearman, cosine distance)",
}  # fmt: skip
_MOST_PAIRS = 6000  # rows whose n × n distances take 300 MB


@dataclass(frozen=True, eq=False, repr=False)
class Similarity(Stored):
    """How alike two models represent the same examples, site by site.

    Attributes:
        values: the similarity of each pair of sites; about 0 = unrelated, 1 = alike; NaN where
            all examples are the same at one of them.
        null: the same with the examples of the second model shuffled.
        sites_a, sites_b: the sites of each model.
        names: of both models.
        method: ``"cka"``, ``"cka-biased"``, ``"rsa"`` or ``"rsa-cosine"``.
        n: how many examples were compared.
        provenance: of the first model; the call names the second one's weights.
    """

    values: Float[Tensor, "site_a site_b"]
    null: Float[Tensor, "shuffle site_a site_b"]
    sites_a: tuple[str, ...]
    sites_b: tuple[str, ...]
    names: tuple[str, ...]
    method: str
    n: int
    provenance: Provenance

    def __repr__(self) -> str:
        null = f", shuffled {self.null.nanmean():.2f}" if len(self.null) else ""
        seen = self.values[self.values.isfinite()]
        low, high = (float(seen.min()), float(seen.max())) if len(seen) else (torch.nan,) * 2
        return (
            f"Similarity({len(self.sites_a)} × {len(self.sites_b)} sites of {self.names[0]} and "
            f"{self.names[1]}; {self.method} {low:.2f} to {high:.2f}"
            f"{null}; {self.n} examples)"
        )

    def to_frame(self) -> DataFrame:
        """One row for each pair: ``site_a``, ``site_b``, ``similarity``, ``null`` (mean) and
        ``null_high`` (largest of the shuffles)."""
        import pandas as pd

        pairs = [(a, b) for a in self.sites_a for b in self.sites_b]
        columns: dict[str, Any] = {
            "site_a": [a for a, _ in pairs], "site_b": [b for _, b in pairs],
            "similarity": self.values.flatten().tolist(),
        }  # fmt: skip
        if len(self.null):
            columns["null"] = self.null.mean(0).flatten().tolist()
            columns["null_high"] = self.null.max(0).values.flatten().tolist()
        return pd.DataFrame(columns)

    def plot(self, *, title: str | None = None) -> Figure:
        """A map of both models' sites, coloured from 0 to 1; the null's range stands in the unit.

        Values below zero (debiased CKA of unrelated layers, or RSA) have the colour of zero.
        """
        from interp.figures import heatmap

        same = self.names[0] == self.names[1]
        null = f"; shuffled up to {self.null.nan_to_num(-1).max():.2f}" if len(self.null) else ""
        return heatmap(
            self.values, rows=_short(self.sites_a), columns=_short(self.sites_b),
            title=title or (f"layers of {self.names[0]}" if same else " and ".join(self.names)),
            unit=_UNITS[self.method] + null, row_name=self.names[0], column_name=self.names[1],
            signed=False, limit=1.0, missing="all examples alike",
        )  # fmt: skip


def similarity(
    model: Model,
    inputs: Any,
    sites: str | Site | Sequence[str | Site] = "L*.resid_pre",
    *,
    other: Model | None = None,
    other_sites: str | Site | Sequence[str | Site] | None = None,
    other_inputs: Any = None,
    method: Method = "cka",
    positions: int | str = EACH,
    where: Bool[Tensor, "batch pos"] | None = None,
    shuffles: int = 5,
    seed: int = 0,
    batch: int | Literal["auto"] = "auto",
    progress: bool | None = None,
) -> Similarity:
    """Compare every pair of sites of two models on the same examples.

    >>> interp.similarity(model, texts, other=model.random_twin())                # doctest: +SKIP
    Similarity(4 × 4 sites of demo and demo (random, seed 0); cka 0.03 to 0.98, ...)

    Args:
        other: the second model; None: the first again.
        inputs: whatever ``model.run`` takes.
        sites: of the first model.
        other_sites: of the second; None: the same.
        other_inputs: the same examples for a second model with another tokenizer, row by row;
            None: ``inputs``.
        method: ``"cka"`` (debiased, linear), ``"cka-biased"``, ``"rsa"`` or ``"rsa-cosine"``.
        positions: ``"each"`` real token is an example, or each prompt at a name or a number.
        where: of the tokens under ``"each"``, those that count. BOS has the same activation in
            every prompt; left in, it is one large cluster that both models share.
        shuffles: how often the examples of the second model are shuffled for the null.
        seed: of the shuffles.

    Raises:
        PromptError: the two models' examples do not correspond.
        MetricError: an unknown method, or too many examples for one that compares all pairs.
    """
    if method not in get_args(Method):
        raise MetricError(f"method={method!r}; expected one of {', '.join(get_args(Method))}.")
    second = model if other is None else other
    counted = tokens_counted(model, inputs, where) if positions == EACH else None
    x = collect(model, inputs, sites, positions=positions, counted=counted, batch=batch).rows
    theirs = inputs if other_inputs is None else other_inputs
    wanted = sites if other_sites is None else other_sites
    if second is model and wanted is sites and theirs is inputs:
        y = x
    else:
        again = tokens_counted(second, theirs, where) if positions == EACH else None
        y = collect(second, theirs, wanted, positions=positions, counted=again, batch=batch).rows
    n = _check_rows(x, y, method)
    values, null = _compare(x, y, method, _orders(n, shuffles, seed), progress)
    return Similarity(
        values=values,
        null=null,
        sites_a=tuple(x),
        sites_b=tuple(y),
        names=(model.name, second.name),
        method=method,
        n=n,
        provenance=Provenance.of(
            model, inputs, seed=seed, verb="similarity", other=second.name,
            other_weights=second.weights_hash, sites=list(x), other_sites=list(y), method=method,
            positions=positions, shuffles=shuffles,
            tokens=hashlib.sha256(repr(model.batch(inputs).ids.tolist()).encode()).hexdigest(),
        ),
    )  # fmt: skip


def _check_rows(x: dict[str, Tensor], y: dict[str, Tensor], method: str) -> int:
    n, m = (len(next(iter(rows.values()))) for rows in (x, y))
    if n != m:
        raise PromptError(
            f"the models hold {n} and {m} examples of these inputs: their tokens do not correspond. "
            "Compare at a position that both have, such as positions='END'."
        )
    if method.startswith("rsa") and n > _MOST_PAIRS:
        raise MetricError(
            f"method={method!r} compares all pairs of {n} examples; at most {_MOST_PAIRS} fit. Use "
            "method='cka', fewer prompts, or where= to take some tokens."
        )
    return n


def _orders(n: int, count: int, seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randperm(n, generator=generator) for _ in range(count)]


def _compare(
    x: dict[str, Tensor], y: dict[str, Tensor], method: str, orders: list[Tensor],
    progress: bool | None,
) -> tuple[Float[Tensor, "a b"], Float[Tensor, "shuffle a b"]]:  # fmt: skip
    of = _METHODS[method]
    values, null = torch.zeros(len(x), len(y)), torch.zeros(len(orders), len(x), len(y))
    with Bar(total=len(x) * len(y), what="pairs of sites", show=progress) as bar:
        for i, rows in enumerate(x.values()):
            for j, others in enumerate(y.values()):
                if _alike(rows) or _alike(others):
                    values[i, j] = null[:, i, j] = torch.nan
                    continue
                values[i, j] = of(rows, others)
                for k, order in enumerate(orders):
                    null[k, i, j] = of(rows, others[order])
                bar.advance()
    return values, null


def _alike(rows: Float[Tensor, "n d"]) -> bool:
    """Whether all examples are the same but for rounding, so that there is nothing to compare."""
    return float((rows - rows.mean(0)).norm()) <= 1e-5 * float(rows.norm())


def _short(names: Sequence[str]) -> Sequence[str]:
    """Layers in place of sites where all are of one point."""
    return steps_of(parsed(names)) or names
