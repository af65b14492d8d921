"""Who holds what: that the figure shows the numbers."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure

from fedsys.partition import Partition
from fedsys.report.partition_figure import partition_picture
from fedsys.report.svg import figure_svg

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
