"""A dictionary's metadata say how its data was read, as SAELens's tools ask for it."""

import json

import pytest

import interp
from interp.training.reading import how_read


def read(special=True, bos=None, **changes):
    return {"context_size": 64, "prepend_bos": bos, "exclude_special_tokens": special, **changes}


@pytest.mark.parametrize(("bos", "want"), [(None, True), (True, True), (False, False)])
def test_streams_and_stores_tell_the_same(bos, want, demo, tmp_path):
    given = {"context": 64, "tokens": 64, "bos": bos}
    live = interp.stream(demo, "demo", ["L0.mlp_out"], **given)
    stored = interp.harvest(demo, "demo", ["L0.mlp_out"], tmp_path, progress=False, **given)
    assert how_read(live) == how_read(stored) == read(bos=want)


def test_a_store_with_special_tokens_does_not_tell(demo, tmp_path):
    stored = interp.harvest(
        demo, "demo", ["L0.mlp_out"], tmp_path, progress=False, context=64, tokens=64, special=True
    )
    assert how_read(stored) == read(special=False)


def test_sae_lens_is_told(store, tmp_path):
    made = interp.train(
        store, site="L2.resid_post", d_sae=32, k=4, batch=512, tokens=512, progress=False
    )
    told = json.loads((made.save(tmp_path / "sae") / "cfg.json").read_text())["metadata"]
    assert (told["model_name"], told["hook_name"]) == ("demo", "blocks.2.hook_resid_post")
    assert told["prepend_bos"] is True  # ActivationsStore.from_sae refuses an SAE without it
    assert (told["context_size"], told["exclude_special_tokens"]) == (128, True)
