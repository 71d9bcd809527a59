"""What was planted is found: tokens, logits, neighbours, frequencies."""

import pytest
import torch

import interp
from interp.dictionaries.dictionary import Dictionary
from interp.dictionaries.spec import DictionarySpec
from interp.errors import DictionaryError, ResultError, RunError, SiteError
from interp.inspection import Features, features
from interp.runs.edits import Zero
from interp.store.rows import Rows
from interp.token_batch import TokenBatch
from tests.inspection.conftest import ALWAYS, DEAD, FRANCE, PARIS, TWIN, transcoder, whole_rows


def test_a_feature_that_reads_france_shows_france(found, model, rows):
    one = found.feature(FRANCE)
    france = model.to_single_token(" France")
    documents = {int(d) for part in rows for d in part.document[part.tokens == france]}
    assert {p.document for p in one.top} == documents
    assert [p.words[p.centre] for p in one.top] == [" France"] * len(documents)
    assert int(found.count[FRANCE]) == sum(int((part.tokens == france).sum()) for part in rows)
    assert one.token == " France"
    assert float(found.concentration[FRANCE]) == 1.0
    assert one.embedding[0][0] == " France"
    assert found.feature("F0").name == "F0"


def test_what_a_feature_writes_tops_its_logits(found):
    assert found.feature(PARIS).raises[0][0] == " Paris"
    effects = found.feature(PARIS).raises
    assert [value for _, value in effects] == sorted((v for _, v in effects), reverse=True)
    assert bool(found.beyond_random(0.9)[PARIS])


def test_neighbours_are_those_planted(found):
    one = found.feature(FRANCE)
    assert one.near("enc")[0][0] == one.near("dec")[0][0] == one.fires_with[0][0] == "F1"
    assert one.near("dec")[0][1] == pytest.approx(1.0)
    assert 0.9 < one.near("enc")[0][1] < 1.0
    assert one.fires_with[0][1] > 0.95
    assert found.feature(DEAD).fires_with == ()
    assert all(name != "F3" for name, _ in one.fires_with)


def test_frequencies_means_and_maxima_are_a_direct_count(found, planted, rows):
    x = torch.cat([part["L0.mlp.input"] for part in rows])
    acts = planted.encode(x)
    assert found.count.tolist() == (acts > 0).sum(0).tolist()
    assert torch.allclose(found.frequency, (acts > 0).double().mean(0))
    assert torch.allclose(found.most, acts.amax(0), rtol=1e-5)
    active = acts.double().sum(0) / (acts > 0).sum(0).clamp(min=1)
    assert torch.allclose(found.mean.double(), active, rtol=1e-5)
    assert found.counts.sum(1).tolist() == found.count.tolist()
    assert found.live == 4
    assert (int(found.count[DEAD]), int(found.count[ALWAYS])) == (0, 20_000)


def test_correlation_is_pearsons(found, planted, rows):
    x = torch.cat([part["L0.mlp.input"] for part in rows])
    r = planted.encode(x).double()[:, [FRANCE, TWIN, PARIS, ALWAYS]].T.corrcoef()
    told = dict(found.feature(FRANCE).fires_with)
    for i, name in ((1, "F1"), (2, "F2"), (3, "F4")):
        assert told[name] == pytest.approx(float(r[0, i]), abs=1e-4)


def test_de_embedding_is_the_pre_activation_of_a_token_alone(model, planted, found):
    """Attention silenced, the stream holds the embedding; so the number is exact, not a likeness."""
    ids = found.embed_top_ids[FRANCE]
    run = model.run(TokenBatch.of(ids[:, None]), save="L0.mlp.input", edit={"L0.attn_out": Zero()})
    alone = planted.parts[0].pre(run.cache["L0.mlp.input"][:, 0])[:, FRANCE]
    expected = alone - planted.b_enc[FRANCE]
    assert torch.allclose(found.embed_top[FRANCE], expected, rtol=1e-4)


def test_logit_effects_are_the_decoder_through_the_folded_unembedding(model, planted, found):
    norm = model.anatomy.ln_final
    row = planted.W_dec[FRANCE]
    logits = ((row - row.mean()) * norm.weight) @ model.W_U
    logits = logits - logits.mean()
    assert torch.allclose(found.logit_top[FRANCE], logits.topk(10).values, atol=1e-5)
    assert torch.allclose(found.logit_bottom[FRANCE], -(-logits).topk(10).values, atol=1e-5)


