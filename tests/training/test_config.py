"""Configurations say what is wrong with them, and what to try."""

from __future__ import annotations

import json

import pytest

from interp.cli.settings import settled
from interp.errors import TrainingError
from interp.training.asking import configurations, names_of
from interp.training.config import TrainConfig
from interp.training.schedule import coefficient, rate


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kinds": "sae"}, "nearest: 'kind'"),
        ({"d_sae": 0}, "d_sae=0; expected a whole number from 1 up"),
        ({"k": 5000}, "k=5000 of d_sae=4096"),
        ({"activation": "relu", "k": 3}, "made sparse by a penalty: say sparsity="),
        ({"sparsity": 1.0}, "would do nothing: topk has no penalty"),
        ({"groups": (1, 2)}, "nested losses are for activation='matryoshka'"),
        ({"activation": "matryoshka", "groups": (4, 2)}, "growing numbers of features"),
        ({"tokens": 100}, "100 tokens make no batch of 4096"),
        ({"lr": -1.0}, "lr=-1.0; expected a number from 0 to 1"),
        ({"activation": "relu", "kernel": "sparse"}, "it is for topk, batchtopk, matryoshka"),
        ({"screen": True, "kernel": "dense"}, "it is for the sparse kernel"),
        ({"betas": (0.9, 1.0)}, "expected two numbers from 0 to below 1"),
        ({"seed": 2**70}, "seed=1180591620717411303424; expected a whole number"),
        ({"null": "permuted"}, "do nothing for an SAE"),
        ({"kind": "transcoder", "null": "permuted", "batch": 1}, "no other token"),
        ({"activation": "relu", "loss": "target_norm"}, "no default penalty.*say sparsity="),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(TrainingError, match=message):
        TrainConfig.from_options({"site": "L0.mlp", **options})


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "autoencoder"}, "expected one of sae, transcoder"),
        ({"tokens": 1.5e6}, "expected a whole number"),
        ({"betas": 0.9}, "betas=0.9; expected two numbers"),
        ({"activation": "matryoshka", "groups": 5}, "groups=5; expected growing numbers"),
        ({"site": 5}, "site=5; expected a name"),
        ({"unit_decoder": "False"}, "unit_decoder='False'; expected True or False"),
    ],
)
def test_options_of_another_type_are_refused(options, message):
    with pytest.raises(TrainingError, match=message):
        TrainConfig.from_options({"site": "L0.mlp", **options})


def test_a_site_is_needed():
    with pytest.raises(TrainingError, match="no site was given"):
        TrainConfig.from_options({})


def test_lists_make_every_combination_and_names_tell_them_apart():
    made = configurations(None, {"site": ["L0.mlp", "L2.mlp"], "kind": "transcoder", "k": [8, 16]})
    assert [(c.site, c.k) for c in made] == [
        ("L0.mlp", 8), ("L0.mlp", 16), ("L2.mlp", 8), ("L2.mlp", 16)
    ]  # fmt: skip
    assert names_of(made)[1] == "L0.mlp-transcoder-topk-4096-k16"
    rates = configurations(None, {"site": "L0.mlp", "kind": "transcoder", "lr": [1e-3, 2e-3]})
    assert len(set(names_of(rates))) == 2
    at = {"site": "L0.mlp", "kind": "transcoder", "activation": "matryoshka"}
    both = [TrainConfig(**at, groups=groups) for groups in ((1024, 4096), (2048, 4096))]
    assert [name.split("-")[-1] for name in names_of(both)] == [
        "groups1024_4096",
        "groups2048_4096",
    ]
    mixed = [TrainConfig(site="L0.mlp_out", activation=one) for one in ("topk", "relu")]
    assert names_of(mixed)[1] == "L0.mlp_out-sae-relu-4096-s1"  # other defaults need no telling
    with pytest.raises(TrainingError, match="asked for twice"):
        names_of([made[0], made[0]])
    with pytest.raises(TrainingError, match="share batch"):
        configurations(None, {"site": "L0.mlp", "batch": [128, 256]})
    with pytest.raises(TrainingError, match="beside config="):
        configurations(made, {"k": 3})


def test_a_configuration_is_frozen_and_comes_back_from_json():
    for activation in ("topk", "matryoshka", "gated"):
        asked = {"site": "L0.mlp_out", "activation": activation, "betas": [0.9, 0.99]}
        config = TrainConfig.from_options(asked)
        assert TrainConfig.from_options(json.loads(json.dumps(config.to_json()))) == config
        assert hash(config)
        with pytest.raises(AttributeError):
            config.k = 3


def test_defaults_follow_the_options_that_are_changed():
    config = TrainConfig(site="L0.mlp_out", activation="matryoshka", tokens=10**6, auxk=0.5)
    more = config.with_options(tokens=10**8, d_sae=64)
    asked = {"site": "L0.mlp_out", "activation": "matryoshka", "tokens": 10**8, "d_sae": 64}
    assert more == TrainConfig(**asked, auxk=0.5)
    assert config.with_options(activation="relu").sparsity == 1.0


def test_schedules_rise_stay_and_fall():
    config = TrainConfig(
        site="L0.resid_post", activation="relu", tokens=4096 * 100, lr=1.0, lr_warmup=10,
        lr_decay=0.2, sparsity=2.0, sparsity_warmup=20,
    )  # fmt: skip
    rates = [rate(config, step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9:80] == [1.0] * 71
    assert rates[99] == pytest.approx(0.05)
    penalties = [coefficient(config, step) for step in range(100)]
    assert penalties[0] == 0.0
    assert penalties[10] == 1.0
    assert penalties[20:] == [2.0] * 80


def test_options_come_from_flags_then_set_then_the_file(tmp_path):
    toml, yaml = tmp_path / "a.toml", tmp_path / "a.yaml"
    toml.write_text('site = "L0.mlp"\nk = 8\nbatch = 64\nauxk = 0.5\n')
    yaml.write_text("site: L0.mlp\nk: 8\nbatch: 64\nauxk: 0.5\n")
    for file in (toml, yaml):
        found = settled(file, {"k": [16], "lr": None}, ["batch=128", "init=mean"], kind="sae")
        assert found == {
            "site": "L0.mlp", "k": 16, "batch": 128, "auxk": 0.5, "init": "mean", "kind": "sae"
        }  # fmt: skip
    said = settled(None, {}, ["unit_decoder=False", "clip=none", "betas=[0.9, 0.99]"], kind="sae")
    assert said == {"unit_decoder": False, "clip": None, "betas": [0.9, 0.99], "kind": "sae"}
    with pytest.raises(TrainingError, match="expected name=value"):
        settled(None, {}, ["batch"], kind="sae")
    toml.write_text('kind = "transcoder"')
    with pytest.raises(TrainingError, match="the command 'sae'"):
        settled(toml, {}, [], kind="sae")
    toml.write_text("k = = 3")
    with pytest.raises(TrainingError, match="is no TOML"):
        settled(toml, {}, [], kind="sae")
    with pytest.raises(TrainingError, match="cannot be read"):
        settled(tmp_path / "none.toml", {}, [], kind="sae")
