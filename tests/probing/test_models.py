"""Probes and similarity on models: what training put there, beside what any network lets through."""

from functools import cache

import pytest
import torch

import interp
from interp.errors import MetricError, PromptError, ResultError, SiteError
from interp.probing import measure
from interp.probing.features import collect
from interp.probing.similarity import Similarity, similarity
from interp.probing.verb import probe
from interp.prompts import facts
from tests import tiny

OPTIONS = {"l2": 0.1, "shuffles": 19}


@cache
def tiny_model():
    return interp.load(tiny.shared("llama"), check=False)


@cache
def demo(trained=True):
    model = interp.load("demo")
    return model if trained else model.random_twin(check=False)


@cache
def continents():
    """Two templates of each country: prompts, the continent, and the country as document."""
    templates = facts.relation("continent").templates[:2]
    cells = [
        (text.removesuffix(" {object}"), row) for row in facts.countries() for text in templates
    ]
    countries = [row["country"] for _, row in cells]
    prompts = demo().prompts(
        [text.replace("{subject}", row["country"]) for text, row in cells],
        positions={"subject": countries},
    )
    return prompts, [row["continent"] for _, row in cells], countries


def repeats(model, n=48, width=24, seed=0):
    """Rows in which each token is, half the time, one that came before; the label is whether.

    Any token may be either at any place, so neither the word nor the position tells.
    """
    g = torch.Generator().manual_seed(seed)
    pool = [i for i in range(model.d_vocab) if i not in model.tokens.special_ids]
    ids, again = (
        torch.full((n, width), model.tokens.bos_id),
        torch.zeros(n, width, dtype=torch.long),
    )
    for row in range(n):
        fresh = iter(torch.randperm(len(pool), generator=g).tolist())
        for place in range(1, width):
            old = place > 1 and bool(torch.rand((), generator=g) < 0.5)
            at = int(torch.randint(1, max(2, place), (), generator=g))
            ids[row, place] = ids[row, at] if old else pool[next(fresh)]
            again[row, place] = int(old)
    counts = torch.ones(n, width, dtype=torch.bool)
    counts[:, :2] = False
    return ids, again, counts


# -- what the demo model shows ----------------------------------------------------------------


def test_the_continent_of_countries_never_met_is_readable_in_the_trained_model_only():
    prompts, labels, countries = continents()
    sites = ["L0.resid_pre@subject", "L0.resid_pre", "L3.resid_pre"]
    options = {"documents": countries, "controls": 0, "folds": 3, "l2": 1.0}
    trained = probe(demo(), prompts, labels, sites, shuffles=19, **options)
    early, none, end = trained.score.tolist()
    assert early > 0.5  # the word's own vector holds it already
    assert none < 0.35  # the last word is not the country, and nothing has moved yet
    assert end > 0.85
    assert trained.found() == [sites[0], sites[2]]
    assert float(trained.null.mean()) < 0.35
    twin = probe(demo(False), prompts, labels, sites, shuffles=0, **options)
    assert float(twin.score.max()) < 0.4
    assert (twin.interval().low < twin.baseline).all()


def test_with_each_prompt_a_document_even_an_untrained_model_passes_and_selectivity_says_why():
    prompts, labels, countries = continents()
    result = probe(demo(False), prompts, labels, "L0.resid_pre@subject", types=countries, controls=2,
                   l2=0.1, shuffles=0)  # fmt: skip
    assert float(result.score) > 0.8
    assert float(result.seen) > 0.7
    assert float(result.selectivity()) < 0.1


def test_whether_a_token_came_before_is_readable_behind_attention_in_the_trained_model_only():
    ids, again, counts = repeats(demo())
    sites = ["L0.resid_pre", "L3.resid_pre"]
    found = {trained: probe(demo(trained), ids, again, sites, positions="each", where=counts, **OPTIONS)
             for trained in (True, False)}  # fmt: skip
    assert len(found[True].labels) == int(counts.sum())
    assert found[True].n_documents == 48
    assert float(found[True].score[0]) < 0.56
    assert float(found[True].score[1]) > 0.6
    assert float(found[True].scores("auc")[1]) > 0.66
    assert float(found[True].selectivity()[1]) > 0.05
    assert found[True].found() == ["L3.resid_pre"]
    assert float(found[False].score.max()) < 0.56
    assert found[False].found() == []


