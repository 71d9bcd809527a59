"""The tuned lens: the published definition, its training, and what it finds on the demo model."""

import copy
import json

import pytest
import torch

import interp
from interp.demo.corpus import batch
from interp.demo.recipe import FULL
from interp.errors import (
    BudgetError,
    ModelError,
    PromptError,
    ResultError,
    RunError,
    SiteError,
)
from interp.lenses import reading, tune
from interp.lenses.corpus import batches, hash_of, split
from interp.lenses.tune import tune_lens
from interp.lenses.tuned_lens import TunedLens, _unembed_hash
from interp.token_batch import TokenBatch
from tests import tiny


@pytest.fixture(scope="module")
def model():
    return interp.load(tiny.shared("gpt_neox"), check=False)


@pytest.fixture(scope="module")
def tuned(model):
    return tune_lens(model, tiny.tokens(40, 8), steps=8, batch=8)


@pytest.fixture(scope="module")
def demo():
    return interp.load("demo")


def text(demo, *, seed, steps):
    """Rows of the demo corpus that training at its own seed never saw."""
    rows = [batch(FULL, demo.tokenizer, seed=seed, step=2900 + s)[0] for s in range(steps)]
    return torch.cat(rows)[:, :64]


@pytest.fixture(scope="module")
def demo_lens(demo):
    return tune_lens(demo, text(demo, seed=777, steps=8), steps=20, batch=8)


class Published(torch.nn.Module):
    """``tuned_lens.nn.lenses.TunedLens`` 0.2.0, as its source defines it."""

    def __init__(self, hf, norm):
        super().__init__()
        d, n = hf.config.hidden_size, hf.config.num_hidden_layers
        translator = torch.nn.Linear(d, d)
        translator.weight.data.zero_()
        translator.bias.data.zero_()
        self.layer_translators = torch.nn.ModuleList(copy.deepcopy(translator) for _ in range(n))
        self.norm = [copy.deepcopy(norm).requires_grad_(False)]
        self.unembedding = [copy.deepcopy(hf.get_output_embeddings()).requires_grad_(False)]

    def forward(self, h, index):
        return self.unembedding[0](self.norm[0](h + self.layer_translators[index](h)))


def train_published(hf, norm, ids, *, steps, lr=1.0, momentum=0.9, weight_decay=1e-3):
    """Its training loop: all positions, KL to the output, SGD, clipping, linear decay."""
    lens = Published(hf, norm)
    out = hf(ids, output_hidden_states=True)
    labels, hidden = out.logits.detach().log_softmax(-1), [h.detach() for h in out.hidden_states]
    optimiser = torch.optim.SGD(lens.parameters(), lr=lr * (1 - momentum), momentum=momentum,
                                nesterov=True, weight_decay=weight_decay)  # fmt: skip
    rate = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda s: max(0, (steps - s) / steps))
    for _ in range(steps):
        for i in range(len(lens.layer_translators)):
            preds = lens(hidden[i], i).log_softmax(-1)
            torch.sum(labels.exp() * (labels - preds), dim=-1).mean().backward()
        torch.nn.utils.clip_grad_norm_(lens.parameters(), 1.0)
        optimiser.step()
        rate.step()
        optimiser.zero_grad(set_to_none=False)
    return lens, hidden


@pytest.mark.parametrize(("family", "norm"), [("gpt2", "ln_f"), ("gpt_neox", "final_layer_norm"),
                                              ("llama", "norm")])  # fmt: skip
