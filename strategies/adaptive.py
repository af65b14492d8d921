"""Adaptive federated optimisation: what FedAdagrad, FedAdam and FedYogi have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fedsys.checks import above, at_least, below
from fedsys.strategies.fedavg import FedAvg
from fedsys.strategy import Mean, Vector


class Moments(NamedTuple):
    """Server state."""

    weights: Vector
    first: Vector
    second: Vector


@dataclass(frozen=True)
class Adaptive(FedAvg):
    """Reddi et al. 2021, Algorithm 2. The three algorithms differ in `spread` alone.

    first  <- beta1 first + (1 - beta1) delta
    second <- spread(second, delta^2), from tau^2
    w      <- w + rate first / (sqrt(second) + tau)

    rate: the server's learning rate. tau: how little adaptivity; the paper's default is 1e-3.
    """

    rate: float = 0.01
    beta1: float = 0.9
    tau: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(0, beta1=self.beta1)
        below(1, beta1=self.beta1)
        above(0, tau=self.tau)

    def spread(self, second: Vector, square: Vector) -> Vector:
        """The second moment after a delta whose elementwise square is `square`."""
        raise NotImplementedError

    def begin(self, weights: Vector) -> Moments:
        return Moments(weights, np.zeros_like(weights), np.full_like(weights, self.tau**2))

    def finish(self, state: Moments, mean: Mean) -> Moments:
        first = self.beta1 * state.first + (1 - self.beta1) * mean.delta
        second = self.spread(state.second, mean.delta * mean.delta)
        weights = state.weights + self.rate * first / (np.sqrt(second) + self.tau)
        return Moments(weights, first, second)
