"""One pass over the scored texts: every run that is needed, batch by batch, and the sums it leaves.

For each model (the one at hand and its random twin) a batch is run as it is, then with zeros and with
means at each set of written sites, then once for each unit and variant with dictionaries spliced in. A
*unit* is a dictionary alone, or all together; a *variant* is the dictionary or one of its null controls.
Of a batch's logits only the original's are kept beside those of the run under way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.corpora.packed import PackedBatch
from interp.errors import BudgetError
from interp.evaluation.controls import ROWS, permutation, random_dictionary
from interp.evaluation.losses import Predictions, divergences, losses
from interp.evaluation.measures import columns, products
from interp.evaluation.spliced import Placed, replacing, splicing, written
from interp.evaluation.table import Table
from interp.geometry.moments import Moments
from interp.models.model import Model
from interp.runs.edits import Edit
from interp.runs.execute import Run, execute
from interp.sites import Site

__all__ = ["Aside", "Subject", "Unit", "look_aside", "part_rows", "run_batch", "runs_of"]

Rows = Float[Tensor, "row d"]
#: Dictionaries in their order under the name of a variant, and what is done to their outputs.
Variant = tuple[str, tuple[Placed, ...], Callable[[Rows], Rows] | None]


@dataclass(frozen=True, eq=False)
class Unit:
    """What is spliced in at once.

    Attributes:
        name: a row of the result.
        members: numbers of its dictionaries.
    """

    name: str
    members: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Aside:
    """What the texts set aside say: the mean of each written site, and some rows of all sites."""

    means: Mapping[Site, Float[Tensor, " d"]]
    rows: Mapping[Site, Rows]


@dataclass(frozen=True, eq=False)
class Subject:
    """A model with dictionaries in it, by variant.

    Attributes:
        variants: dictionaries in their order, for each variant's name.
        permuted: whether the first variant is also measured with its outputs permuted.
    """

    model: Model
    aside: Aside
    variants: Mapping[str, tuple[Placed, ...]]
    permuted: bool = False

    @classmethod
    def of(
        cls, model: Model, placed: Sequence[Placed], aside: Aside, *, controls: bool, seed: int
    ) -> Subject:
        """The model at hand; with controls, also permuted outputs and random dictionaries."""
        variants = {"value": tuple(placed)}
        if controls:
            variants["random_dictionary"] = tuple(
                one.with_dictionary(
                    random_dictionary(
                        one.dictionary,
                        [aside.rows[site] for site in one.reads],
                        [aside.rows[site] for site in one.writes],
                        seed + number,
                    )
                )
                for number, one in enumerate(placed)
            )
        return cls(model, aside, variants, controls)

    @property
    def name(self) -> str:
        """Of its first variant."""
        return next(iter(self.variants))

    def writes(self, unit: Unit) -> tuple[Site, ...]:
        """The sites that a unit writes to."""
        placed = self.variants[self.name]
        return tuple(site for i in unit.members for site in placed[i].writes)


def part_rows(one: Placed) -> tuple[str, ...]:
    """Names of the rows of each part, for dictionaries of several."""
    return tuple(f"{one.name} {site}" for site in one.writes) if len(one.writes) > 1 else ()


def runs_of(subjects: Sequence[Subject], units: Sequence[Unit]) -> int:
    """How many forward passes a batch takes."""
    total = 0
    for subject in subjects:
        ablated = {frozenset(subject.writes(unit)) for unit in units}
        total += 1 + 2 * len(ablated) + len(units) * (len(subject.variants) + subject.permuted)
    return total


@torch.no_grad()
def look_aside(model: Model, placed: Sequence[Placed], batches: Sequence[PackedBatch]) -> Aside:
    """Run the texts set aside, up to the last site."""
    writes = {site for one in placed for site in one.writes}
    moments: dict[Site, Moments] = {}
    rows: dict[Site, list[Rows]] = {site: [] for site in _sites(placed)}
    room = ROWS
    for batch in batches:
        run = _run(model, batch, save=tuple(rows), logits=False)
        for site in rows:
            x = _held(run, batch, site)
            rows[site].append(x[:room].clone())
            if site in writes and len(x):
                own = Moments.of(x)
                moments[site] = moments[site].merged(own) if site in moments else own
        room = max(0, room - batch.n_kept)
    return Aside(
        {site: one.mean for site, one in moments.items()},
        {site: torch.cat(x) for site, x in rows.items()},
    )


@torch.no_grad()
def run_batch(
    subject: Subject, units: Sequence[Unit], batch: PackedBatch, numbers: Int[Tensor, " kept"],
    table: Table, *, change: int, done: Callable[[], None],
) -> None:  # fmt: skip
    """All runs of one batch on one model, added to a table.

    Args:
        numbers: the text of each kept token.
        change: seed of the permutation of outputs.
        done: called after each forward pass.
    """
    if not batch.n_kept:
        return
    placed, where = subject.variants[subject.name], Predictions.of(batch)
    original = _run(subject.model, batch, save=_sites(placed))
    done()
    variants: list[Variant] = [(name, members, None) for name, members in subject.variants.items()]
    if subject.permuted:
        variants.append(("permuted", placed, permutation(change)))
    for site in {site for one in placed for site in one.writes}:
        table.moments[subject.name, site] = Moments.of(_held(original, batch, site))
    for variant in variants:
        _reconstructions(table, subject, units, variant, batch, numbers, original)
    base = {"ce_original": losses(original.logits, where), "predictions": where.has.double()}
    ablated: dict[frozenset[Site], dict[str, Tensor]] = {}
    for unit in units:
        writes = frozenset(subject.writes(unit))
        if writes not in ablated:
            ablated[writes] = _ablations(subject, writes, batch, where, done)
        for name, members, permute in variants:
            edits = splicing([members[i] for i in unit.members], batch.keep, change=permute)
            run = _run(subject.model, batch, edit=edits)
            kl, agree = divergences(run.logits, original.logits, where)
            found = {"ce_spliced": losses(run.logits, where), "kl": kl, "agree": agree}
            table.add(name, unit.name, numbers, {**base, **ablated[writes], **found})
            done()


def _ablations(
    subject: Subject, writes: frozenset[Site], batch: PackedBatch, where: Predictions,
    done: Callable[[], None],
) -> dict[str, Float[Tensor, " kept"]]:  # fmt: skip
    """Losses with zeros, and with the means of the texts set aside, in the place of what is written."""
    out = {}
    for name, values in (
        ("ce_zero", dict.fromkeys(writes, 0.0)),
        ("ce_mean", {site: subject.aside.means[site] for site in writes}),
    ):
        run = _run(subject.model, batch, edit=replacing(values, batch.keep))
        out[name] = losses(run.logits, where)
        done()
    return out


def _reconstructions(
    table: Table, subject: Subject, units: Sequence[Unit], variant: Variant, batch: PackedBatch,
    numbers: Int[Tensor, " kept"], original: Run,
) -> None:  # fmt: skip
    """What dictionaries make of what the original run holds: each part, each dictionary, together."""
    name, members, permute = variant
    judged, counted = [], []
    for i, one in enumerate(members):
        parts = [
            written(one.dictionary, p, _held(original, batch, s)) for p, s in enumerate(one.reads)
        ]
        outs = one.sums([part.out for part in parts])
        found = [
            products(
                _held(original, batch, s), permute(x) if permute else x, subject.aside.means[s]
            )
            for s, x in zip(one.writes, outs, strict=True)
        ]
        counts = [
            torch.stack([part.active.cpu().double(), part.size.cpu().double()]) for part in parts
        ]
        for row, f, c in zip(part_rows(one), found, counts, strict=False):
            table.add(name, row, numbers, _judged(f, None if permute else c))
        judged.append(torch.stack(found).sum(0))
        counted.append(torch.stack(counts).sum(0))
        if permute is None:
            table.fired[name, i] = torch.stack([part.fired for part in parts]).cpu()
    for unit in units:
        f, c = (torch.stack([x[i] for i in unit.members]).sum(0) for x in (judged, counted))
        table.add(name, unit.name, numbers, _judged(f, None if permute else c))


def _judged(
    found: Float[Tensor, "6 row"], counts: Float[Tensor, "2 row"] | None
) -> dict[str, Tensor]:
    sparsity = {} if counts is None else {"l0": counts[0], "l1": counts[1]}
    return {**columns(found), **sparsity}


def _sites(placed: Sequence[Placed]) -> tuple[Site, ...]:
    return tuple(dict.fromkeys(s for one in placed for s in (*one.reads, *one.writes)))


def _held(run: Run, batch: PackedBatch, site: Site) -> Rows:
    """A site's rows at the kept tokens."""
    x = run.cache[site]
    return x[batch.keep.to(x.device)].flatten(1)


def _run(
    model: Model, batch: PackedBatch, *, save: Sequence[Site] = (),
    edit: Mapping[str, Edit] | None = None, logits: bool = True,
) -> Run:  # fmt: skip
    tokens = batch.tokens.to(model.device)
    try:
        return execute(
            model.anatomy, tokens, save=save, edit=edit, logits="all" if logits else "none",
            rows_at_once=len(tokens),
        )  # fmt: skip
    except torch.OutOfMemoryError as error:
        raise BudgetError(
            f"out of memory in a batch of {len(tokens)} rows: give a smaller one, as batch="
            f"{max(1, len(tokens) // 4)}."
        ) from error
