"""SCAFFOLD against Karimireddy et al. 2020."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from fedsys.errors import UsageError
from fedsys.local import Adam, Local, Sgd
from fedsys.strategies import Scaffold

from ..federations import Federation
from .oracle import COHORT, ROUNDS, difference, federation, problem
from .test_fedavg import QUADRATIC, optimum, quadratics


def scaffold(paper, rate=1.0):
    """Algorithm 1 with option II. For unequal importance p: x moves by the weighted mean and
    c stays the weighted mean of all c_i, so it moves by sum over the cohort of p_i dc_i, divided
    by the p of everybody; for p = 1 that is the paper's 1/N sum dc_i."""
    x, c, path = paper.start, np.zeros_like(paper.start), []
    own = {client: np.zeros_like(x) for client in range(len(paper.partition))}
    for round in range(1, ROUNDS + 1):
        dx, dc, weight = np.zeros_like(x), np.zeros_like(x), 0.0
        for client, p, batches in paper.heard(round):
            y = x
            for rows in batches:
                y = y - paper.local.rate * (paper.gradient(y, rows) - own[client] + c)
            new = own[client] - c + (x - y) / (len(batches) * paper.local.rate)
            dx, dc, weight = dx + p * (y - x), dc + p * (new - own[client]), weight + p
            own[client] = new
        x, c = x + rate * dx / weight, c + dc / paper.population
        path.append(x)
    return path


def test_scaffold_is_the_papers(agrees):
    agrees(Scaffold(), scaffold)


@pytest.mark.parametrize("local", [Local(steps=5, batch=4, rate=0.05), Local(batch=0, rate=0.05)])
def test_scaffold_with_other_steps_and_a_server_rate_is_the_papers(local):
    run = federation(Scaffold(rate=0.7), local)
    assert difference(run.run(ROUNDS, COHORT), scaffold(problem(run, local), 0.7)) < 1e-9


def test_the_servers_control_is_the_mean_of_the_clients(weighted):
    """What the algorithm keeps true, whoever took part when."""
    run = federation(Scaffold(), weighted=weighted)
    for state in run.run(6, COHORT):
        own = [state.memory.get(k, np.zeros(len(run.weights))) for k in range(len(run.partition))]
        p = run.partition.sizes if weighted else run.partition.sizes > 0
        np.testing.assert_allclose(
            state.server.control, np.average(own, axis=0, weights=p), atol=1e-12
        )


@dataclass(frozen=True)
class WrongCorrection(Scaffold):
    def correct(self, gradient, weights, anchor, *memory):
        own, control = memory
        return gradient + own - control


@dataclass(frozen=True)
class WrongMemory(Scaffold):
    """pfl-research's: c_i from +(y - x) / (K rate)."""

    def receive(self, state, own, delta, span):
        return own - state.control + delta / span


@dataclass(frozen=True)
class Deaf(Scaffold):
    """Forgets that only a part of the population was heard."""

    def finish(self, state, mean):
        after = super().finish(state, mean)
        return after._replace(control=state.control + mean.drift)


@pytest.mark.parametrize("mutant", [WrongCorrection, WrongMemory, Deaf])
def test_the_comparison_sees_a_mutant(mutant):
    run = federation(mutant())
    assert difference(run.run(ROUNDS, COHORT), scaffold(problem(run))) > 1e-3


@pytest.mark.parametrize("cohort", [3, 2])
def test_scaffold_reaches_the_optimum_where_fedavg_does_not(weighted, cohort):
    """FedAvg's own test has the point, more than 0.1 away, at which it stops."""
    task, partition, matrices, minima = quadratics()
    run = Federation(task, partition, Scaffold(), QUADRATIC, uniform=not weighted, xla=False)
    best = optimum(matrices, minima, partition.sizes if weighted else [1, 1, 1])
    reached = run.run(300, cohort)[-1].weights
    assert np.linalg.norm(reached - best) < 1e-6


@pytest.mark.parametrize(
    "local", [Local(optimizer=Sgd(momentum=0.9)), Local(optimizer=Adam()), Local(clip=1.0)]
)
def test_scaffold_refuses_local_training_whose_gradients_it_cannot_read(local):
    with pytest.raises(UsageError, match=r"'scaffold' .* needs plain SGD: leave out"):
        Scaffold().local(local)
