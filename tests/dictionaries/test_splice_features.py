"""Features and errors as sites: read, edited, patched, differentiated, refused."""

import pytest
import torch

import interp
from interp.errors import RunError, SiteError
from tests import tiny
from tests.dictionaries import standing
from tests.engine.cases import pairs


@pytest.fixture(scope="module")
def model():
    return interp.load(tiny.shared("gpt2"))


def close(a, b, tolerance=1e-5):
    off, size = float((a - b).abs().max()), float(b.abs().max())
    assert off <= tolerance * max(1.0, size)


def test_slices_positions_and_wildcards_of_features(model):
    ids = tiny.tokens(2, 8)
    ones = [standing.transcoder(model, 0), standing.transcoder(model, 2, seed=1),
            standing.sae(model, "L1.z", seed=2)]  # fmt: skip
    sites = ["L*.mlp", "L0.mlp.F3,5@-1", "L*.mlp.F7", "L1.z.features", "L1.z.F2-4@1", "L1.H2.z.error",
             "L1.z.error", "L2.mlp.error@3", "blocks.1.attn.hook_z.hook_sae_acts_post"]  # fmt: skip
    with model.replaced(ones, error=True):
        cache = model.run(ids, save=sites).cache
        names = model.sites("L*.mlp") + model.sites("L*.z.F2")
        assert {"L0.mlp", "L2.mlp", "L0.mlp.error", "L1.z.features"} <= set(model.sites())
    assert names == ("L0.mlp", "L2.mlp", "L1.z.F2")
    assert cache["L*.mlp"].shape == (2, 2, 8, standing.D_SAE)
    assert "L*.mlp" in cache
    assert "L1.mlp" not in cache
    assert torch.equal(cache["L0.mlp.F3,5@-1"], cache["L0.mlp"][:, -1, [3, 5]])
    assert torch.equal(cache["L2.mlp.F7"], cache["L2.mlp"][..., 7])
    assert torch.equal(cache["L1.z.F2-4@1"], cache["L1.z.features"][:, 1, 2:5])
    assert cache["blocks.1.attn.hook_z.hook_sae_acts_post"] is cache["L1.z.features"]
    assert torch.equal(cache["L1.H2.z.error"], cache["L1.z.error"][:, :, 2])
    assert cache["L2.mlp.error@3"].shape == (2, model.d_model)


def test_edits_see_features_where_each_prompt_has_them(model):
    batch = interp.TokenBatch.stack([[5, 6, 7, 8], [9, 10]], pad="left")
    seen = []

    def look(x):
        seen.append(x)
        return x + 1

    with model.replaced(standing.transcoder(model, 1)):
        whole = model.run(batch, save="L1.mlp").cache["L1.mlp"]
        run = model.run(batch, edit={"L1.mlp.F4@0": look, "L1.mlp.F6": interp.Replace(2.0)},
                        save=["L1.mlp", "L1.mlp_out"])  # fmt: skip
        (first,) = seen
        assert torch.equal(first, torch.stack([whole[0, 0, 4], whole[1, 2, 4]]))
        want = whole.clone()
        want[0, 0, 4] += 1
        want[1, 2, 4] += 1
        want[..., 6] = 2
        assert torch.equal(run.cache["L1.mlp"], want)
        noise = interp.Noise(0.1, seed=3)
        one, all_ = (model.run(batch, edit={"L1.mlp": noise}, batch=n).logits for n in (1, 2))
        close(one, all_)
        with pytest.raises(RunError, match="returned shape"):
            model.run(batch, edit={"L1.mlp.F4": lambda x: x[:1]})


def test_errors_are_read_and_edited(model):
    ids, one = tiny.tokens(), standing.transcoder(model, 1)
    with model.replaced(one):
        alone = model.run(ids).logits
    with model.replaced(one, error=True):
        close(model.run(ids, edit={"L1.mlp.error": interp.Zero()}).logits, alone)
        both = {"L1.mlp.error": interp.Add(0.5), "L1.mlp.F2@3": interp.Add(1.0)}
        got = model.run(ids, edit=both, save=["L1.mlp.error", "L1.mlp", "L1.mlp_out"])
    add = torch.full((10, 32), 0.5)
    add[3] += one.W_dec[2]
    close(got.logits, model.run(ids, edit={"L1.mlp_out": interp.Add(add)}).logits)
    close(got.cache["L1.mlp_out"], one.decode(got.cache["L1.mlp"]) + got.cache["L1.mlp.error"])


# -- gradients -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def precise():
    model = interp.load(tiny.build("gpt2").double(), check=False)
    dictionaries = [
        standing.transcoder(model, 0, kind="skip_transcoder"),
        standing.sae(model, "L1.resid_mid", seed=1, activation="jumprelu"),
        standing.sae(model, "L1.z", seed=2, normalise="constant_norm_rescale"),
        standing.transcoder(model, 2, seed=3, activation="topk", k=6),
    ]  # fmt: skip
    return model, [d.double() for d in dictionaries]


