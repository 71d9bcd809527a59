"""Runs with edges ablated equal what other parts of this package say of the same intervention."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import interp
from interp.errors import GraphError
from interp.graph import Graph, Setting
from tests import tiny
from tests.engine.cases import pairs
from tests.graph.brute_force import brute_force

FAMILIES = [*tiny.REGISTRY, *tiny.OWN_ATTENTION, "falcon-heads"]
#: Keys and values of a group cannot be told apart: one projection writes them, one norm joins them.
FUSED_GROUPS = ("phi3", "falcon", "olmo2", "stablelm")


def loaded(family):
    return interp.load(tiny.shared(family), check=False)


def setting(family, padding="none", **options):
    model = loaded(family)
    return Setting.of(model, pairs(model, padding), **options)


def kept(graph, n=6, seed=0, share=0.7):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, *graph.full.shape, generator=generator) < share


def close(a, b, tolerance=2e-5):
    assert float((a - b).abs().max()) <= tolerance * max(1.0, float(b.abs().max()))


@pytest.mark.parametrize("padding", ["none", "left", "right"])
@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_and_everything_ablated(family, padding):
    own = setting(family, padding)
    sides = interp.patch(own.model, own.prompts, "L0.resid_pre@-1")
    close(own.full, sides.clean)
    close(own.scores(own.graph.full[None])[0], own.full, 1e-6)
    close(own.empty, sides.corrupted)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_nodes_edges_are_the_node(family):
    """All edges out of a node ablated is the node's output replaced."""
    own = setting(family)
    for node, site in (("a1.h2", "L1.H2.z"), ("m0", "L0.mlp_out"), ("embed", "embed")):
        mask = own.graph.full.clone()
        mask[own.graph.sources.index(node)] = False
        if own.model.anatomy.blocks[1].norm_after_attn and node == "a1.h2":
            continue  # the other heads' parts are held here, and change with the norm there
        patched = interp.patch(own.model, own.prompts, site, direction="noise", positions="all")
        close(own.scores(mask[None])[0], patched.per_prompt)


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "llama", "gemma2", "opt", "bloom", "phi"])
def test_a_destinations_edges_are_what_it_reads(family):
    own = setting(family)
    dests = own.graph.dests
    for dest, site in (
        ("a1.h2<q>", "L1.H2.q"),
        ("m2", "L2.mlp.input"),
        ("logits", "L2.resid_post"),
    ):
        mask = own.graph.full.clone()
        mask[:, dests.index(dest)] = False
        patched = interp.patch(own.model, own.prompts, site, direction="noise", positions="all")
        close(own.scores(mask[None])[0], patched.per_prompt)


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "llama", "granite", "gptj"])
def test_one_edge_is_a_path(family):
    own = setting(family)
    edges = {
        "a0.h1->a2.h3<q>": "L0.H1.result -> L2.H3.q",
        "m0->m2": "L0.mlp_out -> L2.mlp.input",
        "embed->a1.h0<q>": "embed -> L1.H0.q",
        "a1.h0->logits": "L1.H0.result -> L2.resid_post",
    }
    if own.model.n_kv_heads == own.model.n_heads:
        edges |= {
            "m1->a2.h1<v>": "L1.mlp_out -> L2.H1.v",
            "a0.h0->a1.h1<k>": "L0.H0.result -> L1.H1.k",
        }
    for edge, path in edges.items():
        mask = own.graph.full & ~own.graph.mask([edge])
        patched = interp.patch(own.model, own.prompts, path, direction="noise", positions="all")
        close(own.scores(mask[None])[0], patched.per_prompt)


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "llama", "gemma2", "qwen3", "granite"])
def test_many_edges_equal_a_run_written_out(family):
    """An independent forward pass, every head with inputs of its own."""
    own = setting(family)
    masks = kept(own.graph)
    close(own.scores(masks), brute_force(own, masks))


@pytest.mark.parametrize("ablation", ["resample", "zero", "mean"])
@pytest.mark.parametrize("family", [f for f in FAMILIES if f not in FUSED_GROUPS])
def test_restarted_equals_whole_runs(family, ablation):
    model = loaded(family)
    prompts = pairs(model)
    own = Setting.of(model, prompts, ablation=ablation,
                     reference=prompts if ablation == "mean" else None)  # fmt: skip
    plain = replace(own, reason="asked for")
    masks = torch.cat([kept(own.graph), own.graph.full[None], (own.graph.full * 0.25)[None] > 1])
    masks = torch.cat([masks, late(own.graph)])
    close(own.scores(masks), plain.scores(masks))
    assert own.engine == "replay"
    assert plain.engine == "plain: asked for"


