"""The exact engine equals the plain path: every family, every site, every kind of padding."""

from __future__ import annotations

import pytest
import torch

import interp
from interp.engine.probe import why_not
from interp.errors import RunError
from interp.sites import POINTS
from tests import tiny
from tests.engine.cases import assert_equal, pairs

FAMILIES = (*tiny.REGISTRY, *tiny.OWN_ATTENTION)
#: One of each kind: learned, rotary and ALiBi positions, windows, norms behind, parallel and fused blocks.
DISTINCT = {
    "gpt2",
    "gpt_neox",
    "llama",
    "gemma2",
    "gemma3_text",
    "falcon",
    "bloom",
    "gpt_neo",
    "opt",
}


def loaded(family):
    return interp.load(tiny.shared(family), check=False)


def sites_of(model):
    """Every site that the model has, in its last two blocks, with two heads where it has heads."""
    last = model.anatomy.n_layers - 1
    for name, point in POINTS.items():
        if name not in (*model.anatomy.refused, "logits") and not point.spliced:
            head = ("H0-1." if "kv_head" in point.axes else "H0,3.") if point.headed else ""
            few = min(model.anatomy.n_kv_heads, 2) == 1 and "kv_head" in point.axes
            layer = f"L{last - 1}-{last}." if point.layered else ""
            yield f"{layer}{'H*.' if few else head}{name}", point


@pytest.mark.parametrize("family", FAMILIES)
def test_no_supported_family_falls_back(family):
    model = loaded(family)
    assert why_not(model.anatomy) is None
    result = interp.patch(model, pairs(model), "L*.resid_pre")
    assert result.engine == "replay"


@pytest.mark.parametrize("family", FAMILIES)
def test_every_site_of_every_family(family):
    model = loaded(family)
    prompts = pairs(model)
    for site, point in sites_of(model):
        _, plain = assert_equal(model, prompts, site, positions="all")
        effect = (plain.per_prompt - plain.corrupted).abs().max()
        assert float(effect) > 1e-4 or point.name == "pos_embed", site  # the same in both runs
        if "pos" in point.axes:
            assert_equal(model, prompts, site, positions=[1, 4, -1])


@pytest.mark.parametrize(
    "family",
    [name if name in DISTINCT else pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES],
)
def test_prompts_of_unequal_length(family):
    model = loaded(family)
    left, right = pairs(model, "left"), pairs(model, "right")
    for i, (site, point) in enumerate(sites_of(model)):
        positions = ["here", "END"] if "pos" in point.axes else "all"
        assert_equal(model, (left, right)[i % 2], site, positions=positions)


@pytest.mark.parametrize("padding", ["left", "right"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "mistral"])
def test_unequal_lengths_at_every_common_site(family, padding):
    model = loaded(family)
    for site in ("L*.resid_pre", "L*.H*.z", "L*.H0.k", "L*.H1.pattern"):
        positions = "all" if "pattern" in site else ["here", "END"]
        assert_equal(model, pairs(model, padding), site, positions=positions)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2", "gpt_neox", "bloom"])
@pytest.mark.parametrize("metric", ["kl", "nll", "prob", "callable"])
def test_every_kind_of_metric(family, metric):
    def total(logits, prompts):
        return logits[:, 2:].logsumexp(-1).sum(-1)

    model = loaded(family)
    how = total if metric == "callable" else metric
    for site in ("L*.resid_pre", "L*.H*.z"):
        assert_equal(model, pairs(model), site, metric=how)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "gemma2", "bloom"])
def test_groups_and_windows(family):
    model = loaded(family)
    prompts = pairs(model)
    groups = [
        "L1.resid_pre@3 + L1.H0.z@4 + L2.H1.z@5",
        "L0.H*.z + L2.attn_out@-1",
        "L*.attn_out@5 + L*.mlp_out@5",
        "L1.H0.z + L1.H2.z + L1.mlp_post@2",
        "embed@4 + L0.resid_pre@6 + L0.H1.v",
        "L0.resid_post@3 + L1.H1.k@5 + L1.mlp_out@7",
        "L2.resid_post@9 + ln_final.normalized@9 + L2.H0.q@9",
    ]
    for group in groups:
        assert_equal(model, prompts, group)
    for site in ("L*.mlp_out", "L*.attn_out", "L*.H1.z"):
        fast, _ = assert_equal(model, prompts, site, window=2)
        assert not torch.allclose(fast.values, interp.patch(model, prompts, site).values)


