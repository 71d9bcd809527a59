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
    "gated": {"sparsity": 2.0},
    "jumprelu": {"sparsity": 1.0},
}
#: Each kind and each activation once in the default tests; every pair in the longer ones.
PAIRS = [
    (kind, activation)
    if kind == "transcoder" or activation == "topk"
    else pytest.param(kind, activation, marks=pytest.mark.slow)
    for kind in KINDS
    for activation in ACTIVATIONS
]
FEATURES, WIDTH, BATCH, STEPS = 48, 40, 256, 300


@pytest.fixture(scope="module")
def planted():
    """Data for SAEs and transcoders, and data of which a linear path says nothing; a run's batches."""
    both = [Planted.of(FEATURES, WIDTH, signed=signed) for signed in (False, True)]
    return [(data, [data.rows(BATCH, step) for step in range(STEPS)]) for data in both]


@pytest.mark.parametrize(("kind", "activation"), PAIRS)
def test_every_kind_and_activation_finds_planted_features(planted, kind, activation):
    skip = kind == "skip_transcoder"
    data, batches = planted[skip]
    d_sae, options = (144 if skip else 72), dict(ACTIVATIONS[activation])
    if activation == "matryoshka":
        options["groups"] = (d_sae // 2, d_sae)
    trainee = trained(
        data, batches, kind=kind, activation=activation, d_sae=d_sae, batch=BATCH,
        tokens=BATCH * STEPS, lr=8e-3, **options,
    )  # fmt: skip
    cosine = data.found(trainee)
    assert cosine.mean() > 0.9
    assert (cosine > 0.9).float().mean() > 0.8


def test_topk_finds_features_in_superposition_and_none_where_there_are_none():
    options = {"d_sae": 240, "k": 4, "batch": 256, "tokens": 256 * 400, "lr": 8e-3}
    data = Planted.of(160, 80)
    cosine = data.found(trained(data, **options))
    assert cosine.mean() >= 0.95
    assert (cosine > 0.9).float().mean() >= 0.95
    control = Planted.of(160, 80, shuffled=True)
    assert control.found(trained(control, **options)).mean() < 0.5
