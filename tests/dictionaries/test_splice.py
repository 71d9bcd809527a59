"""Dictionaries in the run: nothing changes where nothing should, and what does is what was asked."""

import pytest
import torch

import interp
from interp.token_batch import TokenBatch
from tests import tiny
from tests.dictionaries import standing

FAMILIES = (
    "gpt2", "gpt_neox", "llama", "gemma2", "olmo2", "mixtral", "granite", "phi", "opt", "bloom",
    "falcon", "gpt_neo",
)  # fmt: skip
MODELS = {}


def load(family):
    if family not in MODELS:
        MODELS[family] = interp.load(tiny.shared(family))
    return MODELS[family]


def close(a, b, tolerance=1e-5):
    off, size = float((a - b).abs().max()), float(b.abs().max())
    assert off <= tolerance * max(1.0, size)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_unedited_run_with_error_nodes_is_the_models_own_to_the_bit(family):
    model, ids = load(family), tiny.tokens()
    ragged = TokenBatch.stack([ids[0].tolist(), ids[1, :6].tolist()], pad="left")
    every = standing.everywhere(model, standing.sae)
    everything = [*every, standing.transcoder(model, 1, kind="skip_transcoder")]
    for given in (ids, ragged):
        plain, bare = model.run(given, grad=True).logits, model.run(given, save="all")
        shown = bare.logits
        with model.replaced(everything, error=True):
            assert torch.equal(model.run(given).logits, plain)
            seen = model.run(given, save="all")
            assert torch.equal(seen.logits, shown)
            assert torch.equal(model.run(given, grad=True).logits, plain)
            assert torch.equal(model.run(given, grad=True, save="all").logits, shown)
    same = {site: lambda x: x.clone() for site in seen.cache if "mlp" in site or "features" in site}
    with model.replaced(everything, error=True):
        assert torch.equal(model.run(ragged, edit=same).logits, plain)
    for site in standing.hosts(model):
        x = bare.cache[f"L1.{site}"]
        one = next(d for d in every if d.spec.reads == (f"L1.{site}",))
        flat = x.flatten(2)
        close(seen.cache[f"L1.{site}.features"], one.encode(flat))
        close(seen.cache[f"L1.{site}.error"].flatten(2), flat - one(flat))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_dictionary_that_loses_nothing_changes_nothing_anywhere(family):
    model, ids = load(family), tiny.tokens()
    plain = model.run(ids).logits
    for point in standing.hosts(model):
        every = [standing.identical(model, f"L{n}.{point}") for n in range(model.n_layers)]
        with model.replaced(every):
            close(model.run(ids).logits, plain)
    with model.replaced(standing.everywhere(model, standing.identical)):
        close(model.run(ids).logits, plain)


@pytest.mark.parametrize("family", FAMILIES)
def test_each_replacement_is_the_substitution_by_hand(family):
    model, ids = load(family), tiny.tokens()
    for number, point in enumerate(standing.hosts(model)):
        site = f"L1.{point}"
        one = standing.sae(model, site, seed=number, normalise="layer_norm", centre=True)
        x = model.run(ids, save=site).cache[site]
        by_hand = one(x.flatten(2)).view(x.shape)
        with model.replaced({site: one}):
            run = model.run(ids, save=site)
        close(run.cache[site], by_hand)
        close(run.logits, model.run(ids, edit={site: interp.Replace(by_hand)}).logits)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", ["transcoder", "skip_transcoder"])
