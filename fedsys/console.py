"""What a run shows on a terminal while it goes, and at its end."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from rich.console import Console as Screen
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from fedsys.rounds import State
from fedsys.runs import Run

SAY_SECONDS = 5.0
"""How often a line is printed where there is no terminal to draw a bar on."""


class Console:
    """A watcher that draws a progress bar on standard error, or writes lines where that is no
    terminal. Standard output gets the final table, or one JSON object."""

    def __init__(self, *, quiet: bool = False, as_json: bool = False) -> None:
        self._quiet = quiet
        self._as_json = as_json
        self._screen = _screen(stderr=True)
        self._progress: Progress | None = None
        self._rounds = 0
        self._spoken = 0.0

    @contextmanager
    def loading(self) -> Iterator[None]:
        """Shows that the slow imports are under way."""
        with self._screen.status("loading TensorFlow") if not self._quiet else nullcontext():
            with _hushed():
                import tensorflow  # noqa: F401
            yield

    def begun(self, run: Run, state: State) -> None:
        facts = run.facts
        self._rounds = run.experiment.rounds
        if self._quiet:
            return
        self._screen.print(
            f"{facts['task']}: {facts['clients']:,} clients, {facts['cohort']:,} a round, "
            f"{facts['parameters']:,} parameters, {facts['where']}"
        )
        for line in facts["partition_lines"][1:]:
            self._screen.print(line, style="dim")
        if state.round:
            self._screen.print(f"going on after round {state.round} of {self._rounds}")
        if self._screen.is_terminal:
            self._progress = Progress(
                TextColumn("round"),
                MofNCompleteColumn(),
                BarColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.description}"),
                console=self._screen,
            )
            self._progress.start()
            self._progress.add_task("", total=self._rounds, completed=state.round)

    def round(self, record: dict[str, Any]) -> None:
        line = ", ".join(_shown(record))
        if self._progress is not None:
            self._progress.update(
                self._progress.task_ids[0], completed=record["round"], description=line
            )
        elif not self._quiet and time.monotonic() - self._spoken > SAY_SECONDS:
            self._spoken = time.monotonic()
            print(f"round {record['round']}/{self._rounds}: {line}", file=sys.stderr)

    def said(self, line: str) -> None:
        self._screen.print(f"fedsys: {line}", style="yellow", soft_wrap=True)

    def finished(self, run: Run) -> None:
        """Shows what came of the run."""
        facts, last = run.facts, run.metrics
        if facts["status"] != "done":
            self.said(f"stopped after round {last['round']}; go on with --resume {run.folder}")
        if self._as_json:
            print(json.dumps(_summary(run)))
            return
        table = Table(title=run.name, title_justify="left", show_header=False)
        table.add_row("rounds", f"{last['round']} in {facts['seconds']:.1f} s")
        for name, value in last.items():
            if name.startswith(("test_", "train_", "clients_")):
                shown = "not a number" if value is None else f"{value:.4f}"
                table.add_row(name.replace("_", " "), shown)
        refused = sum(record["refused"] for record in run.records)
        if refused:
            table.add_row("refused updates", str(refused))
        screen = _screen()
        screen.print(table)
        screen.print(f"report: {run.folder / 'report.html'}", soft_wrap=True)

    def __enter__(self) -> Console:
        return self

    def __exit__(self, *error: object) -> None:
        """Takes the progress bar off the screen, which gets its cursor back."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


def _screen(*, stderr: bool = False) -> Screen:
    """A screen that prints names and paths as they are: `[1]` is no markup."""
    return Screen(stderr=stderr, markup=False, emoji=False, highlight=False)


@contextmanager
def _hushed() -> Iterator[None]:
    """Keeps what native code says about itself while it is loaded off standard error."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _shown(record: dict[str, Any]) -> list[str]:
    """The few numbers of a round that are worth a line."""
    names = ("train_loss", "test_loss", "test_accuracy", "test_auc")
    said = [f"{name.replace('_', ' ')} {record[name]:.4f}" for name in names if name in record]
    return said + ([f"{record['refused']} refused"] if record["refused"] else [])


def _summary(run: Run) -> dict[str, Any]:
    metrics = run.metrics
    return {
        "run": run.name,
        "rounds": metrics["round"],
        "metrics": metrics,
        "seconds": run.facts["seconds"],
        "folder": str(run.folder),
    }
