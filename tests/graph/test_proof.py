"""A graph is compared with its model once, and again when a weight was written."""

from __future__ import annotations

import torch

import interp
from interp.graph import Setting, proof
from tests import tiny
from tests.engine.cases import pairs


def test_again_for_other_weights_and_while_hooks_stand(monkeypatch):
    model = interp.load(tiny.build("gpt2"), check=False)
    prompts, calls, real = pairs(model), [], proof._compare
    monkeypatch.setattr(proof, "_compare", lambda *args: (calls.append(1), real(*args)))
    Setting.of(model, prompts)
    Setting.of(model, prompts)
    assert len(calls) == 1
    with torch.no_grad():
        model.hf.transformer.wte.weight.mul_(1.5)
    Setting.of(model, prompts)
    assert len(calls) == 2
    handle = model.hf.transformer.h[0].register_forward_hook(lambda module, args, out: None)
    for _ in range(2):
        Setting.of(model, prompts)
    handle.remove()
    assert len(calls) == 4
    Setting.of(model, prompts)
    assert len(calls) == 4
