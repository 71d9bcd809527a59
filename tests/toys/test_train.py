"""Training: equal to a plain loop, resumed to the bit, clamped through the taps."""

from __future__ import annotations

import copy
import math
import os
import signal

import pytest
import torch
from torch import nn

import interp
from interp import toys
from interp.errors import ToyError
from interp.toys.record import ToyRun
from interp.toys.state import told

TASK = toys.InContext(classes=6, held_out=4, d_in=8)


def small(seed=0, **options):
    given = {"d_out": TASK.d_out, "n_ctx": 5, "n_layers": 2, "n_heads": 2, "d_model": 16} | options
    return toys.transformer(features=TASK.features, seed=seed, **given)


def weights(model):
    return {name: x.clone() for name, x in toys.record.module_of(model).state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_step_is_that_of_a_plain_loop():
    toy, plain = small(), small()
    toys.train(toy, TASK, steps=7, batch=16, lr=3e-3, seed=5, progress=False)
    stepper = torch.optim.Adam(plain.hf.parameters(), lr=3e-3, fused=True)
    draw = torch.Generator().manual_seed(5)
    for _ in range(7):
        rows = TASK.batch(16, draw)
        logits = plain.hf(rows.inputs, use_cache=False).logits[:, -1]
        loss = nn.functional.cross_entropy(logits, rows.targets)
        stepper.zero_grad()
        loss.backward()
        stepper.step()
    ours, theirs = weights(toy), weights(plain)
    worst = max(float((ours[n] - theirs[n]).abs().max()) for n in ours)
    assert worst < 1e-6
    assert not same(ours, weights(small()))


@pytest.mark.parametrize("optimiser", ["adam", "adamw", "sgd"])
def test_a_run_that_was_stopped_goes_on_to_the_bit(tmp_path, optimiser):
    options = {
        "batch": 8,
        "optimiser": optimiser,
        "every": 3,
        "checkpoints": (4, 9),
        "progress": False,
    }
    options |= {"measure": {"held out": "loss", "right": "accuracy"}, "test": 32}
    whole = toys.train(small(), TASK, steps=12, **options)
    calls = []

    def ctrl_c(_):
        calls.append(1)
        if len(calls) == 6:
            os.kill(os.getpid(), signal.SIGINT)

    # a gradient hook is part of what a run is, so both parts have it
    first = toys.train(small(), TASK, steps=12, out=tmp_path, gradient=ctrl_c, **options)
    assert not first.finished
    assert first.steps == 6
    assert "stopped" in repr(first)
    again = toys.train(small(), TASK, steps=12, out=tmp_path, gradient=ctrl_c, **options)
    assert again.finished
    assert len(calls) == 12
    assert same(weights(again.model), weights(whole.model))
    assert again.history == whole.history
    assert same(again.checkpoints[9], whole.checkpoints[9])
    assert same(again.checkpoints[4], whole.checkpoints[4])


def test_a_finished_run_is_not_run_again(tmp_path):
    once = toys.train(small(), TASK, steps=3, out=tmp_path, progress=False)
    before = (tmp_path / "state.safetensors").read_bytes()
    twice = toys.train(small(), TASK, steps=3, out=tmp_path, progress=False)
    assert same(weights(once.model), weights(twice.model))
    assert (tmp_path / "state.safetensors").read_bytes() == before
    with pytest.raises(ToyError, match=r"holds another run \(lr: 0.001 there, 0.002 here\)"):
        toys.train(small(), TASK, steps=3, lr=2e-3, out=tmp_path, progress=False)
    with pytest.raises(ToyError, match="initial"):
        toys.train(small(seed=1), TASK, steps=3, out=tmp_path, progress=False)


def test_a_clamped_pattern_is_what_is_run_and_gets_no_gradient():
    toy = small()
    before = weights(toy)
    clamp = toys.perfect_previous_token("L0.pattern")
    seen = []

    def look(model, batch):
        seen.append(
            model.run(batch.inputs, edit=clamp(batch), save="L0.pattern").saved["L0.pattern"]
        )
        return 0.0

    toys.train(toy, TASK, steps=4, clamp=clamp, measure={"look": look}, every=2, progress=False)
    assert all(torch.equal(p, toys.previous_token(5).expand_as(p)) for p in seen)
    assert len(seen) == 3
    after = weights(toy)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    query_of = {
        layer: next(n for n in before if f".{layer}." in n and n.endswith("attn.q.weight"))
        for layer in (0, 1)
    }
    assert query_of[0] not in moved  # nothing reaches what would have made the pattern
    assert query_of[1] in moved


def test_the_history_is_of_the_model_after_that_many_steps():
    toy = small()
    held = toys.held_out(TASK, 64, 1_000_003 + 2)
    run = toys.train(toy, TASK, steps=6, every=3, seed=2, test=64, checkpoints=(3,), progress=False,
                     measure={"held out": "loss"})  # fmt: skip
    assert run.column("step") == [0, 3, 6]
    for step, model in ((3, run.at(3)), (6, run.model), (0, small())):
        with torch.no_grad():
            loss = float(toys.cross_entropy(*held.scored(toys.outputs(model, held))))
        assert run.column("held out")[step // 3] == pytest.approx(loss, rel=1e-6)
    assert run.to_frame()["step"].tolist() == [0, 3, 6]
    with pytest.raises(ToyError, match="no checkpoint of step 4; there are: 3"):
        run.at(4)
    with pytest.raises(ToyError, match="nearest: 'held out'"):
        run.column("heldout")


def test_until_ends_a_run_and_steps_are_counted():
    run = toys.train(
        small(), TASK, steps=50, every=2, until=lambda row: row["step"] >= 6, progress=False
    )
    assert (run.finished, run.steps) == (True, 6)
    assert run.steps_to("loss", below=math.inf) == 0
    assert run.steps_to("loss", below=-1.0) == math.inf
    with pytest.raises(ToyError, match="give one of them"):
        run.steps_to("loss")


def test_a_run_is_read_as_it_was_written(tmp_path):
    run = toys.train(small(), TASK, steps=4, every=2, checkpoints=(2,), progress=False)
    read = ToyRun.load(run.save(tmp_path / "run.safetensors"))
    assert same(weights(read.model), weights(run.model))
    assert (read.history, read.finished, read.steps) == (run.history, True, 4)
    assert same(weights(read.at(2)), weights(run.at(2)))


def test_any_module_can_be_trained():
    class Line(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.zeros(3, 1))

        def forward(self, x):
            return x @ self.w

    class Sum:
        def batch(self, n, generator):
            x = torch.randn(n, 3, generator=generator)
            return toys.Batch(x, x.sum(-1, keepdim=True))

    line = Line()
    doubled = []
    run = toys.train(line, Sum(), steps=200, lr=0.1, loss="mse", optimiser="sgd", progress=False,
                     gradient=lambda ps: doubled.append(len(ps)))  # fmt: skip
    assert torch.allclose(line.w, torch.ones(3, 1), atol=1e-3)
    assert doubled == [1] * 200
    assert run.column("loss")[0] > 1 > run.column("loss")[-1]
    with pytest.raises(ToyError, match="a Line has no sites"):
        toys.train(line, Sum(), steps=1, clamp=toys.perfect_match(), loss="mse", progress=False)


@pytest.mark.bad_input
def test_refusals():
    with pytest.raises(ToyError, match="optimiser='adamm'; nearest: 'adam'"):
        toys.train(small(), TASK, steps=1, optimiser="adamm", progress=False)
    with pytest.raises(ToyError, match="forward= was given with clamp="):
        toys.train(
            small(),
            TASK,
            steps=1,
            forward=lambda m, b: b,
            clamp=toys.perfect_match(),
            progress=False,
        )
    with pytest.raises(ToyError, match="training diverged"):
        toys.train(small(), TASK, steps=50, optimiser="sgd", lr=1e30, progress=False)
    with pytest.raises(ToyError, match="str cannot be trained"):
        toys.train("toy", TASK, steps=1, progress=False)
    with pytest.raises(ToyError, match="dict is no task"):
        toys.train(small(), {}, steps=1, measure={"a": "loss"}, progress=False)
    with pytest.raises(interp.errors.SiteError):
        toys.train(
            small(), TASK, steps=1, clamp=lambda b: {"L7.pattern": interp.Zero()}, progress=False
        )


def test_the_callers_model_is_left_alone_by_copies():
    toy = small()
    other = copy.deepcopy(toy)
    toys.train(other, TASK, steps=2, progress=False)
    assert same(weights(toy), weights(small()))
    assert not same(weights(toy), weights(other))


def test_a_run_that_was_ended_goes_on_where_its_end_is_no_longer_asked_for(tmp_path):
    options = {"every": 2, "out": tmp_path, "progress": False}
    short = toys.train(small(), TASK, steps=10, until=lambda row: row["step"] >= 4, **options)
    again = toys.train(small(), TASK, steps=10, until=lambda row: row["step"] >= 4, **options)
    assert (short.steps, again.steps, again.history) == (4, 4, short.history)
    on = toys.train(small(), TASK, steps=10, **options)
    assert on.steps == 10
    whole = toys.train(small(), TASK, steps=10, every=2, progress=False)
    assert same(weights(on.model), weights(whole.model))
    assert on.history == whole.history
    with pytest.raises(ToyError, match="holds this run after 10 steps, more than steps=6"):
        toys.train(small(), TASK, steps=6, **options)


def test_one_lambda_is_not_taken_for_another(tmp_path):
    def begin(clamp):
        return toys.train(small(), TASK, steps=1, clamp=clamp, out=tmp_path, progress=False)

    def at(site):
        return lambda batch: {site: interp.Zero()}

    begin(lambda batch: {"L0.z": interp.Zero()})
    begin(lambda batch: {"L0.z": interp.Zero()})
    with pytest.raises(ToyError, match="holds another run .*clamp"):
        begin(lambda batch: {"L1.z": interp.Zero()})
    assert told(at("L0.z")) == told(at("L0.z")) != told(at("L1.z"))


def test_clamps_are_told_without_an_address():
    """Else a run could not go on in another process."""
    for make in (
        lambda: toys.both(toys.perfect_match(), toys.perfect_previous_token()),
        lambda: toys.perfect_layer_0(clamp=toys.perfect_match()),
    ):
        one, other = make(), make()
        assert told(one) == told(other)
        assert "perfect_match(L1.pattern)" in told(one)
        assert " at 0x" not in one.__qualname__


@pytest.mark.parametrize("optimiser", ["adam", "adamw", "sgd"])
def test_the_model_of_a_toy_knows_that_its_weights_have_changed(optimiser):
    toy = small()
    before = toy.model.weights_hash
    toys.train(toy, TASK, steps=1, optimiser=optimiser, progress=False)
    assert toy.model.weights_hash != before


def test_what_cannot_be_trained_or_measured():
    def begin(toy=None, **options):
        toys.train(toy or small(), TASK, progress=False, **{"steps": 1, **options})

    for wrong in ({"steps": -1}, {"batch": 0}, {"every": 0}, {"measure": {"a": "loss"}, "test": 0}):
        with pytest.raises(ToyError, match="expected steps ≥ 0, the others ≥ 1"):
            begin(**wrong)
    with pytest.raises(ToyError, match="measure has 'loss', and the history has such a column"):
        begin(measure={"loss": "loss"})
    frozen = small()
    frozen.hf.requires_grad_(False)
    with pytest.raises(ToyError, match="there is nothing to train"):
        begin(frozen)


@pytest.mark.parametrize(
    "targets", [torch.zeros(3), torch.zeros(3, 2), torch.zeros(2, dtype=torch.long)]
)
def test_accuracy_is_of_class_ids(targets):
    with pytest.raises(ToyError, match="expected class ids, one for each row"):
        toys.accuracy(torch.zeros(3, 2), targets)


def test_an_error_leaves_the_model_as_one_that_is_not_trained():
    toy = small()
    with pytest.raises(ToyError, match="training diverged"):
        toys.train(toy, TASK, steps=50, optimiser="sgd", lr=1e30, progress=False)
    assert not toy.hf.training
    assert all(p.grad is None for p in toy.hf.parameters())
