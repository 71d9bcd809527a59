"""``with model.replaced``: what may stand where, how blocks nest, and that all is as before at the end."""

import inspect
import re
import sys

import pytest
import torch

import interp
from interp.dictionaries.spec import DictionarySpec
from interp.errors import DictionaryError, RunError, SiteError
from interp.models import replaced
from tests import tiny
from tests.dictionaries import standing
from tests.engine.cases import state


@pytest.fixture
def model():
    return interp.load(tiny.shared("llama"), check=False)


def whole(model):
    return dict(vars(model)), state(model.hf)


@pytest.mark.parametrize("stop", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("error", [False, True])
def test_everything_is_as_before_at_the_end(model, stop, error):
    ids, before = tiny.tokens(), whole(model)
    logits, digest = model.run(ids).logits, model.weights_hash
    one = standing.transcoder(model, 1)

    def stops(x):
        raise stop

    with pytest.raises(stop), model.replaced(one, error=error) as same:  # noqa: PT012
        assert same is model
        assert len(model.anatomy.splices) == 1
        model.run(ids, edit={"L1.mlp.F3": stops})
    assert whole(model) == before
    with pytest.raises(stop), model.replaced(one, error=error):
        raise stop
    assert whole(model) == before
    assert torch.equal(model.run(ids).logits, logits)
    assert model.weights_hash == digest
    with pytest.raises(SiteError, match="no dictionary is attached"):
        model.run(ids, save="L1.mlp")


def interrupt_at(number, *functions):
    """Ctrl-C before the ``number``-th line that runs in some functions."""
    codes, lines = {inspect.unwrap(f).__code__ for f in functions}, []

    def local(frame, event, arg):
        if event == "line":
            lines.append(frame.f_lineno)
            if len(lines) == number:
                sys.settrace(None)
                raise KeyboardInterrupt
        return local

    sys.settrace(lambda frame, event, arg: local if frame.f_code in codes else None)
    return lines


def test_ctrl_c_at_any_line_leaves_nothing_standing(model):
    before, one, kind = whole(model), standing.transcoder(model, 1), replaced.Replaced
    tracing, stopped = sys.gettrace(), 0
    for number in range(1, 60):
        try:
            interrupt_at(number, kind.__enter__, kind.undo)
            with model.replaced(one):
                pass
        except KeyboardInterrupt:
            stopped += 1
        finally:
            sys.settrace(tracing)
        assert whole(model) == before
    assert 8 < stopped < 50  # every line was tried


def test_blocks_nest_and_end_in_reverse_order(model):
    ids, before = tiny.tokens(), whole(model)
    first, second = standing.transcoder(model, 0), standing.sae(model, "L1.resid_post", seed=1)
    with model.replaced([first, second]):
        together = model.run(ids).logits
    with model.replaced(first):
        alone = model.run(ids).logits
        with model.replaced({"L1.resid_post": second}):
            assert torch.equal(model.run(ids).logits, together)
            other = standing.transcoder(model, 0, seed=5)
            with model.replaced(other):
                assert not torch.equal(model.run(ids).logits, together)
                assert [s.name for s in model.anatomy.splices] == [
                    "sae-L1.resid_post", "transcoder-L0.mlp"]  # fmt: skip
            with model.replaced(first, error=True):  # the same one, in another way
                assert model.sites("L*.mlp.error") == ("L0.mlp.error",)
            with pytest.raises(SiteError):
                model.sites("L*.mlp.error")
            assert torch.equal(model.run(ids).logits, together)
        assert torch.equal(model.run(ids).logits, alone)
    assert whole(model) == before


def test_a_block_stands_once_and_may_stand_again(model):
    before = whole(model)
    block = model.replaced(standing.transcoder(model, 0))
    with block:
        with pytest.raises(DictionaryError, match="stand already"), block:
            pass
        assert len(model.anatomy.splices) == 1
    assert whole(model) == before
    with block:
        assert model.sites("L*.mlp") == ("L0.mlp",)
    outer, inner = model.replaced(standing.transcoder(model, 0)), model.replaced(
        standing.transcoder(model, 1))  # fmt: skip
    outer.__enter__()
    inner.__enter__()
    with pytest.raises(DictionaryError, match=r"1 block\(s\) made inside still stood"):
        outer.undo()
    inner.undo()
    outer.undo()
    assert whole(model) == before


def test_weights_and_dictionaries_may_both_be_edited(model):
    ids, one = tiny.tokens(), standing.transcoder(model, 0)
    digest = model.weights_hash
    with model.replaced(one), model.edited({"L1.W_out": interp.Zero()}):
        inner = model.run(ids).logits
    with model.edited({"L1.W_out": interp.Zero()}), model.replaced(one):
        assert torch.equal(model.run(ids).logits, inner)
    assert model.weights_hash == digest


def test_results_say_what_they_were_measured_on(model):
    one, two = standing.transcoder(model, 0), standing.sae(model, "L1.z")
    digests = [model.weights_hash]

    def look(dictionaries, **options):
        with model.replaced(dictionaries, **options):
            digests.append(model.weights_hash)
            assert model.weights_hash == digests[-1]
            return model.name

    name = model.name
    assert look(one) == f"{name} with transcoder-L0.mlp"
    assert look(one, error=True) == f"{name} with transcoder-L0.mlp+error"
    assert look([one, two]) == f"{name} with transcoder-L0.mlp, sae-L1.z"
    with model.replaced(two), model.replaced(one):
        assert model.weights_hash == digests[-1]  # the same computation
        twin = model.random_twin(check=False)
    assert twin.name == f"{name} (random, seed 0)"
    assert not twin.anatomy.splices
    look(standing.transcoder(model, 0, activation="topk", k=3))
    look(standing.transcoder(model, 0, activation="topk", k=4))
    with torch.no_grad():
        one.parts[0].enc[0, 0] += 1
    look(one)
    assert len(set(digests)) == len(digests)
    assert model.weights_hash == digests[0]


def test_dictionaries_are_given_in_three_ways(model):
    ids, one = tiny.tokens(), standing.transcoder(model, 1)
    sae = standing.sae(model, "L2.resid_pre")
    found = []
    for given in ([one, sae], (d for d in (one, sae)), {"L1.mlp": one, "L2.resid_pre": sae},
                  {"L1.mlp_out": one, "L2.resid_pre.features": sae},
                  {interp.Site.parse("L1.mlp"): one, "blocks.2.hook_resid_pre": sae}):  # fmt: skip
        with model.replaced(given):
            found.append(model.run(ids).logits)
    assert all(torch.equal(logits, found[0]) for logits in found)
    crossing = standing.crossing(model)
    for key in ("L*.mlp", "L0-2.mlp", "L*.mlp_out"):
        with model.replaced({key: crossing}):
            assert model.sites("L*.mlp") == ("L0.mlp", "L1.mlp", "L2.mlp")


def refuse(model, given, text, error=DictionaryError):
    before = whole(model)
    with pytest.raises(error, match=text), model.replaced(given):
        pass
    assert whole(model) == before


def test_what_does_not_fit_is_refused_with_what_would(model):
    one, sae = standing.transcoder(model, 1), standing.sae(model, "L1.resid_post")
    key = "is not the site of this transcoder, which reads L1.mlp.input and writes L1.mlp_out"
    refuse(model, {"L2.mlp": one}, re.escape(f"'L2.mlp' {key}: its key is 'L1.mlp'"))
    refuse(model, {"L1.mlp.input": one}, key)
    refuse(model, {"L*.mlp": one}, key)
    refuse(model, {"L2.resid_post": sae}, "is not the site of this sae")
    refuse(model, {"L1.mlp": standing.crossing(model)}, "its key is 'L0.mlp to L2.mlp'")
    refuse(model, {"L1.mlpp": one}, "nearest: 'L1.mlp'", SiteError)
    refuse(model, [], "no dictionary")
    refuse(model, {}, "no dictionary")
    refuse(model, [one, standing.transcoder(model, 1, seed=2)], "two dictionaries meet at L1.mlp")
    refuse(model, [one, standing.crossing(model)], "two dictionaries meet at L1.mlp")
    with model.replaced(standing.crossing(model)):
        refuse(model, one, "has sites that the new one has not: end it first")


@pytest.mark.bad_input
def test_what_is_no_dictionary_is_refused_in_words(model):
    refuse(model, "L1.mlp", "got a str")
    refuse(model, {"L1.mlp": 3}, "got a int; expected a Dictionary")
    with pytest.raises(DictionaryError, match="error='yes'; expected True"):
        model.replaced(standing.transcoder(model, 1), error="yes")


def spec(kind, reads, writes, d_in=32, d_out=32):
    return standing.random(DictionarySpec(kind, (reads,), (writes,), d_in, d_out, 8, "relu"))


@pytest.mark.parametrize(("kind", "reads", "writes", "d_in", "error", "text"), [
    ("sae", "L1.resid_post", "L1.resid_post", 16, DictionaryError, "reads 16 numbers at 'L1.resid_post', "
     "and this model has 32"),
    ("transcoder", "L1.mlp_post", "L1.mlp_out", 32, DictionaryError, "this model has 64"),
    ("sae", "L9.resid_post", "L9.resid_post", 32, SiteError, "layer 9 is out of range"),
    ("sae", "L1.q", "L1.q", 32, DictionaryError, "dictionaries stand at whole tensors"),
    ("sae", "L1.H2.z", "L1.H2.z", 8, DictionaryError, "dictionaries stand at whole tensors"),
    ("sae", "L*.z", "L*.z", 32, DictionaryError, "dictionaries stand at whole tensors"),
    ("transcoder", "L1.resid_post", "L1.mlp_out", 32, DictionaryError, "which a run computes earlier"),
    ("transcoder", "L2.mlp.input", "L1.mlp_out", 32, DictionaryError, "which a run computes earlier"),
])  # fmt: skip
def test_dictionaries_of_other_models_are_refused(model, kind, reads, writes, d_in, error, text):
    d_out = d_in if kind == "sae" else 32
    refuse(model, spec(kind, reads, writes, d_in, d_out), text, error)


def test_sites_that_a_family_lacks_are_refused_with_its_reason():
    model = interp.load(tiny.shared("mixtral"), check=False)
    refuse(
        model, spec("sae", "L1.mlp_post", "L1.mlp_post", 64, 64), "mixture of experts", SiteError
    )
    model = interp.load(tiny.shared("olmo2"), check=False)
    refuse(
        model, spec("transcoder", "L1.ln2.normalized", "L1.mlp_out"), "normalises what", SiteError
    )
    model = interp.load(tiny.shared("gpt_neox"), check=False)
    refuse(model, spec("sae", "L1.resid_mid", "L1.resid_mid"), "run in parallel", SiteError)


def test_transcoders_of_other_branches_show_their_features_where_they_read(model):
    ids, one = tiny.tokens(), spec("transcoder", "L1.attn.input", "L1.attn_out")
    x = model.run(ids, save="L1.attn.input").cache["L1.attn.input"]
    want = model.run(ids, edit={"L1.attn_out": interp.Replace(one(x))}).logits
    with model.replaced({"L1.attn_out": one}):
        run = model.run(ids, save="L1.attn.input.features")
    torch.testing.assert_close(run.logits, want)
    torch.testing.assert_close(run.cache["L1.attn.input.features"], one.encode(x))
    early = spec("transcoder", "L0.resid_pre", "L2.mlp_out")  # from one block to another
    with model.replaced(early, error=True):
        logits = model.run(ids, save=["L2.mlp.F3", "L2.mlp.error"]).logits
    assert torch.equal(logits, model.run(ids).logits)


def test_a_model_is_not_run_inside_its_own_run(model):
    with model.replaced(standing.transcoder(model, 0)):

        def runs(x):
            model.run(tiny.tokens())
            return x

        with pytest.raises(RunError, match="a run of this model is under way"):
            model.run(tiny.tokens(), edit={"L0.mlp.F1": runs})


def test_the_demo_model_runs_with_dictionaries_in_all_its_layers():
    demo = interp.load("demo", check=False)
    pairs = demo.prompts("The capital of France is", "The capital of Japan is")
    layers = range(demo.n_layers)
    transcoders = [standing.transcoder(demo, n, seed=n, activation="topk", k=8) for n in layers]
    plain = demo.run(pairs).logits
    with demo.replaced(transcoders, error=True):
        assert torch.equal(demo.run(pairs).logits, plain)
        active = demo.run(pairs, save="all").cache["L*.mlp"] > 0
        assert 0 < int(active.sum(-1).max()) <= 8
        got = interp.patch(demo, pairs, "L*.mlp.error", positions=-1, progress=False)
        assert got.values.shape == (demo.n_layers,)
    with demo.replaced([standing.identical(demo, f"L{n}.resid_post") for n in layers]):
        torch.testing.assert_close(demo.run(pairs).logits, plain, rtol=1e-5, atol=1e-4)
    with demo.replaced(standing.crossing(demo), error=True):
        assert torch.equal(demo.run(pairs).logits, plain)
