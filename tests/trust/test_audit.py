import hashlib
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsys.admission import Reason
from fedsys.errors import DataError, PolicyError, StorageError
from fedsys.trust import audit as audit_module
from fedsys.trust.audit import START, Audit, Head, read_entry
from fedsys.trust.events import FIELDS, Code, Event, code_of, fault_in
from fedsys.trust.verification import Kind, entries_of, verify

from .logs import HASH, NOW, RUN, edited, fault, lines, opened, rehashed, rewrite


@pytest.fixture
def log(tmp_path: Path) -> Audit:
    return opened(tmp_path / "audit.jsonl")


# --- the chain -----------------------------------------------------------------------------------


def test_the_chain_is_the_one_written_by_hand(tmp_path):
    log = Audit(tmp_path / "audit.jsonl")
    log.record(Event.INVITED, "00000001", NOW, bank="bank-a", expires=1780000000)
    log.record(Event.PAUSED, "00000002", NOW, run=RUN, round=7, code=Code.QUORUM)
    first = (
        '{"details":{"bank":"bank-a","expires":1780000000},"event":"bank invited",'
        '"id":"00000001","number":1,"previous":"' + "0" * 64 + '",'
        '"time":"2026-05-01T12:30:15.000250Z"}'
    )
    one = hashlib.sha256(first.encode()).hexdigest()
    second = (
        '{"details":{"code":"quorum","round":7,"run":"0123456789ab"},"event":"run paused",'
        '"id":"00000002","number":2,"previous":"' + one + '",'
        '"time":"2026-05-01T12:30:15.000250Z"}'
    )
    two = hashlib.sha256(second.encode()).hexdigest()
    written = [
        first.replace(',"id"', f',"hash":"{one}","id"'),
        second.replace(',"id"', f',"hash":"{two}","id"'),
    ]
    assert log.path.read_text() == "".join(line + "\n" for line in written)
    assert log.head() == Head(2, two)
    assert verify(log.path).fault is verify(log.path, [Head(1, one), Head(2, two)]).fault is None


def test_an_honest_log_holds(log):
    verdict = verify(log.path, [log.head()])
    assert (verdict.entries, verdict.head, verdict.torn, verdict.fault) == (6, log.head(), 0, None)
    assert stat.S_IMODE(log.path.stat().st_mode) == 0o600


def test_a_log_goes_on_where_another_process_left_it(log):
    Audit(log.path).record(Event.RESUMED, run=RUN, round=6)
    log.record(Event.RUN_ENDED, run=RUN, rounds=6, sha256=HASH)
    assert verify(log.path).entries == 8 and fault(log) is None


def test_no_log_and_an_empty_one(tmp_path):
    with pytest.raises(StorageError, match="no log can be read: No such file"):
        verify(tmp_path / "none")
    assert Audit(tmp_path / "new").head() == Head(0, START)
    assert verify(tmp_path / "new").entries == 0


def test_processes_that_write_at_once_make_one_chain(tmp_path):
    path = tmp_path / "audit.jsonl"
    code = (
        "import sys; from pathlib import Path; from fedsys.trust.audit import Audit\n"
        "from fedsys.trust.events import Event\n"
        "for n in range(60): Audit(Path(sys.argv[1])).record(Event.ROUND_BEGUN, "
        "run='0123456789ab', round=n, banks=3)"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, str(path)]) for _ in range(3)]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    verdict = verify(path)
    assert verdict.entries == 180 and verdict.fault is None and verdict.torn == 0


# --- tampering -----------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(6))
@pytest.mark.parametrize(
    "change", [{"time": "2026-05-01T12:30:15.000251Z"}, {"id": "ffffffffffff"},
               {"event": "run resumed"}, {"details": {"run": RUN, "round": 99, "banks": 3}},
               {"previous": "1" * 64}, {"hash": "1" * 64}, {"number": 40}, {"extra": 1}],
)  # fmt: skip
def test_every_change_of_every_line_is_named(log, number, change):
    held = lines(log)
    held[number] = edited(held[number], **change)
    rewrite(log, held)
    assert fault(log) == (number + 1, Kind.EDITED)


@pytest.mark.parametrize("number", range(5))
def test_a_line_changed_with_its_hash_is_named_by_the_next(log, number):
    held = lines(log)
    held[number] = rehashed(held[number], time="2026-05-01T12:30:15.000251Z")
    rewrite(log, held)
    assert fault(log) == (number + 1, Kind.EDITED)


@pytest.mark.parametrize("number", range(5))
def test_a_removed_line_is_named(log, number):
    held = lines(log)
    del held[number]
    rewrite(log, held)
    assert fault(log) == (number + 1, Kind.REMOVED)


