"""FedAvg and FedSGD against McMahan et al. 2017."""

from __future__ import annotations

import numpy as np

from fedsys.local import Local
from fedsys.strategies import FedAvg, FedSGD

from ..federations import Federation, by_sizes, linear_examples
from .oracle import COHORT, LOCAL, ROUNDS, difference, federation, problem


def fedavg(paper, rate=1.0):
    """Algorithm 1: w <- sum over the cohort of n_k / n w_k. `rate` 1 is the paper's."""
    w, path = paper.start, []
    for round in range(1, ROUNDS + 1):
        w = w + rate * paper.mean_delta(w, round)
        path.append(w)
    return path


def fedsgd(paper):
    """Section 2: a step along the mean of the clients' full gradients."""
    w, path = paper.start, []
    for round in range(1, ROUNDS + 1):
        heard = [(n, paper.gradient(w, paper.partition[k])) for k, n, _ in paper.heard(round)]
        total = sum(n for n, _ in heard)
        w = w - paper.local.rate * sum(n * g for n, g in heard) / total
        path.append(w)
    return path


def test_fedavg_is_the_papers(agrees):
    agrees(FedAvg(), fedavg)


def test_fedavg_with_a_server_rate_moves_that_part_of_the_way():
    run = federation(FedAvg(rate=0.5))
    assert difference(run.run(ROUNDS, COHORT), fedavg(problem(run), 0.5)) < 1e-9


def test_fedsgd_is_the_papers(agrees):
    agrees(FedSGD(), fedsgd)


def test_fedsgd_takes_one_step_whatever_the_local_training_says():
    local = Local(epochs=7, steps=3, batch=2, rate=0.3)
    assert FedSGD().local(local) == Local(epochs=1, steps=None, batch=0, rate=0.3)


def test_a_round_of_fedsgd_with_everyone_is_gradient_descent_on_the_pooled_rows():
    run = federation(FedSGD())
    state = run.run(1)[0]
    paper = problem(run)
    rows = np.concatenate(list(run.partition))
    step = paper.start - LOCAL.rate * paper.gradient(paper.start, rows)
    np.testing.assert_allclose(state.weights, step, rtol=1e-12)


def test_weighting_makes_a_difference_that_the_comparison_sees():
    run = federation(FedAvg(), weighted=False)
    states = run.run(ROUNDS, COHORT)
    assert difference(states, fedavg(problem(run, weighted=True))) > 1e-3


def quadratics():
    """Two clients whose losses are 0.5 (w - b)' A (w - b), as rows of a regression.

    Returns the federation's pieces, and for each client A and b with the bias as last weight.
    """
    rng = np.random.default_rng(5)
    partition = by_sizes([6, 14, 9])
    x, y = np.empty((29, 2)), np.empty(29)
    matrices, minima = [], []
    for client, rows in enumerate(partition):
        x[rows] = rng.normal(size=(len(rows), 2)) * [1, 1 + client] + client
        truth = rng.normal(size=3) * 3
        full = np.column_stack([x[rows], np.ones(len(rows))])
        y[rows] = full @ truth
        matrices.append(full.T @ full / len(rows))
        minima.append(truth)
    return linear_examples(x, y), partition, matrices, minima


def fixed_point(matrices, minima, importance, rate, steps):
    """Where the mean movement is zero: K full steps take w to b + (1 - rate A)^K (w - b)."""
    pulls = [
        p * (np.eye(3) - np.linalg.matrix_power(np.eye(3) - rate * a, steps))
        for a, p in zip(matrices, importance, strict=True)
    ]
    return np.linalg.solve(sum(pulls), sum(m @ b for m, b in zip(pulls, minima, strict=True)))


def optimum(matrices, minima, importance):
    """The minimum of the weighted mean of the clients' losses."""
    pulls = [p * a for a, p in zip(matrices, importance, strict=True)]
    return np.linalg.solve(sum(pulls), sum(m @ b for m, b in zip(pulls, minima, strict=True)))


QUADRATIC = Local(epochs=10, batch=0, rate=0.05)


def test_fedavg_stops_at_its_fixed_point_away_from_the_optimum(weighted):
    task, partition, matrices, minima = quadratics()
    run = Federation(task, partition, FedAvg(), QUADRATIC, uniform=not weighted, xla=weighted)
    importance = partition.sizes if weighted else [1, 1, 1]
    stop = fixed_point(matrices, minima, importance, QUADRATIC.rate, QUADRATIC.epochs)
    reached = run.run(400)[-1].weights
    np.testing.assert_allclose(reached, stop, atol=1e-9)
    assert np.linalg.norm(reached - optimum(matrices, minima, importance)) > 0.1
