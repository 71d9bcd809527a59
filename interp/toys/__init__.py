"""Toys: small transformers and MLPs, tasks with a known answer, and training with interventions inside it."""

from interp.toys.batch import Batch
from interp.toys.record import ToyRun
from interp.toys.task import Task
from interp.toys.toy import Toy
from interp.toys.train import Readout, train
from interp.toys.transformer import transformer

__all__ = ["Batch", "Readout", "Task", "Toy", "ToyRun", "train", "transformer"]
