"""Who holds what, as a Matplotlib figure that touches no global state (no pyplot).

Matplotlib is imported when a figure is drawn, not before: it takes most of a second.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fedsys.partition import Partition, has_classes
from fedsys.report.style import BLUE, HEAT, INK, QUIET, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

SHOWN = 200  # clients that a picture can show one by one
NAMED = 20  # clients whose numbers fit under them


def partition_picture(
    partition: Partition, labels: np.ndarray, classes: Sequence[str] = ()
) -> Figure:
    """Who holds what: how many rows each client has, and of which labels.

    Up to 200 clients are shown one by one; of more, a random 200 and the histograms of all. A
    column of the heat map is a client's own distribution of labels, so that small clients read as
    well as large ones. Clients are grouped by their most common label, unless they are so few that
    their numbers fit under them. Of targets (floats), a column shows their median, quartiles and
    5 % and 95 % quantiles, sorted by the median.

    labels: [rows], class numbers or targets. classes: names of the classes; numbers without.
    """
    from matplotlib.figure import Figure

    shown = _shown(partition)
    named, sampled = len(partition) <= NAMED, len(partition) > SHOWN
    names = _names(labels, classes)
    heights = [1.0, float(np.clip(0.27 * len(names), 1.2, 4.5)) if names else 2.2]
    heights += [1.2] if sampled else []

    figure = Figure(figsize=(8, 1.3 + 1.1 * sum(heights)), layout="constrained", facecolor="white")
    widths = [30, 30, 1] if names else [30, 30]  # the last for the scale of colours
    grid = figure.add_gridspec(
        len(heights), len(widths), height_ratios=heights, width_ratios=widths
    )
    sizes = figure.add_subplot(grid[0, :2])
    main = figure.add_subplot(grid[1, :2], sharex=sizes)
    if names:
        counts = np.stack([_counts(labels[partition[client]], len(names)) for client in shown])
        line = np.arange(len(shown)) if named else _by_commonest(counts)
        heat = _draw_shares(main, counts[line], names)
        _draw_scale(figure, figure.add_subplot(grid[1, 2]), heat)
        sorting = "grouped by their most common label"
    else:
        spread = np.stack([_quantiles(labels[partition[client]]) for client in shown])
        line = np.arange(len(shown)) if named else np.argsort(spread[:, 2])
        _draw_spreads(main, spread[line])
        sorting = "sorted by their median"
    _draw_sizes(sizes, partition.sizes[shown[line]])
    if named:
        main.set_xticks(range(len(shown)), [str(client) for client in shown])
        main.set_xlabel("Client")
    else:
        main.set_xticks([])
        main.set_xlabel(f"{_whose(partition, shown)}, {sorting}")
    if sampled:
        columns = slice(0, 1) if names else slice(0, 2)
        _draw_size_histogram(figure.add_subplot(grid[2, columns]), partition.sizes)
    if sampled and names:
        _draw_label_histogram(figure.add_subplot(grid[2, 1]), partition, labels)
    return figure


def _shown(partition: Partition) -> np.ndarray:
    """The clients to show one by one: all, all that hold rows, or a few of those at random.

    They are the same few every time.
    """
    if len(partition) <= NAMED:
        return np.arange(len(partition))
    holders = np.flatnonzero(partition.sizes)
    if len(holders) <= SHOWN:
        return holders
    return np.sort(np.random.default_rng(0).choice(holders, SHOWN, replace=False))


def _whose(partition: Partition, shown: np.ndarray) -> str:
    """`200 of 5,000 clients, at random (12 without rows left out)`, as far as it applies."""
    holders = int(np.count_nonzero(partition.sizes))
    empty = len(partition) - holders
    some = (
        f"{len(shown)} of {holders:,} clients, at random"
        if len(shown) < holders
        else (f"{holders} clients")
    )
    return some + (f" ({empty:,} more without rows)" if empty else "")


def _names(labels: np.ndarray, classes: Sequence[str]) -> list[str]:
    """A name for every class, its number where it has none; nothing for targets."""
    if not has_classes(labels):
        return []
    return list(classes) + [str(kind) for kind in range(len(classes), int(labels.max()) + 1)]


def _counts(labels: np.ndarray, classes: int) -> np.ndarray:
    return np.bincount(labels.astype(np.int64), minlength=classes)


def _by_commonest(counts: np.ndarray) -> np.ndarray:
    """The lines of [clients, classes] by most common label, the largest share of it first."""
    share = counts.max(axis=1) / counts.sum(axis=1)
    return np.lexsort((-share, counts.argmax(axis=1)))


def _quantiles(targets: np.ndarray) -> np.ndarray:
    """[5] quantiles of a client's targets, not a number where it has none."""
    if not len(targets):
        return np.full(5, np.nan)
    return np.quantile(targets, [0.05, 0.25, 0.5, 0.75, 0.95])


