"""What a trace promises: one noise for all cells, honest windows and roles, clear refusals."""

from __future__ import annotations

import pytest
import torch

import interp
from interp.errors import BudgetError, PromptError, ResultError, RunError
from interp.patching import run as patching_run
from interp.tracing.cells import columns_of, default_window, lay_out_trace
from interp.tracing.result import TraceResult
from interp.tracing.roles import ROLES, mean_by_role, roles
from interp.tracing.subject import embedding_noise
from interp.tracing.verb import trace
from tests import tiny

FAMILIES = ("gpt2", "gpt_neox", "gemma2", "granite", "bloom", "gptj")
OPTIONS = {"std": 0.5, "samples": 2, "seed": 1}


def model_of(family="gpt2"):
    return interp.load(tiny.shared(family), check=False)


def prompts_of(model, pad="right"):
    rows = [tiny.tokens(1, n, seed=n)[0].tolist() for n in (6, 9, 7)]
    return model.prompts(interp.TokenBatch.stack(rows, pad=pad))


SPANS = [(1, 1), (2, 5), (3, 4)]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("pad", ["right", "left"])
def test_the_engine_equals_one_forward_pass_for_each_cell(family, pad):
    model = model_of(family)
    prompts = prompts_of(model, pad)
    options = {**OPTIONS, "subject": SPANS, "sever": ("mlp", "attn"), "window": 2}
    fast = trace(model, prompts, engine="replay", **options)
    plain = trace(model, prompts, engine="plain", **options)
    assert torch.equal(fast.per_sample.isnan(), plain.per_sample.isnan())
    assert torch.allclose(fast.per_sample.nan_to_num(), plain.per_sample.nan_to_num(), atol=2e-6)
    assert fast.work["block_positions"] < 0.7 * plain.work["block_positions"]


def test_a_prompt_is_traced_the_same_alone_and_in_any_batch():
    model = model_of()
    prompts = prompts_of(model)
    whole = trace(model, prompts, subject=SPANS, **OPTIONS)
    small = trace(model, prompts, subject=SPANS, batch=2, **OPTIONS)
    alone = trace(model, prompts.subset([1]), subject=SPANS[1], **OPTIONS)
    assert torch.allclose(small.per_sample.nan_to_num(), whole.per_sample.nan_to_num(), atol=1e-6)
    own = whole.per_sample[..., 1, :].nan_to_num()
    assert torch.allclose(alone.per_sample[..., 0, :], own, atol=1e-6)
    other = trace(model, prompts, subject=SPANS, **{**OPTIONS, "seed": 2})
    assert not torch.allclose(other.corrupted, whole.corrupted, atol=1e-6)


def test_padding_side_does_not_matter():
    model = model_of("llama")
    right = trace(model, prompts_of(model, "right"), subject=SPANS, **OPTIONS)
    left = trace(model, prompts_of(model, "left"), subject=SPANS, **OPTIONS)
    assert torch.allclose(left.per_sample.nan_to_num(), right.per_sample.nan_to_num(), atol=2e-6)


def test_noise_stands_at_the_subject_and_nowhere_else():
    model = model_of()
    prompts = prompts_of(model)
    span = torch.tensor(SPANS)
    edit = embedding_noise(model, prompts, span, std=2.0, samples=400, seed=0)
    noise = edit.value.view(3, 400, 9, -1)
    for row, (first, last) in enumerate(SPANS):
        assert noise[row, :, first : last + 1].std() == pytest.approx(2.0, rel=0.02)
        outside = [i for i in range(9) if not first <= i <= last]
        assert not noise[row, :, outside].any()


def test_the_noise_is_a_multiple_of_the_spread_of_subject_embeddings():
    model = model_of()
    prompts = prompts_of(model)
    table = tiny.shared("gpt2").get_input_embeddings().weight.detach()
    ids = torch.cat([prompts.clean.ids[i, a : b + 1] for i, (a, b) in enumerate(SPANS)])
    result = trace(model, prompts, subject=SPANS, noise=3.0, samples=2)
    assert result.std == pytest.approx(3 * float(table[ids].std()), rel=1e-5)


