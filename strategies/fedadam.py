"""FedAdam: the server adapts its steps with Adam."""

from __future__ import annotations

from dataclasses import dataclass

from fedsys.checks import at_least, below
from fedsys.strategies.adaptive import Adaptive
from fedsys.strategy import Vector


@dataclass(frozen=True)
class FedAdam(Adaptive):
    """Reddi et al. 2021, Algorithm 2, FedAdam: an exponential average of squares, no bias
    correction."""

    beta2: float = 0.99

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(0, beta2=self.beta2)
        below(1, beta2=self.beta2)

    def spread(self, second: Vector, square: Vector) -> Vector:
        return self.beta2 * second + (1 - self.beta2) * square
