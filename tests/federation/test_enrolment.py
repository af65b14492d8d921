"""Banks enrol over TLS at the coordinator's desk; what is not right is refused and written down."""

import asyncio
import base64
import hashlib
import http.client
import json
import socket
import ssl
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
from fedsys.federation.banks import Banks
from fedsys.federation.enrolment.desk import ENROL, LONGEST, PATH, STANDING, Desk
from fedsys.federation.enrolment.door import main
from fedsys.federation.enrolment.nodes import Nodes
from fedsys.federation.enrolment.standing import Standings
from fedsys.flower import compat_nodes
from fedsys.flower.processes import database, launch
from fedsys.flower.processes.asgi import NODE
from fedsys.flower.processes.binding import HEADER, stamped
from fedsys.flower.processes.superlink import LOOPBACK, free_port
from fedsys.trust import canonical
from fedsys.trust.events import Event
from fedsys.trust.identity import issue_server, read_authority
from fedsys.trust.jobs import version
from fedsys.trust.keys import make_keys
from fedsys.trust.signing import sign
from fedsys.trust.verification import cross_check, entries_of, verify
from tests.federation.doors import behind, coordinator, invited, open_door


@pytest.fixture
def home(tmp_path):
    return coordinator(tmp_path / "coordinator")


@pytest.fixture
def door(home):
    with open_door(home) as desk:
        yield desk


def banks(home):
    return Banks(home.folder / "banks.json")


def refusals(home):
    return [
        (entry.details["bank"], entry.details["code"])
        for entry in entries_of(home.audit.path)
        if entry.event is Event.REQUEST_REFUSED
    ]


def request(home, keys, token, now=None, audience=None, **changes):
    """A request to enrol, as a bank sends it, or with something changed."""
    body = {
        "bank": token.bank,
        "code": token.code.hex(),
        "node": keys.public.node,
        "signing": keys.public.signing,
        "version": version(),
        **changes,
    }
    to = audience or home.facts.name
    return sign(keys.signing, body, purpose=ENROL, audience=to, now=now).data()


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


# --- the door ------------------------------------------------------------------------------------


def raw(home, method, path, body=None, headers=None):
    context = ssl.create_default_context(cafile=str(home.authority_path))
    line = http.client.HTTPSConnection(LOOPBACK, home.facts.port, timeout=20, context=context)
    try:
        line.request(method, path, body, headers or {})
        reply = line.getresponse()
        return reply.status, reply.read()
    finally:
        line.close()


def test_the_door_answers_its_own_and_leaves_the_rest_to_the_guard(home, door):
    assert raw(home, "GET", PATH + "authority") == (200, home.authority_path.read_bytes())
    assert raw(home, "GET", PATH + "enrol")[0] == 405
    status, body = raw(home, "POST", PATH + "nothing", b"{}")
    assert status == 403 and json.loads(body)["code"] == "data"
    assert raw(home, "GET", "/health")[0] == 204
    assert raw(home, "POST", "/v1/control/list-nodes", b"")[0] == 403
    assert raw(home, "POST", "/v1/fleet/activate-node", b"")[0] == 403
    assert refusals(home) == [("unknown", "data")] + [("unknown", "identity")] * 2


def test_a_nodes_request_goes_by_once_and_in_its_banks_name(home, door, tmp_path):
    bank = enrol(invited(home, "bank-a"), tmp_path / "a").home
    path = "/v1/fleet/pull-messages"
    digest = hashlib.sha256(b"body").digest()
    stamp = stamped(bank.keys.node, b"POST " + path.encode(), digest).text()
    key = base64.b64encode(bank.keys.node_public).decode()
    headers = {NODE: key, HEADER: stamp}
    assert raw(home, "POST", path, b"other", headers)[0] == 403
    assert raw(home, "POST", path, b"body", headers)[0] == 204
    assert raw(home, "POST", path, b"body", headers)[0] == 403
    assert refusals(home) == [("bank-a", "identity")] * 2
    enrol(invited(home, "bank-a"), tmp_path / "new")  # with other keys: the old are nobody's
    stamp = stamped(bank.keys.node, b"POST " + path.encode(), digest).text()
    assert raw(home, "POST", path, b"body", {**headers, HEADER: stamp})[0] == 403
    assert refusals(home)[2:] == [("unknown", "identity")]


def test_the_server_behind_the_door_has_a_quota_as_the_one_without_it(home, tmp_path, monkeypatch):
    keys = make_keys(tmp_path / "keys")
    banks(home).add("bank-a", keys.public)
    made, sent, path = [], [], "/v1/fleet/push-object"
    monkeypatch.setattr(compat_nodes, "run_superlink", lambda rest, guard: made.append(guard))
    for module, name in [(launch, "end_with_parent"), (launch, "give_back"),
                         (database, "small_caches")]:  # fmt: skip
        monkeypatch.setattr(module, name, lambda: None)  # they are for a process of its own
    secret = home.folder / "secrets" / "coordinator"
    main([str(home.folder), str(secret), str(tmp_path / "seen"), "--port"])
    app, body = made[0](behind), bytes(7 << 20)

    async def send(message):
        sent.append(message)

    async def push():
        stamp = stamped(keys.node, b"POST " + path.encode(), hashlib.sha256(body).digest()).text()
        key = base64.b64encode(keys.node_public)
        scope = {"type": "http", "method": "POST", "path": path, "raw_path": path.encode(),
                 "query_string": b"", "client": ("10.0.0.7", 1),
                 "headers": [(NODE.encode(), key), (HEADER.encode(), stamp.encode())]}  # fmt: skip

        async def receive():
            return {"type": "http.request", "body": body, "more_body": False}

        await app(scope, receive, send)

    for _ in range(3):
        asyncio.run(push())
    assert [one["status"] for one in sent if "status" in one] == [204, 204, 413]


def test_strangers_fill_neither_the_log_nor_a_banks_place_in_it(home):
    nodes = Nodes(home)
    for number in range(300):
        nodes.note_refused("unknown", f"10.0.0.{number}")
    assert len(refusals(home)) <= 61
    nodes.note_refused("bank-a", "10.0.0.1")
    assert refusals(home)[-1] == ("bank-a", "identity")
    for _ in range(100):
        nodes.note_refused("bank-a", "10.0.0.1")
    assert len(refusals(home)) <= 72


def test_a_large_body_is_not_read_to_its_end(home, door):
    assert raw(home, "POST", PATH + "enrol", b"x" * (LONGEST + 1))[0] == 413
    assert refusals(home) == []


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
