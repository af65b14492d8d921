"""`fedsys federation model`: the trained model as a Keras file, with what is needed to score."""

import errno
import hashlib
import json

import numpy as np
import pytest

pytest.importorskip("flwr", reason="Flower is not installed")

import keras

from fedsys.federation.home import Facts, Home
from fedsys.federation.jobs.folder import DONE, submit
from fedsys.federation.jobs.proposal import foresee
from fedsys.federation.jobs.request import Request
from fedsys.federation.jobs.statistics import preparation
from fedsys.tables import open_source, prepare, summarise
from fedsys.trust import wire
from fedsys.trust.events import Event
from fedsys.trust.jobs import sign_job
from tests.conftest import Cli
from tests.federation.doors import SCHEMA


@pytest.fixture
def rows(tmp_path):
    rng = np.random.default_rng(0)
    lines = [f"{n % 2},{rng.integers(20, 80)},{rng.normal(50, 9):.1f}" for n in range(60)]
    (tmp_path / "rows.csv").write_text("\n".join(["late,age,income", *lines]) + "\n")
    return open_source(tmp_path / "rows.csv")


@pytest.fixture
def home(tmp_path, monkeypatch, rows):
    """A federation with a preparation."""
    monkeypatch.setenv("FEDSYS_HOME", str(tmp_path / "home"))
    folder = tmp_path / "home" / "federations" / "eu-credit"
    made = Home.create(folder, Facts("eu-credit", "127.0.0.1"), SCHEMA)
    preparation(made, {"bank-a": summarise(rows, SCHEMA)})
    return made


@pytest.fixture
def weights():
    return np.array([0.5, -2.0, 0.25], dtype=np.float32)


@pytest.fixture
def job(home, weights):
    """A job that is done, as the server leaves it."""
    request = Request(name="first", model="logistic", rounds=2)
    asked = foresee(home, request).job
    folder = submit(home, request)
    (folder.folder / "job.json").write_bytes(sign_job(home.keys.signing, asked))
    folder.weights.write_bytes(b"".join(wire.parts(asked.layout.named(weights))))
    digest = hashlib.sha256(weights.tobytes()).hexdigest()
    home.audit.record(Event.RUN_ENDED, run=asked.digest[:16], rounds=2, sha256=digest)
    folder.say(status=DONE, round=2, rounds=2, job=asked.digest)
    return folder


def test_a_row_is_scored_from_the_two_files_alone(cli: Cli, job, rows, home, tmp_path, weights):
    said = cli("federation", "model", "first")
    assert said.code == 0, said.err
    assert "fedsys export first.keras" in said.out
    told = json.loads((tmp_path / "first.json").read_text())
    assert told["sha256"] == hashlib.sha256(weights.tobytes()).hexdigest()
    assert told["job"]["sha256"] == job.status.job
    with open(tmp_path / "rows.csv") as file:
        names, *lines = [line.strip().split(",") for line in file]
    inputs = np.array([
        [(float(line[names.index(one["column"])]) - one["mean"]) / one["scale"]
         for one in told["inputs"]]
        for line in lines
    ])  # fmt: skip
    model = keras.models.load_model(tmp_path / "first.keras", compile=False)
    expected = inputs @ weights[:2].astype(np.float64) + weights[2]
    np.testing.assert_allclose(model.predict(inputs, verbose=0)[:, 0], expected, atol=1e-5)
    made = prepare(rows, SCHEMA, preparation(home, {})).inputs
    np.testing.assert_allclose(inputs, made, atol=1e-6)


def test_export_reads_it(cli: Cli, job, rows, home, tmp_path):
    from fedsys.edge.sources import find

    out = tmp_path / "model.keras"
    said = cli("federation", "model", "first", "--out", out, "--json")
    assert said.json["model"] == str(out) and said.json["parameters"] == 3
    inputs = prepare(rows, SCHEMA, preparation(home, {})).inputs
    np.savez(tmp_path / "samples.npz", inputs=inputs)
    found = find(out, "runs", tmp_path / "samples.npz", "int8", False)
    assert found.keras == out and len(found.samples) == 60


def test_a_job_that_is_not_done_is_told(cli: Cli, job):
    job.say(status="running", round=1)
    cli("federation", "model", "first").refused(2, "round 1 of 2", "federation watch first")
    job.say(status="paused")
    cli("federation", "model", "first").refused(2, "federation resume first")
    cli("federation", "model", "frist").refused(2, "did you mean 'first'")


def test_nothing_is_replaced_and_the_place_is_named(cli: Cli, job, tmp_path):
    to = ("federation", "model", "first", "--out")
    cli(*to, "a.h5").refused(2, ".keras")
    cli(*to, tmp_path / "none" / "a.keras").refused(2, "there is no folder")
    (tmp_path / "a.json").write_text("mine")
    cli(*to, "a.keras").refused(2, "a.json: is there already")
    assert (tmp_path / "a.json").read_text() == "mine"


def test_where_there_is_no_room_nothing_is_left(cli: Cli, job, tmp_path, monkeypatch):
    def full(self, path, **options):
        path.write_bytes(b"half of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(keras.Model, "save", full)
    before = sorted(tmp_path.iterdir())
    cli("federation", "model", "first").refused(9, "first.keras", "make room")
    assert sorted(tmp_path.iterdir()) == before


def test_weights_that_the_log_does_not_know_are_not_given_out(cli: Cli, job, home, weights):
    asked = foresee(home, Request(name="other", model="logistic", rounds=2)).job
    job.weights.write_bytes(b"".join(wire.parts(asked.layout.named(weights * 2))))
    cli("federation", "model", "first").refused(9, "not what the log says")
    job.weights.write_bytes(job.weights.read_bytes()[:-3])
    cli("federation", "model", "first").refused(3, "")
    job.weights.unlink()
    cli("federation", "model", "first").refused(9, "weights.bin")
