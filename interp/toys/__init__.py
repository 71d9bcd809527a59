"""Toys: small transformers and MLPs, tasks with a known answer, and training with interventions inside it.

>>> task = toys.InContext()
>>> toy = toys.transformer(features=task.features, d_out=task.d_out, n_ctx=task.n_ctx,
...                        n_layers=2, n_heads=8, d_model=64, positions="rotary")
>>> run = toys.train(toy, task, steps=1000, clamp=toys.perfect_match())         # doctest: +SKIP
>>> interp.attention(toy.model, ids)                                            # doctest: +SKIP

:func:`transformer` makes a toy, :func:`train` trains it (or any torch module), :func:`sweep` runs one
function over seeds and options; tasks are in :mod:`interp.toys.tasks`, the clamps of an induction head in
:mod:`interp.toys.clamps`, losses and optimisers in modules of their names.
"""

from interp.toys.batch import Batch
from interp.toys.clamps import (
    both,
    keep_pattern_and_values,
    only_head,
    perfect_copy,
    perfect_layer_0,
    perfect_match,
    perfect_previous_token,
    previous_token,
)
from interp.toys.experts import Routing, routing, without_experts
from interp.toys.losses import (
    HarmonicReadout,
    collapsed,
    cross_entropy,
    harmonic_logits,
    log_stablemax,
    mse,
    stablemax_cross_entropy,
)
from interp.toys.mlps import QuadraticMLP, ReluMLP, TiedAutoencoder
from interp.toys.optimisers import (
    AdamW,
    WarmupCosine,
    orthogonal,
    orthogonal_gradients,
    row_decay_,
)
from interp.toys.record import ToyRun
from interp.toys.strengths import induction_strength, previous_token_strength
from interp.toys.sweep import Sweep, sweep
from interp.toys.task import Task, held_out
from interp.toys.tasks import (
    BigramBackcopy,
    Chain,
    CopyingText,
    InContext,
    LinearRegression,
    ModularArithmetic,
    Refusals,
    RepeatedData,
    Superposition,
)
from interp.toys.toy import Toy, ToyPass
from interp.toys.train import Readout, accuracy, outputs, train
from interp.toys.transformer import transformer

__all__ = [
    # models and training
    "transformer", "train", "sweep", "Toy", "ToyPass", "ToyRun", "Sweep", "QuadraticMLP", "ReluMLP",
    "TiedAutoencoder", "HarmonicReadout", "Readout", "outputs", "accuracy",
    # tasks
    "Batch", "Task", "held_out", "BigramBackcopy", "Chain", "CopyingText", "InContext",
    "LinearRegression", "ModularArithmetic", "Refusals", "RepeatedData", "Superposition",
    # clamps and measures of an induction circuit
    "both", "keep_pattern_and_values", "only_head", "perfect_copy", "perfect_layer_0", "perfect_match",
    "perfect_previous_token", "previous_token", "induction_strength", "previous_token_strength",
    # experts
    "Routing", "routing", "without_experts",
    # losses and optimisers
    "collapsed", "cross_entropy", "harmonic_logits", "log_stablemax", "mse", "stablemax_cross_entropy",
    "AdamW", "WarmupCosine", "orthogonal", "orthogonal_gradients", "row_decay_",
]  # fmt: skip
