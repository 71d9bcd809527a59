"""Dictionaries from the command line: trained, gone on with, evaluated, looked at."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

import interp
from interp.cli import app

runner = CliRunner()
TINY = ("--d-sae", 32, "--k", 3, "--tokens", 512, "--batch", 128, "--set", "buffer=512")
TINY = (*TINY, "--set", "tensorboard=false")


def call(*arguments, code=0):
    result = runner.invoke(app, [str(a) for a in arguments])
    assert result.exit_code == code, result.output
    return result


def flat(text):
    return " ".join(text.split())


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    path = tmp_path_factory.mktemp("corpus") / "texts.jsonl"
    documents = interp.corpora.demo(14, seed=2).documents()
    path.write_text("".join(json.dumps({"text": one}) + "\n" for one in documents))
    return path


@pytest.fixture(scope="module")
def trained(texts, tmp_path_factory):
    """Two transcoders of one pass, from a file of options, with all that is looked at."""
    folder = tmp_path_factory.mktemp("train")
    config = folder / "run.yaml"
    config.write_text(
        f"site: [L0.mlp, L1.mlp]\nd_sae: 32\nk: 4\ntokens: 512\nbatch: 128\nbuffer: 512\n"
        "tensorboard: false\n"
        f"corpus: {texts}\nout: {folder / 'run'}\nmodel: demo\n"
    )
    result = call("train", "transcoder", "--config", config, "--k", 3, "--json")
    return folder / "run", json.loads(result.stdout), result.stderr


def test_training_leaves_dictionaries_an_evaluation_and_pages(trained):
    folder, told, _ = trained
    names = [f"L{i}.mlp-transcoder-topk-32-k3" for i in (0, 1)]  # the flag went before the file
    assert set(told) == {*names, "together"}
    for i, name in enumerate(names):
        made = interp.load_dictionary(folder / name)
        assert made.spec.features == (f"L{i}.mlp",)
        assert told[name]["fvu"] > 0  # of the log
        assert told[name]["features"] == 32
        assert told[name]["page"] == str(folder / name / "features.html")
        assert f"32 features of L{i}.mlp, demo" in (folder / name / "features.html").read_text()
        assert (folder / name / "training.png").exists()
    found = interp.Evaluation.load(folder / "evaluation.safetensors")
    assert found.rows == (*names, "together")
    own = {one["metric"]: one["value"] for one in told[names[1]]["evaluation"]}
    assert own["fvu"] == pytest.approx(found.value("fvu", 1))
    both = {one["metric"]: one["value"] for one in told["together"]["evaluation"]}
    assert both["ce_spliced"] == pytest.approx(found.value("ce_spliced", "together"))


def test_the_same_command_goes_on(trained, texts):
    folder, told, _ = trained
    before = (folder / "log.jsonl").read_bytes()
    options = ("--site", "L0.mlp", "--site", "L1.mlp", "--corpus", texts, "--out", folder, *TINY)
    result = call("train", "transcoder", *options, "--no-look", "--json")
    name = "L0.mlp-transcoder-topk-32-k3"
    again = json.loads(result.stdout)[name]
    assert again == {key: told[name][key] for key in again}
    assert (folder / "log.jsonl").read_bytes() == before
    result = call("train", "transcoder", *options, "--no-resume", code=1)
    assert "holds a run already" in flat(result.stderr)


def test_eval_names_rows_by_folder_and_fits_a_terminal(trained, texts, tmp_path):
    folder, _, _ = trained
    paths = sorted(str(p.parent) for p in folder.glob("*/cfg.json"))
    args = ("eval", *paths, "--corpus", texts, "--tokens", 300)
    result = call(*args, "--save", tmp_path / "e.safetensors", "--plot", tmp_path / "e")
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert "L1.mlp-transcoder-topk-32-k3" in lines
    assert "together: L0.mlp, L1.mlp" in lines
    assert any("ce_recovered_mean" in line for line in lines)
    said = flat(result.stderr)
    assert "scored on the corpus they were trained on, not on held-out texts" in said
    assert "null controls – permuted: its outputs at other tokens" in said
    saved = interp.Evaluation.load(tmp_path / "e.safetensors")
    assert saved.rows[-1] == "together"
    assert (tmp_path / "e.png").exists()
    records = json.loads(call("eval", paths[0], "--tokens", 300, "--json").stdout)
    assert {one["dictionary"] for one in records} == {"L0.mlp-transcoder-topk-32-k3"}


def test_features_says_what_it_will_take_and_writes_a_page(trained, texts, tmp_path):
    folder, _, _ = trained
    one = folder / "L0.mlp-transcoder-topk-32-k3"
    args = ("features", one, "--corpus", texts, "--tokens", 400, "--examples", 3)
    result = call(*args, "--out", tmp_path / "deep" / "page.html")
    assert "32 features, two passes over 400 tokens, about" in flat(result.stderr)
    assert "<!doctype html>" in (tmp_path / "deep" / "page.html").read_text()
    result = call(*args, "--feature", "F3", "--feature", 5, "--out", tmp_path, "--json")
    assert [row["name"] for row in json.loads(result.stdout)] == ["F3", "F5"]
    assert (tmp_path / "features.html").exists()
    result = call(*args, "--most", 4, "--out", tmp_path / "few.html", "--json")
    assert len(json.loads(result.stdout)) == 4


def test_a_store_is_trained_on_and_looked_at_in_its_model(texts, tmp_path):
    call("harvest", "demo", "L1.mlp", "--corpus", texts, "--out", tmp_path / "s", "--tokens", 600)
    options = ("--site", "L1.mlp", *TINY[:8], "--store", tmp_path / "s")
    result = call("train", "transcoder", *options, "--model", "random", code=1)
    assert "has other weights: say which --model" in flat(result.stderr)
    result = call("train", "transcoder", *options, "--out", tmp_path / "run", "--json")
    assert "not evaluated: say --corpus" in flat(result.stderr)
    (told,) = json.loads(result.stdout).values()
    assert "evaluation" not in told


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "TrainingError: no site was given"),
        (("--site", "L0.resid_post"), "a transcoder reads one site and writes another"),
        (("--site", "L0.mlp", "--set", "dsae=3"), "no option is called 'dsae'; nearest: 'd_sae'"),
        (("--site", "L0.mlp", "--set", "source=3"), "'source' is no option"),
        (("--site", "L0.mlp", "--set", "progress=true"), "'progress' is no option"),
        (("--site", "L0.mlp", "--set", "auxk"), "expected name=value, such as auxk=0"),
        (("--site", "L0.mlp", "--corpus", "none.txt"), "there is no file 'none.txt'"),
        (("--site", "L0.mlp", "--store", "none"), "'none' is no store"),
        (("--site", "L0.mlp", "--config", "none.toml"), "'none.toml' cannot be read"),
    ],
)
def test_errors_of_training_are_one_line(arguments, said, tmp_path):
    result = call("train", "transcoder", "--out", tmp_path / "out", *arguments, code=1)
    assert said in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_errors_of_the_others_are_one_line(trained, tmp_path):
    folder, _, _ = trained
    one = folder / "L0.mlp-transcoder-topk-32-k3"
    for arguments, said in (
        (("eval", tmp_path / "none"), "there is no folder"),
        (("features", folder), "holds 2 dictionaries"),
        (("features", one, "--feature", "L0.F99"), "no feature 'L0.F99'"),
        (("features", one, "--out", "/proc/none/page.html"), "/proc/none"),
    ):
        result = call(*arguments, code=1)
        assert said in result.stderr
        assert "Traceback" not in result.stderr
