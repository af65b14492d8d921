"""The comparison of runs as one HTML file, in the manner of a run's report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fedsys.report.comparison import Comparison, comparison, lines_of, said
from fedsys.report.contents import series
from fedsys.report.headline import heading
from fedsys.report.page import Picture, curve, page
from fedsys.report.run_figures import Line
from fedsys.report.style import COLOURS, DASHES
from fedsys.report.wording import word

if TYPE_CHECKING:
    from fedsys.runs import Run


def render_comparison(runs: Sequence[Run]) -> str:
    """The comparison as one HTML file that needs no other, in the manner of a run's report."""
    found = comparison(runs)
    parts = [heading(outcome.contents) for outcome in found.outcomes]
    return page(
        "compare.html.j2",
        found=found,
        common=[part for part in parts[0] if all(part in other for other in parts)],
        looks=[_look(number) for number in range(len(runs))],
        lines=lines_of(found),
        differences=[(key, [said(value) for value in values]) for key, values in found.differences],
        curves=_curves(found),
    )


def _look(number: int) -> tuple[int, int]:
    """Colour and dash of a run's lines."""
    return number % len(COLOURS), number // len(COLOURS) % len(DASHES)


def _curves(found: Comparison) -> list[Picture]:
    """Each metric by round, a line a run: of the test set, of the training, of the worst client."""
    wanted = [(name, f"test_{name}", f"Test {word(name)}") for name in found.metrics]
    wanted.append(("loss", "train_loss", "Training loss"))
    if found.metric:
        worst = f"clients_{found.metric}_worst"
        wanted.append((found.metric, worst, f"Worst client's {word(found.metric)}"))
    pictures = []
    for name, key, label in wanted:
        lines = _overlaid(found, key)
        if key.startswith("clients_"):  # taken at the end in any case: by round only if asked for
            lines = [line for line in lines if len(line.rounds) > 1]
        if lines:
            pictures.append(curve(lines, name, f"{label} by round"))
    return pictures


def _overlaid(found: Comparison, key: str) -> list[Line]:
    """A line for each run that has the metric."""
    lines = []
    for number, outcome in enumerate(found.outcomes):
        colour, dash = _look(number)
        line = Line(outcome.label, *series(outcome.contents.records, key), colour=colour, dash=dash)
        lines += [line] if len(line.rounds) else []
    return lines
