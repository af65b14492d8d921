"""Comparisons: what differs, what came of it, and who was there first."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from rich.console import Console, RenderableType

from fedsys.compare import compare_text, comparison, differences, render_comparison, run_table
from fedsys.errors import StorageError, UsageError
from fedsys.experiment import Experiment
from fedsys.local import Adam, Local
from fedsys.runs import Run


def fake_run(
    folder: Path,
    accuracy: Sequence[float] = (0.5, 0.8, 0.9),
    *,
    facts: dict[str, Any] | None = None,
    metric: str = "accuracy",
    **options: Any,
) -> Run:
    """The least that a run leaves behind: an experiment, facts, and a line a round."""
    run = Run.create(folder, Experiment(**{"rounds": len(accuracy) or 1, **options}))
    said = {"status": "done", "created": "2026-11-21T01:39:51+00:00", "task": "digits"}
    run.say({**said, "clients": 100, "cohort": 10, "xla": True, "seconds": 12.5, **(facts or {})})
    for number, value in enumerate(accuracy, 1):
        line = {"round": number, "clients": 10, "admitted": 10, "refused": 0, "moved": True}
        run.record({**line, "train_loss": 1 / number, f"test_{metric}": value, "seconds": 2.0})
    return run


def printed(shown: RenderableType, width: int = 120) -> str:
    console = Console(width=width, no_color=True, file=io.StringIO())
    with console.capture() as captured:
        console.print(shown)
    return captured.get()


def row(text: str, label: str) -> list[str]:
    """The cells of a line of a table, split at two spaces or more."""
    line = next(line for line in text.splitlines() if line.strip().startswith(label))
    return re.split(r"\s{2,}", line.strip())


def test_differences_are_those_of_the_experiments_and_then_of_the_machine(tmp_path: Path):
    runs = [
        fake_run(tmp_path / "a"),
        fake_run(tmp_path / "b", strategy="fedprox:0.1", facts={"xla": False}),
        fake_run(tmp_path / "c", partition="dirichlet:0.5", seed=3),
    ]
    assert differences(runs) == [
        ("seed", [0, 0, 3]),
        ("strategy.name", ["fedavg", "fedprox", "fedavg"]),
        ("strategy.mu", [None, 0.1, None]),
        ("partition.name", [None, None, "dirichlet"]),
        ("partition.alpha", [None, None, 0.5]),
        ("xla", [True, False, True]),
    ]
    assert differences(runs[:1] * 2) == []


def test_the_target_is_what_all_reached_and_counts_from_the_first_round_there(tmp_path: Path):
    runs = [
        fake_run(tmp_path / "a", [0.5, 0.91, 0.95, 0.94]),
        fake_run(tmp_path / "b", [0.3, 0.6, 0.9056, 0.8]),
    ]
    found = comparison(runs)
    assert found.metric == "accuracy"
    assert found.target == 0.905
    first, second = found.outcomes
    assert (first.reached, first.reached_seconds) == (2, 4.0)
    assert (second.reached, second.reached_seconds) == (3, 6.0)
    assert first.final == {"accuracy": 0.94}
    assert first.best == {"accuracy": (3, 0.95)}
    assert (first.rounds, first.seconds, first.round_seconds) == (4, 12.5, 2.0)


@pytest.mark.parametrize(
    ("bests", "target"),
    [((0.9, 0.57), 0.57), ((1.0, 1.0), 1.0), ((0.0, 0.4), 0.0), ((0.12345, 0.2), 0.123)],
)
def test_every_run_reaches_the_target(tmp_path: Path, bests: tuple[float, ...], target: float):
    runs = [fake_run(tmp_path / str(number), [top]) for number, top in enumerate(bests)]
    found = comparison(runs)
    assert found.target == target
    assert [outcome.reached for outcome in found.outcomes] == [1, 1]


@pytest.mark.parametrize(
    ("bests", "target"),
    [((0.3, 0.12345), 0.3), ((0.012341, 0.001), 0.0124), ((123456.0, 5.0), 124000)],
)
def test_of_a_loss_less_is_better(tmp_path: Path, bests: tuple[float, ...], target: float):
    runs = [
        fake_run(tmp_path / str(number), [2e6, low, low + 1], metric="loss")
        for number, low in enumerate(bests)
    ]
    found = comparison(runs)
    assert found.metric == "loss"
    assert found.target == pytest.approx(target)
    assert [outcome.reached for outcome in found.outcomes] == [2, 2]
    assert [outcome.best["loss"] for outcome in found.outcomes] == [(2, low) for low in bests]


def test_runs_without_a_metric_in_common_have_no_target(tmp_path: Path):
    runs = [
        fake_run(tmp_path / "a"),
        fake_run(tmp_path / "b", metric="loss", facts={"task": "prices"}),
    ]
    found = comparison(runs)
    assert (found.metric, found.target) == ("", None)
    assert found.metrics == ("accuracy", "loss")
    assert "The runs learn different tasks: their metrics do not compare." in found.notes
    assert "Rounds to" not in printed(compare_text(runs))
    render_comparison(runs)


def test_mistakes_are_one_line(tmp_path: Path):
    run = fake_run(tmp_path / "a")
    with pytest.raises(UsageError, match="compare needs at least two runs"):
        comparison([run])
    fresh = Run.create(tmp_path / "fresh", Experiment())
    for compare in (comparison, compare_text, render_comparison):
        with pytest.raises(StorageError, match=r"^fresh: has no metrics to compare: .*$"):
            compare([run, fresh])


def test_the_text_has_a_column_a_run_and_marks_the_best(tmp_path: Path):
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


def test_the_page_is_one_sound_file_with_a_line_a_run(tmp_path: Path):
    evil = "<script>alert('x')</script>"
    runs = [
        fake_run(tmp_path / "first", facts={"task": evil}),
        fake_run(tmp_path / "_second&<i>", strategy="scaffold", facts={"task": evil}),
    ]
    told = render_comparison(runs)
    assert told == render_comparison(runs)
    HTMLParser().feed(told)
    assert evil not in told
    assert "&lt;script&gt;" in told
    assert "<i>" not in told
    assert not re.search(r'(?:src|href)="(?!#|data:image/png)', told)
    for picture in re.findall(r"<svg xmlns.*?</svg>", told, re.DOTALL):
        ElementTree.fromstring(picture)
    hovers = re.findall(r'<script type="application/json">(.*?)</script>', told, re.DOTALL)
    accuracy = json.loads(hovers[0])
    assert [line["label"] for line in accuracy["lines"]] == ["fedavg", "scaffold"]
    assert accuracy["lines"][0]["values"] == [0.5, 0.8, 0.9]
    assert "Test accuracy by round" in told
    assert "strategy.name" in told


def test_labels_say_what_differs_and_else_the_name(tmp_path: Path):
    def labels(*runs: Run) -> list[str]:
        return [outcome.label for outcome in comparison(runs).outcomes]

    plain = fake_run(tmp_path / "plain")
    weak = fake_run(tmp_path / "weak", strategy="fedprox:0.01")
    strong = fake_run(tmp_path / "strong", strategy="fedprox:0.1")
    longer = fake_run(tmp_path / "longer", [0.5, 0.6, 0.7, 0.8])
    adam = fake_run(tmp_path / "adam", strategy="fedadam:0.01")
    assert labels(plain, weak) == ["fedavg", "fedprox, mu 0.01"]
    assert labels(weak, strong) == ["mu 0.01", "mu 0.1"]
    assert labels(plain, adam) == ["fedavg", "fedadam"]
    assert labels(plain, longer) == ["plain", "longer"]
    assert labels(weak, strong, adam) == ["weak", "strong", "adam"]
    faulty = fake_run(tmp_path / "faulty", faults="nan:0.2")
    assert labels(strong, faulty) == ["fedprox, mu 0.1", "fedavg, faults nan, faults.share 0.2"]
    slow = fake_run(tmp_path / "slow", local=Local(rate=0.01, optimizer=Adam()))
    assert labels(plain, slow)[1].startswith("local.rate 0.01, local.optimizer adam")


def test_what_to_mind_is_told(tmp_path: Path):
    runs = [
        fake_run(tmp_path / "a", evaluate=2),
        fake_run(tmp_path / "b", facts={"status": "stopped"}),
    ]
    with open(runs[0].folder / "metrics.jsonl", "a") as file:
        file.write("{damaged\n")
    notes = comparison(runs).notes
    assert any("different rounds" in note for note in notes)
    assert "b is not done (stopped, after round 3)." in notes
    assert "a: metrics.jsonl: line 4 is damaged: the rounds end before it" in notes
    assert all(note in printed(compare_text(runs), 200) for note in notes)


def test_more_runs_than_colours_have_looks_of_their_own(tmp_path: Path):
    runs = [fake_run(tmp_path / f"run{seed}", seed=seed) for seed in range(8)]
    told = render_comparison(runs)
    found = re.findall(r'<script type="application/json">(.*?)</script>', told, re.DOTALL)
    looks = {(line["colour"], line["dash"]) for line in json.loads(found[0])["lines"]}
    assert len(looks) == 8


def test_the_table_of_runs_has_a_line_each_damaged_or_not(tmp_path: Path):
    fine = fake_run(tmp_path / "fine", strategy="fedprox:0.1")
    failed = fake_run(tmp_path / "failed", facts={"status": "failed", "error": "no\nluck [red]"})
    broken = fake_run(tmp_path / "broken")
    (broken.folder / "run.json").write_text("{")
    bare = fake_run(tmp_path / "bare")
    (bare.folder / "run.json").unlink()
    (bare.folder / "metrics.jsonl").unlink()
    wrong = fake_run(tmp_path / "wrong")
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


def test_a_narrow_terminal_loses_no_number(tmp_path: Path):
    text = printed(run_table([fake_run(tmp_path / "digits-fedavg-0123abcd")]), 80)
    assert "90.00%" in text
    assert "3/3" in text
    assert "no runs yet" in printed(run_table([]))
