import base64
import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import example, given
from hypothesis import strategies as st

from fedsys.errors import DataError, FedsysError, IdentityError
from fedsys.trust import canonical
from fedsys.trust.signing import DOMAIN, Replays, Signed, key_id, open_signed, ring, sign

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(32))
RING = ring(KEY.public_key())
BODY = {"rounds": 3, "names": ["a", "ä"], "rate": 0.1}


def signed(**changed) -> Signed:
    said = {"purpose": "job", "audience": "eu-credit", "now": 1_000_000.7, **changed}
    return sign(said.pop("key", KEY), BODY, **said)


def opened(data: bytes, **changed) -> Signed:
    said = {"keys": RING, "purpose": "job", "audience": "eu-credit", **changed}
    return open_signed(data, **said)


def test_what_is_signed_opens_and_says_who_and_when():
    one = opened(signed().data())
    assert one.body == BODY and one.key == key_id(KEY.public_key()) and one.time == 1_000_000


def test_the_signature_is_over_the_bytes_written_by_hand():
    one = signed()
    text = (
        '{"audience":"eu-credit","body":{"names":["a","ä"],"rate":0.1,"rounds":3},"format":1,'
        f'"key":"{one.key}","nonce":"{one.nonce}","purpose":"job","time":1000000}}'
    )
    assert one.message() == b"fedsys signed table 1\n" + text.encode()
    KEY.public_key().verify(one.signature, DOMAIN + text.encode())


def test_an_unknown_key_is_refused():
    with pytest.raises(IdentityError, match="not known here"):
        opened(signed(key=OTHER).data())


def test_another_banks_key_does_not_sign_for_this_one():
    table = json.loads(signed(key=OTHER).data())
    table["key"] = key_id(KEY.public_key())
    with pytest.raises(IdentityError, match="does not fit"):
        opened(canonical.encode(table))


@pytest.mark.parametrize(
    "name, value",
    [
        ("body", {**BODY, "rounds": 4}), ("purpose", "request"), ("audience", "bank-b"),
        ("time", 1_000_001), ("nonce", "0" * 32),
        ("signature", base64.b64encode(bytes(64)).decode()), ("signature", ""),
    ],
)  # fmt: skip
def test_whatever_is_altered_is_noticed(name, value):
    table = json.loads(signed().data()) | {name: value}
    purpose = table["purpose"]
    with pytest.raises(IdentityError, match="does not fit"):
        opened(canonical.encode(table), purpose=purpose, audience=table["audience"])


def test_a_table_counts_for_its_purpose_and_audience_only():
    with pytest.raises(IdentityError, match="signed as 'job', not as this"):
        opened(signed().data(), purpose="request")
    with pytest.raises(IdentityError, match="meant for 'eu-credit', not for 'us-credit'"):
        opened(signed().data(), audience="us-credit")


@pytest.mark.parametrize(
    "change",
    [{"format": 2}, {"format": True}, {"extra": 1}, {"time": "now"}, {"time": 1.0}, {"body": []},
     {"signature": "?"}, {"key": None}, {"nonce": "0\n1 x"}, {"nonce": ""}, {"key": "\n" * 32}],
)  # fmt: skip
def test_other_formats_and_fields_are_refused(change):
    with pytest.raises(DataError):
        opened(canonical.encode(json.loads(signed().data()) | change))


def test_more_bytes_than_allowed_are_refused():
    with pytest.raises(DataError, match="at most 100"):
        opened(signed().data(), limit=100)


DATA = signed().data()


@given(st.integers(0, len(DATA) - 1), st.integers(1, 255))
@example(DATA.index(b'==","time"') - 1, 1)  # bits of the signature's last letter that say nothing
def test_no_changed_byte_goes_unnoticed(place, by):
    changed = bytearray(DATA)
    changed[place] ^= by
    with pytest.raises(FedsysError) as error:
        opened(bytes(changed))
    assert isinstance(error.value, DataError | IdentityError)


@given(st.binary(max_size=200))
def test_any_bytes_are_refused(data):
    with pytest.raises(DataError):
        opened(data)


# --- replays -------------------------------------------------------------------------------------


def test_a_request_counts_once_even_after_a_restart(tmp_path):
    one = signed()
    Replays(tmp_path / "seen").admit(one, 1_000_001)
    for replays in (Replays(tmp_path / "seen"), Replays(tmp_path / "seen")):
        with pytest.raises(IdentityError, match="was sent before"):
            replays.admit(one, 1_000_299)
        replays.admit(signed(), 1_000_001)


@pytest.mark.parametrize("now, said", [(1_000_301, "301 s ago"), (999_699, "301 s ahead")])
def test_a_request_counts_within_its_window(tmp_path, now, said):
    with pytest.raises(IdentityError, match=said):
        Replays(tmp_path / "seen").admit(signed(), now)
    Replays(tmp_path / "seen").admit(signed(), 1_000_300)
    Replays(tmp_path / "seen").admit(signed(), 999_700)


def test_a_file_cut_off_or_damaged_forgets_no_whole_line(tmp_path):
    path = tmp_path / "seen"
    one, two = signed(), signed()
    Replays(path).admit(one, 1_000_000)
    Replays(path).admit(two, 1_000_000)
    path.write_bytes(path.read_bytes()[:-10] + b"\n\xff\xfe nonsense\n")
    with pytest.raises(IdentityError, match="was sent before"):
        Replays(path).admit(one, 1_000_000)


def test_a_line_cut_off_by_a_kill_does_not_swallow_the_next(tmp_path):
    path = tmp_path / "seen"
    Replays(path).admit(signed(), 1_000_000)
    path.write_bytes(path.read_bytes()[:-5])
    one = signed()
    Replays(path).admit(one, 1_000_000)
    with pytest.raises(IdentityError, match="was sent before"):
        Replays(path).admit(one, 1_000_000)


def test_the_file_keeps_no_more_than_the_window(tmp_path):
    path = tmp_path / "seen"
    for number in range(400):
        one = signed(now=1_000_000 + 10 * number)
        Replays(path).admit(one, one.time)
    kept = path.read_text().splitlines()
    assert len(kept) < 200
    with pytest.raises(IdentityError, match="was sent before"):
        Replays(path).admit(one, one.time)