def test_it_is_the_published_lens_trained_as_published(family, norm, monkeypatch):
    monkeypatch.setattr(reading, "_SLAB", 7 * 4 * tiny.VOCAB)  # slabs of 7 tokens are no departure
    hf, ids = tiny.shared(family), tiny.tokens(4, 9)
    model = interp.load(hf, check=False)
    theirs, hidden = train_published(hf, getattr(hf.base_model, norm), ids, steps=6)
    ours = tune_lens(model, ids, steps=6, batch=4, holdout=0.0)
    assert float(ours.weight.abs().max()) > 1e-3
    for i, translator in enumerate(theirs.layer_translators):
        assert torch.allclose(ours.weight[i], translator.weight, atol=1e-6)
        assert torch.allclose(ours.bias[i], translator.bias, atol=1e-6)
    again = TunedLens.from_state_dict(model, theirs.layer_translators.state_dict())
    result = interp.lens(model, ids, using=again, top=3)
    with torch.no_grad():
        for i in range(model.n_layers):
            best = theirs(hidden[i], i).softmax(-1).topk(3)
            assert torch.equal(result.top_ids[i], best.indices)
            assert torch.allclose(result.top_probs[i], best.values, atol=1e-6)
    assert result.method == "tuned lens"
    assert float(result.kl[-1].abs().max()) == 0


def test_untrained_it_is_the_logit_lens_to_the_bit(model):
    ids = tiny.tokens(6, 8)
    still = tune_lens(model, ids, steps=1, lr=0.0, holdout=0.3)
    plain, same = interp.lens(model, ids), interp.lens(model, ids, using=still)
    assert torch.equal(plain.kl, same.kl)
    assert torch.equal(plain.top_probs, same.top_probs)
    assert torch.equal(still.held_out[0], still.held_out[2])


def test_training_leaves_the_model_alone_and_repeats_itself(model, tuned):
    again = tune_lens(model, tiny.tokens(40, 8), steps=8, batch=8)
    assert torch.equal(again.weight, tuned.weight)
    assert torch.equal(again.held_out, tuned.held_out)
    assert all(p.grad is None for p in model.hf.parameters())
    other = tune_lens(model, tiny.tokens(40, 8), steps=8, batch=8, seed=1)
    assert not torch.equal(other.weight, tuned.weight)


def test_it_is_trained_whatever_the_callers_gradient_mode(model):
    plain = tune_lens(model, tiny.tokens(4, 5), steps=2)
    with torch.inference_mode():
        within = tune_lens(model, tiny.tokens(4, 5), steps=2)
    assert torch.equal(plain.weight, within.weight)


def test_padding_does_not_count(model):
    ids = tiny.tokens(4, 6)
    mask = torch.ones(4, 9, dtype=torch.bool)
    mask[:, 6:] = False
    lenses = [
        tune_lens(model, given, steps=2, batch=4, holdout=0.25)
        for given in (ids, TokenBatch(torch.cat([ids, torch.full((4, 3), 7)], 1), mask))
    ]
    assert torch.allclose(lenses[0].weight, lenses[1].weight, atol=1e-6)
    assert torch.allclose(lenses[0].held_out, lenses[1].held_out, atol=1e-5)
    assert lenses[0].provenance.prompts_hash == lenses[1].provenance.prompts_hash


@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
def test_one_translator_for_each_head(model, optimiser):
    lens = tune_lens(model, tiny.tokens(24, 8), sites="L1.H*.result", steps=10, batch=8,
                     optimiser=optimiser, lr=1.0 if optimiser == "sgd" else 20.0)  # fmt: skip
    assert lens.sites == tuple(f"L1.H{i}.result" for i in range(4))
    frame = lens.report()
    assert (frame["tuned"] < frame["logit"]).all()
    result = interp.lens(model, tiny.tokens(), using=lens)
    assert result.layers == (*lens.sites, "out")
    heads = model.run(tiny.tokens(), save="L1.result").cache["L1.result"]
    h = heads[:, :, 2]
    by_hand = reading.decode(model, h + h @ lens.weight[2].T + lens.bias[2]).argmax(-1)
    assert torch.equal(result.top_ids[2, ..., 0], by_hand)


