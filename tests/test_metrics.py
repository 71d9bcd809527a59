from types import SimpleNamespace

import pytest
import torch

from interp.errors import GapError, MetricError
from interp.metrics import METRICS, Metric, bootstrap, evaluate, recovered, resolve, within
from interp.tokens import TokenBatch

LOGITS = torch.tensor([[1.0, 2.0, 3.0, 0.0], [0.0, 5.0, 5.0, -1.0]])
ANSWERS = torch.tensor([[2, -1], [1, 0]])
FOILS = torch.tensor([[0, 1], [3, -1]])


def prompts(answers=ANSWERS, foils=FOILS):
    """Two prompts of 3 tokens, the first padded on the right."""
    mask = torch.tensor([[True, True, False], [True, True, True]])
    clean = TokenBatch(torch.tensor([[1, 2, 0], [3, 0, 1]]), mask)
    corrupted = TokenBatch(torch.tensor([[1, 1, 0], [3, 3, 3]]), mask)

    class Pair(SimpleNamespace):
        def __len__(self):
            return 2

    return Pair(
        clean=clean,
        corrupted=corrupted,
        answers=answers,
        foils=foils,
        answer_column=clean.column(-1),
    )


def whole(last):
    """Logits over all columns which are ``last`` at each prompt's answer column."""
    logits = torch.zeros(2, 3, 4)
    logits[torch.arange(2), torch.tensor([1, 2])] = last
    return logits


def score(name, logits=LOGITS, **more):
    return resolve(name).score(logits, ANSWERS, FOILS, more.get("reference"))


def test_logit_diff_averages_each_set():
    assert score("logit_diff").tolist() == [3 - 1.5, 2.5 + 1]


def test_probabilities_add_over_a_set():
    p = LOGITS.softmax(-1)
    answers = torch.stack([p[0, 2], p[1, 1] + p[1, 0]])
    foils = torch.stack([p[0, 0] + p[0, 1], p[1, 3]])
    torch.testing.assert_close(score("prob"), answers)
    torch.testing.assert_close(score("log_prob"), answers.log())
    torch.testing.assert_close(score("prob_diff"), answers - foils)


def test_rank_and_accuracy_count_ties_against_the_answer():
    assert score("rank").tolist() == [0, 1]
    assert score("accuracy").tolist() == [1, 0]


def test_answers_do_not_compete_with_each_other():
    tied = torch.tensor([[5.0, 5.0, 1.0, 0.0]])
    assert METRICS["rank"].score(tied, torch.tensor([[0, 1]])).tolist() == [0]


def test_diff_accuracy_is_strict():
    tie = LOGITS.clone()
    tie[0] = 0
    assert score("diff_accuracy", tie).tolist() == [0, 1]


def test_kl_in_nats_and_zero_for_the_reference_itself():
    reference = torch.tensor([[0.0, 0.0]]).log_softmax(-1)
    run = torch.tensor([[0.75, 0.25]]).log()
    expected = 0.5 * torch.tensor([0.5 / 0.75]).log() + 0.5 * torch.tensor([0.5 / 0.25]).log()
    kl = METRICS["kl"]
    torch.testing.assert_close(kl.score(run, None, None, reference), expected)
    assert kl.score(run, None, None, run).item() == pytest.approx(0, abs=1e-6)


def test_kl_ignores_what_the_reference_excludes():
    masked = torch.tensor([[0.0, 0.0, -torch.inf]])
    assert METRICS["kl"].score(masked, None, None, masked).item() == pytest.approx(0, abs=1e-6)


def test_nll_counts_real_next_tokens_only():
    pair = prompts()
    logits = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    logits[0, 2] = torch.nan  # padding: nobody's prediction
    logp = logits.log_softmax(-1)
    expected = torch.stack([-logp[0, 0, 2], -(logp[1, 0, 0] + logp[1, 1, 1]) / 2])
    torch.testing.assert_close(evaluate("nll", logits, pair), expected)
    other = torch.stack([-logp[0, 0, 1], -(logp[1, 0, 3] + logp[1, 1, 3]) / 2])
    torch.testing.assert_close(evaluate("nll", logits, pair, side="corrupted"), other)


@pytest.mark.parametrize("name", METRICS)
def test_cells_are_scored_as_one_by_one(name):
    metric, pair = METRICS[name], prompts()
    cells = torch.randn(2, 3, 2, 3, 4, generator=torch.Generator().manual_seed(1))
    reference = cells[0, 0]
    stacked = evaluate(metric, cells, pair, reference=reference)
    assert stacked.shape == (2, 3, 2)
    one = evaluate(metric, cells[1, 2], pair, reference=reference)
    torch.testing.assert_close(stacked[1, 2], one)


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_scores_are_float32_or_better(name, dtype):
    scores = evaluate(name, whole(LOGITS).to(dtype), prompts(), reference=whole(LOGITS).to(dtype))
    assert scores.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


@pytest.mark.parametrize("name", ["logit_diff", "diff_accuracy"])
def test_named_columns_suffice(name):
    metric = METRICS[name]
    answers, foils = torch.tensor([[2, -1], [2, 3]]), torch.tensor([[0], [0]])
    columns = metric.columns(answers, foils)
    assert columns.tolist() == [0, 2, 3]
    part = metric.score(LOGITS[:, columns], within(answers, columns), within(foils, columns))
    assert part.tolist() == metric.score(LOGITS, answers, foils).tolist()