def score(run):
    return (run.logits[:, -1, 7] - run.logits[:, -1, 9]).sum()


@pytest.mark.parametrize("error", [False, True])
def test_gradients_are_finite_differences(precise, error):
    model, dictionaries = precise
    ids = tiny.tokens()
    names = ["L0.mlp", "L1.z.features", "L1.resid_mid.features", "L2.mlp"]
    errors = ["L0.mlp.error", "L1.z.error", "L1.resid_mid.error", "L2.mlp.error"] if error else []
    sites = ["embed", "L0.mlp.input", *names, *errors]
    for dictionary in dictionaries:
        dictionary.requires_grad_(True)
    with model.replaced(dictionaries, error=error):
        run = model.run(ids, save=sites, grad=True)
        found = dict(zip(sites, torch.autograd.grad(
            score(run), [run.cache[site] for site in sites]), strict=True))  # fmt: skip
        held = {site: interp.Replace(run.cache[site].detach()) for site in errors}
        for site in sites:
            x, step = run.cache[site].detach(), 1e-6
            way = torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).double()
            way = way * (x > 0) if site in names else way
            ends = [
                score(model.run(ids, edit={**held, site: interp.Replace(x + sign * step * way)}))
                for sign in (1, -1)
            ]
            want = float(ends[0] - ends[1]) / (2 * step)
            assert float((found[site] * way).sum()) == pytest.approx(want, rel=1e-5, abs=1e-7)
    weights = [p for dictionary in dictionaries for p in dictionary.parameters()]
    assert all(p.grad is None and p.requires_grad for p in weights)


def test_attribution_of_features_is_their_gradient_times_change(model):
    prompts, one = pairs(model), standing.transcoder(model, 1)
    with model.replaced(one, error=True):
        got = interp.attribute(model, prompts, "L1.mlp.F*", positions="each")
        sides = [model.run(side, save="L1.mlp").cache["L1.mlp"]
                 for side in (prompts.clean, prompts.corrupted)]  # fmt: skip
        run = model.run(prompts.corrupted, save="L1.mlp", grad=True)
        rows = torch.arange(4)
        diff = (
            run.logits[rows, -1, prompts.answers[:, 0]] - run.logits[rows, -1, prompts.foils[:, 0]]
        )
        (slope,) = torch.autograd.grad(diff.sum(), run.cache["L1.mlp"])
        want = ((sides[0] - sides[1]) * slope).permute(2, 1, 0)
        close(got.per_prompt, want)
        assert [axis.name for axis in got.axes] == ["feature", "position"]
        for method in ("integrated", "atp*"):
            assert interp.attribute(model, prompts, "L1.mlp.F3", method=method).values.isfinite()
        errors = interp.attribute(model, prompts, "L1.mlp.error")
        assert errors.values.abs().sum() > 0
    with model.replaced(one):  # nothing reads what the MLP computes: its share is nothing
        assert not interp.attribute(model, prompts, "L1.mlp_post.N3").values.any()


# -- patching ------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [False, True])
def test_patches_of_features_are_a_loop_by_hand(model, error):
    prompts = pairs(model)
    ones = [standing.transcoder(model, 0), standing.transcoder(model, 2, seed=1)]
    rows = torch.arange(4)

    def diff(run):
        logits = run.logits[:, -1]
        return logits[rows, prompts.answers[:, 0]] - logits[rows, prompts.foils[:, 0]]

    with model.replaced(ones, error=error):
        clean = model.run(prompts.clean, save="L*.mlp").cache
        got = interp.patch(model, prompts, "L*.mlp.F3,17@-1", progress=False)
        assert got.engine == "plain: dictionaries are spliced into this run"
        assert [(a.name, a.labels) for a in got.axes] == [
            ("layer", ("0", "2")), ("feature", ("3", "17"))]  # fmt: skip
        for i, layer in enumerate((0, 2)):
            for j, unit in enumerate((3, 17)):
                value = clean[f"L{layer}.mlp.F{unit}@-1"]
                edit = {f"L{layer}.mlp.F{unit}@-1": interp.Replace(value)}
                close(got.per_prompt[i, j], diff(model.run(prompts.corrupted, edit=edit)))
        every = interp.patch(model, prompts, "L0.mlp.F*", progress=False)
        assert every.values.shape == (standing.D_SAE,)
        each = interp.patch(model, prompts, "L0.mlp.F17", positions="each", progress=False)
        close(each.per_prompt[-1], got.per_prompt[0, 1])
        assert got.plot() is not None
        assert "F3" in str(every.plot_top(24).axes[0].get_yticklabels())
        two = interp.patch(model, prompts, "L0.mlp.F3 + L2.mlp.F5", progress=False)
        edit = {name: interp.Replace(clean[name]) for name in ("L0.mlp.F3", "L2.mlp.F5")}
        close(two.per_prompt, diff(model.run(prompts.corrupted, edit=edit)))
        zero = interp.ablate(model, prompts, "L0.mlp.F17", method="zero", progress=False)
        off = model.run(prompts.clean, edit={"L0.mlp.F17": interp.Zero()})
        close(zero.per_prompt, diff(off))
        null = interp.random_ablation(
            model, prompts, sites=2, pool="L*.mlp.F*", draws=3, method="zero", progress=False
        )
        assert null.values.shape == (3,)
        with pytest.raises(RunError, match="dictionaries are spliced into this run"):
            interp.patch(model, prompts, "L0.mlp.F3", engine="replay")
        if error:
            errors = interp.patch(model, prompts, "L*.mlp.error", positions=-1, progress=False)
            assert errors.values.shape == (2,)
    assert interp.patch(model, prompts, "L0.resid_pre@-1", progress=False).engine == "replay"


