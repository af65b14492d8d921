"""The look that all figures share: colours, dashes, titles and axes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, QUIET, BLUE = "#222222", "#6b6b6b", "#4a86bd"  # text, lesser text, marks
AXIS, GRID = "#bbbbbb", "#e8e8e8"
# Lines, after Okabe and Ito 2008: told apart in any colour vision. Blue first, black is for text.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
DASHES = ("-", "--", ":", "-.")  # for more lines than colours
HEAT = "Blues"  # one hue from light to dark: it reads the same in any colour vision, and in print


def tidy(axes: Axes, title: str) -> None:
    """The common look: title at the left, no box, quiet ticks."""
    axes.set_title(title, loc="left", fontsize=10, color=INK, parse_math=False)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(AXIS)
    axes.tick_params(colors=QUIET, labelsize=9, length=3)
    axes.xaxis.label.set(color=QUIET, fontsize=9)