def test_windows_are_the_papers():
    anatomy = model_of().anatomy
    n = anatomy.n_layers
    where = columns_of(torch.tensor([0]), torch.tensor([3]))
    grid = lay_out_trace(anatomy, where, list("abcd"), kinds=["mlp"], sever=(), window=3)
    for layer in range(n):
        low, high = max(0, layer - 3 // 2), min(n, layer - (-3 // 2))
        assert [spot.layer for spot in grid.cells[4 * layer]] == list(range(low, high))
    assert (default_window(48), default_window(28), default_window(4)) == (10, 6, 1)


def test_roles_are_those_of_the_papers_figure():
    members = roles(torch.tensor([[1, 3], [2, 2], [0, 1]]), torch.tensor([8, 4, 2]), 8)
    shown = {
        name: [m.nonzero().flatten().tolist() for m in rows]
        for name, rows in zip(ROLES, members, strict=True)
    }
    assert shown["first subject token"] == [[1], [2], [0]]
    assert shown["middle subject tokens"] == [[2], [], []]
    assert shown["last subject token"] == [[3], [2], [1]]
    assert shown["first subsequent token"] == [[4], [3], []]
    assert shown["further tokens"] == [[5, 6], [], []]
    assert shown["last token"] == [[7], [3], [1]]
    values = torch.arange(8.0)[None, None, :, None].expand(1, 1, 8, 3)
    means = mean_by_role(values, members)[0, 0]
    assert means[4, 0] == 5.5
    assert means[1, 1:].isnan().all()
    holes = values.clone()
    holes[0, 0, 5, 0] = torch.nan  # a cell that was not run
    assert mean_by_role(holes, members)[0, 0, 4, 0].isnan()


def test_by_role_averages_what_the_tokens_have():
    model = model_of()
    result = trace(model, prompts_of(model), subject=SPANS, **OPTIONS)
    role = result.by_role()
    assert role.axes[-1].labels == ROLES
    middle = role.select(kind="mlp", layer=1, position="middle subject tokens").per_prompt
    own = result.select(kind="mlp", layer=1).per_prompt[:, 1]
    assert middle[1] == pytest.approx(float(own[3:5].mean()))
    assert middle[[0, 2]].isnan().all()
    frame = role.to_frame()
    assert set(frame[frame.position == "middle subject tokens"].prompts) == {1}
    assert role.by_role() is role


def test_the_fraction_restored_is_hases():
    model = model_of()
    result = trace(model, prompts_of(model), subject=SPANS, **OPTIONS)
    share = result.fraction_restored("mlp")
    own, low = result.select(kind="mlp").per_prompt, result.corrupted.mean(-1)
    for layer in range(model.n_layers):
        for row, n in enumerate((6, 9, 7)):
            gains = own[layer, :n, row] - low[row]
            truth = (gains / (low[row] - result.clean[row]).abs()).clamp(min=0).max()
            assert share[layer, row] == pytest.approx(float(truth), rel=1e-5)
    last = result.fraction_restored("mlp", role="last subject token")
    for row, (_, end) in enumerate(SPANS):
        gain = (own[:, end, row] - low[row]) / (low[row] - result.clean[row]).abs()
        assert torch.allclose(last[:, row], gain.clamp(min=0), atol=1e-6)


@pytest.mark.parametrize("engine", ["replay", "plain"])
def test_ctrl_c_keeps_what_is_finished_and_resume_goes_on(monkeypatch, tmp_path, engine):
    model = model_of()
    call = {"subject": SPANS, "engine": engine, **OPTIONS}
    whole = trace(model, prompts_of(model), **call)

    class Bar(patching_run.Bar):
        passed = 0

        def advance(self, more=1):
            self.passed += more
            if self.passed >= 20:
                monkeypatch.undo()
                raise KeyboardInterrupt

    monkeypatch.setattr(patching_run, "Bar", Bar)
    with pytest.warns(UserWarning, match=r"interrupted: \d+ of \d+ cells are finished"):
        part = trace(model, prompts_of(model), **call)
    assert 0 < int(part.done.sum()) < part.done.numel()
    file = part.save(tmp_path / "part.safetensors")
    ended = trace(model, prompts_of(model), resume=file, **call)
    assert bool(ended.done.all())
    assert torch.allclose(ended.per_sample.nan_to_num(), whole.per_sample.nan_to_num(), atol=1e-7)
    assert torch.equal(ended.per_sample.isnan(), whole.per_sample.isnan())
    with pytest.raises(ResultError, match="its std is"):
        trace(model, prompts_of(model), resume=part, **{**call, "std": 0.6})


def test_a_saved_trace_reads_back(tmp_path):
    model = model_of()
    result = trace(model, prompts_of(model), subject=SPANS, sever="mlp", **OPTIONS)
    again = TraceResult.load(result.save(tmp_path / "trace.safetensors"))
    assert torch.equal(again.per_sample.nan_to_num(), result.per_sample.nan_to_num())
    assert {n: v for n, v in vars(again).items() if not isinstance(v, torch.Tensor)} == {
        n: v for n, v in vars(result).items() if not isinstance(v, torch.Tensor)
    }
    assert repr(again) == repr(result)


def test_any_metric_can_be_traced():
    model = model_of()
    prompts = prompts_of(model)

    def second(logits, prompts):
        return logits[torch.arange(len(logits)), prompts.answer_column].topk(2).values[:, 1]

    for metric in ("log_prob", "rank", "kl", second):
        fast = trace(model, prompts, subject=SPANS, metric=metric, **OPTIONS)
        plain = trace(model, prompts, subject=SPANS, metric=metric, engine="plain", **OPTIONS)
        assert torch.allclose(fast.values, plain.values, atol=1e-4)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"subject": None}, PromptError, "do not say where their subject begins and ends"),
        ({"subject": [(1, 1)]}, PromptError, "names 1 subjects for 3 prompts"),
        ({"subject": (4, 9)}, PromptError, "lies outside prompt 0, which has 6 tokens"),
        ({"subject": "France"}, PromptError, "these prompts came as tokens"),
        ({"subject": [1, 2, 3]}, PromptError, "expected text, or its positions"),
        ({"subject": 3}, PromptError, "subject=3; expected text, its positions"),
        ({"subject": [("a", "b"), (1, 2), (1, 2)]}, PromptError, "of prompt 0; expected text"),
        ({"samples": 0}, RunError, "expected a positive number of draws"),
        ({"std": -1.0}, RunError, "expected a positive number"),
        ({"std": None, "noise": 0}, RunError, "noise=0; expected a positive number"),
        ({"window": 0}, RunError, "expected a positive number of layers"),
        ({"kinds": ("states", "head")}, RunError, "expected some of states, mlp, attn"),
        ({"kinds": ()}, RunError, "kinds is empty"),
        ({"kinds": ("mlp",), "sever": "mlp"}, RunError, "add 'states' to kinds"),
        ({"sever": "head"}, RunError, "sever=\\['head'\\]; expected some of mlp, attn"),
        ({"subjects": "France"}, RunError, "expected a list of names"),
        ({"engine": "fast"}, RunError, "expected 'auto', 'replay' or 'plain'"),
    ],
)
def test_what_cannot_be_traced_is_refused_with_the_reason(options, error, text):
    model = model_of()
    given = {"subject": SPANS, **OPTIONS, **options}
    if "subjects" in options:
        given["std"] = None
    with pytest.raises(error, match=text):
        trace(model, prompts_of(model), **given)


