"""circuit-tracer's sets both ways; its arithmetic is written out here as its code has it."""

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from interp.dictionaries.formats import load_dictionaries, load_dictionary, save_dictionary
from interp.errors import DictionaryError
from tests.dictionaries.formats.made import assert_close, assert_same, made, rows

THEIRS = ("relu", "jumprelu", "batchtopk")


def a_set(kind="transcoder", activation="relu", n=3, **changes):
    return [made(kind, activation, layer=i, seed=i, **changes) for i in range(n)]


def layer(path, x):
    """What ``SingleLayerTranscoder`` gives: feature activations and output."""
    w = load_file(path)
    pre = x @ w["W_enc"].T + w["b_enc"]
    threshold = w.get("activation_function.threshold")
    acts = torch.relu(pre) if threshold is None else pre * (pre > threshold)
    out = acts @ w["W_dec"] + w["b_dec"]
    return acts, out + x @ w["W_skip"].T if "W_skip" in w else out


def cross_layer(folder, x):
    """What ``CrossLayerTranscoder`` gives."""
    n, out, kept = len(x), [], []
    for i in range(n):
        w = load_file(folder / f"W_enc_{i}.safetensors")
        pre = x[i] @ w[f"W_enc_{i}"].T + w[f"b_enc_{i}"]
        kept.append(pre * (pre > w[f"threshold_{i}"]) if f"threshold_{i}" in w else torch.relu(pre))
        out.append(w[f"b_dec_{i}"].expand_as(x[i]).clone())
    for i in range(n):
        dec = load_file(folder / f"W_dec_{i}.safetensors")[f"W_dec_{i}"]
        assert dec.shape == (40, n - i, 16)
        for j in range(i, n):
            out[j] += kept[i] @ dec[:, j - i]
    return torch.stack(kept), torch.stack(out)


def without_block(folder, **changes):
    path = folder / "config.yaml"
    config = yaml.safe_load(path.read_text()) | changes
    del config["interp"]
    path.write_text(yaml.safe_dump({k: v for k, v in config.items() if v is not None}))
    return folder


@pytest.mark.parametrize("kind", ["transcoder", "skip_transcoder"])
@pytest.mark.parametrize("activation", THEIRS)
def test_a_set_goes_both_ways(kind, activation, tmp_path):
    many = a_set(kind, activation, model="demo")
    folder = save_dictionary(many, tmp_path / "out", format="circuit-tracer")
    back = load_dictionaries(folder)
    assert list(back) == ["L0.mlp", "L1.mlp", "L2.mlp"]
    for i, (one, other) in enumerate(zip(many, back.values(), strict=True)):
        assert_same(one, other)
        acts, out = layer(folder / f"layer_{i}.safetensors", rows(one))
        assert torch.allclose(one.encode(rows(one)), acts, atol=1e-5)
        assert torch.allclose(one(rows(one)), out, atol=1e-5)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["model_kind"] == "transcoder_set"
    assert (config["feature_input_hook"], config["feature_output_hook"]) == (
        "mlp.hook_in",
        "hook_mlp_out",
    )
    for one, other in zip(many, load_dictionaries(without_block(folder)).values(), strict=True):
        assert (one.spec.reads, one.spec.writes) == (other.spec.reads, other.spec.writes)
        assert_close(one, other, rows(one), atol=1e-6)


@pytest.mark.parametrize("activation", THEIRS)
def test_a_cross_layer_transcoder_goes_both_ways(activation, tmp_path):
    dictionary = made("cross_layer_transcoder", activation, point="resid_mid")
    folder = save_dictionary(dictionary, tmp_path, format="circuit-tracer")
    assert_same(dictionary, load_dictionary(folder))
    assert list(load_dictionaries(folder)) == ["L0.mlp"]
    x = rows(dictionary)
    acts, out = cross_layer(folder, x)
    assert torch.allclose(dictionary.encode(x), acts, atol=1e-5)
    assert torch.allclose(dictionary(x), out, atol=1e-5)
    back = load_dictionary(without_block(folder))
    assert back.spec.reads == ("L0.resid_mid", "L1.resid_mid", "L2.resid_mid")
    assert_close(dictionary, back, x, atol=1e-6)


def test_one_of_a_set_by_its_site_or_file(tmp_path):
    many = a_set(activation="jumprelu")
    folder = save_dictionary(many[::-1], tmp_path, format="circuit-tracer")
    assert_same(many[1], load_dictionary(folder, site="L1.mlp"))
    assert_same(many[2], load_dictionary(folder / "layer_2.safetensors"))
    with pytest.raises(DictionaryError, match=r"3 dictionaries \(L0.mlp.*site='L0.mlp'"):
        load_dictionary(folder)
    with pytest.raises(DictionaryError, match="no dictionary for 'L7.mlp'; nearest"):
        load_dictionary(folder, site="L7.mlp")
    (folder / "config.yaml").unlink()
    with pytest.raises(DictionaryError, match=r"without its config.yaml.*site='L2.mlp'"):
        load_dictionary(folder / "layer_2.safetensors")
    other = load_dictionary(folder / "layer_2.safetensors", site="L2.mlp")
    assert_close(many[2], other, rows(other))


