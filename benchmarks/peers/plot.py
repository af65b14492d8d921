"""The picture of the README: seconds a round, a panel a workload, on a log axis.

Ink in the middle between black and white and no ground of its own, so that it reads on both.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from benchmarks.peers.catalogue import OURS

INK = "#7a7f87"
MARK = "#e8590c"
"""Ours."""


def plot(seconds: Mapping[str, Mapping[str, float]], path: Path) -> None:
    """Writes an SVG. seconds: workload -> title -> seconds a round."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    titles = list(dict.fromkeys(title for found in seconds.values() for title in found))
    titles.sort(key=lambda title: title != OURS.title)  # ours on top
    style = {
        "svg.fonttype": "none",
        "svg.hashsalt": "peers",
        "font.family": "sans-serif",
        "font.size": 9,
        "text.color": INK,
        "xtick.color": INK,
        "ytick.color": INK,
    }
    with matplotlib.rc_context(style):
        figure = Figure((2.3 * len(seconds) + 1.1, 0.32 * len(titles) + 0.9), layout="constrained")
        axes = figure.subplots(1, len(seconds), sharey=True, squeeze=False)[0]
        for axis, (workload, found) in zip(axes, seconds.items(), strict=True):
            for place, title in enumerate(titles):
                if title not in found:
                    continue
                ours = title == OURS.title
                value, colour = found[title], MARK if ours else INK
                axis.plot(value, place, "o", color=colour, markersize=6)
                axis.annotate(
                    duration(value),
                    (value, place),
                    (6, 0),
                    textcoords="offset points",
                    va="center",
                    fontsize=8,
                    color=colour,
                )
            axis.set_xscale("log")
            least, most = min(found.values()), max(found.values())
            axis.set_xlim(least / 2, most * 8)  # the room of the last figure's text
            axis.xaxis.set_major_locator(LogLocator(numticks=4))
            axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: duration(value)))
            axis.xaxis.set_minor_formatter(NullFormatter())
            axis.tick_params(length=0)
            axis.tick_params(which="minor", length=0)
            axis.grid(axis="x", color=INK, alpha=0.25, linewidth=0.6)
            axis.set_title(workload, fontsize=9, loc="left")
            axis.patch.set_alpha(0)
            for spine in axis.spines.values():
                spine.set_visible(False)
        axes[0].set_yticks(range(len(titles)), titles)
        axes[0].set_ylim(len(titles) - 0.5, -0.5)
        axes[0].get_yticklabels()[0].set_color(MARK)
        figure.supxlabel("a round, log scale: further left is quicker", fontsize=8, color=INK)
        figure.savefig(path, format="svg", transparent=True, metadata={"Date": None})


def duration(seconds: float) -> str:
    """Seconds, or milliseconds below one, with two digits."""
    if seconds < 1:
        return f"{float(f'{seconds * 1e3:.2g}'):g} ms"
    return f"{float(f'{seconds:.2g}'):g} s"