def test_transcoders_in_two_layers_and_an_sae_are_the_substitutions_by_hand(family, kind):
    model, ids = load(family), tiny.tokens()
    reads = "mlp.input" if "ln2.normalized" in model.anatomy.refused else "ln2.normalized"
    first = standing.transcoder(model, 0, kind=kind, reads=reads)
    second = standing.transcoder(model, 1, kind=kind, seed=1, activation="topk", k=5)
    third = standing.sae(model, "L1.resid_post", seed=2, activation="jumprelu")
    edit = {}
    for site, writes, one in (
        (f"L0.{reads}", "L0.mlp_out", first), ("L1.mlp.input", "L1.mlp_out", second),
        ("L1.resid_post", "L1.resid_post", third),
    ):  # fmt: skip
        x = model.run(ids, save=site, edit=edit).cache[site]
        edit[writes] = interp.Replace(one(x))
    want = model.run(ids, edit=edit).logits
    together = {"L1.resid_post": third, "L0.mlp": first, "L1.mlp_out": second}
    with model.replaced(together):
        close(model.run(ids).logits, want)
        close(model.run(ids, batch=1).logits, want)
        close(model.run(ids, logits="last").logits[:, 0], want[:, -1])


@pytest.mark.parametrize("family", FAMILIES)
def test_one_feature_less_is_its_decoders_row_less(family):
    model, ids = load(family), tiny.tokens()
    one = standing.transcoder(model, 1)
    with model.replaced(one):
        run = model.run(ids, save="L1.mlp")
        feature = int(run.cache["L1.mlp"].sum((0, 1)).argmax())
        less = -run.cache["L1.mlp"][..., feature, None] * one.W_dec[feature]
        want = model.run(ids, edit={"L1.mlp_out": interp.Add(less)}).logits
        got = model.run(ids, edit={f"L1.mlp.F{feature}": interp.Zero()}).logits
        close(got, want)
        assert not torch.equal(got, run.logits)
    want = model.run(ids, edit={"L1.mlp_out": interp.Add(less)}).logits
    with model.replaced(one, error=True):
        got = model.run(ids, edit={f"L1.mlp.F{feature}": interp.Zero()}).logits
        close(got, want)
        at = model.run(ids, edit={f"L1.mlp.F{feature}@3": interp.Zero()}).logits
    assert torch.equal(at[:, :3], model.run(ids).logits[:, :3])
    alone = torch.zeros_like(less)
    alone[:, 3] = less[:, 3]
    close(at, model.run(ids, edit={"L1.mlp_out": interp.Add(alone)}).logits)


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "gemma2", "granite"])
@pytest.mark.parametrize("error", [False, True])
def test_a_cross_layer_transcoder_is_the_computation_by_hand(family, error):
    model, ids = load(family), tiny.tokens()
    one, edit, features = standing.crossing(model), {}, []

    def by_hand(zeroed=None):
        edit.clear()
        features.clear()
        for n in range(model.n_layers):
            run = model.run(ids, save=[f"L{n}.mlp.input", f"L{n}.mlp_out"], edit=edit)
            own = (run.cache[f"L{n}.mlp.input"] @ one.parts[n].enc.T + one.parts[n].b_enc).relu()
            features.append([own, own.clone()])
            if n == 0 and zeroed is not None:
                features[0][1][..., zeroed] = 0
            old, new = (
                one.b_dec[n * 32 : n * 32 + 32]
                + sum(features[m][i] @ one.parts[m].dec[:, (n - m) * 32 : (n - m) * 32 + 32]
                      for m in range(n + 1))
                for i in (0, 1)
            )  # fmt: skip
            x = run.cache[f"L{n}.mlp_out"]
            edit[f"L{n}.mlp_out"] = interp.Replace(x - old + new if error else new)
        return model.run(ids, edit=edit).logits

    for zeroed in (None, 4):
        want = by_hand(zeroed)
        edits = {} if zeroed is None else {f"L0.mlp.F{zeroed}": interp.Zero()}
        with model.replaced({"L*.mlp": one}, error=error):
            run = model.run(ids, edit=edits, save="L*.mlp")
        close(run.logits, want)
        close(run.cache["L2.mlp"], features[2][1])
        assert run.cache["L*.mlp"].shape == (3, 2, 10, standing.D_SAE)


