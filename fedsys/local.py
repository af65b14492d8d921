"""How a client trains: how long, on what batches, along which steps."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from fedsys.checks import above, at_least, at_most, below
from fedsys.choices import Family

Tensor = Any
"""One weight tensor: TensorFlow or NumPy. Updates use operators only."""


class Optimizer(Protocol):
    """A step rule as two pure functions of one tensor."""

    def slots(self, weight: Tensor) -> tuple[Tensor, ...]:
        """What the rule remembers of a weight before the first step."""
        ...

    def step(
        self,
        weight: Tensor,
        gradient: Tensor,
        slots: tuple[Tensor, ...],
        rate: float,
        count: Tensor,
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The weight and slots after step number `count` (1, 2, ..., floating)."""
        ...


@dataclass(frozen=True)
class Sgd:
    """Stochastic gradient descent, with heavy-ball momentum and L2 weight decay.

    velocity <- momentum * velocity + gradient + decay * weight;  weight <- weight - rate * velocity
    (Sutskever et al. 2013, with the rate outside the velocity).
    """

    momentum: float = 0.0
    decay: float = 0.0

    def __post_init__(self) -> None:
        at_least(0, momentum=self.momentum, decay=self.decay)
        below(1, momentum=self.momentum)

    @property
    def plain(self) -> bool:
        """Whether a step is minus the rate times the gradient, and nothing else."""
        return not self.momentum

    def slots(self, weight: Tensor) -> tuple[Tensor, ...]:
        return (0 * weight,) if self.momentum else ()

    def step(
        self,
        weight: Tensor,
        gradient: Tensor,
        slots: tuple[Tensor, ...],
        rate: float,
        count: Tensor,
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        if self.decay:
            gradient = gradient + self.decay * weight
        if not slots:
            return weight - rate * gradient, ()
        velocity = self.momentum * slots[0] + gradient
        return weight - rate * velocity, (velocity,)


@dataclass(frozen=True)
class Adam:
    """Kingma and Ba 2015, Algorithm 1, with decoupled weight decay (Loshchilov and Hutter 2019).

    Its moments start anew at each client in each round: a client keeps nothing.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    decay: float = 0.0

    def __post_init__(self) -> None:
        at_least(0, beta1=self.beta1, beta2=self.beta2, decay=self.decay)
        below(1, beta1=self.beta1, beta2=self.beta2)
        above(0, epsilon=self.epsilon)

    plain = False

    def slots(self, weight: Tensor) -> tuple[Tensor, ...]:
        return 0 * weight, 0 * weight

    def step(
        self,
        weight: Tensor,
        gradient: Tensor,
        slots: tuple[Tensor, ...],
        rate: float,
        count: Tensor,
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        first = self.beta1 * slots[0] + (1 - self.beta1) * gradient
        second = self.beta2 * slots[1] + (1 - self.beta2) * gradient * gradient
        unbiased = first / (1 - self.beta1**count)
        scale = (second / (1 - self.beta2**count)) ** 0.5 + self.epsilon
        return weight - rate * (unbiased / scale + self.decay * weight), (first, second)


OPTIMIZERS = Family("optimizer", {"sgd": Sgd, "adam": Adam})


@dataclass(frozen=True, kw_only=True)
class Local:
    """Local training of one client in one round.

    epochs: passes over the client's rows, each in a new order.
    steps: if set, this many batches instead, however many rows the client has.
    batch: rows a step; the last of an epoch has what is left. 0 is all rows in one step.
    rate: learning rate.
    clip: if set, gradients longer than this (Euclidean norm over all weights) are shortened to it.
    """

    epochs: int = 5
    steps: int | None = None
    batch: int = 10
    rate: float = 0.1
    optimizer: Sgd | Adam = field(default=Sgd(), metadata={"family": OPTIMIZERS})
    clip: float | None = None

    def __post_init__(self) -> None:
        at_least(1, epochs=self.epochs, steps=self.steps)
        at_least(0, batch=self.batch)
        at_most(2**31 - 1, epochs=self.epochs, steps=self.steps)
        at_most(2**62, batch=self.batch)
        above(0, rate=self.rate, clip=self.clip)

    @property
    def plain(self) -> bool:
        """Whether the sum of a client's gradients can be read off how far it moved."""
        return self.optimizer.plain and self.clip is None