def test_the_exact_engines_proofs_do_not_cross_over():
    model = interp.load(tiny.build("llama"))
    prompts = pairs(model)
    with model.replaced(standing.transcoder(model, 1)):
        inside = interp.patch(model, prompts, "L*.z", progress=False)
        plain = interp.patch(model, prompts, "L*.z", engine="plain", progress=False)
    assert torch.equal(inside.per_prompt, plain.per_prompt)
    for engine in ("replay", "plain"):
        outside = interp.patch(model, prompts, "L*.z", engine=engine, progress=False)
        assert not torch.allclose(outside.per_prompt, inside.per_prompt, atol=1e-3)
    with model.replaced(standing.transcoder(model, 1)):
        again = interp.patch(model, prompts, "L*.z", progress=False)
    assert torch.equal(again.per_prompt, plain.per_prompt)


def test_paths_between_features_freeze_everything_else(model):
    prompts = pairs(model)
    ones = [standing.transcoder(model, 0), standing.transcoder(model, 2, seed=1)]
    with model.replaced(ones):
        base = model.run(prompts.corrupted, save=["L*.attn_out", "L*.mlp_out", "L*.mlp"]).cache
        value = model.run(prompts.clean, save="L0.mlp").cache["L0.mlp.F3"]
        moved = model.run(
            prompts.corrupted, edit={"L0.mlp.F3": interp.Replace(value)}, save="L0.mlp_out"
        ).cache["L0.mlp_out"]
        frozen = {f"L{n}.{half}": interp.Replace(base[f"L{n}.{half}"])
                  for n in range(3) for half in ("attn_out", "mlp_out")}  # fmt: skip
        frozen["L0.mlp_out"] = interp.Replace(moved)
        heard = model.run(prompts.corrupted, edit=frozen, save="L2.mlp").cache["L2.mlp.F5"]
        want = model.run(prompts.corrupted, edit={"L2.mlp.F5": interp.Replace(heard)}).logits[:, -1]
        got = interp.patch(model, prompts, "L0.mlp.F3 -> L2.mlp.F5", progress=False)
        rows = torch.arange(4)
        close(got.per_prompt,
              want[rows, prompts.answers[:, 0]] - want[rows, prompts.foils[:, 0]])  # fmt: skip
    with model.replaced(standing.crossing(model)), pytest.raises(SiteError, match="several layers"):
        interp.patch(model, prompts, "L0.mlp.F3 -> L2.mlp.F5")
    with (
        model.replaced(standing.sae(model, "L1.resid_post")),
        pytest.raises(RunError, match="in the residual stream itself"),
    ):
        interp.patch(model, prompts, "L0.z -> L2.z")


# -- other verbs ---------------------------------------------------------------------------


def test_verbs_that_take_the_stream_apart_say_no_where_it_is_no_sum(model):
    ids = tiny.tokens()
    with model.replaced(standing.transcoder(model, 1)):
        parts = interp.logit_attribution(model, ids)
        assert parts.values.isfinite().all()
        with pytest.raises(RunError, match="transcoder-L1.mlp writes L1.mlp_out in this run"):
            interp.logit_attribution(model, ids, by="neuron")
    with model.replaced(standing.sae(model, "L1.resid_post")):
        for by in ("component", "head"):
            with pytest.raises(RunError, match="stands in the residual stream of this run"):
                interp.logit_attribution(model, ids, by=by)
        with pytest.raises(RunError, match="stands in the residual stream of this run"):
            interp.decompose(model, ids)
    with model.replaced(standing.sae(model, "L1.attn_out"), error=True):
        inside = interp.logit_attribution(model, ids, by="head").values
    assert torch.equal(inside, interp.logit_attribution(model, ids, by="head").values)


