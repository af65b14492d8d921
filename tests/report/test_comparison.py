"""Comparisons: what differs, what came of it, and who was there first."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fedsys.errors import StorageError, UsageError
from fedsys.experiment import Experiment
from fedsys.local import Adam, Local
from fedsys.report.comparison import comparison, differences
from fedsys.report.comparison_page import render_comparison
from fedsys.report.contents import outline
from fedsys.report.tables import compare_text
from fedsys.runs import Run

VALUES = (0.5, 0.8, 0.9)


def test_differences_are_those_of_the_experiments_and_then_of_the_machine(
    fake_run: Callable[..., Run], tmp_path: Path
):
    runs = [
        fake_run(tmp_path / "a", VALUES),
        fake_run(tmp_path / "b", VALUES, strategy="fedprox:0.1", facts={"xla": False}),
        fake_run(tmp_path / "c", VALUES, partition="dirichlet:0.5", seed=3),
    ]
    assert differences([outline(run) for run in runs]) == [
        ("seed", [0, 0, 3]),
        ("strategy.name", ["fedavg", "fedprox", "fedavg"]),
        ("strategy.mu", [None, 0.1, None]),
        ("partition.name", [None, None, "dirichlet"]),
        ("partition.alpha", [None, None, 0.5]),
        ("xla", [True, False, True]),
    ]
    assert differences([outline(runs[0])] * 2) == []


def test_the_target_is_what_all_reached_and_counts_from_the_first_round_there(
    fake_run: Callable[..., Run], tmp_path: Path
):
    runs = [
        fake_run(tmp_path / "a", [0.5, 0.91, 0.95, 0.94], facts={"seconds": 12.5}),
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
def test_every_run_reaches_the_target(
    fake_run: Callable[..., Run], tmp_path: Path, bests: tuple[float, ...], target: float
):
    runs = [fake_run(tmp_path / str(number), [top]) for number, top in enumerate(bests)]
    found = comparison(runs)
    assert found.target == target
    assert [outcome.reached for outcome in found.outcomes] == [1, 1]


@pytest.mark.parametrize(
    ("bests", "target"),
    [((0.3, 0.12345), 0.3), ((0.012341, 0.001), 0.0124), ((123456.0, 5.0), 124000)],
)
def test_of_a_loss_less_is_better(
    fake_run: Callable[..., Run], tmp_path: Path, bests: tuple[float, ...], target: float
):
    runs = [
        fake_run(tmp_path / str(number), [2e6, low, low + 1], metrics=("loss",))
        for number, low in enumerate(bests)
    ]
    found = comparison(runs)
    assert found.metric == "loss"
    assert found.target == pytest.approx(target)
    assert [outcome.reached for outcome in found.outcomes] == [2, 2]
    assert [outcome.best["loss"] for outcome in found.outcomes] == [(2, low) for low in bests]


def test_runs_without_a_metric_in_common_have_no_target(
    fake_run: Callable[..., Run], printed: Callable[..., str], tmp_path: Path
):
    runs = [
        fake_run(tmp_path / "a", VALUES),
        fake_run(tmp_path / "b", VALUES, metrics=("loss",), facts={"task": "prices"}),
    ]
    found = comparison(runs)
    assert (found.metric, found.target) == ("", None)
    assert found.metrics == ("accuracy", "loss")
    assert "The runs learn different tasks: their metrics do not compare." in found.notes
    assert "Rounds to" not in printed(compare_text(runs))
    render_comparison(runs)


def test_mistakes_are_one_line(fake_run: Callable[..., Run], tmp_path: Path):
    run = fake_run(tmp_path / "a", VALUES)
    with pytest.raises(UsageError, match="compare needs at least two runs"):
        comparison([run])
    fresh = Run.create(tmp_path / "fresh", Experiment())
    for compare in (comparison, compare_text, render_comparison):
        with pytest.raises(StorageError, match=r"^fresh: has no metrics to compare: .*$"):
            compare([run, fresh])


def test_labels_say_what_differs_and_else_the_name(fake_run: Callable[..., Run], tmp_path: Path):
    def labels(*runs: Run) -> list[str]:
        return [outcome.label for outcome in comparison(runs).outcomes]

    plain = fake_run(tmp_path / "plain", VALUES)
    weak = fake_run(tmp_path / "weak", VALUES, strategy="fedprox:0.01")
    strong = fake_run(tmp_path / "strong", VALUES, strategy="fedprox:0.1")
    longer = fake_run(tmp_path / "longer", [0.5, 0.6, 0.7, 0.8])
    adam = fake_run(tmp_path / "adam", VALUES, strategy="fedadam:0.01")
    assert labels(plain, weak) == ["fedavg", "fedprox, mu 0.01"]
    assert labels(weak, strong) == ["mu 0.01", "mu 0.1"]
    assert labels(plain, adam) == ["fedavg", "fedadam"]
    assert labels(plain, longer) == ["plain", "longer"]
    assert labels(weak, strong, adam) == ["weak", "strong", "adam"]
    faulty = fake_run(tmp_path / "faulty", VALUES, faults="nan:0.2")
    assert labels(strong, faulty) == ["fedprox, mu 0.1", "fedavg, faults nan, faults.share 0.2"]
    slow = fake_run(tmp_path / "slow", VALUES, local=Local(rate=0.01, optimizer=Adam()))
    assert labels(plain, slow)[1].startswith("local.rate 0.01, local.optimizer adam")


def test_what_to_mind_is_told(
    fake_run: Callable[..., Run], printed: Callable[..., str], tmp_path: Path
):
    runs = [
        fake_run(tmp_path / "a", VALUES, evaluate=2),
        fake_run(tmp_path / "b", VALUES, facts={"status": "stopped"}),
    ]
    with open(runs[0].folder / "metrics.jsonl", "a") as file:
        file.write("{damaged\n")
    notes = comparison(runs).notes
    assert any("different rounds" in note for note in notes)
    assert "b is not done (stopped, after round 3)." in notes
    assert "a: metrics.jsonl: line 4 is damaged: the rounds end before it" in notes
    assert all(note in printed(compare_text(runs), 200) for note in notes)
