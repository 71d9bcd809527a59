"""ROME: what is inserted is what was trained, on every family; what is trained is the target."""

from __future__ import annotations

import numpy
import pytest
import torch

import interp
from interp import editing
from interp.editing.request import Request, target_ids
from interp.editing.value import logits_of, optimise_value, read_keys, target_loss
from interp.errors import ModelError, PromptError, RunError
from tests import tiny

FAMILIES = [name for name in (*tiny.REGISTRY, *tiny.OWN_ATTENTION) if name != "mixtral"]
PROMPT = "The capital of France"
BARE = editing.Rome(prefixes=(), essence=None, steps=4, stop=0.0)


def bare(model, **options):
    given = {"layer": model.n_layers - 1, "covariance": None, "config": BARE, "prefixes": ()}
    return editing.rome(model, PROMPT, "France", " is", **{**given, **options})


@pytest.mark.parametrize("family", FAMILIES)
def test_the_edited_weight_does_what_was_trained(family, tiny_model):
    """In the last layer, with the subject last, nothing else can reach the last logits."""
    model = tiny_model(family)
    edit = bare(model)
    delta = edit.changes[f"L{model.n_layers - 1}.W_out"].v
    assert 0 < edit.notes["delta_norm"] <= 4.001 * edit.notes["value_norm"]
    request = Request.of(model, PROMPT, "France", " is")
    with torch.no_grad():
        trained = logits_of(model.anatomy, request, model.n_layers - 1, delta)[0, -1]
        before = model.run(PROMPT).logits[0, -1]
    with model.edited(edit):
        after = model.run(PROMPT).logits[0, -1]
    assert torch.allclose(after, trained, atol=2e-4)
    assert not torch.allclose(after, before, atol=1e-2)
    wanted = target_ids(model, PROMPT, " is")[0]
    assert after.log_softmax(-1)[wanted] > before.log_softmax(-1)[wanted]


def test_insertion_is_equation_2(tiny_model):
    model = tiny_model("gpt2")
    texts = ["The capital of France is Paris", "Japan is Tokyo and Peru is Lima"] * 3
    keys = editing.covariance(model, texts, 0)
    prefixes = ("The capital", "Peru is")
    edit = bare(model, layer=0, covariance=keys, prefixes=prefixes)
    change = edit.changes["L0.W_out"]
    rows = [PROMPT, *(f"{prefix}. {PROMPT}" for prefix in prefixes)]
    seen = [model.run(row, save="L0.mlp_post@-1").cache["L0.mlp_post@-1"][0] for row in rows]
    key = torch.stack(seen).double().mean(0)
    solved = keys.solve(0, key, damping=BARE.damping)
    u = solved / (solved @ key)
    assert torch.allclose(change.u.double(), u, rtol=1e-3, atol=1e-5)
    old, bias = model.weights.layer(0).W_out.double(), model.weights.layer(0).b_out.double()
    with model.edited(edit):
        new = model.weights.layer(0).W_out.double()
    assert torch.allclose(key @ new + bias, key @ old + bias + change.v.double(), atol=1e-4)
    plain = bare(model, layer=0, covariance=None).changes["L0.W_out"].u
    assert torch.cosine_similarity(plain, seen[0], dim=0) > 0.9999


def test_the_model_is_left_alone(tiny_model):
    model = tiny_model("llama")
    some = model.hf.get_parameter("model.layers.0.mlp.up_proj.weight")
    some.requires_grad_(False)
    flags = {n: p.requires_grad for n, p in model.hf.named_parameters()}
    before = {k: v.clone() for k, v in model.hf.state_dict().items()}
    bare(model)
    assert {n: p.requires_grad for n, p in model.hf.named_parameters()} == flags
    assert all(p.grad is None for p in model.hf.parameters())
    assert all(torch.equal(v, before[k]) for k, v in model.hf.state_dict().items())
    assert not any(m._forward_hooks for m in model.hf.modules())


