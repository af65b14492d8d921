"""`fedsys federation`: what a coordinator types, and what is wrong with it in one line."""

import io
import os
import subprocess
import time

import pytest

pytest.importorskip("flwr", reason="Flower is not installed")

from fedsys import places
from fedsys.federation.commands.status import overview
from fedsys.federation.home import Home
from fedsys.federation.serving import alone, holder
from fedsys.trust.events import Event
from fedsys.trust.tokens import read_token
from fedsys.trust.verification import entries_of
from tests.conftest import FEDSYS, Cli
from tests.federation.commands.conftest import banks, enrolled, stands
from tests.federation.doors import invited

# --- create and invite ---------------------------------------------------------------------------


def test_create_says_where_it_lies_and_what_comes_next(cli: Cli, schema):
    said = cli("federation", "create", "eu-credit", "--host", "fl.example.org", "--schema", schema,
               "--listen", "0.0.0.0", "--min-banks", 3)  # fmt: skip
    assert said.code == 0
    assert "fl.example.org:8443" in said.out and "fedsys federation invite" in said.out
    home = Home.open(places.find(places.FEDERATION))
    assert (home.facts.banks, home.facts.listen) == (3, "0.0.0.0")
    assert home.folder.stat().st_mode & 0o077 == 0


def test_create_warns_where_nobody_else_can_connect(cli: Cli, schema):
    said = cli("federation", "create", "a", "--host", "fl.example.org", "--schema", schema)
    assert "--listen 0.0.0.0" in said.err
    assert not cli("federation", "create", "b", "--host", "localhost", "--schema", schema).err


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("Eu Credit", "--host", "h"), "name"),
        (("a", "--host", "0.0.0.0"), "host"),
        (("a", "--host", "h", "--listen", "elsewhere"), "--listen"),
        (("a", "--host", "h", "--port", "0"), "--port"),
        (("a",), "--host"),
    ],
)
def test_create_refuses_what_cannot_be(cli: Cli, schema, arguments, part):
    cli("federation", "create", *arguments, "--schema", schema).refused(2, part)
    assert places.all_of(places.FEDERATION) == {}


def test_create_overwrites_nothing_and_needs_a_schema(cli: Cli, created, schema):
    again = ("federation", "create", "eu-credit", "--host", "h", "--schema")
    cli(*again, schema).refused(2, "eu-credit", "already")
    cli("federation", "create", "b", "--host", "h", "--schema", "no.toml").refused(2, "no.toml")


def test_invite_prints_the_token_alone(cli: Cli, created):
    said = cli("federation", "invite", "bank-a")
    token = read_token(said.out)
    assert (token.bank, token.addresses) == ("bank-a", (created.facts.address,))
    assert "channel that you trust" in said.err
    assert token.code.hex() not in (created.folder / "invitations.json").read_text()
    as_json = cli("federation", "invite", "bank-a", "--days", "0.5", "--json").json
    assert 0 < as_json["expires"] - time.time() < 86400
    events = [entry.event for entry in entries_of(created.audit.path)]
    assert events == [Event.OPENED, Event.INVITED, Event.INVITED]


def test_invite_refuses_a_name_or_time_that_is_none(cli: Cli, created):
    cli("federation", "invite", "Bank A").refused(2, "bank")
    cli("federation", "invite", "bank-a", "--days", "0").refused(2, "days")
    assert not (created.folder / "invitations.json").exists()


# --- which federation ----------------------------------------------------------------------------


def test_without_a_federation_each_command_says_how_to_make_one(cli: Cli, job_file):
    for words in (("status",), ("serve",), ("invite", "a"), ("approve", "a"), ("run", job_file),
                  ("watch",), ("resume",), ("audit", "--verify"), ("renew",)):  # fmt: skip
        cli("federation", *words).refused(2, "fedsys federation create")


def test_of_two_federations_one_is_named(cli: Cli, created, schema, tmp_path):
    cli("federation", "create", "other", "--host", "localhost", "--schema", schema)
    cli("federation", "status").refused(2, "eu-credit, other", "--federation")
    assert cli("federation", "status", "--federation", "other").code == 0
    cli("federation", "status", "--federation", "othr").refused(2, "did you mean 'other'")
    at = ("federation", "status", "--json", "--home")
    assert cli(*at, created.folder).json["federation"] == "eu-credit"
    nothing = cli(*at, tmp_path / "nothing")
    assert nothing.code == nothing.json["code"] == 2 and "nothing" in nothing.json["error"]


# --- approve and status --------------------------------------------------------------------------


