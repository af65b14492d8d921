"""A run is the same however often it is begun, stopped, killed and resumed."""

import asyncio
import os
import random
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import fedsys
from fedsys.errors import StorageError, UsageError
from fedsys.experiment import Experiment
from fedsys.simulation import Silent, resume, simulate
from fedsys.tasks import TASKS

from .conftest import Nursery, left, lines, until, untimed

pytestmark = pytest.mark.usefixtures("no_pictures")

SMALL = {
    "clients": 20,
    "cohort": 5,
    "rounds": 6,
    "local": fedsys.Local(epochs=1),
    "compiler": "graph",  # the quicker to compile
}


class Interrupter(Silent):
    """Presses Ctrl-C after a round."""

    def __init__(self, round: int) -> None:
        self.after = round
        self.told: list[str] = []

    def round(self, record):
        if record["round"] == self.after:
            signal.raise_signal(signal.SIGINT)

    def said(self, line):
        self.told.append(line)


def weights(run) -> np.ndarray:
    return np.concatenate([np.ravel(w) for w in run.model.get_weights()])


def without_clients(state: dict) -> dict:
    metrics = [
        {k: v for k, v in line.items() if not k.startswith("clients_")} for line in state["metrics"]
    ]
    return {**state, "metrics": metrics}


@pytest.mark.parametrize(
    "options",
    [
        {"compiler": "auto"},
        {"strategy": "fedadam:0.03"},
        {"strategy": "scaffold"},
        {"task": "OWN"},
        {"task": "OWN", "strategy": "scaffold", "partition": "dirichlet:0.1"},
        {"faults": "nan:0.3", "weighting": "uniform", "evaluate_clients": 2},
        {"task": fedsys.experiment.TASKS.parse("digits:cnn"), "evaluate": 0},
    ],
    ids=["fedavg", "fedadam", "scaffold", "normalised", "memory", "faults", "cnn"],
)
def test_a_resumed_run_is_the_uninterrupted_one(tmp_path, monkeypatch, own_task, options):
    monkeypatch.chdir(tmp_path)
    if options.get("task") == "OWN":
        options = {**options, "task": own_task}
    experiment = Experiment(**{**SMALL, **options})
    whole = simulate(experiment, folder="whole")
    watcher = Interrupter(3)
    part = simulate(experiment, folder="part", watcher=watcher)
    assert part.facts["status"] == "stopped"
    assert len(part.records) == 3
    assert (part.folder / "report.html").exists()
    assert not (part.folder / "model.keras").exists()

    done = resume("part")

    assert done.facts["status"] == "done"
    assert left(Path("part")) == left(Path("whole"))
    np.testing.assert_array_equal(weights(done), weights(whole))


def test_a_longer_run_goes_on_from_a_shorter_one(tmp_path):
    short = simulate(Experiment(**{**SMALL, "rounds": 3}), folder=tmp_path / "short")
    simulate(Experiment(**SMALL), folder=tmp_path / "long")

    resume(short.folder, rounds=6)

    at_the_end = short.records[2]  # the shorter run looked at the clients where it ended
    assert any(name.startswith("clients_") for name in at_the_end)
    assert without_clients(left(short.folder)) == without_clients(left(tmp_path / "long"))
    assert fedsys.Run.open(short.folder).experiment == Experiment(**SMALL)
    with pytest.raises(UsageError, match="has done 6 rounds already: ask for more with --rounds"):
        resume(short.folder, rounds=5)
    assert fedsys.Run.open(short.folder).experiment.rounds == 6


def test_a_finished_run_resumed_is_left_as_it_is(tmp_path):
    run = simulate(Experiment(**SMALL), folder=tmp_path / "run")
    before = left(run.folder)
    (run.folder / "model.keras").unlink()
    again = resume(run.folder)
    assert left(run.folder) == before
    assert again.facts["status"] == "done"
    assert (run.folder / "model.keras").exists()


def test_one_seed_gives_one_result_and_another_seed_another(tmp_path):
    one, same, other = (
        simulate(Experiment(**SMALL, seed=seed), folder=tmp_path / name)
        for name, seed in (("one", 4), ("same", 4), ("other", 5))
    )
    assert left(one.folder) == left(same.folder)
    assert untimed(one.records) != untimed(other.records)
    assert not np.array_equal(weights(one), weights(other))
    assert one.experiment.name == same.experiment.name != other.experiment.name


def test_the_experiment_of_a_run_runs_to_the_same_result(tmp_path, cli):
    options = (
        "--strategy",
        "fedprox:0.2",
        "--partition",
        "shards:2",
        "--clients",
        20,
        "--rounds",
        4,
    )
    assert cli("simulate", *options, "--optimizer", "sgd:0.5,0.001", "--out", "first").code == 0
    (first,) = Path("first").iterdir()
    again = cli("simulate", first / "experiment.toml", "--out", "second", "--json").json
    assert again["run"] == first.name  # the same hash
    assert left(first) == left(Path(again["folder"]))


