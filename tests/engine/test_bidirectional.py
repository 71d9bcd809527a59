"""Attention that looks ahead: what stands at a late position reaches earlier ones, everywhere."""

from __future__ import annotations

import pytest
import torch

import interp
from interp.errors import RunError
from interp.harvesting.proof import packs
from interp.models.hooked import HookedForCausalLM, config_of
from interp.models.model import Model
from interp.runs.execute import execute
from interp.runs.plan import resolve
from interp.token_batch import TokenBatch
from tests import tiny
from tests.engine.cases import assert_equal

WIDTH, VOCAB = 8, 20


def made(**changes):
    """A small model with random weights, bidirectional unless told otherwise."""
    fields = {"d_model": 16, "d_head": 4, "n_layers": 3, "n_ctx": WIDTH, "d_vocab": VOCAB,
              "d_mlp": 24, "attention_dir": "bidirectional", **changes}  # fmt: skip
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        hf = HookedForCausalLM(config_of(fields)).eval().double()
        for name, parameter in hf.named_parameters():
            norm = name.endswith("weight") and ".ln" in name
            parameter.copy_(torch.randn_like(parameter) * 0.4 + norm)
    return Model.wrap(hf, None, name="bidirectional")


IDS = torch.randint(0, VOCAB, (4, WIDTH), generator=torch.Generator().manual_seed(0))
MODELS = {
    "plain": {}, "rotary": {"positional_embedding_type": "rotary"},
    "no norms": {"normalization_type": None}, "parallel": {"parallel_attn_mlp": True},
    "attention only": {"attn_only": True, "act_fn": None},
}  # fmt: skip


def pairs(model, *, late=False):
    """Pairs that differ in the middle, or only behind the column that is read first."""
    corrupted = IDS.clone()
    where = WIDTH - 1 if late else 4
    corrupted[:, where] = (corrupted[:, where] + 1) % VOCAB
    return model.prompts(IDS, corrupted, answers=[0, 1, 2, 3], foils=[4, 5, 6, 7])


def first_logits(logits, prompts):
    """A metric of the first position alone."""
    return logits[:, 0, 3] - logits[:, 0, 4]


@pytest.mark.parametrize("engine", ["replay", "plain"])
def test_a_late_position_changes_earlier_logits(engine):
    model = made()
    found = interp.patch(model, pairs(model, late=True), "L*.resid_pre", positions="each",
                         metric=first_logits, engine=engine)  # fmt: skip
    assert found.engine == engine
    effect = (found.per_prompt - found.corrupted).abs()
    assert bool((effect[0, -1] > 1e-4).all())  # the only token that differs, at the other end
    assert bool((effect[0, :-1] == 0).all())
    assert bool((effect[1:] > 1e-6).all())  # behind a block every position differs
    causal = made(attention_dir="causal")
    silent = interp.patch(causal, pairs(causal, late=True), "L*.resid_pre", positions="each",
                          metric=first_logits, engine=engine)  # fmt: skip
    assert torch.equal(silent.per_prompt, silent.corrupted.expand_as(silent.per_prompt))


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("metric", ["logit_diff", first_logits], ids=["answer", "first"])
def test_replay_is_the_plain_path(kind, metric):
    """Read behind the column that differs, and before it."""
    model = made(**MODELS[kind])
    each = ["L*.resid_pre", "L*.attn_out", "L*.k", "embed"]
    each += [] if kind == "attention only" else ["L*.mlp_out", "L1.mlp_post.N0-3"]
    sites = (*each, "L*.H*.z", "L*.H1.q", "L*.H1.v", "L*.H1.pattern")
    for site in sites if kind == "plain" else sites[:: 1 if metric == "logit_diff" else 3]:
        positions = "each" if site in each else "all"
        assert_equal(model, pairs(model, late=metric is first_logits), site, metric=metric,
                     positions=positions, tolerance=1e-12)  # fmt: skip


