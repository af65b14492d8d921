"""Run folders as runs leave them, with numbers that are made up; what a terminal shows."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console, RenderableType

from fedsys.experiment import Experiment
from fedsys.partition import Partition
from fedsys.partitions import draw
from fedsys.report import figure_svg, partition_picture
from fedsys.runs import Run
from fedsys.task import Examples

DIGITS = tuple(str(digit) for digit in range(10))
LAYERS = [
    ["flatten", "Flatten", "(None, 64)", 0],
    ["dense", "Dense", "(None, 50)", 3250],
    ["dense_1", "Dense", "(None, 10)", 510],
]


@pytest.fixture(scope="session")
def fake_run() -> Callable[..., Run]:
    """Makes a folder such as a run leaves behind: see `_fake_run`."""
    return _fake_run


@pytest.fixture(scope="session")
def printed() -> Callable[..., str]:
    """Says what a terminal of some width shows."""

    def printed(shown: RenderableType, width: int = 120) -> str:
        console = Console(width=width, no_color=True, file=io.StringIO())
        with console.capture() as captured:
            console.print(shown)
        return captured.get()

    return printed


def _fake_run(
    folder: Path,
    values: Sequence[float] | None = None,
    *,
    metrics: Sequence[str] = ("accuracy", "loss"),
    rows: int = 4000,
    classes: Sequence[str] = DIGITS,
    owners: Sequence[str] = (),
    refuse: Callable[[int], dict[str, int]] = lambda round: {},
    facts: dict[str, Any] | None = None,
    **options: Any,
) -> Run:
    """A finished run.

    values: of the first metric on the test set, by round, at 2 s a round. It is then the least
    that a run leaves behind: an experiment, facts, and a line a round. facts: over those made up.
    options: of the experiment.
    """
    options.setdefault("rounds", 50 if values is None else len(values) or 1)
    experiment = Experiment(**options)
    clients, cohort = experiment.clients or 100, experiment.cohort or 10
    run = Run.create(folder, experiment)
    said = {
        "name": run.name,
        "trajectory": experiment.trajectory,
        "status": "done",
        "error": None,
        "created": "2026-11-21T01:39:51+00:00",
        "fedsys": "0.1.0",
        "tensorflow": "2.21.0",
        "keras": "3.12.0",
        "python": "3.11.9",
        "machine": "4 cores",
        "task": "digits",
        "model_name": "mlp",
        "parameters": 3760,
        "buffers": 0,
        "accumulates": 3700,
        "layers": LAYERS,
        "rows": rows,
        "test_rows": 360,
        "classes": list(classes),
        "clients": clients,
        "cohort": cohort,
        "xla": True,
        "workers": 4,
        "seconds": 12.345,
    }
    run.say({**said, **(facts or {})})
    if values is not None:
        for number, value in enumerate(values, 1):
            line = {"round": number, "clients": 10, "admitted": 10, "refused": 0, "moved": True}
            test = {f"test_{metrics[0]}": value}
            run.record({**line, "train_loss": 1 / number, **test, "seconds": 2.0})
        return run

    rng = np.random.default_rng(0)
    kinds = len(classes) if "accuracy" in metrics else 0
    labels = rng.integers(0, kinds, rows) if kinds else rng.normal(size=rows)
    if experiment.partition:
        examples = Examples(np.zeros((rows, 1), np.float32), labels)
        partition = draw(experiment.partition, examples, clients, 0)
    else:
        partition = Partition.of(rng.integers(0, clients, rows), clients)
    summary = partition.summary(labels)
    lines = {"partition": vars(summary), "partition_lines": summary.lines()}
    run.say({**lines, **(facts or {})})
    for number in range(1, experiment.rounds + 1):
        run.record(_record(rng, number, cohort, metrics, refuse(number)))
    picture = partition_picture(partition, labels, classes)
    (folder / "partition.svg").write_text(figure_svg(picture))
    (folder / "clients.csv").write_text(_clients(rng, partition.sizes, metrics, owners))
    return run


def _record(
    rng: np.random.Generator,
    number: int,
    cohort: int,
    metrics: Sequence[str],
    reasons: dict[str, int],
) -> dict[str, Any]:
    refused = sum(reasons.values())
    level = 1 - math.exp(-number / 12)
    line: dict[str, Any] = {
        "round": number,
        "clients": cohort,
        "admitted": cohort - refused,
        "refused": refused,
        "empty": 0,
        "moved": cohort - refused >= cohort / 2,
        "train_loss": 2.3 - 2.0 * level + float(rng.normal()) * 0.05,
        "seconds": 0.9 if number == 1 else round(0.11 + 0.02 * float(rng.random()), 6),
    }
    if reasons:
        line["reasons"] = reasons
    values = {
        "accuracy": (0.1 + 0.83 * level + float(rng.normal()) * 0.006, 0.06 + 0.1 * (1 - level)),
        "auc": (0.5 + 0.27 * level + float(rng.normal()) * 0.003, 0.0),
        "loss": (2.3 - 1.95 * level + float(rng.normal()) * 0.02, 0.15),
    }
    for name in metrics:
        value, spread = values[name]
        line[f"test_{name}"] = value
        if name != "auc" and number % 5 == 0:
            line[f"clients_{name}"] = value - 0.01
            line[f"clients_{name}_spread"] = spread
            line[f"clients_{name}_worst"] = value + (3 if name == "loss" else -2.5) * spread
    line["evaluation_seconds"] = round(0.02 + 0.004 * float(rng.random()), 6)
    return line


def _clients(
    rng: np.random.Generator, rows: np.ndarray, metrics: Sequence[str], owners: Sequence[str]
) -> str:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    names = [name for name in ("loss", "accuracy") if name in metrics]
    table.writerow(["client", "rows", *names, *(["owner"] if owners else [])])
    for client, held in enumerate(rows.tolist()):
        part = min(1.0, max(0.0, 0.91 + float(rng.normal()) * 0.35 / math.sqrt(held + 3)))
        values = {"accuracy": round(part * held) / held if held else math.nan}
        values["loss"] = 1.6 * (1.1 - part) if held else math.nan
        table.writerow(
            [client, held, *(f"{values[name]:.6g}" for name in names)]
            + ([owners[client]] if owners else [])
        )
    return text.getvalue()
