"""Jobs in a federation's folder, and what is asked for in a TOML file."""

import pytest

from fedsys.aggregators import Krum
from fedsys.errors import DataError, Stopped, StorageError, UsageError
from fedsys.federation.demo.fraud import SCHEMA
from fedsys.federation.home import Facts, Home
from fedsys.federation.jobs.folder import (
    DONE,
    PAUSED,
    RUNNING,
    all_jobs,
    find_job,
    next_job,
    resume_job,
    stop_job,
    submit,
)
from fedsys.federation.jobs.proposal import foresee
from fedsys.federation.jobs.request import Request
from fedsys.strategies import FedAdam


@pytest.fixture
def home(tmp_path):
    return Home.create(tmp_path / "home", Facts("test", "127.0.0.1"), SCHEMA)


def test_jobs_run_one_after_another_and_an_interrupted_one_first(home):
    for name in ("one", "two", "three"):
        submit(home, Request(name=name))
    assert [job.name for job in all_jobs(home)] == ["one", "two", "three"]
    assert next_job(home).name == "one"
    find_job(home, "two").say(status=RUNNING, round=3)
    assert next_job(home).name == "two"
    for name in ("one", "two", "three"):
        find_job(home, name).say(status=DONE)
    assert next_job(home) is None


def test_a_job_is_asked_for_once(home):
    job = submit(home, Request(name="one", rounds=7))
    assert (job.status.status, job.status.rounds) == ("queued", 7)
    with pytest.raises(UsageError, match="was asked for before"):
        submit(home, Request(name="one"))


def test_only_what_stopped_is_resumed(home):
    from fedsys.errors import QuorumError

    job = submit(home, Request(name="one"))
    with pytest.raises(UsageError, match="is queued"):
        resume_job(job)
    job.failed(QuorumError("two of three"), PAUSED)
    assert (job.status.status, job.status.code, job.status.error) == (PAUSED, 7, "two of three")
    resume_job(job)
    assert (job.status.status, job.status.code, job.status.error) == ("queued", 0, "")


def test_a_job_whose_turn_has_not_come_is_stopped_at_once(home):
    job = submit(home, Request(name="one"))
    stop_job(job, served=True)
    assert (job.status.status, job.status.code) == (PAUSED, 130)
    assert next_job(home) is None
    with pytest.raises(Stopped, match="fedsys federation resume one goes on with it"):
        job.raise_if_stopped()
    with pytest.raises(UsageError, match="is paused: there is nothing to stop"):
        stop_job(job, served=True)
    resume_job(job)
    job.raise_if_stopped()
    assert next_job(home).name == "one"


def test_a_job_that_runs_is_stopped_by_its_server_and_without_one_at_once(home):
    job = submit(home, Request(name="one"))
    job.say(status=RUNNING, round=3)
    stop_job(job, served=True)
    assert job.status.status == RUNNING
    with pytest.raises(Stopped):
        job.raise_if_stopped()
    stop_job(job, served=False)
    assert (job.status.status, job.status.round) == (PAUSED, 3)
    job.say(status=DONE)
    with pytest.raises(UsageError, match="is done"):
        stop_job(job, served=False)


def own_model(path, inputs):
    import keras

    rows = keras.Input((inputs,), name="rows")
    x = keras.layers.Dense(3, activation="tanh", name="first")(rows)
    keras.Model(rows, keras.layers.Dense(1, name="last")(x), name="own").save(path)


def test_a_model_of_ones_own_lies_beside_the_request_and_is_kept_with_the_job(home, tmp_path):
    (tmp_path / "asked").mkdir()
    path = tmp_path / "asked" / "job.toml"
    path.write_text('name = "one"\nmodel = "credit.keras"\n')
    request = Request.read(path)
    with pytest.raises(UsageError, match="there is no such model file"):
        submit(home, request)
    own_model(tmp_path / "asked" / "credit.keras", len(SCHEMA.inputs))
    job = submit(home, request)
    (tmp_path / "asked" / "credit.keras").unlink()
    assert job.request.build(SCHEMA).name == "own"
    proposed = foresee(home, job.request).job
    assert [layer["kind"] for layer in proposed.architecture["layers"]].count("Dense") == 2
    assert proposed.model().name != "", "banks build it from its table"


