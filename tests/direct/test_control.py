"""What survives: the parts that know the answer, on a planted circuit and on the demo model."""

import pytest
import torch

import interp
from interp.direct.control import different, random_tokens, shuffle
from interp.direct.result import LogitAttribution
from interp.direct.targets import Logits
from interp.direct.verb import logit_attribution
from interp.errors import ResultError, RunError
from interp.results import Axis
from tests import tiny


def column(*ids):
    return torch.tensor(ids)[None, :, None]


def test_pairs_are_dealt_out_whole():
    target = Logits(column(*range(10, 18)), column(*range(20, 28)))
    drawn = shuffle(target, draws=50, seed=0)
    assert torch.equal(drawn.answers - 10, drawn.foils - 20)  # pairs stay pairs
    assert torch.equal(drawn.answers.sort(1).values, target.answers.expand(50, -1, -1))
    assert torch.equal(drawn.answers, shuffle(target, draws=50, seed=0).answers)
    assert not torch.equal(drawn.answers, shuffle(target, draws=50, seed=1).answers)
    sets = Logits(torch.tensor([[[3, 4], [4, 3], [5, -1]]]))
    assert different(sets).tolist()[0] == different(sets).tolist()[1] != different(sets).tolist()[2]


def found_of(values, null):
    parts = len(values)
    axis = Axis("part", tuple(f"L{i}.attn_out" for i in range(parts)))
    return LogitAttribution(
        values=values, per_prompt=values[:, None], axes=(axis,), total=values.sum(0)[None],
        error=0.0, null=null, control="shuffled answers", by="component", what="logit", n_heads=1,
        answers=None, foils=None, provenance=None,
    )  # fmt: skip


@pytest.mark.bad_input
@pytest.mark.parametrize("prompts", [5, 8, 40])
def test_of_parts_that_know_nothing_one_in_twenty_survives(prompts):
    target, generator = Logits(column(*range(prompts))), torch.Generator().manual_seed(0)
    logits = torch.randn(1000, prompts, prompts, generator=generator)  # part, prompt, answer
    logits += torch.randn(1000, 1, prompts, generator=generator)  # pushes some answers up anyway
    orders = shuffle(target, draws=100, seed=0).answers[..., 0]
    null = torch.stack([logits[:, torch.arange(prompts), order].mean(-1) for order in orders])
    found = found_of(logits.diagonal(dim1=1, dim2=2).mean(-1), null)
    assert 0.01 < found.survives().double().mean() < 0.07


@pytest.mark.bad_input
def test_too_few_draws_say_nothing():
    found = found_of(torch.tensor([5.0, 0.0]), torch.zeros(39, 2))
    assert found.survives().tolist() == [True, False]
    with pytest.raises(ResultError, match=r"bear level=0.95 at most, not 0.99"):
        found.survives(level=0.99)
    model = interp.load(tiny.shared("gpt2"), check=False)
    with pytest.raises(RunError, match="at least 39"):
        logit_attribution(model, tiny.tokens(1, 6), draws=20)


def test_random_tokens_are_never_the_prompts_own():
    target = Logits(column(3, 4), column(5, 6))
    drawn = random_tokens(target, d_vocab=9, draws=200, seed=0)
    assert set(drawn.answers.unique().tolist()) == {0, 1, 2, 7, 8}
    assert not bool((drawn.answers == drawn.foils).any())
    assert random_tokens(Logits(column(3)), d_vocab=9, draws=3, seed=0).foils is None


def planted(knows):
    """Prompts of which one MLP writes the answer of the last token, and one a fixed token."""
    hf = tiny.build("gpt2")
    with torch.no_grad():
        for parameter in hf.parameters():
            parameter.mul_(0.05 if parameter.dim() > 1 else 1.0)
        hf.lm_head.weight.copy_(torch.randn(120, 32, generator=torch.Generator().manual_seed(0)))
    model = interp.load(hf, check=False)
    ids = tiny.tokens(12, 6)
    ids[:, -1] = torch.arange(12) + 3
    answers = ids[:, -1:] + 20
    table = torch.zeros(120, 32)
    for token in range(3, 15):
        table[token] = hf.lm_head.weight[token + 20 if knows else 50].detach()
    return model, model.prompts(ids, answers=answers), table[ids]


@pytest.mark.parametrize("knows", [True, False])
def test_a_part_survives_if_it_knows_which_answer(knows):
    model, prompts, written = planted(knows)
    module = model.hf.transformer.h[1].mlp
    handle = module.register_forward_hook(lambda _m, _a, out: out + written)
    try:
        found = logit_attribution(model, prompts)
    finally:
        handle.remove()
    assert found.control == "shuffled answers"
    kept = dict(zip(found.names, found.survives().tolist(), strict=True))
    assert kept["L1.mlp_out"] is knows
    assert kept["bias"] is False
    assert (found.top(1)["part"][0] == "L1.mlp_out") is knows


def test_the_demo_model_writes_capitals_late_and_its_twin_does_not():
    model = interp.load("demo", check=False)
    prompts = interp.prompts.capitals(model, n=64, seed=0)
    found = logit_attribution(model, prompts, by="head")
    assert found.error < 1e-4
    late = found.layers("attn")[2].mean() + found.layers("mlp")[2].mean()
    assert float(late / found.total.mean()) > 0.5
    strongest = found.heads().mean(-1)
    index = int(strongest.argmax())
    name = f"L{index // 6}.H{index % 6}.result"
    assert bool(found.survives()[found.names.index(name)])
    assert float(found.interval().low[found.names.index(name)]) > 1.0
    by_chance, largest = [], 0.0
    for seed in range(3):
        twin = model.random_twin(seed, check=False)
        null = logit_attribution(twin, prompts, by="head")
        by_chance += null.survives().tolist()
        largest = max(largest, float(null.values.abs().max()))
    assert largest < 0.05 * float(strongest.max())
    assert sum(by_chance) / len(by_chance) < 0.2


def test_one_prompt_is_held_against_random_tokens():
    model = interp.load("demo", check=False)
    found = logit_attribution(model, "The capital of France is")
    assert found.control == "random tokens"
    assert found.null.shape == (100, len(found.names))
    frame = found.top(1)
    assert bool(frame["survives"][0])
    again = logit_attribution(model, "The capital of France is")
    assert torch.equal(found.null, again.null)
    other = logit_attribution(model, "The capital of France is", seed=1)
    assert not torch.equal(found.null, other.null)
