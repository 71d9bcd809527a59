"""A scan's numbers are those of the verbs it calls, and a control decides what it calls a finding."""

from __future__ import annotations

import json
import re

import pytest
import torch
from typer.testing import CliRunner

import interp
from interp.cli import app
from interp.direct.verb import logit_attribution
from interp.errors import PromptError, ResultError, RunError
from interp.overview.result import ScanResult
from interp.overview.verb import scan
from tests import tiny
from tests.views.browser import dom, needs_browser

TEXT = "The capital of France is"


@pytest.fixture(scope="module")
def model():
    return interp.load("demo")


@pytest.fixture(scope="module")
def found(model):
    return scan(model, TEXT)


def test_it_says_what_each_verb_says_of_the_prompt_alone(model, found):
    assert found.answer == " Paris"
    top = model.run(TEXT).logits[0, -1].softmax(-1).max()
    assert found.predictions[0] == (" Paris", pytest.approx(float(top), rel=1e-5))
    for by, name in (("component", "direct"), ("head", "direct, heads")):
        alone = logit_attribution(model, TEXT, answers=" Paris", by=by, draws=0)
        own = {part.removesuffix(".result"): float(v) for part, v in
               zip(alone.names, alone.values, strict=True)}  # fmt: skip
        family = found[name]
        assert len(family.cells) == (10 if by == "component" else 24)
        for cell, score in zip(family.cells, family.score.tolist(), strict=True):
            assert score == pytest.approx(own[cell], abs=1e-4)
    heads = found["attention"]
    pattern = interp.attention(model, TEXT, "L2.H0").patterns[0, -1]
    own = dict(zip(heads.cells, heads.score.tolist(), strict=True))
    shown = [own[f"L2.H0 → {token}"] for token in found.tokens]
    assert shown == pytest.approx(pattern.tolist(), abs=1e-6)
    lens = interp.lens(model, model.prompts(TEXT, answers=" Paris"))
    assert found["lens"].score.tolist() == pytest.approx(
        lens.answer_prob[:, 0].log().tolist(), abs=1e-4
    )


def test_the_demo_models_capital_survives(found):
    frame = found.findings(None)
    kept = frame[frame.survives]
    cells = set(zip(kept.family, kept.cell, strict=True))
    assert any(cell.endswith("→ 4 France") for family, cell in cells if family == "attention")
    direct = found["direct"]
    assert any(family == "direct" for family, _ in cells)
    assert direct.score[direct.survives()].min() > 1  # logits: they write the answer
    assert (kept.p <= 0.05).all()
    assert list(frame.survives) == sorted(frame.survives, reverse=True)
    assert 0 < len(kept) < 40 < len(frame)
    assert frame.finding.str.len().min() > 10


def test_a_given_answer_is_compared_with_itself_in_other_contexts(model):
    told = scan(model, TEXT, answer=" Paris", twin=False)
    own = scan(model, TEXT, twin=False)
    assert torch.allclose(told["direct"].score, own["direct"].score, atol=1e-5)
    assert own["lens"].mean[-1] > told["lens"].mean[-1] + 2  # contexts like their own tokens
    kept = told.findings(None)
    cells = set(kept[kept.survives].cell)
    assert {"out", "L2.mlp_out", "L2.attn_out"} <= cells  # written because of this prompt


def test_an_untrained_model_has_no_findings(model):
    result = scan(model.random_twin(5), TEXT)
    assert not result.to_frame().survives.any()
    assert "0 of" in repr(result)
    assert "Nothing, of" in result.html()


def test_the_twin_is_asked_about_its_own_top_token_as_the_model_is(model):
    twin = model.random_twin(5)
    own = scan(twin, TEXT, twin=False, draws=19)
    told = scan(twin, TEXT, answer=" Paris", twin=False, draws=19)
    assert own.answer != " Paris"
    for name in ("direct", "lens"):
        found = scan(model, TEXT, twin=twin, draws=19)[name]
        assert found.twin == pytest.approx(float(own[name].excess.abs().max()))
        given = scan(model, TEXT, answer=" Paris", twin=twin, draws=19)[name]
        assert given.twin == pytest.approx(float(told[name].excess.abs().max()))


