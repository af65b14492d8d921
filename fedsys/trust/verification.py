"""Reads audit logs with suspicion: one log by itself, and two sites' logs against each other."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from fedsys.errors import StorageError
from fedsys.trust.audit import LONGEST, START, Entry, Head, read_entry
from fedsys.trust.events import NOT_READ, Event


class Kind(StrEnum):
    """What was done to a log."""

    EDITED = "edited"
    REMOVED = "removed"
    REORDERED = "reordered"
    CUT = "cut off"
    REWRITTEN = "rewritten"


@dataclass(frozen=True)
class Fault:
    """The first bad line of a log. line: its number in the file, from 1."""

    line: int
    kind: Kind
    text: str


@dataclass(frozen=True)
class Stretch:
    """Entries after a fault that chain among themselves: none was changed, removed or put in since
    the last of them was written.

    lines: the first and the last, from 1. first: number of its first entry. last: its head.
    vouched: up to which entry the heads that others hold confirm it, 0 where they do not.
    """

    lines: tuple[int, int]
    first: int
    last: Head
    vouched: int


@dataclass(frozen=True)
class Verdict:
    """What reading a log came to.

    entries: how many good ones come first. head: of the last of them. vouched: up to which entry
    the heads that others hold confirm them, 0 where they do not. torn: pieces of lines that a kill
    left unfinished, which is no fault. fault: the first, or None of a log that holds. rest: what of
    the entries after it chains among itself.
    """

    entries: int
    head: Head
    torn: int
    fault: Fault | None
    vouched: int = 0
    rest: tuple[Stretch, ...] = ()


@dataclass(frozen=True)
class Log:
    """A log as it was read. entries: up to its first fault. later: of what chains after it."""

    verdict: Verdict
    entries: tuple[Entry, ...]
    later: tuple[Entry, ...] = ()

    @property
    def gaps(self) -> bool:
        """Whether entries may be missing in its midst, so that it proves nothing by saying
        nothing."""
        return self.verdict.fault is not None and self.verdict.fault.kind is not Kind.CUT


def verify(path: Path, known: Iterable[Head] = ()) -> Verdict:
    """Reads a log line by line. known: heads of it that others hold.

    Without `known`, a log that was cut off at its end, or written anew as a whole, looks good.
    Raises StorageError where there is none.
    """
    return read_log(path, known).verdict


def entries_of(path: Path) -> list[Entry]:
    """The good entries of a log, up to its first fault."""
    return list(read_log(path).entries)


def read_log(path: Path, known: Iterable[Head] = ()) -> Log:
    """Everything about a log; see `verify`."""
    held = {head.number: head.hash for head in known if head.number > 0}
    entries: list[Entry] = []
    line, last, torn, fault = _read(path, held, entries)
    if fault is None:
        return Log(Verdict(len(entries), last, torn, None, _vouched(held, entries)), tuple(entries))
    stretches = [] if fault.kind is Kind.CUT else list(_stretches(path, line))
    rest = tuple(
        Stretch((at, until), found[0].number, found[-1].head, _vouched(held, found))
        for at, until, found in stretches
    )
    verdict = Verdict(len(entries), last, torn, fault, _vouched(held, entries), rest)
    return Log(verdict, tuple(entries), tuple(one for _, _, found in stretches for one in found))


def _vouched(held: Mapping[int, str], entries: Iterable[Entry]) -> int:
    """The last of the entries, which chain, whose hash others hold; 0 where there is none."""
    return max((one.number for one in entries if held.get(one.number) == one.hash), default=0)


def _stretches(path: Path, line: int) -> Iterator[tuple[int, int, list[Entry]]]:
    """(first line, last line, entries) of each piece of the chain from a line on. What is no entry
    within a piece changes nothing of it: the hashes of its entries say so."""
    begun, until = 0, 0
    found: list[Entry] = []
    for at, text in enumerate(_lines(path), start=1):
        entry = read_entry(text.removesuffix(b"\n")) if at >= line else ""
        if not isinstance(entry, Entry) or entry.hashed() != entry.hash:
            continue
        if found and (entry.previous, entry.number) != (found[-1].hash, found[-1].number + 1):
            yield begun, until, found
            found = []
        begun, until = (at, at) if not found else (begun, at)
        found.append(entry)
    if found:
        yield begun, until, found


def _read(
    path: Path, held: Mapping[int, str], entries: list[Entry]
) -> tuple[int, Head, int, Fault | None]:
    """(line where it ended, head of the last good entry, torn lines, the first fault)."""
    last, before, torn = Head(0, START), _Pieces(0, b""), 0
    line = 0
    for line, text in enumerate(_lines(path), start=1):
        entry = read_entry(text.rstrip(b"\n")) if text.endswith(b"\n") else "has no end"
        if isinstance(entry, str):
            whole = read_entry(text)  # all of an entry but its end was written
            if not isinstance(whole, Entry):
                before = before.and_(line, text)
                continue
            entry = whole
        unexplained = _unexplained(before, entry, line)
        fault = unexplained or _broken(entry, last, line, path)
        if fault is None and held.get(entry.number, entry.hash) != entry.hash:
            text_ = f"line {line}: others hold another entry {entry.number}"
            fault = Fault(line, Kind.REWRITTEN, text_)
        if fault is not None:
            if fault is not unexplained and fault.line < line and entries:
                entries.pop()  # it is the one that was changed, with its hash
                last = entries[-1].head if entries else Head(0, START)
            return line, last, torn, fault
        torn += bool(before.data)
        before = _Pieces(0, b"")
        entries.append(entry)
        last = entry.head
    if before.data and not before.may_be_torn():
        return line + 1, last, torn, _foreign(before)
    beyond = max((number for number in held if number > last.number), default=None)
    fault = None
    if beyond is not None:
        where = f"after line {line}: others hold entry {beyond}, the last here is {last.number}"
        fault = Fault(line + 1, Kind.CUT, where)
    return line, last, torn + bool(before.data), fault


@dataclass(frozen=True)
class _Pieces:
    """Bytes between two entries, from a line on."""

    line: int
    data: bytes

    def and_(self, line: int, text: bytes) -> _Pieces:
        # More than two lines' worth is no torn line, and is not kept.
        return _Pieces(self.line or line, (self.data + text)[: 3 * LONGEST])

    def may_be_torn(self) -> bool:
        """Whether a kill can have left them at the end of a file: beginnings of entries.

        What begins a new line after them may have been torn, too, after its very first byte.
        """
        if len(self.data) > 2 * LONGEST:
            return False
        pieces = self.data.split(b"\n")
        return all(_begins_an_entry(piece) for piece in pieces[:-1])


def _begins_an_entry(piece: bytes) -> bool:
    """Whether bytes are the beginning of an entry's line and not all of it."""
    start = b'{"details":{'
    try:
        json.loads(piece)
    except (ValueError, RecursionError):
        return piece[: len(start)] == start[: len(piece)] and bool(piece)
    return False


