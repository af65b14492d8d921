"""Runs side by side: in what they differ, and what came of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fedsys.errors import StorageError, UsageError
from fedsys.report.contents import (
    Contents,
    Records,
    best,
    falls,
    final,
    metric_names,
    outline,
    series,
)
from fedsys.report.wording import NOTHING, choice, duration, plain, shown, word

if TYPE_CHECKING:
    from fedsys.runs import Run

FACTS = (
    "parameters",
    "engine",
    "xla",
    "workers",
    "machine",
    "fedsys",
    "tensorflow",
    "keras",
    "python",
)
"""What `run.json` knows beyond the experiment, and two runs of one experiment may differ in."""
WATCHED = ("rounds", "evaluate", "evaluate_clients")
LABEL = 44  # letters that fit into the legend of a picture


@dataclass(frozen=True)
class Outcome:
    """What came of one run.

    contents: of its folder. label: in what it differs from the others, or its name. final: metric
    -> last value on the test set; best: metric -> round and value. reached: the first round at the
    target, and reached_seconds of training up to it. seconds: of the whole run; round_seconds: the
    median of training a round.
    """

    contents: Contents
    name: str
    label: str
    status: str
    rounds: int
    final: Mapping[str, float | None]
    best: Mapping[str, tuple[int, float] | None]
    reached: int | None
    reached_seconds: float | None
    seconds: float | None
    round_seconds: float
    refused: int


@dataclass(frozen=True)
class Comparison:
    """Runs side by side.

    differences: key -> each run's value, None where it has none. metrics: those taken on the test
    set by any run. metric: the one by which they are compared, and target: what all of them
    reached of it; '' and None where they have none in common. notes: what to mind.
    """

    outcomes: tuple[Outcome, ...]
    differences: tuple[tuple[str, tuple[Any, ...]], ...]
    metrics: tuple[str, ...]
    metric: str
    target: float | None
    notes: tuple[str, ...]


def comparison(runs: Sequence[Run]) -> Comparison:
    """The runs side by side. Raises UsageError for fewer than two, StorageError for one that has
    no metrics to compare."""
    if len(runs) < 2:
        raise UsageError("compare needs at least two runs")
    contents = [outline(run) for run in runs]
    for found in contents:
        if not found.records:
            raise StorageError(
                f"{found.name}: has no metrics to compare: let it finish a round, or leave it out"
            )
    names = [metric_names(found.records) for found in contents]
    shared = [name for name in names[0] if all(_bests(contents, name))]
    metric = shared[0] if shared else ""
    bests = [pair[1] for pair in _bests(contents, metric) if pair]
    target = _target(metric, bests) if shared else None
    differ = differences(contents)
    labels = _labels(contents, differ)
    return Comparison(
        outcomes=tuple(
            _outcome(found, label, metric, target)
            for found, label in zip(contents, labels, strict=True)
        ),
        differences=tuple((key, tuple(values)) for key, values in differ),
        metrics=tuple(dict.fromkeys(name for each in names for name in each)),
        metric=metric,
        target=target,
        notes=tuple(_notes(contents, {key for key, _ in differ})),
    )


def _bests(contents: Sequence[Contents], name: str) -> list[tuple[int, float] | None]:
    return [best(found.records, f"test_{name}") for found in contents]


def _target(metric: str, values: Sequence[float]) -> float:
    """What every run has reached, given the best of each, rounded to where all still have."""
    worst = max(values) if falls(metric) else min(values)
    tenth = metric == "accuracy" or not worst  # of a percent; else three digits
    step = 0.001 if tenth else 10.0 ** (math.floor(math.log10(abs(worst))) - 2)
    near = worst / step
    whole = math.ceil(near - 1e-9) if falls(metric) else math.floor(near + 1e-9)
    target = float(f"{whole * step:.6g}")
    return max(target, worst) if falls(metric) else min(target, worst)


def _outcome(found: Contents, label: str, metric: str, target: float | None) -> Outcome:
    records = found.records
    names = metric_names(records)
    reached = None if target is None else _first(records, metric, target)
    rounds, training = series(records, "seconds")
    seconds = found.facts.get("seconds")
    return Outcome(
        contents=found,
        name=found.name,
        label=label,
        status=found.status,
        rounds=found.rounds,
        final={name: final(records, f"test_{name}") for name in names},
        best={name: best(records, f"test_{name}") for name in names},
        reached=reached,
        reached_seconds=None if reached is None else float(training[rounds <= reached].sum()),
        seconds=float(seconds) if isinstance(seconds, int | float) else None,
        round_seconds=float(np.median(training)) if len(training) else math.nan,
        refused=sum(int(record.get("refused", 0)) for record in records),
    )


def _first(records: Records, metric: str, target: float) -> int | None:
    """The first evaluated round that is as good as the target."""
    rounds, values = series(records, f"test_{metric}")
    there = np.flatnonzero(values <= target if falls(metric) else values >= target)
    return int(rounds[there[0]]) if len(there) else None


def _notes(contents: Sequence[Contents], differ: set[str]) -> list[str]:
    notes = []
    tasks = {str(found.facts.get("task") or choice(found.table, "task")) for found in contents}
    if len(tasks) > 1 or any(key.startswith("task.") and key != "task.model" for key in differ):
        notes.append("The runs learn different tasks: their metrics do not compare.")
    if "evaluate" in differ:
        notes.append(
            "The runs were evaluated at different rounds: one may have been there earlier."
        )
    for found in contents:
        if found.status != "done":
            notes.append(f"{found.name} is not done ({found.status}, after round {found.rounds}).")
        damage = [line for line in found.missing if line.startswith(("run.json", "metrics", "exp"))]
        notes += [f"{found.name}: {line}" for line in damage]
    return notes


# --- in what runs differ -------------------------------------------------------------------------


def differences(contents: Sequence[Contents]) -> list[tuple[str, list[Any]]]:
    """The keys in which runs differ, dotted, each with every run's value or None.

    First those of the experiments, then those of the machine and the versions.
    """
    known = [
        {**_flat(found.table), **{key: found.facts[key] for key in FACTS if key in found.facts}}
        for found in contents
    ]
    keys = list(dict.fromkeys(key for each in known for key in each))
    keys.sort(key=lambda key: key in FACTS)
    rows = [(key, [each.get(key) for each in known]) for key in keys]
    return [(key, values) for key, values in rows if any(value != values[0] for value in values)]


def _flat(table: Mapping[str, Any], place: str = "") -> dict[str, Any]:
    """A nested table with dotted keys."""
    flat: dict[str, Any] = {}
    for key, item in table.items():
        if isinstance(item, Mapping):
            flat |= _flat(item, f"{place}{key}.")
        else:
            flat[place + key] = item
    return flat


def _labels(contents: Sequence[Contents], differ: Sequence[tuple[str, list[Any]]]) -> list[str]:
    """A short text that tells each run from the others: what differs, or else its name.

    Where runs differ in, say, the strategy, its name alone may do, without its options.
    """
    chosen = {key: values for key, values in differ if key not in (*FACTS, *WATCHED)}
    named = {key.removesuffix("name") for key in chosen if key.endswith(".name")}
    brief = {
        key: values
        for key, values in chosen.items()
        if key.endswith(".name") or not any(key.startswith(head) for head in named)
    }
    for keys in (chosen, brief):
        labels = [
            ", ".join(
                _part(key, values[run]) for key, values in keys.items() if values[run] is not None
            )
            for run in range(len(contents))
        ]
        if all(0 < len(label) <= LABEL for label in labels) and len(set(labels)) == len(labels):
            return labels
    return [found.name for found in contents]


def _part(key: str, value: Any) -> str:
    """`fedprox` for strategy.name, `mu 0.1` for strategy.mu, `faults nan`, `local.rate 0.1`."""
    head, _, leaf = key.rpartition(".")
    known = head in ("task", "partition", "strategy")
    if leaf == "name":
        return plain(value) if known else f"{head} {plain(value)}"
    return f"{leaf if known else key} {plain(value)}"


# --- in words ------------------------------------------------------------------------------------


def said(value: Any) -> str:
    """A value in which runs differ."""
    return NOTHING if value is None else plain(value)


def lines_of(found: Comparison) -> list[tuple[str, list[str], list[int]]]:
    """What came of the runs: a label, each run's cell, and the numbers of the best runs."""
    lines = []
    for name in found.metrics:
        last = [outcome.final.get(name) for outcome in found.outcomes]
        lines.append(
            (
                f"Test {word(name)}",
                [shown(name, each) for each in last],
                _winners(last, falls(name)),
            )
        )
        tops = [outcome.best.get(name) for outcome in found.outcomes]
        cells = [
            f"{shown(name, top[1])} (round\N{NO-BREAK SPACE}{top[0]:,})" if top else NOTHING
            for top in tops
        ]
        lines.append(
            (f"Best {word(name)}", cells, _winners([top and top[1] for top in tops], falls(name)))
        )
    if found.target is not None:
        goal = f"{_goal(found.metric, found.target)} {word(found.metric)}"
        reached = [outcome.reached for outcome in found.outcomes]
        cells = [NOTHING if each is None else f"{each:,}" for each in reached]
        lines.append((f"Rounds to {goal}", cells, _winners(reached, True)))
        spent = [outcome.reached_seconds for outcome in found.outcomes]
        lines.append(
            (f"Training to {goal}", [_time(each) for each in spent], _winners(spent, True))
        )
    columns: list[tuple[str, list[float | None]]] = [
        ("Median round", [outcome.round_seconds for outcome in found.outcomes]),
        ("Whole run", [outcome.seconds for outcome in found.outcomes]),
    ]
    lines.append(("Rounds done", [f"{outcome.rounds:,}" for outcome in found.outcomes], []))
    lines += [(label, [_time(each) for each in times], []) for label, times in columns]
    refused = [outcome.refused for outcome in found.outcomes]
    if any(refused):
        lines.append(("Refused updates", [f"{each:,}" for each in refused], []))
    return lines


def _time(seconds: float | None) -> str:
    return duration(seconds).replace(" ", "\N{NO-BREAK SPACE}")


def _goal(metric: str, target: float) -> str:
    return f"{100 * target:.6g}%" if metric == "accuracy" else f"{target:.4g}"


def _winners(values: Sequence[float | None], less: bool) -> list[int]:
    """The numbers of those that are best, if some are not."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    if len(set(known)) < 2:
        return []
    top = min(known) if less else max(known)
    return [number for number, value in enumerate(values) if value == top]
