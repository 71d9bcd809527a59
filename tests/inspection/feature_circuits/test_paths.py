"""Greedy paths: against a search by hand, the cap, planted paths, the graph."""

import pytest
import torch

import interp
from interp.errors import DictionaryError
from interp.inspection.feature_circuits import FeaturePaths, Node, feature_paths, without_paths
from interp.inspection.feature_circuits.contributions import begin
from tests import tiny
from tests.inspection.feature_circuits.made import (
    double,
    neurons_as_features,
    strongest,
    transcoder,
)


@pytest.fixture(scope="module")
def case():
    model = double("gpt2")
    tcs = [transcoder(model, layer) for layer in range(3)]
    ids = tiny.tokens(1, 7)
    return model, tcs, ids, strongest(model, ids, tcs[2], 2)


def by_hand(run, root, k, steps):
    """Algorithm 1 without a cap, with lists of (names, contribution, direction)."""
    kept, found = [([root.name], [None], run.root(root))], []
    for _ in range(steps):
        new = []
        for names, values, direction in kept:
            terms = [] if direction is None else run.terms(direction)
            terms = [(n, v) for n, v in terms
                     if n.kind in ("feature", "head", "embed", "pos_embed", "mlp") and v > 0]  # fmt: skip
            for node, value in sorted(terms, key=lambda term: -term[1])[:k]:
                new.append(([*names, node.name], [*values, value], run.behind(node, direction)))
        kept = sorted(new, key=lambda path: -path[1][-1])[:k]
        found += kept
    return [(tuple(names), values[1:]) for names, values, _ in found]


def test_greedy_search_by_hand(case):
    model, tcs, ids, unit = case
    found = feature_paths(tcs, model, ids, f"L2.mlp.F{unit}", k=4, steps=3, cap=False)
    want = by_hand(*begin(tcs, model, ids, f"L2.mlp.F{unit}"), 4, 3)
    assert list(found.paths) == [names for names, _ in want]
    assert [values[1:] for values in found.contributions] == [pytest.approx(v) for _, v in want]
    assert found.contributions[0][0] == found.activation > 0


def test_the_cap_is_the_smallest_contribution_of_any_feature_on_the_path(case):
    model, tcs, ids, unit = case
    free = feature_paths(tcs, model, ids, f"L2.mlp.F{unit}", k=8, steps=4, cap=False)
    held = feature_paths(tcs, model, ids, f"L2.mlp.F{unit}", k=8, steps=4)
    raw = dict(zip(free.paths, free.contributions, strict=True))
    bound = 0
    for path, values in zip(held.paths, held.contributions, strict=True):
        for i in range(1, len(path)):
            before = [v for n, v in zip(path[:i], values[:i], strict=True) if ".F" in n]
            assert values[i] <= min(before) + 1e-12
        if path in raw:
            assert all(a <= b + 1e-12 for a, b in zip(values, raw[path], strict=True))
            bound += values != raw[path]
    assert bound or max(map(max, free.contributions)) <= free.activation


def planted():
    """A model, its tokens, and transcoders: feature 7 of layer 2 reads what neuron 5 of layer 0 writes at token 3."""
    model = interp.load(tiny.build("gpt2", activation_function="relu").double(), check=False)
    ids = tiny.tokens(1, 6)
    x = model.run(ids, save="L0.mlp.input").cache["L0.mlp.input"][0, 3]
    carrier = torch.randn(model.d_model, generator=torch.Generator().manual_seed(0)).double()
    mlp, late = model.hf.transformer.h[0].mlp, transcoder(model, 2)
    with torch.no_grad():
        mlp.c_fc.weight[:, 5] = 50 * x / x.norm() ** 2
        mlp.c_proj.weight[5] = carrier - carrier.mean()
        late.parts[0].enc[7] = carrier / model.hf.transformer.h[2].ln_2.weight
        late.parts[0].b_enc[7] = 0.0
    return model, ids, [neurons_as_features(model, 0), late]


