"""Writing is whole or nothing; a folder is known by what is in it."""

import os
from pathlib import Path

import pytest
import torch

from interp.dictionaries.formats import (
    folder as folder_module,
)
from interp.dictionaries.formats import (
    hub,
    load_dictionaries,
    load_dictionary,
    save_dictionary,
)
from interp.errors import DictionaryError, SiteError
from tests.dictionaries.formats.made import assert_same, made, rows

FORMATS = {"saelens": "sae", "sparsify": "sae", "circuit-tracer": "cross_layer_transcoder"}


def one_for(format, seed=0):
    return made(FORMATS[format], "topk" if format == "sparsify" else "relu", seed=seed)


def names(folder):
    return sorted(p.name for p in Path(folder).iterdir())


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("step", [0, 1, "rename"])
def test_nothing_half_written_is_left(format, step, tmp_path, monkeypatch):
    """A disk that fills up at any file leaves no dictionary, and no stray file of ours."""
    calls = []

    def failing(*_):
        calls.append(1)
        if step == "rename" or len(calls) == step + 1:
            raise OSError(28, "No space left on device")
        return written(*_)

    if step == "rename":
        monkeypatch.setattr(Path, "replace", failing)
    else:
        written = folder_module._write
        monkeypatch.setattr(folder_module, "_write", failing)
    with pytest.raises(DictionaryError, match="cannot be written.*No space left"):
        save_dictionary(one_for(format), tmp_path / "new", format=format)
    assert calls
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("format", FORMATS)
def test_an_interrupted_overwrite_is_no_dictionary(format, tmp_path, monkeypatch):
    """Weights of one dictionary never stand beside the config of another."""
    save_dictionary(one_for(format), tmp_path, format=format)
    plain, calls = Path.replace, []

    def failing(self, target):
        calls.append(target)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return plain(self, target)

    monkeypatch.setattr(Path, "replace", failing)
    with pytest.raises(KeyboardInterrupt):
        save_dictionary(one_for(format, seed=1), tmp_path, format=format, overwrite=True)
    monkeypatch.undo()
    with pytest.raises(DictionaryError, match="incomplete|no dictionary known"):
        load_dictionary(tmp_path)
    assert not [name for name in names(tmp_path) if name.endswith(".tmp")]


def test_a_full_folder_is_kept_unless_asked(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DictionaryError, match="holds notes.txt: .*overwrite=True"):
        save_dictionary(made(), tmp_path)
    assert names(tmp_path) == ["notes.txt"]
    save_dictionary(made(), tmp_path, overwrite=True)
    other = made(seed=1)
    save_dictionary(other, tmp_path, overwrite=True)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert_same(other, load_dictionary(tmp_path))


def test_files_of_an_older_dictionary_do_not_outlive_it(tmp_path):
    many = [made("transcoder", layer=i) for i in range(3)]
    save_dictionary(many, tmp_path, format="circuit-tracer")
    save_dictionary(many[:2], tmp_path, format="circuit-tracer", overwrite=True)
    assert list(load_dictionaries(tmp_path)) == ["L0.mlp", "L1.mlp"]
    save_dictionary(many[1], tmp_path, overwrite=True)
    assert names(tmp_path) == ["cfg.json", "sae_weights.safetensors"]


def test_places_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(DictionaryError, match="is no folder"):
        save_dictionary(made(), tmp_path / "file")
    with pytest.raises(DictionaryError, match="is no folder|cannot be written"):
        save_dictionary(made(), tmp_path / "file" / "inside")


def test_options_are_checked(tmp_path):
    with pytest.raises(DictionaryError, match="format='sealens'.*nearest: 'saelens'"):
        save_dictionary(made(), tmp_path, format="sealens")
    with pytest.raises(DictionaryError, match="reads='ln2.normalized' folds.*model=model"):
        save_dictionary(made("transcoder"), tmp_path, reads="ln2.normalized")
    for dtype in ("float33", "int64", torch.int8):
        with pytest.raises(DictionaryError, match="expected a floating one"):
            save_dictionary(made(), tmp_path, dtype=dtype)
    assert names(tmp_path) == []


def test_gpu_and_views_are_copied(tmp_path):
    dictionary = made()
    dictionary.save(tmp_path / "a")
    assert_same(dictionary, load_dictionary(tmp_path / "a" / "cfg.json", device="cpu"))
    assert_same(dictionary, load_dictionary(str(tmp_path / "a" / "sae_weights.safetensors")))


def test_folders_that_hold_nothing_known(tmp_path):
    with pytest.raises(DictionaryError, match="no dictionary known here .it is empty.*cfg.json"):
        load_dictionary(tmp_path)
    (tmp_path / "ae.pt").touch()
    with pytest.raises(DictionaryError, match="ae.pt"):
        load_dictionary(tmp_path)
    (tmp_path / "cfg.json").write_text("{}")
    with pytest.raises(DictionaryError, match="cfg.json but neither sae_weights"):
        load_dictionary(tmp_path)
    (tmp_path / "cfg.json").rename(tmp_path / "sae.safetensors")
    with pytest.raises(DictionaryError, match="sae.safetensors but no cfg.json"):
        load_dictionary(tmp_path)


