"""The compiled engine: workers, lanes, memory and preparation change no result."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from fedsys.admission import Reason
from fedsys.clients.faults import FAULTS
from fedsys.engines.compiled import CompiledEngine
from fedsys.errors import UsageError
from fedsys.local import Local
from fedsys.strategies import FedAvg, FedProx, FedSGD, Scaffold
from fedsys.task import Examples, Task
from fedsys.training import client_seeds

from ..federations import COMPILERS, FEATURES, Federation, by_sizes, classes_task, linear_task
from ..test_training import dropping, normalised

PARTITION = by_sizes([7, 13, 3, 0, 22, 5, 9, 16, 4, 11])
EVERYONE = np.arange(len(PARTITION))
LOCAL = Local(epochs=2, batch=4, rate=0.05)
TASKS = {
    "linear": lambda: linear_task(PARTITION, "float32"),
    "dropping": lambda: classes_task(dropping, PARTITION.sizes.sum()),
    "normalised": lambda: classes_task(normalised, PARTITION.sizes.sum()),
}


@pytest.fixture
def small_lanes(monkeypatch):
    """So that even these little cohorts are cut into as many lanes as there are workers."""
    monkeypatch.setattr("fedsys.lanes.WORTHWHILE", 1.0)


def federation(strategy=None, task="linear", **engine):
    return Federation(TASKS[task](), PARTITION, strategy or FedAvg(), LOCAL, **engine)


def same_start(run, weights):
    """Keras draws new initial weights for every model: begin at the same ones."""
    run.weights = weights
    return run


@pytest.mark.parametrize("task", TASKS)
def test_the_number_of_workers_changes_nothing_but_rounding(small_lanes, task):
    start, ends = federation(task=task).weights, []
    for workers in (1, 2, 3, 4):
        run = same_start(federation(task=task, workers=workers, xla=False), start)
        prepared = run.engine._prepare(1, EVERYONE)
        assert len(prepared.lanes) - 1 == workers
        ends.append(run.run(3)[-1].weights)
    for end in ends[1:]:
        np.testing.assert_allclose(end, ends[0], atol=1e-6)


@pytest.mark.parametrize("strategy", [FedProx(0.1), Scaffold()])
def test_the_same_number_of_workers_gives_the_same_bits(small_lanes, strategy):
    fault = FAULTS.parse("any:0.2")
    runs = [federation(strategy, workers=3, fault=fault, xla=False) for _ in range(2)]
    runs.append(runs[0])  # and so does the same engine once more
    states = [run.run(3) for run in runs]
    for other in states[1:]:
        for one, two in zip(states[0], other, strict=True):
            np.testing.assert_array_equal(one.weights, two.weights)
            assert one.memory.keys() == two.memory.keys()
            for client, own in one.memory.items():
                np.testing.assert_array_equal(own, two.memory[client])


@pytest.mark.parametrize("xla", COMPILERS.values(), ids=COMPILERS)
@pytest.mark.parametrize("uniform", [False, True])
def test_a_fused_lane_gives_the_mean_of_clients_trained_one_at_a_time(xla, uniform):
    run, single = federation(xla=xla, uniform=uniform), federation(xla=xla, uniform=True)
    held = np.array([0, 4, 6, 7])
    alone = [single.round([client]) for client in held]
    got = run.round([0, 3, 4, 6, 7])
    weights = np.ones(len(held)) if uniform else PARTITION.sizes[held]
    expected = np.average([one.delta for one in alone], axis=0, weights=weights)
    np.testing.assert_allclose(got.delta, expected, atol=1e-6)
    np.testing.assert_array_equal(got.admitted, held)
    np.testing.assert_allclose(got.losses, [one.losses[0] for one in alone], rtol=1e-6)
    assert got.weight == weights.sum() and got.drift is None and not got.memory


def test_losses_go_with_their_clients_whatever_the_lanes(small_lanes):
    run = federation(workers=3, xla=False)
    alone = {client: run.round([client]).losses[0] for client in np.flatnonzero(PARTITION.sizes)}
    got = run.round(EVERYONE)
    assert dict(zip(got.admitted, got.losses, strict=True)) == alone


def test_the_order_of_a_cohort_does_not_matter(small_lanes):
    run = federation(workers=2, xla=False)
    one, other = run.round([0, 1, 4, 7]), run.round([7, 0, 4, 1])
    np.testing.assert_allclose(one.delta, other.delta, atol=1e-7)
    np.testing.assert_array_equal(one.admitted, other.admitted)
    np.testing.assert_array_equal(one.losses, other.losses)


def sick_task(client):
    task = linear_task(PARTITION, "float32")
    inputs = task.train.inputs.copy()
    inputs[PARTITION[client]] = np.nan
    return Task("sick", task.model, Examples(inputs, task.train.labels), task.test, "squared")


@pytest.mark.parametrize("strategy", [FedAvg(), Scaffold()])
def test_a_client_whose_data_are_nan_is_refused_and_the_others_go_on(small_lanes, strategy):
    run = Federation(sick_task(4), PARTITION, strategy, LOCAL, workers=2, xla=False)
    good = np.array([0, 1, 2, 5, 6, 7, 8, 9])
    healthy = Federation(run.task, PARTITION, strategy, LOCAL, workers=2, xla=False).round(good)
    got = run.round(EVERYONE)
    np.testing.assert_array_equal(got.admitted, good)
    (refusal,) = got.refused
    assert (refusal.client, refusal.reason) == (4, Reason.FINITE) and np.isnan(refusal.loss)
    np.testing.assert_allclose(got.delta, healthy.delta, atol=1e-6)
    assert 4 not in got.memory and set(got.memory) in (set(), set(good.tolist()))


def test_scaffold_changes_the_memory_of_this_rounds_clients_alone():
    run = federation(Scaffold(), xla=False)
    first, second = run.run(2, 4)
    cohorts = [set(run.cohort(4, round).tolist()) for round in (1, 2)]
    held = set(np.flatnonzero(PARTITION.sizes).tolist())
    assert set(first.memory) == cohorts[0] & held
    assert set(second.memory) == (cohorts[0] | cohorts[1]) & held
    for client in (cohorts[0] - cohorts[1]) & held:
        assert second.memory[client] is first.memory[client]
    for client in cohorts[0] & cohorts[1] & held:
        assert (second.memory[client] != first.memory[client]).any()


def test_the_engine_does_not_change_what_it_was_given():
    run = federation(Scaffold(), xla=False)
    state = run.run(1)[-1]
    before = {client: own.copy() for client, own in state.memory.items()}
    weights = state.weights.copy()
    run.round(EVERYONE, 2, state)
    np.testing.assert_array_equal(state.weights, weights)
    for client, own in state.memory.items():
        np.testing.assert_array_equal(own, before[client])


@pytest.mark.parametrize("strategy", [FedAvg(), Scaffold()])
def test_preparing_ahead_changes_nothing(small_lanes, strategy):
    run = federation(strategy, "dropping", workers=2)
    plain = run.run(4, 5)
    cohorts = {round: run.cohort(5, round) for round in range(1, 5)}

    class Ahead:
        def run(self, work):
            if work.round < 4:
                run.engine.prepare(work.round + 1, cohorts.__getitem__)
            assert (work.round in run.engine._ahead) is (work.round > 1)
            return run.engine.run(work)

    ahead = Federation.run(_with_engine(run, Ahead()), 4, 5)
    for one, other in zip(plain, ahead, strict=True):
        np.testing.assert_array_equal(one.weights, other.weights)


def _with_engine(run, engine):
    other = object.__new__(Federation)
    other.__dict__.update({**vars(run), "engine": engine})
    return other


def test_rounds_differ_though_nothing_else_does():
    """The order of rows is drawn anew."""
    run = federation(xla=False)
    one, other = run.round(EVERYONE, 1), run.round(EVERYONE, 2)
    assert np.abs(one.delta - other.delta).max() > 1e-5


def test_the_population_counts_clients_with_rows():
    assert federation(uniform=True).engine.weights.sum() == 9
    assert federation().engine.weights.sum() == PARTITION.sizes.sum()


def test_a_strategy_has_its_say_in_the_local_training():
    assert federation(FedSGD(), xla=False).engine.local.batch == 0


def test_a_closed_engine_has_no_threads(small_lanes):
    run = federation(workers=2)
    run.engine.close()
    with pytest.raises(RuntimeError, match="after shutdown"):
        run.round(EVERYONE)


def test_seeds_of_layers_travel_with_their_clients(small_lanes):
    run = federation(task="dropping", workers=3)
    prepared = run.engine._prepare(2, EVERYONE)
    expected = client_seeds(run.seed, 2, prepared.clients, 2)
    np.testing.assert_array_equal(prepared.seeds, expected)
    assert sorted(prepared.clients.tolist()) == np.flatnonzero(PARTITION.sizes).tolist()


def test_xla_is_refused_where_a_layer_mixes_the_rows_of_a_batch():
    task = linear_task(by_sizes([5, 8]))

    def model():
        inputs = keras.Input((FEATURES,), dtype="float64")
        hidden = keras.layers.BatchNormalization(dtype="float64", name="norm")(inputs)
        return keras.Model(inputs, keras.layers.Dense(1, dtype="float64")(hidden))

    with pytest.raises(UsageError, match="'norm' mixes the rows of a batch: use 'graph' or 'auto'"):
        CompiledEngine(
            task, model(), by_sizes([5, 8]), FedAvg(), Local(), seed=0, workers=1, xla=True
        )
