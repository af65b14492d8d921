"""What binds a node's request: nothing of it can be changed, and it counts once."""

import hashlib
import os
import time

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import binding as benchmark
from fedsys.errors import StorageError
from fedsys.flower.processes.binding import (
    ARRIVING,
    CLOCK,
    KEPT,
    Seen,
    Stamp,
    read_stamp,
    stamped,
)

KEY, OTHER = (ec.generate_private_key(ec.SECP384R1()) for _ in range(2))
ASKED = b"POST /v1/fleet/push-messages"
NOW = 1_800_000_000


def digest(body):
    return hashlib.sha256(body).digest()


def changed(data, place, by):
    """The bytes with one of them changed."""
    place %= len(data)
    return data[:place] + bytes([data[place] ^ by]) + data[place + 1 :]


@settings(deadline=None)
@given(st.binary(max_size=300), st.integers(1, 10**11))
def test_what_was_signed_fits_and_is_read_as_it_was_written(body, now):
    stamp = stamped(KEY, ASKED, digest(body), now)
    assert stamp.fits(KEY.public_key(), ASKED, digest(body))
    assert read_stamp(stamp.text().encode()) == stamp
    assert stamp.off(now + 7) == -7


@settings(deadline=None)
@given(body=st.binary(min_size=1, max_size=300), place=st.integers(0, 10**6),
       by=st.integers(1, 255))  # fmt: skip
def test_one_changed_byte_and_the_signature_does_not_fit(body, place, by):
    stamp, public = stamped(KEY, ASKED, digest(body), NOW), KEY.public_key()
    assert not stamp.fits(public, changed(ASKED, place, by), digest(body))
    assert not stamp.fits(public, ASKED, digest(changed(body, place, by)))
    assert not stamp.fits(public, ASKED, digest(body + b"\0"))
    assert not stamp.fits(OTHER.public_key(), ASKED, digest(body))
    text = read_stamp(changed(stamp.text().encode(), place, by))
    assert text is None or not text.fits(public, ASKED, digest(body))
    for other in (
        Stamp(NOW + by, stamp.nonce, stamp.signature),
        Stamp(NOW, changed(bytes.fromhex(stamp.nonce), place, by).hex(), stamp.signature),
        Stamp(NOW, stamp.nonce, changed(stamp.signature, place, by)),
    ):
        assert not other.fits(public, ASKED, digest(body))


@given(st.binary(max_size=80) | st.from_regex(rb"[0-9]{1,3}\.[0-9a-f]{32}\.[0-9a-f]{1,20}"))
def test_bytes_are_a_stamp_in_its_one_spelling_or_none(data):
    stamp = read_stamp(data)
    assert stamp is None or stamp.text().encode() == data


def test_no_two_stamps_are_alike():
    made = [stamped(KEY, ASKED, digest(b""), NOW) for _ in range(20)]
    assert len({stamp.nonce for stamp in made}) == 20


# --- what was here -------------------------------------------------------------------------------


def numbered(number, now=NOW):
    """A stamp, without the trouble of signing it."""
    return Stamp(now, f"{number:032x}", b"")


steps = st.lists(
    st.tuples(st.floats(0, KEPT), st.integers(0, 5), st.sampled_from([b"a", b"b"])), max_size=60
)


@settings(deadline=None)
@given(steps)
def test_a_nonce_is_known_for_as_long_as_it_could_come_again(steps):
    now, known = 0.0, {}
    seen = Seen(clock=lambda: now)
    for wait, number, key in steps:
        now += wait
        assert seen.room(key)
        for (whose, which), then in known.items():
            if now - then <= 2 * CLOCK + ARRIVING:
                assert seen.had(whose, numbered(which))
            if now - then > 4 * KEPT:
                assert not seen.had(whose, numbered(which))
        if not seen.had(key, numbered(number)):
            seen.add(key, numbered(number))
            known[key, number] = now


def test_memory_and_disk_are_bounded_however_long_it_runs(tmp_path):
    now = 0.0
    seen = Seen(tmp_path / "seen", each=50, all=80, clock=lambda: now)
    largest = 0
    for number in range(4000):
        now += KEPT / 200
        key = b"flood" if number % 4 else b"bank"
        if seen.room(key):
            seen.add(key, numbered(number))
        size = sum(path.stat().st_size for path in tmp_path.iterdir())
        largest = max(largest, size)
        assert len(seen) <= 160
    assert largest <= 160 * 32
    assert len(list(tmp_path.iterdir())) == 2


def test_a_node_that_floods_waits_and_no_other_does():
    now = 0.0
    seen = Seen(each=3, all=5, clock=lambda: now)
    for number in range(3):
        assert seen.room(b"flood")
        seen.add(b"flood", numbered(number))
    assert not seen.room(b"flood")
    assert seen.room(b"bank")
    for number in range(2):
        seen.add(b"bank", numbered(number))
    assert not seen.room(b"another"), "all together"
    now = KEPT + 1.0
    assert seen.room(b"flood") and seen.room(b"another")


def test_a_server_that_was_killed_knows_what_was_there(tmp_path):
    path, moment = tmp_path / "flower" / "seen", int(time.time())
    first = Seen(path)
    for number in range(10):
        first.add(b"a", numbered(number, moment))
    first.add(b"a", numbered(99, moment - KEPT - 60))  # of long ago
    with open(path, "ab") as torn:
        torn.write(b"\0\1\2")  # killed while it wrote
    for _ in range(3):  # and again, and again
        again = Seen(path)
        assert all(again.had(b"a", numbered(number, moment)) for number in range(10))
        assert not again.had(b"b", numbered(0, moment)), "another node's"
        assert not again.had(b"a", numbered(10, moment))
        assert len(again) == 10
    again.add(b"a", numbered(10, moment))
    last = Seen(path)
    assert last.had(b"a", numbered(10, moment)) and len(last) == 11


def test_a_new_generation_on_the_disk_is_the_one_in_memory(tmp_path):
    now, moment = 0.0, int(time.time())
    seen = Seen(tmp_path / "seen", clock=lambda: now)
    for number in range(3):
        assert seen.room(b"a")
        seen.add(b"a", numbered(number, moment))
        now += KEPT + 1.0
    assert seen.room(b"a")
    assert [seen.had(b"a", numbered(number, moment)) for number in range(3)] == [
        False, False, True,
    ]  # fmt: skip
    assert len(Seen(tmp_path / "seen")) == 1


def test_what_cannot_be_written_is_not_let_in_and_leaves_the_file_whole(tmp_path, monkeypatch):
    path, moment = tmp_path / "seen", int(time.time())
    seen, write = Seen(path), os.write
    seen.add(b"a", numbered(1, moment))

    def full(descriptor, data):
        if len(data) < 32:
            raise OSError(28, "No space left on device")
        return write(descriptor, data[:7])

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(StorageError, match="make room there"):
        seen.add(b"a", numbered(2, moment))
    assert not seen.had(b"a", numbered(2, moment))
    monkeypatch.setattr(os, "write", write)
    seen.add(b"a", numbered(3, moment))
    again = Seen(path)
    assert [again.had(b"a", numbered(number, moment)) for number in (1, 2, 3)] == [
        True, False, True,
    ]  # fmt: skip


def test_what_it_costs_can_be_measured(tmp_path):
    assert len(benchmark.measured(1000, 1, tmp_path)) == 3
