"""Banks enrol over TLS at the coordinator's desk; what is not right is refused and written down."""

import json
import socket
import stat
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("flwr", reason="Flower is not installed")

from fedsys.clients.bank import standing
from fedsys.clients.bank.connection import fetch_authority, post, server_certificate
from fedsys.clients.bank.enrolment import enrol
from fedsys.clients.bank.home import BankHome
from fedsys.errors import FedsysError, IdentityError, NetworkError, UsageError
from fedsys.federation.enrolment.desk import ENROL, LONGEST, STANDING, Desk
from fedsys.federation.enrolment.standing import Standings
from fedsys.flower.processes.superlink import LOOPBACK, free_port
from fedsys.trust import canonical
from fedsys.trust.events import Event
from fedsys.trust.identity import issue_server, read_authority
from fedsys.trust.jobs import version
from fedsys.trust.keys import make_keys
from fedsys.trust.signing import sign
from fedsys.trust.verification import cross_check, entries_of, verify
from tests.federation.doors import coordinator, invited, open_door
from tests.federation.enrolment.conftest import banks, refusals, request

# --- the way that is meant -----------------------------------------------------------------------


def test_a_bank_that_enrols_is_written_down_and_waits(home, door, tmp_path):
    done = enrol(invited(home, "bank-a"), tmp_path / "a")
    (bank,) = banks(home).all()
    assert (bank.name, bank.approved) == ("bank-a", False)
    assert bank.keys == done.home.keys.public
    assert bank.keys.spoken == done.fingerprint
    assert done.home.schema.hash == home.schema.hash
    assert done.home.facts.coordinator == home.keys.public.signing
    assert (tmp_path / "a" / "authority.crt").read_bytes() == home.authority_path.read_bytes()
    assert done.warnings == ()
    events = [entry.event for entry in entries_of(home.audit.path)]
    assert events == [Event.OPENED, Event.JOINED]


def test_a_banks_keys_are_its_own_and_nobody_elses(home, door, tmp_path):
    enrol(invited(home, "bank-a"), tmp_path / "a")
    for path in [*(tmp_path / "a" / "keys").glob("*.key"), tmp_path / "a" / "bank.json"]:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    held = b"".join(path.read_bytes() for path in home.folder.rglob("*") if path.is_file())
    for path in (tmp_path / "a" / "keys").glob("*.key"):
        assert path.read_bytes() not in held


def test_an_enrolment_whose_answer_was_lost_goes_on_with_the_same_token(home, door, tmp_path):
    token, folder = invited(home, "bank-a"), tmp_path / "a"
    done = enrol(token, folder)
    (folder / "bank.json").unlink()  # killed before its last step
    again = enrol(token, folder)
    assert again.fingerprint == done.fingerprint
    joined = [entry for entry in entries_of(home.audit.path) if entry.event is Event.JOINED]
    assert len(joined) == 1
    assert verify(folder / "audit.jsonl").fault is None


def test_a_server_killed_between_code_and_list_takes_the_bank_the_second_time(home, door, tmp_path):
    token, keys = invited(home, "bank-a"), make_keys(tmp_path / "keys")
    door._invitations.redeem("bank-a", token.code)
    assert "error" not in door.answer(ENROL, request(home, keys, token), "here")
    assert banks(home).get("bank-a").keys == keys.public


def test_a_bank_hears_that_it_is_approved_and_both_logs_hold_each_other(home, door, tmp_path):
    bank = enrol(invited(home, "bank-a"), tmp_path / "a").home
    assert not standing.ask(bank).approved
    banks(home).approve("bank-a")
    assert standing.ask(bank).approved
    said = Standings(home.folder / "standing").get("bank-a")
    assert said.approves == "ask" and abs(said.seen - time.time()) < 60
    assert cross_check(home.audit.path, bank.audit.path, "coordinator", "bank-a") == []
    lines = home.audit.path.read_bytes().splitlines(keepends=True)
    home.audit.path.write_bytes(b"".join(lines[:2]))  # a coordinator that forgets
    assert cross_check(home.audit.path, bank.audit.path, "coordinator", "bank-a")


def test_a_word_without_news_leaves_both_logs_alone(home, door, tmp_path):
    bank = enrol(invited(home, "bank-a"), tmp_path / "a").home
    before = (bank.audit.head(), home.audit.head())
    standing.ask(bank, with_head=False)
    assert (bank.audit.head(), home.audit.head()) == before


