"""Projections by hand, planted directions that come back, random ones and complements that keep nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import interp
from interp.errors import ModelError, PromptError, ResultError, RunError
from interp.pipelines import LowRank, head_subspaces, low_rank
from interp.pipelines.labels import against_all
from tests import tiny
from tests.pipelines.planted_letters import LOGIT, WRITER, directions, planted, questions

HEADS = (
    (1, 0),
    (1, 1),
    (2, 3),
)  # the first two share their keys and values where queries are grouped


@pytest.fixture(scope="module")
def model():
    return interp.load("demo")


@pytest.fixture(scope="module")
def asked(model):
    return interp.prompts.mcq(model, n=8, seed=1)


@pytest.fixture(scope="module")
def subspaces(model):
    fit = interp.prompts.mcq(model, n=24, seed=1001)
    return head_subspaces(model, fit, [(2, 3), (2, 5), (3, 4)])


@pytest.fixture(scope="module")
def kept(model, asked, subspaces):
    return low_rank(model, asked, subspaces, ranks=(3, 32), parts=("k", "qkv"), draws=1)


@pytest.fixture(scope="module")
def recovered():
    """The planted writer in few dimensions, one mean for all labels."""
    fitted = head_subspaces(planted(), questions(40), [WRITER], centre="all", behind=0)
    parts = ("q", "k", "v", "qk", "qkv")
    return low_rank(planted(), questions(30, seed=1), fitted, ranks=(2, 3), parts=parts, draws=4)


def random_questions(n, *, seed=0):
    """Random tokens in the layout of the planted model's prompts, labelled 3, 4, 5, 6."""
    drawn = questions(n, seed=seed)
    ids = tiny.tokens(n, drawn.clean.ids.shape[1], seed=seed)
    for i, label in enumerate("ABCD"):
        ids[:, drawn.positions[label][0]] = 3 + i
    return replace(
        drawn, clean=interp.TokenBatch.of(ids), answers=drawn.answers + 3, foils=drawn.foils + 3
    )


def score(model, asked, edit=None):
    logits = model.run(asked, edit=edit, logits="last").logits[:, 0]
    return logits.gather(1, asked.answers)[:, 0] - logits.gather(1, asked.foils).mean(1)


def by_hand(model, asked, subspaces, part, rank):
    """The score with q, k and v written out position by position, and z put in layer by layer."""
    labels = [c + b for c in (4, 8, 12, 16) for b in range(subspaces.behind + 1)]
    end, outputs = asked.clean.ids.shape[1] - 1, {}
    for layer in sorted({layer for layer, _ in subspaces.heads}):
        own = model.run(asked, save=[f"L{layer}.{p}" for p in "qkv"], edit=outputs).cache
        mine = [head for head in subspaces.heads if head[0] == layer]
        edit = dict(outputs)
        for letter in part:
            x = own[f"L{layer}.{letter}"].clone()
            clean = x.clone()
            for head in mine:
                group = model.n_heads // model.n_kv_heads
                index = head[1] if letter == "q" else head[1] // group
                mean = subspaces.mean[head, letter]
                basis = subspaces.basis[head, letter][:rank]
                for place, column in enumerate([end] if letter == "q" else labels):
                    mu = mean[place] if len(mean) > 1 else mean[0]
                    away = clean[:, column, index] - mu
                    x[:, column, index] = mu + sum((torch.outer(away @ b, b) for b in basis), 0)
            edit[f"L{layer}.{letter}"] = interp.Replace(x)
        z = model.run(asked, save=[f"L{layer}.z"], edit=edit).cache[f"L{layer}.z"]
        outputs[f"L{layer}.z"] = _ends(z, [head for _, head in mine])
    return score(model, asked, outputs)


def _ends(z, heads):
    def put(x):
        x = x.clone()
        x[:, -1, heads] = z[:, -1, heads]
        return x

    return put


# -- exactness


@pytest.mark.parametrize(("family", "centre"), [("llama", "label"), ("gpt2", "all")])
def test_the_score_is_that_of_projections_by_hand(family, centre):
    model, asked = interp.load(tiny.shared(family)), random_questions(5)
    fitted = head_subspaces(model, random_questions(8, seed=1), HEADS, centre=centre)
    found = low_rank(model, asked, fitted, ranks=(2,), parts=("q", "kv", "qkv"), draws=0)
    centred = against_all(asked)
    assert torch.allclose(found.clean, score(model, centred), atol=1e-5)
    for row, part in enumerate(("q", "kv", "qkv")):
        for column, rank in enumerate((0, 2)):
            expected = by_hand(model, centred, fitted, part, rank)
            assert torch.allclose(found.per_prompt[row, column], expected, atol=1e-4)
            assert (expected - found.clean).abs().max() > 1e-3
    assert found.random.shape == (3, 1, 0)


