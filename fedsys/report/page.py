"""The page that all reports share: templates filled in, and the pictures that go into them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fedsys.report.run_figures import Line, curves_picture
from fedsys.report.style import COLOURS
from fedsys.report.svg import embedded, figure_svg
from fedsys.report.wording import title

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.figure import Figure


def page(template: str, **said: Any) -> str:
    """A template of this package, filled in. Whatever is not Markup is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("fedsys.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template(template).render(**said)
    return text.encode("utf-8", "replace").decode()  # a folder's name may be no Unicode


@dataclass(frozen=True)
class Picture:
    """A picture to put into a page.

    hover: what the page's script needs to say the values under a pointer, where it does.
    """

    svg: Markup
    label: str
    hover: Mapping[str, Any] | None = None


def picture(figure: Figure, label: str) -> Picture:
    """A figure to put into a page. label: what it shows, read out where it cannot be seen."""
    svg = embedded(figure_svg(figure))
    assert svg is not None, "our own pictures are harmless"
    return Picture(svg, label)


def curve(lines: Sequence[Line], name: str, label: str = "") -> Picture:
    """A picture of a metric by round, that follows the pointer.

    label: what it shows, where that is not simply the metric; it then has a legend in any case.
    """
    percent = name == "accuracy"
    said = label or f"{title(name)} by round"
    figure = curves_picture(lines, said, percent=percent, legend=bool(label))
    return following(figure, said, lines, "percent" if percent else "")


def following(figure: Figure, label: str, lines: Sequence[Line], unit: str) -> Picture:
    """The picture of the lines, with what its script needs to say their values at a pointer."""
    drawn = picture(figure, label)  # drawn first: that is when things find their places
    rounds = sorted({int(round_) for line in lines for round_ in line.rounds})
    said = []
    for line in lines:
        known = dict(zip(line.rounds.tolist(), line.values.tolist(), strict=True))
        values = [_json_number(known.get(round_)) for round_ in rounds]
        look = {"colour": line.colour % len(COLOURS), "dash": line.dash}
        said.append({"label": line.label, "values": values, **look})
    hover = {**axes_box(figure), "rounds": rounds, "lines": said, "unit": unit}
    return replace(drawn, hover=hover)


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


def _json_number(value: float | None) -> float | None:
    """The number with as many digits as a reader needs, None where JSON has no word for it."""
    return float(f"{value:.6g}") if value is not None and math.isfinite(value) else None
