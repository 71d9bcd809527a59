"""What nodes do to the answer: alone, through MLPs, and directly.

Three questions, all in the metric's own unit and in one sign (positive: for the answer):

- :func:`effect`: how much of the metric comes back when the corrupted run gets this node's clean
  output at one position (denoising; all ways to the logits together)?
- :func:`through`: how much comes back if only what some later nodes *read* of it is put back (path
  patching; Goldowsky-Dill et al. 2023, arXiv:2304.05969)?
- :func:`direct`: how much does it add to the logits itself, the final norm held (direct logit
  attribution; Elhage et al. 2021)?
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from interp.direct.result import LogitAttribution
from interp.direct.verb import logit_attribution
from interp.metrics import METRICS
from interp.models.model import Model
from interp.patching.result import PatchResult
from interp.patching.verb import patch
from interp.pipelines.behaviour import Behaviour, mlp_names, named
from interp.prompts.prompts import Prompts

__all__ = ["direct", "effect", "mlps_at", "through"]


def effect(
    model: Model, prompts: Prompts, position: str, *, metric: str = "logit_diff"
) -> tuple[Behaviour, Behaviour]:
    """What the clean output of each head, and of each MLP, at one position brings back, alone."""
    asked, where = named(prompts, position)

    def change(sites: str) -> Float[Tensor, "*axes prompt"]:
        return _changes(patch(model, asked, f"{sites}@{where}", metric=metric, progress=False))

    unit, of_mlps = METRICS[metric].unit, f"MLP's effect at {position}"
    heads = Behaviour.of_heads(f"effect at {position}", unit, change("L*.H*.z"))
    if not mlp_names(model):
        return heads, Behaviour.of_nobody(of_mlps, unit, heads)
    return heads, Behaviour.of_mlps(of_mlps, unit, change("L*.mlp_out"))


def through(
    model: Model, prompts: Prompts, receivers: Sequence[str], name: str, *,
    metric: str = "logit_diff",
) -> Behaviour:  # fmt: skip
    """What comes back when only some receivers read each head's clean output.

    Args:
        receivers: sites which read the stream, with their position: ``"L2.mlp.input@END"``; all at
            once. Those before a head read nothing of it; through none of them nothing comes.
            ``"logits"`` stands alone: what they read is put in behind everything else.
        name: for the behaviour, ``"MLPs at END"``.
    """
    if receivers:
        path = f"L*.H*.z -> {' + '.join(receivers)}"
        found = _changes(patch(model, prompts, path, metric=metric, progress=False))
    else:
        found = torch.zeros(model.n_layers, model.n_heads, len(prompts))
    return Behaviour.of_heads(f"effect through {name}", METRICS[metric].unit, found)


def mlps_at(model: Model, position: str) -> list[str]:
    """What the MLPs read at one position: receivers for :func:`through`."""
    return [f"L{node[1:]}.mlp.input@{position}" for node in mlp_names(model)]


def direct(model: Model, prompts: Prompts) -> tuple[Behaviour, Behaviour]:
    """What each head, and each MLP, adds to the logits of the answers less those of the foils, at END.

    Where there are several answers, their mean.
    """
    written = logit_attribution(model, prompts, by="head", draws=0, progress=False)
    heads = [
        [_part(written, f"L{i}.H{j}.result") for j in range(model.n_heads)]
        for i in range(model.n_layers)
    ]
    of_mlps = "MLP's direct effect"
    own = Behaviour.of_heads(
        "direct effect", "logits", torch.stack([torch.stack(r) for r in heads])
    )
    if not mlp_names(model):
        return own, Behaviour.of_nobody(of_mlps, "logits", own)
    mlps = [_part(written, f"L{i}.mlp_out") for i in range(model.n_layers)]
    return own, Behaviour.of_mlps(of_mlps, "logits", torch.stack(mlps))


def _part(written: LogitAttribution, name: str) -> Float[Tensor, " prompt"]:
    return written.per_prompt[written.axes[0].labels.index(name)]


def _changes(result: PatchResult) -> Float[Tensor, "*axes prompt"]:
    """By how much each patch moved the metric of the corrupted run."""
    assert result.corrupted is not None  # denoising has both runs
    return result.per_prompt - result.corrupted
