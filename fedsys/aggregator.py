"""What an aggregator is: how the admitted updates of a round become one movement of the model.

The weighted mean is what engines compute unless they are asked for more: they add clients up and
never see one by itself. An aggregator that looks at each update, or at all of them beside each
other, says so, and the engine hands them over; the algorithms are in `fedsys/aggregators/`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import ClassVar, Protocol

import numpy as np

from fedsys.strategy import Vector


class Sees(Enum):
    """What an aggregator has to see of a round: the less, the faster and smaller the round is."""

    SUMS = "sums over clients"
    EACH = "each update by itself"
    ALL = "all updates beside each other"


class Aggregator(Protocol):
    """The verbs of an aggregator. Updates are vectors of a layout's length: all that is averaged,
    so moving averages of batch normalisation, too.

    sees: of SUMS and EACH, the movement is the weighted mean of what `limit` leaves of the updates;
    of ALL, it is what `combine` makes of them, whatever they weigh.
    needs: the fewest updates of which it makes a movement. With fewer, the model stays.
    """

    @property
    def sees(self) -> Sees: ...

    @property
    def needs(self) -> int: ...

    def limit(self, update: Vector) -> Vector:
        """An update ([length]) as it is added up."""
        ...

    def combine(self, updates: np.ndarray) -> Vector:
        """[length] float64, the movement that updates ([clients, length], finite) come to."""
        ...


@dataclass(frozen=True)
class Mean:
    """The weighted mean of McMahan et al. 2017, Algorithm 1. One update of any size moves it as far
    as it likes."""

    sees: ClassVar[Sees] = Sees.SUMS
    needs: ClassVar[int] = 1

    def limit(self, update: Vector) -> Vector:
        return update

    def combine(self, updates: np.ndarray) -> Vector:
        raise NotImplementedError("a mean is added up, and sees no update by itself")
