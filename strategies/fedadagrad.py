"""FedAdagrad: the server adapts its steps with Adagrad."""

from __future__ import annotations

from dataclasses import dataclass

from fedsys.strategies.adaptive import Adaptive
from fedsys.strategy import Vector


@dataclass(frozen=True)
class FedAdagrad(Adaptive):
    """Reddi et al. 2021, Algorithm 2, FedAdagrad: squares are summed. The paper has beta1 = 0."""

    rate: float = 0.1
    beta1: float = 0.0

    def spread(self, second: Vector, square: Vector) -> Vector:
        return second + square
