"""AtP* on edges: the mean over layers of the absolute estimate, each from a run with one layer cut."""

import pytest
import torch

import interp
from interp.errors import MetricError, RunError
from interp.graph import Setting
from interp.graph.contributions import run_and_read
from interp.graph.names import Node, node_of, split_edge
from tests import tiny
from tests.attribution.cases import model_of, pairs_of
from tests.cases import load_case

FAMILIES = ("gpt2", "llama", "gemma2", "gpt_neox", "qwen3", "opt", "bloom")


def torch_rows(rows):
    return [torch.tensor([row]) for row in rows]


def scores_of(model, prompts, **options):
    return interp.attribute(model, prompts, "edges", method="atp*", **options)


class Cut:
    """The clean run with what one layer adds held constant, and gradients wherever asked."""

    def __init__(self, model, prompts, layer=None):
        edit = {f"L{layer}.{branch}": torch.Tensor.detach for branch in ("attn_out", "mlp_out")}
        edit = {} if layer is None else edit
        save = ["L*.pattern", "L*.z", "L*.mlp.input", "L-1.resid_post"]
        self.run = model.run(prompts.clean, save=save, edit=edit, grad=True)
        self.score = interp.metrics.evaluate("logit_diff", self.run.logits, prompts).sum()

    def __call__(self, site):
        x = self.run.cache[site]
        (found,) = torch.autograd.grad(self.score, x, retain_graph=True, allow_unused=True)
        return x.detach(), torch.zeros_like(x) if found is None else found


class Hand:
    """Estimates of single edges, written out."""

    def __init__(self, model, prompts):
        self.model, self.prompts = model, prompts
        self.setting = Setting.of(model, prompts)
        _, written = run_and_read(self.setting.parts, self.setting.graph, prompts.clean)
        self.change = self.setting.ablated(slice(None)) - written
        middle = [] if model.anatomy.parallel else ["L*.resid_mid"]
        save = ["L*.resid_pre", *middle, "L*.q", "L*.k", "L*.v", "L*.pattern"]
        self.base = model.run(prompts.clean, save=save).cache
        self.cuts = [Cut(model, prompts, layer) for layer in range(model.n_layers)]

    def read(self, layer, x, head, point):
        """What a head's projection makes of a stream."""
        norm = self.model.anatomy.blocks[layer].ln1
        inner = x if norm is None else norm(x)
        weights = getattr(self.model, f"W_{point.upper()}")[layer]
        bias = getattr(self.model, f"b_{point.upper()}")
        own = head if point == "q" else head * len(weights) // self.model.n_heads
        found = inner @ weights[own]
        return (found if bias is None else found + bias[layer][own]), own

    def slope(self, function, x, change):
        """The derivative along the change."""
        return torch.autograd.functional.jvp(function, x, change)[1]

    def edge(self, edge):
        source, dest, _ = split_edge(edge)
        change = self.change[self.setting.graph.sources.index(source)]
        node = Node.parse(node_of(dest))
        if node.kind == "logits":
            parts = [change * cut("L-1.resid_post")[1] for cut in self.cuts]
            return [part.sum((1, 2)) for part in parts]
        if node.kind == "mlp":
            return self.mlp(node.layer, change)
        point = dest[-2]
        return (self.value if point == "v" else self.attention)(node, point, change)

    def mlp(self, layer, change):
        block = self.model.anatomy.blocks[layer]
        norm = block.ln2 or block.ln1
        point = "resid_pre" if self.model.anatomy.parallel else "resid_mid"
        moved = self.slope(norm, self.base[f"L{layer}.{point}"], change)
        return [(moved * cut(f"L{layer}.mlp.input")[1]).sum((1, 2)) for cut in self.cuts]

    def value(self, node, point, change):
        layer, head = node.layer, node.index
        moved = self.slope(
            lambda x: self.read(layer, x, head, "v")[0], self.base[f"L{layer}.resid_pre"], change
        )
        mixed = self.base[f"L{layer}.pattern"][:, head] @ moved
        return [(mixed * cut(f"L{layer}.z")[1][:, :, head]).sum((1, 2)) for cut in self.cuts]

    def attention(self, node, point, change):
        layer, head = node.layer, node.index
        new, own = self.read(layer, self.base[f"L{layer}.resid_pre"] + change, head, point)
        run = self.model.run(
            self.prompts.clean, save=f"L{layer}.pattern", logits="none",
            edit={f"L{layer}.H{own}.{point}": interp.Replace(new.detach())},
        )  # fmt: skip
        moved = (run.cache[f"L{layer}.pattern"] - self.base[f"L{layer}.pattern"])[:, head]
        return [(moved * cut(f"L{layer}.pattern")[1][:, head]).sum((1, 2)) for cut in self.cuts]