def late(graph):
    """Masks that ablate edges into the last block, or into the logits, only."""
    masks = graph.full.expand(2, *graph.full.shape).clone()
    first = [d for d in range(len(graph.dests)) if graph.layer_of(d) == graph.n_layers - 1]
    masks[0, ::2, first] = False
    masks[1, ::3, -1] = False
    return masks


@pytest.mark.parametrize("family", FUSED_GROUPS)
def test_groups_that_cannot_be_told_apart(family):
    """Their heads' key and value edges are ablated together, or refused by name."""
    own = setting(family)
    masks = kept(own.graph)
    with pytest.raises(GraphError, match="of one group are ablated together"):
        own.scores(masks)
    groups = own.model.n_heads // own.model.n_kv_heads
    for layer in range(own.graph.n_layers):
        for reads in own.graph.reads_at(layer)[1:3]:
            each = masks[:, :, reads][:, :, ::groups]
            masks[:, :, reads] = each.repeat_interleave(groups, 2)
    close(own.scores(masks), replace(own, reason="asked for").scores(masks))
    if family in ("olmo2",):
        close(own.scores(masks), brute_force(own, masks))


@pytest.mark.parametrize("padding", ["left", "right"])
@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt_neox"])
def test_padding_changes_nothing(family, padding):
    """Each padded prompt alone, without its padding, scores the same."""
    own = setting(family, padding)
    masks = kept(own.graph)
    together = own.scores(masks)
    for row in range(len(own.prompts)):
        mask = own.prompts.clean.mask[row]
        one = own.prompts.subset([row])
        cut = interp.Prompts(
            *(interp.TokenBatch.of(side.ids[:, mask]) for side in (one.clean, one.corrupted)),
            answers=one.answers, foils=one.foils,
        )  # fmt: skip
        close(together[:, row], Setting.of(own.model, cut).scores(masks)[:, 0])


def test_batches_change_nothing():
    own = setting("gpt2")
    masks = kept(own.graph)
    close(own.scores(masks), setting("gpt2", batch=3).scores(masks))


def test_a_share_mixes_and_can_be_differentiated():
    own = setting("gpt2")
    edge = own.graph.mask(["m1->logits"])
    shares = torch.stack([own.graph.full.float() - 0.5 * edge.float()]).requires_grad_()
    score = own.scores(shares, grad=True)
    (gradient,) = torch.autograd.grad(score.sum(), shares)
    step = 1e-2
    up, down = (own.scores(shares.detach() + sign * step * edge).sum() for sign in (1, -1))
    assert float(gradient[0][edge]) == pytest.approx(float((up - down) / (2 * step)), rel=1e-2)


def test_positions_add_up():
    """Edges ablated at every group of positions are edges ablated everywhere."""
    model = loaded("gpt2")
    prompts = pairs(model)
    whole, split = Setting.of(model, prompts), Setting.of(model, prompts, positions=("here", "END"))
    assert split.graph.positions == ("here", "END", "other")
    masks = kept(whole.graph)
    each = masks[..., None].expand(*masks.shape, 3)
    close(split.scores(each), whole.scores(masks))
    here = split.graph.full & ~split.graph.mask(["m0->a1.h0<q>@here"])
    path = interp.patch(model, prompts, "L0.mlp_out@here -> L1.H0.q", direction="noise")
    close(split.scores(here[None])[0], path.per_prompt)


def test_neurons_are_nodes():
    model = loaded("gpt2")
    own = Setting.of(model, pairs(model), units=("m1.n5", "m1.n40"))
    graph = own.graph
    assert "m1.n5->m2" in graph.edges
    assert "m1->m1.n5" not in graph.edges
    out = graph.full.clone()
    out[graph.sources.index("m1.n5")] = False
    patched = interp.patch(model, own.prompts, "L1.mlp_post.N5", direction="noise", positions="all")
    close(own.scores(out[None])[0], patched.per_prompt)
    into = graph.full.clone()
    into[:, graph.dests.index("m1.n40")] = False
    patched = interp.patch(model, own.prompts, "L1.mlp_pre.N40", direction="noise", positions="all")
    close(own.scores(into[None])[0], patched.per_prompt)
    masks = kept(graph)
    close(own.scores(masks), replace(own, reason="asked for").scores(masks))
    close(own.empty, Setting.of(model, own.prompts).empty)