def test_moved_and_repeated_lines_are_named(log):
    held = lines(log)
    rewrite(log, [held[0], held[1], held[3], held[2], *held[4:]])
    assert fault(log) == (3, Kind.REORDERED)
    rewrite(log, [*held[:3], held[1], *held[3:]])
    assert fault(log) == (4, Kind.REORDERED)


@pytest.mark.parametrize("left", range(6))
def test_a_log_cut_at_its_end_is_noticed_by_a_head_held_elsewhere(log, left):
    head = log.head()
    rewrite(log, lines(log)[:left])
    assert fault(log) is None
    assert fault(log, (head,)) == (left + 1, Kind.CUT)


def test_a_log_written_anew_is_noticed_by_a_head_held_elsewhere(log, tmp_path):
    held = entries_of(log.path)[3].head
    other = opened(tmp_path / "other.jsonl", lines=9)
    assert fault(other) is None
    assert fault(other, (held,)) == (4, Kind.REWRITTEN)


@pytest.mark.parametrize("number", range(6))
@pytest.mark.parametrize("text", [b"", b"{}", b"null", b"\xff", b"x" * 20_000])
def test_a_line_put_in_or_overwritten_is_named(log, number, text):
    held = lines(log)
    rewrite(log, [*held[:number], text, *held[number:]])
    assert fault(log) == (number + 1, Kind.EDITED)
    rewrite(log, [*held[:number], text, *held[number + 1 :]])
    assert fault(log) == (number + 1, Kind.EDITED)


@settings(max_examples=60)
@given(st.data())
def test_no_changed_byte_goes_unnoticed(tmp_path_factory, data):
    log = opened(tmp_path_factory.mktemp("log") / "audit.jsonl", lines=4)
    head = log.head()
    whole = bytearray(log.path.read_bytes())
    place = data.draw(st.integers(0, len(whole) - 2))  # the last byte is the last line's end
    whole[place] ^= data.draw(st.integers(1, 255))
    log.path.write_bytes(whole)
    assert verify(log.path, [head]).fault is not None


@given(st.binary(max_size=400))
def test_any_bytes_are_an_entry_or_a_reason(data):
    found = read_entry(data)
    if not isinstance(found, str):
        assert found.line() == data


@given(st.lists(st.binary(max_size=200), max_size=6))
def test_any_file_is_read_to_its_first_fault(tmp_path_factory, texts):
    path = tmp_path_factory.mktemp("log") / "audit.jsonl"
    path.write_bytes(b"\n".join(texts))
    assert verify(path).entries == 0


# --- kills ---------------------------------------------------------------------------------------


@settings(max_examples=150)
@given(st.data())
def test_a_kill_in_mid_write_is_closed_off_and_no_fault(tmp_path_factory, data):
    log = opened(tmp_path_factory.mktemp("log") / "audit.jsonl", lines=3)
    before = log.path.stat().st_size
    for _ in range(data.draw(st.integers(1, 3))):  # the one that closes it off may be torn, too
        size = log.path.stat().st_size
        log.record(Event.RESUMED, run=RUN, round=3)
        written = log.path.stat().st_size
        os.truncate(log.path, data.draw(st.integers(size, written - 1)))
    assert fault(log) is None
    log.record(Event.RUN_ENDED, run=RUN, rounds=3, sha256=HASH)
    verdict = verify(log.path, [log.head()])
    assert verdict.fault is None
    closed = [entry for entry in entries_of(log.path) if entry.event is Event.CLOSED_OFF]
    assert verdict.torn == len(closed)
    assert log.path.read_bytes()[:before] == b"".join(
        entry.line() + b"\n" for entry in entries_of(log.path)[:3]
    )


def test_a_line_torn_after_its_first_byte_is_closed_off_too(log):
    """The first byte of what closes off a torn line ends that line."""
    for rest in (200, 1):
        size = log.path.stat().st_size
        log.record(Event.RESUMED, run=RUN, round=3)
        os.truncate(log.path, size + rest)
        assert fault(log) is None and verify(log.path).torn == 1
    assert log.path.read_bytes().endswith(b"\n")
    log.record(Event.RESUMED, run=RUN, round=4)
    assert verify(log.path).entries == 8 and fault(log) is None


def test_what_was_closed_off_cannot_be_changed_or_removed(log):
    log.record(Event.RESUMED, run=RUN, round=3)
    os.truncate(log.path, log.path.stat().st_size - 40)
    assert verify(log.path).torn == 1
    log.record(Event.RESUMED, run=RUN, round=4)
    whole = lines(log)
    assert fault(log) is None and len(whole) == 9
    rewrite(log, [*whole[:6], whole[6][:-1] + b"?", *whole[7:]])
    assert fault(log) == (7, Kind.EDITED)
    rewrite(log, [*whole[:6], *whole[7:]])
    assert fault(log) == (7, Kind.REMOVED)


