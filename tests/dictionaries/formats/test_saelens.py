"""SAELens reads our folders and computes the same; we read its own."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from interp.dictionaries.formats import load_dictionary, save_dictionary
from interp.dictionaries.formats.saelens import architecture
from interp.errors import DictionaryError
from tests.dictionaries.formats.made import EVERY, assert_close, assert_same, made, rows

pytestmark = pytest.mark.filterwarnings("ignore:\\nThis SAE has non-empty model_from_pretrained")
#: What SAELens can compute: all but skip transcoders with TopK or gated, and cross-layer ones.
SHARED = [
    (kind, activation) for kind, activation in EVERY
    if kind in ("sae", "transcoder")
    or (kind == "skip_transcoder" and activation not in ("topk", "gated"))
]  # fmt: skip
ALONE = [pair for pair in EVERY if pair not in SHARED]


def theirs_of(lens, folder):
    return lens.SAE.load_from_disk(str(folder))


def without_block(folder):
    """Take our own block out of the config, as if SAELens had written it."""
    path = folder / "cfg.json"
    config = json.loads(path.read_text())
    del config["interp"]
    path.write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(("kind", "activation"), EVERY)
@pytest.mark.filterwarnings("ignore:SAELens has no")
def test_what_is_saved_is_loaded_to_the_bit(kind, activation, tmp_path):
    dictionary = made(
        kind, activation, model="demo", metadata={"context_size": 128, "own": [1, "a"]}
    )
    folder = save_dictionary(dictionary, tmp_path / "out")
    assert sorted(p.name for p in folder.iterdir()) == ["cfg.json", "sae_weights.safetensors"]
    assert_same(dictionary, load_dictionary(folder))


@pytest.mark.parametrize(("kind", "activation"), SHARED)
def test_sae_lens_computes_the_same_from_our_folder(kind, activation, tmp_path, lens):
    dictionary = made(kind, activation, model="demo")
    theirs = theirs_of(lens, save_dictionary(dictionary, tmp_path))
    x = rows(dictionary)
    with torch.no_grad():
        acts, out = theirs.encode(x), theirs(x)
    assert (acts > 0).any()
    assert torch.allclose(dictionary.encode(x), acts, atol=1e-5)
    assert torch.allclose(dictionary(x), out, atol=1e-5)
    metadata = theirs.cfg.metadata
    point = "hook_resid_post" if kind == "sae" else "mlp.hook_in"
    assert (metadata.model_name, metadata.hook_name) == ("demo", f"blocks.1.{point}")
    assert metadata.hook_name_out == (None if kind == "sae" else "blocks.1.hook_mlp_out")


@pytest.mark.parametrize(("kind", "activation"), SHARED)
def test_what_sae_lens_saves_we_compute_the_same(kind, activation, tmp_path, lens):
    dictionary = made(kind, activation)
    theirs = theirs_of(lens, save_dictionary(dictionary, tmp_path / "ours"))
    theirs.save_model(tmp_path / "theirs")
    back = load_dictionary(tmp_path / "theirs")
    assert back.kind == kind
    assert back.spec.reads == dictionary.spec.reads
    assert back.spec.activation == activation.replace("batchtopk", "jumprelu")
    assert_close(dictionary, back, rows(dictionary), atol=1e-6)


@pytest.mark.parametrize(("kind", "activation"), ALONE)
def test_sae_lens_refuses_by_name_what_it_lacks(kind, activation, tmp_path, lens):
    with pytest.warns(UserWarning, match=f"SAELens has no {activation} {kind}"):
        save_dictionary(made(kind, activation), tmp_path)
    with pytest.raises(Exception, match=f"interp_{activation}_{kind}"):
        theirs_of(lens, tmp_path)


def test_a_topk_transcoder_of_two_widths_has_no_name_in_sae_lens():
    assert architecture(made("transcoder", "topk").spec) == "topk"
    assert architecture(made("transcoder", "topk", d_out=8).spec) == "interp_topk_transcoder"
    assert architecture(made("transcoder", "relu", d_out=8).spec) == "transcoder"


def test_transcoders_of_two_widths(tmp_path, lens):
    dictionary = made("skip_transcoder", "jumprelu", d_out=8)
    theirs = theirs_of(lens, save_dictionary(dictionary, tmp_path))
    x = rows(dictionary)
    assert torch.allclose(dictionary(x), theirs(x), atol=1e-5)
    assert_same(dictionary, load_dictionary(tmp_path))


@pytest.mark.parametrize("normalise", ["none", "layer_norm", "constant_norm_rescale"])
@pytest.mark.parametrize("centre", [True, False])
@pytest.mark.parametrize("activation", ["relu", "gated", "topk", "jumprelu"])
def test_normalisations_and_centring_mean_the_same(normalise, centre, activation, tmp_path, lens):
    dictionary = made("sae", activation, normalise=normalise, centre=centre)
    theirs = theirs_of(lens, save_dictionary(dictionary, tmp_path))
    x = rows(dictionary)
    with torch.no_grad():
        acts = theirs.encode(x)
        out = theirs.decode(acts)
    assert torch.allclose(dictionary.encode(x), acts, atol=1e-5)
    assert torch.allclose(dictionary(x), out, atol=1e-5)
    assert_same(dictionary, load_dictionary(tmp_path))
    assert_close(dictionary, load_dictionary(without_block(tmp_path)), x)


def test_their_training_classes_are_saved_as_what_we_load(tmp_path, lens):
    """BatchTopK and Matryoshka are saved by SAELens as jumprelu, TopK with rescaled activations."""
    x = torch.randn(32, 16, generator=torch.Generator().manual_seed(0))
    sizes = {"d_in": 16, "d_sae": 40, "device": "cpu", "k": 5}
    for name, more in (
        ("BatchTopK", {}),
        ("MatryoshkaBatchTopK", {"matryoshka_widths": [10, 40]}),
        ("TopK", {"rescale_acts_by_decoder_norm": True}),
    ):
        config = getattr(lens, f"{name}TrainingSAEConfig")(**sizes, **more)
        trained = getattr(lens, f"{name}TrainingSAE")(config)
        with torch.no_grad():
            trained.W_dec.mul_(torch.linspace(0.5, 3, 40)[:, None])
            trained.b_enc.add_(0.1)
            if hasattr(trained, "topk_threshold"):
                trained.topk_threshold.fill_(0.4)
        trained.cfg.metadata.hook_name = "blocks.2.hook_resid_pre"
        trained.save_inference_model(tmp_path / name)
        theirs = theirs_of(lens, tmp_path / name)
        ours = load_dictionary(tmp_path / name)
        assert ours.spec.activation == ("topk" if name == "TopK" else "jumprelu")
        assert ours.spec.reads == ("L2.resid_pre",)
        with torch.no_grad():
            assert torch.allclose(ours.encode(x), theirs.encode(x), atol=1e-5)
            assert torch.allclose(ours(x), theirs(x), atol=1e-5)


def test_rescaled_topk_is_folded(tmp_path, lens):
    folder = without_block(save_dictionary(made("sae", "topk"), tmp_path))
    config = json.loads((folder / "cfg.json").read_text())
    config["rescale_acts_by_decoder_norm"] = True
    (folder / "cfg.json").write_text(json.dumps(config))
    theirs, ours = theirs_of(lens, folder), load_dictionary(folder)
    x = rows(ours)
    with torch.no_grad():
        assert torch.allclose(ours.encode(x), theirs.encode(x), atol=1e-5)
        assert torch.allclose(ours(x), theirs(x), atol=1e-5)
    assert torch.allclose(ours.W_dec.norm(dim=-1), torch.ones(40), atol=1e-6)


def test_heads_are_flattened_for_hook_z(tmp_path, lens):
    dictionary = made("sae", "relu", reads=("L1.z",), writes=("L1.z",))
    theirs = theirs_of(lens, save_dictionary(dictionary, tmp_path))
    assert theirs.cfg.reshape_activations == "hook_z"
    x = rows(dictionary)
    with torch.no_grad():
        out = theirs(x.unflatten(-1, (4, 4)))
    assert torch.allclose(dictionary(x), out.flatten(-2), atol=1e-5)
    assert load_dictionary(without_block(tmp_path)).spec.reads == ("L1.z",)


def test_a_head_has_its_index(tmp_path):
    dictionary = made("sae", "relu", reads=("L1.H3.z",), writes=("L1.H3.z",))
    folder = save_dictionary(dictionary, tmp_path)
    config = json.loads((folder / "cfg.json").read_text())
    assert config["metadata"]["hook_head_index"] == 3
    assert config["reshape_activations"] == "none"
    assert load_dictionary(without_block(folder)).spec.reads == ("L1.H3.z",)


@pytest.mark.parametrize("dtype", ["bfloat16", torch.float16, torch.float64])
def test_weights_of_other_dtypes(dtype, tmp_path, lens):
    dictionary = made("transcoder", "jumprelu")
    folder = save_dictionary(dictionary, tmp_path, dtype=dtype)
    stored = load_file(folder / "sae_weights.safetensors")
    wanted = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    assert {tensor.dtype for tensor in stored.values()} == {wanted}
    back = load_dictionary(folder)
    assert back.dtype == wanted
    assert theirs_of(lens, folder).W_enc.dtype == wanted
    assert load_dictionary(folder, dtype="float32").dtype == torch.float32
    assert torch.equal(back.W_enc, dictionary.W_enc.to(wanted))


def test_the_config_states_the_convention(tmp_path):
    for point, said in (("mlp.input", "after"), ("ln2.normalized", "before")):
        folder = save_dictionary(made("transcoder", point=point), tmp_path / point)
        metadata = json.loads((folder / "cfg.json").read_text())["metadata"]
        assert f"{said} the norm's gamma" in metadata["mlp_input_convention"]
        assert load_dictionary(without_block(folder)).spec.reads == (f"L1.{point}",)


def test_metadata_goes_both_ways(tmp_path, lens):
    dictionary = made("sae", metadata={"context_size": 128, "dataset_path": "x/y", "lr": 1e-3})
    metadata = theirs_of(lens, save_dictionary(dictionary, tmp_path)).cfg.metadata
    assert (metadata.context_size, metadata.dataset_path) == (128, "x/y")
    assert metadata.sae_lens_training_version is None  # it was not trained there
    back = load_dictionary(without_block(tmp_path))
    assert back.spec.metadata["context_size"] == 128


def test_flat_configs_of_old_versions(tmp_path, lens):
    dictionary = made("sae", "topk", centre=True)
    folder = save_dictionary(dictionary, tmp_path)
    old = {
        "d_in": 16, "d_sae": 40, "dtype": "float32", "device": "cpu", "model_name": "gpt2-small",
        "hook_point": "blocks.1.hook_resid_post", "hook_point_head_index": None,
        "activation_fn_str": "topk", "activation_fn_kwargs": {"k": 7}, "normalize_activations": False,
    }  # fmt: skip
    (folder / "cfg.json").write_text(json.dumps(old))
    back, x = load_dictionary(folder), rows(dictionary)
    assert (back.spec.activation, back.spec.model) == ("topk", "gpt2-small")
    assert_same(dictionary, back.with_spec(model=None, metadata={}))
    assert torch.allclose(back(x), theirs_of(lens, folder)(x), atol=1e-5)


def test_unfolded_scales_are_told(tmp_path):
    folder = without_block(save_dictionary(made("sae"), tmp_path))
    config = json.loads((folder / "cfg.json").read_text())
    for name in ("expected_average_only_in", "covariance_whitening"):
        config["normalize_activations"] = name
        (folder / "cfg.json").write_text(json.dumps(config))
        with pytest.warns(UserWarning, match=f"{name}.*taken as folded"):
            load_dictionary(folder)


@pytest.mark.parametrize("name", ["temporal", "matching_pursuit", "abstopk", "interp_new"])
def test_architectures_that_are_not_computed_are_refused_by_name(name, tmp_path):
    folder = without_block(save_dictionary(made("sae"), tmp_path))
    config = json.loads((folder / "cfg.json").read_text())
    (folder / "cfg.json").write_text(json.dumps({**config, "architecture": name}))
    with pytest.raises(DictionaryError, match=f"architecture '{name}'.*supported: standard"):
        load_dictionary(folder)


def changed(folder, **metadata):
    config = json.loads((folder / "cfg.json").read_text())
    config["metadata"] |= metadata
    (folder / "cfg.json").write_text(json.dumps(config))
    return folder


def test_hooks_that_are_no_sites_need_a_site(tmp_path):
    folder = without_block(save_dictionary(made("sae"), tmp_path))
    with pytest.raises(DictionaryError, match="'blocks.1.hook_mlp_in'.*no site.*site="):
        load_dictionary(changed(folder, hook_name="blocks.1.hook_mlp_in"))
    assert load_dictionary(folder, site="L1.resid_mid").spec.reads == ("L1.resid_mid",)
    with pytest.raises(DictionaryError, match="names no hook_name.*site='L3.resid_post'"):
        load_dictionary(changed(folder, hook_name=None))
    with pytest.raises(DictionaryError, match="site='L1.mlp'.*kind 'sae'"):
        load_dictionary(folder, site="L1.mlp")
    assert load_dictionary(changed(folder, hook_name="blocks.4.mlp.hook_out")).spec.reads == (
        "L4.mlp_out",
    )


def test_a_site_says_both_ends_of_a_transcoder(tmp_path):
    folder = without_block(save_dictionary(made("transcoder"), tmp_path))
    assert load_dictionary(folder, site="L2.mlp").spec.reads == ("L2.mlp.input",)
    spec = load_dictionary(folder, site="L2.ln2.normalized -> L2.mlp_out").spec
    assert (spec.reads, spec.writes) == (("L2.ln2.normalized",), ("L2.mlp_out",))
    with pytest.raises(DictionaryError, match="site='L2.resid_mid'.*'a -> b'"):
        load_dictionary(folder, site="L2.resid_mid")


def test_damaged_folders_are_told_by_name(tmp_path):
    folder = save_dictionary(made("sae", "jumprelu"), tmp_path)
    path, config = folder / "sae_weights.safetensors", (folder / "cfg.json").read_text()
    weights = load_file(path)
    cases = [
        ({k: t for k, t in weights.items() if k != "threshold"}, "lacks threshold"),
        ({**weights, "b_mag": weights["b_enc"].clone()}, "holds b_mag, which nothing is known"),
        (
            {**weights, "W_dec": weights["W_dec"][1:].clone()},
            r"W_dec .*shape \[39, 16\].*\[40, 16\]",
        ),
        ({**weights, "scaling_factor": torch.zeros(40)}, "scaling_factor"),
    ]
    for tensors, message in cases:
        save_file(tensors, path)
        with pytest.raises(DictionaryError, match=message):
            load_dictionary(folder)
    path.write_bytes(b"no tensors")
    with pytest.raises(DictionaryError, match="sae_weights.*damaged"):
        load_dictionary(folder)
    save_file(weights, path)
    for text, message in (
        ("{", "cfg.json' is no JSON"),
        ("[1]", "holds list"),
        (config.replace('"version": 1', '"version": 2'), "'interp' block.*version 2"),
        (
            config.replace('"activation": "jump', '"activation": "jumpy'),
            "'interp' block.*jumpyrelu",
        ),
        (
            json.dumps({"architecture": "topk", "d_in": 16, "metadata": {}, "d_sae": 40}),
            "hook_name",
        ),
    ):
        (folder / "cfg.json").write_text(text)
        with pytest.raises(DictionaryError, match=message):
            load_dictionary(folder)


def test_several_thresholds_are_no_batchtopk(tmp_path):
    folder = save_dictionary(made("sae", "batchtopk"), tmp_path)
    weights = load_file(folder / "sae_weights.safetensors")
    weights["threshold"][3] += 1
    save_file(weights, folder / "sae_weights.safetensors")
    with pytest.raises(DictionaryError, match="one threshold; these weights have many"):
        load_dictionary(folder)


def test_a_transcoder_that_normalises_is_refused(tmp_path):
    folder = without_block(save_dictionary(made("transcoder"), tmp_path))
    config = json.loads((folder / "cfg.json").read_text())
    (folder / "cfg.json").write_text(json.dumps({**config, "normalize_activations": "layer_norm"}))
    with pytest.raises(DictionaryError, match="normalises at run time"):
        load_dictionary(folder)


def test_a_spec_keeps_its_hash_of_the_weights(tmp_path):
    dictionary = made("sae")
    dictionary = dictionary.with_spec(weights_hash="ab12", metadata={"steps": 3})
    back = load_dictionary(save_dictionary(dictionary, tmp_path))
    assert back.hash == dictionary.hash
    assert replace(back.spec, metadata={}) == replace(dictionary.spec, metadata={})
