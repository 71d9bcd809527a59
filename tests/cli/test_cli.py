"""The commands are thin: what they print is what the library measured."""

import json

import pytest
from typer.testing import CliRunner

import interp
from interp.cli import app

runner = CliRunner()


def call(*arguments, code=0):
    result = runner.invoke(app, [str(a) for a in arguments])
    assert result.exit_code == code, result.output
    return result


def test_help_names_every_command():
    text = call("--help").output
    for name in (
        "demo",
        "scan",
        "info",
        "patch",
        "trace",
        "ablate",
        "attribute",
        "logit-attribution",
        "attention",
        "lens",
        "heads",
        "train-demo",
        "harvest",
        "store",
    ):
        assert name in text


def test_info_says_what_is_proven_and_refused():
    facts = json.loads(call("info", "demo", "--json", "--check", "full").output)
    assert facts["family"] == "gpt_neox"
    assert "resid_mid" in facts["proven"]
    assert "pos_embed" in facts["refused"]
    assert facts["worst"]["all sites hooked == eager attention"] == 0.0
    assert "sites proven by the quick check" in call("info", "demo").output


def test_patch_prints_the_librarys_numbers(tmp_path):
    arguments = ["patch", "demo", "L*.resid_pre", "--clean", "The capital of France is",
                 "--corrupted", "The capital of Japan is"]  # fmt: skip
    rows = json.loads(call(*arguments, "--json").output)
    model = interp.load("demo")
    result = interp.patch(
        model, "The capital of France is", "The capital of Japan is", "L*.resid_pre"
    )
    expected = result.to_frame().drop(columns=["low", "high"]).to_dict("records")
    assert [{k: v for k, v in row.items() if k not in ("low", "high")} for row in rows] == expected
    assert rows[0]["low"] is None  # one prompt has no interval, and NaN is no JSON
    saved, figure = tmp_path / "a.safetensors", tmp_path / "figure"
    call(*arguments, "--save", saved, "--plot", figure)
    assert interp.PatchResult.load(saved).values.tolist() == result.values.tolist()
    assert figure.with_suffix(".png").exists()
    assert figure.with_suffix(".svg").exists()


def test_patch_takes_tasks_and_files(tmp_path):
    model = interp.load("demo")
    pairs = interp.prompts.capitals(model, 6, 1)
    file = tmp_path / "pairs.jsonl"
    interp.prompts.save(pairs, file)
    options = ["--positions", "END", "--json", "--seed", "1"]
    from_task = json.loads(
        call("patch", "demo", "L*.resid_pre", "--task", "capitals", "--n", 6, *options).output
    )
    from_file = json.loads(
        call("patch", "demo", "L*.resid_pre", "--prompts", file, *options).output
    )
    assert from_task == from_file


def test_attribute_prints_the_librarys_numbers(tmp_path):
    arguments = ["attribute", "demo", "L*.H*.z", "--task", "ioi", "--n", 8, "--method", "atp*"]
    rows = json.loads(call(*arguments, "--json").output)
    model = interp.load("demo")
    result = interp.attribute(model, interp.prompts.ioi(model, 8, 0), "L*.H*.z", method="atp*")
    assert rows == result.to_frame().to_dict("records")
    saved, figure = tmp_path / "a.safetensors", tmp_path / "figure"
    text = call(*arguments, "--check", "--save", saved, "--plot", figure).output
    assert "Comparison(atp* with exact" in text
    assert interp.AttributionResult.load(saved).values.tolist() == result.values.tolist()
    assert figure.with_suffix(".png").exists()
    checked = json.loads(call(*arguments, "--check", "--json").output)
    assert {"layer", "head", "exact", "estimate", "error"} == set(checked[0])


def test_exact_edges_of_another_ablation_are_gone_on_from(tmp_path):
    saved = tmp_path / "edges.safetensors"
    arguments = ["attribute", "demo", "edges", "--task", "capitals", "--n", 2, "--method", "exact"]
    arguments += ["--ablation", "zero", "--json"]
    rows = json.loads(call(*arguments, "--save", saved).output)
    model = interp.load("demo")
    kept = interp.EdgeScores.load(saved)
    assert (kept.ablation, len(rows)) == ("zero", 927)
    assert rows == kept.to_frame().to_dict("records")
    assert json.loads(call(*arguments, "--resume", saved).output) == rows
    assert model.weights_hash == kept.provenance.weights_hash


