"""What a bank answers, and to whom it does not."""

import json
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("flwr", reason="Flower is not installed")

from flwr.app import ConfigRecord, RecordDict

from fedsys.admission import Reason, Refused
from fedsys.clients.bank.answers import Answers
from fedsys.clients.bank.home import ALWAYS, ASK, BankHome, Facts
from fedsys.errors import StorageError, UsageError
from fedsys.federation.demo.fraud import SCHEMA, made_up
from fedsys.federation.demo.shown import write_rows
from fedsys.federation.jobs.messages import (
    JOB,
    ask_for_statistics,
    job_record,
    read_summary,
)
from fedsys.federation.jobs.request import Request
from fedsys.flower.rounds.messages import ANSWER, Broadcast, Code, read_answer
from fedsys.layout import read_weights
from fedsys.local import Local
from fedsys.randomness import seeded_globals
from fedsys.strategies import FedAvg
from fedsys.tables import Preparation, summarise
from fedsys.trust.jobs import Job, sign_job
from fedsys.trust.keys import make_keys

REQUEST = Request(name="one", local=Local(epochs=1, batch=32), quorum=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bank")
    found = made_up(200)
    write_rows(found, np.arange(200), folder / "rows.csv")
    return folder


@pytest.fixture(scope="module")
def coordinator(folder):
    return make_keys(folder / "coordinator")


@pytest.fixture
def bank(folder, coordinator, tmp_path):
    facts = Facts("bank-a", "test", "127.0.0.1:8443", coordinator.public.signing,
                  str(folder / "rows.csv"), approve=ALWAYS)  # fmt: skip
    return BankHome.create(tmp_path / "bank", facts, SCHEMA, b"")


@pytest.fixture(scope="module")
def preparation(folder):
    from fedsys.tables import open_source

    return Preparation.derive(SCHEMA, summarise(open_source(folder / "rows.csv"), SCHEMA))


@pytest.fixture(scope="module")
def job(preparation):
    return Job.propose(
        REQUEST.experiment, REQUEST.build(SCHEMA), federation="test", name="one",
        objective="binary", quorum=2, deadline=60.0, schema=SCHEMA.hash,
        preparation=preparation.hash,
    )  # fmt: skip


def instruction(job, preparation, key, experiment=None):
    """An instruction to train, as the coordinator sends it, and what its answer is read with."""
    with seeded_globals(0):
        weights = read_weights(job.model())
    strategy = FedAvg()
    state = strategy.begin(weights[: job.layout.parameters])
    broadcast = Broadcast.of(experiment or job.digest, 1, weights, strategy, state)
    content = broadcast.to(0)
    content[JOB] = job_record(sign_job(key, job), preparation)
    return broadcast, content


def code_of(answer):
    return Code[str(answer[ANSWER]["code"])]


def events(bank):
    return [
        json.loads(line)["event"] for line in (bank.folder / "audit.jsonl").read_text().splitlines()
    ]


def test_its_coordinator_gets_statistics_and_nobody_else(bank, coordinator, tmp_path):
    answers = Answers(bank)
    asked = ask_for_statistics(coordinator.signing, "test", SCHEMA)
    assert read_summary(answers(asked), SCHEMA, "bank-a").rows == 200
    assert "statistics sent" in events(bank)
    stranger = make_keys(tmp_path / "stranger").signing
    for bad in (
        ask_for_statistics(stranger, "test", SCHEMA),
        ask_for_statistics(coordinator.signing, "another", SCHEMA),
        ask_for_statistics(coordinator.signing, "test", replace(SCHEMA, minimum=11)),
        RecordDict({"fedsys.ask": ConfigRecord({"signed": b"x" * 100})}),
        RecordDict({"fedsys.ask": ConfigRecord({"other": 1})}),
    ):
        assert code_of(answers(bad)) in (Code.POLICY, Code.DATA)
    assert events(bank).count("request refused") == 5


def test_a_job_of_its_coordinators_is_trained_on_the_banks_rows(
    bank, coordinator, preparation, job
):
    said = []
    answers = Answers(bank, said.append)
    broadcast, content = instruction(job, preparation, coordinator.signing)
    answer = read_answer(answers(content), job.layout, broadcast, 0)
    assert answer.update.weight == 200
    assert np.isfinite(answer.loss)
    again = read_answer(answers(content), job.layout, broadcast, 0)
    for name, tensor in answer.update.tensors.items():
        np.testing.assert_array_equal(again.update.tensors[name], tensor)
    assert len([line for line in said if "trains on 200 rows" in line]) == 1, "made ready once"
    assert events(bank).count("job received") == 1


def test_no_job_is_trained_that_is_not_its_coordinators_and_whole(
    bank, coordinator, preparation, job, tmp_path
):
    answers = Answers(bank)
    stranger = make_keys(tmp_path / "stranger").signing
    _, foreign = instruction(job, preparation, stranger)
    _, other = instruction(job, preparation, coordinator.signing, experiment="0" * 64)
    _, bare = instruction(job, preparation, coordinator.signing)
    del bare[JOB]
    _, scaled = instruction(job, preparation, coordinator.signing)
    column = next(iter(preparation.scalings))
    wider = replace(preparation.scalings[column], scale=7.0)
    changed = replace(preparation, scalings={**preparation.scalings, column: wider})
    scaled[JOB] = job_record(sign_job(coordinator.signing, job), changed)
    _, alone = instruction(job, preparation, coordinator.signing)
    small = replace(job, terms=replace(job.terms, quorum=1))
    alone[JOB] = job_record(sign_job(coordinator.signing, small), preparation)
    for bad in (foreign, other, bare, scaled, alone):
        assert code_of(answers(bad)) in (Code.POLICY, Code.DATA)
    assert "update sent" not in events(bank)


def test_a_job_waits_until_somebody_has_seen_it(bank, coordinator, preparation, job):
    home = BankHome(bank.folder, replace(bank.facts, approve=ASK))
    said = []
    answers = Answers(home, said.append)
    broadcast, content = instruction(job, preparation, coordinator.signing)
    assert code_of(answers(content)) == Code.POLICY
    assert f"fedsys bank jobs approve {job.id}" in said[-1]
    [(found, approved)] = home.jobs()
    assert (found.digest, approved) == (job.digest, False)
    assert home.find_job(job.id) == job.digest
    with pytest.raises(UsageError, match="has not come here"):
        home.find_job("zz")
    home.approve(job.digest)
    assert read_answer(answers(content), job.layout, broadcast, 0).update.weight == 200
    assert "job approved" in events(home)


def test_what_goes_wrong_with_the_rows_stays_at_the_bank(bank, coordinator, tmp_path):
    secret = tmp_path / "rows.csv"
    secret.write_text("name,salary\nAda Lovelace,90000\n")
    said = []
    answers = Answers(BankHome(bank.folder, replace(bank.facts, source=str(secret))), said.append)
    asked = ask_for_statistics(coordinator.signing, "test", SCHEMA)
    answer = answers(asked)
    assert code_of(answer) == Code.DATA
    assert set(answer[ANSWER]) == {"format", "code"}
    assert "rows.csv" in said[-1]
    assert "Lovelace" not in (bank.folder / "audit.jsonl").read_text()


def test_a_run_with_foreign_code_is_refused(bank):
    answers = Answers(bank)
    assert code_of(answers.refuse(RecordDict({}))) == Code.POLICY
    assert "request refused" in events(bank)


def test_a_banks_folder_is_made_once_and_its_keys_are_its_own(bank, tmp_path):
    again = BankHome.open(bank.folder)
    assert again.facts == bank.facts
    assert again.keys.node_path.stat().st_mode & 0o077 == 0
    with pytest.raises(UsageError, match="is a bank's folder already"):
        BankHome.create(bank.folder, bank.facts, SCHEMA, b"")
    with pytest.raises(UsageError, match="no bank lies here"):
        BankHome.open(tmp_path / "nowhere")
    (bank.folder / "bank.json").write_text('{"name": 3}')
    with pytest.raises(StorageError, match="damaged"):
        BankHome.open(bank.folder)


def test_statistics_wait_until_somebody_has_seen_what_is_asked(bank, coordinator):
    home = BankHome(bank.folder, replace(bank.facts, approve=ASK))
    said = []
    answers = Answers(home, said.append)
    asked = ask_for_statistics(coordinator.signing, "test", SCHEMA)
    assert code_of(answers(asked)) == Code.POLICY
    request = home.statistics
    assert f"fedsys bank jobs approve {request.id}" in said[-1]
    home.approve(home.find_job(request.id))
    assert read_summary(answers(asked), SCHEMA, "bank-a").rows == 200
    home.refuse(request.digest, "no more of that")
    assert code_of(answers(asked)) == Code.POLICY
    assert "was refused here" in said[-1]
    wanted = ["statistics approved", "statistics sent", "statistics declined"]
    assert [event for event in events(home) if event in wanted] == wanted
    assert "no more of that" not in (bank.folder / "audit.jsonl").read_text()


def test_what_is_approved_beforehand_is_written_down_as_it_comes(bank, coordinator):
    Answers(bank)(ask_for_statistics(coordinator.signing, "test", SCHEMA))
    assert events(bank)[-2:] == ["statistics approved", "statistics sent"]


def test_a_job_that_is_refused_amid_its_rounds_gets_nothing_more(
    bank, coordinator, preparation, job
):
    answers = Answers(bank)
    broadcast, content = instruction(job, preparation, coordinator.signing)
    assert "code" not in answers(content)[ANSWER]
    bank.refuse(job.digest)
    with pytest.raises(Refused) as refused:  # a word that the coordinator understands
        read_answer(answers(content), job.layout, broadcast, 0)
    assert (refused.value.reason, refused.value.detail) == (Reason.FAILED, str(Code.POLICY))
    bank.approve(job.digest)
    assert "code" not in answers(content)[ANSWER]
    assert events(bank).count("update sent") == 2


def test_whoever_asks_again_hears_the_same(bank, coordinator, folder, tmp_path):
    rows = tmp_path / "rows.csv"
    rows.write_bytes((folder / "rows.csv").read_bytes())
    home = BankHome(bank.folder, replace(bank.facts, source=str(rows)))
    asked = ask_for_statistics(coordinator.signing, "test", SCHEMA)
    first = read_summary(Answers(home)(asked), SCHEMA, "bank-a")
    lines = rows.read_text().splitlines(keepends=True)
    rows.write_text("".join(lines[:-1]))  # one customer less
    assert read_summary(Answers(home)(asked), SCHEMA, "bank-a") == first
