"""The arena as a map: which tensor lies where, and during which steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fedsys.edge.report.figures import Place
from fedsys.edge.report.wording import bytes_said
from fedsys.report.style import COLOURS, GRID, QUIET, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZE = (8.8, 3.6)  # inches
LETTER = 0.075  # inches, about the width of a letter of a label


def arena_picture(places: Sequence[Place], size: int) -> Figure:
    """Each tensor a rectangle: bytes upwards, the model's steps to the right.

    size: bytes of the whole arena, the top of the picture.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator, MultipleLocator

    figure = Figure(figsize=SIZE, layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    last = max(place.last for place in places)
    for number, place in enumerate(places):
        _draw(axes, place, COLOURS[number % len(COLOURS)], last + 1, size)
    axes.set_xlim(-0.5, last + 0.5)
    axes.set_ylim(0, size * 1.02)
    axes.xaxis.set_major_locator(MaxNLocator(12, integer=True))
    axes.yaxis.set_major_locator(MultipleLocator(_step(size)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: bytes_said(round(value))))
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    tidy(axes, f"The arena, {bytes_said(size)}: who lies where, and when")
    axes.set_xlabel("Step of the model", color=QUIET, fontsize=9)
    return figure


def _draw(axes: Axes, place: Place, colour: str, steps: int, size: int) -> None:
    from matplotlib.patches import Rectangle

    width = place.last - place.first + 1
    axes.add_patch(
        Rectangle((place.first - 0.5, place.offset), width, place.size, facecolor=colour,
                  edgecolor="white", linewidth=1, alpha=0.8)
    )  # fmt: skip
    room = width / steps * (SIZE[0] - 0.9)
    letters = int(room / LETTER) - 1
    if place.size / size * (SIZE[1] - 0.9) < 0.17 or letters < 4:
        return  # a label would not fit into it
    name = place.name if len(place.name) <= letters else place.name.split("/")[0]
    name = name if len(name) <= letters else f"{name[: letters - 1]}…"
    label = axes.text(
        place.first - 0.5 + width / 2, place.offset + place.size / 2, name,
        ha="center", va="center", fontsize=8, color="white",
    )  # fmt: skip
    label.set_parse_math(False)


def _step(size: int) -> int:
    """Bytes between two marks of the axis: a power of two, for four to eight of them."""
    return max(1, 1 << max(0, (size // 4).bit_length() - 1))