def test_names_tell_experiments_apart_and_folders_are_never_shared(tmp_path):
    first, second = (simulate(Experiment(**SMALL), out=tmp_path) for _ in range(2))
    assert first.name == f"digits-fedavg-{Experiment(**SMALL).name[:8]}"
    assert second.name == f"{first.name}-2"
    with pytest.raises(StorageError, match="is not empty: choose another folder, or --resume"):
        simulate(Experiment(**SMALL), folder=first.folder)
    assert len(first.records) == 6


def test_what_a_run_gives_in_python(tmp_path):
    run = fedsys.simulate(Experiment(**SMALL, evaluate=2), out=tmp_path)
    history = run.history
    assert list(history.index) == [1, 2, 3, 4, 5, 6]
    assert history["train_loss"].notna().all()
    assert list(history["test_accuracy"].notna()) == [False, True] * 3
    assert run.metrics["test_accuracy"] == history["test_accuracy"].iloc[-1]

    test = run.experiment.task.load().test
    right = run.model.predict(test.inputs, verbose=0).argmax(axis=1) == test.labels
    assert right.mean() == pytest.approx(run.metrics["test_accuracy"])


def test_clients_are_listed_with_their_rows_and_scores(tmp_path):
    experiment = Experiment(task="synthetic", compiler="graph", rounds=2, evaluate_clients=1)
    run = simulate(experiment, folder=tmp_path / "run")
    import pandas as pd

    table = pd.read_csv(run.folder / "clients.csv")
    assert list(table.columns) == ["client", "rows", "loss", "accuracy", "owner"]
    assert len(table) == run.facts["clients"] == 30
    assert list(table.owner[:2]) == ["client0", "client1"]
    mean = np.average(table.accuracy, weights=table.rows)
    assert mean == pytest.approx(run.metrics["clients_accuracy"], abs=1e-5)
    assert table.accuracy.min() == pytest.approx(run.metrics["clients_accuracy_worst"], abs=1e-5)
    test = run.experiment.task.load().client_test
    assert list(table.rows) == list(np.bincount(test.owners))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"clients": 1}, "1 client, 1,438 rows"),
        ({"clients": 7, "cohort": 7}, "7 clients, 1,438 rows"),
        ({"clients": 100, "partition": "dirichlet:0.01"}, "without a row"),
        ({"clients": 10, "partition": "labels:1"}, "10 with only one"),
        ({"clients": 1438, "partition": "iid"}, "1,438 with only one"),
    ],
    ids=["one client", "all at once", "empty clients", "one label each", "one row each"],
)
def test_odd_federations_run_and_say_what_they_are(tmp_path, options, said):
    run = simulate(Experiment(**options, rounds=3, compiler="graph"), folder=tmp_path / "run")
    assert run.facts["status"] == "done"
    assert said in " ".join(run.facts["partition_lines"])
    assert (run.folder / "report.html").exists()
    assert len((run.folder / "clients.csv").read_text().splitlines()) == options["clients"] + 1
    for record in run.records:
        assert record["admitted"] + record["empty"] == record["clients"]
        assert np.isfinite(record["test_loss"])


def test_a_cohort_without_a_row_moves_nothing_and_ends_nothing(tmp_path):
    experiment = Experiment(
        compiler="graph",
        clients=400,
        cohort=1,
        partition="dirichlet:0.001",
        rounds=8,
        strategy="fedavgm:0.9",
    )
    run = simulate(experiment, folder=tmp_path / "run")
    idle = [record for record in run.records if record["empty"]]
    assert idle and all(not record["moved"] for record in idle)
    assert all(record["train_loss"] is None for record in idle)  # NaN is no JSON
    assert run.history["train_loss"].isna().sum() == len(idle)


# --- signals and threads -------------------------------------------------------------------------


def test_signals_are_as_they_were_after_a_run(tmp_path):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    simulate(Experiment(**SMALL), folder=tmp_path / "run", watcher=Interrupter(1))
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_signal_heard_twice_at_once_is_one_request(tmp_path):
    class Echo(Interrupter):
        def round(self, record):
            super().round(record)
            super().round(record)

    run = simulate(Experiment(**SMALL), folder=tmp_path / "run", watcher=Echo(2))
    assert run.facts["status"] == "stopped"
    assert len(run.records) == 2


def test_data_that_was_changed_is_noticed_before_a_run_goes_on(tmp_path):
    task, changed = (TASKS.parse("digits").load() for _ in range(2))
    run = simulate(Experiment(**{**SMALL, "rounds": 2}), task=task, folder=tmp_path / "run")
    changed.train.labels[7] = (changed.train.labels[7] + 1) % 10
    with pytest.raises(StorageError, match="was trained on other rows than the task gives now"):
        resume(run.folder, rounds=3, task=changed)
    assert resume(run.folder, rounds=3, task=task).facts["status"] == "done"


def test_a_resumed_run_takes_as_many_workers_as_before(tmp_path):
    options = {**SMALL, "rounds": 2}
    run = simulate(Experiment(**options), folder=tmp_path / "run", workers=3)
    created = run.facts["created"]
    assert resume(run.folder, rounds=3).facts["workers"] == 3
    assert resume(run.folder, rounds=4, workers=2).facts["workers"] == 2
    assert run.facts["created"] == created