def test_approve_compares_what_was_read(cli: Cli, created, tmp_path, monkeypatch):
    spoken = enrolled(created, tmp_path, "bank-a")["bank-a"].keys.public.spoken
    one = ("federation", "approve", "bank-a")
    cli(*one, "--fingerprint", "AAAA-BBBB").refused(5, "bank-a", "somebody else")
    monkeypatch.setattr("sys.stdin", io.StringIO())
    cli(*one).refused(2, "compare its fingerprint first")
    assert not banks(created).get("bank-a").approved
    assert cli(*one, "--fingerprint", spoken.lower().replace("-", " ")).code == 0
    assert banks(created).get("bank-a").approved
    assert cli(*one, "--no").code == 0
    assert not banks(created).get("bank-a").approved
    events = [entry.event for entry in entries_of(created.audit.path)]
    assert events[-2:] == [Event.APPROVED, Event.REVOKED]


def test_approve_takes_all_or_none(cli: Cli, created, tmp_path):
    enrolled(created, tmp_path, "bank-a", "bank-b")
    cli("federation", "approve", "bank-a", "bank-x", "--yes").refused(2, "bank-x")
    assert banks(created).approved() == []
    both = ("federation", "approve", "bank-a", "bank-b")
    cli(*both, "--fingerprint", "X").refused(2, "one by one")
    assert cli(*both, "--yes", "--json").json[1]["state"] == "approved"
    assert [bank.name for bank in banks(created).approved()] == ["bank-a", "bank-b"]


def test_status_says_how_each_bank_stands(cli: Cli, created, tmp_path):
    found = enrolled(created, tmp_path, "bank-a", "bank-b")
    invited(created, "bank-c")
    invited(created, "bank-d", days=1.0, now=time.time() - 90000)
    banks(created).approve("bank-a")
    stands(created, found["bank-a"])
    said = cli("federation", "status")
    lines = {line.split()[0]: line for line in said.out.splitlines() if line.startswith("  ")}
    assert "approved" in lines["bank-a"] and "seen" in lines["bank-a"]
    assert "enrolled" in lines["bank-b"] and "fedsys federation approve bank-b" in lines["bank-b"]
    assert "invited" in lines["bank-c"]
    assert "expired" in lines["bank-d"] and "fedsys federation invite bank-d" in lines["bank-d"]
    assert "not served: fedsys federation serve" in said.out
    table = cli("federation", "status", "--json").json
    assert [bank["state"] for bank in table["banks"]] == [
        "approved", "enrolled", "invited", "expired"
    ]  # fmt: skip
    assert table["server"] is None


# --- serving -------------------------------------------------------------------------------------


def test_one_server_at_a_time(cli: Cli, created):
    with alone(created.folder, "the server"):
        assert holder(created.folder) == os.getpid()
        command = [*FEDSYS, "federation", "serve"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 2
        assert f"runs already (process {os.getpid()})" in done.stderr
    assert holder(created.folder) is None


def test_an_expired_certificate_is_not_served_and_is_renewed(cli: Cli, created):
    import shutil
    from datetime import UTC, datetime, timedelta

    from fedsys.trust.identity import issue_server, read_authority

    shutil.rmtree(created.folder / "server")
    then = datetime.now(UTC) - timedelta(days=30)
    authority = read_authority(created.folder / "authority")
    issue_server(created.folder / "server", authority, ["127.0.0.1"], now=then, days=10)
    cli("federation", "serve").refused(5, "expired", "fedsys federation renew")
    assert cli("federation", "renew").code == 0
    assert overview(created).warnings == ()
    assert [e.event for e in entries_of(created.audit.path)][-1] is Event.CERTIFICATE


# --- the log -------------------------------------------------------------------------------------


def test_audit_shows_and_verifies_the_log(cli: Cli, created, tmp_path):
    bank = enrolled(created, tmp_path, "bank-a")["bank-a"]
    shown = cli("federation", "audit").out
    assert "bank joined" in shown and bank.keys.public.spoken in shown
    verified = cli("federation", "audit", "--verify", "--with", bank.audit.path, "--json")
    assert verified.json["whole"] and verified.json["findings"] == []
    text = created.audit.path.read_text().replace("bank-a", "bank-b")
    created.audit.path.write_text(text)
    broken = cli("federation", "audit", "--verify")
    assert broken.code == 5
    assert broken.out.startswith("✘") and "its hash" in broken.out


def test_audit_against_what_is_no_log(cli: Cli, created, tmp_path):
    (tmp_path / "no.jsonl").write_text("hello\n")
    cli("federation", "audit", "--with", tmp_path / "no.jsonl").refused(3, "no.jsonl")
    cli("federation", "audit", "--with", tmp_path / "none").refused(9, "none")