def test_examples_of_an_interval_lie_in_it(found):
    for one in found:
        for low, high, passages in one.sampled:
            values = [p.values[p.centre] for p in passages]
            assert all(low * 0.9999 < value <= high * 1.0001 for value in values)
            places = [(p.document, p.position) for p in passages]
            assert len(set(places)) == len(places)
    assert found.feature(DEAD).top == ()
    assert found.feature(DEAD).token is None


def test_results_do_not_depend_on_how_rows_are_cut(gpt2):
    dictionary, rows = transcoder(gpt2), whole_rows(gpt2)
    whole = features(dictionary, gpt2, [rows], k=6, sampled=3)
    x = dictionary.encode(rows["L0.mlp.input"])
    top = [sorted(x[:, f][x[:, f] > 0].tolist(), reverse=True) for f in range(12)]
    assert 2 < len(top[0]) < 500
    for lengths in ([1] * 200 + [700], [7, 300, 593]):
        parts = torch.arange(900).split(lengths)
        cut = features(dictionary, gpt2, [rows.take(part) for part in parts], k=6, sampled=3)
        for name, value in vars(whole).items():
            if isinstance(value, torch.Tensor):
                assert torch.equal(value.nan_to_num(-9), getattr(cut, name).nan_to_num(-9)), name
        assert cut.provenance.prompts_hash == whole.provenance.prompts_hash
    assert whole.most.tolist() == [values[0] if values else 0 for values in top]


def test_top_examples_are_one_sort_of_everything(gpt2):
    dictionary, rows = transcoder(gpt2), whole_rows(gpt2)
    found = features(dictionary, gpt2, rows, k=6, context=(3, 2))
    x = dictionary.encode(rows["L0.mlp.input"])
    for unit in range(12):
        best: dict[int, tuple[float, int]] = {}
        for row in range(900):
            value, document = float(x[row, unit]), int(rows.document[row])
            if value > best.get(document, (0.0, 0))[0]:
                best[document] = (value, row)
        order = sorted(best.values(), key=lambda pair: (-pair[0], pair[1]))[:6]
        shown = found.feature(unit).top
        assert [p.values[p.centre] for p in shown] == [value for value, _ in order]
        for passage, (_, row) in zip(shown, order, strict=True):
            around = [
                i for i in range(row - 3, row + 3)
                if 0 <= i < 900 and rows.document[i] == rows.document[row]
            ]  # fmt: skip
            assert list(passage.ids) == rows.tokens[around].tolist()
            assert list(passage.values) == x[around, unit].tolist()


@pytest.mark.parametrize(("activation", "options"), [
    ("topk", {"k": 3}), ("batchtopk", {"k": 4}), ("jumprelu", {}), ("gated", {}),
])  # fmt: skip
def test_some_features_alone_are_as_among_all(gpt2, activation, options):
    dictionary = transcoder(gpt2, activation=activation, seed=3, **options)
    rows = whole_rows(gpt2)
    every = features(dictionary, gpt2, rows, k=4)
    some = features(dictionary, gpt2, rows, which=[7, "L0.mlp.F2"], k=4)
    assert some.names == ("F7", "F2")
    assert [one.site for one in some] == ["L0.mlp.F7", "L0.mlp.F2"]
    assert some.live is None
    for name in ("count", "most", "mean", "counts", "tokens", "document", "logit_top", "dec_near"):
        assert torch.allclose(getattr(some, name), getattr(every, name)[[7, 2]], atol=1e-5), name
    assert torch.equal(some.values.nan_to_num(-1), every.values[[7, 2]].nan_to_num(-1))


