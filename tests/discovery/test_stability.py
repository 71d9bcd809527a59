"""Stability: by hand on scores that are given, and a planted circuit in a real model beside its twin."""

from __future__ import annotations

import pytest
import torch

import interp
from interp.discovery.stability import stability
from interp.discovery.stability_result import StabilityResult, chance_jaccard, jaccard
from interp.errors import GraphError, PromptError, ResultError, RunError
from interp.graph import Graph
from tests.circuits.formula import scored

GRAPH = Graph(n_layers=2, n_heads=2, pos_embed=False)
E = GRAPH.edges


class Toy:
    """A model that is only asked for its name and its twin."""

    name, weights_hash = "toy", "a" * 64

    def random_twin(self, **_):
        twin = Toy()
        twin.name = "twin"
        return twin


def batch(seed, n=4):
    ids = torch.arange(3 * n).reshape(n, 3) + 100 * seed
    return interp.Prompts(interp.TokenBatch.of(ids), seed=seed)


def given(model, prompts, *, metric, ablation, reference=None):
    """Edges 0 and 1 always; a third that depends on the draw; zero ablation finds another first."""
    draw = int(prompts.clean.ids[0, 0]) // 100
    if model.name == "twin":
        return scored(GRAPH, {E[3 * draw + i]: 1.0 + i for i in range(3)})
    first = E[0] if ablation == "resample" else E[40]
    return scored(GRAPH, {first: -3.0, E[1]: 2.0, E[10 + draw % 2]: -1.0})


def rough(model, prompts, **options):
    """The same order in other numbers."""
    own = given(model, prompts, **options)
    return scored(GRAPH, own.values**3)


def measured(**options):
    options = {"seeds": 3, "methods": [given, rough], "n": 3, "ablations": ("resample", "zero"),
               **options}  # fmt: skip
    return stability(Toy(), batch, **options)


def test_pairs_of_draws_by_hand():
    found = measured()
    # draws 0 and 2 share all three edges, 1 shares two of four with each
    assert found.jaccard().tolist() == pytest.approx([0.5, 1.0, 0.5])
    assert found.stable() == (E[0], E[1])
    assert set(found.stable(0.6)) == {E[0], E[1], E[10]}
    frequency = dict(zip(E, found.frequency().tolist(), strict=True))
    assert frequency[E[10]] == pytest.approx(2 / 3)
    assert frequency[E[11]] == pytest.approx(1 / 3)
    assert found.jaccard(twin=True).tolist() == [0, 0, 0]


def test_methods_agree_and_ablations_do_not():
    found = measured()
    rank, same = found.agreement("methods")
    assert torch.allclose(rank, torch.ones(2, 2).double())
    assert torch.allclose(same, torch.ones(2, 2).double())
    rank, same = found.agreement("ablations")
    assert same[0, 1] == pytest.approx(0.5)  # two of four edges
    assert 0 < rank[0, 1] < 0.8


def test_the_table_has_a_row_for_each_comparison():
    frame = measured().to_frame()
    assert frame["over"].value_counts().to_dict() == {"prompts": 6, "methods": 2, "ablations": 2}
    own = frame[(frame["of"] == "given (resample)") & (frame["model"] == "toy")].iloc[0]
    assert (own["jaccard"], own["low"], own["high"]) == pytest.approx((2 / 3, 0.5, 1.0))
    assert own["chance"] == pytest.approx(chance_jaccard(3, 46))
    edges = measured().edges_frame()
    assert edges["edge"].tolist() == [E[0], E[1], E[10], E[11]]
    assert edges["score"].tolist()[:2] == pytest.approx([-3, 2])


def test_a_score_of_zero_never_belongs():
    found = measured(n=10)
    assert int(found.members().sum(-1).max()) == 3  # not the first ten in the order of the graph


def test_chance_is_the_mean_of_random_sets():
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([torch.randperm(60, generator=generator) < 12 for _ in range(4000)])
    mean = float(jaccard(drawn[:2000], drawn[2000:]).mean())
    assert chance_jaccard(12, 60) == pytest.approx(mean, abs=0.004)
    assert chance_jaccard(60, 60) == pytest.approx(1)
    assert chance_jaccard(0, 60) == 1.0


