"""FedProx against Li et al. 2020."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from fedsys.local import Local
from fedsys.strategies import FedProx

from ..federations import Federation, by_sizes, linear_task
from .oracle import COHORT, ROUNDS, difference, federation, problem


def fedprox(paper, mu):
    """Algorithm 2: clients descend F_k(w) + mu/2 ||w - w_t||^2."""
    w, path = paper.start, []
    for round in range(1, ROUNDS + 1):
        w = w + paper.mean_delta(w, round, lambda local, anchor: mu * (local - anchor))
        path.append(w)
    return path


def test_fedprox_is_the_papers(agrees):
    agrees(FedProx(0.8), lambda paper: fedprox(paper, 0.8))


def test_the_comparison_sees_a_wrong_sign():
    @dataclass(frozen=True)
    class Repelled(FedProx):
        def correct(self, gradient, weights, anchor, *memory):
            return gradient - self.mu * (weights - anchor)

    run = federation(Repelled(0.5))
    states = run.run(ROUNDS, COHORT)
    assert difference(states, fedprox(problem(run), 0.5)) > 1e-3
    assert difference(states, fedprox(problem(run), -0.5)) < 1e-9


@pytest.mark.parametrize("mu", [0.0, 0.5, 5.0, 15.0])
def test_a_client_that_trains_long_solves_the_proximal_problem(mu):
    """argmin 0.5 (w - b)' A (w - b) + mu/2 ||w - a||^2 = (A + mu)^-1 (A b + mu a)."""
    partition = by_sizes([25])
    local = Local(epochs=6000, batch=25, rate=0.05)
    run = Federation(linear_task(partition), partition, FedProx(mu), local)
    x, y = run.task.train.inputs, run.task.train.labels
    full = np.column_stack([x, np.ones(len(x))])
    a, pull = run.weights, full.T @ y / len(y)
    solution = np.linalg.solve(full.T @ full / len(y) + mu * np.eye(len(a)), pull + mu * a)
    reached = run.run(1)[0].weights
    np.testing.assert_allclose(reached, solution, atol=1e-9)


def test_the_larger_mu_the_nearer_the_anchor():
    far = []
    for mu in (0.0, 0.1, 1.0, 10.0):
        run = federation(FedProx(mu))
        far.append(np.linalg.norm(run.run(1)[0].weights - run.weights))
    assert far == sorted(far, reverse=True) and far[-1] < far[0] / 2
