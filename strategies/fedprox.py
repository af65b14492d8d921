"""FedProx: local training is held near the global model."""

from __future__ import annotations

from dataclasses import dataclass

from fedsys.checks import at_least
from fedsys.strategies.fedavg import FedAvg
from fedsys.strategy import Tensor


@dataclass(frozen=True)
class FedProx(FedAvg):
    """Li et al. 2020, Algorithm 2: the local objective gains mu/2 ||w - anchor||^2, so its
    gradient gains mu (w - anchor), which pulls back to the anchor. Mind the sign."""

    mu: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(0, mu=self.mu)

    def correct(self, gradient: Tensor, weights: Tensor, anchor: Tensor, *memory: Tensor) -> Tensor:
        return gradient + self.mu * (weights - anchor)
