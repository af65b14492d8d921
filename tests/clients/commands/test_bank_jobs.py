"""`fedsys bank jobs` and `samples`: what a bank's officer is shown, approves and refuses."""

import json
import stat

import numpy as np
import pytest

pytest.importorskip("flwr", reason="Flower is not installed")

from fedsys import places
from fedsys.clients.bank.home import BankHome
from fedsys.clients.bank.standing import Telling
from fedsys.federation.banks import Banks
from fedsys.federation.enrolment.standing import Standings
from fedsys.federation.jobs.proposal import foresee
from fedsys.federation.jobs.request import Request
from fedsys.trust.events import Event
from fedsys.trust.jobs import sign_job
from fedsys.trust.verification import entries_of
from tests.clients.commands.conftest import other_keys, reopened
from tests.conftest import Cli, until
from tests.federation.doors import invited, open_door

# --- jobs ----------------------------------------------------------------------------------------


def test_a_job_is_seen_then_approved_and_the_coordinator_knows(cli: Cli, home, bank, offer):
    assert "no job has come yet" in cli("bank", "jobs").out
    job = offer("first")
    shown = cli("bank", "jobs")
    assert "What leaves the bank" in shown.out
    assert f"fedsys bank jobs approve {job.id}" in shown.out
    asked, listed = cli("bank", "jobs", "--json").json
    assert (asked["kind"], listed["kind"], listed["approved"]) == ("statistics", "job", False)
    cli("bank", "jobs", "approve", "ffff").refused(2, "ffff", "fedsys bank jobs")
    said = cli("bank", "jobs", "approve", job.id[:6], "--json")
    assert said.json == {"job": job.digest, "approved": True, "state": "approved", "told": True}
    assert Standings(home.folder / "standing").get("bank-a").approved(job.digest)
    assert "approved here" in cli("bank", "jobs").out
    events = [entry.event for entry in entries_of(bank.audit.path)]
    assert events.count(Event.JOB_RECEIVED) == events.count(Event.JOB_APPROVED) == 1


def test_what_changed_since_the_last_approved_job_is_shown(cli: Cli, bank, offer):
    first = offer("first")
    cli("bank", "jobs", "approve", first.id)
    offer("second")
    shown = cli("bank", "jobs").out
    assert f"What changed since {first.id} first" in shown
    assert "terms.name: 'first' -> 'second'" in shown


def test_a_job_is_approved_while_the_server_is_away(cli: Cli, home, tmp_path, monkeypatch):
    with open_door(home):
        cli("bank", "enrol", invited(home, "bank-a").text())
    bank = BankHome.open(places.find(places.BANK))
    banks = Banks(home.folder / "banks.json")
    banks.approve("bank-a")
    banks.add("bank-b", other_keys(home))
    banks.approve("bank-b")
    job = foresee(home, Request(name="first", model="logistic", rounds=2)).job
    bank.keep_job(job.digest, sign_job(home.keys.signing, job))
    said = cli("bank", "jobs", "approve", job.id)
    assert said.code == 0 and "is told when it is there" in said.err
    with open_door(home), Telling(bank, lambda line: None):  # as the agent does
        until(lambda: Standings(home.folder / "standing").get("bank-a") is not None)
    assert Standings(home.folder / "standing").get("bank-a").approved(job.digest)


def test_the_agent_tells_of_what_waits(home, bank, offer):
    job, asked = offer("first"), bank.statistics
    said = []
    with Telling(bank, said.append):
        until(lambda: len(said) == 2)
    assert said == [
        f"statistics {asked.id} of its rows: wait here for: fedsys bank jobs approve {asked.id}",
        f"job {job.id} 'first': waits here for: fedsys bank jobs approve {job.id}",
    ]
    bank.approve(asked.digest)
    bank.refuse(job.digest)
    with Telling(reopened(bank), said.append):
        until(lambda: Standings(home.folder / "standing").get("bank-a").refused != ())
    assert len(said) == 2, "who has answered is not asked again"


def test_a_job_of_another_coordinator_is_not_kept(cli: Cli, home, bank, offer, tmp_path):
    job = offer("first")
    forged = sign_job(bank.keys.signing, job)
    (home.folder / "jobs" / "first" / "job.json").write_bytes(forged)
    cli("bank", "jobs").refused(5, "job", "not known here")
    assert reopened(bank).jobs() == []


def test_a_job_is_refused_and_the_coordinator_knows_but_not_why(cli: Cli, home, bank, offer):
    job = offer("first")
    no = ("bank", "jobs", "refuse", job.id)
    said = cli(*no, "--reason", "the customer Meier objects", "--json")
    assert said.json == {"job": job.digest, "approved": False, "state": "refused", "told": True}
    stands = Standings(home.folder / "standing").get("bank-a")
    assert stands.refused == (job.digest,) and not stands.approved(job.digest)
    assert "refused here: the customer Meier objects" in cli("bank", "jobs").out
    for path in [*home.folder.rglob("*"), bank.audit.path]:
        assert not path.is_file() or b"Meier" not in path.read_bytes()
    logs = [entries_of(side.audit.path) for side in (home, bank)]
    for entries in logs:
        declined = [entry for entry in entries if entry.event is Event.JOB_DECLINED]
        assert [entry.details for entry in declined] == [{"bank": "bank-a", "job": job.digest}]


def test_a_refused_job_is_approved_later(cli: Cli, home, bank, offer):
    job = offer("first")
    assert cli("bank", "jobs", "refuse", job.id).code == 0
    assert cli("bank", "jobs", "approve", job.id).code == 0
    assert reopened(bank).approved(job.digest)
    assert Standings(home.folder / "standing").get("bank-a").refused == ()
    events = [entry.event for entry in entries_of(home.audit.path)]
    assert events.index(Event.JOB_DECLINED) < events.index(Event.JOB_AGREED)
    assert cli("bank", "jobs", "refuse", job.id).code == 0
    assert not reopened(bank).approved(job.digest)