def test_a_renewed_certificate_is_believed_and_a_new_bank_keeps_its_number(home, tmp_path):
    with open_door(home):
        enrol(invited(home, "bank-a"), tmp_path / "a")
    issue_server(home.folder / "server", read_authority(home.folder / "authority"), [LOOPBACK])
    with open_door(home):
        standing.ask(BankHome.open(tmp_path / "a"))
        banks(home).approve("bank-a")
        enrol(invited(home, "bank-a"), tmp_path / "new")
        (bank,) = banks(home).all()
        assert (bank.number, bank.approved) == (0, False)
        with pytest.raises(IdentityError, match="not known here"):
            standing.ask(BankHome.open(tmp_path / "a"))


# --- what is refused -----------------------------------------------------------------------------


def test_a_used_token_is_refused_to_another_and_both_are_written_down(home, door, tmp_path):
    token = invited(home, "bank-a")
    enrol(token, tmp_path / "a")
    with pytest.raises(IdentityError, match="used before"):
        enrol(token, tmp_path / "thief")
    assert not (tmp_path / "thief" / "bank.json").exists()
    assert refusals(home) == [("bank-a", "identity")]


def test_an_expired_token_is_refused_at_the_bank_and_at_the_server(home, door, tmp_path):
    token = invited(home, "bank-a", days=1.0, now=time.time() - 2 * 86400)
    with pytest.raises(IdentityError, match=r"expired on .* new one"):
        enrol(token, tmp_path / "a")
    assert not (tmp_path / "a").exists()
    # Its date is mended: the server knows better.
    with pytest.raises(IdentityError, match="expired"):
        enrol(replace(token, expires=int(time.time()) + 1000), tmp_path / "a")
    assert refusals(home) == [("bank-a", "identity")]


def test_a_code_is_worth_nothing_in_another_banks_name(home, door, tmp_path):
    mine = invited(home, "bank-a")
    invited(home, "bank-b")
    with pytest.raises(IdentityError, match="not valid here"):
        enrol(replace(mine, bank="bank-b"), tmp_path / "b")
    assert banks(home).all() == []
    assert refusals(home) == [("bank-b", "identity")]
    enrol(mine, tmp_path / "a")  # and was not used up by that


def test_a_withdrawn_bank_and_one_that_nobody_invited_hear_the_same(home, door, tmp_path):
    token = invited(home, "bank-a")
    door._invitations.withdraw("bank-a")
    with pytest.raises(IdentityError) as withdrawn:
        enrol(token, tmp_path / "a")
    with pytest.raises(IdentityError) as nobody:
        enrol(replace(token, bank="bank-z"), tmp_path / "z")
    assert str(withdrawn.value) == str(nobody.value)


def test_two_banks_cannot_share_keys(home, door, tmp_path):
    keys = make_keys(tmp_path / "keys")
    assert "error" not in door.answer(ENROL, request(home, keys, invited(home, "bank-a")), "here")
    said = door.answer(ENROL, request(home, keys, invited(home, "bank-b")), "here")
    assert said["code"] == "identity" and "another bank" in said["error"]


def test_a_folder_is_one_banks(home, door, tmp_path):
    enrol(invited(home, "bank-a"), tmp_path / "a")
    token = invited(home, "bank-b")
    with pytest.raises(UsageError, match="is bank-a of eu-credit already"):
        enrol(token, tmp_path / "a")
    enrol(token, tmp_path / "b")  # the token was not used up


def test_clocks_that_differ_are_told(home, tmp_path):
    for off, way in ((-4000, "behind"), (4000, "ahead")):
        said = Desk(home, lambda off=off: time.time() - off).answer(
            ENROL, request(home, make_keys(tmp_path / way), invited(home, "bank-a")), "here"
        )
        assert said["code"] == "identity"
        assert way in said["error"] and "timedatectl" in said["error"]


def test_a_small_difference_of_clocks_is_a_warning(home, tmp_path):
    with open_door(home, Desk(home, lambda: time.time() + 200)):
        (warning,) = enrol(invited(home, "bank-a"), tmp_path / "a").warnings
    assert "200 s behind" in warning or "199 s behind" in warning


