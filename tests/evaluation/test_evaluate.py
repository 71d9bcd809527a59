"""``evaluate`` against sums by hand, text by text, and against what must be so."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

import interp
from interp.dictionaries.dictionary import Dictionary
from interp.errors import CorpusError, DictionaryError, ResultError
from interp.evaluation import Evaluation, evaluate
from tests.evaluation import built
from tests.tiny import build

SITE, D = "L2.mlp_out", 192


@pytest.fixture(scope="module")
def partial(demo, corpus):
    """A PCA of L0.mlp_out to 40 dimensions, as an SAE."""
    model = interp.load("demo")
    x = next(iter(interp.stream(model, corpus, "L0.mlp_out", dtype="float32").batches(1000)))
    x = x["L0.mlp_out"].double()
    basis = torch.linalg.svd(x - x.mean(0), full_matrices=False).Vh[:40]
    both = torch.cat([basis, -basis])
    site = ("L0.mlp_out",)
    return built.made("sae", site, site, both, -both @ x.mean(0), both, x.mean(0))


@pytest.fixture(scope="module")
def found(demo, corpus, partial):
    return evaluate(partial, demo, corpus, tokens=700, batch=3, progress=False)


def _by_hand(model, dictionary, corpus, site, tokens):
    """All sums from a run for each text, with plain Hugging Face hooks."""
    kept, mean_of, seen = [], [], 0
    for number, text in enumerate(corpus.documents()):
        ids = model.tokens.encode_rows([text])[0][:128]
        if number % 5 == 1:
            mean_of.append(ids)
        elif seen < tokens:
            keep = min(len(ids) - 1, tokens - seen)  # all but BOS
            kept.append((ids, keep))
            seen += keep
    layer = model.hf.gpt_neox.layers[int(site[1])].mlp

    def run(ids, change=None):
        held = []

        def hook(_module, _inputs, out):
            held.append(out[0].clone())
            return None if change is None else change(out)

        handle = layer.register_forward_hook(hook)
        with torch.no_grad():
            logits = model.hf(torch.tensor([ids])).logits[0]
        handle.remove()
        return logits.log_softmax(-1), held[0]

    rows = [run(ids)[1][1:] for ids in mean_of]
    mean = torch.cat(rows).mean(0)
    sums: dict[str, list] = {}
    for ids, keep in kept:
        at = slice(1, keep + 1)

        def put(value, at=at):
            def change(out):
                out = out.clone()
                out[0, at] = value(out[0, at])
                return out

            return change

        base, y = run(ids)
        y = y[at]
        target = torch.tensor(ids[2 : keep + 2])
        n = len(target)
        found = {"y": y, "out": dictionary(y)}
        for name, value in (
            ("original", None), ("spliced", dictionary), ("zero", torch.zeros_like),
            ("mean", lambda x: mean.expand_as(x)),
        ):  # fmt: skip
            logp = base if value is None else run(ids, put(value))[0]
            found[name] = -logp[at][:n].gather(-1, target[:, None])[:, 0]
            if name == "spliced":
                found["kl"] = (base[at].exp() * (base[at] - logp[at])).sum(-1)
                found["agree"] = (base[at].argmax(-1) == logp[at].argmax(-1)).double()
        for name, values in found.items():
            sums.setdefault(name, []).append(values)
    return {name: torch.cat(parts) for name, parts in sums.items()}, mean


def test_every_metric_by_hand(demo, corpus, partial, found):
    s, mean = _by_hand(demo, partial, corpus, "L0.mlp_out", 700)
    y, out = s["y"], s["out"]
    e, var = (out - y).square().sum(-1), (y - y.mean(0)).square().sum(-1)
    acts = partial.encode(y)
    ce = {name: float(s[name].mean()) for name in ("original", "spliced", "zero", "mean")}
    want = {
        "fvu": e.sum() / var.sum(),
        "explained_variance": 1 - e.sum() / var.sum(),
        "explained_variance_legacy": (1 - e / (y - mean).square().sum(-1)).mean(),
        "mse": (out - y).square().mean(),
        "relative_l2": (e.sqrt() / y.norm(dim=-1)).mean(),
        "cosine": torch.cosine_similarity(out, y, dim=-1).mean(),
        "norm_ratio": (out.norm(dim=-1) / y.norm(dim=-1)).mean(),
        "relative_reconstruction_bias": out.square().sum() / (out * y).sum(),
        "l0": (acts > 0).sum(-1).double().mean(),
        "l1": acts.sum(-1).mean(),
        "dead": ((acts > 0).sum(0) == 0).double().mean(),
        **{f"ce_{name}": value for name, value in ce.items()},
        "ce_recovered_zero": (ce["zero"] - ce["spliced"]) / (ce["zero"] - ce["original"]),
        "ce_recovered_mean": (ce["mean"] - ce["spliced"]) / (ce["mean"] - ce["original"]),
        "kl": s["kl"].mean(),
        "top1_agreement": s["agree"].mean(),
    }
    assert found.tokens == len(y) == 700
    assert found.predictions == len(s["original"])
    for name, value in want.items():
        assert found.value(name) == pytest.approx(float(value), rel=1e-9, abs=1e-12), name


def test_the_batch_changes_nothing(demo, corpus, partial, found):
    other = evaluate(
        partial, demo, corpus, tokens=700, batch=1, controls=False, progress=False, packing="padded"
    )
    for metric in found.metrics:
        a, b = found.interval(metric), other.interval(metric)
        for x, y in ((a.mean, b.mean), (a.low, b.low)):
            assert float(x) == pytest.approx(float(y), rel=1e-9, abs=1e-12, nan_ok=True), metric
    assert other.provenance.prompts_hash == found.provenance.prompts_hash
    torch.testing.assert_close(found.density(), other.density())


def test_null_controls_score_as_nulls_do(found):
    assert found.value("fvu") < 0.2
    assert found.value("ce_recovered_mean") > 0.9
    assert found.value("fvu", of="permuted") > 0.9
    assert found.value("fvu", of="random_model") > 0.9
    assert found.value("fvu", of="random_dictionary") > found.value("fvu") + 0.3
    assert found.value("ce_recovered_mean", of="permuted") < 0
    assert found.value("ce_recovered_mean", of="random_dictionary") < 0.8
    assert found.value("l0", of="random_dictionary") == pytest.approx(found.value("l0"), rel=0.1)
    chance = math.log(835)
    assert found.value("ce_original", of="random_model") == pytest.approx(chance, abs=0.3)
    assert found.value("ce_zero", of="permuted") == found.value("ce_zero")


def test_an_interval_covers_its_value_and_narrows(demo, corpus, found):
    one = found.interval("ce_spliced")
    assert float(one.low) < float(one.mean) < float(one.high)
    less = evaluate(
        built.zero(SITE, D), demo, corpus, tokens=150, batch=2, controls=False, progress=False
    ).interval("ce_original")
    more = found.interval("ce_original")
    assert float(more.high - more.low) < float(less.high - less.low)


def test_an_identity_loses_nothing(demo, corpus):
    found = evaluate(
        built.identity(SITE, D), demo, corpus, tokens=300, batch=4, controls=False, progress=False
    )
    exact = {
        "fvu": 0, "explained_variance": 1, "mse": 0, "relative_l2": 0, "cosine": 1, "norm_ratio": 1,
        "relative_reconstruction_bias": 1, "l0": D, "dead": 0, "ce_recovered_zero": 1, "kl": 0,
        "top1_agreement": 1,
    }  # fmt: skip
    for metric, value in exact.items():
        assert found.value(metric) == pytest.approx(value, abs=1e-9), metric
    assert found.variants == ("value",)


def test_a_dictionary_without_features_is_an_ablation(demo, corpus):
    mean = torch.full((D,), 0.1, dtype=torch.float64)
    found = evaluate(
        {"nothing": built.zero(SITE, D), "bias": built.zero(SITE, D, mean)},
        demo, corpus, tokens=300, batch=4, controls=False, progress=False,
    )  # fmt: skip
    assert found.value("ce_spliced", "nothing") == pytest.approx(found.value("ce_zero"), abs=1e-12)
    assert found.value("ce_recovered_zero", "nothing") == pytest.approx(0, abs=1e-12)
    assert found.value("fvu", "nothing") >= 1
    assert found.value("dead", "bias") == 1
    assert found.value("l0", "bias") == 0
    assert math.isnan(found.value("relative_reconstruction_bias", "nothing"))
    assert found.rows == ("nothing", "bias")  # both write to one site
    assert any("several dictionaries write to one site" in note for note in found.notes)


def test_together_and_by_part(demo, corpus, tmp_path):
    crossing = built.random("cross_layer_transcoder", range(1, 3), D, 30)
    first = built.random("skip_transcoder", range(0, 1), D, 50)
    found = evaluate([crossing, first], demo, corpus, tokens=120, batch=2, progress=False)
    name = crossing.spec.name
    assert found.rows == (
        name,
        f"{name} L1.mlp_out",
        f"{name} L2.mlp_out",
        first.spec.name,
        "together",
    )
    assert found.sites[-1] == "L1.mlp, L2.mlp, L0.mlp"
    mse = [found.value("mse", i) for i in range(5)]
    assert mse[0] == pytest.approx((mse[1] + mse[2]) / 2)
    assert mse[4] == pytest.approx((mse[1] + mse[2] + mse[3]) / 3)
    assert found.value("l0", 4) == pytest.approx(found.value("l0", 0) + found.value("l0", 3))
    assert math.isnan(found.value("ce_spliced", 1))
    assert found.value("ce_zero", 4) != found.value("ce_zero", 0)
    with demo.replaced(
        [crossing, first]
    ) as model:  # special tokens replaced too: as evaluated here
        batch = model.batch(list(corpus.documents())[:1])
        want = model.run(batch).logits[0].log_softmax(-1)
        loss = -want[:-1].gather(-1, batch.ids[0, 1:, None]).mean()
    texts = list(corpus.documents())[:2]
    whole = evaluate(
        [crossing, first], demo, texts, tokens=None, special=True, controls=False, progress=False
    )
    assert whole.value("ce_spliced", "together") == pytest.approx(float(loss), rel=1e-9)
    assert [len(found.density(i)) for i in range(3)] == [30, 30, 50]

    again = Evaluation.load(found.save(tmp_path / "found.safetensors"))
    assert again.to_frame().equals(found.to_frame())
    assert again.notes == found.notes
    frame = found.to_frame()
    assert list(frame.columns) == [
        "dictionary", "site", "metric", "unit", "value", "low", "high", "permuted", "random_model",
        "random_dictionary",
    ]  # fmt: skip
    assert set(frame[frame.dictionary == found.rows[1]].metric) == set(found.metrics[:12])
    assert found.table().shape == (5, 2 + len(found.metrics))
    left, _ = found.plot().axes
    named = [text.get_text() for text in left.get_legend().get_texts()]
    assert named[0].startswith("L1.mlp_out, ")  # whose part it is stands in the title
    assert "together: FVU" in repr(found)


def test_the_words_for_a_dictionary_of_several_parts_are_about_the_whole(demo, corpus):
    crossing = built.random("cross_layer_transcoder", range(1, 3), D, 30)
    found = evaluate(crossing, demo, corpus, tokens=60, batch=2, controls=False, progress=False)
    assert repr(found).startswith(f"Evaluation({crossing.spec.name}: FVU")
    assert "nan →" not in repr(found)


def test_no_gap_no_share(demo, corpus):
    found = evaluate(
        built.identity("L3.mlp_out", D),
        demo,
        corpus,
        tokens=400,
        batch=4,
        controls=False,
        progress=False,
    )
    assert math.isnan(found.value("ce_recovered_zero"))
    assert any(note.startswith("ce_recovered_zero is not a number") for note in found.notes)


def test_the_twin_has_nothing_to_recover(found):
    assert (
        abs(
            found.value("ce_zero", of="random_model")
            - found.value("ce_original", of="random_model")
        )
        < 0.1
    )
    for metric in ("ce_recovered_zero", "ce_recovered_mean"):
        assert math.isnan(found.value(metric, of="random_model"))
        assert math.isfinite(found.value(metric))
    (note,) = (n for n in found.notes if "uniform guess" in n)
    assert note.startswith("ce_recovered is not a number in the control 'random_model'")


def test_the_same_seed_gives_the_same_numbers(demo, corpus, partial):
    a, b, c = (
        evaluate(partial, demo, corpus, tokens=60, batch=2, seed=seed, progress=False).values
        for seed in (0, 0, 1)
    )
    assert torch.equal(a.nan_to_num(), b.nan_to_num())
    assert torch.equal(a[..., 0].nan_to_num(), c[..., 0].nan_to_num())
    assert not torch.equal(a[..., 1].nan_to_num(), c[..., 1].nan_to_num())


@pytest.mark.parametrize("family", ["gpt2", "gemma2", "bloom", "falcon", "granite"])
def test_an_identity_loses_nothing_in_any_family(family):
    """Norms after the MLP, parallel blocks, multipliers, and one that cannot pack texts."""
    model = interp.load(build(family).double(), check=False)
    ids = torch.randint(3, 110, (12, 20), generator=torch.Generator().manual_seed(0))
    sites = [f"L{n}.mlp_out" for n in range(2)]
    found = evaluate(
        [built.identity(site, 32) for site in sites], model, ids, context=20, batch=4, tokens=150,
        controls=False, progress=False,
    )  # fmt: skip
    assert found.value("ce_spliced", "together") == pytest.approx(found.value("ce_original"))
    assert found.value("kl", "together") == pytest.approx(0, abs=1e-9)
    assert found.value("ce_zero", "together") != pytest.approx(found.value("ce_original"))


def test_interrupted_it_says_so(demo, corpus, monkeypatch):
    from interp.evaluation import verb

    run, calls = verb.run_batch, []

    def stopping(*args, **options):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        run(*args, **options)

    monkeypatch.setattr(verb, "run_batch", stopping)
    with pytest.warns(UserWarning, match="interrupted: this evaluation is of the first"):
        found = evaluate(built.zero(SITE, D), demo, corpus, batch=1, controls=False, progress=False)
    assert found.tokens < 256
    assert math.isfinite(found.value("ce_spliced"))


def test_cost_is_said_before(demo, corpus, capsys):
    evaluate(built.zero(SITE, D), demo, corpus, tokens=100, batch=2, controls=False)
    said = capsys.readouterr().err
    assert "evaluate sae-L2.mlp_out in 'demo'" in said
    assert "100 tokens of" in said
    assert "1 batches × 4 runs" in said
    assert "of 100 tokens a feature active in 10⁻⁴ or less is one" in said


def test_texts_that_were_trained_on_are_not_held_out(demo, corpus):
    plain = built.zero(SITE, D)
    spec = replace(plain.spec, metadata={"corpus": dict(corpus.identity)})
    seen = Dictionary.of(spec, plain.state_dict())
    options = {"tokens": 60, "batch": 2, "controls": False, "progress": False}
    notes = evaluate({"new": plain, "seen": seen}, demo, corpus, **options).notes
    assert "scored on the corpus they were trained on, not on held-out texts: seen" in notes
    other = evaluate(seen, demo, list(corpus.documents())[:9], **options).notes
    assert not any("held-out" in note for note in other)


@pytest.mark.bad_input
def test_errors(demo, corpus, found):
    one = built.zero(SITE, D)
    with pytest.raises(DictionaryError, match="no dictionary was given"):
        evaluate([], demo, corpus)
    with pytest.raises(DictionaryError, match="a dict is no dictionary"):
        evaluate([{}], demo, corpus)
    with pytest.raises(DictionaryError, match=r"'L1.mlp_out' names another site"):
        evaluate({"L1.mlp_out": one}, demo, corpus)
    with pytest.raises(CorpusError, match="expected at least two documents"):
        evaluate(one, demo, ["The capital of France is Paris."], progress=False)
    with (
        demo.replaced(built.identity(SITE, D)) as model,
        pytest.raises(DictionaryError, match="has dictionaries in place"),
    ):
        evaluate(one, model, corpus)
    with pytest.raises(ResultError, match=r"no metric 'fvv'.*'fvu'"):
        found.value("fvv")
    with pytest.raises(ResultError, match="row 3; this result has 1"):
        found.value("fvu", 3)
    with pytest.raises(ResultError, match="no features of the variant 'permuted'"):
        found.density(of="permuted")


def test_a_trained_transcoder_beats_its_nulls(corpus):
    """A ReLU transcoder of L0.mlp from a few steps of plain torch."""
    model = interp.load("demo")
    sites = ["L0.mlp.input", "L0.mlp_out"]
    train = interp.stream(model, interp.corpora.demo(60, seed=9), sites, dtype="float32")
    rows = next(iter(train.batches(4000, shuffle=None)))
    x, y = (rows[site] for site in sites)
    scale = y.std()
    draw = torch.Generator().manual_seed(0)
    enc = torch.nn.functional.normalize(torch.randn(384, D, generator=draw), dim=-1) / x.std()
    dec = 0.1 * torch.nn.functional.normalize(torch.randn(384, D, generator=draw), dim=-1)
    weights = [w.requires_grad_() for w in (enc, -(enc @ x.mean(0)), dec, y.mean(0) / scale)]
    adam = torch.optim.Adam(weights, lr=4e-3)
    for _ in range(120):
        pick = torch.randint(len(x), (384,), generator=draw)
        f = (x[pick] @ weights[0].T + weights[1]).relu()
        error = f @ weights[2] + weights[3] - y[pick] / scale
        loss = error.square().mean() + 2e-3 * (f * weights[2].norm(dim=-1)).sum(-1).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    enc, b_enc, dec, b_dec = (w.detach() for w in weights)
    one = built.made(
        "transcoder", tuple(sites[:1]), tuple(sites[1:]), enc, b_enc, dec * scale, b_dec * scale
    )
    found = evaluate(one.float(), model, corpus, tokens=500, batch=8, progress=False)
    assert found.value("fvu") < 0.2
    assert found.value("ce_recovered_mean") > 0.9
    for control in ("permuted", "random_model", "random_dictionary"):
        assert found.value("fvu", of=control) > 0.9
    assert found.value("ce_recovered_mean", of="random_dictionary") < 0.1