def test_prompts_are_halved_and_the_draws_differ():
    seen = []

    def watching(model, prompts, *, metric, ablation, reference=None):
        seen.append((prompts.hash, None if reference is None else reference.hash))
        return given(model, prompts, metric=metric, ablation=ablation)

    found = stability(Toy(), batch(0, n=8), seeds=3, methods=[watching], n=3, twin=False,
                      ablations=("resample", "mean"))  # fmt: skip
    assert len({one for one, _ in seen}) == 3
    assert found.n_prompts == 4
    assert all((reference is None) == (i % 2 == 0) for i, (_, reference) in enumerate(seen))
    assert all(one != reference for one, reference in seen)
    assert "random half of the same 8" in found.drawn
    assert found.twin is None
    assert len(found.to_frame()["model"].unique()) == 1


def test_the_same_seeds_give_the_same_bytes(demo):
    options = {
        "seeds": 2,
        "n_prompts": 3,
        "methods": ["eap"],
        "ablations": ("resample",),
        "twin": False,
    }
    one, two = (stability(demo, "capitals", **options) for _ in range(2))
    assert torch.equal(one.scores, two.scores)
    assert one.drawn == "task 'capitals', another seed for each draw"


def test_it_is_saved_whole_and_drawn(tmp_path):
    found = measured()
    again = StabilityResult.load(found.save(tmp_path / "stability.safetensors"))
    assert again.to_frame().equals(found.to_frame())
    assert repr(again) == repr(found)
    assert again.graph.edges == E
    titles = [axes.get_title() for axes in found.plot().axes]
    assert titles[:3] == ["other prompts", "other methods (resample)", "other ablations (given)"]
    assert len(measured(methods=[given], ablations=("zero",), twin=False).plot().axes) == 4


def test_what_it_refuses():
    with pytest.raises(RunError, match="at least two draws"):
        measured(seeds=1)
    with pytest.raises(PromptError, match="no task is called 'capitls'; nearest: 'capitals'"):
        stability(Toy(), "capitls")
    with pytest.raises(PromptError, match="expected Prompts"):
        stability(Toy(), lambda seed: "text", ablations=("zero",))
    with pytest.raises(RunError, match="n=47"):
        measured(n=47)
    found = measured()
    with pytest.raises(ResultError, match="the first ablation"):
        found.jaccard(ablation="zero", twin=True)
    with pytest.raises(ResultError, match="no method 'exact'"):
        found.jaccard("exact")
    with pytest.raises(ResultError, match="expected 'methods' or 'ablations'"):
        found.agreement("prompts")


@pytest.fixture(scope="module")
def demo():
    return interp.load("demo", check=False)


def test_a_behaviour_of_the_demo_model_is_stable_and_its_twin_is_not(demo):
    found = stability(demo, "capitals", seeds=3, n_prompts=16, methods=["eap-ig"],
                      ablations=("resample",))  # fmt: skip
    assert float(found.jaccard().mean()) >= 0.7
    assert float(found.jaccard(twin=True).mean()) < 0.5
    assert {"embed->m0", "m2->logits"} <= set(found.stable())
    assert found.n == int(0.05 * 927)


def test_ablations_that_prompts_do_not_allow_are_left_out_and_told(demo):
    unpaired = demo.prompts(
        ["The capital of France is", "The capital of Japan is"], answers=[" Paris", " Tokyo"],
        foils=[" Tokyo", " Paris"],
    )  # fmt: skip
    with pytest.warns(UserWarning, match="resample ablation is left out"):
        found = stability(demo, lambda seed: unpaired, seeds=2, n=0.02, methods=["eap"], twin=False)
    assert found.ablations == ("zero", "mean")
    assert "no corrupted side" in found.notes[0]
    with pytest.raises(GraphError, match="no corrupted side"):
        stability(demo, lambda seed: unpaired, ablations=("resample",), methods=["eap"])