def test_an_altered_request_is_refused(home, door, tmp_path):
    keys, token = make_keys(tmp_path / "keys"), invited(home, "bank-a")
    good = request(home, keys, token)
    altered = good.replace(b'"bank":"bank-a"', b'"bank":"bank-b"')
    assert altered != good
    assert door.answer(ENROL, altered, "here")["code"] == "identity"
    other = make_keys(tmp_path / "other").public.signing
    swapped = good.replace(keys.public.signing.encode(), other.encode())
    assert door.answer(ENROL, swapped, "here")["code"] == "identity"
    elsewhere = request(home, keys, token, audience="another")
    assert door.answer(ENROL, elsewhere, "here")["code"] == "identity"
    assert "error" not in door.answer(ENROL, good, "here")


def test_a_replayed_word_counts_once(home, door, tmp_path):
    bank = enrol(invited(home, "bank-a"), tmp_path / "a").home
    body = {"bank": "bank-a", "approves": "ask", "jobs": [], "version": version(), "head": None}
    data = sign(bank.keys.signing, body, purpose=STANDING, audience="eu-credit").data()
    assert "error" not in door.answer(STANDING, data, "here")
    assert "sent before" in door.answer(STANDING, data, "here")["error"]
    assert "sent before" in Desk(home).answer(STANDING, data, "here")["error"]  # a restart
    assert refusals(home) == [("bank-a", "identity")] * 2


def test_a_replayed_enrolment_is_refused_and_changes_nothing(home, door, tmp_path):
    token, keys = invited(home, "bank-a"), make_keys(tmp_path / "keys")
    data = request(home, keys, token)
    assert "error" not in door.answer(ENROL, data, "here")
    assert "sent before" in door.answer(ENROL, data, "there")["error"]
    assert refusals(home) == [("bank-a", "identity")]
    again = request(home, keys, token)  # its answer was lost: the bank signs anew
    assert "error" not in door.answer(ENROL, again, "here")
    assert len(banks(home).all()) == 1


def test_a_bank_speaks_in_its_own_name_alone(home, door, tmp_path):
    bank = enrol(invited(home, "bank-a"), tmp_path / "a").home
    enrol(invited(home, "bank-b"), tmp_path / "b")
    body = {"bank": "bank-b", "approves": "always", "jobs": [], "version": "1", "head": None}
    data = sign(bank.keys.signing, body, purpose=STANDING, audience="eu-credit").data()
    assert door.answer(STANDING, data, "here")["code"] == "identity"
    assert Standings(home.folder / "standing").get("bank-b") is None


def test_whoever_only_has_the_certificate_gets_nowhere(home, door, tmp_path):
    keys = make_keys(tmp_path / "keys")
    body = {"bank": "bank-a", "approves": "ask", "jobs": [], "version": "1", "head": None}
    data = sign(keys.signing, body, purpose=STANDING, audience="eu-credit").data()
    with pytest.raises(IdentityError, match="not known here"):
        post(home.facts.address, home.authority_path.read_bytes(), STANDING, data)
    assert refusals(home) == [("bank-a", "identity")]


def test_a_stranger_may_try_ten_times_a_minute_and_does_not_fill_the_log(home, door, tmp_path):
    keys, token = make_keys(tmp_path / "keys"), invited(home, "bank-a")
    wrong = replace(token, code=bytes(16))
    said = [door.answer(ENROL, request(home, keys, wrong), "1.2.3.4") for _ in range(40)]
    assert [one["code"] for one in said] == ["identity"] * 10 + ["network"] * 30
    assert len(refusals(home)) == 10
    assert "error" not in door.answer(ENROL, request(home, keys, token), "5.6.7.8")
    for number in range(200):  # nor do many together
        door.answer(ENROL, b"{}", f"10.0.0.{number}")
    assert len(refusals(home)) <= 61


@settings(max_examples=60, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(st.binary(max_size=400) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.sampled_from(["body", "bank", "code", "signing", "node", "key", "time"])
                      | st.text(max_size=8), inner, max_size=6),
    max_leaves=15,
).map(lambda value: json.dumps(value, sort_keys=True, separators=(",", ":")).encode()))  # fmt: skip
def test_no_bytes_end_the_desk(home, data):
    desk = Desk(home)
    for purpose in (ENROL, STANDING, "nothing"):
        said = desk.answer(purpose, data, "here")
        assert said["code"] in ("data", "identity")
        assert len(said["error"]) < 600
    assert banks(home).all() == []
    assert verify(home.audit.path).fault is None


# --- the way to the server -----------------------------------------------------------------------


