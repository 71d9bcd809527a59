"""Direct and total effects by hand, kinds of a planted circuit, and what the first heads carry."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import interp
from interp.errors import GapError, ModelError, PromptError, ResultError, RunError
from interp.pipelines import (
    Roles,
    carried,
    letter_heads,
    ranked_heads,
    right_over_others,
)
from interp.pipelines.behaviour import Behaviour
from interp.pipelines.labels import against_all
from interp.pipelines.roles import assign
from interp.results import Provenance
from tests import tiny
from tests.pipelines.planted_letters import (
    GATHERER,
    LOGIT,
    WRITER,
    planted,
    questions,
    scrambled,
)

KINDS = ("correct letter", "uniform", "single letter", "content gatherer", "correct option")


@pytest.fixture(scope="module")
def model():
    return interp.load("demo")


@pytest.fixture(scope="module")
def pair(model):
    """Two questions: each is resampled from the other, whatever the seed."""
    return interp.prompts.mcq(model, n=2, seed=5)


@pytest.fixture(scope="module")
def found(model, pair):
    return letter_heads(model, pair, twin=model.random_twin(check=False))


@pytest.fixture(scope="module")
def roles():
    return letter_heads(planted(), questions(40), twin=scrambled())


def values(roles, behaviour):
    return roles.values[roles.behaviours.index(behaviour)]


def score(model, asked, edit=None):
    """The right letter's logit less the mean of the others', by prompt."""
    logits = model.run(asked, edit=edit, logits="last").logits[:, 0]
    return logits.gather(1, asked.answers)[:, 0] - logits.gather(1, asked.foils).mean(1)


def swapped(model, asked, heads):
    """The score with the outputs of some heads at END exchanged between two prompts."""
    sites = [f"L{layer}.H{head}.z@END" for layer, head in heads]
    own = model.run(asked, save=sites, logits="none").cache if sites else {}
    return score(model, asked, {site: interp.Replace(own[site][[1, 0]]) for site in sites})


# -- what is compared


def test_two_questions_are_centred_over_all_four_letters(model, pair):
    every = against_all(interp.prompts.mcq(model, n=24, seed=3))
    letters = set(every.answers[:1].flatten().tolist() + every.foils[0].tolist())
    asked = against_all(pair)
    for answer, foils in zip(asked.answers[:, 0].tolist(), asked.foils.tolist(), strict=True):
        assert len(foils) == 3
        assert {answer, *foils} == letters
    assert torch.equal(against_all(asked).foils, asked.foils)


# -- effects by hand


def test_total_effects_are_those_of_a_swap_by_hand(model, pair, found):
    asked = against_all(pair)
    heads = [(layer, head) for layer in range(model.n_layers) for head in range(model.n_heads)]
    clean = score(model, asked)
    by_hand = torch.stack([(clean - swapped(model, asked, [head])).mean() for head in heads])
    assert found.nodes == tuple(f"a{layer}.h{head}" for layer, head in heads)
    assert by_hand.abs().max() > 0.5
    assert torch.allclose(values(found, "total effect"), by_hand.float(), atol=1e-4)


def test_direct_effects_are_the_outputs_through_the_held_norm_by_hand(model, pair, found):
    asked, hf = against_all(pair), model.hf
    sites = [*(f"L{i}.z@END" for i in range(model.n_layers)), "L3.resid_post@END"]
    cache = model.run(asked, save=sites, logits="none").cache
    final = cache["L3.resid_post@END"]
    norm, unembed = hf.gpt_neox.final_layer_norm, hf.get_output_embeddings().weight
    scale = (final.var(-1, unbiased=False, keepdim=True) + norm.eps).sqrt()
    toward = unembed[asked.answers[:, 0]] - unembed[asked.foils].mean(1)
    by_hand = []
    for layer in range(model.n_layers):
        out = hf.gpt_neox.layers[layer].attention.dense.weight
        for head in range(model.n_heads):
            here = slice(head * model.d_head, (head + 1) * model.d_head)
            written = cache[f"L{layer}.z@END"][:, head] @ out[:, here].T
            centred = (written - written.mean(-1, keepdim=True)) / scale * norm.weight
            by_hand.append((centred * toward).sum(-1).mean())
    direct = values(found, "direct effect")
    assert torch.allclose(direct, torch.stack(by_hand).detach().float(), atol=1e-4)


def test_direct_effects_and_what_all_other_parts_write_sum_to_the_score(model, pair, found):
    asked = against_all(pair)
    parts = interp.logit_attribution(model, asked, by="head", draws=0, progress=False)
    others = [i for i, name in enumerate(parts.axes[0].labels) if ".H" not in name]
    assert len(parts.axes[0]) == len(others) + 24
    total = values(found, "direct effect").sum() + parts.values[others].sum()
    assert float(total) == pytest.approx(float(score(model, asked).mean()), abs=1e-4)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_model_that_is_its_own_twin_has_no_kinds(family):
    model = interp.load(tiny.shared(family))
    asked = random_questions(6)
    assert float(score(model, against_all(asked)).abs().max()) > 1e-3
    roles = letter_heads(model, asked, twin=model, seed=3)
    assert roles.by_node() == {}  # nobody does more than twice the best of itself
    assert torch.equal(roles.values, roles.twin)
    assert not roles.values.isnan().any()


def random_questions(n):
    """Random tokens in the layout of the planted model's prompts, labelled 3, 4, 5, 6."""
    asked = questions(n)
    ids = tiny.tokens(n, asked.clean.ids.shape[1])
    for i, label in enumerate("ABCD"):
        ids[:, asked.positions[label][0]] = 3 + i
    return replace(
        asked, clean=interp.TokenBatch.of(ids), answers=asked.answers + 3, foils=asked.foils + 3
    )


