"""Directions added from a position on, and directions taken out."""

import copy

import pytest
import torch

import interp
from interp.errors import RunError
from interp.steering.edits import AddFrom, ProjectOut
from tests import tiny


@pytest.fixture(scope="module")
def model():
    return interp.load(tiny.shared("llama"), check=False)


def vector(n=tiny.D_MODEL, seed=0):
    return torch.randn(n, generator=torch.Generator().manual_seed(seed))


def test_projecting_out_leaves_only_what_is_orthogonal():
    x, r = torch.randn(3, 5, 32, generator=torch.Generator().manual_seed(1)), vector()
    out = ProjectOut(r)(x)
    assert float((out @ r).abs().max()) < 1e-5
    assert torch.allclose(ProjectOut(r)(out), out, atol=1e-6)  # once is enough
    assert torch.allclose(ProjectOut(-7 * r)(x), out, atol=1e-6)  # neither length nor sign
    unit = r / r.norm()
    assert torch.allclose(out + (x @ unit)[..., None] * unit, x, atol=1e-5)
    assert ProjectOut(r)(x.half()).dtype == torch.float16


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_projecting_out_of_all_writes_equals_weights_that_cannot_write_it(family):
    """Arditi et al. 2024, section 4.1: weight orthogonalisation is the same intervention."""
    hf, r = tiny.build(family), vector()
    r = r / r.norm()
    sites = ["embed", "L*.attn_out", "L*.mlp_out"] + (["pos_embed"] if family == "gpt2" else [])
    ids = tiny.tokens(2, 7)
    edited = interp.load(hf, check=False).run(ids, edit={s: ProjectOut(r) for s in sites}).logits
    frozen = copy.deepcopy(hf)
    if family == "gpt2":  # tied: the unembedding must keep reading the direction
        frozen.lm_head.weight = torch.nn.Parameter(frozen.lm_head.weight.clone())
    away = torch.eye(32) - torch.outer(r, r)
    writers = ("o_proj", "down_proj", "embed_tokens", "wte", "wpe", "c_proj")
    with torch.no_grad():
        for name, weight in frozen.named_parameters():
            part = next((w for w in writers if f".{w}." in f".{name}"), None)
            if part is not None:
                out_last = family == "gpt2" or part == "embed_tokens"
                weight.copy_(weight @ away if out_last else away @ weight)
        assert torch.allclose(edited, frozen(ids).logits, atol=2e-5)
        assert not torch.allclose(edited, hf(ids).logits, atol=1e-2)


def test_projecting_out_is_a_source_of_a_sweep(model):
    prompts = model.prompts(tiny.tokens(3, 6), answers=[5, 6, 7], foils=[8, 9, 10])
    sweep = interp.patch(
        model, prompts, "L*.resid_pre", source=ProjectOut(vector()), positions="all"
    )
    run = model.run(prompts, edit={"L1.resid_pre": ProjectOut(vector())})
    score = interp.metrics.evaluate("logit_diff", run.logits, prompts)
    assert torch.allclose(sweep.per_prompt[1], score, atol=1e-5)


@pytest.mark.parametrize("pad", ["right", "left"])
def test_adding_from_a_position_counts_real_tokens(model, pad):
    rows = [[5, 6, 7, 8, 9, 10], [11, 12, 13]]
    batch = interp.TokenBatch.stack(rows, pad=pad)
    v = vector()
    for start in (1, -2, "END"):
        run = model.run(batch, save="L1.resid_pre", edit={"L1.resid_pre": AddFrom(v, start)})
        for i, row in enumerate(rows):
            first = {1: 1, -2: len(row) - 2, "END": len(row) - 1}[start]
            edit = {f"L1.resid_pre@{p}": interp.Add(v) for p in range(first, len(row))}
            alone = model.run(torch.tensor([row]), edit=edit).logits[0]
            assert torch.allclose(run.logits[i][batch.mask[i]], alone, atol=1e-4)
    whole = model.run(batch, edit={"L1.resid_pre": AddFrom(v, 0)}).logits
    add = model.run(batch, edit={"L1.resid_pre": interp.Add(v)}).logits
    assert torch.allclose(whole[batch.mask], add[batch.mask], atol=1e-5)
    cut = model.run(batch, edit={"L1.resid_pre": AddFrom(v, -2)}, batch=1).logits
    both = model.run(batch, edit={"L1.resid_pre": AddFrom(v, -2)}).logits
    assert torch.allclose(cut[batch.mask], both[batch.mask], atol=1e-5)


def test_an_edit_at_a_later_position_leaves_earlier_ones_to_the_bit(model):
    ids = tiny.tokens(2, 8)
    plain = model.run(ids).logits
    steered = model.run(ids, edit={"L0.resid_pre": AddFrom(vector(), 5)}).logits
    assert torch.equal(steered[:, :5], plain[:, :5])
    assert not torch.allclose(steered[:, 5:], plain[:, 5:], atol=1e-2)


@pytest.mark.bad_input
def test_a_vector_may_be_a_list(model):
    ids, v = tiny.tokens(1, 5), vector()
    for kind in (lambda value: AddFrom(value, 2), ProjectOut):
        both = [model.run(ids, edit={"L1.resid_pre": kind(x)}).logits for x in (v, v.tolist())]
        assert torch.equal(*both)


def test_names_that_the_prompts_define(model):
    prompts = model.prompts(tiny.tokens(2, 8), positions={"s": [2, 5]})
    run = model.run(prompts, edit={"L1.resid_pre": AddFrom(vector(), "s")}, save="L1.resid_pre")
    plain = model.run(prompts, save="L1.resid_pre").cache["L1.resid_pre"]
    moved = (run.cache["L1.resid_pre"] - plain).norm(dim=-1) > 0
    assert moved.int().argmax(-1).tolist() == [2, 5]
    assert moved.sum(-1).tolist() == [6, 3]


@pytest.mark.bad_input
def test_what_is_refused(model):
    ids = tiny.tokens(1, 5)
    with pytest.raises(RunError, match="works on a whole site"):
        AddFrom(vector(), 2)(torch.zeros(1, 5, 32))
    with pytest.raises(RunError, match="works on a whole site"):
        model.run(ids, edit={"L1.resid_pre@-1": AddFrom(vector(), 2)})
    with pytest.raises(RunError, match="give one vector of length 32"):
        model.run(ids, edit={"L1.resid_pre": AddFrom(vector(31), 2)})
    with pytest.raises(RunError, match="give one vector of length 32"):
        model.run(ids, edit={"L1.resid_pre": ProjectOut(vector(31))})
    with pytest.raises(RunError, match="points nowhere"):
        ProjectOut(torch.zeros(32))(torch.zeros(1, 32))
    # Axes that are no positions: heads, which would be counted as if they were.
    for site, width in (("L1.z@-1", 16), ("L1.pattern", 5), ("L1.H0.pattern", 5)):
        for act in (model.run, model.generate):
            with pytest.raises(RunError, match="AddFrom asks where positions lie.*given 'L1"):
                act(ids, edit={site: AddFrom(vector(width), 0)})
    with pytest.raises(RunError, match="start=1.5"):
        model.run(ids, edit={"L1.resid_pre": AddFrom(vector(), 1.5)})
    with pytest.raises(RunError, match="length nan"):
        ProjectOut(vector() * torch.nan)(torch.zeros(1, 32))
    with pytest.raises(interp.errors.PromptError, match="no position is called"):
        model.run(ids, edit={"L1.resid_pre": AddFrom(vector(), "subject")})
