"""Planted features are found by every kind and activation, and are not where there are none."""

from __future__ import annotations

import pytest

from tests.training.planted import Planted, trained

KINDS = ("sae", "transcoder", "skip_transcoder", "cross_layer_transcoder")
#: Options under which each activation finds what was planted, in few steps.
ACTIVATIONS = {
    "topk": {"k": 4},
    "batchtopk": {"k": 4},
    "matryoshka": {"k": 4},
    "relu": {"sparsity": 1.0},
    "gated": {"sparsity": 1.0},
    "jumprelu": {"sparsity": 1.0},
}
FEATURES, WIDTH = 64, 48


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_and_activation_finds_planted_features(kind, activation):
    skip = kind == "skip_transcoder"  # whose linear path would say all that is linear
    data = Planted.of(FEATURES, WIDTH, signed=skip)
    d_sae, options = (192 if skip else 96), dict(ACTIVATIONS[activation])
    if activation == "matryoshka":
        options["groups"] = (d_sae // 2, d_sae)
    trainee = trained(
        data, kind=kind, activation=activation, d_sae=d_sae, tokens=512 * 400, lr=5e-3, **options
    )
    cosine = data.found(trainee)
    assert cosine.mean() > 0.9
    assert (cosine > 0.9).float().mean() > 0.8


def test_topk_finds_features_in_superposition_and_none_where_there_are_none():
    options = {"d_sae": 384, "k": 5, "tokens": 512 * 600, "lr": 4e-3}
    data = Planted.of(256, 128, 5.0)
    cosine = data.found(trained(data, **options))
    assert cosine.mean() >= 0.95
    assert (cosine > 0.9).float().mean() >= 0.95
    control = Planted.of(256, 128, 5.0, shuffled=True)
    assert control.found(trained(control, **options)).mean() < 0.5
