"""Means over a corpus: right to the last digit, and ready to be put in a part's place."""

import numpy as np
import pytest
import torch

import interp
from interp.errors import ResultError, RunError, SiteError
from interp.geometry.moments import Moments
from interp.prompts import facts
from interp.surveys import Mean, Means, means
from tests.surveys.rows import CUTS, Cut, synthetic


@pytest.mark.parametrize("lengths", CUTS)
def test_mean_and_spread_are_torchs_however_the_rows_are_cut(lengths):
    rows = synthetic()
    found = means(Cut(rows, lengths))
    assert tuple(found) == rows.sites
    assert found.n_tokens == 700
    for site in rows.sites:
        x = rows[site].double()
        assert torch.allclose(found[site], x.mean(0).float(), atol=1e-7)
        assert torch.allclose(found.spread(site), x.std(0, correction=0).float(), rtol=1e-6)


def test_a_large_common_offset_costs_no_digits():
    x = torch.randn(5000, 3, generator=torch.Generator().manual_seed(0)).double()
    total = Moments.of(x[:7] + 1e8)
    for part in x[7:].split(111):
        total = total.merged(Moments.of(part + 1e8))
    assert torch.allclose((total.squares / total.count).sqrt(), x.std(0, correction=0), rtol=1e-6)


@pytest.mark.parametrize("lengths", CUTS)
def test_each_position_has_its_own_mean(lengths):
    rows = synthetic()
    rows.position[:3] = -1  # a BOS put before a later piece
    found = means(Cut(rows, lengths), "L0.z", by_position=10)
    for position in range(10):
        here = rows.position == position
        assert int(found.counts[position]) == int(here.sum())
        expected = rows["L0.z"][here].double().mean(0).float()
        assert torch.allclose(found[f"L0.z@{position}"], expected, atol=1e-6)
        assert torch.allclose(found.at_positions("L0.z")[position], expected, atol=1e-6)
        assert torch.allclose(found[f"L0.H1.z@{position}"], expected[1], atol=1e-6)
    assert torch.allclose(found["L0.z"], rows["L0.z"].double().mean(0).float(), atol=1e-7)
    empty = means(Cut(rows, lengths), "L0.z", by_position=40)
    assert bool(empty.at_positions("L0.z")[35:].isnan().all())
    with pytest.raises(ResultError, match="no mean at position 35"):
        empty["L0.z@35"]


def test_parts_of_a_site_are_parts_of_its_mean():
    found = means(synthetic())
    assert torch.equal(found["L0.H2.z"], found["L0.z"][2])
    assert torch.equal(found["L0.mlp_post.N1,4"], found["L0.mlp_post"][[1, 4]])
    assert torch.equal(found["blocks.0.attn.hook_z"], found["L0.z"])
    with pytest.raises(SiteError, match=r"'L1.z' was not surveyed; nearest: 'L0.z'"):
        found["L1.z"]


def test_memory_does_not_grow_with_rows():
    plan = Mean(by_position=16).on(synthetic(5).sites)
    state, sizes = None, set()
    for seed in range(12):
        state = plan.update(state, synthetic(300, seed=seed))
        sums = sum(m.mean.nbytes + m.squares.nbytes for m in state.moments)
        sizes.add(sums + state.sums.nbytes + state.counts.nbytes)
    assert len(sizes) == 1


def test_results_are_saved_whole_and_drawn(tmp_path):
    for given in (None, 5):
        found = means(synthetic(), by_position=given)
        loaded = Means.load(found.save(tmp_path / "a.safetensors"))
        assert all(torch.equal(loaded[site], found[site]) for site in found)
        assert (loaded.shapes, loaded.counts is None) == (found.shapes, given is None)
        assert loaded.provenance == found.provenance
    axes = loaded.plot().axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == list(found)
    shares = found.to_frame()["share"]
    assert ((shares >= 0) & (shares <= 1)).all()


@pytest.fixture(scope="module")
def demo():
    return interp.load("demo")


@pytest.fixture(scope="module")
def average(demo):
    """Over mixed text, as the live stream gives it."""
    stream = interp.stream(
        demo, interp.corpora.demo(60, seed=5), ["L*.mlp_out", "L*.z"], tokens=3000
    )
    return means(stream)


@pytest.fixture(scope="module")
def prompts(demo):
    return interp.prompts.capitals(demo, n=12, seed=0)


def test_means_of_a_stream_are_those_of_the_models_own_runs(demo):
    texts = [f"The capital of {c['country']} is {c['capital']}." for c in facts.countries()[:20]]
    found = means(interp.stream(demo, texts, ["L1.mlp_out", "L0.z"]), "L1.mlp_out")
    batch = demo.batch(texts)
    kept = batch.mask.clone()
    kept[:, 0] = False  # a BOS is not surveyed
    own = demo.run(batch, save="L1.mlp_out").cache["L1.mlp_out"][kept]
    assert found.n_tokens == int(kept.sum())
    assert torch.allclose(found["L1.mlp_out"], own.mean(0), atol=1e-5)
    assert found.provenance.weights_hash == demo.weights_hash
    assert found.provenance.model == "demo"


def test_ablating_with_a_corpus_mean_is_replacing_by_hand(demo, prompts, average):
    sites = [f"L{layer}.mlp_out" for layer in range(demo.n_layers)]
    result = interp.ablate(demo, prompts, "L*.mlp_out", reference=average, positions="all")
    for layer, site in enumerate(sites):
        edit = {site: interp.Replace(average[site])}
        logits = demo.run(prompts.clean, edit=edit, logits="last").logits[:, 0]
        rows = torch.arange(len(prompts))
        answers, foils = prompts.answers[:, 0], prompts.foils[:, 0]
        by_hand = logits[rows, answers] - logits[rows, foils]
        assert torch.allclose(result.per_prompt[layer].cpu(), by_hand, atol=1e-4)
        one = interp.patch(demo, prompts, site, source=average[site], positions="all")
        assert torch.allclose(one.per_prompt.flatten(), by_hand, atol=1e-4)