def test_one_job_is_refused_by_a_bank_that_approves_all(cli: Cli, bank, offer):
    from fedsys.clients.bank.enrolment import keep

    always = keep(bank, approve="always")
    first, second = offer("first"), offer("second")
    assert cli("bank", "jobs", "refuse", "first").code == 0  # by its name
    assert (always.approved(first.digest), always.approved(second.digest)) == (False, True)


def test_what_cannot_be_refused_is_told(cli: Cli, bank, offer):
    offer("first")
    no = ("bank", "jobs", "refuse")
    cli(*no, "ffff").refused(2, "has not come here")
    cli(*no, "first", "--reason", "a\nb").refused(2, "--reason")
    cli(*no).refused(2, "ID")


def test_a_refusal_holds_while_the_server_is_away_or_knows_us_no_more(
    cli: Cli, home, tmp_path, monkeypatch
):
    with open_door(home):
        cli("bank", "enrol", invited(home, "bank-a").text())
    bank = BankHome.open(places.find(places.BANK))
    said = cli("bank", "jobs", "refuse", bank.statistics.id)
    assert said.code == 0 and "is told when it is there" in said.err
    assert bank.refused(bank.statistics.digest)
    (home.folder / "banks.json").write_text("{}")
    with open_door(home):
        assert cli("bank", "jobs", "refuse", bank.statistics.id, "--reason", "no").code == 0
    assert bank.reason(bank.statistics.digest) == "no"


def test_the_statistics_are_read_and_approved_like_a_job(cli: Cli, home, bank):
    asked = bank.statistics
    shown = cli("bank", "jobs").out
    assert "how many have a value, their mean and variance" in shown
    assert f"fedsys bank jobs approve {asked.id}" in shown
    assert cli("bank", "jobs", "approve", "statistics").code == 0
    shown = cli("bank", "jobs").out
    assert f"{asked.id} statistics: approved here" in shown and "variance" not in shown
    assert "variance" in cli("bank", "jobs", "show", asked.id).out
    assert Standings(home.folder / "standing").get("bank-a").approved(asked.digest)
    events = [entry.event for entry in entries_of(home.audit.path)]
    assert events.count(Event.STATISTICS_APPROVED) == 1


def test_what_was_answered_is_a_line_and_shown_when_asked(cli: Cli, bank, offer):
    job = offer("first")
    cli("bank", "jobs", "approve", job.id)
    assert "What leaves the bank, each round" not in cli("bank", "jobs").out
    shown = cli("bank", "jobs", "show", job.id)
    assert "What leaves the bank, each round" in shown.out and "approved here" in shown.out
    assert cli("bank", "jobs", "show", "first", "--json").json["state"] == "approved"
    cli("bank", "jobs", "show", "frist").refused(2, "has not come here")


def test_a_mistake_is_json_too_where_that_was_asked_for(cli: Cli, bank):
    for words, code in ((("bank", "jobs", "approve", "ffff"), 2), (("bank", "join"), 2),
                        (("bank", "check", "--source", "none.csv"), 3),
                        (("bank", "check", "--sorce", "x"), 2)):  # fmt: skip
        said = cli(*words, "--json")
        assert said.code == code
        (line,) = said.out.splitlines()
        assert json.loads(line)["code"] == code
        assert json.loads(line)["error"] in said.err


# --- a model -------------------------------------------------------------------------------------


def test_samples_are_rows_as_a_model_reads_them(cli: Cli, home, bank, rows, tmp_path):
    from fedsys.edge.sources import read_samples
    from fedsys.tables import Preparation, prepare, summarise
    from fedsys.tables.recipe import recipe

    cli("bank", "check", "--source", rows)
    source = reopened(bank).source()
    made = Preparation.derive(home.schema, summarise(source, home.schema))
    beside = tmp_path / "first.json"
    beside.write_text(json.dumps({"model": "first.keras", **recipe(home.schema, made)}))
    said = cli("bank", "samples", beside, "--rows", 20, "--json")
    assert said.json == {"file": "samples.npz", "rows": 20, "of": 60}
    found, whole = read_samples(tmp_path / "samples.npz"), prepare(source, home.schema, made)
    np.testing.assert_array_equal(found.inputs[[0, -1]], whole.inputs[[0, -1]])
    np.testing.assert_array_equal(found.labels[[0, -1]], whole.labels[[0, -1]])
    assert stat.S_IMODE((tmp_path / "samples.npz").stat().st_mode) == 0o600
    cli("bank", "samples", beside).refused(2, "samples.npz", "already")


def test_samples_need_what_lies_beside_a_model_of_this_federation(
    cli: Cli, home, bank, rows, tmp_path
):
    from dataclasses import replace

    from fedsys.tables import Preparation, summarise
    from fedsys.tables.recipe import recipe

    cli("bank", "check", "--source", rows)
    cli("bank", "samples", "none.json").refused(3, "none.json", "No such file")
    cli("bank", "samples", rows).refused(3, "rows.csv", "fedsys federation model")
    stricter = replace(home.schema, minimum=11)
    made = Preparation.derive(stricter, summarise(reopened(bank).source(), stricter))
    table = recipe(stricter, made)
    (tmp_path / "other.json").write_text(json.dumps(table))
    cli("bank", "samples", "other.json").refused(3, "another schema")
    table["preparation"]["scalings"]["age"]["scale"] = 7.0
    (tmp_path / "changed.json").write_text(json.dumps(table))
    cli("bank", "samples", "changed.json").refused(3, "was changed")
    assert not (tmp_path / "samples.npz").exists()