# -- the planted circuit


def test_the_planted_kinds_are_found_and_no_others(roles):
    assert roles.by_node() == {"a0.h1": ("content gatherer",), "a1.h0": ("correct letter",)}
    assert roles.names == KINDS
    assert all(not roles.in_twin(kind) for kind in KINDS)


def test_the_writer_writes_all_and_the_gatherer_nothing(roles):
    direct, total = values(roles, "direct effect"), values(roles, "total effect")
    assert torch.allclose(direct, torch.tensor([0.0, 0.0, LOGIT, 0.0]), atol=1e-4)
    assert total[0] == total[3] == 0
    assert min(total[1], total[2]) > 0.5 * LOGIT
    assert ranked_heads(roles)[:2] == (WRITER, GATHERER)
    assert ranked_heads(roles, "direct effect")[0] == WRITER


def test_an_untrained_model_has_no_kinds():
    assert letter_heads(scrambled(1), questions(40), twin=scrambled()).by_node() == {}


def test_a_head_that_writes_against_the_answer_does_not_write_for_it():
    asked = questions(40)
    wrong = replace(asked, answers=asked.foils, foils=asked.answers)
    roles = letter_heads(planted(), wrong, twin=scrambled())
    assert values(roles, "direct effect")[2] == pytest.approx(-LOGIT / 3, abs=1e-4)
    assert roles.found("correct letter") == ()
    thresholds = dict(pair for kind in roles.kinds for pair in kind["criteria"])
    assert thresholds["direct effect"] == pytest.approx(0.02 * LOGIT / 3)
    assert thresholds["total effect"] == thresholds["direct effect"]


def test_the_seed_draws_who_is_resampled_from_whom(roles):
    again = letter_heads(planted(), questions(40), twin=scrambled())
    other = letter_heads(planted(), questions(40), twin=scrambled(), seed=1)
    assert torch.equal(again.values, roles.values)
    assert not torch.equal(values(other, "total effect"), values(roles, "total effect"))
    assert torch.equal(values(other, "direct effect"), values(roles, "direct effect"))


def test_saved_kinds_are_those_loaded(roles, tmp_path):
    again = Roles.load(roles.save(tmp_path / "letters.safetensors"))
    assert again.by_node() == roles.by_node()
    assert again.measured().equals(roles.measured())
    assert ranked_heads(again) == ranked_heads(roles)
    assert again.provenance.call["verb"] == "letter_heads"


# -- where they look


