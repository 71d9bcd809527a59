"""The sparse kernel takes the steps of the dense one, which autograd takes."""

from __future__ import annotations

import pytest
import torch

from interp.errors import TrainingError
from interp.training.objectives import Moment
from tests.training.planted import ALONE, Planted

DATA = Planted.of(48, 24)
KINDS = ("sae", "transcoder", "skip_transcoder", "cross_layer_transcoder")
PICKING = ("topk", "batchtopk", "matryoshka")
#: Every option that a step can have, all on at once.
ALL_ON = {
    "d_sae": 80, "k": 5, "tokens": 512 * 50, "lr": 1e-3, "clip": 0.5, "auxk": 0.1, "auxk_k": 7,
    "dead_after": 1024, "unit_decoder": True, "lr_warmup": 10, "resample_every": 20,
}  # fmt: skip


def pair(dtype, **options):
    return [DATA.trainee(dtype, kernel=kernel, **options) for kernel in ("sparse", "dense")]


def sleepy(trainee, spreads=3.0):
    """Some features that are hardly ever picked, so that there are dead ones to revive."""
    with torch.no_grad():
        for part in trainee.dictionary.parts:
            part.b_enc[:20] = -spreads * part.enc[0].norm()


def relative(a, b):
    return float(((a - b).norm() / b.norm().clamp(min=1e-12)).detach())


@pytest.mark.parametrize("loss", ["mse", "target_norm"])
@pytest.mark.parametrize("activation", PICKING)
@pytest.mark.parametrize("kind", KINDS)
def test_losses_and_gradients_are_equal(kind, activation, loss):
    sparse, dense = pair(
        torch.float32, kind=kind, activation=activation, loss=loss, d_sae=80, k=5, tokens=512
    )
    rows = DATA.rows(512, 7)
    moment = Moment(512, 0.0, ALONE)
    outcomes = [t.gradients(*t.taken(rows), moment) for t in (sparse, dense)]
    for term, value in outcomes[1].terms.items():
        assert float(outcomes[0].terms[term]) == pytest.approx(float(value), rel=1e-6)
    assert outcomes[0].picked.counts[0].equal(outcomes[1].picked.counts[0])
    for name, parameter in sparse.parameters.items():
        assert relative(parameter.grad, dense.parameters[name].grad) < 1e-6, name


@pytest.mark.parametrize("activation", PICKING)
@pytest.mark.parametrize("kind", KINDS)
def test_trajectories_are_equal_with_every_option_on(kind, activation):
    pairs = pair(torch.float64, kind=kind, activation=activation, **ALL_ON)
    for trainee in pairs:
        sleepy(trainee)
    revived = 0
    for step in range(50):
        rows = DATA.rows(512, step, torch.float64)
        told = [t.step(rows, measure=True) for t in pairs]
        revived += told[0].get("auxk", 0.0) > 0
        assert told[0] == pytest.approx(told[1], rel=1e-8)
    assert revived > 5  # the auxiliary loss was at work
    sparse, dense = pairs
    for name, parameter in sparse.parameters.items():
        assert relative(parameter, dense.parameters[name]) < 1e-9, name
    assert sparse.firing.allclose(dense.firing)


@pytest.mark.parametrize("activation", PICKING)
def test_four_steps_in_float32_stay_together(activation):
    pairs = pair(torch.float32, activation=activation, **(ALL_ON | {"tokens": 512 * 4}))
    for step in range(4):
        for trainee in pairs:
            trainee.step(DATA.rows(512, step))
    for name, parameter in pairs[0].parameters.items():
        assert relative(parameter, pairs[1].parameters[name]) < 1e-4, name


@pytest.mark.parametrize("activation", ["relu", "gated", "jumprelu"])
def test_chunks_of_rows_change_nothing(activation, monkeypatch):
    made = []
    for chunk in (1 << 22, 80 * 100):
        monkeypatch.setattr("interp.training.dense._CHUNK", chunk)
        trainee = DATA.trainee(torch.float64, activation=activation, d_sae=80, tokens=512 * 4)
        for step in range(4):
            trainee.step(DATA.rows(512, step, torch.float64))
        made.append(trainee)
    for name, parameter in made[0].parameters.items():
        assert relative(parameter, made[1].parameters[name]) < 1e-9, name