def test_nobody_at_the_address_is_one_line(home, tmp_path):
    with pytest.raises(NetworkError, match=r"Connection refused.*federation serve"):
        enrol(invited(home, "bank-a"), tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_the_next_address_of_a_token_is_tried(home, door, tmp_path):
    token = invited(home, "bank-a")
    token = replace(token, addresses=(f"{LOOPBACK}:{free_port()}", *token.addresses))
    assert enrol(token, tmp_path / "a").home.facts.server == home.facts.address


def test_another_federations_server_is_not_believed(home, door, tmp_path):
    other = coordinator(tmp_path / "other")
    token = replace(invited(other, "bank-a"), addresses=(home.facts.address,))
    with pytest.raises(IdentityError, match="somebody stands between"):
        enrol(token, tmp_path / "a")
    with pytest.raises(IdentityError, match="is not the federation's server"):
        post(home.facts.address, other.authority_path.read_bytes(), STANDING, b"{}")
    assert refusals(home) == []  # nothing was asked


def test_a_server_under_another_name_is_not_believed(home, tmp_path):
    token = replace(invited(home, "bank-a"), addresses=(f"127.0.0.2:{home.facts.port}",))
    told = pytest.raises(IdentityError, match="for another host")
    with open_door(home, host="127.0.0.2"), told:
        enrol(token, tmp_path / "a")
    assert refusals(home) == []


@pytest.mark.parametrize("days", [-20, 20])
def test_a_certificate_out_of_its_time_is_told(home, days):
    made = issue_server(
        home.folder / "server",
        read_authority(home.folder / "authority"),
        [LOOPBACK],
        now=datetime.now(UTC) + timedelta(days=days),
        days=10,
    )
    with pytest.raises(IdentityError, match="expired on" if days < 0 else "set the clock"):
        home.server()  # does not start
    said = "expired.*renew" if days < 0 else "not valid yet: set"
    with open_door(home, identity=made), pytest.raises(IdentityError, match=said):
        post(home.facts.address, home.authority_path.read_bytes(), STANDING, b"{}")


def test_a_server_without_tls_or_of_another_kind_is_told(tmp_path, home):
    def answer(place, said):
        with place, place.accept()[0] as line:
            line.recv(1000)
            line.sendall(said)

    for said in (b"HTTP/1.0 200 OK\r\n\r\nhello", b"\x00" * 50):
        place = socket.create_server((LOOPBACK, 0))
        port = place.getsockname()[1]
        thread = threading.Thread(target=answer, args=(place, said))
        thread.start()
        with pytest.raises(NetworkError, match="TLS"):
            fetch_authority(f"{LOOPBACK}:{port}", bytes(32))
        thread.join()


def test_an_answer_of_another_kind_is_told(home, door, monkeypatch):
    monkeypatch.setattr(door, "answer", lambda *anything: {"hello": 1})
    with pytest.raises(NetworkError, match="not as a federation's server"):
        post(home.facts.address, home.authority_path.read_bytes(), STANDING, b"{}")


def test_a_coordinators_words_come_in_one_harmless_line(home, door, monkeypatch):
    said = {"error": "\x1b[2J" + "a\nb" * 900, "code": "policy", "time": 1}
    monkeypatch.setattr(door, "answer", lambda *anything: said)
    with pytest.raises(FedsysError) as caught:
        post(home.facts.address, home.authority_path.read_bytes(), STANDING, b"{}")
    assert caught.value.code == 6
    assert str(caught.value).isprintable() and len(str(caught.value)) < 500


def test_a_name_that_is_not_known_is_told():
    with pytest.raises(NetworkError, match="name is not known"):
        fetch_authority("nowhere.invalid:8443", bytes(32))


def test_the_servers_certificate_says_how_long_it_is_good_for(home, door):
    found = server_certificate(home.facts.address, home.authority_path.read_bytes())
    assert found == read_server_certificate(home)


def read_server_certificate(home):
    from cryptography import x509

    return x509.load_pem_x509_certificate(home.server().certificate.read_bytes())


def test_what_a_bank_says_is_small_enough_for_its_request():
    body = {"bank": "a" * 63, "approves": "always", "jobs": ["f" * 64] * 256,
            "version": "1" * 40, "head": {"number": 2**62, "hash": "f" * 64}}  # fmt: skip
    assert len(canonical.encode(body)) < LONGEST - 2000