def test_the_direction_steers_the_probe():
    prompts, labels, _ = continents()
    some = [i for i, label in enumerate(labels) if label in ("Africa", "Europe")][::2]
    prompts, labels = prompts.subset(some), [labels[i] for i in some]
    result = probe(demo(), prompts, labels, "L2.resid_pre@subject", l2=0.1, shuffles=0, controls=0)
    site = "L2.resid_pre@subject"
    w, b = result.direction(site), result.bias(site)
    assert result.classes == ("Africa", "Europe")
    said = []
    for strength in (0.0, 1.0):
        edit = {site: interp.Add(strength * w / w.norm() ** 2)}
        x = demo().run(prompts, save=site, edit=edit, logits="none").cache[site]
        said.append(x @ w + b)
    assert torch.allclose(said[1] - said[0], torch.ones(len(some)), atol=1e-3)
    assert ((said[0] > 0).long() == result.labels).float().mean() > 0.9


# -- features ----------------------------------------------------------------------------------


def test_features_are_what_the_cache_holds():
    model, ids = tiny_model(), tiny.tokens(4, 7)
    cache = model.run(ids, save="all").cache
    rows = collect(model, ids, ["L*.H0,2.z", "L1.mlp_post.N3", "embed", "L0.z@1"], positions=-1)
    assert list(rows.rows) == [
        *(f"L{i}.H{h}.z" for i in range(3) for h in (0, 2)), "L1.mlp_post.N3", "embed", "L0.z@1",
    ]  # fmt: skip
    assert torch.allclose(rows.rows["L2.H2.z"], cache["L2.z"][:, -1, 2], atol=1e-5)
    assert torch.allclose(rows.rows["L1.mlp_post.N3"], cache["L1.mlp_post"][:, -1, 3:4], atol=1e-5)
    assert torch.allclose(rows.rows["L0.z@1"], cache["L0.z"][:, 1].flatten(1), atol=1e-5)
    assert rows.types["embed"].tolist() == ids[:, -1].tolist()
    assert rows.types["L0.z@1"].tolist() == ids[:, 1].tolist()


def test_every_real_token_is_a_row_and_padding_is_not():
    model = tiny_model()
    batch = interp.TokenBatch.stack([[5, 6, 7], [8, 9, 10, 11, 12]], pad="left")
    labels = torch.arange(10).view(2, 5) % 2
    labels[0, :2] = 99  # padding is not read
    result = probe(
        model,
        batch,
        labels,
        "L1.resid_pre",
        positions="each",
        folds=2,
        **{**OPTIONS, "shuffles": 0},
    )
    assert result.classes == ("0", "1")
    assert result.labels.tolist() == [0, 1, 0, 1, 0, 1, 0, 1]
    assert result.documents.tolist() == [0] * 3 + [1] * 5


def test_directions_have_the_activations_shape_and_names_of_either_kind():
    model, ids = tiny_model(), tiny.tokens(12, 6)
    result = probe(model, ids, [0, 1, 2] * 4, ["L1.z", "L1.H2.z", "L1.mlp_post.N7"], folds=3, l2=0.1,
                   shuffles=0, controls=0)  # fmt: skip
    assert result.direction("blocks.1.attn.hook_z").shape == (3, 4, 8)
    assert result.direction("L1.H2.z").shape == (3, 8)
    assert result.direction("L1.mlp_post.N7").shape == (3,)


def test_one_word_type_is_no_control_task_and_others_keep_theirs():
    ids = tiny.tokens(12, 6)
    ids[:, -1] = 5
    result = probe(tiny_model(), ids, [0, 1] * 6, ["L1.resid_pre@0", "L1.resid_pre"], kind="mean",
                   shuffles=0, controls=2)  # fmt: skip
    assert result.selectivity().isnan().tolist() == [False, True]
    assert result.p_values().isnan().all()


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"sites": "L0.pattern"}, SiteError, "no vector at a position"),
        ({"sites": []}, SiteError, "no sites were given"),
        ({"sites": "L0.resid_pre@0", "positions": "each"}, SiteError, "leave out one"),
        ({"positions": "each"}, PromptError, r"expected 72, \[batch, pos\] = \[12, 6\]"),
        ({"positions": "subjct"}, PromptError, "no position is called"),
        ({"where": torch.ones(12, 6, dtype=torch.bool)}, PromptError, "needs positions='each'"),
        ({"where": torch.ones(3, dtype=torch.bool), "positions": "each"}, PromptError, "where is"),
        ({"labels": [0, 1]}, PromptError, "labels= has 2 entries; expected 12"),
    ],
)
@pytest.mark.bad_input
def test_what_does_not_fit_the_prompts_is_refused(options, error, text):
    given = {"labels": [0, 1] * 6, "sites": "L*.resid_pre", **options}
    with pytest.raises(error, match=text):
        probe(tiny_model(), tiny.tokens(12, 6), given.pop("labels"), given.pop("sites"), **given)


