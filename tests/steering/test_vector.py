"""Steering vectors: the difference of means, planted directions, files, refusals."""

import pytest
import torch

import interp
from interp.errors import ModelError, PromptError, ResultError, RunError, SiteError
from interp.steering.contrast import steering_vector
from interp.steering.vector import SteeringVector
from tests import tiny


@pytest.fixture(scope="module")
def model():
    return interp.load(tiny.shared("llama"), check=False)


HIGH, LOW = tiny.tokens(6, 7, seed=1), tiny.tokens(4, 9, seed=2)


def test_the_difference_of_means_at_a_position_and_over_all(model):
    for position in (-1, 2, "all"):
        vectors = steering_vector(model, HIGH, LOW, "L*.resid_pre", positions=position)
        assert vectors.sites == ("L0.resid_pre", "L1.resid_pre", "L2.resid_pre")
        for site, value in zip(vectors.sites, vectors.values, strict=True):
            a, b = (model.run(ids, save=site).cache[site] for ids in (HIGH, LOW))
            a, b = (x.mean(1) if position == "all" else x[:, position] for x in (a, b))
            assert torch.allclose(value, a.mean(0) - b.mean(0), atol=1e-5)
            norm = torch.cat([a, b]).norm(dim=-1).mean()
            assert float(vectors.at(site).typical_norm) == pytest.approx(float(norm), rel=1e-5)


def test_padding_does_not_matter_and_bos_is_not_averaged(llama_like_tokenizer):
    hf = tiny.build("llama", vocab_size=len(llama_like_tokenizer))
    model = interp.load(hf, tokenizer=llama_like_tokenizer, check=False)
    texts = [
        "The capital of France is",
        "When Mary and John went to the store, John gave a book to",
    ]
    for position in ("all", "END"):
        both = steering_vector(model, texts, ["The capital"], "L1.mlp_out", positions=position)
        each = [steering_vector(model, [t], ["The capital"], "L1.mlp_out", positions=position)
                for t in texts]  # fmt: skip
        mean = torch.stack([v.values for v in each]).mean(0)
        assert torch.allclose(both.values, mean, atol=1e-5)
    x = model.run(texts[:1], save="L1.mlp_out").cache["L1.mlp_out"][0]
    y = model.run(["The capital"], save="L1.mlp_out").cache["L1.mlp_out"][0]
    averaged = steering_vector(model, texts[:1], ["The capital"], "L1.mlp_out", positions="all")
    assert torch.allclose(averaged.values[0], x[1:].mean(0) - y[1:].mean(0), atol=1e-5)
    bos = torch.tensor([[model.tokens.bos_id]])
    with pytest.raises(PromptError, match="no token besides its BOS"):
        steering_vector(model, bos, ["The capital"], "L1.mlp_out", positions="all")


def test_the_corrupted_side_and_named_positions(model):
    pairs = model.prompts(tiny.tokens(5, 6), tiny.tokens(5, 6, seed=3), positions={"s": [3] * 5})
    ours = steering_vector(model, pairs, None, "L1.resid_pre", positions="s")
    other = steering_vector(model, pairs.clean, pairs.corrupted, "L1.resid_pre", positions=3)
    assert torch.equal(ours.values, other.values)
    assert ours.provenance.prompts_hash == pairs.hash


def test_a_planted_direction_is_found_by_both_methods(model):
    """Pairs that differ by a known vector (plus small noise) give it back, and agree by halves."""
    ids = tiny.tokens(20, 6)
    planted = torch.randn(32, generator=torch.Generator().manual_seed(5)) * 3
    noise = torch.randn(20, 1, 32, generator=torch.Generator().manual_seed(6))
    x = model.run(ids, save="L1.resid_pre").cache["L1.resid_pre"]
    from interp.steering import contrast

    high, low = (x[:, -1:] + planted + 0.5 * noise).double(), x[:, -1:].double()
    for direction in (contrast._mean_difference, contrast._pca):
        found = direction(high, low)[0].float()
        assert float(torch.cosine_similarity(found, planted, dim=0)) > 0.98
        assert float(found.norm()) == pytest.approx(float(planted.norm()), rel=0.1)
        real = contrast._reliability(high, low, direction, 20, 0)
        assert float(real) > 0.95
    order = torch.randperm(20, generator=torch.Generator().manual_seed(7))
    null = contrast._reliability(low[order[:10]], low[order[10:]], contrast._mean_difference, 50, 0)
    assert float(null) < 0.3  # random halves of one set: nothing to agree on


