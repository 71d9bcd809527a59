"""The named pipelines: from a behaviour to its circuit with roles, in one call each.

>>> finding = interp.pipelines.ioi(interp.load("demo"))                    # doctest: +SKIP
>>> finding.findings()          # what the measurements bear, as sentences
>>> finding.to_frame()          # who plays which role, and the behaviour behind each
>>> finding.circuit.draw().save("ioi.svg")
>>> finding.evaluation.to_frame()

All of them go the same way (:mod:`interp.pipelines.study`) and differ in what they ask
(:mod:`interp.pipelines.tasks`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from interp.models.model import Model
from interp.pipelines.finding import Finding
from interp.pipelines.measured import Task
from interp.pipelines.study import Options, Study
from interp.pipelines.tasks import factual_recall as _factual_recall
from interp.pipelines.tasks import greater_than as _greater_than
from interp.pipelines.tasks import induction as _induction
from interp.pipelines.tasks import ioi as _ioi
from interp.pipelines.tasks import mcq as _mcq
from interp.prompts.prompts import Prompts

__all__ = ["factual_recall", "greater_than", "induction", "ioi", "mcq"]


def induction(
    model: Model, prompts: Prompts | None = None, *, n: int = 32, period: int = 20, seed: int = 0,
    **options: Any,
) -> Finding:  # fmt: skip
    """Previous-token and induction heads, their composition, and the circuit.

    Roles: ``previous token``, ``duplicate token``, ``induction``, ``K-composition``,
    ``Q-composition``. See :mod:`interp.pipelines.tasks.induction`.

    Args:
        prompts: None draws ``n`` of them; given ones need the positions ``A1`` and ``B1``.
        period: tokens before the repeat.
        seed, options: as in :func:`ioi`.
    """

    def draw(i: int) -> Prompts:
        return _induction.prompts(model, n, seed + i, period=period)

    return _study(
        model, _induction.TASK, prompts, draw, "induction", n, seed, options, period=period
    )


def factual_recall(
    model: Model, prompts: Prompts | None = None, *, n: int = 64, seed: int = 0, **options: Any
) -> Finding:  # fmt: skip
    """Tracing, mover heads, what MLPs make of them, and the circuit, for a country's capital.

    Roles: ``subject enrichment``, ``mover``, ``readout``. ``finding.steps`` has the ``trace`` and
    the ``mlp_regression``. See :mod:`interp.pipelines.tasks.factual_recall`.

    Args:
        prompts: None draws ``n`` capitals; given ones (``interp.prompts.languages``, or your own)
            need ``subject``, and ``subject_first`` and ``subject_last`` for tracing.
        seed, options: as in :func:`ioi`.
    """

    def draw(i: int) -> Prompts:
        return _factual_recall.prompts(model, n, seed + i)

    return _study(model, _factual_recall.TASK, prompts, draw, "factual_recall", n, seed, options)


def ioi(
    model: Model, prompts: Prompts | None = None, *, n: int = 64, seed: int = 0, **options: Any
) -> Finding:  # fmt: skip
    """Indirect object identification: who moves names, who is turned away, and the circuit.

    Roles: ``name mover``, ``name copier``, ``negative name mover``, ``S-inhibition``, ``S suppression``,
    ``duplicate token``, ``induction``, ``previous token``, ``readout``. See
    :mod:`interp.pipelines.tasks.ioi`.

    Args:
        prompts: None draws ``n`` of them. Given ones need the task's positions; then the draws are
            random halves of them, which overlap, so that their agreement is an upper bound.
        n: prompts of each draw; half are found on, half evaluated on.
        seed: of the first draw; the others follow it.
        options:
            ``seeds=5``: draws of the prompts on which the circuit is found.
            ``faithful=0.95``: the share of the metric it must keep on the prompts it is found on.
            ``method="screened"``: how edges are scored: exactly, where their ends matter
            (:mod:`interp.pipelines.screening`), or as in ``interp.attribute(model, prompts,
            "edges")``; estimates are quicker and may find less.
            ``signed=True``: edges which help most come first; False ranks by size of effect.
            ``twin=None``: the null control; None makes an untrained twin.
            ``evaluation=None``: a mapping of options for ``Circuit.evaluate``.
            ``progress=None``: a bar, and beforehand the time it will take; False for neither.

    Raises:
        PromptError: the model's tokenizer cannot make such prompts.
        RunError: options that make no sense.
        GraphError: the model has no graph of heads.
    """

    def draw(i: int) -> Prompts:
        return _ioi.prompts(model, n, seed + i)

    return _study(model, _ioi.TASK, prompts, draw, "ioi", n, seed, options)


def greater_than(
    model: Model, prompts: Prompts | None = None, *, n: int = 64, seed: int = 0, **options: Any
) -> Finding:  # fmt: skip
    """Greater-than: who brings the year, who prefers later ones, and the circuit.

    Roles: ``year mover``, ``greater-than``, ``year encoder``. See
    :mod:`interp.pipelines.tasks.greater_than`; arguments as in :func:`ioi`.
    """

    def draw(i: int) -> Prompts:
        return _greater_than.prompts(model, n, seed + i)

    return _study(model, _greater_than.TASK, prompts, draw, "greater_than", n, seed, options)


def mcq(
    model: Model, prompts: Prompts | None = None, *, n: int = 64, seed: int = 0, **options: Any
) -> Finding:  # fmt: skip
    """Multiple choice: who finds the right option, who writes its letter, and the circuit.

    Roles: ``correct letter``, ``correct option``, ``single letter``, ``content gatherer``,
    ``readout``. See :mod:`interp.pipelines.tasks.mcq`; arguments as in :func:`ioi`.
    """

    def draw(i: int) -> Prompts:
        return _mcq.prompts(model, n, seed + i)

    return _study(model, _mcq.TASK, prompts, draw, "mcq", n, seed, options)


def _study(
    model: Model, task: Task, given: Prompts | None, draw: Callable[[int], Prompts], verb: str,
    n: int, seed: int, options: dict[str, Any], **others: Any,
) -> Finding:  # fmt: skip
    """Run a pipeline on drawn prompts, or on halves of given ones."""

    def halves(i: int) -> Prompts:
        assert given is not None
        order = given.split(0.5, seed=seed + i)
        return given if not i else order[0]

    call = {"verb": verb, "n": n if given is None else len(given), "seed": seed, **others}
    return Study(model, task, draw if given is None else halves, Options(**options), call).run()