def _draw_sizes(axes: Axes, sizes: np.ndarray) -> None:
    axes.bar(np.arange(len(sizes)), sizes, width=0.8, color=BLUE)
    axes.set_xlim(-0.5, len(sizes) - 0.5)
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.locator_params(axis="y", nbins=4, integer=True)
    tidy(axes, "Rows a client")
    axes.tick_params(bottom=False, labelbottom=False)


def _draw_shares(axes: Axes, counts: np.ndarray, names: list[str]) -> AxesImage:
    """The heat map of [clients, classes], a column a client."""
    shares = (counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)).T
    # The scale ends well above an even share, so that differences of mere chance stay pale.
    most = min(1.0, max(5 / len(names), float(shares.max())))
    heat = axes.imshow(shares, HEAT, vmin=0, vmax=most, aspect="auto", interpolation="none")
    every = -(-len(names) // 30)
    axes.set_yticks(range(0, len(names), every), names[::every])
    for label in axes.get_yticklabels():
        label.set_parse_math(False)  # a class may be named $5
    tidy(axes, "Share of a client's rows with each label")
    axes.tick_params(left=False, bottom=False)
    axes.spines[["left", "bottom"]].set_visible(False)
    return heat


def _draw_scale(figure: Figure, axes: Axes, heat: AxesImage) -> None:
    scale = figure.colorbar(heat, cax=axes, format="{x:.0%}")
    scale.outline.set_visible(False)
    axes.tick_params(colors=QUIET, labelsize=9, length=0)


def _draw_spreads(axes: Axes, spread: np.ndarray) -> None:
    """A slim box for each line of [clients, 5] quantiles."""
    place = np.arange(len(spread))
    low, first, middle, third, high = spread.T
    width = float(np.clip(300 / len(spread), 1.5, 8))
    axes.vlines(place, low, high, color=BLUE, linewidth=0.8)
    axes.vlines(place, first, third, color=BLUE, linewidth=width)
    axes.plot(place, middle, "o", color="white", markeredgecolor=INK, markersize=0.5 + width / 2)
    tidy(axes, "Targets of a client: median, quartiles, 5 % to 95 %")
    axes.tick_params(bottom=False)


def _draw_size_histogram(axes: Axes, sizes: np.ndarray) -> None:
    """How many clients have how many rows; on a logarithmic axis where a few have far the most."""
    held = sizes[sizes > 0]
    empty = f", {len(sizes) - len(held):,} have none" if len(held) < len(sizes) else ""
    skewed = len(held) > 0 and held.max() > 30 * np.median(held)
    most, least = int(held.max(initial=1)), int(held.min(initial=1))
    if skewed:
        edges = np.unique(np.geomspace(1, most + 1, 30).astype(np.int64)) - 0.5
        axes.set_xscale("log")
        axes.minorticks_off()
    else:
        step = -(-(most + 1 - least) // 40)
        edges = np.arange(least, most + 1 + step, step) - 0.5
    axes.hist(held, bins=edges.tolist(), color=BLUE, edgecolor="white", linewidth=0.5)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.yaxis.set_major_formatter("{x:,.0f}")
    tidy(axes, f"Clients by rows{empty}")


def _draw_label_histogram(axes: Axes, partition: Partition, labels: np.ndarray) -> None:
    """How many clients hold how many different labels, those without rows left out."""
    held = sum(
        np.bincount(np.count_nonzero(counts, axis=1), minlength=counts.shape[1] + 1)
        for counts in partition.count_blocks(labels)
    )
    assert isinstance(held, np.ndarray)
    kinds = np.arange(1, len(held))
    axes.bar(kinds, held[1:], width=0.85, color=BLUE)
    axes.locator_params(axis="x", integer=True)
    axes.yaxis.set_major_formatter("{x:,.0f}")
    tidy(axes, "Clients by number of different labels")
