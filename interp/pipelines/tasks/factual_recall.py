"""Factual recall, "The capital of France is": from the subject to its attribute.

1. **Tracing** (Meng et al. 2022): noise on the subject, one clean state put back: when does the fact leave the
   subject?
2. **Movers**, by counterfactual path patching (Lv et al. 2024): heads that look from the last position to the
   subject, and bring the answer back through what the logits read of them and what the MLPs at that
   position do (two paths, patched apart and added).
3. **What the MLPs make of it**: each MLP's output at the last position as a sum of head outputs and an
   intercept, on held-out prompts and beside shuffled pairs (:mod:`interp.pipelines.mlp_regression`).
4. **Roles**: *subject enrichment*, an MLP whose output at the subject brings the answer back; *mover*;
   *readout*, an MLP at the last position which brings it back and writes it directly.
5. **The circuit**: see :mod:`interp.pipelines.found`.

Sources: Lv et al. 2024, arXiv:2403.19521; Meng et al. 2022, arXiv:2202.05262; Geva et al. 2023,
arXiv:2304.14767 (subject enrichment, attribute extraction).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from interp.models.model import Model
from interp.pipelines.attending import attention
from interp.pipelines.behaviour import head_names
from interp.pipelines.effects import direct, effect, mlps_at, through
from interp.pipelines.kinds import Kind, kind
from interp.pipelines.measured import Measured, Task
from interp.pipelines.mlp_regression import mlp_regression
from interp.prompts.prompts import Prompts
from interp.prompts.tasks import capitals as prompts
from interp.tracing.verb import trace

__all__ = ["TASK", "kinds", "measure", "prompts"]

#: Facts that are traced, and draws of the noise for each.
TRACED: Final = 12
SAMPLES: Final = 3
#: Heads in the regressions: those that look at the subject most, and those that carry most.
_MOST: Final = 4
_LV: Final = "Lv et al. 2024, arXiv:2403.19521"
_GEVA: Final = "Geva et al. 2023, arXiv:2304.14767"


def measure(model: Model, pairs: Prompts) -> Measured:
    """Tracing, attention to the subject, what comes back through which path, and the regressions."""
    traced = trace(
        model, replace(pairs.subset(slice(TRACED)), answers=None, foils=None),
        samples=SAMPLES, seed=pairs.seed or 0, progress=False,
    )  # fmt: skip
    end = attention(model, pairs, "END", {"subject": "subject"})
    by_mlps = through(model, pairs, mlps_at(model, "END"), "MLPs at END")
    by_logits = through(model, pairs, ["logits"], "logits alone")
    carried = replace(
        by_mlps, name="effect through MLPs + logits",
        per_prompt=by_mlps.per_prompt + by_logits.per_prompt,
    )  # fmt: skip
    half, rest = pairs.split(0.5, seed=pairs.seed or 0)
    behaviours = [
        *end.values(), carried, by_mlps, by_logits,
        *effect(model, pairs, "END"), *effect(model, pairs, "subject"), *direct(model, pairs),
    ]  # fmt: skip
    movers = sorted(
        (set(end["subject"].top(_MOST)) | set(carried.top(_MOST))), key=head_names(model).index
    )
    made = mlp_regression(model, half, rest, movers, seed=pairs.seed or 0)
    return Measured.of(behaviours, trace=traced, mlp_regression=made)


def kinds(gap: float) -> Sequence[Kind]:
    """The roles looked for; effects are shares of the gap between clean and corrupted prompts."""
    large = 0.05 * gap
    return [
        kind("subject enrichment", _GEVA, [("MLP's effect at subject", 2 * large)]),
        kind("mover", _LV, [
            ("attention END→subject", 0.3), ("effect through MLPs + logits", large),
        ]),
        kind("readout", _LV, [("MLP's effect at END", large), ("MLP's direct effect", large)]),
    ]  # fmt: skip


def _runs(model: Model) -> float:
    return 10 * model.n_layers + 20


TASK: Final = Task("capitals", "logit_diff", measure, kinds, _runs)