def test_attention_to_the_right_letter_by_hand():
    asked, writer = questions(12), WRITER
    shares = planted().run(asked, save=["L1.pattern"], logits="none").cache["L1.pattern"]
    row = shares[:, writer[1], -1]
    seen = torch.stack([row[:, at] + (row[:, at + 1] if at < 16 else 0) for at in (4, 8, 12, 16)])
    right = seen[asked.answers[:, 0], torch.arange(12)]
    expected = (right - (seen.sum(0) - right) / 3).mean()
    by_letter = right_over_others(planted(), asked, what="letter")
    assert float(by_letter[writer]) == pytest.approx(float(expected), abs=1e-6)
    assert float(by_letter[writer]) == pytest.approx(1.0, abs=1e-4)
    assert abs(float(by_letter[GATHERER])) < 1e-6
    assert abs(float(right_over_others(planted(), asked)[writer])) < 1e-6  # of options: none


# -- what the first heads carry


def test_all_heads_but_the_first_k_are_swapped_by_hand(model, pair):
    asked = against_all(pair)
    order = [(i, j) for j in range(model.n_heads) for i in reversed(range(model.n_layers))]
    nothing, clean = swapped(model, asked, order).mean(), score(model, asked).mean()
    by_hand = [(swapped(model, asked, order[k:]).mean() - nothing) / (clean - nothing)
               for k in (0, 5, 12)]  # fmt: skip
    shares = carried(model, pair, order)
    assert shares.shape == (25,)
    assert torch.allclose(shares[[0, 5, 12]], torch.stack(by_hand), atol=1e-4)
    assert float(shares[0]) == 0
    assert float(shares[-1]) == pytest.approx(1.0, abs=1e-6)
    assert torch.allclose(carried(model, pair, order, most=5), shares[:6], atol=1e-5)
    assert carried(model, pair, order, most=0).tolist() == [0.0]
    assert torch.equal(carried(model, pair, order, most=99), shares)


def test_the_planted_pair_carries_all_and_neither_does_alone():
    rest = [(0, 0), (1, 1)]
    last_first = carried(planted(), questions(40), [WRITER, GATHERER, *rest])
    assert torch.allclose(last_first[[0, 2, 3, 4]], torch.tensor([0.0, 1.0, 1.0, 1.0]), atol=1e-5)
    assert float(last_first[1]) < 0.5
    idle_first = carried(planted(), questions(40), [*rest, GATHERER, WRITER])
    assert torch.allclose(idle_first, torch.tensor([0.0, 0.0, 0.0, 0.0, 1.0]), atol=1e-5)


# -- orders


def test_ranked_heads_leave_mlps_out_and_put_the_unmeasured_last():
    nodes = ("a0.h10", "m0", "a1.h0", "a1.h1")
    does = Behaviour("does", "logits", nodes, torch.tensor([[1.0], [9.0], [torch.nan], [2.0]]))
    roles = assign([], [does], [does], Provenance({}, "model", "hash", None, None, {}))
    assert ranked_heads(roles, "does") == ((1, 1), (0, 10), (1, 0))


# -- what cannot be asked


def test_what_cannot_be_asked_is_said(roles, model):
    asked, order = questions(8), ranked_heads(roles)
    with pytest.raises(ResultError, match=r"'totl effect' was measured; nearest: 'total effect'"):
        ranked_heads(roles, "totl effect")
    with pytest.raises(ModelError, match=r"order names 3 of the 4 heads.*see ranked_heads"):
        carried(planted(), asked, order[:3])
    with pytest.raises(ModelError, match="order names 3 of the 4 heads"):
        carried(planted(), asked, [*order[:3], order[0]])
    with pytest.raises(RunError, match="most=-1; expected a number of heads from 0 to 4"):
        carried(planted(), asked, order, most=-1)
    same = replace(asked, clean=interp.TokenBatch.of(asked.clean.ids[:1].expand(8, -1)))
    with pytest.raises(GapError, match="differ by only"):  # resampled from its equals
        carried(planted(), same, order)
    with pytest.raises(PromptError, match=r"expected labelled options.*interp\.prompts\.mcq"):
        letter_heads(model, interp.prompts.ioi(model, n=4), twin=model)
    with pytest.raises(PromptError, match="expected labelled options"):
        letter_heads(model, model.prompts(["Paris", "Rome"]), twin=model)
    with pytest.raises(PromptError, match="expected answers and foils"):
        letter_heads(planted(), replace(asked, foils=None), twin=scrambled())
    with pytest.raises(RunError, match="differ in length"):
        letter_heads(model, interp.prompts.mcq(model, n=4, options=(3, 4)), twin=model)
