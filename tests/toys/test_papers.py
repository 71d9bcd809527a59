"""The phenomena that notebooks are made of, at their smallest, each beside the null that must not show it.

Longer forms are marked slow. Numbers over seeds stand in the notebooks, not here.
"""

from __future__ import annotations

import pytest
import torch

from interp.geometry import overlap, welch_bound
from interp.toys import train, transformer
from interp.toys.mlps import QuadraticMLP, ReluMLP, TiedAutoencoder
from interp.toys.optimisers import AdamW, WarmupCosine, orthogonal_gradients
from interp.toys.tasks import LinearRegression, ModularArithmetic, Superposition
from interp.toys.train import accuracy, outputs


@torch.no_grad()
def correct(model, batch):
    return accuracy(outputs(model, batch), batch.targets).item()


# -- grokking at the edge of numerical stability (Prieto et al. 2025) ---------------------


def perpendicular(
    *, p=47, frac=0.5, steps=200, corruption=0.0, gradient=orthogonal_gradients, seed=0
):
    task = ModularArithmetic(p=p, frac=frac, corruption=corruption, seed=seed)
    model = ReluMLP(p, seed=seed)
    adamw = AdamW(lr=0.01, betas=(0.9, 0.99), eps=1e-25)
    train(model, task, steps=steps, optimiser=adamw, gradient=gradient, progress=False, seed=seed)
    return correct(model, task.train), correct(model, task.heldout)


def test_orthogonal_gradients_generalise_where_adamw_memorises():
    fitted, known = perpendicular()
    assert fitted == 1
    assert known >= 0.95
    fitted, known = perpendicular(gradient=None)
    assert fitted == 1
    assert known <= 0.05


def test_orthogonal_gradients_find_no_rule_in_random_labels():
    fitted, known = perpendicular(corruption=1.0)
    assert fitted > 0.8
    assert known <= 0.05


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_orthogonal_gradients_over_seeds(seed):
    setting = {"p": 59, "frac": 0.45, "steps": 300, "seed": seed}
    assert perpendicular(**setting)[1] >= 0.95
    assert perpendicular(**setting, gradient=None)[1] <= 0.05
    assert perpendicular(**setting, corruption=1.0)[1] <= 0.05


# -- to grok or not to grok (Doshi et al. 2023) ---------------------------------------------


def corrupted(*, p=59, width=300, steps=300, corruption=0.35, seed=0):
    """Accuracies (test, memorised) of the network whole, and without 40% of its neurons."""
    task = ModularArithmetic(p=p, corruption=corruption, seed=seed)
    model = QuadraticMLP(p, width=width, seed=seed)
    adamw = AdamW(lr=0.01, betas=(0.9, 0.98), weight_decay=10.0)
    train(model, task, steps=steps, optimiser=adamw, loss="mse", progress=False, seed=seed)
    order, k = model.ipr().argsort(), int(0.4 * width)
    drawn = torch.randperm(width, generator=torch.Generator().manual_seed(seed))
    cuts = {"none": order[:0], "low": order[:k], "high": order[-k:], "random": drawn[:k]}
    found = {}
    for name, cut in cuts.items():
        pruned = model.without(cut)
        found[name] = correct(pruned, task.heldout), correct(pruned, task.corrupted)
    return found, model.ipr().mean().item()


@pytest.mark.slow
def test_aperiodic_neurons_memorise_and_periodic_ones_know_the_rule():
    found, ipr = corrupted()
    assert found["none"][0] > 0.8
    assert found["none"][1] > 0.9
    assert found["low"][0] > 0.9 > 0.4 > found["low"][1]
    assert found["high"][0] < 0.15 < 0.85 < found["high"][1]
    assert found["high"][0] + 0.2 < found["random"][0] < found["low"][0] - 0.2
    assert ipr > 0.25


def test_without_a_rule_no_neuron_is_periodic():
    found, ipr = corrupted(p=47, width=200, steps=250, corruption=1.0)
    assert ipr < 0.1
    assert all(known < 0.06 < 0.9 < memorised for known, memorised in found.values())


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_pruning_by_periodicity_over_seeds(seed):
    found, _ = corrupted(seed=seed)
    assert found["none"][0] > 0.85
    assert found["low"][0] > 0.93 > 0.35 > found["low"][1]
    assert found["high"][0] < 0.12 < 0.85 < found["high"][1]
    assert 0.3 < found["random"][0] < 0.75


