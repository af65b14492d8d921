"""Banks whose updates are refused again and again, which a job then goes on without.

A bank that sends what cannot be counted is not asked any more once that happened in `LIMIT` of its
rounds in a row: each such round costs everybody its time, and what is wrong there mends itself
rarely. A round in which it was lost, late or said that it cannot train counts neither way: nothing
of it was refused.

All of it follows from the lines of the rounds (`metrics.jsonl`), so a coordinator that was killed
comes to the same. Whoever resumes the job asks the bank again, and so does a new job: both are the
word of a person, who may know that it was mended.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedsys.admission import Reason
from fedsys.storage import storing

LIMIT = 3
"""Refused updates in a row."""
REFUSED = frozenset(map(str, Reason)) - {Reason.FAILED, Reason.LOST, Reason.LATE}


@dataclass(frozen=True)
class Quarantine:
    """Where a job stands with its banks. refused: bank -> why its updates since its last good one
    were refused."""

    refused: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def banks(self) -> dict[str, str]:
        """Those that are not asked any more -> why the last update was refused."""
        return {bank: why[-1] for bank, why in self.refused.items() if len(why) >= LIMIT}

    def after(self, line: Mapping[str, Any]) -> Quarantine:
        """The same after a round. line: what was written down of it; see `run.py`."""
        refused = {bank: why for bank, why in self.refused.items() if bank not in line["banks"]}
        for bank, reason in line["missing"].items():
            if reason in REFUSED:
                refused[bank] = (*refused.get(bank, ()), reason)
        return Quarantine(refused)


def quarantine(lines: Iterable[Mapping[str, Any]], forgiven: int = 0) -> Quarantine:
    """After the rounds in the lines. forgiven: refusals until this round do not count."""
    found = Quarantine()
    for line in lines:
        if line["round"] > forgiven:
            found = found.after(line)
    return found


def round_lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of rounds in a file, which may not be there yet. Raises StorageError."""
    with storing(path):
        try:
            whole = path.read_bytes().split(b"\n")[:-1]
        except FileNotFoundError:
            return []
    return [json.loads(line) for line in whole]
