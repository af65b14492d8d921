"""Runs for a reader: a run's report, comparisons, and tables for a terminal.

Importing this is cheap: matplotlib, jinja2 and rich are loaded when something is drawn or written.
"""

from fedsys.report.comparison_page import render_comparison
from fedsys.report.partition_figure import partition_picture
from fedsys.report.run_page import render
from fedsys.report.svg import figure_svg
from fedsys.report.tables import compare_text, run_table

__all__ = [
    "compare_text",
    "figure_svg",
    "partition_picture",
    "render",
    "render_comparison",
    "run_table",
]