def test_decoder_rows_stay_at_norm_one_and_gradients_off_them():
    trainee = DATA.trainee(d_sae=80, k=5, tokens=512 * 5, clip=None, lr=1e-3)
    for step in range(5):
        trainee.step(DATA.rows(512, step))
    dec = trainee.dictionary.parts[0].dec
    assert dec.norm(dim=-1).allclose(torch.ones(80))
    moved = (dec.grad * dec).sum(-1).abs().max() / dec.grad.abs().max()
    assert moved < 0.05  # the rows have turned a little since


def test_a_state_that_is_restored_goes_on_to_the_same_bits():
    options = ALL_ON | {"activation": "batchtopk", "tokens": 512 * 30}
    whole, first, second = (DATA.trainee(**options) for _ in range(3))
    for step in range(30):
        whole.step(DATA.rows(512, step))
    for step in range(13):
        first.step(DATA.rows(512, step))
    tensors, values = first.state()
    second.go_to({n: t.clone() for n, t in tensors.items()}, values)
    for step in range(13, 30):
        second.step(DATA.rows(512, step))
    for name, tensor in whole.state()[0].items():
        assert tensor.equal(second.state()[0][name]), name


def test_a_finished_dictionary_is_in_the_models_units():
    for kind in KINDS:
        trainee = DATA.trainee(torch.float64, kind=kind, d_sae=80, k=5, tokens=512 * 10)
        for step in range(10):
            trainee.step(DATA.rows(512, step, torch.float64))
        rows = DATA.rows(64, 99, torch.float64)
        xs, _ = trainee.taken(rows)
        made, inner = trainee.finished({}), trainee.dictionary
        raw = torch.stack([rows[site] for site in made.spec.reads])
        scaled = torch.stack(xs)
        if kind != "cross_layer_transcoder":
            raw, scaled = raw[0], scaled[0]
        torch.testing.assert_close(made.encode(raw), inner.encode(scaled), atol=1e-9, rtol=1e-9)
        scale = (
            trainee.scales.out_scale if kind.startswith("cross") else trainee.scales.out_scale[:1]
        )
        units = inner(scaled) / (scale[:, None, None] if kind.startswith("cross") else scale)
        torch.testing.assert_close(made(raw), units, atol=1e-9, rtol=1e-9)


def test_permuted_targets_cannot_be_learned():
    trainee = DATA.trainee(kind="transcoder", d_sae=80, k=5, tokens=512 * 200, null="permuted")
    for step in range(199):
        trainee.step(DATA.rows(512, step))
    assert trainee.step(DATA.rows(512, 10**5), measure=True)["fvu"] > 0.9


def test_dead_features_are_revived():
    options = {"d_sae": 80, "k": 5, "tokens": 512 * 150, "lr": 3e-3, "dead_after": 2048}
    left = {}
    for auxk in (0.0, 1 / 32):
        trainee = DATA.trainee(auxk=auxk, **options)
        sleepy(trainee)
        for step in range(150):
            told = trainee.step(DATA.rows(512, step), measure=True)
        left[auxk] = told["dead"]
    assert left[0.0] >= 0.2
    assert left[1 / 32] < left[0.0] / 2
    trainee = DATA.trainee(auxk=0.0, resample_every=40, **options)
    sleepy(trainee)
    for step in range(150):
        told = trainee.step(DATA.rows(512, step), measure=True)
    assert told["dead"] < left[0.0] / 2


def test_activations_that_are_constant_are_refused():
    still = Planted(DATA.reads * 0, DATA.writes, 4.0)
    with pytest.raises(TrainingError, match="variance"):
        still.trainee(d_sae=80, tokens=512)
