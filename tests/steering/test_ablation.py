"""Ablations are the edits they say they are, and random sets stand beside them."""

import pytest
import torch

import interp
from interp.errors import MetricError, PromptError, ResultError, RunError, SiteError
from interp.patching.result import PatchResult
from interp.steering.ablation import ablate
from interp.steering.random_sets import random_ablation
from tests import tiny


@pytest.fixture(scope="module")
def model():
    return interp.load(tiny.shared("llama"), check=False)


@pytest.fixture(scope="module")
def prompts(model):
    return model.prompts(tiny.tokens(5, 7), answers=[5, 6, 7, 8, 9], foils=[15, 16, 17, 18, 19],
                         positions={"s": [2] * 5})  # fmt: skip


@pytest.fixture(scope="module")
def reference(model):
    return model.prompts(tiny.tokens(9, 7, seed=4), positions={"s": [3] * 9})


def scores(model, prompts, edit):
    run = model.run(prompts, edit=edit)
    return interp.metrics.evaluate("logit_diff", run.logits, prompts)


def test_zero_and_mean_equal_a_run_under_that_edit(model, prompts, reference):
    zero = ablate(model, prompts, "L1.H*.z", method="zero")
    mean = ablate(model, prompts, "L1.H*.z", reference=reference)
    z = model.run(reference, save="L1.z").cache["L1.z"].mean(0)
    for head in range(4):
        site = f"L1.H{head}.z"
        assert torch.allclose(zero.per_prompt[head], scores(model, prompts, {site: interp.Zero()}),
                              atol=1e-5)  # fmt: skip
        edit = {site: interp.Replace(z[:, head])}
        assert torch.allclose(mean.per_prompt[head], scores(model, prompts, edit), atol=1e-5)
    assert (zero.direction, mean.provenance.call["source"]) == ("noise", "mean")
    assert mean.provenance.call["reference"] == reference.hash


def test_resample_takes_another_prompts_value(model, prompts):
    result = ablate(model, prompts, "L0.resid_pre", positions="all", seed=3)
    # Each prompt reads as some other one of the five.
    run = model.run(prompts, logits="last").logits[:, 0]
    rows = torch.arange(5)
    table = run[:, prompts.answers[:, 0]] - run[:, prompts.foils[:, 0]]  # [donor, prompt]
    close = (table - result.per_prompt[None]).abs() < 1e-4
    assert bool(close.any(0).all())
    assert not bool(close[rows, rows].any())
    assert result.provenance.call["source"] == "resample"


def test_ablating_with_the_prompts_own_mean_is_said_by_passing_them(model, prompts):
    own = ablate(model, prompts, "L1.mlp_out@s", reference=prompts)
    value = model.run(prompts, save="L1.mlp_out@s").cache["L1.mlp_out@s"].mean(0)
    assert torch.allclose(
        own.per_prompt, scores(model, prompts, {"L1.mlp_out@s": interp.Replace(value)}), atol=1e-5
    )


def test_the_effect_is_the_change_of_the_metric(model, prompts):
    result = ablate(model, prompts, "L*.H*.z", method="zero")
    frame = result.to_frame()
    assert frame["effect"].tolist() == pytest.approx(
        (result.values - result.clean.mean()).flatten().tolist(), abs=1e-6
    )
    assert result.corrupted is None
    assert "normalized" not in frame
    figure = result.plot()
    words = [axes.get_ylabel() + axes.get_xlabel() + axes.get_title() for axes in figure.axes]
    assert any("change of logit_diff" in text.replace("\n", " ") for text in words)


def test_a_corrupted_side_is_left_alone(model, prompts):
    pairs = model.prompts(tiny.tokens(5, 7), tiny.tokens(5, 7, seed=9), answers=prompts.answers,
                          foils=prompts.foils)  # fmt: skip
    with_pair = ablate(model, pairs, "L1.mlp_out", method="zero", positions="all")
    alone = ablate(model, prompts, "L1.mlp_out", method="zero", positions="all")
    assert torch.equal(with_pair.per_prompt, alone.per_prompt)


def test_a_subset_of_one_length_is_not_padded(model):
    rows = [[5, 6, 7], [8, 9, 10], [11, 12, 13], [14, 15, 16, 17, 18]]
    for pad in ("right", "left"):
        batch = interp.TokenBatch.stack(rows, pad=pad)
        wide = model.prompts(batch, answers=[5, 6, 7, 8], foils=[9, 10, 11, 12],
                             positions={"s": [1] * 4}).subset([0, 1, 2])  # fmt: skip
        narrow = model.prompts(batch.ids[batch.mask][:9].view(3, 3),
                               answers=[5, 6, 7], foils=[9, 10, 11],
                               positions={"s": [1, 1, 1]})  # fmt: skip
        for site in ("L*.H*.z", "L1.mlp_out@s"):
            a, b = ablate(model, wide, site), ablate(model, narrow, site)
            assert torch.allclose(a.per_prompt, b.per_prompt, atol=1e-6)


def test_more_and_more_heads_in_a_list(model, prompts):
    names = ["L1.H0.z", "L1.H0.z + L2.H1.z", "L1.H0.z + L2.H1.z + L0.H3.z"]
    result = ablate(model, prompts, names, method="zero")
    assert result.axes[0].labels == tuple(names)
    edit = dict.fromkeys(names[2].split(" + "), interp.Zero())
    assert torch.allclose(result.per_prompt[2], scores(model, prompts, edit), atol=1e-5)