def test_save_load_and_the_wrong_model(model, tuned, tmp_path):
    path = tuned.save(tmp_path / "tuned.safetensors")
    loaded = TunedLens.load(path, model)
    for name in ("weight", "bias", "bias_only", "held_out", "curve"):
        assert torch.equal(getattr(loaded, name), getattr(tuned, name))
    assert (loaded.sites, loaded.provenance) == (tuned.sites, tuned.provenance)
    assert loaded.provenance.prompts_hash
    assert loaded.provenance.seed == 0
    assert repr(loaded).startswith("TunedLens(3 translators: L0.resid_pre, L1.resid_pre")
    ids = tiny.tokens()
    assert torch.equal(
        interp.lens(model, ids, using=loaded).kl, interp.lens(model, ids, using=tuned).kl
    )
    other = interp.load(tiny.build("gpt_neox", seed=1), check=False)
    with pytest.raises(ModelError, match="this tuned lens was trained on .* not on"):
        TunedLens.load(path, other)
    with pytest.raises(ModelError, match="use that model, or train one"):
        interp.lens(other, ids, using=tuned)
    with pytest.raises(SiteError, match=r"no translator for 'L1.mlp_out'; nearest"):
        interp.lens(model, ids, using=tuned, sites=["L1.resid_pre", "L1.mlp_out"])
    bare = tune_lens(model, ids, steps=1, holdout=0.0, bias_only=False)
    assert TunedLens.load(bare.save(tmp_path / "bare.safetensors")).bias_only is None
    with pytest.raises(ResultError, match="without held-out rows"):
        bare.report()


def test_the_packages_folder_is_read_and_written_without_pickle_here(model, tuned, tmp_path):
    torch.save(tuned.state_dict(), tmp_path / "params.pt")
    config = {"base_model_name_or_path": "tiny", "unembed_hash": _unembed_hash(model)}
    (tmp_path / "config.json").write_text(json.dumps(config))
    state = torch.load(tmp_path / "params.pt", weights_only=True)
    assert list(state)[:2] == ["0.weight", "0.bias"]
    back = TunedLens.from_state_dict(
        model, state, json.loads((tmp_path / "config.json").read_text())
    )
    assert torch.equal(back.weight, tuned.weight)
    assert back.sites == tuned.sites
    with pytest.raises(ModelError, match="another unembedding"):
        TunedLens.from_state_dict(model, state, {"unembed_hash": "0" * 64})
    with pytest.raises(ModelError, match=r"needs 3 of \[32, 32\]"):
        TunedLens.from_state_dict(model, {"0.weight": torch.zeros(8, 8)})
    heads = tune_lens(model, tiny.tokens(), sites="L0.H*.result", steps=1, holdout=0.0)
    with pytest.raises(SiteError, match="knows only the residual stream"):
        heads.state_dict()


def test_it_beats_the_logit_lens_on_text_it_has_not_seen(demo, demo_lens):
    frame = demo_lens.report()
    assert (frame["gain_low"].iloc[:3] > 0.2).all()
    assert (frame["tuned"].iloc[:3] < frame["bias_only"].iloc[:3]).all()
    fresh = text(demo, seed=4242, steps=2)
    plain = interp.lens(demo, fresh).scores("all")["kl"].mean(-1)
    ours = interp.lens(demo, fresh, using=demo_lens).scores("all")["kl"].mean(-1)
    assert bool((ours[:2] < 0.75 * plain[:2]).all())
    assert float(ours[2]) < float(plain[2])
    assert len(demo_lens.plot().axes[0].get_lines()) == 3


def test_the_random_twins_lens_is_at_chance(demo):
    twin = demo.random_twin(check=False)
    facts = interp.prompts.capitals(demo, n=64, seed=0)
    lens = tune_lens(twin, text(demo, seed=777, steps=4), steps=10, batch=8, bias_only=False)
    assert float(lens.report()["tuned"].iloc[0]) < float(lens.report()["logit"].iloc[0])
    for using in (None, lens):
        result = interp.lens(twin, facts, using=using)
        middle = result.answer_rank.float().mean(-1) / demo.d_vocab
        assert bool(((middle - 0.5).abs() < 0.12).all())  # uniform: ± .036 (one standard error)
        assert float(result.accuracy().max()) <= 2 / 64
        assert float(result.answer_prob.mean()) * demo.d_vocab == pytest.approx(1, abs=0.2)
    real = interp.lens(demo, facts)
    assert float(real.accuracy()[-1]) > 0.9


