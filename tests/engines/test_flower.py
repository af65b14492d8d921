"""Flower carries the messages and runs the clients; the result is the compiled engine's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("flwr", reason="flwr is not installed: fedsys engines install flower")

import fedsys
from fedsys.engines import ENGINES, Flower, chosen
from fedsys.errors import EngineError, UsageError
from fedsys.experiment import Experiment
from fedsys.flower.simulation.backends import RaySimulation
from fedsys.local import Local
from fedsys.partitions import Natural
from fedsys.rounds import begin, draw_cohort, run_rounds
from fedsys.setting import prepare
from fedsys.task import Examples, Task

from ..federations import linear_model
from .processes import eventually, gone, running

LONG = 300.0  # seconds that Ray may take on a busy machine

SIZES = (7, 13, 1, 0, 22, 5)
STRATEGIES = ("fedavg", "fedprox:0.5", "fedadam:0.05", "scaffold")


def ragged_task():
    """A regression on clients of these sizes, each with a slope of its own."""
    rng = np.random.default_rng(0)
    owners = rng.permutation(np.repeat(np.arange(len(SIZES)), SIZES))
    slopes = rng.normal(size=(len(SIZES), 4))
    inputs = rng.normal(size=(len(owners), 4)).astype("f4")
    labels = (inputs * slopes[owners]).sum(axis=1).astype("f4")
    examples = Examples(inputs, labels, owners)

    def model():
        return linear_model(4, "float32")

    return Task("ragged", model, examples, examples, objective="squared")


def setting_of(strategy="fedavg", **said):
    said = {"local": Local(epochs=2, batch=4, rate=0.05), "cohort": 5, "rounds": 3, **said}
    experiment = Experiment(partition=Natural(), clients=len(SIZES), strategy=strategy, **said)
    return prepare(experiment, ragged_task(), 2)


def states(setting, engine):
    """What each of three rounds came to."""
    experiment = setting.experiment
    return list(
        run_rounds(
            begin(experiment.strategy, setting.layout, setting.weights),
            experiment.strategy,
            engine,
            setting.layout,
            cohorts=lambda round: draw_cohort(0, round, setting.clients, setting.cohort),
            population=setting.population,
            rounds=3,
            quorum=experiment.quorum,
        )
    )


EXPECTED = {}
"""What experiments came to in the compiled engine, which is asked once for each."""


def same(setting, engine):
    """Whether three rounds come to what they come to in the compiled engine."""
    name = repr(setting.experiment)
    if name not in EXPECTED:
        with ENGINES.parse("compiled").open(setting, 1) as compiled:
            EXPECTED[name] = states(setting, compiled)
    expected, found = EXPECTED[name], states(setting, engine)
    for (mine, told), (theirs, said) in zip(expected, found, strict=True):
        np.testing.assert_allclose(theirs.weights, mine.weights, rtol=0, atol=1e-6)
        assert theirs.memory.keys() == mine.memory.keys()
        for client, own in mine.memory.items():
            np.testing.assert_allclose(theirs.memory[client], own, rtol=0, atol=1e-5)
        np.testing.assert_array_equal(said.aggregate.admitted, told.aggregate.admitted)
        np.testing.assert_allclose(said.aggregate.losses, told.aggregate.losses, rtol=1e-5)
        assert (said.aggregate.empty, said.refusals) == (told.aggregate.empty, told.refusals)
    assert np.abs(expected[-1][0].weights - setting.weights).max() > 1e-2


# --- in this process ----------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("workers", [1, 3])
def test_nodes_in_this_process_come_to_the_same(strategy, workers):
    setting = setting_of(strategy)
    with Flower("in-process").open(setting, workers) as engine:
        same(setting, engine)


@pytest.mark.parametrize("said", [{"weighting": "uniform"}, {"faults": "any:0.4", "quorum": 0.1}])
def test_weights_and_faults_are_as_in_the_compiled_engine(said):
    setting = setting_of("scaffold", **said)
    with Flower("in-process").open(setting, 1) as engine:
        same(setting, engine)


def test_a_client_that_loses_its_numbers_is_refused_with_its_loss():
    setting = setting_of(local=Local(epochs=40, batch=4, rate=1e6), quorum=0.1)
    with (
        Flower("in-process").open(setting, 1) as engine,
        pytest.raises(Exception, match="the loss became NaN or infinite at all"),
    ):
        states(setting, engine)


def test_what_fails_at_a_client_is_told_here():
    setting = setting_of(local=Local(epochs=2**31 - 1, batch=4))
    with (
        Flower("in-process").open(setting, 1) as engine,
        pytest.raises(UsageError, match="lower --epochs"),
    ):
        states(setting, engine)


def test_a_run_goes_on_where_it_was_and_in_either_engine(tmp_path, no_pictures):
    experiment = Experiment(clients=5, cohort=3, strategy="scaffold", rounds=4, evaluate=0)
    short = Experiment(clients=5, cohort=3, strategy="scaffold", rounds=2, evaluate=0)
    whole = fedsys.simulate(experiment, folder=tmp_path / "whole", workers=1)
    for there, then in (("flower:in-process", None), ("compiled", "flower:in-process")):
        folder = tmp_path / f"{there}-{then}"
        fedsys.simulate(short, folder=folder, engine=there, workers=1)
        part = fedsys.resume(folder, rounds=4, engine=then)
        assert ("Flower in process" in part.known["where"]) == bool(then or "flower" in there)
        one, other = whole.records[-1], part.records[-1]
        assert one["round"] == other["round"] == 4
        assert one["train_loss"] == pytest.approx(other["train_loss"], rel=1e-5)


# --- what is missing or wrong -------------------------------------------------------------------


def test_an_unknown_backend_is_named():
    with pytest.raises(UsageError, match=r"unknown 'in-proces'; did you mean 'in-process'"):
        ENGINES.parse("flower:in-proces")


@pytest.mark.parametrize("package, choice", [
    ("flwr", Flower()), ("ray", Flower()), ("flwr", Flower("in-process")),
])  # fmt: skip
def test_a_missing_package_is_named_with_the_command_that_brings_it(monkeypatch, package, choice):
    from importlib.metadata import PackageNotFoundError, version

    def without(name):
        if name == package:
            raise PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr("fedsys.engines.choice.version", without)
    with pytest.raises(EngineError, match=f"{package} is not installed: fedsys engines install fl"):
        chosen(choice)


def test_nodes_in_this_process_need_no_ray(monkeypatch):
    assert "ray" not in Flower("in-process").status().version
    assert not Flower("in-process").status().missing


def test_a_folder_that_cannot_be_written_is_named(monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", "/proc/nowhere")
    with (
        pytest.raises(EngineError, match=r"/proc/nowhere: cannot be written: .* TMPDIR"),
        Flower().open(setting_of(), 1),
    ):
        pass


# --- Flower's own simulation, on Ray ------------------------------------------------------------


def descendants(pid):
    """The processes that one has started, and theirs, that run."""
    found, new = set(), {pid}
    while new:
        new = set().union(*(running(1, one) for one in new)) - found
        found |= new
    return found


def actors(pid):
    """Those of them that are Flower's actors."""
    return {one for one in descendants(pid) if b"ClientAppActor" in command(one)}


