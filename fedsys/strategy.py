"""What a strategy is: the few verbs in which federated algorithms differ.

All vectors are the trainable weights of the model, flattened in the order of its `Layout`. What
is not trainable (moving averages of batch normalisation) is averaged by the round loop in the
same way for every strategy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from fedsys.local import Local

Vector = np.ndarray
"""[parameters], floating."""

Tensor = Any
"""One weight tensor: TensorFlow inside the compiled training, NumPy in an oracle. Corrections
use operators only, so that the same line serves both."""


@dataclass(frozen=True)
class Mean:
    """What the server learns from a round.

    delta: [parameters], weighted mean of the clients' movements.
    drift: [parameters], weighted mean of the changes of the clients' own vectors; None where the
        strategy does not remember.
    share: weight of the clients that were heard, as a part of the whole population's weight.
    """

    delta: Vector
    share: float
    drift: Vector | None = None


class Strategy(Protocol):
    """The verbs of an algorithm. `strategies.FedAvg` is the one to read first and to change.

    remembers: whether each client keeps a vector of its own from one of its rounds to the next.
    """

    @property
    def remembers(self) -> bool: ...

    def local(self, local: Local) -> Local:
        """The local training that the algorithm asks for, given the experiment's.

        Raises UsageError where the two do not go together.
        """
        ...

    def correct(self, gradient: Tensor, weights: Tensor, anchor: Tensor, *memory: Tensor) -> Tensor:
        """How a local gradient is changed before the client steps along it."""
        ...

    def begin(self, weights: Vector) -> Any:
        """The server state before the first round: a named tuple of vectors, `weights` first."""
        ...

    def send(self, state: Any, own: Vector) -> tuple[Vector, ...]:
        """What a client gets beside the weights: the `memory` that its `correct` sees."""
        ...

    def receive(self, state: Any, own: Vector, delta: Vector, span: float) -> Vector:
        """The client's own vector (zeros before its first round) after a round that moved it by
        `delta` in `span`, which is its number of steps times its learning rate."""
        ...

    def finish(self, state: Any, mean: Mean) -> Any:
        """The server state after a round."""
        ...