def test_other_sources_and_paths():
    model = made()
    for options in ({"source": "zero"}, {"source": "resample", "seed": 1}, {"direction": "noise"}):
        assert_equal(model, pairs(model), "L*.H*.z", tolerance=1e-12, **options)
    for path in ("L0.H*.z -> L2.H1.k", "L0.mlp_out -> L1.H*.q", "embed -> L1.mlp.input"):
        fast, _ = assert_equal(model, pairs(model), path, tolerance=1e-12)
        assert float((fast.per_prompt - fast.corrupted).abs().max()) > 1e-6


def test_gradients_see_later_positions_too():
    model = made()
    found = interp.attribute(model, pairs(model, late=True), "L0.resid_pre", positions="each",
                             metric=first_logits)  # fmt: skip
    effect = found.per_prompt.abs()
    assert bool((effect[..., -1, :] > 1e-6).all())
    assert bool((effect[..., :-1, :] == 0).all())


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("kind", ["plain", "rotary"])
def test_padding_is_seen_by_nobody(kind, side):
    model, rows = made(**MODELS[kind]), [row[: 4 + i].tolist() for i, row in enumerate(IDS)]
    batch = TokenBatch.stack(rows, pad=side)
    run = model.run(batch, save=["L*.resid_post", "L*.pattern"])
    for i, row in enumerate(rows):
        alone = model.run(torch.tensor([row]), save="L*.resid_post")
        assert torch.allclose(run.logits[i][batch.mask[i]], alone.logits[0], atol=1e-12)
    shares = run.cache["L1.pattern"][0][:, batch.mask[0]]
    assert float(shares[..., ~batch.mask[0]].abs().max()) < 1e-12
    assert bool((shares[..., 0, batch.mask[0]] > 0).all())  # the first token sees all of its text


@pytest.mark.filterwarnings("ignore:these prompts differ in length")
@pytest.mark.parametrize("side", ["right", "left"])
def test_replay_under_padding(side):
    model = made()
    rows = [[row[: 4 + i].tolist() for i, row in enumerate(ids)] for ids in (IDS, IDS.flip(0))]
    prompts = interp.Prompts(
        *(TokenBatch.stack(some, pad=side) for some in rows),
        answers=torch.tensor([[0], [1], [2], [3]]), foils=torch.tensor([[4], [5], [6], [7]]),
    )  # fmt: skip
    for site in ("L*.resid_pre", "L*.H*.z", "L*.H*.k"):
        assert_equal(model, prompts, site, positions="each", tolerance=1e-12)


@pytest.mark.parametrize("kind", ["plain", "rotary"])
def test_texts_that_share_a_row_do_not_see_each_other(kind):
    model = made(**MODELS[kind])
    sites = resolve(model.anatomy, "L*.resid_post")
    assert packs(model, sites, context=WIDTH) is None
    texts = [IDS[0, :3], IDS[1, :5]]
    batch = TokenBatch(
        torch.cat(texts)[None], torch.ones(1, WIDTH, dtype=torch.bool),
        segments=torch.tensor([[0] * 3 + [1] * 5]),
    )  # fmt: skip
    together = execute(model.anatomy, batch, save=sites).cache["L2.resid_post"][0]
    for text, part in zip(texts, together.split([3, 5]), strict=True):
        alone = model.run(text[None], save="L2.resid_post").cache["L2.resid_post"][0]
        assert torch.allclose(part, alone, atol=1e-12)
    assert not bool(batch.may_attend()[0, 3, 4])
    assert bool(batch.may_attend(causal=False)[0, 3, 4])


def test_direct_attribution_and_lens_hold():
    model = made()
    found = interp.logit_attribution(model, pairs(model), by="head")
    assert found is not None
    assert interp.lens(model, IDS, top=3).top_ids.shape[-1] == 3


def test_causal_families_are_told_to_be():
    assert interp.load(tiny.shared("gpt2"), check=False).anatomy.causal
    model = made()
    assert not model.anatomy.causal
    prompts = pairs(model)
    model.hf.train()
    with pytest.raises(RunError, match="engine='replay' cannot run"):
        interp.patch(model, prompts, "L0.resid_pre", engine="replay")
