"""After a log's first fault: what can still be relied on, and what another site's log confirms."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsys.trust.audit import Audit
from fedsys.trust.events import Event
from fedsys.trust.verification import cross_check, entries_of, read_log, verify

from .logs import HASH, RUN, edited, lines, opened, rehashed, rewrite

OTHER = {"time": "2026-05-01T12:30:15.000251Z"}


@pytest.fixture
def log(tmp_path: Path) -> Audit:
    return opened(tmp_path / "audit.jsonl", lines=9)


def spans(log, held=()):
    """(good entries, [(first, last) entry of each piece after the fault])."""
    verdict = verify(log.path, held)
    return verdict.entries, [(piece.first, piece.last.number) for piece in verdict.rest]


def test_what_follows_a_changed_line_chains_among_itself(log):
    held = lines(log)
    rewrite(log, [*held[:3], edited(held[3], **OTHER), *held[4:]])
    assert spans(log) == (3, [(5, 9)])
    piece = verify(log.path).rest[0]
    assert piece.lines == (5, 9)


def test_a_line_changed_with_its_hash_is_relied_on_no_more(log):
    held = lines(log)
    rewrite(log, [*held[:3], rehashed(held[3], **OTHER), *held[4:]])
    assert spans(log) == (3, [(5, 9)])
    assert verify(log.path).head == entries_of(log.path)[-1].head


def test_a_removed_line_leaves_two_pieces(log):
    held = lines(log)
    rewrite(log, [*held[:3], *held[4:]])
    assert spans(log) == (3, [(5, 9)])


def test_several_faults_leave_several_pieces(log):
    held = lines(log)
    held[3], held[6] = edited(held[3], **OTHER), b"nothing"
    rewrite(log, held)
    assert spans(log) == (3, [(5, 6), (8, 9)])
    rewrite(log, [*held[:3], held[5], held[4], *held[7:]])
    assert spans(log) == (3, [(6, 6), (5, 5), (8, 9)])


def test_a_first_line_that_was_changed_leaves_the_rest(log):
    held = lines(log)
    rewrite(log, [edited(held[0], **OTHER), *held[1:]])
    assert spans(log) == (0, [(2, 9)])
    rewrite(log, [rehashed(held[0], **OTHER), *held[1:]])
    assert spans(log) == (0, [(2, 9)])


def test_heads_that_others_hold_confirm_each_piece(log):
    heads = [entry.head for entry in entries_of(log.path)]
    held = lines(log)
    rewrite(log, [*held[:4], edited(held[4], **OTHER), *held[5:]])
    verdict = verify(log.path, [heads[1], heads[6]])
    assert verdict.vouched == 2
    assert [piece.vouched for piece in verdict.rest] == [7]
    assert verify(log.path).vouched == 0
    rewrite(log, held)
    assert verify(log.path, heads).vouched == 9


def test_a_log_that_holds_has_no_rest(log):
    found = read_log(log.path)
    assert (found.verdict.rest, found.later, found.gaps) == ((), (), False)
    assert len(found.entries) == 9


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_entry_of_a_piece_was_ever_another(tmp_path_factory, data):
    """Whatever is done to a log without new hashes, what is relied on stood in it as it stands."""
    log = opened(tmp_path_factory.mktemp("log") / "audit.jsonl", lines=8)
    genuine = lines(log)
    held = list(genuine)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(held) - 1))
        what = data.draw(st.sampled_from(["cut", "edit", "put in", "swap", "again"]))
        if what == "cut" and len(held) > 1:
            del held[at]
        elif what == "edit":
            place = data.draw(st.integers(0, len(held[at]) - 1)) if held[at] else 0
            held[at] = held[at][:place] + b"~" + held[at][place + 1 :]
        elif what == "put in":
            held.insert(at, data.draw(st.sampled_from([b"{}", b"", b"x" * 5000])))
        elif what == "swap":
            held[at], held[-1] = held[-1], held[at]
        else:
            held.insert(at, genuine[data.draw(st.integers(0, 7))])
    rewrite(log, held)
    found = read_log(log.path)
    for entry in (*found.entries, *found.later):
        assert entry.line() in genuine
    if found.verdict.fault is None:
        assert [entry.line() for entry in found.entries] == genuine[: len(found.entries)]


# --- two sites -----------------------------------------------------------------------------------


@pytest.fixture
def sites(tmp_path: Path) -> tuple[Audit, Audit]:
    """A server and a bank that ran four rounds; the bank's log is the one to tamper with."""
    server = opened(tmp_path / "server.jsonl", "coordinator", 1)
    bank = opened(tmp_path / "bank.jsonl", "bank-a", 1)
    bank.record(Event.JOB_APPROVED, job=HASH)
    server.record(Event.RUN_BEGUN, run=RUN, job=HASH, banks=1)
    for number in (1, 2, 3, 4):
        update = {"run": RUN, "round": number, "bank": "bank-a", "sha256": f"{number:064x}"}
        sent = bank.record(Event.UPDATE_SENT, **update, bytes=100)
        server.record(Event.UPDATE_RECEIVED, sent.id, **update, bytes=100)
    head = bank.head()
    server.record(Event.HEAD_SEEN, site="bank-a", number=head.number, hash=head.hash)
    return server, bank


def differ(sites):
    server, bank = sites
    return [one.text for one in cross_check(server.path, bank.path, "coordinator", "bank-a")]


def test_a_fault_is_one_finding_and_has_no_false_followers(sites):
    _, bank = sites
    held = lines(bank)
    rewrite(bank, [edited(held[0], **OTHER), *held[1:]])
    assert differ(sites) == ["log of bank-a: edited: line 1: its hash is not that of what it says"]


def test_what_is_gone_with_a_fault_is_counted_and_not_told_one_by_one(sites):
    _, bank = sites
    held = lines(bank)
    rewrite(bank, [held[0], held[1], *held[4:]])
    fault, gone = differ(sites)
    assert "entry 3 is missing" in fault
    assert gone == (
        "2 messages have no entry in what is left of the log of bank-a, which its fault may "
        "explain: update of round 1, update of round 2"
    )


def test_an_approval_that_is_gone_with_a_fault_is_not_held_against_the_bank(sites):
    _, bank = sites
    held = lines(bank)
    rewrite(bank, [held[0], *held[2:]])
    assert differ(sites) == ["log of bank-a: removed: line 2: entry 2 is missing before entry 3"]


def test_other_bytes_are_told_behind_a_fault_too(sites):
    server, bank = sites
    details = {"run": RUN, "round": 5, "bank": "bank-a", "bytes": 100}
    sent = bank.record(Event.UPDATE_SENT, **details, sha256=HASH)
    server.record(Event.UPDATE_RECEIVED, sent.id, **details, sha256="cd" * 32)
    held = lines(bank)
    rewrite(bank, [edited(held[0], **OTHER), *held[1:]])
    assert differ(sites)[1:] == [
        "update of round 5: coordinator recorded other bytes than bank-a sent"
    ]


def test_statistics_that_nobody_approved_are_named(sites):
    server, bank = sites
    details = {"bank": "bank-a", "sha256": HASH, "bytes": 9}
    sent = bank.record(Event.STATISTICS_SENT, **details)
    server.record(Event.STATISTICS_RECEIVED, sent.id, **details)
    assert differ(sites) == ["statistics: bank-a sent them and never approved that"]
    bank.record(Event.STATISTICS_APPROVED, bank="bank-a", request=HASH)
    assert differ(sites) == []
