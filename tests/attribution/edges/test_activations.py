"""EAP-IG on activations: shares of the exact effect of each group, and the formula by hand."""

import pytest
import torch

import interp
from interp.attribution.edges.activations import groups_of
from interp.graph import Setting
from tests import tiny
from tests.attribution.cases import model_of, pairs_of

FAMILIES = ("gpt2", "llama", "gemma2", "gpt_neox", "qwen3")


def torch_rows(rows):
    return [torch.tensor([row]) for row in rows]


def scores_of(model, prompts, **options):
    return interp.attribute(model, prompts, "edges", method="eap-ig-activations", **options)


def effects_of_groups(setting):
    """Each group's edges all ablated, exactly."""
    graph = setting.graph
    masks = graph.full.expand(len(list(groups_of(graph))), *graph.full.shape).clone()
    for mask, group in zip(masks, groups_of(graph), strict=True):
        mask[group.sources] = False
    return setting.scores(masks) - setting.full  # [group, prompt]


@pytest.mark.parametrize(
    ("family", "options"),
    [*((family, {}) for family in FAMILIES), ("llama", {"freeze_norms": True})],
)
def test_edges_out_of_a_group_sum_to_its_exact_effect(family, options):
    model = model_of(family)
    prompts = pairs_of(model, rows=2, differ=(1, 3))
    exact = effects_of_groups(Setting.of(model, prompts, **options))
    found = scores_of(model, prompts, steps=8, alphas="midpoint", **options)
    assert exact.abs().max() > 1e-3
    for group, expected in zip(groups_of(found.graph), exact, strict=True):
        own = found.per_prompt[:, group.sources].nan_to_num().flatten(1).sum(1)
        assert (own - expected).abs().max() < 0.1 * exact.abs().max(), group


def test_zero_and_mean_ablation_sum_to_their_effects_too():
    model = model_of("gpt2")
    prompts, reference = pairs_of(model, rows=2), pairs_of(model, rows=4, seed=5)
    for options in ({"ablation": "zero"}, {"ablation": "mean", "reference": reference}):
        exact = effects_of_groups(Setting.of(model, prompts, **options))
        found = scores_of(model, prompts, steps=10, alphas="midpoint", **options)
        for group, expected in zip(groups_of(found.graph), exact, strict=True):
            own = found.per_prompt[:, group.sources].nan_to_num().flatten(1).sum(1)
            assert (own - expected).abs().max() < 0.06 * exact.abs().max(), (group, options)


def by_hand(model, prompts, source, dest, alphas):
    """One edge, from runs whose source is on the way; the stream as its MLP reads it."""
    layer, head = (int(one[1:]) for one in source.split("."))
    reads = int(dest[1:])
    clean = model.run(prompts.clean, save="L*.z").cache[f"L{layer}.z"]
    other = model.run(prompts.corrupted, save="L*.z").cache[f"L{layer}.z"]
    change = ((other - clean)[:, :, head] @ model.W_O[layer, head]).detach()
    total = 0
    for alpha in alphas:
        z = other + alpha * (clean - other)
        run = model.run(
            prompts.clean, save=[f"L{reads}.resid_mid", f"L{reads}.ln2.normalized"], grad=True,
            edit={f"L{layer}.z": interp.Replace(z)},
        )  # fmt: skip
        score = interp.metrics.evaluate("logit_diff", run.logits, prompts)
        inner = run.cache[f"L{reads}.ln2.normalized"]
        (gradient,) = torch.autograd.grad(score.sum(), inner, retain_graph=True)
        (gradient,) = torch.autograd.grad(inner, run.cache[f"L{reads}.resid_mid"], gradient)
        total = total + (change * gradient).sum((1, 2)) / len(alphas)
    return total


@pytest.mark.parametrize(
    ("alphas", "at"),
    [(None, (0.25, 0.5, 0.75, 1)), ("left", (0, 0.25, 0.5, 0.75)),
     ("midpoint", (0.125, 0.375, 0.625, 0.875))],
)  # fmt: skip
def test_one_edge_by_hand(alphas, at):
    """The published code's α are k / steps for k = 1..steps, 1 the clean value."""
    model = model_of("llama")
    prompts = pairs_of(model)
    found = scores_of(model, prompts, steps=4, alphas=alphas)
    s, d = found.sources.index("a0.h1"), found.dests.index("m1")
    expected = by_hand(model, prompts, "a0.h1", "m1", at)
    assert expected.abs().max() > 1e-4
    assert torch.allclose(found.per_prompt[:, s, d], expected, rtol=1e-4, atol=1e-8)


def test_one_step_at_the_clean_run_is_eap():
    model = model_of("gpt_neox")
    prompts = pairs_of(model)
    found = scores_of(model, prompts, steps=1)
    eap = interp.attribute(model, prompts, "edges", method="eap")
    assert torch.allclose(found.values, eap.values, atol=1e-9, equal_nan=True)


def test_groups_of_positions_sum_to_the_whole():
    model = model_of("llama")
    prompts = pairs_of(model, differ=(1, 2))
    whole = scores_of(model, prompts, steps=2)
    parts = scores_of(model, prompts, steps=2, positions=["s"])
    assert torch.allclose(parts.values.sum(-1), whole.values, atol=1e-9, equal_nan=True)
    assert parts.at("s").nan_to_num().abs().max() > 1e-4


def test_directions_padding_batches_and_one_head():
    model = interp.load(tiny.build("llama", num_attention_heads=1, num_key_value_heads=1))
    clean = [[5, 9, 20, 33], [7, 8, 9, 41, 15, 23]]
    other = [[5, 11, 20, 33], [7, 8, 19, 41, 15, 23]]
    alone = [
        scores_of(model, model.prompts(*rows, answers=[3], foils=[4]), steps=2)
        for rows in zip(torch_rows(clean), torch_rows(other), strict=True)
    ]
    for pad in ("left", "right"):
        batches = [interp.TokenBatch.stack(rows, pad=pad) for rows in (clean, other)]
        prompts = model.prompts(*batches, answers=[3, 3], foils=[4, 4])
        together = scores_of(model, prompts, batch=1 if pad == "right" else "auto", steps=2)
        for row, own in enumerate(alone):
            there = together.per_prompt[row].nan_to_num()
            assert torch.allclose(there, own.values.nan_to_num(), atol=1e-5), pad
    turned = scores_of(model, prompts, direction="denoise", steps=1)
    assert torch.allclose(turned.full, together.empty, atol=1e-5)
