"""Proof at load: each site is shown to be what its name says, or it is refused.

On a few tokens, the check shows that every site of a model is

- *readable*: the run reaches it and it has the shape its axes promise;
- *true*: the residual stream is the sum of its branches, norms reproduce their
  outputs, attention rows sum to one;
- *live*: writing it changes the logits (:mod:`interp.models.liveness`);

and with ``level="full"`` also that the hooked run equals eager attention to the
bit, and that writing back what was read changes nothing, in every layer. A
point that fails is refused by name with the reason. A model whose residual
stream itself fails cannot be used at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from interp.errors import ModelError
from interp.models.liveness import inert, pattern_of
from interp.runs.execute import execute
from interp.runs.plan import resolve
from interp.sites import POINTS
from interp.taps.anatomy import Anatomy
from interp.taps.attention import weights_of
from interp.taps.norms import gamma
from interp.taps.offload import device_of, fetched
from interp.token_batch import TokenBatch

__all__ = ["Level", "Report", "check"]

Level = Literal["quick", "full"]
_INSIDE = ("rot_q", "rot_k", "attn_scores", "pattern")
#: Families compute norms and softmax in float32 whatever the dtype, so float64 is held to no more.
_TOLERANCE = {torch.float64: 1e-4, torch.float32: 1e-4}


@dataclass(frozen=True)
class Report:
    """What the self-check found.

    Attributes:
        level: how much was checked: ``"quick"`` writes in one layer, ``"full"`` in each.
        proven: points that passed.
        refused: points this model does not have, or that failed, each with the reason.
        worst: the largest relative deviation seen, by the name of the identity.
    """

    level: str
    family: str
    proven: tuple[str, ...]
    refused: dict[str, str]
    worst: dict[str, float]

    def __str__(self) -> str:
        lines = [f"{self.family}, {self.level} check: {len(self.proven)} points proven"]
        lines += [f"  {name}: deviation {value:.1e}" for name, value in self.worst.items()]
        lines += [f"  refused {point}: {why}" for point, why in self.refused.items()]
        return "\n".join(lines)


@torch.no_grad()
def check(anatomy: Anatomy, level: Level) -> tuple[Anatomy, Report]:
    """The anatomy with failed points refused, and what was found.

    Raises:
        ModelError: weights that are not finite, a run that is not repeatable, or a
            residual stream that cannot be tapped.
    """
    _finite(anatomy)
    batch = _tokens(anatomy)
    base = _repeatable(anatomy, batch)
    failed: dict[str, str] = {}
    values = _readable(anatomy, batch, failed)
    worst = _identities(anatomy, values, failed)
    worst |= _same_attention(anatomy, batch, base, failed)
    failed |= inert(anatomy, batch, base, _points(anatomy, failed), every_layer=level == "full")
    if level == "full":
        worst |= _exact(anatomy, batch, base, failed)
    for point in ("resid_pre", "resid_post"):
        if point in failed:
            raise ModelError(
                f"{anatomy.name}: the residual stream cannot be tapped: {point} {failed[point]}. "
                "Pass check=False to load it all the same."
            )
    reasons = {point: f"the self-check failed: {why}" for point, why in failed.items()}
    checked = replace(anatomy, refused={**anatomy.refused, **reasons})
    proven = tuple(_points(checked, {}))
    return checked, Report(level, anatomy.name, proven, dict(checked.refused), worst)


def _finite(anatomy: Anatomy) -> None:
    for name, parameter in anatomy.hf.named_parameters():
        if parameter.device.type != "meta" and not torch.isfinite(parameter).all():
            bad = int((~torch.isfinite(parameter)).sum())
            raise ModelError(
                f"the weights are not finite: {name} holds {bad} NaN or infinite values of "
                f"{parameter.numel()}. The checkpoint is damaged, or training diverged."
            )


def _tokens(anatomy: Anatomy) -> TokenBatch:
    vocabulary = anatomy.hf.get_input_embeddings().num_embeddings
    width = min(8, anatomy.n_ctx or 8)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, vocabulary, (2, width), generator=generator)
    return TokenBatch.of(ids.to(device_of(anatomy.hf)))


def _repeatable(anatomy: Anatomy, batch: TokenBatch) -> Tensor:
    first = execute(anatomy, batch).logits
    if not torch.equal(first, execute(anatomy, batch).logits):
        raise ModelError(
            f"{anatomy.name}: two runs on the same tokens differ"
            + (": the model is in training mode; call hf_model.eval() before interp.load."
               if anatomy.hf.training else ", so nothing measured on it would be exact.")
        )  # fmt: skip
    return first


def _points(anatomy: Anatomy, failed: dict[str, str]) -> list[str]:
    skip = {*anatomy.refused, *failed, "logits"}
    return [p.name for p in POINTS.values() if p.name not in skip and not p.spliced]


def _readable(anatomy: Anatomy, batch: TokenBatch, failed: dict[str, str]) -> dict[str, Tensor]:
    """Each point in every layer, [layer, ...] (or [1, ...]); wrong shapes and misses are failures."""
    sizes = {
        "batch": batch.ids.shape[0], "pos": batch.ids.shape[1], "one": 1,
        "query": batch.ids.shape[1], "key": batch.ids.shape[1],
        "head": anatomy.n_heads, "kv_head": anatomy.n_kv_heads,
        "d_head": anatomy.d_head, "d_model": anatomy.d_model,
    }  # fmt: skip
    values: dict[str, Tensor] = {}
    for point, value in _read(anatomy, batch, failed).items():
        expected = [sizes.get(axis) for axis in POINTS[point].axes]
        if any(w not in (None, got) for w, got in zip(expected, value.shape[1:], strict=True)):
            failed[point] = f"has shape {list(value.shape[1:])}, expected {expected}"
            continue
        values[point] = value
    return values


def _read(anatomy: Anatomy, batch: TokenBatch, failed: dict[str, str]) -> dict[str, Tensor]:
    """Each point in every layer, in one run; one by one if that run fails, to find the culprit."""
    points = _points(anatomy, failed)

    def read(some: list[str]) -> dict[str, Tensor]:
        cache = execute(anatomy, batch, save=[pattern_of(p) for p in some], logits="none").cache
        values = {p: cache[pattern_of(p)] for p in some}
        return {p: v if POINTS[p].layered else v[None] for p, v in values.items()}

    try:
        return read(points)
    except Exception:  # a part that does not fit this model can fail in any way
        values: dict[str, Tensor] = {}
        for point in points:
            try:
                values |= read([point])
            except Exception as error:
                failed[point] = f"reading it raised {type(error).__name__}: {error}"
        return values


def _identities(anatomy: Anatomy, v: dict[str, Tensor], failed: dict[str, str]) -> dict[str, float]:
    """Equations that must hold between sites; the points of one that does not are refused."""
    tolerance = _TOLERANCE.get(next(anatomy.hf.parameters()).dtype, 3e-2)
    worst: dict[str, float] = {}
    for name, points, left, right in _equations(anatomy, v):
        deviation = float((left - right).abs().max() / right.abs().max().clamp(min=1e-12))
        worst[name] = deviation
        if not deviation <= tolerance:
            for point in points:
                failed[point] = f"{name} does not hold: relative deviation {deviation:.1e}"
    return worst


def _equations(
    anatomy: Anatomy, v: dict[str, Tensor]
) -> Iterator[tuple[str, tuple[str, ...], Tensor, Tensor]]:
    """Name, the points it would refuse, left side, right side."""

    def have(*points: str) -> bool:
        return all(point in v for point in points)

    def repeated(x: Tensor) -> Tensor:  # [layer, batch, pos, kv_head, d_head], by query head
        return x.repeat_interleave(anatomy.n_heads // anatomy.n_kv_heads, -2)

    if have("resid_pre", "resid_post") and anatomy.n_layers > 1:
        yield ("resid_post == next resid_pre", ("resid_post",),
               v["resid_post"][:-1], v["resid_pre"][1:])  # fmt: skip
    if have("resid_pre", "attn_out", "mlp_out", "resid_post"):
        yield ("resid_pre + attn_out + mlp_out == resid_post", ("attn_out", "mlp_out", "resid_mid"),
               v["resid_pre"] + v["attn_out"] + v["mlp_out"], v["resid_post"])  # fmt: skip
    if have("resid_mid", "mlp_out", "resid_post"):
        yield ("resid_mid + mlp_out == resid_post", ("resid_mid",),
               v["resid_mid"] + v["mlp_out"], v["resid_post"])  # fmt: skip
    if have("embed"):
        total = v["embed"] + v["pos_embed"] if have("pos_embed") else v["embed"]
        yield ("embed + pos_embed == first resid_pre", ("embed", "pos_embed"),
               total[0], v["resid_pre"][0])  # fmt: skip
    softmax = anatomy.weighting == "softmax"
    if have("pattern") and softmax:
        sums = v["pattern"].float().sum(-1)
        yield ("pattern rows sum to one", ("pattern",), sums, torch.ones_like(sums))
    if have("attn_scores", "pattern"):
        yield (f"{anatomy.weighting} of attn_scores == pattern", ("attn_scores",),
               weights_of(anatomy.weighting, v["attn_scores"].float()), v["pattern"].float())  # fmt: skip
    if have("rot_q", "rot_k", "attn_scores", "pattern") and not anatomy.family.registry:
        hidden = v["pattern"] == 0
        products = torch.einsum("lbqhd,lbkhd->lbhqk", v["rot_q"], repeated(v["rot_k"]))
        yield ("rot_q · rot_k / √d_head == attn_scores", ("rot_q", "rot_k"),
               (products / anatomy.d_head**0.5).masked_fill(hidden, 0),
               v["attn_scores"].masked_fill(hidden, 0))  # fmt: skip
    if have("pattern", "v", "z"):
        mixed = torch.einsum("lbhqk,lbkhd->lbqhd", v["pattern"], repeated(v["v"]))
        yield "pattern @ v == z", ("pattern", "v", "z"), mixed, v["z"]
    if have("result", "attn_out") and not anatomy.blocks[0].norm_after_attn:
        heads = v["result"].sum(-2)
        bias = (v["attn_out"] - heads)[:, :1, :1]  # b_O, the same for each row and position
        yield "heads and b_O sum to attn_out", ("result",), heads + bias, v["attn_out"]
    for name, reader in (("ln1", "attn.input"), ("ln2", "mlp.input")):
        if have(f"{name}.normalized", reader):
            yield (f"{name}.normalized · γ + β == {reader}", (f"{name}.normalized",),
                   _affine(anatomy, name, v[f"{name}.normalized"]), v[reader])  # fmt: skip


def _same_attention(
    anatomy: Anatomy, batch: TokenBatch, base: Tensor, failed: dict[str, str]
) -> dict[str, float]:
    """Showing the pattern must not change what the model says: its softmax is the plain one."""
    if "pattern" not in _points(anatomy, failed):
        return {}
    shown = execute(anatomy, batch, save="L*.pattern").logits
    deviation = float((shown - base).abs().max() / base.abs().max().clamp(min=1e-12))
    if not deviation <= 10 * _TOLERANCE.get(base.dtype, 3e-2):
        for point in _INSIDE:
            failed[point] = (
                f"with the pattern shown the logits deviate by {deviation:.1e}: attention here "
                f"is not a plain {anatomy.weighting} over the keys"
            )
    return {"logits with the pattern shown == logits": deviation}


def _affine(anatomy: Anatomy, name: str, normalized: Tensor) -> Tensor:
    out = []
    for block, x in zip(anatomy.blocks, normalized, strict=True):
        norm: Any = getattr(block, name)
        gain, bias = gamma(norm, anatomy.family.norm_offset), fetched(norm, "bias")
        gain = gain.to(x.device) if isinstance(gain, Tensor) else gain
        out.append(x * gain + (0 if bias is None else bias.to(x.device)))
    return torch.stack(out)


def _exact(
    anatomy: Anatomy, batch: TokenBatch, base: Tensor, failed: dict[str, str]
) -> dict[str, float]:
    """Writing back what was read, and reading everything at once, must change nothing."""
    points = _points(anatomy, failed)
    everything = [pattern_of(point) for point in points]
    hooked = execute(anatomy, batch, save=everything).logits
    name, reference = _reference(anatomy, batch, base, points)
    worst = {f"all sites hooked == {name}": _largest(hooked, reference)}
    if worst[f"all sites hooked == {name}"] > 0:
        for point in _INSIDE:
            if point in points:
                failed[point] = f"reading it changes the logits against {name}"
    for point in points:
        same = hooked if point in _INSIDE else base
        for site in resolve(anatomy, pattern_of(point)):
            written = execute(anatomy, batch, edit={str(site): torch.clone}).logits
            if not torch.equal(written, same):
                failed[point] = f"writing back {site} changes the logits"
    return worst


def _largest(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max())


def _reference(
    anatomy: Anatomy, batch: TokenBatch, base: Tensor, points: list[str]
) -> tuple[str, Tensor]:
    """Logits that a run with these points hooked must equal to the bit, and what they are."""
    inside = [pattern_of(point) for point in points if point in _INSIDE]
    if not inside and not anatomy.family.registry:
        return "eager attention", base
    eager = _eager(anatomy, batch)
    if anatomy.family.registry or torch.allclose(eager, base, rtol=1e-3, atol=1e-3):
        return "eager attention", eager
    # Falcon's eager code adds alibi twice, its sdpa code once: nothing of theirs shows a pattern
    return "only attention hooked", execute(anatomy, batch, save=inside).logits


def _eager(anatomy: Anatomy, batch: TokenBatch) -> Tensor:
    """Logits under the family's own eager attention."""
    configs = list(anatomy.configs())
    before = [config._attn_implementation_internal for config in configs]
    try:
        for config in configs:
            config._attn_implementation_internal = "eager"
        return execute(anatomy, batch).logits
    finally:
        for config, name in zip(configs, before, strict=True):
            config._attn_implementation_internal = name