def test_norms_can_be_held():
    model = loaded("gpt2")
    prompts = pairs(model)
    exact, held = Setting.of(model, prompts), Setting.of(model, prompts, freeze_norms=True)
    close(held.scores(exact.graph.full[None])[0], exact.full)
    masks = kept(exact.graph)
    assert float((held.scores(masks) - exact.scores(masks)).abs().max()) > 1e-3
    close(held.scores(masks), replace(held, reason="asked for").scores(masks))
    # With norms held the stream is linear in what late nodes write: effects on the logits add up.
    one, two = (exact.graph.mask([edge]) for edge in ("m2->logits", "m1->logits"))
    full = exact.graph.full
    scores = held.scores(torch.stack([full, full & ~one, full & ~two, full & ~one & ~two]))
    close(scores[3] - scores[0], scores[1] + scores[2] - 2 * scores[0], 1e-4)


def test_denoising_turns_the_pair_round():
    model = loaded("gpt2")
    prompts = pairs(model)
    noise = Setting.of(model, prompts)
    denoise = Setting.of(model, prompts, direction="denoise")
    close(denoise.full, noise.empty)
    close(denoise.empty, noise.full)
    mask = denoise.graph.full & ~denoise.graph.mask(["embed->a1.h0<v>"])
    path = interp.patch(model, prompts, "embed -> L1.H0.v", positions="all")
    close(denoise.scores(mask[None])[0], path.per_prompt)


def test_means_go_by_position_and_template():
    model = loaded("gpt2")
    prompts, others = pairs(model), pairs(model)
    groups = ("a", "a", "b", "b")
    prompts, others = replace(prompts, groups=groups), replace(others, groups=groups)
    own = Setting.of(model, prompts, ablation="mean", reference=others)
    mask = own.graph.full.clone()
    mask[own.graph.sources.index("m0")] = False
    run = model.run(prompts.clean, save="L0.mlp_out").cache["L0.mlp_out"]
    means = torch.cat([run[:2].mean(0).expand(2, -1, -1), run[2:].mean(0).expand(2, -1, -1)])
    edited = model.run(prompts.clean, edit={"L0.mlp_out": interp.Replace(means)}).logits[:, -1]
    rows = torch.arange(4)
    expected = edited[rows, prompts.answers[:, 0]] - edited[rows, prompts.foils[:, 0]]
    close(own.scores(mask[None])[0], expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ablation": "knockout"}, "expected 'resample'"),
        ({"ablation": "mean"}, "needs reference="),
        ({"ablation": "mean", "reference": "others"}, "needs reference="),
        ({"units": 3}, "'3' is not a node"),
        ({"direction": "denoise", "ablation": "zero"}, "with ablation='resample'"),
        ({"direction": "sideways"}, "expected 'noise', or 'denoise'"),
        ({"units": ("m9.n1",)}, "no neuron or feature"),
        ({"batch": 0}, "expected a number of prompts"),
    ],
)
def test_bad_settings(options, message):
    with pytest.raises(GraphError, match=message):
        setting("gpt2", **options)


def test_bad_masks_and_edges():
    own = setting("gpt2")
    with pytest.raises(GraphError, match="a mask of the graph for each variant"):
        own.scores(own.graph.full)
    with pytest.raises(GraphError, match=r"nearest: .*m0->a1.h0<q>"):
        own.graph.mask(["m0->a1.h0<Q>"])
    with pytest.raises(GraphError, match="comes later or beside it"):
        own.graph.mask(["m1->a0.h0<q>"])
    with pytest.raises(GraphError, match="is not the shape of a graph"):
        Graph.shaped(layers=2)


def test_models_that_are_not_sums_are_refused():
    """OPT-350m normalises the stream itself behind its branches."""
    odd = tiny.build("opt", do_layer_norm_before=False)
    model = interp.load(odd, check=False)
    with pytest.raises(GraphError, match="not the graph of its heads"):
        Setting.of(model, pairs(model))


def test_a_model_is_as_before(monkeypatch):
    from tests.engine.cases import state

    own = setting("llama")
    before = state(own.model.hf)
    own.scores(kept(own.graph))
    monkeypatch.setattr("interp.graph.stack.Stack.logits_read", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        own.scores(kept(own.graph))
    assert state(own.model.hf) == before