def test_ctrl_c_keeps_the_sites_that_are_finished(monkeypatch):
    calls = []

    def one(*args):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(1)
        return original(*args)

    original = measure._one
    monkeypatch.setattr(measure, "_one", one)
    with pytest.warns(UserWarning, match="2 of 3 sites were probed"):
        result = probe(tiny_model(), tiny.tokens(12, 6), [0, 1] * 6, l2=0.1, shuffles=0)
    assert result.sites == ("L0.resid_pre", "L1.resid_pre")


def test_figures_of_probes():
    model, ids = tiny_model(), tiny.tokens(12, 6)
    labels = [0, 1] * 6
    quick = {"l2": 0.1, "shuffles": 2, "controls": 1, "folds": 3}
    curve = probe(model, ids, labels, ["L*.resid_pre", "L-1.resid_post"], **quick)
    figure = curve.plot({"random twin": curve})
    drawn = [line.get_label() for line in figure.axes[0].get_lines()]
    assert drawn[:3] == ["true labels", "random twin", "shuffled labels (2, range)"]
    assert [tick.get_text() for tick in figure.axes[0].get_xticklabels()] == [
        "L0",
        "L1",
        "L2",
        "out",
    ]
    heads = probe(model, ids, labels, "L*.H*.z", kind="mean", shuffles=2, folds=3)
    image = heads.plot().axes[0].images[0]
    assert image.get_array().shape == (3, 4)
    assert image.get_clim()[0] == -image.get_clim()[1]
    several = probe(model, ids, labels, ["L*.resid_pre", "L*.mlp_out"], kind="mean", folds=3)
    assert len(several.plot().axes[0].patches) == 12
    with pytest.raises(ResultError, match="probe the same sites"):
        curve.plot({"other": heads})


# -- similarity --------------------------------------------------------------------------------


def test_a_model_is_like_itself_and_its_map_is_symmetric():
    model, ids = tiny_model(), tiny.tokens(20, 6)
    result = similarity(model, ids, ["L*.resid_pre", "L-1.resid_post"], shuffles=3)
    assert torch.allclose(result.values.diagonal(), torch.ones(4), atol=1e-5)
    assert torch.allclose(result.values, result.values.T, atol=1e-5)
    assert result.n == 120
    assert float(result.null.abs().max()) < 0.2
    rows = collect(model, ids, "L*.resid_pre", positions=-1).rows
    one = similarity(model, ids, "L*.resid_pre", positions=-1, method="rsa", shuffles=0)
    expected = interp.geometry.rsa(rows["L0.resid_pre"], rows["L2.resid_pre"])
    assert float(one.values[0, 2]) == pytest.approx(float(expected))


def test_the_trained_model_turns_where_it_looks_back_and_is_unlike_its_twin():
    prompts = interp.prompts.induction(demo(), n=24)
    but_bos = torch.ones_like(prompts.clean.mask)
    but_bos[:, 0] = False
    own, apart = (similarity(demo(), prompts, other=other, where=but_bos, shuffles=2)
                  for other in (None, demo(False)))  # fmt: skip
    early, turn, late = (float(own.values[i, i + 1]) for i in (1, 2, 0))
    assert early > 0.9  # block 1 changes little, block 2 more
    assert turn < 0.75
    assert late < 0.45
    assert float(apart.values.max()) < 0.35
    assert float(apart.values[0, 0]) == float(apart.values.max())  # the words alone
    assert float(apart.null.abs().max()) < 0.05


def test_layers_where_all_examples_are_alike_have_no_similarity():
    prompts, _, _ = continents()
    result = similarity(demo(), prompts, positions="END")
    assert result.values[0].isnan().all()  # one last word, and nothing has moved yet
    assert result.values[1:, 1:].isfinite().all()
    assert "all examples alike" in str(result.plot().legends[0].get_texts()[0])


def test_similarity_is_saved_shown_and_refuses(tmp_path):
    model, ids = tiny_model(), tiny.tokens(8, 5)
    result = similarity(model, ids, "L*.resid_pre", other_sites="L*.H*.z", positions=-1)
    loaded = Similarity.load(result.save(tmp_path / "map.safetensors"))
    assert torch.equal(loaded.values, result.values)
    assert loaded.sites_b == result.sites_b
    assert len(loaded.to_frame()) == 3 * 12
    image = loaded.plot().axes[0].images[0]
    assert image.get_clim() == (0, 1)
    with pytest.raises(PromptError, match="hold 8 and 7 examples"):
        similarity(model, ids, other=model, positions=-1, other_inputs=ids[:7])


@pytest.mark.bad_input
def test_unknown_methods_are_refused():
    model, ids = tiny_model(), tiny.tokens(8, 5)
    with pytest.raises(MetricError, match="expected one of cka"):
        similarity(model, ids, method="svcca")
