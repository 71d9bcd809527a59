"""The sums of a pass as a result: metrics, frequencies, and what must be said about them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from interp.evaluation.measures import MEASURES, MIN_GAP, Sums, estimate
from interp.evaluation.measuring import Subject, Unit, part_rows
from interp.evaluation.result import CONTROLS, Evaluation
from interp.evaluation.spliced import Placed
from interp.evaluation.table import Table
from interp.results import Provenance
from interp.sites import Site

__all__ = ["assemble"]

#: A loss of this share of log d_vocab or more is that of a model that only guesses.
_GUESS = 0.95
#: A row's name, the sites it writes to, its parts as (dictionary, part), and whether it has a loss.
Row = tuple[str, tuple[Site, ...], tuple[tuple[int, int], ...], bool]


def assemble(
    table: Table, subjects: Sequence[Subject], units: Sequence[Unit], placed: Sequence[Placed],
    notes: tuple[str, ...], provenance: Provenance,
) -> Evaluation:  # fmt: skip
    """Every metric of every row and variant."""
    rows = _rows(units, placed)
    of = {variant: subject for subject in subjects for variant in subject.variants}
    if subjects[0].permuted:
        of["permuted"] = subjects[0]
    variants = ("value", *(name for name in CONTROLS if name in of))
    found = torch.full((3, len(rows), len(MEASURES), len(variants)), math.nan, dtype=torch.float64)
    refused: dict[tuple[str, str], list[str]] = {}
    guesses: dict[str, float] = {}
    for i, row in enumerate(rows):
        for k, variant in enumerate(variants):
            subject = of[variant]
            sums = table.columns(variant, row[0], subject.name, row[1], subject.aside.means)
            dead = _dead(table, variant, row)
            loss = estimate(MEASURES["ce_original"], sums)[0]
            guessing = loss > _GUESS * math.log(subject.model.d_vocab_out)
            if guessing:
                guesses[subject.name] = loss
            for j, measure in enumerate(MEASURES.values()):
                value = dead.get(measure.name)
                numbers = estimate(measure, sums) if value is None else (value, math.nan, math.nan)
                if measure.least and guessing:
                    numbers = (math.nan,) * 3
                found[:, i, j, k] = torch.tensor(numbers, dtype=found.dtype)
                if (
                    variant in ("value", "random_model")
                    and row[3]
                    and measure.least
                    and math.isnan(found[0, i, j, k])
                    and not guessing
                ):
                    refused.setdefault((measure.name, variant), []).append(
                        _gap(row[0], measure.name, sums)
                    )
    own = table.columns("value", rows[0][0], "value", rows[0][1], subjects[0].aside.means)
    featured = tuple(v for v in variants if v != "permuted")
    parts = [(i, p) for i, one in enumerate(placed) for p in range(len(one.reads))]
    return Evaluation(
        rows=tuple(row[0] for row in rows),
        sites=tuple(_said(row, placed) for row in rows),
        metrics=tuple(MEASURES),
        variants=variants,
        values=found[0], low=found[1], high=found[2],
        parts=tuple(
            (part_rows(placed[i]) or (placed[i].name,))[p] for i, p in parts
        ),
        features=torch.tensor([placed[i].dictionary.d_sae for i, _ in parts]),
        frequency=torch.stack([
            torch.cat([table.fired[v, i][p] for i, p in parts]).double() / table.tokens for v in featured
        ]),
        frequency_of=featured,
        tokens=table.tokens,
        predictions=int(own["predictions"].sum()),
        texts=int((own["tokens"] > 0).sum()),
        notes=(*notes, *_notes(table, refused, guesses)),
        provenance=provenance,
    )  # fmt: skip


def _rows(units: Sequence[Unit], placed: Sequence[Placed]) -> list[Row]:
    rows: list[Row] = []
    for unit in units:
        sites = tuple(site for i in unit.members for site in placed[i].writes)
        parts = tuple((i, p) for i in unit.members for p in range(len(placed[i].reads)))
        rows.append((unit.name, sites, parts, True))
        if len(unit.members) == 1:
            i = unit.members[0]
            for p, name in enumerate(part_rows(placed[i])):
                rows.append((name, (placed[i].writes[p],), ((i, p),), False))
    return rows


def _said(row: Row, placed: Sequence[Placed]) -> str:
    """The sites that a row replaces, as features are named: ``L2.mlp`` for a whole MLP."""
    return ", ".join(placed[i].dictionary.spec.features[p] for i, p in row[2])


def _dead(table: Table, variant: str, row: Row) -> Mapping[str, float]:
    if (variant, row[2][0][0]) not in table.fired:
        return {"dead": math.nan, "dead_log10_4": math.nan}
    fired: Tensor = torch.cat([table.fired[variant, i][p] for i, p in row[2]])
    rare = fired * 10_000 <= table.tokens
    return {
        "dead": float((fired == 0).double().mean()),
        "dead_log10_4": float(rare.double().mean()),
    }


def _gap(row: str, metric: str, sums: Sums) -> str:
    ablated = metric.removeprefix("ce_recovered_")
    gap = (sums[f"ce_{ablated}"] - sums["ce_original"]).sum() / sums["predictions"].sum()
    return f"{row} ({float(gap):.2g})"


def _notes(
    table: Table, refused: Mapping[tuple[str, str], list[str]], guesses: Mapping[str, float]
) -> tuple[str, ...]:
    notes = []
    if table.tokens < 10_000:
        notes.append(
            f"of {table.tokens:,} tokens a feature active in 10⁻⁴ or less is one that is never active"
        )
    for (metric, variant), rows in refused.items():
        whose = "" if variant == "value" else f" of the control {variant!r}"
        notes.append(
            f"{metric}{whose} is not a number where ablation raises the loss by less than {MIN_GAP:g} "
            f"nats: {', '.join(rows)}"
        )
    for variant, loss in guesses.items():
        whose = "the model" if variant == "value" else f"the control {variant!r}"
        notes.append(
            f"ce_recovered is not a number in {whose}, whose loss of {loss:.2f} nats is that of a "
            "uniform guess: there is nothing to recover"
        )
    return tuple(notes)
