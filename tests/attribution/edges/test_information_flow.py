"""Information-flow routes against loops over the definitions, one column and one source at a time."""

import pytest
import torch

import interp
from interp.attribution.edges.information_flow import flows, importance, proximity
from interp.errors import RunError
from interp.graph.graph import Graph
from interp.graph.names import Node, node_of
from interp.graph.parts import Parts
from interp.token_batch import TokenBatch
from tests import tiny
from tests.attribution.cases import model_of, pairs_of

FAMILIES = ("gpt2", "llama", "gemma2", "gpt_neox", "qwen3", "falcon-grouped", "bloom")


def last_column(batch):
    start = torch.zeros_like(batch.mask)
    start[torch.arange(len(batch)), batch.column(-1)] = True
    return start


def flows_of(model, batch, *, graph=None, groups=None, start=None, threshold=0.0):
    graph = graph or Graph.of(model)
    start = last_column(batch) if start is None else start
    return flows(graph, Parts(model.anatomy), batch, start, groups, threshold=threshold)


def test_proximity_by_hand():
    whole = torch.tensor([3.0, -1.0])
    terms = torch.tensor([[3.0, 0.0], [0.0, -2.0], [-5.0, 1.0], [0.0, 0.0]])
    assert proximity(terms, whole).tolist() == [3.0, 0.0, 0.0, 0.0]  # 4 - 1, 4 - 4, < 0, 4 - 4
    assert proximity(terms[:2], torch.tensor([3.0, -2.0])).tolist() == [3.0, 2.0]
    assert importance(terms[:2], torch.tensor([3.0, -2.0])).tolist() == pytest.approx([0.6, 0.4])
    assert importance(terms[2:], whole).tolist() == [0.0, 0.0]  # nobody, not NaN


# -- by loops ------------------------------------------------------------------------------


def terms_by_hand(model, run, graph, row, pos):
    """What each node writes at one column, from weights and the model's own norms."""
    found = {"embed": run.cache["embed"][row, pos]}
    if graph.pos_embed:
        found["pos_embed"] = run.cache["pos_embed"].expand_as(run.cache["embed"])[row, pos]
    for layer, block in enumerate(model.anatomy.blocks):
        z = run.cache[f"L{layer}.z"][row, pos]
        for head in range(model.n_heads):
            found[f"a{layer}.h{head}"] = written(model, block, layer, head, z[head], z)
        found[f"m{layer}"] = run.cache[f"L{layer}.mlp_out"][row, pos]
    return found


def written(model, block, layer, head, z, whole):
    """A head's part of what attention adds; the norm behind it (RMSNorm) at the run's scale."""
    weight = model.W_O[layer, head]
    if not block.norm_after_attn:
        return z @ weight
    added = torch.einsum("he,hed->d", whole, model.W_O[layer])
    ones = torch.ones_like(added)
    gain = block.attn_branch(ones) * (1 + block.attn_branch.eps) ** 0.5
    return z @ weight * gain / (added.pow(2).mean() + block.attn_branch.eps).sqrt()


def share(terms, whole):
    near = {
        n: max(0.0, float(whole.abs().sum() - (whole - c).abs().sum())) for n, c in terms.items()
    }
    total = sum(near.values())
    return {name: value / total if total else 0.0 for name, value in near.items()}


@torch.no_grad()
def by_loops(model, batch, threshold):
    graph = Graph.of(model)
    save = ["embed", "L*.z", "L*.mlp_out", "L*.resid_pre", "L-1.resid_post", "L*.pattern", "L*.v"]
    save += ["pos_embed"] * graph.pos_embed + ["L*.resid_mid"] * (not graph.parallel)
    run = model.run(batch, save=save, logits="none")
    out = torch.zeros(len(batch), *graph.real.shape, dtype=torch.float64)
    for row in range(len(batch)):
        columns = batch.mask[row].nonzero().flatten().tolist()
        terms = {pos: terms_by_hand(model, run, graph, row, pos) for pos in columns}
        onwards = {(name, pos): 0.0 for name in graph.sources for pos in columns}
        reads = {dest: set() for dest in graph.dests}
        reads["logits"] = {columns[-1]}
        for d in reversed(range(len(graph.dests))):
            dest, node = graph.dests[d], Node.parse(node_of(graph.dests[d]))
            layer = node.layer
            sources = [s for i, s in enumerate(graph.sources) if graph.real[i, d]]
            point = "resid_post" if layer is None else "resid_pre"
            if node.kind == "mlp":
                reads[dest] = {p for p in columns if onwards[dest, p] > threshold}
                point = point if graph.parallel else "resid_mid"
            if node.kind == "head":
                reads[dest] = head_reads(model, run, row, node, dest, onwards, columns, threshold)
            layer = model.n_layers - 1 if layer is None else layer
            for pos in reads[dest]:
                stream = run.cache[f"L{layer}.{point}"][row, pos]
                parts = share({name: terms[pos][name] for name in sources}, stream)
                for name, value in parts.items():
                    if value > threshold:
                        out[row, graph.sources.index(name), d] += value / len(reads[dest])
                        onwards[name, pos] = max(onwards[name, pos], value)
    return graph, out