@torch.no_grad()
def test_several_target_tokens_are_teacher_forced(tiny_model):
    model = tiny_model("llama")
    target = " Paris and Lima"
    ids = target_ids(model, PROMPT, target)
    assert len(ids) > 1
    request = Request.of(model, PROMPT, "France", target, prefixes=("Peru is Lima",))
    loss = target_loss(logits_of(model.anatomy, request), request)
    by_hand = []
    for text in (PROMPT, f"Peru is Lima. {PROMPT}"):
        whole, start = model.to_tokens(text + target)[0], model.to_tokens(text).shape[1]
        log_probs = model.run(whole).logits[0].log_softmax(-1)
        by_hand += [log_probs[start - 1 + i, one] for i, one in enumerate(whole[start:])]
    assert float(loss) == pytest.approx(-float(torch.stack(by_hand).mean()), rel=1e-5)
    lowered = Request.of(model, PROMPT, "France", editing.Objective(target, lower=True))
    p = torch.stack(by_hand[: len(ids)]).sum().exp()
    loss = target_loss(logits_of(model.anatomy, lowered), lowered)
    assert float(loss) == pytest.approx(-float(torch.log(1 - p)), abs=1e-6)


@pytest.mark.bad_input
def test_targets_may_be_numbers_of_other_libraries(tiny_model):
    model = tiny_model("llama")
    for target in (torch.tensor(5), torch.tensor([5]), numpy.int64(5), [5]):
        assert target_ids(model, PROMPT, target) == (5,)


def test_keys_are_read_at_the_last_token_of_the_subject(tiny_model):
    model = tiny_model("llama")
    text, subject = "The capital of Ivory Coast is", "Ivory Coast"
    columns = model.tokens.span_columns(text, (15, 26))
    assert len(columns) > 1
    request = Request.of(model, text, subject, " Paris", prefixes=("Ivory Coast",))
    assert int(request.subject[0]) == columns[-1]
    assert int(request.first[0]) == columns[0]
    shift = model.to_tokens(f"Ivory Coast. {text}").shape[1] - model.to_tokens(text).shape[1]
    assert int(request.subject[1]) == columns[-1] + shift
    cache = model.run(text, save="L1.mlp_post").cache
    keys, essence = read_keys(model, request, 1)
    assert torch.allclose(keys[0], cache["L1.mlp_post"][0, columns[-1]], atol=1e-5)
    assert essence is None


def test_noise_stands_at_the_subject_of_each_prompt_and_nowhere_else(tiny_model):
    model = tiny_model("gpt2")
    goal = editing.Objective(" Paris", noise=interp.Noise(1.0, seed=3))
    request = Request.of(
        model, "The capital of Ivory Coast is", "Ivory Coast", goal,
        prefixes=("Peru",), essence="{subject} is a", copies=2,
    )  # fmt: skip
    x = torch.zeros(*request.batch.ids.shape, model.d_model)
    moved = request.noisy(x).abs().sum(-1) > 0
    columns = torch.arange(x.shape[1])
    here = (columns >= request.first[:, None]) & (columns <= request.subject[:, None])
    here[-1] = False  # the essence prompt is clean
    assert torch.equal(moved, here)
    noise = request.noisy(x)
    span = slice(int(request.first[0]), int(request.subject[0]) + 1)
    assert not torch.allclose(noise[0, span], noise[1, span])
    assert 0.8 < float(noise[0, span].std()) < 1.2
    assert torch.equal(request.noisy(x), noise)


def test_a_vector_that_nothing_reads_stays_zero(tiny_model):
    model = tiny_model("llama")
    request = Request.of(model, "The capital of France is", "France", " Paris")
    value = optimise_value(model, request, model.n_layers - 1, BARE)
    assert not value.delta.any()
    assert value.notes["steps"] == 0


def test_the_essence_prompt_holds_the_subject_still(demo, cases, keys):
    case, drift = cases[0], {}
    for weight in (0.0, 5.0):
        config = editing.Rome(prefixes=(), kl=weight, steps=12)
        edit = editing.rome(demo, case.prompt, case.subject, case.target, layer=0,
                            covariance=keys, config=config, prefixes=())  # fmt: skip
        drift[weight] = editing.evaluate_edit(demo, edit, case).essence_drift
    assert drift[5.0] < 0.5 * drift[0.0]