def test_a_set_of_one(tmp_path):
    folder = save_dictionary(made("transcoder", layer=0), tmp_path, format="circuit-tracer")
    assert load_dictionary(folder).spec.features == ("L0.mlp",)
    assert load_dictionary(folder, site="L0.mlp").spec.features == ("L0.mlp",)
    with pytest.raises(DictionaryError, match="site='L1.mlp'; the set holds L0.mlp"):
        load_dictionary(folder, site="L1.mlp")


def test_thresholds_below_zero_mean_another_thing_there(tmp_path):
    many = a_set(activation="jumprelu", n=1)
    with torch.no_grad():
        many[0].parts[0].activation.threshold[:9] = -0.5
    folder = save_dictionary(many, tmp_path, format="circuit-tracer")
    x = rows(many[0])
    assert torch.allclose(layer(folder / "layer_0.safetensors", x)[1], many[0](x), atol=1e-5)
    weights = load_file(folder / "layer_0.safetensors")
    weights["activation_function.threshold"] -= 1
    save_file(weights, folder / "layer_0.safetensors")
    with pytest.raises(DictionaryError, match="thresholds below 0"):
        load_dictionary(folder)


def test_what_circuit_tracer_lacks_is_refused(tmp_path):
    cases = [
        (made("sae"), "this is a sae with relu"),
        (made("transcoder", "topk", layer=0), "this is a transcoder with topk"),
        (made("transcoder", d_out=8, layer=0), "one width; given 16 → 8"),
        (made("transcoder", layer=1), r"layers \[1\]; expected one for each layer from 0"),
        ([], r"layers \[\]"),
        ([*a_set(n=1), made("transcoder", layer=0)], r"layers \[0, 0\]"),
        ([*a_set(n=1), made("skip_transcoder")], "are of one kind"),
        ([*a_set(n=1), made("transcoder", point="resid_mid")], "read and write one point"),
        ([made("cross_layer_transcoder")] * 2, "is a set of its own"),
    ]
    for given, message in cases:
        with pytest.raises(DictionaryError, match=message):
            save_dictionary(given, tmp_path / "out", format="circuit-tracer")
    with pytest.raises(DictionaryError, match="given 3 dictionaries; format='saelens' has one"):
        save_dictionary(a_set(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_damaged_sets_are_told_by_name(tmp_path):
    folder = save_dictionary(a_set(), tmp_path, format="circuit-tracer")
    config = (folder / "config.yaml").read_text()
    for text, message in (
        ("a: [", "config.yaml' is no YAML"),
        (
            config.replace("transcoder_set", "other"),
            "model_kind 'other'; expected 'transcoder_set'",
        ),
        (
            config.replace("mlp.hook_in", "hook_mlp_in"),
            "hook_mlp_in'.*no site.*layer_0.safetensors'",
        ),
        (config.replace("feature_output_hook", "x"), "names no feature_output_hook"),
    ):
        (folder / "config.yaml").write_text(text)
        with pytest.raises(DictionaryError, match=message):
            load_dictionaries(folder)
    (folder / "config.yaml").write_text(config)
    (folder / "layer_1.safetensors").rename(folder / "kept")
    with pytest.raises(DictionaryError, match=r"the layers \[0, 2\].*incomplete"):
        load_dictionaries(folder)
    weights = load_file(folder / "kept")
    for tensors, message in (
        ({k: t for k, t in weights.items() if k != "b_enc"}, "lacks b_enc"),
        ({k: t for k, t in weights.items() if k != "W_dec"}, "lacks W_dec"),
        ({**weights, "W_dec": weights["W_dec"][:, :3].clone()}, r"W_dec .*\[40, 3\].*\[40, 16\]"),
    ):
        save_file(tensors, folder / "layer_1.safetensors")
        with pytest.raises(DictionaryError, match=message):
            load_dictionaries(folder)


def test_a_damaged_cross_layer_transcoder_is_told_by_name(tmp_path):
    dictionary = made("cross_layer_transcoder")
    folder = save_dictionary(dictionary, tmp_path, format="circuit-tracer")
    (folder / "W_dec_1.safetensors").unlink()
    with pytest.raises(DictionaryError, match="no file .*W_dec_1.safetensors"):
        load_dictionary(folder)
    save_dictionary(dictionary, folder, format="circuit-tracer", overwrite=True)
    with pytest.raises(DictionaryError, match="site='L5.mlp'; the set holds L0.mlp, L1.mlp"):
        load_dictionary(folder, site="L5.mlp")
    assert_same(dictionary, load_dictionary(folder, site="L2.mlp"))


def test_listed_files_are_found_in_the_folder(tmp_path):
    many = a_set(n=2)
    folder = save_dictionary(many, tmp_path, format="circuit-tracer")
    for i in range(2):
        (folder / f"layer_{i}.safetensors").rename(folder / f"own_{i}.safetensors")
    names = [f"own_{i}.safetensors" for i in range(2)]
    back = load_dictionaries(without_block(folder, transcoders=names))
    assert_close(back["L1.mlp"], many[1], rows(many[1]))
    (folder / "a.npz").touch()
    config = yaml.safe_load((folder / "config.yaml").read_text())
    for name, message in (("a.npz", "Gemma Scope"), ("hf://a/b/c.safetensors", "not be fetched")):
        (folder / "config.yaml").write_text(yaml.safe_dump({**config, "transcoders": [name]}))
        with pytest.raises(DictionaryError, match=message):
            load_dictionary(folder)
