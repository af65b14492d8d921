"""What banks say of their rows, asked once, so that all scale alike; and who takes part with it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flwr.serverapp import Grid

from fedsys.errors import DataError, QuorumError, StorageError
from fedsys.federation.banks import Bank
from fedsys.federation.home import Home
from fedsys.federation.jobs.messages import ask_for_statistics, read_summary
from fedsys.flower.rounds.mail import Lost, NodeOf, Waiting, exchange
from fedsys.storage import write_atomic
from fedsys.tables import Preparation, Summary, merge
from fedsys.tables.summary import summary_of
from fedsys.trust import canonical
from fedsys.trust.audit import message_id
from fedsys.trust.events import Event
from fedsys.trust.fingerprints import fingerprint

ANSWER_BYTES = 1 << 20


def gather(
    home: Home,
    banks: Sequence[Bank],
    grid: Grid,
    node_of: NodeOf,
    deadline: float,
    told: Callable[[str], None],
) -> dict[str, Summary]:
    """Bank -> its statistics, of all that have given them, now or before.

    Raises QuorumError where these are fewer than the federation needs.
    """
    known = _read(home)
    new = [bank for bank in banks if bank.name not in known]
    by_number = {bank.number: bank for bank in new}
    asked = ask_for_statistics(home.keys.signing, home.facts.name, home.schema)
    answers = exchange(
        grid,
        list(by_number),
        lambda client: asked,
        node_of,
        round=1,
        reply_bytes=ANSWER_BYTES,
        waiting=Waiting(deadline=deadline),
    )
    for number, content in answers if new else ():
        bank = by_number[number]
        if isinstance(content, Lost):
            told(f"{bank.name}: no statistics: {content.detail}")
            continue
        try:
            summary = read_summary(content, home.schema, bank.name)
        except DataError as error:
            told(f"{bank.name}: no statistics: {error}")
            continue
        known[bank.name] = summary
        data = canonical.encode(summary.table())  # as the bank wrote it down
        digest = fingerprint(data).hex()
        home.audit.record(
            Event.STATISTICS_RECEIVED,
            message_id(bank.name, digest),
            bank=bank.name,
            sha256=digest,
            bytes=len(data),
        )
        _write(home, known)
    names = {bank.name for bank in banks}
    found = {name: summary for name, summary in known.items() if name in names}
    if len(found) < home.facts.banks:
        missing = ", ".join(sorted(names - set(found))) or "none has enrolled"
        raise QuorumError(
            f"{len(found)} of at least {home.facts.banks} banks gave the statistics of their "
            f"rows; missing: {missing}: start them, and see their logs"
        )
    return found


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


def _read(home: Home) -> dict[str, Summary]:
    path = home.folder / "statistics.json"
    try:
        table: dict[str, Any] = json.loads(path.read_text("utf-8"))
        return {name: summary_of(one, home.schema, name) for name, one in table.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, DataError):
        raise StorageError(f"{path}: damaged: delete it to ask the banks again") from None


def _write(home: Home, known: Mapping[str, Summary]) -> None:
    table = {name: summary.table() for name, summary in known.items()}
    write_atomic(home.folder / "statistics.json", [json.dumps(table).encode()])
