"""Toys: small transformers and MLPs, tasks with a known answer, and training with interventions inside it."""

from interp.toys.batch import Batch
from interp.toys.record import ToyRun
from interp.toys.task import Task
from interp.toys.train import Readout, train

__all__ = ["Batch", "Readout", "Task", "ToyRun", "train"]
