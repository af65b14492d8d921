"""Federated averaging: the algorithm that every other one here is a change of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

from fedsys.checks import above
from fedsys.local import Local
from fedsys.strategy import Mean, Tensor, Vector


class Weights(NamedTuple):
    """Server state of an algorithm that keeps nothing but the model."""

    weights: Vector


@dataclass(frozen=True)
class FedAvg:
    """McMahan et al. 2017, Algorithm 1.

    Clients train from the global weights and send how far they moved; the server moves by the
    weighted mean. `rate` is the server's learning rate: 1 is the paper's algorithm.
    """

    rate: float = field(default=1.0, kw_only=True)

    remembers: ClassVar[bool] = False

    def __post_init__(self) -> None:
        above(0, rate=self.rate)

    def local(self, local: Local) -> Local:
        return local

    def correct(self, gradient: Tensor, weights: Tensor, anchor: Tensor, *memory: Tensor) -> Tensor:
        return gradient

    def begin(self, weights: Vector) -> Any:
        return Weights(weights)

    def send(self, state: Any, own: Vector) -> tuple[Vector, ...]:
        return ()

    def receive(self, state: Any, own: Vector, delta: Vector, span: float) -> Vector:
        return own

    def finish(self, state: Any, mean: Mean) -> Any:
        return state._replace(weights=state.weights + self.rate * mean.delta)
