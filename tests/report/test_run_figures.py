"""How a run went: that the figures show the numbers."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure

from fedsys.report.run_figures import (
    Line,
    clients_picture,
    curves_picture,
    refusals_picture,
    sizes_picture,
)
from fedsys.report.svg import figure_svg


def titles(figure: Figure) -> list[str]:
    return [axes.get_title(loc="left") for axes in figure.axes]


def bars(figure: Figure, axes: int = 0) -> list[float]:
    return [patch.get_height() for patch in figure.axes[axes].patches]  # type: ignore[attr-defined]


def line(label: str, values: list[float], **options: Any) -> Line:
    return Line(label, np.arange(1, len(values) + 1), np.array(values), **options)


def test_curves_show_their_values_and_leave_gaps_where_there_are_none():
    values = [0.5, np.nan, np.inf, 0.9]
    figure = curves_picture([line("Test set", values)], "Accuracy by round", percent=True)
    drawn = figure.axes[0].lines[0]
    np.testing.assert_array_equal(drawn.get_xdata(), [1, 2, 3, 4])
    np.testing.assert_array_equal(drawn.get_ydata(), [0.5, np.nan, np.nan, 0.9])
    assert titles(figure) == ["Accuracy by round"]
    svg = figure_svg(figure)
    assert ">60%<" in svg
    assert "Test set" not in svg  # a legend for one line would say nothing


def test_several_curves_have_a_legend_whatever_their_names_and_the_first_is_on_top():
    lines = [line("_a", [1, 2]), line("$b_$", [2, 1], colour=1), line("<c>", [3, 3], dash=1)]
    figure = curves_picture(lines, "Loss $by$ round")
    svg = figure_svg(figure)
    ElementTree.fromstring(svg)
    assert all(label in svg for label in ("_a", "$b_$", "&lt;c&gt;", "Loss $by$ round"))
    orders = [drawn.get_zorder() for drawn in figure.axes[0].lines]
    assert orders == sorted(orders, reverse=True)


def test_a_band_lies_around_its_line():
    low, high = np.array([0.4, 0.5]), np.array([0.8, 0.7])
    figure = curves_picture([line("Clients", [0.6, 0.6], low=low, high=high)], "", percent=True)
    corners = figure.axes[0].collections[0].get_paths()[0].vertices
    assert {(1.0, 0.4), (1.0, 0.8), (2.0, 0.5), (2.0, 0.7)} <= {
        (float(x), float(y)) for x, y in corners
    }


@pytest.mark.parametrize(
    ("values", "scale"),
    [([9.0, 0.2, 0.2, 0.2], "log"), ([2.0, 1.0], "linear"), ([9.0, 0.2, 0.2, 0.0], "linear")],
)
def test_a_few_large_values_do_not_hide_the_rest(values: list[float], scale: str):
    figure = curves_picture([line("", values)], "Loss")
    assert figure.axes[0].get_yscale() == scale
    assert titles(figure) == ["Loss, logarithmic" if scale == "log" else "Loss"]


def test_clients_are_counted_by_their_metric():
    values = np.array([0.5, 0.5, 0.9, 1.0])
    figure = clients_picture(values, "Clients by accuracy", mean=0.8, percent=True)
    assert sum(bars(figure)) == 4
    assert figure.axes[0].lines[0].get_xdata()[0] == 0.8
    same = clients_picture(np.ones(3), "", mean=1.0, percent=False)
    assert bars(same) == [3]
    zeros = clients_picture(np.zeros(3), "", mean=0.0, percent=False)
    assert bars(zeros) == [3]


@pytest.mark.parametrize("clients", [30, 5000])
def test_sizes_show_every_client(clients: int):
    rng = np.random.default_rng(0)
    rows, values = rng.integers(1, 100, clients), rng.random(clients)
    figure = sizes_picture(rows, values, "Accuracy against rows", percent=True)
    if clients > 2000:
        counts = figure.axes[0].collections[0].get_array()
        assert counts is not None
        assert counts.sum() == clients
    else:
        np.testing.assert_array_equal(figure.axes[0].lines[0].get_ydata(), values)
    assert figure.axes[0].get_xscale() == "log"
    assert len(figure_svg(figure)) < 200_000


def test_refusals_are_stacked_and_many_rounds_put_together():
    figure = refusals_picture(4, {"not finite": {1: 2, 3: 1}, "wrong shape": {3: 4}})
    boxes = [
        patch.get_path().get_extents(patch.get_transform()) for patch in figure.axes[0].patches
    ]
    boxes = [box.transformed(figure.axes[0].transData.inverted()) for box in boxes]
    drawn = {(round((box.x0 + box.x1) / 2), round(box.y0), round(box.height)) for box in boxes}
    assert drawn == {(1, 0, 2), (3, 0, 1), (3, 1, 4)}
    many = refusals_picture(1000, {"not finite": dict.fromkeys(range(1, 1001), 1)})
    assert sum(bars(many)) == 1000
    assert len(bars(many)) == 200
    assert titles(many) == ["Refused updates every 5 rounds, by reason"]