def test_a_model_that_does_not_fit_the_schema_is_refused_before_anything_is_asked(home, tmp_path):
    own_model(tmp_path / "credit.keras", len(SCHEMA.inputs) + 1)
    request = Request(name="one", model=str(tmp_path / "credit.keras"))
    with pytest.raises(UsageError, match=r"credit.keras: takes"):
        foresee(home, request)
    with pytest.raises(ValueError, match=r"unknown 'credit'; .*or a file: model.keras"):
        Request(name="one", model="credit")


def test_a_job_that_is_not_there_is_named(home):
    submit(home, Request(name="fraud"))
    with pytest.raises(UsageError, match="did you mean 'fraud'"):
        find_job(home, "frau")


def test_a_damaged_status_is_a_storage_error(home):
    job = submit(home, Request(name="one"))
    (job.folder / "status.json").write_text('{"status": ')
    with pytest.raises(StorageError, match="damaged"):
        next_job(home)


def test_a_request_is_read_as_it_was_written(tmp_path):
    request = Request(name="one", strategy=FedAdam(rate=0.01), rounds=3, quorum=2, seed=5)
    path = tmp_path / "job.toml"
    path.write_text(request.toml())
    assert Request.read(path) == request
    experiment = request.experiment
    assert (experiment.strategy, experiment.rounds, experiment.seed) == (request.strategy, 3, 5)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rounds = 3", "needs a name"),
        ("name = 'Übung'", "a name has 1 to 63"),
        ("name = 'a'\nrounds = 0", "rounds"),
        ("name = 'a'\nround = 3", "did you mean 'rounds'"),
        ("name = 'a'\nmodel = 'mlq'", "did you mean 'mlp'"),
        ("name = 'a'\nstrategy = 'fedavq'", "did you mean 'fedavg'"),
        ("name = 'a'\ndeadline = 0", "deadline"),
        ("name = 'a'\naggregator = 'medain'", "aggregator: .* did you mean 'median'"),
        ("name = 'a'\naggregator = 'krum:1'\nquorum = 3", "krum:1 needs 5 updates and the quorum"),
        ("name = 'a'\naggregator = 'median'\nstrategy = 'scaffold'", "strategy 'scaffold'"),
        ("name = 'a'\nweighting = 'x'", "weighting"),
        ("name = ", "not TOML"),
    ],
)
def test_a_mistake_in_a_request_is_named_with_its_place(tmp_path, text, said):
    path = tmp_path / "job.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=said):
        Request.read(path)


def test_a_federation_is_made_once_with_secrets_that_nobody_else_reads(home, tmp_path):
    again = Home.open(home.folder)
    assert again.facts == home.facts
    assert again.schema.hash == SCHEMA.hash
    server = again.server()
    assert server.address == "127.0.0.1:8443"
    for path in (server.key, server.secret, server.executor, home.folder / "authority" / "ca.key"):
        assert path.stat().st_mode & 0o077 == 0
    with pytest.raises(UsageError, match="is a federation already"):
        Home.create(home.folder, home.facts, SCHEMA)
    with pytest.raises(UsageError, match="no federation"):
        Home.open(tmp_path / "nowhere")
    (home.folder / "federation.json").write_text("{}")
    with pytest.raises(StorageError, match="damaged"):
        Home.open(home.folder)


def test_a_result_that_is_not_there_or_damaged_is_said(home):
    from fedsys.federation.jobs.run import read_result

    job = submit(home, Request(name="one"))
    with pytest.raises(StorageError, match="is the job done"):
        read_result(job)
    job.weights.write_bytes(b"FSW1" + b"\xff" * 40)
    with pytest.raises(DataError):
        read_result(job)


def test_a_request_says_its_aggregator_by_name_or_as_a_table(tmp_path):
    path = tmp_path / "job.toml"
    for said in ('aggregator = "krum:1"', '[aggregator]\nname = "krum"\nfaulty = 1'):
        path.write_text(f'name = "one"\nquorum = 5\n{said}')
        request = Request.read(path)
        assert request.aggregator == request.experiment.aggregator == Krum(1)
        path.write_text(request.toml())
        assert Request.read(path) == request
    assert "aggregator" not in Request(name="one").table()
