"""Sparse probing finds a planted feature, and nothing under its null controls."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from interp.errors import PromptError, ResultError, RunError
from interp.evaluation import SparseProbing, evaluate, sparse_probing
from interp.evaluation.probing import strongest
from interp.evaluation.probing_tasks import demo_tasks, tasks_of
from tests.evaluation import built

SITE = "L0.mlp.input"
WORDS = ("is", "of", "in", "the", "capital", "store", "year", "book")


def _texts(n=120):
    """Random words of which half of the texts have "Paris" among them."""
    rng = np.random.default_rng(0)
    labels = [bool(i % 2) for i in range(n)]
    texts = []
    for label in labels:
        words = list(rng.choice(WORDS, size=6))
        words[rng.integers(6)] = "Paris" if label else "Rome"
        texts.append("The " + " ".join(words))
    return texts, labels


@pytest.fixture(scope="module")
def planted(demo):
    """An SAE of random directions of which feature 7 is active at "Paris" alone."""
    run = demo.run("The capital of France is Paris", save=SITE)
    x = run.cache[SITE][0]
    draw = torch.Generator().manual_seed(0)
    enc = torch.nn.functional.normalize(torch.randn(64, 192, generator=draw).double(), dim=-1)
    bias = torch.full((64,), -0.5, dtype=torch.float64)
    other = demo.run("The capital of Italy is Rome", save=SITE).cache[SITE][0]
    direction = x[-1] - other[-1]
    enc[7] = 20 * direction / direction.norm() ** 2
    bias[7] = -20 * float((direction @ (x[-1] + other[-1])) / 2 / direction.norm() ** 2)
    return built.made("sae", (SITE,), (SITE,), enc, bias, enc, torch.zeros(192))


def test_a_planted_feature_is_found_with_one(demo, planted):
    texts, labels = _texts()
    found = sparse_probing({"planted": planted}, demo, {"paris": (texts, labels)}, k=(1, 2))
    at = dict(zip(found.probes, found.accuracy[0, 0].tolist(), strict=True))
    assert at["sae_top_1"] >= 0.95
    assert int(found.chosen[0, 0, 0]) == 7
    assert at["llm_top_1"] < at["sae_top_1"]
    null = dict(zip(found.probes, found.shuffled[0, 0].tolist(), strict=True))
    assert abs(null["sae_top_1"] - 0.5) < 0.2
    twin = dict(zip(found.probes, found.random_model[0, 0].tolist(), strict=True))
    assert twin["sae_top_1"] < 0.8
    assert set(found.to_frame().probe) == set(found.probes)
    assert bool((found.to_frame().low < found.to_frame().high).all())


def test_pooling_is_the_mean_over_tokens_but_special_ones(demo, planted):
    from interp.corpora.packing import Packing
    from interp.evaluation.probing import _pooled
    from interp.evaluation.spliced import Placed

    texts = ["The capital of France is Paris", "People in Brazil speak"]
    placed = [Placed.of(demo, planted, "one")]
    ((features, raw),) = _pooled(demo, placed, texts, Packing(32, 8, "padded"), lambda n: None)
    for i, text in enumerate(texts):
        x = demo.run(text, save=SITE).cache[SITE][0, 1:]  # without BOS
        np.testing.assert_allclose(raw[i], x.mean(0), rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(features[i], planted.encode(x).mean(0), rtol=1e-9, atol=1e-12)


def test_the_strongest_differ_most_between_class_means():
    x = np.array([[0.0, 5, 1], [0, 5, 2], [3, 5, 0], [3, 5, 1]])
    assert strongest(x, np.array([0, 0, 1, 1]), 2).tolist() == [0, 2]


def test_many_classes_are_balanced_and_groups_stay_together():
    labels = ["a"] * 40 + ["b"] * 30 + ["c"] * 50
    groups = [i // 5 for i in range(120)]
    tasks = tasks_of({"t": (["text"] * 120, labels, groups)}, test=0.4, seed=1)
    assert [task.name for task in tasks] == ["t/a", "t/b", "t/c"]
    for task in tasks:
        for side in (task.train, task.test):
            assert task.label[side].mean() == 0.5
        assert not {groups[i] for i in task.train} & {groups[i] for i in task.test}
    (two,) = tasks_of({"t": (["x"] * 40, [0, 1] * 20)}, test=0.3, seed=0)
    assert two.name == "t"
    assert two.label.tolist() == [0, 1] * 20


def test_the_demo_has_tasks_offline():
    tasks = tasks_of(demo_tasks(200), test=0.2, seed=0)
    names = [task.name for task in tasks]
    assert names[:4] == [f"relation/{x}" for x in ("capital", "continent", "currency", "language")]
    assert names[4:] == ["continent/Africa", "continent/Asia", "continent/Europe", "ioi"]


def test_an_evaluation_holds_its_probing(demo, corpus, planted, tmp_path):
    texts, labels = _texts(60)
    found = evaluate(
        {"planted": planted}, demo, corpus, tokens=100, batch=2, controls=False, progress=False,
        probing={"paris": (texts, labels)},
    )  # fmt: skip
    frame = found.to_frame()
    own = frame[frame.metric == "sae_top_1_test_accuracy"]
    assert float(own.value.iloc[0]) == float(found.probing.accuracy[0, 0, 0])
    again = type(found).load(found.save(tmp_path / "e.safetensors"))
    assert again.to_frame().equals(frame)
    assert torch.equal(again.probing.chosen, found.probing.chosen)
    alone = SparseProbing.load(found.probing.save(tmp_path / "p.safetensors"))
    assert alone.tasks == ("paris",)
    assert len(alone.plot().axes) == 1
    assert alone.rows[0] in alone.plot(row=alone.rows[0]).axes[0].get_title()
    with pytest.raises(ResultError, match=r"no dictionary 1 in this result, of "):
        alone.plot(row=1)


@pytest.mark.bad_input
def test_errors(demo, planted):
    def run(tasks, **options):
        sparse_probing({"p": planted}, demo, tasks, **options)

    with pytest.raises(PromptError, match="probing has no data"):
        run({})
    with pytest.raises(PromptError, match="3 texts, 2 labels; expected as many"):
        run({"t": (["a", "b", "c"], [0, 1])})
    with pytest.raises(PromptError, match="has 1 class; expected two"):
        run({"t": (["a", "b"], [0, 0])})
    with pytest.raises(PromptError, match="expected 4 at least"):
        run({"t": (["a", "b", "c", "d"], [0, 1, 0, 1])})
    with pytest.raises(PromptError, match="is a str; expected \\(texts, labels\\)"):
        run({"t": "text"})
    with pytest.raises(RunError, match=r"k=\(0,\)"):
        run("demo", k=(0,))
