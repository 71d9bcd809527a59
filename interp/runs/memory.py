"""What a run will need, before it starts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import psutil
import torch

from interp.errors import BudgetError
from interp.runs.plan import units_of
from interp.sites import Site
from interp.taps.anatomy import Anatomy
from interp.taps.offload import device_of

__all__ = ["SMALL", "Estimate", "as_text", "available", "elements_of", "estimate", "needs"]

#: The share of free memory that a run may plan with; the rest is for what cannot be foreseen.
SHARE = 0.6
#: A run of fewer bytes is not held against free memory: asking would take longer than the run.
SMALL = 2**25


@dataclass(frozen=True)
class Estimate:
    """Bytes that a run will take.

    Attributes:
        kept: saved tensors and logits of all prompts, which must exist at the end.
        per_row: working memory for each prompt that is run at the same time.
        free: bytes the run may plan with.
        rows: prompts in the run.
    """

    kept: int
    per_row: int
    free: int
    rows: int

    @property
    def batch(self) -> int:
        """How many prompts fit at once.

        Raises:
            BudgetError: what must be kept, or a single prompt, does not fit.
        """
        left = self.free - self.kept
        if left < self.per_row:
            raise BudgetError(
                f"this run must keep {as_text(self.kept)} and needs {as_text(self.per_row)} to run one "
                f"prompt, but {as_text(self.free)} are free: save fewer sites or positions "
                "('L*.resid_pre@-1'), use logits='last' or 'none', or give fewer prompts."
            )
        return min(self.rows, left // max(self.per_row, 1))

    def __str__(self) -> str:
        return (
            f"{as_text(self.kept)} kept + {as_text(self.per_row)} per prompt at work, "
            f"{as_text(self.free)} free: {self.batch} of {self.rows} prompts at a time"
        )


def available(device: torch.device) -> int:
    """Free bytes on a device that a run may plan with."""
    if device.type == "cuda":
        return int(SHARE * torch.cuda.mem_get_info(device)[0])
    return int(SHARE * psutil.virtual_memory().available)


def estimate(
    anatomy: Anatomy,
    *,
    rows: int,
    width: int,
    save: Iterable[Site],
    logit_positions: int,
    d_vocab: int,
    grad: bool,
) -> Estimate:
    """What a run over ``rows`` prompts of ``width`` tokens will take."""
    kept, per_row = needs(
        anatomy, rows=rows, width=width, save=save, logit_positions=logit_positions,
        d_vocab=d_vocab, grad=grad,
    )  # fmt: skip
    return Estimate(kept, per_row, available(device_of(anatomy.hf)), rows)


def needs(
    anatomy: Anatomy,
    *,
    rows: int,
    width: int,
    save: Iterable[Site],
    logit_positions: int,
    d_vocab: int,
    grad: bool,
) -> tuple[int, int]:
    """Bytes that a run must keep, and bytes it works with for each prompt."""
    size = next(anatomy.hf.parameters()).element_size()
    kept = rows * logit_positions * d_vocab * size
    for site in save:  # dictionaries may compute in more bits than the model
        bits = max(size, 4) if site.kind.spliced else size
        kept += rows * elements_of(anatomy, site, width) * bits
    stream, square = width * anatomy.d_model, anatomy.n_heads * width * width
    work = 12 * stream + 3 * square + logit_positions * d_vocab
    if grad:
        work += anatomy.n_layers * (14 * stream + 2 * square)
    features = [3 * len(splice.reads) * width * splice.d_sae for splice in anatomy.splices]
    work += sum(features) if grad else max(features, default=0)
    return kept, work * size


def elements_of(anatomy: Anatomy, site: Site, width: int) -> int:
    """Numbers that a site holds for one prompt of ``width`` tokens."""
    d_mlp = anatomy.d_mlp or 4 * anatomy.d_model
    sizes = {
        "batch": 1, "pos": width, "query": width, "key": width, "one": 1,
        "d_model": anatomy.d_model, "d_head": anatomy.d_head, "d_mlp": d_mlp,
        "head": anatomy.n_heads, "kv_head": anatomy.n_kv_heads,
    }  # fmt: skip
    if site.position is not None:
        sizes["pos"] = 1
    if site.head is not None:
        chosen = len(site.head.expand(sizes[site.kind.axes[site.kind.head_axis]], "head"))
        sizes["head"] = sizes["kv_head"] = chosen
    if site.kind.axes[-1] == "d_sae":
        sizes["d_sae"] = units_of(anatomy, site)
    if site.unit is not None:
        axis = site.kind.axes[-1]
        sizes[axis] = len(site.unit.expand(sizes[axis], "unit"))
    total = 1
    for axis in site.kind.axes:
        total *= sizes[axis]
    return total


def as_text(n: int) -> str:
    return f"{n / 2**30:.2f} GiB" if n >= 2**29 else f"{n / 2**20:.1f} MiB"