def test_random_words_tell_next_to_nothing(model):
    """Where the prompt is one more random context, every family keeps its level."""
    spoke = []
    for seed in range(10):
        draw = torch.Generator().manual_seed(seed)
        words = torch.randint(20, 800, (1, 7), generator=draw)
        prompt = torch.cat([model.to_tokens("The")[:, :1], words], 1)
        result = scan(model, prompt, twin=False, draws=39)
        spoke += [bool(family.survives().any()) for family in result.families]
    assert sum(spoke) <= 7  # of 60, at 5%


def test_the_same_seed_gives_the_same_scan(model, found):
    again = scan(model, TEXT)
    for one, two in zip(found.families, again.families, strict=True):
        assert torch.equal(one.score, two.score)
        assert torch.equal(one.contexts, two.contexts)
        assert one.twin == two.twin


def test_a_foil_and_an_answer_can_be_given(model):
    result = scan(model, TEXT, answer=" Tokyo", foil=" Paris", twin=False)
    assert (result.answer, result.foil) == (" Tokyo", " Paris")
    direct = result["direct"]
    truth = model.run(TEXT).logits[0, -1]
    tokyo, paris = (truth[model.to_single_token(word)] for word in (" Tokyo", " Paris"))
    assert float(direct.score.sum()) == pytest.approx(float(tokyo - paris), abs=1e-3)
    assert result["lens"].twin is None
    assert result.twin_predictions is None
    with pytest.raises(PromptError, match="a foil needs an answer to be compared with"):
        scan(model, TEXT, answer=" Paris", foil=" Paris")
    with pytest.raises(PromptError, match="expected a token id"):
        scan(model, TEXT, answer=10**6)
    with pytest.raises(PromptError, match="expected a token id"):
        scan(model, TEXT, answer=1.5)
    with pytest.raises(RunError, match="top=0, twin='yes'; expected at least one prediction"):
        scan(model, TEXT, top=0, twin="yes")
    with pytest.raises(ResultError, match="no family 'heads'"):
        result["heads"]


def test_a_saved_scan_reads_back(found, tmp_path):
    again = ScanResult.load(found.save(tmp_path / "scan"))
    assert repr(again) == repr(found)
    assert again.findings(None).equals(found.findings(None))
    assert again.predictions == found.predictions
    assert again.html() == found.html()


def test_the_page_needs_nothing_beside_it(found, tmp_path):
    text = found.save_page(tmp_path / "scan.html").read_text()
    assert "default-src 'none'" in text
    assert not re.findall(r"""(?:src|href)\s*=\s*["']?(?!data:|#)[^"'\s>]+""", text)
    assert text.count("data:image/png;base64,") == 2
    assert "survives" in text
    figure = found.plot()
    assert "Paris" in figure.get_suptitle()


def test_a_long_prompt_and_many_heads_keep_their_labels():
    model = interp.load(
        tiny.build("gpt2", n_layer=1, n_head=26, n_embd=52, n_positions=128), check=False
    )
    result = scan(model, tiny.tokens(1, 100), twin=False, draws=19)
    figure = result.plot()
    head = figure.get_suptitle()
    assert len(head) < 300
    assert head.startswith("…")
    assert head.endswith(f"→ {result.answer}")
    parts = [axes for row in figure.subfigs for axes in row.axes if "its mean" in axes.get_title()]
    assert [text.get_text() for text in parts[0].texts] == ["MLP"]


def test_the_command_prints_the_same(found, tmp_path):
    runner = CliRunner()
    out = runner.invoke(app, ["scan", TEXT, "--json", "--page", str(tmp_path / "a.html")])
    assert out.exit_code == 0, out.output
    rows = json.loads(out.stdout)
    assert [row["score"] for row in rows] == found.findings(None)["score"].tolist()
    assert (tmp_path / "a.html").exists()
    printed = runner.invoke(app, ["scan", TEXT, "--no-twin", "--draws", "20"]).output
    assert "survives its control" in printed
    assert runner.invoke(app, ["scan", TEXT, "--draws", "3"]).exit_code == 1


@needs_browser
def test_the_page_draws_itself_without_a_network(found, tmp_path):
    document = dom(found.save_page(tmp_path / "scan.html"), tmp_path)
    assert f'data-drawn="{len(found.attention.heads)}"' in document
    assert "→" in document
    assert "chrome-error" not in document
