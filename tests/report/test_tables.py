"""Tables for a terminal: that they lose no number, and mark the best."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from fedsys.report.tables import compare_text, run_table
from fedsys.runs import Run

VALUES = (0.5, 0.8, 0.9)


def row(text: str, label: str) -> list[str]:
    """The cells of a line of a table, split at two spaces or more."""
    line = next(line for line in text.splitlines() if line.strip().startswith(label))
    return re.split(r"\s{2,}", line.strip())


def test_the_text_has_a_column_a_run_and_marks_the_best(
    fake_run: Callable[..., Run], printed: Callable[..., str], tmp_path: Path
):
    runs = [
        fake_run(tmp_path / "first", [0.5, 0.91]),
        fake_run(tmp_path / "second[red]", [0.5, 0.95], strategy="scaffold"),
    ]
    text = printed(compare_text(runs))
    assert row(text, "first") == ["first", "second[red]"]
    assert row(text, "strategy.name") == ["strategy.name", "fedavg", "scaffold"]
    assert row(text, "Test accuracy") == ["Test accuracy", "91.00%", "95.00%"]
    assert row(text, "Rounds to 91% accuracy")[1:] == ["2", "2"]
    console = Console(width=120, force_terminal=True, file=io.StringIO())
    with console.capture() as captured:
        console.print(compare_text(runs))
    assert re.search(r"\x1b\[1m *95\.00%", captured.get())
    assert not re.search(r"\x1b\[1m *91\.00%", captured.get())


def test_the_table_of_runs_has_a_line_each_damaged_or_not(
    fake_run: Callable[..., Run], printed: Callable[..., str], tmp_path: Path
):
    fine = fake_run(tmp_path / "fine", VALUES, strategy="fedprox:0.1", facts={"seconds": 12.5})
    failed = fake_run(
        tmp_path / "failed", VALUES, facts={"status": "failed", "error": "no\nluck [red]"}
    )
    broken = fake_run(tmp_path / "broken", VALUES)
    (broken.folder / "run.json").write_text("{")
    bare = fake_run(tmp_path / "bare", VALUES)
    (bare.folder / "run.json").unlink()
    (bare.folder / "metrics.jsonl").unlink()
    wrong = fake_run(tmp_path / "wrong", VALUES)
    (wrong.folder / "experiment.toml").write_text("rounds = = 1")
    text = printed(run_table([fine, failed, broken, bare, wrong]), 140)
    assert row(text, "fine") == [
        "fine",
        "done",
        "digits",
        "fedprox",
        "3/3",
        "accuracy 90.00%",
        "12.5 s",
        "2026-11-21 01:39",
    ]
    lines = text.splitlines()
    assert len(lines) == 1 + 5 + 4
    assert "failed: no luck [red]" in lines
    assert any(line.startswith("broken: run.json: cannot be read") for line in lines)
    assert any(line.startswith("bare: run.json: is missing") for line in lines)
    assert any(line.startswith("wrong: experiment.toml: not TOML") for line in lines)
    assert row(text, "broken")[1] == row(text, "bare")[1] == row(text, "wrong")[1] == "damaged"


def test_a_narrow_terminal_loses_no_number(
    fake_run: Callable[..., Run], printed: Callable[..., str], tmp_path: Path
):
    text = printed(run_table([fake_run(tmp_path / "digits-fedavg-0123abcd", VALUES)]), 80)
    assert "90.00%" in text
    assert "3/3" in text
    assert "no runs yet" in printed(run_table([]))