def works(pid):
    """Whether a process is one of Ray's workers, an actor or one to be."""
    return command(pid).startswith(b"ray::") and b"Agent" not in command(pid)


def command(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_flowers_simulation_comes_to_the_same_and_an_actor_that_dies_is_told():
    pytest.importorskip("ray", reason="ray is not installed")
    settings = [setting_of(strategy) for strategy in STRATEGIES]
    settings.append(setting_of("fedavg", faults="any:0.4", quorum=0.1))
    before = descendants(os.getpid())
    with RaySimulation(len(SIZES), 2) as simulation:
        assert "2 actors" in simulation.engine(setting_of(seed=1)).facts["where"]
        for setting in settings:
            same(setting, simulation.engine(setting))
        last = simulation.engine(setting_of(seed=2))
        begun = descendants(os.getpid()) - before
        there = actors(os.getpid())
        assert len(there) == 2 and len(begun) > 4
        for pid in there:
            os.kill(pid, signal.SIGKILL)
        with pytest.raises(EngineError, match=r"1: the Ray actor .*ActorDiedError") as said:
            states(setting_of(seed=2), last)
        log = Path(str(said.value).rpartition(" ")[2])
        assert "\n" not in str(said.value)
        os.kill(simulation.pid, signal.SIGKILL)
        with pytest.raises(EngineError, match="round 1: Flower's simulation was killed, as"):
            states(setting_of(seed=2), last)
    assert eventually(lambda: all(map(gone, begun)), LONG)
    assert log.read_text() and os.listdir(log.parent) == [log.name]
    log.unlink()
    log.parent.rmdir()


def test_nothing_is_left_of_a_simulation_whose_owner_is_killed():
    pytest.importorskip("ray", reason="ray is not installed")
    code = (
        "import time\n"
        "from fedsys.flower.simulation.backends import RaySimulation\n"
        "with RaySimulation(3, 1) as simulation:\n"
        "    print(simulation.folder, flush=True)\n"
        "    time.sleep(600)\n"
    )
    owner = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert owner.stdout is not None
        folder = Path(owner.stdout.readline().strip())
        assert folder.is_dir()
        assert eventually(lambda: any(map(works, descendants(owner.pid))), LONG)
        begun = descendants(owner.pid)
        time.sleep(0.2)
    finally:
        owner.kill()
        owner.wait()
    assert eventually(lambda: all(map(gone, begun)), LONG)
    assert eventually(lambda: not folder.exists(), LONG)
