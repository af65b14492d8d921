"""SCAFFOLD: control variates undo the drift of clients whose data differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from fedsys.errors import UsageError
from fedsys.local import Local
from fedsys.strategies.fedavg import FedAvg
from fedsys.strategy import Mean, Tensor, Vector


class Controls(NamedTuple):
    """Server state."""

    weights: Vector
    control: Vector


@dataclass(frozen=True)
class Scaffold(FedAvg):
    """Karimireddy et al. 2020, Algorithm 1, option II.

    Each client keeps c_i, its last mean gradient, and steps along g - c_i + c. The server keeps
    c, the mean of all c_i over the population: it moves by the heard clients' share of it, which
    for equal weights is the paper's |S|/N.
    """

    remembers: ClassVar[bool] = True

    def local(self, local: Local) -> Local:
        if not local.plain:
            raise UsageError(
                "strategy 'scaffold' reads gradients off the distance that a client moved, so it "
                "needs plain SGD: leave out momentum, adam and clip"
            )
        return local

    def correct(self, gradient: Tensor, weights: Tensor, anchor: Tensor, *memory: Tensor) -> Tensor:
        own, control = memory
        return gradient - own + control

    def begin(self, weights: Vector) -> Controls:
        return Controls(weights, np.zeros_like(weights))

    def send(self, state: Controls, own: Vector) -> tuple[Vector, ...]:
        return own, state.control

    def receive(self, state: Controls, own: Vector, delta: Vector, span: float) -> Vector:
        return own - state.control - delta / span

    def finish(self, state: Controls, mean: Mean) -> Controls:
        assert mean.drift is not None, "clients of this strategy remember"
        return Controls(
            state.weights + self.rate * mean.delta, state.control + mean.share * mean.drift
        )
