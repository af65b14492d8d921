"""What a run shows: lines, or a bar where there is a terminal."""

import io
import os
import pty
import subprocess
import sys
import time
from pathlib import Path

import pytest

import fedsys
from fedsys.console import Console
from fedsys.errors import TrainingError
from fedsys.experiment import Experiment
from fedsys.simulation import simulate

pytestmark = pytest.mark.usefixtures("no_pictures")

SMALL = {
    "clients": 6,
    "cohort": 3,
    "rounds": 3,
    "compiler": "graph",
    "local": fedsys.Local(epochs=1),
}
HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"


def test_lines_without_a_terminal(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("fedsys.console.SAY_SECONDS", 0.0)
    with Console() as console:
        run = simulate(Experiment(**SMALL), folder=tmp_path / "run", watcher=console)
    assert capsys.readouterr().out == ""
    console.finished(run)
    captured = capsys.readouterr()
    assert captured.err == ""
    assert "rounds" in captured.out and "test accuracy" in captured.out


def test_a_line_every_few_seconds(tmp_path, capsys, monkeypatch):
    experiment = Experiment(**{**SMALL, "faults": "nan:0.4", "seed": 1})
    for pause, wanted in ((0.0, 3), (1e9, 1)):
        monkeypatch.setattr("fedsys.console.SAY_SECONDS", pause)
        monkeypatch.setattr(time, "monotonic", lambda clock=time.monotonic: 2e9 + clock())
        simulate(experiment, folder=tmp_path / str(wanted), watcher=Console())
        told = [x for x in capsys.readouterr().err.splitlines() if x.startswith("round ")]
        assert len(told) == wanted
        assert told[0].startswith("round 1/3: train loss ")
        monkeypatch.undo()
    assert "refused" in "".join(told) or experiment.faults is not None


def test_quiet_says_only_what_has_to_be_known(tmp_path, capsys):
    console = Console(quiet=True)
    simulate(Experiment(**SMALL), folder=tmp_path / "run", watcher=console)
    assert capsys.readouterr().err == ""
    console.said("a warning")
    assert capsys.readouterr().err == "fedsys: a warning\n"


def test_names_are_printed_as_they_are(tmp_path, capsys):
    folder = tmp_path / "[bold]my[/] :cat: [1]"
    console = Console()
    run = simulate(Experiment(**SMALL), folder=folder, watcher=console)
    console.finished(run)
    console.said(f"see {folder} [/nothing]")
    captured = capsys.readouterr()
    assert f"report: {folder}/report.html" in captured.out
    assert folder.name in captured.out.splitlines()[0]
    assert captured.err.endswith(f"see {folder} [/nothing]\n")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_bar_is_taken_away_after_an_error(tmp_path, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    local = fedsys.Local(epochs=1, rate=1e30)
    with pytest.raises(TrainingError), Console() as console:
        simulate(Experiment(**{**SMALL, "local": local}), folder=tmp_path / "run", watcher=console)
    shown = screen.getvalue()
    assert HIDE in shown
    assert shown.rindex(SHOW) > shown.rindex(HIDE)


def test_a_terminal_gets_a_bar_and_its_cursor_back(tmp_path):
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [
            *(str(Path(sys.executable).parent / "fedsys"), "simulate", "--rounds", "30"),
            *("--clients", "6", "--cohort", "3"),
        ],
        stdout=follower,
        stderr=follower,
        cwd=tmp_path,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
    )
    os.close(follower)
    shown = b""
    while True:
        try:
            part = os.read(leader, 65536)
        except OSError:  # Linux says so at the end
            break
        if not part:
            break
        shown += part
    os.close(leader)
    assert process.wait() == 0
    text = shown.decode()
    assert "30/30" in text and "train loss" in text
    assert text.rindex(SHOW) > text.rindex(HIDE)
    assert "report: runs/digits-fedavg-" in text
    assert "WARNING" not in text and "oneDNN" not in text
