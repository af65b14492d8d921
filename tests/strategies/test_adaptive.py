"""FedAdagrad, FedAdam and FedYogi against Reddi et al. 2021."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from fedsys.strategies import FedAdagrad, FedAdam, FedYogi

from .oracle import COHORT, ROUNDS, difference, federation, problem


def reddi(paper, second, *, rate, beta1, tau, unbiased=False, v=None):
    """Algorithm 2. `second(v, delta)` is the line that differs; v_-1 = tau^2; no bias correction
    (`unbiased` would be another algorithm, for which the comparison must have an eye)."""
    x = paper.start
    m = np.zeros_like(x)
    v = np.full_like(x, tau**2 if v is None else v)
    path = []
    for round in range(1, ROUNDS + 1):
        delta = paper.mean_delta(x, round)
        m = beta1 * m + (1 - beta1) * delta
        v = second(v, delta)
        x = x + rate * (m / (1 - beta1**round) if unbiased else m) / (np.sqrt(v) + tau)
        path.append(x)
    return path


def adagrad(v, delta):
    return v + delta**2


def adam(beta2):
    return lambda v, delta: beta2 * v + (1 - beta2) * delta**2


def yogi(beta2):
    return lambda v, delta: v - (1 - beta2) * delta**2 * np.sign(v - delta**2)


HOW = {"rate": 0.03, "beta1": 0.7, "tau": 0.02}
CASES = {
    "adagrad": (FedAdagrad(**HOW), adagrad),
    "adam": (FedAdam(**HOW, beta2=0.8), adam(0.8)),
    "yogi": (FedYogi(**HOW, beta2=0.8), yogi(0.8)),
}


@pytest.mark.parametrize("name", CASES)
def test_the_server_optimiser_is_the_papers(agrees, name):
    strategy, second = CASES[name]
    agrees(strategy, lambda paper: reddi(paper, second, **HOW))


@pytest.mark.parametrize("name", CASES)
def test_the_comparison_sees_a_bias_correction_and_another_start(name):
    strategy, second = CASES[name]
    run = federation(strategy)
    states = run.run(ROUNDS, COHORT)
    assert difference(states, reddi(problem(run), second, **HOW, unbiased=True)) > 1e-3
    assert difference(states, reddi(problem(run), second, **HOW, v=1.0)) > 1e-3


def test_the_three_differ_from_each_other():
    ends = [federation(strategy).run(ROUNDS, COHORT) for strategy, _ in CASES.values()]
    for one, other in ((0, 1), (1, 2), (0, 2)):
        assert difference(ends[one], [state.weights for state in ends[other]]) > 1e-3


def test_yogis_second_moment_may_shrink_and_comes_nearer_the_square():
    second, square = np.array([4.0, 1.0]), np.array([1.0, 4.0])
    np.testing.assert_allclose(
        FedYogi(beta2=0.9).spread(second, square), [4 - 0.1 * 1, 1 + 0.1 * 4]
    )


def test_defaults_are_the_papers():
    assert FedAdagrad().beta1 == 0
    for strategy in (FedAdam(), FedYogi()):
        assert (strategy.beta1, strategy.beta2, strategy.tau) == (0.9, 0.99, 1e-3)


@pytest.mark.parametrize("wrong", [{"beta1": 1.0}, {"beta1": -0.1}, {"tau": 0.0}, {"rate": 0.0}])
@pytest.mark.parametrize("strategy", [FedAdagrad, FedAdam, FedYogi])
def test_values_out_of_bounds_are_refused_by_name(strategy, wrong):
    with pytest.raises(ValueError, match=f"^{next(iter(wrong))} must be "):
        strategy(**wrong)


def test_a_mutant_without_the_root_is_seen():
    @dataclass(frozen=True)
    class Rootless(FedAdam):
        def finish(self, state, mean):
            after = super().finish(state, mean)
            move = self.rate * after.first / (after.second + self.tau)
            return after._replace(weights=state.weights + move)

    run = federation(Rootless(**HOW, beta2=0.8))
    assert difference(run.run(ROUNDS, COHORT), reddi(problem(run), adam(0.8), **HOW)) > 1e-3