def test_which_features(planted, model, rows):
    few = {"k": 2, "controls": 4, "sampled": 0}
    live = features(planted, model, rows, which="live", **few)
    assert live.names == ("F0", "F1", "F2", "F4")
    drawn = [features(planted, model, rows, which=2, seed=seed, **few).names for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert all(len(names) == 2 and "F3" not in names for names in drawn)


def test_a_corpus_a_stream_and_a_store_give_the_same(planted, model, tmp_path):
    store = interp.harvest(model, "demo", ["L0.mlp.input"], tmp_path / "store", dtype="float32",
                           tokens=2000)  # fmt: skip
    stream = interp.stream(model, "demo", ["L0.mlp.input"], tokens=2000)
    found = [features(planted, model, source, tokens=2000, k=3, controls=4)
             for source in ("demo", stream, store)]  # fmt: skip
    for other in found[1:]:
        assert torch.equal(other.tokens, found[0].tokens)
        assert torch.equal(other.count, found[0].count)
        assert other.provenance.prompts_hash == found[0].provenance.prompts_hash
        assert other.provenance.call["corpus"] == found[0].provenance.call["corpus"]


def crossing(model):
    generator = torch.Generator().manual_seed(0)
    spec = DictionarySpec(
        "cross_layer_transcoder", ("L0.mlp.input", "L1.mlp.input"), ("L0.mlp_out", "L1.mlp_out"),
        model.d_model, model.d_model, 6, "relu",
    )  # fmt: skip
    tensors = {name: torch.randn(x.shape, generator=generator)
               for name, x in Dictionary(spec).state_dict().items()}  # fmt: skip
    return Dictionary.of(spec, tensors)


def test_features_of_a_cross_layer_transcoder_are_named_by_layer(gpt2):
    dictionary = crossing(gpt2)
    one, two = whole_rows(gpt2), whole_rows(gpt2, site="L1.mlp.input", seed=1)
    rows = Rows({**one.tensors, **two.tensors}, one.tokens, one.document, one.position)
    found = features(dictionary, gpt2, rows, which=["L1.F2", "L0.F5"], k=3, controls=5)
    assert found.names == ("L0.F5", "L1.F2")
    second = dictionary.encode_part(1, two["L1.mlp.input"])[:, 2]
    assert int(found.count[1]) == int((second > 0).sum())
    assert found.feature("L1.F2").near("enc")[0][0].startswith("L1.F")
    both = dictionary.decoder(0, 0)[5] + dictionary.decoder(0, 1)[5]
    alone = interp.weight_lenses.decode(gpt2, both, top=10)
    assert torch.allclose(found.logit_top[:1], alone.top_logits, atol=1e-4)
    assert len(found.random_concentration) == 6
    with pytest.raises(DictionaryError, match="no feature 2 in this dictionary; expected a number from"
                       " 0 to 5 with its layer, such as 'L0.F5'"):  # fmt: skip
        features(dictionary, gpt2, rows, which=[2])


def test_ends_that_mean_nothing_say_why(gpt2):
    dictionary = transcoder(gpt2, reads="L1.z", writes="L1.z")
    rows = whole_rows(gpt2, site="L1.z")
    found = features(dictionary, gpt2, rows, k=2)
    assert found.logit_top is None
    assert "not part of the residual stream" in found.notes["logits"]
    assert "L1.z is not the residual stream" in found.notes["embed"]
    assert found.feature(0).raises == found.feature(0).embedding == ()
    with pytest.raises(ResultError, match="no logit effects"):
        found.beyond_random()


def test_an_untrained_model_is_a_null_and_is_told(planted, model):
    twin = model.random_twin()
    with pytest.warns(UserWarning, match="trained on demo with other weights"):
        null = features(planted, twin, "demo", tokens=2000, k=5, which=["F0", "F4"])
    assert "France" not in {null.feature("F4").token, null.feature("F0").token}
    assert null.provenance.model != model.name


def test_random_features_look_as_chance_does(model, rows):
    """The null of the null: features of no meaning are not told from random directions."""
    generator = torch.Generator().manual_seed(5)
    d = model.d_model
    spec = DictionarySpec("transcoder", ("L0.mlp.input",), ("L0.mlp_out",), d, d, 200, "relu")
    tensors = {name: torch.randn(x.shape, generator=generator)
               for name, x in Dictionary(spec).state_dict().items()}  # fmt: skip
    null = features(Dictionary.of(spec, tensors), model, rows, k=20, controls=400)
    assert float(null.beyond_random(0.9).float().mean()) == pytest.approx(0.1, abs=0.05)
    own, chance = null.concentration.sort().values, null.random_concentration.sort().values
    apart = (own - torch.quantile(chance, torch.linspace(0, 1, 200))).abs()
    assert float(apart.mean()) < 0.05


def test_saved_and_loaded_are_equal(found, tmp_path):
    again = Features.load(found.save(tmp_path / "features.safetensors"))
    assert repr(again) == repr(found)
    assert again.to_frame().equals(found.to_frame())
    assert repr(again.feature("F0")) == repr(found.feature("F0"))


def test_as_a_table_and_in_words(found):
    frame = found.to_frame()
    assert list(frame.name) == ["F0", "F1", "F2", "F3", "F4"]
    assert frame.token[FRANCE] == frame.embedding[FRANCE] == " France"
    assert frame.raises[PARIS] == " Paris"
    text = repr(found.feature("F0"))
    assert "100% of the strongest are ' France'" in text
    assert "⟦France⟧" in text
    assert "never active in 20,000 tokens" in repr(found.feature(DEAD))
    assert "5 of 5" in repr(found)
    assert "<iframe" in found.feature(0)._repr_html_()


def test_figure(found):
    figure = found.plot("F0")
    titles = [axes.get_title() for sub in figure.subfigs for axes in sub.axes]
    assert titles[0].startswith("F0: active on ")
    assert titles[2:] == ["how it is distributed", "logit effect per unit", "de-embedding"]
    with pytest.raises(ResultError, match="F3 is never active in 20,000 tokens"):
        found.plot(DEAD)


@pytest.mark.bad_input
@pytest.mark.parametrize(("options", "error", "message"), [
    ({"which": [99]}, DictionaryError, "no feature 99 .* from 0 to 4 or a name like 'F4'"),
    ({"which": ["L1.mlp.F2"]}, DictionaryError, "no feature 'L1.mlp.F2'"),
    ({"which": [True]}, DictionaryError, "no feature True"),
    ({"which": [-1]}, DictionaryError, "no feature -1"),
    ({"which": [1, 1]}, DictionaryError, "expected different features"),
    ({"which": []}, DictionaryError, "expected different features"),
    ({"which": "dead"}, DictionaryError, "which='dead'; expected 'live'"),
    ({"which": 0}, DictionaryError, "which=0; expected a number of features from 1 up"),
    ({"k": 0}, RunError, "k=0.*whole numbers from 1 up"),
    ({"context": 5}, RunError, r"context=5; expected .* such as \(10, 5\)"),
    ({"seed": -1}, RunError, "seed=-1"),
])  # fmt: skip
def test_what_cannot_be_asked(planted, model, rows, options, error, message):
    with pytest.raises(error, match=message):
        features(planted, model, rows[:1], **options)


@pytest.mark.bad_input
def test_sources_that_do_not_fit(planted, model, gpt2, rows):
    with pytest.raises(RunError, match="can be read once, and it reads twice"):
        features(planted, model, iter(rows))
    with pytest.raises(SiteError, match="no 'L0.mlp.input'"):
        features(planted, model, whole_rows(model, site="L1.mlp.input"))
    with pytest.raises(
        DictionaryError, match="has 32 numbers for each token; this dictionary reads 192"
    ):
        features(planted, model, whole_rows(gpt2))
    with pytest.raises(DictionaryError, match="got a str and a Model"):
        features("dictionary", model, rows)
    silent = transcoder(gpt2)
    silent.parts[0].b_enc -= 1000
    with pytest.raises(DictionaryError, match="none of 12 features fires in 900 tokens"):
        features(silent, gpt2, whole_rows(gpt2), which="live")


def test_a_feature_that_is_not_there(found):
    with pytest.raises(DictionaryError, match="feature 'F9' is not among these 5"):
        found.feature("F9")


def test_only_the_strongest(planted, model, rows):
    found = features(planted, model, rows, k=3, sampled=0, context=(0, 0), neighbours=9, top=5)
    one = found.feature(FRANCE)
    assert one.sampled == ()
    assert [len(p.ids) for p in one.top] == [1, 1, 1]
    assert len(one.near("dec")) == 4  # there are no more
    assert found.plot(FRANCE) is not None
    assert len(one._repr_html_()) > 1000


def test_cost_is_said_before(planted, model, rows, capsys):
    interp.features(planted, model, rows, tokens=3000, which=["F0", "F1"])
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(
        "features of transcoder-L0.mlp in 'demo': 2 features, two passes over 3,000 "
    )
    interp.features(planted, model, rows, tokens=3000, which=["F0"], progress=False)
    assert capsys.readouterr().err == ""
