"""Runs in a terminal: all of them, a line each, and some of them compared, a column each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fedsys.report.comparison import comparison, lines_of, said
from fedsys.report.contents import Contents, final, metric_names, outline
from fedsys.report.wording import NOTHING, choice, day, duration, shown, word

if TYPE_CHECKING:
    from rich.console import RenderableType

    from fedsys.runs import Run


def run_table(runs: Sequence[Run]) -> RenderableType:
    """A line a run, for a terminal. A damaged folder has its line, too, which says why."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    if not runs:
        return Text("no runs yet: begin one with: fedsys simulate")
    table = Table(box=None, pad_edge=False)
    table.add_column("run", overflow="fold")
    table.add_column("status", no_wrap=True)
    table.add_column("task", overflow="fold")
    table.add_column("strategy", overflow="fold")
    table.add_column("rounds", no_wrap=True, justify="right")
    table.add_column("last", justify="right")
    table.add_column("time", justify="right")
    table.add_column("begun (UTC)")
    colours = {"done": "green", "failed": "red", "damaged": "red"}
    reasons = []
    for run in runs:
        found = outline(run)
        status, *cells = _listed(found)
        style = colours.get(status, "yellow")
        table.add_row(Text(found.name), Text(status, style), *map(Text, cells))
        why = _why(found)
        reasons += (
            [Text(f"{found.name}: {why}", style, no_wrap=True, overflow="ellipsis")] if why else []
        )
    return Group(table, *reasons)


def _listed(found: Contents) -> list[str]:
    """A run's cells in the table of runs, from its status on."""
    names = metric_names(found.records)
    last = (
        f"{word(names[0])} {shown(names[0], final(found.records, f'test_{names[0]}'))}"
        if names
        else ""
    )
    asked = found.table.get("rounds")
    seconds = found.facts.get("seconds")
    return [
        "damaged" if _damaged(found) else found.status,
        str(found.facts.get("task") or choice(found.table, "task")[0] or NOTHING),
        choice(found.table, "strategy")[0] or NOTHING,
        f"{found.rounds}/{asked}" if asked else str(found.rounds),
        last or NOTHING,
        duration(seconds if isinstance(seconds, int | float) else None),
        day(str(found.facts.get("created", NOTHING))).removesuffix(" UTC"),
    ]


def _damaged(found: Contents) -> bool:
    return not found.facts or not found.table


def _why(found: Contents) -> str:
    """Why a run is damaged or failed, in one line; nothing for the others."""
    if _damaged(found):
        return found.missing[0] if found.missing else "its folder says nothing"
    error = found.facts.get("error")
    return " ".join(str(error or "").split())


def compare_text(runs: Sequence[Run]) -> RenderableType:
    """The comparison for a terminal: a column a run, the best of each line in bold."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    found = comparison(runs)
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("", overflow="fold")
    for outcome in found.outcomes:
        table.add_column(Text(outcome.name), justify="right", overflow="fold")
    for key, values in found.differences:
        table.add_row(Text(key), *(Text(said(value)) for value in values))
    table.add_section()
    for label, cells, winners in lines_of(found):
        table.add_row(
            Text(label),
            *(
                Text(cell, style="bold" if number in winners else "")
                for number, cell in enumerate(cells)
            ),
        )
    return Group(table, *(Text(note, style="yellow") for note in found.notes))
