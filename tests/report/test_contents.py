"""Contents: what can be read of a folder, and what its metrics say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fedsys.report.contents import falls, read
from fedsys.runs import Run


def test_rounds_end_before_a_damaged_line(fake_run: Callable[..., Run], tmp_path: Path):
    run = fake_run(tmp_path / "run", rounds=5)
    lines = (run.folder / "metrics.jsonl").read_text().split("\n")
    lines[2] = lines[2][:40]
    (run.folder / "metrics.jsonl").write_text("\n".join(lines))
    found = read(run)
    assert found.rounds == 2
    assert found.missing == ("metrics.jsonl: line 3 is damaged: the rounds end before it",)


def test_of_a_loss_less_is_better():
    assert falls("loss")
    assert not falls("accuracy")
