"""The sparse kernel takes the steps of the dense one, which autograd takes."""

from __future__ import annotations

import pytest
import torch

from interp.dictionaries.activations import Gated, JumpReLU
from interp.errors import TrainingError
from interp.training.objectives import Moment
from tests.training.planted import ALONE, Planted, trained

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


@pytest.mark.parametrize("loss", ["mse", "target_norm"])
def test_the_gated_loss_by_hand(loss):
    """Rajamanoharan et al. 2024a, eq. 8."""
    trainee = DATA.trainee(
        torch.float64, activation="gated", sparsity=0.7, loss=loss, d_sae=80, tokens=512
    )
    (part,) = trainee.dictionary.parts
    assert isinstance(part.activation, Gated)
    with torch.no_grad():
        part.activation.b_mag += 0.05
        part.b_enc -= 0.02
    (x,), _ = trainee.taken(DATA.rows(512, 3, torch.float64))
    x = x[x.norm(dim=-1) > 0.1]  # where nothing is planted there is nothing to divide by
    outcome = trainee.gradients([x], x, Moment(len(x), 0.7, ALONE))
    held = {name: p.detach().clone().requires_grad_() for name, p in trainee.parameters.items()}
    enc, b_enc, dec, b = (held[n] for n in ("parts.0.enc", "parts.0.b_enc", "parts.0.dec", "b_dec"))
    gate = (x - b) @ enc.T + b_enc
    r_mag, b_mag = held["parts.0.activation.r_mag"], held["parts.0.activation.b_mag"]
    strength = ((gate - b_enc) * r_mag.exp() + b_mag).relu()
    weight = 1.0 if loss == "mse" else 1 / (x.norm(dim=-1) * x.shape[1])
    error = (weight * (x - (gate > 0) * strength @ dec - b).square().sum(-1)).mean()
    frozen = (x - gate.relu() @ dec.detach() - b.detach()).square().sum(-1)
    by_hand = error + 0.7 * gate.relu().sum(-1).mean() + (weight * frozen).mean()
    by_hand.backward()
    assert float(sum(outcome.terms.values())) == pytest.approx(float(by_hand.detach()), rel=1e-9)
    for name, parameter in trainee.parameters.items():
        assert relative(parameter.grad, held[name].grad) < 1e-9, name


def test_thresholds_learn_by_the_straight_through_estimate():
    """Rajamanoharan et al. 2024b, eq. 11 and 12."""
    width, weight = 0.3, 0.7
    trainee = DATA.trainee(
        torch.float64, activation="jumprelu", sparsity=weight, bandwidth=width, d_sae=80, tokens=512
    )
    (part,) = trainee.dictionary.parts
    assert isinstance(part.activation, JumpReLU)
    with torch.no_grad():
        part.activation.threshold.fill_(0.2)
    (x,), _ = trainee.taken(DATA.rows(512, 3, torch.float64))
    outcome = trainee.gradients([x], x, Moment(512, weight, ALONE))
    z = part.pre(trainee.dictionary.centred(x)).detach()
    near = ((z - 0.2).abs() < width / 2).double()
    towards = -2 * outcome.error @ part.dec.detach().T
    by_hand = -(near * (0.2 * towards + weight)).sum(0) / width / 512
    assert near.sum() > 100
    assert relative(part.activation.threshold.grad, by_hand) < 1e-9
    active = (z > 0.2).double()
    assert float(outcome.terms["sparsity"]) == pytest.approx(weight * float(active.sum()) / 512)
    assert relative(part.b_enc.grad, (active * towards).sum(0) / 512) < 1e-9


def test_the_auxiliary_loss_is_worth_its_coefficient_of_the_means():
    """A guess that explains nothing costs ``auxk`` times what always writing the mean does."""
    for loss, share in (("mse", 1.0), ("target_norm", None)):
        trainee = DATA.trainee(
            torch.float64, d_sae=80, k=5, tokens=512, auxk=0.1, dead_after=1, loss=loss
        )
        (part,) = trainee.dictionary.parts
        trainee.since_active[0, :20] = 10**6
        with torch.no_grad():
            part.dec[:20] = 0
        xs, y = trainee.taken(DATA.rows(512, 3, torch.float64))
        y = y - y.mean(0)  # so that the error's mean, which nothing explains, is next to nothing
        outcome = trainee.gradients(xs, y, Moment(512, 0.0, ALONE))
        weight = 1 if share else 1 / (y.norm(dim=-1) * y.shape[1])
        error = outcome.error
        left = error.square().sum() / (error - error.mean(0)).square().sum()
        means = (weight * y.square().sum(-1)).mean()
        assert float(outcome.terms["auxk"]) == pytest.approx(float(0.1 * means * left))


