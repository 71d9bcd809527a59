"""Activations from the command line: harvested, looked at, verified."""

from __future__ import annotations

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


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """A file with a document in each record."""
    path = tmp_path_factory.mktemp("corpus") / "texts.jsonl"
    documents = interp.corpora.demo(20, seed=2).documents()
    path.write_text("".join(json.dumps({"body": one}) + "\n" for one in documents))
    return path


@pytest.fixture
def store(text, tmp_path):
    out = tmp_path / "store"
    result = call(
        "harvest", "demo", "L1.mlp", "L2.z", "--corpus", text, "--field", "body", "--out", out,
        "--batch", 2, "--shard-mib", 0.5,
    )  # fmt: skip
    return out, result


def test_harvest_says_what_it_will_take_and_what_it_made(store):
    out, result = store
    made = interp.ActivationStore.open(out)
    assert made.complete
    assert made.manifest.dtype == "bfloat16"
    assert "harvest L1.mlp.input, L1.mlp_out, L2.z of 'demo' on" in result.stderr
    assert "tokens; disk" in result.stderr
    assert f"{len(made):,} rows of L1.mlp.input, L1.mlp_out, L2.z" in result.stdout.replace(
        "\n", " "
    )


def test_the_same_command_opens_what_is_finished_and_json_is_json(store, text):
    out, _ = store
    result = call(
        "harvest", "demo", "L1.mlp", "L2.z", "--corpus", text, "--field", "body", "--out", out,
        "--batch", 2, "--shard-mib", 0.5, "--json",
    )  # fmt: skip
    facts = json.loads(result.stdout)
    assert facts["forwarded by rank"] == [0]
    assert facts["rows"] == len(interp.ActivationStore.open(out))


def test_info_and_verify(store):
    out, _ = store
    facts = json.loads(call("store", "info", out, "--json").stdout)
    assert facts["rows"] == len(interp.ActivationStore.open(out))
    assert "L2.z" in str(facts["sites"])
    assert "ok" in call("store", "verify", out).stdout
    assert json.loads(call("store", "verify", out, "--json").stdout)["problems"] == []


def test_verify_names_a_flipped_byte_and_fails(store):
    out, _ = store
    shard = out / "000001.safetensors"
    content = bytearray(shard.read_bytes())
    content[-7] ^= 1
    shard.write_bytes(content)
    found = json.loads(call("store", "verify", out, "--json", code=1).stdout)
    assert not found["ok"]
    assert [p["file"] for p in found["problems"]] == ["000001.safetensors"]
    assert "000001.safetensors" in call("store", "verify", out, code=1).stdout


def test_errors_are_one_line(tmp_path, store):
    out, _ = store
    result = call("harvest", "demo", "L1.mlp_out", "--out", out, code=1)
    assert "StoreError: " in result.stderr
    assert "sites: the store has" in result.stderr.replace("\n", " ")
    result = call("harvest", "demo", "L1.mlp_owt", "--out", tmp_path / "x", code=1)
    assert "nearest: 'L1.mlp_out'" in result.stderr
    assert "StoreError" in call("store", "info", tmp_path / "nothing", code=1).stderr
    result = call(
        "harvest",
        "demo",
        "L1.mlp",
        "--corpus",
        tmp_path / "no.txt",
        "--out",
        tmp_path / "y",
        code=1,
    )
    assert "CorpusError" in result.stderr


def test_a_text_file_may_hold_a_document_on_each_line(tmp_path):
    text, out = tmp_path / "a.txt", tmp_path / "s"
    text.write_text("The capital of France is Paris.\nThe capital of Japan is Tokyo.\n")
    call("harvest", "demo", "L1.mlp_out", "--corpus", text, "--split", "line", "--out", out)
    rows = interp.ActivationStore.open(out).rows(slice(None))
    assert rows.document.unique().tolist() == [0, 1]