@pytest.mark.parametrize("name", ["prob", "kl", "rank", "nll"])
def test_other_metrics_need_the_whole_vocabulary(name):
    assert METRICS[name].columns(ANSWERS, FOILS) is None


def test_evaluate_reads_the_last_real_column():
    torch.testing.assert_close(
        evaluate("logit_diff", whole(LOGITS), prompts()), score("logit_diff")
    )


def test_gradients_flow():
    logits = whole(LOGITS).requires_grad_()
    evaluate("logit_diff", logits, prompts()).sum().backward()
    assert logits.grad[0, 1].tolist() == [-0.5, -0.5, 1, 0]


# --- callables


def test_a_callable_is_a_metric_on_full_logits():
    def top(logits, pair):
        assert logits.shape == (2, 3, 4)
        return logits[:, -1].max(-1).values

    metric = resolve(top)
    assert (metric.name, metric.positions, metric.stacks) == ("top", "all", False)
    assert evaluate(top, whole(LOGITS), prompts()).tolist() == [0, 5]


@pytest.mark.parametrize(
    ("result", "given"),
    [(torch.tensor(1.0), r"\[\]"), (torch.ones(2, 1), r"\[2, 1\]"), (1.0, "float")],
)
def test_a_callable_must_score_every_prompt(result, given):
    with pytest.raises(MetricError, match=rf"returned {given}, expected a tensor \[2\]"):
        evaluate(lambda *_: result, whole(LOGITS), prompts())


# --- bad input


@pytest.mark.bad_input
def test_unknown_metric_names_the_nearest():
    with pytest.raises(MetricError, match=r"no metric is called 'logit_dif'; .*'logit_diff'"):
        resolve("logit_dif")
    with pytest.raises(MetricError, match="a metric cannot be a int"):
        resolve(3)
    assert isinstance(resolve("prob"), Metric)
    assert resolve(METRICS["prob"]) is METRICS["prob"]


def test_missing_needs_are_named():
    with pytest.raises(MetricError, match="'logit_diff' needs foils, but these prompts have none"):
        evaluate("logit_diff", whole(LOGITS), prompts(foils=None))
    with pytest.raises(MetricError, match="'prob' needs answers"):
        evaluate("prob", whole(LOGITS), prompts(answers=None))
    with pytest.raises(MetricError, match="'kl' compares with the clean run"):
        evaluate("kl", whole(LOGITS), prompts())


@pytest.mark.parametrize("name", METRICS)
def test_nan_names_the_prompt(name):
    logits = whole(LOGITS)
    logits[1, :, 3] = torch.nan
    with pytest.raises(MetricError, match="logits of prompt 1 contain NaN"):
        evaluate(name, logits, prompts(), reference=whole(LOGITS))


# --- recovered


def test_recovered_is_0_at_corrupt_1_at_clean_and_never_clipped():
    clean, corrupt = torch.tensor([4.0, 4.0]), torch.zeros(2)
    patched = torch.tensor([[0.0, 0.0], [4.0, 4.0], [1.0, 3.0], [6.0, 6.0]])
    assert recovered(patched, clean, corrupt).tolist() == [0, 1, 0.5, 1.5]


def test_batch_is_averaged_before_dividing():
    clean, corrupt = torch.tensor([4.0, 2.0]), torch.tensor([0.0, 1.9])
    patched = torch.tensor([[0.0, 2.0]])  # helps only the prompt whose gap is tiny
    assert recovered(patched, clean, corrupt).item() == pytest.approx(0.1 / 4.1)


def test_no_gap_is_refused():
    with pytest.raises(GapError, match=r"differ by only 0 on average .* do not isolate"):
        recovered(torch.ones(1, 2), torch.ones(2), torch.ones(2))


# --- bootstrap


def test_bootstrap_brackets_the_mean_and_repeats():
    values = torch.randn(3, 40, generator=torch.Generator().manual_seed(0)) + 2
    first, again = bootstrap(values, seed=7), bootstrap(values, seed=7)
    assert torch.equal(first.low, again.low)
    assert first.mean.shape == first.low.shape == (3,)
    assert ((first.low < first.mean) & (first.mean < first.high)).all()
    spread = values.std(-1) / 40**0.5
    torch.testing.assert_close(first.high - first.low, 2 * 1.96 * spread, rtol=0.15, atol=0)


def test_bootstrap_widens_with_the_level():
    values = torch.arange(10.0)
    narrow, wide = bootstrap(values, level=0.5), bootstrap(values, level=0.99)
    assert wide.low < narrow.low < narrow.high < wide.high
    assert str(bootstrap(torch.ones(5))) == "1 [1, 1]"


def test_one_prompt_has_no_interval():
    one = bootstrap(torch.tensor([[3.0]]))
    assert one.mean.tolist() == [3]
    assert one.low.isnan().all()
    assert one.high.isnan().all()


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        (torch.tensor(1.0), {}, r"shape \[\], expected \[\*cells, prompt\]"),
        (torch.ones(3), {"level": 95}, "level=95, n=1000, expected 0 < level < 1"),
    ],
)
@pytest.mark.bad_input
def test_bootstrap_refuses(values, options, message):
    with pytest.raises(MetricError, match=message):
        bootstrap(values, **options)