def _unexplained(before: _Pieces, entry: Entry, line: int) -> Fault | None:
    """Bytes before an entry that does not close them off, or the other way round."""
    closes = entry.event is Event.CLOSED_OFF
    if not before.data and not closes:
        return None
    rest = before.data.removesuffix(b"\n")
    said = (entry.details.get("bytes"), entry.details.get("sha256"))
    if closes and said == (len(rest), hashlib.sha256(rest).hexdigest()):
        return None
    if not before.data:
        return Fault(line, Kind.REMOVED, f"line {line}: the torn line that it closes off is gone")
    return _foreign(before)


def _foreign(before: _Pieces) -> Fault:
    return Fault(
        before.line, Kind.EDITED, f"line {before.line}: is no entry, and no kill left it like this"
    )


def _broken(entry: Entry, last: Head, line: int, path: Path) -> Fault | None:
    """What is wrong with an entry after the one whose head is `last`."""
    if entry.hashed() != entry.hash:
        return Fault(line, Kind.EDITED, f"line {line}: its hash is not that of what it says")
    wanted = last.number + 1
    if entry.number <= last.number:
        text = f"line {line}: entry {entry.number} stands after entry {last.number}"
        return Fault(line, Kind.REORDERED, text)
    if entry.number > wanted:
        if _stands_later(wanted, line, path):
            text = f"line {line}: entry {entry.number} stands before entry {wanted}"
            return Fault(line, Kind.REORDERED, text)
        text = f"line {line}: entry {wanted} is missing before entry {entry.number}"
        return Fault(line, Kind.REMOVED, text)
    if entry.previous != last.hash:
        bad = max(1, line - 1)
        text = f"line {bad}: entry {last.number} is not the one that entry {wanted} follows"
        return Fault(bad, Kind.EDITED, text)
    return None


def _stands_later(number: int, line: int, path: Path) -> bool:
    for at, text in enumerate(_lines(path), start=1):
        entry = read_entry(text.rstrip(b"\n")) if at > line else ""
        if isinstance(entry, Entry) and entry.number == number:
            return True
    return False


def _lines(path: Path) -> Iterator[bytes]:
    """The file's lines with their ends; longer ones than any entry come in pieces."""
    try:
        with open(path, "rb") as file:
            while line := file.readline(LONGEST + 2):
                yield line
    except OSError as error:
        raise StorageError(f"{path}: no log can be read: {error.strerror or error}") from None


# --- two sites -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Finding:
    """Where two sites' logs do not agree. id: of the message, or empty."""

    id: str
    text: str


_SENT = (Event.UPDATE_SENT, Event.STATISTICS_SENT)
_CAME = (Event.UPDATE_RECEIVED, Event.UPDATE_REFUSED, Event.STATISTICS_RECEIVED)


