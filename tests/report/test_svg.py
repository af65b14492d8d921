"""SVG: one harmless element, and the same text every time."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from xml.etree import ElementTree

import matplotlib
import numpy as np

from fedsys.partition import Partition
from fedsys.report.partition_figure import partition_picture
from fedsys.report.svg import figure_svg


def test_svg_is_one_element_with_text_and_without_a_date():
    before = dict(matplotlib.rcParams)
    labels = np.arange(60) % 3
    partition = Partition.of(np.arange(60) % 10, 10)
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
import fedsys.report
from fedsys.report import figure_svg, partition_picture
from fedsys.partition import Partition
assert "matplotlib" not in sys.modules, "importing fedsys.report must not import matplotlib"
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


def test_class_names_may_hold_anything():
    labels = np.arange(6) % 3
    partition = Partition.of(np.arange(6) % 2, 2)
    figure = partition_picture(partition, labels, ("$x_$", "\0a", "\N{CJK UNIFIED IDEOGRAPH-5927}"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        svg = figure_svg(figure)
    ElementTree.fromstring(svg)
    assert ">$x_$<" in svg
