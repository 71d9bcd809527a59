"""An export under ``ln2.hook_normalized``, spliced into TransformerLens, is our transcoder.

TransformerLens's ``ln2.hook_normalized`` is before the norm's γ and β, folded or not; our transcoder
reads ``mlp.input``, after them. The export must carry them.
"""

from copy import deepcopy

import pytest
import torch

import interp
from interp.dictionaries.formats import load_dictionary, save_dictionary
from tests import tiny
from tests.dictionaries.formats.made import made
from tests.engine.test_peers import hooked

pytestmark = pytest.mark.filterwarnings("ignore")
LAYER = 1


def ours(model, ids, transcoder):
    """Logits with the block's MLP replaced, by a plain edit."""
    seen = {}

    def keep(x):
        seen["x"] = x
        return x

    edit = {transcoder.spec.reads[0]: keep, f"L{LAYER}.mlp_out": lambda _: transcoder(seen["x"])}
    return model.run(ids, edit=edit).logits


def theirs(lens_model, ids, sae):
    """The same in TransformerLens, at the hooks that SAELens's config names."""
    seen = {}

    def read(x, hook):
        seen["x"] = x

    names = sae.cfg.metadata
    hooks = [(names.hook_name, read), (names.hook_name_out, lambda _, hook: sae(seen["x"]))]
    with torch.no_grad():
        return lens_model.run_with_hooks(ids, fwd_hooks=hooks)


def bridged(hf):
    from transformer_lens.model_bridge.sources import build_bridge_from_module

    other = deepcopy(hf)
    return build_bridge_from_module(other, type(other).__name__, hf_config=other.config)


@pytest.mark.parametrize("kind", ["transcoder", "skip_transcoder"])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("library", ["hooked", "folded", "bridge"])
def test_an_export_before_the_norm_splices_into_transformer_lens(
    kind, family, library, tmp_path, lens
):
    hf, ids = tiny.shared(family), tiny.tokens()
    model = interp.load(hf, check=False)
    transcoder = made(kind, "relu", d=tiny.D_MODEL, layer=LAYER)
    folder = save_dictionary(transcoder, tmp_path / "a", model=model, reads="ln2.normalized")
    sae = lens.SAE.load_from_disk(str(folder))
    assert sae.cfg.metadata.hook_name == f"blocks.{LAYER}.ln2.hook_normalized"
    lens_model = bridged(hf) if library == "bridge" else hooked(family, hf)
    if library == "folded":  # γ and β move into the MLP: the hook stays what it was
        lens_model.process_weights_(
            fold_ln=True, center_writing_weights=False, center_unembed=False
        )
    wanted = ours(model, ids, transcoder)
    assert torch.allclose(wanted, theirs(lens_model, ids, sae), atol=1e-4)
    assert not torch.allclose(wanted, model.run(ids).logits, atol=0.1)  # it does something
    assert torch.allclose(wanted, ours(model, ids, load_dictionary(folder)), atol=1e-4)

    trap = save_dictionary(
        transcoder.with_spec(reads=(f"L{LAYER}.ln2.normalized",)), tmp_path / "b"
    )
    wrong = theirs(lens_model, ids, lens.SAE.load_from_disk(str(trap)))
    assert not torch.allclose(wanted, wrong, atol=0.1)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2"])
def test_an_export_of_the_mlps_input_splices_into_the_bridge(family, tmp_path, lens):
    hf, ids = tiny.shared(family), tiny.tokens()
    transcoder = made("transcoder", "jumprelu", d=tiny.D_MODEL, layer=LAYER)
    sae = lens.SAE.load_from_disk(str(save_dictionary(transcoder, tmp_path)))
    wanted = ours(interp.load(hf, check=False), ids, transcoder)
    assert torch.allclose(wanted, theirs(bridged(hf), ids, sae), atol=1e-4)
