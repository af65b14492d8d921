"""What TensorFlow Federated cannot do as fedsys does is refused before anything starts."""

from __future__ import annotations

from dataclasses import dataclass

import keras
import numpy as np
import pytest

from fedsys.engine import Work
from fedsys.engines.tff import Tff, engine, environment
from fedsys.engines.tff.engine import check
from fedsys.errors import EngineError, TrainingError, UsageError
from fedsys.experiment import Experiment
from fedsys.local import Local, Sgd
from fedsys.objectives import Objective, objective
from fedsys.setting import prepare
from fedsys.strategies import STRATEGIES, FedAvg
from fedsys.task import Examples, Task

from ..federations import by_sizes, classes_task, linear_task


def dense():
    return keras.Sequential([keras.Input((5,)), keras.layers.Dense(3)])


def normalised():
    norm = keras.layers.BatchNormalization(name="norm")
    return keras.Sequential([keras.Input((5,)), norm, keras.layers.Dense(3)])


def setting(task=None, **experiment):
    experiment = {"clients": 4, "partition": "iid", "cohort": 2, **experiment}
    return prepare(Experiment(**experiment), task or classes_task(dense))


@dataclass(frozen=True)
class Mine(FedAvg):
    """A strategy of one's own, about which the engine knows nothing."""


REFUSED = {
    "scaffold": ({"strategy": "scaffold"}, "strategy 'scaffold' is not to be had in it: use one"),
    "own strategy": ({"strategy": Mine()}, "strategy 'Mine' is not to be had"),
    "adam": (
        {"local": Local(optimizer="adam")},
        "clients' Adam has another formula in it: use sgd",
    ),
    "decay": (
        {"local": Local(optimizer=Sgd(decay=0.1))},
        "has no weight decay in it",
    ),
    "clip": ({"local": Local(clip=1.0)}, "clients cannot clip gradients in it: leave out --clip"),
    "faults": ({"faults": "nan:0.1"}, "leave out --faults"),
    "batch normalisation": ({"task": classes_task(normalised)}, "layer 'norm' is a BatchNormal"),
    "float64": ({"task": linear_task(by_sizes([9, 4]))}, "the model's weights are float64"),
}


@pytest.mark.parametrize("given, reason", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_the_same_is_refused_with_a_remedy(given, reason):
    with pytest.raises(UsageError) as caught:
        check(setting(**given))
    message = str(caught.value)
    assert message.startswith("engine 'tff': ") and reason in message
    assert message.endswith("or use --engine compiled") and "\n" not in message


def test_an_objective_of_ones_own_is_refused():
    known = objective("classes")
    own = Objective("classes", known.loss, known.metrics)
    task = classes_task(dense)
    with pytest.raises(UsageError, match="objective 'classes' is your own"):
        check(setting(Task("own", task.model, task.train, task.test, own)))


def test_a_client_with_more_rows_than_tff_sends_is_refused(monkeypatch):
    told = setting(cohort=1, clients=1)
    train = told.task.train
    monkeypatch.setattr(engine, "LARGEST", train.inputs.nbytes + train.labels.nbytes)
    check(told)
    monkeypatch.setattr(engine, "LARGEST", train.inputs.nbytes + train.labels.nbytes - 1)
    with pytest.raises(UsageError, match=r"at most .* MiB of rows, and one has .*: use more cli"):
        check(told)


def test_every_strategy_is_supported_or_refused_by_name():
    for name in STRATEGIES.members:
        told = setting(strategy=name)
        if name in engine.SUPPORTED:
            assert check(told).layers
        else:
            with pytest.raises(UsageError, match=f"strategy '{name}'"):
                check(told)


def test_refusals_come_before_what_is_missing_and_both_before_anything_starts(monkeypatch):
    monkeypatch.setattr(environment, "installed", lambda: None)
    with pytest.raises(UsageError, match="strategy 'scaffold'"):
        Tff().open(setting(strategy="scaffold"), None).__enter__()
    with pytest.raises(EngineError, match="not installed: fedsys engines install tff"):
        Tff().open(setting(), None).__enter__()


def test_a_timeout_is_a_time():
    for wrong in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="timeout"):
            Tff(wrong)


@pytest.mark.parametrize("dtype", [np.float32, np.uint8, np.float64])
@pytest.mark.parametrize("piece", [1, 100, 2**24])
def test_rows_are_written_in_the_clients_order_piece_by_piece(tmp_path, monkeypatch, dtype, piece):
    monkeypatch.setattr(engine, "PIECE", piece)
    rng = np.random.default_rng(0)
    rows = (100 * rng.random((30, 2, 3))).astype(dtype)
    order = rng.permutation(30)[:25]
    engine._write_rows(tmp_path / "rows.npy", rows, order)
    read = np.load(tmp_path / "rows.npy", mmap_mode="r", allow_pickle=False)
    np.testing.assert_array_equal(read, rows[order])
    assert read.dtype == dtype


def test_a_full_disk_under_the_rows_is_named(monkeypatch, tmp_path):
    class Folder:
        folder = tmp_path / "not there"

    told = setting()
    run = engine.TffEngine(told, check(told), Folder(), 2)
    with pytest.raises(EngineError, match=r"not there: cannot be written: .*TMPDIR"):
        run.begin()


def answer(**given):
    parts = {"steps": np.ones(3), "losses": np.array([1.0, 2.0, 3.0]), "weight": np.array(6.0)}
    return {**parts, **given}


COUNTS = np.array([1.0, 2.0, 3.0])


def heard(**given):
    told = setting()
    return engine.TffEngine(told, check(told), None, 2)._heard(answer(**given), COUNTS, 5)


def test_losses_are_means_over_steps():
    who, losses = heard(steps=np.array([1.0, 2.0, 4.0]))
    assert who.all() and losses.tolist() == [1.0, 1.0, 0.75]


def test_clients_whose_metrics_tff_forgot_are_refused():
    steps, losses = np.array([1.0, 0.0, 2.0]), np.array([1.0, 0.0, 3.0])
    who, _ = heard(steps=steps, losses=losses, weight=np.array(4.0))
    assert who.tolist() == [True, False, True]


def test_clients_of_fedsgd_without_a_finite_loss_are_refused():
    who, _ = heard(losses=np.array([1.0, np.nan, 3.0]), weight=np.array(4.0))
    assert who.tolist() == [True, False, True]
    who, _ = heard(losses=np.array([1.0, np.inf, 3.0]))  # its gradient was finite, and counted
    assert who.all()


def test_clients_of_whom_tff_says_nothing_end_the_run():
    with pytest.raises(TrainingError, match=r"round 5: .* does not say which: try a lower --rate"):
        heard(weight=np.array(4.0))


def test_a_cohort_without_rows_asks_nobody():
    rows = classes_task(dense).train
    task = Task("empty", dense, Examples(rows.inputs, rows.labels, np.ones(60, int)), rows)
    told = setting(task, partition="natural", clients=2)
    run = engine.TffEngine(told, check(told), None, 2)
    state = FedAvg().begin(told.weights)
    given = run.run(Work(1, np.array([0]), told.weights, state, {}))
    assert given.weight == 0 and given.empty == 1 and not len(given.admitted)
    assert given.server is None and not given.delta.any()
