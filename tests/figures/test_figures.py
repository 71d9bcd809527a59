"""The structure of figures: axes, limits, labels and what stands for cells without a value."""

import itertools

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg

from interp import figures
from interp.errors import ResultError
from interp.figures.labels import font_for, short
from interp.figures.style import WIDTH

TOKENS = ["<bos>", "The", " capital", " of", "\n", " Constantinopolitanisation", " is"]


def image(axes):
    return axes.images[0]


def panels_of(figure):
    return [axes for axes in figure.axes if axes.images]


def labels(ticks):
    return [tick.get_text() for tick in ticks]


def draw(n_panels=3, n_rows=4, n_columns=7, **options):
    values = torch.linspace(-1, 3, n_panels * n_rows * n_columns).view(n_panels, n_rows, n_columns)
    columns = [f"{i} {TOKENS[i % 7]}" for i in range(n_columns)]
    return figures.panels(
        options.pop("values", values), panels=[f"p{i}" for i in range(n_panels)],
        rows=[str(i) for i in range(n_rows)], columns=columns, title="title", unit="logits",
        column_name="position", **options,
    )  # fmt: skip


def test_panels_share_one_scale_that_is_centred_at_zero():
    figure = draw()
    assert [axes.get_title() for axes in panels_of(figure)] == ["p0", "p1", "p2"]
    assert {image(axes).get_clim() for axes in panels_of(figure)} == {(-3.0, 3.0)}
    assert len(figure.axes) == 4  # and one colour bar
    assert figure.axes[-1].get_ylabel() == "logits"
    assert {image(axes).get_clim() for axes in panels_of(draw(signed=False))} == {(0.0, 3.0)}
    assert {image(axes).get_clim() for axes in panels_of(draw(limit=5.0))} == {(-5.0, 5.0)}
    assert not plt.get_fignums()


def test_labels_of_panels_stand_at_the_edges():
    first, second, third = panels_of(draw())
    assert labels(first.get_yticklabels()) == ["0", "1", "2", "3"]
    assert labels(second.get_yticklabels()) == labels(third.get_yticklabels()) == []
    shown = ["0 <bos>", "1 The", "2  capital", "3  of", r"4 \n", "5  Constantinop…", "6  is"]
    assert labels(first.get_xticklabels()) == labels(third.get_xticklabels()) == shown
    figure = draw(5, n_columns=12)  # two rows: labels of the columns where nothing is below
    assert [bool(axes.get_xticks().size) for axes in panels_of(figure)] == [False] * 2 + [True] * 3
    left = [bool(axes.get_yticks().size) for axes in panels_of(figure)]
    assert left == [True, False, False, True, False]


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 12, 15), (4, 6, 61), (12, 12, 15), (3, 48, 8),
                                   (30, 2, 3), (72, 9, 9)])  # fmt: skip
