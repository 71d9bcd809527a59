"""What circuits have been measured wrongly by: each is either right here, or refused by name."""

import pytest
import torch

import interp
from interp.errors import BudgetError, GraphError, PromptError, RunError
from interp.graph import Setting
from tests import tiny
from tests.engine.cases import ANSWERS, FOILS, LENGTHS, pairs, state


def loaded(family="gpt2"):
    return interp.load(tiny.shared(family), check=False)


def test_unequal_lengths_and_masks_of_another_run_are_refused():
    model, options = loaded(), {"answers": [3], "foils": [4]}
    with pytest.raises(PromptError, match="expected one length"):
        interp.attribute(
            model, torch.tensor([[1, 2]]), torch.tensor([[1, 2, 3]]), "edges", **options
        )
    rows = [[1, 2], [1, 2, 3]]
    sides = [interp.TokenBatch.stack(rows, pad=pad) for pad in ("left", "right")]
    with pytest.raises(PromptError, match="expected the same mask"):
        interp.Prompts(*sides, answers=ANSWERS[:2], foils=FOILS[:2])


@pytest.mark.parametrize("padding", ["left", "right"])
def test_positions_are_counted_among_real_tokens(padding):
    """At a number, at a name, and at others, each padded prompt scores as it does alone."""
    model = loaded()
    prompts = pairs(model, padding)
    own = Setting.of(model, prompts, positions=("here", 1))
    assert own.graph.positions == ("here", "1", "other")
    masks = torch.rand(3, *own.graph.full.shape, generator=torch.manual_seed(0)) < 0.7
    together = own.scores(masks)
    for row, n in enumerate(LENGTHS):
        real = prompts.clean.mask[row]
        assert int(real.sum()) == n
        alone = model.prompts(
            *(side.ids[row, real][None] for side in (prompts.clean, prompts.corrupted)),
            answers=ANSWERS[row : row + 1], foils=FOILS[row : row + 1],
            positions={"here": [[4, 5, 6, 4][row]]},
        )  # fmt: skip
        scores = Setting.of(model, alone, positions=("here", 1)).scores(masks)[:, 0]
        assert torch.allclose(together[:, row], scores, atol=1e-5)


def test_one_column_has_one_name():
    model = loaded()
    with pytest.raises(GraphError, match=r"'END' and '-1' are one column in prompt 0"):
        _ = Setting.of(model, pairs(model), positions=("END", -1)).groups


def test_zero_ablation_depends_on_whether_position_embeddings_are_a_node():
    own = Setting.of(loaded(), pairs(loaded()), ablation="zero")
    nothing = torch.zeros_like(own.graph.full)
    kept = nothing.clone()
    kept[own.graph.sources.index("pos_embed")] = True  # as where it is part of no node
    scores = own.scores(torch.stack([nothing, kept]))
    assert float((scores[0] - scores[1]).abs().max()) > 1e-2
    paired = Setting.of(own.model, own.prompts)  # one length: the same on both sides
    scores = paired.scores(torch.stack([nothing, kept]))
    assert torch.allclose(scores[0], scores[1], atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("method", ["exact", "eap", "information-flow"])
def test_scores_of_models_in_half_precision_are_float32(method, dtype):
    model = interp.load(tiny.build("gpt2").to(dtype), check=False)
    wide = interp.load(tiny.build("gpt2"), check=False)
    found, right = (
        interp.attribute(one, pairs(one), "edges", method=method) for one in (model, wide)
    )
    assert {found.values.dtype, found.full.dtype, found.empty.dtype} == {torch.float32}
    real = right.graph.real
    assert torch.allclose(found.values[real], right.values[real], atol=3e-2)


@pytest.mark.parametrize("method", ["exact", "eap", "eap-ig", "atp-qk"])
def test_models_of_one_head(method):
    model = interp.load(tiny.build("gpt2", n_head=1, n_embd=8), check=False)
    found = interp.attribute(model, pairs(model), "edges", method=method)
    assert found.graph.dests[:4] == ("a0.h0<q>", "a0.h0<k>", "a0.h0<v>", "m0")
    assert bool(found.values[found.graph.real].isfinite().all())
    assert found.nodes()["a0.h0"] != 0


def test_dropout_and_runs_without_gradients_are_refused():
    model = interp.load(tiny.build("gpt2"), check=False)
    prompts = pairs(model)
    model.hf.train()
    with pytest.raises(GraphError, match="is in training mode"):
        Setting.of(model, prompts)
    model.hf.eval()
    with torch.inference_mode(), pytest.raises(RunError, match="inference_mode"):
        interp.attribute(model, prompts, "edges", method="atp*")
    with pytest.raises(GraphError, match="in the place of prompts"):
        Setting.of(model, "The cat")


def test_what_does_not_fit_is_told_before_it_runs(monkeypatch):
    model = loaded()
    own = Setting.of(model, pairs(model))
    monkeypatch.setattr("interp.graph.setting.available", lambda _: 1000)
    monkeypatch.setattr("interp.graph.setting.SMALL", 0)
    with pytest.raises(BudgetError, match=r"17 nodes write for 4 prompts of 10 tokens, .* MiB"):
        _ = own.full


def test_a_run_of_other_weights_is_not_gone_on_from():
    model = interp.load(tiny.build("gpt2"), check=False)
    own = Setting.of(model, pairs(model))
    before = own.full
    with torch.no_grad():
        model.hf.transformer.h[1].mlp.c_fc.weight.mul_(2)
    with pytest.raises(GraphError, match="were written after this setting had run"):
        own.scores(own.graph.full[None])
    assert not torch.equal(Setting.of(model, own.prompts).full, before)


@pytest.mark.parametrize("ablation", ["resample", "zero", "mean"])
def test_some_of_the_prompts_are_a_setting_of_their_own(ablation):
    model = loaded()
    prompts = pairs(model)
    reference = prompts if ablation == "mean" else None
    own = Setting.of(model, prompts, ablation=ablation, reference=reference)
    parts = [own.only(rows) for rows in (slice(0, 3), slice(3, 4))]
    assert torch.allclose(torch.cat([one.empty for one in parts]), own.empty, atol=1e-6)
    assert torch.allclose(torch.cat([one.full for one in parts]), own.full, atol=1e-6)


@pytest.mark.parametrize("method", ["exact", "eap", "eap-ig", "atp*", "information-flow"])
def test_a_metric_that_raises_leaves_the_model_as_it_was(method):
    model = loaded()
    before, calls = state(model.hf), []

    def metric(logits, prompts):
        calls.append(len(prompts))
        if len(calls) > 1:
            raise ZeroDivisionError
        return logits[:, -1, 3]

    with pytest.raises(ZeroDivisionError):
        interp.attribute(model, pairs(model), "edges", method=method, metric=metric, batch=2)
    assert state(model.hf) == before