def test_files_that_are_no_dictionarys_do_not_mean_the_one_beside_them(tmp_path):
    folder = save_dictionary(one_for("saelens"), tmp_path / "run" / "one")
    for name in ("cfg.json", "sae_weights.safetensors"):
        assert load_dictionary(folder / name).hash == load_dictionary(folder).hash
    for other in (folder / "record.safetensors", folder.parent / "log.jsonl"):
        other.touch()
        with pytest.raises(DictionaryError, match=f"{other.name}' is no file of a dictionary"):
            load_dictionary(other)
    (folder.parent / "cfg.json").touch()  # of something else
    with pytest.raises(DictionaryError, match="cfg.json but neither"):
        load_dictionary(folder.parent / "cfg.json")
    with pytest.raises(DictionaryError, match="'/dev/null' is no file of a dictionary"):
        load_dictionary("/dev/null")


@pytest.mark.parametrize("source", ["", None, 5])
def test_what_is_no_name_of_a_source(source):
    with pytest.raises(DictionaryError, match=f"source={source!r}; expected a folder"):
        load_dictionary(source)


@pytest.mark.parametrize("device", ["cuda:77", "tpu9"])
def test_devices_that_are_not_there(device, tmp_path):
    folder = save_dictionary(one_for("saelens"), tmp_path)
    with pytest.raises(DictionaryError, match=f"device='{device}' cannot hold it"):
        load_dictionary(folder, device=device)


def test_a_folder_of_folders(tmp_path):
    for i in range(2):
        save_dictionary(made("transcoder", layer=i), tmp_path / f"transcoder-L{i}.mlp")
    assert list(load_dictionaries(tmp_path)) == ["L0.mlp", "L1.mlp"]
    with pytest.raises(DictionaryError, match=r"2 dictionaries \(transcoder-L0.mlp"):
        load_dictionary(tmp_path)
    assert load_dictionary(tmp_path, site="transcoder-L1.mlp").spec.features == ("L1.mlp",)
    save_dictionary(made("transcoder", layer=1), tmp_path / "wider")
    with pytest.raises(DictionaryError, match="two dictionaries for L1.mlp"):
        load_dictionaries(tmp_path)
    assert list(load_dictionaries(tmp_path / "wider")) == ["L1.mlp"]


def test_the_list_of_releases_is_sae_lens_own(lens):
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    theirs = get_pretrained_saes_directory()
    assert set(hub.releases()) == set(theirs)
    for release in list(theirs)[::20]:
        assert set(hub.ids(release)) == set(theirs[release].saes_map)


def test_releases_are_loaded_by_sae_lens(tmp_path, lens, monkeypatch):
    dictionary = made("sae", "jumprelu", reads=("L8.resid_pre",), writes=("L8.resid_pre",))
    asked = []

    def local(release, name, *, device):
        asked.append((release, name))
        return lens.SAE.load_from_disk(str(save_dictionary(dictionary, tmp_path, overwrite=True)))

    monkeypatch.setattr(lens.SAE, "from_pretrained", local)
    with pytest.warns(UserWarning, match="non-empty model_from_pretrained"):
        back = load_dictionary("gpt2-small-res-jb/blocks.8.hook_resid_pre")
    assert asked == [("gpt2-small-res-jb", "blocks.8.hook_resid_pre")]
    assert back.spec.reads == ("L8.resid_pre",)
    assert torch.equal(back(rows(back)), dictionary(rows(back)))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("gpt2-small-res-jb/blocks.99.hook_resid_pre", "no 'blocks.99.*nearest of 1.*blocks.9"),
        ("gpt2-small-res-jb", "its dictionaries are gpt2-small-res-jb/... such as 'blocks.0"),
        ("gpt2-small-res-jbb", "nearest releases of SAELens: 'gpt2-small-res-jb'"),
        ("./nowhere", "there is no folder './nowhere'"),
        ("/nowhere/at/all", "there is no folder '/nowhere/at/all'"),
        ("owner/name", "repository owner/name could not be fetched.*HF_HUB_OFFLINE"),
        ("gpt2-small-res-jbb/x", "no release 'gpt2-small-res-jbb' .nearest: 'gpt2-small-res-jb'"),
    ],
)
def test_what_is_not_there_is_told_offline(source, message):
    with pytest.raises(DictionaryError, match=message):
        load_dictionary(source)


def test_a_release_that_cannot_be_fetched(lens):
    with pytest.raises(DictionaryError, match="SAELens could not load 'gpt2-small.*HF_HUB_OFFLINE"):
        load_dictionary("gpt2-small-res-jb/blocks.8.hook_resid_pre")


def test_repositories_are_recognised_as_folders_are(tmp_path, monkeypatch):
    import huggingface_hub

    many = [made("transcoder", layer=i) for i in range(3)]
    save_dictionary(many, tmp_path / "set", format="circuit-tracer")
    save_dictionary(made(), tmp_path / "own" / "deep")
    asked = []

    def snapshot(repo, *, allow_patterns):
        asked.append((repo, allow_patterns))
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    assert_same(made(), load_dictionary("owner/name/own/deep"))
    assert asked[0] == ("owner/name", ["own/deep/*.json", "own/deep/*.yaml"])
    assert asked[1][1][-1] == "own/deep/*.safetensors"
    assert_same(many[1], load_dictionary("owner/name/set", site="L1.mlp"))
    assert asked[-1][1][-1] == "set/layer_1.safetensors"
    with pytest.raises(SiteError):
        load_dictionary("owner/name/set", site="L1.nothing")


def test_written_files_are_readable_by_others(tmp_path):
    old = os.umask(0o022)
    try:
        save_dictionary(made(), tmp_path / "out")
    finally:
        os.umask(old)
    assert {oct(p.stat().st_mode & 0o777) for p in (tmp_path / "out").iterdir()} == {"0o644"}
