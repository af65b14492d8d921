"""What came from each bank in a round, as the coordinator's log says it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flwr.app import RecordDict

from fedsys.admission import Reason, Refusal
from fedsys.flower.rounds.messages import Code, update_digest
from fedsys.rounds import Round
from fedsys.trust import events
from fedsys.trust.audit import Audit, message_id
from fedsys.trust.events import Event

_FAILURES: Mapping[str, events.Code] = {
    str(Code.TRAINING): events.Code.TRAINING,
    str(Code.DATA): events.Code.DATA,
    str(Code.POLICY): events.Code.POLICY,
    str(Code.MEMORY): events.Code.STORAGE,
}


class Received:
    """The updates of one round after another. names: client -> bank; may grow meanwhile."""

    def __init__(self, audit: Audit, run: str, names: Mapping[int, str]) -> None:
        self._audit, self._run, self._names = audit, run, names
        self._updates: dict[int, tuple[str, int]] = {}
        self._lost: set[int] = set()

    def note(self, client: int, content: RecordDict) -> None:
        """Remembers what a client sent; is a `GridEngine`'s check that refuses nothing."""
        self._updates[client] = update_digest(content)

    def record(self, happened: Round) -> None:
        """Writes down each bank's update of a round, or why it has none that counts."""
        for client in happened.aggregate.admitted:
            digest, size = self._updates[int(client)]
            if int(client) in self._lost:
                self._lost.remove(int(client))
                round, bank = happened.number, self._names[int(client)]
                self._audit.record(Event.REJOINED, run=self._run, round=round, bank=bank)
            self._record(happened, int(client), Event.UPDATE_RECEIVED, sha256=digest, bytes=size)
        for refusal in happened.aggregate.refused:
            event, details = self._refused(refusal)
            if event is Event.LOST:
                self._lost.add(refusal.client)
            self._record(happened, refusal.client, event, **details)
        self._updates.clear()

    def _refused(self, refusal: Refusal) -> tuple[Event, dict[str, str]]:
        if refusal.reason in (Reason.LOST, Reason.LATE):
            return Event.LOST, {}
        if refusal.reason is Reason.FAILED:
            code = _FAILURES.get(refusal.detail, events.Code.INTERNAL)
            return Event.FAILED, {"code": str(code)}
        digest, _ = self._updates.get(refusal.client, (events.NOT_READ, 0))
        return Event.UPDATE_REFUSED, {"sha256": digest, "reason": str(refusal.reason)}

    def _record(self, happened: Round, client: int, event: Event, **details: Any) -> None:
        bank = self._names[client]
        id = message_id(self._run, happened.number, bank)
        self._audit.record(event, id, run=self._run, round=happened.number, bank=bank, **details)