def test_prefixes_are_the_models_own_and_follow_the_seed(demo):
    drawn = editing.sampled_prefixes(demo, lengths=((2, 3), (1, 6)), seed=5)
    assert [len(demo.to_tokens(text, bos=False)[0]) for text in drawn] == [3, 3, 6]
    assert drawn == editing.sampled_prefixes(demo, lengths=((2, 3), (1, 6)), seed=5)
    assert drawn != editing.sampled_prefixes(demo, lengths=((2, 3), (1, 6)), seed=6)
    greedy = editing.sampled_prefixes(demo, lengths=((2, 4),), seed=1, top=1)
    assert greedy[0] == greedy[1]
    ids = torch.tensor([[demo.tokens.bos_id]])
    made = demo.hf.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=4, do_sample=False
    )
    assert greedy[0] == demo.to_string(made[0, 1:]).strip()
    with pytest.raises(PromptError, match="expected pairs"):
        editing.sampled_prefixes(demo, lengths=((0, 3),))


def test_the_same_seed_gives_the_same_edit_and_one_row_of_prompts_will_do(demo, keys):
    config = editing.Rome(prefixes=((2, 4),), steps=3)
    given = {"layer": 0, "covariance": keys, "config": config}
    pairs = interp.prompts.capitals(demo, n=2, seed=0).subset([1])
    text = pairs.texts[0]
    name = next(c for c in text.split() if c in ("Iceland", "Armenia"))
    edits = [editing.rome(demo, prompt, name, " Lima", seed=seed, **given)
             for prompt, seed in ((text, 0), (pairs, 0), (text, 1))]  # fmt: skip
    first, again, other = (edit.changes["L0.W_out"] for edit in edits)
    assert torch.equal(first.u, again.u)
    assert torch.equal(first.v, again.v)
    assert not torch.equal(first.v, other.v)
    assert edits[0].provenance.call["target"] == " Lima"
    assert edits[0].provenance.call["config"]["lr"] == 0.5


@pytest.mark.bad_input
def test_errors(tiny_model, demo, keys):
    model = tiny_model("llama")
    with pytest.raises(PromptError, match="'Peru' occurs 0 times in 'The capital of France'"):
        editing.rome(model, PROMPT, "Peru", " is", layer=0, covariance=None, prefixes=())
    with pytest.raises(PromptError, match="does not continue 'The capital of France'"):
        editing.rome(model, PROMPT, "France", "", layer=0, covariance=None, prefixes=())
    for layer in (3, "0"):
        with pytest.raises(ModelError, match=f"layer={layer!r}: expected 0 to 2"):
            bare(model, layer=layer)
    for target, text in (((), "no token"), (10**6, "expected 0 to"), (-1, "expected 0 to"),
                         (2.5, "expected a text"), (["is"], "expected a text")):  # fmt: skip
        with pytest.raises(PromptError, match=text):
            editing.rome(model, PROMPT, "France", target, layer=0, covariance=None, prefixes=())
    assert bare(model, config=editing.Rome(prefixes=(), essence="{subject} is a {x}"))
    with (
        model.edited({"L0.W_in": lambda w: w * torch.nan}),
        pytest.raises(RunError, match="finite"),
    ):
        bare(model, layer=0)
    with pytest.raises(ModelError, match="measure it on this model"):
        bare(model, covariance=keys)
    with pytest.raises(ModelError, match=r"has layers \[0, 1\], not 2"):
        editing.rome(demo, "The capital of France is", "France", " Lima", layer=2, covariance=keys)
    with pytest.raises(ModelError, match="mixture of experts"):
        bare(tiny_model("mixtral"))
    with pytest.raises(PromptError, match="takes one prompt as text"):
        editing.rome(demo, interp.prompts.capitals(demo, n=2), "France", " Lima", layer=0,
                     covariance=keys)  # fmt: skip
    noisy = editing.Objective(" Paris", noise=interp.Noise(1.0))
    with pytest.raises(PromptError, match="subject is None"):
        Request.of(model, PROMPT, None, noisy)
    for options, text in (
        ({"lr": 0.0}, r"Rome\(lr=0.0\)"),
        ({"damping": -1.0}, r"Rome\(damping=-1.0\)"),
        ({"essence": "it is a"}, "has no {subject} in it"),
    ):
        with pytest.raises(RunError, match=text):
            editing.Rome(**options)