def test_both_engines_agree_and_resume_goes_on(model, prompts, tmp_path):
    first = ablate(model, prompts, "L*.H*.z")
    plain = ablate(model, prompts, "L*.H*.z", engine="plain")
    assert torch.allclose(first.per_prompt, plain.per_prompt, atol=1e-5)
    path = first.save(tmp_path / "a.safetensors")
    again = ablate(model, prompts, "L*.H*.z", resume=path)
    assert torch.equal(again.per_prompt, first.per_prompt)
    with pytest.raises(ResultError, match="resume= is another sweep"):
        ablate(model, prompts, "L*.H*.z", method="zero", resume=path)


def test_tokens_alone_are_scored_by_the_models_own_answer(model):
    ids = tiny.tokens(3, 6)
    result = ablate(model, ids, "L*.mlp_out", method="zero", positions="all")
    run = model.run(ids, logits="last").logits[:, 0].log_softmax(-1)
    assert result.metric == "log_prob"
    assert torch.allclose(result.clean, run.max(-1).values, atol=1e-5)
    assert (result.values < result.clean.mean()).all()  # the top answer can only lose


def test_text_alone_on_the_demo_model():
    model = interp.load("demo")
    text = "The capital of France is"
    result = ablate(model, text, "L*.mlp_out", method="zero", positions="all")
    assert result.answers == ("Paris",)
    assert float(result.values.min()) < float(result.clean.mean()) - 1


def test_random_sets_are_of_one_size_and_by_seed(model, prompts):
    null = random_ablation(model, prompts, "L1.H0.z + L2.H3.z", draws=7, method="zero", seed=2)
    assert isinstance(null, PatchResult)
    assert len(null.axes[0]) == 7
    assert all(label.count("+") == 1 for label in null.axes[0].labels)
    again = random_ablation(model, prompts, 2, draws=7, method="zero", seed=2)
    assert again.axes == null.axes
    other = random_ablation(model, prompts, 2, draws=7, method="zero", seed=3)
    assert other.axes != null.axes
    matched = random_ablation(
        model, prompts, "L1.H0.z + L1.H3.z", draws=5, same_layers=True, method="zero"
    )
    assert all(label.count("L1.") == 2 for label in matched.axes[0].labels)
    labels = random_ablation(model, prompts, 12, draws=2, method="zero").axes[0].labels
    assert len(set(labels[0].split(" + "))) == 12  # all there are, each once


def test_heads_that_do_the_task_stand_out_and_the_random_twin_has_none():
    model = interp.load("demo")
    prompts = interp.prompts.capitals(model, n=160, seed=0)
    with pytest.raises(RunError, match="differ in length"):
        ablate(model, prompts, "L*.H*.z")
    one = [i for i, group in enumerate(prompts.groups) if group == prompts.groups[0]]
    prompts = prompts.subset(one)
    sweep = ablate(model, prompts, "L*.H*.z")
    best = sweep.top(3)
    heads = " + ".join(f"L{layer}.H{head}.z" for layer, head in zip(best["layer"], best["head"],
                                                                    strict=True))  # fmt: skip
    three = ablate(model, prompts, heads)
    effect = float(three.values - three.clean.mean())
    assert effect < -5
    assert three.p_value(random_ablation(model, prompts, heads, draws=39)) <= 0.05
    twin = model.random_twin()
    calm = ablate(twin, prompts, "L*.H*.z")
    assert float((calm.values - calm.clean.mean()).abs().max()) < 0.05 * abs(effect)


def test_the_p_value_counts_as_far_or_farther(model, prompts):
    null = random_ablation(model, prompts, 1, draws=9, method="zero")
    effects = (null.values - null.clean.mean()).abs()
    site = null.axes[0].labels[int(effects.argmax())]
    one = ablate(model, prompts, site, method="zero")
    same = int((effects >= effects.max() - 1e-6).sum())
    assert one.p_value(null) == pytest.approx((1 + same) / 10)
    with pytest.raises(ResultError, match="one finished cell"):
        null.p_value(null)
    with pytest.raises(ResultError, match="another method"):
        ablate(model, prompts, site).p_value(null)
    with pytest.raises(ResultError, match="differ in metric"):
        ablate(model, prompts, site, method="zero", metric="prob").p_value(null)


@pytest.mark.bad_input
def test_what_is_refused(model, prompts, reference):
    with pytest.raises(RunError, match="a mean over what"):
        ablate(model, prompts, "L1.z", method="mean")
    with pytest.raises(RunError, match=r"uses no reference="):
        ablate(model, prompts, "L1.z", method="zero", reference=reference)
    with pytest.raises(RunError, match="nearest: 'mean'"):
        ablate(model, prompts, "L1.z", method="means")
    with pytest.raises(RunError, match="one prompt has no other"):
        ablate(model, tiny.tokens(1, 5), "L1.z")
    with pytest.raises(RunError, match="carry their own"):
        ablate(model, prompts, "L1.z", answers=[1])
    with pytest.raises(PromptError, match="foils and no answers"):
        ablate(model, tiny.tokens(2, 5), "L1.z", foils=[1, 2])
    with pytest.raises(MetricError, match="needs foils"):
        ablate(model, tiny.tokens(2, 5), "L1.z", metric="logit_diff")
    with pytest.raises(RunError, match="draws=0"):
        random_ablation(model, prompts, 2, draws=0)
    with pytest.raises(RunError, match="a number of sites"):
        random_ablation(model, prompts, 0)
    with pytest.raises(RunError, match="needs the group to match"):
        random_ablation(model, prompts, 2, same_layers=True)
    with pytest.raises(SiteError, match="the pool has 12 sites, and a set takes 13"):
        random_ablation(model, prompts, 13)
