"""Circuits from the command line: found, recorded, measured again, shown, drawn, compared."""

from __future__ import annotations

import json
import re
import warnings
from dataclasses import replace
from functools import partial

import pytest
import torch
from typer.testing import CliRunner

import interp
from interp import circuits
from interp.circuits import Circuit
from interp.cli import app

runner = CliRunner()


def call(*arguments, code=0):
    result = runner.invoke(app, [str(a) for a in arguments])
    assert result.exit_code == code, result.output
    return result


def flat(text):
    return " ".join(re.sub(r"[│╭╮╰╯─]", " ", text).split())


@pytest.fixture(scope="module", autouse=True)
def few_prompts():
    """Records are of 6 prompts here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(circuits, "record", partial(circuits.record, n=6))
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory, few_prompts):
    """A circuit as ``circuit find`` writes it, from few prompts, and what it printed."""
    folder = tmp_path_factory.mktemp("circuits")
    result = call("circuit", "find", "greater_than", "--n", 8, "--seeds", 1, "--method", "eap",
                  "--out", folder, "--plot", folder / "roles", "--json")  # fmt: skip
    return folder / "greater_than-demo.json", result


# -- find, verify ------------------------------------------------------------------------------


def test_find_prints_the_finding_and_writes_a_small_recorded_circuit(made):
    path, result = made
    facts = json.loads(result.stdout)
    assert any("faithfulness" in line for line in facts["findings"])
    assert {"role", "node", "behaviour", "value", "twin"} <= set(facts["roles"][0])
    assert f"circuit: {path}" in result.stderr.replace("\n", "")
    assert path.with_name("roles.png").exists()
    own = Circuit.load(path)
    assert own.name == "greater_than-demo"
    assert own.model == "demo"
    assert own.source == (
        "interp circuit find greater_than --model demo --seeds 1 --seed 0 --n 8 --faithful 0.95 "
        "--method eap"
    )
    assert len(own.prompts["rows"]) == own.prompts["n"] == 4
    assert own.measured["evaluation"]["prompts"]["task"] == "greater_than"
    assert path.stat().st_size + path.with_suffix(".safetensors").stat().st_size < 30_000


def test_find_without_a_behaviour_fails_and_writes_nothing(tmp_path):
    result = call("circuit", "find", "greater_than", "--model", "random", "--n", 8, "--seeds", 1,
                  "--method", "eap", "--out", tmp_path, code=1)  # fmt: skip
    assert "no circuit: the model does not show this behaviour" in flat(result.stderr)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_induction_is_recorded_on_prompts_corrupted_as_those_it_was_found_on(monkeypatch, tmp_path):
    from interp import pipelines
    from interp.pipelines.tasks import induction

    model = interp.load("demo")
    pairs = induction.prompts(model, 4, 0)

    class Found:
        circuit = interp.discover(model, pairs, method="eap", n=20)
        stability, twin_stability = 0.5, None

        def findings(self):
            return []

        def to_frame(self):
            return ()

    monkeypatch.setattr(pipelines, "induction", lambda *_, **__: Found())
    call("circuit", "find", "induction", "--out", tmp_path / "a.json")
    own = Circuit.load(tmp_path / "a.json")
    assert own.prompts["options"] == {"corrupt": "both"}
    entry = own.measured["evaluation"]
    assert entry["prompts"]["hash"] == induction.prompts(model, 32, 1000).hash
    assert own.measured["stability"] == 0.5
    assert circuits.verify(own, model).ok


def test_verify_measures_again_and_names_what_failed(made, tmp_path):
    path, _ = made
    own = Circuit.load(path)
    (row,) = json.loads(call("circuit", "verify", path, "--json").stdout)
    assert row == {"circuit": str(path), "verdict": f"{own.size + 4} numbers as recorded",
                   "failures": []}  # fmt: skip
    assert "numbers as recorded" in call("circuit", "verify", path).stdout
    member = "m2->logits"
    other = next(edge for edge in own.graph.edges if edge not in own)
    swapped = replace(own, edges=own.edges - {member} | {other}, name="swapped")
    wrong = swapped.save(tmp_path / "swapped.json")
    result = call("circuit", "verify", wrong, tmp_path / "none.json", path, code=1)
    assert "FAILED" in result.stdout
    assert "swapped.json: circuit: recorded" in flat(result.stderr)
    assert re.search(r"swapped\.json: and \d+ more", flat(result.stderr))
    assert "none.json: CircuitError: there is no circuit file" in flat(result.stderr)
    rows = json.loads(call("circuit", "verify", wrong, path, "--json", code=1).stdout)
    assert [bool(row["failures"]) for row in rows] == [True, False]
    assert any(f"without {member}: in the record" in line for line in rows[0]["failures"])
    result = call("circuit", "verify", path, "--model", "random", code=1)
    assert "the weights are not those" in flat(result.stderr)


def test_verify_says_at_once_where_nothing_was_recorded(monkeypatch):
    monkeypatch.setattr("interp.cli.circuits.load", None)  # no model is asked for
    result = call("circuit", "verify", "ioi-gpt2", code=1)
    assert "'ioi-gpt2' has no record to verify" in flat(result.stderr)


# -- look ----------------------------------------------------------------------------------------


def test_list_and_show(made):
    rows = json.loads(call("circuit", "list", "--json").stdout)
    assert [row["circuit"] for row in rows] == list(circuits.shipped())
    ioi = next(row for row in rows if row["circuit"] == "ioi-gpt2")
    assert ioi["share"] == Circuit.load("ioi-gpt2").density
    assert ioi["faithfulness"] is None
    shown = call("circuit", "list").stdout
    assert "shipped circuits" in shown
    assert len(shown.splitlines()) < 8 * len(rows)  # sources are cut short
    path, _ = made
    own = Circuit.load(path)
    shown = call("circuit", "show", path).stdout
    assert "faithfulness: " in shown
    assert f"removal: {own.size} numbers, largest " in shown
    assert not re.search(r"\d\.\d{7}", shown)
    facts = json.loads(call("circuit", "show", path, "--json").stdout)
    assert [row["edge"] for row in facts["edges"]] == list(own.ordered)
    assert facts["roles"] == {node: list(roles) for node, roles in own.roles.items()}
    assert facts["measured"] == own.measured


def test_draw_writes_a_picture_or_a_page(made, tmp_path):
    path, _ = made
    call("circuit", "draw", path, "--out", tmp_path / "a.svg")
    assert (tmp_path / "a.svg").read_text() == Circuit.load(path).draw().svg
    result = call("circuit", "draw", path, "--out", tmp_path / "a.html", "--prompts", 1)
    assert "page: " in result.stderr
    text = (tmp_path / "a.html").read_text()
    data = json.loads(re.search(r'id="data">(.*?)</script>', text, re.S)[1])
    assert data["own"]["n"][-1] == Circuit.load(path).size  # faithfulness of its own first edges
    assert data["curve"]["n"][-1] == 927
    assert len(data["prompts"]) == 1
    result = call("circuit", "draw", "greater-than-gpt2", "--out", tmp_path / "b.html")
    assert "no attention patterns and no curve" in flat(result.stderr)
    assert "<!doctype html>" in (tmp_path / "b.html").read_text()


def test_evaluate_prints_the_librarys_numbers(made, tmp_path):
    path, _ = made
    arguments = ["circuit", "evaluate", path, "--n", 4, "--seed", 3]
    saved, figure = tmp_path / "a.safetensors", tmp_path / "figure"
    rows = json.loads(call(*arguments, "--json", "--save", saved, "--plot", figure).stdout)
    model, own = interp.load("demo"), Circuit.load(path)
    held_out = circuits.unseen(own, interp.prompts.greater_than(model, 4, 3))
    expected = own.evaluate(model, held_out, seed=3)
    assert [row["value"] for row in rows] == expected.to_frame()["value"].tolist()
    assert interp.CircuitEvaluation.load(saved).faithfulness == expected.faithfulness
    assert figure.with_suffix(".png").exists()
    bare = replace(own, prompts={}, scores=None).save(tmp_path / "bare.json")
    assert "give --task" in flat(call("circuit", "evaluate", bare, code=2).stderr)


def test_diff(made, tmp_path):
    path, _ = made
    own = Circuit.load(path)
    less = replace(own, name="less", edges=own.edges - {"m2->logits"}, scores=None)
    other = less.save(tmp_path / "less.json")
    facts = json.loads(call("circuit", "diff", path, other, "--json").stdout)
    assert facts["jaccard"] == pytest.approx((own.size - 1) / own.size)
    assert facts["only in greater_than-demo"] == ["m2->logits"]
    assert facts["only in less"] == []
    assert facts["both"] == list(less.ordered)
    same = json.loads(call("circuit", "diff", path, path, "--json").stdout)
    assert same["both"] == list(own.ordered)
    text = call("circuit", "diff", path, other).stdout
    assert "only in greater_than-demo\nm2->logits" in text


@pytest.mark.parametrize(("arguments", "message", "code"), [
    (["circuit", "find", "capital"], "is not one of", 2),
    (["circuit", "find", "ioi", "--method", "guess"], "method='guess'", 1),
    (["circuit", "find", "ioi", "--n", "2"], "greater than or equal to 4", 2),
    (["circuit", "show", "ioi-gpt3"], "nearest of those shipped: 'ioi-gpt2'", 1),
    (["circuit", "draw", "ioi-gpt2"], "Missing option '--out'", 2),
    (["circuit", "draw", "ioi-gpt2", "--out", "a.foo"], "ends in .svg, .pdf or .png", 1),
    (["circuit", "diff", "ioi-gpt2", "induction-redwood_attn_2l"], "different graphs", 1),
    (["discover", "demo"], "give --clean and --corrupted, or --task, or --prompts", 2),
    (["discover", "demo", "--task", "ioi", "--edges", "few"], "--edges few: give a number", 2),
    (["discover", "demo", "--task", "ioi", "--n", "4", "--method", "guess"], "method='guess'", 1),
    (["discover", "demo", "--task", "ioi", "--n", "4", "--method", "eap"], "how many to keep", 1),
    (["discover", "demo", "--task", "ioi", "--n", "4", "--tau", "1", "--method", "eap",
      "--edges", "9"], "tau", 1),
    (["discover", "demo", "--task", "ioi", "--save", "a.json", "--record", "a.safetensors"],
     "--record a.safetensors is where --save a.json puts the scores", 2),
    (["stability", "demo", "--task", "capitols", "--n", "4"], "'capitals'", 1),
    (["stability", "demo", "--seeds", "1"], "greater than or equal to 2", 2),
])  # fmt: skip
def test_errors_are_one_line_with_an_exit_code(arguments, message, code):
    result = call(*arguments, code=code)
    assert message in flat(result.output)
    assert "Traceback" not in result.output


# -- discover, stability ----------------------------------------------------------------------------


def test_discover_prints_and_saves_the_librarys_circuit(tmp_path):
    arguments = ["discover", "demo", "--task", "capitals", "--method", "eap", "--edges", 20,
                 "--n", 8, "--seed", 1]  # fmt: skip
    file = tmp_path / "found.json"
    rows = json.loads(call(*arguments, "--save", file, "--json").stdout)
    model = interp.load("demo")
    found_on, _ = interp.prompts.capitals(model, 8, 1).split(0.5, seed=1)
    own = interp.discover(model, found_on, method="eap", n=20)
    assert rows == own.to_frame().to_dict("records")
    saved = Circuit.load(file)
    assert saved == own
    assert torch.equal(saved.scores.values.nan_to_num(), own.scores.values.nan_to_num())
    text = call(*arguments, "--top", 3).stdout
    assert "strongest 3 edges" in text
    assert "faithfulness" in text
    assert "superfluous" not in text  # members were not asked


def test_discover_resumes_from_its_record(tmp_path):
    arguments = ["discover", "demo", "--task", "capitals", "--tau", 2.0, "--n", 4, "--json",
                 "--record", tmp_path / "acdc.safetensors"]  # fmt: skip
    first = json.loads(call(*arguments).stdout)
    assert (tmp_path / "acdc.safetensors").exists()
    assert json.loads(call(*arguments).stdout) == first


def test_a_warning_is_a_line_and_no_code():
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        result = call("discover", "demo", "--clean", "The capital of France is", "--corrupted",
                      "The capital of Japan is", "--method", "eap", "--edges", 9)  # fmt: skip
    assert "warning: 1 of these 1 prompts are among those" in flat(result.stderr)
    assert "UserWarning" not in result.stderr


def test_stability_prints_the_librarys_table(tmp_path):
    arguments = ["stability", "demo", "--task", "induction", "--seeds", 2, "--methods", "eap",
                 "--edges", 20, "--n", 4]  # fmt: skip
    saved, figure = tmp_path / "a.safetensors", tmp_path / "figure"
    rows = json.loads(call(*arguments, "--json", "--save", saved).stdout)
    found = interp.StabilityResult.load(saved)
    expected = json.loads(json.dumps(found.to_frame().to_dict("records"), default=str))
    assert len(rows) == len(expected)
    assert rows[0].keys() == expected[0].keys()
    assert "agreement" in call(*arguments, "--plot", figure).stdout
    assert figure.with_suffix(".png").exists()