def test_a_last_line_without_its_end_is_whole(log):
    os.truncate(log.path, log.path.stat().st_size - 1)
    verdict = verify(log.path)
    assert (verdict.entries, verdict.torn, verdict.fault) == (6, 0, None)
    log.record(Event.RESUMED, run=RUN, round=6)
    assert verify(log.path).entries == 7 and fault(log) is None


def test_nothing_is_added_to_a_log_whose_last_line_was_changed(log):
    held = lines(log)
    rewrite(log, [*held[:-1], edited(held[-1], id="ffffffff")])
    with pytest.raises(StorageError, match="its last line was changed"):
        log.record(Event.RESUMED, run=RUN, round=6)


def test_a_full_disk_is_one_line_and_the_log_goes_on_when_there_is_room(log, monkeypatch):
    whole = os.write

    def full(descriptor: int, data: bytes) -> int:
        whole(descriptor, data[:50])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(audit_module.os, "write", full)
        with pytest.raises(StorageError, match="make room"):
            log.record(Event.RESUMED, run=RUN, round=6)
    log.record(Event.RESUMED, run=RUN, round=6)
    verdict = verify(log.path)
    assert verdict.fault is None and verdict.torn == 1 and verdict.entries == 8


def test_a_process_killed_at_any_moment_leaves_a_log_that_holds(tmp_path):
    path = tmp_path / "audit.jsonl"
    code = (
        "import sys; from pathlib import Path; from fedsys.trust.audit import Audit\n"
        "from fedsys.trust.events import Event\n"
        "log = Audit(Path(sys.argv[1]))\n"
        "while True: log.record(Event.ROUND_BEGUN, run='0123456789ab', round=1, banks=3)"
    )
    for turn in range(4):
        writer = subprocess.Popen([sys.executable, "-c", code, str(path)])
        size = path.stat().st_size if path.exists() else 0
        end = time.monotonic() + 60
        while not path.exists() or path.stat().st_size < size + 500 * (turn + 1):
            assert time.monotonic() < end
            time.sleep(0.001)
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
        assert verify(path).fault is None
    Audit(path).record(Event.RESUMED, run=RUN, round=1)
    assert fault(Audit(path)) is None


# --- what may be said ----------------------------------------------------------------------------


SECRET = "customer 4711, IBAN DE89 3704 0044 0532 0130 00"


def test_an_exceptions_text_never_enters_a_log(log):
    code = code_of(PolicyError(SECRET))
    assert code is Code.POLICY and code_of(ValueError(SECRET)) is Code.INTERNAL
    assert code_of(MemoryError(SECRET)) is Code.MEMORY
    log.record(Event.FAILED, run=RUN, round=1, bank="bank-a", code=code)
    for event, fields in FIELDS.items():
        for name in fields:
            details = {**dict.fromkeys(fields, 1), name: SECRET}
            with pytest.raises(DataError) as error:
                log.record(event, **details)
            assert SECRET not in str(error.value)
            if name == "code":
                with pytest.raises(DataError):
                    log.record(event, **{**details, name: str(ValueError(SECRET))})
    for more in ({"text": SECRET}, {SECRET: 1}):
        with pytest.raises(DataError) as error:
            log.record(Event.REVOKED, bank="bank-a", **more)
        assert SECRET not in str(error.value)
    with pytest.raises(DataError):
        log.record(Event.REVOKED, SECRET, bank="bank-a")
    assert b"4711" not in log.path.read_bytes() and fault(log) is None


@given(st.text(max_size=100))
def test_a_detail_has_no_room_for_text(text):
    for event, fields in FIELDS.items():
        for name, check in fields.items():
            if check(text):
                assert (text.isascii() and " " not in text) or text in set(Reason), (event, name)
                assert len(text) <= 64


@pytest.mark.parametrize("event", Event)
def test_every_event_has_details_that_are_checked(event):
    assert event in FIELDS
    assert fault_in(event, {}) is not None
    assert fault_in(event, dict.fromkeys(FIELDS[event])) is not None


@pytest.mark.parametrize("wrong", [True, -1, 2**63, 1.0, "1", None])
def test_a_count_is_a_whole_number(log, wrong):
    with pytest.raises(DataError, match="round is not of its kind"):
        log.record(Event.RESUMED, run=RUN, round=wrong)
