"""Pictures: that they show the numbers, and that they are the same text every time."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import warnings
from typing import Any
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from fedsys.partition import Partition
from fedsys.pictures import (
    Line,
    axes_box,
    clients_picture,
    curves_picture,
    figure_svg,
    partition_picture,
    refusals_picture,
    sizes_picture,
)

NAMES = ("cat", "dog", "owl")


def titles(figure: Figure) -> list[str]:
    return [axes.get_title(loc="left") for axes in figure.axes]


def bars(figure: Figure, axes: int = 0) -> list[float]:
    return [patch.get_height() for patch in figure.axes[axes].patches]  # type: ignore[attr-defined]


def shared(clients: int, rows: int = 5000) -> tuple[Partition, np.ndarray]:
    rng = np.random.default_rng(0)
    return Partition.of(rng.integers(0, clients, rows), clients), rng.integers(0, 3, rows)


def test_few_clients_are_shown_in_order_with_their_numbers():
    labels = np.array([0, 0, 1, 2, 2, 2])
    partition = Partition.of(np.array([0, 0, 0, 2, 2, 0]), 3)
    figure = partition_picture(partition, labels, NAMES)
    assert bars(figure) == [4, 0, 2]
    shares = np.array([[2, 1, 1], [0, 0, 0], [0, 0, 4]]).T / 4
    np.testing.assert_allclose(figure.axes[1].images[0].get_array(), shares)
    assert [text.get_text() for text in figure.axes[1].get_xticklabels()] == ["0", "1", "2"]
    assert [text.get_text() for text in figure.axes[1].get_yticklabels()] == list(NAMES)
    assert titles(figure)[:2] == ["Rows a client", "Share of a client's rows with each label"]


def test_more_clients_are_grouped_by_their_commonest_label_and_stay_aligned_with_their_sizes():
    partition, labels = shared(60)
    figure = partition_picture(partition, labels)
    shares = np.asarray(figure.axes[1].images[0].get_array())
    assert (np.diff(shares.argmax(axis=0)) >= 0).all()
    shown = np.rint(shares * bars(figure)).T
    counts = partition.counts(labels)
    np.testing.assert_array_equal(shown[np.lexsort(shown.T)], counts[np.lexsort(counts.T)])
    assert figure.axes[1].get_xlabel() == "60 clients, grouped by their most common label"
    assert [text.get_text() for text in figure.axes[1].get_yticklabels()] == ["0", "1", "2"]


def test_clients_without_rows_are_told_and_not_shown():
    partition = Partition.of(np.arange(50), 80)
    figure = partition_picture(partition, np.arange(50) % 3)
    assert len(bars(figure)) == 50
    assert "50 clients (30 more without rows)" in figure.axes[1].get_xlabel()


def test_of_many_clients_some_are_shown_and_all_are_counted():
    partition, labels = shared(700, rows=2000)
    empty = int(np.count_nonzero(partition.sizes == 0))
    figure = partition_picture(partition, labels, NAMES)
    assert len(bars(figure)) == 200
    assert f"200 of {700 - empty} clients, at random" in figure.axes[1].get_xlabel()
    by_rows = titles(figure).index(f"Clients by rows, {empty} have none")
    by_labels = titles(figure).index("Clients by number of different labels")
    assert sum(bars(figure, by_rows)) == 700 - empty
    kinds = np.count_nonzero(partition.counts(labels), axis=1)
    assert bars(figure, by_labels) == [np.count_nonzero(kinds == kind) for kind in (1, 2, 3)]


def test_skewed_sizes_are_counted_on_a_logarithmic_axis():
    owner = np.concatenate([np.arange(300), np.zeros(5000, int)])
    partition = Partition.of(owner, 300)
    figure = partition_picture(partition, np.zeros(len(owner), int))
    assert figure.axes[3].get_xscale() == "log"
    assert sum(bars(figure, 3)) == 300


@pytest.mark.parametrize("clients", [4, 90, 500])
def test_targets_are_shown_by_their_quantiles(clients):
    partition, labels = shared(clients)
    targets = labels + np.random.default_rng(1).random(len(labels))
    figure = partition_picture(partition, targets)
    shown = np.asarray(figure.axes[1].lines[0].get_ydata())
    medians = np.array([np.median(targets[rows]) for rows in partition])
    if clients == 4:
        np.testing.assert_allclose(shown, medians)
    else:
        assert (np.diff(shown) >= 0).all()
        assert np.isin(shown, medians).all()
    assert len(figure.axes) == (3 if clients == 500 else 2)
    figure_svg(figure)


def test_targets_of_a_client_without_rows():
    figure = partition_picture(Partition.of(np.zeros(5, int), 3), np.arange(5) / 2)
    np.testing.assert_allclose(figure.axes[1].lines[0].get_ydata(), [1, np.nan, np.nan])


@pytest.mark.parametrize("classes", [1, 2, 100])
def test_any_number_of_classes(classes):
    labels = np.arange(400) % classes
    figure = partition_picture(Partition.of(np.arange(400) % 7, 7), labels, ("only this",))
    ticks = [text.get_text() for text in figure.axes[1].get_yticklabels()]
    assert ticks[0] == "only this"
    assert len(ticks) <= 30
    figure_svg(figure)


# --- svg -----------------------------------------------------------------------------------------


def test_svg_is_one_element_with_text_and_without_a_date():
    before = dict(matplotlib.rcParams)
    partition, labels = shared(10)
    text = figure_svg(partition_picture(partition, labels, ("a < b & c", "dog", "owl")))
    assert text.startswith("<svg")
    assert text.rstrip().endswith("</svg>")
    assert ElementTree.fromstring(text).tag == "{http://www.w3.org/2000/svg}svg"
    assert all(said in text for said in ("Rows a client", "owl", "a &lt; b &amp; c"))
    assert "metadata" not in text
    assert "<!DOCTYPE" not in text
    assert "image-rendering:pixelated" in text, "an enlarged heat map would be blurred"
    assert dict(matplotlib.rcParams) == before


SCRIPT = """
import sys
import numpy as np
from fedsys.pictures import (
    Line,
    axes_box,
    clients_picture,
    curves_picture,
    figure_svg,
    partition_picture,
    refusals_picture,
    sizes_picture,
)
from fedsys.partition import Partition
assert "matplotlib" not in sys.modules, "importing pictures must not import matplotlib"
labels = np.arange(600) % 3
print(figure_svg(partition_picture(Partition.of(np.arange(600) % 250, 250), labels)))
assert "matplotlib.pyplot" not in sys.modules, "pyplot is global state"
"""


def test_svg_is_the_same_in_every_process_and_needs_no_pyplot():
    texts = [
        subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env={**os.environ, "PYTHONHASHSEED": hashing},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hashing in ("1", "2")
    ]
    assert texts[0] == texts[1]
    assert texts[0].startswith("<svg")


# --- how a run went ------------------------------------------------------------------------------


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


def test_axes_box_is_where_values_lie_in_the_picture():
    for values in ([1.0, 2.0, 4.0], [100.0, 1.0, 1.0]):
        figure = curves_picture([line("", values)], "Loss")
        svg = figure_svg(figure)
        found = axes_box(figure)
        *_, path = re.finditer(r'd="M ([\d.]+) ([\d.]+) [^"]*" clip-path', svg)
        left, top, right, bottom = found["box"]
        first = np.log10(values[0]) if found["log"] else values[0]
        x = left + (1 - found["x"][0]) / (found["x"][1] - found["x"][0]) * (right - left)
        share = (first - found["y"][0]) / (found["y"][1] - found["y"][0])
        y = bottom - share * (bottom - top)
        assert [float(path[1]), float(path[2])] == pytest.approx([x, y], abs=0.02)


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


def test_class_names_may_hold_anything():
    labels = np.arange(6) % 3
    partition = Partition.of(np.arange(6) % 2, 2)
    figure = partition_picture(partition, labels, ("$x_$", "\0a", "\N{CJK UNIFIED IDEOGRAPH-5927}"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        svg = figure_svg(figure)
    ElementTree.fromstring(svg)
    assert ">$x_$<" in svg
