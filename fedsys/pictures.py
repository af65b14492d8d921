"""Pictures for reports, as Matplotlib figures that touch no global state (no pyplot).

Matplotlib is imported when a picture is drawn, not before: it takes most of a second.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from fedsys.partition import Partition, has_classes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

INK, QUIET, BLUE = "#222222", "#6b6b6b", "#4a86bd"  # text, lesser text, marks
AXIS, GRID = "#bbbbbb", "#e8e8e8"
# Lines, after Okabe and Ito 2008: told apart in any colour vision. Blue first, black is for text.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
DASHES = ("-", "--", ":", "-.")  # for more lines than colours
HEAT = "Blues"  # one hue from light to dark: it reads the same in any colour vision, and in print
SHOWN = 200  # clients that a picture can show one by one
NAMED = 20  # clients whose numbers fit under them
DOTS = 2000  # clients that a picture can show as dots
BARS = 200  # bars side by side that can be told apart
_NO_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")  # in no XML
SIZE = (5.1, 3.1)  # inches, of a picture that shares a line of a page with another


# --- who holds what ------------------------------------------------------------------------------


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
    _tidy(axes, "Rows a client")
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
    _tidy(axes, "Share of a client's rows with each label")
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
    _tidy(axes, "Targets of a client: median, quartiles, 5 % to 95 %")
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
    _tidy(axes, f"Clients by rows{empty}")


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
    _tidy(axes, "Clients by number of different labels")


# --- how a run went ------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Line:
    """Values by round.

    rounds: [points], ascending. values: [points]; one that is not finite leaves a gap.
    low, high: [points], the edges of a band around the line, if it has one.
    colour, dash: number of the colour in COLOURS and of the dash in DASHES.
    """

    label: str
    rounds: np.ndarray
    values: np.ndarray
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    colour: int = 0
    dash: int = 0


def curves_picture(
    lines: Sequence[Line], title: str, *, percent: bool = False, legend: bool = False
) -> Figure:
    """Lines over rounds, the first on top, with a legend under them where there are several.

    percent: values are parts of one. legend: even a single line needs one. The axis is
    logarithmic where a few values are far above the rest, such as the first losses of a run, or a
    round in which something was compiled.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=SIZE, layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    for number, line in enumerate(lines):
        _draw_line(axes, line, order=3 - number / len(lines))
    skewed = not percent and _skewed(lines)
    if skewed:
        axes.set_yscale("log")
        _plain_log(axes)
    elif percent:
        axes.yaxis.set_major_formatter(_percent)
        axes.set_ylim(bottom=max(axes.get_ylim()[0], -0.02), top=min(axes.get_ylim()[1], 1.02))
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, steps=[1, 2, 5, 10]))
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    _tidy(axes, f"{title}, logarithmic" if skewed else title)
    axes.set_xlabel("Round")
    _draw_legend(figure, axes, always=legend)
    return figure


def clients_picture(values: np.ndarray, title: str, *, mean: float, percent: bool) -> Figure:
    """How many clients have which value of a metric, and where their mean is.

    values: [clients], all finite.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE, layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    axes.hist(values, bins=_edges(values), color=BLUE, edgecolor="white", linewidth=0.5)
    axes.axvline(mean, color=COLOURS[1], linewidth=1.5, linestyle="--", label="Mean over all rows")
    if percent:
        axes.xaxis.set_major_formatter(_percent)
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.locator_params(axis="y", integer=True, nbins=6)
    _tidy(axes, title)
    axes.set_ylabel("Clients", color=QUIET, fontsize=9)
    _draw_legend(figure, axes, always=True)
    return figure


def sizes_picture(rows: np.ndarray, values: np.ndarray, title: str, *, percent: bool) -> Figure:
    """A metric against the rows of a client: dots, or how many share a place of above 2,000.

    rows, values: [clients], all finite, with at least one row each.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=SIZE, layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    scale: Literal["linear", "log"] = "log" if rows.max() > 20 * rows.min() else "linear"
    if len(rows) <= DOTS:
        radius = float(np.clip(120 / np.sqrt(len(rows)), 2.5, 6))
        axes.plot(rows, values, "o", color=BLUE, alpha=0.6, markersize=radius, markeredgewidth=0)
        axes.set_xscale(scale)
    else:
        cells = axes.hexbin(
            rows, values, xscale=scale, gridsize=(40, 22), bins="log", mincnt=1, cmap=_ink(),
            linewidths=0.1, rasterized=True,
        )  # fmt: skip
        bar = figure.colorbar(cells, ax=axes, format="{x:,.0f}", aspect=30, pad=0.02)
        bar.outline.set_visible(False)
        bar.ax.minorticks_off()
        bar.ax.tick_params(colors=QUIET, labelsize=9, length=0)
        bar.ax.set_title("Clients", fontsize=9, color=QUIET)
    if scale == "log":
        _plain_log(axes, "x")
    else:
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.xaxis.set_major_formatter("{x:,.0f}")
    if percent:
        axes.yaxis.set_major_formatter(_percent)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    _tidy(axes, title)
    axes.set_xlabel("Rows of the client")
    return figure