def test_what_does_not_fit_in_memory_is_refused_before_it_runs(monkeypatch):
    from interp.tracing import verb

    model = model_of()
    monkeypatch.setattr(verb, "available", lambda device: 150_000)
    with pytest.raises(BudgetError, match=r"tracing 3 prompts × 10 draws .* trace at most 1 at a"):
        trace(model, prompts_of(model), subject=SPANS)
    trace(model, prompts_of(model), subject=SPANS, samples=1)  # this does


def test_text_names_its_subject(bpe_tokenizer):
    hf = tiny.build("gpt2", vocab_size=len(bpe_tokenizer))
    model = interp.load(hf, tokenizer=bpe_tokenizer)
    text = "The capital of Ivory Coast is"
    result = trace(model, text, subject="Ivory Coast", samples=2)
    columns = model.tokens.span_columns(text, (15, 26))
    assert len(columns) > 2
    assert result.subject.tolist() == [[columns[0], columns[-1]]]
    assert result.n_real.item() == model.to_tokens(text).shape[1]
    with pytest.raises(PromptError, match="occurs 0 times in prompt 0"):
        trace(model, text, subject="Peru")
    with pytest.raises(RunError, match="carry their own"):
        trace(model, model.prompts(text), subject="Ivory Coast", answers=" Paris")


def test_prompts_the_model_does_not_know_are_left_out_or_refused():
    model = model_of()
    ids = prompts_of(model).clean
    top = model.run(ids, logits="last").logits[:, 0].argmax(-1)
    wrong = top.clone()
    wrong[1] = (top[1] + 1) % 50
    prompts = interp.Prompts(ids, answers=wrong[:, None])
    with pytest.warns(UserWarning, match="1 of 3 prompts are left out"):
        result = trace(model, prompts, subject=SPANS, **OPTIONS)
    assert result.subject.tolist() == [list(SPANS[0]), list(SPANS[2])]
    kept = trace(model, prompts, subject=SPANS, only_known=False, **OPTIONS)
    assert len(kept.clean) == 3
    with pytest.raises(PromptError, match="answers none of these 3 prompts"):
        trace(
            model, interp.Prompts(ids, answers=((top + 1) % 50)[:, None]), subject=SPANS, **OPTIONS
        )
