"""Bars of several series: where their names stand."""

from __future__ import annotations

import matplotlib.pyplot as plt

from interp.figures import bars


def test_names_of_series_stand_beside_the_bars_where_asked():
    values = {"seed 0": [1.0, 0.9], "seed 1": [0.8, 1.0]}
    inside, beside = (
        bars(["a", "b"], values, title="full", unit="share", beside=place)
        for place in (False, True)
    )
    assert inside.axes[0].get_legend() is not None
    assert not inside.legends
    assert beside.axes[0].get_legend() is None
    (legend,) = beside.legends
    assert [text.get_text() for text in legend.get_texts()] == list(values)
    beside.canvas.draw()
    right = beside.axes[0].get_window_extent().x1
    assert legend.get_window_extent().x0 >= right
    assert not plt.get_fignums()
