"""De-embedding: true pre-activations of lone tokens, through heads, along paths."""

import pytest
import torch

import interp
from interp.errors import DictionaryError, ModelError
from interp.inspection.feature_circuits import DeEmbedding, contributions, de_embed, de_embed_path
from interp.inspection.feature_circuits.contributions import begin
from interp.inspection.feature_circuits.de_embedding import through_head
from interp.runs.edits import Zero
from tests import tiny
from tests.inspection.feature_circuits.made import double, strongest, transcoder


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "llama", "gemma"])
@pytest.mark.parametrize("reads", ["mlp.input", "ln2.normalized"])
def test_straight_it_is_the_pre_activation_of_a_token_alone(family, reads):
    model = double(family)
    tc = transcoder(model, 0, reads=reads)
    ids = torch.arange(model.d_vocab)[:, None]
    silent = {"L0.attn_out": Zero()} | ({"pos_embed": Zero()} if family == "gpt2" else {})
    x = model.run(ids, save=tc.spec.reads[0], edit=silent).cache[tc.spec.reads[0]][:, 0]
    want = x @ tc.W_enc
    found = de_embed(tc, model, [3, 7], top=tiny.VOCAB)
    assert found.names == ("F3", "F7")
    for row, unit in enumerate((3, 7)):
        values = torch.empty(tiny.VOCAB, dtype=found.top.dtype)
        values[found.top_ids[row]] = found.top[row]
        assert torch.allclose(values.double(), want[:, unit], atol=1e-4)
        assert found.bottom_ids[row].tolist() == found.top_ids[row].flip(0).tolist()


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2"])
def test_through_a_head_it_orders_tokens_as_the_head_brings_them(family):
    """A token alone at position 0, to which the head at position 0 attends: its term, over one scale."""
    model = double(family)
    tc = transcoder(model, 0)
    found = de_embed(tc, model, [3], head=(0, 2), top=tiny.VOCAB)
    values = torch.empty(tiny.VOCAB, dtype=found.top.dtype)
    values[found.top_ids[0]] = found.top[0]
    for token in (5, 50):
        edit = {"pos_embed": Zero()} if family == "gpt2" else {}
        cache = model.run([[token]], save=["L0.H2.result", "L0.z"], edit=edit).cache
        bare = cache["L0.H2.result"][0, 0]
        written = through_head(model, 0, 2)[token]
        if family == "gemma2":
            bare = bare * (1 + model.hf.model.layers[0].post_attention_layernorm.weight.detach())
        centred = (lambda x: x - x.mean()) if family == "gpt2" else (lambda x: x)
        assert torch.allclose(centred(written), centred(bare), atol=1e-5)
        norm = model.anatomy.blocks[0].ln2
        gain = norm.weight.detach() + (1 if family == "gemma2" else 0)
        want = float(centred(bare) @ (gain * tc.W_enc[:, 3]))
        if family == "gpt2":
            want = float(centred(bare) @ centred(gain * tc.W_enc[:, 3]))
        assert float(values[token]) == pytest.approx(want, rel=1e-4, abs=1e-5)


def test_along_a_path_the_token_that_stands_there_has_the_embedding_s_contribution(tmp_path):
    model = double("llama")
    tcs = [transcoder(model, layer) for layer in range(3)]
    ids = tiny.tokens(1, 6)
    unit = strongest(model, ids, tcs[2], 2)
    name = f"L2.mlp.F{unit}@5"
    found = de_embed_path(tcs, model, ids, [name], top=tiny.VOCAB)
    own = found.top_ids[0].tolist().index(int(ids[0, 5]))
    embed = contributions(tcs, model, ids, name)["embed@5"]
    assert float(found.top[0, own]) == pytest.approx(embed, rel=1e-4, abs=1e-6)

    run, root = begin(tcs, model, ids, name)
    direction = run.root(root)
    head = max((t for t in run.terms(direction) if t[0].kind == "head"), key=lambda t: t[1])[0]
    inside = dict(run.terms(run.behind(head, direction)))
    along = de_embed_path(tcs, model, ids, [name, head.name], top=tiny.VOCAB)
    own = along.top_ids[0].tolist().index(int(ids[0, head.source]))
    want = next(v for n, v in inside.items() if n.kind == "embed")
    assert float(along.top[0, own]) == pytest.approx(want, rel=1e-4, abs=1e-6)
    again = DeEmbedding.load(along.save(tmp_path / "d.safetensors"))
    assert again.names == along.names
    assert torch.equal(again.top, along.top)
    assert len(along.to_frame()) == tiny.VOCAB
    assert along.plot(k=3)
    assert "rows" in repr(along)


@pytest.mark.bad_input
def test_errors():
    model = double("gpt2")
    tcs = [transcoder(model, layer) for layer in range(2)]
    ids = tiny.tokens(1, 6)
    with pytest.raises(DictionaryError, match="no feature 99"):
        de_embed(tcs[0], model, [99])
    with pytest.raises(
        DictionaryError, match="a head of layer 1 writes behind what the MLP of layer 0"
    ):
        de_embed(tcs[0], model, [1], head=(1, 0))
    with pytest.raises(ModelError, match="layer 0, head 9"):
        de_embed(tcs[0], model, [1], head=(0, 9))
    with pytest.raises(DictionaryError, match="expected a feature such as"):
        de_embed_path(tcs, model, ids, ["embed@3"])
    with pytest.raises(DictionaryError, match="'L1.H0@5←9' contributes nothing"):
        de_embed_path(tcs, model, ids, ["L1.mlp.F1@5", "L1.H0@5←9"])
    wide = transcoder(interp.load(tiny.build("gpt2", n_embd=16), check=False), 0)
    with pytest.raises(DictionaryError, match="encoder reads 16 numbers"):
        de_embed(wide, model, [1])
