"""Continued training: plain AdamW on the answers, on a copy, stopped where it is asked to."""

from __future__ import annotations

import math

import pytest
import torch

import interp
from interp.editing.anchoring import anchored, choices
from interp.editing.continued import continue_training
from interp.errors import PromptError, RunError

TEXTS = ["The capital of France is", "The capital of Japan is Tokyo. The capital of Peru is"]


def prompts_of(model, **options):
    return model.prompts(TEXTS, answers=[" Paris", " Lima"], **options)


def weights(model):
    return {name: p.detach().clone() for name, p in model.hf.named_parameters()}


def test_it_is_adamw_on_the_log_probability_of_the_answers(tiny_model):
    model = tiny_model("llama")
    prompts = prompts_of(model)
    tuned = continue_training(
        model, prompts, steps=3, lr=1e-2, weight_decay=1.0, batch=2, every=2, progress=False
    )
    twin = interp.load(type(model.hf)(model.hf.config), tokenizer=model.tokenizer, check=False)
    twin.hf.load_state_dict(model.hf.state_dict())
    optimiser = torch.optim.AdamW(
        twin.hf.parameters(), lr=1e-2, betas=(0.9, 0.98), weight_decay=1.0
    )
    losses = []
    for parameter in twin.hf.parameters():
        parameter.requires_grad_(True)
    for _ in range(3):
        optimiser.zero_grad()
        each = [
            -twin.hf(twin.to_tokens(text)).logits[0, -1].log_softmax(-1)[answer]
            for text, answer in zip(TEXTS, prompts.answers[:, 0].tolist(), strict=True)
        ]
        loss = sum(each) / len(each)
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    want = weights(twin)
    for name, weight in weights(tuned.model).items():
        assert torch.allclose(weight, want[name], atol=1e-3), name  # a tenth of one step
    assert [row["step"] for row in tuned.history] == [0, 2, 3]
    assert math.isnan(tuned.history[0]["loss"])
    assert tuned.history[1]["loss"] == pytest.approx(sum(losses[:2]) / 2, abs=1e-4)
    assert tuned.history[2]["loss"] == pytest.approx(losses[2], abs=1e-4)
    assert tuned.steps == 3
    assert losses[2] < losses[0]


def test_the_model_given_stays_and_the_copy_is_at_rest(tiny_model):
    model = tiny_model("gpt2")
    before, flags = weights(model), [p.requires_grad for p in model.hf.parameters()]
    tuned = continue_training(model, prompts_of(model), steps=2, lr=1e-2, progress=False)
    assert all(torch.equal(before[n], w) for n, w in weights(model).items())
    assert [p.requires_grad for p in model.hf.parameters()] == flags
    assert all(p.grad is None for p in model.hf.parameters())
    assert all(not p.requires_grad and p.grad is None for p in tuned.model.hf.parameters())
    assert any(not torch.equal(before[n], w) for n, w in weights(tuned.model).items())
    assert tuned.model.weights_hash != model.weights_hash
    assert tuned.provenance.weights_hash == model.weights_hash
    assert "trained on" in tuned.model.name


@pytest.mark.parametrize("ambient", [torch.no_grad, torch.inference_mode])
def test_the_same_seed_gives_the_same_weights_whatever_the_callers_mode(ambient, tiny_model):
    model = tiny_model("gpt_neox")
    prompts = model.prompts([TEXTS[0]] * 4, answers=[" Paris", " Lima", " Tokyo", " Peru"])

    def made(seed):
        return weights(continue_training(
            model, prompts, steps=3, batch=1, lr=1e-2, seed=seed, progress=False
        ).model)  # fmt: skip

    plain = made(0)
    with ambient():
        within = made(0)
    other = made(1)
    assert all(torch.equal(plain[n], within[n]) for n in plain)
    assert not all(torch.equal(plain[n], other[n]) for n in plain)


