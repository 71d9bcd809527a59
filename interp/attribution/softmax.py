"""The fix for queries and keys: the attention softmax is recomputed, not linearised.

A pattern near 0 or 1 has almost no gradient, so a patch of q or k that moves attention away
from where it is saturated gets an estimate near 0. Here the pattern under the patch is computed
exactly, and only what comes after it is linearised: Σ (patched - pattern) · ∂metric/∂pattern.

What scores a query and a key give depends on these two alone, so one run with every q replaced
(and every k kept) holds the patched scores of each query, of all layers at once; a second
does so for keys. A patched query changes its own row of the pattern, a patched key one column of
the scores of each row. Scale, rotary positions, soft-cap, masks and windows are the model's own.

Source: Kramár et al. 2024 (arXiv:2403.00745), section 3.1.1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from interp.attribution.first_order import first_order
from interp.attribution.part import Changes, Part, estimates, total
from interp.attribution.trace import Gradients, Trace
from interp.engine.spots import Spot
from interp.runs.edits import Edit, Replace
from interp.runs.execute import execute
from interp.runs.slices import read
from interp.sites import Site

__all__ = ["by_softmax", "one_key_replaced", "with_softmax"]

#: What each point is multiplied with.
_PARTNER: Final = {"q": "k", "k": "q", "rot_q": "rot_k", "rot_k": "rot_q"}


def _pattern_sites(sites: Sequence[Site]) -> list[Site]:
    """What must be known of the run beside ``sites``: patterns, scores, and the other factor."""
    factors = [site for site in sites if site.point in _PARTNER]
    more = [
        Site(p, s.layer) for s in factors for p in ("attn_scores", "pattern", _PARTNER[s.point])
    ]
    return [site for site in dict.fromkeys(more) if site not in sites]


def by_softmax(part: Part) -> tuple[Float[Tensor, "cell prompt"], Float[Tensor, " prompt"]]:
    """First order, but queries and keys by the exact softmax; and the baseline."""
    run, estimate = with_softmax(part, {})
    return estimate(run.gradients()), run.scores.detach()


def with_softmax(
    part: Part, edit: dict[str, Edit]
) -> tuple[Trace, Callable[[Gradients], Float[Tensor, "cell prompt"]]]:
    """The run with its graph, and the estimates as a function of its gradients."""
    run = part.trace([*part.sites, *_pattern_sites(part.sites)], edit)
    changes = part.changes(run.values())
    softmax = _Softmax(part, changes)

    def estimate(gradients: Gradients) -> Tensor:
        exact, linear = softmax.effect(gradients), first_order(changes, gradients, part.cells)

        def effect(spot: Spot) -> Tensor:
            return exact(spot) if spot.site.point in _PARTNER else linear(spot)

        return estimates(part.cells, effect)

    return run, estimate


@dataclass(frozen=True, eq=False)
class _Softmax:
    """The exact change of the pattern under patches of q or k."""

    part: Part
    changes: Changes
    _patched: dict[str, dict[Site, Tensor]] = field(default_factory=dict)
    _alone: dict[Spot, Tensor] = field(default_factory=dict)

    def effect(self, gradients: Gradients) -> Callable[[Spot], Float[Tensor, " prompt"]]:
        """What a patch of q or k does by way of the pattern, at a spot."""
        tables: dict[tuple[Site, bool], Tensor] = {}

        def effect(spot: Spot) -> Tensor:
            site = spot.site.whole
            gradient = gradients[Site("pattern", site.layer)].to(self._dtype)
            if not self._together(spot):
                return total(self._pattern_change(spot) * gradient)
            key = (site, spot.columns is None)
            if key not in tables:
                tables[key] = self._table(spot, gradient)
            return total(read(tables[key], spot.site, spot.columns))

        return effect

    def _table(self, spot: Spot, gradient: Tensor) -> Float[Tensor, "prompt pos head 1"]:
        """The effect of each position and head; a position axis of one for all keys at once."""
        site = spot.site.whole
        keyed = "kv_head" in site.kind.axes
        new = self._replaced(site)
        softmax = self.part.anatomy.weighting == "softmax"
        if keyed and spot.columns is not None and softmax:
            scores = self.changes.run[Site("attn_scores", site.layer)]
            found = one_key_replaced(scores, new[Site("attn_scores", site.layer)], gradient)
        else:
            pattern = Site("pattern", site.layer)
            change = new[pattern].to(self._dtype) - self.changes.run[pattern].to(self._dtype)
            own = keyed and spot.columns is not None  # without a softmax a key has its own column
            found = (change * gradient).sum(-2 if own else -1)
            found = found.sum(-1, keepdim=True) if keyed and not own else found
        if keyed:
            found = found.unflatten(1, (self.part.anatomy.n_kv_heads, -1)).sum(2)
        return found.transpose(1, 2)[..., None]

    @property
    def _dtype(self) -> torch.dtype:
        return torch.promote_types(next(iter(self.changes.run.values())).dtype, torch.float32)

    def _together(self, spot: Spot) -> bool:
        """Whether all spots of a tensor can be patched in one run, each as if alone."""
        whole = spot.site.whole in self.changes.donor.whole
        return whole and (spot.site.head is None or self._heads_apart)

    @cached_property
    def _heads_apart(self) -> bool:
        """Whether the scores of one head depend on its own q and k alone.

        Where one norm spans all heads (OLMo-2) they do not; measured on one prompt.
        """
        site = next(s for s in self.part.sites if s.point in _PARTNER)
        heads = self.part.anatomy
        count = heads.n_kv_heads if "kv_head" in site.kind.axes else heads.n_heads
        scores = Site("attn_scores", site.layer)
        first = site.at(head=0)
        runs = [
            execute(heads, self.part.tokens.rows(0), save=[scores], edit=edit, logits="none")
            for edit in ({}, {str(first): lambda x: 2 * x + 1})
        ]
        others = slice(heads.n_heads // count, None)
        before, after = (run.cache[scores][:, others] for run in runs)
        return torch.equal(before, after)

    def _replaced(self, site: Site) -> dict[Site, Tensor]:
        """Patterns and scores with every ``site.point`` replaced and its partner kept."""
        if site.point not in self._patched:
            layers = [s.layer for s in self.part.sites if s.point == site.point]
            edit: dict[str, Edit] = {}
            for layer in layers:
                own, other = Site(site.point, layer), Site(_PARTNER[site.point], layer)
                edit[str(own)] = Replace(self.changes.donor.whole[own])
                edit[str(other)] = Replace(self.changes.run[other])
            save = [Site(point, layer) for layer in layers for point in ("attn_scores", "pattern")]
            run = execute(self.part.anatomy, self.part.tokens, save=save, edit=edit, logits="none")
            self._patched[site.point] = {s: run.cache[s] for s in save}
        return self._patched[site.point]

    def _pattern_change(self, spot: Spot) -> Float[Tensor, "prompt head query key"]:
        """The change of the pattern under the patch of one spot, by a run of its own."""
        if spot not in self._alone:
            site, columns = spot.site, spot.columns
            pattern = Site("pattern", site.layer)
            site = site.at(position=None if columns is None else "spot")
            run = execute(
                self.part.anatomy, self.part.tokens, save=[pattern], logits="none",
                edit={str(site): Replace(self.changes.new(spot))},
                columns=lambda _: columns,  # type: ignore[arg-type, return-value]
            )  # fmt: skip
            old = self.changes.run[pattern].to(self._dtype)
            self._alone[spot] = run.cache[pattern].to(self._dtype) - old
        return self._alone[spot]


def one_key_replaced(
    scores: Float[Tensor, "prompt head query key"],
    new: Float[Tensor, "prompt head query key"],
    gradient: Float[Tensor, "prompt head query key"],
) -> Float[Tensor, "prompt head key"]:
    """What each key's patch does by way of the pattern: only its own column of scores is new.

    With one score replaced its probability goes from p to p', and all others shrink in
    proportion, so a row changes by (p' - p)(g_key - mean of g under the others). The others are
    summed from both sides, never as 1 - p, which is 0 where attention is saturated.
    """
    top = scores.double().amax(-1, keepdim=True).clamp(min=torch.finfo(torch.float32).min)
    old, gradient = (scores.double() - top).exp(), gradient.double()
    others = _all_but_one(old)
    mean = torch.nan_to_num(_all_but_one(old * gradient) / others)
    patched = torch.sigmoid(new.double() - top - others.log())
    change = torch.nan_to_num(patched) - old / (old + others).clamp(min=1e-300)
    effect = (change * (gradient - mean)).sum(-2)
    return effect.to(torch.promote_types(scores.dtype, torch.float32))


def _all_but_one(x: Float[Tensor, "*any key"]) -> Float[Tensor, "*any key"]:
    """For each key the sum over all others."""
    before = functional.pad(x.cumsum(-1)[..., :-1], (1, 0))
    after = functional.pad(x.flip(-1).cumsum(-1)[..., :-1], (1, 0)).flip(-1)
    return before + after
