"""The report of an export as text, for a terminal and a file."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fedsys.edge.report.figures import Calibration, Check, Figures, Layer, Score
from fedsys.edge.report.wording import (
    bytes_said,
    count_said,
    decibels,
    dimensions,
    lost,
    percent,
    points,
)
from fedsys.report.wording import many, shown, title, word

if TYPE_CHECKING:
    from rich.console import Group, RenderableType
    from rich.table import Table

WIDTH = 118
"""Letters in a line of report.txt."""


def headline(figures: Figures) -> list[dict[str, str]]:
    """The few numbers that matter most: label, value, note."""
    flash, ram, score = figures.flash, figures.ram, figures.score
    tiles = [
        _tile("Flash", bytes_said(flash.total),
              f"{bytes_said(flash.code)} of it code" if flash.code is not None
              else "without the code"),
        _tile("RAM", bytes_said(ram.total), f"{bytes_said(ram.arena)} of it arena"),
    ]  # fmt: skip
    if score is not None:
        if score.drop is not None:
            note = f"float {shown(score.metric, score.floating)}"
            if score.metric == "accuracy":
                note += f", {lost(score.drop)}"
            name = f"{title(score.metric)}, {figures.method}"
            tiles.append(_tile(name, shown(score.metric, score.exported), note))
        if score.agreement is not None:
            tiles.append(
                _tile("Agreement", f"{100 * score.agreement:.2f}%", "decide as the float model")
            )
    if figures.instructions is not None:
        note = "an inference" + _faster(figures)
        tiles.append(_tile("Instructions", count_said(figures.instructions), note))
    tiles.append(_tile("Work", count_said(figures.macs), "multiply-accumulates"))
    tiles.append(
        _tile("Parameters", f"{figures.parameters:,}", f"file of {bytes_said(figures.file)}")
    )
    return tiles


def _faster(figures: Figures) -> str:
    """`; 2.23 M at -O3`, where the same core needs less with other options of the compiler."""
    for check in figures.checks:
        core, _, option = check.place.partition(" ")
        needed = check.instructions or 0
        if core == figures.target and 0 < needed < (figures.instructions or 0):
            return f"; {count_said(needed)} at {option}"
    return ""


def _tile(label: str, value: str, note: str) -> dict[str, str]:
    return {"label": label, "value": value, "note": note}


def score_pairs(score: Score) -> list[tuple[str, str]]:
    """What is known of the accuracy, by name."""
    name, drop = title(score.metric), score.drop
    said = []
    if drop is not None:
        said = [
            (f"{name} of the float model", shown(score.metric, score.floating)),
            (f"{name} on the chip", shown(score.metric, score.exported)),
        ]
        if score.metric == "accuracy":
            said.append(("Lost" if drop >= 0 else "Won", points(abs(drop))))
    if score.worst is not None:
        said.append(("Lost at the worst client", points(score.worst)))
    if score.agreement is not None:
        said.append(("Both decide alike", f"{100 * score.agreement:.2f}% of rows"))
    whose = f" of {many(score.clients, 'client')}" if score.clients else ""
    return [*said, ("Rows", f"{score.rows:,}{whose}"), ("Measured", score.where)]


def calibration_pairs(found: Calibration) -> list[tuple[str, str]]:
    """What is known of the calibration, by name."""
    said = [("Rule", found.rule)]
    if found.federated:
        said.append(("Clients", f"{found.clients:,}"))
    said.append(("Rows", f"{found.rows:,}"))
    if found.payload is not None:
        said.append(("Sent by a client", bytes_said(found.payload)))
    if found.refused:
        listed = ", ".join(f"{count} {reason}" for reason, count in found.refused.items())
        said.append(("Refused", listed))
    if found.note:
        said.append(("Note", found.note))
    return [*said, ("Reveals", found.reveals)]


def render_text(figures: Figures, width: int = WIDTH) -> str:
    """The report as plain text."""
    from rich.console import Console

    screen = Console(
        file=io.StringIO(), width=width, color_system=None, markup=False, emoji=False,
        highlight=False,
    )  # fmt: skip
    screen.print(report_text(figures))
    file: Any = screen.file
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines()) + "\n"


def show(figures: Figures) -> None:
    """Prints the report: in colours on a terminal, as plain text into a file."""
    from rich.console import Console

    screen = Console(markup=False, emoji=False, highlight=False)
    if screen.is_terminal:
        screen.print(report_text(figures))
    else:
        print(render_text(figures), end="")


def report_text(figures: Figures) -> Group:
    """The report for a terminal."""
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = [
        Text(f"{figures.name}: {figures.method} for {figures.target}", "bold"),
        Text(f"from {figures.source}", "dim"),
        Text(),
        layer_table(figures.layers),
        Text(),
        _sums(figures),
    ]
    if figures.checks:
        parts += [Text(), _check_table(figures.checks)]
    if figures.boards:
        parts += [Text(), _board_table(figures)]
    parts += [Text(f"note: {note}", "yellow") for note in figures.notes]
    parts += [Text(f"over budget: {line}", "red") for line in figures.broken]
    return Group(*parts)


def layer_table(layers: Sequence[Layer]) -> Table:
    """A line a layer, and their sum."""
    from rich.text import Text

    noise = any(layer.sqnr is not None for layer in layers)
    counted = any(layer.instructions is not None for layer in layers)
    table = _table("layer", "operator", "output")
    for name in ["MACs", "parameters", "weights", "activation"]:
        table.add_column(name, justify="right", no_wrap=True)
    if noise:
        table.add_column("SQNR dB", justify="right", no_wrap=True)
    if counted:
        table.add_column("instructions", justify="right", no_wrap=True)
    for layer in layers:
        cells = [
            layer.name,
            layer.operator,
            dimensions(layer.shape),
            count_said(layer.macs) if layer.macs else "",
            f"{layer.parameters:,}" if layer.parameters else "",
            bytes_said(layer.weights) if layer.weights else "",
            bytes_said(layer.activation),
            *([decibels(layer.sqnr)] if noise else []),
            *([count_said(layer.instructions)] if counted else []),
        ]
        table.add_row(*map(Text, cells))
    table.add_section()
    sums = [
        "all",
        "",
        "",
        count_said(sum(layer.macs for layer in layers)),
        f"{sum(layer.parameters for layer in layers):,}",
        bytes_said(sum(layer.weights for layer in layers)),
    ]
    table.add_row(*(Text(cell, "bold") for cell in sums))
    return table


def _sums(figures: Figures) -> Table:
    """Flash, RAM, work, accuracy, calibration and budgets: a line each."""
    from rich.table import Table
    from rich.text import Text

    flash, ram = figures.flash, figures.ram
    code = bytes_said(flash.code) if flash.code is not None else "not measured"
    stack = bytes_said(ram.stack) if ram.stack is not None else "not measured"
    rows = [
        ("flash", f"{bytes_said(flash.total)}: weights {bytes_said(flash.weights)}, tables "
                  f"{bytes_said(flash.tables)}, code {code}"),
        ("RAM", f"{bytes_said(ram.total)}: arena {bytes_said(ram.arena)}, input and output "
                f"{bytes_said(ram.io)}, stack {stack}"),
        ("work", f"{count_said(figures.macs)} multiply-accumulates"
                 + (f", {count_said(figures.instructions)} instructions in the emulator"
                    if figures.instructions is not None else "")),
    ]  # fmt: skip
    if figures.score is not None:
        rows.append(("quality", _score_line(figures.score)))
    if figures.calibration is not None:
        pairs = calibration_pairs(figures.calibration)
        rows.append(("calibration", "; ".join(f"{key.lower()}: {value}" for key, value in pairs)))
    for what, allowed, got in figures.budgets:
        rows.append(("budget", f"{what} {got}, at most {allowed}"))
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for key, line in rows:
        table.add_row(Text(key, "dim"), Text(line))
    return table


def _score_line(score: Score) -> str:
    said = []
    if score.drop is not None:
        line = (
            f"{word(score.metric)} {shown(score.metric, score.exported)} on the chip, "
            f"{shown(score.metric, score.floating)} in float"
        )
        said.append(line + (f": {lost(score.drop)}" if score.metric == "accuracy" else ""))
    if score.agreement is not None:
        said.append(f"both decide alike in {100 * score.agreement:.2f}% of {score.rows:,} rows")
    return "; ".join(said)


def check_line(check: Check) -> str:
    """What came of a check, in a few words."""
    if check.status == "skipped":
        return check.note
    said = []
    if check.values is not None:
        wrong = check.mismatches or 0
        said.append(f"{check.values:,} values, {wrong:,} {'differs' if wrong == 1 else 'differ'}")
    if check.instructions is not None:
        said.append(f"{count_said(check.instructions)} instructions an inference")
    if check.note:
        said.append(check.note)
    return ", ".join(said)


def _check_table(checks: Sequence[Check]) -> Table:
    from rich.text import Text

    colours = {"passed": "green", "failed": "red"}
    table = _table("verified on", "", "against the reference")
    for check in checks:
        style = colours.get(check.status, "yellow")
        table.add_row(Text(check.place), Text(check.status, style), Text(check_line(check)))
    return table


def _board_table(figures: Figures) -> Table:
    from rich.text import Text

    table = _table("board", "core")
    table.add_column("flash", justify="right", no_wrap=True)
    table.add_column("RAM", justify="right", no_wrap=True)
    table.add_column("")
    for fit in figures.boards:
        rooms = ((fit.flash, fit.board.flash), (fit.ram, fit.board.ram))
        cells = [f"{percent(part)} of {bytes_said(room)}" for part, room in rooms]
        verdict = Text("fits", "green") if fit.fits else Text("too small", "red")
        table.add_row(Text(fit.board.name), Text(fit.board.core), *map(Text, cells), verdict)
    return table


def _table(*columns: str) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for column in columns:
        table.add_column(column, overflow="fold")
    return table