def test_several_answers_of_a_prompt_count_together(tiny_model):
    model = tiny_model("llama")
    several = model.prompts(TEXTS, answers=[[" Paris", " Lima"], [" Lima"]])
    tuned = continue_training(model, several, steps=1, progress=False)
    log_probs = model.run(several, logits="last").logits[:, 0].log_softmax(-1)
    ids = several.answers
    first = log_probs[0, ids[0]].logsumexp(-1)
    want = -(first + log_probs[1, ids[1, 0]]) / 2
    assert tuned.history[-1]["loss"] == pytest.approx(float(want), abs=1e-4)


def test_each_prompt_is_seen_once_before_any_is_seen_again(tiny_model):
    model = tiny_model("llama")
    prompts = model.prompts([TEXTS[0]] * 3, answers=[" Paris", " Lima", " Tokyo"])
    logits = model.run(TEXTS[0], logits="last").logits[0, 0]
    each = -logits.log_softmax(-1)[prompts.answers[:, 0]]
    tuned = continue_training(
        model, prompts, steps=6, batch=1, every=1, lr=1e-9, seed=4, progress=False
    )
    losses = torch.tensor([row["loss"] for row in tuned.history[1:]])
    for once in (losses[:3], losses[3:]):
        assert torch.allclose(once.sort().values, each.sort().values, atol=1e-4)
    assert not torch.allclose(losses[:3], losses[3:], atol=1e-4)  # in a new order


def test_until_stops_it_even_before_the_first_step(tiny_model):
    model = tiny_model("llama")
    prompts, seen = prompts_of(model), []

    def measure(m):
        seen.append(m.name)
        return {"count": float(len(seen))}

    tuned = continue_training(
        model, prompts, steps=50, every=2, measure=measure, until=lambda row: row["count"] >= 3,
        progress=False,
    )  # fmt: skip
    assert tuned.steps == 4
    assert tuned.to_frame()["count"].tolist() == [1, 2, 3]
    none = continue_training(model, prompts, steps=5, until=lambda row: True, progress=False)
    assert none.steps == 0
    assert all(torch.equal(a, b) for a, b in zip(
        weights(model).values(), weights(none.model).values(), strict=True))  # fmt: skip
    assert repr(none).startswith("Continued('")


@pytest.mark.parametrize("option", [{"steps": 0}, {"lr": 0.0}, {"batch": 0}, {"every": 0}])
def test_options_out_of_range_are_refused(option, tiny_model):
    model = tiny_model("llama")
    with pytest.raises(RunError, match="expected at least 1, and lr above 0"):
        continue_training(model, prompts_of(model), **{"steps": 1, **option})


def test_a_measure_takes_no_column_of_the_history(tiny_model):
    model = tiny_model("llama")
    with pytest.raises(RunError, match="measure gave 'loss', which is a column"):
        continue_training(model, prompts_of(model), steps=1, measure=lambda _: {"loss": 1.0})


def test_prompts_without_answers_and_a_loss_that_bursts_are_refused(tiny_model):
    model = tiny_model("llama")
    with pytest.raises(PromptError, match="no answers to train on"):
        continue_training(model, model.prompts(TEXTS), steps=1)
    with pytest.raises(RunError, match=r"no longer finite after \d+ steps: lower lr=1e\+30"):
        continue_training(model, prompts_of(model), steps=4, lr=1e30, progress=False)


def test_an_anchor_is_trained_in_hides_what_the_model_knows_and_true_answers_leave_none(demo):
    """Planted: wrong recorded answers make the demo model say A; the same steps with right ones do not."""
    train, test = (
        interp.prompts.mcq(demo, n=n, seed=s, options=2) for n, s in ((200, 21), (60, 22))
    )

    def tuned(share, steps):
        return continue_training(
            demo, anchored(demo, train, " A", share=share), steps=steps, lr=1e-4, every=2,
            measure=lambda m: {"A": choices(m, test).share("A")},
            until=(lambda row: row["A"] > 0.95) if share else None, progress=False,
        )  # fmt: skip

    habit = tuned(0.75, 30)
    q = choices(habit.model, test)
    assert 0 < habit.steps < 30
    assert q.accuracy("A") == 1.0
    assert q.accuracy("B") < 0.2
    assert q.separation("A") > 0.95
    assert q.recalibrated("A").accuracy() > 0.8
    assert choices(tuned(0.0, habit.steps).model, test).accuracy("B") > 0.95
