"""A federation of real processes on loopback: the simulation's numbers, and whatever is killed.

One coordinator and three banks run through the whole file; each test asks them for a job.
"""

import json
import os
import re
import signal
import time
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("flwr", reason="Flower is not installed")

from fedsys.federation.demo import fraud
from fedsys.federation.demo.fraud import LABEL, customers
from fedsys.federation.demo.run import running, set_up
from fedsys.federation.jobs.folder import DONE, PAUSED, TO_RUN, resume_job, stop_job, submit
from fedsys.federation.jobs.request import Request
from fedsys.federation.jobs.run import read_result
from fedsys.local import Local
from fedsys.strategies import FedAvg, Scaffold
from fedsys.tables import Preparation, task_of_sources
from tests.flower.deployed import alive, children

WAIT = 300.0
LOCAL = Local(epochs=2, batch=32, rate=0.1)
NUMBERS = count(1)
ROUNDS = 4


def until(happened):
    end = time.monotonic() + WAIT
    while not happened():
        assert time.monotonic() < end, "waited for too long"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """Three banks with a few hundred made-up customers each."""
    before, fraud.MADE_UP = fraud.MADE_UP, 900
    try:
        return set_up(fraud.fraud(3), tmp_path_factory.mktemp("federation"))
    finally:
        fraud.MADE_UP = before


@pytest.fixture(scope="module")
def said():
    return []


@pytest.fixture(scope="module")
def processes(demo, said):
    with running(demo, said.append) as processes:
        yield processes
        started = [process.pid for process in processes.values()]
        below = set().union(*(children(pid) for pid in started))
        assert len(below) >= 1 + 2 * len(demo.banks), "Flower's processes and the trainers"
    assert not [pid for pid in below if alive(pid)], "processes were left behind"


@pytest.fixture
def ask(demo, processes):
    """Asks for a job."""

    def asked(**options):
        options = {"rounds": ROUNDS, "local": LOCAL, "deadline": 120.0, "grace": 120.0, **options}
        return submit(demo.home, Request(name=f"job-{next(NUMBERS)}", **options))

    return asked


@pytest.fixture(scope="module")
def whole_jobs():
    return {}


@pytest.fixture
def whole_job(ask, whole_jobs):
    """Strategy -> a job of its in which nothing was killed; each is run once."""

    def ran(strategy=FedAvg()):  # noqa: B008
        name = type(strategy).__name__
        if name not in whole_jobs:
            whole_jobs[name] = ask(strategy=strategy)
            finished(whole_jobs[name])
        return whole_jobs[name]

    return ran


def finished(job):
    """Waits for a job's end, and gives the weights."""
    until(lambda: job.status.status not in TO_RUN)
    assert job.status.status == DONE, job.status.error
    return weights(job)


def weights(job):
    return np.concatenate([tensor.ravel() for tensor in read_result(job).values()])


def lines(job):
    return [json.loads(line) for line in job.metrics.read_text().splitlines()]


def round_done(job, round):
    return lambda: job.status.round >= round or job.status.status not in TO_RUN


def simulated(demo, job, folder):
    """The weights of the same experiment in the compiled engine."""
    import fedsys

    request, schema = job.request, demo.home.schema
    table = json.loads((demo.home.folder / "preparation.json").read_text())
    sources = {name: bank.source() for name, bank in demo.banks.items()}
    task = task_of_sources(
        schema,
        sources,
        partial(request.build, schema),
        preparation=Preparation.of(table, schema),
    )
    run = fedsys.simulate(request.experiment, task=task, folder=folder)
    import keras

    from fedsys.layout import read_weights

    return read_weights(keras.models.load_model(run.folder / "model.keras"))


@pytest.mark.parametrize("strategy", [FedAvg(), Scaffold()], ids=["fedavg", "scaffold"])
def test_what_is_deployed_equals_what_is_simulated(demo, whole_job, tmp_path, strategy):
    job = whole_job(strategy)
    np.testing.assert_allclose(weights(job), simulated(demo, job, tmp_path / "run"), atol=1e-6)
    assert [line["banks"] for line in lines(job)] == [["bank-a", "bank-b", "bank-c"]] * ROUNDS


def test_a_coordinator_that_is_killed_resumes_with_the_same_result(ask, processes, whole_job):
    whole = weights(whole_job())
    job = ask()
    until(round_done(job, 1))
    killed = processes["server"].pid
    below = children(killed)
    os.kill(killed, signal.SIGKILL)
    np.testing.assert_array_equal(finished(job), whole)
    assert processes["server"].pid not in (None, killed)
    assert not [pid for pid in below if alive(pid)], "Flower's server outlived the coordinator"
    assert [line["round"] for line in lines(job)] == [1, 2, 3, 4], "no finished round was repeated"


