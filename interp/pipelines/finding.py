"""What a pipeline found: a behaviour, who plays which role in it, the circuit, and how sure that is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from interp.circuits.circuit import Circuit
from interp.circuits.evaluation_result import CircuitEvaluation
from interp.errors import ResultError
from interp.pipelines.found import agreement
from interp.pipelines.roles import Roles
from interp.results import Stored, write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

__all__ = ["Finding"]

_FILE: Final = "finding.json"


@dataclass(frozen=True, eq=False, repr=False)
class Finding:
    """A behaviour of a model, explained as far as the measurements bear.

    Attributes:
        task: the behaviour.
        metric, unit: what it is measured by; above 0 is right.
        clean, corrupted: the metric's mean over the held-out prompts, and over their twins.
        right: the share of clean held-out prompts with a score above 0.
        twin: ``clean``, ``corrupted`` and ``right`` of the untrained twin.
        roles: who plays which role, by measured behaviour.
        circuit: the edges that carry the behaviour; None where the model does not show it.
        evaluation: faithfulness, completeness and minimality on held-out prompts.
        draws: circuits of other draws of the prompts, found alike.
        twin_draws: the same for the twin: what this way of finding circuits makes of a model without one.
        steps: results on the way, by name.
        notes: what the reader must know.
    """

    task: str
    metric: str
    unit: str
    clean: float
    corrupted: float
    right: float
    twin: dict[str, float]
    roles: Roles
    circuit: Circuit | None
    evaluation: CircuitEvaluation | None
    draws: tuple[Circuit, ...] = ()
    twin_draws: tuple[Circuit, ...] = ()
    steps: Mapping[str, Stored] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        score = f"{self.metric} {self.clean:.3g}, twin {self.twin['clean']:.3g}"
        if self.circuit is None or self.evaluation is None:
            return f"Finding({self.task!r}: {score}; no circuit)"
        agree = "" if self.stability is None else f", Jaccard {self.stability:.2f} over draws"
        return (
            f"Finding({self.task!r}: {score}; {self.circuit.size} of "
            f"{len(self.circuit.graph.edges):,} edges, faithfulness "
            f"{self.evaluation.faithfulness:.3f}{agree}; {self.roles!r})"
        )

    @property
    def stability(self) -> float | None:
        """Mean Jaccard index of the circuits of all draws, in pairs; None with one draw."""
        return _mean(agreement(self._all))

    @property
    def twin_stability(self) -> float | None:
        """The same of the untrained twin's."""
        return _mean(agreement(self.twin_draws))

    @property
    def _all(self) -> tuple[Circuit, ...]:
        return (*(() if self.circuit is None else (self.circuit,)), *self.draws)

    def findings(self) -> list[str]:
        """What the measurements bear, as sentences."""
        said = [
            f"{self.task}: {self.metric} {self.clean:.3g} ({self.right:.0%} of held-out prompts above "
            f"0), corrupted {self.corrupted:.3g}; untrained twin {self.twin['clean']:.3g} "
            f"({self.twin['right']:.0%})"
        ]
        for role in self.roles.names:
            if nodes := self.roles.found(role):
                said.append(f"{role}: {', '.join(nodes)}")
        for name, step in self.steps.items():
            if not name.startswith("twin_") and hasattr(step, "said"):
                said.extend(step.said())
        if self.circuit is not None and self.evaluation is not None:
            whole = self.evaluation.faithfulness_interval()
            said.append(
                f"circuit: {self.circuit.size} of {len(self.circuit.graph.edges):,} edges "
                f"({self.circuit.density:.1%}), faithfulness {whole} on held-out prompts"
            )
        if self.stability is not None:
            twin = self.twin_stability
            beside = "" if twin is None else f"; untrained twin {twin:.2f}"
            if twin is not None and twin > 0.5:
                beside += " (which does not do the task: here stability alone says little)"
            said.append(
                f"stability: Jaccard {self.stability:.2f} over {len(self._all)} draws{beside}"
            )
        return [*said, *self.notes]

    def to_frame(self) -> DataFrame:
        """Roles with the behaviour behind each: see :meth:`Roles.to_frame`."""
        return self.roles.to_frame()

    def plot(self, *, title: str | None = None) -> Figure:
        """Nodes with a role and what they do, beside the twin: see :meth:`Roles.plot`."""
        return self.roles.plot(
            title=title or f"{self.task}: value | furthest of the untrained twin"
        )

    # -- files -----------------------------------------------------------------------------

    def save(self, folder: str | Path) -> Path:
        """Write a folder: ``finding.json``, ``roles``, ``circuit.json``, evaluation, draws, steps.

        Raises:
            ResultError: a place that cannot be written.
        """
        folder = Path(folder)
        self.roles.save(folder / "roles.safetensors")
        for name, step in self.steps.items():
            step.save(folder / "steps" / f"{name}.safetensors")
        if self.circuit is not None:
            self.circuit.save(folder / "circuit.json")
        if self.evaluation is not None:
            self.evaluation.save(folder / "evaluation.safetensors")
        for kind in _DRAWS:
            for i, circuit in enumerate(getattr(self, kind)):
                circuit.save(folder / kind / f"{i}.json")
        plain = {name: getattr(self, name) for name in _PLAIN}
        plain["counts"] = {kind: len(getattr(self, kind)) for kind in _DRAWS}
        plain["steps"] = {
            name: f"{type(step).__module__}:{type(step).__name__}"
            for name, step in self.steps.items()
        }
        plain["circuit"], plain["evaluation"] = (
            self.circuit is not None,
            self.evaluation is not None,
        )
        text = json.dumps(plain, indent=1, sort_keys=True) + "\n"
        write_atomically(folder / _FILE, text.encode())
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> Finding:
        """Read a saved finding.

        Raises:
            ResultError: no such folder, or a damaged one.
            CircuitError: a damaged circuit.
        """
        folder = Path(folder)
        try:
            plain = json.loads((folder / _FILE).read_text(encoding="utf-8"))
            own = {name: plain[name] for name in _PLAIN}
            counts, steps = plain["counts"], plain["steps"]
        except (OSError, ValueError, KeyError) as error:
            raise ResultError(
                f"{str(folder)!r} holds no finding ({error!r}); expected a folder that "
                "Finding.save wrote."
            ) from error
        evaluation = folder / "evaluation.safetensors"
        draws, twin_draws = (
            tuple(Circuit.load(folder / kind / f"{i}.json") for i in range(counts[kind]))
            for kind in _DRAWS
        )
        return cls(
            **{**own, "notes": tuple(own["notes"])},
            draws=draws,
            twin_draws=twin_draws,
            roles=Roles.load(folder / "roles.safetensors"),
            circuit=Circuit.load(folder / "circuit.json") if plain["circuit"] else None,
            evaluation=CircuitEvaluation.load(evaluation) if plain["evaluation"] else None,
            steps={
                name: _kind(where).load(folder / "steps" / f"{name}.safetensors")
                for name, where in steps.items()
            },
        )


_PLAIN: Final = ("task", "metric", "unit", "clean", "corrupted", "right", "twin", "notes")
_DRAWS: Final = ("draws", "twin_draws")


def _kind(where: str) -> type[Stored]:
    """The class of a step, which must be one of this package's results.

    Raises:
        ResultError: it is something else.
    """
    module, _, name = where.partition(":")
    found: Any = (
        getattr(import_module(module), name, None) if module.startswith("interp.") else None
    )
    if not (isinstance(found, type) and issubclass(found, Stored)):
        raise ResultError(f"a step of this finding is a {where!r}; expected a result of interp.")
    return found


def _mean(values: tuple[float, ...]) -> float | None:
    return sum(values) / len(values) if values else None
