r"""Does a circuit still do what its file says? Measure again, and compare number by number.

``record`` writes down, for prompts that can be drawn again (a task, how many, a seed):

1. m(full), m(∅), m(C) and faithfulness;
2. for each member e, m(C \\ {e}) - m(C): what the circuit loses without it.

``verify`` draws the prompts, measures all of it, and compares. A circuit file in which one edge was
exchanged for another fails: the other edge has no recorded effect, and m(C) and the effects of
others are no longer what they were. Nothing is taken from the file but the edges and the recipe.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

import interp
from interp.circuits.acquaintance import check_graph, check_prompts, unseen
from interp.circuits.runs import Runs, setting_of
from interp.circuits.shares import MIN_GAP, gap, share_interval
from interp.circuits.verification import Verification
from interp.errors import CircuitError, nearest
from interp.results import Provenance

__all__ = ["KEY", "record", "recorded", "verify"]

#: Where the record stands in ``Circuit.measured``.
KEY = "evaluation"
_DIGITS = 6  # significant digits that are written: two more than are compared


def record(
    circuit: Any,
    model: Any,
    *,
    task: str,
    n: int = 64,
    seed: int = 1,
    options: Mapping[str, Any] | None = None,
    reference: Mapping[str, Any] | None = None,
    tolerance: float = 1e-4,
    command: str = "",
    show: bool | None = None,
) -> Any:
    """The circuit with what :func:`verify` compares under ``measured["evaluation"]``.

    Runs one set of edges for each member, on all prompts.

    Args:
        task: a function of :mod:`interp.prompts`, called with the model, ``n``, ``seed`` and
            ``options``. Draw others than the circuit was found on; those of them that it was found
            on are left out, here and by :func:`verify`.
        reference: for mean ablation: ``{"task": ..., "n": ..., "seed": ...}`` to average over.
        tolerance: how far a number may be off when it is measured again, as a share of
            \\|m(full) - m(∅)\\|. Other machines add up in another order.
        command: what was called to measure it, for the record.

    Raises:
        CircuitError: there is no such task, or the circuit has no metric by name.
        GapError: m(full) and m(∅) are too close.
    """
    recipe: dict[str, Any] = {"task": task, "n": n, "seed": seed}
    recipe |= {"options": dict(options)} if options else {}
    found, setting = _measured(circuit, model, recipe, reference, show)
    check_prompts(circuit, setting.prompts)
    if left := n - len(setting.prompts):
        recipe["left_out"] = left
    kept, members = found["C"], found["members"]
    whole = share_interval(kept, found["full"], found["empty"])
    ends = {"low": float(whole.low), "high": float(whole.high)} if len(kept) > 1 else {}
    entry = {
        "prompts": {**recipe, "hash": setting.prompts.hash},
        **({"reference": dict(reference)} if reference else {}),
        "metric": setting.metric.name, "ablation": setting.ablation,
        **_numbers(found), **{key: _rounded(value) for key, value in ends.items()},
        "removal": {edge: _rounded(value) for edge, value in members.items()},
        "tolerance": tolerance, "interp": interp.__version__,
        **({"command": command} if command else {}),
    }  # fmt: skip
    return replace(circuit, measured={**circuit.measured, KEY: entry})


def recorded(circuit: Any) -> bool:
    """Whether a circuit has a record that :func:`verify` can measure again."""
    return isinstance(circuit.measured.get(KEY), Mapping)


def verify(circuit: Any, model: Any, *, show: bool | None = None) -> Verification:
    """Measure a circuit again as its record says, and compare.

    Returns:
        Every number as recorded and as measured; ``.ok`` if all of them agree.

    Raises:
        CircuitError: the circuit has no record, a damaged one, or does not fit the model.
    """
    if not recorded(circuit):
        raise CircuitError(
            f"{circuit.name!r} has no record to verify: expected measured[{KEY!r}], which "
            "interp.circuits.record(circuit, model, task=...) makes."
        )
    entry = circuit.measured[KEY]
    try:
        recipe, removal = dict(entry["prompts"]), dict(entry["removal"])
        written = {name: float(entry[name]) for name in _NAMES}
        removed = {edge: float(value) for edge, value in removal.items()}
        tolerance = float(entry["tolerance"])
        drawn = recipe.pop("hash")
    except (KeyError, TypeError, ValueError) as error:
        raise CircuitError(
            f"the record of {circuit.name!r} is damaged ({type(error).__name__}: {error}); make it "
            "again with interp.circuits.record()."
        ) from None
    own = replace(circuit, metric=entry.get("metric", circuit.metric),
                  ablation=entry.get("ablation", circuit.ablation))  # fmt: skip
    found, setting = _measured(own, model, recipe, entry.get("reference"), show, min_gap=0.0)
    now = _numbers(found)
    allowed = tolerance * abs(written["full"] - written["empty"])
    rows: list[tuple[str, float, float, float]] = [
        (name, written[name], now[name], tolerance if name == "faithfulness" else allowed)
        for name in _NAMES
    ]
    nan = float("nan")
    members = found["members"]
    for edge in dict.fromkeys([*removed, *members]):
        rows.append((f"without {edge}", removed.get(edge, nan), members.get(edge, nan), allowed))
    notes = []
    if setting.prompts.hash != drawn:
        notes.append("the prompts drawn here are not the recorded ones: tokenizer or task differ")
    if circuit.weights_hash not in (None, model.weights_hash):
        notes.append("the weights are not those the circuit was found in")
    return Verification(
        circuit=circuit.name, names=tuple(row[0] for row in rows),
        recorded=torch.tensor([row[1] for row in rows]).double(),
        measured=torch.tensor([row[2] for row in rows]).double(),
        tolerance=torch.tensor([row[3] for row in rows]).double(),
        unit=setting.metric.unit, problems=tuple(notes),
        provenance=Provenance.of(model, setting.prompts, verb="circuits.verify",
                                 circuit=circuit.name, **recipe),
    )  # fmt: skip


_NAMES = ("full", "empty", "circuit", "faithfulness")


def _measured(
    circuit: Any, model: Any, recipe: Mapping[str, Any], reference: Any, show: bool | None,
    min_gap: float = MIN_GAP,
) -> tuple[dict[str, Any], Any]:  # fmt: skip
    """Scores of the model, of nothing, of the circuit, and what each member adds to it."""
    setting = setting_of(
        model, unseen(circuit, _drawn(model, recipe)), metric=circuit.metric, ablation=circuit.ablation,
        reference=_drawn(model, reference) if reference else None, graph=circuit.graph,
    )  # fmt: skip
    check_graph(circuit, model, setting.graph)
    runs = Runs(setting, what=f"measuring {circuit.name}", show=show)
    graph, mask = runs.graph, runs.graph.mask(circuit.edges)
    gap(runs.full, runs.empty, min_gap=min_gap)
    edges = graph.names(mask)
    kept: Float[Tensor, " prompt"] = runs([mask])[0]
    less = runs(_without(graph, mask, edges), total=len(edges)).double().mean(-1)
    effect = (less - kept.double().mean()).tolist()
    return {
        "full": runs.full, "empty": runs.empty, "C": kept,
        "members": dict(zip(edges, effect, strict=True)),
    }, setting  # fmt: skip


def _without(graph: Any, mask: Bool[Tensor, "source dest *position"], edges: Any) -> Any:
    return (mask & ~graph.mask([edge]) for edge in edges)


def _drawn(model: Any, recipe: Mapping[str, Any]) -> Any:
    """The prompts that a recipe draws."""
    from interp import prompts

    tasks = [name for name in prompts.__all__ if name[0].islower() and name not in _NO_TASKS]
    task = recipe.get("task")
    if task not in tasks:
        raise CircuitError(
            f"no task is called {task!r}; expected one of interp.prompts, nearest: "
            f"{nearest(str(task), tasks)}."
        )
    try:
        return getattr(prompts, str(task))(
            model, recipe["n"], recipe["seed"], **dict(recipe.get("options") or {})
        )
    except (KeyError, TypeError) as error:
        raise CircuitError(
            f"{dict(recipe)} draws no prompts ({error}); expected task, n, seed and options that "
            f"interp.prompts.{task} takes."
        ) from None


_NO_TASKS = ("build", "load", "save")


def _numbers(found: Mapping[str, Any]) -> dict[str, float]:
    full, empty, kept = (float(found[key].double().mean()) for key in ("full", "empty", "C"))
    share = (kept - empty) / (full - empty) if full != empty else float("inf")
    return {name: _rounded(value) for name, value in
            zip(_NAMES, (full, empty, kept, share), strict=True)}  # fmt: skip


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
