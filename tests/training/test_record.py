"""A record says what the log held, survives the disk, and draws what is there."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from interp.errors import ResultError, TrainingError
from interp.figures import style
from interp.results import Provenance
from interp.training.logs import RunLog
from interp.training.record import TrainingRecord, compare, plot_density

PROVENANCE = Provenance({"verb": "train"}, "demo", "ab" * 32, None, 0, {"torch": "2"})
STEPS = (1, 51, 101, 151)


def logged(names=("a k8", "b k32")) -> RunLog:
    log = RunLog(None)
    for i, step in enumerate(STEPS):
        own = {
            name: {
                "loss": 100.0 * 0.3**i, "fvu": 0.3**i + 0.01 * j, "l0": 8.0 * 4**j, "dead": 0.1 * i,
                "lr": 4e-4 * min(1, (i + 1) / 2), "grad_norm": 2.0 / (i + 1),
            }
            for j, name in enumerate(names)
        }  # fmt: skip
        if i:
            own[names[0]]["threshold"] = 0.5
        log.write(step, {"": {"tokens": 4096 * step, "tokens_per_s": 1e5}, **own})
    return log


def record(name="a k8", rows=None, **changes) -> TrainingRecord:
    firing = torch.tensor([[0.5, 1e-3, 2e-4, 1e-4], [1e-5, 1e-9, 0.0, 0.0]])
    given = {"config": {"k": 8, "betas": (0.9, 0.999)}, "firing": firing, **changes}
    return TrainingRecord.of(
        name, given["config"], logged().rows if rows is None else rows, given["firing"], 12.5, PROVENANCE
    )  # fmt: skip


def texts(figure) -> str:
    titles = [axes.get_title() for axes in figure.axes]
    return " | ".join([*titles, *([figure.get_suptitle()] if figure.get_suptitle() else [])])


def test_a_record_is_what_the_log_held():
    made = record()
    assert made.columns == ("tokens", "tokens_per_s", "loss", "fvu", "l0", "dead", "lr", "grad_norm",
                            "threshold")  # fmt: skip
    assert made.steps.tolist() == list(STEPS)
    assert made["fvu"].tolist() == [0.3**i for i in range(4)]
    assert made["tokens"].tolist() == [4096.0 * step for step in STEPS]
    assert math.isnan(made["threshold"][0])
    assert made["threshold"][1:].tolist() == [0.5] * 3
    assert "aux" not in made
    assert made.firing.shape == (8,)
    with pytest.raises(ResultError, match=r"'fvuu' was not logged; nearest: 'fvu'"):
        made["fvuu"]
    with pytest.raises(
        ResultError, match="no row of the log is of 'c'; it has rows of a k8, b k32"
    ):
        record("c")
    with pytest.raises(TrainingError, match="the configuration of a record is JSON"):
        record(config={"k": {3}})


def test_frame_and_summary():
    made = record("b k32")
    frame = made.to_frame()
    assert list(frame.columns[:3]) == ["step", "dictionary", "tokens"]
    assert frame["step"].tolist() == list(STEPS)
    assert set(frame["dictionary"]) == {"b k32"}
    assert frame["fvu"].tolist() == made["fvu"].tolist()
    last = made.summary()
    assert last == {
        "name": "b k32", "steps": 151, "seconds": 12.5, "tokens": 4096.0 * 151, "tokens_per_s": 1e5,
        "loss": 100 * 0.3**3, "fvu": 0.3**3 + 0.01, "l0": 32.0, "dead": pytest.approx(0.3), "lr": 4e-4,
        "grad_norm": 0.5, "features": 8, "live": 3 / 8,
    }  # fmt: skip
    assert repr(made) == (
        "TrainingRecord(b k32: 151 steps in 12 s; loss 2.7, fvu 0.037, l0 32, dead 0.3; "
        "37.5% of 8 features live)"
    )


def test_it_is_kept_in_one_file(tmp_path):
    made = record()
    back = TrainingRecord.load(made.save(tmp_path / "record.safetensors"))
    assert torch.equal(back.values, made.values) or bool(
        (back.values.isnan() == made.values.isnan()).all()
        and torch.equal(back.values.nan_to_num(), made.values.nan_to_num())
    )
    assert torch.equal(back.firing, made.firing)
    assert torch.equal(back.steps, made.steps)
    for name in ("name", "config", "columns", "seconds", "provenance"):
        assert getattr(back, name) == getattr(made, name)
    assert back.config == {"k": 8, "betas": [0.9, 0.999]}


def test_a_run_without_a_log_has_a_record_without_curves(tmp_path):
    made = record(rows=[])
    assert made.summary() == {
        "name": "a k8",
        "steps": 0,
        "seconds": 12.5,
        "features": 8,
        "live": 3 / 8,
    }
    assert "no metric" in repr(made)
    assert made.to_frame().empty
    assert TrainingRecord.load(made.save(tmp_path / "r.safetensors")).summary() == made.summary()
    with pytest.raises(
        ResultError, match="nothing to draw was logged: there is nothing; expected some"
    ):
        made.plot()
    with pytest.raises(ResultError, match="2 records, not all with curves"):
        compare([record(), made])


def test_the_curves_of_a_run():
    figure = record().plot()
    assert texts(figure) == (
        "loss (normalised units) | FVU (1 is the mean's) | active features per token (L0) | "
        "dead features | schedules | norm of the gradient | a k8"
    )
    loss, fvu, l0, dead, schedules, _ = figure.axes
    assert (loss.get_yscale(), fvu.get_yscale(), l0.get_yscale()) == ("log", "log", "linear")
    x, y = fvu.lines[0].get_data()
    assert np.allclose(x, [4.096 * step for step in STEPS])
    assert np.allclose(y, [0.3**i for i in range(4)])
    assert l0.get_ylim()[0] == dead.get_ylim()[0] == 0
    assert [text.get_text() for text in schedules.get_legend().get_texts()] == [
        "learning rate (1 = 0.0004)"
    ]
    assert max(schedules.lines[0].get_ydata()) == 1
    assert figure.get_supxlabel() == "thousand tokens"
    assert style.written(figure) == style.written(record().plot())


def test_only_what_was_logged_is_drawn():
    log = RunLog(None)
    for step in (1, 2):
        log.write(step, {"a": {"l0": 3.0, "coefficient": 0.5 * step, "fvu": math.nan}})
    figure = record("a", rows=log.rows).plot(title="mine")
    assert texts(figure).split(" | ")[::3] == ["FVU (1 is the mean's)", ""]
    assert texts(figure).endswith("schedules |  | mine")
    assert figure.get_supxlabel() == "steps"


def test_density_counts_what_it_cannot_draw():
    firing = torch.cat([torch.full((5,), 0.01), torch.tensor([1.0, 1e-4, 3e-6, 1e-9, 0.0, 0.0])])
    figure = plot_density(firing)
    (axes,) = figure.axes
    assert axes.get_title() == "how often features fire\n6 of 11 live, 2 rarer, 3 silent"
    assert sum(bar.get_height() for bar in axes.patches) == 8
    (mark,) = axes.lines
    assert list(mark.get_xdata()) == [-4, -4]
    drawn = {round(bar.get_x(), 1): bar.get_height() for bar in axes.patches if bar.get_height()}
    assert sum(drawn.values()) == 8
    assert drawn[-0.2] == 1  # a feature that always fires
    assert "0 of 3 live, 0 rarer, 3 silent" in texts(plot_density(torch.zeros(3)))
    assert "3 of 8 live" in texts(record().plot_density())


@pytest.mark.bad_input
@pytest.mark.parametrize("wrong", [[], [1.1], [-0.1], [math.nan]])
def test_firing_frequencies_are_shares(wrong):
    with pytest.raises(
        ResultError, match="not all of them shares; expected for each feature the share"
    ):
        plot_density(torch.tensor(wrong))


def test_the_frontier_is_what_nothing_beats_on_both():
    ends = {"a": (8, 0.3), "b": (16, 0.1), "c": (20, 0.2), "d": (64, 0.05), "e": (64, 0.06)}
    rows = []
    for name, (l0, fvu) in ends.items():
        rows.append({"step": 1, "dictionary": name, "l0": 1.0, "fvu": 1.0})
        rows.append({"step": 2, "dictionary": name, "l0": l0, "fvu": fvu})
    figure = compare([record(name, rows=rows) for name in ends])
    (axes,) = figure.axes
    assert np.array_equal(axes.lines[0].get_xydata(), [ends["a"], ends["b"], ends["d"]])
    points = [tuple(mark.get_offsets()[0]) for mark in axes.collections]
    assert points == list(ends.values())
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["frontier", *ends]
    with pytest.raises(ResultError, match="37 dictionaries.*expected at most 36"):
        compare([record("a", rows=rows)] * 37)
    with pytest.raises(ResultError, match="'fvu' was not logged"):
        compare([record("a", rows=[{"step": 1, "dictionary": "a", "l0": 1.0}])])
    with pytest.raises(ResultError, match=r"1 of them without a finite L0 and FVU \(a\)"):
        compare([record("a", rows=[{"step": 1, "dictionary": "a", "l0": 1.0, "fvu": math.nan}])])
    with pytest.raises(ResultError, match="0 records"):
        compare([])