def test_lens_and_heads(tmp_path):
    rows = json.loads(call("lens", "demo", "The capital of France is", "--json").output)
    assert {"layer", "position", "top", "prob"} <= set(rows[0])
    heads = json.loads(call("heads", "demo", "--n", 8, "--json").output)
    assert len(heads) == 24
    assert "induction" in call("heads", "demo", "--n", 8).output
    assert "no head of any kind found" in call("heads", "random", "--n", 8).output


@pytest.mark.parametrize(("arguments", "message", "code"), [
    (["info", "./nowhere"], "CheckpointError: there is no folder", 1),
    (["patch", "demo", "L*.resid_prr", "--task", "ioi"], "nearest: 'L*.resid_pre'", 1),
    (["patch", "demo", "L*.resid_pre", "--task", "capital"], "nearest: 'capitals'", 1),
    (["patch", "demo", "L*.resid_pre"], "--clean and --corrupted", 2),
    (["trace", "demo"], "give a text, or --task, or --prompts", 2),
    (["ablate", "demo", "L2.H*.z", "The capital of France is", "--method", "mean"],
     "one text is its own mean", 2),
    (["attention", "demo", "The capital of France is", "--plot", "/dev/null/x"], "/dev/null", 1),
    (["lens", "demo", ""], "PromptError", 1),
    (["lens", "demo", "The zyzzyva is"], "PromptError", 1),
    (["info", "demo", "--device", "cuda:99"], "is not available here", 1),
])  # fmt: skip
def test_errors_are_one_line_with_an_exit_code(arguments, message, code):
    result = call(*arguments, code=code)
    assert message in " ".join(result.output.split())
    assert "Traceback" not in result.output


def test_trace_prints_the_librarys_numbers(tmp_path):
    arguments = ["trace", "demo", "The capital of France is", "--subject", "France",
                 "--samples", 2, "--sever", "mlp"]  # fmt: skip
    rows = json.loads(call(*arguments, "--json", "--save", tmp_path / "a.safetensors").output)
    result = interp.trace(
        interp.load("demo"), "The capital of France is", subject="France", samples=2, sever="mlp"
    )
    assert [row["value"] for row in rows] == result.to_frame()["value"].tolist()
    assert interp.TraceResult.load(tmp_path / "a.safetensors").per_sample.equal(result.per_sample)
    printed = call("trace", "demo", "--task", "capitals", "--n", 4, "--samples", 1).output
    assert "last subject" in printed
    call("trace", "demo", "The capital of France is", code=1)  # no subject
    call("trace", "demo", "Text", "--task", "capitals", code=2)


TEXT = "The capital of France is"


def test_ablate_and_logit_attribution_print_the_librarys_numbers(tmp_path):
    model = interp.load("demo")
    rows = json.loads(call("ablate", "demo", "L2.H*.z", TEXT, "--method", "zero", "--json").output)
    result = interp.ablate(model, TEXT, "L2.H*.z", method="zero")
    assert [row["value"] for row in rows] == result.to_frame()["value"].tolist()
    call("ablate", "demo", "L2.H*.z", "--task", "capitals", "--n", 6, "--method", "zero")
    assert "resample" in call("ablate", "demo", "L2.H*.z", TEXT, code=1).output
    rows = json.loads(call("logit-attribution", "demo", TEXT, "--by", "head", "--json").output)
    written = interp.logit_attribution(model, TEXT, by="head")
    assert [row["value"] for row in rows] == pytest.approx(written.to_frame()["value"].tolist())
    call("logit-attribution", "demo", TEXT, "--task", "capitals", code=2)
    call("logit-attribution", "demo", TEXT, "--plot", tmp_path / "written")
    assert (tmp_path / "written.png").exists()


def test_lens_and_attention_take_sites_heads_and_a_page(tmp_path):
    rows = json.loads(call("lens", "demo", TEXT, "--sites", "L*.mlp_out", "--json").output)
    assert {row["layer"] for row in rows} == {f"L{i}.mlp_out" for i in range(4)}
    page = tmp_path / "attention.html"
    rows = json.loads(
        call("attention", "demo", TEXT, "--heads", "L2.H0", "--page", page, "--json").stdout
    )
    assert {row["head"] for row in rows} == {"L2.H0"}
    assert "<!doctype html>" in page.read_text()
    call("lens", "demo", TEXT, "--using", tmp_path / "none.safetensors", code=1)


def test_brackets_in_a_prompt_are_printed_as_they_are(capsys):
    from interp.cli.output import console, table

    table("[/INST]", ["cell"], [("[/INST] [bold]",)])
    console.print("Result('[/INST]')", highlight=False)
    text = capsys.readouterr().out
    assert text.count("[/INST]") == 3
    assert "[bold]" in text
