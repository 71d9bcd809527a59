"""Before a harvest starts: what is asked for is checked, and what it will take is said."""

from __future__ import annotations

import re
import shutil

import numpy as np
import pytest

import interp
from interp.corpora import Packing, pack
from interp.errors import CorpusError, RunError, SiteError, StoreError
from interp.harvesting import forecast, verb
from tests.store.small import contents

SITES = ["L1.mlp", "L2.z", "L0.resid_post"]


def harvest(model, corpus, out, sites=SITES, **options):
    options = {"batch": 4, "dtype": "float32", "shard_mib": 1.0, "progress": False, **options}
    return interp.harvest(model, corpus, sites, out, **options)


def test_it_says_what_it_will_take(demo, corpus, tmp_path, capsys):
    harvest(demo, corpus, tmp_path / "s", progress=None)
    told = capsys.readouterr().err
    n = len(interp.ActivationStore.open(tmp_path / "s"))
    assert "harvest L1.mlp.input, L1.mlp_out, L2.z, L0.resid_post of 'demo' on demo (seed 3" in told
    assert f": {n:,} tokens; disk" in told
    for word in ("MiB of", "free; memory", "tokens/s", f"{n:,} rows from"):
        assert word in told
    harvest(demo, corpus, tmp_path / "t", progress=False)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("packing", ["isolated", "padded"])
def test_padding_counts_in_the_time_that_it_will_take(
    demo, corpus, tmp_path, monkeypatch, capsys, packing
):
    monkeypatch.setattr(verb, "speed", lambda *_: 100_000.0)  # places a second
    harvest(demo, corpus, tmp_path / "s", packing=packing, progress=None)
    told = re.search(r"at ([\d,]+) tokens/s", capsys.readouterr().err)
    batches = list(pack(corpus, demo.tokens, Packing(128, 4, packing)))
    real = sum(int(batch.tokens.n_real.sum()) for batch in batches)
    places = sum(batch.tokens.ids.numel() for batch in batches)
    assert int(told[1].replace(",", "")) == pytest.approx(100_000 * real / places, abs=1)
    assert real < (0.8 if packing == "padded" else 0.99) * places


def test_a_disk_that_cannot_hold_it_is_refused_before_it_starts(
    demo, corpus, tmp_path, monkeypatch
):
    usage = shutil.disk_usage(tmp_path)._replace(free=1_000_000)
    monkeypatch.setattr(forecast.shutil, "disk_usage", lambda place: usage)
    with pytest.raises(
        StoreError, match=r"this harvest needs 1?\d\.\d MiB .* but 1.0 MiB are free"
    ):
        harvest(demo, corpus, tmp_path / "s")
    assert not list((tmp_path / "s").glob("*.safetensors"))


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"dtype": "int8"}, RunError, "dtype='int8'; expected one of bfloat16, float32, float16"),
        ({"packing": "tight"}, RunError, "packing='tight'; expected one of auto"),
        ({"context": 4096}, RunError, "context=4096, but 'demo' reads at most"),
        ({"tokens": 0}, RunError, "tokens=0; expected a whole number more than 0 or None"),
        ({"tokens": "100"}, RunError, "tokens='100'; expected a whole number"),
        ({"tokens": float("nan")}, RunError, "tokens=nan; expected a whole number"),
        ({"batch": -1}, RunError, "batch=-1; expected a whole number more than 0 or 'auto'"),
        ({"batch": "Auto"}, RunError, "batch='Auto'; expected .* or 'auto'"),
        ({"batch": 2.5}, RunError, "batch=2.5; expected a whole number"),
        ({"context": None}, RunError, "context=None; expected a whole number"),
        ({"seed": "a"}, RunError, "seed='a'; expected a whole number"),
        ({"bos": "yes"}, RunError, "bos='yes'; expected True, False or None"),
        ({"shard_mib": "3"}, RunError, "shard_mib='3'; expected more than 0"),
        ({"shard_mib": float("inf")}, RunError, "shard_mib=inf; expected more than 0"),
        ({"sites": None}, SiteError, "None is no site to harvest"),
        ({"sites": [3]}, SiteError, "3 is no site to harvest"),
        ({"context": 1}, CorpusError, "context=1; expected at least 2"),
    ],
)
@pytest.mark.bad_input
def test_bad_arguments_are_refused_before_anything_is_written(
    demo, corpus, tmp_path, options, error, text
):
    with pytest.raises(error, match=text):
        harvest(demo, corpus, tmp_path / "s", **options)
    assert not (tmp_path / "s").exists()


@pytest.mark.bad_input
def test_whole_numbers_are_taken_however_they_are_written(demo, corpus, tmp_path):
    numbers = {"tokens": 1e2, "context": np.int64(64), "batch": np.int32(3), "seed": np.int64(0)}
    harvest(demo, corpus, tmp_path / "s", **numbers)
    harvest(demo, corpus, tmp_path / "t", tokens=100, context=64, batch=3)
    assert contents(tmp_path / "s") == contents(tmp_path / "t")
    assert len(harvest(demo, "demo", tmp_path / "u", **numbers)) == 100