@pytest.mark.parametrize("source", ["zero", "resample", "mean", "noise", interp.Scale(0.5)])
def test_every_source(source):
    model = loaded("qwen3")
    prompts = pairs(model)
    reference = prompts if source == "mean" else None
    for site in ("L*.resid_pre", "L*.H*.z", "L1.H*.v", "L*.mlp_post.N3"):
        assert_equal(model, prompts, site, source=source, reference=reference)


@pytest.mark.parametrize("batch", [1, 3, 7, 1000])
def test_any_batch_gives_the_same(batch):
    model = loaded("llama")
    prompts = pairs(model, "left")
    for metric in ("logit_diff", "kl", "nll"):
        for site in ("L*.resid_pre@here", "L*.H*.z", "L1.pattern"):
            assert_equal(model, prompts, site, metric=metric, batch=batch)


def test_cells_before_the_first_difference_are_not_run():
    model = loaded("llama")
    result = interp.patch(model, pairs(model), "L*.resid_pre")
    assert result.work["skipped"] == 2 * model.anatomy.n_layers
    assert torch.equal(result.per_prompt[:, :2], result.corrupted.expand(3, 2, 4))


def test_the_work_is_that_of_the_positions_that_can_change():
    """Counted by hand: the speed cannot silently become the plain path's."""
    model = loaded("gpt2")
    prompts = pairs(model)
    layers, rows, width, first = model.anatomy.n_layers, 4, 10, 2
    tails = sum(width - p for p in range(first, width))
    cells = width - first
    resid = interp.patch(model, prompts, "L*.resid_pre")
    blocks = [
        layers - 1 - layer for layer in range(layers)
    ]  # before the last, which runs one query
    assert resid.work["block_positions"] == rows * (sum(blocks) * tails + layers * cells)
    assert resid.work["plain_block_positions"] == layers * width * layers * rows * width
    heads = interp.patch(model, prompts, "L*.H*.z")
    tail, n_heads = width - first, model.anatomy.n_heads
    inside = (layers - 1) * tail + 1  # half a block each, the last at the answer only
    behind = sum(
        max(0, layers - 2 - layer) * tail + (layer < layers - 1) for layer in range(layers)
    )
    assert heads.work["block_positions"] == rows * n_heads * (inside + behind)


@pytest.mark.parametrize(
    "site", ["L*.resid_pre", "L*.attn_out", "L*.H*.z", "L*.mlp_post.N0-3", "L*.H*.k"]
)
def test_the_forecast_is_near_what_is_done(site, monkeypatch):
    import interp.patching.run as run

    made = []
    real = run.forecast

    def kept(*args, **kwargs):
        made.append(real(*args, **kwargs))
        return made[-1]

    monkeypatch.setattr(run, "forecast", kept)
    model = loaded("gpt2")
    result = interp.patch(model, pairs(model), site)
    done = result.work["block_positions"]
    assert 0.5 * done <= made[0].block_positions <= 1.5 * done
    assert made[0].bytes > 0
    assert "MiB" in str(made[0])


def test_hooks_of_ones_own_and_training_mode_take_the_plain_path_and_say_why():
    model = interp.load(tiny.build("gpt2"), check=False)
    prompts = pairs(model)

    def louder(module, args, out):
        return (out[0] * 1.5, *out[1:]) if isinstance(out, tuple) else out * 1.5

    handle = model.hf.transformer.h[1].register_forward_hook(louder)
    hooked = interp.patch(model, prompts, "L0.resid_pre@4")
    assert "has a hook of its own" in hooked.engine
    with pytest.raises(RunError, match="hook of its own"):
        interp.patch(model, prompts, "L0.resid_pre@4", engine="replay")
    handle.remove()
    again = interp.patch(model, prompts, "L0.resid_pre@4")
    assert again.engine == "replay"
    assert not torch.allclose(again.values, hooked.values)
    model.hf.train()
    try:
        assert "training mode" in interp.patch(model, prompts, "L0.resid_pre@4").engine
    finally:
        model.hf.eval()


def test_a_block_with_its_norms_behind_takes_no_short_way():
    """OPT-350m's kind: what attention or an MLP adds is normalised with the stream."""
    model = interp.load(tiny.build("opt", do_layer_norm_before=False), check=False)
    prompts = pairs(model)
    for site in ("L*.H*.z", "L*.attn_out", "L*.mlp_out", "L*.mlp_post.N3", "L*.resid_pre"):
        assert_equal(model, prompts, site)
    with pytest.raises(RunError, match="not shown to be the sum"):
        interp.patch(model, prompts, "L0.H0.z -> L2.H1.k")
