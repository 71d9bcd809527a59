"""``interp.discover``: from prompts to a circuit, by any of the published methods.

All methods ask the same question of the same graph, with the same metric and the same values in the
place of ablated edges; they differ in how they search:

- ``"acdc"`` removes edges one after another and keeps those whose removal changes the metric
  (:mod:`interp.discovery.acdc`);
- scores of edges (``"exact"``, ``"eap"``, ``"eap-ig"``, ...) rank all of them, each by itself, and
  the strongest are taken (:func:`interp.attribute`, :mod:`interp.discovery.selection`);
- ``"edge-pruning"`` and ``"subnetwork-probing"`` train gates (:mod:`interp.discovery.masks`).

Noising and denoising find different circuits: two edges of which either suffices (OR) have no effect
when one is ablated, two that are needed together (AND) none when one is restored. ACDC and gates
noise, and of an OR they keep one. What a circuit is worth is for ``Circuit.evaluate`` to say, on other
prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from jaxtyping import Bool, Int
from torch import Tensor

from interp.attribution.edges import EdgeScores
from interp.attribution.edges.eap import Alphas
from interp.attribution.edges.verb import attribute_edges
from interp.circuits.acquaintance import described
from interp.circuits.circuit import Circuit
from interp.discovery.acdc import Order, acdc
from interp.discovery.acdc_record import AcdcRecord
from interp.discovery.mask_record import MaskRecord
from interp.discovery.masks import edge_pruning, subnetwork_probing
from interp.discovery.methods import GATED, check_options
from interp.discovery.selection import Connection, at_least, top_n
from interp.errors import RunError, warn
from interp.graph import Setting
from interp.graph.ablations import Ablation
from interp.metrics import Metric
from interp.models.model import Model
from interp.prompts.prompts import Prompts
from interp.results import Provenance

__all__ = ["discover"]

Found = tuple[Bool[Tensor, "source dest *position"], EdgeScores, bool]
R = TypeVar("R", AcdcRecord, MaskRecord)


def discover(
    model: Model,
    prompts: Prompts | str | Sequence[str] | Int[Tensor, "prompt pos"],
    corrupted: str | Sequence[str] | Int[Tensor, "prompt pos"] | None = None,
    *,
    method: str = "acdc",
    metric: str | Metric | Callable[..., Tensor] = "logit_diff",
    ablation: Ablation = "resample",
    reference: Prompts | None = None,
    tau: float | None = None,
    order: Order | None = None,
    n: int | float | None = None,
    threshold: float | None = None,
    signed: bool | None = None,
    connected: Connection = None,
    direction: Literal["noise", "denoise"] | None = None,
    steps: int | None = None,
    alphas: Alphas | None = None,
    penalty: float | None = None,
    positions: Iterable[str] = (),
    units: Iterable[str] = (),
    freeze_norms: bool = False,
    answers: Any = None,
    foils: Any = None,
    name: str | None = None,
    seed: int = 0,
    batch: int | Literal["auto"] = "auto",
    record: str | Path | None = None,
    progress: bool | None = None,
) -> Circuit:
    """Find a circuit: the edges of a model's graph that carry a behaviour.

    >>> interp.discover(model, pairs, metric="kl", tau=0.05)                 # doctest: +SKIP
    >>> interp.discover(model, pairs, method="eap-ig", n=0.05)               # doctest: +SKIP

    Args:
        prompts, corrupted: aligned Prompts; or clean and corrupted text, texts or token tensors.
        method: ``"acdc"``; ``"exact"``, ``"eap"``, ``"eap-ig"``, ``"eap-ig-activations"``,
            ``"atp*"``, ``"information-flow"`` (scores of edges, of which the strongest are taken);
            ``"edge-pruning"`` or ``"subnetwork-probing"`` (trained gates).
        metric: as for :func:`interp.patch`; ``"kl"`` compares with the clean run.
        ablation: what edges outside the circuit carry: ``"resample"``, the paired corrupted run's
            value; ``"zero"``; ``"mean"`` over ``reference``.
        reference: for ``"mean"``: other prompts of the same templates.
        tau, order: of ACDC: the smallest change that keeps an edge, in the metric's unit (0.01),
            and the order of sources (``"latest"`` first).
        n: how many edges to keep; a float is a share of all. Needed by edge pruning, and by scores
            unless there is a threshold; subnetwork probing takes whole nodes up to that many.
        threshold: keep edges of at least this strength, in the scores' unit.
        signed: ACDC: count changes for the worse only (None: for losses). Scores: rank by how much
            worse the metric is without an edge, not by the size of the change.
        connected: of scores: None takes the strongest edges; ``"greedy"`` grows from the logits;
            ``"prune"`` drops what is on no path from an embedding to the logits.
        direction: of scores: ``"noise"`` or ``"denoise"`` (see :func:`interp.attribute`).
        steps: of integrated gradients, or of the training of gates; None: the method's own.
        alphas: of integrated gradients.
        penalty: of subnetwork probing.
        positions: names of positions; edges are then counted at each, and at all others together.
        units: neurons that are nodes of their own, ``["m2.n77"]``.
        freeze_norms: hold the norms' scales at the clean run's.
        answers, foils: for text: the tokens compared. None takes each prompt's own top token.
        name: of the circuit; None: the prompts' own.
        seed: of ``order="random"`` and of gates.
        batch: prompts at a time, or ``"auto"``.
        record: a file for the course of ACDC or of a training. It is written at the end and on
            Ctrl-C; where it is there already, the same call goes on from it.
        progress: show a bar; None shows one for long work if a person can see it.

    Returns:
        The circuit, with its provenance and with scores of all edges: those it was taken from; of
        ACDC the change that each removal made; of gates the gates. On Ctrl-C, ACDC returns the
        circuit with every edge that was not tried, and gates as far as they were trained
        (``circuit.method["finished"]`` is False).

    Raises:
        RunError: an option that the method has no use for, or none that says how many edges to keep.
        PromptError: pairs of different lengths, or both prompts predict the same token.
        MetricError: the prompts lack what the metric needs, or the method needs its gradient.
        GraphError: the model has no graph, or the ablation does not fit the prompts.
        ResultError: ``record`` is of another call.

    Source:
        Conmy et al. 2023 (arXiv:2304.14997); Syed et al. 2023 (arXiv:2310.10348); Hanna et al. 2024
        (arXiv:2403.17806); Kramár et al. 2024 (arXiv:2403.00745); Ferrando & Voita 2024
        (arXiv:2403.00824); Bhaskar et al. 2024 (arXiv:2406.16778); Cao et al. 2021
        (arXiv:2104.03514).
    """
    options = check_options(method, {
        "tau": tau, "order": order, "n": n, "threshold": threshold, "signed": signed,
        "connected": connected, "direction": direction, "steps": steps, "alphas": alphas,
        "penalty": penalty, "record": record,
    })  # fmt: skip
    pairs = _pairs(model, prompts, corrupted, answers, foils)
    shared = {
        "metric": metric, "ablation": ablation, "reference": reference,
        "positions": tuple(positions), "units": tuple(units), "freeze_norms": freeze_norms,
        "batch": batch,
    }  # fmt: skip
    if method == "acdc" or method in GATED:
        setting = Setting.of(model, pairs, **shared)  # type: ignore[arg-type]
        mask, scores, finished = _searched(setting, method, options, seed, progress)
    else:
        mask, scores, finished = _ranked(model, pairs, method, options, shared, progress)
    said = {word: value for word, value in options.items() if word != "record"}
    told: dict[str, Any] = {"verb": "discover", "method": method, **said}
    told |= {} if finished else {"finished": False}
    told |= {"freeze_norms": True} if freeze_norms else {}
    drawn = seed if method in GATED or order == "random" else None
    return _circuit(model, pairs, mask, scores, told, name, drawn, reference)


def _pairs(model: Model, prompts: Any, corrupted: Any, answers: Any, foils: Any) -> Prompts:
    if not isinstance(prompts, Prompts):
        return model.prompts(prompts, corrupted, answers=answers, foils=foils)
    if corrupted is not None or answers is not None or foils is not None:
        raise RunError(
            "corrupted=, answers= and foils= belong to text or tokens; these Prompts carry their own."
        )
    return prompts


def _ranked(
    model: Model, pairs: Prompts, method: Any, options: dict[str, Any], shared: Any,
    progress: bool | None,
) -> Found:  # fmt: skip
    """The strongest edges of a score."""
    own = {word: options[word] for word in ("direction", "steps", "alphas") if word in options}
    scores = attribute_edges(model, pairs, method=method, progress=progress, **own, **shared)
    take = {word: options[word] for word in ("signed", "connected") if word in options}
    if "n" in options:
        return top_n(scores, options["n"], **take), scores, scores.finished
    return at_least(scores, options["threshold"], **take), scores, scores.finished


def _searched(
    setting: Setting, method: str, options: dict[str, Any], seed: int, progress: bool | None
) -> Found:
    """What ACDC or a training of gates comes to."""
    given = {word: value for word, value in options.items() if word != "record"}
    common: dict[str, Any] = {"seed": seed, "progress": progress}

    if method == "acdc":
        course = _recorded(lambda old: acdc(setting, **given, **common, resume=old), options)
        return course.mask, _as_scores(course, course.values, "acdc"), course.finished
    if method == "edge-pruning":
        n = given.pop("n")
        gates = _recorded(
            lambda old: edge_pruning(setting, n, **given, **common, resume=old), options
        )
    else:
        gates = _recorded(
            lambda old: subnetwork_probing(setting, **given, **common, resume=old), options
        )
    return gates.mask, _as_scores(gates, gates.gates, method), gates.finished


def _recorded(search: Callable[[Path | None], R], options: dict[str, Any]) -> R:
    """A search that goes on from its record, if there is one, and leaves it behind."""
    file = Path(options["record"]) if "record" in options else None
    found = search(file if file is not None and file.is_file() else None)
    if file is not None:
        found.save(file)
    elif not found.finished:
        warn("the circuit is unfinished, and what was done is lost: record= a file would keep it.")
    return found


def _as_scores(course: AcdcRecord | MaskRecord, values: Tensor, method: str) -> EdgeScores:
    graph, made = course.graph, course.provenance
    if isinstance(course, AcdcRecord):
        made = replace(made, call={**made.call, "rounds": course.rounds, "runs": course.runs})
    return EdgeScores(
        values=values, per_prompt=None, sources=graph.sources, dests=graph.dests,
        positions=graph.positions, metric=course.metric, unit=course.unit, method=method,
        ablation=course.ablation, direction="noise", full=course.full, empty=course.empty,
        shape=graph.shape, provenance=made,
    )  # fmt: skip


def _circuit(
    model: Model, pairs: Prompts, mask: Tensor, scores: EdgeScores, told: dict[str, Any],
    name: str | None, seed: int | None, reference: Prompts | None,
) -> Circuit:  # fmt: skip
    graph = scores.graph
    on = described(pairs)
    if reference is not None:
        on["reference"] = described(reference)
    call = {**told, "metric": scores.metric, "ablation": scores.ablation}
    said = ", ".join(f"{word}={value!r}" for word, value in call.items()
                     if word not in ("verb", "finished"))  # fmt: skip
    return Circuit(
        name=name or pairs.name, edges=frozenset(graph.names(mask)), shape=graph.shape,
        model=model.name, weights_hash=model.weights_hash, metric=scores.metric,
        ablation=scores.ablation, positions=graph.positions, prompts=on, method=told,
        source=f"interp.discover(model, prompts, {said})",
        provenance=Provenance.of(model, pairs, seed=seed, **call), scores=scores,
    )  # fmt: skip
