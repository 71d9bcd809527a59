"""Sweeps: every combination once, also when they are stopped and go on."""

from __future__ import annotations

import math
import os
import signal

import numpy as np
import pytest

from interp import toys
from interp.errors import ToyError

GRID = {"size": [1, 2], "kind": ["a", None]}


def test_every_combination_is_run_seeds_innermost():
    calls = []

    def fn(**options):
        calls.append(options)
        return {"value": options["size"] * 10 + options["seed"]}

    swept = toys.sweep(fn, seeds=(0, 1), grid=GRID, progress=False)
    assert swept.finished
    assert len(swept) == len(calls) == 8
    assert calls[:3] == [
        {"size": 1, "kind": "a", "seed": 0},
        {"size": 1, "kind": "a", "seed": 1},
        {"size": 1, "kind": None, "seed": 0},
    ]
    assert swept.by_seed("value", size=2, kind="a") == {0: 20.0, 1: 21.0}
    assert swept.to_frame().columns.tolist() == ["size", "kind", "seed", "value"]
    with pytest.raises(ToyError, match="say more of"):
        swept.by_seed("value", size=2)
    with pytest.raises(ToyError, match="nearest: 'value'"):
        swept.by_seed("valeu", size=2, kind="a")
    with pytest.raises(
        ToyError, match=r"no run of this sweep has {'size': 3}; there are {'size': \['1', '2'\]}"
    ):
        swept.by_seed("value", size=3)
    with pytest.raises(ToyError, match="no options of this sweep"):
        swept.by_seed("value", colour=2)


def test_a_sweep_goes_on_from_its_file(tmp_path):
    path, calls = tmp_path / "runs.jsonl", []

    def fn(size, kind, seed):
        calls.append((size, kind, seed))
        if len(calls) == 4:
            os.kill(os.getpid(), signal.SIGINT)
        return {"value": math.inf if size == 1 else 0.1 + seed}

    first = toys.sweep(fn, seeds=(0, 1), grid=GRID, out=path, progress=False)
    assert not first.finished
    assert "stopped" in repr(first)
    assert (
        len(path.read_text().splitlines()) == 3
    )  # the one that Ctrl-C met may have been cut short
    path.write_text(path.read_text()[:-9])  # and the last line by a kill
    whole = toys.sweep(fn, seeds=(0, 1), grid=GRID, out=path, progress=False)
    assert whole.finished
    assert len(calls) == 4 + 6
    assert whole.by_seed("value", size=1, kind="a") == {0: math.inf, 1: math.inf}
    assert whole.by_seed("value", size=2, kind=None) == {0: 0.1, 1: 1.1}
    assert len(path.read_text().splitlines()) == 8


def test_an_interrupted_training_run_is_no_result_of_a_sweep():
    task = toys.InContext(classes=4, held_out=2, d_in=4)

    def fn(seed):
        toy = toys.transformer(
            features=task.features, d_out=5, n_ctx=5, n_layers=1, n_heads=1, d_model=4, seed=seed
        )

        def ctrl_c(_):
            if seed == 1:
                os.kill(os.getpid(), signal.SIGINT)

        run = toys.train(toy, task, steps=5, gradient=ctrl_c, progress=False)
        assert run.finished == (seed == 0)
        return {"loss": run.column("loss")[-1]}

    swept = toys.sweep(fn, seeds=(0, 1, 2), progress=False)
    assert not swept.finished
    assert list(swept.by_seed("loss")) == [0]


def test_refusals(tmp_path):
    with pytest.raises(ToyError, match="nothing to run"):
        toys.sweep(lambda seed: {"a": 1}, seeds=())
    with pytest.raises(ToyError, match="gave float"):
        toys.sweep(lambda seed: 1.0, seeds=(0,), progress=False)
    with pytest.raises(ToyError, match="names of options: seed"):
        toys.sweep(lambda seed: {"seed": 1}, seeds=(0,), progress=False)
    (tmp_path / "other.jsonl").write_text(
        '{"colour": 1, "seed": 0, "a": 1}\n{"colour": 2, "seed": 0, "a": 1}\n'
    )
    with pytest.raises(ToyError, match="line 1, is of no sweep over size, seed"):
        toys.sweep(
            lambda size, seed: {"a": 1},
            seeds=(0,),
            grid={"size": [1]},
            out=tmp_path / "other.jsonl",
            progress=False,
        )


@pytest.mark.bad_input  # arrays where sequences are asked for
def test_numbers_of_numpy_and_tuples_come_back_as_they_were(tmp_path):
    options = {
        "seeds": np.arange(2), "grid": {"widths": [(1, 2), (3,)], "rate": np.array([1, 2])},
        "out": tmp_path / "runs.jsonl", "progress": False,
    }  # fmt: skip
    first = toys.sweep(lambda widths, rate, seed: {"value": sum(widths) * rate + seed}, **options)
    again = toys.sweep(lambda **_: pytest.fail("done already"), **options)
    assert first.rows == again.rows
    assert again.by_seed("value", widths=(1, 2), rate=2) == {0: 6.0, 1: 7.0}


def test_a_file_of_a_wider_sweep_is_refused(tmp_path):
    """Its rows differ in what this sweep does not know, and one would stand for all."""
    options = {"seeds": (0,), "out": tmp_path / "runs.jsonl", "progress": False}
    toys.sweep(lambda size, kind, seed: {"a": size}, grid={"size": [1], "kind": [2, 3]}, **options)
    with pytest.raises(ToyError, match="line 1, is of no sweep over size, seed"):
        toys.sweep(lambda size, seed: {"a": size}, grid={"size": [1]}, **options)
    turned = {"kind": [2, 3], "size": [1]}
    assert len(toys.sweep(lambda **_: pytest.fail("done already"), grid=turned, **options)) == 2


def test_a_line_without_its_end_is_run_again_and_loses_no_other(tmp_path):
    path, calls = tmp_path / "runs.jsonl", []

    def fn(seed):
        calls.append(seed)
        return {"value": seed}

    toys.sweep(fn, seeds=(0, 1), out=path, progress=False)
    path.write_text(path.read_text().rstrip("\n"))  # whole but for its end
    toys.sweep(fn, seeds=(0, 1, 2), out=path, progress=False)
    assert calls == [0, 1, 1, 2]
    assert len(path.read_text().splitlines()) == 3


def test_what_cannot_be_written_is_told_before_the_first_run(tmp_path):
    def fn(**_):
        pytest.fail("it runs")

    with pytest.raises(ToyError, match="cannot be written to a file"):
        toys.sweep(
            fn, seeds=(0,), grid={"task": [object()]}, out=tmp_path / "a.jsonl", progress=False
        )
    with pytest.raises(ToyError, match="is a folder; expected a .jsonl file"):
        toys.sweep(fn, seeds=(0,), out=tmp_path, progress=False)
    with pytest.raises(ToyError, match="gave {'a': None}"):
        toys.sweep(lambda seed: {"a": None}, seeds=(0,), progress=False)