def test_a_planted_path_is_found():
    """A feature of layer 2 that reads what a neuron of layer 0 writes, which reads one token."""
    model, ids, tcs = planted()
    found = feature_paths(tcs, model, ids, "L2.mlp.F7@3", k=9, steps=2)
    assert found.paths[0] == ("L2.mlp.F7@3", "L0.mlp.F5@3")
    assert found.contributions[0][1] > 0.8 * found.activation
    assert ("L2.mlp.F7@3", "L0.mlp.F5@3", "embed@3") in found.paths


def test_bos_is_left_out(model):
    tc = transcoder(model, 2, d_sae=12)
    prompt = "The capital of France is"
    unit = strongest(model, prompt, tc, 2)
    name = f"L2.mlp.F{unit}"
    without = feature_paths(tc, model, prompt, name, k=30, steps=1)
    whole = feature_paths(tc, model, prompt, name, k=30, steps=1, ignore_bos=False)
    sources = [{Node.parse(p[-1]).source for p in one.paths} for one in (without, whole)]
    assert 0 not in sources[0]
    assert 0 in sources[1]
    assert set(without.paths) <= set(
        feature_paths(tc, model, prompt, name, k=99, steps=1, ignore_bos=False).paths
    )


def test_graph_table_and_file(case, tmp_path):
    model, tcs, ids, unit = case
    found = feature_paths(tcs, model, ids, f"L2.mlp.F{unit}", k=4, steps=3)
    graph, frame = found.graph(), found.to_frame()
    assert set(graph.nodes) == {name for path in found.paths for name in path}
    for start, end, data in graph.edges(data=True):
        assert data["contribution"] == pytest.approx(found.edges[start, end])
    assert list(frame.edges)[:4] == [1] * 4
    assert frame.share.iloc[0] <= 1
    first = {(p[1], p[0]): v[1] for p, v in zip(found.paths, found.contributions, strict=True)}
    for edge, value in first.items():
        assert found.edges[edge] == pytest.approx(value)  # shared prefixes count once
    again = FeaturePaths.load(found.save(tmp_path / "p.safetensors"))
    assert again.paths == found.paths
    assert again.contributions == found.contributions
    assert found.feature in found.plot().axes[0].get_title()
    assert "←" in repr(found)


@pytest.mark.bad_input
def test_errors(case):
    model, tcs, ids, unit = case
    with pytest.raises(DictionaryError, match=r"k=0; expected a whole number from 1 up"):
        feature_paths(tcs, model, ids, f"L2.mlp.F{unit}", k=0)
    x = model.run(ids, save="L2.mlp.input").cache["L2.mlp.input"][0, -1]
    dead = int(tcs[2].encode(x).argmin())
    with pytest.raises(DictionaryError, match=rf"is not active on this prompt.*F{unit} "):
        feature_paths(tcs, model, ids, f"L2.mlp.F{dead}")


def test_without_the_features_on_its_paths_a_planted_feature_is_gone():
    """One neuron carries all that the feature reads: zeroed by hand, and by the verb."""
    model, ids, tcs = planted()
    found = feature_paths(tcs, model, ids, "L2.mlp.F7@3", k=1, steps=1)
    effect = without_paths(tcs, model, ids, found, draws=3)
    assert effect.zeroed == ("L0.mlp.F5@3",)
    edit = {"L0.mlp_post.N5@3": interp.Zero()}
    read = model.run(ids, save="L2.mlp.input", edit=edit).cache["L2.mlp.input"][0, 3]
    assert effect.without == pytest.approx(float(tcs[1].encode(read)[7]), abs=1e-9)
    assert effect.whole == pytest.approx(found.activation)
    assert effect.lost > 0.7 > 0.1 > float(effect.lost_at_random.abs().max())
    with pytest.raises(DictionaryError, match="no feature lies on the paths"):
        without_paths(tcs[1], model, ids, feature_paths(tcs[1], model, ids, "L2.mlp.F7@3", k=1))