def test_an_interrupted_training_is_a_lens(model, monkeypatch):
    inner, calls = tune._Training._step, []

    def step(self, rows):
        calls.append(rows)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return inner(self, rows)

    monkeypatch.setattr(tune._Training, "_step", step)
    with pytest.warns(UserWarning, match="trained for 3 of 20 steps"):
        lens = tune_lens(model, tiny.tokens(20, 6), steps=20, batch=4)
    assert lens.curve.shape == (3, 3)
    assert bool(lens.held_out.isfinite().all())


def test_rows_of_the_corpus():
    ids = torch.cat([tiny.tokens(10, 5)] * 3)
    train, held = split(TokenBatch.of(ids), holdout=0.2, seed=0)
    assert (len(train), len(held)) == (24, 6)
    seen = {tuple(row) for row in train.ids.tolist()}
    assert not seen & {tuple(row) for row in held.ids.tolist()}  # no row stands on both sides
    order = batches(5, 2, seed=0)
    drawn = torch.cat([next(order) for _ in range(5)])
    assert drawn.bincount().tolist() == [2] * 5
    assert [len(next(batches(3, 8, seed=0)))] == [3]
    assert hash_of(train) != hash_of(held)


def test_texts_from_a_stream(llama_like_tokenizer):
    hf = tiny.build("llama", vocab_size=len(llama_like_tokenizer))
    model = interp.load(hf, tokenizer=llama_like_tokenizer, check=False)
    taken = []

    def stream():
        while True:
            taken.append(1)
            yield "The capital of " + ["France is Paris", "Japan is"][len(taken) % 2]

    lens = tune_lens(model, stream(), steps=2, batch=3, holdout=0.5)
    assert len(taken) <= 14
    assert lens.held_out.shape[-1] >= 1


@pytest.mark.bad_input
def test_what_is_refused(model, monkeypatch):
    ids = tiny.tokens(4, 5)
    with pytest.raises(RunError, match="steps=0; expected 1 or more"):
        tune_lens(model, ids, steps=0)
    for rule in ({"lr": -1.0}, {"lr": torch.nan}, {"momentum": 1.0}, {"weight_decay": -1.0}):
        with pytest.raises(RunError, match="expected lr of at least 0, momentum from 0 to below 1"):
            tune_lens(model, ids, steps=1, **rule)
    with pytest.raises(RunError, match="steps=2.5; expected 1 or more"):
        tune_lens(model, ids, steps=2.5)
    with pytest.raises(PromptError, match="NoneType"):
        tune_lens(model, None)
    with pytest.raises(PromptError, match=r"holdout=1.5; expected a share"):
        tune_lens(model, ids, holdout=1.5)
    with pytest.raises(PromptError, match="1 different row of text cannot be both"):
        tune_lens(model, ids[:1], steps=1)
    with pytest.raises(SiteError, match="a lens reads vectors of d_model"):
        tune_lens(model, ids, sites="L*.H*.z")
    with pytest.raises(RunError, match="no longer finite at step 1: lower lr"):
        tune_lens(model, ids, steps=3, lr=1e38, holdout=0.0)
    monkeypatch.setattr(tune, "available", lambda device: 1000)
    with pytest.raises(BudgetError, match=r"3 translators of 32 × 32 need .* fewer sites"):
        tune_lens(model, ids)


@pytest.mark.bad_input
def test_another_optimiser_is_refused(model):
    with pytest.raises(RunError, match="optimiser='lbfgs'; expected 'sgd' or 'adam'"):
        tune_lens(model, tiny.tokens(4, 5), optimiser="lbfgs")
