"""Faithfulness as a circuit's own edges are added, the strongest first: how much of it is needed?

:func:`interp.circuits.curve` adds the edges of the whole graph. A circuit is seldom the first n of those
(it was pruned, or found in another way), so what its own first n edges do is measured here. The last
point is the circuit itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from interp.circuits.acquaintance import check_fits, check_prompts
from interp.circuits.curve_result import FaithfulnessCurve
from interp.circuits.runs import Runs, setting_of
from interp.circuits.shares import MIN_GAP, gap
from interp.errors import CircuitError
from interp.results import Provenance

if TYPE_CHECKING:
    from interp.attribution.edges import EdgeScores

__all__ = ["MEMBERS", "member_curve"]

#: How such a curve says its edges were chosen.
MEMBERS: Final = "members by |score|"


def member_curve(
    circuit: Any,
    where: Any,
    prompts: Any = None,
    *,
    scores: EdgeScores | None = None,
    metric: Any = None,
    ablation: str | None = None,
    reference: Any = None,
    points: int = 24,
    min_gap: float = MIN_GAP,
    show: bool | None = None,
) -> FaithfulnessCurve:
    """Measure how faithful a circuit's first n edges are, from none to all of them.

    Args:
        where: a model, or a :class:`~interp.graph.Setting`, which has prompts of its own.
        prompts: prompts that the circuit was *not* found on.
        scores: what the edges are ranked by, by size; None: the circuit's own.
        metric, ablation: None: the circuit's own.
        reference: for mean ablation: other prompts to average over.
        points: at most how many n are measured, each larger than the last by about the same factor.
        min_gap: the least gap to divide by, in the metric's unit.

    Returns:
        A curve over the numbers of edges and the shares of the graph that they are. It ends at the
        circuit, so its CPR and CMD are no benchmark's.

    Raises:
        CircuitError: there are no scores, no edges, or the model's graph is another one.
        GapError: m(full) and m(∅) are too close.
    """
    ranking = circuit.scores if scores is None else scores
    if ranking is None or not circuit.edges or points < 2:
        raise CircuitError(
            f"the edges of {circuit.name!r} cannot be added one after another: expected scores "
            f"({'given' if ranking is not None else 'none'}), at least one edge ({circuit.size}) and two "
            f"points ({points}). Give scores=interp.attribute(model, prompts, 'edges')."
        )
    setting = setting_of(
        where, prompts, metric=metric or circuit.metric, ablation=ablation or circuit.ablation,
        reference=reference, graph=circuit.graph,
    )  # fmt: skip
    check_fits(circuit, setting.model, setting.graph)
    check_prompts(circuit, setting.prompts)
    runs = Runs(setting, what=f"adding the edges of {circuit.name}", show=show)
    gap(runs.full, runs.empty, min_gap=min_gap)
    graph = runs.graph
    size = lambda edge: -abs(value) if (value := ranking.of(edge)) == value else 0.0  # noqa: E731
    ranked = sorted(circuit.ordered, key=size)
    steps = max(points - 2, 1)
    counts = sorted({0, *(round(len(ranked) ** (i / steps)) for i in range(steps + 1))})
    values = runs([graph.mask(ranked[:n]) for n in counts])
    return FaithfulnessCurve(
        fractions=tuple(n / len(graph.edges) for n in counts), counts=tuple(counts),
        n_edges=len(graph.edges), per_prompt=values, full=runs.full, empty=runs.empty,
        random=values.new_empty(0, len(counts)), selection=MEMBERS, method=ranking.method,
        metric=setting.metric.name, unit=setting.metric.unit, ablation=setting.ablation,
        min_gap=min_gap,
        provenance=Provenance.of(
            setting.model, setting.prompts, verb="circuits.member_curve", circuit=circuit.name,
            method=ranking.method, metric=setting.metric.name, ablation=setting.ablation,
            reference=getattr(reference, "hash", None), points=points,
        ),
    )  # fmt: skip
