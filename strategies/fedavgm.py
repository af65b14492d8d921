"""FedAvgM: the server moves with momentum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fedsys.checks import at_least, below
from fedsys.strategies.fedavg import FedAvg
from fedsys.strategy import Mean, Vector


class Moving(NamedTuple):
    """Server state."""

    weights: Vector
    velocity: Vector


@dataclass(frozen=True)
class FedAvgM(FedAvg):
    """Hsu et al. 2019, section 4.3: v <- momentum v + delta;  w <- w + rate v."""

    momentum: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(0, momentum=self.momentum)
        below(1, momentum=self.momentum)

    def begin(self, weights: Vector) -> Moving:
        return Moving(weights, np.zeros_like(weights))

    def finish(self, state: Moving, mean: Mean) -> Moving:
        velocity = self.momentum * state.velocity + mean.delta
        return Moving(state.weights + self.rate * velocity, velocity)
