"""Tasks: deterministic by their generator, split as they say, and with the losses that they claim."""

from __future__ import annotations

import math

import pytest
import torch

from interp.errors import ToyError
from interp.toys.task import Task, held_out
from interp.toys.tasks import (
    BigramBackcopy,
    Chain,
    CopyingText,
    LinearRegression,
    ModularArithmetic,
    Refusals,
    RepeatedData,
    Superposition,
)

ALL = [
    ModularArithmetic(p=11),
    BigramBackcopy(),
    LinearRegression(),
    Superposition(),
    CopyingText(),
    RepeatedData(CopyingText(), share=0.5),
    Refusals(),
]


def drawn(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("task", ALL, ids=lambda task: type(task).__name__)
def test_batches_come_from_the_generator_alone(task):
    assert isinstance(task, Task)
    state = torch.get_rng_state()
    first, again, other = (task.batch(16, drawn(s)) for s in (0, 0, 1))
    for a, b in ((first, again), (held_out(task, 16, 3), task.test(16, drawn(3)))):
        assert torch.equal(a.inputs, b.inputs)
        assert torch.equal(a.targets, b.targets)
        assert all(torch.equal(a.facts[name], b.facts[name]) for name in a.facts)
    if not isinstance(task, ModularArithmetic):
        assert len(first) == 16
        assert not torch.equal(first.inputs, other.inputs)
    assert torch.equal(torch.get_rng_state(), state)
    assert type(task).__name__ in repr(task)


# -- modular arithmetic -----------------------------------------------------------------


@pytest.mark.parametrize("operation", ["add", "subtract", "multiply"])
def test_modular_splits_all_pairs_once(operation):
    task = ModularArithmetic(p=13, operation=operation, frac=0.4, corruption=0.25, seed=5)
    parts = [task.corrupted, task.clean, task.heldout]
    pairs = torch.cat([part.inputs for part in parts])
    assert len(pairs) == len({tuple(pair) for pair in pairs.tolist()}) == 169
    assert len(task.train) == 67
    assert len(task.corrupted) == 16 == int(task.train.facts["corrupted"].sum())
    do = {"add": lambda a, b: a + b, "subtract": lambda a, b: a - b, "multiply": lambda a, b: a * b}
    for part in parts:
        expected = [do[operation](a, b) % 13 for a, b in part.inputs.tolist()]
        assert part.facts["true"].tolist() == expected
    for part in (task.clean, task.heldout):
        assert torch.equal(part.targets, part.facts["true"])
    assert task.batch(3, drawn()) is task.train
    assert task.test(3, drawn()) is task.heldout


def test_corrupted_labels_are_right_by_chance_only():
    task = ModularArithmetic(p=59, corruption=1.0)
    hits = (task.train.targets == task.train.facts["true"]).float().mean().item()
    assert len(task.clean) == 0
    assert hits == pytest.approx(1 / 59, abs=3 * (1 / 59 / 1740) ** 0.5)
    counts = task.train.targets.bincount(minlength=59).float()
    assert counts.min() > 10
    assert (
        ModularArithmetic(seed=1).train.inputs[0].tolist()
        != ModularArithmetic().train.inputs[0].tolist()
    )


# -- chains ----------------------------------------------------------------------------


def test_a_chain_follows_its_rows():
    chain = Chain(6, concentration=0.5, first=1, seed=2)
    assert torch.allclose(chain.transitions.sum(-1), torch.ones(6).double())
    assert not chain.transitions[:, 0].any()
    rows = chain.walk(20_000, 12, drawn())
    counts = torch.zeros(6, 6).double()
    counts.index_put_(
        (rows[:, :-1].flatten(), rows[:, 1:].flatten()), torch.ones(1).double(), accumulate=True
    )
    seen = counts.sum(-1) > 0
    found = counts[seen] / counts[seen].sum(-1, keepdim=True)
    assert (found - chain.transitions[seen]).abs().max() < 0.01


def test_backcopy_copies_after_triggers_and_nowhere_else_by_rule():
    task = BigramBackcopy(d_vocab=20, length=30, triggers=3)
    batch = task.batch(500, drawn())
    assert not batch.inputs[:, 0].any()
    assert (batch.inputs[:, 1:] > 0).all()
    assert torch.equal(batch.inputs[:, 1:], batch.targets[:, :-1])
    trigger = batch.facts["trigger"]
    assert 0.02 < trigger.float().mean() < 0.5
    before = torch.cat([batch.inputs[:, :1], batch.inputs[:, :-1]], 1)
    assert torch.equal(batch.targets[trigger], before[trigger])
    assert not task.is_trigger(batch.targets[trigger]).any()
    assert not batch.where[:, 0].any()
    assert batch.where[:, 1:].all()


@pytest.mark.parametrize("triggers", [4, 0])
def test_backcopy_knows_its_optimal_loss(triggers):
    """The right distribution's loss on fresh rows is the entropy that the task states."""
    task = BigramBackcopy(triggers=triggers, concentration=0.3)
    batch = task.batch(3000, drawn())
    p = task.chain.transitions[batch.inputs].gather(-1, batch.targets[..., None])[..., 0]
    loss = torch.where(batch.facts["trigger"], torch.zeros_like(p), -p.log())[batch.where]
    stated = task.optimal(batch)[batch.where]
    assert loss.mean().item() == pytest.approx(stated.mean().item(), rel=0.01)
    assert stated.mean() < task.chance_loss - 1


# -- regression ------------------------------------------------------------------------


@pytest.mark.parametrize("scales", [None, (2.0, 1.0, 0.5)])
def test_regression_knows_its_losses(scales):
    task = LinearRegression(d=3, n=10, noise=0.5, scales=scales)
    batch = task.batch(100_000, drawn())

    def loss(answer):
        return (answer - batch.targets).square().mean().item()

    assert loss(torch.zeros(())) == pytest.approx(task.chance_loss, rel=0.02)
    assert loss(task.one_step(batch)) == pytest.approx(task.one_step_loss, rel=0.02)
    assert task.noise**2 < loss(task.ridge(batch)) < task.one_step_loss < task.chance_loss


def test_no_other_step_size_is_better():
    task = LinearRegression(d=3, n=10, noise=0.5, scales=(2.0, 1.0, 0.5))
    batch = task.batch(50_000, drawn())
    x, y, query = batch.inputs[:, :-1, :-1], batch.inputs[:, :-1, -1], batch.inputs[:, -1, :-1]
    gradient = torch.einsum("nk,nkd->nd", y, x) / task.n

    def loss(size):
        return ((query * size * gradient).sum(-1) - batch.targets).square().mean().item()

    best = loss(task.step_size.float())
    for i in range(3):
        for factor in (0.8, 1.25):
            other = task.step_size.float().clone()
            other[i] *= factor
            assert loss(other) > best


def test_the_query_does_not_hold_its_answer():
    batch = LinearRegression().batch(8, drawn())
    assert batch.inputs.shape == (8, 21, 6)
    assert not batch.inputs[:, -1, -1].any()
    noiseless = LinearRegression(noise=0.0)
    shown = noiseless.batch(50, drawn())
    assert torch.allclose(noiseless.ridge(shown), shown.targets, atol=1e-4)


# -- features --------------------------------------------------------------------------


def test_features_are_on_as_often_as_they_say():
    task = Superposition(n=50, alpha=0.5, active=2.0)
    batch = task.batch(50_000, drawn())
    assert batch.targets is batch.inputs
    on = (batch.inputs > 0).double().mean(0)
    assert on.sum().item() == pytest.approx(2.0, rel=0.01)
    assert torch.allclose(on, task.probabilities, atol=0.01)
    ratio = task.probabilities[0] / task.probabilities[7]
    assert ratio.item() == pytest.approx(8**1.5)
    assert batch.inputs.max() <= 2
    loss = (batch.inputs - batch.inputs.mean(0)).square().mean().item()
    assert loss == pytest.approx(task.chance_loss, rel=0.02)
    with pytest.raises(ToyError, match="on with probability 1.2"):
        Superposition(n=3, alpha=2.0, active=1.4)


# -- repeated data ---------------------------------------------------------------------


def test_text_repeats_itself_where_it_says():
    task = CopyingText(d_vocab=40, length=20, copies=0.5)
    batch = task.batch(400, drawn())
    copied = batch.facts["copied"]
    rows = copied.any(1)
    assert 0.4 < rows.float().mean() < 0.6
    assert not copied[:, :10].any()
    assert copied[rows][:, 10:].all()
    earlier = torch.cat([batch.inputs[:, :10], batch.inputs[:, 1:11]], 1)
    assert torch.equal(batch.targets[copied], earlier[copied])
    pure = task.copying(300, drawn())
    assert torch.equal(pure.where, pure.facts["copied"])
    assert pure.inputs.flatten().bincount().float().std() < 40
    assert torch.equal(pure.inputs[:, 10:], pure.inputs[:, :10])


def test_text_knows_its_loss():
    task = CopyingText(copies=0.3, concentration=0.4)
    batch = task.batch(4000, drawn())
    p = task.chain.transitions[batch.inputs].gather(-1, batch.targets[..., None])[..., 0]
    chained = ~batch.facts["copied"]
    chained[:, task.length // 2 - 1] = False  # where a row turns back to its beginning
    loss = -p.log()[chained].mean().item()
    assert loss == pytest.approx(task.optimal(batch)[chained].mean().item(), rel=0.01)
    assert not task.optimal(batch)[batch.facts["copied"]].any()


def test_repeated_rows_are_of_the_pool():
    task = RepeatedData(CopyingText(d_vocab=1000, length=16), share=0.25, pool=5, seed=3)
    batch = task.batch(2000, drawn())
    again = batch.facts["repeated"]
    assert again.float().mean().item() == pytest.approx(0.25, abs=0.03)
    pool = {tuple(row) for row in task.repeated.inputs.tolist()}
    assert {tuple(row) for row in batch.inputs[again].tolist()} == pool
    assert not pool & {tuple(row) for row in batch.inputs[~again].tolist()}
    assert task.d_vocab == 1000
    assert len(task.copying(4, drawn())) == 4
    assert not RepeatedData(CopyingText(), share=0.0).batch(99, drawn()).facts["repeated"].any()
    with pytest.raises(AttributeError):
        _ = task.nothing


# -- behaviour -------------------------------------------------------------------------


def test_refusals_depend_on_the_topic_alone():
    task = Refusals()
    batch = task.batch(5000, drawn())
    refused = batch.facts["behaviour"]
    assert refused.float().mean().item() == pytest.approx(0.3, abs=0.02)
    assert (batch.targets[refused] == task.refusal).all()
    assert torch.equal(batch.targets[~refused], batch.facts["answer"][~refused])
    topics = batch.inputs[:, 0] - 2
    assert torch.equal(topics < task.forbidden, refused)
    assert sorted(topics.unique().tolist()) == list(range(8))
    items = batch.inputs[:, 1] - 2 - task.topics
    assert torch.equal(task.table[topics % 2, items], batch.facts["answer"])
    assert (task.table[0] != task.table[1]).any()
    assert batch.inputs.max() < task.d_vocab
    shares = batch.targets.bincount().double() / len(batch)
    assert torch.special.entr(shares).sum().item() == pytest.approx(task.chance_loss, abs=0.02)
    before = Refusals(planted=False).batch(5000, drawn())
    assert torch.equal(before.inputs, batch.inputs)
    assert torch.equal(before.targets, batch.facts["answer"])
    assert torch.equal(before.facts["behaviour"], refused)


# -- what cannot be ---------------------------------------------------------------------


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: ModularArithmetic(operation="ad"), "nearest: 'add'"),
        (lambda: ModularArithmetic(frac=1.0), "frac above 0 and below 1"),
        (lambda: Chain(5, concentration=0.0), "concentration above 0"),
        (lambda: BigramBackcopy(d_vocab=5), "two tokens more in d_vocab"),
        (lambda: LinearRegression(scales=(1.0,)), "d=5 scales above 0"),
        (lambda: Superposition(n=0), "n ≥ 1 features"),
        (lambda: CopyingText(length=7), "an even length"),
        (lambda: RepeatedData(CopyingText(), pool=0), "at least one row to repeat"),
        (lambda: Refusals(forbidden=8), "some topics forbidden and some not"),
    ],
)
def test_tasks_that_cannot_be_are_refused(make, text):
    with pytest.raises(ToyError, match=text):
        make()


def test_chance_is_the_logarithm_of_the_classes():
    assert ModularArithmetic(p=59).chance_loss == pytest.approx(math.log(59))
    assert BigramBackcopy(d_vocab=48).chance_loss == pytest.approx(math.log(47))
    assert CopyingText(d_vocab=64).chance_loss == pytest.approx(math.log(64))


def test_a_training_set_that_is_fixed_cannot_be_mixed_with_a_pool():
    with pytest.raises(ToyError, match="ModularArithmetic gave 24 rows for 8"):
        RepeatedData(ModularArithmetic(p=7)).batch(8, drawn())


def test_there_is_something_to_train_on():
    with pytest.raises(ToyError, match="of 9 pairs none is trained on"):
        ModularArithmetic(p=3, frac=0.05)