@pytest.mark.parametrize("family", FAMILIES)
def test_equals_the_mean_over_runs_with_a_layer_cut(family):
    model = model_of(family)
    prompts = pairs_of(model, differ=(1, 3))
    hand, found = Hand(model, prompts), scores_of(model, prompts)
    edges = ["embed->a0.h1<q>", "embed->a0.h2<k>", "embed->a0.h3<v>", "m0->a1.h0<q>",
             "a0.h2->a1.h3<k>", "a0.h0->a2.h1<v>", "a0.h1->m1", "m0->m2", "embed->m0",
             "m1->a2.h2<k>", "a1.h1->logits", "m2->logits"]  # fmt: skip
    sizes = []
    for edge in edges:
        source, dest, _ = split_edge(edge)
        place = found.sources.index(source), found.dests.index(dest)
        count = 3 if dest == "logits" else 2
        expected = sum(one.abs() for one in hand.edge(edge)) / count
        sizes.append(float(expected.max()))
        own = found.per_prompt[:, *place]
        assert torch.allclose(own, expected.detach(), rtol=1e-3, atol=1e-6), edge
    assert max(sizes) > 1e-2
    assert not found.signed
    assert (found.values[found.graph.real] >= 0).all()


def test_without_dropping_scores_have_signs():
    model = model_of("llama")
    prompts = pairs_of(model, differ=(1, 3))
    hand = Hand(model, prompts)
    hand.cuts = [Cut(model, prompts)]
    found = interp.attribute(model, prompts, "edges", method="atp-qk")
    edges = ("embed->a0.h1<q>", "a0.h2->a1.h3<k>", "a0.h0->a2.h1<v>", "m0->m2", "m2->logits")
    for edge in edges:
        source, dest, _ = split_edge(edge)
        own = found.per_prompt[:, found.sources.index(source), found.dests.index(dest)]
        assert torch.allclose(own, hand.edge(edge)[0].detach(), rtol=1e-3, atol=1e-6), edge
    assert found.signed
    assert (found.values < -1e-4).any()


def test_a_compiled_circuit_that_gradients_miss():
    """Edges that the circuit needs under zero ablation, behind a saturated softmax."""
    case = load_case("induction")
    model, prompts, truth = case.model(), case.prompts(), case.edges("zero")
    ranks = {}
    for method in ("eap", "atp-qk"):
        found = interp.attribute(
            model, prompts, "edges", method=method, metric=case.as_metric(), ablation="zero"
        )
        ranks[method] = set(found.ranked()[: len(truth)]) == truth
    assert ranks == {"eap": False, "atp-qk": True}


def test_edges_that_join_heads_in_one_norm():
    """OLMo-2 normalises the queries of all heads together: one head's edge moves all patterns."""
    model = model_of("olmo2", num_key_value_heads=4)
    prompts = pairs_of(model, differ=(1, 3))
    hand, found = Hand(model, prompts), scores_of(model, prompts)
    layer, head = 1, 2
    change = hand.change[found.sources.index("m0")]
    new, _ = hand.read(layer, hand.base[f"L{layer}.resid_pre"] + change, head, "q")
    run = model.run(prompts.clean, save=f"L{layer}.pattern",
                    edit={f"L{layer}.H{head}.q": interp.Replace(new.detach())})  # fmt: skip
    moved = run.cache[f"L{layer}.pattern"] - hand.base[f"L{layer}.pattern"]
    assert moved[:, 0].abs().max() > 1e-6
    parts = [(moved * cut(f"L{layer}.pattern")[1]).sum((1, 2, 3)).abs() for cut in hand.cuts]
    place = found.sources.index("m0"), found.dests.index("a1.h2<q>")
    assert torch.allclose(found.per_prompt[:, *place], sum(parts) / 2, rtol=1e-3, atol=1e-7)