def head_reads(model, run, row, node, dest, onwards, columns, threshold):
    queries = {p for p in columns if onwards[str(node), p] > threshold}
    if dest.endswith("<q>"):
        return queries
    block, found = model.anatomy.blocks[node.layer], set()
    value = run.cache[f"L{node.layer}.v"][row]
    group = model.n_heads // value.shape[1]
    for i in queries:
        z = run.cache[f"L{node.layer}.z"][row, i]
        pattern = run.cache[f"L{node.layer}.pattern"][row, node.index, i]
        moved = {
            j: written(model, block, node.layer, node.index,
                       pattern[j] * value[j, node.index // group], z)
            for j in columns
        }  # fmt: skip
        parts = share(moved, sum(moved.values()))
        found |= {j for j, one in parts.items() if one * onwards[str(node), i] > threshold}
    return found


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2", "gpt_neox", "bloom"])
def test_equals_loops_over_the_definition(family):
    model = model_of(family)
    batch = TokenBatch.stack(
        [row[:n] for row, n in zip(tiny.tokens(2, 5).tolist(), (5, 4), strict=True)]
    )
    for threshold in (0.0, 0.03):
        graph, expected = by_loops(model, batch, threshold)
        found = flows_of(model, batch, threshold=threshold)
        assert (expected.sum((1, 2)) > 1).all()
        assert torch.allclose(found, expected, atol=1e-9)
    assert not found[:, ~graph.real].any()


# -- what must hold ------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_what_a_destination_reads_sums_to_one(family):
    model = model_of(family)
    sums = flows_of(model, model.batch(tiny.tokens(2, 7))).sum(1)
    assert bool(((sums - 1).abs() < 1e-9).logical_or(sums == 0).all())
    assert torch.allclose(sums[:, -1], torch.ones(2, dtype=sums.dtype))  # the logits are read
    assert (sums > 0.5).double().mean() > 0.5


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2"])
def test_padding_changes_nothing(family):
    model = interp.load(tiny.shared(family), check=False)
    rows = tiny.tokens(2, 6).tolist()
    rows[1] = rows[1][:4]
    alone = torch.cat([flows_of(model, model.batch(torch.tensor(row))) for row in rows])
    for side in ("left", "right"):
        together = flows_of(model, TokenBatch.stack(rows, pad=side))
        assert torch.allclose(together, alone, atol=1e-5), side


def test_a_threshold_drops_edges_and_what_lies_behind_them():
    model = model_of("gpt2")
    batch = model.batch(tiny.tokens(2, 7))
    counts = [
        int((flows_of(model, batch, threshold=one) > 0).sum()) for one in (0.0, 0.02, 0.1, 0.5)
    ]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > counts[1] > counts[2] > counts[3]
    assert not flows_of(model, batch, threshold=1.0).any()


def test_each_group_of_positions_sums_to_one_where_it_is_read():
    model = model_of("llama")
    graph = Graph.of(model, positions=["s"])
    batch = model.batch(tiny.tokens(2, 6))
    groups = torch.ones(2, 6, dtype=torch.long)
    groups[:, 2] = 0
    sums = flows_of(model, batch, graph=graph, groups=groups).sum(1)
    assert bool(((sums - 1).abs() < 1e-9).logical_or(sums == 0).all())
    assert sums[:, -1].tolist() == [[0.0, pytest.approx(1.0)]] * 2  # logits are read at the end
    keys = graph.dests.index("a0.h0<k>")
    assert (sums[:, keys] > 0.5).all()


def test_neurons_that_are_nodes_and_models_without_position_embeddings_of_one_head():
    model = model_of("llama", num_attention_heads=1, num_key_value_heads=1)
    graph = Graph.of(model, units=["m1.n3"])
    found = flows_of(model, model.batch(tiny.tokens(2, 5)), graph=graph)
    sums = found.sum(1)
    assert found.shape == (2, len(graph.sources), len(graph.dests))
    assert bool(((sums - 1).abs() < 1e-9).logical_or(sums == 0).all())


def test_a_term_that_is_all_of_the_stream_is_all_of_the_flow():
    """Heads and MLPs that write nothing: the embedding is everything there is to read."""
    hf = tiny.build("llama")
    with torch.no_grad():
        for block in hf.model.layers:
            block.self_attn.o_proj.weight.zero_()
            block.mlp.down_proj.weight.zero_()
    model = interp.load(hf, check=False)
    graph = Graph.of(model)
    found = flows_of(model, model.batch(tiny.tokens(2, 5)), graph=graph)
    expected = torch.zeros_like(found)
    expected[:, 0, -1] = 1.0
    assert torch.equal(found, expected)


def test_through_the_verb_without_pairs_or_a_gradient():
    model = interp.load(tiny.shared("gpt2"), check=False)
    pairs = pairs_of(model)
    prompts = model.prompts(pairs.clean, answers=pairs.answers, foils=pairs.foils)
    found = interp.attribute(model, prompts, "edges", method="information-flow", threshold=0.02)
    batch = prompts.clean
    assert torch.allclose(
        found.per_prompt.nan_to_num(), flows_of(model, batch, threshold=0.02).float(), atol=1e-6
    )
    assert found.values.isnan().equal(~found.graph.real)
    assert not found.signed
    assert found.what == "share of what the destination reads"
    every = interp.attribute(model, prompts, "edges", method="information-flow", metric="nll")
    assert torch.allclose(  # a metric of all positions: routes begin at each of them
        every.per_prompt.nan_to_num(), flows_of(model, batch, start=batch.mask).float(), atol=1e-6
    )
    with pytest.raises(RunError, match="expected the share of what a destination reads"):
        interp.attribute(model, prompts, "edges", method="information-flow", threshold=2)