def refusals_picture(rounds: int, reasons: Mapping[str, Mapping[int, int]]) -> Figure:
    """Refused updates by round, stacked by reason.

    rounds: how many there were. reasons: reason -> round -> refused updates.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=SIZE, layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    step = -(-rounds // BARS)
    place = np.arange(0, rounds, step) + (step + 1) / 2
    below = np.zeros(len(place))
    for number, (reason, counts) in enumerate(reasons.items()):
        heights = np.zeros(len(place))
        for round_, count in counts.items():
            heights[(round_ - 1) // step] += count
        some = heights > 0
        axes.bar(
            place[some], heights[some], width=0.85 * step, bottom=below[some], label=reason,
            color=COLOURS[(number + 1) % len(COLOURS)],
        )  # fmt: skip
        below += heights
    axes.set_xlim(0.5 - 0.5 * step, rounds + 0.5 + 0.5 * step)
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, steps=[1, 2, 5, 10]))
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    every = "a round" if step == 1 else f"every {step} rounds"
    _tidy(axes, f"Refused updates {every}, by reason")
    axes.set_xlabel("Round")
    _draw_legend(figure, axes, always=True)
    return figure


def axes_box(figure: Figure) -> dict[str, Any]:
    """Where the first axes of a drawn figure lie in its SVG, and what they show.

    box: left, top, right, bottom in the units of the viewBox. x, y: the limits; y as its
    logarithm to base ten where `log` is true. It is what a pointer's place is looked up with.
    """
    axes = figure.axes[0]
    width, height = (72 * size for size in figure.get_size_inches())
    place = axes.get_position()
    box = [place.x0 * width, (1 - place.y1) * height, place.x1 * width, (1 - place.y0) * height]
    log = axes.get_yscale() == "log"
    limits = np.log10(axes.get_ylim()) if log else axes.get_ylim()
    return {
        "box": [round(float(edge), 2) for edge in box],
        "x": [float(edge) for edge in axes.get_xlim()],
        "y": [float(edge) for edge in limits],
        "log": log,
    }


def _draw_line(axes: Axes, line: Line, order: float) -> None:
    colour = COLOURS[line.colour % len(COLOURS)]
    values = np.where(np.isfinite(line.values), line.values, np.nan)
    if line.low is not None and line.high is not None:
        axes.fill_between(line.rounds, line.low, line.high, color=colour, alpha=0.15, linewidth=0)
    axes.plot(
        line.rounds,
        values,
        DASHES[line.dash % len(DASHES)],
        marker="o" if len(values) <= 25 else None,
        markersize=3,
        color=colour,
        linewidth=1.6,
        zorder=order,
        label=f"\u200b{line.label}",  # Matplotlib leaves labels out that begin with _
    )


def _skewed(lines: Sequence[Line]) -> bool:
    """Whether the largest of all values is far above their median, and none is at or below 0."""
    values = np.concatenate([line.values for line in lines]) if lines else np.zeros(0)
    values = values[np.isfinite(values)]
    if not len(values) or values.min() <= 0:
        return False
    return bool(values.max() > 10 * np.median(values))


def _percent(value: float, _: float) -> str:
    """`95%`, `92.5%`: as many digits as a tick needs."""
    return f"{100 * value:.6g}%"


def _plain_log(axes: Axes, which: str = "y") -> None:
    """Ticks of a logarithmic axis as plain numbers, a few of them."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axis = axes.yaxis if which == "y" else axes.xaxis
    low, high = axis.get_view_interval()
    decades = np.log10(high / low)
    axis.set_major_locator(LogLocator(10, subs=(1.0, 2.0, 5.0) if decades < 2.5 else (1.0,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axis.set_minor_locator(NullLocator())


def _edges(values: np.ndarray) -> list[float]:
    """Edges of the bins of a histogram; one bin of some width where all values are the same."""
    if values.max() == values.min():
        reach = abs(float(values[0])) / 10 or 0.5
        return [float(values[0]) - reach, float(values[0]) + reach]
    bins = int(np.clip(2 * np.sqrt(len(values)), 5, 40))
    return [float(edge) for edge in np.histogram_bin_edges(values, bins)]


def _ink() -> Any:
    """The colours of HEAT without the palest, which would not show on paper."""
    from matplotlib import colormaps
    from matplotlib.colors import LinearSegmentedColormap

    shades = colormaps[HEAT](np.linspace(0.25, 1, 64))
    return LinearSegmentedColormap.from_list("ink", [tuple(shade) for shade in shades])


def _draw_legend(figure: Figure, axes: Axes, *, always: bool = False) -> None:
    """A legend under the axes, where there is more than one thing to tell apart."""
    handles, labels = axes.get_legend_handles_labels()
    if len(labels) < (1 if always else 2):
        return
    columns = int(np.clip(72 // (max(map(len, labels)) + 6), 1, 4))
    legend = figure.legend(
        handles, labels, loc="outside lower left", ncols=columns, frameon=False, fontsize=9,
        labelcolor=QUIET, handlelength=2.4, columnspacing=1.4,
    )  # fmt: skip
    for text in legend.get_texts():
        text.set_parse_math(False)


# --- shared --------------------------------------------------------------------------------------


def figure_svg(figure: Figure) -> str:
    """The figure as an `<svg>` element to put into HTML: the same text for the same figure.

    Text stays text, to be found and read out, and is drawn in the reader's fonts, whatever letters
    ours have; no date, no random names, no XML prolog.
    """
    import matplotlib

    drawn = io.StringIO()
    with (
        matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "fedsys"}),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(drawn, format="svg", metadata=nothing)
    text = _NO_XML.sub("\N{REPLACEMENT CHARACTER}", drawn.getvalue())
    return text[text.index("<svg") :]


def _tidy(axes: Axes, title: str) -> None:
    """The common look: title at the left, no box, quiet ticks."""
    axes.set_title(title, loc="left", fontsize=10, color=INK, parse_math=False)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(AXIS)
    axes.tick_params(colors=QUIET, labelsize=9, length=3)
    axes.xaxis.label.set(color=QUIET, fontsize=9)