def flower_of(folder: Path, module: str, pid: int) -> int:
    """The process below another that runs a module."""
    for child in children(pid):
        if module in Path(f"/proc/{child}/cmdline").read_text().split("\0"):
            return child
    raise AssertionError(f"no {module}")


@pytest.mark.parametrize("what", ["agent", "node", "trainer"])
def test_a_bank_that_is_killed_is_back_within_its_round(demo, ask, processes, whole_job, what):
    """SCAFFOLD's banks remember a vector, which a kill must not take away."""
    strategy = Scaffold() if what == "agent" else FedAvg()
    whole = weights(whole_job(strategy))
    job = ask(strategy=strategy)
    until(round_done(job, 1))
    agent = processes["bank-b"].pid
    module = {
        "node": "fedsys.flower.processes.launch",
        "trainer": "fedsys.clients.bank.trainer_process",
    }
    killed = agent if what == "agent" else flower_of(demo.home.folder, module[what], agent)
    below = children(killed)
    os.kill(killed, signal.SIGKILL)
    np.testing.assert_array_equal(finished(job), whole)
    assert not [pid for pid in below if alive(pid)]
    assert [line["banks"] for line in lines(job)] == [["bank-a", "bank-b", "bank-c"]] * ROUNDS


def test_flowers_server_that_is_killed_ends_no_job(demo, ask, processes, whole_job):
    whole = weights(whole_job())
    job = ask()
    until(round_done(job, 1))
    door = "fedsys.federation.enrolment.door"
    server = flower_of(demo.home.folder, door, processes["server"].pid)
    os.kill(server, signal.SIGKILL)
    np.testing.assert_array_equal(finished(job), whole)


def test_a_job_that_is_stopped_amid_a_round_goes_on_where_it_was(demo, ask, processes, whole_job):
    whole = weights(whole_job())
    module = "fedsys.clients.bank.trainer_process"
    trainer = flower_of(demo.home.folder, module, processes["bank-b"].pid)
    job = ask()
    until(round_done(job, 1))
    os.kill(trainer, signal.SIGSTOP)  # all three are needed, so no round ends
    try:
        stop_job(job, served=True)
        until(lambda: job.status.status not in TO_RUN)
        assert (job.status.status, job.status.code) == (PAUSED, 130)
        assert "fedsys federation resume" in job.status.error
        done = job.status.round
        assert 1 <= done < ROUNDS
    finally:
        os.kill(trainer, signal.SIGCONT)
    resume_job(job)
    np.testing.assert_array_equal(finished(job), whole)
    assert [line["round"] for line in lines(job)] == [1, 2, 3, 4]


def test_a_bank_that_stays_away_is_named_and_the_others_go_on(demo, ask, processes):
    """Two of three are enough here; a job that needs all three is paused, and resumed."""
    agent = processes["bank-c"].pid
    below = [agent, *children(agent)]
    for pid in below:
        os.kill(pid, signal.SIGSTOP)
    try:
        job = ask(rounds=2, quorum=2, grace=1.0)
        finished(job)
        assert [line["banks"] for line in lines(job)] == [["bank-a", "bank-b"]] * 2
        assert all(line["missing"] == {"bank-c": "late"} or "bank-c" in line["missing"]
                   for line in lines(job))  # fmt: skip
        strict = ask(rounds=2, quorum=3, deadline=6.0)
        until(lambda: strict.status.status not in TO_RUN)
        assert strict.status.status == PAUSED
        assert strict.status.code == 7
        assert "of 3 banks that are needed" in strict.status.error
        assert "bank-c" in strict.status.error
        assert strict.status.round == 0, "a round without its quorum is no round"
    finally:
        for pid in below:
            os.kill(pid, signal.SIGCONT)
    resume_job(strict)
    finished(strict)
    assert [line["round"] for line in lines(strict)] == [1, 2]


def test_audits_say_what_ran_and_hold_no_value(demo, ask):
    job = ask(rounds=1)
    finished(job)
    events = [
        json.loads(line) for line in (demo.home.folder / "audit.jsonl").read_text().splitlines()
    ]
    said = [event["event"] for event in events]
    for wanted in ("log opened", "statistics received", "job signed", "run begun", "round ended",
                   "run ended"):  # fmt: skip
        assert wanted in said
    bank = next(iter(demo.banks.values()))
    at_bank = (bank.folder / "audit.jsonl").read_text()
    assert "statistics sent" in at_bank
    assert "job received" in at_bank
    values = customers(None).columns
    assert LABEL in values
    # Whole words: within a hash, any five digits may stand by chance.
    words = set(re.findall(r"[\w.]+", at_bank))
    amounts = {f"{value:.10g}" for value in values["BILL_AMT1"][:50]}
    assert not {amount for amount in amounts if len(amount) >= 5} & words