def test_panels_fit_a_page_and_labels_do_not_overlap(shape):
    figure = draw(*shape)
    width, height = figure.get_size_inches()
    assert width <= WIDTH
    assert height <= 10
    for axes in panels_of(figure)[:: max(1, shape[0] // 5)]:
        check_no_overlap(figure, axes)


def check_no_overlap(figure, axes):
    """Labels that are turned upright or lie flat must not touch; nor labels of rows."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    for ticks, low, high in ((axes.get_xticklabels(), "x0", "x1"),
                             (axes.get_yticklabels(), "y0", "y1")):  # fmt: skip
        if not ticks or ticks[0].get_rotation() == 45:
            continue
        boxes = sorted(
            (tick.get_window_extent(renderer) for tick in ticks),
            key=lambda b, low=low: getattr(b, low),
        )
        for one, other in itertools.pairwise(boxes):
            assert getattr(one, high) <= getattr(other, low) + 1.5, labels(ticks)


def test_too_many_panels_are_refused():
    with pytest.raises(ResultError, match="300 panels do not fit in one figure: pick some of them"):
        draw(300, 1, 1)


@pytest.mark.parametrize("columns", [1, 6, 15, 41, 61, 120])
def test_labels_of_a_heatmap_do_not_overlap(columns):
    for names in (
        [str(i) for i in range(columns)],
        [f"{i} {TOKENS[i % 7]}" for i in range(columns)],
    ):
        figure = figures.heatmap(torch.randn(12, columns), rows=[str(i) for i in range(12)],
                                 columns=names, title="title", unit="logits")  # fmt: skip
        assert figure.get_size_inches()[0] <= WIDTH
        check_no_overlap(figure, figure.axes[0])
        low, high = image(figure.axes[0]).get_clim()
        assert low == -high


def test_cells_that_were_not_run_are_grey_and_a_note_says_so():
    values = torch.randn(3, 4, 7)
    values[1, 2:] = torch.nan
    for figure in (
        draw(values=values),
        figures.heatmap(values[1], rows=list("abcd"), columns=TOKENS, title="t", unit="u"),
    ):
        assert labels(figure.legends[0].get_texts()) == ["not run"]
        grey = figure.legends[0].get_patches()[0].get_facecolor()
        assert np.allclose(image(panels_of(figure)[0]).get_cmap()(np.nan), grey)
    assert not draw().legends
    one = figures.heatmap(values[1], rows=list("abcd"), columns=TOKENS, title="t", unit="u",
                          missing="not defined")  # fmt: skip
    assert labels(one.legends[0].get_texts()) == ["not defined"]
    assert len(one.axes[0].texts) == 14  # numbers in the cells that have a value
    assert figures.heatmap(torch.full((2, 2), torch.nan), rows=["a", "b"], columns=["c", "d"],
                           title="t", unit="u").legends  # fmt: skip
    bar = figures.grid(values[1, :, 0], {"head": ["0", "1", "2", "3"]}, title="t", unit="u")
    assert labels(bar.axes[0].texts) == [" not run"] * 2


def test_a_grid_of_three_axes_makes_panels_of_any_of_them():
    axes = {"site": ["L*.resid_pre", "L0-3.mlp_out + L2.z"], "layer": ["0", "1", "2"],
            "position": TOKENS}  # fmt: skip
    values = torch.randn(2, 3, 7)
    by_site = panels_of(figures.grid(values, axes, title="t", unit="u"))
    assert [a.get_title() for a in by_site] == ["resid_pre", "mlp_out + L2.z"]
    assert np.allclose(image(by_site[1]).get_array(), values[1])
    by_layer = panels_of(figures.grid(values, axes, title="t", unit="u", panel="layer"))
    assert [a.get_title() for a in by_layer] == ["layer 0", "layer 1", "layer 2"]
    assert np.allclose(image(by_layer[2]).get_array(), values[:, 2])
    with pytest.raises(ResultError, match="panel='head': this result has the axes site, layer"):
        figures.grid(values, axes, title="t", unit="u", panel="head")
    with pytest.raises(ResultError, match=r"4 axes .*result.select\(a='0'\)"):
        figures.grid(torch.zeros(1, 1, 1, 1), {name: ["0"] for name in "abcd"}, title="t", unit="u")


def test_a_sweep_over_thousands_draws_the_largest():
    values = torch.linspace(-1, 0.5, 5000)
    values[7] = torch.nan
    figure = figures.grid(values, {"feature": [str(i) for i in range(5000)]}, title="t", unit="u")
    (axes,) = figure.axes
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels[:2] + labels[-1:] == ["feature 0", "feature 1", "feature 100"]  # 7 was not run
    assert len(axes.patches) == len(labels) == 100
    assert "the 100 largest of 5,000" in axes.get_title().replace("\n", " ")
    assert figure.get_size_inches()[1] < 30


def test_attention_patterns_run_from_zero_to_one_and_down_the_page():
    patterns = torch.rand(4, 7, 7).tril()
    figure = figures.attention_patterns(patterns, TOKENS, ["a", "b", "c", "d"])
    shown = panels_of(figure)
    assert {image(axes).get_clim() for axes in shown} == {(0.0, 1.0)}
    assert len(figure.axes) == 5
    assert shown[0].get_ylim()[0] > shown[0].get_ylim()[1]  # the first query at the top
    assert labels(shown[0].get_yticklabels()) == labels(shown[-1].get_xticklabels())
    assert labels(shown[0].get_yticklabels())[4:6] == [r"\n", "Constantinopoli…"]
    rows = {round(axes.get_position().y0, 3) for axes in shown}
    assert len(rows) == 2
    wide = figures.attention_patterns(patterns[:, :3, :3], TOKENS[:3], list("abcd"), across=4)
    assert len({round(axes.get_position().y0, 3) for axes in panels_of(wide)}) == 1


def test_ranked_bars_have_their_intervals_and_colours_by_sign():
    values = torch.tensor([3.0, -2.0, 1.0])
    figure = figures.ranked(["L1.H0", "L0 mlp_out @END", "c"], values, low=values - 1,
                            high=values + 0.5, title="t", unit="logits")  # fmt: skip
    axes = figure.axes[0]
    assert labels(axes.get_yticklabels()) == ["L1.H0", "L0 mlp_out @END", "c"]
    assert [bar.get_width() for bar in axes.patches] == [3.0, -2.0, 1.0]
    colours = [bar.get_facecolor() for bar in axes.patches]
    assert colours[0] == colours[2] != colours[1]
    whiskers = axes.collections[0].get_segments()
    assert np.allclose(whiskers[1], [[-3.0, 1.0], [-1.5, 1.0]])
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the strongest on top
    none = torch.full((3,), torch.nan)
    bare = figures.ranked(["a", "b", "c"], values, low=none, high=none, title="t", unit="u")
    assert not bare.axes[0].collections


def test_labels_are_visible_and_short():
    assert [short(t) for t in (" ", "\t", "$x$")] == ["␣", r"\t", "$x$"]
    assert len(short("x" * 50)) == 16
    assert font_for(1.0, most=6.5) == 6.5
    assert font_for(0.01, most=6.5) == 5.4


def test_names_of_many_curves_stand_beside_them():
    from interp.figures import lines

    curves = {f"a curve called {i}": [0.1 * i, 0.5] for i in range(6)}
    figure = lines(["L0", "L1"], curves, title="t", x_name="x", y_name="y", beside=True)
    (axes,), (legend,) = figure.axes, figure.legends
    figure.canvas.draw()
    assert [text.get_text() for text in legend.get_texts()] == list(curves)
    assert legend.get_window_extent().x0 >= axes.get_window_extent().x1
    assert axes.get_legend() is None