def test_it_is_no_zero_ablation(demo, prompts, average):
    by_mean = interp.ablate(demo, prompts, "L*.mlp_out", reference=average, positions="all")
    by_zero = interp.ablate(demo, prompts, "L*.mlp_out", method="zero", positions="all")
    assert float((by_mean.values - by_zero.values).abs().max()) > 0.5
    assert by_mean.provenance.call["source"].startswith("mapping of 8 sites sha256 ")
    nothing = {site: torch.zeros(demo.d_model) for site in average if site.endswith("mlp_out")}
    zeros = interp.ablate(demo, prompts, "L*.mlp_out", reference=nothing, positions="all")
    assert torch.allclose(zeros.values, by_zero.values, atol=1e-5)


def test_heads_positions_and_engines_take_means_too(demo, prompts, average):
    exact = interp.ablate(demo, prompts, "L*.H*.z", reference=average)
    plain = interp.ablate(demo, prompts, "L*.H*.z", reference=average, engine="plain")
    assert torch.allclose(exact.values, plain.values, atol=1e-4)
    edit = {"L2.H3.z": interp.Replace(average["L2.H3.z"])}
    logits = demo.run(prompts.clean, edit=edit, logits="last").logits[:, 0]
    rows = torch.arange(len(prompts))
    own = logits[rows, prompts.answers[:, 0]] - logits[rows, prompts.foils[:, 0]]
    assert torch.allclose(exact.per_prompt[2, 3], own, atol=1e-4)
    at_end = interp.patch(demo, prompts, "L1.mlp_out@END", source=average)
    edit = {"L1.mlp_out@-1": interp.Replace(average["L1.mlp_out"])}
    logits = demo.run(prompts.clean, edit=edit, logits="last").logits[:, 0]
    own = logits[rows, prompts.answers[:, 0]] - logits[rows, prompts.foils[:, 0]]
    assert torch.allclose(at_end.per_prompt.flatten(), own, atol=1e-4)


def test_values_of_other_sites_are_another_sweep(demo, prompts, average):
    first, second = average["L1.mlp_out"], average["L2.mlp_out"]
    sites, asked = ["L1.mlp_out", "L2.mlp_out"], {"positions": "all", "direction": "noise"}
    given = {"L1.mlp_out": first, "L2.mlp_out": second}
    one = interp.patch(demo, prompts, sites, source=given, **asked)
    turned = dict(reversed(given.items()))
    again = interp.patch(demo, prompts, sites, source=turned, resume=one, **asked)
    assert torch.equal(again.values, one.values)
    swapped = {"L2.mlp_out": first, "L1.mlp_out": second}
    with pytest.raises(ResultError, match="another sweep: its source"):
        interp.patch(demo, prompts, sites, source=swapped, resume=one, **asked)
    assert "mapping → clean" in repr(one)


def test_sites_of_a_mapping_may_have_any_of_their_names(demo, prompts, average):
    value = average["L2.mlp_out"]
    site = interp.Site.parse("L2.mlp_out")
    own, theirs, parsed = (
        interp.ablate(demo, prompts, "L2.mlp_out", reference={name: value}, positions="all")
        for name in ("L2.mlp_out", "blocks.2.hook_mlp_out", site)
    )
    assert torch.equal(own.values, theirs.values)
    assert torch.equal(own.values, parsed.values)


@pytest.mark.bad_input
def test_means_are_a_mapping(average):
    assert "L0.mlp_out" in average
    assert "blocks.0.hook_mlp_out" in average
    assert "L2.H3.z" in average
    for absent in ("L0.attn_out", "nonsense", "L0.mlp_out@3", 3):
        assert absent not in average
        assert average.get(absent) is None
    assert torch.equal(average.get("L0.mlp_out"), average["L0.mlp_out"])


@pytest.mark.bad_input
@pytest.mark.parametrize("given", [{}, {"L2.mlp_out": 0.0}, {"L2.mlp_out": np.zeros(192)}])
def test_a_mapping_of_other_things_is_refused(demo, prompts, given):
    with pytest.raises(RunError, match="source= "):
        interp.ablate(demo, prompts, "L2.mlp_out", reference=given, positions="all")


@pytest.mark.bad_input
def test_what_is_refused(demo, prompts, average):
    for by_position in (1.5, "a", 0, True):
        with pytest.raises(RunError, match="expected how many positions to average alone"):
            means(synthetic(5), by_position=by_position)
    with pytest.raises(SiteError, match="reads every token; leave '@3' out"):
        means(synthetic(5), "L0.z@3")
    with pytest.raises(ResultError, match="over all positions"):
        average.spread("L0.mlp_out@3")
    with pytest.raises(SiteError, match=r"source= has no value for 'L0.attn_out'"):
        interp.ablate(
            demo,
            prompts,
            "L*.attn_out",
            reference={"L0.mlp_out": torch.zeros(192)},
            positions="all",
        )
    with pytest.raises(SiteError, match="was not surveyed"):
        interp.ablate(demo, prompts, "L*.attn_out", reference=average, positions="all")
    with pytest.raises(RunError, match="method='zero' uses no reference="):
        interp.ablate(demo, prompts, "L*.mlp_out", method="zero", reference=average)
    with pytest.raises(ResultError, match="survey with by_position=n"):
        average.at_positions("L0.mlp_out")
