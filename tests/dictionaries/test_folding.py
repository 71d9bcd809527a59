"""Folding changes weights and units, never what is computed."""

import pytest
import torch

import interp
from interp.dictionaries.folding import (
    as_jumprelu,
    fold_norm,
    fold_scales,
    reading,
    scale_features,
    unfold_norm,
    unit_decoder,
    with_centring,
)  # fmt: skip
from interp.errors import DictionaryError
from tests import tiny
from tests.dictionaries.formats.made import ACTIVATIONS, D_SAE, EVERY, D, assert_close, made, rows

CROSS = "cross_layer_transcoder"


def units(dictionary):
    """Shifts and scales of both sides, one for each layer where there are several."""
    generator = torch.Generator().manual_seed(5)
    n = (3,) if dictionary.spec.crossing else ()
    shift_in, shift_out = (torch.randn(*n, D, generator=generator) for _ in range(2))
    scale_in, scale_out = (0.5 + torch.rand(n, generator=generator) for _ in range(2))
    if dictionary.spec.centre:
        return shift_in, scale_in, shift_in, scale_in
    return shift_in, scale_in, shift_out, scale_out


@pytest.mark.parametrize(("kind", "activation"), EVERY)
def test_scales_fold_into_the_weights(kind, activation):
    inner = made(kind, activation).double()
    s_in, c_in, s_out, c_out = (t.double() for t in units(inner))
    folded = fold_scales(inner, in_shift=s_in, in_scale=c_in, out_shift=s_out, out_scale=c_out)
    x = rows(inner).double()

    if inner.spec.crossing:
        c_in, c_out = c_in[:, None, None], c_out[:, None, None]
        s_in, s_out = s_in[:, None], s_out[:, None]
    given = (x - s_in) * c_in
    assert torch.allclose(folded.encode(x), inner.encode(given), atol=1e-10)
    assert torch.allclose(folded(x), inner(given) / c_out + s_out, atol=1e-10)
    assert not torch.allclose(folded(x), inner(x), atol=0.1)


def test_numbers_are_enough_for_one_scale():
    inner = made(CROSS)
    folded = fold_scales(inner, in_scale=2.0, out_scale=4.0)
    x = rows(inner)
    assert torch.allclose(folded(x), inner(2 * x) / 4, atol=1e-5)
    with pytest.raises(DictionaryError, match="scale is 0"):
        fold_scales(inner, in_scale=0.0)


def test_a_centred_sae_has_one_unit():
    with pytest.raises(DictionaryError, match="give out_shift and out_scale the values"):
        fold_scales(made("sae"), in_scale=2.0)
    assert fold_scales(made("sae", centre=False), in_scale=2.0) is not None
    with pytest.raises(DictionaryError, match="layer_norm.*none to fold"):
        fold_scales(made("sae", normalise="layer_norm"), in_scale=2.0, out_scale=2.0)
    with pytest.raises(DictionaryError, match=r"in_shift has the shape \[3\]; expected.*\[16\]"):
        fold_scales(made("transcoder"), in_shift=torch.ones(3))
    with pytest.raises(DictionaryError, match=r"in_scale has the shape \[2\].*\[3\]"):
        fold_scales(made(CROSS), in_scale=torch.ones(2))


@pytest.mark.parametrize("kind", ["transcoder", "skip_transcoder", CROSS])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_norm_folds_and_unfolds(kind, activation):
    after = made(kind, activation)
    n = (3,) if kind == CROSS else ()
    gamma, beta = torch.rand(*n, D) + 0.5, torch.randn(*n, D)
    before = fold_norm(after, gamma, beta)
    assert before.spec.reads[0].endswith("ln2.normalized")
    x = rows(after)
    wide = (slice(None), None) if n else (slice(None),)
    given = x * gamma[wide] + beta[wide]
    assert torch.allclose(before.encode(x), after.encode(given), atol=1e-4)
    assert torch.allclose(before(x), after(given), atol=1e-4)
    assert_close(unfold_norm(before, gamma, beta), after, x, atol=1e-4)
    assert unfold_norm(before, gamma, beta).spec == after.spec


def test_a_gamma_of_zero_cannot_be_unfolded():
    before, gamma = made("transcoder", point="ln2.normalized"), torch.ones(D)
    gamma[3] = 0
    with pytest.raises(DictionaryError, match="γ is 0 in 1 places"):
        unfold_norm(before, gamma)
    with pytest.raises(DictionaryError, match="expected a transcoder that reads 'mlp.input'"):
        fold_norm(before, gamma)
    with pytest.raises(DictionaryError, match="a sae that reads L1.resid_post"):
        fold_norm(made("sae"), gamma)
    with pytest.raises(DictionaryError, match=r"gamma has the shape \[4\]"):
        fold_norm(made("transcoder"), torch.ones(4))


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2", "gpt_neox", "olmo"])
@pytest.mark.parametrize("kind", ["skip_transcoder", CROSS])
def test_reading_takes_the_models_own_norms(family, kind):
    model = interp.load(tiny.shared(family))
    after = made(kind, "relu", d=tiny.D_MODEL)
    before = reading(after, model, "ln2.normalized")
    sites = [*after.spec.reads, *before.spec.reads]
    cache = model.run(tiny.tokens(), save=sites).cache

    def given(dictionary):
        found = [cache[site] for site in dictionary.spec.reads]
        return torch.stack(found) if len(found) > 1 else found[0]

    assert torch.allclose(before.encode(given(before)), after.encode(given(after)), atol=1e-4)
    assert torch.allclose(before(given(before)), after(given(after)), atol=1e-4)
    if family != "olmo":  # whose norm has no parameters
        assert not torch.allclose(after(given(before)), after(given(after)), atol=1e-2)
    assert_close(reading(before, model, "mlp.input"), after, given(after), atol=1e-3)
    assert reading(before, model, "ln2.normalized") is before


