"""A dictionary says what it is, what it takes, and what does not fit."""

import copy

import pytest
import torch

from interp.dictionaries.spec import DictionarySpec
from interp.errors import DictionaryError
from tests.dictionaries import standing


def spec(kind="sae", activation="relu", **changes):
    site = {"sae": ("L1.resid_post",) * 2}.get(kind, ("L1.mlp.input", "L1.mlp_out"))
    values = {"reads": site[:1], "writes": site[1:], "d_in": 8, "d_out": 8, "d_sae": 12}
    return DictionarySpec(kind=kind, activation=activation, **{**values, **changes})


@pytest.mark.parametrize(("changes", "text"), [
    ({"activation": "topk"}, r"options={} for topk; expected {'k': 32}"),
    ({"options": {"k": 3}}, r"options={'k': 3} for relu; expected none"),
    ({"activation": "batchtopk", "options": {"k": 3, "K": 4}}, "for batchtopk; expected"),
    ({"reads": "L1.resid_post"}, r"reads='L1.resid_post'; expected a tuple.*\('L1.resid_post',\)"),
    ({"writes": "L1.resid_post"}, "writes='L1.resid_post'; expected a tuple"),
    ({"activation": "silu"}, "activation='silu'; expected one of relu"),
    ({"d_sae": 0}, "d_sae=0; expected a whole number"),
])  # fmt: skip
def test_specs_that_do_not_fit_together(changes, text):
    with pytest.raises(DictionaryError, match=text):
        spec(**changes)


def test_what_is_given_must_fit():
    sae, skip = standing.random(spec()), standing.random(spec("skip_transcoder"))
    acts = sae.encode(torch.randn(3, 8))
    for call, text in (
        (lambda: sae.encode(torch.zeros(3, 7)), r"given a tensor of shape \[3, 7\]; this dictionary "
         r"encodes tensors of shape \[..., 8\]"),
        (lambda: sae.encode("France"), "given a str; this dictionary encodes tensors"),
        (lambda: sae.encode(acts.numpy()), "given a ndarray; this dictionary encodes tensors"),
        (lambda: sae.decode(torch.zeros(3, 8)), r"decodes tensors of shape \[..., 12\]"),
        (lambda: skip.decode(acts), r"depends on its input.*decode\(features, x\)"),
        (lambda: skip.decode(acts, acts), r"shape \[3, 12\]; this dictionary encodes"),
    ):  # fmt: skip
        with pytest.raises(DictionaryError, match=text):
            call()


def test_a_copy_under_another_spec_shares_nothing():
    own = standing.random(spec())
    other = own.with_spec(model="another")
    assert (other.spec.model, own.spec.model, other.hash) == ("another", None, own.hash)
    other.parts[0].enc.zero_()
    assert own.parts[0].enc.any()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_copy_under_another_spec_stays_on_its_device():
    assert standing.random(spec()).to("cuda").with_spec(model="x").device.type == "cuda"


def test_it_is_a_module_like_others():
    own = standing.random(spec("transcoder", "topk", options={"k": 3}))
    assert repr(own) == (
        "Dictionary(transcoder, L1.mlp.input → L1.mlp_out: 8 → 12 features → 8, topk, k 3)"
    )
    twin = copy.deepcopy(own)
    assert twin.hash == own.hash
    twin.half()
    x = torch.randn(2, 8)
    assert twin(x).dtype == torch.float16
    assert torch.allclose(twin(x).float(), own(x), atol=0.02)
    twin.float().load_state_dict(own.state_dict())
    assert twin.hash == own.hash
