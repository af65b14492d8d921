"""One client by itself comes to what it came to among others."""

from __future__ import annotations

import numpy as np
import pytest

from fedsys.clients.trainer import Trainer
from fedsys.local import Adam, Local
from fedsys.rounds import begin
from fedsys.strategies import FedAvg, FedProx, FedSGD, Scaffold
from fedsys.task import Examples

from ..federations import Federation, by_sizes, classes_task, linear_task
from ..test_training import dropping, normalised

PARTITION = by_sizes([7, 13, 1, 0, 22])
LOCAL = Local(epochs=2, batch=4, rate=0.05)


def trainer_of(run, client, **options):
    rows = run.partition[client]
    examples = Examples(run.task.train.inputs[rows], run.task.train.labels[rows])
    return Trainer(
        run.model,
        run.task.objective,
        options.pop("local", LOCAL),
        run.strategy,
        examples,
        client=client,
        weight=float(len(rows)),
        seed=run.seed,
        **options,
    )


@pytest.mark.parametrize("client", [0, 1, 2, 4])
@pytest.mark.parametrize("xla", [True, False])
@pytest.mark.parametrize("strategy", [FedAvg(), FedProx(0.5), Scaffold()])
def test_a_client_moves_as_it_does_in_the_engine(strategy, xla, client):
    run = Federation(linear_task(PARTITION), PARTITION, strategy, LOCAL, xla=xla)
    trainer = trainer_of(run, client, xla=xla)
    state, own = begin(strategy, run.layout, run.weights), None
    for round in (1, 2, 3):
        expected = run.round([client], round, state)
        trained = trainer.train(round, state.weights, state.server, own)
        moved = run.layout.gather(trained.update.tensors)
        assert np.abs(moved).max() > 1e-3
        np.testing.assert_allclose(moved, expected.delta, atol=1e-12)
        np.testing.assert_allclose(trained.loss, expected.losses[0], rtol=1e-12)
        assert trained.update.weight == expected.weight
        if strategy.remembers:
            np.testing.assert_allclose(trained.own, expected.memory[client], atol=1e-12)
            own = trained.own
            state = state.__class__(round, state.server, state.buffers, {client: own})


@pytest.mark.parametrize("model", [dropping, normalised])
def test_random_layers_and_moving_averages_are_the_same_too(model):
    run = Federation(classes_task(model, 43), PARTITION, FedAvg(), LOCAL)
    trained = trainer_of(run, 4).train(2, run.weights, begin(FedAvg(), run.layout, run.weights))
    moved = run.layout.gather(trained.update.tensors)
    np.testing.assert_allclose(moved, run.round([4], 2).delta, atol=1e-6)


@pytest.mark.parametrize("local", [Local(batch=100), Local(batch=0), Local(steps=7, batch=4)])
def test_batches_longer_than_the_data_and_counted_steps(local):
    run = Federation(linear_task(PARTITION), PARTITION, FedAvg(), local)
    trainer = trainer_of(run, 1, local=local)
    trained = trainer.train(1, run.weights, begin(FedAvg(), run.layout, run.weights).server)
    expected = run.round([1]).delta
    np.testing.assert_allclose(run.layout.gather(trained.update.tensors), expected, atol=1e-12)


def test_a_strategy_has_its_say():
    run = Federation(linear_task(PARTITION), PARTITION, FedSGD(), LOCAL)
    trained = trainer_of(run, 1).train(1, run.weights, begin(FedSGD(), run.layout, run.weights))
    expected = run.round([1]).delta
    np.testing.assert_allclose(run.layout.gather(trained.update.tensors), expected, atol=1e-12)


def test_lost_numbers_are_told_and_not_remembered():
    wild = Local(epochs=50, batch=4, rate=1e6)
    run = Federation(linear_task(PARTITION), PARTITION, Scaffold(), wild)
    state = begin(run.strategy, run.layout, run.weights)
    trained = trainer_of(run, 1, local=wild).train(1, run.weights, state.server)
    assert all(np.isnan(tensor).all() for tensor in trained.update.tensors.values())
    assert trained.own is None


def test_optimisers_with_moments():
    local = Local(batch=4, optimizer=Adam())
    run = Federation(linear_task(PARTITION), PARTITION, FedAvg(), local)
    trained = trainer_of(run, 0, local=local).train(
        1, run.weights, begin(FedAvg(), run.layout, run.weights).server
    )
    expected = run.round([0]).delta
    np.testing.assert_allclose(run.layout.gather(trained.update.tensors), expected, atol=1e-12)
