"""Every site's probe under one plan, put together as a result."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import MetricError, warn
from interp.probing import scoring
from interp.probing.controls import control_task, seen
from interp.probing.crossfit import CrossFit, cross_fit
from interp.probing.result import ProbeResult
from interp.probing.study import Study
from interp.progress import Bar
from interp.results import Provenance

__all__ = ["measure"]


def measure(
    rows: Mapping[str, Float[Tensor, "n d"]], shapes: Mapping[str, tuple[int, ...]],
    types: Mapping[str, Int[np.ndarray, " n"]], study: Study, positions: str,
    provenance: Provenance, progress: bool | None,
) -> ProbeResult:  # fmt: skip
    """Probe each site in turn; Ctrl-C leaves the sites that are finished.

    Raises:
        MetricError: features that are not finite.
    """
    fits: dict[str, tuple[CrossFit, Tensor, Tensor, float]] = {}
    with Bar(total=len(rows), what="probes", show=progress, least=6) as bar:
        try:
            for name, x in rows.items():
                _check_finite(name, x)
                fits[name] = _one(x.numpy(), types[name], study)
                bar.advance()
        except KeyboardInterrupt:
            if not fits:
                raise
            warn(f"interrupted: {len(fits)} of {len(rows)} sites were probed.")
    if not all(found.converged for found, *_ in fits.values()):
        warn("some logistic probes did not converge: raise l2.")
    return _assemble(fits, shapes, study, positions, provenance)


def _one(
    x: Float[np.ndarray, "n d"], types: Int[np.ndarray, " n"], study: Study
) -> tuple[CrossFit, Float[Tensor, " shuffle"], Float[Tensor, " draw"], float]:
    """The probe of one site: predictions, scores under shuffled labels and on control tasks."""
    drawn = control_task(study.targets[0], types, study.controls, study.seed)
    every = np.concatenate([study.targets, drawn])
    found = cross_fit(
        x, every, study.folds, kind=study.kind, grid=study.grid, n_classes=len(study.classes or ())
    )
    scored = scoring.score(
        study.metric, *(torch.from_numpy(v) for v in (found.predicted, every, study.folds))
    )
    split = len(study.targets)
    control = scored.new_full((study.controls,), torch.nan)  # one word type everywhere: no task
    control[: len(drawn)] = scored[split:]
    return found, scored[1:split], control, seen(types, study.folds)


def _assemble(
    fits: Mapping[str, tuple[CrossFit, Tensor, Tensor, float]],
    shapes: Mapping[str, tuple[int, ...]], study: Study, positions: str, provenance: Provenance,
) -> ProbeResult:  # fmt: skip
    weights = []
    for name, (found, *_) in fits.items():
        w = torch.from_numpy(found.whole.weight).float()
        weights.append(w.view(-1, *shapes[name]) if len(w) > 1 else w.view(shapes[name]))
    return ProbeResult(
        sites=tuple(fits),
        kind=study.kind,
        metric=study.metric,
        positions=positions,
        classes=study.classes,
        labels=torch.from_numpy(study.targets[0]).float(),
        folds=torch.from_numpy(study.folds),
        documents=torch.from_numpy(study.documents),
        predicted=torch.stack(
            [torch.from_numpy(f.predicted[0]).float() for f, *_ in fits.values()]
        ),
        decision=torch.stack([torch.from_numpy(f.decision).float() for f, *_ in fits.values()]),
        null=torch.stack([null.float() for _, null, _, _ in fits.values()]),
        control=torch.stack([control.float() for _, _, control, _ in fits.values()]),
        seen=torch.tensor([share for *_, share in fits.values()]),
        direction_l2=torch.tensor([f.whole_l2 for f, *_ in fits.values()]),
        l2=torch.stack([torch.from_numpy(f.l2).float() for f, *_ in fits.values()]),
        weights=tuple(weights),
        biases=tuple(torch.from_numpy(f.whole.bias).float() for f, *_ in fits.values()),
        provenance=provenance,
    )


def _check_finite(name: str, x: Float[Tensor, "n d"]) -> None:
    bad = ~x.isfinite().all(1)
    if bad.any():
        raise MetricError(
            f"{int(bad.sum())} of {len(x)} examples have NaN or infinite features at {name!r}, the "
            f"first is example {int(bad.int().argmax())}: leave them out."
        )
