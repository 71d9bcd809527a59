"""Steered generation with the key-value cache is the steered full forward, done again at each step."""

import pytest
import torch

import interp
from interp.steering.contrast import steering_vector
from tests import tiny

ROWS = [[5, 6, 7, 8, 9, 10], [11, 12, 13], [14, 15, 16, 17]]
STEPS = 6


@pytest.fixture(scope="module", params=["llama", "gpt_neox", "gpt2", "gemma2"])
def model(request):
    return interp.load(tiny.shared(request.param), check=False)


@pytest.fixture(scope="module")
def vector(model):
    return steering_vector(model, tiny.tokens(5, 6, seed=1), tiny.tokens(5, 6, seed=2),
                           "L1.resid_pre", positions=-1)  # fmt: skip


def by_hand(model, row, edit_of):
    """Greedy decoding of one unpadded prompt, the whole text run at each step."""
    ids = list(row)
    for _ in range(STEPS):
        logits = model.run(
            torch.tensor([ids]), edit=edit_of(len(row), len(ids)), logits="last"
        ).logits
        ids.append(int(logits[0, 0].argmax()))
    return ids[len(row) :]


WAYS = {
    "everywhere": ({}, lambda prompt, now: {}),
    "END and on": ({"start": "END"}, lambda prompt, now: {"start": prompt - 1}),
    "from 1 on": ({"start": 1}, lambda prompt, now: {"start": 1}),
    "END of the prompt": ({"positions": "END"}, lambda prompt, now: {"positions": prompt - 1}),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("pad", ["left", "right"])
def test_generation_equals_runs_of_the_whole_text(model, vector, way, pad):
    options, full = WAYS[way]
    batch = interp.TokenBatch.stack(ROWS, pad=pad)
    made = model.generate(batch, edit=vector.edit(1.5, **options), max_new_tokens=STEPS,
                          do_sample=False, eos_token_id=None)[:, batch.ids.shape[1] :]  # fmt: skip
    plain = model.generate(batch, max_new_tokens=STEPS, do_sample=False, eos_token_id=None)
    for i, row in enumerate(ROWS):
        expected = by_hand(model, row, lambda p, now: vector.edit(1.5, **full(p, now)))
        assert made[i].tolist() == expected
    assert not torch.equal(made, plain[:, batch.ids.shape[1] :])


def test_without_a_cache_and_with_beams(model, vector):
    batch = interp.TokenBatch.stack(ROWS, pad="left")
    edit = vector.edit(1.5, start=-2)
    options = {"max_new_tokens": STEPS, "do_sample": False, "eos_token_id": None}
    cached = model.generate(batch, edit=edit, **options)
    assert torch.equal(cached, model.generate(batch, edit=edit, use_cache=False, **options))
    beams = model.generate(batch, edit=edit, num_beams=2, **options)
    one = interp.TokenBatch.of(torch.tensor([ROWS[0]]))
    alone = model.generate(one, edit=edit, num_beams=2, **options)
    assert beams[0].tolist() == alone[0].tolist()


def test_the_demo_model_answers_the_other_question():
    model = interp.load("demo")
    names = ["Japan", "Peru", "Poland", "Greece", "Iran", "Sweden", "Thailand", "Italy"]
    vector = steering_vector(model, [f"The language of {name} is" for name in names],
                             [f"The capital of {name} is" for name in names], "L2.resid_pre")  # fmt: skip
    text, options = "The capital of France is", {"max_new_tokens": 1, "do_sample": False}
    said = {
        strength: model.to_string(model.generate(
            text, edit=vector.edit(strength, start="END"), **options)[0, -1:])
        for strength in (0.0, 2.0)
    }  # fmt: skip
    assert [word.strip() for word in said.values()] == ["Paris", "French"]