def test_reading_says_why_it_cannot():
    dictionary = made("transcoder", d=tiny.D_MODEL)
    model = interp.load(tiny.shared("gptj"))
    with pytest.raises(DictionaryError, match="no 'ln2.normalized' to read: .*share one norm"):
        reading(dictionary, model, "ln2.normalized")
    with pytest.raises(DictionaryError, match="reads='resid_mid'; expected 'mlp.input'"):
        reading(dictionary, model, "resid_mid")
    with pytest.raises(DictionaryError, match=r"gamma has the shape \[32\]"):
        reading(made("transcoder"), interp.load(tiny.shared("gpt2")), "ln2.normalized")


def test_norms_of_another_model_are_told():
    model = interp.load(tiny.shared("llama"))
    dictionary = made("transcoder", d=tiny.D_MODEL, model="other", weights_hash="ab")
    with pytest.warns(UserWarning, match="trained on other with other weights"):
        reading(dictionary, model, "ln2.normalized")
    reading(dictionary.with_spec(weights_hash=model.weights_hash), model, "ln2.normalized")


@pytest.mark.parametrize(("kind", "activation"), [p for p in EVERY if p[1] != "topk"])
def test_unit_decoders_write_the_same(kind, activation):
    dictionary = made(kind, activation)
    unit, x = unit_decoder(dictionary), rows(dictionary)
    for old, new in zip(dictionary.parts, unit.parts, strict=True):
        assert torch.allclose(new.dec.norm(dim=-1), torch.ones(D_SAE), atol=1e-6)
        assert not torch.allclose(old.dec.norm(dim=-1), torch.ones(D_SAE), atol=0.1)
    assert torch.allclose(unit(x), dictionary(x), atol=1e-4)
    norms = torch.stack([part.dec.norm(dim=-1) for part in dictionary.parts])[:, None]
    acts = dictionary.encode(x)
    assert torch.allclose(unit.encode(x), acts * (norms if x.ndim == 3 else norms[0]), atol=1e-4)


def test_rows_of_zeros_stay():
    dictionary = made("transcoder", "jumprelu")
    with torch.no_grad():
        dictionary.parts[0].dec[5] = 0
    unit, x = unit_decoder(dictionary), rows(dictionary)
    assert torch.allclose(unit(x), dictionary(x), atol=1e-5)
    assert torch.equal(unit.encode(x)[:, 5], dictionary.encode(x)[:, 5])


def test_topk_cannot_be_rescaled_unnoticed():
    with pytest.raises(DictionaryError, match="changes which k are the largest"):
        unit_decoder(made("sae", "topk"))
    with pytest.raises(DictionaryError, match="take as_jumprelu"):
        scale_features(made("sae", "batchtopk"), torch.ones(D_SAE))
    for factor in (torch.ones(3), -torch.ones(D_SAE)):
        with pytest.raises(DictionaryError, match="expected one for each of 40 features"):
            scale_features(made("sae"), factor)


@pytest.mark.parametrize("kind", ["sae", "transcoder", CROSS])
@pytest.mark.parametrize("activation", ["relu", "batchtopk", "jumprelu"])
def test_jumprelu_is_the_same_to_the_bit(kind, activation):
    dictionary = made(kind, activation)
    other, x = as_jumprelu(dictionary), rows(dictionary)
    assert other.spec.activation == "jumprelu"
    assert torch.equal(other.encode(x), dictionary.encode(x))
    assert torch.equal(other(x), dictionary(x))


@pytest.mark.parametrize("activation", ["gated", "topk"])
def test_gated_and_topk_are_no_jumprelu(activation):
    with pytest.raises(DictionaryError, match=f"a {activation} dictionary is no JumpReLU"):
        as_jumprelu(made("sae", activation))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("centre", [True, False])
def test_centring_is_a_bias(activation, centre):
    dictionary = made("sae", activation, centre=centre)
    other, x = with_centring(dictionary, not centre), rows(dictionary)
    assert other.spec.centre is not centre
    assert_close(other, dictionary, x, atol=1e-4)
    assert with_centring(dictionary, centre) is dictionary
    with pytest.raises(DictionaryError, match="a transcoder has no b_dec"):
        with_centring(made("transcoder"), True)


def test_a_folded_dictionary_keeps_dtype_and_record():
    dictionary = made("transcoder").to(torch.bfloat16)
    dictionary.training_record = {"steps": 3}
    folded = fold_scales(dictionary, in_scale=2.0)
    assert folded.dtype == torch.bfloat16
    assert folded.training_record == {"steps": 3}
    assert torch.equal(folded.W_enc, dictionary.W_enc * 2)
