"""FedAvgM against Hsu et al. 2019."""

from __future__ import annotations

from fedsys.strategies import FedAvg, FedAvgM

from .oracle import COHORT, ROUNDS, difference, federation, problem


def fedavgm(paper, momentum, rate):
    """Section 4.3: v <- beta v + Delta, w <- w - Delta's momentum; Delta is minus our movement."""
    w, v, path = paper.start, 0 * paper.start, []
    for round in range(1, ROUNDS + 1):
        v = momentum * v - paper.mean_delta(w, round)
        w = w - rate * v
        path.append(w)
    return path


def test_fedavgm_is_the_papers(agrees):
    agrees(FedAvgM(0.7, rate=0.6), lambda paper: fedavgm(paper, 0.7, 0.6))


def test_without_momentum_it_is_fedavg():
    plain = federation(FedAvg()).run(ROUNDS, COHORT)
    still = federation(FedAvgM(0.0)).run(ROUNDS, COHORT)
    assert difference(still, [state.weights for state in plain]) < 1e-12


def test_the_comparison_sees_a_damped_momentum():
    """v <- beta v + (1 - beta) delta is another algorithm."""
    run = federation(FedAvgM(0.5))
    states = run.run(ROUNDS, COHORT)
    assert difference(states, fedavgm(problem(run), 0.5, 0.5)) > 1e-3
