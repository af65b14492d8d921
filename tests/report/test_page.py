"""Pages: that their script finds where values lie."""

from __future__ import annotations

import re

import numpy as np
import pytest

from fedsys.report.page import axes_box
from fedsys.report.run_figures import Line, curves_picture
from fedsys.report.svg import figure_svg


def test_axes_box_is_where_values_lie_in_the_picture():
    for values in ([1.0, 2.0, 4.0], [100.0, 1.0, 1.0]):
        line = Line("", np.arange(1, len(values) + 1), np.array(values))
        figure = curves_picture([line], "Loss")
        svg = figure_svg(figure)
        found = axes_box(figure)
        *_, path = re.finditer(r'd="M ([\d.]+) ([\d.]+) [^"]*" clip-path', svg)
        left, top, right, bottom = found["box"]
        first = np.log10(values[0]) if found["log"] else values[0]
        x = left + (1 - found["x"][0]) / (found["x"][1] - found["x"][0]) * (right - left)
        share = (first - found["y"][0]) / (found["y"][1] - found["y"][0])
        y = bottom - share * (bottom - top)
        assert [float(path[1]), float(path[2])] == pytest.approx([x, y], abs=0.02)
