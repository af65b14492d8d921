"""What banks say of their rows, asked once, so that all scale alike; and who takes part with it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flwr.app import RecordDict
from flwr.serverapp import Grid

from fedsys.errors import DataError, QuorumError, StorageError
from fedsys.federation.banks import Bank
from fedsys.federation.enrolment.approvals import await_statistics, let_themselves_be_asked
from fedsys.federation.home import Home
from fedsys.federation.jobs.messages import ask_for_statistics, read_summary
from fedsys.flower.rounds.mail import Inquiry, Lost, NodeOf, Waiting, exchange
from fedsys.storage import write_atomic
from fedsys.tables import Preparation, Summary, merge
from fedsys.tables.summary import summary_of
from fedsys.trust import canonical
from fedsys.trust.audit import message_id
from fedsys.trust.events import Event
from fedsys.trust.fingerprints import fingerprint

ANSWER_BYTES = 1 << 20

Told = Callable[[str], None]


class Statistics:
    """What banks said, as it lies in the coordinator's folder. told: hears of a bank that gave
    none. Raises StorageError where the file is damaged."""

    def __init__(self, home: Home, told: Told) -> None:
        self._home, self._told = home, told
        self.known, self._keys = _read(home)

    def gather(
        self,
        banks: Sequence[Bank],
        grid: Grid,
        node_of: NodeOf,
        *,
        needed: int,
        waiting: Waiting,
        look: Callable[[], None] = lambda: None,
    ) -> dict[str, Summary]:
        """Bank -> its statistics, of all that have given them, now or before.

        needed: how many the job needs; once they are there the others have the grace of `waiting`,
        and once the preparation is made, too, nobody waits for a bank that is away. look:
        is called while banks have to approve that first; may raise to end it. Raises QuorumError
        where these are fewer than the federation needs.
        """
        self._forget(banks)
        names = {bank.name for bank in banks}
        unknown = [bank for bank in banks if bank.name not in self.known]
        settled = (self._home.folder / "preparation.json").exists()
        lacking = self._home.facts.banks - (len(banks) - len(unknown))
        if 0 < lacking <= len(unknown):
            await_statistics(self._home, unknown, lacking, self._told, look=look)
        new = {bank.number: bank for bank in self.may_be_asked(unknown)}
        asked = self.request()
        answers = exchange(
            grid,
            list(new),
            lambda client: asked,
            node_of,
            round=1,
            reply_bytes=ANSWER_BYTES,
            waiting=waiting,
            enough=lambda: len(names & set(self.known)) >= needed,
            away=list(new) if settled else (),
        )
        for client, content in answers:
            self.hear(new[client], content)
        found = {name: summary for name, summary in self.known.items() if name in names}
        least = self._home.facts.banks
        if len(found) < least:
            missing = ", ".join(sorted(names - set(found))) or "none has enrolled"
            raise QuorumError(
                f"{len(found)} of at least {least} banks gave the statistics of their "
                f"rows; missing: {missing}: start them, and see their logs"
            )
        return found

    def may_be_asked(self, banks: Sequence[Bank]) -> list[Bank]:
        """Those that have approved that, or do not want to be asked first."""
        return let_themselves_be_asked(self._home, banks)

    def request(self) -> RecordDict:
        """What banks are asked."""
        home = self._home
        return ask_for_statistics(home.keys.signing, home.facts.name, home.schema)

    def hear(self, bank: Bank, content: RecordDict | Lost) -> bool:
        """Keeps what a bank answered. Whether it gave its statistics."""
        home = self._home
        if isinstance(content, Lost):
            self._told(f"{bank.name}: no statistics: {content.detail}")
            return False
        try:
            summary = read_summary(content, home.schema, bank.name)
        except DataError as error:
            self._told(f"{bank.name}: no statistics: {error}")
            return False
        self.known[bank.name], self._keys[bank.name] = summary, bank.keys.spoken
        data = canonical.encode(summary.table())  # as the bank wrote it down
        digest = fingerprint(data).hex()
        home.audit.record(
            Event.STATISTICS_RECEIVED,
            message_id(bank.name, digest),
            bank=bank.name,
            sha256=digest,
            bytes=len(data),
        )
        self._write()
        return True

    def _forget(self, banks: Sequence[Bank]) -> None:
        """Drops what was said by those that had their names before: who enrols anew may have other
        rows."""
        for bank in banks:
            if self._keys.get(bank.name, bank.keys.spoken) != bank.keys.spoken:
                del self.known[bank.name], self._keys[bank.name]

    def _write(self) -> None:
        table = {
            name: {"keys": self._keys[name], "summary": summary.table()}
            for name, summary in self.known.items()
        }
        write_atomic(self._home.folder / "statistics.json", [json.dumps(table).encode()])


class Newcomers:
    """Asks banks that come while a job runs for their statistics, and keeps nobody waiting."""

    def __init__(self, statistics: Statistics, grid: Grid) -> None:
        self._statistics = statistics
        self._inquiry = Inquiry(grid, ANSWER_BYTES)
        self._asked: RecordDict | None = None
        self._without: set[Bank] = set()

    def look(self, banks: Sequence[Bank], node_of: NodeOf) -> None:
        """Asks those that are new, and keeps what came. One that could not answer is asked again
        in the next job. Raises EngineError where the grid fails."""
        unknown = [
            bank
            for bank in banks
            if bank.name not in self._statistics.known and bank not in self._without
        ]
        new = {bank.number: bank for bank in self._statistics.may_be_asked(unknown)}
        if not new:
            return
        asked = self._asked = self._asked or self._statistics.request()
        for client, content in self._inquiry.look(list(new), lambda _: asked, node_of):
            if client in new and not self._statistics.hear(new[client], content):
                self._without.add(new[client])


def preparation(home: Home, summaries: Mapping[str, Summary]) -> Preparation:
    """How all banks scale: worked out once, from the banks that were there, and kept."""
    path = home.folder / "preparation.json"
    if path.exists():
        try:
            return Preparation.of(json.loads(path.read_text("utf-8")), home.schema)
        except (OSError, ValueError, DataError):
            raise StorageError(f"{path}: damaged: put it back from a backup") from None
    made = Preparation.derive(home.schema, merge([summaries[name] for name in sorted(summaries)]))
    write_atomic(path, [json.dumps(made.table()).encode()])
    return made


def _read(home: Home) -> tuple[dict[str, Summary], dict[str, str]]:
    """Bank -> its statistics; bank -> the fingerprint of the keys that it had then."""
    path = home.folder / "statistics.json"
    try:
        table: dict[str, Any] = json.loads(path.read_text("utf-8"))
        known = {name: summary_of(one["summary"], home.schema, name) for name, one in table.items()}
        return known, {name: str(one["keys"]) for name, one in table.items()}
    except FileNotFoundError:
        return {}, {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, DataError):
        raise StorageError(f"{path}: damaged: delete it to ask the banks again") from None