def test_means_are_those_of_each_place_or_of_all():
    model, asked = interp.load(tiny.shared("gpt2")), random_questions(8)
    keys = model.run(asked, save=["L1.k"], logits="none").cache["L1.k"][:, :, 2]
    where = [4, 5, 8, 9, 12, 13, 16, 17]
    each = head_subspaces(model, asked, [(1, 2)], centre="label")
    one = head_subspaces(model, asked, [(1, 2)], centre="all")
    assert torch.allclose(each.mean[(1, 2), "k"], keys[:, where].mean(0), atol=1e-6)
    assert torch.allclose(one.mean[(1, 2), "k"], keys[:, where].mean((0, 1))[None], atol=1e-6)
    assert torch.equal(each.mean[(1, 2), "q"], one.mean[(1, 2), "q"])  # one place, one mean
    fewer = head_subspaces(model, asked, [(1, 2)], behind=0)
    assert torch.allclose(fewer.mean[(1, 2), "k"], keys[:, [4, 8, 12, 16]].mean(0), atol=1e-6)


def test_directions_are_the_singular_vectors_and_their_shares():
    model, asked = interp.load(tiny.shared("gpt2")), random_questions(8)
    fitted = head_subspaces(model, asked, [(1, 2)], centre="all", behind=0)
    values = model.run(asked, save=["L1.v"], logits="none").cache["L1.v"][:, [4, 8, 12, 16], 2]
    _, s, vh = torch.linalg.svd((values - values.mean((0, 1))).flatten(0, 1), full_matrices=False)
    basis = fitted.basis[(1, 2), "v"]
    assert torch.allclose(basis @ basis.T, torch.eye(8), atol=1e-5)
    assert torch.allclose((basis * vh).sum(-1).abs(), torch.ones(8), atol=1e-3)  # up to their sign
    assert torch.allclose(fitted.variance[(1, 2), "v"], s**2 / (s**2).sum(), atol=1e-5)
    assert repr(fitted) == "HeadSubspaces(L1.H2; centre 'all')"


def test_what_does_not_vary_has_no_share_of_variance(model, asked):
    fitted = head_subspaces(model, asked, [(0, 3)])
    for part in "qkv":  # tokens at labels and at the end are alike, and block 0 reads no others
        assert fitted.variance[(0, 3), part].isnan().all()
        basis = fitted.basis[(0, 3), part]
        assert torch.allclose(basis @ basis.T, torch.eye(model.d_head), atol=1e-5)
    told_apart = head_subspaces(model, asked, [(0, 3)], centre="all")
    assert float(told_apart.variance[(0, 3), "k"].sum()) == pytest.approx(1.0, abs=1e-5)


# -- identity


def test_all_directions_keep_all_and_the_complement_of_all_is_the_mean(kept):
    for row, part in enumerate(("k", "qkv")):
        assert torch.allclose(kept.per_prompt[row, 2], kept.clean, atol=1e-4)
        assert kept.share(part, 32) == pytest.approx(1.0, abs=1e-5)
        assert kept.random_shares(part, 32) == pytest.approx([1.0], abs=1e-5)
        assert kept.complement_share(part, 32) == pytest.approx(0.0, abs=1e-5)
        assert kept.share(part, 0) == 0.0
        assert kept.complement_share(part, 0) == 1.0
        assert kept.random_shares(part, 0) == []


def test_on_the_demo_model_three_directions_beat_random_ones_and_the_complement(kept):
    assert kept.share("qkv", 3) > 0.8
    assert max(kept.random_shares("qkv", 3)) < 0.3
    assert kept.complement_share("qkv", 3) < 0.3


# -- planted directions


@pytest.mark.parametrize(("part", "rank"), [("q", 2), ("k", 2), ("v", 3)])
def test_planted_directions_come_back(part, rank):
    fitted = head_subspaces(planted(), questions(40), [WRITER], centre="all", behind=0)
    truth, basis = directions(part), fitted.basis[WRITER, part][:rank]
    if part == "v":  # four labels alike often, less their mean
        truth = torch.linalg.svd(truth - truth.mean(0)).Vh[:3]
    assert torch.allclose(basis.T @ basis, truth.T @ truth, atol=1e-4)
    assert float(fitted.variance[WRITER, part][:rank].sum()) == pytest.approx(1.0, abs=1e-5)
    assert float(fitted.variance[WRITER, part][rank - 1]) > 0.1


@pytest.mark.parametrize(("part", "rank"), [("q", 2), ("k", 2), ("v", 3), ("qk", 2), ("qkv", 3)])
def test_planted_directions_keep_all_their_complement_and_random_ones_do_not(recovered, part, rank):
    assert float(recovered.clean.mean()) == pytest.approx(LOGIT, abs=1e-3)
    assert recovered.share(part, rank) == pytest.approx(1.0, abs=1e-5)
    assert recovered.complement_share(part, rank) == pytest.approx(0.0, abs=1e-5)
    assert max(recovered.random_shares(part, rank)) < 0.7
    assert sum(recovered.random_shares("qkv", rank)) / 4 < 0.1


def test_two_directions_are_too_few_for_the_values_of_four_labels(recovered):
    assert recovered.share("v", 2) < 0.8
    assert recovered.share("qkv", 2) == pytest.approx(recovered.share("v", 2), abs=1e-5)