def test_lenses_read_the_run_that_is_replaced(model):
    ids = tiny.tokens()
    with model.replaced(standing.sae(model, "L2.resid_post"), error=False):
        lens = interp.lens(model, ids, sites=["L1.resid_post", "L2.resid_post"])
        logits = model.run(ids).logits
    assert torch.equal(lens.top_ids[-1, ..., 0], logits.argmax(-1))
    with model.replaced(standing.sae(model, "L2.resid_post"), error=True):
        error = interp.lens(model, ids, sites=["L2.resid_post.error"])
        with pytest.raises(SiteError, match="a lens reads vectors of d_model"):
            interp.lens(model, ids, sites=["L2.resid_post.features"])
    assert error.provenance.model == f"{model.name} with sae-L2.resid_post+error"


def test_harvests_hold_features(model, tmp_path):
    texts = [row.tolist() for row in tiny.tokens(4, 12)]
    ones = [standing.sae(model, "L1.resid_post"), standing.transcoder(model, 0)]
    with model.replaced(ones):
        store = interp.harvest(
            model, texts, ["L1.resid_post.features", "L0.mlp.F3"], tmp_path / "acts",
            dtype="float32", context=64, bos=False, progress=False,
        )  # fmt: skip
        cache = model.run(torch.tensor(texts), save=["L1.resid_post.features", "L0.mlp"]).cache
        rows = store.rows(range(len(store)))
    close(rows["L1.resid_post.features"], cache["L1.resid_post.features"].flatten(0, 1))
    close(rows["L0.mlp.F3"].flatten(), cache["L0.mlp.F3"].flatten())
    with model.replaced(ones):
        for site in ("L0.mlp", "L*.mlp"):
            with pytest.raises(SiteError, match=r"means two things here.*\.mlp\.F\*'.*mlp_out'"):
                interp.stream(model, texts, site, bos=False)
        live = interp.stream(model, texts, ["L*.mlp.F*", "L1.mlp"], context=64, bos=False)
        assert live.sites == {"L0.mlp": (standing.D_SAE,), "L1.mlp.input": (model.d_model,),
                              "L1.mlp_out": (model.d_model,)}  # fmt: skip
        means = interp.surveys.means(live, "L0.mlp")
        best = interp.surveys.top_examples(live, "L0.mlp.F3", k=1)
    close(means["L0.mlp"], cache["L0.mlp"].flatten(0, 1).mean(0))
    assert float(best.values.nan_to_num().max()) == pytest.approx(float(cache["L0.mlp.F3"].max()))
    with pytest.raises(interp.errors.StoreError):  # other weights, by their hash
        interp.harvest(model, texts, ["L1.resid_post"], tmp_path / "acts", context=64, bos=False)


def test_memory_counts_features(model):
    ids, one = tiny.tokens(), standing.transcoder(model, 1, d_sae=4096)
    plain = model.estimate(ids)
    with model.replaced(one):
        wide = model.estimate(ids, save="L1.mlp")
        some = model.estimate(ids, save="L1.mlp.F0-3@-1")
    assert wide.kept - plain.kept == 2 * 10 * 4096 * 4
    assert some.kept - plain.kept == 2 * 4 * 4
    assert wide.per_row > plain.per_row


@pytest.mark.parametrize(("site", "text"), [
    ("L1.mlp.F99", "feature 99 is out of range: this dictionary has 24"),
    ("L0.mlp", r"no dictionary is attached there, but at L1.mlp; use `with model.replaced\({'L0.mlp'"),
    ("L0-1.mlp.F3", "'L0.mlp.F3': no dictionary is attached there"),
    ("L1.mlp.error", r"no error node.*error=True"),
    ("L2.resid_post.F3", r"replaced\({'L2.resid_post': dictionary}"),
    ("L*.resid_pre.features", "no dictionary is attached"),
    ("L5.mlp", "layer 5 is out of range"),
])  # fmt: skip
def test_sites_without_a_dictionary_say_what_to_do(model, site, text):
    with model.replaced(standing.transcoder(model, 1)):
        for options in ({"save": site}, {"edit": {site: interp.Zero()}}):
            with pytest.raises(SiteError, match=text):
                model.run(tiny.tokens(), **options)


def test_widths_that_differ_make_no_axis(model):
    ones = [standing.transcoder(model, 0), standing.transcoder(model, 1, d_sae=30)]
    with model.replaced(ones):
        cache = model.run(tiny.tokens(), save="L*.mlp").cache
        with pytest.raises(SiteError, match=r"several widths \(24, 30\)"):
            _ = cache["L*.mlp"]
        with pytest.raises(SiteError, match="means 24 and 30 features"):
            interp.patch(model, pairs(model), "L*.mlp.F*")
