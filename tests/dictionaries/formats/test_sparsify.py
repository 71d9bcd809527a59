"""sparsify's folders both ways; its arithmetic is written out here as its code has it."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from interp.dictionaries.formats import load_dictionary, save_dictionary
from interp.errors import DictionaryError
from tests.dictionaries.formats.made import assert_close, assert_same, made, rows

KINDS = ("sae", "transcoder", "skip_transcoder")


def coder(folder, x):
    """What ``SparseCoder.load_from_disk(folder)`` gives: feature activations and output."""
    config = json.loads((folder / "cfg.json").read_text())
    w = load_file(folder / "sae.safetensors")
    given = x if config["transcode"] else x - w["b_dec"]
    pre = torch.relu(given @ w["encoder.weight"].T + w["encoder.bias"])
    values, index = pre.topk(config["k"], dim=-1)
    acts = torch.zeros_like(pre).scatter(-1, index, values)
    out = acts @ w["W_dec"] + w["b_dec"]
    return acts, out + x @ w["W_skip"].T if config["skip_connection"] else out


def without_block(folder, **changes):
    path = folder / "cfg.json"
    config = {**json.loads(path.read_text()), **changes}
    for name in ("interp", "hookpoint"):
        del config[name]
    path.write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_saved_is_loaded_to_the_bit_and_means_the_same(kind, tmp_path):
    dictionary = made(kind, "topk", model="demo")
    folder = save_dictionary(dictionary, tmp_path / "out", format="sparsify")
    assert sorted(p.name for p in folder.iterdir()) == ["cfg.json", "sae.safetensors"]
    assert_same(dictionary, load_dictionary(folder))
    x = rows(dictionary)
    acts, out = coder(folder, x)
    assert torch.allclose(dictionary.encode(x), acts, atol=1e-5)
    assert torch.allclose(dictionary(x), out, atol=1e-5)


@pytest.mark.parametrize(
    ("hookpoint", "kind", "reads", "writes"),
    [
        ("layers.3", "sae", "L3.resid_post", "L3.resid_post"),
        ("layers.3.mlp", "sae", "L3.mlp_out", "L3.mlp_out"),
        ("layers.3.mlp", "transcoder", "L3.mlp.input", "L3.mlp_out"),
        ("h.11.mlp", "skip_transcoder", "L11.mlp.input", "L11.mlp_out"),
        ("gpt_neox.layers.0.attention", "sae", "L0.attn_out", "L0.attn_out"),
        ("embed_tokens", "sae", "embed", "embed"),
    ],
)
def test_the_folders_name_is_the_place(hookpoint, kind, reads, writes, tmp_path):
    dictionary = made(kind, "topk")
    folder = save_dictionary(dictionary, tmp_path / hookpoint, format="sparsify")
    back = load_dictionary(without_block(folder, num_latents=40, expansion_factor=99))
    assert (back.spec.reads, back.spec.writes) == ((reads,), (writes,))
    assert_close(back, dictionary, rows(dictionary))


def test_other_names_need_a_site(tmp_path):
    folder = without_block(save_dictionary(made("sae", "topk"), tmp_path / "x", format="sparsify"))
    with pytest.raises(DictionaryError, match=r"no hookpoint known here \('x'.*site="):
        load_dictionary(folder)
    assert load_dictionary(folder, site="L2.resid_mid").spec.reads == ("L2.resid_mid",)


def test_an_uncentred_sae_is_centred(tmp_path):
    dictionary = made("sae", "topk", centre=False)
    folder = save_dictionary(dictionary, tmp_path, format="sparsify")
    _, out = coder(folder, rows(dictionary))
    assert torch.allclose(dictionary(rows(dictionary)), out, atol=1e-5)
    assert load_dictionary(folder).spec.centre


def test_what_sparsify_lacks_is_refused(tmp_path):
    for dictionary, message in (
        (made("sae", "relu"), "this is a sae with relu"),
        (made("cross_layer_transcoder", "topk"), "this is a cross_layer_transcoder"),
        (made("transcoder", "topk", d_out=8), "16 → 8"),
        (made("sae", "topk", normalise="layer_norm"), "normalise='layer_norm'"),
    ):
        with pytest.raises(DictionaryError, match=message):
            save_dictionary(dictionary, tmp_path / "out", format="sparsify")
        assert not (tmp_path / "out").exists()


def test_what_we_lack_is_refused(tmp_path):
    folder = without_block(
        save_dictionary(made("sae", "topk"), tmp_path / "layers.1", format="sparsify"),
        activation="groupmax",
    )
    with pytest.raises(DictionaryError, match="activation 'groupmax'"):
        load_dictionary(folder)
    config = json.loads((folder / "cfg.json").read_text())
    for changes, message in (
        ({"activation": "topk", "skip_connection": True}, "SAE with a skip connection"),
        ({"activation": "topk", "num_latents": 41}, r"encoder.weight .*\[40, 16\].*\[41, 16\]"),
    ):
        (folder / "cfg.json").write_text(json.dumps({**config, **changes}))
        with pytest.raises(DictionaryError, match=message):
            load_dictionary(folder)
    del config["k"]
    (folder / "cfg.json").write_text(json.dumps({**config, "activation": "topk"}))
    with pytest.raises(DictionaryError, match="has no 'k': it is damaged"):
        load_dictionary(folder)


def test_bfloat16_as_sparsify_saves(tmp_path):
    folder = save_dictionary(
        made("transcoder", "topk"), tmp_path, format="sparsify", dtype="bfloat16"
    )
    assert load_dictionary(folder).dtype == torch.bfloat16
    weights = load_file(folder / "sae.safetensors")
    save_file({k: t for k, t in weights.items() if k != "W_dec"}, folder / "sae.safetensors")
    with pytest.raises(DictionaryError, match="lacks W_dec"):
        load_dictionary(folder)