def test_where_each_label_has_its_mean_values_have_nothing_left_to_keep():
    fitted = head_subspaces(planted(), questions(40), [WRITER], centre="label", behind=0)
    found = low_rank(
        planted(), questions(30, seed=1), fitted, ranks=(1, 2), parts=("v", "qkv"), draws=1
    )
    assert torch.allclose(found.per_prompt[0], found.clean.expand(3, -1), atol=1e-4)
    shares = [found.share("v", 1), found.complement_share("v", 0), *found.random_shares("v", 1)]
    assert torch.tensor(shares).isnan().all()
    assert found.share("qkv", 2) == pytest.approx(1.0, abs=1e-5)


# -- seeds, tables, files


def test_the_seed_draws_the_random_subspaces_alone():
    fitted = head_subspaces(planted(), questions(20), [WRITER], centre="all", behind=0)
    first, again, other = (
        low_rank(planted(), questions(8), fitted, ranks=(1,), parts=("qk",), draws=2, seed=seed)
        for seed in (0, 0, 1)
    )
    assert torch.equal(first.random, again.random)
    assert not torch.equal(first.random, other.random)
    assert float(first.random[0, 0, 0]) != float(first.random[0, 0, 1])
    assert torch.equal(first.per_prompt, other.per_prompt)


def test_tables_say_what_the_methods_do(recovered):
    frame = recovered.to_frame()
    assert list(zip(frame["part"], frame["rank"], strict=True)) == [
        (part, rank) for part in ("q", "k", "v", "qk", "qkv") for rank in (0, 2, 3)
    ]
    row = frame[(frame["part"] == "k") & (frame["rank"] == 3)].iloc[0]
    draws = recovered.random_shares("k", 3)
    assert row["share"] == recovered.share("k", 3)
    assert row["complement"] == recovered.complement_share("k", 3)
    assert row["score"] == pytest.approx(float(recovered.per_prompt[1, 2].mean()))
    assert [row["random_low"], row["random_high"]] == [min(draws), max(draws)]
    assert row["random"] == pytest.approx(sum(draws) / 4)
    assert frame["random"].isna().tolist() == [True, False, False] * 5
    assert "q, k, v, qk, qkv; ranks 0, 2, 3; 30 prompts, clean 10 logits" in repr(recovered)
    legend = recovered.plot().axes[0].get_legend_handles_labels()[1]
    assert legend == ["q", "k", "v", "qk", "qkv", "random subspace, qkv"]


def test_saved_shares_are_those_loaded(kept, tmp_path):
    again = LowRank.load(kept.save(tmp_path / "low.safetensors"))
    assert again.to_frame().equals(kept.to_frame())
    assert again.axes == kept.axes
    assert torch.equal(again.per_prompt, kept.per_prompt)
    call = again.provenance.call
    assert call["verb"] == "low_rank"
    assert [tuple(head) for head in call["heads"]] == [(2, 3), (2, 5), (3, 4)]
    assert [*call["ranks"]] == [3, 32]


# -- what cannot be asked


@pytest.mark.bad_input
def test_what_cannot_be_fitted_is_said(model, asked):
    for heads in ([(4, 0)], [(0, 6)], [(-1, 0)], [], [(0, 0), (0, 0)]):
        with pytest.raises(ModelError, match=r"expected different heads.*4 layers with 6 heads"):
            head_subspaces(model, asked, heads)
    with pytest.raises(RunError, match="centre='lable'; expected 'label' or 'all'"):
        head_subspaces(model, asked, [(0, 0)], centre="lable")
    with pytest.raises(RunError, match="behind=-1; expected how many tokens"):
        head_subspaces(model, asked, [(0, 0)], behind=-1)
    with pytest.raises(PromptError, match="expected labelled options"):
        head_subspaces(model, interp.prompts.ioi(model, n=4), [(0, 0)])


def test_what_cannot_be_projected_is_said(model, asked, subspaces, kept):
    for parts in (("qz",), ("",), ()):
        with pytest.raises(RunError, match=r"parts=\[.*\]; expected letters of 'qkv'"):
            low_rank(model, asked, subspaces, parts=parts)
    for ranks in ((), (0,), (3, 33)):
        with pytest.raises(RunError, match=r"ranks=\[.*\]; expected 1 to 32, the head's width"):
            low_rank(model, asked, subspaces, ranks=ranks)
    with pytest.raises(RunError, match="fitted at 8 places and these prompts have 6"):
        low_rank(model, interp.prompts.mcq(model, n=4, options=3), subspaces)
    with pytest.raises(PromptError, match="expected labelled options"):
        low_rank(model, interp.prompts.ioi(model, n=4), subspaces)
    with pytest.raises(ResultError, match=r"part='qk' was not measured; nearest: 'qkv'"):
        kept.share("qk", 3)
    with pytest.raises(ResultError, match=r"rank='4' was not measured; nearest: '0', '3', '32'"):
        kept.random_shares("k", 4)
    with pytest.raises(ResultError, match="rank='2' was not measured"):
        kept.complement_share("k", 2)
