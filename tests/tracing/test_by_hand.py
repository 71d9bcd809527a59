"""Tracing equals Meng et al.'s procedure written out with plain hooks on the Hugging Face model."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
import torch

import interp
from interp.tracing.verb import trace
from tests import tiny

SAMPLES, STD, FIRST, LAST = 3, 0.8, 2, 4
#: Embedding, blocks, and the branches of a block.
MODULES = {
    "gpt2": ("transformer.wte", "transformer.h", "attn", "mlp"),
    "llama": ("model.embed_tokens", "model.layers", "self_attn", "mlp"),
    "gpt_neox": ("gpt_neox.embed_in", "gpt_neox.layers", "attention", "mlp"),
}


def out(value):
    return value[0] if isinstance(value, tuple) else value


def run(hf, family, ids, *, noise=None, put=None, keep=None):
    """One batch; ``put``: module path → (token, value); ``keep``: dict to fill by module path."""
    embed, blocks, attn, mlp = MODULES[family]
    layers = hf.get_submodule(blocks)
    paths = [
        f"{blocks}.{i}{part}" for i in range(len(layers)) for part in ("", f".{attn}", f".{mlp}")
    ]

    def hook(path):
        def change(module, args, value):
            x = out(value).clone()
            if path in (put or {}):
                token, new = put[path]
                x[:, token] = new
            if keep is not None:
                keep[path] = x.clone()
            return (x, *value[1:]) if isinstance(value, tuple) else x

        return change

    def add(module, args, value):
        value = value.clone()
        value[:, FIRST : LAST + 1] += noise
        return value

    with ExitStack() as stack, torch.no_grad():
        if noise is not None:
            stack.callback(hf.get_submodule(embed).register_forward_hook(add).remove)
        for path in paths:
            stack.callback(hf.get_submodule(path).register_forward_hook(hook(path)).remove)
        return hf(ids).logits[:, -1].softmax(-1)


@pytest.fixture(params=list(MODULES))
def case(request):
    family = request.param
    hf = tiny.shared(family)
    ids = tiny.tokens(2, 8)
    model = interp.load(hf, check=False)
    options = {"subject": (FIRST, LAST), "std": STD, "samples": SAMPLES, "seed": 3, "window": 2}
    return family, hf, ids, model, options


def by_hand(family, hf, row, answer, paths, token, held=()):
    """P(answer) for each draw, with ``paths`` restored and ``held`` kept as corrupted at a token."""
    noise = STD * torch.randn(
        SAMPLES, LAST + 1 - FIRST, hf.config.hidden_size, generator=torch.Generator().manual_seed(3)
    )
    clean, corrupted = {}, {}
    run(hf, family, row, keep=clean)
    run(hf, family, row.expand(SAMPLES, -1), noise=noise, keep=corrupted)
    put = {path: (token, clean[path][:, token]) for path in paths}
    put |= {path: (token, corrupted[path][:, token]) for path in held}
    return run(hf, family, row.expand(SAMPLES, -1), noise=noise, put=put)[:, answer]


@pytest.mark.parametrize("engine", ["replay", "plain"])
def test_every_panel_is_the_papers_procedure(case, engine):
    family, hf, ids, model, options = case
    result = trace(model, ids, sever=("mlp", "attn"), engine=engine, **options)
    assert result.engine == engine
    assert (result.per_prompt - result.corrupted.mean(-1)).abs().max() > 1e-3
    _, blocks, attn, mlp = MODULES[family]
    n = model.n_layers
    for row, layer, token in [(0, 0, 3), (1, 1, 2), (0, n - 1, 7), (1, 0, 6)]:
        answer = int(hf(ids[row : row + 1]).logits[0, -1].argmax())
        state, around = [f"{blocks}.{layer}"], range(max(0, layer - 1), min(n, layer + 1))
        later = range(layer + 1, n)
        for kind, paths, held in [
            ("states", state, []),
            ("states, mlp severed", state, [f"{blocks}.{i}.{mlp}" for i in later]),
            ("states, attn severed", state, [f"{blocks}.{i}.{attn}" for i in later]),
            ("mlp", [f"{blocks}.{i}.{mlp}" for i in around], []),
            ("attn", [f"{blocks}.{i}.{attn}" for i in around], []),
        ]:
            ours = result.select(kind=kind, layer=layer, position=token).per_sample[row]
            truth = by_hand(family, hf, ids[row : row + 1], answer, paths, token, held)
            assert torch.allclose(ours, truth, atol=2e-6), (kind, layer, token)


def test_restoring_every_token_of_a_state_is_the_clean_run(case):
    _, _, ids, model, options = case
    result = trace(model, ids, **options)
    last = result.select(kind="states", layer=model.n_layers - 1, position=7)
    assert torch.allclose(last.per_prompt, result.clean, atol=1e-6)
    before = result.select(kind="states", layer=0, position=1)  # the noise has not come yet
    assert torch.allclose(before.per_sample, result.corrupted, atol=1e-6)


def test_attention_severed_states_differ_from_whole_ones_only_before_the_last_layer(case):
    _, _, ids, model, options = case
    result = trace(model, ids, sever="attn", kinds="states", **options)
    whole, cut = result.per_sample
    assert torch.equal(whole[-1], cut[-1])
    assert (whole[0] - cut[0]).abs().max() > 1e-5
