"""Who takes part in a job's rounds: banks come, go, are kept out and come back while it runs.

A bank takes part from the first round that begins after it was approved, gave its statistics and,
where it wants to see each job, approved this one. The job's terms name a quorum and no banks, so
none of this changes what was signed; which banks made a round is written down with it.

Not where the strategy remembers (SCAFFOLD): its server keeps the mean of the banks' own vectors
over all of them, and with one more the mean of what is there would be another. Such a job keeps the
banks of its first round (`banks.json`: their rows), and a newcomer waits for the next.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fedsys.errors import QuorumError, StorageError
from fedsys.federation.banks import Bank
from fedsys.federation.enrolment.approvals import open_at, refused_at
from fedsys.federation.home import Home
from fedsys.federation.jobs.folder import JobFolder
from fedsys.federation.jobs.statistics import Newcomers, Statistics
from fedsys.flower.processes.deployed_grid import DeployedGrid
from fedsys.flower.rounds.mail import NodeOf
from fedsys.storage import write_atomic
from fedsys.trust.jobs import Job

Current = Callable[[], tuple[Sequence[Bank], Mapping[int, int]]]
"""The banks that may take part, and client -> node, as of now."""


@dataclass(frozen=True)
class Members:
    """The banks of one round.

    enrolled: [clients], the weight of each; 0 for those that do not take part. population: the
    weight of all that the job counts as its own. node_of: see `NodeOf`.
    """

    enrolled: np.ndarray
    population: float
    node_of: NodeOf

    @property
    def cohort(self) -> np.ndarray:
        """The clients that take part."""
        return np.flatnonzero(self.enrolled)


class Roster:
    """Follows who takes part in a job. names: client -> bank, of all that ever could."""

    def __init__(
        self,
        home: Home,
        folder: JobFolder,
        job: Job,
        statistics: Statistics,
        grid: DeployedGrid,
        current: Current,
        told: Callable[[str], None],
    ) -> None:
        self._home, self._job, self._grid, self._told = home, job, grid, told
        self._statistics, self._current = statistics, current
        self._newcomers = Newcomers(statistics, grid)
        self.names: dict[int, str] = {}
        self._waiting: set[str] = set()
        present = {bank.name for bank in current()[0] if bank.name in statistics.known}
        self._first = self._founders(folder, present) if job.terms.strategy.remembers else None
        self._members = present if self._first is None else set(self._first)

    def begin(self) -> list[Bank]:
        """Those that the job begins with, or goes on with. Raises QuorumError for too few."""
        there = [bank for bank in self._current()[0] if bank.name in self._members]
        banks = [bank for bank in there if self._rows(bank.name) > 0]
        if len(banks) < self._job.terms.quorum:
            raise self._too_few(len(banks), (), ())
        return banks

    def look(self, round: int, quarantined: Collection[str]) -> Members:
        """Who takes part in a round. quarantined: banks that are not asked.

        Raises QuorumError where they are too few, EngineError where the grid fails.
        """
        banks, nodes = self._current()
        self.names.update({bank.number: bank.name for bank in banks})
        node_of = self._grid.node_of(nodes)
        if self._first is None:
            self._let_in(round, banks, node_of)
        refused = refused_at(self._home, banks, self._job.digest)
        rows = np.zeros(max(self.names, default=0) + 1)
        for bank in banks:
            if bank.name in self._members and bank.name not in {*quarantined, *refused}:
                rows[bank.number] = self._rows(bank.name)
        there = int(np.count_nonzero(rows))
        if there < self._job.terms.quorum:
            raise self._too_few(there, quarantined, refused)
        enrolled = self._weights(rows)
        known = enrolled if self._first is None else self._weights([*self._first.values()])
        return Members(enrolled, float(np.sum(known)), node_of)

    def _let_in(self, round: int, banks: Sequence[Bank], node_of: NodeOf) -> None:
        """Takes in those that have come and are ready."""
        self._newcomers.look(banks, node_of)
        new = [
            bank
            for bank in banks
            if bank.name not in self._members and bank.name in self._statistics.known
        ]
        digest, id = self._job.digest, self._job.id
        waiting = open_at(self._home, new, digest)
        for name in waiting:
            if name not in self._waiting:
                self._told(f"{name}: could take part: fedsys bank jobs approve {id}")
        self._waiting.update(waiting)
        without = {*waiting, *refused_at(self._home, new, digest)}
        for bank in new:
            if bank.name not in without:
                self._members.add(bank.name)
                self._told(f"{bank.name}: takes part from round {round} on")

    def _founders(self, folder: JobFolder, present: Collection[str]) -> dict[str, float]:
        """Bank -> its rows, of those that the job began with."""
        path = folder.folder / "banks.json"
        if path.exists():
            try:
                return {str(name): float(n) for name, n in json.loads(path.read_bytes()).items()}
            except (OSError, ValueError, TypeError, AttributeError):
                raise StorageError(f"{path}: damaged: ask for the job anew") from None
        rows = {name: float(self._statistics.known[name].rows) for name in sorted(present)}
        write_atomic(path, [json.dumps(rows).encode()])
        return rows

    def _rows(self, bank: str) -> float:
        if self._first is not None:
            return self._first[bank]
        return float(self._statistics.known[bank].rows)

    def _weights(self, rows: Sequence[float] | np.ndarray) -> np.ndarray:
        """[banks], what so many rows count with."""
        known = np.asarray(rows, float)
        return known if self._job.terms.weighting == "examples" else (known > 0) * 1.0

    def _too_few(
        self, there: int, quarantined: Collection[str], refused: Collection[str]
    ) -> QuorumError:
        terms = self._job.terms
        said = f"job {terms.name!r} needs {terms.quorum} banks and {there} take part"
        if quarantined:
            said += f"; {', '.join(quarantined)} sent updates that were refused"
        if refused:
            said += f"; {', '.join(refused)} refused the job"
        remedy = "approve more, or ask for one with a lower quorum"
        if quarantined or refused:
            remedy = f"mend that, then: fedsys federation resume {terms.name}"
        return QuorumError(f"{said}: {remedy}")
