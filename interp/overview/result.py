"""What a scan found: every measurement beside its control, ranked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch

from interp.errors import ResultError
from interp.lenses.attention import AttentionResult
from interp.lenses.result import LensResult
from interp.overview.family import Family
from interp.results import Provenance, read_file, write_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

__all__ = ["ScanResult"]

_SAID: Final = {
    "direct": "{cell} adds {score:+.2f} logits to {answer} at the end",
    "direct, heads": "{cell} adds {score:+.2f} logits to {answer} at the end",
    "lens": "read from the stream {cell}, log P({answer}) is {score:.2f}",
    "attention": "{cell}: {score:.2f} of its attention from the end",
    "position": "noise on {cell} changes log P by {score:+.2f}",
    "ablation": "without {cell} at the end (at its mean) log P changes by {score:+.2f}",
}


@dataclass(frozen=True, eq=False, repr=False)
class ScanResult:
    """The overview of one prompt.

    Attributes:
        tokens: the prompt's tokens, numbered.
        answer: the token whose prediction is explained: the model's own top token, or the one
            that was given.
        foil: what its logit is compared with, if anything.
        predictions: the model's most probable next tokens with their probabilities.
        twin_predictions: the untrained twin's; None where none was run.
        families: every measurement, beside random contexts and the twin.
        lens: what each layer would say at each position.
        attention: patterns of the heads that stand out most.
        provenance: model, seed, versions and the call.
    """

    tokens: tuple[str, ...]
    answer: str
    foil: str | None
    predictions: tuple[tuple[str, float], ...]
    twin_predictions: tuple[tuple[str, float], ...] | None
    families: tuple[Family, ...]
    lens: LensResult
    attention: AttentionResult
    provenance: Provenance

    def __repr__(self) -> str:
        rows = [row for family in self.families for row in family.rows()]
        kept = sum(row["survives"] for row in rows)
        return (
            f"ScanResult({self.answer!r} after {self.text!r}: {kept} of {len(rows)} measurements "
            "survive their control)"
        )

    @property
    def text(self) -> str:
        """The prompt's tokens, without their numbers."""
        return " ".join(token.partition(" ")[2] for token in self.tokens)

    def __getitem__(self, name: str) -> Family:
        """A family by its name.

        Raises:
            ResultError: there is none of that name.
        """
        found = [family for family in self.families if family.name == name]
        if not found:
            have = ", ".join(family.name for family in self.families)
            raise ResultError(f"a scan has no family {name!r}; it has {have}.")
        return found[0]

    def to_frame(self) -> DataFrame:
        """A row for each measurement.

        Columns: ``family``, ``cell``, ``score`` (on the prompt, in ``unit``), ``contexts`` and
        ``contexts_std`` (on random contexts), ``t``, ``p`` (within the family), ``twin`` (the largest
        excess of the untrained twin), ``survives``.
        """
        import pandas as pd

        return pd.DataFrame([row for family in self.families for row in family.rows()])

    def findings(self, n: int | None = 20) -> DataFrame:
        """Measurements with a sentence each: those that survive their control first, by |t|."""
        frame = self.to_frame()
        frame["finding"] = [self._said(row) for row in frame.to_dict("records")]
        order = frame.assign(size=frame["t"].abs()).sort_values(
            ["survives", "size"], ascending=False, kind="stable"
        )
        shown = order.drop(columns="size").reset_index(drop=True)
        return shown if n is None else shown.head(n)

    def _said(self, row: dict[Any, Any]) -> str:
        return _SAID[row["family"]].format(**row, **{"answer": repr(self.answer.strip())})

    def plot(self) -> Figure:
        """One page: components, lens, heads, positions and attention beside their controls."""
        from interp.overview.figure import overview

        return overview(self)

    def html(self) -> str:
        """The page, self-contained: no file and no network beside it."""
        from interp.overview.page import page

        return page(self)

    def save_page(self, path: str | Path) -> Path:
        """Write :meth:`html` to a file, whole or not at all."""
        from interp.results import write_atomically

        return write_atomically(path, self.html().encode())

    def save(self, folder: str | Path) -> Path:
        """Write the numbers into a folder: ``scan``, ``lens`` and ``attention`` as safetensors."""
        folder = Path(folder)
        tensors = dict(self._tensors())
        meta = {n: v for n, v in vars(self).items() if n not in ("families", "lens", "attention")}
        meta["families"] = [
            {"name": f.name, "unit": f.unit, "cells": f.cells, "twin": f.twin}
            for f in self.families
        ]
        self.lens.save(folder / "lens.safetensors")
        self.attention.save(folder / "attention.safetensors")
        write_file(folder / "scan.safetensors", "ScanResult", tensors, meta)
        return folder

    def _tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        for i, family in enumerate(self.families):
            yield f"{i}.score", family.score
            yield f"{i}.contexts", family.contexts

    @classmethod
    def load(cls, folder: str | Path) -> ScanResult:
        """Read what :meth:`save` wrote.

        Raises:
            ResultError: a file is missing, damaged or of another kind.
        """
        folder = Path(folder)
        tensors, meta = read_file(folder / "scan.safetensors", "ScanResult")
        families = tuple(
            Family(
                one["name"], one["unit"], tuple(one["cells"]), tensors[f"{i}.score"],
                tensors[f"{i}.contexts"], one["twin"],
            )
            for i, one in enumerate(meta["families"])
        )  # fmt: skip
        twin = meta["twin_predictions"]
        return cls(
            tokens=tuple(meta["tokens"]),
            answer=meta["answer"],
            foil=meta["foil"],
            predictions=tuple((t, p) for t, p in meta["predictions"]),
            twin_predictions=None if twin is None else tuple((t, p) for t, p in twin),
            families=families,
            lens=LensResult.load(folder / "lens.safetensors"),
            attention=AttentionResult.load(folder / "attention.safetensors"),
            provenance=Provenance(**meta["provenance"]),
        )