# -- one step of gradient descent (von Oswald et al. 2022) ---------------------------------


def test_linear_attention_learns_the_best_step_of_gradient_descent():
    task = LinearRegression()
    toy = transformer(
        d_in=task.d_in, d_out=1, n_layers=1, n_heads=1, d_model=16, n_ctx=task.n_ctx,
        attention="linear", positions="none", norm=None, causal=False, init=0.2,
    )  # fmt: skip
    rows = task.test(4000, torch.Generator().manual_seed(9))
    step = task.one_step(rows)

    def told(model):
        answer = outputs(model, rows)[:, -1, 0]
        alike = torch.corrcoef(torch.stack([answer, step]))[0, 1].square().item()
        left = (answer - step).square().mean() / step.var()
        return 1 - left.item(), alike, (answer - rows.targets).square().mean().item()

    _, random_alike, _ = told(toy)
    assert random_alike < 0.2
    adamw = AdamW(lr=0.01, betas=(0.9, 0.98), schedule=WarmupCosine(500, warmup=50))
    train(toy, task, steps=500, batch=128, optimiser=adamw, loss="mse", progress=False)
    explained, _, loss = told(toy)
    assert explained > 0.98
    assert loss == pytest.approx(task.one_step_loss, rel=0.08)
    assert loss > 5 * (task.ridge(rows) - rows.targets).square().mean()


# -- superposition yields robust scaling (Liu et al. 2025) ----------------------------------


def squeezed(m, gamma, *, n=200, steps=400, seed=0):
    model = TiedAutoencoder(n, m, seed=seed)
    schedule = WarmupCosine(steps, warmup=100, floor=0.05)
    adamw = AdamW(lr=0.01, schedule=schedule, row_decay=gamma)
    train(model, Superposition(n=n), steps=steps, batch=256, optimiser=adamw, loss="mse",
          progress=False, seed=seed)  # fmt: skip
    return overlap(model.W)


@pytest.mark.slow
def test_decay_decides_how_many_features_are_kept():
    for m in (8, 40):
        strong, weak = squeezed(m, -1.0), squeezed(m, 1.0)
        assert strong.represented == 1
        assert weak.represented < (0.2 if m == 8 else 0.95)
        assert m * welch_bound(200, m) < strong.times_width < 1.15
    assert strong.times_width < 0.9  # more even than random directions are
    untrained = overlap(TiedAutoencoder(200, 40).W)
    assert untrained.times_width > 0.95


# -- when attention sink emerges (Gu et al. 2024) -----------------------------------------


def parked(attention, *, steps, seed=0):
    """(sink rate at BOS, norm of its value over that of others, loss beyond the optimal one)."""
    task = BigramBackcopy()
    toy = transformer(
        d_vocab=task.d_vocab, d_out=task.d_out, n_layers=1, n_heads=1, d_model=64, d_mlp=256,
        act="relu", n_ctx=task.n_ctx, attention=attention, positions="rotary", rotary_base=100.0,
        seed=seed,
    )  # fmt: skip
    with torch.no_grad():
        table = toy.hf.get_input_embeddings().weight
        table.mul_(0.5 / table.std())
    adamw = AdamW(lr=4e-3, betas=(0.9, 0.98), weight_decay=0.1)
    train(toy, task, steps=steps, batch=48, optimiser=adamw, progress=False, seed=seed)
    rows = task.test(128, torch.Generator().manual_seed(1))
    seen = toy.run(rows.inputs, save=["L0.pattern", "L0.v"])
    value = seen.saved["L0.v"].norm(dim=-1).flatten(2).mean((0, 2))
    loss = -seen.logits.log_softmax(-1).gather(-1, rows.targets[..., None])[..., 0]
    beyond = (loss - task.optimal(rows))[rows.where].mean().item()
    return sink_rate(seen.saved["L0.pattern"]), (value[0] / value[1:].mean()).item(), beyond


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_softmax_sinks_where_sigmoid_does_not(seed):
    sink, value, beyond = parked("softmax", steps=1600, seed=seed)
    assert sink > 0.8
    assert value < 0.35
    assert beyond < 0.06
    sink, value, beyond = parked("sigmoid", steps=1600, seed=seed)
    assert sink < 0.05
    assert value > 0.6
    assert beyond < 0.06