def test_the_auxiliary_loss_is_the_same_in_chunks_of_rows(monkeypatch):
    made = []
    for size in (512, 100):
        monkeypatch.setattr("interp.training.auxiliary.chunk_rows", lambda *_, n=size: n)
        trainee = DATA.trainee(torch.float64, d_sae=80, k=5, tokens=512, dead_after=1)
        trainee.since_active[0, :20] = 10**6
        told = trainee.gradients(
            *trainee.taken(DATA.rows(512, 3, torch.float64)), Moment(512, 0.0, ALONE)
        )
        made.append((told.terms["auxk"], {n: p.grad for n, p in trainee.parameters.items()}))
    assert made[0][0] > 0
    assert made[0][0].allclose(made[1][0], rtol=1e-12)
    for name, grad in made[0][1].items():
        assert relative(grad, made[1][1][name]) < 1e-12, name


def test_a_gradient_that_is_not_finite_changes_no_weight():
    trainee = DATA.trainee(d_sae=80, k=5, tokens=512 * 5)
    trainee.step(DATA.rows(512, 0))
    before = {name: p.detach().clone() for name, p in trainee.parameters.items()}
    rows = DATA.rows(512, 1)
    rows["L0.resid_post"][5, 3] = torch.nan
    with pytest.raises(TrainingError, match="planted: at step 2 of 5 .*holds NaN"):
        trainee.step(rows)
    for name, parameter in trainee.parameters.items():
        assert parameter.equal(before[name]), name
    with torch.no_grad():
        trainee.dictionary.b_dec.fill_(torch.inf)
    with pytest.raises(TrainingError, match="diverged: give a lower lr"):
        trainee.step(DATA.rows(512, 1))


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


def test_the_null_control_starts_without_a_look_at_the_targets():
    """A linear map to the right targets, from which a transcoder starts, would say most of it."""
    data = Planted.of(16, 24)
    for null, low, high in ((None, 0.0, 0.6), ("permuted", 0.9, 1.5)):
        trainee = data.trainee(
            kind="transcoder", d_sae=200, k=100, tokens=512 * 10, lr=0.0, null=null
        )
        assert low < trainee.step(data.rows(512, 0), measure=True)["fvu"] < high
        part = trainee.dictionary.parts[0]
        right = torch.linalg.lstsq(data.reads[0], data.writes[0]).solution
        image = part.enc @ right
        cosine = (image * part.dec).sum(-1) / image.norm(dim=-1) / part.dec.norm(dim=-1)
        assert (cosine.mean() > 0.8) == (null is None)


def test_a_threshold_lets_k_features_through_on_rows_not_seen():
    for activation in ("batchtopk", "matryoshka"):
        trainee = trained(DATA, activation=activation, d_sae=80, k=5, tokens=512 * 120, lr=3e-3)
        rows = DATA.rows(4096, 10**6)
        made = trainee.finished({})
        l0 = (made.encode(rows["L0.resid_post"]) > 0).sum(-1).float().mean()
        assert float(l0) == pytest.approx(5, rel=0.05)


def test_firing_is_a_mean_and_then_a_moving_one():
    trainee = DATA.trainee(d_sae=80, k=5, tokens=512 * 30, firing_decay=0.9)
    expected = torch.zeros(80)
    for step in range(30):
        rows = DATA.rows(512, step)
        (x,), _ = trainee.taken(rows)
        acts = trainee.dictionary.encode(x)
        share = (acts > 0).float().mean(0)
        expected = share if step == 0 else expected.lerp(share, max(0.1, 1 / (step + 1)))
        trainee.step(rows)
    torch.testing.assert_close(trainee.firing[0], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("activation", ["relu", "gated", "jumprelu"])
def test_drawing_anew_undoes_what_kept_a_feature_silent(activation):
    trainee = DATA.trainee(
        activation=activation, d_sae=80, tokens=512 * 60, lr=3e-3, dead_after=512 * 10,
        resample_every=20,
    )  # fmt: skip
    (part,) = trainee.dictionary.parts
    with torch.no_grad():
        part.b_enc[:20] = -50 * part.enc[0].norm()
        if isinstance(part.activation, Gated):
            part.activation.b_mag[:20] = -5
        if isinstance(part.activation, JumpReLU):
            part.activation.threshold[:20] = 5
    dead = [trainee.step(DATA.rows(512, step), measure=True)["dead"] for step in range(60)]
    assert dead[18] >= 0.25
    assert dead[38] < 0.05  # ten thousand tokens after they were drawn


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
