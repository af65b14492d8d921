import hashlib
import stat
import string
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsys.errors import FedsysError, IdentityError, StorageError, UsageError
from fedsys.trust.invitations import Invitations
from fedsys.trust.tokens import Throttle, Token, invite, read_token, redeem

NOW = 1_780_000_000.0
PRINT = hashlib.sha256(b"an authority").digest()


def invited(**changed):
    said = {"federation": "eu-credit", "bank": "bank-a", "authority": PRINT, "now": NOW,
            "addresses": ["fl.example.org:8443", "10.1.2.3:8443"], **changed}  # fmt: skip
    return invite(**said)


TOKEN, INVITATION = invited()
TEXT = TOKEN.text()


def test_a_token_reads_back_as_it_was_printed():
    assert read_token(TEXT) == TOKEN
    assert TOKEN.addresses == ("fl.example.org:8443", "10.1.2.3:8443")
    assert TOKEN.authority == PRINT and TOKEN.expires == int(NOW + 7 * 86400)
    assert TEXT.startswith("fedsys1.") and TEXT.isascii() and len(TEXT) < 500


def test_blanks_and_line_breaks_of_a_mail_do_not_count():
    broken = "\r\n".join(TEXT[at : at + 60] for at in range(0, len(TEXT), 60))
    assert read_token(f"  {broken}\n") == TOKEN


@pytest.mark.parametrize("length", range(8, len(TEXT), 7))
def test_a_token_that_is_cut_says_so(length):
    with pytest.raises(IdentityError, match=f"token: cut after {length} "):
        read_token(TEXT[:length])


@given(st.integers(8, len(TEXT) - 1), st.sampled_from("abcXYZ019-_"))
def test_a_token_with_one_wrong_character_says_so(place, letter):
    typed = TEXT[:place] + letter + TEXT[place + 1 :]
    if typed == TEXT:
        assert read_token(typed) == TOKEN
    else:
        with pytest.raises(IdentityError, match=r"mistyped|cut"):
            read_token(typed)


@given(st.integers(8, len(TEXT) - 2))
def test_two_characters_the_wrong_way_round_are_noticed(place):
    swapped = TEXT[:place] + TEXT[place + 1] + TEXT[place] + TEXT[place + 2 :]
    if swapped != TEXT:
        with pytest.raises(IdentityError):
            read_token(swapped)


@pytest.mark.parametrize("bank", ["a", "ab", "abc"])
def test_a_token_has_one_spelling(bank):
    """Base 64 leaves bits of a last character unused, and tokens come in three lengths."""
    token = invited(bank=bank)[0]
    text, letters = token.text(), string.ascii_letters + string.digits + "-_"
    for other in [text[:-1] + letter for letter in letters if letter != text[-1]] + [text + "A"]:
        with pytest.raises(IdentityError, match="mistyped"):
            read_token(other)
    assert read_token(text) == token


@pytest.mark.parametrize(
    "text, said",
    [
        ("", "does not begin with fedsys1."), (TEXT[1:], "does not begin"),
        ("fedsys2." + TEXT[8:], "of another version"), (TEXT + "a", "mistyped"),
        (TEXT[:20] + "!" + TEXT[21:], "character number 21"), ("fedsys1.", "cut after 8"),
        (TEXT + TEXT, "mistyped|no token has"), ("x" * 10_000, "too many"),
    ],
)  # fmt: skip
def test_what_is_no_token_is_told_why(text, said):
    with pytest.raises(IdentityError, match=said):
        read_token(text)


@given(st.text(max_size=80), st.binary(max_size=80))
def test_any_text_is_an_identity_error(text, data):
    import base64

    with pytest.raises(IdentityError):
        read_token(text)
    with pytest.raises(IdentityError):
        read_token("fedsys1." + text)
    body = hashlib.sha256(b"fedsys token\n" + data).digest()[:4] + data  # a right checksum
    with pytest.raises(IdentityError):
        read_token("fedsys1." + base64.urlsafe_b64encode(body).decode())


@pytest.mark.parametrize(
    "change",
    [{"federation": "EU"}, {"bank": "../x"}, {"addresses": []}, {"addresses": ["x"]},
     {"addresses": ["h:1"] * 9}, {"authority": b"short"}, {"days": 0}, {"days": 1e9},
     {"days": float("nan")}],
)  # fmt: skip
def test_an_invitation_that_makes_no_sense_is_refused(change):
    with pytest.raises(UsageError):
        invited(**change)


def test_a_token_out_of_date_is_told_whom_to_ask():
    TOKEN.check_time(TOKEN.expires - 1)
    with pytest.raises(IdentityError, match=r"expired on 2026-06-0\d .* coordinator of eu-credit"):
        TOKEN.check_time(TOKEN.expires)


def test_codes_are_never_alike_and_never_shown():
    assert len({invited()[0].code for _ in range(100)}) == 100
    assert TOKEN.code.hex() not in repr(TOKEN) and str(TOKEN.code) not in repr(TOKEN)


# --- the server's side ---------------------------------------------------------------------------