def cross_check(server_log: Path, bank_log: Path, server: str, bank: str) -> list[Finding]:
    """What the server's log and a bank's log say differently. server, bank: their sites' names.

    Each log has to hold by itself and against the heads that the other recorded; for the rest see
    `disagreements`.
    """
    ours, theirs = read_log(server_log).entries, read_log(bank_log).entries
    logs = {
        server: read_log(server_log, seen_heads(theirs, server)),
        bank: read_log(bank_log, seen_heads(ours, bank)),
    }
    faults = {site: log.verdict.fault for site, log in logs.items()}
    findings = [
        Finding("", f"log of {site}: {fault.kind}: {fault.text}")
        for site, fault in faults.items()
        if fault is not None
    ]
    return findings + disagreements(logs[server], logs[bank], server, bank)


def disagreements(server_log: Log, bank_log: Log, server: str, bank: str) -> list[Finding]:
    """What two logs say differently about the same messages.

    Every message that one side sent was seen by the other, with the same bytes if it read them, or
    else the other missed the bank in that round; the bank approved every job that it sent updates
    for, and its statistics. What a log does not say is held against it only where nothing is
    missing in its midst: it is counted, and not told one by one, where something is.
    """
    ours = (*server_log.entries, *server_log.later)
    theirs = (*bank_log.entries, *bank_log.later)
    sent = {entry.id: entry for entry in theirs if entry.event in _SENT}
    came: dict[str, Entry] = {}
    for entry in ours:
        if entry.event in _CAME and entry.details["bank"] == bank:
            came.setdefault(entry.id, entry)
    gone = (entry for entry in ours if entry.event is Event.LOST)
    lost = {_round(entry) for entry in gone if entry.details["bank"] == bank}
    # Both say so where the round was lost to the server: it came too late, or never arrived.
    unseen = [one for id, one in sent.items() if id not in came and _round(one) not in lost]
    unsent = [one for id, one in came.items() if id not in sent]
    findings = _missing(unseen, server_log, server, f"{bank} sent it, {server} never recorded it")
    findings += [
        Finding(id, f"{_what(entry)}: {server} recorded other bytes than {bank} sent")
        for id, entry in sent.items()
        if id in came and came[id].details["sha256"] not in (entry.details["sha256"], NOT_READ)
    ]
    findings += _missing(unsent, bank_log, bank, f"{server} recorded it, {bank} never sent it")
    return findings + _unapproved(server_log, bank_log, bank)


def _missing(entries: list[Entry], where: Log, site: str, said: str) -> list[Finding]:
    """Of messages that have no entry in a site's log."""
    if not where.gaps or not entries:
        return [Finding(entry.id, f"{_what(entry)}: {said}") for entry in entries]
    some = ", ".join(_what(entry) for entry in entries[:3]) + (", ..." if len(entries) > 3 else "")
    count = "1 message has" if len(entries) == 1 else f"{len(entries)} messages have"
    text = f"{count} no entry in what is left of the log of {site}, which its fault may explain"
    return [Finding("", f"{text}: {some}")]


def seen_heads(entries: Iterable[Entry], site: str) -> list[Head]:
    """The heads of a site's log that another log recorded."""
    return [
        Head(entry.details["number"], entry.details["hash"])
        for entry in entries
        if entry.event is Event.HEAD_SEEN and entry.details["site"] == site
    ]


def _unapproved(server_log: Log, bank_log: Log, name: str) -> list[Finding]:
    """What a bank sent although nobody there had approved it."""
    server = (*server_log.entries, *server_log.later)
    bank = (*bank_log.entries, *bank_log.later)
    jobs = {e.details["run"]: e.details["job"] for e in server if e.event is Event.RUN_BEGUN}
    approved = {e.details["job"] for e in bank if e.event is Event.JOB_APPROVED}
    runs = dict.fromkeys(e.details["run"] for e in bank if e.event is Event.UPDATE_SENT)
    findings = []
    for run in runs:
        if run not in jobs:
            if not server_log.gaps:
                said = f"run {run}: {name} took part, the server never began it"
                findings.append(Finding("", said))
        elif jobs[run] not in approved and not bank_log.gaps:
            findings.append(
                Finding("", f"run {run}: {name} took part and never approved job {jobs[run][:12]}")
            )
    events = {entry.event for entry in bank}
    silent = Event.STATISTICS_SENT in events and Event.STATISTICS_APPROVED not in events
    if silent and not bank_log.gaps:
        findings.append(Finding("", f"statistics: {name} sent them and never approved that"))
    return findings


def _round(entry: Entry) -> tuple[str, int]:
    """(run, round) of an entry; of statistics, none that there is."""
    return entry.details.get("run", ""), entry.details.get("round", -1)


def _what(entry: Entry) -> str:
    kind = entry.event.split()[0]
    return f"{kind} of round {entry.details['round']}" if "round" in entry.details else kind
