"""How a run went, as Matplotlib figures that touch no global state (no pyplot).

Matplotlib is imported when a figure is drawn, not before: it takes most of a second.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from fedsys.report.style import BLUE, COLOURS, DASHES, GRID, HEAT, QUIET, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZE = (5.1, 3.1)  # inches, of a picture that shares a line of a page with another
DOTS = 2000  # clients that a picture can show as dots
BARS = 200  # bars side by side that can be told apart


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
    figure, axes = _blank()
    for number, line in enumerate(lines):
        _draw_line(axes, line, order=3 - number / len(lines))
    skewed = not percent and _skewed(lines)
    if skewed:
        axes.set_yscale("log")
        _plain_log(axes)
    elif percent:
        axes.yaxis.set_major_formatter(_percent)
        axes.set_ylim(bottom=max(axes.get_ylim()[0], -0.02), top=min(axes.get_ylim()[1], 1.02))
    _count_rounds(axes)
    _rule(axes)
    tidy(axes, f"{title}, logarithmic" if skewed else title)
    _draw_legend(figure, axes, always=legend)
    return figure


def clients_picture(values: np.ndarray, title: str, *, mean: float, percent: bool) -> Figure:
    """How many clients have which value of a metric, and where their mean is.

    values: [clients], all finite.
    """
    figure, axes = _blank()
    axes.hist(values, bins=_edges(values), color=BLUE, edgecolor="white", linewidth=0.5)
    axes.axvline(mean, color=COLOURS[1], linewidth=1.5, linestyle="--", label="Mean over all rows")
    if percent:
        axes.xaxis.set_major_formatter(_percent)
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.locator_params(axis="y", integer=True, nbins=6)
    tidy(axes, title)
    axes.set_ylabel("Clients", color=QUIET, fontsize=9)
    _draw_legend(figure, axes, always=True)
    return figure


def sizes_picture(rows: np.ndarray, values: np.ndarray, title: str, *, percent: bool) -> Figure:
    """A metric against the rows of a client: dots, or how many share a place of above 2,000.

    rows, values: [clients], all finite, with at least one row each.
    """
    from matplotlib.ticker import MaxNLocator

    figure, axes = _blank()
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
    _rule(axes)
    tidy(axes, title)
    axes.set_xlabel("Rows of the client")
    return figure


def refusals_picture(rounds: int, reasons: Mapping[str, Mapping[int, int]]) -> Figure:
    """Refused updates by round, stacked by reason.

    rounds: how many there were. reasons: reason -> round -> refused updates.
    """
    from matplotlib.ticker import MaxNLocator

    figure, axes = _blank()
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
    _count_rounds(axes)
    _rule(axes)
    every = "a round" if step == 1 else f"every {step} rounds"
    tidy(axes, f"Refused updates {every}, by reason")
    _draw_legend(figure, axes, always=True)
    return figure


def _blank() -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE, layout="constrained", facecolor="white")
    return figure, figure.add_subplot()


def _count_rounds(axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, steps=[1, 2, 5, 10]))
    axes.set_xlabel("Round")


def _rule(axes: Axes) -> None:
    """Pale lines across, behind what is drawn."""
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)


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