@pytest.mark.parametrize("family", ["gpt2", "gemma2", "bloom"])
def test_generation_goes_through_the_dictionaries(family):
    model = load(family)
    ids = [row[:n].tolist() for row, n in zip(tiny.tokens(3, 8), (8, 5, 6), strict=True)]
    batch = TokenBatch.stack(ids, pad="left")
    options = {"max_new_tokens": 4, "do_sample": False}
    plain = model.generate(batch, **options)
    ones = [standing.transcoder(model, 0), standing.sae(model, "L2.resid_pre")]
    with model.replaced(ones, error=True):
        assert torch.equal(model.generate(batch, **options), plain)
    for dictionaries in (ones, standing.crossing(model)):
        with model.replaced(dictionaries):
            made = model.generate(batch, **options)
            edit = {"L0.mlp.F0-11": interp.Scale(30.0)}
            steered = model.generate(batch, edit=edit, **options)
            # each token is the top one of a run over all before it
            for number, row in enumerate(ids):
                for out, edits in ((made[number], {}), (steered[number], edit)):
                    full = [*row, *out[8:].tolist()]
                    tops = model.run(torch.tensor([full]), edit=edits).logits[0].argmax(-1)
                    assert tops[len(row) - 1 : -1].tolist() == full[len(row) :]
        assert not torch.equal(made, plain)


def test_packed_rows_and_stops_go_through_them_too():
    model, ids = load("llama"), tiny.tokens()
    with model.replaced([standing.transcoder(model, 0), standing.sae(model, "L1.resid_pre")]):
        whole = model.run(ids, save=["L0.mlp", "L1.resid_pre", "L1.resid_pre.features"]).cache
        part = model.run(ids, save=list(whole), stop_at=1).cache
        early = model.run(ids, save=list(whole), logits="none").cache
        for site in whole:
            assert torch.equal(part[site], whole[site])
            assert torch.equal(early[site], whole[site])
        rows = TokenBatch(
            ids[:1], torch.ones(1, 10, dtype=torch.bool), torch.tensor([[0] * 4 + [1] * 6])
        )
        packed = model.run(rows, save="L0.mlp").cache["L0.mlp"]
        for segment in (slice(0, 4), slice(4, 10)):
            alone = model.run(ids[:1, segment], save="L0.mlp").cache["L0.mlp"]
            close(packed[:, segment], alone)


def test_what_stands_at_one_site_has_an_order_of_its_own():
    model, ids = load("gpt2"), tiny.tokens()
    site, out = "L1.mlp.input", "L1.mlp_out"
    first, second = standing.sae(model, site), standing.transcoder(model, 1, seed=1)
    third = standing.sae(model, out, seed=2)
    x = model.run(ids, save=site).cache[site]
    want = third(second(first(x) + 1) * 2)
    for order in ([first, second, third], [third, second, first]):
        with model.replaced(order):
            run = model.run(
                ids, save=[site, out, "L1.mlp"],
                edit={site: interp.Add(1.0), "L1.mlp.F*": lambda x: x, out: interp.Add(3.0)},
            )  # fmt: skip
            close(run.cache[site], first(x) + 1)
            close(run.cache["L1.mlp"], second.encode(first(x) + 1))
            close(run.cache[out], third(second(first(x) + 1)) + 3)
    assert want.isfinite().all()


def test_half_precision_models_keep_their_dtype():
    model = interp.load(tiny.build("llama").to(torch.bfloat16), check=False)
    ids, plain = tiny.tokens(), None
    plain = model.run(ids).logits
    ones = [standing.transcoder(model, 0), standing.sae(model, "L1.z", seed=1)]
    with model.replaced(ones, error=True):
        run = model.run(ids, save=["L0.mlp", "L0.mlp_out", "L1.z.error"])
        assert torch.equal(run.logits, plain)
        dtypes = [x.dtype for x in map(run.cache.__getitem__, run.cache)]
    assert dtypes == [torch.float32, torch.bfloat16, torch.float32]
    with model.replaced(ones):
        assert model.run(ids).logits.dtype == torch.bfloat16
