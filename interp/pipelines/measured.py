"""What one pipeline measures of one model: behaviours, and results of their own worth keeping."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from interp.models.model import Model
from interp.pipelines.behaviour import Behaviour
from interp.pipelines.kinds import Kind
from interp.prompts.prompts import Prompts
from interp.results import Stored

__all__ = ["Measured", "Task"]


@dataclass(frozen=True, eq=False)
class Measured:
    """Behaviours of a model's nodes on some prompts, and the results behind them by name."""

    behaviours: tuple[Behaviour, ...]
    steps: dict[str, Stored] = field(default_factory=dict)

    @classmethod
    def of(cls, behaviours: Sequence[Behaviour], **steps: Stored) -> Measured:
        return cls(tuple(behaviours), dict(steps))


@dataclass(frozen=True)
class Task:
    """A behaviour of models that a pipeline explains.

    Attributes:
        name: what it is called; also the circuit's name.
        metric: what runs are scored by; above 0 is right.
        measure: what nodes do on some prompts. Called for the model and for its twin.
        kinds: the roles looked for; thresholds on effects are shares of the gap between clean and
            corrupted prompts, which is handed over in the metric's unit.
        runs: about how many forward passes of all prompts ``measure`` takes, for the forecast.
    """

    name: str
    metric: str
    measure: Callable[[Model, Prompts], Measured]
    kinds: Callable[[float], Sequence[Kind]]
    runs: Callable[[Model], float]
