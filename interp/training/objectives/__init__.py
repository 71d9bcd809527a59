"""How each activation is trained: its behaviour in training, its penalty, its selection; a file each."""

from interp.training.config import TrainConfig
from interp.training.objectives.batchtopk import BatchTopKObjective
from interp.training.objectives.gated import GatedObjective
from interp.training.objectives.jumprelu import JumpReLUObjective
from interp.training.objectives.matryoshka import MatryoshkaObjective
from interp.training.objectives.objective import Moment, Objective
from interp.training.objectives.relu import ReLUObjective
from interp.training.objectives.topk import TopKObjective

__all__ = ["Moment", "Objective", "objective"]

_BY_NAME: dict[str, type[Objective]] = {
    "relu": ReLUObjective,
    "gated": GatedObjective,
    "jumprelu": JumpReLUObjective,
    "topk": TopKObjective,
    "batchtopk": BatchTopKObjective,
    "matryoshka": MatryoshkaObjective,
}


def objective(config: TrainConfig) -> Objective:
    """The objective that a configuration asks for."""
    return _BY_NAME[config.activation](config)