def test_edits_go_where_they_say(model):
    v = steering_vector(model, HIGH, LOW, "L1.resid_pre", positions=-1)
    ids = tiny.tokens(2, 6)
    plain = model.run(ids, save="L1.resid_pre").cache["L1.resid_pre"]

    def moved(edit):
        got = model.run(ids, save="L1.resid_pre", edit=edit).cache["L1.resid_pre"] - plain
        return got / v.values[0]

    for edit, on in (
        (v.edit(2.0), [0, 1, 2, 3, 4, 5]), (v.edit(2.0, positions="END"), [5]),
        (v.edit(2.0, positions=[0, -2]), [0, 4]), (v.edit(2.0, start=-3), [3, 4, 5]),
    ):  # fmt: skip
        expected = torch.zeros(6)
        expected[on] = 2.0
        assert torch.allclose(moved(edit), expected[None, :, None].expand(2, 6, 32), atol=1e-3)
    assert torch.equal(model.run(ids, edit=v.edit(0.0)).logits, model.run(ids).logits)
    out = model.run(ids, save="L1.resid_pre", edit=v.project_out()).cache["L1.resid_pre"]
    assert float((out @ v.values[0]).abs().max()) < 1e-3
    assert set(v.project_out(["L*.resid_pre", "L*.resid_mid"])) == {"L*.resid_pre", "L*.resid_mid"}


def test_random_vectors_have_the_same_length_and_come_by_seed(model):
    v = steering_vector(model, HIGH, LOW, "L*.resid_pre", positions=-1)
    a, b = v.random_like(0), v.random_like(1)
    assert torch.allclose(a.norm, v.norm, rtol=1e-5)
    assert torch.equal(a.values, v.random_like(0).values)
    assert float(a.cosine(b).abs().max()) < 0.6
    assert bool(a.reliability.isnan().all())
    assert a.method == "random direction, seed 0"
    assert float(v.random_like(3, orthogonal=True).cosine(v).abs().max()) < 1e-5
    assert torch.allclose(v.cosine(v), torch.ones(3))
    with pytest.raises(ResultError, match="same sites and width"):
        v.cosine(v.at("L1.resid_pre"))


def test_normalised_vectors_and_single_pairs(model):
    v = steering_vector(model, HIGH[:1], LOW[:1], "L1.resid_pre", positions=-1, normalise=True)
    assert float(v.norm) == pytest.approx(1.0)
    assert bool(v.reliability.isnan())  # one pair (Turner et al. 2023) has no halves
    with pytest.raises(PromptError, match="has length 0"):
        steering_vector(model, HIGH, HIGH, "L1.resid_pre", positions=-1, normalise=True)


def test_save_load_and_models_that_do_not_fit(model, tmp_path):
    v = steering_vector(model, HIGH, LOW, "L*.resid_pre", positions=-1)
    path = v.save(tmp_path / "v.safetensors")
    loaded = SteeringVector.load(path, model=model)
    assert vars(loaded).keys() == vars(v).keys()
    for name, value in vars(v).items():
        same = getattr(loaded, name)
        assert torch.equal(same, value) if isinstance(value, torch.Tensor) else same == value, name
    wide = interp.load(tiny.build("llama", hidden_size=48), check=False)
    with pytest.raises(ModelError, match="length 32, and .* has 48 there"):
        SteeringVector.load(path, model=wide)
    shallow = interp.load(tiny.build("llama", num_hidden_layers=2), check=False)
    with pytest.raises(SiteError, match="out of range"):
        v.check(shallow)
    with pytest.raises(ResultError, match="expected 'LensResult'"):
        interp.lens(model, HIGH).load(path)


def test_frame_and_repr(model):
    v = steering_vector(model, HIGH, LOW, ["L1.resid_pre", "L2.attn_out"], positions=-1)
    assert v.to_frame()["site"].tolist() == ["L1.resid_pre", "L2.attn_out"]
    assert "6 + 4 prompts" in repr(v)
    assert list(v.parts()) == list(v.sites)


@pytest.mark.bad_input
def test_what_is_refused(model):
    v = steering_vector(model, HIGH, LOW, "L*.resid_pre", positions=-1)
    with pytest.raises(RunError, match=r"vectors of 3 sites: pick one with .at"):
        v.edit(1.0)
    with pytest.raises(RunError, match="strength='2'"):
        v.at("L1.resid_pre").edit("2")
    with pytest.raises(RunError, match=r"positions=\[0, 1\]; expected one"):
        steering_vector(model, HIGH, LOW, "L1.resid_pre", positions=[0, 1])
    with pytest.raises(SiteError, match="the nearest are"):
        v.at("L9.resid_pre")
    with pytest.raises(RunError, match="give one of them"):
        v.at("L1.resid_pre").edit(1.0, positions=1, start=2)
    for site in ("L1.z", "L1.pattern", "L1.H*.z"):
        with pytest.raises(SiteError, match="one vector at each position"):
            steering_vector(model, HIGH, LOW, site)
    with pytest.raises(SiteError, match="names a position"):
        steering_vector(model, HIGH, LOW, "L1.resid_pre@END")
    with pytest.raises(SiteError, match="widths"):
        steering_vector(model, HIGH, LOW, ["L1.resid_pre", "L1.H0.z"])
    with pytest.raises(RunError, match="takes pairs"):
        steering_vector(model, HIGH, LOW, "L1.resid_pre", method="pca")
    with pytest.raises(RunError, match="'mean_difference' or 'pca'"):
        steering_vector(model, HIGH, LOW, "L1.resid_pre", method="mean")
    with pytest.raises(RunError, match="splits=0"):
        steering_vector(model, HIGH, LOW, "L1.resid_pre", splits=0)
    with pytest.raises(PromptError, match="have none"):
        steering_vector(model, model.prompts(HIGH), None, "L1.resid_pre")
