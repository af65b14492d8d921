"""What a report says first: what was run, how it ended, and the numbers that matter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedsys.report.contents import Contents, Records, best, final, metric_names, series
from fedsys.report.wording import choice, duration, many, shown, word

ENDS = {
    "running": "is still running, or was killed,",
    "stopped": "was stopped",
    "failed": "failed",
    "killed": "was killed",
}


def heading(found: Contents) -> list[tuple[str, str]]:
    """Task, strategy, aggregator (but the mean), partition and clients: what was run, each with its
    options."""
    task, model = choice(found.table, "task")
    parts = [
        (str(found.facts.get("task") or task), model),
        choice(found.table, "strategy"),
        choice(found.table, "aggregator"),
        choice(found.table, "partition") if "partition" in found.table else (_rule(found), ""),
    ]
    clients = found.facts.get("clients", found.table.get("clients"))
    if clients is not None:
        cohort = found.facts.get("cohort", found.table.get("cohort"))
        parts.append((many(clients, "client"), f"{cohort:,} a round" if cohort else ""))
    return [part for part in parts if part[0]]


def _rule(found: Contents) -> str:
    """The partition where the experiment leaves it to the data."""
    natural = found.facts.get("natural", bool(found.scores and found.scores.owners) or None)
    return {True: "natural owners", False: "iid"}.get(natural, "")


def alarm(found: Contents) -> str:
    """How the run ended, where that was not the end that it was meant for."""
    if found.status == "done":
        return ""
    how = ENDS.get(found.status, "has left no word of how it ended,")
    error, asked = found.facts.get("error"), found.table.get("rounds")
    far = f"{found.rounds:,} of {asked:,} rounds" if asked else many(found.rounds, "round")
    return f"This run {how} after {far}{f': {error}' if error else '.'}"


@dataclass(frozen=True)
class Tile:
    """A number that matters. `exact` is what it was rounded from."""

    label: str
    value: str
    note: str = ""
    exact: str = ""


def headline(found: Contents) -> list[Tile]:
    """The numbers that matter."""
    records, facts = found.records, found.facts
    tiles = [_metric_tile(records, name) for name in metric_names(records)]
    if not tiles and (loss := final(records, "train_loss")) is not None:
        tiles.append(Tile("Training loss", shown("loss", loss), "in the last round", repr(loss)))
    if worst := _worst_tile(records):
        tiles.append(worst)
    asked = found.table.get("rounds")
    of = f"of {asked:,}" if asked and asked != found.rounds else ""
    tiles.append(Tile("Rounds", f"{found.rounds:,}", of))
    if "clients" in facts:
        tiles.append(Tile("Clients", f"{facts['clients']:,}", _a_round(facts)))
    if "seconds" in facts or records:
        training = series(records, "seconds")[1]
        middle = f"median {duration(float(np.median(training)))} a round" if len(training) else ""
        seconds = facts.get("seconds", float(_total(records)) if records else None)
        tiles.append(Tile("Time", duration(seconds), middle, f"{seconds} s"))
    sent, refused = updates_sent(records)
    if records:
        part = f"of {sent:,} ({refused / sent:.1%})" if refused else f"all {sent:,} admitted"
        tiles.append(Tile("Refused updates", f"{refused:,}", part))
    return tiles


def _metric_tile(records: Records, name: str) -> Tile:
    value, top = final(records, f"test_{name}"), best(records, f"test_{name}")
    note = f"best {shown(name, top[1])} in round {top[0]:,}" if top else ""
    last = records[-1]["round"]
    taken = int(series(records, f"test_{name}")[0][-1])
    when = f" after round {taken:,}" if taken != last else ""
    return Tile(f"Test {word(name)}{when}", shown(name, value), note, repr(value))


def _worst_tile(records: Records) -> Tile | None:
    names = metric_names(records, "clients_")
    if not names:
        return None
    name = names[0]
    worst, mean = final(records, f"clients_{name}_worst"), final(records, f"clients_{name}")
    if worst is None:
        return None
    note = f"{word(name)}; mean {shown(name, mean)}"
    return Tile("Worst client", shown(name, worst), note, repr(worst))


def _a_round(facts: Mapping[str, Any]) -> str:
    cohort = facts.get("cohort")
    if cohort is None:
        return ""
    return "all in every round" if cohort == facts["clients"] else f"{cohort:,} a round"


def updates_sent(records: Records) -> tuple[int, int]:
    """Updates that were sent, and those of them that were refused."""
    refused = sum(int(record.get("refused", 0)) for record in records)
    return refused + sum(int(record.get("admitted", 0)) for record in records), refused


def _total(records: Records) -> float:
    """Seconds of all rounds and their evaluations."""
    return float(sum(series(records, key)[1].sum() for key in ("seconds", "evaluation_seconds")))