def test_a_saturated_softmax_is_seen_by_the_fix_and_not_by_the_gradient():
    """In the last block no dropped layer changes an estimate, so AtP* is the fix alone."""
    hf = tiny.build("gpt2")
    with torch.no_grad():  # one head attends to single tokens
        hf.transformer.h[2].attn.c_attn.weight[:, : 2 * tiny.D_MODEL] *= 12
    model = interp.load(hf, check=False)
    prompts = pairs_of(model, rows=8, width=8, differ=(2, 7))
    exact, eap, fixed = (
        interp.attribute(model, prompts, "edges", method=method)
        for method in ("exact", "eap", "atp*")
    )
    for channel in "qk":
        dests = [
            d for d, name in enumerate(exact.dests) if name.startswith("a2") and channel in name
        ]
        truth = exact.per_prompt[..., dests].nan_to_num().abs()
        errors = [
            float((own.per_prompt[..., dests].nan_to_num().abs() - truth).abs().mean())
            for own in (eap, fixed)
        ]
        assert errors[1] < 0.2 * errors[0], channel


def test_groups_of_positions_by_the_softmax_of_each():
    """A query changes its own row; keys of one group change their own columns of every row."""
    model = model_of("llama")
    prompts = pairs_of(model, differ=(1, 2))
    found = scores_of(model, prompts, positions=["s"])  # column 1
    hand = Hand(model, prompts)
    pattern = hand.base["L1.pattern"]
    change = hand.change[found.sources.index("m0")]
    for point, here in (("q", (1,)), ("k", (1,))):
        new, own = hand.read(1, hand.base["L1.resid_pre"] + change, 3, point)
        value = hand.base[f"L1.{point}"][:, :, own].clone()
        value[:, here] = new[:, here].detach()
        run = model.run(prompts.clean, save="L1.pattern",
                        edit={f"L1.H{own}.{point}": interp.Replace(value)})  # fmt: skip
        moved = (run.cache["L1.pattern"] - pattern)[:, 3]
        parts = [(moved * cut("L1.pattern")[1][:, 3]).sum((1, 2)).abs() for cut in hand.cuts]
        place = found.sources.index("m0"), found.dests.index(f"a1.h3<{point}>"), 0
        assert torch.allclose(found.per_prompt[:, *place], sum(parts) / 2, rtol=1e-3, atol=1e-7)


def test_padding_batches_one_head_and_models_that_cannot_be_replayed():
    model = interp.load(tiny.build("llama", num_attention_heads=1, num_key_value_heads=1))
    clean = [[5, 9, 20, 33], [7, 8, 9, 41, 15, 23]]
    other = [[5, 11, 20, 33], [7, 8, 19, 41, 15, 23]]
    alone = [
        scores_of(model, model.prompts(*rows, answers=[3], foils=[4]))
        for rows in zip(torch_rows(clean), torch_rows(other), strict=True)
    ]
    for pad in ("left", "right"):
        batches = [interp.TokenBatch.stack(rows, pad=pad) for rows in (clean, other)]
        prompts = model.prompts(*batches, answers=[3, 3], foils=[4, 4])
        for batch, hooked in (("auto", False), (1, False), ("auto", True)):
            hook = (
                model.hf.model.layers[0].register_forward_hook(lambda *_: None) if hooked else None
            )
            together = scores_of(model, prompts, batch=batch)
            _ = hook.remove() if hook else None
            for row, own in enumerate(alone):
                there = together.per_prompt[row].nan_to_num()
                assert torch.allclose(there, own.values.nan_to_num(), atol=2e-5), (pad, batch)


def test_what_is_refused():
    model = interp.load(tiny.build("gpt2", n_layer=1), check=False)
    with pytest.raises(RunError, match="this model has one layer"):
        scores_of(model, pairs_of(model))
    assert interp.attribute(model, pairs_of(model), "edges", method="atp-qk").signed
    model = interp.load(tiny.shared("gpt2"), check=False)
    with pytest.raises(MetricError, match="at its minimum there"):
        scores_of(model, pairs_of(model), metric="kl")
    with pytest.raises(RunError, match="threshold= belongs to"):
        scores_of(model, pairs_of(model), threshold=0.1)