def test_a_run_in_a_thread_and_in_an_event_loop_is_the_same(tmp_path):
    here = simulate(Experiment(**SMALL), folder=tmp_path / "here")
    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(
        target=simulate, args=[Experiment(**SMALL)], kwargs={"folder": tmp_path / "thread"}
    )
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGINT) is before

    async def cell() -> None:  # a notebook runs its cells like this
        simulate(Experiment(**SMALL), folder=tmp_path / "loop")

    asyncio.run(cell())
    assert left(here.folder) == left(tmp_path / "thread") == left(tmp_path / "loop")


# --- real processes ------------------------------------------------------------------------------

LONG = ("--clients", 20, "--cohort", 5, "--epochs", 1, "--rounds", 250, "--strategy", "scaffold")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    local = fedsys.Local(epochs=1)
    experiment = Experiment(clients=20, cohort=5, local=local, rounds=250, strategy="scaffold")
    simulate(experiment, folder=folder)
    return left(folder)


def checkpoint_round(folder: Path) -> int:
    names = sorted(path.name for path in folder.glob("checkpoints/round-*.checkpoint"))
    return int(names[-1].removeprefix("round-").removesuffix(".checkpoint")) if names else 0


def test_kill_9_at_any_moment_loses_at_most_the_round_in_flight(nursery: Nursery, uninterrupted):
    chance = random.Random(os.getpid())
    child = nursery.start("simulate", *LONG)
    until(lambda: bool(list(Path().glob("runs/*/experiment.toml"))))
    (folder,) = Path("runs").iterdir()
    moments = [0, *sorted(chance.sample(range(1, 220), 4))]
    for moment in moments:
        until(lambda reached=moment: len(lines(folder)) >= reached)
        child.kill(signal.SIGKILL)
        assert child.wait().code == -signal.SIGKILL
        done = lines(folder)
        assert len(done) >= moment
        assert len(done) - checkpoint_round(folder) in (0, 1)
        if (folder / "run.json").exists():
            assert fedsys.Run.open(folder).facts["status"] == "killed"
        child = nursery.start("simulate", "--resume", folder, "--quiet", "--json")
        until(lambda: (folder / "run.json").exists())
    outcome = child.wait()
    assert (outcome.code, outcome.err) == (0, ""), f"{moments}: {outcome}"
    assert outcome.json["rounds"] == 250
    assert left(folder) == uninterrupted, moments
    assert outcome.json["seconds"] > sum(record["seconds"] for record in lines(folder))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_polite_stop_ends_after_a_checkpoint(nursery: Nursery, uninterrupted, number):
    child = nursery.start("simulate", *LONG, "--json")
    until(lambda: any(lines(folder) for folder in Path().glob("runs/*")))
    (folder,) = Path("runs").iterdir()

    # A second process keeps out, changes nothing and says why.
    nursery.run("simulate", "--resume", folder, "--rounds", 500).refused(
        9, f"{folder}: another process is running it: wait for its end"
    )
    assert fedsys.Run.open(folder).facts["status"] == "running"
    assert fedsys.Run.open(folder).experiment.rounds == 250

    child.kill(number)
    outcome = child.wait()
    done = lines(folder)
    assert outcome.code == 130
    assert checkpoint_round(folder) == len(done) == outcome.json["rounds"]
    assert 0 < len(done) < 250
    assert f"stopped after round {len(done)}; go on with --resume {folder}" in outcome.err
    assert "Traceback" not in outcome.err
    assert fedsys.Run.open(folder).facts["status"] == "stopped"

    assert nursery.run("simulate", "--resume", folder, "--quiet").code == 0
    assert left(folder) == uninterrupted


def test_ctrl_c_twice_ends_at_once(nursery: Nursery):
    child = nursery.start("simulate", "--clients", 2, "--epochs", 3000, "--rounds", 2)
    until(lambda: bool(list(Path().glob("runs/*/events/*"))))
    (folder,) = Path("runs").iterdir()
    time.sleep(1)
    child.kill(signal.SIGINT)
    until(lambda: "stopping after this round" in Path(child._err).read_text())
    time.sleep(0.7)  # nearer together they count as one
    child.kill(signal.SIGINT)
    outcome = child.wait()
    outcome.refused(130, "interrupted")
    assert f"go on with --resume {folder}" in outcome.err
    assert lines(folder) == []


def test_a_full_disk_keeps_what_was_there(nursery: Nursery, uninterrupted):
    outcome = nursery.run("simulate", *LONG, "--quiet", room=45_000)
    (folder,) = Path("runs").iterdir()
    outcome.refused(
        9, str(folder), "File too large: make room there", f"go on with --resume {folder}"
    )
    done = lines(folder)
    assert 0 < len(done) < 250
    assert fedsys.Run.open(folder).facts["status"] == "failed"
    assert nursery.run("simulate", "--resume", folder, "--quiet").code == 0
    assert left(folder) == uninterrupted