def test_the_server_keeps_nothing_that_lets_one_enrol():
    kept = repr(INVITATION)
    assert TOKEN.code.hex() not in kept and repr(TOKEN.code) not in kept
    assert INVITATION.hash == hashlib.sha256(b"fedsys invitation\n" + TOKEN.code).hexdigest()


def test_a_code_counts_once():
    used = redeem(INVITATION, TOKEN.code, NOW + 5)
    assert used.used == NOW + 5 and used.bank == "bank-a"
    with pytest.raises(IdentityError, match="used before"):
        redeem(used, TOKEN.code, NOW + 6)


def test_a_code_counts_until_its_expiry():
    with pytest.raises(IdentityError, match="expired"):
        redeem(INVITATION, TOKEN.code, INVITATION.expires)


@given(st.binary(max_size=40))
def test_a_wrong_code_learns_nothing(code):
    used = redeem(INVITATION, TOKEN.code, NOW)
    said = set()
    for invitation in (INVITATION, used, None):
        for now in (NOW, NOW + 1e8):
            with pytest.raises(IdentityError) as error:
                redeem(invitation, code, now)
            said.add(str(error.value))
    assert len(said) == 1


def test_a_code_is_compared_in_constant_time(monkeypatch):
    from fedsys.trust import tokens

    asked = []
    whole = tokens.hmac.compare_digest
    monkeypatch.setattr(
        tokens.hmac, "compare_digest", lambda a, b: asked.append((len(a), len(b))) or whole(a, b)
    )
    for invitation in (INVITATION, None):
        with pytest.raises(FedsysError):
            redeem(invitation, b"wrong", NOW)
    assert asked == [(64, 64)] * 2


def test_a_source_may_try_some_times_a_minute():
    throttle = Throttle(tries=3, seconds=60)
    assert [throttle.allow("a", 0.0) for _ in range(5)] == [True] * 3 + [False] * 2
    assert throttle.allow("b", 0.0)
    assert not throttle.allow("a", 19.0)
    assert throttle.allow("a", 20.0)
    assert not throttle.allow("a", 20.0)
    assert [throttle.allow("a", 1000.0) for _ in range(4)] == [True] * 3 + [False]


def test_sources_without_end_take_room_with_an_end():
    throttle = Throttle(sources=50)
    for number in range(1000):
        throttle.allow(str(number), 0.0)
    assert len(throttle._buckets) == 50


def test_a_token_takes_only_its_plain_form():
    with pytest.raises(UsageError):
        Token(("FL.example.org:8443",), "eu", "a", PRINT, bytes(16), 1)


# --- the list ------------------------------------------------------------------------------------


def test_an_invitation_is_used_up_on_the_disk(tmp_path):
    path = tmp_path / "invitations"
    Invitations(path).add(INVITATION)
    assert TOKEN.code.hex() not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(IdentityError, match="not valid here"):
        Invitations(path).redeem("bank-b", TOKEN.code, NOW)
    with pytest.raises(IdentityError, match="not valid here"):
        Invitations(path).redeem("bank-a", bytes(16), NOW)
    assert Invitations(path).redeem("bank-a", TOKEN.code, NOW).used == NOW
    with pytest.raises(IdentityError, match="used before"):
        Invitations(path).redeem("bank-a", TOKEN.code, NOW)
    assert [one.used for one in Invitations(path).all()] == [NOW]


def test_a_new_invitation_replaces_the_old_and_a_withdrawn_one_is_gone(tmp_path):
    invitations = Invitations(tmp_path / "invitations")
    token, newer = invited()
    invitations.add(INVITATION)
    invitations.add(newer)
    with pytest.raises(IdentityError, match="not valid here"):
        invitations.redeem("bank-a", TOKEN.code, NOW)
    assert invitations.withdraw("bank-a") and not invitations.withdraw("bank-a")
    with pytest.raises(IdentityError, match="not valid here"):
        invitations.redeem("bank-a", token.code, NOW)


def test_of_many_that_redeem_at_once_one_succeeds(tmp_path):
    path = tmp_path / "invitations"
    Invitations(path).add(INVITATION)
    code = (
        "import sys; from pathlib import Path; from fedsys.errors import IdentityError\n"
        "from fedsys.trust.invitations import Invitations\n"
        "try: Invitations(Path(sys.argv[1])).redeem('bank-a', bytes.fromhex(sys.argv[2]), 1.0)\n"
        "except IdentityError: sys.exit(5)"
    )
    arguments = [sys.executable, "-c", code, str(path), TOKEN.code.hex()]
    tried = [subprocess.Popen(arguments) for _ in range(4)]
    assert sorted(one.wait(60) for one in tried) == [0, 5, 5, 5]


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b'{"bank-a":1}', b'{"bank-a":{"bank":"bank-b"}}', b"\xff"]
)
def test_a_damaged_list_is_one_line(tmp_path, text):
    (tmp_path / "invitations").write_bytes(text)
    with pytest.raises(StorageError, match="invite anew"):
        Invitations(tmp_path / "invitations").all()
